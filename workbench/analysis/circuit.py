"""A circuit: the sparse graph of features that leads to a next token.

Nodes are features at a token, what the SAEs leave over at a token (error nodes: error and bias),
the token embeddings, and the target. An edge says how much of what its source carries to the target
goes by way of its end. How it is found is told in `workbench.analysis.circuit_edges`, how much of
the target survives with the circuit alone in `workbench.analysis.faithfulness`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from workbench.analysis.attribution import Target
from workbench.analysis.faithfulness import Faithfulness
from workbench.files import readable, write_whole
from workbench.sites import Site
from workbench.tokens import Tokens

if TYPE_CHECKING:
    import networkx
    import plotly.graph_objects as go

FORMAT = "workbench-circuit-1"
NodeKind = Literal["token", "feature", "error", "target"]
EDGES = ["source", "target", "weight"]


@dataclass(frozen=True)
class Node:
    """One node."""

    kind: NodeKind
    """What it is: a token's embedding, a feature, what the SAE of a site leaves over, the target.
    All of ``<bos>`` at a site is one error node."""
    position: int
    """Token, counted from 0."""
    token: str
    """Its text; of the target the text of the next token."""
    site: Site | None = None
    """Where a feature or an error is."""
    index: int | None = None
    """Which feature."""
    activation: float | None = None
    """Of a feature."""
    attribution: float = 0.0
    """What it carries to the target, to first order; of the target its value."""
    estimate: float = 0.0
    """What ablating it would take from the target, as estimated: features are chosen by it."""
    label: str = ""
    """What the feature stands for."""

    @property
    def name(self) -> str:
        """Unique in a circuit: ``"res/5 feature 231 @4"``, ``"res/5 error @4"``, ``"target"``."""
        if self.kind == "target":
            return self.kind
        if self.site is None:
            return f"{self.kind} @{self.position}"
        what = self.kind if self.index is None else f"{self.kind} {self.index}"
        return f"{self.site.kind}/{self.site.layer} {what} @{self.position}"


@dataclass(frozen=True)
class Edge:
    """A connection of two nodes."""

    source: str
    """Name of the earlier node."""
    target: str
    """Name of the later one, in the next site or the target itself."""
    weight: float
    """What the source carries to the circuit's target by way of the later node, with its sign."""


@dataclass(frozen=True)
class Circuit:
    """A sparse graph that leads to a next token."""

    model: str
    """Name of the model."""
    tokens: Tokens
    """The prompt."""
    target: Target
    """What it leads to."""
    score: float
    """The target's value in the run."""
    sites: tuple[Site, ...]
    """The sites at which the stream is split into features, in execution order."""
    nodes: tuple[Node, ...]
    """In execution order, the target last."""
    edges: tuple[Edge, ...]
    """Those above `floor`, in the order of their sources."""
    floor: float
    """Edges and error nodes below this share of the score were left out."""
    faithfulness: Faithfulness | None = None
    """How much of the target survives with the circuit alone, or without it."""

    def __repr__(self) -> str:
        found = f"; {self.faithfulness}" if self.faithfulness else ""
        return (
            f"<Circuit to {self.target.string!r}: {len(self.features)} features at "
            f"{len(self.sites)} sites, {len(self.edges)} edges{found}>"
        )

    @cached_property
    def features(self) -> tuple[Node, ...]:
        """The nodes that are features."""
        return tuple(node for node in self.nodes if node.kind == "feature")

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """The nodes by name."""
        return {node.name: node for node in self.nodes}

    def nodes_frame(self) -> pd.DataFrame:
        """One row a node.

        Returns:
            Columns ``name, node, layer, kind, position, token, feature, label, activation,
            attribution, estimate``.
        """
        rows = [
            {
                "name": node.name,
                "node": node.kind,
                "layer": node.site.layer if node.site else None,
                "kind": node.site.kind if node.site else None,
                "position": node.position,
                "token": node.token,
                "feature": node.index,
                "label": node.label,
                "activation": node.activation,
                "attribution": node.attribution,
                "estimate": node.estimate,
            }
            for node in self.nodes
        ]
        return pd.DataFrame(rows).astype({"layer": "Int64", "feature": "Int64"})

    def edges_frame(self) -> pd.DataFrame:
        """One row an edge, the largest first: columns ``source, target, weight``."""
        frame = pd.DataFrame([asdict(edge) for edge in self.edges], columns=EDGES)
        return frame.sort_values(
            "weight", key=abs, ascending=False, kind="stable", ignore_index=True
        )

    def figure(self) -> go.Figure:
        """The graph over tokens and layers: `workbench.figures.circuit`."""
        from workbench import figures

        nodes, edges = self.nodes_frame(), self.edges_frame()
        return figures.circuit(nodes, edges, tokens=self.tokens.strings, title=repr(self)[1:-1])

    def to_networkx(self) -> networkx.DiGraph:
        """The graph for NetworkX: nodes by name, each field an attribute; edges with ``weight``.

        A field that is None is left out, so that the graph can be written as GraphML.
        """
        import networkx

        graph = networkx.DiGraph(model=self.model, target=self.target.string, score=self.score)
        for node in self.nodes:
            fields = asdict(node) | {"site": None}
            if node.site is not None:
                fields |= {"layer": node.site.layer, "site_kind": node.site.kind}
            graph.add_node(node.name, **{k: v for k, v in fields.items() if v is not None})
        graph.add_weighted_edges_from(
            (edge.source, edge.target, edge.weight) for edge in self.edges
        )
        return graph

    def to_json(self) -> dict[str, Any]:
        """The circuit as plain lists, texts and numbers; `of_json` reads it."""
        faithfulness = None if self.faithfulness is None else asdict(self.faithfulness)
        return {
            "format": FORMAT,
            "model": self.model,
            "tokens": {k: list(v) for k, v in asdict(self.tokens).items()},
            "target": asdict(self.target),
            "score": self.score,
            "floor": self.floor,
            "sites": [[site.layer, site.kind] for site in self.sites],
            "nodes": [asdict(node) | {"site": _pair(node.site)} for node in self.nodes],
            "edges": [[edge.source, edge.target, edge.weight] for edge in self.edges],
            "faithfulness": faithfulness,
        }

    @classmethod
    def of_json(cls, found: dict[str, Any]) -> Circuit:
        """The circuit that `to_json` wrote.

        Raises:
            ValueError: If it is something else.
        """
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            got = found.get("format") if isinstance(found, dict) else type(found).__name__
            raise ValueError(f"not a saved circuit: its format is {got!r} and not {FORMAT!r}")
        target = found["target"] | {"against": tuple(found["target"]["against"])}
        faithful = found["faithfulness"]
        return cls(
            model=found["model"],
            tokens=Tokens(**{k: tuple(v) for k, v in found["tokens"].items()}),
            target=Target(**target),
            score=found["score"],
            sites=tuple(Site(*pair) for pair in found["sites"]),
            nodes=tuple(Node(**node | {"site": _site(node["site"])}) for node in found["nodes"]),
            edges=tuple(Edge(*row) for row in found["edges"]),
            floor=found["floor"],
            faithfulness=None if faithful is None else Faithfulness(**faithful),
        )

    def save(self, path: str | Path) -> Path:
        """Write the circuit as JSON.

        Returns:
            The path.
        """
        return write_whole(path, json.dumps(self.to_json(), ensure_ascii=False, indent=1))

    @classmethod
    def open(cls, path: str | Path) -> Circuit:
        """Read what `save` wrote; needs no model.

        Raises:
            ValueError: If the file is no saved circuit.
        """
        path = readable(path, "a saved circuit")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a saved circuit: {error}") from error
        return cls.of_json(found)


def _pair(site: Site | None) -> list | None:
    return None if site is None else [site.layer, site.kind]


def _site(pair: Sequence | None) -> Site | None:
    return None if pair is None else Site(*pair)
