"""The last texts of a panel as HTML in the notebook, for readers who have no kernel.

What a notebook keeps of a widget is what it was when it was shown, before anything was written. So
a second output stands below the widget: the same as plain HTML, exchanged after each run. The
widget's own style hides it, and a viewer that cannot draw widgets has no such style. To exchange
the widget's output itself would draw the widget anew, and take a slider out of a user's hand.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Protocol

from IPython.display import display, update_display

CLASS = "wb-last-texts"
"""The style of a live widget hides what has this class."""


class Shown(Protocol):
    """A widget, or several in a box."""

    def _repr_mimebundle_(self) -> Any: ...

    def static_html(self) -> str:
        """The same as plain HTML."""
        ...


class LastTexts:
    """A widget's output in a notebook, and the plain HTML below it."""

    def __init__(self, widget: Shown, html: Callable[[], str] | None = None) -> None:
        """Nothing is shown yet.

        Args:
            widget: The widget.
            html: Gives the plain HTML; the widget's own if left out.
        """
        self._widget, self._html = widget, html or widget.static_html
        self._id: str | None = None

    def display(self) -> None:
        """Show the widget, and below it what is seen where it cannot be drawn."""
        shown = self._widget._repr_mimebundle_()
        if shown is None:
            return
        data, metadata = shown
        # The second output says it better.
        plain = {key: value for key, value in data.items() if key != "text/html"}
        display(plain, metadata=metadata, raw=True)
        first, self._id = self._id is None, self._id or uuid.uuid4().hex
        display(self._bundle(), raw=True, display_id=self._id)
        if not first:
            self.update()  # an older output may be out of date

    def update(self) -> None:
        """Exchange the HTML for the present one; nothing if it was never shown."""
        if self._id is not None:
            update_display(self._bundle(), raw=True, display_id=self._id)

    def _bundle(self) -> dict[str, str]:
        html = f'<div class="{CLASS}">{self._html()}</div>'
        return {"text/html": html, "text/plain": repr(self._widget)}
