"""The app's bar: a prompt, what to draw of it, and the style of the boxes below."""

from __future__ import annotations

import html
from typing import Any

import traitlets

from workbench.widgets.app_part import AppPart
from workbench.widgets.base import checked_records, source, style


class AppPrompt(AppPart):
    """Creates the bar with the prompt and what to draw of it.

    Example:
        >>> AppPrompt(title="workbench", examples=["Once upon a time"])
        AppPrompt('workbench')
    """

    _esm = source("shared.js", "steering_controls.js", "app_prompt.js")

    _css = style("shared.css", "app_page.css", "app_prompt.css")

    _messages = {"run": ("prompt",), "place": ("value",)}

    prompt = traitlets.Unicode("").tag(sync=True)
    """Text of the box, as Python knows it: that of the newest run."""

    examples = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """Prompts to take by a click."""

    places = traitlets.List(traitlets.Dict()).tag(sync=True)
    """What can be drawn: ``value``, ``text`` and ``group``."""

    place = traitlets.Unicode("").tag(sync=True)
    """The ``value`` that is drawn."""

    note = traitlets.Unicode("").tag(sync=True)
    """What there is to say of the newest run, such as its number of tokens."""

    @traitlets.validate("places")
    def _check_places(self, proposal: Any) -> list[dict[str, Any]]:
        return checked_records("place", proposal["value"], ("value", "text"), ("group",))

    def static_html(self) -> str:
        """Heading and prompt."""
        shown = f"<p>Prompt: {html.escape(self.prompt)}</p>" if self.prompt else ""
        return self.static_heading() + shown
