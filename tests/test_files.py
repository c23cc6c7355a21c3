"""Files that are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.files import write_whole


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
