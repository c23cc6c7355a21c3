"""What the app's own widgets have in common: the prompt, the chosen feature, the search."""

from __future__ import annotations

import traitlets

from workbench.widgets.asking import AskingWidget


class AppPart(AskingWidget):
    """Creates a part of the app; not used by itself. It shows and asks, and computes nothing."""

    busy = traitlets.Unicode("").tag(sync=True)
    """What is being computed, for the reader; empty: nothing."""
