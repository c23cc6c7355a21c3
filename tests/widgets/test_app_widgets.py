"""The app's own widgets, and that widgets on one page leave each other's looks alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator

from tests.widgets.bridge import Bridge
from tests.widgets.test_widget_contract import HOSTILE, MAKERS
from workbench.widgets import AppFeature, AppPrompt, AppSearch, Widget

pytestmark = pytest.mark.browser

HIT = {"layer": 5, "kind": "res", "index": 231, "label": "capital cities", "score": 0.5}
HITS = [{**HIT, "why": "fires on 0.4 % of tokens"}, {**HIT, "index": 9, "label": "", "why": ""}]
WAYS = [
    {"id": "label", "text": "label", "hint": "words", "typed": True},
    {"id": "output", "text": "writes", "hint": "a token", "score": "logit"},
]


def prompt(**more: Any) -> AppPrompt:
    places = [{"value": "5 res", "text": "layer 5 res", "group": "res"}]
    places.append({"value": "6 res", "text": "layer 6 res", "group": "res"})
    given: dict[str, Any] = {"title": "workbench", "examples": ["A boat", "two\nlines"]}
    return AppPrompt(**{**given, "places": places, "place": "5 res", "code": "lab.app()", **more})


def feature(**more: Any) -> AppFeature:
    tabs = [{"id": each, "text": each.title()} for each in ("feature", "layers", "search")]
    return AppFeature(**{"title": "capital cities", "tabs": tabs, "tab": "feature", **more})


def search(**more: Any) -> AppSearch:
    found = {"state": "done", "how": "label", "query": "cities", "rows": HITS}
    return AppSearch(**{"ways": WAYS, "found": found, **more})


APP: dict[str, tuple[Callable[[], Widget], Callable[[], Widget]]] = {
    "prompt": (
        prompt,
        lambda: prompt(title=HOSTILE, examples=[HOSTILE], note=HOSTILE, prompt=HOSTILE),
    ),
    "feature": (feature, lambda: feature(title=HOSTILE, subtitle=HOSTILE, hint=HOSTILE)),
    "search": (
        search,
        lambda: search(
            found={"state": "done", "how": "label", "query": HOSTILE,
                   "rows": [{**HIT, "label": HOSTILE, "why": HOSTILE, "kind": HOSTILE}]},
        ),
    ),
}  # fmt: skip
ALL = {name: makers[0] for name, makers in (MAKERS | APP).items()}

LOOKS = """el => [...el.querySelectorAll('*')]
  .filter(node => node.getClientRects().length && !node.closest('.wb-card'))
  .map((node) => { const s = getComputedStyle(node), box = node.getBoundingClientRect();
    return [node.tagName, node.className.baseVal ?? node.className, Math.round(box.width),
      Math.round(box.height), s.display, s.padding, s.margin, s.fontSize, s.color,
      s.backgroundColor, s.border].join(' | '); })"""


def messages(bridge: Bridge, widget: Widget) -> list[dict[str, Any]]:
    """What the page sends from now on."""
    got: list[dict[str, Any]] = []
    widget.on_msg(lambda _, content, __: got.append(content))
    return got


@pytest.mark.parametrize("name", ALL)
def test_the_others_on_a_page_change_nothing(bridge: Bridge, name: str) -> None:
    host = bridge.show(ALL[name]())
    bridge.painted()
    before = host.evaluate(LOOKS)
    others = [bridge.show(make()) for other, make in ALL.items() if other != name]
    for other in others:
        other.evaluate("el => { el.hidden = true; el.style.display = 'none'; }")
    bridge.painted()
    after = host.evaluate(LOOKS)
    assert len(after) > 5
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert changed == []


@pytest.mark.parametrize("name", APP)
def test_outside_text_is_text(bridge: Bridge, name: str) -> None:
    widget = APP[name][1]()
    host = bridge.show(widget)
    assert HOSTILE in (host.text_content() or "")
    assert host.locator("img, script").count() == 0
    twin = widget.static_html()
    assert "<img" not in twin
    assert "&lt;img" in twin


@pytest.mark.parametrize("name", APP)
def test_cleanup_leaves_nothing(bridge: Bridge, name: str) -> None:
    bridge.show(prompt())
    widget = APP[name][0]()
    before = bridge.left(widget)
    bridge.show(widget)
    assert bridge.left(widget)["handlers"] > 3
    bridge.clean(widget)
    after = bridge.left(widget)
    assert (after["handlers"], after["nodes"]) == (0, 0)
    assert after["listeners"] == before["listeners"]
    assert after["observers"] == before["observers"]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", APP)
def test_narrow_page_does_not_overflow(
    open_bridge: Callable[..., Bridge], name: str, *, dark: bool
) -> None:
    bridge = open_bridge(width=400, dark=dark)
    host = bridge.show(APP[name][0]())
    bridge.painted()
    assert bridge.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert host.locator(".wb").get_attribute("data-theme") == ("dark" if dark else "light")


def box_of(host: Locator) -> Locator:
    return host.get_by_role("textbox", name="Prompt")


def test_enter_runs_and_shift_enter_breaks_the_line(bridge: Bridge) -> None:
    widget = prompt()
    got = messages(bridge, widget)
    host = bridge.show(widget)
    box = box_of(host)
    box.fill("one")
    box.press("Shift+Enter")
    box.press_sequentially("two 🚢")
    assert got == []
    box.press("Enter")
    bridge.until(lambda: got == [{"type": "run", "prompt": "one\ntwo 🚢"}])
    height = box.evaluate("e => e.clientHeight")
    widget.prompt = "one"
    bridge.painted()
    assert box.input_value() == "one"
    assert box.evaluate("e => e.clientHeight") < height


def test_an_example_and_a_place_are_sent(bridge: Bridge) -> None:
    widget = prompt()
    got = messages(bridge, widget)
    host = bridge.show(widget)
    host.get_by_role("button", name="Run the prompt: two lines").click()
    host.get_by_label("Features of").select_option("6 res")
    bridge.until(lambda: len(got) == 2)
    assert got == [{"type": "run", "prompt": "two\nlines"}, {"type": "place", "value": "6 res"}]
    widget.error = "layer 6 has no SAE"
    bridge.painted()
    assert host.get_by_label("Features of").input_value() == "5 res"


def test_what_is_computed_is_said(bridge: Bridge) -> None:
    widget = prompt(note="7 tokens")
    host = bridge.show(widget)
    status = host.get_by_role("status")
    assert status.inner_text() == "7 tokens"
    widget.busy = "Reading the prompt…"
    bridge.painted()
    assert status.inner_text() == "Reading the prompt…"
    assert host.locator(".wb").get_attribute("aria-busy") == "true"


def test_tabs_by_mouse_and_keys(bridge: Bridge) -> None:
    widget = feature()
    got = messages(bridge, widget)
    host = bridge.show(widget)
    tab = host.get_by_role("tab", name="Feature")
    tab.click()  # open already: nothing to ask
    tab.press("ArrowLeft")
    bridge.until(lambda: got == [{"type": "tab", "id": "search"}])
    widget.tab = "layers"
    bridge.painted()
    assert host.get_by_role("tab", selected=True).inner_text() == "Layers"
    assert host.locator(".wb-tab[tabindex='0']").count() == 1


def test_results_are_chosen_and_the_chosen_one_is_marked(bridge: Bridge) -> None:
    widget = search()
    got = messages(bridge, widget)
    host = bridge.show(widget)
    host.get_by_role("searchbox").press("ArrowDown")
    host.locator(".wb-app-hit").first.press("Enter")
    bridge.until(lambda: got == [{"type": "choose", "layer": 5, "kind": "res", "index": 231}])
    assert host.locator("[aria-pressed='true'].wb-app-hit").count() == 0
    widget.chosen = [5, "res", 9]
    bridge.painted()
    assert host.locator("[aria-pressed='true'].wb-app-hit").inner_text().startswith("no label")


def test_a_search_that_reads_the_weights_waits_for_enter(bridge: Bridge) -> None:
    widget = search()
    got = messages(bridge, widget)
    host = bridge.show(widget)
    box = host.get_by_role("searchbox")
    box.fill("boat")
    bridge.until(lambda: got == [{"type": "search", "how": "label", "query": "boat"}])
    host.get_by_role("button", name="writes").click()
    box.fill("Paris")
    bridge.page.wait_for_timeout(400)
    assert len(got) == 1
    host.get_by_role("button", name="Search").click()
    bridge.until(lambda: got[1:] == [{"type": "search", "how": "output", "query": "Paris"}])
    widget.found = {"state": "done", "how": "output", "query": "Paris", "error": "no <b>index</b>"}
    bridge.painted()
    assert "no <b>index</b>" in host.get_by_role("status").inner_text()


def test_an_unknown_message_is_shown_and_a_typo_refused(bridge: Bridge) -> None:
    widget = prompt()
    bridge.show(widget)
    widget._receive(widget, {"type": "walk"}, [])
    assert "no message 'walk'; there are run, place" in widget.error
    with pytest.raises(ValueError, match="no message 'rnu'"):
        widget.on("rnu", print)
    with pytest.raises(TypeError, match="Did you mean 'text'"):
        AppPrompt(places=[{"value": "x", "txt": "y"}])
