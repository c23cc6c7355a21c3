"""Labels on disk: nothing is lost, nothing is overwritten, nothing foreign is touched."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from workbench.labels.files import NotLabelsError
from workbench.labels.records import Label
from workbench.labels.store import Labels
from workbench.sites import Site

SITE = Site(5, "res")
WRITER = """
import sys
from workbench.labels.store import Labels
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
labels = Labels(path, model="m", author=name)
print("ready", flush=True)
sys.stdin.readline()
for i in range(count):
    labels.set((5, i % 7), f"{name} {i}")
labels.close()
"""


@pytest.fixture
def labels(tmp_path: Path) -> Iterator[Labels]:
    with Labels(tmp_path / "labels.sqlite", model="m", author="ann") as opened:
        yield opened


def test_a_label_is_kept_with_who_when_and_how(labels: Labels) -> None:
    before = datetime.now(UTC)
    labels.set((5, 231), "  weekdays ")
    labels.close()
    with Labels(labels.path, model="m", author="bob") as again:
        found = again.label(SITE, 231)
        assert again.label((5, "mlp"), 231) is None
        assert again.label(SITE, 230) is None
    assert found is not None
    assert found.date is not None
    assert (found.text, found.method, found.author) == ("weekdays", "manual", "ann")
    assert before <= found.date <= datetime.now(UTC)
    assert f"{found.date:%Y-%m-%d}" in found.provenance


def test_looking_makes_no_file(labels: Labels) -> None:
    assert labels.label(SITE, 1) is None
    assert labels.history(SITE, 1).empty
    assert labels.frame().empty
    assert "none yet" in repr(labels)
    assert not labels.path.exists()


def test_the_history_keeps_what_was_changed_and_taken_back(labels: Labels) -> None:
    labels.set((5, 1), "days")
    labels.set((5, 1), "weekdays", author="bob")
    labels.note((5, 1), "also fires on months")
    labels.set((5, 1), "")
    history = labels.history(SITE, 1)
    assert history["text"].tolist() == ["days", "weekdays", "also fires on months", ""]
    assert history["author"].tolist() == ["ann", "bob", "ann", "ann"]
    assert history["what"].tolist() == ["label", "label", "note", "label"]
    assert history["date"].is_monotonic_increasing
    assert labels.label(SITE, 1) is None
    assert labels.notes(SITE, 1) == "also fires on months"


def test_what_is_there_cannot_be_changed_or_deleted(labels: Labels) -> None:
    labels.set((5, 1), "days")
    labels.close()
    connection = sqlite3.connect(labels.path)
    for command in ("UPDATE entries SET text = 'x'", "DELETE FROM entries"):
        with pytest.raises(sqlite3.IntegrityError, match="only added to"):
            connection.execute(command)
    connection.close()


def test_a_person_comes_first_and_known_bad_last(labels: Labels) -> None:
    wrong = {"warning": "made at the wrong site"}
    labels.add(Label(SITE, 1, "bad", "explain", details=wrong))
    labels.add(Label(SITE, 1, "by rule", "automatic", 0.7))
    shown = labels.label(SITE, 1)
    assert shown is not None
    assert shown.text == "by rule"
    labels.add(Label(SITE, 1, "explained", "neuronpedia"))
    labels.set((5, 1), "mine")
    labels.add(Label(SITE, 1, "explained later", "explain", 0.99))
    assert str(labels.label(SITE, 1)) == "mine"
    assert labels.frame()["label"].tolist() == ["mine"]
    labels.set((5, 1), "")
    assert str(labels.label(SITE, 1)) == "explained later"
    assert str(labels.label(SITE, 1, method="automatic")) == "by rule"
    assert "WARNING: made at the wrong site" in repr(Label(SITE, 1, "b", "explain", details=wrong))


def test_a_later_label_wins_when_the_clock_goes_back(labels: Labels) -> None:
    future = datetime(2090, 1, 1, tzinfo=UTC)
    labels.add(Label(SITE, 1, "from a fast clock", "manual", date=future))
    labels.set((5, 1), "corrected")
    assert str(labels.label(SITE, 1)) == "corrected"


def test_labels_belong_to_one_sae_and_one_model(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    names = {SITE: "width_16k"}
    with Labels(path, model="m", sae_name=names.__getitem__) as labels:
        labels.set((5, 1), "weekdays")
        names[SITE] = "width_65k"
        assert labels.label(SITE, 1) is None
        assert labels.frame().empty
        names[SITE] = "width_16k"
        assert str(labels.label(SITE, 1)) == "weekdays"
    with Labels(path, model="other", sae_name=names.__getitem__) as other:
        assert other.label(SITE, 1) is None


def test_two_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    path, count = tmp_path / "labels.sqlite", 60
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [
        subprocess.Popen(
            [*command, name, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("ann", "bob")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    # Both begin at once: the file is not there yet, so both also make it.
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    with Labels(path, model="m") as labels:
        said = [text for i in range(7) for text in labels.history(SITE, i)["text"]]
    assert sorted(said) == sorted(f"{who} {i}" for who in ("ann", "bob") for i in range(count))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_export_and_import_merge_two_notebooks(labels: Labels, tmp_path: Path) -> None:
    labels.set((5, 1), "Mädchen \n and\u2028more")
    labels.add(Label(SITE, 2, "by rule", "automatic", 0.5, "m", details={"rule": ["a"]}))
    labels.note((5, 1), "note")
    assert labels.export(tmp_path / "a.jsonl") == 3
    lines = (tmp_path / "a.jsonl").read_text("utf-8").strip().split("\n")
    assert [json.loads(line)["method"] for line in lines] == ["manual", "automatic", "manual"]
    with Labels(tmp_path / "b.sqlite", model="m", author="bob") as other:
        other.set((5, 1), "girls")
        assert other.load(tmp_path / "a.jsonl") == 3
        assert other.load(tmp_path / "a.jsonl") == 0
        assert set(other.history(SITE, 1)["text"]) == {"Mädchen \n and\u2028more", "girls", "note"}
        assert other.label(SITE, 2) == labels.label(SITE, 2)
        other.export(tmp_path / "b.jsonl")
    assert labels.load(tmp_path / "b.jsonl") == 1
    with pytest.raises(FileExistsError):
        labels.export(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line[:40],
        lambda line: line.replace("workbench-labels-1", "workbench-labels-9"),
        lambda line: line.replace('"res"', '"nowhere"'),
        lambda line: line.replace('"manual"', '"magic"'),
        lambda line: line.replace('"author": "ann", ', ""),
    ],
    ids=["cut", "format", "kind", "method", "field"],
)
def test_an_import_takes_all_or_nothing(spoil, labels: Labels, tmp_path: Path) -> None:
    labels.set((5, 1), "one")
    labels.set((5, 2), "two")
    file = tmp_path / "a.jsonl"
    labels.export(file)
    first, second = file.read_text("utf-8").splitlines()
    assert spoil(second) != second
    file.write_text(f"{first}\n{spoil(second)}\n", "utf-8")
    with Labels(tmp_path / "b.sqlite", model="m") as other:
        with pytest.raises(ValueError, match=r"line 2 is no entry .* nothing was taken in"):
            other.load(file)
        assert other.frame().empty


def test_an_import_of_what_is_no_text_is_refused(labels: Labels, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    with pytest.raises(FileNotFoundError, match="give the path of exported labels"):
        labels.load(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="holds no exported labels: it is not text"):
        labels.load(file)
    assert labels.frame().empty


def _foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE entries (mine)")
    connection.commit()
    connection.close()


def _newer(path: Path) -> None:
    _ours(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA user_version = 2")
    connection.close()


def _ours(path: Path, count: int = 200) -> None:
    with Labels(path, model="m") as labels:
        labels.add_all([Label(SITE, i, "text " * 50, "automatic") for i in range(count)])


def _damaged(path: Path) -> None:
    _ours(path)
    content = bytearray(path.read_bytes())
    content[8192 : len(content) - 8192] = bytes(len(content) - 16384)
    path.write_bytes(content)


def _cut(path: Path) -> None:
    _ours(path)
    path.write_bytes(path.read_bytes()[:20000])


MAKERS = {
    "text": lambda path: path.write_text("my thesis"),
    "empty": lambda path: path.write_bytes(b""),
    "another database": _foreign,
    "a newer format": _newer,
    "damaged": _damaged,
    "cut short": _cut,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_another_or_damaged_file_is_refused_untouched(make, tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    make(path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(NotLabelsError, match="left as it was"):
        Labels(path, model="m")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_folder_is_refused_with_a_name_to_give(tmp_path: Path) -> None:
    with pytest.raises(
        IsADirectoryError, match=r"is a folder, and labels .* such as .*labels\.sqlite"
    ):
        Labels(tmp_path, model="m")


def test_impossible_entries_are_refused(labels: Labels) -> None:
    with pytest.raises(ValueError, match="method must be one of manual, automatic"):
        labels.add(Label(SITE, 1, "x", "guess"))
    with pytest.raises(ValueError, match=r"number from 0 on, got -1"):
        labels.set((5, -1), "x")
    with pytest.raises(ValueError, match="kind"):
        labels.set((5, 1), "x", kind="nowhere")  # pyright: ignore[reportArgumentType]
    assert labels.frame().empty


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        Labels(tmp_path / "file" / "labels.sqlite", model="m") as labels,
        pytest.raises(OSError, match=r"cannot be kept at .*WORKBENCH_DATA"),
    ):
        labels.set((5, 1), "x")
