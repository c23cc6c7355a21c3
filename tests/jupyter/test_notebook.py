"""The widgets in Notebook 7: drawn, linked to Python, in sight as a whole, light and dark."""

from __future__ import annotations

import os
from collections.abc import Iterator

import nbformat
import pytest
from playwright.sync_api import Browser, expect

from tests.jupyter.driver import Notebook
from tests.jupyter.server import jupyterlab

SHOTS = os.environ.get("WORKBENCH_SCREENSHOTS")
"""A folder for pictures to be looked at; none are taken without it."""
NAME = "app.ipynb"
CELLS = (
    "import workbench as wb\nlab = wb.open()",
    "app = lab.app('The capital of France is')\napp",
)

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def notebook(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    root = tmp_path_factory.mktemp("notebooks")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), root / NAME)
    scratch = tmp_path_factory.mktemp("server")
    with jupyterlab(root, scratch, theme="dark", application="notebook") as server:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(int(os.environ.get("WORKBENCH_PATIENCE", "30")) * 1000)
        opened = Notebook(page, server.document(NAME))
        opened.run_all()
        yield opened
        page.close()


def test_the_app_works_and_is_in_sight_as_a_whole(notebook: Notebook) -> None:
    page = notebook.page
    app = page.locator(".wb-app")
    notebook.until("app.dashboard is not None and not app.job.busy", 60)
    expect(app.locator(".wb-app-prompt")).to_have_attribute("data-theme", "dark")
    expect(app.locator(".wb-histogram")).to_be_visible()
    # Tall outputs get a box of their own here, to scroll in.
    seen = app.locator("xpath=ancestor::*[contains(@class, 'jp-Cell-outputArea')]").bounding_box()
    whole = app.bounding_box()
    assert whole is not None
    assert seen is not None
    assert seen["height"] >= whole["height"] > 1000
    before = notebook.ask("app.selected")
    canvas = app.locator(".wb-feature-heatmap canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": box["width"] * 0.6, "y": box["height"] * 0.55})
    notebook.until(f"app.selected != {before} and not app.job.busy", 60)
    app.get_by_role("tab", name="Steering", exact=True).click()
    entry = app.get_by_role("spinbutton", name="as a number").first
    entry.fill("1.5")
    entry.press("Enter")
    notebook.until("app.steering.widget.status.get('state') == 'done'", 60)
    words = notebook.ask("app.steering.text").strip("'\"").split()
    expect(app.locator(".wb-steering-panel .wb-column").first).to_contain_text(words[1])
    if SHOTS:
        app.evaluate("e => e.scrollIntoView()")
        page.screenshot(path=f"{SHOTS}/notebook7.png")
