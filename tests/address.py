"""``make address ADDRESS=https://github.com/owner/name``: the public address, wherever it stands.

It is decided in one place, `Repository` in pyproject.toml. Without an address the command writes
that one: into the links of every file, and into each notebook its badges and the cell that installs
the package on Colab. So a new notebook gets its own by running it. The rest of a file stays byte
for byte. Needs Python only, no environment.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLACE = "pyproject.toml"
DISTRIBUTION = "sae-workbench"
BRANCH = "main"
PLACEHOLDER = "-OWNER-"
"""Nobody's: a name on GitHub neither begins nor ends with a hyphen."""
INSTALL = "install"
"""The tag of the cell that installs the package."""

_OPENERS = (r"mybinder\.org/v2/gh/", r"colab\.research\.google\.com/github/")
_HOSTS = (*_OPENERS, r"github\.com/", r"raw\.githubusercontent\.com/")
_LINK = re.compile(
    rf"(?P<host>{'|'.join(_HOSTS)})(?P<owner>[\w.-]+)/(?P<name>[\w.-]*[\w-])", re.ASCII
)
_BADGES = re.compile(r"\[!\[[^\]]*\]\([^)]*\)\]\(https://mybinder\.org/[^\n]*(?:\n\n?|\Z)")


class AddressError(ValueError):
    """Not an address that can be written; the message says what would be."""


@dataclass(frozen=True)
class Address:
    """A repository on GitHub."""

    owner: str
    name: str

    @classmethod
    def of(cls, text: str) -> Address:
        """The repository that a full address leads to.

        Raises:
            AddressError: It is another kind of address.
        """
        found = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?", text.strip())
        if found is None:
            raise AddressError(
                f"the address must be https://github.com/owner/name (Colab opens no other host), "
                f"got {text!r}"
            )
        return cls(found[1], found[2])

    @classmethod
    def decided(cls, root: Path = ROOT) -> Address:
        """The one that stands in pyproject.toml."""
        text = (root / PLACE).read_text(encoding="utf-8")
        return cls.of(tomllib.loads(text)["project"]["urls"]["Repository"])

    def __str__(self) -> str:
        return f"https://github.com/{self.owner}/{self.name}"

    def badges(self, notebook: str) -> str:
        """Links that open a notebook on Binder and on Colab, one line of Markdown."""
        binder = f"https://mybinder.org/v2/gh/{self.owner}/{self.name}/{BRANCH}"
        colab = f"https://colab.research.google.com/github/{self.owner}/{self.name}/blob/{BRANCH}"
        return (
            "[![Open on Binder](https://mybinder.org/badge_logo.svg)]"
            f"({binder}?urlpath=lab/tree/notebooks/{notebook}) "
            "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
            f"({colab}/notebooks/{notebook})"
        )

    def install(self) -> str:
        """The cell that installs the package on Colab and does nothing elsewhere."""
        return (
            "import sys\n\n"
            'if "google.colab" in sys.modules:  # elsewhere it is installed already\n'
            f'    %pip install --quiet "{DISTRIBUTION} @ git+{self}"'
        )


def written(path: Path, text: str, address: Address, before: Address) -> str:
    """The text that a file should have, where the address was `before` until now."""

    def mended(link: re.Match[str]) -> str:
        name = link["name"].removesuffix(".git")
        end = link["name"][len(name) :]
        # What opens a notebook opens ours; other links are ours by the name that they end with.
        opener = any(re.fullmatch(host, link["host"]) for host in _OPENERS)
        if not opener and name not in (DISTRIBUTION, address.name, before.name):
            return link[0]
        return f"{link['host']}{address.owner}/{address.name}{end}"

    text = _LINK.sub(mended, text)
    return _notebook(path.name, text, address) if path.suffix == ".ipynb" else text


def _notebook(name: str, text: str, address: Address) -> str:
    """A notebook with its badges below the title, and the cell that installs next."""
    content = json.loads(text)
    cells = [c for c in content["cells"] if INSTALL not in c["metadata"].get("tags", [])]
    first = cells[0]
    if first["cell_type"] != "markdown" or not "".join(first["source"]).startswith("# "):
        raise AddressError(f"{name} must begin with a text cell, and that with '# ' and a title")
    title, _, rest = _BADGES.sub("", "".join(first["source"]), count=1).partition("\n")
    below = f"\n\n{rest.lstrip()}" if rest.strip() else ""
    first["source"] = _lines(f"{title}\n\n{address.badges(name)}{below}")
    install: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "id": "install",
        "metadata": {"tags": [INSTALL]},
        "outputs": [],
        "source": _lines(address.install()),
    }
    content["cells"] = [first, install, *cells[1:]]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def texts(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Every text file under version control, or about to be."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others"]
    listed = subprocess.run(
        [*command, "--exclude-standard"], check=True, capture_output=True, text=True
    ).stdout
    for name in sorted(set(filter(None, listed.split("\0")))):
        path = root / name
        if path.is_file():
            content = path.read_bytes()
            if b"\0" not in content[:8192]:
                # Decoded by hand: reading as text would change the ends of lines.
                yield path, content.decode("utf-8", "surrogateescape")


def disagreeing(address: Address, root: Path = ROOT) -> list[Path]:
    """The files that would be changed by writing `address`."""
    before = Address.decided(root)
    return [path for path, text in texts(root) if written(path, text, address, before) != text]


def write(address: Address, root: Path = ROOT) -> list[Path]:
    """Write `address` wherever it belongs; gives the files that were changed."""
    before = Address.decided(root)
    changed = disagreeing(address, root)
    for path in changed:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        new = written(path, text, address, before)
        path.write_bytes(new.encode("utf-8", "surrogateescape"))
    return changed


def main(words: list[str]) -> int:
    """Write the address given, or else the one decided; the status is 2 if it cannot be written."""
    try:
        address = Address.of(words[0]) if words and words[0] else Address.decided()
        changed = write(address)
    except AddressError as error:
        sys.stderr.write(f"address: {error}\n")
        return 2
    for path in changed:
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    sys.stdout.write(f"{address} stands in every file; {len(changed)} changed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
