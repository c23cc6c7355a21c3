"""Edits bound to a suite of SAEs: numbers in activation units, and only the weights needed.

The edits of one site become one small program: ``k`` columns of ``W_enc`` give the ``k``
activations ``f``, every edit is a line ``a + b f``, and ``k`` rows of ``W_dec`` turn those
coefficients into one difference. That is ``2 k d_in`` multiplications a token instead of
``2 d_in d_sae``, in a fixed number of tensor operations, so twenty edits cost about what one costs.
All weights are gathered here, once, and not in the passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from workbench.architectures import architecture_of
from workbench.edits import Ablate, Clamp, Edit, Patch, Scale, Scope, Steer, When, edit_list
from workbench.sae import SAE
from workbench.sites import KINDS, Site, check_kind

CPU = torch.device("cpu")


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


@dataclass(frozen=True, eq=False)
class Probe:
    """Reads a few features of one site."""

    sae: SAE
    """These features only, or the whole SAE where one activation depends on all (TopK)."""
    chosen: tuple[int, ...] | None
    """What to keep of the whole SAE's features."""

    @classmethod
    def of(cls, sae: SAE, indices: Sequence[int], device: torch.device) -> Probe:
        """A probe for the features `indices`, which may repeat, with its weights on `device`."""
        if sae.k is not None:
            return cls(sae.to(device), tuple(indices))
        return cls(sae.select(indices).to(device), None)

    def activations(self, x: Tensor) -> Tensor:
        """Activations ``(..., index)`` in float32 of the features at `x` ``(..., d_in)``."""
        found = self.sae.encode(x)
        return (found if self.chosen is None else found[..., self.chosen]).float()

    def shares(self, x: Tensor) -> Tensor:
        """Multiples ``(..., index)`` of the decoder rows that the SAE's output holds at `x`."""
        scale = self.sae.output_scale(x)
        return self.activations(x) if scale is None else self.activations(x) * scale


Watch = tuple[Site, int]
"""A feature whose activation a condition needs: where it is read, and its place in the probe."""


@dataclass(frozen=True)
class Term:
    """One feature edit of a site."""

    number: int
    """Place in the caller's list."""
    edit: Steer | Clamp | Scale | Ablate
    amount: float
    """The edit's number in activation units."""
    scope: Scope
    condition: tuple[Watch, float] | None
    """A feature and the activation it must exceed."""


@dataclass(frozen=True, eq=False)
class Group:
    """All feature edits that read one site."""

    site: Site
    sae: SAE
    terms: tuple[Term, ...]
    device: torch.device = CPU

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Place of each term in the caller's list."""
        return tuple(term.number for term in self.terms)

    @cached_property
    def indices(self) -> list[int]:
        """Feature of each term."""
        return [term.edit.index for term in self.terms]

    @cached_property
    def rows(self) -> Tensor:
        """Decoder rows ``(term, d_out)``, in float32."""
        rows = torch.stack([self.sae.direction(index) for index in self.indices])
        return rows.to(self.device, torch.float32)

    @cached_property
    def row_norms(self) -> Tensor:
        """Norms of the decoder rows ``(term,)``."""
        return self.rows.norm(dim=-1)

    @cached_property
    def probe(self) -> Probe | None:
        """Reads the terms' features; None when every edit adds a constant."""
        if all(isinstance(term.edit, Steer) for term in self.terms):
            return None
        return Probe.of(self.sae, self.indices, self.device)

    @cached_property
    def lines(self) -> tuple[Tensor, Tensor]:
        """Constants and slopes of the terms ``(term,)``."""
        lines = torch.tensor([t.edit.line(t.amount) for t in self.terms], device=self.device)
        return lines[:, 0], lines[:, 1]

    @cached_property
    def in_output_units(self) -> Tensor:
        """Which terms' constants are shares of the layer's norm already ``(term,)``."""
        return torch.tensor([t.edit.amount[1] == "norm" for t in self.terms], device=self.device)

    @cached_property
    def conditions(self) -> tuple[tuple[Site, Tensor, Tensor, Tensor], ...]:
        """By site: the terms ``(n,)`` with a condition there, what they watch, and the limits."""
        found: dict[Site, list[tuple[int, int, float]]] = {}
        for i, term in enumerate(self.terms):
            if term.condition is not None:
                (site, place), above = term.condition
                found.setdefault(site, []).append((i, place, above))
        return tuple(
            (
                site,
                torch.tensor([i for i, _, _ in rows], device=self.device),
                torch.tensor([place for _, place, _ in rows], device=self.device),
                torch.tensor([above for _, _, above in rows], device=self.device),
            )
            for site, rows in found.items()
        )

    @cached_property
    def scopes(self) -> tuple[Scope, ...]:
        """The different scopes of the terms."""
        return tuple(dict.fromkeys(term.scope for term in self.terms))

    @cached_property
    def scope_of_term(self) -> Tensor:
        """Which of `scopes` each term has ``(term,)``."""
        places = [self.scopes.index(term.scope) for term in self.terms]
        return torch.tensor(places, device=self.device)

    def coefficients(self, x: Tensor) -> Tensor:
        """What each term adds of its decoder row, before masks ``(batch, pos, term)``.

        In an SAE that normalises its input an activation ``f`` stands for ``f scale d`` of the
        output, with the token's own scale.
        """
        constants, slopes = self.lines
        scale = self.sae.output_scale(x)
        if scale is not None:
            constants = torch.where(self.in_output_units, constants, constants * scale)
            slopes = slopes * scale
        if self.probe is None:
            return constants.expand(*x.shape[:-1], -1)
        return constants + slopes * self.probe.activations(x)


@dataclass(frozen=True, eq=False)
class Replacement:
    """A patch with all that it needs."""

    number: int
    """Place in the caller's list."""
    patch: Patch
    sae: SAE | None
    """For a patch of features only."""
    device: torch.device = CPU

    @cached_property
    def _features(self) -> tuple[Probe, Tensor, Tensor] | None:
        """Probe, what the other run holds of the rows ``(pos, index)``, and the decoder rows."""
        if self.sae is None:
            return None
        indices = list(self.patch.features or ())
        probe = Probe.of(self.sae, indices, self.device)
        rows = torch.stack([self.sae.direction(index) for index in indices])
        return probe, probe.shares(self._other), rows.to(self.device, torch.float32)

    @cached_property
    def _other(self) -> Tensor:
        return self.patch.activation.to(self.device, torch.float32)

    def difference(self, x: Tensor, positions: Tensor) -> Tensor:
        """What the patch adds ``(batch, pos, d_in)``; zero beyond the other run's end.

        Args:
            x: Activation ``(batch, pos, d_in)``.
            positions: ``(batch, pos)`` position of each token, negative for padding.
        """
        end = len(self._other)
        known = ((positions >= 0) & (positions < end))[..., None]
        where = positions.clamp(0, end - 1)
        if self._features is None:
            change = self._other[where] - x.float()
        else:
            probe, target, rows = self._features
            change = (target[where] - probe.shares(x)) @ rows
        return change.masked_fill(~known, 0)


@dataclass(frozen=True, eq=False)
class Program:
    """What to do at each site of one run."""

    edits: tuple[Edit, ...]
    groups: dict[Site, Group]
    """By the site where the features are read."""
    patches: dict[Site, tuple[Replacement, ...]]
    watches: dict[Site, Probe]
    """Features that conditions need, by site."""

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Every site that the run must stop at, in execution order."""
        reads = {*self.groups, *self.patches, *self.watches}
        return tuple(sorted(reads | {site.writes_at for site in self.groups}))

    @cached_property
    def scopes(self) -> tuple[Scope, ...]:
        """The different scopes of the edits."""
        return tuple(dict.fromkeys(edit.scope for edit in self.edits))

    def check(self, config: Any) -> Program:
        """The program itself when every site and width is the model's.

        Raises:
            ValueError: Naming the layer, the SAE or the patch that does not fit.
        """
        for site in self.sites:
            site.check(config)
        for site, group in self.groups.items():
            check_width(group.sae, site, config)
        for site, probe in self.watches.items():
            check_width(probe.sae, site, config)
        for site, replacements in self.patches.items():
            for found in replacements:
                wanted, got = site.width(config), found.patch.activation.shape[1]
                if got != wanted:
                    raise ValueError(
                        f"the patch at {site} is {got} wide and the activation {wanted}; "
                        "take it from the same site of the same model"
                    )
                if found.sae is not None:
                    check_width(found.sae, site, config)
        return self


def bind(
    edits: Sequence[Edit], source: FeatureSource | None, *, device: torch.device = CPU
) -> Program:
    """Gather on `device` what `edits` need from `source`.

    Raises:
        TypeError: If something in the list is not an edit.
        ValueError: If a feature does not exist.
    """
    terms: dict[Site, list[Term]] = {}
    patches: dict[Site, list[Replacement]] = {}
    watched: dict[Site, list[int]] = {}
    edits = edit_list(edits)
    for number, edit in enumerate(edits):
        if isinstance(edit, Patch):
            found = Replacement(number, edit, _patch_sae(edit, source), device)
            patches.setdefault(edit.site, []).append(found)
            continue
        condition = None
        if isinstance(edit, When):
            site, index = edit.condition_site, edit.condition[1]
            _checked(source, site, index)
            places = watched.setdefault(site, [])
            if index not in places:
                places.append(index)
            condition = ((site, places.index(index)), edit.above)
        inner = edit.edit if isinstance(edit, When) else edit
        amount = _amount(inner, source, _checked(source, inner.site, inner.index))
        term = Term(number, inner, amount, edit.scope, condition)
        terms.setdefault(inner.site, []).append(term)

    def sae(site: Site) -> SAE:
        return _source(source).sae_at(site)

    return Program(
        edits=edits,
        groups={s: Group(s, sae(s), tuple(found), device) for s, found in terms.items()},
        patches={s: tuple(found) for s, found in patches.items()},
        watches={s: Probe.of(sae(s), places, device) for s, places in watched.items()},
    )


def _source(source: FeatureSource | None) -> FeatureSource:
    if source is None:
        raise ValueError(
            "editing a feature needs a suite of SAEs: open the model with wb.open(...)"
        )
    return source


def _checked(source: FeatureSource | None, site: Site, index: int) -> SAE:
    sae = _source(source).sae_at(site)
    sae.check_index(index)
    return sae


def site_of(sae: SAE, module: Any) -> Site:
    """The site of a model that an SAE says it reads.

    What ``transcoder`` means depends on the model: Gemma Scope's read the MLP's input without the
    norm's gain, all others with it (``mlp_in`` in `workbench.sae.formats.places`).

    Args:
        sae: The SAE.
        module: The transformers model.

    Raises:
        ValueError: If the model has no such site.
    """
    kind = sae.config.kind
    with_gain = architecture_of(module).transcoder_reads != "normalised input"
    if kind == "mlp_in" and with_gain:
        kind = "transcoder"
    elif kind == "transcoder" and with_gain and sae.config.hook.endswith("hook_normalized"):
        raise ValueError(
            f"{sae.name} reads the MLP's input without its norm's gain ({sae.config.hook}), which "
            "is a site of Gemma 2 only"
        )
    if kind not in KINDS:
        raise ValueError(
            f"{sae.name} reads {kind!r} ({sae.config.hook or 'no hook named'}), which is no site "
            f"of this model here; the kinds are {', '.join(map(repr, KINDS))}"
        )
    config = module.config.get_text_config()
    site = Site(sae.config.layer, check_kind(kind)).check(config)
    check_width(sae, site, config)
    return site


def check_width(sae: SAE, site: Site, config: Any) -> None:
    """Check that an SAE fits a site of the model with this `config`.

    Raises:
        ValueError: If it reads or writes another width.
    """
    wanted = site.width(config), site.writes_at.width(config)
    got = sae.config.d_in, sae.config.d_out
    if got != wanted:
        raise ValueError(
            f"the SAE for {site} maps width {got[0]} to {got[1]} and the model needs {wanted[0]} "
            f"to {wanted[1]}: it belongs to another model or another kind of site"
        )


def _amount(edit: Steer | Clamp | Scale | Ablate, source: FeatureSource | None, sae: SAE) -> float:
    """The edit's number in activation units.

    A share of the layer's mean norm is divided by the norm of the decoder row, which is 1 in
    Gemma Scope's SAEs but not in every format.
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
    for index in patch.features:
        _checked(source, patch.site, index)
    return _source(source).sae_at(patch.site)
