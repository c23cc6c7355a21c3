"""Propose a few features that push a model towards some examples, and say how far they do.

What steering has to do is to bring the examples in where they are not: so each example is read
after the opening of an unrelated text, as it would be written after an unrelated prompt. The gain
of some edits is the rise of the log-probability of its tokens there, in nats a token. Read alone,
an example says of its own first words what will follow, and hardly any edit can add to that.

1. One half of the texts chooses. Features that tell the examples from the other texts
   (`workbench.analysis.contrast`) are candidates: one that tells is not yet one that writes, so
   each is tried at some strengths, and then the best are added to each other while the gain rises.
   Some features make any change of subject likelier, so what the other texts gain after such
   openings is taken off.
2. The other half, not seen before, gives the gain that is reported, and the price: the rise of the
   loss on the other texts as they are.
3. Controls: random live features, and random directions, in place of each edit, at the same site
   and with the same norm added; the mean of some draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from workbench.analysis.contrast import ranking
from workbench.analysis.noted import noted_html
from workbench.analysis.text_features import Reading, Sides, read_texts
from workbench.analysis.trials import Trial
from workbench.engine.binding import FeatureSource
from workbench.engine.directions import Directions
from workbench.engine.edits import Steer
from workbench.models import Model
from workbench.sae.suite import Suite
from workbench.sites import Site
from workbench.tokens import Tokens

CANDIDATES, FINALISTS = 16, 4
"""Features that are tried at one strength, and those that are tried at others."""
FIRST = 0.5
STRENGTHS, FURTHER = (0.25, 0.5, 0.75, 1.25), (0.25, 0.5)
"""Multiples of a feature's typical maximum, for the first edit and for those beside it."""
LEAST = 0.01
"""Nats a token that a further edit must bring: less is within the noise of a few examples."""
SEARCH, DRAWS = 32, 5
"""Examples that the search reads at most, and draws of each control."""
SCORES = ("gain", "price", "chosen")


@dataclass(frozen=True, eq=False)
class Autosteer:
    """A proposal, and what it was seen to do."""

    name: str
    """What was asked for."""
    edits: tuple[Steer, ...]
    """What to steer by; empty where nothing helped."""
    frame: pd.DataFrame
    """``what`` (the proposal, its edits one by one, controls), ``layer, kind, feature, label,
    strength``, ``gain`` and ``price`` on texts that had no part in the choice, and ``chosen``, the
    gain on those that had; all three in nats a token."""
    notes: tuple[str, ...]
    """What a reader of the figures should know."""

    def __repr__(self) -> str:
        lines = [f"<Autosteer {self.name!r}: {len(self.edits)} edits>", str(self.frame)]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        return noted_html(self.frame, self.notes)


def autosteer(
    model: Model,
    suite: Suite,
    name: str,
    examples: Sequence[Tokens],
    against: Sequence[Tokens],
    *,
    sites: Sequence[Site],
    size: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> Autosteer:
    """Propose up to `size` features to steer by; see the module.

    Args:
        model: The model.
        suite: Its SAEs.
        name: What is wanted. Features whose label contains it are candidates, too.
        examples: Texts that have it, ten or more.
        against: Texts that lack it, or any texts.
        sites: Where to look.
        size: Most edits.
        seed: Fixes the halves and the controls.
        progress: Show bars.

    Raises:
        ValueError: If a side is empty, a text stands on both, there is no site, or `size` is
            below 1.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    sides = Sides.of(examples, against, seed, ("examples", "against"))
    whole = bool(sides.chooses.all())

    def trial(rows: np.ndarray, most: int | None = None) -> Trial:
        there, lacking = (
            [sides.texts[i] for i in np.flatnonzero(rows & side)][:most]
            for side in (sides.positive, ~sides.positive)
        )
        return Trial.of(model, suite, there, lacking)

    readings = read_texts(model, suite, sides, sites, progress=progress)
    candidates, live = _candidates(suite, name, readings, sides)
    search = trial(sides.chooses, SEARCH)
    edits, notes = _search(search, candidates, size, progress=progress), sides.notes
    if not edits:
        notes = (*notes, f"no feature made the examples of {name!r} likelier: give more of them")
    elif whole:
        notes = (*notes, "gain and price are of the texts that chose, so they are too good")
    judge = search if whole else trial(~sides.chooses)
    frame = _table(search, judge, edits, live, seed)
    best = float(frame["gain"].to_numpy()[0]) if edits else 0.0
    rivals: Any = frame[frame["what"].str.startswith("random")]["gain"]
    if edits and not whole and not best > max(0.0, float(rivals.max())):
        notes = (*notes, "on texts not seen before it does no better than chance: do not trust it")
    return Autosteer(name, tuple(edits), frame, notes)


Live = dict[Site, np.ndarray]
"""Features that were active in the texts, by site."""


def _candidates(
    suite: Suite, name: str, readings: Iterable[Reading], sides: Sides
) -> tuple[list[tuple[Site, int, float]], Live]:
    """Features to try with the activation that strength 1 stands for, and all that are live."""
    keyed: list[tuple[float, Site, int, float]] = []
    labelled: dict[tuple[Site, int], float] = {}
    live: Live = {}
    named = [(found.site, found.index) for found in suite.find(name)] if name else []
    for reading in readings:
        live[reading.site] = reading.features
        keys = ranking(reading, sides.positive[:, None], sides.chooses)[:, 0]
        for i in np.argsort(-keys, kind="stable")[:CANDIDATES]:
            place = reading.site, int(reading.features[i])
            keyed.append((float(keys[i]), *place, float(reading.scale[i])))
        for i, index in enumerate(reading.features.tolist()):
            if (reading.site, index) in named:
                labelled[reading.site, index] = float(reading.scale[i])
    surest = [place for place in named if place in labelled][: CANDIDATES // 2]
    keyed.sort(key=lambda row: -row[0])
    found = {place: labelled[place] for place in surest}
    found |= {(site, index): size for _, site, index, size in keyed}
    return [(site, index, size) for (site, index), size in found.items()][:CANDIDATES], live


def _edit(suite: Suite, candidate: tuple[Site, int, float], strength: float) -> Steer:
    """Steer by a candidate, in typical maxima where they are known."""
    site, index, size = candidate
    if suite.calibrated(site) and suite.maxima(site)[index] > 0:
        return Steer((site.layer, index), strength, kind=site.kind)
    return Steer((site.layer, index), strength * size, kind=site.kind, unit="raw")


def _search(
    trial: Trial, candidates: list[tuple[Site, int, float]], size: int, *, progress: bool
) -> list[Steer]:
    """The best edit, and what raises the gain further beside it."""
    chosen: list[Steer] = []
    gain = LEAST
    rounds = [len(STRENGTHS), *[len(FURTHER)] * (size - 1)]
    total = len(candidates) + sum(FINALISTS * strengths for strengths in rounds)
    with tqdm(total=total, desc="trying features", disable=not progress) as bar:

        def tried(edit: Steer) -> tuple[float, Steer]:
            bar.update()
            return trial.own_gain([*chosen, edit], gain), edit

        def best(rows: list[tuple[float, Steer]]) -> list[tuple[float, Steer]]:
            return sorted(rows, key=lambda row: -row[0])

        first = [tried(_edit(trial.suite, c, FIRST)) for c in candidates]
        order = sorted(range(len(first)), key=lambda i: -first[i][0])
        finalists = [candidates[i] for i in order[:FINALISTS]]
        while finalists and len(chosen) < size:
            strengths = FURTHER if chosen else STRENGTHS
            rows = best([tried(_edit(trial.suite, c, s)) for c in finalists for s in strengths])
            if rows[0][0] < gain:
                break
            gain, edit = rows[0][0] + LEAST, rows[0][1]
            chosen.append(edit)
            finalists = [c for c in finalists if (c[0], c[1]) != (edit.site, edit.index)]
    return chosen


def _table(search: Trial, judge: Trial, edits: list[Steer], live: Live, seed: int) -> pd.DataFrame:
    """Gain and price of the proposal, of each edit alone, and of the controls."""
    suite, random = search.suite, np.random.default_rng(seed)
    blank = {"layer": None, "kind": "", "feature": None, "label": "", "strength": np.nan}

    def row(
        what: str, some: Sequence[Steer], source: FeatureSource | None = None, **own: object
    ) -> dict:
        chosen = search.gain(some) if source is None else np.nan  # a control was not chosen
        scores = judge.gain(some, source), judge.price(some, source), chosen
        return {"what": what, **blank, **own, **dict(zip(SCORES, scores, strict=True))}

    def mean(what: str, draw: Callable[[], tuple[list[Steer], FeatureSource]]) -> dict:
        rows = [row(what, *draw()) for _ in range(DRAWS)]
        return rows[0] | {name: float(np.mean([one[name] for one in rows])) for name in SCORES}

    rows = [row("proposal", edits)] if edits else []
    for edit in edits:
        label = suite.label(edit.site, edit.index)
        own = {"layer": edit.site.layer, "kind": edit.kind, "feature": edit.index}
        rows.append(row("alone", [edit], **own, label=label, strength=edit.strength))
    if edits:
        rows.append(mean("random features", lambda: _features(suite, edits, live, random)))
        rows.append(mean("random directions", lambda: _noise(suite, edits, random)))
    frame = pd.DataFrame(rows, columns=["what", *blank, *SCORES])
    return frame.astype({"layer": "Int64", "feature": "Int64"})


def _norm(suite: Suite, edit: Steer) -> float:
    """Norm of what an edit adds."""
    size = suite.typical_maximum(edit.site, edit.index) if edit.unit == "max" else 1.0
    return abs(edit.strength) * size * float(suite.sae_at(edit.site).direction(edit.index).norm())


def _features(
    suite: Suite, edits: Sequence[Steer], live: Live, random: np.random.Generator
) -> tuple[list[Steer], FeatureSource]:
    """Another live feature in place of each, adding the same norm."""
    found = []
    for edit in edits:
        own = {one.index for one in edits if one.site == edit.site}
        others = [i for i in live[edit.site].tolist() if i not in own]
        index = int(random.choice(others or [edit.index]))  # where nothing else is live
        norm = float(suite.sae_at(edit.site).direction(index).norm())
        strength = _norm(suite, edit) / norm
        found.append(Steer((edit.site.layer, index), strength, kind=edit.kind, unit="raw"))
    return found, suite


def _noise(
    suite: Suite, edits: Sequence[Steer], random: np.random.Generator
) -> tuple[list[Steer], FeatureSource]:
    """A random direction in place of each, adding the same norm."""
    vectors: dict[Site, list[torch.Tensor]] = {}
    found = []
    for edit in edits:
        sae = suite.sae_at(edit.site)
        noise = torch.from_numpy(random.standard_normal(sae.config.d_out)).float()
        own = vectors.setdefault(edit.site, [])
        found.append(Steer((edit.site.layer, len(own)), _norm(suite, edit), kind=edit.kind))
        own.append(noise / noise.norm())
    return found, Directions({site: torch.stack(own) for site, own in vectors.items()})
