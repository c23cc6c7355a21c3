"""Edits bound to a suite of SAEs: everything checked, and only the weights needed gathered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch

from workbench.architectures import architecture_of
from workbench.engine.edits import (
    Ablate,
    Clamp,
    Edit,
    Freeze,
    Patch,
    Scale,
    Splice,
    Steer,
    When,
    edit_list,
)
from workbench.engine.program import CPU, Group, Probe, Program, Reconstruction, Replacement, Term
from workbench.sae import SAE
from workbench.sites import KINDS, Site, check_kind


class FeatureSource(Protocol):
    """Where the engine gets SAEs and calibration from."""

    def sae_at(self, site: Site) -> SAE:
        """The SAE that reads `site`."""
        ...

    def typical_maximum(self, site: Site, index: int) -> float:
        """Activation that the feature reaches in ordinary text when it is strongly present."""
        ...

    def mean_activation(self, site: Site, index: int) -> float:
        """Mean activation of the feature over ordinary text, ``<bos>`` left out."""
        ...

    def mean_norm(self, site: Site) -> float:
        """Mean Euclidean norm of the activation at `site`, ``<bos>`` left out."""
        ...


def bind(
    edits: Sequence[Edit],
    source: FeatureSource | None,
    *,
    rows: Sequence[Sequence[int]] | None = None,
    device: torch.device = CPU,
) -> Program:
    """Gather on `device` what `edits` need from `source`.

    Args:
        edits: Every edit of the batch; with `rows`, checked by `edit_list` row by row.
        source: SAEs and calibration.
        rows: Places in `edits` of those that each row of the batch has; all have all if left out.
        device: Where the run is.

    Raises:
        TypeError: If something in the list is not an edit.
        ValueError: If a feature does not exist.
    """
    edits = edit_list(edits) if rows is None else tuple(edits)
    members = _members(rows, len(edits), device)
    found = _Gathered(source, device)
    for number, edit in enumerate(edits):
        found.add(number, edit)

    def group(site: Site, terms: list[Term]) -> Group:
        mine = None if members is None else members[:, None, [term.number for term in terms]]
        return Group(site, found.sae(site), tuple(terms), device, mine)

    return Program(
        edits=edits,
        groups={site: group(site, terms) for site, terms in found.terms.items()},
        patches={site: tuple(these) for site, these in found.patches.items()},
        splices={site: tuple(these) for site, these in found.splices.items()},
        freezes={site: tuple(these) for site, these in found.freezes.items()},
        watches={s: Probe.of(found.sae(s), i, device) for s, i in found.watched.items()},
        members=members,
    )


def _members(
    rows: Sequence[Sequence[int]] | None, count: int, device: torch.device
) -> torch.Tensor | None:
    """Which rows have which edits ``(batch, edit)``; None if all have all."""
    if rows is None or all(len(set(row)) == count for row in rows):
        return None
    members = torch.zeros(len(rows), count, dtype=torch.bool)
    for number, row in enumerate(rows):
        members[number, list(row)] = True
    return members.to(device)


class _Gathered:
    """What the edits of a batch need, site by site."""

    def __init__(self, source: FeatureSource | None, device: torch.device) -> None:
        self._source, self._device = source, device
        self._saes: dict[Site, SAE] = {}
        self.terms: dict[Site, list[Term]] = {}
        self.patches: dict[Site, list[Replacement]] = {}
        self.splices: dict[Site, list[Reconstruction]] = {}
        self.freezes: dict[Site, list[int]] = {}
        self.watched: dict[Site, list[int]] = {}

    def add(self, number: int, edit: Edit) -> None:
        """Note one edit.

        Raises:
            ValueError: If a feature does not exist, or there is no source.
        """
        if isinstance(edit, Freeze):
            self.freezes.setdefault(edit.site, []).append(number)
        elif isinstance(edit, Patch):
            sae = None if edit.features is None else self.sae(edit.site, edit.features)
            patch = Replacement(number, edit, sae, self._device)
            self.patches.setdefault(edit.site, []).append(patch)
        elif isinstance(edit, Splice):
            sae = self.sae(edit.site, (*(edit.keep or ()), *(edit.drop or ())))
            splice = Reconstruction(number, edit, sae, self._device)
            self.splices.setdefault(edit.site, []).append(splice)
        else:
            self._add_term(number, edit)

    def _add_term(self, number: int, edit: Steer | Clamp | Scale | Ablate | When) -> None:
        condition = None
        if isinstance(edit, When):
            site, index = edit.condition_site, edit.condition[1]
            self.sae(site, [index])
            places = self.watched.setdefault(site, [])
            if index not in places:
                places.append(index)
            condition = ((site, places.index(index)), edit.above)
        inner = edit.edit if isinstance(edit, When) else edit
        amount = _amount(inner, self._source, self.sae(inner.site, [inner.index]))
        term = Term(number, inner, amount, edit.scope, condition)
        self.terms.setdefault(inner.site, []).append(term)

    def sae(self, site: Site, indices: Sequence[int] = ()) -> SAE:
        """The SAE of `site`, which has the features `indices`."""
        if site not in self._saes:
            self._saes[site] = _needed(self._source).sae_at(site)
        sae = self._saes[site]
        for index in indices:
            sae.check_index(index)
        return sae


def _needed(source: FeatureSource | None) -> FeatureSource:
    if source is None:
        raise ValueError(
            "editing a feature needs a suite of SAEs: open the model with wb.open(...)"
        )
    return source


def check_program(program: Program, config: Any) -> Program:
    """The program itself when every site and width is the model's.

    Raises:
        ValueError: Naming the layer, the SAE or the patch that does not fit.
    """
    for site in program.sites:
        site.check(config)
    for site, group in program.groups.items():
        check_width(group.sae, site, config)
    for site, probe in program.watches.items():
        check_width(probe.sae, site, config)
    for site, splices in program.splices.items():
        check_width(splices[0].sae, site, config)
    for site, replacements in program.patches.items():
        for found in replacements:
            wanted, got = site.width(config), found.patch.activation.shape[1]
            if got != wanted:
                raise ValueError(
                    f"the patch at {site} is {got} wide and the activation {wanted}; "
                    "take it from the same site of the same model"
                )
            if found.sae is not None:
                check_width(found.sae, site, config)
    return program


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


def common_site(saes: Iterable[SAE], module: Any) -> Site:
    """The one site that all of some SAEs read.

    Raises:
        ValueError: If there is no SAE, or they read different sites.
    """
    sites = sorted({site_of(sae, module) for sae in saes})
    if len(sites) != 1:
        raise ValueError(f"SAEs of one site are compared, got {sites or 'none'}")
    return sites[0]


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
    if isinstance(edit, Ablate) and edit.to == "mean":
        return _needed(source).mean_activation(edit.site, edit.index)
    if unit == "max":
        return value * _needed(source).typical_maximum(edit.site, edit.index)
    if unit == "norm":
        norm = float(torch.linalg.vector_norm(sae.direction(edit.index).float()))
        return value * _needed(source).mean_norm(edit.site.writes_at) / norm
    return value
