"""``python -m tests.benchmarks.first_minute``: what somebody waits for who meets the project.

    clone     a fresh clone, `make lab` with pip's cache warm, JupyterLab in Chromium, until the
              first heatmap is painted, in stages
    kernel    a kernel is started, until the first heatmap, against a kernel that only imports
              torch, transformers and nnsight, and one that also loads the Gemma 2 class, which
              transformers does at first use; medians of alternating runs. On a busy machine the
              processor's seconds say more than the clock's: both are shown
    slider    the first notebook opened, every cell run, until the text follows a moved slider

`clone` installs an environment of some GB into a temporary folder; the others measure the
environment that they run in.

    python -m tests.benchmarks.first_minute kernel slider
    python -m tests.benchmarks.first_minute clone --python python3.13
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

from jupyter_client.manager import KernelManager
from playwright.sync_api import Page, expect, sync_playwright

from tests.benchmarks.memory import code_cells
from tests.chromium import find
from tests.jupyter.driver import Notebook
from tests.jupyter.server import jupyterlab

ROOT = Path(__file__).resolve().parents[2]
NAME = "01_first_look.ipynb"
FIRST = ROOT / "notebooks" / NAME
IMPORTS = "import torch, transformers, nnsight; from nnsight import TransformersModel"
CLASS = "from transformers import AutoTokenizer, Gemma2ForCausalLM"
TARGET = 1.5
"""Seconds that the first heatmap may take beyond the imports."""
TOKEN = "first-minute"
PAINTED = """() => [...document.querySelectorAll('.jp-OutputArea section.wb canvas')].some(c => {
  if (!c.width || !c.height) return false;
  const shown = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  return new Set(new Uint32Array(shown.buffer)).size > 8; })"""
"""Whether a canvas of a widget has more than a few colours."""

Row = tuple[str, float]


def first_cells() -> list[str]:
    """The first notebook's code up to its heatmap."""
    cells = code_cells(FIRST)
    last = next(i for i, code in enumerate(cells) if ".heatmap(" in code)
    return cells[: last + 1]


def kernel_rows(rounds: int) -> Iterator[Row]:
    """Kernel start to heatmap, beside kernel start to imports; by the clock, then of processor."""
    codes = {
        "imports of torch, transformers, nnsight": [IMPORTS],
        "imports and the Gemma 2 class": [IMPORTS, CLASS],
        "first heatmap": first_cells(),
    }
    found: dict[str, list[tuple[float, float]]] = {what: [] for what in codes}
    for _ in range(rounds):
        for what, cells in codes.items():
            found[what].append(_kernel_seconds(cells))
    for by, unit in enumerate(("", ", processor")):
        middle = {what: median(pair[by] for pair in pairs) for what, pairs in found.items()}
        for what, seconds in middle.items():
            yield f"kernel start to {what}{unit}", seconds
        *before, heatmap = middle.values()
        yield f"  beyond the imports{unit} (target {TARGET})", heatmap - before[0]
        yield f"  beyond imports and class{unit}", heatmap - before[1]


def _kernel_seconds(cells: list[str]) -> tuple[float, float]:
    """Seconds by the clock from the start of a kernel, and those of processor that it used."""
    # A pause, so that a kernel that is ending does not weigh on the next.
    time.sleep(0.5)
    began = time.monotonic()
    manager = KernelManager()
    # With Python's cache of bytecode, as anywhere from the second start on.
    manager.start_kernel(
        cwd=str(ROOT / "notebooks"),
        stderr=subprocess.DEVNULL,
        env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
    )
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=300)
        for code in cells:
            reply = client.execute_interactive(code, timeout=300, output_hook=lambda _: None)
            if reply["content"]["status"] != "ok":
                raise RuntimeError("\n".join(reply["content"]["traceback"]))
        seconds = time.monotonic() - began
        asked = {"t": "__import__('time').process_time()"}
        reply = client.execute_interactive("", user_expressions=asked, timeout=60)
        return seconds, float(reply["content"]["user_expressions"]["t"]["data"]["text/plain"])
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@contextmanager
def chromium() -> Iterator[Page]:
    """A page of the Chromium that the tests use."""
    with sync_playwright() as playwright:
        path = os.environ.get("WORKBENCH_CHROMIUM") or find()
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(300_000)
        expect.set_options(timeout=300_000)
        yield page
        browser.close()


def slider_rows() -> Iterator[Row]:
    """The notebook opened, to the text that follows a slider."""
    with tempfile.TemporaryDirectory() as folder, chromium() as page:
        root, scratch = Path(folder, "root"), Path(folder, "scratch")
        root.mkdir()
        shutil.copy(FIRST, root)
        with jupyterlab(root, scratch) as server:
            began = time.monotonic()
            notebook = Notebook(page, server.document(NAME))
            yield "notebook opened to idle kernel", time.monotonic() - began
            page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
            page.wait_for_function(PAINTED, timeout=300_000)
            yield "notebook opened to first heatmap painted", time.monotonic() - began
            notebook.run_all()
            output = notebook.output("lab.steering")
            output.scroll_into_view_if_needed()
            slider = output.get_by_role("slider").first
            expect(slider).to_be_visible()
            yield "notebook opened to every cell run", time.monotonic() - began
            text = output.locator(".wb-column").first
            before = text.inner_text()
            moved = time.monotonic()
            slider.focus()
            slider.press("ArrowRight")
            expect(text).not_to_have_text(before, use_inner_text=True)
            yield "  slider moved to text changed", time.monotonic() - moved
            yield "notebook opened to first slider moved", time.monotonic() - began


def clone_rows(python: str, torch_index: str) -> Iterator[Row]:
    """A fresh clone, as the README says, to the first heatmap."""
    with tempfile.TemporaryDirectory() as folder, chromium() as page:
        clone = Path(folder, "clone")
        began = time.monotonic()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        yield "clone", time.monotonic() - began
        options = f"--no-browser --port {_free_port()} -- --IdentityProvider.token={TOKEN}"
        with _make_lab(clone, python, torch_index, options) as address:
            yield "clone to JupyterLab's address (make lab)", time.monotonic() - began
            # The page that `workbench lab` opens, with the notebook in it; then Run All Cells.
            page.goto(f"{address}/lab/tree/notebooks/{NAME}?token={TOKEN}")
            notebook = page.locator(".jp-NotebookPanel")
            expect(notebook.locator(".jp-CodeCell").first).to_be_visible()
            # Cells that are run before there is a kernel raise a dialog that asks for one.
            expect(page.locator(".jp-StatusBar-Widget").get_by_text("| Idle")).to_be_visible()
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            page.wait_for_function(PAINTED)
            yield "clone to first heatmap painted", time.monotonic() - began


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _make_lab(clone: Path, python: str, torch_index: str, options: str) -> Iterator[str]:
    """`make lab` in a clone; gives the server's address once it answers."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = ["make", "lab", f"PYTHON={python}", f"TORCH_INDEX={torch_index}", f"ARGS={options}"]
    with (clone.parent / "make.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=clone, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{options.split()[2]}"
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError((clone.parent / "make.log").read_text()[-3000:])
            with suppress(OSError):
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=2).close()
                break
            time.sleep(0.1)
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def main(argv: list[str] | None = None) -> int:
    """Print a row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help="clone, kernel, slider; all if left out")
    parser.add_argument("--python", default=sys.executable, help="for the clone (%(default)s)")
    parser.add_argument("--torch-index", default=os.environ.get("TORCH_INDEX", ""))
    parser.add_argument("--rounds", type=int, default=3, help="of kernel (%(default)s)")
    options = parser.parse_args(argv)
    known: dict[str, Callable[[], Iterator[Row]]] = {
        "kernel": lambda: kernel_rows(options.rounds),
        "slider": slider_rows,
        "clone": lambda: clone_rows(options.python, options.torch_index),
    }
    unknown = set(options.parts) - known.keys()
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(known)}")
    print(
        f"Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    for part in options.parts or known:
        for what, seconds in known[part]():
            print(f"{what:58} {seconds:7.2f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
