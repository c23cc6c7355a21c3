"""The app as a page of its own: a notebook of one cell, which Voila runs, its code not shown.

`workbench app` writes the notebook into a temporary folder and becomes Voila in this process. The
page's template lies in `workbench/served`, where Voila looks because ``JUPYTER_PATH`` names it.
"""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import json
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
SERVED = PACKAGE / "served"
"""Holds Voila's template of the page."""
NEEDED = 'workbench app needs Voila: python -m pip install "sae-workbench[app]"'
CAUTION = """\
The page is open to other machines. Each reader's page opens a model of its own in this machine's
memory, and labels that they write are kept here. The address above holds a token: give it only to
those who may. There is no encryption: beyond a network that you trust, use a tunnel such as SSH."""
NAME = "workbench.ipynb"


def notebook(model: str, suite: str | None, prompt: str) -> dict[str, object]:
    """A notebook of one cell that shows the app.

    Args:
        model: What `workbench.open` takes.
        suite: The SAEs, if not the model's own.
        prompt: What to run at once; empty: nothing.
    """
    more = "" if suite is None else f", suite={suite!r}"
    lines = [
        "import workbench as wb",
        "from IPython.display import clear_output",
        f"lab = wb.open({model!r}{more})",
        "clear_output()",  # progress bars of the loading
        f"lab.app({prompt!r})",
    ]
    cell = {
        "cell_type": "code",
        "id": "app",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": "\n".join(lines),
    }
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"title": f"workbench · {model}", "kernelspec": kernel},
        "cells": [cell],
    }


def arguments(options: argparse.Namespace, folder: Path, more: Sequence[str]) -> list[str]:
    """Voila's own arguments for a request, and the notebook, written into `folder`.

    Args:
        options: What the parser of `workbench app` gives.
        folder: Takes the notebook.
        more: Arguments handed on as they are; they win over ours.
    """
    path = folder / NAME
    made = notebook(options.model, options.suite, options.prompt)
    path.write_text(json.dumps(made, indent=1), encoding="utf-8")
    given = [
        str(path),
        "--template=workbench",
        f"--Voila.ip={options.ip}",
        f"--port={options.port or free_port(options.ip)}",
        # What is wrong with a model's name stands in the traceback, and nowhere else.
        "--VoilaConfiguration.show_tracebacks=True",
    ]
    if options.theme != "system":
        given.append(f"--theme={options.theme}")
    if options.no_browser:
        given.append("--no-browser")
    if not is_loopback(options.ip):
        given.append("--token")
    return [*given, *more]


def is_loopback(ip: str) -> bool:
    """Whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if ip == "localhost":
        return True
    try:
        return ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return False


def free_port(ip: str) -> int:
    """A port that nobody has: Voila would print 0 for its own choice."""
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return probe.getsockname()[1]


def installed() -> bool:
    """Whether Voila is there."""
    return importlib.util.find_spec("voila") is not None


def serve(options: argparse.Namespace, more: Sequence[str]) -> None:
    """Become Voila; returns when it is stopped."""
    from voila.app import Voila

    old = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, (str(SERVED), old)))
    if not is_loopback(options.ip):
        sys.stderr.write(f"{CAUTION}\n")
    with tempfile.TemporaryDirectory(prefix="workbench-app-") as folder:
        Voila.launch_instance(arguments(options, Path(folder), more))
