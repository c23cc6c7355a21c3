"""A run: one forward pass over one text, with everything that was read.

A run keeps activations and computes features when they are asked for. Saved, it holds the features
of every site, so a run recorded on a large machine opens anywhere, with no model and no SAE.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.analysis.evaluation import Fit, fit
from workbench.engine.receipts import Receipt
from workbench.features import Features, Measure
from workbench.sae.suite import Suite
from workbench.sites import Kind, Site, check_kind
from workbench.tokens import Tokens

if TYPE_CHECKING:
    from torch import nn

FORMAT = "workbench-run-1"


@dataclass(frozen=True, eq=False)
class Run:
    """One traced forward pass."""

    model: str
    """Name of the model."""
    tokens: Tokens
    """The text."""
    logits: Tensor
    """``(pos, vocabulary)``."""
    activations: Mapping[Site, Tensor]
    """``(pos, d_in)`` at each site that was read."""
    receipt: Receipt
    """What edits did, if there were any."""
    suite: Suite | None = field(default=None, repr=False)
    """SAEs to compute features with; None in an opened recording."""
    module: nn.Module | None = field(default=None, repr=False)
    """The transformers model; None in an opened recording."""
    _features: dict[Site, Features] = field(default_factory=dict, repr=False)
    _labels: dict[str, str] = field(default_factory=dict, repr=False)
    _fits: dict[Site, Fit] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"<Run of {self.model}: {len(self.tokens)} tokens, {len(self.sites)} sites>"

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that were read or whose features are recorded, in execution order."""
        return tuple(sorted({*self.activations, *self._features}))

    def activation(self, layer: int, kind: Kind = "res") -> Tensor:
        """The activation ``(pos, d_in)`` at a site.

        Raises:
            ValueError: If the site was not read.
        """
        site = Site(layer, check_kind(kind))
        if site not in self.activations:
            raise ValueError(f"{site} is not in this run; {self._has()}")
        return self.activations[site]

    def features(self, layer: int, kind: Kind = "res") -> Features:
        """Sparse feature activations ``(pos, d_sae)`` at a site.

        Raises:
            ValueError: If the site was not read, or has no SAE.
        """
        site = Site(layer, check_kind(kind))
        if site not in self._features:
            if self.suite is None:
                raise ValueError(f"the features at {site} are not in this recording; {self._has()}")
            activation = self.activation(layer, kind)
            sae = self.suite.sae_at(site)
            self._features[site] = Features.encode(sae, site, self.tokens, activation)
        return self._features[site]

    def fit(self, layer: int, kind: Kind = "res") -> Fit:
        """How well the SAE of a site reconstructs this very text, ``<bos>`` left out.

        Raises:
            ValueError: If the site was not read or has no SAE, or the text has fewer than two
                tokens after ``<bos>``.
        """
        site = Site(layer, check_kind(kind))
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
        """
        parts = []
        try:
            found = self.fit(layer, kind)
            figures = f"L0 {found.l0:.0f}, FVU {found.fvu:.2f}"
            parts.append(f"{figures} on this text, <bos> left out")
        except ValueError:
            pass  # a text of one word, or a transcoder whose output was not read: nothing to say
        if self.suite is not None and self.model.endswith("-it") > self.suite.model.endswith("-it"):
            parts.append(f"SAE of {self.suite.model} on {self.model}")
        return " · ".join(parts)

    def label(self, site: Site, index: int) -> str:
        """What a feature stands for, where that is known."""
        if self.suite is not None:
            return self.suite.label(site, index)
        return self._labels.get(f"{site.kind}/{site.layer}/{index}", "")

    def typical_maximum(self, site: Site, index: int) -> float | None:
        """What the feature reaches when strongly present; None where nobody knows."""
        if self.suite is None or not self.suite.calibrated(site):
            return None
        maximum = float(self.suite.maxima(site)[index])
        return maximum if maximum > 0 else None

    def top(
        self, layer: int, kind: Kind = "res", *, k: int = 20, by: Measure = "max"
    ) -> pd.DataFrame:
        """Where the `k` features that are strongest on this text fire.

        Returns:
            Columns ``feature, label, activation, token, position, mean, density``: each feature's
            maximum, where it is, and its mean and share of tokens over the scored positions;
            strongest first.
        """
        features = self.features(layer, kind)
        rows = []
        for index in features.top(k, by=by):
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

    def heatmap(self, layer: int, kind: Kind = "res", **options: Any) -> Any:
        """The tokens by features of a site, as a widget; see `workbench.panels.Heatmap`."""
        from workbench.panels import Heatmap

        return Heatmap(self, layer, kind, **options)

    def evolution(self, feature: tuple[int, int], kind: Kind = "res", **options: Any) -> Any:
        """A feature through the layers, as a widget; see `workbench.panels.Evolution`."""
        from workbench.panels import Evolution

        return Evolution(self, feature, kind, **options)

    def save(self, path: str | Path) -> Path:
        """Write the run as one safetensors file.

        It holds the features of every site whose SAE is on disk; nothing is downloaded for it.

        Returns:
            The path.
        """
        if self.suite is not None:
            for site in self.activations:
                if site in self.suite.sites and self.suite.at_hand(site):
                    self.features(site.layer, site.kind)
        tensors = {"ids": torch.tensor(self.tokens.ids), "logits": self.logits.contiguous()}
        labels: dict[str, str] = {}
        for site, activation in self.activations.items():
            tensors[f"activation/{site.kind}/{site.layer}"] = activation.contiguous()
        for site, features in self._features.items():
            key = f"features/{site.kind}/{site.layer}"
            tensors[f"{key}/positions"] = features.positions
            tensors[f"{key}/indices"] = features.indices
            tensors[f"{key}/values"] = features.values
            tensors[f"{key}/d_sae"] = torch.tensor(features.d_sae)
            for index in features.indices.unique().tolist():
                label = self.label(site, index)
                if label:
                    labels[f"{site.kind}/{site.layer}/{index}"] = label
        header = {
            "format": FORMAT,
            "model": self.model,
            "strings": json.dumps(self.tokens.strings),
            "special": json.dumps(self.tokens.special),
            "labels": json.dumps(labels),
            "fits": json.dumps([_fit_to_json(one) for one in self._fits.values()]),
        }
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        save_file(tensors, partial, header)
        partial.replace(path)
        return path

    def _has(self) -> str:
        return "it has " + (", ".join(map(str, self.sites)) or "no site")


def open_run(path: str | Path) -> Run:
    """Open a saved run, with no model.

    Raises:
        ValueError: If the file is not a saved run.
    """
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        if header.get("format") != FORMAT:
            raise ValueError(f"{path} is not a saved run: its format is {header.get('format')!r}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    ids = tuple(tensors["ids"].tolist())
    tokens = Tokens(ids, tuple(json.loads(header["strings"])), tuple(json.loads(header["special"])))
    activations, features = {}, {}
    for name, tensor in tensors.items():
        what, *rest = name.split("/")
        if what == "activation":
            activations[Site(int(rest[1]), check_kind(rest[0]))] = tensor
        elif what == "features" and rest[2] == "values":
            site = Site(int(rest[1]), check_kind(rest[0]))
            parts = {
                p: tensors[f"features/{rest[0]}/{rest[1]}/{p}"]
                for p in ("positions", "indices", "values")
            }
            d_sae = int(tensors[f"features/{rest[0]}/{rest[1]}/d_sae"])
            features[site] = Features(site, tokens, **parts, d_sae=d_sae)
    return Run(
        model=header["model"],
        tokens=tokens,
        logits=tensors["logits"],
        activations=activations,
        receipt=Receipt(()),
        _features=features,
        _labels=json.loads(header["labels"]),
        _fits={one.site: one for one in map(_fit_of_json, json.loads(header.get("fits", "[]")))},
    )


def _fit_to_json(one: Fit) -> list:
    return [one.site.layer, one.site.kind, one.tokens, one.l0, one.fvu]


def _fit_of_json(row: list) -> Fit:
    return Fit(Site(row[0], check_kind(row[1])), *row[2:])
