"""A suite: the SAEs of one model on disk, with calibration and labels.

    res/layer_3/width_1k/average_l0_18/params.npz     Gemma Scope's layout, one folder a kind
    calibration.safetensors     per SAE: density, typical maximum; per site: mean norm
    labels.json                 {"res/3": {"231": {"label": ..., "score": ...}}}
    steering.json               {label: {"layer": 6, "feature": 9, "strength": 1.25, "share": 0.8}}

SAEs are opened at first use and stay open. The last three files are optional: a suite without
calibration can be read and can steer in raw units, and says so when asked for more.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from workbench.sae.base import SAE
from workbench.sae.catalog import PREFERRED_L0
from workbench.sae.gemma_scope import Entry, list_saes, load_sae, named_width
from workbench.sites import Kind, Site, check_kind


@dataclass(frozen=True)
class Labelled:
    """A feature and what it stands for."""

    site: Site
    index: int
    label: str
    score: float
    """How well the label predicts the feature on held-out text: F1 for a label of tokens, AUROC for
    one of passages."""


class Suite:
    """The SAEs of one model, by site."""

    def __init__(
        self,
        root: str | Path,
        *,
        model: str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.root, self.model = Path(root), model
        self.device, self.dtype = device, dtype
        self.entries = [e for e in list_saes(self.root) if e.kind]
        if not self.entries:
            raise ValueError(
                f"{root}: no SAE found; expected folders such as res/layer_0/width_1k/"
            )
        self._open: dict[Path, SAE] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Suite of {self.model}: {len(self.entries)} SAEs at {len(self.sites)} sites>"

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The sites that have an SAE, in execution order."""
        return tuple(sorted({Site(e.layer, check_kind(e.kind)) for e in self.entries}))

    def sae(
        self,
        *,
        layer: int,
        kind: Kind = "res",
        width: str | int | None = None,
        l0: float | None = None,
    ) -> SAE:
        """The SAE of a site; of several the one with the L0 nearest to `l0`, or to 100.

        Args:
            layer: Layer.
            kind: Kind of site.
            width: Number of features, or a name such as ``"16k"``.
            l0: Mean active features a token.

        Raises:
            ValueError: If the suite has none; says what it has.
        """
        site = Site(layer, check_kind(kind))
        found = [e for e in self.entries if (e.layer, e.kind) == (site.layer, site.kind)]
        if width is not None:
            wanted = _width(width)
            found = [e for e in found if e.width == wanted]
        if not found:
            raise ValueError(
                f"{self.model} has no SAE at {site} of width {width or 'any'}; {self._has()}"
            )
        target = PREFERRED_L0 if l0 is None else l0
        return self._opened(min(found, key=lambda e: abs((e.l0 or 0) - target)))

    def sae_at(self, site: Site) -> SAE:
        """The SAE of `site`, by the same rule."""
        return self.sae(layer=site.layer, kind=site.kind)

    def typical_maximum(self, site: Site, index: int) -> float:
        """Activation of the feature when strongly present: the 99th percentile where it fires.

        Raises:
            ValueError: If the suite has no calibration, or the feature never fired in it.
        """
        maximum = float(self._calibration(site, "maximum")[self.sae_at(site).check_index(index)])
        if maximum <= 0:
            raise ValueError(
                f"feature ({site.layer}, {index}) at {site} never fired in the calibration text, "
                "so it has no typical maximum; give the strength with unit='norm' or unit='raw'"
            )
        return maximum

    def calibrated(self, site: Site) -> bool:
        """Whether typical maxima and norms are known at `site`."""
        return f"{site.kind}/{site.layer}/maximum" in self._statistics

    def maxima(self, site: Site) -> Tensor:
        """Typical maximum of every feature ``(d_sae,)``; 0 for those that never fired."""
        return self._calibration(site, "maximum")

    def mean_norm(self, site: Site) -> float:
        """Mean norm of the activation at `site`, ``<bos>`` left out."""
        return float(self._calibration(site, "norm"))

    def density(self, site: Site) -> Tensor:
        """Share of tokens on which each feature fires ``(d_sae,)``."""
        return self._calibration(site, "density")

    def label(self, site: Site, index: int) -> str:
        """What the feature stands for, or what it writes, or an empty string."""
        named = self._labels.get(f"{site.kind}/{site.layer}", {}).get(str(index), {})
        writes, _ = self._writes.get((site, index), ("", 0.0))
        return named.get("label") or writes

    def tested_strength(self, site: Site, index: int) -> float | None:
        """The strength up to which steering by the feature was seen to work; None if untested."""
        return self._writes.get((site, index), ("", None))[1]

    def find(self, text: str) -> list[Labelled]:
        """Features whose label contains `text`, the surest label first."""
        found = []
        for key, labels in self._labels.items():
            kind, layer = key.split("/")
            site = Site(int(layer), check_kind(kind))
            for index, entry in labels.items():
                if text in entry["label"]:
                    found.append(Labelled(site, int(index), entry["label"], entry["score"]))
        return sorted(found, key=lambda one: (-one.score, one.site, one.index))

    def _opened(self, entry: Entry) -> SAE:
        with self._lock:
            if entry.path not in self._open:
                self._open[entry.path] = load_sae(
                    entry.path, model=self.model, dtype=self.dtype, device=self.device
                )
            return self._open[entry.path]

    @cached_property
    def _statistics(self) -> dict[str, Tensor]:
        path = self.root / "calibration.safetensors"
        return load_file(path) if path.exists() else {}

    @cached_property
    def steering(self) -> dict[str, dict[str, Any]]:
        """What was seen to write each label; only labels that passed the test are here.

        Of each the ``layer`` and ``feature`` in the residual stream, the ``strength`` in multiples
        of its typical maximum, and the ``share`` of the label's words in the steered text.
        """
        path = self.root / "steering.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    @cached_property
    def _writes(self) -> dict[tuple[Site, int], tuple[str, float]]:
        return {
            (Site(one["layer"]), one["feature"]): (f"writes {label}", one["strength"])
            for label, one in self.steering.items()
        }

    @cached_property
    def _labels(self) -> dict[str, dict[str, dict[str, Any]]]:
        path = self.root / "labels.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def _calibration(self, site: Site, name: str) -> Tensor:
        key = f"{site.kind}/{site.layer}/{name}"
        if key not in self._statistics:
            raise ValueError(
                f"{self.model} has no calibration at {site}; give strengths with unit='raw' instead"
            )
        return self._statistics[key]

    def _has(self) -> str:
        kinds = sorted({e.kind for e in self.entries})
        layers = sorted({e.layer for e in self.entries})
        widths = sorted({e.width for e in self.entries})
        return f"it has kinds {kinds}, layers {layers[0]} to {layers[-1]}, widths {widths}"


def _width(width: str | int) -> int:
    found = width if isinstance(width, int) else named_width(width.lower())
    if found is None:
        raise ValueError(f"width {width!r}: give a number of features or a name such as '16k'")
    return found
