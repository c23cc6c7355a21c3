"""Applies a program to the activations of one run, and keeps the record of what it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.engine.program import Group, Probe, Program, Reconstruction, Replacement
from workbench.engine.receipts import Recorder
from workbench.scopes import Scope
from workbench.sites import Site
from workbench.tokens import Tokens


@dataclass(frozen=True)
class Batch:
    """Prompts side by side, padded on the left; unedited twins of some of them below."""

    ids: Tensor
    """``(batch, pos)`` token ids."""
    positions: Tensor
    """``(batch, pos)`` position in the own prompt; negative for padding."""
    lengths: Tensor
    """``(batch, 1)`` tokens of each prompt."""
    twins: tuple[int, ...] = ()
    """The prompt of each of the last rows, which no edit touches."""

    @classmethod
    def of(
        cls, prompts: Sequence[Tokens], pad: int, device: torch.device, twins: Sequence[int] = ()
    ) -> Batch:
        """Pad `prompts` to the longest, and add an unedited twin of those in `twins`.

        Raises:
            TypeError: If one is not `Tokens`.
            ValueError: If there are none.
        """
        if not prompts:
            raise ValueError("there are no prompts: give at least one")
        for prompt in prompts:
            if not isinstance(prompt, Tokens):
                raise TypeError(
                    f"prompts are Tokens, made by workbench.tokens.tokenize; got {prompt!r}"
                )
        prompts = [*prompts, *(prompts[row] for row in twins)]
        width = max(len(prompt) for prompt in prompts)
        rows = [[pad] * (width - len(prompt)) + list(prompt.ids) for prompt in prompts]
        lengths = torch.tensor([[len(prompt)] for prompt in prompts], device=device)
        positions = torch.arange(width, device=device) - (width - lengths)
        return cls(torch.tensor(rows, device=device), positions, lengths, tuple(twins))

    def __len__(self) -> int:
        """Number of prompts, twins not counted."""
        return len(self.ids) - len(self.twins)

    @property
    def layout(self) -> tuple[int, ...]:
        """The prompt of every row."""
        return (*range(len(self)), *self.twins)

    @property
    def attention_mask(self) -> Tensor | None:
        """``(batch, pos)``, or None where nothing is padded."""
        return None if bool((self.positions >= 0).all()) else (self.positions >= 0).long()


@dataclass(frozen=True, eq=False)
class Addition:
    """What some edits add at a site in one pass."""

    numbers: tuple[int, ...]
    """The edits, as places in the program's list."""
    amounts: Tensor
    """``(batch, pos, edit)``: norms of what they add, or multiples of `row_norms`."""
    row_norms: Tensor | None
    """``(edit,)``"""
    difference: Tensor
    """The sum of what they add ``(batch, pos, d_in)``."""


@dataclass(frozen=True, eq=False)
class Mask:
    """Where the terms of a group act, conditions left out."""

    on: Tensor
    """``(batch, pos, term or 1)``"""
    hidden: Tensor | None
    """The rest; None where there is none."""


class Masks:
    """Where the edits of a program act, in one pass or in several that are alike."""

    def __init__(
        self, program: Program, by_scope: dict[Scope, Tensor | None], *, stays: bool = False
    ) -> None:
        """Take ``(batch, pos)`` bool for each scope, or None where nothing of it is in the pass.

        `stays` says that several passes are expected, so that it pays to find masks that hide
        nothing.
        """
        self._program, self._by_scope, self._stays = program, by_scope, stays
        self._groups: dict[Site, Mask | None] = {}
        self.constants: dict[Site, Addition] = {}
        """What the groups add that depend on no activation, as far as it was needed."""

    def of_edit(self, number: int) -> Tensor | None:
        """Where an edit acts ``(batch, pos)``; None for nowhere."""
        mask = self._by_scope[self._program.edits[number].scope]
        rows = self._program.rows_of(number)
        return mask if mask is None or rows is None else mask & rows

    def of_group(self, group: Group) -> Mask | None:
        """Where its terms act; None for nowhere."""
        if group.site not in self._groups:
            on = self._of_group(group)
            if on is None:
                self._groups[group.site] = None
            else:
                hides = not self._stays or not bool(on.all())
                self._groups[group.site] = Mask(on, ~on if hides else None)
        return self._groups[group.site]

    def _of_group(self, group: Group) -> Tensor | None:
        found = [self._by_scope[scope] for scope in group.scopes]
        there = next((mask for mask in found if mask is not None), None)
        if there is None:
            return None
        if len(found) == 1:
            mask = there[..., None]
        else:
            whole = [torch.zeros_like(there) if mask is None else mask for mask in found]
            mask = torch.stack(whole, -1)[..., group.scope_of_term]
        return mask if group.members is None else mask & group.members


@dataclass(frozen=True, eq=False)
class Stop:
    """All that a program does at one site."""

    freeze: Hold | None
    watch: Probe | None
    group: Group | None
    splices: tuple[Reconstruction, ...]
    patches: tuple[Replacement, ...]


@dataclass(frozen=True, eq=False)
class Hold:
    """The rows of a batch that are frozen at a site."""

    numbers: tuple[int, ...]
    """The edits, as places in the program's list."""
    rows: Tensor
    """``(row,)``"""
    twins: Tensor
    """The unedited twin of each ``(row,)``."""
    mine: Tensor
    """Which rows of the batch are frozen by which edit ``(batch, edit)``: 1 or 0."""

    @classmethod
    def of(cls, program: Program, numbers: Sequence[int], batch: Batch) -> Hold:
        """The rows that have one of the edits `numbers`, all of one site."""
        twin_of = {row: len(batch) + place for place, row in enumerate(batch.twins)}
        mine = torch.zeros(len(batch.ids), len(numbers))
        for row in twin_of:
            has = [program.has(row, number) for number in numbers]
            if any(has):  # two at one site of one row are one: the first is the one that acts
                mine[row, has.index(True)] = 1
        rows = [row for row in twin_of if mine[row].any()]
        twins = [twin_of[row] for row in rows]
        device = batch.ids.device
        return cls(
            tuple(numbers),
            torch.tensor(rows, device=device),
            torch.tensor(twins, device=device),
            mine.to(device),
        )


class Surgeon:
    """Applies a program to the activations of one run."""

    def __init__(self, program: Program, batch: Batch, recorder: Recorder) -> None:
        self.batch, self.recorder = batch, recorder
        self._watched: dict[Site, Tensor] = {}
        self._pending: dict[Site, list[Addition | tuple[Reconstruction, Tensor, Tensor]]] = {}
        self._positions = batch.positions
        self._step = -1
        self.use(program)

    @property
    def program(self) -> Program:
        """What is applied."""
        return self._program

    def use(self, program: Program) -> None:
        """Apply `program` from the next pass on."""
        self._program = program
        self._masks = Masks(program, {})
        self._like: object = None
        self._stops = {site: self._stop(site) for site in program.sites}

    def _stop(self, site: Site) -> Stop:
        program = self._program
        frozen = program.freezes.get(site)
        return Stop(
            Hold.of(program, frozen, self.batch) if frozen else None,
            program.watches.get(site),
            program.groups.get(site),
            program.splices.get(site, ()),
            program.patches.get(site, ()),
        )

    def start_pass(self, positions: Tensor, alive: tuple[bool, ...] | None = None) -> None:
        """Prepare for the next forward pass, over tokens at `positions` ``(batch, pos)``.

        `alive` says of every row whether it still writes, in a pass that reads one new token of
        each and nothing else. Where an edit acts then needs no arithmetic on positions, and often
        is what it was in the pass before. A row of negative positions is left alone.
        """
        self._positions = positions
        self._watched.clear()
        self._pending.clear()
        self._step += 1
        scopes = self._program.scopes
        if alive is None:
            lengths = self.batch.lengths
            self._masks = Masks(self._program, {s: s.mask(positions, lengths) for s in scopes})
            self._like = None
        else:
            holds = tuple(scope.holds(self._step) for scope in scopes)
            if self._like != (alive, holds):
                self._like = alive, holds
                here = torch.tensor(alive, device=positions.device)[:, None]
                by_scope = {s: here if h else None for s, h in zip(scopes, holds, strict=True)}
                self._masks = Masks(self._program, by_scope, stays=True)
        self.recorder.start_pass(positions, is_new=alive is not None)

    def visit(self, site: Site, x: Tensor) -> Tensor | None:
        """What `x` ``(batch, pos, d_in)`` becomes, or None if nothing touches it."""
        stop = self._stops.get(site)
        if stop is None:  # only read
            return None
        if stop.freeze is not None:
            x = self._freeze(stop.freeze, x)
        if stop.watch is not None:
            self._watched[site] = stop.watch.activations(x)
        self._read(stop, site, x)
        additions = list(self._additions(stop, site, x))
        if not additions:
            return None if stop.freeze is None else x
        sizes = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32)
        changed = x.float()
        for one in additions:
            self.recorder.add(one.numbers, one.amounts, one.row_norms, sizes)
            changed = changed + one.difference
        return changed.to(x.dtype)

    def _freeze(self, hold: Hold, x: Tensor) -> Tensor:
        """`x` with the twin's activation in the rows that are frozen here."""
        held = x.index_copy(0, hold.rows, x[hold.twins])
        norms = torch.linalg.vector_norm(held.float() - x.float(), dim=-1)
        sizes = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32)
        self.recorder.add(hold.numbers, norms[..., None] * hold.mine[:, None], None, sizes)
        return held

    def _read(self, stop: Stop, site: Site, x: Tensor) -> None:
        """What is read at `site`, to be added there or where it is written."""
        if stop.group is not None:
            mask = self._masks.of_group(stop.group)
            if mask is not None:
                addition = self._of_group(stop.group, mask, x)
                self._pending.setdefault(site.writes_at, []).append(addition)
        for splice in stop.splices:
            mask = self._masks.of_edit(splice.number)
            if mask is not None:
                output = splice.output(x[mask])
                self._pending.setdefault(site.writes_at, []).append((splice, mask, output))

    def _of_group(self, group: Group, mask: Mask, x: Tensor) -> Addition:
        """What the edits of `group` add."""
        if group.is_constant and group.site in self._masks.constants:
            return self._masks.constants[group.site]
        hidden = self._unmet(group, mask, x) if group.conditions else mask.hidden
        coefficients = group.coefficients(x)
        if hidden is not None:
            coefficients = coefficients.masked_fill(hidden, 0)
        addition = Addition(group.numbers, coefficients, group.row_norms, coefficients @ group.rows)
        if group.is_constant:
            self._masks.constants[group.site] = addition
        return addition

    def _unmet(self, group: Group, mask: Mask, x: Tensor) -> Tensor:
        """Where the terms of `group` do not act, conditions included ``(batch, pos, term)``."""
        on = mask.on.expand(*x.shape[:-1], len(group.terms)).clone()
        for site, terms, places, above in group.conditions:
            on[..., terms] &= self._watched[site][..., places] > above
        return ~on

    def _additions(self, stop: Stop, site: Site, x: Tensor) -> Iterator[Addition]:
        """What the edits that write at `site` add there."""
        for found in self._pending.pop(site, ()):
            yield found if isinstance(found, Addition) else _spliced(*found, x)
        if self._like is not None:  # patches are of the prompt
            return
        for patch in stop.patches:
            difference = patch.difference(x, self._positions)
            mask = self._masks.of_edit(patch.number)
            assert mask is not None
            # Filled and not multiplied: padding may hold NaN, and NaN times 0 is NaN.
            difference = difference.masked_fill(~mask[..., None], 0)
            norms = difference.norm(dim=-1, keepdim=True)
            yield Addition((patch.number,), norms, None, difference)


def _spliced(splice: Reconstruction, mask: Tensor, output: Tensor, x: Tensor) -> Addition:
    """A splice as what it adds to `x`, from its `output` ``(token, d_in)`` where `mask` is."""
    difference = torch.zeros_like(x, dtype=torch.float32)
    difference[mask] = output - x[mask].float() if splice.replaces else output
    return Addition((splice.number,), difference.norm(dim=-1, keepdim=True), None, difference)
