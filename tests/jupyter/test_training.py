"""Training in JupyterLab: the curves grow, Stop stops, and a failure is on the page."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, expect

from tests.jupyter.driver import Notebook
from tests.jupyter.server import jupyterlab

SHOTS = os.environ.get("WORKBENCH_SCREENSHOTS")
"""A folder for pictures to be looked at; none are taken without it."""
CELLS = [
    """
import workbench as wb
lab = wb.open()
texts = ["Anna loved the boat. Das Boot ist im Hafen. Martin has 42 boxes and 3 boats."] * 40
common = {"d_sae": 64, "target_l0": 8, "batch_size": 256, "dead_tokens": 4000, "log_every": 2}
kinds = ["jumprelu", "topk", "relu"]
configs = {k: wb.TrainConfig(activation=k, steps=1_000_000, **common) for k in kinds}
""",
    """
training = lab.train_saes(texts, configs, layer=1, context=64, pool=2048, reuse=8)
training
""",
    """
failing = lab.train_saes(iter(texts[:2]), configs, layer=1, context=64, pool=2048)
failing
""",
]

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def notebook(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A notebook that trains for ever, and one that cannot."""
    root = tmp_path_factory.mktemp("notebooks")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    cells = [new_code_cell(cell.strip()) for cell in CELLS]
    nbformat.write(new_notebook(cells=cells, metadata=kernel), root / "train.ipynb")
    theme = os.environ.get("WORKBENCH_THEME", "light")
    with jupyterlab(root, tmp_path_factory.mktemp("server"), theme=theme) as server:
        width = int(os.environ.get("WORKBENCH_WIDTH", "1280"))
        page = browser.new_page(viewport={"width": width, "height": 1100})
        page.set_default_timeout(int(os.environ.get("WORKBENCH_PATIENCE", "30")) * 1000)
        opened = Notebook(page, server.document("train.ipynb"))
        opened.run_all()
        yield opened
        if SHOTS:
            for number, widget in enumerate(page.locator(".jp-OutputArea section.wb").all()):
                widget.scroll_into_view_if_needed()
                widget.screenshot(path=f"{SHOTS}/training-{theme}-{width}-{number}.png")
        page.close()


def test_the_curves_grow_while_the_notebook_is_free(notebook: Notebook) -> None:
    output = notebook.output("training = lab.train_saes")
    line = output.locator('.wb-curve[data-name="topk"]').first
    expect(line).to_have_attribute("points", re.compile(r"\S+ \S+ \S+"))
    before = line.get_attribute("points") or ""
    expect(line).not_to_have_attribute("points", before)
    expect(output.locator(".wb-training-status")).to_contain_text("tokens/s")
    assert notebook.ask("training.job.busy") == "True"


def test_stop_stops_and_the_saes_can_be_used(notebook: Notebook) -> None:
    output = notebook.output("training = lab.train_saes")
    stop = output.get_by_role("button", name="Stop")
    stop.scroll_into_view_if_needed()
    stop.click()
    notebook.until("training.state == 'stopped'", 60)
    expect(output.locator(".wb-training-status")).to_contain_text("stopped · step ")
    expect(output.locator(".wb-stop")).to_be_hidden()
    assert notebook.ask("training.job.join(10)") == "True"
    used = "lab.use(training.saes['topk']) is lab.suite.sae_at(wb.Site(1))"
    assert notebook.ask(used) == "True"
    # What the table says is what was measured last.
    wanted = notebook.ask("'%.3f' % training.history.query(\"name == 'topk'\").fvu.iloc[-1]")
    row = output.locator(".wb-training-table tbody tr").nth(1)
    expect(row.locator("td").nth(1)).to_have_text(wanted.strip("'"))


def test_a_failure_is_on_the_page(notebook: Notebook) -> None:
    output = notebook.output("failing = lab.train_saes")
    expect(output.get_by_role("alert")).to_contain_text("give a list of texts")
    expect(output.locator(".wb-training-status")).to_contain_text("failed")
    assert notebook.ask("failing.state") == "'failed'"
