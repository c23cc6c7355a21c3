r"""Find features: by label, by what they fire on, by what they write, by how often they fire.

    lab.search("capital cities")                                # words of labels
    lab.search("seats of government", by="meaning", encoder="all-MiniLM-L6-v2")  # a local folder
    lab.search("Paris", by="example")                           # where their passages peak
    lab.search(r"\d+ km", by="example", regex=True)
    lab.search("Paris", by="output")                            # the token that they make likelier
    lab.search(by="decoder", like=(5, 231))                     # those that write the same
    lab.search(by="fires", positive=["Guten Tag"], negative=["Good day"])
    lab.search(by="density", density=(0.001, 0.01))

Every search gives each feature of the index a score and is ranked by it; the filters are the same
for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from workbench.index.reading import Index
from workbench.index.records import Sparkline
from workbench.index.scores import (
    Scores,
    by_decoder,
    by_density,
    by_example,
    by_fires,
    by_label,
    by_meaning,
    by_output,
)
from workbench.index.searchable import Labels, Searchable
from workbench.models import Model
from workbench.names import in_words
from workbench.sae.suite import Suite
from workbench.sites import Kind, Site, check_kind
from workbench.tokens import Prompt, Tokens

By = Literal["label", "meaning", "example", "output", "decoder", "fires", "density"]
COLUMNS = ["site", "layer", "kind", "feature", "label", "score", "density", "histogram", "why"]
OPTIONS: dict[str, set[str]] = {
    "label": {"query"},
    "meaning": {"query", "encoder"},
    "example": {"query", "regex", "near"},
    "output": {"query"},
    "decoder": {"like", "kind"},
    "fires": {"positive", "negative"},
    "density": set(),
}
"""What each search takes beside the filters."""


def labels_of(suite: Suite) -> dict[Site, dict[int, str]]:
    """The labels that a suite brings, those of what a feature writes included."""
    writes = [(Site(one["layer"]), one["feature"]) for one in suite.steering.values()]
    found: dict[Site, dict[int, str]] = {}
    for site, index in [*((one.site, one.index) for one in suite.find("")), *writes]:
        found.setdefault(site, {})[index] = suite.label(site, index)
    return found


class Search:
    """Searches over the features of an index.

    What a search needs is read when it is first asked for, and kept; see
    `workbench.index.searchable`.
    """

    def __init__(
        self,
        index: Index,
        *,
        labels: Labels | None = None,
        model: Model | None = None,
        suite: Suite | None = None,
    ) -> None:
        """Get ready.

        Args:
            index: The index; alone it is enough for examples and densities.
            labels: Of each site, labels by feature.
            model: The model, for ``"output"``, ``"decoder"`` and ``"fires"``.
            suite: Its SAEs, for the same.
        """
        self.index = index
        self._over = Searchable(index, labels or {}, model, suite)

    def find(
        self,
        query: str | None = None,
        *,
        by: By = "label",
        regex: bool = False,
        near: int = 0,
        encoder: str | Path | None = None,
        like: tuple[int, int] | None = None,
        kind: Kind = "res",
        positive: Sequence[Prompt | Tokens] = (),
        negative: Sequence[Prompt | Tokens] = (),
        layers: Sequence[int] | None = None,
        kinds: Sequence[Kind] | None = None,
        density: tuple[float, float] | None = None,
        labelled: bool = False,
        k: int = 10,
    ) -> pd.DataFrame:
        r"""The features that answer best.

        Args:
            query: Words of a label, a text in examples, or an output token.
            by: What the score is.
                ``"label"``: words of labels, by BM25; words that begin with one of the query count
                too.
                ``"meaning"``: cosine of what the label and `query` mean to a sentence encoder.
                ``"example"``: F1 of firing as a guess of where `query` stands, from the share of a
                feature's passages that peak on it (``hits / (passages + 1)``, so that one of one is
                no certainty), how often it fires and how often `query` occurs.
                ``"output"``: what a step of length 1 along what the feature writes adds to the
                logit of `query`, above the mean of all tokens: straight through the final norm's
                gain and the unembedding, the norm's division left out.
                ``"decoder"``: cosine of what it writes into the residual stream with what `like`
                writes.
                ``"fires"``: the mean of its peak in the `positive` texts less that in the
                `negative` ones, in shares of its maximum in the index, over the standard deviation
                of all of them plus 0.02.
                ``"density"``: share of tokens on which it fires.
            regex: For examples: `query` is a regular expression, as of Python's `re`.
            encoder: For meanings: folder of a sentence encoder on this machine; see
                `workbench.index.meaning`.
            near: For examples: how many tokens before or after a match still count.
            like: For decoders: ``(layer, index)``.
            kind: Kind of site of `like`.
            positive: Texts that it fires on.
            negative: Texts that it does not fire on.
            layers: Only these layers.
            kinds: Only these kinds of sites.
            density: Only features that fire on a share of tokens between these two, both included.
            labelled: Only features that have a label.
            k: Most features to give.

        Returns:
            Best first: ``site, layer, kind, feature, label, score, density, histogram`` (a
            `Sparkline` of the activations, from faint to strong) and ``why``.

        Raises:
            ValueError: If something that the search needs is missing, does not go with it, or is
                out of range.
        """
        if by not in get_args(By):
            raise ValueError(f"by must be one of {', '.join(get_args(By))}, got {by!r}")
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        given = {
            "query": query is not None,
            "regex": regex,
            "near": near != 0,
            "encoder": encoder is not None,
            "like": like is not None,
            "kind": kind != "res",
            "positive": bool(positive),
            "negative": bool(negative),
        }
        surplus = sorted({name for name, there in given.items() if there} - OPTIONS[by])
        if surplus:
            fits = [other for other, takes in OPTIONS.items() if set(surplus) <= takes]
            raise ValueError(
                f"by={by!r} takes no {', '.join(surplus)}"
                + (f"; by={fits[0]!r} does" if fits else "")
            )
        admitted = self._admitted(layers, kinds, density)
        if labelled:
            admitted &= self._over.have_labels
        over = self._over
        scores = {
            "label": lambda: by_label(over, _asked(query, by)),
            "meaning": lambda: by_meaning(over, _asked(query, by), encoder),
            "example": lambda: by_example(over, _asked(query, by), regex=regex, near=near),
            "output": lambda: by_output(over, _asked(query, by), admitted),
            "decoder": lambda: by_decoder(over, like, check_kind(kind), admitted),
            "fires": lambda: by_fires(over, positive, negative, admitted),
            "density": lambda: by_density(over),
        }[by]()
        return self._frame(scores, self._best(scores.values, admitted, k))

    def _admitted(
        self,
        layers: Sequence[int] | None,
        kinds: Sequence[Kind] | None,
        density: tuple[float, float] | None,
    ) -> np.ndarray:
        """``(feature,)`` bool."""
        wanted = {kinds} if isinstance(kinds, str) else kinds
        sites = [
            site
            for site in self._over.sites
            if (layers is None or site.layer in layers) and (wanted is None or site.kind in wanted)
        ]
        if not sites:
            asked = {"layers": layers, "kinds": None if wanted is None else list(wanted)}
            said = " and ".join(f"{name} {one}" for name, one in asked.items() if one is not None)
            raise ValueError(
                f"the index has no site with {said}: it has {in_words(self.index.sites)}"
            )
        chosen = [site in sites for site in self._over.sites]
        admitted = np.repeat(chosen, np.diff(self._over.bases))
        if density is not None:
            if isinstance(density, str) or not isinstance(density, Sequence) or len(density) != 2:
                raise TypeError(
                    f"density must be (lowest, highest), such as (0.001, 0.1), got {density!r}"
                )
            low, high = density
            if not 0 <= low <= high:
                raise ValueError(f"density must be (lowest, highest), got {density}")
            admitted &= (self._over.densities >= low) & (self._over.densities <= high)
        return admitted

    # The answer.

    def _best(self, values: np.ndarray, admitted: np.ndarray, k: int) -> np.ndarray:
        """Numbers of the best features; of equals the first."""
        refs = np.flatnonzero(admitted & ~np.isnan(values))
        if len(refs) > k:
            least = np.partition(values[refs], -k)[-k]
            refs = refs[values[refs] >= least]
        return refs[np.argsort(-values[refs], kind="stable")[:k]]

    def _frame(self, scores: Scores, refs: np.ndarray) -> pd.DataFrame:
        rows = []
        for ref in refs.tolist():
            site, index = self._over.where(ref)
            rows.append(
                (
                    site,
                    site.layer,
                    site.kind,
                    index,
                    self._over.label(ref),
                    float(scores.values[ref]),
                    float(self._over.densities[ref]),
                    self._histogram(site, index),
                    scores.why(ref),
                )
            )
        return pd.DataFrame(rows, columns=COLUMNS)

    def _histogram(self, site: Site, index: int) -> Sparkline:
        rows = self.index.columns(
            "SELECT bin::INTEGER AS bin, count FROM db.histograms "
            f"WHERE site = {self._over.sites.index(site)} AND feature = {index}"
        )
        if not len(rows["bin"]):
            return Sparkline(())
        counts = np.bincount(rows["bin"] - rows["bin"].min(), rows["count"])
        return Sparkline(tuple(counts.astype(int).tolist()))


def _asked(query: str | None, by: By) -> str:
    if query is not None and not isinstance(query, str):
        raise TypeError(f"query is a text, got {query!r}")
    if not query:
        raise ValueError(f"by={by!r} needs a query: lab.search('...', by={by!r})")
    return query
