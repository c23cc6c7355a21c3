"""A suite: the SAEs of one model on disk, with calibration and labels.

    res/layer_3/width_1k/average_l0_18/params.npz     Gemma Scope's layout, one folder a kind
    calibration.safetensors     per SAE: density, typical maximum; per site: mean norm
    labels.json                 {"res/3": {"231": {"label": ..., "score": ...}}}
    sample.txt                  passages such as the model was trained on, to check the SAEs on
    index.duckdb                densities, examples and company of each feature: `workbench.index`
    steering.json               {label: {"layer": 6, "feature": 9, "strength": 1.25, "share": 0.8}}

SAEs are opened at first use and stay open while they fit the memory that they may have. The last
five files are optional: a suite without calibration can be read and can steer in raw units, and
says so when asked for more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from workbench.sae.base import SAE
from workbench.sae.catalog import PREFERRED_L0
from workbench.sae.gemma_scope import Entry, list_saes, load_sae, named_width
from workbench.sae.shelf import Shelf
from workbench.sites import Kind, Site, check_kind

SAMPLE, INDEX = "sample.txt", "index.duckdb"


@dataclass(frozen=True)
class Labelled:
    """A feature and what it stands for."""

    site: Site
    index: int
    label: str
    score: float | None
    """How well the label predicts the feature on held-out text: F1 for a label of tokens, AUROC for
    one of passages; None for one that nobody scored, such as a person's own."""


class OwnLabels(Protocol):
    """Labels that come before those that a suite brings; `workbench.labels.Labels` is one."""

    def text(self, site: Site, index: int) -> str | None:
        """The label of a feature; None if nothing was said of it."""
        ...

    def labelled(self) -> dict[tuple[Site, int], tuple[str, float | None]]:
        """Label and score of every feature of which something was said."""
        ...


class Suite:
    """The SAEs of one model, by site."""

    def __init__(
        self,
        root: str | Path | None,
        *,
        model: str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory: int | None = None,
    ) -> None:
        """Find the SAEs below a folder.

        Args:
            root: The folder; None for a suite that gets its SAEs by `use` alone.
            model: Name of the model that they belong to.
            device: Where to open them.
            dtype: Dtype to compute in.
            memory: Bytes that open SAEs may take together; None for no limit.

        Raises:
            ValueError: If there is none.
        """
        self.root, self.model = None if root is None else Path(root), model
        self.device, self.dtype = device, dtype
        self.entries = self._find()
        self.shelf = Shelf(memory)
        self._chosen: dict[Site, SAE] = {}
        self.norms: dict[Site, float] = {}
        """Mean norms that were measured since, where the calibration has none."""
        self.means: dict[Site, dict[int, float]] = {}
        """Mean activations of features that were measured since: no calibration has them."""
        self.typical: dict[Site, dict[int, float]] = {}
        """Typical maxima of features that were measured since, where there is no calibration."""
        self.changes: list[Site] = []
        """Where `use` put an SAE, in order: what was computed with another is out of date."""
        self._as_published: set[Site] = set()
        """Sites where `use` put the very SAE that the suite has there."""
        self._replaced: set[Site] = set()
        """Sites whose SAE in use is not the one that this suite's files speak of."""
        self.own: OwnLabels | None = None
        """What people and jobs said of the features since."""

    def _find(self) -> list[Entry]:
        """Every SAE there is to choose from."""
        if self.root is None:
            return []
        entries = [e for e in list_saes(self.root) if e.kind]
        if not entries:
            raise ValueError(
                f"{self.root}: no SAE found; expected folders such as res/layer_0/width_1k/"
            )
        return entries

    def _load(self, entry: Entry) -> SAE:
        """Open one SAE."""
        return load_sae(entry.path, model=self.model, dtype=self.dtype, device=self.device)

    def at_hand(self, site: Site) -> bool:
        """Whether the SAE of `site` can be opened without a download, or was given to `use`."""
        return site in self._chosen or self.on_disk(site)

    def on_disk(self, site: Site) -> bool:
        """Whether the SAE that the suite itself has for `site` is on this machine."""
        return site in self._published_sites

    def __repr__(self) -> str:
        return f"<Suite of {self.model}: {len(self.entries)} SAEs at {len(self.sites)} sites>"

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that have an SAE, in execution order."""
        return tuple(sorted({*self._published_sites, *self._chosen}))

    @cached_property
    def _published_sites(self) -> frozenset[Site]:
        return frozenset(Site(e.layer, check_kind(e.kind)) for e in self.entries)

    @property
    def chosen(self) -> dict[Site, SAE]:
        """The SAEs that `use` was given, by site."""
        return dict(self._chosen)

    def use(self, sae: SAE, site: Site) -> None:
        """Let `sae` be the one of `site` from now on, for runs, edits and widgets.

        Unless it is the very one that the suite has there, the suite's labels and calibration of
        that site are not used any more: they were another SAE's.
        """
        published = None
        if self.on_disk(site):
            published = self._opened(self._entry(site, None, None))
        self._chosen[site] = sae
        self.changes.append(site)
        self.means.pop(site, None)
        self.typical.pop(site, None)
        self._replaced.discard(site)
        self._as_published.discard(site)
        if published is not None and sae.same_as(published):
            self._as_published.add(site)
        elif self._speaks_of(site):
            self._replaced.add(site)

    def knows(self, site: Site) -> bool:
        """Whether the suite's labels and calibration are of the SAE in use at `site`."""
        return site not in self._replaced

    def named_in_use(self, site: Site) -> str:
        """The name that the SAE in use at `site` is published under, or an empty one."""
        if site in self._chosen and site not in self._as_published:
            return ""
        return self.published_name(site)

    def check_feature(self, site: Site, index: int) -> None:
        """Refuse a feature that the SAE of a site lacks, without opening it.

        Raises:
            ValueError: It does not exist; says which do.
        """
        sae = self._chosen.get(site)
        width = self._entry(site, None, None).width if sae is None else sae.config.d_sae
        if not 0 <= index < width:
            raise ValueError(f"feature {index} does not exist at {site}: it has 0 to {width - 1}")

    def _speaks_of(self, site: Site) -> bool:
        """Whether the suite's files say anything of the features of a site."""
        key = f"{site.kind}/{site.layer}"
        return site in self._published_sites and (
            f"{key}/maximum" in self._statistics
            or key in self._all_labels
            or any(Site(one["layer"]) == site for one in self._all_steering.values())
        )

    def sae(
        self,
        *,
        layer: int,
        kind: Kind = "res",
        width: str | int | None = None,
        l0: float | None = None,
    ) -> SAE:
        """The SAE of a site: of the smallest width the one with the L0 nearest to 100.

        Args:
            layer: Layer.
            kind: Kind of site.
            width: Number of features, or a name such as ``"16k"``.
            l0: Mean active features a token, as in the SAE's name.

        Raises:
            ValueError: If the suite has none; says what it has.
        """
        site = Site(layer, check_kind(kind))
        if site in self._chosen and width is None and l0 is None:
            return self._chosen[site]
        return self._opened(self._entry(site, width, l0))

    def _entry(self, site: Site, width: str | int | None, l0: float | None) -> Entry:
        """The entry that `sae` means."""
        found = [e for e in self.entries if (e.layer, e.kind) == (site.layer, site.kind)]
        if width is not None:
            wanted = _width(width)
            found = [e for e in found if e.width == wanted]
        if not found:
            size = "" if width is None else f" of width {width}"
            raise ValueError(f"{self.model} has no SAE at {site}{size}; {self._has()}")
        if l0 is not None:
            there = sorted({e.l0 for e in found if e.l0 is not None})
            found = [e for e in found if e.l0 == l0]
            if not found:
                raise ValueError(f"{self.model} has no SAE at {site} of L0 {l0:g}; it has {there}")
        least = min(e.width for e in found)
        found = [e for e in found if e.width == least]
        # Of two as near the larger: SAELens' rule for "canonical".
        return min(found, key=lambda e: (abs((e.l0 or 0) - PREFERRED_L0), -(e.l0 or 0)))

    def sae_at(self, site: Site) -> SAE:
        """The SAE of `site`: the one in use, or chosen by the same rule."""
        return self.sae(layer=site.layer, kind=site.kind)

    def typical_maximum(self, site: Site, index: int) -> float:
        """Activation of the feature when strongly present: the 99th percentile where it fires.

        Raises:
            ValueError: If nobody measured it, or the feature never fired where it was measured.
        """
        self.sae_at(site).check_index(index)
        if not self.knows_maximum(site, index):
            raise ValueError(
                f"the typical maximum of feature ({site.layer}, {index}) at {site} was not "
                "measured: call lab.prepare(edits), as lab.run and lab.generate do by themselves, "
                "or give the strength with unit='norm' or unit='raw'"
            )
        measured = self.typical.get(site, {})
        maximum = float(measured[index] if index in measured else self.maxima(site)[index])
        if maximum <= 0:
            raise ValueError(
                f"feature ({site.layer}, {index}) at {site} never fired in the calibration text, "
                "so it has no typical maximum; give the strength with unit='norm' or unit='raw'"
            )
        return maximum

    def knows_maximum(self, site: Site, index: int) -> bool:
        """Whether the feature's typical maximum was measured, even as 0."""
        return self.calibrated(site) or index in self.typical.get(site, {})

    def calibrated(self, site: Site) -> bool:
        """Whether typical maxima and densities of all features at `site` are known."""
        known = f"{site.kind}/{site.layer}/maximum" in self._statistics
        return known and site not in self._replaced

    def maxima(self, site: Site) -> Tensor:
        """Typical maximum of every feature ``(d_sae,)``; 0 for those that never fired."""
        return self._calibration(site, "maximum")

    def mean_norm(self, site: Site) -> float:
        """Mean norm of the activation at `site`, ``<bos>`` left out."""
        key = f"{site.kind}/{site.layer}/norm"
        if site not in self.norms and key not in self._statistics:
            raise ValueError(
                f"the mean norm at {site} was not measured: call lab.prepare(edits), as lab.run "
                "and lab.generate do by themselves, or give the strength with unit='raw'"
            )
        return self.norms[site] if site in self.norms else float(self._statistics[key])

    def knows_norm(self, site: Site) -> bool:
        """Whether the mean norm at `site` is known."""
        return site in self.norms or f"{site.kind}/{site.layer}/norm" in self._statistics

    def mean_activation(self, site: Site, index: int) -> float:
        """Mean activation of the feature over ordinary text, ``<bos>`` left out.

        Raises:
            ValueError: If it was not measured.
        """
        if not self.knows_mean(site, index):
            raise ValueError(
                f"the mean activation of feature ({site.layer}, {index}) at {site} was not "
                "measured: call lab.prepare(edits), as lab.run and lab.generate do by themselves"
            )
        return self.means[site][index]

    def knows_mean(self, site: Site, index: int) -> bool:
        """Whether the feature's mean activation is known."""
        return index in self.means.get(site, {})

    @property
    def sample(self) -> list[str]:
        """Passages to measure the SAEs on: the suite's own ``sample.txt``, or ours."""
        path = self._file(SAMPLE) or Path(__file__).with_name(SAMPLE)
        return path.read_text(encoding="utf-8").strip().split("\n\n")

    def density(self, site: Site) -> Tensor:
        """Share of tokens on which each feature fires ``(d_sae,)``."""
        return self._calibration(site, "density")

    def label(self, site: Site, index: int) -> str:
        """What the feature stands for, or what it writes, or an empty string."""
        own = None if self.own is None else self.own.text(site, index)
        if own is not None:
            return own
        named = self._labels.get(f"{site.kind}/{site.layer}", {}).get(str(index), {})
        writes, _ = self._writes.get((site, index), ("", 0.0))
        return named.get("label") or writes

    def labelled(self, site: Site, index: int) -> Labelled | None:
        """What the suite says that the feature stands for, with its score; None if nothing."""
        found = self._labels.get(f"{site.kind}/{site.layer}", {}).get(str(index))
        return Labelled(site, index, found["label"], found["score"]) if found else None

    def published_name(self, site: Site) -> str:
        """The name of the SAE that the suite has for a site, without opening it; or an empty one.

        One that `use` put in its place is not looked at.
        """
        if site not in self._published_sites:
            return ""
        path = self._entry(site, None, None).path
        if self.root is not None and path.is_relative_to(self.root):
            path = path.relative_to(self.root)
        return str(PurePosixPath(path.parent if path.suffix == ".npz" else path))

    def tested_strength(self, site: Site, index: int) -> float | None:
        """The strength up to which steering by the feature was seen to work; None if untested."""
        return self._writes.get((site, index), ("", None))[1]

    def find(self, text: str) -> list[Labelled]:
        """Features whose label contains `text`: first unscored labels, then the surest."""
        found = self._brought
        if self.own is not None:
            found = found | self.own.labelled()
        features = [
            Labelled(site, index, label, score)
            for (site, index), (label, score) in found.items()
            if text in label
        ]
        return sorted(
            features,
            key=lambda one: (one.score is not None, -(one.score or 0), one.site, one.index),
        )

    @property
    def _brought(self) -> dict[tuple[Site, int], tuple[str, float | None]]:
        """Label and score of every feature that the suite itself labels."""
        found: dict[tuple[Site, int], tuple[str, float | None]] = {}
        for key, labels in self._labels.items():
            kind, layer = key.split("/")
            site = Site(int(layer), check_kind(kind))
            found |= {(site, int(i)): (one["label"], one["score"]) for i, one in labels.items()}
        return found

    def _opened(self, entry: Entry) -> SAE:
        return self.shelf.get(entry.path, lambda: self._load(entry))

    @cached_property
    def _statistics(self) -> dict[str, Tensor]:
        path = self._file("calibration.safetensors")
        return load_file(path) if path else {}

    @property
    def steering(self) -> dict[str, dict[str, Any]]:
        """What was seen to write each label; only labels that passed the test are here.

        Of each the ``layer`` and ``feature`` in the residual stream, the ``strength`` in multiples
        of its typical maximum, and the ``share`` of the label's words in the steered text.
        """
        return {
            label: one
            for label, one in self._all_steering.items()
            if Site(one["layer"]) not in self._replaced
        }

    @cached_property
    def _all_steering(self) -> dict[str, dict[str, Any]]:
        return self._json("steering.json")

    @property
    def index_file(self) -> Path | None:
        """The index of its features that the suite brings; None if it brings none."""
        return self._file(INDEX)

    @property
    def _writes(self) -> dict[tuple[Site, int], tuple[str, float]]:
        return {
            (Site(one["layer"]), one["feature"]): (f"writes {label}", one["strength"])
            for label, one in self.steering.items()
        }

    @property
    def _labels(self) -> dict[str, dict[str, dict[str, Any]]]:
        replaced = {f"{site.kind}/{site.layer}" for site in self._replaced}
        return {key: one for key, one in self._all_labels.items() if key not in replaced}

    @cached_property
    def _all_labels(self) -> dict[str, dict[str, dict[str, Any]]]:
        return self._json("labels.json")

    def _file(self, name: str) -> Path | None:
        path = None if self.root is None else self.root / name
        return path if path is not None and path.exists() else None

    def _json(self, name: str) -> dict[str, Any]:
        path = self._file(name)
        return json.loads(path.read_text(encoding="utf-8")) if path else {}

    def _calibration(self, site: Site, name: str) -> Tensor:
        key = f"{site.kind}/{site.layer}/{name}"
        if not self.calibrated(site):
            raise ValueError(
                f"{self.model} has no calibration of the SAE at {site}: nobody measured the "
                f"{name} of all its features"
            )
        return self._statistics[key]

    def _has(self) -> str:
        if not self.entries:
            return "it has none: lab.use(sae) gives it one"
        kinds = sorted({e.kind for e in self.entries})
        layers = sorted({e.layer for e in self.entries})
        widths = sorted({e.width for e in self.entries})
        return f"it has kinds {kinds}, layers {layers[0]} to {layers[-1]}, widths {widths}"


def _width(width: str | int) -> int:
    found = width if isinstance(width, int) else named_width(width.lower())
    if found is None:
        raise ValueError(f"width {width!r}: give a number of features or a name such as '16k'")
    return found
