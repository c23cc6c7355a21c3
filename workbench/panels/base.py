"""What panels share: a widget that is shown in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

from workbench.widgets import Widget

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
