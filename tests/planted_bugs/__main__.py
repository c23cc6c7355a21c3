"""Plant bugs one at a time, and see that the tests catch each.

``python -m tests.planted_bugs`` copies the checkout to a temporary folder, changes one line of the
copy, runs the tests that should see it until the first failure, and prints which test it was. It
takes an hour or so and is not part of the tests; run it after a change of what it plants bugs in,
or of the tests. Words after the command choose bugs whose names hold one of them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.planted_bugs import computing, finding, following
from tests.planted_bugs.bug import Bug

ROOT = Path(__file__).resolve().parents[2]
BUGS = (*computing.BUGS, *finding.BUGS, *following.BUGS)


def planted(bug: Bug, copy: Path) -> str:
    """The first test that fails with `bug` in the copy; empty if all pass."""
    path = copy / "workbench" / bug.file
    text = path.read_text(encoding="utf-8")
    if text.count(bug.right) != 1:
        raise ValueError(f"{bug.name}: {bug.right!r} must stand in {bug.file} exactly once")
    path.write_text(text.replace(bug.right, bug.wrong), encoding="utf-8")
    try:
        return first_failure(bug.tests, copy)
    finally:
        path.write_text(text, encoding="utf-8")


def first_failure(tests: tuple[str, ...], copy: Path) -> str:
    """The first of some tests that fails; empty if all pass."""
    options = ("-x", "-q", "--tb=no", "--no-header", "-p", "no:cacheprovider", "-rfE")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests, *options],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return ""
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if failed is None:
        raise RuntimeError(f"the tests did not run:\n{done.stdout}{done.stderr}")
    return failed[1]


def main(names: list[str]) -> int:
    """Print a table; the exit status is the number of bugs that no test caught."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "workbench"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".*", "node_modules", "__pycache__")
        )
        chosen = [bug for bug in BUGS if not names or any(name in bug.name for name in names)]
        every = tuple(dict.fromkeys(test for bug in chosen for test in bug.tests))
        if before := first_failure(every, copy):
            raise RuntimeError(f"without any bug {before} fails")
        for bug in chosen:
            caught = planted(bug, copy)
            missed += not caught
            sys.stdout.write(f"| {bug.name} | `{bug.file}` | {caught or '**not caught**'} |\n")
            sys.stdout.flush()
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
