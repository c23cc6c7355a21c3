"""Files that are whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench.analysis.calibration import Calibration
from workbench.analysis.circuit import Circuit
from workbench.files import readable, replaced_whole, writable_folder, write_whole


def test_the_text_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert write_whole(str(path), "höher") == path
    assert path.read_text(encoding="utf-8") == "höher"
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_there_stays_if_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "a.json", Path.write_text

    def full(self: Path, text: str, **options: str) -> int:
        write(self, text[:3], **options)
        raise OSError("no space left on device")

    write_whole(path, "the old text")
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space left"):
        write_whole(path, "the new text")
    assert path.read_text(encoding="utf-8") == "the old text"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "a.json"
    assert write_whole(path, "x").read_text() == "x"
    folder = writable_folder(tmp_path / "other" / "deep")
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("path", "kind", "says"),
    [
        ("", ValueError, "the path is empty: give the name"),
        (None, TypeError, "a path is a text or a Path, got None"),
        (5, TypeError, "a path is a text or a Path, got 5"),
        (
            ".",
            IsADirectoryError,
            r"\. is a folder, and .*one file.*: give the name of a file in it",
        ),
    ],
)
def test_what_is_no_file_to_write_or_read_is_named(path: Any, kind: type, says: str) -> None:
    with pytest.raises(kind, match=says):
        write_whole(path, "x")
    with pytest.raises(kind, match=says):
        readable(path, "a saved run")


def test_what_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("mine")
    with pytest.raises(NotADirectoryError, match=r"a\.txt is a file, and a folder is needed"):
        writable_folder(file)
    with pytest.raises(NotADirectoryError, match=r"a\.txt is a file, and a folder is needed"):
        write_whole(file / "b.json", "x")
    with pytest.raises(
        OSError, match=r"the folder .*a\.txt/b cannot be made .*: give another path"
    ):
        write_whole(file / "b" / "c.json", "x")
    assert file.read_text() == "mine"


def test_a_folder_that_cannot_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever runs the tests may be allowed everything.
    monkeypatch.setattr("workbench.files.os.access", lambda *_: False)
    with (
        pytest.raises(PermissionError, match="cannot be written to: give another path"),
        replaced_whole(tmp_path / "a"),
    ):
        pytest.fail("it was let in")


def test_a_missing_file_is_named_with_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        readable("a.run", "a saved run")
    assert (
        str(caught.value) == f"there is no file a.run in {tmp_path}: give the path of a saved run"
    )


@pytest.mark.parametrize("kind", [Calibration, Circuit])
def test_a_folder_is_no_saved_result(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=r"is a folder, and a saved \w+ is one file"):
        kind.open(tmp_path)
