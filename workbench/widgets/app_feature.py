"""The app's chosen feature, and the tabs with what is known of it."""

from __future__ import annotations

from typing import Any

import traitlets

from workbench.widgets.app_part import AppPart
from workbench.widgets.base import checked_records, source, style


class AppFeature(AppPart):
    """Creates the heading with the chosen feature, and the tabs below it.

    Example:
        >>> AppFeature(title="capital cities", tabs=[{"id": "feature", "text": "Feature"}])
        AppFeature('capital cities')
    """

    _esm = source("shared.js", "app_feature.js")

    _css = style("shared.css", "app_feature.css")

    _messages = {"tab": ("id",)}

    tabs = traitlets.List(traitlets.Dict()).tag(sync=True)
    """`id` and ``text`` of each."""

    tab = traitlets.Unicode("").tag(sync=True)
    """The `id` of the one that is open."""

    hint = traitlets.Unicode("").tag(sync=True)
    """Shown below the tabs in the place of a panel; empty: there is one."""

    @traitlets.validate("tabs")
    def _check_tabs(self, proposal: Any) -> list[dict[str, Any]]:
        return checked_records("tab", proposal["value"], ("id", "text"), ())
