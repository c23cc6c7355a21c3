"""An index on disk, opened for reading: any number of readers, no model needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from workbench.files import readable
from workbench.index.corpus import WINDOW
from workbench.index.files import FORMAT, NotAnIndexError, attach, read_meta
from workbench.index.identity import of_sae
from workbench.index.passages import unpack
from workbench.index.publish import TOP
from workbench.index.records import Example, FeatureRecord
from workbench.index.state import bin_edges
from workbench.sae import SAE
from workbench.sites import Kind, Site, check_kind

FRAME = ["feature", "fires", "density", "mean", "deviation", "maximum", "mean_over_all"]


class Index:
    """Densities, histograms, examples and co-firing features of every feature of some sites."""

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection, meta: dict) -> None:
        self.path, self.meta = path, meta
        self._connection = connection
        rows = self._rows("SELECT site, layer, kind, d_sae FROM db.sites ORDER BY site")
        self._sites = {Site(layer, check_kind(kind)): (n, d) for n, layer, kind, d in rows}

    @classmethod
    def open(cls, path: str | Path) -> Index:
        """Open an index.

        Raises:
            OSError: If there is no file, or it is a folder.
            NotAnIndexError: If it is something else, or damaged; it is left as it is.
        """
        try:
            path = readable(path, "an index")
        except FileNotFoundError:
            building = Path(f"{path}.building")
            hint = f"; {building} is of a pass that did not end" if building.exists() else ""
            raise FileNotFoundError(
                f"there is no index at {path}{hint}: lab.index makes one"
            ) from None
        connection = attach(path)
        try:
            return cls(path, connection, read_meta(connection, path, FORMAT))
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        features = sum(d for _, d in self._sites.values())
        state = "" if self.finished else "; stopped: the same call of lab.index goes on"
        return (
            f"<Index of {self.meta['model']}: {features:,} features at {len(self._sites)} sites "
            f"over {self.tokens:,} tokens{state}>"
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Fingerprints of the model and the SAEs, and the settings it was made with."""
        return self.meta["identity"]

    @property
    def finished(self) -> bool:
        """Whether the whole corpus was read."""
        return self.meta["finished"]

    @property
    def tokens(self) -> int:
        """Tokens that were looked at."""
        return self.meta["tokens"]

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites, in execution order."""
        return tuple(sorted(self._sites))

    @property
    def widths(self) -> dict[Site, int]:
        """Features of each site, in the order of the tables' column ``site``."""
        return {site: d_sae for site, (_, d_sae) in self._sites.items()}

    def check_saes(self, saes: Mapping[Site, SAE]) -> None:
        """Refuse SAEs that the index was not made with.

        Raises:
            ValueError: Names the site.
        """
        for site, sae in saes.items():
            if self.identity["saes"].get(f"{site.kind}/{site.layer}") != of_sae(sae):
                raise ValueError(
                    f"{self.path} was made with another SAE at {site} than {sae.name}: make an "
                    "index of this one with lab.index(texts)"
                )

    def densities(self, site: Site | tuple[int, Kind]) -> np.ndarray:
        """Share of the tokens on which each feature of a site fires ``(d_sae,)``."""
        return self.frame(site)["density"].to_numpy()

    def frame(self, site: Site | tuple[int, Kind]) -> pd.DataFrame:
        """Every feature of a site.

        Returns:
            Columns ``feature, fires, density, mean, deviation, maximum, mean_over_all``; mean and
            deviation where the feature fires, 0 for those that never do.
        """
        number, _ = self._number(site)
        frame = self._query(
            "SELECT feature, fires, mean, deviation, maximum FROM db.features "
            "WHERE site = ? ORDER BY feature",
            [number],
        )
        tokens = max(self.tokens, 1)
        frame["density"] = frame["fires"] / tokens
        frame["mean_over_all"] = frame["mean"].astype(float) * frame["fires"] / tokens
        return frame.loc[:, FRAME]

    def feature(self, site: Site | tuple[int, Kind], index: int) -> FeatureRecord:
        """All that is known of one feature.

        Raises:
            ValueError: If the index has no such site or feature.
        """
        number, d_sae = self._number(site)
        if not 0 <= index < d_sae:
            raise ValueError(f"feature {index} does not exist at {site}: 0 to {d_sae - 1}")
        where = [number, index]
        (row,) = self._rows(
            "SELECT fires, mean, deviation, maximum, sampled FROM db.features "
            "WHERE site = ? AND feature = ?",
            where,
        )
        fires, mean, deviation, maximum, sampled = row
        edges, counts = self._histogram(where)
        examples = self._examples(where, edges, counts)
        return FeatureRecord(
            site=site if isinstance(site, Site) else Site(*site),
            index=index,
            tokens=self.tokens,
            fires=fires,
            mean=mean,
            deviation=deviation,
            maximum=maximum,
            edges=edges,
            counts=counts,
            top=tuple(one for stratum, one in examples if stratum == TOP),
            stratified=tuple(
                sorted(
                    (one for stratum, one in examples if stratum != TOP),
                    key=lambda one: (-one.value, one.document, one.position),
                )
            ),
            cofiring=self._cofiring(where, sampled),
        )

    def _histogram(self, where: list[int]) -> tuple[np.ndarray, np.ndarray]:
        rows = self._rows(
            "SELECT bin, count FROM db.histograms WHERE site = ? AND feature = ? ORDER BY bin",
            where,
        )
        if not rows:
            return self._edges[:1], np.zeros(0, np.int64)
        first, last = rows[0][0], rows[-1][0]
        counts = np.zeros(last - first + 1, np.int64)
        for place, count in rows:
            counts[place - first] = count
        return self._edges[first : last + 2], counts

    def _examples(
        self, where: list[int], edges: np.ndarray, counts: np.ndarray
    ) -> list[tuple[int, Example]]:
        rows = self._rows(
            f"""
            SELECT e.stratum, e.document, e.position, e.value, e.activations,
                   d.ids[greatest(e.place - {WINDOW}, 0) + 1 : e.place + {WINDOW} + 1]
            FROM (SELECT *, position::BIGINT AS place FROM db.examples
                  WHERE site = ? AND feature = ?) e
            JOIN db.documents d USING (document)
            ORDER BY e.stratum, e.rank
            """,
            where,
        )
        examples = []
        for stratum, document, position, value, packed, ids in rows:
            before, after, activations = unpack(packed, value)
            at = min(position, WINDOW)
            one = Example(
                document=document,
                position=position,
                value=value,
                at=before,
                tokens=tuple(self.strings[i] for i in ids[at - before : at + after + 1]),
                activations=tuple(activations),
                below=_below(value, edges, counts),
            )
            examples.append((stratum, one))
        return examples

    def _cofiring(self, where: list[int], sampled: int) -> pd.DataFrame:
        found = self._query(
            """
            SELECT p.partner AS feature, p.together, f.sampled AS partner_fires
            FROM db.pairs p JOIN db.features f ON f.site = p.site AND f.feature = p.partner
            WHERE p.site = ? AND p.feature = ?
            """,
            where,
        )
        tokens = self.meta["sampled"]
        found["of"] = sampled
        found["expected"] = sampled * found["partner_fires"] / max(tokens, 1)
        found["lift"] = found["together"] / found["expected"]
        said = found["together"] * np.log(found["lift"])
        found = found.loc[np.lexsort((found["feature"], -said))]
        return found[["feature", "together", "of", "expected", "lift"]].reset_index(drop=True)

    def text(self, document: int) -> tuple[str, ...]:
        """The tokens of a document.

        Raises:
            ValueError: If there is no such document.
        """
        return tuple(self.strings[i] for i in self.ids(document).tolist())

    def ids(self, document: int) -> np.ndarray:
        """The token ids of a document ``(token,)``.

        Raises:
            ValueError: If there is no such document.
        """
        rows = self._rows("SELECT ids FROM db.documents WHERE document = ?", [document])
        if not rows:
            raise ValueError(
                f"document {document} does not exist: 0 to {self.meta['documents'] - 1}"
            )
        return np.array(rows[0][0], np.int64)

    def columns(self, query: str, values: Sequence[Any] = ()) -> dict[str, np.ndarray]:
        """The answer to an SQL query, an array a column.

        The tables are those of `workbench.index.publish`, in the schema ``db``.

        Raises:
            NotAnIndexError: If the file is damaged, or the query is none.
        """
        with self._asked(query, values) as cursor:
            return {name: np.asarray(x) for name, x in cursor.fetchnumpy().items()}

    @cached_property
    def strings(self) -> dict[int, str]:
        """What each token id of the corpus says."""
        return dict(self._rows("SELECT id, string FROM db.vocabulary"))

    @cached_property
    def _edges(self) -> np.ndarray:
        return bin_edges(self.meta["bins"])

    def _number(self, site: Site | tuple[int, Kind]) -> tuple[int, int]:
        site = site if isinstance(site, Site) else Site(*site)
        if site not in self._sites:
            has = ", ".join(map(str, self.sites))
            raise ValueError(f"{site} is not in this index; it has {has}")
        return self._sites[site]

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple]:
        with self._asked(query, values) as cursor:
            return cursor.fetchall()

    def _query(self, query: str, values: Sequence[Any] = ()) -> pd.DataFrame:
        with self._asked(query, values) as cursor:
            return cursor.df()

    @contextmanager
    def _asked(self, query: str, values: Sequence[Any]) -> Iterator[duckdb.DuckDBPyConnection]:
        """The answer to a query, in a cursor of its own: panels ask from several threads."""
        try:
            with self._connection.cursor() as cursor:
                yield cursor.execute(query, list(values))
        except duckdb.Error as error:
            raise NotAnIndexError(
                f"{self.path} cannot be read: it is damaged, or was closed ({str(error)[:200]})"
            ) from error


def _below(value: float, edges: np.ndarray, counts: np.ndarray) -> float:
    """Share of the histogram below `value`, as if each bin were filled evenly."""
    if not counts.sum():
        return 0.0
    cumulated = np.concatenate([[0], np.cumsum(counts)])
    return float(np.interp(value, edges, cumulated) / cumulated[-1])
