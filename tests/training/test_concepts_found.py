"""Marking SAEs by the truth: an SAE that was built to know a concept, beside one that cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from workbench.lab import Lab
from workbench.pocket.found import concepts_found
from workbench.sae import SAE, SAEConfig

ROWS = 80
"""With fewer, the languages are too rare to be marked."""


def difference(lab: Lab) -> SAE:
    """One feature: the direction from English to German, found with no SAE; and a dead one."""
    pairs = [
        ("Das Boot ist im Hafen und die Stadt ist schön.", "The boat is in the harbour."),
        ("Anna liebt den Garten, aber nicht das Haus.", "Anna loves the garden and the house."),
    ]
    german, english = (
        torch.cat([lab.run(text).activation(3, "res")[1:] for text in texts])
        for texts in zip(*pairs, strict=True)
    )
    way = german.mean(0) - english.mean(0)
    way /= way.norm()
    middle = (german.mean(0) + english.mean(0)) / 2
    config = SAEConfig("pocket", 3, "res", 2, None, "", 128, 128, 2)
    return SAE(
        W_enc=torch.stack([way, torch.zeros(128)], 1),
        b_enc=torch.tensor([float(-middle @ way), -1.0]),
        W_dec=torch.stack([way, way]),
        b_dec=torch.zeros(128),
        threshold=None,
        activation="relu",
        k=None,
        config=config,
    )


def test_a_feature_that_knows_german_is_marked_for_german(pocket: Lab) -> None:
    shipped = pocket.sae(layer=3)
    built = difference(pocket)
    blind = replace(built, W_enc=torch.zeros(128, 2), b_enc=torch.ones(2))
    saes = {"built": built, "blind": blind, "shipped": shipped}
    marks: Any = concepts_found(pocket.engine, saes, rows=ROWS)
    german = marks.loc["language:de"]
    assert german["of"] == "stretch"
    assert german["built"] > 0.85
    assert german["blind"] == 0.5  # all ties
    assert german["limit"] == 0.95
    assert set(marks["of"]) == {"token", "stretch"}
    assert (marks["support"] >= 30).all()
    assert marks["shipped"].ge(marks["limit"]).sum() >= 4
    assert not marks["blind"].ge(marks["limit"]).any()


def test_only_saes_of_one_site_are_marked(pocket: Lab) -> None:
    saes = {"a": pocket.sae(layer=3), "b": pocket.sae(layer=4)}
    with pytest.raises(ValueError, match="SAEs of one site are compared"):
        concepts_found(pocket.engine, saes)
