"""The app in JupyterLab, as a person works with it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.jupyter.driver import Notebook
from tests.jupyter.server import jupyterlab

SHOTS = os.environ.get("WORKBENCH_SCREENSHOTS")
"""A folder for pictures to be looked at; none are taken without it."""
NAME = "app.ipynb"
CELLS = (
    "import workbench as wb\nlab = wb.open()\nlabelled = lab.feature('language:de')",
    "app = lab.app()\napp",
)
CHOSEN = "app.selected[1:]"
FOLLOWED = "(*app.dashboard.feature, app.dashboard.site.kind)"

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebooks")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / NAME)
    return folder


@pytest.fixture(scope="module")
def notebook(
    browser: Browser, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Notebook]:
    theme = os.environ.get("WORKBENCH_THEME", "light")
    with jupyterlab(root, tmp_path_factory.mktemp("server"), theme=theme) as server:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(int(os.environ.get("WORKBENCH_PATIENCE", "30")) * 1000)
        opened = Notebook(page, server.document(NAME))
        opened.run_all()
        yield opened
        page.close()


@pytest.fixture
def app(notebook: Notebook) -> Locator:
    """The page, at rest."""
    notebook.until("not app.job.busy", 90)
    return notebook.page.locator(".wb-app").first


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/app-{name}.png")


def rest(notebook: Notebook) -> None:
    notebook.until("not app.job.busy", 90)
    assert notebook.ask("(app.page.bar.error, app.page.head.error)") == "('', '')"


def run(notebook: Notebook, app: Locator, prompt: str) -> None:
    box = app.get_by_role("textbox", name="Prompt").first
    box.fill(prompt)
    box.press("Enter")
    notebook.until(f"app.run is not None and app.run.tokens.text == {prompt!r}", 90)
    rest(notebook)


def click(app: Locator, column: int, row: int) -> None:
    """Click a cell of the heatmap by where it is drawn."""
    canvas = app.locator(".wb-feature-heatmap canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": box["width"] * column / 100, "y": box["height"] * row / 100})


def tab(app: Locator, name: str) -> None:
    app.get_by_role("tab", name=name, exact=True).click()


def test_without_a_prompt_it_says_what_to_do(notebook: Notebook, app: Locator) -> None:
    expect(app.locator(".wb-app-feature .wb-empty")).to_contain_text("Run a prompt")
    app.get_by_role("button", name="Run", exact=True).click()
    alert = app.locator(".wb-app-prompt").get_by_role("alert")
    expect(alert).to_contain_text("the prompt is empty")
    assert notebook.ask("(app.run, app.dashboard, app.evolution, app.steering)") == (
        "(None, None, None, None)"
    )


def test_a_prompt_gives_a_heatmap_and_a_chosen_feature(notebook: Notebook, app: Locator) -> None:
    run(notebook, app, "The capital of France is")
    expect(app.locator(".wb-app-prompt").get_by_role("alert")).to_be_hidden()
    expect(app.locator(".wb-feature-heatmap canvas").first).to_be_visible()
    expect(app.locator(".wb-histogram")).to_be_visible()
    assert notebook.ask(f"{CHOSEN} == {FOLLOWED}") == "True"
    # A tab that nobody looked at costs nothing.
    assert notebook.ask("(app.evolution, app.steering)") == "(None, None)"


def test_a_click_in_the_heatmap_chooses_everywhere(notebook: Notebook, app: Locator) -> None:
    before = notebook.ask("app.selected")
    click(app, 60, 55)
    notebook.until(f"app.selected != {before} and not app.job.busy", 60)
    selected = "app.heatmap.selected"
    assert notebook.ask(f"app.selected == {selected} and {CHOSEN} == {FOLLOWED}") == "True"
    index = notebook.ask("app.selected[2]")
    heading = app.locator(".wb-app-feature .wb-headings")
    expect(heading).to_contain_text(index)
    # The value that the heading says is the run's own.
    position, layer, _, kind = notebook.ask("app.selected").strip("()").split(", ")
    value = f"app.run.features({layer}, {kind}).of({index})[{position}].item()"
    shown = re.search(r"here ([\d.e+]+) on|silent", heading.inner_text())
    assert shown is not None
    assert float(shown[1] or 0) == pytest.approx(float(notebook.ask(value)), rel=0.01)
    tab(app, "Through the layers")
    notebook.until("app.evolution is not None and not app.job.busy", 60)
    one = "[(s.layer, i, s.kind) for s, i in app.evolution.features]"
    assert notebook.ask(f"{one} == [{CHOSEN}]") == "True"
    click(app, 70, 75)
    notebook.until(f"{one} == [{CHOSEN}] and app.selected[2] != {index}", 60)
    assert notebook.ask("app.tab") == "'layers'"
    shoot(notebook.page, "layers")
    click(app, 70, 75)  # again: its dashboard
    notebook.until(f"app.tab == 'feature' and {CHOSEN} == {FOLLOWED}", 60)
    expect(app.locator(".wb-histogram")).to_be_visible()
    expect(app.locator(".wb-evolution-map")).to_be_hidden()


def test_the_slider_of_the_chosen_feature_changes_the_text(
    notebook: Notebook, app: Locator
) -> None:
    tab(app, "Steering")
    notebook.until("app.steering is not None and not app.job.busy", 60)
    row = "app.steering.widget.rows[0]"
    assert notebook.ask(f"({row}['layer'], {row}['index'], {row}['kind']) == {CHOSEN}") == "True"
    tokens = app.get_by_label("Tokens", exact=True)
    tokens.fill("16")
    tokens.press("Tab")
    notebook.until("app.steering.widget.settings['max_new_tokens'] == 16")
    slider = app.get_by_role("slider").first
    slider.focus()
    for _ in range(12):
        slider.press("ArrowRight")
    notebook.until(f"{row}['value'] > 1 and not app.steering.job.busy", 60)
    written = (
        "lab.generate(app.steering.widget.prompt, edits=[wb.Steer(app.selected[1:3], "
        f"{row}['value'])], max_new_tokens=16, temperature=0.8, top_p=0.95, seed=0).text"
    )
    # The page tells of the last steps of the slider a moment later.
    notebook.until(f"not app.steering.job.busy and app.steering.text == {written}", 60)
    assert notebook.ask("app.steering.text != ''.join(t['text'] for t in "
                        "app.steering.widget.texts['plain'])") == "True"  # fmt: skip
    shoot(notebook.page, "steering")


def test_a_row_that_was_moved_stays_and_an_untouched_one_goes(
    notebook: Notebook, app: Locator
) -> None:
    first = notebook.ask(CHOSEN)
    rows = "[(r['layer'], r['index'], r['kind']) for r in app.steering.widget.rows]"
    click(app, 60, 60)
    notebook.until(f"len({rows}) == 2 and {rows}[1] == {CHOSEN} and not app.job.busy", 60)
    second = notebook.ask(CHOSEN)
    click(app, 60, 65)
    notebook.until(f"{CHOSEN} != {second} and {rows} == [{first}, {CHOSEN}]", 60)


def test_search_chooses_a_feature_that_the_heatmap_then_holds(
    notebook: Notebook, app: Locator
) -> None:
    tab(app, "Search")
    box = app.locator(".wb-app-search").get_by_role("searchbox")
    box.fill("language:de")
    found = "app.page.search.found['state'] == 'done' and app.page.search.found['how'] == "
    notebook.until(f"{found}'label'", 60)
    hit = app.locator(".wb-app-hit").first
    expect(hit).to_contain_text("language:de")
    hit.click()
    label = "lab.label((app.selected[1], app.selected[3]), app.selected[2]).text"
    notebook.until(f"{CHOSEN} in app.heatmap.pinned and {label} == 'language:de'", 60)
    rest(notebook)
    expect(hit).to_have_attribute("aria-pressed", "true")
    expect(app.locator(".wb-app-feature .wb-title")).to_have_text("language:de")
    assert notebook.ask("app.heatmap.selected[1:] == app.selected[1:]") == "True"
    assert notebook.ask("app.tab") == "'search'"
    app.get_by_role("button", name="writes", exact=True).click()
    box.fill("Paris")
    box.press("Enter")
    notebook.until(f"{found}'output'", 60)
    expect(app.locator(".wb-app-hit-why").first).to_contain_text("Paris")
    shoot(notebook.page, "search")


def test_a_second_prompt_keeps_the_feature_and_the_rows(notebook: Notebook, app: Locator) -> None:
    chosen, rows = notebook.ask(CHOSEN), notebook.ask("len(app.steering.widget.rows)")
    prompt = "Es war 🚢\nein größerer Hund"
    box = app.get_by_role("textbox", name="Prompt").first
    box.fill("Es war 🚢")
    box.press("Shift+Enter")
    box.press_sequentially("ein größerer Hund")
    box.press("Enter")
    notebook.until(f"app.run.tokens.text == {prompt!r}", 60)
    rest(notebook)
    assert notebook.ask(CHOSEN) == chosen
    assert notebook.ask(f"{chosen} in app.heatmap.pinned") == "True"
    assert notebook.ask("len(app.steering.widget.rows)") == rows
    assert notebook.ask(f"app.steering.widget.prompt == {prompt!r}") == "True"
    notebook.until("not app.steering.job.busy", 60)
    expect(app.locator(".wb-feature-heatmap")).to_have_count(1)


def test_what_is_too_long_is_said_and_the_page_stays(notebook: Notebook, app: Locator) -> None:
    before = notebook.ask("app.run.tokens.text")
    box = app.get_by_role("textbox", name="Prompt").first
    box.fill("boat " * 400)
    box.press("Enter")
    alert = app.locator(".wb-app-prompt").get_by_role("alert")
    expect(alert).to_contain_text("256")
    notebook.until("not app.job.busy")
    assert notebook.ask("app.run.tokens.text") == before
    alert.get_by_role("button").click()
    expect(alert).to_be_hidden()


def test_saved_as_one_page_it_opens_from_disk(
    notebook: Notebook, browser: Browser, root: Path
) -> None:
    notebook.ask("app.save_html('saved.html')")
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 1000})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((root / "saved.html").as_uri())
    for name in ("app-prompt", "feature-heatmap", "dashboard", "evolution-map", "steering-panel"):
        expect(page.locator(f".wb.wb-{name}")).to_be_visible()
    expect(page.locator(".wb-app-feature .wb-title")).to_have_text("language:de")
    page.wait_for_function("Number(document.querySelector('canvas').dataset.frames) > 0")
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/app-saved.png", full_page=True)
    context.close()
    assert problems == []


def test_without_its_kernel_it_says_so_once_and_keeps_its_place(
    notebook: Notebook, app: Locator
) -> None:
    page, heatmap = notebook.page, app.locator(".wb-feature-heatmap")
    before = heatmap.bounding_box()
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    said = """() => [...document.querySelectorAll('.jupyter-widgets-disconnected')]
      .filter(one => one.closest('.wb-app'))
      .map(one => getComputedStyle(one, '::before').content).filter(text => text !== 'none')"""
    page.wait_for_function(f"({said})().length > 0")
    assert page.evaluate(said) == [
        '"The kernel was restarted or stopped: run the cell again to use this."'
    ]
    after = heatmap.bounding_box()
    assert before is not None
    assert after is not None
    assert (after["x"], after["width"]) == (before["x"], before["width"])
    shoot(page, "restarted")
