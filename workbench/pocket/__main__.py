"""``python -m workbench.pocket build | evaluate | index | write``.

Rebuild the shipped model, score it, index its features, or read its corpus.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from workbench.pocket.manifest import read, record, weights
from workbench.sae.suite import INDEX


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workbench.pocket", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "build", help="rebuild everything from seeds; goes on where it stopped"
    )
    build.add_argument(
        "--work", type=Path, default=Path(".pocket-build"), help="folder for intermediate results"
    )
    build.add_argument("--to", type=Path, default=weights(), help="folder of the shipped files")
    evaluate = commands.add_parser("evaluate", help="score the shipped files on held-out text")
    evaluate.add_argument("--rows", type=int, help="rows of 256 tokens; as shipped if left out")
    index = commands.add_parser("index", help="rebuild the shipped index of features, after build")
    index.add_argument("--to", type=Path, default=weights() / "sae" / INDEX, help="the file")
    index.add_argument("--tokens", type=int, default=200_000, help="about how many")
    write = commands.add_parser("write", help="print documents of the corpus")
    write.add_argument("--seed", type=int, default=0)
    write.add_argument("--count", type=int, default=3)
    options = parser.parse_args(arguments)
    {"build": _build, "evaluate": _evaluate, "index": _index, "write": _write}[options.command](
        options
    )
    return 0


def _build(options: argparse.Namespace) -> None:
    from workbench.pocket.build import Build

    Build(options.work).ship(options.to)
    _print_tables(options.to)


def _evaluate(options: argparse.Namespace) -> None:
    from workbench.lab import open as open_lab
    from workbench.pocket import evaluate

    lab = open_lab("pocket")
    tables = evaluate.everything(lab.engine, lab.suite, options.rows or evaluate.ROWS).tables
    for name, table in tables.items():
        _show(name, table)
    _show("summary", pd.Series(evaluate.summary(*tables.values())).to_frame("value").reset_index())


def _index(options: argparse.Namespace) -> None:
    from workbench.pocket.feature_index import make

    found = make(options.to, options.tokens)
    if options.to.resolve().is_relative_to(weights().resolve()):
        record(options.to.resolve(), weights().resolve())
    sys.stdout.write(f"{found}\n{options.to}: {options.to.stat().st_size / 1e6:.2f} MB\n")


def _write(options: argparse.Namespace) -> None:
    from workbench.pocket.corpus import document

    for index in range(options.count):
        found = document(options.seed, index)
        sys.stdout.write(f"--- {found.kind}, {found.nats:.0f} nats\n{found.text}\n")


def _print_tables(root: Path) -> None:
    for path in sorted((root / "evaluation").glob("*.csv")):
        _show(path.stem, pd.read_csv(path))
    _show("summary", pd.Series(read(root)["summary"]).to_frame("value").reset_index())


def _show(name: str, table: pd.DataFrame) -> None:
    sys.stdout.write(f"\n{name}\n{table.to_string(index=False, float_format='%.3f')}\n")


if __name__ == "__main__":
    sys.exit(main())
