"""What is left when kernel, model and network are gone: stored twins, recordings, saved pages.

One notebook shows every panel and records; it is saved, and read as viewers read it that run
nothing. A second one, whose kernel can make no model, opens the recordings, and a person browses
them.
"""

from __future__ import annotations

import html.parser
import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

import workbench.panels
from tests.jupyter.driver import Notebook
from tests.jupyter.server import jupyterlab

SHOTS = os.environ.get("WORKBENCH_SCREENSHOTS")
"""A folder for pictures to be looked at; none are taken without it."""
PATIENCE = int(os.environ.get("WORKBENCH_PATIENCE", "30")) * 1000
LARGEST = 40_000
"""Bytes of a twin: a notebook holds that of everything it shows."""
PLAIN = {
    *("p", "b", "i", "table", "thead", "tbody", "tr", "th", "td"),
    *("ul", "li", "blockquote", "pre", "div"),
}
"""Elements that every viewer keeps."""
HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"

SHOWING = {
    "App": "app = lab.app('The capital of France is')\napp.join(60)\napp",
    "Heatmap": "run.heatmap(3, k=6)",
    "Evolution": "run.evolution(FEATURE)",
    "Dashboard": "lab.dashboard(FEATURE)",
    "Steering": "panel = lab.steering('Once upon a time', [FEATURE], max_new_tokens=10)\npanel",
    "Training": "training = lab.train_saes(TEXTS, SMALL, layer=1)\ntraining.wait(60)\ntraining",
    "SteeringReplay": "panel.record([1.0, 2.0, 4.0])\nwb.open_steering(panel.save('texts.json'))",
}
"""Public panel -> the cell that shows it."""
START = """
import workbench as wb
lab = wb.open()
run = lab.run('The capital of France is Paris. Once upon a time there was a boat.')
FEATURE = (3, run.features(3).top(1)[0])
TEXTS = ['Anna loved the boat. Das Boot ist im Hafen.'] * 40
SMALL = {'Top': wb.TrainConfig(activation='topk', d_sae=64, steps=12, batch_size=256, log_every=2)}
"""
EMBEDDED = "panel.embed(height=640)"
END = f"""
run.save('boat.run', evolution=[FEATURE])
strange = lab.run({HOSTILE!r})
"""
STRANGE = "strange.heatmap(3, k=6)"
WITHOUT_A_MODEL = """
import torch
from transformers import PreTrainedModel
import workbench as wb
import workbench.panels

def refuse(*_, **__):
    raise RuntimeError('there is no model on this machine')

torch.nn.Module.__init__ = refuse
PreTrainedModel.from_pretrained = refuse
try:
    wb.open()
except Exception as error:
    said = repr(error)
run = wb.open_run('boat.run')
origin = next(iter(run.results.lineages))
"""
REPLAYS = {
    "heat": "heat = run.heatmap(3, k=6)\nheat",
    "evo": "evo = run.evolution((origin[0].layer, origin[1]))\nevo",
    "texts": "texts = wb.open_steering('texts.json')\ntexts",
}

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def write(path: Path, *cells: str) -> None:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(made, path)


@pytest.fixture(scope="module")
def asked() -> list[str]:
    """Every address outside the machine that was asked for."""
    return []


@pytest.fixture(scope="module")
def context(browser: Browser, asked: list[str]) -> Iterator[BrowserContext]:
    """A profile with the network off."""
    made = browser.new_context(viewport={"width": 1280, "height": 1000})
    made.set_default_timeout(PATIENCE)

    def guard(route) -> None:
        address = urlsplit(route.request.url)
        if address.hostname == "127.0.0.1" or address.scheme in ("file", "data", "blob"):
            route.continue_()
        else:
            asked.append(route.request.url)
            route.abort()

    made.route("**/*", guard)
    yield made
    made.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("notebooks")
    write(root / "panels.ipynb", START, *SHOWING.values(), EMBEDDED, END, STRANGE)
    write(root / "replay.ipynb", WITHOUT_A_MODEL, *REPLAYS.values())
    return root


@pytest.fixture(scope="module")
def stored(
    folder: Path, context: BrowserContext, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[nbformat.NotebookNode]:
    """The first notebook as JupyterLab saved it; the server stays for the second."""
    with jupyterlab(folder, tmp_path_factory.mktemp("server")) as server:
        page = context.new_page()
        notebook = Notebook(page, server.document("panels.ipynb"))
        notebook.run_all()
        page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
        page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty")
        page.close()
        saved = nbformat.read(folder / "panels.ipynb", as_version=4)
        saved.metadata["server"] = server  # for the second notebook
        yield saved


class Reader(html.parser.HTMLParser):
    """What a viewer shows that drops scripts, styles and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def twin(stored: nbformat.NotebookNode, source: str) -> str:
    """The HTML that the cell with this source left."""
    cell = next(one for one in stored.cells if one.source == source)
    kept = [one["data"] for one in cell.outputs if "data" in one]
    widgets = [one for one in kept if "application/vnd.jupyter.widget-view+json" in one]
    assert len(widgets) == 1
    found = ["".join(one["text/html"]) for one in kept if "text/html" in one]
    assert len(found) == 1, "one twin, neither none nor two"
    return found[0]


def test_every_public_panel_is_shown_here() -> None:
    assert set(SHOWING) == set(workbench.panels.__all__)


@pytest.mark.parametrize("name", list(SHOWING))
def test_a_stored_output_is_readable_without_scripts_and_styles(
    stored: nbformat.NotebookNode, name: str
) -> None:
    found = twin(stored, SHOWING[name])
    assert len(found) < LARGEST
    reader = Reader(found)
    assert reader.tags <= PLAIN
    assert reader.attributes <= {"align", "class"}
    wanted = {
        "Heatmap": [
            "Features at layer 3 res",
            "Once upon a time there was a boat.",
            "label",
            "maximum (feature activation)",
            "6 of 6",
        ],
        "Evolution": ["through the layers", "(origin)", "cosine", "7 res", "0 att"],
        "Dashboard": ["Promotes", "Suppresses", "Strongest passages", "Nearest at"],
        "Steering": ["Once upon a time", "Receipt", "Recorded texts (3)", "× max"],
        "Training": ["layer 1", "step 12 of 12", "Top", "FVU"],
        "App": ["The capital of France is", "Features at", "Strongest passages"],
        "SteeringReplay": ["Once upon a time", "Unsteered", "Recorded texts (3)", "no model"],
    }[name]
    for words in wanted:
        assert words in reader.text, words


def test_texts_of_the_page_are_escaped(stored: nbformat.NotebookNode) -> None:
    found = twin(stored, STRANGE)
    assert Reader(found).tags <= PLAIN
    assert "script" in Reader(found).text  # as a word


def test_the_notebook_holds_no_widget_state(stored: nbformat.NotebookNode) -> None:
    assert "widgets" not in stored.metadata
    text = json.dumps(stored.cells)
    assert len(text) < 600_000
    assert "_esm" not in text


def test_an_exported_page_shows_the_twins_with_the_network_off(
    stored: nbformat.NotebookNode, context: BrowserContext, tmp_path: Path
) -> None:
    body, _ = HTMLExporter(mathjax_url="", require_js_url="").from_notebook_node(
        nbformat.from_dict({**stored, "metadata": {}})
    )
    path = tmp_path / "exported.html"
    path.write_text(body, encoding="utf-8")
    page = context.new_page()
    page.goto(path.as_uri())
    for words in ("Features at layer 3 res", "through the layers", "Promotes"):
        expect(page.get_by_text(words).first).to_be_visible()
    expect(page.get_by_text("Recorded texts (3)")).to_have_count(
        3
    )  # and folded below the embedded page
    expect(page.get_by_text("Recorded texts (3)").first).to_be_visible()
    inside = page.frame_locator("iframe")
    inside.get_by_role("slider").first.press("Home")
    expect(inside.locator(".wb-take-words")).to_contain_text("Recorded text 1 of 3")
    assert page.evaluate("window.hacked === undefined")
    page.close()


def test_pictures_of_the_twins(
    stored: nbformat.NotebookNode, context: BrowserContext, tmp_path: Path
) -> None:
    """As GitHub shows them: its own fonts, none of our styles."""
    for name, source in SHOWING.items():
        page = context.new_page()
        path = tmp_path / f"{name}.html"
        path.write_text(
            "<meta charset=utf-8><style>body{font:16px sans-serif;max-width:880px;margin:24px}"
            "table{border-collapse:collapse}td,th{border:1px solid #ddd;padding:6px 13px}</style>"
            + twin(stored, source).replace('class="', 'data-class="'),
            encoding="utf-8",
        )
        page.goto(path.as_uri())
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 1280
        if SHOTS:
            page.screenshot(path=f"{SHOTS}/twin-{name}.png", full_page=True)
        page.close()


# --------------------------------------------------------------------------- without a model


@pytest.fixture(scope="module")
def replay(
    stored: nbformat.NotebookNode, folder: Path, context: BrowserContext
) -> Iterator[Notebook]:
    """The second notebook, in a kernel that can make no model."""
    assert (folder / "boat.run").is_file()
    page = context.new_page()
    notebook = Notebook(page, stored.metadata["server"].document("replay.ipynb"))
    notebook.run_all()
    yield notebook
    if SHOTS:
        for number, widget in enumerate(page.locator(".jp-OutputArea section.wb").all()):
            widget.scroll_into_view_if_needed()
            widget.screenshot(path=f"{SHOTS}/replay-{number}.png")
    page.close()


def middle(canvas: Locator, x: float, y: float) -> None:
    """Click a canvas at shares of its width and height."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": box["width"] * x, "y": box["height"] * y})


def test_no_model_was_made(replay: Notebook) -> None:
    assert "there is no model on this machine" in replay.ask("said")
    assert replay.ask("(run.engine, run.suite)") == "(None, None)"
    expect(replay.page.locator(".jp-OutputArea section.wb")).to_have_count(3)


def test_a_cell_of_the_heatmap_is_clicked(replay: Notebook) -> None:
    middle(replay.output("heat = run.heatmap").locator("canvas").first, 0.6, 0.5)
    replay.until("heat.selected is not None and heat.selected[1] == 3")
    position, _, index, _ = eval(replay.ask("heat.selected"))
    assert replay.ask(f"{index} in heat.features and 0 < {position} < len(run.tokens)") == "True"


def test_a_node_of_the_map_is_chosen(replay: Notebook) -> None:
    output = replay.output("evo = run.evolution")
    node = output.locator('.wb-nodes [data-node="4"] .wb-hit')
    node.scroll_into_view_if_needed()
    node.click()
    replay.until("evo.selected is not None")
    assert replay.ask("evo.widget.error") == "''"


def letters(text: str) -> str:
    """A text without what the page draws for white space."""
    return "".join(filter(str.isalpha, text))


def test_the_slider_shows_the_text_of_its_strength(replay: Notebook) -> None:
    output = replay.output("texts = wb.open_steering")
    slider = output.get_by_role("slider").first
    slider.scroll_into_view_if_needed()
    slider.focus()
    for key, number in (("Home", 0), ("ArrowRight", 1), ("End", 2)):
        slider.press(key)
        replay.until(f"texts.widget.take == {number}")
        written = letters(eval(replay.ask("texts.text")))
        read = letters(output.locator(".wb-text").first.text_content() or "")
        assert read == f"Onceuponatime{written}"


def test_nothing_was_asked_of_the_network(replay: Notebook, asked: list[str]) -> None:
    assert asked == []


def test_pages_from_disk_browse_with_the_network_off(
    replay: Notebook, folder: Path, browser: Browser
) -> None:
    replay.ask("[x.save_html(f'{n}.html') for n, x in (('h', heat), ('e', evo), ('t', texts))]")
    context = browser.new_context(offline=True)
    context.set_default_timeout(PATIENCE)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    pages: list[Page] = []
    for name in "het":
        pages.append(context.new_page())
        pages[-1].goto((folder / f"{name}.html").as_uri())
    heat, evo, texts = pages
    middle(heat.locator("canvas").first, 0.6, 0.5)
    expect(heat.locator(".wb-card")).to_be_visible()
    evo.locator('.wb-nodes [data-node="4"] .wb-hit').click()
    expect(evo.locator(".wb-details-place")).to_contain_text("layer 1")
    before = texts.locator(".wb-text").first.text_content()
    texts.get_by_role("slider").first.press("Home")
    expect(texts.locator(".wb-text").first).not_to_have_text(before or "")
    assert all(address.startswith("file:") for address in asked)
    context.close()
