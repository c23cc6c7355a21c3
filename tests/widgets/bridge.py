"""A real Python widget and its real ES module in Chromium, with no Jupyter between them.

1. `install` replaces `comm.create_comm`, so every ipywidget created afterwards sends its messages
   into a queue. Messages may come from any thread.
2. `Bridge.pump` moves the queue to the page, where `bridge.js` keeps a model for each comm.
3. What the page sends comes back through one exposed function into the widget's own message
   handler, in the thread of the test.

A test asserts on Python objects and on the pixels of the page.
"""

from __future__ import annotations

import base64
import json
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comm
import ipywidgets
import pytest
from comm.base_comm import BaseComm
from playwright.sync_api import Locator, Page

SCRIPT = (Path(__file__).parent / "bridge.js").read_text(encoding="utf-8")
Message = tuple[str, str, dict[str, Any], list[str]]


class QueueComm(BaseComm):
    """A comm whose messages wait in the bridge's queue."""

    waiting: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def publish_msg(
        self,
        msg_type: str,
        data: Any = None,
        metadata: Any = None,
        buffers: Any = None,
        **keys: Any,
    ) -> None:
        """Queue one message, copied as the wire would."""
        coded = [base64.b64encode(bytes(buffer)).decode("ascii") for buffer in buffers or []]
        # NaN is no JSON: Jupyter's own serialiser would refuse it too.
        plain = json.loads(json.dumps(data or {}, allow_nan=False))
        self.waiting.put((self.comm_id, msg_type, plain, coded))


class Bridge:
    """Creates the connection of one page with the widgets of one test."""

    def __init__(self, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
        self.page = page
        self.waiting: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.widgets: dict[str, ipywidgets.Widget] = {}
        self.sent: list[Message] = []
        monkeypatch.setattr(QueueComm, "waiting", self.waiting)
        monkeypatch.setattr(comm, "create_comm", QueueComm)
        page.expose_function("bridgeToPython", self._from_page)
        page.add_init_script(SCRIPT)
        page.goto("about:blank")
        page.set_content("<!doctype html><body></body>")

    def _from_page(self, comm_id: str, data: dict[str, Any]) -> None:
        self.widgets[comm_id]._handle_msg({"content": {"data": data}, "buffers": []})

    def pump(self) -> None:
        """Move every waiting message to the page, in order."""
        while not self.waiting.empty():
            message = self.waiting.get()
            self.sent.append(message)
            self.page.evaluate("message => bridge.receive(...message)", list(message))

    def show(self, widget: ipywidgets.Widget) -> Locator:
        """Render a widget at the end of the page.

        Returns:
            The element that it was given.
        """
        model_id = str(widget.model_id)
        self.widgets[model_id] = widget
        self.pump()
        self.page.evaluate("id => bridge.show(id)", model_id)
        return self.page.locator(f'[data-model="{model_id}"]')

    def painted(self) -> None:
        """Wait until what is queued is on the screen."""
        self.pump()
        self.page.evaluate("() => bridge.painted()")

    def clean(self, widget: ipywidgets.Widget) -> None:
        """Call the cleanup that the widget's `render` returned."""
        self.page.evaluate("id => bridge.clean(id)", widget.model_id)

    def left(self, widget: ipywidgets.Widget) -> dict[str, int]:
        """Listeners and observers alive on the page; handlers and child nodes of this widget."""
        return self.page.evaluate("id => bridge.left(id)", widget.model_id)

    def until(self, condition: Callable[[], object], *, seconds: float = 20.0) -> None:
        """Pump until a condition on Python objects holds.

        Raises:
            AssertionError: If it does not hold in time.
        """
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"still not true after {seconds} s: {condition}")
            self.pump()
            self.page.wait_for_timeout(5)

    def custom(self, kind: str) -> list[dict[str, Any]]:
        """Contents of the custom messages of a type that went to the page."""
        contents = (data.get("content") or {} for _, _, data, _ in self.sent)
        return [content for content in contents if content.get("type") == kind]

    def redraw_ms(self, widget: ipywidgets.Widget, **traits: Any) -> float:
        """Milliseconds from setting traits in Python to the painted frame; for benchmarks."""
        start = time.perf_counter()
        for name, value in traits.items():
            setattr(widget, name, value)
        self.painted()
        return 1000 * (time.perf_counter() - start)
