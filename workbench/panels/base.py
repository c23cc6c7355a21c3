"""What panels share: a widget that is shown in their place."""

from __future__ import annotations

import html
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import ipywidgets

from workbench.widgets import Widget
from workbench.widgets.base import refuse_unknown

if TYPE_CHECKING:
    from workbench.runs import Run

W = TypeVar("W", bound=Widget)
VIEW = "application/vnd.jupyter.widget-view+json"


class Named:
    """Takes only the keywords that it has, and guesses which one was meant."""

    def __new__(cls, *_: Any, **options: Any) -> Self:
        """Look at the names before anything is made.

        Raises:
            TypeError: For a keyword that does not exist; names the nearest.
        """
        known = [name for name in signature(cls.__init__).parameters if name != "self"]
        refuse_unknown(cls.__name__, options, known)
        return super().__new__(cls)


class Panel(Named, Generic[W]):
    """A widget with the model calls behind it; displays as the widget."""

    widget: W
    """The widget. Its traits can be read and observed as usual."""

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.widget._repr_mimebundle_(**options)

    def _display_(self) -> W:
        """What marimo shows, which knows widgets but not the boxes around them."""
        return self.widget

    def save_html(self, path: str | Path) -> Path:
        """Write the panel as one file that opens from disk with no network."""
        return self._still().save_html(path)

    def embed(self, *, height: int = 700) -> SavedPage:
        """The page of `save_html` inside the notebook: it can be browsed when the kernel is gone.

        It is stored with the notebook, in tens to hundreds of kilobytes. JupyterLab shows it in a
        notebook that is trusted, nbviewer and exported pages always, GitHub only its plain text.

        Args:
            height: In pixels.
        """
        return SavedPage(self._still(), height)

    def _still(self) -> Widget:
        """What a saved page shows."""
        return self.widget


class SavedPage:
    """A widget as a page of its own within a notebook's output."""

    def __init__(self, widget: Widget, height: int) -> None:
        """Take the widget as it is now.

        Args:
            widget: What to show.
            height: In pixels.
        """
        page = html.escape(widget.page(widget.title))
        frame = (
            f'<iframe sandbox="allow-scripts" width="100%" height="{int(height)}" srcdoc="{page}">'
        )
        twin = f"<details><summary>As plain text</summary>{widget.static_html()}</details>"
        self._html = f"{frame}</iframe>{twin}"

    def _repr_html_(self) -> str:
        return self._html


class Stack(Panel[W]):
    """A panel that opens another one below itself."""

    def __init__(self, widget: W) -> None:
        """Show `widget`, with nothing below it yet."""
        self.widget = widget
        self.box = ipywidgets.VBox([widget])
        """The widget, with what was opened below it."""
        self.below: Panel[Any] | None = None
        """The panel that was opened last."""

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = self.widget._repr_mimebundle_(**options)
        if shown is None:
            return None
        # The widget's own output, drawn from the box: ipywidgets 7, which Colab has, makes no
        # bundle of a box, and Colab's manager is named beside the data.
        data, metadata = shown
        view = {**data[VIEW], "model_id": self.box.model_id}
        return {**data, VIEW: view, "text/plain": repr(self)}, metadata

    def open_below(self, panel: Panel[Any]) -> None:
        """Show `panel` below, in the place of what was there."""
        self.below = panel
        self.box.children = [self.widget, panel.box if isinstance(panel, Stack) else panel.widget]


def code_of(run: Run) -> str:
    """The lines that make a run again: from its file, its text, or ids where text cannot say it."""
    if run.path is not None:
        return f"import workbench as wb\nrun = wb.open_run({str(run.path)!r})"
    tokens = run.tokens
    # A special token or half a character does not survive the way through text.
    plain = not any(tokens.special[1:]) and "\ufffd" not in tokens.text
    prompt = repr(tokens.text) if plain else repr(list(tokens.ids))
    return f"lab = wb.open({run.model!r})\nrun = lab.run({prompt})"
