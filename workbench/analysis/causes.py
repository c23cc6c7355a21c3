"""Causes: what the features downstream and the next tokens owe to one feature.

Ablate a feature, or multiply it, and look at what comes after: measured, in one batched pass.

    change of feature j    = sum over tokens of f_j(edited) - f_j(unedited)
    control                   the same when as much is removed along another active feature of the
                              site: at each token as long a step, against its direction

A change counts as caused when it is larger than that of every control: what any blow of this size
does to the model is no effect of this feature.

The fast estimate of the same change by an ablation is gradient x activation,

    - sum_p f_i(p) (d_i . dF_j/dx(p)),        F_j = sum over tokens of f_j

(attribution patching: Nanda 2023; Marks et al. 2024, arXiv 2403.19647, section 3), a pass forward
and back for each j. It knows nothing of features that begin or cease to fire. `Causes.agreement`
says how well the two rank the features that change most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from workbench.analysis.lineage import Feature, Link
from workbench.engine.binding import FeatureSource
from workbench.engine.edits import Ablate, Edit, Patch, Scale
from workbench.engine.tracing import gradients, trace
from workbench.features import Features, check_count
from workbench.index import Index
from workbench.models import Busy, Model
from workbench.sae import SAE
from workbench.sites import Site
from workbench.tokens import Tokens, strings_of

How = Literal["ablate"] | float
CONTROLS = 8
"""Other features whose removal is the control: an effect passes by chance once in nine times."""
VALUES = 2**26
"""Numbers that one pass may leave behind: 256 MB."""


@dataclass(frozen=True, eq=False)
class Change:
    """What became of the features of one site."""

    totals: Tensor
    """``(d_sae,)`` change of each, summed over the tokens but ``<bos>``; a mean over documents."""
    null: Tensor
    """``(d_sae,)`` the largest change, without sign, that a control makes."""
    tokens: Features | None = None
    """The changes token by token, of either sign, of those that are not 0; None over documents."""


@dataclass(frozen=True, eq=False)
class Causes:
    """What one feature causes downstream."""

    feature: Feature
    """The feature that was edited."""
    how: How
    """``"ablate"``, or the factor that it was multiplied by."""
    tokens: Tokens | None
    """The prompt; None over documents."""
    count: int
    """Tokens at which the feature fired."""
    changes: Mapping[Site, Change]
    """Of each later site, in execution order."""
    logits: Tensor
    """``(vocabulary,)`` change of the next token's logits, less their mean change: after the last
    token of a prompt, after the tokens where the feature fires over documents."""
    estimates: Mapping[Feature, float] = field(default_factory=dict)
    """Gradient x activation of those that change most."""
    string: Callable[[int], str] = field(default=str, repr=False)
    """Shows a token."""
    label: Callable[[Site, int], str] = field(default=lambda site, index: "", repr=False)
    """Gives a feature's label."""

    def __repr__(self) -> str:
        site, index = self.feature
        where = "over documents" if self.tokens is None else "on this prompt"
        return (
            f"<Causes of feature {index} at {site} ({self.how}) {where}: fires on {self.count} "
            f"tokens, {len(self.changes)} later sites>"
        )

    def links(self, k: int = 20) -> list[Link]:
        """The `k` largest changes that are larger than every control's, largest first."""
        return [
            Link(self.feature, (site, index), "causes", change, abs(change) - null)
            for change, null, site, index in self._largest(k, caused=True)
        ]

    def top(self, k: int = 20) -> pd.DataFrame:
        """The features that change most, of either sign.

        Returns:
            Columns ``layer, kind, feature, label, change, null, margin, estimate``; NaN where there
            is no estimate.
        """
        rows = [
            (s.layer, s.kind, i, self.label(s, i), change, null, abs(change) - null,
             self.estimates.get((s, i), math.nan))
            for change, null, s, i in self._largest(k, caused=False)
        ]  # fmt: skip
        columns = ["layer", "kind", "feature", "label", "change", "null", "margin", "estimate"]
        return pd.DataFrame(rows, columns=columns)

    def next_tokens(self, k: int = 10) -> pd.DataFrame:
        """The `k` tokens whose logits rise and the `k` whose logits fall most.

        Returns:
            Columns ``token, id, change``, from the largest rise to the largest fall.
        """
        check_count(k)
        order = self.logits.argsort(descending=True).tolist()
        ids = list(dict.fromkeys([*order[:k], *order[-k:]]))
        rows = [(self.string(i), i, float(self.logits[i])) for i in ids]
        return pd.DataFrame(rows, columns=["token", "id", "change"])

    @property
    def agreement(self) -> float:
        """Spearman's rank correlation of estimate and measurement; NaN for fewer than two."""
        pairs = [(e, float(self.changes[s].totals[i])) for (s, i), e in self.estimates.items()]
        ranks: Any = pd.DataFrame(pairs, columns=["estimate", "change"]).rank()
        return float(ranks["estimate"].corr(ranks["change"]))

    def _largest(self, k: int, *, caused: bool) -> list[tuple[float, float, Site, int]]:
        """Change, null, site and index of the largest changes."""
        check_count(k)
        found = []
        for site, change in self.changes.items():
            sizes = change.totals.abs()
            if caused:
                sizes = sizes.where(sizes > change.null, 0)
            best, indices = sizes.topk(min(k, len(sizes)))
            for size, i in zip(best.tolist(), indices.tolist(), strict=True):
                if size > 0:
                    found.append((float(change.totals[i]), float(change.null[i]), site, i))
        found.sort(key=lambda one: -abs(one[0]))
        return found[:k]


def causes(
    model: Model,
    source: FeatureSource,
    tokens: Tokens,
    feature: Feature,
    *,
    how: How = "ablate",
    sites: Sequence[Site],
    estimate: int = 50,
    controls: int = CONTROLS,
    seed: int = 0,
    label: Callable[[Site, int], str] | None = None,
    busy: Busy = "wait",
) -> Causes:
    """What a feature causes on one prompt.

    Args:
        model: The model.
        source: Its SAEs.
        tokens: The prompt.
        feature: Site and index.
        how: ``"ablate"``, or a factor.
        sites: Where to look; those that are not later than the feature are left out.
        estimate: Of how many features the change by an ablation is estimated as well, those that
            change most; each costs a pass forward and back.
        controls: How many other features are removed for comparison.
        seed: Of the choice of controls.
        label: Gives a feature's label.
        busy: See `workbench.models.Turn.take`.

    Raises:
        ValueError: If the feature does not exist or fires nowhere in the prompt, or there is no
            later site.
    """
    later = _later(sites, feature[0])
    study = _Study(model, source, feature, how, later, controls, seed, busy, at_last=True)
    sums = study.of([tokens])
    if sums is None:
        raise ValueError(
            f"feature {feature[1]} at {feature[0]} fires nowhere in {tokens.text[:60]!r}, "
            "<bos> left out: there is nothing to change"
        )
    found = sums.causes(study, tokens, label)
    if not estimate:
        return found
    chosen = [(s, i) for _, _, s, i in found._largest(estimate, caused=False)]
    values = _estimates(model, source, tokens, feature, chosen, busy)
    factor = 1.0 if how == "ablate" else 1.0 - how
    return replace(found, estimates={one: factor * values[one] for one in chosen})


def causes_over(
    model: Model,
    source: FeatureSource,
    index: Index,
    feature: Feature,
    *,
    how: How = "ablate",
    sites: Sequence[Site],
    tokens: int = 4096,
    context: int = 64,
    controls: int = CONTROLS,
    seed: int = 0,
    label: Callable[[Site, int], str] | None = None,
    busy: Busy = "wait",
) -> Causes:
    """What a feature causes on average, in documents of an index where it fires.

    A change is that of a document, a mean over the documents; of a logit, that after a token where
    the feature fires.

    Args:
        model: The model that the index was made with.
        source: Its SAEs.
        index: Where the feature's passages are: the strongest and those from its whole range.
        feature: Site and index.
        how: As for `causes`.
        sites: As for `causes`.
        tokens: Most tokens to read.
        context: Tokens of a passage, up to and with some after the one where the feature fires.
        controls: As for `causes`.
        seed: As for `causes`.
        label: Gives a feature's label.
        busy: See `workbench.models.Turn.take`.

    Raises:
        ValueError: If the index lacks the site or the feature, or the feature never fires.
    """
    later = _later(sites, feature[0])
    texts = _passages(model, index, feature, tokens, context)
    study = _Study(model, source, feature, how, later, controls, seed, busy, at_last=False)
    sums = study.of(texts)
    if sums is None:
        raise ValueError(f"feature {feature[1]} at {feature[0]} fires nowhere in {index}")
    return sums.causes(study, None, label)


def _later(sites: Sequence[Site], origin: Site) -> list[Site]:
    later = [site for site in sorted(set(sites)) if site > origin]
    if not later:
        there = ", ".join(map(str, sorted(set(sites)))) or "none"
        raise ValueError(f"no site is later than {origin}, so nothing to look at; given: {there}")
    return later


def _passages(
    model: Model, index: Index, feature: Feature, tokens: int, context: int
) -> list[Tokens]:
    """Passages of the index in which the feature fires, the strongest and a choice of others."""
    record = index.feature(*feature)
    found: dict[tuple[int, int], Tokens] = {}
    spent = 0
    ranks = max(len(record.top), len(record.stratified))
    order = [
        e for r in range(ranks) for e in (*record.top[r : r + 1], *record.stratified[r : r + 1])
    ]
    bos = model.tokenizer.bos_token_id
    for example in order:
        ids = index.ids(example.document).tolist()
        ids = ids[1:] if ids[:1] == [bos] else ids
        start = max(0, example.position - context * 3 // 4)
        ids = [bos, *ids[start : start + context - 1]]
        if (example.document, start) in found or spent + len(ids) > tokens:
            continue
        spent += len(ids)
        strings = tuple(strings_of(model.tokenizer, ids))
        special = tuple(i == bos for i in ids)
        found[example.document, start] = Tokens(tuple(ids), strings, special)
    return list(found.values())


@dataclass(eq=False)
class _Sums:
    """Changes added up over texts."""

    totals: dict[Site, Tensor]
    """``(1 + control, d_sae)``: of the feature, then of each control."""
    logits: Tensor
    count: int
    texts: int
    tokens: dict[Site, Features] = field(default_factory=dict)

    def add(self, other: _Sums) -> None:
        """Another text."""
        self.count, self.texts = self.count + other.count, self.texts + other.texts
        self.logits = self.logits + other.logits
        for site, totals in other.totals.items():
            self.totals[site] = self.totals[site] + totals

    def causes(
        self,
        study: _Study,
        tokens: Tokens | None,
        label: Callable[[Site, int], str] | None,
    ) -> Causes:
        """As means over the texts."""
        changes = {}
        for site, sums in self.totals.items():
            means = sums / self.texts
            null = means[1:].abs().amax(0) if len(means) > 1 else torch.zeros_like(means[0])
            each = None if tokens is None else self.tokens[site]
            changes[site] = Change(means[0], null, each)
        tokenizer = study.model.tokenizer
        return Causes(
            study.feature,
            study.how,
            tokens,
            self.count,
            changes,
            self.logits / self.texts,
            string=lambda i: strings_of(tokenizer, [i])[0],
            label=label or (lambda site, index: ""),
        )


@dataclass(frozen=True, eq=False)
class _Study:
    """One feature's ablation or amplification, with its controls."""

    model: Model
    source: FeatureSource
    feature: Feature
    how: How
    sites: Sequence[Site]
    controls: int
    seed: int
    busy: Busy
    at_last: bool
    """Whether the logits are those after the last token, and not where the feature fires."""

    def __post_init__(self) -> None:
        how = self.how
        number = isinstance(how, int | float) and not isinstance(how, bool)
        if how != "ablate" and not (number and math.isfinite(how) and how != 1):
            raise ValueError(f"how is 'ablate' or a factor other than 1, such as 2.0; got {how!r}")
        if self.controls < 0:
            raise ValueError(f"controls is a number of features, 0 or more; got {self.controls}")
        self.source.sae_at(self.feature[0]).check_index(self.feature[1])

    def of(self, texts: Sequence[Tokens]) -> _Sums | None:
        """The sums over `texts`; None where the feature never fires."""
        sums: _Sums | None = None
        for tokens in texts:
            part = self._one(tokens)
            if sums is None:
                sums = part
            elif part is not None:
                sums.add(part)
        return sums

    def _one(self, tokens: Tokens) -> _Sums | None:
        site, index = self.feature
        wanted = list({site, site.writes_at})
        before = trace(self.model, [tokens], wanted, source=self.source, busy=self.busy)
        x = before.activations[site][0]
        active = Features.encode(self.source.sae_at(site), site, tokens, x)
        values = active.of(index)
        values[0] = 0
        fires = values > 0
        if not fires.any():
            return None
        edits: list[list[Edit]] = [[], [self._edit()]]
        written = before.activations[site.writes_at][0].float()
        for step in self._steps(active, values, x):
            edits.append([Patch(site.writes_at, written + step)])
        return self._compare(tokens, edits, fires)

    def _edit(self) -> Edit:
        site, index = self.feature
        where = (site.layer, index)
        if self.how == "ablate":
            return Ablate(where, kind=site.kind)
        return Scale(where, self.how, kind=site.kind)

    def _steps(self, active: Features, values: Tensor, x: Tensor) -> list[Tensor]:
        """What each control adds ``(pos, d_out)``: as long as the edit, along another feature."""
        sae = self.source.sae_at(self.feature[0])
        others = active.indices[active.scored].unique()
        others = others[others != self.feature[1]]
        if not len(others):  # a text on which nothing else fires
            others = torch.tensor([i for i in range(sae.config.d_sae) if i != self.feature[1]])
        random = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(others), generator=random)
        chosen = others[[int(order[i % len(order)]) for i in range(self.controls)]]
        factor = -1.0 if self.how == "ablate" else self.how - 1
        scale = sae.output_scale(x)
        if scale is not None:
            values = values * scale[:, 0]
        size = factor * values * float(sae.W_dec[self.feature[1]].float().norm())
        rows = nn.functional.normalize(sae.W_dec[chosen.to(sae.W_dec.device)].float(), dim=-1)
        return [size[:, None] * row for row in rows.cpu()]

    def _compare(self, tokens: Tokens, each: list[list[Edit]], fires: Tensor) -> _Sums:
        """What the edits change, the first row being the unedited one."""
        config = self.model.config
        room = config.vocab_size + sum(site.width(config) for site in self.sites)
        rows = max(1, VALUES // (len(tokens) * room) - 1)
        totals: dict[Site, list[Tensor]] = {site: [] for site in self.sites}
        moved, changed = torch.zeros(0), {}
        at = torch.tensor([len(tokens) - 1]) if self.at_last else fires.nonzero()[:, 0]
        for start in range(1, len(each), rows):
            some = [[], *each[start : start + rows]]
            found = trace(
                self.model,
                [tokens] * len(some),
                self.sites,
                each=some,
                source=self.source,
                busy=self.busy,
            )
            for site in self.sites:
                sae, (plain, *edited) = self.source.sae_at(site), found.activations[site]
                before = Features.encode(sae, site, tokens, plain)
                for row, x in enumerate(edited, start):
                    after = Features.encode(sae, site, tokens, x)
                    totals[site].append(after.scores("sum") - before.scores("sum"))
                    if row == 1:
                        changed[site] = difference(before, after)
            if start == 1:
                moved = (found.logits[1] - found.logits[0])[at].float().mean(0)
        summed = {site: torch.stack(rows) for site, rows in totals.items()}
        return _Sums(summed, moved - moved.mean(), int(fires.sum()), 1, changed)


def difference(before: Features, after: Features) -> Features:
    """What became of the features of a text: the entries of `after` less those of `before`."""
    keys = torch.cat([one.positions * one.d_sae + one.indices for one in (before, after)])
    values = torch.cat([-before.values, after.values])
    unique, where = keys.unique(return_inverse=True)
    sums = torch.zeros(len(unique)).index_add_(0, where, values)
    kept = sums != 0
    unique = unique[kept]
    d_sae = before.d_sae
    return Features(before.site, before.tokens, unique // d_sae, unique % d_sae, sums[kept], d_sae)


def _estimates(
    model: Model,
    source: FeatureSource,
    tokens: Tokens,
    feature: Feature,
    chosen: Sequence[Feature],
    busy: Busy,
) -> dict[Feature, float]:
    """Gradient x activation for the sum of each chosen feature over the tokens but ``<bos>``."""
    site, index = feature
    sae = source.sae_at(site)
    room = max(1, VALUES // (len(tokens) * model.config.vocab_size))
    found: dict[Feature, float] = {}
    # A site at a time, so that two SAEs are in use and no more.
    for other in sorted({one for one, _ in chosen}):
        indices = [i for one, i in chosen if one == other]
        for start in range(0, len(indices), room):
            some = indices[start : start + room]

            def score(
                _: Tensor,
                at: Mapping[Site, Tensor],
                other: Site = other,
                some: Sequence[int] = some,
            ) -> Tensor:
                rows = at[other][:, 1:]
                f = source.sae_at(other).encode_features(rows, some)
                return f.sum(1).diagonal().sum()

            wanted = list({site, site.writes_at, other})
            slopes = gradients(model, [tokens] * len(some), wanted, score, source=source, busy=busy)
            f = _written(sae, slopes.activations[site][0], index)
            along = slopes.gradients[site.writes_at].float() @ sae.W_dec[index].float().cpu()
            values = -(along * f)[:, 1:].sum(-1)
            found |= {(other, i): v for i, v in zip(some, values.tolist(), strict=True)}
    return found


def _written(sae: SAE, x: Tensor, index: int) -> Tensor:
    """How many times a feature writes its decoder row at each token of `x` ``(pos,)``."""
    x = x.to(sae.W_enc.device)
    f, scale = sae.encode_features(x, index)[:, 0].float(), sae.output_scale(x)
    return (f if scale is None else f * scale[:, 0]).cpu()
