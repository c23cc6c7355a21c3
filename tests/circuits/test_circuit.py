"""Circuits of a loud random model: against plain hooks, finite differences and written-out sums."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from conftest import LAYERS, RandomSuite
from torch import Tensor

from workbench.analysis.attribution import DIMMED, Target, attribute
from workbench.analysis.circuit import Circuit, Node
from workbench.analysis.circuit_edges import strongest, trace_circuit
from workbench.analysis.faithfulness import Spot, measure, random_spots
from workbench.engine.edits import Ablate, Clamp
from workbench.engine.tracing import pullbacks, trace
from workbench.models import Model
from workbench.sites import Site
from workbench.tokens import Tokens, tokenize

SITES = [Site(layer) for layer in range(LAYERS)]
ALL = 10**6


@pytest.fixture(scope="module")
def tokens(model: Model) -> Tokens:
    return tokenize(model.tokenizer, "The cat")


@pytest.fixture(scope="module")
def target(model: Model, tokens: Tokens) -> Target:
    """After a token from which every layer still sees ``<bos>``, and which is not the last."""
    return Target.of(model, tokens, "m", 5)


@pytest.fixture(scope="module")
def whole(model: Model, suite: RandomSuite, tokens: Tokens, target: Target) -> Circuit:
    """Nothing pruned."""
    return trace_circuit(model, suite, tokens, target, SITES, k=ALL, floor=0.0, dimmed=0)


@contextmanager
def hooked(model: Model, changes: dict[int, Callable[[Tensor], Tensor]]) -> Any:
    """Plain hooks that change the output of layers, and keep what left each."""
    module: Any = model.module
    layers: Any = module.model.layers
    kept: dict[int, Tensor] = {}

    def hook(number: int) -> Callable:
        def run(_: object, __: object, x: Tensor) -> Tensor:
            kept[number] = changes[number](x) if number in changes else x
            return kept[number]

        return run

    handles = [layer.register_forward_hook(hook(i)) for i, layer in enumerate(layers)]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def score_of(model: Model, tokens: Tokens, target: Target) -> Tensor:
    logits = model.module(input_ids=torch.tensor([tokens.ids]), use_cache=False).logits[0]
    row = logits[target.position]
    return row[target.token] - row.mean()


def slopes(model: Model, tokens: Tokens, target: Target) -> tuple[dict[int, Tensor], dict]:
    """Activation and gradient after every layer ``(pos, d)``, by autograd through hooks."""
    with torch.enable_grad(), hooked(model, {}) as kept:
        score = score_of(model, tokens, target)
        found = torch.autograd.grad(score, list(kept.values()))
    return (
        {i: x.detach()[0] for i, x in kept.items()},
        dict(zip(kept, (g[0] for g in found), strict=True)),
    )


def share(suite: RandomSuite, x: Tensor, node: Node) -> Tensor:
    """The part of the stream ``x`` ``(pos, d)`` that a node is."""
    assert node.site is not None
    sae = suite.saes[node.site]
    if node.index is not None:
        return sae.encode(x[node.position])[node.index] * sae.W_dec[node.index]
    if node.position == 0:
        return x[0]
    return x[node.position] - sae.encode(x[node.position]) @ sae.W_dec


def outflow(circuit: Circuit) -> dict[str, float]:
    """The sum of the edges out of each node."""
    sums: dict[str, float] = {}
    for edge in circuit.edges:
        sums[edge.source] = sums.get(edge.source, 0.0) + edge.weight
    return sums


def test_edges_out_of_a_node_add_up_to_what_it_carries(whole: Circuit) -> None:
    sums = outflow(whole)
    assert len({node.site for node in whole.nodes}) == 4
    sizes = [abs(node.attribution) for node in whole.nodes[:-1]]
    assert max(sizes) > 1, "a quiet model would hide a mistake"
    for node in whole.nodes[:-1]:
        assert sums.get(node.name, 0.0) == pytest.approx(node.attribution, rel=1e-3, abs=2e-3)


def test_what_nodes_carry_is_share_times_gradient(
    model: Model, suite: RandomSuite, tokens: Tokens, target: Target, whole: Circuit
) -> None:
    x, g = slopes(model, tokens, target)
    count = 0
    for node in whole.nodes:
        if node.site is not None:
            layer = node.site.layer
            wanted = float(share(suite, x[layer], node) @ g[layer][node.position])
            assert node.attribution == pytest.approx(wanted, rel=1e-3, abs=1e-3)
            count += 1
    # Every active feature that leads to the target: at the last layer those of its token alone.
    matters = 0
    for site in SITES:
        start = target.position if site == SITES[-1] else 1
        matters += int((suite.saes[site].encode(x[site.layer][start:6]) > 0).sum())
    assert count == matters + len(SITES) * (target.position + 1)


@pytest.mark.parametrize("end", ["feature", "error", "<bos>"])
def test_an_edge_is_a_finite_difference_between_two_layers(
    model: Model, suite: RandomSuite, tokens: Tokens, target: Target, whole: Circuit, end: str
) -> None:
    x, g = slopes(model, tokens, target)
    names = whole.by_name
    first = {
        "feature": lambda n: n.kind == "feature",
        "error": lambda n: n.kind == "error" and n.position > 0,
        "<bos>": lambda n: n.kind == "error" and n.position == 0,
    }[end]
    edges = [e for e in whole.edges if names[e.source].site == Site(0) and first(names[e.target])]
    edges.sort(key=lambda e: -abs(e.weight))
    assert abs(edges[0].weight) > 0.1 or end == "<bos>"
    kinds = {names[edge.source].kind for edge in edges[:40]}
    assert kinds == ({"error"} if end == "<bos>" else {"feature", "error"})
    for edge in [*edges[:4], *edges[30:32]]:
        source, to = names[edge.source], names[edge.target]
        part = share(suite, x[0], source)
        step = 1e-2 / float(part.norm())

        def value(sign: int, source=source, to=to, part=part, step=step) -> float:
            def change(y: Tensor) -> Tensor:
                y = y.clone()
                y[0, source.position] += sign * step * part
                return y

            with torch.no_grad(), hooked(model, {0: change}) as kept:
                score_of(model, tokens, target)
            y, p = kept[1][0].double(), to.position
            if p == 0:
                return float(y[0] @ g[1][0].double())
            sae = suite.saes[Site(1)]
            pre = y[p] @ sae.W_enc.double() + sae.b_enc.double()
            along = sae.W_dec.double() @ g[1][p].double()
            if to.index is not None:
                return float(pre[to.index] * along[to.index])
            on = sae.encode(x[1][p]) > 0  # the features that are active stay so
            return float(y[p] @ g[1][p].double() - (pre * along)[on].sum())

        slope = (value(1) - value(-1)) / (2 * step)
        assert edge.weight == pytest.approx(slope, rel=0.03, abs=0.02)


def test_pruning_leaves_the_rest_as_it_was(
    model: Model, suite: RandomSuite, tokens: Tokens, target: Target, whole: Circuit
) -> None:
    few = trace_circuit(model, suite, tokens, target, SITES, k=9, floor=0.05, dimmed=0)
    features = sorted(whole.features, key=lambda n: -abs(n.attribution))[:9]
    assert {node.name for node in few.features} == {node.name for node in features}
    least = 0.05 * abs(few.score)
    errors = {n.name for n in whole.nodes if n.kind == "error" and abs(n.attribution) >= least}
    assert {n.name for n in few.nodes if n.kind == "error"} == errors
    all_of = {(e.source, e.target): e.weight for e in whole.edges}
    kept = {n.name for n in few.nodes}
    wanted = {p: w for p, w in all_of.items() if {*p} <= kept and abs(w) >= least}
    assert {(e.source, e.target): e.weight for e in few.edges} == pytest.approx(wanted, rel=1e-3)
    assert 0 < len(wanted) < len(all_of)


def kept_alone(
    suite: RandomSuite, spots: set[Spot], *, error: bool
) -> dict[int, Callable[[Tensor], Tensor]]:
    """Everything but `spots` ablated, as the formula says."""

    def change(site: Site) -> Callable[[Tensor], Tensor]:
        sae = suite.saes[site]

        def run(x: Tensor) -> Tensor:
            f = sae.encode(x)
            mask = torch.zeros_like(f)
            for at, position, index in spots:
                if at == site:
                    mask[0, position, index] = 1
            y = (f * mask) @ sae.W_dec + sae.b_dec
            if error:
                y = y + x - f @ sae.W_dec - sae.b_dec
            y[:, 0] = x[:, 0]
            return y

        return run

    return {site.layer: change(site) for site in SITES}


def dropped(suite: RandomSuite, spots: set[Spot]) -> dict[int, Callable[[Tensor], Tensor]]:
    """`spots` ablated and nothing else."""

    def change(site: Site) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            f, y = suite.saes[site].encode(x), x.clone()
            for at, position, index in spots:
                if at == site:
                    y[0, position] -= f[0, position, index] * suite.saes[site].W_dec[index]
            return y

        return run

    return {site.layer: change(site) for site in SITES}


def test_faithfulness_is_what_plain_hooks_say(
    model: Model, suite: RandomSuite, tokens: Tokens, target: Target, whole: Circuit
) -> None:
    sets: list[set[Spot]] = [
        {(n.site, n.position, n.index) for n in nodes if n.site and n.index is not None}
        for nodes in (whole.features[::3], whole.features[::7])
    ]
    found = measure(model, suite, tokens, target, SITES, sets)

    def score(changes: dict[int, Callable[[Tensor], Tensor]]) -> float:
        with torch.no_grad(), hooked(model, changes):
            return float(score_of(model, tokens, target))

    empty, errors = (score(kept_alone(suite, set(), error=error)) for error in (False, True))
    for one, spots in zip(found, sets, strict=True):
        alone, both = (score(kept_alone(suite, spots, error=error)) for error in (False, True))
        wanted = (score({}), empty, alone, errors, both, score(dropped(suite, spots)))
        got = (one.model, one.empty, one.circuit, one.errors, one.circuit_and_errors, one.removed)
        assert got == pytest.approx(wanted, rel=1e-3, abs=1e-2)
        assert len({round(value, 1) for value in wanted}) > 4, "different, or a mix-up hides"
        m, e = wanted[0], wanted[1]
        assert one.faithfulness == pytest.approx((wanted[2] - e) / (m - e), abs=1e-2)
        assert one.faithfulness_with_errors == pytest.approx((wanted[4] - e) / (m - e), abs=1e-2)
        above = (wanted[4] - wanted[3]) / (m - wanted[3])
        assert one.above_errors == pytest.approx(above, abs=1e-2)
        assert one.completeness == pytest.approx((wanted[5] - e) / (m - e), abs=1e-2)


def test_the_second_slope_is_taken_where_features_are_dimmed(
    model: Model, suite: RandomSuite, tokens: Tokens, target: Target
) -> None:
    sites = [Site(0, "mlp"), *SITES]
    plain = attribute(model, suite, tokens, target, sites)
    found = attribute(model, suite, tokens, target, sites, dimmed=2)
    x, g = slopes(model, tokens, target)
    # Of three layers two are dimmed, 0 and 2 (1.5, to the even side); layer 1 takes layer 0's.
    for layer, dim in ((0, 0), (1, 0), (2, 2)):
        sae = suite.saes[Site(dim)]
        end = x[dim] - DIMMED * sae.encode(x[dim]) @ sae.W_dec
        end[0] = x[dim][0]
        leaf = end[None].requires_grad_()
        with torch.enable_grad(), hooked(model, {dim: lambda _, leaf=leaf: leaf}) as kept:
            score = score_of(model, tokens, target)
            [second] = torch.autograd.grad(score, kept[layer])
        part, rows = found.parts[Site(layer)], suite.saes[Site(layer)].W_dec
        mean = (g[layer] + second[0]) / 2
        wanted = suite.saes[Site(layer)].encode(x[layer]) * (mean @ rows.T)
        got = part.effects.dense()
        torch.testing.assert_close(got[1:], wanted[1:].detach(), rtol=2e-3, atol=2e-3)
        assert (got - plain.parts[Site(layer)].effects.dense())[1:].abs().max() > 0.1
        torch.testing.assert_close(part.remainder, plain.parts[Site(layer)].remainder)
    before = Site(0, "mlp")  # below every dimmed layer: its plain slope
    assert torch.equal(found.parts[before].effects.values, plain.parts[before].effects.values)


def test_check_ablates_the_largest_one_by_one(
    model: Model, suite: RandomSuite, tokens: Tokens, target: Target
) -> None:
    found = attribute(model, suite, tokens, target, SITES)
    check = found.check(6)
    frame: Any = check.frame
    assert frame["feature"].tolist() == found.top(6)["feature"].tolist()
    for row in frame.itertuples():
        edits = [Ablate((row.layer, row.feature), kind=row.kind)]
        logits = trace(model, [tokens], edits=edits, source=suite).logits[0]
        assert row.ablation == pytest.approx(found.score - float(target.score(logits)), abs=1e-2)
    a, b = (frame[name].rank().to_numpy() for name in ("attribution", "ablation"))
    rho = 1 - 6 * float(((a - b) ** 2).sum()) / (6 * 35)  # Spearman's formula without ties
    assert check.rank_correlation == pytest.approx(rho)
    opened = type(found)(found.tokens, found.target, found.score, found.parts)
    with pytest.raises(ValueError, match="no model to run"):
        opened.check()


def test_edits_of_the_run_are_in_the_circuit(
    model: Model, suite: RandomSuite, tokens: Tokens, target: Target, whole: Circuit
) -> None:
    edits = [Clamp((0, 3), 9.0, unit="raw")]
    found = trace_circuit(model, suite, tokens, target, SITES, k=ALL, floor=0.0, edits=edits)
    assert found.faithfulness is None
    assert abs(found.score - whole.score) > 0.1
    sums = outflow(found)
    for node in found.nodes[:-1]:
        assert sums.get(node.name, 0.0) == pytest.approx(node.attribution, rel=1e-3, abs=2e-3)


def test_random_features_are_active_and_before_the_target(
    model: Model, suite: RandomSuite, tokens: Tokens, target: Target
) -> None:
    parts = attribute(model, suite, tokens, target, SITES).parts
    active = [part.activations for part in parts.values()]
    spots = random_spots(active, 12, 4, seed=1)
    assert len(set(spots)) == 12
    assert all(0 < p <= 4 and parts[s].activations.of(i)[p] > 0 for s, p, i in spots)
    assert spots == random_spots(active, 12, 4, seed=1) != random_spots(active, 12, 4, seed=2)
    every = sum(int(((a.positions > 0) & (a.positions <= 4)).sum()) for a in active)
    assert len(random_spots(active, ALL, 4, seed=1)) == every


def test_what_makes_no_sense_is_refused(
    model: Model, suite: RandomSuite, tokens: Tokens, target: Target
) -> None:
    def go(sites: list[Site] = SITES, **options: Any) -> None:
        trace_circuit(model, suite, tokens, target, sites, **options)

    with pytest.raises(ValueError, match="layer 1 mlp is not the whole stream: paths go around"):
        go([Site(0), Site(1, "mlp")])
    with pytest.raises(ValueError, match="there are no sites to attribute at"):
        go([])
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        go(k=0)
    with pytest.raises(ValueError, match="floor is a share of the score, from 0 to below 1; got 1"):
        go(floor=1)
    with pytest.raises(ValueError, match="dimmed is a number of layers, 0 or more; got -1"):
        go(dimmed=-1)
    with pytest.raises(ValueError, match="dimmed needs residual layers"):
        attribute(model, suite, tokens, target, [Site(0, "mlp")], dimmed=1)
    with pytest.raises(ValueError, match="dimmed takes no edits beside it"):
        attribute(model, suite, tokens, target, SITES, dimmed=1, edits=[Ablate((0, 1))])
    for spot in ((Site(0), 0, 1), (Site(0, "mlp"), 1, 1), (Site(0), 99, 1)):
        with pytest.raises(ValueError, match=r"feature 1 at layer 0 .* the circuit is of layer 0"):
            measure(model, suite, tokens, target, SITES, [[spot]])
    with pytest.raises(ValueError, match="nothing is cut off before layer 0 res; there are cuts"):
        pullbacks(model, tokens, SITES, {Site(0): []}, print)


def test_the_strongest_are_of_all_sites_and_never_on_bos(
    model: Model, suite: RandomSuite, tokens: Tokens, target: Target
) -> None:
    found = attribute(model, suite, tokens, target, SITES)
    spots = strongest(found, 15)
    frame: Any = found.to_frame().head(15)
    rows = zip(frame["layer"], frame["position"], frame["feature"], strict=True)
    assert spots == [(Site(layer), p, i) for layer, p, i in rows]
    assert len({site for site, _, _ in spots}) > 1
