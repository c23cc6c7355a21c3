"""The evolution panel on the shipped model: its values, its edits, its texts, its words."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.analysis.compare import align
from workbench.analysis.lineage import Link
from workbench.lab import Lab
from workbench.panels import Dashboard, Evolution
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


@pytest.fixture(scope="module")
def feature(run: Run) -> tuple[int, int]:
    return 3, run.features(3).top(1)[0]


def drawn(panel: Evolution, name: str = "values") -> np.ndarray:
    """The matrix that the widget holds, ``(node, column)``."""
    values = np.frombuffer(getattr(panel.widget, name), np.float32)
    return values.reshape(len(panel.widget.nodes), len(panel.columns))


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "never true"
        time.sleep(0.01)


def ask(panel: Evolution, name: str, **fields: Any) -> None:
    """What the page would send."""
    panel.widget._handle_custom_msg({"type": name, **fields}, [])


def test_nodes_hold_the_features_of_the_run(run: Run, feature: tuple[int, int]) -> None:
    panel = run.evolution(feature)
    assert len(panel.widget.nodes) == 24
    for row, node in enumerate(panel.widget.nodes):
        expected = run.features(node["layer"], node["kind"]).of(node["index"])
        assert drawn(panel)[row] == pytest.approx(expected.numpy())
        kin = panel.lineage.kin[row]
        assert (node["cosine"], node["null"]) == pytest.approx((kin.cosine, kin.null))
        assert node["label"] == run.label(kin.site, kin.index)
    origin = panel.widget.nodes[panel.widget.maps[0]["origin"]]
    assert (origin["layer"], origin["index"], origin["kind"]) == (*feature, "res")
    assert panel.widget.masked == [0]
    links = panel.widget.links
    assert len(links) == len(panel.lineage.links) > 0
    for shown, link in zip(links, panel.lineage.links, strict=True):
        ends = [panel.widget.nodes[shown[end]] for end in ("source", "target")]
        assert [(Site(n["layer"], n["kind"]), n["index"]) for n in ends] == [
            link.source, link.target
        ]  # fmt: skip
        assert (shown["tie"], shown["strength"]) == (link.tie, pytest.approx(link.strength))


def test_features_are_named_in_every_way(run: Run, feature: tuple[int, int]) -> None:
    both = run.evolution([feature, (4, 17, "mlp")])
    assert both.features == ((Site(3), feature[1]), (Site(4, "mlp"), 17))
    assert [one["title"].split(" ")[:3] for one in both.widget.maps] == [
        ["layer", "3", "res"], ["layer", "4", "mlp"]
    ]  # fmt: skip
    assert [n["map"] for n in both.widget.nodes] == [0] * 24 + [1] * 24
    assert run.evolution((4, 17), "mlp").features == both.features[1:]
    assert run.evolution((np.int64(4), np.int64(17), "mlp")).features == both.features[1:]
    single = run.evolution((4, 17), "mlp")
    assert drawn(both)[24:] == pytest.approx(drawn(single))
    with pytest.raises(ValueError, match="evolution of what"):
        run.evolution()
    with pytest.raises(ValueError, match="feature index 5000"):
        run.evolution((3, 5000))
    with pytest.raises(TypeError, match=r"a feature is \(layer, index\), such as .*; got \(3,\)"):
        run.evolution([(3,)])
    with pytest.raises(ValueError, match="unknown kind of site 'ress'"):
        run.evolution(feature, "ress")  # pyright: ignore[reportArgumentType]


def test_the_features_of_a_next_token(lab: Lab) -> None:
    run = lab.run("The capital of France is")
    panel = run.evolution(token=" Paris", k=6)
    top: Any = run.attribution(" Paris").top(6)
    rows: Any = top.itertuples()
    expected = {(Site(r.layer, r.kind), r.feature): r.attribution for r in rows}
    nodes = panel.widget.nodes
    shown = {(Site(n["layer"], n["kind"]), n["index"]): n["attribution"] for n in nodes}
    assert shown == pytest.approx(expected)
    assert panel.widget.maps == [{"title": "", "origin": -1, "target": "␣Paris"}]
    for row, node in enumerate(nodes):
        there = run.features(node["layer"], node["kind"]).of(node["index"])
        assert drawn(panel)[row] == pytest.approx(there.numpy())
    pairs = {(link["source"], link["target"], link["tie"]) for link in panel.widget.links}
    assert len(pairs) == len(panel.widget.links)
    assert all(source < target for source, target, _ in pairs)
    apart = run.evolution(token=" Paris", k=3, layout="maps")
    assert len(apart.widget.maps) == 3
    assert set(apart.features) == set(list(expected)[:3])
    with pytest.raises(ValueError, match="must be one token"):
        run.evolution(token=" Constantinople of old")


def test_ties_that_are_given_are_drawn(run: Run, feature: tuple[int, int]) -> None:
    origin, far = (Site(3), feature[1]), (Site(6, "mlp"), 11)
    causes = Link(origin, far, "causes", -2.5, 2.0)
    flow = run.evolution(feature, layout="flow", links=[causes])
    assert flow.features == (origin, far)
    assert [link for link in flow.widget.links if link["tie"] == "causes"] == [
        {"source": 0, "target": 1, "tie": "causes", "strength": -2.5, "margin": 2.0}
    ]
    own = run.evolution(feature).lineage.kin
    inside = Link(origin, (own[20].site, own[20].index), "causes", 1.0, 0.5)
    panel = run.evolution(feature, links=[causes, inside])
    ends = [(one["source"], one["target"]) for one in panel.widget.links if one["tie"] == "causes"]
    assert ends == [(panel.widget.maps[0]["origin"], 20)]


def test_two_texts_are_aligned(run: Run, other: Run, feature: tuple[int, int]) -> None:
    panel = run.evolution(feature, beside=other, names=("France", "Hungary"))
    assert panel.columns == align(run.tokens.ids, other.tokens.ids)
    assert [one["title"] for one in panel.widget.maps] == ["France", "Hungary"]
    values = drawn(panel)
    for side, one in enumerate((run, other)):
        for row in (0, 11, 23):
            node = panel.widget.nodes[24 * side + row]
            own = one.features(node["layer"], node["kind"]).of(node["index"]).numpy()
            for column, pair in enumerate(panel.columns):
                found = values[24 * side + row, column]
                place = pair[side]
                assert np.isnan(found) if place is None else found == pytest.approx(own[place])
    lacking = [column for column, pair in enumerate(panel.columns) if None in pair]
    for column in lacking:
        assert "" in (panel.widget.tokens[column], panel.widget.other_tokens[column])
    assert panel.widget.masked == [0]


def test_an_ablation_changes_the_map(lab: Lab, run: Run, feature: tuple[int, int]) -> None:
    panel = run.evolution(feature)
    assert panel.widget.edited == b""
    panel.ablate(feature)
    edit = wb.Ablate(feature)
    assert panel.edits == (edit,)
    # An independent way to the same: the lab runs the text with the edit.
    again = lab.run(TEXT, edits=[edit])
    changed = 0
    for row, node in enumerate(panel.widget.nodes):
        expected = again.features(node["layer"], node["kind"]).of(node["index"]).numpy()
        assert drawn(panel, "edited")[row] == pytest.approx(expected, abs=1e-4)
        changed += int(not np.allclose(drawn(panel)[row], drawn(panel, "edited")[row]))
        earlier = Site(node["layer"], node["kind"]) < Site(3)
        assert not earlier or np.allclose(drawn(panel)[row], drawn(panel, "edited")[row], atol=1e-4)
    assert changed > 2
    origin = panel.widget.maps[0]["origin"]
    assert np.abs(drawn(panel, "edited")[origin, 1:]).max() < 1e-3
    assert panel.widget.edits[0]["nodes"] == [origin]
    assert panel.widget.edits[0]["text"].endswith("ablated")
    before = run.logits[-1].softmax(-1)
    best = int(before.argmax())
    percent = 100 * float(again.logits[-1].softmax(-1)[best])
    said = f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"
    assert f"→ {said}" in panel.widget.said
    panel.restore()
    assert (panel.widget.edited, panel.widget.edits, panel.widget.said) == (b"", [], "")


def test_edits_of_a_run_stay_and_one_feature_has_one_edit(
    lab: Lab, feature: tuple[int, int]
) -> None:
    first = wb.Ablate((2, 7))
    run = lab.run(TEXT, edits=[first])
    panel = run.evolution(feature, edits=[wb.Steer(feature, 1.0)])
    panel.steer(feature, 3.0)
    panel.steer((1, 4), -1.0)
    assert panel.edits == (wb.Steer(feature, 3.0), wb.Steer((1, 4), -1.0))
    again = lab.run(TEXT, edits=[first, *panel.edits])
    row = panel.widget.maps[0]["origin"]
    expected = again.features(3).of(feature[1]).numpy()
    assert drawn(panel, "edited")[row] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert drawn(panel)[row] == pytest.approx(run.features(3).of(feature[1]).numpy())


def test_the_page_edits_recentres_and_takes_back(run: Run, feature: tuple[int, int]) -> None:
    panel, heard = run.evolution(feature), []
    panel.on_edit(heard.append)
    panel.widget.selected = [2, 4]
    ask(panel, "ablate", node=5)
    until(lambda: not panel.job.busy)
    assert panel.widget.error == panel.widget.busy == ""
    site, index = panel.lineage.kin[5].site, panel.lineage.kin[5].index
    assert panel.edits == (wb.Ablate((site.layer, index), kind=site.kind),)
    assert panel.widget.selected == [2, 4]
    ask(panel, "steer", node=5, strength=-2)
    ask(panel, "ablate", node=8)  # the first may not have begun: none is lost
    until(lambda: not panel.job.busy)
    assert [type(edit).__name__ for edit in panel.edits] == ["Steer", "Ablate"]
    ask(panel, "drop", edit=0)
    until(lambda: not panel.job.busy)
    assert [edit.site for edit in panel.edits] == [panel.lineage.kin[8].site]
    kept = panel.edits
    ask(panel, "centre", node=20)
    until(lambda: not panel.job.busy)
    assert panel.features == ((Site(6), panel.features[0][1]),)
    assert panel.widget.nodes[panel.widget.maps[0]["origin"]]["layer"] == 6
    assert panel.edits == kept
    assert panel.widget.selected == []
    assert heard[-1] == kept
    ask(panel, "restore")
    until(lambda: not panel.job.busy)
    assert (panel.edits, heard[-1]) == ((), ())


def test_an_edit_that_changes_nothing_is_said(run: Run, feature: tuple[int, int]) -> None:
    silent = next(i for i in range(1024) if float(run.features(2).of(i).max()) == 0)
    panel = run.evolution(feature)
    panel.ablate((2, silent))
    assert panel.widget.edits[0]["text"].endswith("ablated: nothing to change, it is silent here")
    assert panel.widget.edited == panel.widget.values
    panel.ablate(feature)
    assert panel.widget.edits[1]["text"].endswith("ablated")


def test_the_latest_wins(run: Run, feature: tuple[int, int]) -> None:
    panel = run.evolution(feature)
    wanted = [(kin.site, kin.index) for kin in panel.lineage.kin]
    for row in (0, 3, 7, 12):
        ask(panel, "centre", node=row)
    until(lambda: not panel.job.busy)
    assert panel.features == (wanted[12],)
    site, index = wanted[12]
    direct = run.evolution((site.layer, index), site.kind)
    assert panel.widget.nodes == direct.widget.nodes
    assert panel.widget.values == direct.widget.values


def test_errors_are_shown_and_change_nothing(
    run: Run, feature: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = run.evolution(feature, synchronous=True)
    nodes, code = panel.widget.nodes, panel.widget.code
    from workbench.panels import evolution_maps

    def fail(*_: object) -> None:
        raise ValueError("no memory for it")

    with monkeypatch.context() as patch:
        patch.setattr(evolution_maps, "with_edits", fail)
        ask(panel, "ablate", node=5)
    assert panel.widget.error == "no memory for it"
    assert panel.widget.busy == ""
    assert (panel.edits, panel.widget.nodes, panel.widget.code) == ((), nodes, code)
    ask(panel, "ablate", node=6)
    assert panel.widget.error == ""
    assert len(panel.edits) == 1
    with pytest.raises(ValueError, match="feature index 5000"):
        panel.follow((3, 5000))
    assert panel.widget.nodes == nodes
    ask(panel, "centre", node=400)
    assert "IndexError" in panel.widget.error


def test_selection_is_heard_and_leads_others(run: Run, feature: tuple[int, int]) -> None:
    panel, heard = run.evolution(feature), []
    panel.on_select(lambda *cell: heard.append(cell))
    follows = run.evolution((5, 1))
    kin = panel.lineage.kin
    heatmap = run.heatmap(features={kin[14].site: [kin[14].index]})
    panel.link(follows)
    panel.link(heatmap)
    panel.widget.selected = [14, 6]
    panel.widget.selected = []
    site = kin[14].site
    assert heard == [(6, site.layer, kin[14].index, site.kind)]
    assert follows.features == ((site, kin[14].index),)
    assert heatmap.selected == heard[0]
    panel.widget.selected = [3, -1]
    assert panel.selected == (None, kin[3].site.layer, kin[3].index, kin[3].site.kind)


def test_a_dashboard_opens_below(run: Run, feature: tuple[int, int]) -> None:
    panel = run.evolution(feature, synchronous=True)
    ask(panel, "open", node=5)
    below = panel.below
    assert isinstance(below, Dashboard)
    assert (below.site, below.index) == (panel.lineage.kin[5].site, panel.lineage.kin[5].index)
    ask(panel, "open", node=8)
    assert panel.below is below
    assert below.index == panel.lineage.kin[8].index
    heard = []
    panel.on_open(lambda *named: heard.append(named))
    ask(panel, "open", node=2)
    assert heard == [(0, panel.lineage.kin[2].index, "res")]


def test_the_code_draws_what_is_seen(run: Run, other: Run, feature: tuple[int, int]) -> None:
    panels = [
        run.evolution(feature),
        run.evolution([feature, (4, 17, "mlp")], threshold=0.1, view="layers"),
        run.evolution(token=" is", position=5, k=4),
        run.evolution([feature, (4, 2)], layout="flow", scale="own", at=4),
        run.evolution(feature, beside=other, names=("France", "Hungary")),
        run.evolution((4, 17), "mlp", edits=[wb.Ablate((3, 5), kind="mlp")]),
    ]
    panels[0].steer(feature, 1.5)
    panels[0].widget.token = 7
    shown = ["nodes", "links", "maps", "values", "edited", "edits", "said", "token", "threshold"]
    shown += ["scale", "view", "title", "subtitle", "other_tokens", "names", "code"]
    for panel in panels:
        scope: dict[str, Any] = {"wb": wb}
        *opening, call = panel.widget.code.split("\n")
        exec("\n".join([*opening, f"copy = {call}"]), scope)
        copy = scope["copy"].widget
        assert {n: getattr(copy, n) for n in shown} == {n: getattr(panel.widget, n) for n in shown}
    assert panels[1].widget.code.endswith("threshold=0.1, view='layers')")


def test_a_table_of_it(run: Run, other: Run, feature: tuple[int, int]) -> None:
    panel = run.evolution(feature)
    table = panel.to_frame()
    assert list(table["feature"]) == [one.index for one in panel.lineage.kin]
    for row in table.itertuples():
        values = run.features(row.layer, row.kind).of(row.feature)[1:]
        assert row.activation == pytest.approx(float(values.max()))
        fires = row.activation > 0
        assert row.position == (int(values.argmax()) + 1 if fires else -1)
        assert row.token == (run.tokens.strings[row.position] if fires else "")
    assert {"cosine", "null", "margin", "birth", "trend", "label"} <= set(table.columns)
    assert "edited" not in table
    panel.ablate(feature)
    assert panel.to_frame().set_index(["layer", "kind"]).loc[(3, "res"), "edited"] < 1e-3
    both = run.evolution([feature, (4, 2)], beside=other).to_frame()
    assert len(both) == 4 * 24
    assert both["map"].nunique() == 4
    assert "attribution" in run.evolution(token=" is", position=5, k=3).to_frame()


def test_a_figure_of_it(run: Run, feature: tuple[int, int]) -> None:
    panel = run.evolution(feature)
    marks = [one for one in panel.figure().data if one["mode"] == "markers"]
    points = {
        (marks_x, y): size
        for one in marks
        for marks_x, y, size in zip(one["x"], one["y"], one["marker"]["size"], strict=True)
    }
    assert len(points) == 24
    table = panel.to_frame()
    column = {"att": 0, "mlp": 1, "res": 2}
    largest = table["activation"].max()
    for row in table.itertuples():
        expected = 5 + 19 * (row.activation / largest) ** 0.5
        assert points[column[row.kind], row.layer] == pytest.approx(expected)
    panel.widget.threshold = 0.1
    left = sum(len(one["x"]) for one in panel.figure().data if one["mode"] == "markers")
    assert left == int((table["margin"] >= 0.1).sum()) > 1


def test_a_lab_finds_the_text_itself(lab: Lab, feature: tuple[int, int]) -> None:
    panel = lab.evolution(feature, text=TEXT)
    assert panel.run.tokens.text == TEXT
    record = lab.feature_index.feature(Site(3), feature[1])
    found = lab.evolution(feature)
    assert found.run.tokens.text == record.top[0].text
    assert float(found.run.features(3).of(feature[1])[1:].max()) > 0
    with pytest.raises(ValueError, match="give text="):
        lab.evolution(token=" Paris")


def test_settings_are_checked(run: Run, feature: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="position 99 does not exist: the run has"):
        run.evolution(feature, at=99)
    panel = run.evolution(feature, at=4, threshold=0.2)
    assert (panel.widget.token, panel.widget.threshold) == (4, 0.2)
    assert "a recorded run has no SAEs" not in panel.widget.error


def test_a_recording_says_what_it_lacks(run: Run, tmp_path: Path) -> None:
    opened = open_run(run.save(tmp_path / "text.run"))
    with pytest.raises(ValueError, match="a recorded run has no SAEs to find relatives with"):
        opened.evolution((3, 1))


def test_saved_without_a_kernel(run: Run, feature: tuple[int, int], tmp_path: Path) -> None:
    panel = run.evolution(feature)
    page = panel.save_html(tmp_path / "map.html").read_text(encoding="utf-8")
    assert f"Feature {feature[1]} of layer 3 res" in page
    bundle, _ = panel._repr_mimebundle_()
    assert "(origin)" in bundle["text/html"]


def test_no_gradient_is_kept(run: Run, feature: tuple[int, int]) -> None:
    panel = run.evolution(feature)
    panel.ablate(feature)
    assert torch.is_grad_enabled()
    edited = panel._runs[1][0]
    assert not edited.logits.requires_grad
