"""The steering panel in JupyterLab, as a person works with it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.jupyter.driver import Notebook
from tests.jupyter.server import Server, jupyterlab

SHOTS = os.environ.get("WORKBENCH_SCREENSHOTS")
"""A folder for pictures to be looked at; none are taken without it."""
NAME = "steering.ipynb"
CELLS = (
    "import workbench as wb\nlab = wb.open()\nfeature = lab.edit_for('language:de').feature",
    "panel = lab.steering('Once upon a time', [feature], max_new_tokens=12)\npanel",
    "other = lab.steering('A boat', [feature], strength=1.0, max_new_tokens=12)\nother",
    "# the code goes here",
)
WRITTEN = (
    "not {panel}.job.busy and [t['text'] for t in {panel}.widget.texts.get('steered', [])] == list("
    "lab.generate({prompt!r}, edits={edits}, max_new_tokens={most}, temperature=0.8, top_p=0.95, "
    "seed={seed}).tokens.strings)"
)
SLOWLY = (
    "import time; add = panel.widget._stream.add; "
    "panel.widget._stream.add = lambda *given: (time.sleep(0.03), add(*given))[1]"
)

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebooks")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    # Without a kernel's name JupyterLab asks which to take.
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / NAME)
    return folder


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    theme = os.environ.get("WORKBENCH_THEME", "light")
    with jupyterlab(root, tmp_path_factory.mktemp("server"), theme=theme) as found:
        yield found


@pytest.fixture(scope="module")
def page(browser: Browser, server: Server) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 1100})
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
    found = context.new_page()
    found.set_default_timeout(int(os.environ.get("WORKBENCH_PATIENCE", "30")) * 1000)
    yield found
    context.close()


@pytest.fixture(scope="module")
def notebook(server: Server, page: Page) -> Notebook:
    opened = Notebook(page, server.document(NAME))
    opened.run_all()
    return opened


@pytest.fixture(scope="module")
def panel(notebook: Notebook) -> Locator:
    return notebook.output("panel = lab.steering")


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png")


def done(notebook: Notebook, name: str = "panel") -> None:
    notebook.until(f"not {name}.job.busy", 90)
    assert notebook.ask(f"{name}.widget.error") == "''"


def as_written(
    edits: str, *, name: str = "panel", prompt: str = "A small cat", most: int = 12, seed: int = 0
) -> str:
    """Code that says whether a panel shows what `lab.generate` writes."""
    return WRITTEN.format(panel=name, prompt=prompt, edits=edits, most=most, seed=seed)


def until_written(notebook: Notebook, edits: str, *, name: str = "panel", **other: Any) -> None:
    """Wait until a panel shows what `lab.generate` writes."""
    notebook.until(as_written(edits, name=name, **other), 90)
    done(notebook, name)


def steer(value: str, feature: str = "feature") -> str:
    return f"[wb.Steer({feature}, {value})]"


def test_type_a_prompt_and_run(notebook: Notebook, panel: Locator) -> None:
    box = panel.get_by_label("Prompt", exact=True)
    box.fill("A small cat")
    box.press("Enter")
    notebook.until("panel.widget.prompt == 'A small cat'")
    until_written(notebook, "[]")
    words = notebook.ask("panel.text").strip("'\"").split()
    assert words[1] in panel.locator(".wb-column").first.inner_text()


def test_search_a_feature_and_add_it(notebook: Notebook, panel: Locator) -> None:
    panel.get_by_role("button", name="Add a feature").click()
    panel.locator(".wb-query").first.fill("language:fr")
    first = panel.locator(".wb-result .wb-add").first
    expect(first).to_be_visible()
    first.click()
    notebook.until("len(panel.widget.rows) == 2")
    assert notebook.ask("panel.widget.rows[1]['label']") == "'language:fr'"
    expect(first).to_have_text("Added")
    shoot(notebook.page, "steering-search")
    panel.get_by_role("button", name="Close").click()


def test_solo_and_mute(notebook: Notebook, panel: Locator) -> None:
    entry = panel.get_by_role("spinbutton", name="as a number")
    entry.nth(0).fill("1")
    entry.nth(0).press("Enter")
    entry.nth(1).fill("1.5")
    entry.nth(1).press("Enter")
    second = "(panel.widget.rows[1]['layer'], panel.widget.rows[1]['index'])"
    kind = "kind=panel.widget.rows[1]['kind']"
    both = f"[wb.Steer(feature, 1.0), wb.Steer({second}, 1.5, {kind})]"
    notebook.until("panel.widget.rows[1]['value'] == 1.5")
    until_written(notebook, both)
    panel.get_by_role("button", name="Solo").nth(0).click()
    notebook.until("panel.widget.rows[0]['solo']")
    until_written(notebook, steer("1.0"))
    panel.get_by_role("button", name="Solo").nth(0).click()
    panel.get_by_role("button", name="Mute").nth(1).click()
    notebook.until("panel.widget.rows[1]['muted'] and not panel.widget.rows[0]['solo']")
    until_written(notebook, steer("1.0"))
    expect(panel.get_by_text("muted").first).to_be_visible()
    panel.get_by_role("button", name="Remove").nth(1).click()
    notebook.until("len(panel.widget.rows) == 1")
    done(notebook)


def test_another_seed(notebook: Notebook, panel: Locator) -> None:
    seed = panel.get_by_label("Seed", exact=True)
    seed.fill("7")
    seed.press("Tab")
    notebook.until("panel.widget.settings['seed'] == 7")
    until_written(notebook, steer("1.0"), seed=7)
    assert notebook.ask(as_written(steer("1.0"), seed=0)) == "False"


def test_the_copied_code_runs_in_the_next_cell(notebook: Notebook, panel: Locator) -> None:
    panel.get_by_role("button", name="Copy as code").click()
    page = notebook.page
    cell = page.locator(".jp-CodeCell").filter(has_text="# the code goes here").last
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.press("Control+V")
    page.keyboard.press("Shift+Enter")
    notebook.until("'written' in globals() and written.text != ''", 60)
    assert notebook.ask("''.join(written.tokens.strings) == panel.text") == "True"


def test_a_drag_acts_while_it_streams(notebook: Notebook, panel: Locator) -> None:
    # A quick machine would have written it all before the mouse is there.
    notebook.ask(f"exec({SLOWLY!r})")
    panel.scroll_into_view_if_needed()
    panel.get_by_role("button", name="acts from next token").click()
    notebook.until("panel.widget.live == 'next'")
    length = panel.get_by_label("Tokens", exact=True)
    length.fill("200")
    length.press("Tab")
    # The long text has begun: what streamed before is of the short one.
    notebook.until("panel.widget.status.get('total') == 200", 60)
    notebook.until("len(panel.widget._stream._streamed.get('steered', ())) > 3", 60)
    notebook.drag(panel.get_by_role("slider").first, 0.625, 0.9)  # from 1 of -4 to 4
    notebook.until("panel.widget.rows[0]['value'] > 2")
    done(notebook)
    notebook.ask("exec('del panel.widget._stream.add')")
    assert notebook.ask("panel.widget.status['done']") == "200"
    assert notebook.ask("any('was changed while' in w for w in panel.widget.warnings)") == "True"
    value = "panel.widget.rows[0]['value']"
    # The beginning is that of the old value, and the rest is not.
    assert notebook.ask(as_written(steer(value), most=200, seed=7)) == "False"
    start = "[t['text'] for t in panel.widget.texts['steered']][:3]"
    old = f"lab.generate('A small cat', edits={steer('1.0')}, max_new_tokens=3, temperature=0.8"
    assert notebook.ask(f"{start} == list({old}, top_p=0.95, seed=7).tokens.strings)") == "True"


def test_stop(notebook: Notebook, panel: Locator) -> None:
    panel.get_by_role("button", name="Run", exact=True).click()
    notebook.until("len(panel.widget._stream._streamed.get('steered', ())) > 2", 60)
    panel.get_by_role("button", name="Stop", exact=True).click()
    notebook.until("panel.widget.status['state'] == 'stopped'")
    shown = int(notebook.ask("len(panel.widget.texts['steered'])"))
    assert 2 < shown < 200
    expect(panel.locator(".wb-status")).to_contain_text(f"Stopped after {shown}")
    length = panel.get_by_label("Tokens", exact=True)
    length.fill("12")
    length.press("Tab")
    notebook.until("panel.widget.settings['max_new_tokens'] == 12")
    done(notebook)


def test_baselines_beside(notebook: Notebook, panel: Locator) -> None:
    panel.get_by_label("Random direction").check()
    notebook.until("'random' in panel.widget.texts", 60)
    done(notebook)
    expect(panel.locator(".wb-column")).to_have_count(3)
    panel.scroll_into_view_if_needed()
    shoot(notebook.page, "steering-panel")
    if SHOTS:
        panel.locator("section.wb").first.screenshot(path=f"{SHOTS}/steering-panel-whole.png")


def test_two_panels_at_once(notebook: Notebook, panel: Locator) -> None:
    second = notebook.output("other = lab.steering")
    panel.get_by_role("button", name="Run", exact=True).click()
    second.get_by_role("button", name="Run", exact=True).click()
    notebook.until("other.widget.status.get('state') == 'done'", 90)
    until_written(notebook, steer("1.0"), name="other", prompt="A boat")
    value = "panel.widget.rows[0]['value']"
    until_written(notebook, steer(value), seed=7)


def test_an_interrupt_leaves_the_panel_usable(notebook: Notebook, panel: Locator) -> None:
    command = "window.jupyterapp.commands.execute('notebook:interrupt-kernel')"
    run = panel.get_by_role("button", name="Run", exact=True)
    before = int(notebook.ask("panel.widget.run"))
    run.click()
    notebook.until(f"panel.widget.run > {before}", 60)
    notebook.page.evaluate(command)
    done(notebook)
    run.click()
    notebook.until(f"panel.widget.run > {before} + 1", 60)
    until_written(notebook, steer("panel.widget.rows[0]['value']"), seed=7)


def test_the_saved_notebook_holds_the_last_texts(
    notebook: Notebook, panel: Locator, root: Path
) -> None:
    steered = notebook.ask("panel.text").strip("'\"")
    word = max(steered.split(), key=len)
    # Live, the plain copy below the widget is not seen.
    assert not panel.locator(".wb-last-texts").first.is_visible()
    notebook.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    notebook.page.wait_for_timeout(2000)
    saved = json.loads((root / NAME).read_text(encoding="utf-8"))
    html = "".join("".join(o["data"].get("text/html", "")) for o in saved["cells"][1]["outputs"])
    assert word in html
    assert "acted at" in html
    assert "Unsteered" in html or "unsteered" in html


def test_opened_again_without_a_kernel_the_texts_are_there(
    notebook: Notebook, server: Server, page: Page
) -> None:
    word = max(notebook.ask("panel.text").strip("'\"").split(), key=len)
    page.evaluate(
        "window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"
    )  # as when the machine was off
    page.wait_for_timeout(1000)
    opened = Notebook(page, server.document(NAME))
    twin = opened.output("panel = lab.steering").locator(".wb-last-texts")
    expect(twin).to_be_visible()
    expect(twin).to_contain_text(word)
    shoot(page, "steering-reopened")
    opened.run_all()  # a new kernel: everything works from the top
    again = opened.output("panel = lab.steering")
    again.get_by_role("button", name="Run", exact=True).click()
    until_written(opened, "[]", prompt="Once upon a time")
