"""Evolution map: features through the layers, drawn as the model is built, from bottom to top.

Python has found the relatives of a feature, what ties them together and how strongly each fires on
every token. The page draws them as one map or several, with the activations of one map token by
token below. It asks by messages; `widget.on(name, handler)` names who answers. Handlers may be
called in any thread and must only enqueue; an exception in one is shown in the widget.
"""

from __future__ import annotations

from typing import Any

import traitlets

from workbench.widgets.asking import AskingWidget
from workbench.widgets.base import checked_records, source, style
from workbench.widgets.evolution_twin import twin
from workbench.widgets.matrix import MatrixWidget

FIELDS: dict[str, tuple[str, ...]] = {
    "centre": ("node",),
    "open": ("node",),
    "ablate": ("node",),
    "steer": ("node", "strength"),
    "drop": ("edit",),
    "restore": (),
}
"""Messages of the page, and the fields that a handler gets as keywords."""
TIES = ("similar", "carries", "causes")
BIRTHS = ("carried", "mlp", "attention", "new")

_NODE = ("layer", "kind", "index")
_MAY = (
    *("map", "label", "cosine", "null", "correlation", "correlation_null", "birth", "trend"),
    *("children", "parents", "attribution", "maximum"),
)
_LINK = ("source", "target", "tie", "strength", "margin")


class EvolutionMap(AskingWidget, MatrixWidget):
    """Creates a map of features by layer and kind of site; `values` is (node, pos).

    `selected` is `[node, position]`; position -1 stands for the maximum over the tokens. The page
    asks for centre(node), open(node), ablate(node), steer(node, strength), drop(edit), restore().

    Example:
        >>> from workbench.widgets import float32_bytes
        >>> EvolutionMap(
        ...     nodes=[{"layer": 0, "kind": "res", "index": 17, "cosine": 0.8, "null": 0.4}],
        ...     tokens=["<bos>", "Paris"],
        ...     values=float32_bytes([[0.0, 6.5]]),
        ...     masked=[0],
        ... )
        EvolutionMap(2 tokens x 1 nodes)
    """

    _esm = source(
        "shared.js",
        "matrix.js",
        "evolution_data.js",
        "evolution_layout.js",
        "evolution_drawing.js",
        "evolution_words.js",
        "evolution_details.js",
        "evolution_controls.js",
        "evolution_strip.js",
        "evolution_chart.js",
        "evolution_map.js",
    )
    _css = style("shared.css", "evolution_map.css")
    _messages = FIELDS
    _from_page = ("error", "selected", "threshold", "token", "scale", "view")
    _rows_name = "nodes"
    _tokens_first = False

    nodes = traitlets.List(traitlets.Dict()).tag(sync=True)
    """One feature each, map by map and in execution order within one: ``layer`` (int), ``kind``
    ("res", "att", "mlp" ...), `index` (int); optional `map` (its number in `maps`), ``label``,
    ``cosine`` and its ``null``, ``correlation`` and ``correlation_null``, ``birth``, ``trend``,
    ``children``, ``parents``, ``attribution`` (to the map's target), ``maximum`` (typical, for the
    scale of its own)."""

    links = traitlets.List(traitlets.Dict()).tag(sync=True)
    """`source` and ``target`` (numbers of nodes), ``tie`` ("similar", "carries" or "causes"),
    ``strength``, and ``margin`` (strength above its null)."""

    maps = traitlets.List(traitlets.Dict(), default_value=[{"title": "", "origin": -1}])
    maps.tag(sync=True)
    """Drawn side by side: `title`, `origin` (the node that is followed; -1: none), and perhaps
    `target` (text of the next token that the features matter for)."""

    other_tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """Of a second text, aligned with `tokens`; an empty string where a text has no such token. The
    second of two maps is then of this text."""

    names = traitlets.List(traitlets.Unicode(), default_value=["run", "other"]).tag(sync=True)
    """What to call the two texts."""

    edited = traitlets.Bytes(b"").tag(sync=True)
    """`values` under the edits, or empty; where it is given a ring shows the value before."""

    edits = traitlets.List(traitlets.Dict()).tag(sync=True)
    """What was changed: ``text``, and `nodes`, those that it acts on."""

    said = traitlets.Unicode("").tag(sync=True)
    """What the edits did to the next token, in a line."""

    token = traitlets.Int(-1).tag(sync=True)
    """The token whose activations size the nodes; -1: the maximum over all of them."""

    threshold = traitlets.Float(-1.0).tag(sync=True)
    """Nodes and links whose margin above the null is smaller are hidden."""

    scale = traitlets.Enum(["all", "own"], "all").tag(sync=True)
    """Whether sizes and colours compare all features, or each with its own maximum."""

    view = traitlets.Enum(["tokens", "layers"], "tokens").tag(sync=True)
    """What stands below the maps: tokens x layers, or one token through the layers."""

    busy = traitlets.Unicode("").tag(sync=True)
    """What is being computed, for the reader; empty: nothing."""

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._check_fit({})

    def update(self, **traits: Any) -> None:
        """See `MatrixWidget.update`."""
        self._check_fit(traits)
        super().update(**traits)

    def static_html(self) -> str:
        """A table of each map, last layer first as in the widget, with each feature's peak."""
        return twin(self)

    @traitlets.validate("nodes")
    def _check_nodes(self, proposal: Any) -> list[dict[str, Any]]:
        nodes = checked_records("node", proposal["value"], _NODE, _MAY)
        for number, node in enumerate(nodes):
            _one_of(f"node {number}: birth", node.get("birth"), (None, *BIRTHS))
        return nodes

    @traitlets.validate("links")
    def _check_links(self, proposal: Any) -> list[dict[str, Any]]:
        links = checked_records("link", proposal["value"], _LINK, ())
        for number, link in enumerate(links):
            _one_of(f"link {number}: tie", link["tie"], TIES)
        return links

    @traitlets.validate("maps")
    def _check_maps(self, proposal: Any) -> list[dict[str, Any]]:
        return checked_records("map", proposal["value"], ("title", "origin"), ("target",))

    @traitlets.validate("edits")
    def _check_edits(self, proposal: Any) -> list[dict[str, Any]]:
        return checked_records("edit", proposal["value"], ("text", "nodes"), ())

    def _check_fit(self, traits: dict[str, Any]) -> None:
        """Refuse numbers of nodes and maps that do not exist, and edited values that do not fit."""
        now = {name: traits.get(name, getattr(self, name)) for name in self.public_traits()}
        count = len(now["nodes"])
        for number, link in enumerate(now["links"]):
            if not (0 <= link["source"] < count and 0 <= link["target"] < count):
                raise ValueError(
                    f"link {number} ties node {link['source']} to node {link['target']}; there are "
                    f"{count} nodes, counted from 0"
                )
        for number, node in enumerate(now["nodes"]):
            if not 0 <= node.get("map", 0) < len(now["maps"]):
                raise ValueError(
                    f"node {number} is of map {node['map']}; there are {len(now['maps'])}"
                )
        if now["edited"] and len(now["edited"]) != len(now["values"]):
            raise ValueError(
                f"edited has {len(now['edited'])} bytes and values {len(now['values'])}: they must "
                "be of one shape"
            )
        if now["other_tokens"] and len(now["other_tokens"]) != len(now["tokens"]):
            raise ValueError(
                f"other_tokens has {len(now['other_tokens'])} columns and tokens "
                f"{len(now['tokens'])}: align them"
            )


def _one_of(what: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{what} is {value!r}; it is one of {', '.join(map(repr, allowed))}")
