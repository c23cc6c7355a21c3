"""The first notebook, opened in JupyterLab and used as a person would use it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.jupyter.driver import Notebook
from tests.jupyter.server import jupyterlab

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "01_first_look.ipynb"
SHOTS = os.environ.get("WORKBENCH_SCREENSHOTS")
"""A folder for pictures to be looked at; none are taken without it."""

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module", params=["light", "dark"])
def notebook(
    request: pytest.FixtureRequest, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Notebook]:
    """The notebook, run from top to bottom."""
    root = tmp_path_factory.mktemp("notebooks")
    shutil.copy(NOTEBOOK, root)
    with jupyterlab(root, tmp_path_factory.mktemp("server"), theme=request.param) as server:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(int(os.environ.get("WORKBENCH_PATIENCE", "30")) * 1000)
        opened = Notebook(page, server.document(NOTEBOOK.name))
        opened.run_all()
        yield opened
        _shoot(page, f"notebook-{request.param}")
        page.close()


def _shoot(page: Page, name: str) -> None:
    if not SHOTS:
        return
    for number, widget in enumerate(page.locator(".jp-OutputArea section.wb").all()):
        widget.scroll_into_view_if_needed()
        widget.screenshot(path=f"{SHOTS}/{name}-{number}.png")
    page.screenshot(path=f"{SHOTS}/{name}.png")


def test_three_widgets_are_drawn(notebook: Notebook) -> None:
    expect(notebook.page.locator(".jp-OutputArea section.wb")).to_have_count(3)


def test_click_in_the_heatmap_reaches_python(notebook: Notebook) -> None:
    canvas = notebook.output("run.heatmap").locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": box["width"] * 0.6, "y": box["height"] * 0.5})
    notebook.until(
        "len(Out[[i for i in Out if type(Out[i]).__name__ == 'Heatmap'][0]].widget.selected) == 2"
    )


def test_run_writes_both_texts(notebook: Notebook) -> None:
    output = notebook.output("lab.steering")
    output.scroll_into_view_if_needed()
    output.get_by_role("button", name="Run").click()
    notebook.until("panel.widget.status.get('state') == 'done'", 60)
    assert notebook.ask("len(panel.text) > 20") == "True"
    assert (
        notebook.ask("panel.text == ''.join(t['text'] for t in panel.widget.texts['plain'])")
        == "True"
    )
    # What is on the screen is what Python holds.
    words = notebook.ask("panel.text").strip("'\"").split()
    assert words[1] in output.locator(".wb-column").first.inner_text()


def test_a_slider_moved_by_keys_changes_the_text(notebook: Notebook) -> None:
    before = notebook.ask("panel.text")
    slider = notebook.output("lab.steering").get_by_role("slider").first
    slider.scroll_into_view_if_needed()
    slider.focus()
    for _ in range(15):
        slider.press("ArrowRight")
    notebook.until("abs(panel.widget.rows[0]['value'] - 1.5) < 1e-6")
    notebook.until("panel.widget.status.get('state') == 'done' and bool(panel.widget.receipt)", 60)
    assert notebook.ask("panel.text") != before


def test_a_slider_dragged_by_the_mouse_is_followed(notebook: Notebook) -> None:
    slider = notebook.output("lab.steering").get_by_role("slider").first
    notebook.drag(slider, 0.6875, 0.66)  # from 1.5 of -4 to 4
    notebook.until("1.1 < panel.widget.rows[0]['value'] < 1.45")
    notebook.until("panel.widget.status.get('state') == 'done'", 60)
    assert 1.1 < float(notebook.ask("panel.widget.rows[0]['value']")) < 1.45


def test_no_error_is_shown(notebook: Notebook) -> None:
    assert notebook.ask("panel.widget.error") == "''"
