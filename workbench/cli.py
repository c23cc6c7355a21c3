"""The console command: `workbench lab`, `workbench app`, `doctor`, `verify`, `--version`.

`lab` finds the notebooks (in a checkout they lie beside the package; an installed package carries a
copy, which is laid into a folder of the user's own first), then becomes JupyterLab in this process,
opened at the notebook asked for. ``app`` becomes Voila likewise: see `workbench.serving`.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

import workbench
from workbench import serving
from workbench.doctor import doctor

__all__ = ["main"]

FIRST_NOTEBOOK = "01_first_look.ipynb"
COPY_FOLDER = "workbench-notebooks"
COMMANDS = ("lab", "app", "doctor", "verify")
PACKAGE = Path(__file__).resolve().parent


class UsageError(Exception):
    """A request that cannot be carried out; its text says what to do instead."""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors name the next step."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nHelp: {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console command.

    Args:
        argv: the words after the program's name; those of this process by default.

    Returns:
        The exit status: 0, 1 where `doctor` or `verify` found a problem, 2 for a request that makes
        no sense.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for_jupyter: list[str] = []
    if "--" in words:
        cut = words.index("--")
        words, for_jupyter = words[:cut], words[cut + 1 :]
    parser = _build_parser()
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        parser.error(_unknown_command(words[0]))
    options = parser.parse_args(words)
    if options.command == "doctor":
        report = doctor(gpu=options.gpu)
        print(report)
        return 1 if report.problems else 0
    try:
        if options.command == "verify":
            return _verify(options)
        if options.command == "lab":
            start_jupyterlab(lab_arguments(options, for_jupyter))
            return 0
        if options.command == "app":
            _app(options, for_jupyter)
            return 0
    except UsageError as error:
        parser.error(str(error))
    parser.print_help()
    return 0


def _build_parser() -> _Parser:
    parser = _Parser(prog="workbench", description=(workbench.__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--version", action="version", version=f"sae-workbench {workbench.__version__}"
    )
    commands = parser.add_subparsers(dest="command", metavar="command", parser_class=_Parser)
    lab = commands.add_parser(
        "lab",
        help="open JupyterLab at the first notebook",
        epilog="What follows -- goes to JupyterLab: workbench lab -- --ServerApp.ip=0.0.0.0",
    )
    lab.add_argument("--notebook", default=FIRST_NOTEBOOK, help="which notebook (%(default)s)")
    lab.add_argument("--port", type=int, default=8888, help="the first port tried (%(default)s)")
    lab.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    lab.add_argument(
        "--folder",
        type=Path,
        default=None,
        help=f"where an installed package lays its notebooks (./{COPY_FOLDER})",
    )
    _add_app(commands)
    doctor_parser = commands.add_parser("doctor", help="what is installed, and what to mend")
    doctor_parser.add_argument("--gpu", action="store_true", help="ask torch what it can use")
    verify_parser = commands.add_parser(
        "verify", help="published reference values on your own copy of a model"
    )
    verify_parser.add_argument("model", nargs="?", default="gemma-2-2b", help="(%(default)s)")
    verify_parser.add_argument("--folder", help="where your copy is, if not on the hub")
    verify_parser.add_argument("--quick", action="store_true", help="short prompts only, no text")
    verify_parser.add_argument("--device", help="such as cuda; chosen if left out")
    verify_parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="chosen if left out"
    )
    return parser


def _add_app(commands: argparse._SubParsersAction[_Parser]) -> None:
    app = commands.add_parser(
        "app",
        help="the app as a page of its own, with no notebook around it",
        epilog="Each page opens a model of its own, and ends it when it is closed. "
        "What follows -- goes to Voila.",
    )
    app.add_argument("--model", default="pocket", help="what wb.open takes (%(default)s)")
    app.add_argument("--suite", help="folder of SAEs, or the model whose SAEs to use")
    app.add_argument("--prompt", default="", help="what to run at once")
    app.add_argument("--port", type=int, default=8866, help="the first port tried (%(default)s)")
    app.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    app.add_argument(
        "--theme", choices=("system", "light", "dark"), default="system", help="(%(default)s)"
    )
    app.add_argument(
        "--ip",
        default="127.0.0.1",
        help="where to listen (%(default)s: this machine alone). Any other address lets others in: "
        "they need the token that is printed, use this machine's memory, and nothing is encrypted",
    )


def _app(options: argparse.Namespace, for_voila: Sequence[str]) -> None:
    """Serve the app.

    Raises:
        UsageError: Voila is not there, or the port is not one.
    """
    if not serving.installed():
        raise UsageError(serving.NEEDED)
    _check_port(options.port)
    serving.serve(options, for_voila)


def _check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise UsageError(
            f"port {port} is out of range; give one from 0 to 65535 (0: any free one)."
        )


def _verify(options: argparse.Namespace) -> int:
    """Print the table; the status is 0 if every value is as published."""
    # Here and not above: the other commands answer without torch.
    import torch

    from workbench.verify import REFERENCES, verify

    if options.model not in REFERENCES:
        known = ", ".join(REFERENCES)
        raise UsageError(f"no published values for {options.model!r}; there are for: {known}.")
    dtype = getattr(torch, options.dtype) if options.dtype else None
    places = {one.place for one in REFERENCES[options.model] if not options.quick or one.feature}
    print(f"{len(places)} SAEs are fetched if they are not here yet.", flush=True)
    found = verify(
        options.model,
        opened=lambda: workbench.open(
            options.folder or options.model,
            suite=options.model,
            device=options.device,
            dtype=dtype,
        ),
        quick=options.quick,
    )
    print(found)
    return 0 if found.ok else 1


def _unknown_command(word: str) -> str:
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    return f"there is no command {word!r}; there are: {', '.join(COMMANDS)}.{meant}"


def lab_arguments(options: argparse.Namespace, for_jupyter: Sequence[str]) -> list[str]:
    """JupyterLab's own arguments for a request.

    Args:
        options: what the parser of `workbench lab` gives.
        for_jupyter: arguments handed on as they are; they win over ours.

    Raises:
        UsageError: there is no such notebook, or the port is not one.
    """
    _check_port(options.port)
    folder = notebook_folder(options.folder)
    notebook = folder / options.notebook
    if not notebook.is_file():
        there = ", ".join(sorted(path.name for path in folder.glob("*.ipynb"))) or "none"
        msg = f"no notebook {options.notebook!r} in {folder}; there are: {there}."
        raise UsageError(msg)
    root = folder.parent
    arguments = [
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{quote(notebook.relative_to(root).as_posix())}",
        f"--port={options.port}",
        # Once installed, nothing is asked of a network.
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    if options.no_browser:
        arguments.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # In a container root is the only user, and Jupyter stops unless told that this is meant.
        arguments.append("--allow-root")
    return [*arguments, *for_jupyter]


def notebook_folder(folder: Path | None = None, *, package: Path = PACKAGE) -> Path:
    """The folder of notebooks that the user may edit.

    Args:
        folder: where to lay copies if the notebooks are inside an installed package.
        package: the folder of the package.

    Raises:
        UsageError: neither a checkout nor the package holds notebooks.
    """
    checkout = package.parent / "notebooks"
    if folder is None and (package.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    source = package / "notebooks"
    if not source.is_dir():
        source = checkout
    if not source.is_dir():
        msg = (
            "this installation carries no notebooks; "
            "reinstall it: python -m pip install --force-reinstall sae-workbench"
        )
        raise UsageError(msg)
    target = (folder or Path.cwd() / COPY_FOLDER).resolve()
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.ipynb")):
        # The user may have worked in an earlier copy: it stays.
        if not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)
    return target


def start_jupyterlab(arguments: Sequence[str]) -> None:
    """Become JupyterLab; returns when it is stopped."""
    from jupyterlab.labapp import LabApp

    LabApp.launch_instance(list(arguments))
