"""Where the browser is that the browser tests drive.

Looked for, in this order: the file that the variable WORKBENCH_CHROMIUM names, Chromium or Chrome
on the path, Chrome in its place on macOS, the browser that `playwright install chromium` put down.
As a program it prints the path, or says how to get a browser and fails: `make test` begins with it.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
HELP = (
    "no Chromium found, and the browser tests need one.\n"
    "Fix: apt-get install chromium (Debian, Ubuntu), brew install --cask google-chrome (macOS),\n"
    "     or .venv/bin/playwright install chromium; or set WORKBENCH_CHROMIUM to its path."
)


def find() -> Path | None:
    """The browser's executable file, or None."""
    if named := os.environ.get("WORKBENCH_CHROMIUM"):
        return Path(named) if Path(named).is_file() else None
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found)
    if MAC.is_file():
        return MAC
    return _from_playwright()


def _from_playwright() -> Path | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return path if path.is_file() else None


def main() -> int:
    """Print the browser's path; the exit status says whether there is one."""
    found = find()
    sys.stdout.write(f"{found}\n" if found else "")
    sys.stderr.write("" if found else f"{HELP}\n")
    return 0 if found else 1


if __name__ == "__main__":
    raise SystemExit(main())
