"""What is known of features: labels, dashboards, an index of a corpus, searches."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from workbench.index import Index, Shape, build
from workbench.index.corpus import Texts
from workbench.index.search import By, Search, labels_of
from workbench.labels import Autolabel, Label
from workbench.labels.endpoint import Writer
from workbench.labels.job import JobMethod, autolabel
from workbench.labels.scoring import Measure
from workbench.labels.shown import label_of
from workbench.names import check_name, nearest_first
from workbench.sites import Kind, Site, check_kind, feature_at

if TYPE_CHECKING:
    from workbench.lab.facade import Lab


from workbench.lab.core import Core


class Finding(Core):
    """Looks features up."""

    def find(self, label: str) -> pd.DataFrame:
        """Features whose label contains a text, surest first.

        Returns:
            Columns ``layer, kind, feature, label, score``.
        """
        rows = [
            (f.site.layer, f.site.kind, f.index, f.label, f.score)
            for f in self.suite.find(check_name("label", label))
        ]
        return pd.DataFrame(rows, columns=["layer", "kind", "feature", "label", "score"])

    def feature(self, label: str, kind: Kind = "res") -> tuple[int, int]:
        """``(layer, index)`` of the surest feature with exactly this label.

        Raises:
            ValueError: If there is none; names labels that are near.
        """
        check_kind(kind)
        check_name("label", label)
        found = self.suite.find("")
        for one in found:
            if one.label == label and one.site.kind == kind:
                return one.site.layer, one.index
        known = nearest_first(label, [f.label for f in found if f.site.kind == kind])
        raise ValueError(
            f"no feature of kind {kind!r} is labelled {label!r}; known, nearest first: {known}"
        )

    def dashboard(self, feature: tuple[int, int], kind: Kind = "res", **options: Any) -> Any:
        """All that is known of a feature, and a text to try it on; `workbench.panels.Dashboard`."""
        from workbench.panels import Dashboard

        return Dashboard(cast("Lab", self), feature, kind, **options)

    def evolution(
        self,
        feature: tuple[int, int] | tuple[int, int, Kind] | Sequence[Any] | None = None,
        kind: Kind = "res",
        *,
        text: str | None = None,
        **options: Any,
    ) -> Any:
        """Features through the layers, on a text or where the first is strongest in the index.

        See `workbench.panels.Evolution.of_lab`.
        """
        from workbench.panels import Evolution

        return Evolution.of_lab(cast("Lab", self), feature, kind, text=text, **options)

    def index(
        self,
        texts: Texts,
        *,
        path: str | Path | None = None,
        sites: Sequence[Site] | None = None,
        context: int = 128,
        batch: int | None = None,
        memory: str | int | None = None,
        top: int = 20,
        bins: int = 4,
        stratified: int = 2,
        progress: bool = True,
        stop: threading.Event | None = None,
        ray: int | None = None,
    ) -> Index:
        """What a corpus says of every feature: density, histogram, examples, company.

        One pass; see `workbench.index`. Stopped or killed, the same call goes on where it was.

        Args:
            texts: Path of a text file, or an iterable of texts, `Path`s or rows with ``"text"``,
                such as a Hugging Face dataset.
            path: File to write; a temporary one if left out.
            sites: Where; every site with an SAE if left out.
            context: Tokens of a row.
            batch: Rows at once; as many as fit, up to 4,096 tokens, if left out.
            memory: Most that the pass may take beside model and SAEs, such as ``"4GB"``.
            top: Strongest passages to keep of each feature.
            bins: Histogram bins an octave of activation: 2, 4 or 8.
            stratified: Passages to keep of each half octave in which a feature fires.
            progress: Whether to show a bar.
            stop: Set it, or interrupt, to stop after the batch at hand.
            ray: Count on so many workers of a Ray cluster (``pip install 'sae-workbench[ray]'``),
                with the same result: the one that Ray is connected to, that ``RAY_ADDRESS`` names,
                or this machine.

        Raises:
            ValueError: If the file holds something else, or the job does not fit.
        """
        self._index = build(
            self._model,
            self.suite,
            texts,
            self.suite.sites if sites is None else sites,
            path=path,
            shape=Shape(top=top, bins=bins, stratified=stratified),
            context=context,
            batch=batch,
            memory=memory,
            progress=progress,
            stop=stop,
            ray=ray,
        )
        return self._index

    @property
    def feature_index(self) -> Index:
        """The index in use: made last by `index`, assigned, or the one that the suite brings.

        Raises:
            ValueError: If there is none.
        """
        if self._index is None:
            found = self.suite.index_file
            if found is None:
                raise ValueError(
                    "there is no index of these features: make one with lab.index(texts), or "
                    "assign lab.feature_index = Index.open(path)"
                )
            self._index = Index.open(found)
        return self._index

    @feature_index.setter
    def feature_index(self, index: Index) -> None:
        index.check_saes({site: self.suite.sae_at(site) for site in index.sites})
        self._index = index

    def index_at(self, sites: Iterable[Site]) -> Index:
        """The index in use, which was made with the SAEs in use at `sites`, where it has them.

        Raises:
            ValueError: If there is none, or it was made with others: its passages would be those of
                other features.
        """
        index = self.feature_index
        index.check_saes({site: self.suite.sae_at(site) for site in sites if site in index.sites})
        return index

    def search(self, query: str | None = None, *, by: By = "label", **options: Any) -> pd.DataFrame:
        """Features by label, example, output token, decoder, texts or density, best first.

        Args:
            query: Words of a label, a text in examples, or an output token.
            by: ``"label"``, ``"meaning"``, ``"example"``, ``"output"``, ``"decoder"``,
                ``"fires"`` or ``"density"``.
            options: Of `workbench.index.search.Search.find`, which says what each score is.

        Returns:
            Columns ``site, layer, kind, feature, label, score, density, histogram, why``.

        Raises:
            ValueError: If there is no index, it is of other SAEs than those in use, or the search
                lacks something.
        """
        index, said = self.feature_index, self.labels.last
        if self._search is None or self._search.index is not index or self._said != said:
            self.index_at(self.suite.chosen)
            labels = labels_of(self.suite)
            self._search = Search(index, labels=labels, model=self._model, suite=self.suite)
            self._said = said
        return self._search.find(query, by=by, **options)

    def label(self, site: Site | tuple[int, Kind], index: int) -> Label | None:
        """What a feature stands for: from `labels`, else from the suite; None if nobody knows."""
        return label_of(self.labels, self.suite, site, index)

    def autolabel(
        self,
        features: Sequence[tuple[int, int]] | None = None,
        *,
        kind: Kind = "res",
        method: JobMethod = "automatic",
        writer: Writer | None = None,
        passages: int = 20,
        scores: Sequence[Measure] = ("detection", "fuzzing"),
        tokens: int = 24_576,
        seed: int = 0,
    ) -> Autolabel:
        """A job that labels features, from the index in use; look at it, then ``.run()`` it.

        Args:
            features: ``(layer, index)`` of each; all of `kind` that fire in the index if left out.
            kind: Kind of site.
            method: ``"automatic"``, by rule and with no network, or ``"explain"``, by a language
                model, whose cost and time the job shows first.
            writer: The language model: a `workbench.labels.Endpoint` or
                `workbench.labels.LocalModel`.
            passages: Held-out passages to score on, for each score of a language model.
            scores: What a language model scores: ``"detection"``, ``"fuzzing"`` or both.
            tokens: Of random documents of the index that the model reads first.
            seed: Of the choice of passages.

        Raises:
            ValueError: If there is no index, it lacks a feature, or was made with other SAEs.
        """
        wanted = None if features is None else {feature_at(one, kind)[0] for one in features}
        chosen = [site for site in self.suite.chosen if wanted is None or site in wanted]
        return autolabel(
            self.labels,
            self.index_at(chosen),
            self._model,
            self.suite,
            features,
            kind=kind,
            tokens=tokens,
            method=method,
            writer=writer,
            passages=passages,
            scores=scores,
            seed=seed,
        )
