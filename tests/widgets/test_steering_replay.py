"""Recorded steering texts in the browser: sliders, pages, and what Python hears."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.widgets import steering_samples as samples
from tests.widgets.bridge import Bridge
from workbench.panels.steering_takes import SteeringRecord
from workbench.widgets import SteeringPanel
from workbench.widgets.steering_panel import TAKE

pytestmark = pytest.mark.browser

VALUES = (0.0, 1.0, 4.0)
SHOWN = ".wb-take-words"


def take(value: float, **changes: Any) -> dict[str, Any]:
    """A recorded text that says which strength it is of."""
    panel = samples.finished_steering()
    made = {name: copy.deepcopy(getattr(panel, name)) for name in TAKE}
    made["rows"] = [{**row, "value": 0.0} for row in made["rows"]]
    made["rows"][0]["value"] = value
    texts = {"steered": [{"text": f" strength {value:g}", "shift": value, "p": 0.5}]}
    return {**made, "texts": {**made["texts"], **texts}, **changes}


def record() -> SteeringRecord:
    """Three strengths of one prompt, and a text of another prompt."""
    other = take(1.0, prompt="Elsewhere", run_prompt="Elsewhere")
    return SteeringRecord("pocket", (other, *map(take, VALUES)))


def slider(host: Locator | Page) -> Locator:
    return host.locator(".wb-range").first


def steered(host: Locator | Page) -> Locator:
    return host.locator(".wb-text").first


def browse(host: Locator | Page) -> None:
    """Move the slider by keys and the pager by clicks; text and number follow."""
    expect(steered(host)).to_contain_text("strength 4")
    expect(host.locator(SHOWN)).to_contain_text("Recorded text 4 of 4")
    slider(host).focus()
    slider(host).press("Home")
    expect(steered(host)).to_contain_text("strength 0")
    slider(host).press("ArrowRight")
    expect(steered(host)).to_contain_text("strength 1")
    expect(host.locator(SHOWN)).to_contain_text("3 of 4, written at 1")
    slider(host).press("ArrowRight")  # 2 is nearer to 1 than to 4
    expect(steered(host)).to_contain_text("strength 1")
    slider(host).press("ArrowRight")
    expect(steered(host)).to_contain_text("strength 4")
    host.get_by_role("button", name="Recorded text before").click()
    expect(steered(host)).to_contain_text("strength 1")
    expect(slider(host)).to_have_value("1")
    for _ in range(2):
        host.get_by_role("button", name="Recorded text before").click()
    expect(steered(host)).to_contain_text("Elsewhere strength 1")
    expect(host.locator(SHOWN)).to_contain_text("1 of 4")
    expect(slider(host)).to_be_disabled()  # of that prompt there is one text
    expect(host.get_by_role("button", name="Recorded text before")).to_be_disabled()
    host.get_by_role("button", name="Recorded text after").click()
    expect(slider(host)).to_be_enabled()
    expect(steered(host)).to_contain_text("Once upon a time there was strength 0")


def test_python_follows_what_is_browsed(bridge: Bridge) -> None:
    panel = record().widget()
    host = bridge.show(panel)
    rows = copy.deepcopy(panel.rows)
    browse(host)
    bridge.until(lambda: panel.take == 1)
    # Nothing else has come from the page.
    assert panel.rows == rows
    assert panel.error == ""


def test_the_page_follows_python(bridge: Bridge) -> None:
    panel = record().widget()
    host = bridge.show(panel)
    panel.take = 2
    bridge.painted()
    expect(steered(host)).to_contain_text("strength 1")
    expect(slider(host)).to_have_value("1")
    panel.take = 0
    bridge.painted()
    expect(steered(host)).to_contain_text("Elsewhere")
    expect(host.get_by_label("Prompt", exact=True)).to_have_value("Elsewhere")


def test_a_moved_slider_does_not_stay_over_another_text(bridge: Bridge) -> None:
    panel = record().widget()
    host = bridge.show(panel)
    slider(host).press("Home")
    expect(steered(host)).to_contain_text("strength 0")
    panel.take = 3
    bridge.painted()
    expect(slider(host)).to_have_value("4")
    expect(steered(host)).to_contain_text("strength 4")


def test_all_that_needs_a_model_is_disabled(bridge: Bridge) -> None:
    host = bridge.show(record().widget())
    expect(host.locator(".wb-run")).to_be_disabled()
    expect(host.get_by_label("Prompt", exact=True)).to_be_disabled()
    enabled = [
        one.get_attribute("aria-label") or one.text_content()
        for one in host.locator("button:visible:enabled, input:visible:enabled").all()
    ]
    rows = sum("Strength" in str(name) for name in enabled)
    assert rows == 2  # the slider and the number of the one row that was moved
    rest = {name for name in enabled if "Strength" not in str(name) and "More" not in str(name)}
    assert rest <= {"Copy as code", "Recorded text before", "Recorded text after"}


def test_nothing_is_left_of_it(bridge: Bridge) -> None:
    other = record().widget()
    bridge.show(other)
    before = bridge.left(other)
    panel = record().widget()
    bridge.show(panel)
    assert bridge.left(panel)["handlers"] > 3
    bridge.clean(panel)
    after = bridge.left(panel)
    assert (after["handlers"], after["nodes"]) == (0, 0)
    assert after["listeners"] == before["listeners"]
    panel.take = 0
    bridge.painted()


def test_a_saved_page_browses_with_the_network_off(context: BrowserContext, tmp_path: Path) -> None:
    path = record().widget().save_html(tmp_path / "texts.html")
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.set_offline(True)
    page = context.new_page()
    page.goto(path.as_uri())
    browse(page)
    assert asked == [path.as_uri()]


def test_recorded_values_are_marked(bridge: Bridge) -> None:
    host = bridge.show(record().widget())
    marks = host.locator(".wb-track-ticks").first.locator("b").all_text_contents()
    assert marks == ["0", "1", "4"]


def test_a_panel_without_recorded_texts_has_no_pager(bridge: Bridge) -> None:
    panel = samples.finished_steering()
    assert isinstance(panel, SteeringPanel)
    expect(bridge.show(panel).locator(".wb-pager")).to_be_hidden()
