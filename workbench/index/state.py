"""What a pass over a corpus learns of the features of one site, in memory of a fixed size.

Everything is a function of the set of tokens seen, not of their order, but for the two sums, which
are added up chunk by chunk in the order of the corpus: floating-point addition is not associative.
So parts of a corpus merge to exactly what one pass over the whole would have found, if each part is
one chunk and they are merged in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from workbench.index.best import ENTRY, Best
from workbench.index.corpus import WINDOW, Rows, mix

LOWEST, OCTAVES = -16, 32
"""The histogram covers activations from 2^-16 to 2^16; what lies outside counts to its ends."""
MANTISSA, EXPONENT_BIAS = 23, 127  # of IEEE 754 float32
FAR = 2**40
"""Between two features in a sorted list of places: more tokens than a batch has."""


@dataclass(frozen=True)
class Shape:
    """What is kept of each feature."""

    top: int
    """Strongest passages."""
    bins: int
    """Histogram bins an octave: 2, 4 or 8."""
    stratified: int
    """Sampled passages in each range of activation."""
    ranges: int = 2
    """Ranges of activation an octave: 1 or 2."""

    def __post_init__(self) -> None:
        if self.bins not in (2, 4, 8):
            raise ValueError(f"bins must be 2, 4 or 8 an octave, got {self.bins}")
        if self.ranges not in (1, 2):
            raise ValueError(f"ranges must be 1 or 2 an octave, got {self.ranges}")
        for name in ("top", "stratified"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def all_bins(self) -> int:
        """Histogram bins of a feature."""
        return OCTAVES * self.bins

    @property
    def all_ranges(self) -> int:
        """Ranges of a feature."""
        return OCTAVES * self.ranges


def octave_bins(values: np.ndarray, bins: int) -> np.ndarray:
    """Which of the histogram's bins float32 activations above 0 belong to.

    An octave ``[2^e, 2^(e+1))`` is cut into `bins` equal parts, which is what the leading bits of a
    float32 say: exact, and much cheaper than a logarithm.
    """
    shift = MANTISSA - (bins.bit_length() - 1)
    found = (values.view(np.int32) >> np.int32(shift)).astype(np.int64)
    found -= (EXPONENT_BIAS + LOWEST) * bins
    return np.clip(found, 0, OCTAVES * bins - 1, out=found)


def bin_edges(bins: int) -> np.ndarray:
    """The lower edge of each bin and the upper edge of the last ``(OCTAVES * bins + 1,)``."""
    octave, part = np.divmod(np.arange(OCTAVES * bins + 1), bins)
    return np.ldexp(1 + part / bins, octave + LOWEST)


class SiteState:
    """Counts, sums and examples of every feature of one site."""

    def __init__(self, d_sae: int, shape: Shape) -> None:
        self.d_sae, self.shape = d_sae, shape
        self.histogram = np.zeros((d_sae, shape.all_bins), np.uint32)
        self.sums = np.zeros((2, d_sae))
        """Of the activations and of their squares, over finished chunks."""
        self.open_sums = np.zeros((2, d_sae))
        """The same over the chunk at hand."""
        self.top = Best(d_sae, shape.top)
        self.strata = Best(d_sae * shape.all_ranges, shape.stratified)
        # An odd factor for each feature, so that each samples passages of its own.
        numbers = mix(np.arange(d_sae, dtype=np.uint64) + np.uint64(1))
        self._factor = (numbers >> np.uint64(32)).astype(np.uint32) | np.uint32(1)

    def add(self, rows: Rows, tokens: np.ndarray, features: np.ndarray, values: np.ndarray) -> None:
        """Count the active features of some rows.

        Args:
            rows: The rows.
            tokens: Token of each entry, counting scored ones, ascending ``(active,)`` int64.
            features: Its feature, ascending within a token, int64.
            values: Its activation, float32, above 0.
        """
        bins = octave_bins(values, self.shape.bins)
        self._count(features, values, bins)
        # Larger activations get smaller keys: above 0 the bits of a float32 are in its order.
        key = ~values.view(np.uint32)
        top = self.top.admits(features, key)
        top = top[_strongest_of_each_row(rows.row[tokens[top]], features[top], key[top])]
        group = features * self.shape.all_ranges + bins // (self.shape.bins // self.shape.ranges)
        draw = rows.content[tokens] * self._factor[features]
        strata = self.strata.admits(group, draw)
        if len(top) or len(strata):
            wanted = np.zeros(self.d_sae, bool)
            wanted[features[top]] = wanted[features[strata]] = True
            windows = _Windows(rows, tokens, features, values, wanted)
            self.top.offer(features[top], windows.entries(top, key[top]))
            self.strata.offer(group[strata], windows.entries(strata, draw[strata]))

    def _count(self, features: np.ndarray, values: np.ndarray, bins: np.ndarray) -> None:
        code = features * self.shape.all_bins + bins
        if len(code) * 8 > self.histogram.size:
            counts = np.bincount(code, minlength=self.histogram.size)
            self.histogram += counts.astype(np.uint32).reshape(self.histogram.shape)
        else:
            np.add.at(self.histogram.reshape(-1), code, np.uint32(1))
        wide = values.astype(np.float64)
        self.open_sums[0] += np.bincount(features, wide, self.d_sae)
        self.open_sums[1] += np.bincount(features, wide * wide, self.d_sae)

    def close_chunk(self) -> None:
        """Add the sums of the chunk at hand to those of all."""
        self.sums += self.open_sums
        self.open_sums[:] = 0

    def merge(self, later: SiteState) -> None:
        """Take in the next chunk of the corpus, indexed apart.

        Args:
            later: Of exactly one chunk, closed.

        Raises:
            ValueError: If the two were made with different settings.
        """
        if (later.d_sae, later.shape) != (self.d_sae, self.shape):
            raise ValueError(
                f"{later.d_sae} features with {later.shape} cannot be merged into "
                f"{self.d_sae} with {self.shape}"
            )
        self.histogram += later.histogram
        self.sums += later.sums
        self.top.merge(later.top)
        self.strata.merge(later.strata)

    @property
    def fires(self) -> np.ndarray:
        """``(feature,)`` tokens on which each fires."""
        return self.histogram.sum(1, dtype=np.int64)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, to be stored."""
        return {
            "histogram": self.histogram,
            "sums": self.sums,
            "open_sums": self.open_sums,
            **{f"top/{name}": value for name, value in self.top.arrays().items()},
            **{f"strata/{name}": value for name, value in self.strata.arrays().items()},
        }

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], d_sae: int, shape: Shape) -> SiteState:
        """What `arrays` gave."""
        state = cls(d_sae, shape)
        state.histogram, state.sums = arrays["histogram"].copy(), arrays["sums"].copy()
        state.open_sums = arrays["open_sums"].copy()
        for name in ("top", "strata"):
            best: Best = getattr(state, name)
            group, entries = arrays[f"{name}/group"], arrays[f"{name}/entries"]
            setattr(
                state,
                name,
                Best.of({"group": group, "entries": entries}, len(best.slot), best.size),
            )
        return state


def _strongest_of_each_row(row: np.ndarray, feature: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Places of the entry with the smallest key for each feature and row; of equals the first."""
    # One number to sort by instead of three: rows of a batch x features are far below 2^31.
    group = (row * (int(feature.max(initial=0)) + 1) + feature).astype(np.uint64)
    order = np.argsort((group << np.uint64(32)) | key, kind="stable")
    return np.sort(order[np.flatnonzero(np.diff(group[order].astype(np.int64), prepend=-1))])


class _Windows:
    """Finds the activations around an entry, among all active entries of the rows."""

    def __init__(
        self,
        rows: Rows,
        tokens: np.ndarray,
        features: np.ndarray,
        values: np.ndarray,
        wanted: np.ndarray,
    ) -> None:
        """Sort the entries by feature.

        Args:
            rows: The rows.
            tokens: Token of each entry ``(active,)``.
            features: Its feature.
            values: Its activation.
            wanted: Features that will be asked for ``(d_sae,)``.
        """
        self.rows, self.tokens, self.values = rows, tokens, values
        of_wanted = np.flatnonzero(wanted[features])
        order = of_wanted[np.argsort(features[of_wanted], kind="stable")]
        self.sorted_values = values[order]
        self.line = features[order] * FAR + rows.place[tokens[order]]
        self.place = np.zeros(len(features), np.int64)
        self.place[order] = np.arange(len(order))

    def entries(self, chosen: np.ndarray, key: np.ndarray) -> np.ndarray:
        """The entries with numbers `chosen`, as `ENTRY`."""
        tokens = self.tokens[chosen]
        found = np.zeros(len(chosen), ENTRY)
        found["key"], found["value"] = key, self.values[chosen]
        found["content"], found["where"] = self.rows.content[tokens], self.rows.where[tokens]
        found["before"], found["after"] = self.rows.before[tokens], self.rows.after[tokens]
        around = self._around(self.place[chosen])
        found["largest"] = around.max(1, initial=0)
        found["window"] = quantised(around, found["largest"])
        return found

    def _around(self, at: np.ndarray) -> np.ndarray:
        """Activations ``(entry, window)`` of the same feature around entries of the sorted list."""
        out = np.zeros((len(at), 2 * WINDOW + 1), np.float32)
        out[:, WINDOW] = self.sorted_values[at]
        for direction in (1, -1):
            alive = np.arange(len(at))
            for step in range(1, WINDOW + 1):
                near = at[alive] + direction * step
                inside = (near >= 0) & (near < len(self.line))
                alive, near = alive[inside], near[inside]
                apart = self.line[near] - self.line[at[alive]]
                inside = np.abs(apart) <= WINDOW
                alive, near, apart = alive[inside], near[inside], apart[inside]
                if not len(alive):
                    break
                out[alive, WINDOW + apart] = self.sorted_values[near]
        return out


def quantised(values: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Activations in 255ths of the passage's largest; what fires at all is at least 1."""
    parts = np.rint(values * (255 / largest[:, None])).astype(np.uint8)
    return np.maximum(parts, values > 0)
