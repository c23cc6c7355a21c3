"""The evolution of a feature as a plain figure: numbers, marks, ties, what is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from workbench.analysis.lineage import Kin, Lineage, Link
from workbench.figures import evolution
from workbench.sites import Site

ORIGIN = (Site(1), 7)
KIN = (
    Kin(Site(0, "att"), 3, 0.6, 0.2),
    Kin(Site(0), 4, 0.7, 0.2, birth="attention"),
    Kin(Site(1, "mlp"), 5, 0.1, 0.2),
    Kin(Site(1), 7, 1.0, 0.2, birth="carried"),
)
LINKS = (
    Link((Site(0, "att"), 3), (Site(0), 4), "similar", 0.9, 0.7),
    Link((Site(0), 4), ORIGIN, "carries", 0.3, 0.1),
    Link((Site(1, "mlp"), 5), ORIGIN, "causes", -4.0, 3.0),
)
LINEAGE = Lineage(ORIGIN, KIN, LINKS, 0.01)


def marks(figure: object) -> dict[tuple[int, int], tuple[str, str, float]]:
    """Place -> name, shape and size of every mark."""
    return {
        (x, y): (one["name"], one["marker"]["symbol"], size)
        for one in figure.data  # pyright: ignore[reportAttributeAccessIssue]
        if one["mode"] == "markers"
        for x, y, size in zip(one["x"], one["y"], one["marker"]["size"], strict=True)
    }


def test_marks_stand_by_kind_and_layer_with_the_area_of_their_size() -> None:
    figure = evolution(LINEAGE, [4.0, 1.0, 0.0, 16.0], title="a < b")
    assert figure.layout.xaxis.ticktext == ("att", "mlp", "res")
    found = marks(figure)
    assert {at: (name, shape) for at, (name, shape, _) in found.items()} == {
        (0, 0): ("written by attention", "diamond"),
        (2, 0): ("written by attention", "diamond"),
        (1, 1): ("written by the MLP, below the null", "square-open"),
        (2, 1): ("carried over", "circle"),
    }
    sizes = [found[at][2] - 5 for at in ((0, 0), (2, 0), (1, 1), (2, 1))]
    assert sizes == pytest.approx([9.5, 4.75, 0, 19])
    assert figure.layout.title.text == "a &lt; b"


def test_ties_are_told_by_their_dashes() -> None:
    data: Any = evolution(LINEAGE).data
    lines = [one for one in data if one["mode"] == "lines"]
    found = {one["name"]: (one["line"]["dash"], list(one["x"]), list(one["y"])) for one in lines}
    assert found == {
        "similar": ("dot", [0, 2, None], [0, 0, None]),
        "carries": ("solid", [2, 2, None], [0, 1, None]),
        "causes": ("dash", [1, 2, None], [1, 1, None]),
    }
    widths = {one["name"]: one["line"]["width"] for one in lines}
    assert widths["carries"] < widths["similar"]


def test_the_threshold_leaves_out_nodes_and_their_ties() -> None:
    figure: Any = evolution(LINEAGE, threshold=0.45)
    assert set(marks(figure)) == {(2, 0), (2, 1)}
    # The cause goes with its source, the rest for its own margin.
    assert not [one for one in figure.data if one["mode"] == "lines"]
    alone = replace(LINEAGE, links=())
    assert set(marks(evolution(alone, threshold=2.0))) == {(2, 1)}


def test_sizes_and_labels_must_fit() -> None:
    with pytest.raises(ValueError, match="3 sizes and 4 labels for 4 kin"):
        evolution(LINEAGE, [1.0, 2.0, 3.0])
    shown: Any = evolution(LINEAGE, labels=["x", "<b>", "", "y"])
    names = [row[0] for one in shown.data if one["mode"] == "markers" for row in one["customdata"]]
    assert "layer 0 res 4 &lt;b&gt;" in names
