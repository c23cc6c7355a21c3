"""The second notebook in JupyterLab: from the heatmap to a dashboard, by mouse and keys."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.jupyter.driver import Notebook
from tests.jupyter.server import jupyterlab

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "02_features.ipynb"
SHOTS = os.environ.get("WORKBENCH_SCREENSHOTS")
"""A folder for pictures to be looked at; none are taken without it."""
HEATMAPS = "[Out[i] for i in Out if type(Out[i]).__name__ == 'Heatmap']"

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def notebook(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """The notebook, run from top to bottom."""
    root = tmp_path_factory.mktemp("notebooks")
    shutil.copy(NOTEBOOK, root)
    theme = os.environ.get("WORKBENCH_THEME", "light")
    with jupyterlab(root, tmp_path_factory.mktemp("server"), theme=theme) as server:
        page = browser.new_page(viewport={"width": 1280, "height": 1100})
        page.set_default_timeout(int(os.environ.get("WORKBENCH_PATIENCE", "30")) * 1000)
        opened = Notebook(page, server.document(NOTEBOOK.name))
        opened.run_all()
        yield opened
        _shoot(page, theme)
        page.close()


def _shoot(page: Page, theme: str) -> None:
    if not SHOTS:
        return
    for number, widget in enumerate(page.locator(".jp-OutputArea section.wb").all()):
        widget.scroll_into_view_if_needed()
        widget.screenshot(path=f"{SHOTS}/features-{theme}-{number}.png")
    page.screenshot(path=f"{SHOTS}/features-{theme}.png")


@pytest.fixture(scope="module")
def below(notebook: Notebook) -> Locator:
    """The dashboard that a click in the first heatmap opens below it."""
    output = notebook.output("run.heatmap(LAYER, k=12)")
    canvas = output.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": box["width"] * 0.6, "y": box["height"] * 0.5})
    notebook.until(f"{HEATMAPS}[0].below is not None", 60)
    board = output.locator("section.wb").nth(1)
    expect(board.locator(".wb-histogram")).to_be_visible()
    return board


def test_a_click_in_the_heatmap_opens_the_dashboard_of_its_feature(
    notebook: Notebook, below: Locator
) -> None:
    panel = f"{HEATMAPS}[0]"
    row = f"{panel}.widget.selected[1]"
    assert notebook.ask(f"{panel}.below.feature == (LAYER, {panel}.features[{row}])") == "True"
    index = notebook.ask(f"{panel}.below.feature[1]")
    expect(below.locator(".wb-title")).to_contain_text(index)
    expect(below.locator(".wb-passage").first).to_be_visible()
    # JupyterLab has rules of its own for lists of terms.
    names, values = (
        below.locator(f".wb-figures > div > {tag}:nth-child({n})").all()
        for n, tag in enumerate(("dt", "dd"), 1)
    )
    assert len(names) == len(values) >= 4
    for name, value in zip(names, values, strict=True):
        above, under = name.bounding_box(), value.bounding_box()
        assert above is not None
        assert under is not None
        assert above["y"] + above["height"] <= under["y"] + 0.5


def test_a_text_of_ones_own_is_coloured_as_the_model_reads_it(
    notebook: Notebook, below: Locator
) -> None:
    field = below.get_by_role("textbox", name="Your own text")
    field.scroll_into_view_if_needed()
    field.click()
    field.press_sequentially("Clara sold 7 boats — größer 🚢!")
    tried = f"{HEATMAPS}[0].below.widget.tried"
    notebook.until(f"{tried}['text'].endswith('🚢!') and {tried}['state'] != 'running'", 60)
    wanted = f"lab.run({tried}['text']).features(LAYER).of({HEATMAPS}[0].below.feature[1]).tolist()"
    assert notebook.ask(f"[round(v, 3) for v in {tried}['values']]") == notebook.ask(
        f"[round(v, 3) for v in {wanted}]"
    )
    expect(below.locator(".wb-text", has_text="größer").first).to_be_visible()


def test_a_label_that_is_typed_is_kept_and_shown_in_the_heatmap(
    notebook: Notebook, below: Locator
) -> None:
    below.get_by_role("button", name=re.compile("Add a label|^Edit$")).click()
    field = below.get_by_role("textbox", name="Label of the feature")
    field.fill("<b>boats</b> & ships")
    field.press("Enter")
    feature = f"{HEATMAPS}[0].below.feature"
    notebook.until(
        f"getattr(lab.label((LAYER, 'res'), {feature}[1]), 'text', '') == '<b>boats</b> & ships'"
    )
    expect(below.locator(".wb-label")).to_have_text("<b>boats</b> & ships")
    assert below.locator("b", has_text="boats").count() == 0  # text, and no HTML
    assert notebook.ask(f"lab.label((LAYER, 'res'), {feature}[1]).method") == "'manual'"
