"""The parts of ``google.colab`` that we use, behaving as googlecolab/colabtools does."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import anywidget._util
import pytest
from huggingface_hub.utils import _auth

MANAGER = "https://ssl.gstatic.com/manager.min.js"


class Error(Exception):
    """``google.colab.errors.Error``."""


class SecretNotFoundError(Error):
    """The user has no such secret."""


class TimeoutException(Error):  # noqa: N818 - named so there
    """Colab's page did not answer."""


class NotebookAccessError(Exception):
    """The user did not let this notebook read it; not an `Error` there either."""


@dataclass
class Colab:
    """A fake Colab, and what was asked of it."""

    secrets: dict[str, str | Exception] = field(default_factory=dict)
    """What each secret gives."""
    managers: int = 0
    """How often the manager of custom widgets was switched on."""
    asked: list[str] = field(default_factory=list)
    """The secrets that were asked for."""

    def get(self, name: str) -> str:
        """``google.colab.userdata.get``."""
        self.asked.append(name)
        found = self.secrets.get(name, SecretNotFoundError(f"Secret {name} does not exist."))
        if isinstance(found, Exception):
            raise found
        return found


def install(monkeypatch: pytest.MonkeyPatch) -> Colab:
    """Put the fake where the real package would be."""
    colab = Colab()

    def enable() -> None:
        colab.managers += 1
        output._widgets._installed_url = MANAGER

    output: Any = ModuleType("google.colab.output")
    output.enable_custom_widget_manager = enable
    output._widgets = SimpleNamespace(_installed_url=None)
    userdata: Any = ModuleType("google.colab.userdata")
    userdata.get = colab.get
    for error in (SecretNotFoundError, NotebookAccessError, TimeoutException):
        setattr(userdata, error.__name__, error)
    errors: Any = ModuleType("google.colab.errors")
    errors.Error = Error
    package: Any = ModuleType("google.colab")
    package.output, package.userdata, package.errors = output, userdata, errors
    for module in (package, output, userdata, errors):
        module.__spec__ = ModuleSpec(module.__name__, None)  # accelerate asks for it
        monkeypatch.setitem(sys.modules, module.__name__, module)
    # Both remember what they found; huggingface_hub looks at IPython's shell to know where it is.
    anywidget._util.enable_custom_widget_manager_once.cache_clear()
    monkeypatch.setattr(_auth, "is_google_colab", lambda: True)
    monkeypatch.setattr(_auth, "_IS_GOOGLE_COLAB_CHECKED", False)
    monkeypatch.setattr(_auth, "_GOOGLE_COLAB_SECRET", None)
    return colab
