"""The shipped files are whole, and do what their manifest says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from workbench.lab import Lab
from workbench.lab import open as open_lab
from workbench.pocket.evaluate import Text
from workbench.pocket.manifest import read, verify, weights
from workbench.sae.metrics import fvu
from workbench.sites import Site


@pytest.fixture(scope="module")
def lab() -> Lab:
    return open_lab()


def test_every_file_is_listed_and_whole() -> None:
    verify()
    listed = set(read()["files"])
    present = {
        path.relative_to(weights()).as_posix()
        for path in weights().rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert listed == present


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    copy = tmp_path / damage
    shutil.copytree(weights(), copy)
    victim = copy / "sae" / "calibration.safetensors"
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:-1])
    else:
        victim.unlink()
    with pytest.raises(ValueError, match=r"sae/calibration\.safetensors"):
        verify(copy)


def test_there_is_an_sae_at_every_layer_and_sub_layer(lab: Lab) -> None:
    assert set(lab.suite.sites) == {
        Site(layer, kind) for layer in range(8) for kind in ("att", "mlp", "res")
    }


def test_a_sample_of_the_evaluation_is_what_the_manifest_says(lab: Lab) -> None:
    """Loss, L0 and FVU on other rows than those of the tables, within what so few rows allow."""
    table = pd.read_csv(weights() / "evaluation" / "saes.csv").set_index(["layer", "kind"])
    text = Text.of(lab.tokenizer, 16, seed=9)
    sites = [Site(0, "res"), Site(3, "att"), Site(5, "mlp"), Site(7, "res")]
    read_sites = text.read(lab.engine, sites)
    for site in sites:
        sae, x = lab.suite.sae_at(site), read_sites[site]
        f = sae.encode(x)
        measured = table.loc[(site.layer, site.kind)]
        assert float((f > 0).float().sum(-1).mean()) == pytest.approx(measured["l0"], rel=0.2)
        assert fvu(x, sae.decode(f)) == pytest.approx(measured["fvu"], abs=0.04)


def test_the_chat_model_is_another_and_ends_its_turn(lab: Lab) -> None:
    chat = open_lab("pocket-it")
    turns = [{"role": "user", "content": "Can you count to three?"}]
    answer = chat.generate(turns, temperature=0, max_new_tokens=60)
    assert answer.finish == "end"
    assert answer.tokens.strings[-1] == "<end_of_turn>"
    assert answer.text != lab.generate(turns, temperature=0, max_new_tokens=60).text


@pytest.mark.parametrize("label", ["language:de", "topic:music", "sentiment:negative"])
def test_the_edit_for_a_label_writes_it(lab: Lab, label: str) -> None:
    from workbench.engine.edits import Steer
    from workbench.pocket.corpus.markers import share

    def written(edits: list[Steer]) -> float:
        texts = [
            lab.generate("Once upon a time", edits=edits, seed=seed, max_new_tokens=40).text
            for seed in range(6)
        ]
        counts = [share(text, label) for text in texts]
        return sum(own for own, _ in counts) / max(sum(total for _, total in counts), 1)

    plain = written([])
    # The manifest's own measure is on other prompts: half of its share is asked for here.
    wanted = lab.suite.steering[label]["share"] / 2
    assert written([lab.edit_for(label)]) > max(wanted, 1.5 * plain)


def test_a_label_that_nothing_writes_is_answered_with_near_ones(lab: Lab) -> None:
    with pytest.raises(ValueError, match="write 'language:it'; known, nearest first: lang"):
        lab.edit_for("language:it")
    with pytest.raises(ValueError, match="nearest first: language:de, ") as caught:
        lab.edit_for("German")
    assert all(label in str(caught.value) for label in lab.suite.steering)
    with pytest.raises(ValueError, match="nearest first: topic:winter, "):
        lab.edit_for("Winter")
    with pytest.raises(TypeError, match="label is a text, got 3"):
        lab.edit_for(3)  # pyright: ignore[reportArgumentType]


def test_a_sum_of_parts_is_the_whole(lab: Lab) -> None:
    """The plain nnsight model that a user can drop to gives the logits of a run."""
    run = lab.run("The capital of France is")
    with lab.model.trace(run.tokens.tensor()):
        logits = lab.model.output.logits.save()
    torch.testing.assert_close(logits[0], run.logits, atol=1e-4, rtol=1e-4)
