"""What a feature causes, on a loud random model: against plain hooks and finite differences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import LAYERS, RandomSuite
from torch import Tensor

from workbench.analysis import causes as module
from workbench.analysis.causes import Causes, causes, causes_over, difference
from workbench.engine.edits import Scale
from workbench.engine.tracing import trace
from workbench.features import Features
from workbench.models import Model
from workbench.sites import Site
from workbench.tokens import Tokens, tokenize

ORIGIN = Site(0)
SITES = [Site(layer, kind) for layer in range(LAYERS) for kind in ("mlp", "res")]
LATER = [site for site in SITES if site > ORIGIN]


@pytest.fixture(scope="module")
def tokens(model: Model) -> Tokens:
    return tokenize(model.tokenizer, "The cat")


@pytest.fixture(scope="module")
def index(model: Model, suite: RandomSuite, tokens: Tokens) -> int:
    """The feature that is strongest after ``<bos>``, and fires there too."""
    x = trace(model, [tokens], [ORIGIN]).activations[ORIGIN][0]
    f = suite.saes[ORIGIN].encode(x)
    return int((f[1:].sum(0) * (f[0] > 0)).argmax())


@pytest.fixture(scope="module")
def found(model: Model, suite: RandomSuite, tokens: Tokens, index: int) -> Causes:
    return causes(model, suite, tokens, (ORIGIN, index), sites=SITES, estimate=12)


def run(
    model: Model, tokens: Tokens, step: Tensor | None = None
) -> tuple[dict[Site, Tensor], Tensor]:
    """Residual streams and logits by plain hooks, with `step` added after layer 0."""
    module: Any = model.module
    layers: Any = module.model.layers
    kept: dict[Site, Tensor] = {}

    def hook(number: int) -> Any:
        def go(_: object, __: object, x: Tensor) -> Tensor:
            x = x + step if number == 0 and step is not None else x
            kept[Site(number)] = x[0].detach()
            return x

        return go

    handles = [layer.register_forward_hook(hook(i)) for i, layer in enumerate(layers)]
    with torch.no_grad():
        logits = model.module(input_ids=torch.tensor([tokens.ids]), use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    return kept, logits


def removal(suite: RandomSuite, x: Tensor, index: int) -> Tensor:
    f = suite.saes[ORIGIN].encode(x)[:, index]
    f[0] = 0
    return -f[:, None] * suite.saes[ORIGIN].W_dec[index]


@pytest.mark.parametrize("how", ["ablate", 2.5])
def test_changes_are_those_of_plain_hooks(
    model: Model, suite: RandomSuite, tokens: Tokens, index: int, how: Any
) -> None:
    found = causes(model, suite, tokens, (ORIGIN, index), how=how, sites=SITES, estimate=0)
    plain, logits = run(model, tokens)
    step = removal(suite, plain[ORIGIN], index)
    edited, moved = run(model, tokens, step if how == "ablate" else step * -1.5)
    for site in (Site(1), Site(2)):
        sae, change = suite.saes[site], found.changes[site]
        wanted = (sae.encode(edited[site]) - sae.encode(plain[site])).detach()
        assert wanted[1:].abs().max() > 0.5
        torch.testing.assert_close(change.totals, wanted[1:].sum(0), rtol=1e-3, atol=1e-2)
        assert change.tokens is not None
        torch.testing.assert_close(change.tokens.dense(), wanted, rtol=1e-3, atol=1e-2)
    last = (moved - logits)[-1]
    torch.testing.assert_close(found.logits, last - last.mean(), rtol=1e-3, atol=1e-2)
    assert list(found.changes) == LATER
    assert found.count == int((step[:, 0] != 0).sum())


def test_controls_are_as_long_and_go_another_way(
    model: Model, suite: RandomSuite, tokens: Tokens, index: int
) -> None:
    """Every active feature as a control: the null is the largest change that any of them makes."""
    plain, _ = run(model, tokens)
    f = suite.saes[ORIGIN].encode(plain[ORIGIN])
    others = [i for i in range(f.shape[1]) if i != index and (f[1:, i] > 0).any()]
    found = causes(
        model, suite, tokens, (ORIGIN, index), sites=SITES, controls=len(others), estimate=0
    )
    length = removal(suite, plain[ORIGIN], index).norm(dim=-1, keepdim=True)
    null: dict[Site, list[Tensor]] = {Site(1): [], Site(2): []}
    for other in others:
        row = suite.saes[ORIGIN].W_dec[other]
        edited, _ = run(model, tokens, -length * row / row.norm())
        for site, rows in null.items():
            sae = suite.saes[site]
            rows.append((sae.encode(edited[site]) - sae.encode(plain[site]))[1:].sum(0).abs())
    for site, rows in null.items():
        wanted = torch.stack(rows).amax(0).detach()
        torch.testing.assert_close(found.changes[site].null, wanted, rtol=1e-3, atol=1e-2)


def test_links_are_changes_above_every_control(found: Causes, index: int) -> None:
    links = found.links(10_000)
    every = {(site, i) for site, c in found.changes.items() for i in range(len(c.totals))}
    caused = {
        (site, i) for site, i in every
        if abs(found.changes[site].totals[i]) > found.changes[site].null[i]
    }  # fmt: skip
    assert {link.target for link in links} == caused
    assert 0 < len(caused) < len(every) / 2, "a control matters"
    for link in links:
        site, i = link.target
        assert link.source == (ORIGIN, index)
        assert link.tie == "causes"
        assert link.strength == float(found.changes[site].totals[i])
        assert link.margin == pytest.approx(abs(link.strength) - float(found.changes[site].null[i]))
        assert link.margin > 0
    sizes = [abs(link.strength) for link in links]
    assert sizes == sorted(sizes, reverse=True)
    assert found.links(3) == links[:3]


def test_estimates_are_the_slope_of_a_small_ablation(
    model: Model, suite: RandomSuite, tokens: Tokens, index: int, found: Causes
) -> None:
    """A hundredth taken away, times a hundred, with the features that are active staying so."""
    step = 1e-3
    each = [[Scale((0, index), 1 + sign * step)] for sign in (1, -1)]
    x = trace(model, [tokens] * 2, LATER, each=each, source=suite).activations
    plain = trace(model, [tokens], LATER).activations
    assert len(found.estimates) == 12
    assert len({site for site, _ in found.estimates}) > 1
    for (site, i), estimate in found.estimates.items():
        sae = suite.saes[site]
        on = sae.encode(plain[site][0])[1:, i] > 0
        more, less = ((x[site][row, 1:].double() @ sae.W_enc[:, i].double())[on] for row in (0, 1))
        slope = float((more - less).sum()) / (2 * step)
        assert estimate == pytest.approx(-slope, rel=0.05, abs=0.05)
    assert max(map(abs, found.estimates.values())) > 0.5
    twice = causes(model, suite, tokens, (ORIGIN, index), how=3.0, sites=SITES, estimate=3)
    for one, value in twice.estimates.items():
        if one in found.estimates:
            assert value == pytest.approx(-2 * found.estimates[one], rel=1e-3, abs=1e-3)


def test_tables_and_agreement(found: Causes) -> None:
    top: Any = found.top(12)
    assert top["change"].abs().is_monotonic_decreasing
    assert top["estimate"].notna().all()
    assert set(zip(top["layer"], top["kind"], top["feature"], strict=True)) == {
        (site.layer, site.kind, i) for site, i in found.estimates
    }
    a, b = (top[name].rank() for name in ("change", "estimate"))
    assert found.agreement == pytest.approx(1 - 6 * float(((a - b) ** 2).sum()) / (12 * 143))
    tokens: Any = found.next_tokens(3)
    assert len(tokens) == 6
    assert tokens["change"].is_monotonic_decreasing
    assert tokens["change"].iloc[0] == float(found.logits.max())
    assert tokens["change"].iloc[-1] == float(found.logits.min())


def test_over_documents_it_is_the_mean(
    model: Model, suite: RandomSuite, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [tokenize(model.tokenizer, text) for text in ("The cat", "Hi 5 of them")]
    monkeypatch.setattr(module, "_passages", lambda *_: texts)
    feature: Any = (ORIGIN, index)
    over = causes_over(model, suite, None, feature, sites=SITES)  # pyright: ignore
    alone = [causes(model, suite, text, feature, sites=SITES, estimate=0) for text in texts]
    assert over.count == sum(one.count for one in alone)
    for site in LATER:
        mean = sum(one.changes[site].totals for one in alone) / 2
        torch.testing.assert_close(over.changes[site].totals, mean, rtol=1e-3, atol=1e-3)
        assert over.changes[site].tokens is None
    moved = []
    for text in texts:
        plain, before = run(model, text)
        step = removal(suite, plain[ORIGIN], index)
        _, after = run(model, text, step)
        mine = (after - before)[step.abs().sum(-1) > 0].mean(0)
        moved.append(mine - mine.mean())
    torch.testing.assert_close(over.logits, sum(moved) / 2, rtol=1e-3, atol=1e-2)


def test_a_small_memory_gives_the_same(
    model: Model, suite: RandomSuite, tokens: Tokens, index: int, found: Causes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "VALUES", 1)
    again = causes(model, suite, tokens, (ORIGIN, index), sites=SITES, estimate=12)
    for site, change in found.changes.items():
        torch.testing.assert_close(again.changes[site].totals, change.totals, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(again.changes[site].null, change.null, rtol=1e-3, atol=1e-3)
    assert again.estimates == pytest.approx(found.estimates, rel=1e-3, abs=1e-3)


def test_differences_keep_what_appears_and_what_goes(tokens: Tokens) -> None:
    def of(rows: list[tuple[int, int, float]]) -> Features:
        p, i, v = (torch.tensor(column) for column in zip(*rows, strict=True))
        return Features(ORIGIN, tokens, p, i, v, 9)

    got = difference(
        of([(1, 2, 3.0), (1, 4, 1.0), (2, 0, 5.0)]), of([(1, 4, 1.0), (2, 0, 2.0), (3, 8, 7.0)])
    )
    entries = zip(got.positions.tolist(), got.indices.tolist(), got.values.tolist(), strict=True)
    assert list(entries) == [(1, 2, -3.0), (2, 0, -3.0), (3, 8, 7.0)]


def test_what_makes_no_sense_is_refused(
    model: Model, suite: RandomSuite, tokens: Tokens, index: int
) -> None:
    def go(feature: Any = (ORIGIN, index), sites: Any = SITES, **options: Any) -> None:
        causes(model, suite, tokens, feature, sites=sites, **options)

    for how in (1, float("nan"), "amplify", True):
        with pytest.raises(ValueError, match="how is 'ablate' or a factor other than 1"):
            go(how=how)
    with pytest.raises(ValueError, match=r"no site is later than layer 2 res.*given: layer 0 mlp"):
        go((Site(2), 0))
    with pytest.raises(ValueError, match="controls is a number of features, 0 or more; got -1"):
        go(controls=-1)
    sae = suite.saes[ORIGIN]
    assert sae.threshold is not None
    deaf = replace(sae, threshold=sae.threshold + 1e6 * (torch.arange(40) == 7))
    silent = RandomSuite({**suite.saes, ORIGIN: deaf})
    with pytest.raises(ValueError, match=r"feature 7 at layer 0 res fires nowhere in '.*The cat'"):
        causes(model, silent, tokens, (ORIGIN, 7), sites=SITES)
    with pytest.raises(ValueError, match="40"):
        go((ORIGIN, 40))
