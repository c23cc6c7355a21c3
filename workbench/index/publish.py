"""Write the file that is read: tables made from the state of a pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from workbench.files import replaced_whole
from workbench.index.best import Best
from workbench.index.files import FORMAT, Journal, attach, transaction, write_meta
from workbench.index.identity import KnownSite
from workbench.index.passages import pack
from workbench.index.sample import TokenSample
from workbench.index.state import SiteState
from workbench.tokens import tokens_of

TABLES = """
CREATE TABLE db.sites (
    site UTINYINT, layer USMALLINT, kind VARCHAR, d_sae UINTEGER, sae VARCHAR
);
CREATE TABLE db.vocabulary (id INTEGER, string VARCHAR, special BOOLEAN);
CREATE TABLE db.documents (document UINTEGER, start UBIGINT, ids {id}[]);
CREATE TABLE db.features (
    site UTINYINT, feature UINTEGER, fires UBIGINT, mean FLOAT, deviation FLOAT, maximum FLOAT,
    sampled UINTEGER
);
CREATE TABLE db.histograms (site UTINYINT, feature UINTEGER, bin USMALLINT, count UINTEGER);
CREATE TABLE db.examples (
    site UTINYINT, feature UINTEGER, stratum TINYINT, rank USMALLINT,
    document UINTEGER, position UINTEGER, value FLOAT, activations BLOB
);
CREATE TABLE db.pairs (site UTINYINT, feature UINTEGER, partner UINTEGER, together UINTEGER);
"""
TOP = -1
"""The ``stratum`` of the strongest examples; the others count ranges from 2^-16."""


def publish(
    path: Path,
    journal: Journal,
    sites: Sequence[KnownSite],
    states: Sequence[SiteState],
    sample: TokenSample,
    *,
    pairs: int,
    tokenizer: Any,
    meta: Mapping[str, Any],
) -> None:
    """Write an index and put it in place in one step.

    Args:
        path: Where.
        journal: The pass; its documents are copied.
        sites: The sites, in the order of `states`.
        states: What was found at each site.
        sample: Tokens to count pairs on.
        pairs: Partners of each feature to keep.
        tokenizer: Of transformers, for the strings of the tokens.
        meta: What is known of the whole.
    """
    with replaced_whole(path) as partial:
        partial.unlink(missing_ok=True)  # of a pass that was killed while it wrote this
        with closing(attach(partial, write=True)) as out:
            with transaction(out):
                starts = _texts(out, journal, tokenizer)
                names = [
                    (i, one.site.layer, one.site.kind, one.d_sae, one.name)
                    for i, one in enumerate(sites)
                ]
                out.executemany("INSERT INTO db.sites VALUES (?, ?, ?, ?, ?)", names)
                for number, state in enumerate(states):
                    sampled = _pairs(out, number, state.d_sae, sample, pairs)
                    _features(out, number, state, sampled)
                    _examples(out, number, state.top, 0, starts)
                    _examples(out, number, state.strata, state.shape.all_ranges, starts)
                write_meta(out, {"format": FORMAT, **meta})
            out.execute("CHECKPOINT db")


def _texts(out: duckdb.DuckDBPyConnection, journal: Journal, tokenizer: Any) -> np.ndarray:
    """Copy the documents and the strings of their tokens; returns where each document starts."""
    source = journal.connection
    ids = source.execute("SELECT DISTINCT unnest(ids) AS id FROM db.documents ORDER BY id")
    used = [int(row[0]) for row in ids.fetchall()]
    narrow = "USMALLINT" if max(used, default=0) < 2**16 else "UINTEGER"
    out.execute(TABLES.format(id=narrow))
    tokens = tokens_of(tokenizer, used)
    rows = list(zip(used, tokens.strings, tokens.special, strict=True))
    out.executemany("INSERT INTO db.vocabulary VALUES (?, ?, ?)", rows)
    cursor = source.execute("SELECT document, start, ids FROM db.documents ORDER BY document")
    starts = []
    while len(chunk := cursor.fetch_df_chunk(8)):
        out.register("chunk", chunk)
        out.execute(f"INSERT INTO db.documents SELECT document, start, ids::{narrow}[] FROM chunk")
        out.unregister("chunk")
        starts.append(chunk["start"].to_numpy())
    return np.concatenate(starts) if starts else np.zeros(0, np.int64)


def _features(
    out: duckdb.DuckDBPyConnection, number: int, state: SiteState, sampled: np.ndarray
) -> None:
    """One row a feature, dead ones included."""
    fires, sums = state.fires, state.sums + state.open_sums
    # Where it fires; a feature that never does has 0 of everything.
    often = np.maximum(fires, 1)
    mean = sums[0] / often
    variance = np.maximum(sums[1] / often - mean**2, 0)
    maximum = np.zeros(state.d_sae, np.float32)
    group, entries = state.top.kept()
    first = np.flatnonzero(np.diff(group, prepend=-1))
    maximum[group[first]] = entries["value"][first]
    columns = {
        "site": np.full(state.d_sae, number),
        "feature": np.arange(state.d_sae),
        "fires": fires,
        "mean": mean,
        "deviation": np.sqrt(variance),
        "maximum": maximum,
        "sampled": sampled,
    }
    _insert(out, "features", columns)
    feature, place = np.nonzero(state.histogram)
    counts = state.histogram[feature, place]
    site = np.full(len(feature), number)
    _insert(out, "histograms", {"site": site, "feature": feature, "bin": place, "count": counts})


def _examples(
    out: duckdb.DuckDBPyConnection, number: int, best: Best, strata: int, starts: np.ndarray
) -> None:
    group, entries = best.kept()
    rank = np.arange(len(group)) - np.searchsorted(group, group)
    document = np.searchsorted(starts, entries["where"], "right") - 1
    # Of documents without a token, which start where the next does, the last is the one meant.
    columns = {
        "site": np.full(len(group), number),
        "feature": group // strata if strata else group,
        "stratum": group % strata if strata else np.full(len(group), TOP),
        "rank": rank,
        "document": document,
        "position": entries["where"] - starts[document],
        "value": entries["value"],
        "activations": pack(entries),
    }
    _insert(out, "examples", columns)


def _pairs(
    out: duckdb.DuckDBPyConnection, number: int, d_sae: int, sample: TokenSample, most: int
) -> np.ndarray:
    fires, feature, partner, both = sample.together(number, d_sae, most)
    site = np.full(len(feature), number)
    _insert(out, "pairs", {"site": site, "feature": feature, "partner": partner, "together": both})
    return fires


def _insert(out: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, Any]) -> None:
    if not len(columns["site"]):
        return
    out.register("columns", dict(columns))
    out.execute(f"INSERT INTO db.{table} SELECT * FROM columns")
    out.unregister("columns")
