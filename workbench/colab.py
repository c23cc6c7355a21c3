"""Google Colab: whether this is it, and what it needs of us.

Its kernel has the package ``google.colab``, loaded before the first cell. Two things differ there:
widgets other than those of ipywidgets are drawn only by a manager that has to be switched on, and
updates that come from another thread than the kernel's own are reported not to be shown
(googlecolab/colabtools issue 3373). The token of the hub needs nothing: `huggingface_hub` asks
Colab's secrets for HF_TOKEN where it finds no other.
"""

from __future__ import annotations

import sys
from importlib import import_module

PACKAGE = "google.colab"
SECRET = (
    "add it to Colab's secrets (the key at the left edge) as HF_TOKEN, allow this notebook to read "
    "it, and restart the session"
)
"""What to do with a token there."""


def in_colab() -> bool:
    """Whether this is a notebook on Colab."""
    return PACKAGE in sys.modules


def enable_widgets() -> None:
    """Let Colab draw our widgets; does nothing elsewhere, and nothing more the second time."""
    if in_colab():
        import_module(f"{PACKAGE}.output").enable_custom_widget_manager()
