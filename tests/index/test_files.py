"""What is no index is refused and left as it is; where texts come from; what fits."""

from __future__ import annotations

import gc
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from index.conftest import CONTEXT, SHAPE, corpus, indexed, tables

from workbench.index import Index, NotAnIndexError, Shape
from workbench.index.corpus import WINDOW, Packer, read_texts, total_size
from workbench.index.plan import settings_for, state_bytes
from workbench.index.state import bin_edges, octave_bins
from workbench.models import Model
from workbench.sites import Site


def a_text(path: Path) -> None:
    path.write_text("hello " * 999)


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def an_sqlite_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE meta (name, value)")
    connection.close()


def another_duckdb_database(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE meta (name VARCHAR, value VARCHAR)")
        connection.execute("CREATE TABLE mine AS SELECT 42 AS answer")


def a_later_format(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE meta AS SELECT 'format' AS name, '\"x-9\"' AS value")


@pytest.mark.parametrize(
    "write", [a_text, nothing, an_sqlite_database, another_duckdb_database, a_later_format]
)
@pytest.mark.parametrize("name", ["i.duckdb", "i.duckdb.building"])
def test_a_foreign_file_is_refused_and_not_touched(
    model: Model, suite: Any, tmp_path: Path, write: Callable[[Path], None], name: str
) -> None:
    path = tmp_path / name
    write(path)
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(NotAnIndexError, match="left as it was"):
        indexed(model, suite, tmp_path / "i.duckdb")
    if name == "i.duckdb":
        with pytest.raises(NotAnIndexError, match=r"i\.duckdb .*left as it was"):
            Index.open(path)
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == stamp
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_damaged_index_is_refused_and_not_touched(made: Index, tmp_path: Path) -> None:
    whole = made.path.read_bytes()
    path = tmp_path / "i.duckdb"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NotAnIndexError, match="damaged; it was left as it was"):
        Index.open(path)
    refused = 0
    for place in range(3 * 4096 + 100, len(whole), len(whole) // 12):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        path.write_bytes(broken)
        try:
            index = Index.open(path)
            for site in index.sites:
                index.frame(site)
                index.feature(site, 7)
            index.close()
        except NotAnIndexError:
            refused += 1
        assert path.read_bytes() == broken
    assert refused > 4


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no index at .*: lab\.index makes one"):
        Index.open(tmp_path / "i.duckdb")


def test_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder, and an index is one file"):
        Index.open(tmp_path)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ([], "texts is empty: give at least one text"),
        (iter(()), "texts is empty: give at least one text"),
        (["", ""], "texts hold no token: give at least one text"),
    ],
)
def test_no_text_is_refused_and_nothing_is_left(
    model: Model, suite: Any, tmp_path: Path, texts: Any, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        indexed(model, suite, tmp_path / "i.duckdb", texts)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_only_the_pass(
    model: Model, suite: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("workbench.index.publish.write_meta", full)
        with pytest.raises(OSError, match="no space left"):
            indexed(model, suite, tmp_path / "i.duckdb", corpus(9))
    assert [path.name for path in tmp_path.iterdir()] == ["i.duckdb.building"]
    assert indexed(model, suite, tmp_path / "i.duckdb", corpus(9)).finished


def test_an_index_goes_into_a_new_folder_and_not_over_a_folder(
    model: Model, suite: Any, tmp_path: Path
) -> None:
    index = indexed(model, suite, tmp_path / "new" / "i.duckdb", corpus(9))
    assert index.path.is_file()
    with pytest.raises(IsADirectoryError, match="new is a folder, and one file is written"):
        indexed(model, suite, tmp_path / "new", corpus(9))
    with pytest.raises(ValueError, match="the path is empty"):
        indexed(model, suite, "", corpus(9))  # pyright: ignore[reportArgumentType]


def test_a_closed_index_says_so(model: Model, suite: Any, tmp_path: Path) -> None:
    with indexed(model, suite, tmp_path / "i.duckdb", corpus(3 + 6)) as index:
        assert index.feature((1, "res"), 1).fires
    with pytest.raises(NotAnIndexError, match="was closed"):
        index.feature((1, "res"), 1)


# Texts.


class Rows:
    """As a Hugging Face dataset: a length, and rows with several columns."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Any:
        return ({"id": i, "text": text} for i, text in enumerate(self.texts))


def as_jsonl(texts: list[str], folder: Path) -> Path:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


SOURCES: dict[str, Callable[[list[str], Path], Any]] = {
    "list": lambda texts, _: texts,
    "generator": lambda texts, _: (text for text in texts),
    "dataset": lambda texts, _: Rows(texts),
    "stream": lambda texts, _: ({"text": text} for text in texts),
    "jsonl": as_jsonl,
    "name of a file": lambda texts, folder: str(as_jsonl(texts, folder)),
    "list of files": lambda texts, folder: [as_jsonl(texts, folder)],
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_of_the_same_texts_gives_the_same(source: str, tmp_path: Path) -> None:
    texts = corpus()
    given = SOURCES[source](texts, tmp_path)
    assert [text.text for text in read_texts(given)] == texts
    total, unit = total_size(given)
    if source in ("generator", "stream"):
        assert total is None
    else:
        assert unit == ("B" if "file" in source or source == "jsonl" else "doc")
        assert sum(text.size for text in read_texts(given)) == total


def test_a_long_file_is_cut_at_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.index.corpus.PIECE", 50)
    lines = [f"line {i} of some length\n" for i in range(20)]
    path = tmp_path / "a.txt"
    path.write_text("".join(lines))
    pieces = [text.text for text in read_texts(path)]
    assert len(pieces) > 4
    assert "".join(pieces) == "".join(lines)
    assert all(piece.endswith("\n") for piece in pieces)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'Once upon' is no file; a single text .* in a list"):
        list(read_texts("Once upon"))
    with pytest.raises(TypeError, match="text 1 is 7; give strings, Paths or rows"):
        list(read_texts(["a", 7]))
    with pytest.raises(TypeError, match=r"text 0 is a row with \['content'\]"):
        list(read_texts([{"content": "a"}]))


@pytest.mark.parametrize("context", [2, 5, 24, 64])
@pytest.mark.parametrize("rows", [1, 3])
def test_packing_loses_nothing_and_goes_on_anywhere(model: Model, context: int, rows: int) -> None:
    texts = [*corpus(12), "", "x" * 200, "and <bos> inside", ""]
    tokenizer = model.tokenizer
    packed = list(Packer(tokenizer, texts, context=context, rows=rows))
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    ids = np.concatenate([part.ids for part in packed])
    assert (ids[:, 0] == bos).all()
    stream = ids[:, 1:].ravel()
    wanted = []
    for text in texts:
        wanted += [*tokenizer(text, add_special_tokens=False)["input_ids"], eos]
    assert stream[: len(wanted)].tolist() == wanted
    assert (stream[len(wanted) :] == eos).all()
    assert len(stream) - len(wanted) < context
    # Every token of a document is scored once, but for a <bos> that its text spells out.
    tokens = np.concatenate([part.ids.ravel()[part.scored] for part in packed])
    where = np.concatenate([part.where for part in packed])
    everything = [
        t for text in texts for t in tokenizer(text, add_special_tokens=False)["input_ids"]
    ]
    kept = [i for i, token in enumerate(everything) if token != bos]
    assert where.tolist() == kept
    assert tokens.tolist() == [everything[i] for i in kept]
    documents = [one for part in packed for one in part.documents]
    assert [one.number for one in documents] == list(range(len(texts)))
    for one, text in zip(documents, texts, strict=True):
        assert everything[one.start : one.start + len(one.ids)] == one.ids.tolist()
        assert one.ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert sum(part.size for part in packed) == len(texts)
    for number in range(0, len(packed) - 1, 1 + len(packed) // 9):
        at = packed[number].then
        rest = list(Packer(tokenizer, iter(texts), context=context, rows=rows, at=at))
        assert len(rest) == len(packed) - number - 1
        for one, other in zip(rest, packed[number + 1 :], strict=True):
            assert (one.ids == other.ids).all()
            for name in ("where", "row", "place", "before", "after", "content"):
                assert (getattr(one, name) == getattr(other, name)).all(), name
            assert [d.number for d in one.documents] == [d.number for d in other.documents]
            assert one.then == other.then


def test_extents_and_contents_stay_in_the_piece(model: Model) -> None:
    texts = ["abcdefghijklmnopqrstuvwxyz" * 2, "abc", "xbcdefghijk", "zzbcdefghijk"]
    (rows,) = Packer(model.tokenizer, texts, context=CONTEXT, rows=50)
    ids = rows.ids.ravel()[rows.scored]
    text = model.tokenizer.decode(ids)
    number = np.searchsorted([0, 52, 55, 66], np.arange(len(ids)), "right")
    pieces = list(zip(number, rows.row, strict=True))
    for i, piece in enumerate(pieces):
        same = [j for j, other in enumerate(pieces) if other == piece]
        assert rows.before[i] == min(WINDOW, i - same[0])
        assert rows.after[i] == min(WINDOW, same[-1] - i)
    # "...ijk" alike in eight tokens, "bcd" not: what stands before differs.
    third, fourth = text.index("xbcde"), text.index("zzbcd") + 1
    alike = [rows.content[third + i] == rows.content[fourth + i] for i in range(11)]
    assert alike == [False] * 8 + [True] * 3


def test_bins_are_parts_of_octaves() -> None:
    values = np.random.default_rng(0).lognormal(0, 4, 5000).astype(np.float32)
    values = values[(values > 2.0**-16) & (values < 2.0**16)]
    for bins in (2, 4, 8):
        edges = bin_edges(bins)
        wanted = np.searchsorted(edges, values.astype(np.float64), "right") - 1
        assert (octave_bins(values, bins) == wanted).all()
        ends = np.array([1e-12, 2.0**-16, 2.0**16, 1e30], np.float32)
        assert octave_bins(ends, bins).tolist() == [0, 0, 32 * bins - 1, 32 * bins - 1]
        assert octave_bins(edges[:-1].astype(np.float32), bins).tolist() == list(range(32 * bins))


# What fits.


def test_a_pass_that_does_not_fit_is_refused_before_it_starts(
    model: Model, suite: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"needs about .* GB .* 1e-05 GB are allowed: name fewer"):
        indexed(model, suite, tmp_path / "i.duckdb", memory=10_000)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="context must be 2 to 64 for loud, got 65"):
        indexed(model, suite, tmp_path / "i.duckdb", context=65)
    with pytest.raises(ValueError, match="there is no site to index"):
        indexed(model, suite, tmp_path / "i.duckdb", sites=[])
    for wrong in ({"bins": 3}, {"top": 0}, {"stratified": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Shape(**{"top": 5, "bins": 4, "stratified": 2, **wrong})


def test_less_memory_means_smaller_batches(model: Model) -> None:
    sizes = [40, 40]
    state = state_bytes(sizes, SHAPE)

    def rows(memory: int) -> int:
        given = {"context": 64, "batch": None, "memory": memory}
        return settings_for(model, sizes, SHAPE, **given).batch

    assert rows(10**9) == 64
    assert 1 < rows(state + 3_000_000) < 64


def test_the_state_takes_what_was_planned(made: Index, model: Model) -> None:
    # Not more than twice, not less than a fifth: the plan allows for features that fire more.
    planned = state_bytes([40], SHAPE, sample=0)
    from workbench.index.state import SiteState

    state = SiteState(40, SHAPE)
    (rows, *_) = Packer(model.tokenizer, corpus(99), context=CONTEXT, rows=200)
    random = np.random.default_rng(0)
    tokens, features = np.nonzero(random.random((len(rows.where), 40)) < 0.3)
    state.add(rows, tokens, features, random.lognormal(0, 2, len(tokens)).astype(np.float32))
    used = sum(array.nbytes for array in state.arrays().values())
    used += sum(a.nbytes for b in (state.top, state.strata) for a in (b.slot, b.limit))
    assert planned / 5 < used < 2 * planned


def test_the_lab_makes_and_finds_its_index(tmp_path: Path) -> None:
    from workbench.lab import open as open_lab

    lab = open_lab()
    lab._index = None
    path = tmp_path / "i.duckdb"
    sites = [Site(2, "res"), Site(5, "att")]
    texts = [
        "The capital of France is Paris.",
        "Anna loved the boat.",
        "One, two, three, four.",
    ] * 2
    index = lab.index(texts, path=path, sites=sites, context=32, progress=False)
    assert lab.feature_index is index
    assert index.sites == tuple(sorted(sites))
    run = lab.run("The capital of France is Paris.", sites=sites)
    # The first document begins its row, as a prompt does.
    features = run.features(2)
    feature = features.top(1)[0]
    values = features.of(feature)[1:]
    record = index.feature((2, "res"), feature)
    at = int(values.argmax())
    (one,) = [e for e in record.top if (e.document, e.position) == (0, at)]
    assert one.value == pytest.approx(float(values.max()), rel=1e-4)
    np.testing.assert_allclose(one.activations, values, atol=float(values.max()) / 250)
    other = open_lab()
    other.feature_index = Index.open(path)
    assert other.feature_index.path == path
    other.use(lab.sae(layer=2).select(range(9)))
    with pytest.raises(ValueError, match="made with another SAE at layer 2 res"):
        other.feature_index = Index.open(path)
    assert tables(path)["sites"][1][1:4] == (5, "att", 1024)


def test_an_index_without_a_path_lives_in_a_temporary_folder(model: Model, suite: Any) -> None:
    index = indexed(model, suite, None, corpus(9))  # pyright: ignore[reportArgumentType]
    path = index.path
    assert path.exists()
    assert index.feature((1, "res"), 1).fires
    index.close()
    del index
    gc.collect()
    assert not path.parent.exists()
