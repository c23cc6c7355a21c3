"""What a lab holds: a model, its SAEs, and runs of one on the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import torch

from workbench.analysis.evaluation import (
    Check,
    check,
    mean_activations,
    mean_norms,
    typical_maxima,
)
from workbench.engine.binding import site_of
from workbench.engine.edits import Ablate, Clamp, Edit, Steer, When, edit_list
from workbench.engine.tracing import trace
from workbench.index import Index
from workbench.index.search import Search
from workbench.labels import Labels
from workbench.labels.files import LABELS_FILE, data_folder
from workbench.labels.shown import sae_name
from workbench.models import Busy, Model
from workbench.names import check_sites
from workbench.runs import Run
from workbench.sae import SAE
from workbench.sae.published import open_sae
from workbench.sae.remote import RemoteSAE
from workbench.sae.suite import Suite
from workbench.scopes import check_number
from workbench.sites import Kind, Site
from workbench.tokens import Prompt, Tokens, tokenize

if TYPE_CHECKING:
    from nnsight import TransformersModel

    from workbench.lab.facade import Lab


SHIPPED = {"pocket": "base", "pocket-it": "it"}
"""Name -> folder of the models that come with the package."""


class Core:
    """A model and its SAEs."""

    def __init__(self, model: Model, suite: Suite | None = None) -> None:
        self._model = model
        self._suite = suite
        self._index: Index | None = None
        self._search: Search | None = None
        self._said = 0
        self._labels: Labels | None = None
        if suite is not None:
            self.labels = Labels(data_folder() / LABELS_FILE, model=suite.model)

    def __repr__(self) -> str:
        config = self._model.config
        suite = f", {len(self._suite.entries)} SAEs" if self._suite else ", no SAEs"
        size = f"{config.num_hidden_layers} layers of {config.hidden_size}"
        notes = () if self._model.name in SHIPPED else self.notes
        return "\n  ".join([f"<Lab {self._model.name}: {size}{suite}>", *notes])

    @property
    def model(self) -> TransformersModel:
        """The plain nnsight model, for ``with lab.model.trace(...)``."""
        return self._model.nnsight

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen when the model was opened (device, dtype, attention), each with why."""
        return self._model.notes

    @property
    def engine(self) -> Model:
        """The model as the functions of `workbench.engine.tracing` take it."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._model.tokenizer

    @property
    def suite(self) -> Suite:
        """The SAEs.

        Raises:
            ValueError: If the lab was opened without any.
        """
        if self._suite is None:
            raise ValueError(
                "this lab has no SAEs: open it with wb.open(name, suite='folder of SAEs')"
            )
        return self._suite

    @property
    def labels(self) -> Labels:
        """Labels and notes on the features, kept in the user's data folder or where assigned.

        They come before those that the suite brings, wherever a label is shown or looked for.
        """
        if self._labels is None:
            raise ValueError(f"{self._model.name} has no SAEs, and so no features to label")
        return self._labels

    @labels.setter
    def labels(self, labels: Labels) -> None:
        if labels.sae_name is None:
            labels.sae_name = partial(sae_name, self.suite)
        labels.check_feature = self.suite.check_feature
        self._labels = self.suite.own = labels
        self._search = None  # it knows the labels that were there

    @property
    def saes(self) -> pd.DataFrame:
        """The SAEs at hand, with columns ``layer, kind, width, l0, path``."""
        rows = [(e.layer, e.kind, e.width, e.l0, str(e.path)) for e in self.suite.entries]
        return pd.DataFrame(rows, columns=["layer", "kind", "width", "l0", "path"])

    def sae(
        self,
        name: str | Path | None = None,
        *,
        layer: int | None = None,
        kind: Kind | None = None,
        width: str | int | None = None,
        l0: float | None = None,
    ) -> SAE:
        """An SAE, by the site or by any name.

        Args:
            name: What `wb.catalog_entry` understands, a folder on the hub such as
                ``"owner/repository/folder"``, or a file or folder on disk in any format of
                `workbench.sae.formats`.
            layer: Layer of the site; beside a name only where the file does not say it.
            kind: Kind of site, ``"res"`` if left out; beside a name as `layer`.
            width: Number of features, or a name such as ``"16k"``; the smallest if left out.
            l0: Mean active features a token; the nearest to 100 if left out.

        Raises:
            ValueError: If there is no such SAE; names what is near.
        """
        if name is not None:
            if width is not None or l0 is not None:
                raise ValueError("width and l0 choose among the SAEs of a site: leave the name out")
            dtype = torch.float32 if self._suite is None else self._suite.dtype
            return open_sae(name, layer=layer, kind=kind, dtype=dtype, device=self._model.device)
        if layer is None:
            raise ValueError("give the name of an SAE or the layer of its site")
        if l0 is not None:
            check_number("l0", l0)
        return self.suite.sae(layer=layer, kind=kind or "res", width=width, l0=l0)

    def use(self, sae: SAE) -> SAE:
        """Let `sae` be the one of its site from now on, for runs, edits and widgets.

        Raises:
            ValueError: If the model has no such site, it has another width, or a weight of the SAE
                is not finite.
        """
        _checked(sae).check_values()
        site = site_of(sae, self._model.module)
        if self._suite is None:
            self._suite = Suite(None, model=self._model.name)
        self._suite.use(sae, site)
        self._search = None  # it knows the SAE that was there
        return sae

    def check(self, sae: SAE, *, texts: Sequence[Prompt] | None = None) -> Check:
        """L0, FVU and loss recovered of an SAE; refused where it does not belong.

        Args:
            sae: The SAE or transcoder.
            texts: What to measure on; some passages of ours if left out.

        Raises:
            WrongSiteError: See `workbench.analysis.evaluation.check`.
        """
        return check(self._model, _checked(sae), self._passages(texts))

    def prepare(self, edits: Sequence[Edit]) -> None:
        """Measure what `edits` need and nobody knows yet.

        Those are mean norms, typical maxima and mean activations, on the suite's passages.
        """
        suite = self._suite
        if suite is None:
            return
        inner = [edit.edit if isinstance(edit, When) else edit for edit in edit_list(edits)]
        pushes = [edit for edit in inner if isinstance(edit, Steer | Clamp)]
        written = {edit.site.writes_at for edit in pushes if edit.unit == "norm"}
        if not all(map(suite.knows_norm, written)):
            sites = sorted({site.writes_at for site in suite.sites} | written)
            suite.norms |= mean_norms(self._model, sites, self._passages(None))
        strong = [edit for edit in pushes if edit.unit == "max"]
        self._measure(strong, suite.knows_maximum, typical_maxima, suite.typical)
        means = [edit for edit in inner if isinstance(edit, Ablate) and edit.to == "mean"]
        self._measure(means, suite.knows_mean, mean_activations, suite.means)

    def _measure(
        self,
        edits: Sequence[Steer | Clamp | Ablate],
        known: Callable[[Site, int], bool],
        measure: Callable[..., dict[Site, dict[int, float]]],
        kept: dict[Site, dict[int, float]],
    ) -> None:
        """Measure something of the features of `edits` of which it is not `known`."""
        features: dict[Site, list[int]] = {}
        for edit in edits:
            self.suite.sae_at(edit.site).check_index(edit.index)
            indices = features.setdefault(edit.site.check(self._model.config), [])
            if not known(edit.site, edit.index) and edit.index not in indices:
                indices.append(edit.index)
        features = {site: indices for site, indices in features.items() if indices}
        if features:
            saes = {site: self.suite.sae_at(site) for site in features}
            found = measure(self._model, saes, features, self._passages(None))
            for site, values in found.items():
                kept.setdefault(site, {}).update(values)

    def _passages(self, texts: Sequence[Prompt] | None) -> list[Tokens]:
        """`texts` as tokens, or the suite's passages, cut to the context."""
        if texts is not None:
            return [self.tokens(text) for text in texts]
        room = self._model.context - 1  # for <bos>
        encoded = (
            self.tokenizer(passage, add_special_tokens=False)["input_ids"]
            for passage in (self._suite or Suite(None, model=self._model.name)).sample
        )
        return [self.tokens(ids[:room]) for ids in encoded]

    def tokens(self, prompt: Prompt | Tokens) -> Tokens:
        """`prompt` as tokens, with exactly one ``<bos>``; see `workbench.tokens.tokenize`."""
        return tokenize(self.tokenizer, prompt, context=self._model.context)

    def run(
        self,
        prompt: Prompt | Tokens,
        *,
        sites: Sequence[Site] | None = None,
        edits: Sequence[Edit] = (),
        busy: Busy = "wait",
    ) -> Run:
        """One traced forward pass; see `workbench.engine.tracing.trace`.

        Args:
            prompt: Text, ids or chat turns.
            sites: What to read; every site with an SAE if left out.
            edits: What to change.
            busy: ``"wait"`` or ``"cancel"`` if the model is in use.
        """
        self.prepare(edits)
        tokens = self.tokens(prompt)
        given = self._suite.sites if self._suite else ()
        wanted = given if sites is None else check_sites(sites)
        traced = trace(self._model, [tokens], wanted, edits=edits, source=self._suite, busy=busy)
        return Run(
            model=self._model.name,
            tokens=tokens,
            logits=traced.logits[0],
            activations={site: x[0] for site, x in traced.activations.items()},
            receipt=traced.receipts[0],
            suite=self._suite,
            module=self._model.module,
            engine=self._model,
            edits=tuple(edits),
            dashboard=lambda feature, kind: cast("Lab", self).dashboard(feature, kind),
        )


def _checked(sae: SAE) -> SAE:
    """`sae` itself if it is an open SAE."""
    if not isinstance(sae, SAE | RemoteSAE):
        raise TypeError(f"an open SAE is needed, such as lab.sae(layer=5); got {sae!r}")
    return sae
