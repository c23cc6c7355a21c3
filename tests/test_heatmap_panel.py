"""The heatmap of a run on the shipped model: which rows, in which order; two runs compared."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.analysis.compare import align, differences
from workbench.lab import Lab
from workbench.panels import Heatmap
from workbench.runs import Run, open_run
from workbench.sites import Site

TEXT = "The capital of France is Paris. Der Hund läuft im Wald."
OTHER = "The capital of Hungary is a city. Der Hund läuft im Wald."


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


@pytest.fixture(scope="module")
def run(lab: Lab) -> Run:
    return lab.run(TEXT)


@pytest.fixture(scope="module")
def other(lab: Lab) -> Run:
    return lab.run(OTHER)


def drawn(panel: Heatmap, name: str = "values") -> np.ndarray:
    """The matrix that the widget holds, ``(column, row)``."""
    values = np.frombuffer(getattr(panel.widget, name), np.float32)
    return values.reshape(len(panel.columns), len(panel.rows))


def copy_of(panel: Heatmap, name: str = "copy") -> Heatmap:
    """What the lines that the widget offers draw."""
    scope: dict = {"wb": wb}
    *opening, call = panel.widget.code.split("\n")
    exec("\n".join([*opening, f"{name} = {call}"]), scope)
    return scope[name]


def seen(panel: Heatmap) -> dict:
    """All that decides what the widget shows."""
    names = [n for n in panel.widget.public_traits() if n not in {"layout", "code", "selected"}]
    return {name: getattr(panel.widget, name) for name in names}


def test_all_sites_of_a_layer_stand_in_groups(run: Run) -> None:
    panel = run.heatmap(4, "all", k=5)
    assert [site for site, _ in panel.rows] == [
        Site(4, kind) for kind in ("att", "mlp", "res") for _ in range(5)
    ]
    assert [f["site"] for f in panel.widget.features[::5]] == ["4 att", "4 mlp", "4 res"]
    assert panel.widget.title == "Features at layer 4 att, mlp, res"
    for row, (site, index) in enumerate(panel.rows):
        dense = run.features(site.layer, site.kind).dense()
        assert drawn(panel)[:, row] == pytest.approx(dense[:, index].numpy())
    panel.widget.selected = [3, 7]
    assert panel.selected == (3, 4, panel.features[7], "mlp")


def test_layers_and_kinds_in_every_spelling(run: Run) -> None:
    def sites(*place: Any, **said: Any) -> list[str]:
        rows = run.heatmap(*place, k=1, **said).rows
        return [f"{site.layer} {site.kind}" for site, _ in rows]

    assert sites() == [f"{layer} res" for layer in range(8)]
    assert sites(layer=4) == ["4 res"]
    assert sites(np.int64(4)) == ["4 res"]
    assert sites(range(2, 4)) == ["2 res", "3 res"]
    assert sites([5, 2], "mlp") == ["2 mlp", "5 mlp"]
    assert sites([4, 4], ["res", "att"]) == ["4 att", "4 res"]
    assert len(sites(kind="all")) == 24
    with pytest.raises(
        ValueError, match=r"layer 9 res is not in this run; it has layers 0 to 7 att, mlp, res"
    ):
        run.heatmap(9)
    with pytest.raises(ValueError, match=r"no SAE for layer=9, kind='all' in this run; it has la"):
        run.heatmap(9, "all")
    with pytest.raises(ValueError, match="unknown kind of site 'every'"):
        sites(4, "every")


@pytest.mark.parametrize("by", ["max", "sum", "count", "weighted"])
def test_rows_are_those_of_the_measure(lab: Lab, run: Run, by: Any) -> None:
    dense = run.features(4).dense()[1:]
    density = lab.suite.density(Site(4))
    score = {
        "max": dense.amax(0),
        "sum": dense.sum(0),
        "count": (dense > 0).sum(0),
        "weighted": dense.amax(0) / density.clamp(min=float(density[density > 0].min())),
    }[by]
    panel = run.heatmap(4, k=9, by=by)
    expected = sorted(score.tolist(), reverse=True)[:9]
    assert score[panel.features].tolist() == pytest.approx(expected)
    assert panel.widget.features[0]["density"] == pytest.approx(float(density[panel.features[0]]))


def test_other_measures_are_refused(run: Run, other: Run) -> None:
    wrong: Any = "importance"
    known = "'max', 'sum', 'count', 'weighted', got 'importance'"
    for second in (None, other):
        with pytest.raises(ValueError, match=known):
            run.heatmap(4, by=wrong, other=second)
    with pytest.raises(ValueError, match="give the second one as other="):
        run.heatmap(4, by="difference")


def test_filters_by_label_and_density(lab: Lab, run: Run) -> None:
    everything = run.heatmap(4, k=1000)
    density = lab.suite.density(Site(4))
    labelled = run.heatmap(4, label="SENTENCE")
    assert labelled.features == [
        i for i in everything.features if "sentence" in lab.suite.label(Site(4), i)
    ]
    assert labelled.features
    rare = run.heatmap(4, k=1000, density=(0, 0.005))
    assert rare.features == [i for i in everything.features if density[i] <= 0.005]
    assert 0 < len(rare.features) < len(everything.features)
    assert run.heatmap(4, label="no such label").rows == []


def test_clustered_is_a_permutation_within_sites(run: Run) -> None:
    panel = run.heatmap(4, "all", k=8, order="clustered")
    orders = panel.widget.orders
    assert orders["measure"] == list(range(24))
    assert orders["clustered"] != orders["measure"]
    for start in (0, 8, 16):
        assert sorted(orders["clustered"][start : start + 8]) == list(range(start, start + 8))
    # Neighbours share more tokens than in the order of the measure.
    unit = drawn(panel)[1:] / np.linalg.norm(drawn(panel)[1:], axis=0)

    def likeness(order: list[int]) -> float:
        return float(sum(unit[:, a] @ unit[:, b] for a, b in pairwise(order)))

    assert likeness(orders["clustered"]) > likeness(orders["measure"]) + 1
    assert panel.widget.order == "clustered"
    with pytest.raises(ValueError, match="no order 'alike'; it has: 'measure', 'clustered'"):
        panel.widget.order = "alike"


def test_pins_are_drawn_in_any_case_and_come_back(run: Run) -> None:
    quiet = next(i for i in range(1024) if i not in run.heatmap(4, k=1000).features)
    panel = run.heatmap(4, k=3, pinned=[(4, quiet, "res"), (3, 7, "mlp")])
    assert panel.pinned == [(4, quiet, "res"), (3, 7, "mlp")]
    assert panel.rows[0] == (Site(3, "mlp"), 7)
    assert len(panel.rows) == 5
    panel.widget.pinned = [1]
    assert panel.pinned == [(4, panel.features[1], "res")]
    assert f"pinned=[(4, {panel.features[1]}, 'res')]" in panel.widget.code
    with pytest.raises(ValueError, match="feature 5000 does not exist at layer 4 res"):
        run.heatmap(4, pinned=[(4, 5000, "res")])


def test_the_code_draws_what_is_seen(run: Run, other: Run) -> None:
    panels = [
        run.heatmap(4, "all", k=4, by="weighted", density=(0, 0.1)),
        run.heatmap([3, 4], ["att", "mlp"], label="e", pinned=[(4, 94, "mlp")]),
        run.heatmap(features={Site(4, "mlp"): [7, 3], Site(3): [2]}),
        run.heatmap(kind="att", k=2),
        run.heatmap(4, features=range(3)),
        run.heatmap(4, other=other, k=5, names=("France", "Hungary")),
    ]
    for panel in panels:
        panel.widget.order, panel.widget.filter, panel.widget.scale = "clustered", "1", "log"
        panel.widget.pinned, panel.widget.view = [*panel.widget.pinned, 1], "both"
        assert seen(copy_of(panel)) == seen(panel)
    assert "other = lab.run('The capital of Hungary" in panels[-1].widget.code
    assert run.heatmap(4).widget.code.endswith("\nrun.heatmap(4)")


def test_features_of_several_sites_must_say_which(run: Run) -> None:
    with pytest.raises(ValueError, match=r"features=\[7\] of which site\? There are 3"):
        run.heatmap(4, "all", features=[7])


def test_selection_is_heard_with_its_site(run: Run) -> None:
    panel, heard = run.heatmap(4, "all", k=2), []
    panel.on_select(lambda *cell: heard.append(cell))
    panel.widget.selected = [5, 1]
    panel.widget.selected = []
    assert heard == [(5, 4, panel.features[1], "att")]
    panel.on_select(lambda *_: 1 / 0)
    panel.widget.selected = [2, 4]
    assert heard[-1] == (2, 4, panel.features[4], "res")
    assert "ZeroDivisionError" in panel.widget.error


def test_a_recording_draws_the_same_with_no_model(run: Run, tmp_path: Path) -> None:
    opened = open_run(run.save(tmp_path / "a.run"))
    options: Any
    for options in ({"kind": "all"}, {"by": "weighted"}, {"density": (0, 0.01)}):
        assert seen(opened.heatmap(4, k=6, **options)) == seen(run.heatmap(4, k=6, **options))
    assert seen(opened.heatmap(4, other=opened)) == seen(run.heatmap(4, other=run))


# ---------------------------------------------------------------------------------- attribution


def test_rows_and_cells_of_an_attribution(lab: Lab) -> None:
    run = lab.run("The capital of France is")
    panel = run.heatmap([3, 4], ["mlp", "res"], token=" Paris", k=6, pinned=[(5, 18, "res")])
    found = run.attribution(" Paris")
    for site in (Site(3, "mlp"), Site(3), Site(4, "mlp"), Site(4)):
        totals = found.parts[site].effects.dense()[1:].sum(0)
        rows = [index for s, index in panel.rows if s == site]
        sizes = totals.abs().sort(descending=True).values[:6]
        assert totals[rows].abs().tolist() == pytest.approx(sizes.tolist(), rel=1e-4)
        assert (totals[rows] < 0).any()
    for row, (site, index) in enumerate(panel.rows):
        dense = found.parts[site].effects.dense()[:, index]
        assert drawn(panel, "effects")[:, row] == pytest.approx(dense.numpy(), abs=1e-5)
        activation = run.features(site.layer, site.kind).of(index)
        assert drawn(panel)[:, row] == pytest.approx(activation.numpy())
        assert panel.widget.features[row]["attribution"] == pytest.approx(
            float(dense[1:].sum()), abs=1e-4
        )
    assert panel.rows[-1] == (Site(5), 18)
    assert (panel.widget.show, panel.widget.target) == ("attribution", "␣Paris")
    assert "first by attribution to ␣Paris over all tokens" in panel.widget.subtitle


def test_attribution_and_activation_have_their_own_figure_and_twin(lab: Lab) -> None:
    run = lab.run("The capital of France is")
    panel = run.heatmap(4, token=" Paris", against=" Rome", k=5)
    effects = drawn(panel, "effects")[1:]
    one = panel.figure().data[0]
    np.testing.assert_array_equal(one["z"][:, 1:], effects.T)
    assert one["zmin"] == -one["zmax"]
    assert "attribution to ␣Paris − ␣Rome" in one["colorbar"].title.text
    column, row = np.unravel_index(np.abs(effects).argmax(), effects.shape)
    assert f"<td>{effects[column, row]:.4g}</td>" in panel.widget.static_html()
    assert "maximum (attribution to ␣Paris − ␣Rome)" in panel.widget.static_html()
    panel.widget.show = "activation"
    np.testing.assert_array_equal(panel.figure().data[0]["z"][:, 1:], drawn(panel)[1:].T)
    assert f"<td>{drawn(panel)[1:].max():.4g}</td>" in panel.widget.static_html()


def test_the_code_of_an_attribution_draws_it_again(lab: Lab) -> None:
    run = lab.run("The capital of France is")
    several: list[dict[str, Any]] = [
        {"token": " Paris", "position": 4, "against": [" Rome", " Berlin"], "show": "activation"},
        {"token": " Paris", "by": "max"},
        {"token": 7, "features": [3, 626]},
    ]
    for options in several:
        panel = run.heatmap(4, k=4, **options)
        assert seen(copy_of(panel)) == seen(panel)
    panel = run.heatmap(4, token=" Paris")
    assert panel.widget.code.endswith("run.heatmap(4, token=' Paris')")
    panel.widget.show = "activation"
    assert "show='activation'" in panel.widget.code


def test_an_attribution_needs_a_token_and_one_run(run: Run, other: Run, tmp_path: Path) -> None:
    options: Any
    for options in ({"by": "attribution"}, {"show": "attribution"}):
        with pytest.raises(ValueError, match="attribution to which next token"):
            run.heatmap(4, **options)
    with pytest.raises(ValueError, match="token= attributes one run: leave other= out"):
        run.heatmap(4, token=" Paris", other=other)
    with pytest.raises(ValueError, match="a recorded run has no model"):
        open_run(run.save(tmp_path / "a.run")).heatmap(4, token=" Paris")


# ------------------------------------------------------------------------------- linked panels


def test_a_linked_heatmap_and_map_follow_the_selection(lab: Lab, run: Run) -> None:
    panel, later = run.heatmap(4, k=6), run.heatmap([3, 4], k=6)
    elsewhere = lab.run("Paris is the capital of France.").heatmap(4, features=panel.features)
    follows = run.evolution((3, 7))
    for one in (later, elsewhere, follows):
        panel.link(one)
    panel.widget.selected = [8, 2]
    index = panel.features[2]
    assert later.selected == (8, 4, index, "res")
    # Another text has other tokens: there the feature is shown where it is largest.
    place = 1 + int(elsewhere.run.features(4).of(index)[1:].argmax())
    assert elsewhere.selected == (place, 4, index, "res")
    assert follows.widget.title == f"Feature {index} of layer 4 res through the layers"
    direct = run.evolution((4, index))
    names = [n for n in direct.widget.public_traits() if n != "layout"]
    assert all(getattr(direct.widget, n) == getattr(follows.widget, n) for n in names)
    assert panel.widget.error == ""
    quiet = next(i for i in range(1024) if i not in later.features)
    assert later.select(4, quiet) is False
    assert later.selected == (8, 4, index, "res")
    with pytest.raises(ValueError, match="position 99 does not exist: the run has 21 tokens"):
        later.select(4, index, position=99)


def test_a_linked_steering_panel_gets_a_button(lab: Lab, run: Run) -> None:
    panel, steering = run.heatmap(4, "all", k=3), lab.steering("The capital of")
    panel.link(steering)
    assert panel.widget.actions == ["Steer"]
    panel.widget._received({"type": "action", "name": "Steer", "position": 3, "row": 4})
    end = time.monotonic() + 10
    while not steering.widget.rows and time.monotonic() < end:
        time.sleep(0.01)
    (row,) = steering.widget.rows
    assert (row["layer"], row["kind"], row["index"]) == (4, "mlp", panel.features[4])
    steering.widget.close()


def test_opening_names_the_feature(run: Run) -> None:
    panel, heard = run.heatmap(4, "all", k=2), []
    panel.on_open(lambda *feature: heard.append(feature))
    panel.on_action("Note", lambda *cell: heard.append(cell))
    panel.widget._received({"type": "open", "position": -1, "row": 3})
    panel.widget._received({"type": "action", "name": "Note", "position": 5, "row": 0})
    panel.widget._received({"type": "open", "position": 2, "row": 99})  # gone meanwhile
    assert heard == [(4, panel.features[3], "mlp"), (5, 4, panel.features[0], "att")]


def test_a_click_opens_the_dashboard_below(run: Run) -> None:
    panel: Any = run.heatmap(4, k=3)
    assert [panel.below] == [None]
    for row in (2, 0):
        panel.widget._received({"type": "open", "position": 3, "row": row})
        assert panel.errands.join(60)
        assert panel.widget.error == ""
        assert panel.below.feature == (4, panel.features[row])
        assert panel.box.children == (panel.widget, panel.below.box)
    recorded = run.heatmap(4, k=3)
    recorded.on_open(lambda *feature: None)
    recorded.widget._received({"type": "open", "position": 3, "row": 1})
    assert recorded.errands.join(60)
    assert recorded.below is None  # a handler of one's own takes the dashboard's place


# ------------------------------------------------------------------------------------- two runs


def test_alignment_keeps_both_texts_and_their_order() -> None:
    first, second = [2, 5, 6, 7, 8, 9], [2, 5, 9, 9, 9, 8, 9, 1]
    pairs = align(first, second)
    assert [a for a, _ in pairs if a is not None] == list(range(6))
    assert [b for _, b in pairs if b is not None] == list(range(8))
    assert pairs[0] == (0, 0)
    assert pairs[-1] == (None, 7)
    assert align(first, first) == [(i, i) for i in range(6)]


def test_frequent_tokens_are_aligned_in_a_long_text() -> None:
    """`difflib` drops what is frequent in 200 items or more, unless it is told not to."""
    first = [2, *([5, 6] * 150)]
    assert [pair for pair in align(first, [2, 9, *first[1:]]) if None in pair] == [(None, 1)]


def test_two_runs_stand_in_the_same_columns(run: Run, other: Run) -> None:
    panel = run.heatmap(4, other=other, k=6)
    widget = panel.widget
    assert panel.columns == align(run.tokens.ids, other.tokens.ids)
    for side, (one, name) in enumerate([(run, "values"), (other, "other_values")]):
        dense = one.features(4).dense()[:, panel.features]
        for column, pair in enumerate(panel.columns):
            at = pair[side]
            if at is None:
                assert np.isnan(drawn(panel, name)[column]).all()
            else:
                assert drawn(panel, name)[column] == pytest.approx(dense[at].numpy())
    assert any(None in pair for pair in panel.columns)
    assert widget.positions[0] == [-1 if a is None else a for a, _ in panel.columns]
    assert widget.other_tokens[4] == other.tokens.strings[4] != widget.tokens[4]
    assert widget.masked == [0]


def test_the_rows_of_two_runs_are_those_that_change_most(run: Run, other: Run) -> None:
    first, second = (one.features(4).dense() for one in (run, other))
    pairs = [(a, b) for a, b in align(run.tokens.ids, other.tokens.ids)]
    change = [
        max(abs(float(second[b, i] - first[a, i])) for a, b in pairs if a and b)
        for i in range(1024)
    ]
    found = differences(run.features(4), other.features(4), pairs)
    assert found.tolist() == pytest.approx(change, abs=1e-5)
    panel = run.heatmap(4, other=other, k=7)
    assert [change[i] for i in panel.features] == sorted(change, reverse=True)[:7]
    assert run.heatmap(4, other=run).rows == []
    larger = torch.maximum(first[1:].amax(0), second[1:].amax(0))
    by_max = run.heatmap(4, other=other, by="max", k=7)
    assert larger[by_max.features].tolist() == sorted(larger.tolist(), reverse=True)[:7]


def test_the_twin_names_the_largest_changes(run: Run, other: Run) -> None:
    panel = run.heatmap(4, other=other, k=5)
    changes = drawn(panel, "other_values")[1:] - drawn(panel)[1:]
    column, row = np.unravel_index(np.nanargmax(np.abs(changes)), changes.shape)
    twin = panel.widget.static_html()
    assert f"<td>{panel.features[row]}</td>" in twin
    assert f"<td>{changes[column, row]:.4g}</td>" in twin
    assert "other − run" in twin


def test_a_selection_in_a_token_of_the_other_run_has_no_position(run: Run, other: Run) -> None:
    panel = run.heatmap(4, other=other, k=2)
    column = next(i for i, pair in enumerate(panel.columns) if pair[0] is None)
    panel.widget.selected = [column, 0]
    assert panel.selected == (None, 4, panel.features[0], "res")
    panel.widget.selected = [column + 1, 0]
    assert panel.selected == (panel.columns[column + 1][0], 4, panel.features[0], "res")


def test_runs_of_different_saes_are_not_compared(run: Run, other: Run) -> None:
    wide = other.features(4)
    stranger = Run(
        "other", other.tokens, other.logits, {}, other.receipt,
        _features={Site(4): type(wide)(Site(4), wide.tokens, wide.positions, wide.indices,
                                       wide.values, 2048)},
    )  # fmt: skip
    with pytest.raises(ValueError, match="different SAEs at layer 4 res, of 1024 and 2048"):
        run.heatmap(4, other=stranger)


def test_steered_and_plain_can_be_compared(lab: Lab, run: Run) -> None:
    steered = lab.run(TEXT, edits=[wb.Steer((2, 5), 2.0)])
    panel = run.heatmap(4, other=steered, names=("plain", "steered"))
    assert panel.columns == [(i, i) for i in range(len(run.tokens))]
    assert not math.isnan(drawn(panel, "other_values").sum())
    assert (drawn(panel, "other_values") != drawn(panel)).any()
    assert "other = lab.run(" in panel.widget.code
    assert "edits=" in panel.widget.code


def test_the_figure_shows_the_rows_of_the_widget(run: Run, other: Run) -> None:
    panel = run.heatmap(4, "all", k=3, order="clustered")
    panel.widget.pinned = [7]
    rows = [7, *(row for row in panel.widget.orders["clustered"] if row != 7)]
    one = panel.figure().data[0]
    np.testing.assert_array_equal(one["z"][:, 1:], drawn(panel)[1:, rows].T)
    assert one["y"][0].startswith(f"4 res {panel.features[7]}")
    compared = run.heatmap(4, other=other, k=3)
    change = drawn(compared, "other_values") - drawn(compared)
    two = compared.figure().data[0]
    np.testing.assert_array_equal(two["z"][:, 1:], change[1:].T)
    assert two["zmin"] == -two["zmax"]
    assert "other − run" in two["colorbar"].title.text
