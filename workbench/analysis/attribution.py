"""Attribution: how much each active feature has to do with a chosen next token.

The attribution of feature i at token t is its activation times the slope of the target,

    a_i(t) = f_i(t) s(t) (d_i . dm/dx(t)),        m = logit(token) - mean over the vocabulary

with d_i the decoder row and x the activation where the SAE writes (s is 1 but for an SAE that
normalises its input). It is what ablating the feature at that token would take from m, to first
order: the attribution patching of Marks et al. 2024 (arXiv 2403.19647, section 3) with 0 as the
patch, and the attribution of Templeton et al. 2024 ("Scaling Monosemanticity"). One pass forward
and one back give all sites.

Why minus the mean: a number that is added to all logits changes no probability, and yet it would be
credited to every feature that moves all logits together. ``against`` puts chosen tokens in the
place of the mean, for a logit difference. Logits are the model's own, soft cap included.

First order is first order: where attention or a norm is saturated, or the model is sure of the
token, the slope misses what an ablation shows. With ``dimmed`` the slope is averaged with that of a
second point, at which all features of a residual layer at or below the site are dimmed by a
quarter: the end of a path towards the ablated state, as integrated gradients take it (Marks et al.,
section 3, after Sundararajan et al. 2017), but a short one, because one feature is a small part of
its site. `Attribution.check` ablates the largest one by one and says how well the two agree.

Attributions at different sites overlap and are not to be added up: the residual stream carries on
what earlier sites wrote.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from workbench.engine.binding import FeatureSource
from workbench.engine.edits import Ablate, Edit, Patch
from workbench.engine.receipts import NoEffectWarning
from workbench.engine.tracing import gradients, trace
from workbench.features import Features, check_count
from workbench.models import Busy, Model
from workbench.sae import SAE
from workbench.sites import Kind, Site, check_kind
from workbench.tokens import Tokens, strings_of

Token = str | int
"""A text of exactly one token, or an id."""
BLOCK = 4096
"""Entries whose decoder rows are gathered at once: 40 MB in float32 at d_model 2304."""
DIMMED = 0.25
"""Share of the features that is taken away at the second point of the path."""
LOGITS = 2**26
"""Logits that one pass of ablations may leave behind: 256 MB."""


@dataclass(frozen=True)
class Target:
    """The number that is attributed: a logit, less the mean logit or that of other tokens."""

    token: int
    """Whose logit."""
    position: int
    """Of the token after which it stands, counted from 0."""
    string: str
    """What to show for the token."""
    against: tuple[int, ...] = ()
    """Tokens whose mean logit is subtracted; the whole vocabulary if empty."""

    @classmethod
    def of(
        cls,
        model: Model,
        tokens: Tokens,
        token: Token,
        position: int = -1,
        against: Token | Sequence[Token] = (),
    ) -> Target:
        """The target that these words mean.

        Raises:
            TypeError: If a token is neither a text nor an id.
            ValueError: If a text is not exactly one token, an id or the position does not exist, or
                the token stands against itself.
        """
        count = len(tokens)
        if not -count <= position < count:
            raise ValueError(
                f"position {position} does not exist: the prompt has {count} tokens, 0 to "
                f"{count - 1}, or -1 for the last"
            )
        others = [against] if isinstance(against, str | int | Integral) else against
        chosen, *rest = (token_id(model, one) for one in (token, *others))
        if chosen in rest:
            raise ValueError(f"the token {token!r} stands against itself: leave it out of against=")
        shown = strings_of(model.tokenizer, [chosen])[0]
        return cls(chosen, position % count, shown, tuple(rest))

    def score(self, logits: Tensor) -> Tensor:
        """The number, of logits ``(pos, vocabulary)``."""
        row = logits[self.position].float()
        return row[self.token] - (row[list(self.against)] if self.against else row).mean()


def token_id(model: Model, token: Token) -> int:
    """The id of a text that is exactly one token, or the id itself.

    Raises:
        TypeError: If it is neither a text nor an id.
        ValueError: If the text is several tokens or none, or there is no such id.
    """
    if isinstance(token, str):
        ids = model.tokenizer(token, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            parts = ", ".join(map(repr, strings_of(model.tokenizer, ids))) or "none"
            raise ValueError(
                f"token={token!r} must be one token and is {len(ids)}: {parts}; give one of them "
                "(mind the space in front), or an id"
            )
        return ids[0]
    if isinstance(token, bool) or not isinstance(token, Integral):
        raise TypeError(f"a token is a text such as ' Paris' or an id, got {token!r}")
    if not 0 <= token < model.config.vocab_size:
        raise ValueError(
            f"token id {token} does not exist; the vocabulary is 0 to {model.config.vocab_size - 1}"
        )
    return int(token)


@dataclass(frozen=True, eq=False)
class Part:
    """The attributions of one site, on the CPU."""

    activations: Features
    """The active features."""
    effects: Features
    """The same entries with attributions in the place of activations, of either sign."""
    remainder: Tensor
    """``(pos,)`` the attribution of all at the site that is no feature: the SAE's error and bias.

    Slopes times features and remainder of a token together are ``x . dm/dx``: nothing is lost.
    """
    read: Tensor
    """``(pos, d_in)`` the activation that was encoded."""
    slopes: Tensor
    """``(pos, d_out)`` gradient of the target where the features write, at the run itself."""

    @cached_property
    def totals(self) -> Tensor:
        """Attribution of each feature over all tokens but ``<bos>`` ``(d_sae,)``.

        With its sign: what ablating it everywhere would take from the target, as estimated.
        """
        return self.effects.scores("sum")


@dataclass(frozen=True, eq=False)
class Check:
    """Attributions beside what ablating the features really takes from the target."""

    frame: pd.DataFrame
    """Columns ``layer, kind, feature, label, attribution, ablation``."""

    @property
    def rank_correlation(self) -> float:
        """Spearman's, of the two; NaN for fewer than two features."""
        ranks: Any = self.frame[["attribution", "ablation"]].rank()
        return float(ranks["attribution"].corr(ranks["ablation"]))

    def __repr__(self) -> str:
        return (
            f"<Check of {len(self.frame)} features: rank correlation {self.rank_correlation:.3f}>"
        )


@dataclass(frozen=True, eq=False)
class Attribution:
    """What every active feature has to do with one next token."""

    tokens: Tokens
    """The prompt."""
    target: Target
    """What is attributed."""
    score: float
    """Its value: logit of the token less that of the others."""
    parts: Mapping[Site, Part]
    """The attributions of each site, sites in execution order."""
    label: Callable[[Site, int], str] = field(default=lambda site, index: "", repr=False)
    """Gives a feature's label."""
    ablate: Callable[[Sequence[tuple[Site, int]]], list[float]] | None = field(
        default=None, repr=False
    )
    """Of each feature, what the target loses when it alone is ablated at all tokens."""

    def __repr__(self) -> str:
        where = f"after {self.tokens.strings[self.target.position]!r} ({self.target.position})"
        return f"<Attribution to {self.target.string!r} {where}: {len(self.parts)} sites>"

    def at(self, layer: int, kind: Kind = "res") -> Part:
        """The attributions of a site.

        Raises:
            ValueError: If it is not among them.
        """
        site = Site(layer, check_kind(kind))
        if site not in self.parts:
            raise ValueError(f"{site} was not attributed; there are {_named(self.parts)}")
        return self.parts[site]

    def top(self, k: int = 20) -> pd.DataFrame:
        """The `k` features with the largest attribution over all tokens, of either sign.

        Returns:
            Columns ``layer, kind, feature, label, attribution, position, token, peak``: the sum
            over all tokens but ``<bos>``, and where the largest single one is and what it is.

        Raises:
            ValueError: For a `k` below 1.
        """
        check_count(k)
        best = []
        for site, part in self.parts.items():
            sizes, indices = part.totals.abs().topk(min(k, len(part.totals)))
            best += [(float(s), site, int(i)) for s, i in zip(sizes, indices, strict=True) if s > 0]
        best.sort(key=lambda one: -one[0])
        rows = [self._row(site, index) for _, site, index in best[:k]]
        columns = ["layer", "kind", "feature", "label", "attribution", "position", "token", "peak"]
        return pd.DataFrame(rows, columns=columns)

    def check(self, k: int = 50) -> Check:
        """Ablate the `k` features with the largest attribution one by one, at all tokens.

        Raises:
            ValueError: For a `k` below 1, or where there is no model to run.
        """
        if self.ablate is None:
            raise ValueError("this attribution has no model to run: attribute again")
        frame = self.top(k)[["layer", "kind", "feature", "label", "attribution"]]
        rows = zip(frame["layer"], frame["kind"], frame["feature"], strict=True)
        return Check(frame.assign(ablation=self.ablate([(Site(r[0], r[1]), r[2]) for r in rows])))

    def _row(self, site: Site, index: int) -> tuple:
        part = self.parts[site]
        over = part.effects.of(index)[1:]
        peak = int(over.abs().argmax())
        what = (site.layer, site.kind, index, self.label(site, index), float(part.totals[index]))
        return (*what, peak + 1, self.tokens.strings[peak + 1], float(over[peak]))

    def to_frame(self) -> pd.DataFrame:
        """One row for each active feature at each token but ``<bos>``, the largest first.

        Returns:
            Columns ``layer, kind, position, token, feature, activation, attribution, label``.
        """
        frames = [self._frame(site, part) for site, part in self.parts.items()]
        frame = pd.concat(frames, ignore_index=True)
        return frame.sort_values(
            "attribution", key=abs, ascending=False, kind="stable", ignore_index=True
        )

    def _frame(self, site: Site, part: Part) -> pd.DataFrame:
        keep = part.effects.scored
        positions = part.effects.positions[keep].numpy()
        features = part.effects.indices[keep].numpy()
        return pd.DataFrame(
            {
                "layer": site.layer,
                "kind": site.kind,
                "position": positions,
                "token": [self.tokens.strings[position] for position in positions],
                "feature": features,
                "activation": part.activations.values[keep].numpy(),
                "attribution": part.effects.values[keep].numpy(),
                "label": [self.label(site, int(index)) for index in features],
            }
        )


def attribute(
    model: Model,
    source: FeatureSource,
    tokens: Tokens,
    target: Target,
    sites: Sequence[Site],
    *,
    edits: Sequence[Edit] = (),
    dimmed: int = 0,
    known: Mapping[Site, Features] | None = None,
    label: Callable[[Site, int], str] | None = None,
    busy: Busy = "wait",
) -> Attribution:
    """Attribute `target` to the features of `sites`, with one pass forward and one back.

    SAEs are asked for one at a time, so no more of them need to be open than the source keeps.

    Args:
        model: The model; the gradient flows through it as it runs, with `edits`.
        source: Its SAEs.
        tokens: The prompt.
        target: What to attribute.
        sites: Where.
        edits: What is changed in the pass.
        dimmed: At how many residual layers, spread over those of `sites`, a second slope is taken;
            each costs another pass forward and back. 3 agree well with ablations.
        known: Features of this very pass that were computed before.
        label: Gives a feature's label.
        busy: See `workbench.models.Turn.take`.

    Raises:
        ValueError: If there is no site, or one does not exist or has no SAE, or `dimmed` is
            negative, without a residual layer or together with edits.
    """
    if not sites:
        raise ValueError("there are no sites to attribute at: give at least one that has an SAE")
    sites = sorted(set(sites))
    layers = _dimmed_layers(sites, dimmed, edits)
    found = gradients(
        model,
        [tokens],
        [*sites, *(site.writes_at for site in sites)],
        lambda logits, _: target.score(logits[0]),
        edits=edits,
        source=source,
        busy=busy,
    )
    parts: dict[Site, Part] = {}
    ends: dict[Site, Tensor] = {}
    for site in sites:
        sae, x = source.sae_at(site), found.activations[site][0]
        active = (known or {}).get(site) or Features.encode(sae, site, tokens, x)
        written, slopes = (one[site.writes_at][0] for one in (found.activations, found.gradients))
        parts[site] = _part(sae, active, x, written, slopes)
        if site in layers:
            ends[site] = x.float() - DIMMED * features_part(sae, active, x)
    if ends:
        _average(model, source, target, parts, ends, busy)

    def without(site: Site, index: int) -> list[Edit]:
        place = site.writes_at
        others = [edit for edit in edits if edit.site.writes_at != place]
        if len(others) == len(edits):
            return [*edits, Ablate((site.layer, index), kind=site.kind)]
        # Edits of one place are simultaneous: an ablation beside them would read the feature before
        # they act, and take away another amount than was attributed.
        taken = _share(source.sae_at(site), parts[site], index)
        taken[0] = 0
        left = found.activations[place][0].float() - taken
        return [*others, Patch(place, left, positions=range(len(tokens)))]

    def ablate(features: Sequence[tuple[Site, int]]) -> list[float]:
        each = [without(site, index) for site, index in features]
        rows = scores_under(model, source, target, tokens, each, busy=busy)
        return [found.score - one for one in rows]

    shown = label or (lambda site, index: "")
    return Attribution(tokens, target, found.score, parts, shown, ablate)


def scores_under(
    model: Model,
    source: FeatureSource,
    target: Target,
    tokens: Tokens,
    each: Sequence[Sequence[Edit]],
    *,
    busy: Busy = "wait",
) -> list[float]:
    """The target under each of some lists of edits, as many at a time as fit."""
    rows = max(1, LOGITS // (len(tokens) * model.config.vocab_size))
    found: list[float] = []
    for start in range(0, len(each), rows):
        some = each[start : start + rows]
        with warnings.catch_warnings():
            # A feature that an edit below has silenced need not be silenced again.
            warnings.simplefilter("ignore", NoEffectWarning)
            logits = trace(model, [tokens] * len(some), each=some, source=source, busy=busy).logits
        found += [float(target.score(one)) for one in logits]
    return found


def _dimmed_layers(sites: Sequence[Site], count: int, edits: Sequence[Edit]) -> list[Site]:
    """Residual layers at which to dim, spread evenly, the first among them."""
    if count < 0:
        raise ValueError(f"dimmed is a number of layers, 0 or more; got {count}")
    layers = [site for site in sites if site.kind == "res"]
    if count and not layers:
        raise ValueError("dimmed needs residual layers among the sites: add some, or leave it at 0")
    if count and edits:
        raise ValueError("dimmed takes no edits beside it: leave one of them out")
    count = min(count, len(layers))
    return [layers[round(i * len(layers) / count)] for i in range(count)]


def _average(
    model: Model,
    source: FeatureSource,
    target: Target,
    parts: dict[Site, Part],
    ends: Mapping[Site, Tensor],
    busy: Busy,
) -> None:
    """Average the slopes of `parts` with those at the second points, in place.

    Args:
        model: The model.
        source: Its SAEs.
        target: What is attributed.
        parts: Attributions at the run itself.
        ends: Residual layers with their dimmed activation ``(pos, d_model)``, a row of a batch for
            each; a site takes the nearest at or below it.
        busy: See `attribute`.
    """
    tokens = next(iter(parts.values())).activations.tokens
    second = gradients(
        model,
        [tokens] * len(ends),
        list({site.writes_at for site in parts}),
        lambda logits, _: torch.stack([target.score(one) for one in logits]).sum(),
        each=[[Patch(layer, x)] for layer, x in ends.items()],
        source=source,
        busy=busy,
    )
    for site, part in parts.items():
        below = [row for row, layer in enumerate(ends) if layer <= site]
        if below:
            slopes = (part.slopes + second.gradients[site.writes_at][below[-1]].float()) / 2
            effects = _effects(source.sae_at(site), part.activations, part.read, slopes)
            parts[site] = replace(part, effects=effects)


def features_part(sae: SAE, active: Features, x: Tensor) -> Tensor:
    """What the features write ``(pos, d_out)``, without bias and error, in float32.

    Args:
        sae: The SAE.
        active: Its features.
        x: What they were encoded from ``(pos, d_in)``.
    """
    device = sae.W_dec.device
    out = torch.zeros(len(x), sae.config.d_out)
    for start in range(0, len(active.values), BLOCK):
        block = slice(start, start + BLOCK)
        rows = sae.W_dec[active.indices[block].to(device)].float().cpu()
        out.index_add_(0, active.positions[block], rows * active.values[block, None])
    scale = sae.output_scale(x.to(device))
    return out if scale is None else out * scale.cpu()


def _share(sae: SAE, part: Part, index: int) -> Tensor:
    """What a feature writes at each token ``(pos, d_out)``, in float32."""
    values, scale = part.activations.of(index)[:, None], sae.output_scale(part.read)
    written = values * sae.W_dec[index].float().cpu()
    return written if scale is None else written * scale


def _part(sae: SAE, active: Features, x: Tensor, written: Tensor, slopes: Tensor) -> Part:
    """The attributions of a site.

    Args:
        sae: Its SAE.
        active: The features of `x`.
        x: Activation that the SAE reads ``(pos, d_in)``.
        written: Activation where it writes ``(pos, d_out)``.
        slopes: Gradient there ``(pos, d_out)``.
    """
    slopes = slopes.float()
    effects = _effects(sae, active, x, slopes)
    whole = (written.float() * slopes).sum(-1)
    remainder = whole.index_add(0, active.positions, effects.values, alpha=-1)
    return Part(active, effects, remainder, x, slopes)


def _effects(sae: SAE, active: Features, x: Tensor, slopes: Tensor) -> Features:
    """The features with activation times slope in the place of the activation."""
    values = active.values * _along_rows(sae, active, slopes)
    scale = sae.output_scale(x)
    if scale is not None:
        values = values * scale[:, 0][active.positions]
    return replace(active, values=values)


def _along_rows(sae: SAE, active: Features, slopes: Tensor) -> Tensor:
    """The slope along the decoder row of each entry ``(active,)``, in float32."""
    device, found = sae.W_dec.device, []
    for start in range(0, len(active.values), BLOCK):
        block = slice(start, start + BLOCK)
        rows = sae.W_dec[active.indices[block].to(device)].float()
        found.append((rows * slopes[active.positions[block]].to(device)).sum(-1).cpu())
    return torch.cat(found) if found else torch.zeros(0)


def _named(sites: Mapping[Site, Part]) -> str:
    return ", ".join(map(str, sites)) or "none"
