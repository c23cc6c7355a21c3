"""The app's panel, without a browser: what follows what, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import pytest

import workbench as wb
from workbench.lab import Lab
from workbench.panels import App, app_search
from workbench.sites import Site

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


@pytest.fixture(params=[False, True], ids=["threads", "synchronous"])
def app(lab: Lab, request: pytest.FixtureRequest) -> Iterator[App]:
    """An app that has run a prompt, in threads and without."""
    made = lab.app(PROMPT, synchronous=request.param)
    yield rest(made)
    made.join(60)
    ipywidgets.Widget.close_all()


def rest(app: App) -> App:
    """The app when it shows what was asked, without an error."""
    assert app.join(120)
    assert (app.page.bar.error, app.page.head.error) == ("", "")
    return app


def ask(widget: Any, **message: Any) -> None:
    """What the page would send."""
    widget._handle_custom_msg(message, [])


def test_only_what_is_looked_at_is_made(app: App) -> None:
    assert app.heatmap is not None
    assert app.dashboard is not None
    assert (app.evolution, app.steering) == (None, None)
    assert app.selected is not None
    assert app.selected[1:] == (*app.dashboard.feature, "res")
    assert app.heatmap.selected == app.selected
    assert "workbench" in app.static_html()
    assert PROMPT in app.static_html()


def test_nothing_runs_without_a_prompt(lab: Lab) -> None:
    app = rest(lab.app())
    assert (app.run, app.heatmap, app.dashboard, app.selected) == (None, None, None, None)
    assert "Run a prompt" in app.page.head.hint
    assert "no prompt yet" in repr(app)


def test_every_panel_follows_the_chosen_feature(app: App) -> None:
    app.open("layers")
    rest(app)
    app.open("steering")
    rest(app)
    for layer, index in [(5, 3), (4, 17)]:
        app.select(layer, index)
        rest(app)
        assert app.heatmap is not None
        assert app.steering is not None
        assert app.evolution is not None
        assert app.heatmap.selected is not None
        assert app.heatmap.selected[1:] == (layer, index, "res")
        # The row of the feature before was not touched, and is gone.
        rows = [(row["layer"], row["index"]) for row in app.steering.widget.rows]
        assert rows == [(layer, index)]
        # A panel that is out of sight waits until it is looked at.
        assert app.evolution.features != ((Site(layer, "res"), index),)
        app.open("layers")
        rest(app)
        assert app.evolution.features == ((Site(layer, "res"), index),)
        app.open("steering")
        rest(app)


def test_a_choice_inside_a_panel_is_one_everywhere(app: App) -> None:
    app.open("layers")
    rest(app)
    assert app.evolution is not None
    centre = app.evolution.features
    node = next(n for n, f in enumerate(app.evolution._nodes) if f != centre[0])
    site, index = app.evolution._nodes[node]
    app.evolution.widget.selected = [node, -1]
    rest(app)
    assert app.selected is not None
    assert app.selected[1:] == (site.layer, index, site.kind)
    assert app.evolution.features == centre  # the map stays where it is
    app.open("feature")
    rest(app)
    assert app.dashboard is not None
    assert (app.dashboard.site, app.dashboard.index) == (site, index)
    ask(app.dashboard.widget, type="open", layer=5, kind="res", index=9)
    app.dashboard.errands.join(60)
    rest(app)
    assert app.selected[1:] == (5, 9, "res")
    ask(app.dashboard.widget, type="follow")
    rest(app)
    assert app.tab == "layers"
    assert app.evolution.features == ((Site(5, "res"), 9),)


def test_another_prompt_keeps_feature_pins_and_touched_rows(app: App) -> None:
    app.select(5, 3)
    app.open("steering")
    rest(app)
    assert app.steering is not None
    row = app.steering.widget.rows[0]["id"]
    app.steering.widget.update_row(row, value=1.5)
    app.select(5, 4)
    rest(app)
    assert app.heatmap is not None
    old = app.heatmap
    old.widget.pinned = [0, *old.widget.pinned]
    pinned = old.pinned[0]
    app.show("A boat 🚢")
    rest(app)
    assert app.run is not None
    assert app.run.tokens.text == "A boat 🚢"
    assert {pinned, (5, 4, "res")} <= set(app.heatmap.pinned)
    assert (5, 3, "res") not in app.heatmap.pinned
    assert app.selected is not None
    assert app.selected[1:] == (5, 4, "res")
    assert app.steering.widget.prompt == "A boat 🚢"
    assert [(r["index"], r["value"]) for r in app.steering.widget.rows] == [(3, 1.5), (4, 0.0)]
    assert old.widget.comm is None  # closed: nothing piles up
    app.steering.widget.prompt = "of one's own"
    app.show("A third")
    rest(app)
    assert app.steering.widget.prompt == "of one's own"


def test_what_is_wrong_is_said_and_the_page_stays(app: App) -> None:
    ask(app.page.bar, type="run", prompt=" \n")
    assert "the prompt is empty" in app.page.bar.error
    app.show("boat " * 400)
    app.join(60)
    assert "256" in app.page.bar.error
    assert app.run is not None
    assert app.run.tokens.text == PROMPT
    ask(app.page.bar, type="place", value="4 att")
    rest(app)
    assert app.heatmap is not None
    assert Site(4, "att") in {site for site, _ in app.heatmap.rows}
    with pytest.raises(ValueError, match="tab must be one of feature, layers"):
        app.open("layer")
    with pytest.raises(ValueError, match="9999"):
        app.select(5, 9999)
    with pytest.raises(ValueError, match="the prompt is empty"):
        app.show("")


def test_a_place_that_cannot_be_drawn_leaves_the_old_one(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.run is not None
    old, shown = app.heatmap, app.page.bar.place

    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("no such SAE here")

    monkeypatch.setattr(type(app.run), "heatmap", broken)
    ask(app.page.bar, type="place", value="4 att")
    app.join(60)
    assert app.page.bar.error == "no such SAE here"
    assert app.page.bar.busy == ""
    assert (app.heatmap, app.page.bar.place) == (old, shown)
    monkeypatch.undo()
    app.select(5, 3)  # goes on as before
    rest(app)


def test_the_newest_of_many_requests_wins(lab: Lab) -> None:
    app = lab.app(PROMPT)
    for index in range(12):
        app.select(5, index)
        app.show(f"boat {index}")
    rest(app)
    assert app.run is not None
    assert app.run.tokens.text == "boat 11"
    assert app.dashboard is not None
    assert app.dashboard.feature == (5, 11)
    assert app.heatmap is not None
    assert app.heatmap.selected is not None
    assert app.heatmap.selected[1:] == (5, 11, "res")


def test_a_click_counts_while_another_panel_is_at_work(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = rest(lab.app(PROMPT, feature=(5, 3)))
    assert app.dashboard is not None
    assert app.heatmap is not None
    inside, go = threading.Event(), threading.Event()
    show = app.dashboard.show

    def slow(*given: Any) -> None:
        inside.set()
        assert go.wait(60)
        show(*given)

    monkeypatch.setattr(app.dashboard, "show", slow)
    app.select(5, 4)
    assert inside.wait(60)
    app.heatmap.widget.selected = [2, 0]
    go.set()
    rest(app)
    assert app.selected == app.heatmap.selected
    assert app.selected is not None
    assert app.selected[1:] == (*app.dashboard.feature, "res")


def test_a_second_click_on_the_same_opens_its_dashboard(app: App) -> None:
    app.open("layers")
    rest(app)
    assert app.heatmap is not None

    def click(row: int) -> None:
        assert app.heatmap is not None
        app.heatmap.widget.selected = [2, row]
        ask(app.heatmap.widget, type="open", position=2, row=row)
        rest(app)

    click(1)
    assert app.tab == "layers"
    click(1)
    assert app.tab == "feature"


def test_saved_as_one_file_with_all_that_is_drawn(app: App, tmp_path: Path) -> None:
    found = app.save_html(tmp_path / "new" / "app.html").read_text(encoding="utf-8")
    with pytest.raises(IsADirectoryError, match="is a folder, and one file is written"):
        app.save_html(tmp_path)
    assert app.evolution is not None
    assert found.count("render({ model: recordedModel(saved)") == len(app.page.parts()) == 5
    assert "://" not in found.replace("http://www.w3.org/2000/svg", "")
    assert "no_such" not in found


def test_searches(lab: Lab) -> None:
    german = lab.feature("language:de")
    hits = app_search.search(lab, "label", "language:de")
    assert hits[0]["label"] == "language:de"
    assert german in [(one["layer"], one["index"]) for one in hits]
    (one,) = app_search.search(lab, "index", "5 231")
    assert (one["layer"], one["kind"], one["index"]) == (5, "res", 231)
    writes = app_search.search(lab, "output", "Paris")
    frame = lab.search(" Paris", by="output", k=1)
    assert (writes[0]["layer"], writes[0]["index"]) == (frame.layer[0], frame.feature[0])
    like = app_search.search(lab, "decoder", "5 231")
    assert all(-1 <= one["score"] <= 1 for one in like)
    assert app_search.search(lab, "text", "Guten Tag")[0]["why"].startswith(tuple("123456789"))
    with pytest.raises(ValueError, match="type what to look for"):
        app_search.search(lab, "label", "  ")
    assert "meaning" not in [way["id"] for way in app_search.ways()]
    assert "meaning" in [way["id"] for way in app_search.ways(encoder="folder")]


def test_a_search_of_the_page_is_answered_or_says_why_not(app: App) -> None:
    ask(app.page.search, type="search", how="index", query="5 231")
    app.errands.join(60)
    assert app.page.search.found["rows"][0]["index"] == 231
    ask(app.page.search, type="search", how="index", query="5 99999")
    app.errands.join(60)
    assert "99999" in app.page.search.found["error"]
    ask(app.page.search, type="choose", layer=5, kind="res", index=231)
    rest(app)
    assert app.selected is not None
    assert app.selected[1:] == (5, 231, "res")
    assert app.page.search.chosen == [5, "res", 231]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tab": "x"}, "tab must be one of"),
        ({"layer": 99}, "no SAE of kind 'res' at layer 99; there is at 0, 1"),
        ({"feature": (5, 5000)}, "5000"),
    ],
)
def test_the_constructor_refuses(lab: Lab, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lab.app(**wrong)
