"""Edits bound to a suite of SAEs: numbers in activation units, and only the weights that are needed.

The edits of one site become one small program: ``k`` columns of ``W_enc`` give the ``k`` activations, every edit turns
its own into a coefficient, and ``k`` rows of ``W_dec`` turn the coefficients into one difference. That is
``2 k d_in`` multiplications a token instead of ``2 d_in d_sae``, so twenty edits cost about what one costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from workbench.edits import Ablate, Clamp, Edit, Patch, Scale, Scope, Steer, When
from workbench.sae import SAE
from workbench.sites import Site


class FeatureSource(Protocol):
    """Where the engine gets SAEs and calibration from."""

    def sae_at(self, site: Site) -> SAE:
        """The SAE that reads `site`."""
        ...

    def typical_maximum(self, site: Site, index: int) -> float:
        """Activation that the feature reaches in ordinary text when it is strongly present."""
        ...

    def mean_norm(self, site: Site) -> float:
        """Mean Euclidean norm of the activation at `site`, ``<bos>`` left out."""
        ...


Watch = tuple[Site, int]
"""A feature whose activation a condition needs: where it is read, and its index."""


@dataclass(frozen=True)
class Term:
    """One feature edit of a site."""

    number: int
    """Place in the caller's list."""
    edit: Steer | Clamp | Scale | Ablate
    amount: float
    """The edit's number in activation units."""
    condition: tuple[Watch, float] | None
    """A feature and the activation it must exceed."""


@dataclass(frozen=True)
class Group:
    """All feature edits that read one site."""

    site: Site
    sae: SAE
    terms: tuple[Term, ...]

    @cached_property
    def indices(self) -> list[int]:
        """Feature of each term."""
        return [term.edit.index for term in self.terms]

    @cached_property
    def rows(self) -> Tensor:
        """Decoder rows ``(term, d_out)``."""
        return torch.stack([self.sae.direction(index) for index in self.indices])

    @cached_property
    def needs_activations(self) -> bool:
        """False when every edit adds a constant."""
        return not all(isinstance(term.edit, Steer) for term in self.terms)

    def coefficients(self, x: Tensor) -> Tensor:
        """What each term adds of its decoder row, before masks ``(batch, pos, term)``."""
        shape = (*x.shape[:-1], len(self.terms))
        if self.needs_activations:
            activations = self.sae.encode_features(x, self.indices)
        else:
            activations = torch.zeros(shape, device=x.device, dtype=torch.float32)
        return torch.stack(
            [t.edit.coefficient(activations[..., i], t.amount) for i, t in enumerate(self.terms)], -1
        )


@dataclass(frozen=True)
class Program:
    """What to do at each site of one run."""

    edits: tuple[Edit, ...]
    groups: dict[Site, Group]
    """By the site where the features are read."""
    patches: dict[Site, tuple[tuple[int, Patch, SAE | None], ...]]
    watches: dict[Site, tuple[tuple[int, SAE], ...]]
    """Features that conditions need, by site."""

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Every site that the run must stop at, in execution order."""
        reads = {*self.groups, *self.patches, *self.watches}
        return tuple(sorted(reads | {site.writes_at for site in self.groups}))

    @cached_property
    def scopes(self) -> tuple[Scope, ...]:
        """The scope of each edit."""
        return tuple(edit.scope for edit in self.edits)


def bind(edits: Sequence[Edit], source: FeatureSource | None) -> Program:
    """Gather what `edits` need from `source`.

    Raises:
        TypeError: If something in the list is not an edit.
        ValueError: If a feature does not exist, or a patch does not fit its site.
    """
    terms: dict[Site, list[Term]] = {}
    patches: dict[Site, list[tuple[int, Patch, SAE | None]]] = {}
    watches: dict[Site, dict[int, SAE]] = {}
    for number, edit in enumerate(edits):
        if isinstance(edit, Patch):
            patches.setdefault(edit.site, []).append((number, edit, _patch_sae(edit, source)))
            continue
        inner = edit.edit if isinstance(edit, When) else edit
        if not isinstance(inner, Steer | Clamp | Scale | Ablate):
            raise TypeError(
                f"edit {number} is {edit!r}; an edit is one of Steer, Clamp, Scale, Ablate, Patch, When"
            )
        condition = None
        if isinstance(edit, When):
            site, index = edit.condition_site, edit.condition[1]
            watches.setdefault(site, {})[index] = _checked(source, site, index)
            condition = ((site, index), edit.above)
        sae = _checked(source, inner.site, inner.index)
        amount = _amount(inner, source, sae)
        terms.setdefault(inner.site, []).append(Term(number, inner, amount, condition))
    return Program(
        edits=tuple(edits),
        groups={s: Group(s, _source(source).sae_at(s), tuple(t)) for s, t in terms.items()},
        patches={site: tuple(found) for site, found in patches.items()},
        watches={site: tuple(found.items()) for site, found in watches.items()},
    )


def _source(source: FeatureSource | None) -> FeatureSource:
    if source is None:
        raise ValueError("editing a feature needs a suite of SAEs: open the model with wb.open(...)")
    return source


def _checked(source: FeatureSource | None, site: Site, index: int) -> SAE:
    sae = _source(source).sae_at(site)
    sae.check_index(index)
    return sae


def _amount(edit: Steer | Clamp | Scale | Ablate, source: FeatureSource | None, sae: SAE) -> float:
    """The edit's number in activation units.

    A share of the layer's mean norm is divided by the norm of the decoder row, which is 1 in Gemma Scope's SAEs but not
    in every format.
    """
    value, unit = edit.amount
    if unit == "max":
        return value * _source(source).typical_maximum(edit.site, edit.index)
    if unit == "norm":
        norm = float(torch.linalg.vector_norm(sae.direction(edit.index).float()))
        return value * _source(source).mean_norm(edit.site.writes_at) / norm
    return value


def _patch_sae(patch: Patch, source: FeatureSource | None) -> SAE | None:
    if patch.features is None:
        return None
    if patch.site.kind == "transcoder":
        raise ValueError("a transcoder's input cannot be patched by features; patch the 'mlp' site")
    for index in patch.features:
        _checked(source, patch.site, index)
    return _source(source).sae_at(patch.site)


def patch_difference(patch: Patch, sae: SAE | None, x: Tensor, positions: Tensor) -> Tensor:
    """What a patch adds ``(batch, pos, d_in)``; zero beyond the other run's end.

    Args:
        patch: The edit.
        sae: For a patch of features only.
        x: Activation ``(batch, pos, d_in)``.
        positions: ``(batch, pos)`` position of each token, negative for padding.
    """
    other = patch.activation.to(x.device, torch.float32)
    if other.shape[1] != x.shape[2]:
        raise ValueError(
            f"the patch at {patch.site} is {other.shape[1]} wide and the activation {x.shape[2]}; "
            "take it from the same site of the same model"
        )
    known = ((positions >= 0) & (positions < len(other)))[..., None]
    target = other[positions.clamp(0, len(other) - 1)]
    if sae is None:
        return (target - x.float()) * known
    indices = list(patch.features or ())
    change = sae.encode_features(target, indices) - sae.encode_features(x.float(), indices)
    rows = torch.stack([sae.direction(index) for index in indices]).float()
    return (change.float() @ rows) * known
