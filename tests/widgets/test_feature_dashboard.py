"""The dashboard in a browser: what is drawn, what the keys do, and what the page asks for."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, expect

from tests.widgets import dashboard_samples as samples
from tests.widgets.bridge import Bridge
from workbench.widgets import FeatureDashboard

pytestmark = pytest.mark.browser


def heard(widget: FeatureDashboard, *names: str) -> list[tuple[str, dict[str, Any]]]:
    """Everything that the page asks for from now on."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name in names:
        widget.on(name, lambda _name=name, **fields: found.append((_name, fields)))
    return found


def part(host: Locator, title: str) -> Locator:
    return host.locator(".wb-part").filter(has=host.page.get_by_text(title, exact=True))


# ------------------------------------------------------------------------------ what is drawn


def test_label_source_note_and_figures_are_shown(bridge: Bridge) -> None:
    host = bridge.show(samples.dashboard())
    assert host.locator(".wb-label").text_content() == "capital cities"
    expected = "detection · score 0.93 · 2026-03-04 · A. Reader"
    assert host.locator(".wb-source").text_content() == expected
    assert "fires on the name" in (host.locator(".wb-note").text_content() or "")
    figures = host.locator(".wb-figures > div").all_inner_texts()
    assert [one.split("\n") for one in figures] == [
        ["density", "0.43 %", "1,400 of 325,000 tokens"],
        ["maximum", "12.5", "in the index"],
        ["encoder to decoder", "31°", "cosine 0.86, median 0.80"],
    ]


def test_bars_are_counts_per_doubling_on_a_logarithmic_axis(bridge: Bridge) -> None:
    host = bridge.show(samples.dashboard())
    bins = host.locator(".wb-bin").evaluate_all(
        "bins => bins.map((bin) => ['x', 'width', 'height', 'data-count']"
        ".map((name) => Number(bin.getAttribute(name))))"
    )
    assert [one[3] for one in bins] == samples.COUNTS
    edges = samples.EDGES
    doublings = [math.log2(b / a) for a, b in pairwise(edges)]
    per_doubling = [n / d for n, d in zip(samples.COUNTS, doublings, strict=True)]
    tallest = max(height for _, _, height, _ in bins)
    for (_, width, height, _), value, doubling in zip(bins, per_doubling, doublings, strict=True):
        assert height / tallest == pytest.approx(value / max(per_doubling), abs=0.01)
        assert (width + 1) / (bins[0][1] + 1) == pytest.approx(doubling / doublings[0], abs=0.02)


def test_the_histogram_takes_a_log_axis_where_most_bars_would_vanish(bridge: Bridge) -> None:
    widget = samples.dashboard()
    host = bridge.show(widget)
    pressed = host.locator(".wb-segment[aria-pressed='true']").first
    expect(pressed).to_have_text("linear")
    widget.histogram = {"edges": [1, 2, 4, 8, 16], "counts": [90_000, 400, 60, 9]}
    bridge.painted()
    expect(pressed).to_have_text("log")
    heights = host.locator(".wb-bin").evaluate_all(
        "bins => bins.map((bin) => Number(bin.getAttribute('height')))"
    )
    span = math.log(90_000 / 4.5)
    for height, count in zip(heights, (90_000, 400, 60, 9), strict=True):
        assert height / heights[0] == pytest.approx(math.log(count / 4.5) / span, abs=0.01)
    host.get_by_role("button", name="linear", exact=True).click()
    bridge.painted()
    lowest = host.locator(".wb-bin").last.get_attribute("height")
    assert float(lowest or 0) < 1


def test_the_card_of_a_bin_counts(bridge: Bridge) -> None:
    widget = samples.dashboard()
    widget.histogram = {"edges": [1.0, 2.0, 4.0, 8.0], "counts": [60, 30, 10]}
    host = bridge.show(widget)
    bridge.painted()
    host.locator(".wb-bin").nth(1).hover()
    card = host.locator(".wb-card")
    assert card.locator(".wb-card-title").text_content() == "2 to 4"
    assert card.locator("dd").all_text_contents() == ["30", "30 %", "40 %"]
    host.locator(".wb-histogram").press("ArrowRight")
    assert card.locator(".wb-card-title").text_content() == "4 to 8"
    assert card.locator("dd").all_text_contents() == ["10", "10 %", "10 %"]
    host.locator(".wb-histogram").press("Home")
    assert card.locator("dd").all_text_contents() == ["60", "60 %", "100 %"]
    host.locator(".wb-histogram").press("Escape")
    assert card.is_hidden()


def test_output_tokens_have_bars_to_one_scale(bridge: Bridge) -> None:
    host = bridge.show(samples.dashboard())
    rows = part(host, "Output tokens").locator("li")
    assert rows.locator(".wb-output").all_text_contents() == [
        "␣Paris",
        "␣Tokyo",
        "␣city",
        "ing",
        "↵",
    ]
    assert rows.locator(".wb-number-cell").all_text_contents() == [
        "+2.10",
        "+1.90",
        "+1.20",
        "−1.00",
        "−0.80",
    ]
    widths = rows.locator(".wb-bar").evaluate_all("bars => bars.map((bar) => bar.style.width)")
    shares = [float(width.removesuffix("%")) for width in widths]
    expected = [100, 190 / 2.1, 120 / 2.1, 100 / 2.1, 80 / 2.1]
    assert shares == pytest.approx(expected, abs=0.01)


def test_a_token_is_as_dark_as_its_share_of_the_maximum(bridge: Bridge) -> None:
    host = bridge.show(samples.dashboard())
    bridge.painted()
    words = host.locator(".wb-passage").nth(2).locator(".wb-word")
    found = words.evaluate_all("words => words.map((word) => word.style.backgroundColor)")
    values = samples.TOP[2]["values"]
    assert sum(value > 0 for value in values) == 2
    assert [colour != "" for colour in found] == [value > 0 for value in values]
    same = [colour for colour, value in zip(found, values, strict=True) if value > 0]
    assert same[0] != same[1]
    # The strongest passage of another, weaker feature is not as dark as this one's.
    darkest = host.locator(".wb-passage").first.locator(".wb-peak")
    colour = darkest.evaluate("word => word.style.backgroundColor")
    assert colour != same[0]


def test_only_a_part_of_the_passages_is_shown_at_first(bridge: Bridge) -> None:
    host = bridge.show(samples.dashboard())
    passages = host.locator(".wb-passage")
    assert passages.count() == 6
    assert passages.first.locator(".wb-passage-value").text_content() == "12.5"
    host.get_by_role("button", name="Show all 9").click()
    assert passages.count() == 9
    host.get_by_role("button", name="Show fewer").click()
    assert passages.count() == 6


def test_the_whole_range_is_shown_from_end_to_end_in_bands(bridge: Bridge) -> None:
    host = bridge.show(samples.dashboard())
    host.get_by_role("button", name="Whole range").click()
    values = host.locator(".wb-passage-value").all_text_contents()
    assert (values[0], values[-1], len(values)) == ("12.5", "0.6", 6)
    host.get_by_role("button", name="Show all 8").click()
    values = [float(v) for v in host.locator(".wb-passage-value").all_text_contents()]
    assert values == sorted(values, reverse=True)
    lines = host.locator(".wb-passages").first.locator(".wb-band, .wb-passage-value")
    bands = {
        "strongest hundredth of its firings": (0.99, 2.0),
        "strongest tenth": (0.9, 0.99),
        "upper half": (0.5, 0.9),
        "lower half": (0.1, 0.5),
        "weakest tenth": (-1.0, 0.1),
    }
    now, seen, number = (0.0, 0.0), [], 0
    for line in lines.all_text_contents():
        if line in bands:
            now = bands[line]
            seen.append(line)
            continue
        below = samples.SPREAD[number]["below"]
        assert now[0] <= below < now[1], line
        number += 1
    assert number == len(samples.SPREAD)
    assert seen == sorted(set(seen), key=list(bands).index)
    assert (seen[0], seen[-1], len(seen) > 3) == (
        "strongest hundredth of its firings",
        "weakest tenth",
        True,
    )


# ---------------------------------------------------------------------------------- the keys


def test_arrow_keys_step_through_passages_and_tokens(bridge: Bridge) -> None:
    host = bridge.show(samples.dashboard())
    block = host.locator(".wb-text").first
    card = host.locator(".wb-card")
    block.press("ArrowDown")
    first = samples.TOP[0]
    title = card.locator(".wb-card-title")
    assert title.text_content() == first["tokens"][first["at"]].replace(" ", "␣")
    names, shown = (card.locator(tag).all_text_contents() for tag in ("dt", "dd"))
    facts = dict(zip(names, shown, strict=True))
    assert facts == {
        "activation": "12.5",
        "of its maximum": "100 %",
        "stronger than": "100 % of its firings",
        "where": first["place"],
    }
    block.press("ArrowDown")
    assert card.locator("dd").first.text_content() == "12"
    block.press("ArrowRight")
    second = samples.TOP[1]
    assert title.text_content() == second["tokens"][second["at"] + 1].replace(" ", "␣")
    assert "stronger than" not in card.locator("dt").all_text_contents()
    block.press("Home")
    assert title.text_content() == second["tokens"][0].replace(" ", "␣")
    assert (second["tokens"][0].replace(" ", "␣")) in (
        host.locator("[aria-live]").text_content() or ""
    )
    block.press("Escape")
    assert card.is_hidden()


def test_a_token_pointed_at_is_marked_in_the_histogram(bridge: Bridge) -> None:
    host = bridge.show(samples.dashboard())
    bridge.painted()
    assert host.locator(".wb-mark").count() == 0
    host.locator(".wb-passage").nth(1).locator(".wb-peak").hover()
    bridge.painted()
    at = float(host.locator(".wb-mark").get_attribute("x1") or "nan")
    bar = host.locator(".wb-bin").nth(-2)  # of 10 to 12; the value is 12, where the next begins
    right = float(bar.get_attribute("x") or "nan") + float(bar.get_attribute("width") or "nan")
    assert at == pytest.approx(right, abs=1)
    host.locator(".wb-title").hover()
    bridge.painted()
    assert host.locator(".wb-mark").count() == 0


# -------------------------------------------------------------------------- what the page asks


def test_buttons_ask(bridge: Bridge) -> None:
    widget = samples.dashboard(history=["feature 3 · layer 1 res"])
    found = heard(widget, "steer", "follow", "back")
    host = bridge.show(widget)
    for name in ("Steer", "Follow", "Back"):
        host.get_by_role("button", name=name, exact=True).press("Enter")
    bridge.until(lambda: len(found) == 3)
    assert found == [("steer", {}), ("follow", {}), ("back", {})]
    assert host.get_by_role("button", name="Back").get_attribute("title") == (
        "To feature 3 · layer 1 res"
    )
    widget.history = []
    bridge.painted()
    assert host.locator(".wb-back").is_hidden()


def test_a_neighbour_or_companion_is_opened(bridge: Bridge) -> None:
    widget = samples.dashboard()
    found = heard(widget, "open")
    host = bridge.show(widget)
    row = part(host, "Nearest features").get_by_role("button").first
    assert row.inner_text().split() == ["17", "towns", "0.71"]
    assert row.get_attribute("title") == "detection · score 0.91 · 2026-03-04"
    row.click()
    company = part(host, "Fires together with").get_by_role("button")
    assert company.last.inner_text().split() == ["88", "of", "23", "%", "·", "×3"]
    company.last.press("Enter")
    bridge.until(lambda: len(found) == 2)
    assert found == [
        ("open", {"layer": 4, "kind": "res", "index": 17}),
        ("open", {"layer": 5, "kind": "res", "index": 88}),
    ]


def test_the_label_is_edited_with_the_keys_alone(bridge: Bridge) -> None:
    widget = samples.dashboard()
    found = heard(widget, "label", "note")
    host = bridge.show(widget)
    host.get_by_role("button", name="Edit", exact=True).press("Enter")
    field = host.get_by_role("textbox", name="Label of the feature")
    expect(field).to_be_focused()
    assert field.input_value() == "capital cities"
    field.fill("  seats of government ")
    field.press("Enter")
    bridge.until(lambda: len(found) == 1)
    assert found == [("label", {"text": "seats of government"})]
    expect(host.get_by_role("button", name="Edit", exact=True)).to_be_focused()
    # Unchanged and given up: nothing is asked.
    host.get_by_role("button", name="Edit", exact=True).press("Enter")
    field.press("Enter")
    host.get_by_role("button", name="Edit", exact=True).press("Enter")
    field.fill("something else")
    field.press("Escape")
    host.get_by_role("button", name="Edit note").click()
    host.get_by_role("textbox", name="Note on the feature").fill("")
    host.get_by_role("button", name="Save").click()
    bridge.until(lambda: len(found) == 2)
    assert found[1] == ("note", {"text": ""})
    widget.label, widget.note = {"text": ""}, ""
    bridge.painted()
    assert host.get_by_role("button", name="Add a label").is_visible()
    assert host.get_by_role("button", name="Add a note").is_visible()
    assert host.locator(".wb-source").is_hidden()


def test_typing_asks_once_it_pauses(bridge: Bridge) -> None:
    widget = samples.dashboard(tried={})
    found = heard(widget, "try")
    host = bridge.show(widget)
    field = host.get_by_role("textbox", name="Your own text")
    field.press_sequentially("Rome is", delay=5)
    bridge.until(lambda: found)
    bridge.page.wait_for_timeout(400)
    assert found == [("try", {"text": "Rome is"})]
    # An answer to an older text leaves what is typed alone.
    widget.tried = {"text": "Rom", "tokens": ["<bos>", "Rom"], "values": [9.0, 0.0], "masked": [0]}
    bridge.painted()
    assert field.input_value() == "Rome is"


def test_an_own_text_is_coloured_with_bos_masked(bridge: Bridge) -> None:
    host = bridge.show(samples.dashboard())
    bridge.painted()
    own = part(host, "Try your own text")
    words = own.locator(".wb-word")
    colours = words.evaluate_all("words => words.map((word) => word.style.backgroundColor)")
    assert [colour != "" for colour in colours] == [False, True, False, False, True]
    assert "wb-masked" in (words.first.get_attribute("class") or "")
    assert own.get_by_role("status").text_content() == "fires on 2 of 4 tokens, at most 6.25"
    words.first.hover()
    card = host.locator(".wb-card")
    assert "never scored" in (card.text_content() or "")
    assert "80" not in (card.text_content() or "")
    words.nth(1).hover()
    assert card.locator("dd").all_text_contents() == ["6.25", "50 %"]


def test_a_silent_own_text_is_said_to_be_so(bridge: Bridge) -> None:
    tried = {
        "text": "x y",
        "tokens": ["<bos>", "x", " y"],
        "values": [7.0, 0.0, 0.0],
        "masked": [0],
    }
    widget = samples.dashboard(tried={**tried, "state": "done"}, maximum=0.0)
    host = bridge.show(widget)
    said = part(host, "Try your own text").get_by_role("status")
    assert said.text_content() == "silent on all 2 tokens"
    widget.tried = {**tried, "state": "running"}
    bridge.painted()
    assert said.text_content() == "Reading…"


def test_what_is_missing_is_said_and_its_parts_are_gone(bridge: Bridge) -> None:
    empty: dict[str, Any] = {"histogram": {}, "top": [], "spread": [], "cofiring": []}
    widget = samples.dashboard(missing="There is no index", remedy="lab.index(texts)", **empty)
    host = bridge.show(widget)
    bridge.painted()
    assert host.locator(".wb-missing").inner_text().split("\n") == [
        "There is no index",
        "lab.index(texts)",
    ]
    titles = host.locator(".wb-part:visible .wb-part-head b").all_text_contents()
    assert [t for t in titles if not t.replace(".", "").isdigit()] == [
        "Output tokens",
        "Try your own text",
        "Nearest features",
    ]
    widget.missing, widget.top = "", samples.TOP
    bridge.painted()
    assert host.locator(".wb-missing").is_hidden()
    assert host.locator(".wb-passage").count() == 6


def test_a_handler_that_raises_is_shown(bridge: Bridge) -> None:
    widget = samples.dashboard()

    def refuse() -> None:
        raise ValueError("no such thing")

    widget.on("steer", refuse)
    host = bridge.show(widget)
    host.get_by_role("button", name="Steer").click()
    bridge.until(lambda: widget.error)
    bridge.painted()
    assert "ValueError: no such thing" in (host.get_by_role("alert").text_content() or "")


# --------------------------------------------------------------------------------- in Python


def test_what_the_page_may_not_write_is_left(bridge: Bridge) -> None:
    widget = samples.dashboard(error="x")
    bridge.show(widget)
    widget.set_state({"note": "from the page", "error": ""})
    assert widget.note.startswith("fires on the name")
    assert widget.error == ""


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("top", [{"tokens": ["a"], "values": [], "at": 0, "below": 0.0}], "one value a token"),
        ("spread", [{"tokens": ["a"], "values": [1.0], "at": 1, "below": 0.0}], "at 1"),
        ("histogram", {"edges": [1.0, 2.0], "counts": [1, 2]}, "2 counts need one edge more"),
        ("tried", {"tokens": ["a"], "values": []}, "1 tokens and 0 values"),
        ("tried", {"state": "late"}, "idle, running, done"),
    ],
)
def test_values_that_do_not_fit_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureDashboard(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("facts", [{"name": "density", "valeu": "1"}], "Did you mean 'value'"),
        ("label", {"txt": "a"}, "Did you mean 'text'"),
        ("cofiring", [samples.named(1)], "lacks 'together'"),
        ("neighbours", [{"title": "x", "rows": [samples.named(1)]}], "lacks 'cosine'"),
    ],
)
def test_keys_that_do_not_exist_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        FeatureDashboard(**{name: value})


def test_an_unknown_message_is_refused() -> None:
    widget = FeatureDashboard()
    with pytest.raises(ValueError, match="no message 'stear'; there are label, note, steer"):
        widget.on("stear", print)
    widget._receive(None, {"type": "stear"}, [])
    assert "no message 'stear'" in widget.error


def test_the_twin_says_it_all(context: BrowserContext) -> None:
    page = context.new_page()
    page.set_content(samples.dashboard(missing="a part is missing", remedy="lab.x()").static_html())
    text = page.locator("body").inner_text()
    for said in (
        "capital cities (detection · score 0.93 · 2026-03-04 · A. Reader)",
        "a part is missing",
        "lab.x()",
        "1,400 of 325,000 tokens",
        "␣Paris",
        "+2.1",
        "-0.8",
        "1,400 firings between 0.5 and 14",
        "country names, Europe",
        "31 of 88",
        "0.380",
        "Rome is a city (maximum 6.25)",
    ):
        assert said in text, said
    strongest = page.locator("ul").first.locator("li").first
    first = samples.TOP[0]
    assert strongest.locator("b").text_content() == first["tokens"][first["at"]]
    assert (strongest.text_content() or "").startswith("12.5: ")
    assert page.locator("ul").last.locator("li").count() == 8


def test_features_that_follow_one_another_leave_no_listener(bridge: Bridge) -> None:
    widget = samples.dashboard()
    bridge.show(widget)
    before = bridge.left(widget)["listeners"]
    for number in range(20):
        rows = [samples.named(number * 10 + n, cosine=0.5) for n in range(2)]
        group = {"title": "layer 5 res", "own": True, "rows": rows}
        widget.neighbours = [samples.NEIGHBOURS[0], group]
    bridge.painted()
    assert bridge.left(widget)["listeners"] == before
