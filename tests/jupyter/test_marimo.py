"""Panels in marimo, which knows anywidgets but no boxes of ipywidgets: each shows its widget."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

SHOTS = os.environ.get("WORKBENCH_SCREENSHOTS")
"""A folder for pictures to be looked at; none are taken without it."""
SOURCE = """
import marimo

app = marimo.App()


@app.cell
def _():
    import workbench as wb

    lab = wb.open()
    lab.run("The capital of France is").heatmap(layer=5, k=8)
    return lab,


@app.cell
def _(lab):
    lab.steering("Once upon a time", [lab.edit_for("language:de").feature], max_new_tokens=24)
"""

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("marimo")
    (folder / "page.py").write_text(SOURCE, encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "marimo", "run", str(folder / "page.py"), "--headless",
        "--no-token", "--host=127.0.0.1", f"--port={port}",
    ]  # fmt: skip
    log = folder / "marimo.log"
    with log.open("w") as written:
        settings = {"MARIMO_SKIP_UPDATE_CHECK": "1", "XDG_CONFIG_HOME": str(folder)}
        process = subprocess.Popen(
            command, env=os.environ | settings, stdout=written, stderr=subprocess.STDOUT
        )
        try:
            _wait(port, process, log)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            process.wait(20)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise TimeoutError(log.read_text(encoding="utf-8"))


def test_panels_are_drawn_and_texts_stream(address: str, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(address)
    panel = page.locator(".wb-steering-panel")
    expect(panel).to_be_visible(timeout=120_000)
    expect(page.locator(".wb-feature-heatmap canvas").first).to_be_visible()
    entry = panel.get_by_role("spinbutton", name="as a number").first
    entry.fill("1.5")
    entry.press("Enter")
    # Tokens come while it is written, from another thread than the page's.
    status = panel.locator(".wb-status")
    expect(status).to_contain_text(re.compile(r"Running.* [1-9]\d* of 24"), timeout=30_000)
    expect(status).to_contain_text("Done", timeout=60_000)
    texts = [text.inner_text() for text in panel.locator(".wb-text").all()]
    assert len(texts) == 2
    assert texts[0] != texts[1]
    assert all(len(text) > len("Once upon a time") + 20 for text in texts)
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/marimo.png", full_page=True)
    page.close()
