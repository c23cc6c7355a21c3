"""Edits of a whole activation: patch it, splice an SAE's reconstruction in, or freeze it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workbench.scopes import Occasion, Scope, as_tuple, normalise
from workbench.sites import Site


@dataclass(frozen=True, eq=False)
class Patch:
    """Replace an activation by another run's, at the same prompt positions.

    With `features`, only their part is replaced: ``x + sum_i (f_i' - f_i) d_i``, with ``f'`` of the
    other run.
    """

    site: Site
    """Where."""
    activation: Tensor
    """``(pos, d_in)`` of the other run, such as ``run.activation(5)``."""
    positions: Sequence[int] | None = field(default=None, kw_only=True)
    """Prompt positions, or None for all but ``<bos>`` that both have."""
    features: Sequence[int] | None = field(default=None, kw_only=True)
    """Indices in the site's SAE, or None for the whole activation."""

    def __post_init__(self) -> None:
        _check_site("a patch", self.site)
        if self.site.kind == "transcoder":
            raise ValueError(
                f"{self.site} is only read: patch what its MLP writes, at {self.site.writes_at}"
            )
        if not isinstance(self.activation, Tensor) or self.activation.dim() != 2:
            got = tuple(getattr(self.activation, "shape", ())) or type(self.activation).__name__
            raise ValueError(f"the activation to patch in must be a tensor (pos, d_in), got {got}")
        if not torch.isfinite(self.activation).all():
            raise ValueError("the activation to patch in holds NaN or infinity")
        normalise(self, "positions", "features")

    @property
    def scope(self) -> Scope:
        """Where the edit acts."""
        return Scope("prompt", as_tuple(self.positions))


@dataclass(frozen=True, kw_only=True)
class Splice:
    """Put an SAE's reconstruction in the place of the activation: all features, or some only.

    ``x' = b_dec + sum_{i kept} f_i d_i``, and ``+ (x - SAE(x))`` with the error term. A transcoder
    reads its input ``x`` and replaces what the MLP writes: ``y' = T_kept(x)``, and ``+ (y - T(x))``
    with the error term. Without `keep` and `drop` every feature is kept; then the error term makes
    it a splice that changes nothing.
    """

    site: Site = field(kw_only=False)
    """Where the SAE reads."""
    keep: Sequence[int] | None = None
    """Indices of the only features to keep; an empty list keeps the bias alone. None: all."""
    drop: Sequence[int] | None = None
    """Indices of features to leave out, the others are kept."""
    error: bool = False
    """Whether what the SAE fails to reconstruct is added back."""
    when: Occasion = "both"
    """``"prompt"``, ``"generated"`` or ``"both"``."""
    positions: Sequence[int] | None = None
    """Prompt positions, or None for all but ``<bos>``."""
    steps: Sequence[int] | None = None
    """Forward passes, or None for all."""

    def __post_init__(self) -> None:
        _check_site("a splice", self.site)
        if self.keep is not None and self.drop is not None:
            raise ValueError("keep and drop both say which features stay: give one of them")
        if not isinstance(self.error, bool):
            raise TypeError(f"error is True or False, got {self.error!r}")
        normalise(self, "positions", "steps")
        normalise(self, "keep", "drop", empty=True)
        _ = self.scope  # its own checks

    @property
    def scope(self) -> Scope:
        """Where the edit acts."""
        return Scope(self.when, as_tuple(self.positions), as_tuple(self.steps))


@dataclass(frozen=True)
class Freeze:
    """Hold the activation at what it is in the unedited run over the same text.

    What was edited before can then reach what comes after only around this site. Every position is
    held, ``<bos>`` too. Other edits at the site act on the frozen value.
    """

    site: Site
    """Where."""

    def __post_init__(self) -> None:
        _check_site("a freeze", self.site)
        if self.site.kind == "transcoder":
            raise ValueError(
                f"{self.site} is only read: freeze what its MLP writes, at {self.site.writes_at}"
            )

    @property
    def scope(self) -> Scope:
        """Everywhere."""
        return Scope()


def _check_site(what: str, site: object) -> None:
    if not isinstance(site, Site):
        raise TypeError(f"{what} needs a Site, such as Site(5, 'res'); got {site!r}")
