"""Which features fire together, counted on a random sample of tokens.

Counting every pair on every token costs as much as the encoder itself, and a table of all pairs of
16k features is a gigabyte a site. So the active features of a fixed number of tokens are kept, and
pairs are counted among them at the end: exact for a corpus that is no larger than the sample, and
for a larger one an unbiased estimate from the tokens whose hash is smallest, which are the same
whatever order the corpus was read in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from workbench.index.best import ranks
from workbench.index.corpus import mix

SLACK = 1.25
"""How many times its size the sample may grow before it is cut back."""
AT_ONCE = 2**22
"""Pairs that are listed at once while they are counted."""


class TokenSample:
    """The active features of up to `size` tokens, at each of some sites."""

    def __init__(self, size: int, d_saes: Sequence[int]) -> None:
        self.size = size
        self.limit = np.uint64(2**64 - 1)
        self.hashes = [np.zeros(0, np.uint64)]
        self.dtypes = [np.uint16 if d <= 2**16 else np.uint32 for d in d_saes]
        self.counts = [[np.zeros(0, np.uint16 if d < 2**16 else np.uint32)] for d in d_saes]
        self.features = [[np.zeros(0, dtype)] for dtype in self.dtypes]

    def begin(self, where: np.ndarray) -> np.ndarray:
        """Choose among the tokens ``(token,)`` of a batch; `add` follows for each site.

        Returns:
            The number of each in the batch's part of the sample, or -1.
        """
        hashes = mix(where.astype(np.uint64))
        chosen = hashes <= self.limit
        self.hashes.append(hashes[chosen])
        return np.where(chosen, np.cumsum(chosen) - 1, -1)

    def add(self, site: int, number: np.ndarray, tokens: np.ndarray, features: np.ndarray) -> None:
        """Keep the active features ``(active,)`` of the chosen tokens at one site.

        Args:
            site: Number of the site.
            number: What `begin` gave.
            tokens: Token of each entry, ascending.
            features: Its feature.
        """
        size = len(self.hashes[-1])
        if not size:
            return
        mine = number[tokens]
        kept = mine >= 0
        counts = np.bincount(mine[kept], minlength=size)
        self.counts[site].append(counts.astype(self.counts[site][0].dtype))
        self.features[site].append(features[kept].astype(self.dtypes[site]))

    def end(self) -> None:
        """Cut the sample back if it has become too large."""
        if sum(map(len, self.hashes)) > SLACK * self.size:
            self.cut()

    def cut(self) -> None:
        """Keep the tokens with the smallest hashes, one array for each list of them."""
        hashes = np.concatenate(self.hashes)
        kept = np.ones(len(hashes), bool)
        if len(hashes) > self.size:
            self.limit = np.partition(hashes, self.size - 1)[self.size - 1]
            kept = hashes <= self.limit
        self.hashes = [hashes[kept]]
        for site, (counts, features) in enumerate(zip(self.counts, self.features, strict=True)):
            count, feature = np.concatenate(counts), np.concatenate(features)
            self.counts[site] = [count[kept]]
            self.features[site] = [feature[np.repeat(kept, count)]]

    def merge(self, other: TokenSample) -> None:
        """Take in the sample of another part of the corpus."""
        self.hashes += other.hashes
        for site in range(len(self.counts)):
            self.counts[site] += other.counts[site]
            self.features[site] += other.features[site]
        self.cut()

    @property
    def tokens(self) -> int:
        """Tokens in the sample."""
        return sum(map(len, self.hashes))

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, to be stored."""
        self.cut()
        found = {"hashes": self.hashes[0], "limit": np.array([self.limit])}
        for site in range(len(self.counts)):
            found[f"{site}/counts"] = self.counts[site][0]
            found[f"{site}/features"] = self.features[site][0]
        return found

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], size: int, d_saes: Sequence[int]) -> TokenSample:
        """What `arrays` gave."""
        sample = cls(size, d_saes)
        sample.hashes, sample.limit = [arrays["hashes"]], arrays["limit"][0]
        sample.counts = [[arrays[f"{i}/counts"]] for i in range(len(d_saes))]
        sample.features = [[arrays[f"{i}/features"]] for i in range(len(d_saes))]
        return sample

    def together(
        self, site: int, d_sae: int, most: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The features that fire most notably beside each feature of a site.

        Args:
            site: Number of the site.
            d_sae: Its features.
            most: Partners of each to give.

        Returns:
            Tokens of the sample on which each feature fires ``(d_sae,)``; then, of each pair,
            feature, partner and tokens on which both fire ``(pair,)``, most notable partner first.
        """
        self.cut()
        features = self.features[site][0].astype(np.int64)
        counts = self.counts[site][0].astype(np.int64)
        fires = np.bincount(features, minlength=d_sae)
        order = np.argsort(features, kind="stable")
        token = np.repeat(np.arange(len(counts)), counts)[order]
        first = np.cumsum(counts) - counts
        # How many partners are listed up to each entry, so that blocks of features fit.
        listed = np.concatenate([[0], np.cumsum(counts[token])])
        ends = np.concatenate([[0], np.cumsum(fires)])
        parts, lo = [], 0
        while lo < d_sae:
            room = listed[ends[lo]] + AT_ONCE
            hi = max(lo + 1, int(np.searchsorted(listed[ends], room, "right")) - 1)
            hi = min(hi, lo + max(1, AT_ONCE // d_sae))
            mine = token[ends[lo] : ends[hi]]
            each = counts[mine]
            partner = features[spans(first[mine], each)]
            own = np.repeat(np.repeat(np.arange(lo, hi), fires[lo:hi]), each)
            table = np.bincount((own - lo) * d_sae + partner, minlength=(hi - lo) * d_sae)
            table = table.reshape(hi - lo, d_sae)
            table[np.arange(hi - lo), np.arange(lo, hi)] = 0
            parts.append(_most_notable(table, lo, fires, len(counts), most))
            lo = hi
        feature, partner, both = (np.concatenate(column) for column in zip(*parts, strict=True))
        return fires, feature, partner, both


def spans(first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The numbers ``first[i], first[i] + 1, ...``, ``length[i]`` of them, for each i."""
    begin = np.cumsum(length) - length
    return np.arange(length.sum()) + np.repeat(first - begin, length)


def _most_notable(
    table: np.ndarray, lo: int, fires: np.ndarray, tokens: int, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each feature the pairs that say most, from counts ``(feature from lo on, partner)``.

    By count x log(lift), the share of the pair in the mutual information of the two features:
    neither a rare pair nor a partner that fires everywhere comes out on top.
    """
    own, partner = np.nonzero(table)
    both = table[own, partner]
    said = both * np.log(both * tokens / (fires[own + lo] * fires[partner]))
    more = said > 0
    own, partner, both, said = own[more], partner[more], both[more], said[more]
    order = np.lexsort((partner, -said, own))
    own, partner, both = own[order], partner[order], both[order]
    kept = ranks(own) < most
    return own[kept] + lo, partner[kept], both[kept]
