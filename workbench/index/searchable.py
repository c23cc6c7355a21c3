"""What searches read of an index: read when first asked for, and kept.

Features have one number over all sites, in the order of the index's tables, so that a score of
every feature is one array.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from workbench.index.by_model import Decoders
from workbench.index.matches import Corpus, Peaks
from workbench.index.reading import Index
from workbench.index.words import Words
from workbench.models import Model
from workbench.sae.suite import Suite
from workbench.sites import Site

Labels = Mapping[Site, Mapping[int, str]]


class Searchable:
    """The tables, labels, text and decoders behind the searches over an index."""

    def __init__(
        self, index: Index, labels: Labels, model: Model | None, suite: Suite | None
    ) -> None:
        self.index, self.labels = index, labels
        self._model, self._suite = model, suite
        self.sites = list(index.widths)
        widths = np.array(list(index.widths.values()), np.int64)
        self.bases = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
        """``(site + 1,)`` number of each site's first feature, and of all features."""
        self.count = int(self.bases[-1])

    # Numbers.

    def base(self, site: Site) -> int:
        """Number of a site's first feature."""
        return int(self.bases[self.sites.index(site)])

    def part(self, site: Site) -> slice:
        """The features of a site."""
        first = self.base(site)
        return slice(first, first + self.index.widths[site])

    def where(self, ref: int) -> tuple[Site, int]:
        """Site and index of a feature."""
        number = int(np.searchsorted(self.bases, ref, "right")) - 1
        return self.sites[number], ref - int(self.bases[number])

    def label(self, ref: int) -> str:
        """Its label; empty if it has none."""
        site, index = self.where(ref)
        return self.labels.get(site, {}).get(index, "")

    # Of every feature.

    @cached_property
    def table(self) -> dict[str, np.ndarray]:
        """``fires`` and ``maximum`` of every feature."""
        rows = self.index.columns("SELECT site, feature, fires, maximum FROM db.features")
        ref = self.bases[rows["site"]] + rows["feature"]
        out = {name: np.zeros(self.count) for name in ("fires", "maximum")}
        for name, column in out.items():
            column[ref] = rows[name]
        return out

    @cached_property
    def densities(self) -> np.ndarray:
        """``(feature,)`` share of the tokens on which each fires."""
        return self.table["fires"] / max(self.index.tokens, 1)

    @cached_property
    def labelled(self) -> tuple[list[int], list[str]]:
        """Numbers and labels of the features that have one."""
        refs, texts = [], []
        for site, labels in self.labels.items():
            if site in self.index.widths:
                base, width = self.base(site), self.index.widths[site]
                # Labels that were imported may name features that no such SAE has.
                there = {i: label for i, label in labels.items() if label and 0 <= i < width}
                refs += [base + index for index in there]
                texts += there.values()
        return refs, texts

    @cached_property
    def have_labels(self) -> np.ndarray:
        """``(feature,)`` bool."""
        out = np.zeros(self.count, bool)
        out[self.labelled[0]] = True
        return out

    # What is searched.

    @cached_property
    def words(self) -> Words:
        """The words of the labels."""
        return Words(*self.labelled)

    @cached_property
    def corpus(self) -> Corpus:
        """The text that the index was made of."""
        return Corpus(self.index)

    @cached_property
    def peaks(self) -> Peaks:
        """The tokens that passages peak on."""
        return Peaks(self.index, self.corpus, self.bases, self.count)

    @cached_property
    def decoders(self) -> Decoders:
        """What the features write."""
        model, suite = self.with_model()
        return Decoders(model.module, suite)

    def with_model(self) -> tuple[Model, Suite]:
        """The model and its SAEs.

        Raises:
            ValueError: If the search was made without them.
        """
        if self._model is None or self._suite is None:
            raise ValueError("this search needs a model and its SAEs: use lab.search")
        return self._model, self._suite
