"""What training is for: SAEs that reconstruct at the L0 that was asked for, and their figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from workbench.analysis.side_by_side import side_by_side
from workbench.lab import Lab
from workbench.sae import SAE
from workbench.sites import Site
from workbench.training import Together, TrainConfig
from workbench.training.trainer import Trainer

D_IN, D_SAE, TRUE = 24, 48, 32
CONFIG = TrainConfig(
    d_sae=D_SAE,
    target_l0=3.0,
    steps=300,
    batch_size=256,
    lr=1e-2,
    warmup_steps=20,
    dead_tokens=5000,
    revive_every=50,
    log_every=50,
)
LIMITS = {"jumprelu": 0.1, "topk": 0.1, "relu": 0.6}
"""Residual variance; the L1 penalty shrinks what a ReLU reconstructs."""


class Planted:
    """A stream whose true directions are known: each token is the sum of three of them."""

    is_transcoder, width, site = False, D_IN, Site(0)

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(1)
        rows = torch.randn(TRUE, D_IN, generator=self._generator)
        self.directions = rows / rows.norm(dim=1, keepdim=True)

    def batch(self, size: int) -> tuple[Tensor, None]:
        chosen = torch.rand(size, TRUE, generator=self._generator).topk(3, dim=1).indices
        sizes = 1 + torch.rand(size, 3, generator=self._generator)
        f = torch.zeros(size, TRUE).scatter_(1, chosen, sizes)
        return 7 * (f @ self.directions) + 2.0, None


@pytest.fixture(scope="module")
def trained() -> tuple[Planted, Together]:
    stream = Planted()
    kinds = ("jumprelu", "topk", "relu")
    configs = {kind: replace(CONFIG, activation=kind, sparsity=None) for kind in kinds}
    together = Together(stream, configs)  # pyright: ignore[reportArgumentType]
    while not together.finished:
        together.step()
    return stream, together


@pytest.mark.parametrize("kind", ["jumprelu", "topk", "relu"])
def test_the_planted_directions_are_found_at_the_l0_that_was_asked_for(
    trained: tuple[Planted, Together], kind: str
) -> None:
    stream, together = trained
    sae = together.saes()[kind]
    x, _ = stream.batch(2000)
    f = sae.encode(x)
    assert float((f > 0).float().sum(1).mean()) == pytest.approx(3.0, abs=0.4)
    residual = (sae.decode(f) - x).square().sum() / (x - x.mean(0)).square().sum()
    assert float(residual) < LIMITS[kind]
    cosines = (stream.directions @ sae.W_dec.T).max(1).values
    assert int((cosines > 0.8).sum()) >= 0.9 * TRUE
    # As many directions that were never trained reach 0.7 at best.
    drawn = torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(9))
    drawn /= drawn.norm(dim=1, keepdim=True)
    assert float((stream.directions @ drawn.T).max()) < 0.8


@pytest.mark.parametrize("done", [2, 10, 120, 121])
def test_a_jumprelu_that_is_stopped_early_is_what_was_trained(done: int) -> None:
    """Up to step 120 of 300 it selects as a TopK does, with a k that falls to the target."""
    stream, trainer = Planted(), Trainer(replace(CONFIG, log_every=1), D_IN)
    for _ in range(done - 1):
        trainer.step(stream.batch(256)[0])
    before = trainer.sae()  # of the next step's function, so that its figures can be compared
    x = stream.batch(256)[0]
    figures = trainer.step(x)
    after = trainer.sae()
    again = Trainer(trainer.config, D_IN)
    again.load_state_dict(trainer.state_dict())
    for name in ("k", "activation"):
        assert getattr(again.sae(), name) == getattr(after, name)
    assert after.activation == ("topk" if done <= 120 else "jumprelu")
    assert (after.threshold is None) == (done <= 120)
    if done > 120:
        return
    f = replace(before, k=after.k, activation="topk", threshold=None).encode(x)
    assert float((f > 0).float().sum(1).mean()) == pytest.approx(figures["l0"], abs=1e-3)
    residual = (before.decode(f) - x).square().sum() / (x - x.mean(0)).square().sum()
    assert float(residual) == pytest.approx(figures["fvu"], rel=1e-3)
    assert after.k == {2: 9, 10: 8, 120: 3}[done]


def test_a_jumprelu_without_steps_for_its_thresholds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"topk_until=1\.0: expected below 1 .*activation='topk'"):
        replace(CONFIG, topk_until=1.0)
    for kind in ("topk", "relu"):
        assert replace(CONFIG, activation=kind, topk_until=1.0).topk_until == 1


def test_every_sae_saw_the_same_tokens_and_the_history_says_how_many(
    trained: tuple[Planted, Together],
) -> None:
    _, together = trained
    frame: Any = together.frame()
    assert frame["name"].value_counts().to_dict() == dict.fromkeys(("jumprelu", "topk", "relu"), 6)
    assert (frame["tokens"] == frame["step"] * 256).all()
    assert frame["step"].max() == 300
    last = frame[frame["step"] == 300].set_index("name")
    assert last.loc["topk", "l0"] <= 3.0
    assert last["fvu"].idxmax() == "relu"


def test_saes_of_different_length_end_when_they_are_done() -> None:
    short, long = (replace(CONFIG, steps=steps, log_every=1) for steps in (3, 5))
    together = Together(Planted(), {"short": short, "long": long})  # pyright: ignore[reportArgumentType]
    while not together.finished:
        together.step()
    assert together.frame()["name"].value_counts().to_dict() == {"long": 5, "short": 3}
    with pytest.raises(ValueError, match="all 5 steps are done"):
        together.step()


def test_configurations_that_do_not_fit_are_refused() -> None:
    stream = Planted()
    other = replace(CONFIG, batch_size=128)
    for configs, error, words in (
        ({}, ValueError, "configs is empty"),
        ({"a": CONFIG, "b": other}, ValueError, r"one batch_size, got \[128, 256\]"),
        ({"a": "topk"}, TypeError, r"configs\['a'\] is 'topk': expected a TrainConfig"),
    ):
        with pytest.raises(error, match=words):
            Together(stream, configs)  # pyright: ignore[reportArgumentType]


def test_a_relu_starts_with_a_penalty_of_its_own() -> None:
    assert TrainConfig(activation="relu").weight == 0.1
    assert TrainConfig().weight == 3.0
    assert TrainConfig(activation="relu", sparsity=2.0).weight == 2.0
    config = TrainConfig(activation="relu")
    assert TrainConfig(**config.to_dict()) == config


def scaled(sae: SAE, factor: float) -> SAE:
    """The SAE with its reconstruction scaled around its bias."""
    return replace(sae, W_dec=sae.W_dec * factor)


def test_side_by_side_agrees_with_check_and_sees_what_was_done_to_an_sae(pocket: Lab) -> None:
    passages = [pocket.tokens(text[:300]) for text in pocket.suite.sample[:4]]
    sae = pocket.sae(layer=3)
    assert sae.threshold is not None
    quiet = torch.arange(sae.config.d_sae) % 2 == 0
    halved = replace(sae, threshold=torch.where(quiet, 1e9, sae.threshold))
    saes = {"whole": sae, "small": scaled(sae, 0.5), "halved": halved}
    table = side_by_side(pocket.engine, saes, passages)
    known = pocket.check(sae, texts=[text.text for text in passages])
    row = table.loc["whole"]
    assert row["tokens"] == known.fit.tokens
    assert row["l0"] == pytest.approx(known.fit.l0)
    assert row["fvu"] == pytest.approx(known.fit.fvu, rel=1e-4)
    assert row["loss"] == pytest.approx(known.loss, rel=1e-4)
    assert row["spliced"] == pytest.approx(known.spliced, rel=1e-4)
    assert row["recovered"] == pytest.approx(known.recovered, rel=1e-4)
    assert row["scale"] == pytest.approx(1.0, abs=0.05)
    # The mean is no part of the scale, so that half of the rest is about a half.
    assert table.loc["small", "scale"] == pytest.approx(0.5, abs=0.08)
    assert table.loc["small", "fvu"] > 2 * row["fvu"]
    assert table.loc["halved", "dead"] >= 0.5 > row["dead"]
    assert table.loc["halved", "l0"] < row["l0"]
    assert table.loc["halved", "recovered"] < row["recovered"]


def test_names_are_the_users_own(pocket: Lab) -> None:
    passages = [pocket.tokens(text[:200]) for text in pocket.suite.sample[:2]]
    sae = pocket.sae(layer=3)
    saes = {"a": sae, "b": scaled(sae, 0.5)}
    usual = side_by_side(pocket.engine, saes, passages)
    taken = side_by_side(pocket.engine, {"clean": saes["a"], "zero": saes["b"]}, passages)
    assert list(taken.index) == ["clean", "zero"]
    pd.testing.assert_frame_equal(taken.reset_index(drop=True), usual.reset_index(drop=True))


def test_only_saes_of_one_site_are_compared(pocket: Lab) -> None:
    saes = {"a": pocket.sae(layer=3), "b": pocket.sae(layer=4)}
    with pytest.raises(ValueError, match="SAEs of one site are compared"):
        side_by_side(pocket.engine, saes, [pocket.tokens("Anna loved the boat.")])
    with pytest.raises(ValueError, match="fewer than two tokens"):
        side_by_side(pocket.engine, {"a": pocket.sae(layer=3)}, [])
