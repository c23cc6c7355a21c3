"""How a circuit is found: nodes by attribution, edges by gradients from one cut to the next.

1. Attribute the target to every active feature of the residual stream at each of `sites`. The
   whole stream goes through such a site, so every path through the model passes all of them.
2. Keep the ``k`` features with the largest estimate of what ablating them takes from the target,
   and at each token what is no feature: error and bias of the SAE, all of it at ``<bos>``.
3. An edge from node u to node v of the next site weighs

       w(u, v) = x_u . d(c_v . x) / dx_u,        x_u = f_u d_u, or what the SAE leaves over

   with x_u the part of the stream that u is, and c_v what v makes of the next site's stream for the
   target: (d_v . dm/dx) df_v/dx for a feature, and dm/dx less those of all features for the rest.

By the chain rule the edges out of u, to all nodes of the next site, add up to x_u . dm/dx: what u
carries. So nothing is lost where nothing is pruned. The edges into v need not add up to what v
carries, because norms and attention are no linear maps.

Nodes and edges with error terms follow Marks et al. 2024 (arXiv 2403.19647, sections 3.1 and 3.2);
they take attention and MLP outputs as sites too, whose paths go around one another.

Memory: the active features of the sites, a few dozen a token, and what an SAE takes, one at a time.
An edge is a number: no matrix of features by features exists. Time: a forward pass, and for each
node a backward pass through the layers between two sites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from workbench.analysis.attribution import (
    Attribution,
    Part,
    Target,
    attribute,
    features_part,
)
from workbench.analysis.circuit import Circuit, Edge, Node
from workbench.analysis.faithfulness import Spot, measure
from workbench.engine.binding import FeatureSource
from workbench.engine.edits import Edit
from workbench.engine.tracing import pullbacks, trace
from workbench.features import Features, check_count
from workbench.models import Busy, Model
from workbench.sae import SAE
from workbench.sites import Site
from workbench.tokens import Tokens

EMBEDDING = Site(0, "embed")


@dataclass
class Cut:
    """The nodes of one site, with the vectors that edges are made of."""

    site: Site
    nodes: list[Node] = field(default_factory=list)
    shares: list[Tensor] = field(default_factory=list)
    """Of each node the part of the stream that it is ``(d_model,)``."""
    covectors: list[tuple[int, Tensor]] = field(default_factory=list)
    """Of each node its token, and what it makes of the stream for the target ``(d_model,)``."""

    def add(self, node: Node, share: Tensor, covector: Tensor) -> None:
        """One more node."""
        self.nodes.append(node)
        self.shares.append(share)
        self.covectors.append((node.position, covector))


def trace_circuit(
    model: Model,
    source: FeatureSource,
    tokens: Tokens,
    target: Target,
    sites: Sequence[Site],
    *,
    k: int = 20,
    floor: float = 0.005,
    dimmed: int = 3,
    edits: Sequence[Edit] = (),
    known: Mapping[Site, Features] | None = None,
    label: Callable[[Site, int], str] | None = None,
    busy: Busy = "wait",
) -> Circuit:
    """The circuit that leads to `target`.

    Args:
        model: The model.
        source: Its SAEs.
        tokens: The prompt.
        target: Where the circuit leads to.
        sites: Residual sites at which the stream is split.
        k: Features at tokens to keep, over all sites.
        floor: Share of the score below which edges, errors and embeddings are left out.
        dimmed: See `workbench.analysis.attribution.attribute`.
        edits: What is changed in the run; then `dimmed` is 0 and faithfulness is not measured.
        known: Features of this very run that were computed before.
        label: Gives a feature's label.
        busy: See `workbench.models.Turn.take`.

    Raises:
        ValueError: If a site is not of the residual stream or has no SAE, or a number is out of
            range.
    """
    check_count(k)
    if not 0 <= floor < 1:
        raise ValueError(f"floor is a share of the score, from 0 to below 1; got {floor}")
    around = [site for site in sites if site.kind != "res"]
    if around:
        raise ValueError(
            f"{around[0]} is not the whole stream: paths go around it. A circuit is of residual "
            "sites, such as Site(3), Site(5)"
        )
    options: dict[str, Any] = {"edits": edits, "busy": busy}
    dimmed = 0 if edits else dimmed
    found = attribute(
        model, source, tokens, target, sites, dimmed=dimmed, known=known, label=label, **options
    )
    spots = strongest(found, k)
    least = floor * abs(found.score)
    cuts = [
        _cut(source.sae_at(site), site, part, found, spots, least)
        for site, part in found.parts.items()
    ]
    embedding = trace(model, [tokens], [EMBEDDING], source=source, **options)
    roots = _roots(embedding.activations[EMBEDDING][0], found)
    edges = _edges(model, source, found, [roots, *cuts], options, least)
    # What an embedding carries is only known once it was pulled through the first layers.
    roots.nodes = [node for node in roots.nodes if abs(node.attribution) >= least]
    last = Node("target", target.position, target.string, attribution=found.score)
    nodes = (*(node for cut in (roots, *cuts) for node in cut.nodes), last)
    names = {node.name for node in nodes}
    circuit = Circuit(
        model=model.name,
        tokens=tokens,
        target=target,
        score=found.score,
        sites=tuple(found.parts),
        nodes=nodes,
        edges=tuple(edge for edge in edges if edge.source in names),
        floor=floor,
    )
    if edits:
        return circuit
    [faithful] = measure(model, source, tokens, target, circuit.sites, [spots], busy=busy)
    return replace(circuit, faithfulness=faithful)


def strongest(found: Attribution, k: int) -> list[Spot]:
    """The `k` features at tokens with the largest estimate, of either sign."""
    every: list[tuple[float, Spot]] = []
    for site, part in found.parts.items():
        sizes = part.effects.values.abs() * part.effects.scored
        best, entries = sizes.topk(min(k, len(sizes)))
        for size, entry in zip(best.tolist(), entries.tolist(), strict=True):
            where = int(part.effects.positions[entry]), int(part.effects.indices[entry])
            if size > 0:
                every.append((size, (site, *where)))
    every.sort(key=lambda one: -one[0])
    return [spot for _, spot in every[:k]]


def _cut(
    sae: SAE, site: Site, part: Part, found: Attribution, spots: Sequence[Spot], least: float
) -> Cut:
    """The nodes of a site: of `spots` those here, and what is no feature where it carries much."""
    cut, x, slopes = Cut(site), part.read.float(), part.slopes
    strings, scale = found.tokens.strings, sae.output_scale(x)
    here = sorted((position, index) for at, position, index in spots if at == site)
    rows = {(p, i): e for e, (p, i) in enumerate(_entries(part.effects)) if (p, i) in set(here)}
    covectors = _of_features(sae, x, slopes, here)
    for (position, index), covector in zip(here, covectors, strict=True):
        entry = rows[position, index]
        activation = float(part.activations.values[entry])
        share = activation * sae.W_dec[index].float().cpu()
        share = share if scale is None else share * scale[position].cpu()
        node = Node(
            "feature",
            position,
            strings[position],
            site,
            index,
            activation,
            float(share @ slopes[position]),
            float(part.effects.values[entry]),
            found.label(site, index),
        )
        cut.add(node, share, covector)
    rest = x - features_part(sae, part.activations, x)
    rest[0] = x[0]
    carried = (rest * slopes).sum(-1)
    kept = [p for p in range(found.target.position + 1) if abs(float(carried[p])) >= least]
    for position, covector in zip(kept, _of_rest(sae, x, slopes, kept), strict=True):
        amount = float(carried[position])
        node = Node("error", position, strings[position], site, attribution=amount, estimate=amount)
        cut.add(node, rest[position], covector)
    return cut


def _entries(active: Features) -> list[tuple[int, int]]:
    return list(zip(active.positions.tolist(), active.indices.tolist(), strict=True))


def _of_features(
    sae: SAE, x: Tensor, slopes: Tensor, here: Sequence[tuple[int, int]]
) -> list[Tensor]:
    """``(d_v . dm/dx) df_v/dx`` of each feature at a token ``(d_model,)``."""
    if not here:
        return []
    positions, indices = (list(column) for column in zip(*here, strict=True))

    def made(rows: Tensor) -> Tensor:
        f = sae.encode_features(rows, indices).diagonal()
        along = (sae.W_dec[indices].float() * slopes[positions].to(sae.W_dec.device)).sum(-1)
        return (f * along * _scale(sae, rows)).sum()

    return list(_gradient(sae, x[positions], made))


def _of_rest(sae: SAE, x: Tensor, slopes: Tensor, positions: Sequence[int]) -> list[Tensor]:
    """``dm/dx`` less what all features make of it, at each token; ``dm/dx`` itself at ``<bos>``."""
    if not positions:
        return []

    def made(rows: Tensor) -> Tensor:
        written = (sae.encode(rows) @ sae.W_dec).float()
        along = (written * slopes[list(positions)].to(written.device)).sum(-1)
        return (along * _scale(sae, rows)).sum()

    of_features = _gradient(sae, x[list(positions)], made)
    return [
        slopes[p] if p == 0 else slopes[p] - one
        for p, one in zip(positions, of_features, strict=True)
    ]


def _scale(sae: SAE, rows: Tensor) -> Tensor | float:
    scale = sae.output_scale(rows)
    return 1.0 if scale is None else scale[:, 0]


def _gradient(sae: SAE, rows: Tensor, made: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of `made` at each of `rows` ``(row, d_model)``, on the CPU."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        leaf = rows.clone().to(sae.W_enc.device, sae.W_enc.dtype).requires_grad_()
        [found] = torch.autograd.grad(made(leaf), leaf)
    return found.float().cpu()


def _roots(embeddings: Tensor, found: Attribution) -> Cut:
    """The token embeddings, whose attributions are not known yet."""
    cut = Cut(EMBEDDING)
    for position in range(found.target.position + 1):
        share = embeddings[position].float()
        cut.add(Node("token", position, found.tokens.strings[position]), share, share)
    return cut


def _edges(
    model: Model,
    source: FeatureSource,
    found: Attribution,
    cuts: Sequence[Cut],
    options: Mapping[str, Any],
    least: float,
) -> list[Edge]:
    """The edges between neighbouring cuts and to the target, largest enough, by their sources."""
    roots, first = cuts[0], cuts[1]
    before = {after.site: cut for cut, after in pairwise(cuts)}
    numbers = {cut.site: list(cut.covectors) for cut in cuts[1:]}
    count = len(numbers[first.site])
    # The whole slope at the first site, a token at a time, for what the embeddings carry.
    slopes = found.parts[first.site].slopes
    numbers[first.site] += [(p, slopes[p]) for p in range(found.target.position + 1)]
    carried = torch.zeros(len(roots.nodes))
    weights: dict[tuple[Site, int], Tensor] = {}

    def consume(site: Site, place: int, gradient: Tensor) -> None:
        cut = before[site]
        if not cut.nodes:
            return
        gradient = gradient.float().cpu()
        there = gradient[[node.position for node in cut.nodes]]
        along = (torch.stack(cut.shares) * there).sum(-1)
        if site == first.site and place >= count:
            carried.add_(along)
        else:
            weights[site, place] = along

    pullbacks(
        model, found.tokens, [cut.site for cut in cuts], numbers, consume, source=source, **options
    )
    roots.nodes = [
        replace(node, attribution=amount, estimate=amount)
        for node, amount in zip(roots.nodes, carried.tolist(), strict=True)
    ]
    edges = []
    for cut, after in zip(cuts, [*cuts[1:], None], strict=True):
        for number, node in enumerate(cut.nodes):
            if after is None:
                edges.append(Edge(node.name, "target", node.attribution))
                continue
            edges += [
                Edge(node.name, other.name, float(weights[after.site, place][number]))
                for place, other in enumerate(after.nodes)
            ]
    return [edge for edge in edges if edge.weight and abs(edge.weight) >= least]
