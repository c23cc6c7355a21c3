"""A run: one forward pass over one text, with everything that was read.

A run keeps activations and computes features when they are asked for. Saved, it holds the features
of every site, so a run recorded on a large machine opens anywhere, with no model and no SAE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from torch import Tensor

from workbench.analysis.attribution import Attribution, Target, Token, attribute
from workbench.analysis.causes import Causes, How, causes
from workbench.analysis.circuit import Circuit
from workbench.analysis.circuit_edges import trace_circuit
from workbench.analysis.evaluation import Fit, fit
from workbench.analysis.evolution import evolve, over_tokens
from workbench.analysis.lens import stream_lens
from workbench.analysis.lineage import Lineage
from workbench.engine.edits import Edit
from workbench.engine.receipts import Receipt
from workbench.features import Features, Measure, check_count
from workbench.names import in_words
from workbench.recording.results import Results, asked_of
from workbench.recording.run_file import label_key, read_run, save_run
from workbench.sae.suite import Suite
from workbench.sites import Kind, Site, check_kind, feature_at
from workbench.tokens import Tokens, strings_of

if TYPE_CHECKING:
    from torch import nn

    from workbench.models import Model


@dataclass(frozen=True)
class Kept:
    """What was computed of a run, as far as it is known."""

    features: Mapping[Site, Features]
    fits: Mapping[Site, Fit]
    results: Results


@dataclass(frozen=True, eq=False)
class Run:
    """One traced forward pass."""

    model: str
    """Name of the model."""
    tokens: Tokens
    """The text."""
    logits: Tensor
    """``(pos, vocabulary)``; ``(pos, 0)`` in a light recording."""
    activations: Mapping[Site, Tensor]
    """``(pos, d_in)`` at each site that was read; empty in a light recording."""
    receipt: Receipt
    """What edits did, if there were any."""
    suite: Suite | None = field(default=None, repr=False)
    """SAEs to compute features with; None in an opened recording."""
    module: nn.Module | None = field(default=None, repr=False)
    """The transformers model; None in an opened recording."""
    engine: Model | None = field(default=None, repr=False)
    """The model as the engine takes it; None in an opened recording."""
    edits: tuple[Edit, ...] = field(default=(), repr=False)
    """What was changed; empty in an opened recording, whose receipt says what they did."""
    dashboard: Callable[[tuple[int, int], Kind], Any] | None = field(default=None, repr=False)
    """Makes the dashboard of a feature; None in an opened recording."""
    results: Results = field(default_factory=Results, repr=False)
    """Lineages, causes, attributions, circuits and lenses that were computed; `save` keeps them."""
    edited: tuple[str, ...] = field(default=(), repr=False)
    """In an opened recording, what the edits were."""
    path: Path | None = field(default=None, repr=False)
    """The file that a recording was opened from."""
    _features: dict[Site, Features] = field(default_factory=dict, repr=False)
    _labels: dict[str, str] = field(default_factory=dict, repr=False)
    _fits: dict[Site, Fit] = field(default_factory=dict, repr=False)
    _densities: dict[Site, Tensor] = field(default_factory=dict, repr=False)
    _maxima: dict[Site, Tensor] = field(default_factory=dict, repr=False)
    _suite_model: str = field(default="", repr=False)
    _seen: list[int] = field(default_factory=list, repr=False)
    """How many of the suite's changes are known here."""

    def __repr__(self) -> str:
        return f"<Run of {self.model}: {len(self.tokens)} tokens, {len(self.sites)} sites>"

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that were read or whose features are recorded, in execution order."""
        return tuple(sorted({*self.activations, *self._features}))

    def activation(self, layer: int, kind: Kind = "res") -> Tensor:
        """The activation ``(pos, d_in)`` at a site.

        Raises:
            ValueError: If the site was not read, or the run is a light recording.
        """
        site = Site(layer, check_kind(kind))
        if site in self._features and not self.activations:
            raise ValueError(
                f"the activation at {site} is not in this light recording, which has features only:"
                " save the run with light=False"
            )
        if site not in self.activations:
            raise ValueError(f"{site} is not in this run; {self._has()}")
        return self.activations[site]

    def features(self, layer: int, kind: Kind = "res") -> Features:
        """Sparse feature activations ``(pos, d_sae)`` at a site.

        Raises:
            ValueError: If the site was not read, or has no SAE.
        """
        site = Site(layer, check_kind(kind))
        self._keep_up()
        if site not in self._features:
            if self.suite is None:
                raise ValueError(f"the features at {site} are not in this recording; {self._has()}")
            activation = self.activation(layer, kind)
            sae = self.suite.sae_at(site)
            self._features[site] = Features.encode(sae, site, self.tokens, activation)
        return self._features[site]

    def _keep_up(self) -> None:
        """Forget what was computed with SAEs that `Suite.use` has replaced since."""
        if self.suite is None:
            return
        changes = self.suite.changes
        changed = changes[self._seen[0] :] if self._seen else []
        self._seen[:] = [len(changes)]
        for site in changed:
            self._features.pop(site, None)
            self._fits.pop(site, None)
        if changed:
            self.results.forget()

    def drawable(self, *, at_hand: bool = False) -> tuple[Site, ...]:
        """The sites whose features can be had, in execution order.

        Args:
            at_hand: Only where that takes no download.
        """
        self._keep_up()
        return tuple(
            site
            for site in self.sites
            if site in self._features
            or (
                self.suite is not None
                and site in self.suite.sites
                and (not at_hand or self.suite.at_hand(site))
            )
        )

    def fit(self, layer: int, kind: Kind = "res") -> Fit:
        """How well the SAE of a site reconstructs this very text, ``<bos>`` left out.

        Raises:
            ValueError: If the site was not read or has no SAE, or the text has fewer than two
                tokens after ``<bos>``.
        """
        site = Site(layer, check_kind(kind))
        self._keep_up()
        if site not in self._fits:
            if self.suite is None:
                raise ValueError(f"the fit at {site} is not in this recording; {self._has()}")
            read = {s: self.activation(s.layer, s.kind)[1:] for s in {site, site.writes_at}}
            known = self.features(layer, kind)
            self._fits[site] = fit(self.suite.sae_at(site), site, read, known)
        return self._fits[site]

    def badge(self, layer: int, kind: Kind = "res") -> str:
        """What to know before believing the features of a site: sparsity, reconstruction, masks.

        Without figures where there are none; see `fit`.

        Raises:
            ValueError: As `features`.
        """
        self.features(layer, kind)
        parts = []
        try:
            found = self.fit(layer, kind)
            figures = f"L0 {found.l0:.0f}, FVU {found.fvu:.2f}"
            parts.append(f"{figures} on this text, <bos> left out")
        except ValueError:
            pass  # a text of one word, or a transcoder whose output was not read: nothing to say
        trained_on = self.suite_model
        if trained_on and self.model.endswith("-it") > trained_on.endswith("-it"):
            parts.append(f"SAE of {trained_on} on {self.model}")
        return " · ".join(parts)

    def label(self, site: Site, index: int) -> str:
        """What a feature stands for, where that is known."""
        if self.suite is not None:
            return self.suite.label(site, index)
        return self._labels.get(label_key(site, index), "")

    @property
    def suite_model(self) -> str:
        """Name of the model that the SAEs were trained on; empty if there are none."""
        return self._suite_model if self.suite is None else self.suite.model

    @property
    def kept(self) -> Kept:
        """What was computed so far, with the SAEs in use."""
        self._keep_up()
        return Kept(self._features, self._fits, self.results)

    def spelled(self, ids: Sequence[int]) -> list[str]:
        """What to show for token ids; a recording knows those that its results name."""
        if self.engine is None:
            return self.results.spell(ids)
        return list(strings_of(self.engine.tokenizer, ids))

    def typical_maximum(self, site: Site, index: int) -> float | None:
        """What the feature reaches when strongly present; None where nobody knows."""
        maxima = self.maxima(site)
        return (float(maxima[index]) or None) if maxima is not None else None

    def maxima(self, site: Site) -> Tensor | None:
        """What each feature reaches when strongly present ``(d_sae,)``; None where unknown."""
        return self._calibration(site, "maxima", self._maxima)

    def density(self, site: Site) -> Tensor | None:
        """Share of ordinary tokens on which each feature fires ``(d_sae,)``; None where unknown.

        The suite's own figures: measured on text of the model's training corpus.
        """
        return self._calibration(site, "density", self._densities)

    def _calibration(self, site: Site, name: str, recorded: Mapping[Site, Tensor]) -> Tensor | None:
        """A statistic of the suite, or what the recording has of it."""
        if self.suite is None or not self.suite.calibrated(site):
            return recorded.get(site)
        return getattr(self.suite, name)(site)

    def strongest(
        self,
        layer: int,
        kind: Kind = "res",
        *,
        k: int = 20,
        by: Measure = "max",
        label: str | None = None,
        density: tuple[float, float] | None = None,
    ) -> list[int]:
        """The `k` features of a site that are strongest on this text, strongest first.

        Args:
            layer: Layer.
            kind: Kind of site.
            k: How many, at most.
            by: What strongest means; see `workbench.features.Features.scores`.
            label: Only features whose label holds this text, in small or capital letters.
            density: Only features that fire on a share of ordinary tokens between these two.

        Raises:
            ValueError: If a density is needed that nobody measured, or for an impossible choice.
        """
        features = self.features(layer, kind)
        ranked = features.ranked(by, density=self.density(features.site))
        return self.chosen(features.site, ranked, k=k, label=label, density=density)

    def chosen(
        self,
        site: Site,
        ranked: Sequence[int],
        *,
        k: int,
        label: str | None = None,
        density: tuple[float, float] | None = None,
    ) -> list[int]:
        """The first `k` of `ranked` features of a site that pass the filters of `strongest`."""
        known = self.density(site)
        if density is not None and known is None:
            raise ValueError(
                f"density={density} cannot be told apart at {site}: nobody measured how often its "
                "features fire in ordinary text"
            )
        kept = (i for i in ranked if not label or label.lower() in self.label(site, i).lower())
        if density is not None and known is not None:
            low, high = density
            kept = (i for i in kept if low <= float(known[i]) <= high)
        return list(islice(kept, check_count(k)))

    def top(
        self,
        layer: int,
        kind: Kind = "res",
        *,
        k: int = 20,
        by: Measure = "max",
        label: str | None = None,
        density: tuple[float, float] | None = None,
    ) -> pd.DataFrame:
        """Where the features that are strongest on this text fire; see `strongest`.

        Returns:
            Columns ``feature, label, activation, token, position, mean, density``: each feature's
            maximum, where it is, and its mean and share of tokens over the scored positions;
            strongest first.
        """
        features = self.features(layer, kind)
        rows = []
        for index in self.strongest(layer, kind, k=k, by=by, label=label, density=density):
            values = features.of(index)[1:]
            peak = int(values.argmax()) + 1
            rows.append(
                {
                    "feature": index,
                    "label": self.label(features.site, index),
                    "activation": float(values.max()),
                    "token": self.tokens.strings[peak],
                    "position": peak,
                    "mean": float(values.mean()),
                    "density": float((values > 0).float().mean()),
                }
            )
        columns = ["feature", "label", "activation", "token", "position", "mean", "density"]
        return pd.DataFrame(rows, columns=columns)

    def attribution(
        self,
        token: Token,
        *,
        position: int = -1,
        against: Token | Sequence[Token] = (),
        sites: Sequence[Site] | None = None,
        dimmed: int = 0,
    ) -> Attribution:
        """What each active feature has to do with a next token: `workbench.analysis.attribution`.

        run.attribution(" Paris").top(10)
        run.attribution(" Paris", against=" London")    # a logit difference

        Args:
            token: Text of one token, or its id.
            position: After which token of the text it comes.
            against: Tokens whose mean logit is subtracted; all of them if left out.
            sites: Where; every site of the run whose SAE is at hand if left out.
            dimmed: At how many residual layers to take a second slope, for a better estimate of an
                ablation; 3 is good, and each costs a pass forward and back.

        Raises:
            ValueError: If there is no such token, position or site, or the run is a recording that
                does not keep this one.
        """
        asked = asked_of(len(self.tokens), token, position, against, dimmed=dimmed)
        if self.engine is None or self.suite is None:
            return self.results.attributed(asked, sites)
        engine, suite = self.engine, self.suite
        sites = self.drawable(at_hand=True) if sites is None else sites
        found = attribute(
            engine,
            suite,
            self.tokens,
            Target.of(engine, self.tokens, token, position, against),
            sites,
            edits=self.edits,
            dimmed=dimmed,
            known=self._known(sites),
            label=self.label,
        )
        return self.results.note_attribution(asked, found)

    def circuit(
        self,
        token: Token,
        *,
        position: int = -1,
        against: Token | Sequence[Token] = (),
        layers: Sequence[int] | None = None,
        k: int = 20,
        floor: float = 0.005,
    ) -> Circuit:
        """The graph of features that leads to a next token: `workbench.analysis.circuit_edges`.

        run.circuit(" Paris", layers=[3, 5, 7])

        Args:
            token: Text of one token, or its id.
            position: After which token of the text it comes.
            against: Tokens whose mean logit is subtracted; all of them if left out.
            layers: Residual layers at which the stream is split into features; those of the run
                whose SAE is at hand if left out.
            k: Features at tokens to keep.
            floor: Share of the score below which edges and errors are left out.

        Raises:
            ValueError: If there is no such token, position or site, or the run is a recording that
                does not keep this one.
        """
        within = None if layers is None else sorted(layers)
        how: dict[str, Any] = {"layers": within, "k": k, "floor": floor}
        asked = asked_of(len(self.tokens), token, position, against, **how)
        if self.engine is None or self.suite is None:
            return self.results.traced(asked)
        engine, suite = self.engine, self.suite
        chosen = [site.layer for site in self.drawable(at_hand=True) if site.kind == "res"]
        sites = [Site(layer) for layer in (chosen if layers is None else layers)]
        found = trace_circuit(
            engine,
            suite,
            self.tokens,
            Target.of(engine, self.tokens, token, position, against),
            sites,
            k=k,
            floor=floor,
            edits=self.edits,
            known=self._known(sites),
            label=self.label,
        )
        return self.results.note_circuit(asked, found)

    def causes(
        self,
        feature: tuple[int, int],
        kind: Kind = "res",
        *,
        how: How = "ablate",
        sites: Sequence[Site] | None = None,
        estimate: int = 50,
    ) -> Causes:
        """What ablating or multiplying a feature changes downstream: `workbench.analysis.causes`.

        Args:
            feature: Layer and index.
            kind: Kind of its site.
            how: ``"ablate"``, or a factor.
            sites: Where to look; the later sites of the run whose SAE is at hand if left out.
            estimate: For how many features to make the fast estimate as well.

        Raises:
            ValueError: If the feature fires nowhere in the text, or the run was edited, or is a
                recording that does not keep this at all of `sites`.
        """
        origin = feature_at(feature, kind)
        sites = self.drawable(at_hand=True) if sites is None else sites
        if self.engine is None or self.suite is None:
            return self.results.caused(origin, how, sites)
        if self.edits:
            raise ValueError("this run was edited: run the text without edits to see causes")
        self._keep_up()
        found = causes(
            self.engine,
            self.suite,
            self.tokens,
            origin,
            how=how,
            sites=sites,
            estimate=estimate,
            label=self.label,
        )
        return self.results.note_causes(found)

    def _known(self, sites: Sequence[Site]) -> dict[Site, Features]:
        self._keep_up()
        return {site: self.features(site.layer, site.kind) for site in sites if site in self.sites}

    def lineage(self, feature: tuple[int, int], kind: Kind = "res") -> Lineage:
        """The kin of a feature at every site: `workbench.analysis.evolution.evolve`.

        Raises:
            ValueError: If the feature does not exist, or the run is a recording that does not keep
                it.
        """
        origin = feature_at(feature, kind)
        if self.module is None or self.suite is None:
            return self.results.lineage(origin)
        self._keep_up()
        return self.results.note_lineage(evolve(self.module, self.suite, *origin))

    def chain(self, feature: tuple[int, int], kind: Kind = "res") -> pd.DataFrame:
        """How strongly the kin of a feature fire on each token of this text.

        Returns:
            Columns ``layer, kind, feature, counts, position, token, activation``.
        """
        found = self.lineage(feature, kind)
        return over_tokens(found, lambda site: self.features(site.layer, site.kind))

    def lens(self, *, k: int = 5) -> pd.DataFrame:
        """What each layer's residual stream would have the model say: `workbench.analysis.lens`.

        Returns:
            Columns ``layer, position, token, rank, says, id, logit, probability``.

        Raises:
            ValueError: If the run is a recording that does not keep it.
        """
        check_count(k)
        if self.engine is None:
            return self.results.lens(k)
        streams = {site.layer: x for site, x in self.activations.items() if site.kind == "res"}
        table = stream_lens(self.engine.module, streams, k=k)
        table.insert(2, "token", [self.tokens.strings[i] for i in table["position"]])
        table.insert(4, "says", strings_of(self.engine.tokenizer, table["id"].tolist()))
        self.results.lenses[k] = table
        return table

    def heatmap(
        self,
        layer: int | Sequence[int] | None = None,
        kind: Kind | Sequence[Kind] | Literal["all"] = "res",
        **options: Any,
    ) -> Any:
        """Tokens by features of one or several sites, as a widget; see `workbench.panels.Heatmap`.

        run.heatmap(4)                          # the residual stream after layer 4
        run.heatmap(4, "all", k=8)              # 8 features of each of its sites
        run.heatmap([3, 4], label="language")   # features whose label says so
        run.heatmap(4, token=" Paris")          # those that matter most for a next token
        """
        from workbench.panels import Heatmap

        return Heatmap(self, layer, kind, **options)

    def evolution(
        self,
        feature: tuple[int, int] | tuple[int, int, Kind] | Sequence[Any] | None = None,
        kind: Kind = "res",
        **options: Any,
    ) -> Any:
        """Features through the layers, as a widget; see `workbench.panels.Evolution`.

        run.evolution((5, 231))                       # its relatives at every site
        run.evolution([(5, 231), (4, 17, "mlp")])     # several, side by side
        run.evolution(token=" Paris", k=10)           # the ten that matter for this next token
        run.evolution((5, 231), beside=other)         # on two texts
        """
        from workbench.panels import Evolution

        return Evolution(self, feature, kind, **options)

    def save(self, path: str | Path, *, evolution: Sequence[Any] = (), light: bool = False) -> Path:
        """Write the run as one file, which `wb.open_run` opens with no model and no SAE.

        It holds the text, the logits, activations, the features of every site whose SAE is on disk
        with their labels, and what was computed with this run: ways through the layers (also those
        that the evolution panel showed), causes, attributions, circuits and lenses. Nothing is
        downloaded for it. An attribution is kept without its slopes.

        run.save("france.run", evolution=[(5, 231), (4, 17, "mlp")])

        Args:
            path: File to write; replaced when all is written.
            evolution: Features whose way through the layers to find and keep as well, ``(layer,
                index)`` or ``(layer, index, kind)``.
            light: Leave logits and activations out: a tenth of the size, and every panel works.

        Returns:
            The path.

        Raises:
            ValueError: If a feature does not exist.
        """
        from workbench.panels.evolution_maps import keep_lineages

        keep_lineages(self, evolution)
        return save_run(self, path, light=light)

    def _has(self) -> str:
        return f"it has {in_words(self.sites)}"


def open_run(path: str | Path) -> Run:
    """Open a saved run, with no model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a saved run, was cut off, or is of a newer workbench.
    """
    return Run(**read_run(path))
