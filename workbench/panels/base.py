"""What panels share: a widget that is shown in their place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from workbench.widgets import Widget

if TYPE_CHECKING:
    from workbench.runs import Run

W = TypeVar("W", bound=Widget)


class Panel(Generic[W]):
    """A widget with the model calls behind it; displays as the widget."""

    widget: W
    """The widget. Its traits can be read and observed as usual."""

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.widget._repr_mimebundle_(**options)

    def save_html(self, path: str | Path) -> Path:
        """Write the widget as one file that opens from disk with no network."""
        self.widget.save_html(path)
        return Path(path)


def code_of(run: Run) -> str:
    """The lines that make a run again: from its text, or from its ids where text cannot say it."""
    tokens = run.tokens
    # A special token or half a character does not survive the way through text.
    plain = not any(tokens.special[1:]) and "\ufffd" not in tokens.text
    prompt = repr(tokens.text) if plain else repr(list(tokens.ids))
    return f"lab = wb.open({run.model!r})\nrun = lab.run({prompt})"
