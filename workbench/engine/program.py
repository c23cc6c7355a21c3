"""What a batch's edits come to: the weights and numbers of each site, as a few tensors.

The edits of one site become one small program: ``k`` columns of ``W_enc`` give the ``k``
activations ``f``, every edit is a line ``a + b f``, and ``k`` rows of ``W_dec`` turn those
coefficients into one difference. That is ``2 k d_in`` multiplications a token instead of
``2 d_in d_sae``, in a fixed number of tensor operations, so twenty edits cost about what one costs.
All weights are gathered once, and not in the passes.

The rows of a batch may have edits of their own: then every edit is computed for the whole batch,
which is cheaper than small products row by row, and masked where it is not the row's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from workbench.engine.edits import Ablate, Clamp, Edit, Patch, Scale, Scope, Splice, Steer
from workbench.sae import SAE
from workbench.sites import Site

CPU = torch.device("cpu")
BLOCK = 256
"""Tokens that a splice encodes at once: all features of a long batch together are gigabytes."""


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
    members: Tensor | None = None
    """Which rows of the batch have which term ``(batch, 1, term)``; None if all have all."""

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

    @cached_property
    def is_constant(self) -> bool:
        """Whether what the terms add depends on the masks alone and on no activation."""
        return self.probe is None and not self.conditions and self.sae.normalize == "none"

    def coefficients(self, x: Tensor) -> Tensor:
        """What each term adds of its decoder row, before masks ``(batch, pos, term)``.

        In an SAE that normalises its input an activation ``f`` stands for ``f scale d`` of the
        output, with the token's own scale.
        """
        constants, slopes = self.lines
        if self.sae.normalize != "none":
            scale = self.sae.output_scale(x)
            assert scale is not None
            constants = torch.where(self.in_output_units, constants, constants * scale)
            slopes = slopes * scale
        if self.probe is None:
            return constants.expand(*x.shape[:-1], -1)
        return torch.addcmul(constants, slopes, self.probe.activations(x))


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
class Reconstruction:
    """A splice with all that it needs."""

    number: int
    """Place in the caller's list."""
    splice: Splice
    sae: SAE
    device: torch.device = CPU

    @property
    def replaces(self) -> bool:
        """Whether `output` takes the place of the activation; else it is added to it."""
        return not self.splice.error

    def output(self, x: Tensor) -> Tensor:
        """What the splice puts in, or adds, for tokens `x` ``(token, d_in)``; in float32.

        With the error term ``x - SAE(x) + SAE_kept(x)`` is ``x`` less the shares of the features
        that are not kept, so only those are computed.
        """
        parts = [self._of(block) for block in x.split(BLOCK)]
        return torch.cat(parts) if parts else x.new_zeros(0, self.sae.config.d_out).float()

    def _of(self, x: Tensor) -> Tensor:
        if not self.replaces:
            return -self._shares_left_out(x)
        if self.splice.keep is None or self._few is None:
            f = self._whole.encode(x)
            return self._whole.decode(f.masked_fill(self._left_out, 0), x).float()
        return self._few.reconstruct(x).float()

    def _shares_left_out(self, x: Tensor) -> Tensor:
        """What the features that are not kept write ``(token, d_out)``."""
        if self.splice.keep is None and not self.splice.drop:
            return x.new_zeros(len(x), self.sae.config.d_out).float()
        if self._few is not None and self.splice.drop:
            f, rows = self._few.encode(x), self._few.W_dec
        else:
            f, rows = self._whole.encode(x).masked_fill(~self._left_out, 0), self._whole.W_dec
        scale, written = self.sae.output_scale(x), (f @ rows).float()
        return written if scale is None else written * scale

    @cached_property
    def _few(self) -> SAE | None:
        """The named features alone; None where one activation depends on all (TopK)."""
        named = self.splice.keep if self.splice.keep is not None else self.splice.drop
        if named is None or self.sae.k is not None:
            return None
        # The skip connection is no feature's, and is part of every reconstruction.
        skip = self.sae.W_skip
        return replace(self.sae.select(sorted(set(named))), W_skip=skip).to(self.device)

    @cached_property
    def _whole(self) -> SAE:
        return self.sae.to(self.device)

    @cached_property
    def _left_out(self) -> Tensor:
        """Features that are not kept ``(d_sae,)`` bool."""
        keep = self.splice.keep
        out = torch.full((self.sae.config.d_sae,), keep is not None, device=self.device)
        out[list(keep if keep is not None else self.splice.drop or ())] = keep is None
        return out


@dataclass(frozen=True, eq=False)
class Program:
    """What to do at each site of one run."""

    edits: tuple[Edit, ...]
    """Every edit of the batch, none twice."""
    groups: dict[Site, Group]
    """By the site where the features are read."""
    patches: dict[Site, tuple[Replacement, ...]]
    splices: dict[Site, tuple[Reconstruction, ...]]
    """By the site where the SAE reads."""
    freezes: dict[Site, tuple[int, ...]]
    """Places in the list of edits, by site."""
    watches: dict[Site, Probe]
    """Features that conditions need, by site."""
    members: Tensor | None = None
    """Which rows of the batch have which edit ``(batch, edit)``; None if all have all."""

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Every site that the run must stop at, in execution order."""
        reads = {*self.groups, *self.patches, *self.watches, *self.splices, *self.freezes}
        written = {site.writes_at for site in (*self.groups, *self.splices)}
        return tuple(sorted(reads | written))

    @cached_property
    def scopes(self) -> tuple[Scope, ...]:
        """The different scopes of the edits."""
        return tuple(dict.fromkeys(edit.scope for edit in self.edits))

    def has(self, row: int, number: int) -> bool:
        """Whether a row of the batch has the edit `number`."""
        return self.members is None or bool(self.members[row, number])

    def rows_of(self, number: int) -> Tensor | None:
        """Which rows of the batch have the edit `number` ``(batch, 1)``; None if all have."""
        return None if self.members is None else self.members[:, number, None]
