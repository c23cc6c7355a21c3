"""The SAEs of a recipe: which rows were used, and whether a lab has the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.recipes.rows import Row
from workbench.sae import SAE
from workbench.sites import Kind, Site

if TYPE_CHECKING:
    from workbench.lab import Lab

TOLERANCE = 0.01
"""Share by which a typical maximum may differ before it is said: less is invisible in the text."""


@dataclass(frozen=True, kw_only=True)
class Used:
    """An SAE that a recipe needs."""

    layer: int
    kind: Kind
    name: str
    """The SAE's own name."""
    width: int
    """Number of its features."""
    features: tuple[int, ...] | None
    """Those that are used; None for all."""
    hash: str
    """SHA-256 of their weights."""
    unit: tuple[float, ...] | None = None
    """Typical maximum of each of `features`, where strengths are multiples of it."""

    def __post_init__(self) -> None:
        for name in ("features", "unit"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(values))
        _ = self.site

    @property
    def site(self) -> Site:
        """Where it reads."""
        return Site(self.layer, self.kind)


def needed_features(rows: Iterable[Row]) -> dict[Site, tuple[int, ...] | None]:
    """The features that rows need at each site, in ascending order; None for all of an SAE."""
    found: dict[Site, set[int] | None] = {}
    for row in rows:
        for site, features in row.features.items():
            before = found.get(site, set())
            found[site] = None if features is None or before is None else before | set(features)
    return {site: None if f is None else tuple(sorted(f)) for site, f in found.items()}


def used(lab: Lab, site: Site, features: tuple[int, ...] | None, *, maxima: bool = False) -> Used:
    """An SAE as `lab` has it.

    Raises:
        ValueError: If there is none, or it lacks a feature.
    """
    sae = lab.suite.sae_at(site)
    return Used(
        layer=site.layer,
        kind=site.kind,
        name=sae.name,
        width=sae.config.d_sae,
        features=features,
        hash=rows_hash(sae, features),
        unit=tuple(lab.suite.typical_maximum(site, i) for i in features)
        if maxima and features
        else None,
    )


def rows_hash(sae: SAE, features: Sequence[int] | None) -> str:
    """SHA-256 of the weights of some features, or of the whole SAE, whatever their dtype.

    Raises:
        ValueError: If the SAE lacks a feature.
    """
    digest = hashlib.sha256(f"{sae.activation} {sae.k} {sae.normalize}".encode())
    rows = [sae.check_index(i) for i in features] if features is not None else slice(None)
    parts = [sae.W_enc[:, rows], sae.b_enc[rows], sae.W_dec[rows]]
    parts += [] if sae.threshold is None else [sae.threshold[rows]]
    parts += [sae.b_dec] if features is None else []
    for part in parts:
        digest.update(part.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def unlike(lab: Lab, one: Used) -> list[str]:
    """In what an SAE of `lab` differs from the one that was used."""
    found = []
    sae = lab.suite.sae_at(one.site)
    if one.features is None and sae.config.d_sae != one.width:
        found.append(
            f"the SAE at {one.site} has {sae.config.d_sae} features and the recipe's {one.width}"
        )
    elif rows_hash(sae, one.features) != one.hash:
        found.append(
            f"the SAE at {one.site} has other weights than the recipe's: it used {one.name}, and "
            f"here is {sae.name}"
        )
    units = dict(zip(one.features or (), one.unit or (), strict=False))
    measured = {index: lab.suite.knows_maximum(one.site, index) for index in units}
    if not all(measured.values()):
        found.append(
            f"strengths are multiples of typical maxima, and those of the SAE at {one.site} are "
            "not measured here before it runs: call lab.prepare(recipe.edits(lab)) to compare them"
        )
    for index, wanted in units.items():
        if not measured[index]:
            continue
        try:
            got = lab.suite.typical_maximum(one.site, index)
        except ValueError as error:
            found.append(f"strengths are multiples of a typical maximum: {error}")
            continue
        if abs(got - wanted) > TOLERANCE * abs(wanted):
            found.append(
                f"feature {index} of {one.site} has a typical maximum of {got:.4g} here and had "
                f"{wanted:.4g}: the same strength is {got / wanted:.2f} times as much"
            )
    return found


def missing(lab: Lab, site: Site, features: Sequence[int] | None) -> list[str]:
    """Which of a site, its SAE and its features `lab` lacks."""
    try:
        site.check(lab.engine.config)
        sae = lab.suite.sae_at(site)
    except ValueError as error:
        return [str(error)]
    found = []
    for index in features or ():
        try:
            sae.check_index(index)
        except ValueError as error:
            found.append(str(error))
    return found
