"""What panels share: a widget that is shown in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.widgets import Widget


class Panel:
    """A widget with the model calls behind it; displays as the widget."""

    widget: Widget
    """The widget. Its traits can be read and observed as usual."""

    def _repr_mimebundle_(self, **options: Any) -> Any:  # noqa: ANN401 (IPython's own protocol)
        return self.widget._repr_mimebundle_(**options)

    def save_html(self, path: str | Path) -> Path:
        """Write the widget as one file that opens from disk with no network."""
        self.widget.save_html(path)
        return Path(path)
