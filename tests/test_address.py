"""The public address: one place decides it, and every file that names it agrees."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import address
from tests.address import Address, AddressError

ROOT = Path(__file__).resolve().parents[1]
NEW = Address("somebody", "renamed.repo")
NOTEBOOK = "09_new.ipynb"
# In two parts, so that this file does not hold the links that it plants.
PLANTED = {
    "link": ("see https://github", ".com/another/sae-workbench/issues"),
    "clone": ("git clone https://github", ".com/another/sae-workbench.git"),
    "binder": ("(https://mybinder", ".org/v2/gh/another/project/main)"),
    "colab": ("https://colab.research", ".google.com/github/another/project/blob/main/x.ipynb"),
    "picture": ("https://raw.githubusercontent", ".com/another/sae-workbench/main/x.png"),
}


def notebook(*sources: str) -> str:
    """A notebook of a text cell and code cells, with characters outside ASCII."""
    cells = [
        {"cell_type": "code", "execution_count": None, "id": f"c{i}", "metadata": {}}
        | {"outputs": [], "source": [text]}
        for i, text in enumerate(sources[1:])
    ]
    first = {"cell_type": "markdown", "id": "title", "metadata": {}}
    first["source"] = sources[0].splitlines(keepends=True)
    content = {"cells": [first, *cells], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def cells(path: Path) -> list[tuple[str, str]]:
    """Type and text of each cell."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [(c["cell_type"], "".join(c["source"])) for c in content["cells"]]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the metadata of this one and a file of its own kinds of line ends."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    shutil.copy(ROOT / address.PLACE, tmp_path)
    (tmp_path / "notes.md").write_bytes(b"one\r\ntwo \xff\n\n\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0" + "".join(PLANTED["link"]).encode())
    return tmp_path


def test_every_file_agrees_with_the_address_that_is_decided() -> None:
    wrong = [str(path.relative_to(ROOT)) for path in address.disagreeing(Address.decided())]
    assert not wrong, f"`make address` writes these anew: {wrong}"


def test_every_notebook_can_be_opened_on_binder_and_on_colab() -> None:
    decided = Address.decided()
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert paths
    for path in paths:
        (kind, first), (install_kind, install) = cells(path)[:2]
        assert (kind, install_kind) == ("markdown", "code")
        repository = f"{decided.owner}/{decided.name}"
        assert f"/gh/{repository}/main?urlpath=lab/tree/notebooks/{path.name})" in first
        assert f"/github/{repository}/blob/main/notebooks/{path.name})" in first
        assert f"git+https://github.com/{repository}" in install


@pytest.mark.parametrize("parts", PLANTED.values(), ids=PLANTED)
def test_a_planted_link_is_found_and_mended(repository: Path, parts: tuple[str, str]) -> None:
    decided = Address.decided(repository)
    assert address.disagreeing(decided, repository) == []
    planted = repository / ".docs" / "index.md"
    planted.parent.mkdir()
    planted.write_text(f"before\n{''.join(parts)}\nafter\n", encoding="utf-8")
    assert address.write(decided, repository) == [planted]
    text = planted.read_text(encoding="utf-8")
    assert "another" not in text
    assert f"/{decided.owner}/{decided.name}" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert address.disagreeing(decided, repository) == []


def test_links_to_other_projects_stay(repository: Path) -> None:
    other = "https://github.com/another/other and https://github.com/ndif-team/nnsight/issues/1"
    (repository / "README.md").write_text(other, encoding="utf-8")
    address.write(NEW, repository)
    assert (repository / "README.md").read_text(encoding="utf-8") == other


def test_a_new_address_is_written_everywhere_and_back_without_a_trace(repository: Path) -> None:
    old = Address.decided(repository)
    (repository / NOTEBOOK).write_text(notebook("# Día\n\nText.", "1 + 1"), encoding="utf-8")
    address.write(old, repository)
    files = [p for p in repository.iterdir() if p.is_file()]
    before = {path: path.read_bytes() for path in files}
    assert set(address.write(NEW, repository)) == {
        repository / address.PLACE,
        repository / NOTEBOOK,
    }
    assert Address.decided(repository) == NEW
    assert old.owner not in (repository / NOTEBOOK).read_text(encoding="utf-8")
    address.write(old, repository)
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.parametrize("text", ["# A title", "# A title\n\nText.\n\n- more"])
def test_a_new_notebook_gets_its_badges_once(repository: Path, text: str) -> None:
    path = repository / NOTEBOOK
    path.write_text(notebook(text, "x = 'ü'", "x"), encoding="utf-8")
    assert address.write(NEW, repository)
    once = path.read_bytes()
    assert address.write(NEW, repository) == []
    assert path.read_bytes() == once
    (_, title), install, *rest = cells(path)
    first, badges, *below = title.split("\n\n")
    assert [first, *below] == text.split("\n\n")
    assert badges == NEW.badges(NOTEBOOK)
    assert install == ("code", NEW.install())
    assert rest == [("code", "x = 'ü'"), ("code", "x")]


def test_a_notebook_without_a_title_is_refused(repository: Path) -> None:
    (repository / NOTEBOOK).write_text(notebook("No title"), encoding="utf-8")
    with pytest.raises(AddressError, match=r"09_new\.ipynb must begin with .*title"):
        address.write(NEW, repository)


@pytest.mark.parametrize(
    "text", ["https://gitlab.com/a/b", "https://github.com/a", "github.com/a/b", "https://x/a/b"]
)
def test_another_kind_of_address_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert address.main([text]) == 2
    said = capsys.readouterr().err
    assert repr(text) in said
    assert "https://github.com/owner/name" in said


@pytest.mark.parametrize("end", ["", ".git", "/"])
def test_an_address_may_be_pasted_as_it_is(end: str) -> None:
    assert Address.of(f"https://github.com/me/my.lab{end}\n") == Address("me", "my.lab")


def test_the_command_needs_no_package() -> None:
    code = "import tests.address, sys; sys.exit(bool({'torch', 'workbench'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path = sys.path[:0] + "
                    f"[{str(ROOT)!r}] + [p for p in sys.path if 'site-packages' not in p]; {code}"],
                   check=True)  # fmt: skip


def run_cell(source: str) -> list[tuple[str, str]]:
    """The commands that a cell gives to IPython."""
    from IPython.core.inputtransformer2 import TransformerManager

    asked: list[tuple[str, str]] = []

    class Shell:
        def run_line_magic(self, magic: str, words: str) -> None:
            asked.append((magic, words))

    exec(TransformerManager().transform_cell(source), {"get_ipython": Shell})
    return asked


def test_the_cell_installs_on_colab_and_does_nothing_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = NEW.install()
    assert len(source.splitlines()) <= 5
    assert run_cell(source) == []
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    ((magic, words),) = run_cell(source)
    assert magic == "pip"
    assert words.endswith(f'"sae-workbench @ git+https://github.com/{NEW.owner}/{NEW.name}"')
    assert "--upgrade" not in words
