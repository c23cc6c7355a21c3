"""Does this copy of a model, with these SAEs, read what others have read? `workbench verify`.

A wrong site raises no error: features light up, at wrong values. So public measurements are
repeated here on the user's own copy, and where a figure is one that a known mistake gives, the
mistake is named.

Source of the readings of single features, of the wrong values and of the first two figures on text:
Neuronpedia's inference server (``apps/inference`` of its repository, 2026-08: the files
``tests/model_expectations.yaml``, ``tests/integration/test_gemma_mlp_sae_hook.py`` and
``scripts/gemma_transcoder_hook_check.py``), measured there in bfloat16. A reading's band is theirs,
6 % either way. FVU and L0 depend on the text, and ours is another and leaves ``<bos>`` out: their
bands are ours, and wide. They tell a wrong site, by a factor of 10 and more, and nothing finer.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor

from workbench.evaluation import fit
from workbench.sae import SAE
from workbench.sites import Site

DOG = "My dog is sleeping on the couch."
CAT = "My cat is sleeping on the couch."
BARK = "The dog barked at the mailman."


@dataclass(frozen=True)
class Mistake:
    """A known wrong way to measure, and the figures that it gives."""

    low: float
    high: float
    cause: str
    """What was probably done."""


@dataclass(frozen=True)
class Reference:
    """One public figure."""

    site: Site
    """Where the SAE reads."""
    width: str
    """Of the SAE, as its name says it."""
    l0: float
    """Of the SAE, as its name says it."""
    published: float
    """What was measured elsewhere."""
    low: float
    """The smallest value that counts as right."""
    high: float
    """The largest."""
    mistakes: tuple[Mistake, ...] = ()
    """What other figures would mean."""

    @property
    def check(self) -> str:
        """What is measured, in words."""
        raise NotImplementedError

    @property
    def _sae_name(self) -> str:
        return f"{self.site} {self.width} l0_{self.l0:g}"


@dataclass(frozen=True, kw_only=True)
class Reading(Reference):
    """The activation of one feature at one token."""

    feature: int
    prompt: str
    token: str | None
    """Where; None for the largest anywhere but at ``<bos>``."""

    @property
    def check(self) -> str:
        """See `Reference`."""
        where = "anywhere" if self.token is None else f"at {self.token!r}"
        return f"{self._sae_name} feature {self.feature} {where} in {self.prompt!r}"


@dataclass(frozen=True, kw_only=True)
class Figure(Reference):
    """L0 or FVU on some passages."""

    name: str
    """``"l0"`` or ``"fvu"``."""

    @property
    def check(self) -> str:
        """See `Reference`."""
        return f"{self._sae_name} {self.name.upper()} on our text"


_NO_BOS = "no <bos> in front, which makes peaks 30 to 45 % low"
_GAIN = "the transcoder was given the norm's output, gain included"
_STREAM = "the transcoder was given the residual stream, not normalised"
_RAW_MLP = "the output of `mlp` was read, before post_feedforward_layernorm"


def _dogs(published: float, low: float, high: float, token: str, *mistakes: Mistake) -> Reading:
    return Reading(
        Site(20), "16k", 71, published, low, high, mistakes, feature=12082, prompt=DOG, token=token
    )


def _transcoder(
    published: float,
    low: float,
    high: float,
    *mistakes: Mistake,
    prompt: str,
    token: str | None,
) -> Reading:
    site = Site(19, "transcoder")
    return Reading(
        site, "16k", 12, published, low, high, mistakes, feature=4607, prompt=prompt, token=token
    )


def _text(
    site: Site, l0: float, name: str, published: float, low: float, high: float, *wrong: Mistake
) -> Figure:
    return Figure(site, "16k", l0, published, low, high, wrong, name=name)


def _cats(published: float, low: float, high: float, prompt: str, token: str | None) -> Reading:
    return Reading(
        Site(15), "16k", 60, published, low, high, feature=14340, prompt=prompt, token=token
    )


REFERENCES: dict[str, tuple[Reference, ...]] = {
    "gemma-2-2b": (
        _dogs(
            87.0, 82.0, 92.0, " dog",
            Mistake(65.0, 74.0, "every position is one off: the next token reads 69.5"),
            Mistake(47.0, 62.0, _NO_BOS),
        ),
        _dogs(
            69.5, 65.0, 74.0, " is",
            Mistake(82.0, 92.0, "every position is one off: the token before reads 87"),
            Mistake(46.0, 52.0, f"every position is one off, or {_NO_BOS}"),
        ),
        _transcoder(
            32.0, 30.0, 34.0,
            Mistake(38.0, 45.0, _GAIN),
            Mistake(100.0, 1000.0, _STREAM),
            Mistake(17.0, 24.0, _NO_BOS),
            prompt=DOG, token=" dog",
        ),
        _transcoder(66.5, 62.5, 70.5, prompt=BARK, token=" dog"),
        _transcoder(0.0, 0.0, 0.0, prompt=CAT, token=None),
        _text(Site(4, "mlp"), 85, "fvu", 0.26, 0.05, 0.6, Mistake(3.0, 100.0, _RAW_MLP)),
        _text(Site(4, "mlp"), 85, "l0", 81.0, 45.0, 140.0, Mistake(0.0, 25.0, _RAW_MLP)),
        _text(
            Site(19, "transcoder"), 12, "fvu", 0.50, 0.25, 0.9, Mistake(100.0, 1e7, _STREAM)
        ),
        _text(
            Site(19, "transcoder"), 12, "l0", 12.8, 6.0, 26.0, Mistake(200.0, 5000.0, _STREAM)
        ),
    ),
    "gemma-3-270m-it": (
        _cats(1592.0, 1200.0, 2000.0, CAT, " cat"),
        _cats(0.0, 0.0, 0.0, BARK, None),
    ),
}  # fmt: skip
"""Model -> what was measured of it."""


class _Run(Protocol):
    @property
    def tokens(self) -> Any: ...
    @property
    def activations(self) -> Any: ...


class LabLike(Protocol):
    """What `verify` needs of a `workbench.lab.Lab`."""

    @property
    def engine(self) -> Any:
        """Its ``name`` says which figures belong to the model."""
        ...

    @property
    def suite(self) -> Any:
        """Its ``sample`` is the text."""
        ...

    def run(self, prompt: Any, *, sites: Sequence[Site]) -> _Run:
        """One forward pass."""
        ...

    def sae(self, *, layer: int, kind: Any, width: str, l0: float) -> SAE:
        """One SAE."""
        ...


@dataclass(frozen=True)
class Row:
    """A reference and what was measured here."""

    reference: Reference
    measured: float

    @property
    def ok(self) -> bool:
        """Whether it is in the band; NaN never is."""
        return self.reference.low <= self.measured <= self.reference.high

    @property
    def cause(self) -> str:
        """The likely mistake, for a figure outside of the band."""
        if self.ok:
            return ""
        if math.isnan(self.measured):
            return "not a number: the model overflowed, as Gemma does in float16"
        for mistake in self.reference.mistakes:
            if mistake.low <= self.measured <= mistake.high:
                return mistake.cause
        return "no known mistake gives this: other weights, or another tokenizer?"


@dataclass(frozen=True, repr=False)
class Verification:
    """What `verify` measured: a table in the terminal and in a notebook."""

    model: str
    """Whose figures these are."""
    rows: tuple[Row, ...]
    """One a reference."""

    @property
    def ok(self) -> bool:
        """Whether every figure is in its band."""
        return all(row.ok for row in self.rows)

    def to_frame(self) -> pd.DataFrame:
        """Columns ``check, published, low, high, measured, ok, cause``."""
        columns = ["check", "published", "low", "high", "measured", "ok", "cause"]
        lines = [
            (r.check, r.published, r.low, r.high, row.measured, row.ok, row.cause)
            for row in self.rows
            for r in [row.reference]
        ]
        return pd.DataFrame(lines, columns=columns)

    def __repr__(self) -> str:
        head = ("", "check", "published", "expected", "measured")
        table = [head, *(self._cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = []
        for row, cells in zip((None, *self.rows), table, strict=True):
            mark, check, *numbers = (c.ljust(w) for c, w in zip(cells, widths, strict=True))
            lines.append("  ".join([mark, check, *numbers]).rstrip())
            if row is not None and row.cause:
                lines.append(f"    likely cause: {row.cause}")
        return "\n".join([*lines, self._verdict()])

    def _repr_html_(self) -> str:
        def line(cells: Sequence[str], tag: str) -> str:
            made = (f"<{tag} style='text-align:left'>{html.escape(c)}</{tag}>" for c in cells)
            return f"<tr>{''.join(made)}</tr>"

        head = line(("", "check", "published", "expected", "measured", "likely cause"), "th")
        body = "".join(line((*self._cells(row), row.cause), "td") for row in self.rows)
        return f"<table><caption>{html.escape(self._verdict())}</caption>{head}{body}</table>"

    def _cells(self, row: Row) -> tuple[str, str, str, str, str]:
        found = row.reference
        band = f"{found.low:g} to {found.high:g}" if found.high > found.low else f"{found.low:g}"
        mark = "ok" if row.ok else "!!"
        return mark, found.check, f"{found.published:g}", band, f"{row.measured:.4g}"

    def _verdict(self) -> str:
        good, count = sum(row.ok for row in self.rows), len(self.rows)
        return f"{self.model}: {good} of {count} figures are as published."


def find_references(name: str) -> str:
    """The key of `REFERENCES` for a model's name.

    Raises:
        ValueError: If nothing is known of the model.
    """
    known = name.removeprefix("google/")
    if known not in REFERENCES:
        raise ValueError(
            f"no public figures are known for {name!r}; there are some for "
            f"{', '.join(REFERENCES)}. If it is a copy of one of these, say of which: "
            "verify(lab, of='gemma-2-2b'), or --as gemma-2-2b"
        )
    return known


def verify(lab: LabLike, *, of: str | None = None, quick: bool = False) -> Verification:
    """Repeat the public measurements of a model.

    Args:
        lab: An open lab, such as ``wb.open("gemma-2-2b")``. The SAEs that are not in the cache are
                fetched: about 300 MB each for Gemma 2 2B, two of them if `quick`, otherwise three.
        of: Whose figures to expect; by the lab's own name if left out.
        quick: Only the single features on short prompts, no FVU and L0 on text.

    Raises:
        ValueError: If nothing is known of the model, or its tokenizer is another.
    """
    name = find_references(of or lab.engine.name)
    readings = [one for one in REFERENCES[name] if isinstance(one, Reading)]
    figures = [one for one in REFERENCES[name] if isinstance(one, Figure) and not quick]
    rows = [Row(one, _reading(lab, one)) for one in readings]
    text = _text_activations(lab, figures)
    return Verification(name, (*rows, *(Row(one, _figure(lab, one, text)) for one in figures)))


def _sae(lab: LabLike, reference: Reference) -> SAE:
    site = reference.site
    return lab.sae(layer=site.layer, kind=site.kind, width=reference.width, l0=reference.l0)


def _reading(lab: LabLike, reference: Reading) -> float:
    sae, run = _sae(lab, reference), lab.run(reference.prompt, sites=[reference.site])
    with torch.inference_mode():
        x = run.activations[reference.site].to(sae.W_enc.device)
        values = sae.encode(x)[..., reference.feature].float()
    if not x.isfinite().all():
        return math.nan  # a JumpReLU makes a 0 of it
    if reference.token is None:
        return float(values[1:].max())
    places = [i for i, text in enumerate(run.tokens.strings) if text == reference.token]
    if len(places) != 1:
        raise ValueError(
            f"{reference.prompt!r} has {len(places)} tokens {reference.token!r}, not 1; it was "
            f"read as {list(run.tokens.strings)}: this is another tokenizer than the model's own"
        )
    return float(values[places[0]])


def _figure(lab: LabLike, reference: Figure, text: dict[Site, Tensor]) -> float:
    if not all(x.isfinite().all() for x in text.values()):
        return math.nan
    return getattr(fit(_sae(lab, reference), reference.site, text), reference.name)


def _text_activations(lab: LabLike, figures: Sequence[Figure]) -> dict[Site, Tensor]:
    """Activations ``(token, d_in)`` of the lab's own passages, ``<bos>`` left out, by site."""
    sites = sorted({s for one in figures for s in (one.site, one.site.writes_at)})
    if not sites:
        return {}
    runs = [lab.run(passage, sites=sites).activations for passage in lab.suite.sample]
    return {site: torch.cat([run[site][1:] for run in runs]) for site in sites}
