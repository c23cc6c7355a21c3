"""Is this SAE good on this model, and is it at the right site? Figures that tell.

The measures are Gemma Scope's (Lieberum et al. 2024, arXiv 2408.05147, section 4.1): L0, the
fraction of variance unexplained, and the next-token loss when the reconstruction takes the place of
the activation. A wrong site shows in them at once: the MLP's output before its norm instead of
after it turns an FVU of 0.26 into 9.8. ``<bos>`` is left out of every figure and never replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.engine.binding import site_of
from workbench.engine.edits import Patch
from workbench.engine.tracing import trace
from workbench.features import Features
from workbench.models import Model
from workbench.sae import SAE
from workbench.sae.metrics import fvu
from workbench.sites import KINDS, Site
from workbench.tokens import Tokens

L0_FACTOR = 2.0
"""An L0 this many times larger or smaller than the published one needs an explanation."""
FVU_DOUBT, FVU_LIMIT = 0.5, 1.0
"""From the first on other sites are tried; from the second on the mean of the tokens is better."""
BLOCK = 64
"""Tokens that are encoded at once: 256 MB of features for an SAE of a million."""
SEARCH_TOKENS = 256
"""Tokens on which other sites are tried."""


class WrongSiteError(ValueError):
    """An SAE does not reconstruct the activations of the site that it is said to belong to."""


@dataclass(frozen=True)
class Fit:
    """How well an SAE reconstructs a site on some text."""

    site: Site
    """Where it was tried."""
    tokens: int
    """Tokens that count."""
    l0: float
    """Mean number of active features a token."""
    fvu: float
    """Fraction of variance unexplained."""


@dataclass(frozen=True)
class Check:
    """What `check` measured."""

    sae: str
    """Name of the SAE."""
    fit: Fit
    """L0 and FVU."""
    published_l0: float | None
    """The L0 in the SAE's name, if it has one."""
    loss: float
    """Next-token loss of the model on the text, in nats."""
    spliced: float
    """The same with the reconstruction in place of the activation."""
    zero: float
    """The same with zeros in its place."""
    notes: tuple[str, ...]
    """What a reader of the figures should know."""

    @property
    def recovered(self) -> float:
        """Loss recovered: 1 if the reconstruction changes nothing, 0 if it is as bad as zeros."""
        return (self.zero - self.spliced) / (self.zero - self.loss)

    def to_frame(self) -> pd.DataFrame:
        """One row: ``sae, tokens, l0, published_l0, fvu, loss, spliced, zero, recovered``."""
        numbers = {k: v for k, v in asdict(self).items() if k not in ("sae", "fit", "notes")}
        fit = {"tokens": self.fit.tokens, "l0": self.fit.l0, "fvu": self.fit.fvu}
        return pd.DataFrame([{"sae": self.sae, **fit, **numbers, "recovered": self.recovered}])

    def __str__(self) -> str:
        published = "" if self.published_l0 is None else f" (published {self.published_l0:g})"
        lines = [
            f"{self.sae} at {self.fit.site}, {self.fit.tokens} tokens",
            f"  L0             {self.fit.l0:.1f}{published}",
            f"  FVU            {self.fit.fvu:.3f}",
            f"  loss           {self.loss:.3f} nats, {self.spliced:.3f} with the reconstruction",
            f"  loss recovered {self.recovered:.1%}",
        ]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    __repr__ = __str__


def check(model: Model, sae: SAE, texts: Sequence[Tokens]) -> Check:
    """Measure an SAE on `texts` at its own site, and refuse it where it does not belong.

    Neighbouring layers of the residual stream are alike: the SAE of the next layer passes, with a
    higher FVU.

    Args:
        model: The model.
        sae: The SAE or transcoder; its config says where it reads.
        texts: Some hundred tokens at least, like those it was trained on.

    Raises:
        WrongSiteError: If its reconstruction is worse than the mean, or another site fits far
            better; names the site that fits best.
        ValueError: If there is no token to score, or the widths differ.
    """
    site = site_of(sae, model.module)
    if sum(len(text) - 1 for text in texts) < 2:
        raise ValueError("the text has fewer than two tokens after <bos>: give a longer one")
    read = _read(model, {site, site.writes_at}, texts)
    found = fit(sae, site, read)
    notes = _notes(found, sae.config.l0)
    if found.fvu > FVU_DOUBT or notes:
        _refuse_a_wrong_site(model, sae, found, texts)
    losses = [_losses(model, sae, site, text) for text in texts]
    loss, spliced, zero = (sum(column) / found.tokens for column in zip(*losses, strict=True))
    name = model.name
    if name.endswith("-it") and sae.config.model and not sae.config.model.endswith("-it"):
        notes = (*notes, f"an SAE of {sae.config.model} on {name}, which was tuned after it")
    return Check(sae.name, found, sae.config.l0, loss, spliced, zero, notes)


def fit(sae: SAE, site: Site, read: dict[Site, Tensor], known: Features | None = None) -> Fit:
    """L0 and FVU of an SAE on activations ``(token, d_in)``, ``<bos>`` already left out.

    Some tokens at a time: all features of a long text at once are gigabytes for a wide SAE.

    Args:
        sae: The SAE or transcoder.
        site: The site whose activations it gets.
        read: Activations by site; those of `site`, and of where it writes.
        known: The features of the same text, ``<bos>`` at position 0, if they were computed.

    Raises:
        ValueError: If there are not two different tokens.
    """
    active, parts = 0, []
    with torch.inference_mode():
        for start in range(0, len(read[site]), BLOCK):
            x = read[site][start : start + BLOCK].to(sae.W_enc.device)
            if known is None:
                f = sae.encode(x)
            else:
                f = known.dense(start + 1, start + 1 + len(x)).to(x.device)
            active += int((f != 0).sum())
            parts.append(sae.decode(f, x).float().cpu())
        target = read[site.writes_at].float().cpu()
        return Fit(site, len(target), active / max(len(target), 1), fvu(target, torch.cat(parts)))


def mean_norms(model: Model, sites: Sequence[Site], texts: Sequence[Tokens]) -> dict[Site, float]:
    """Mean Euclidean norm of the activation at each site, ``<bos>`` left out."""
    read = _read(model, set(sites), texts)
    return {site: float(x.float().norm(dim=-1).mean()) for site, x in read.items()}


def mean_activations(
    model: Model, saes: dict[Site, SAE], features: dict[Site, list[int]], texts: Sequence[Tokens]
) -> dict[Site, dict[int, float]]:
    """Mean activation of single features over all tokens, ``<bos>`` left out.

    Args:
        model: The model.
        saes: The SAE of each site.
        features: Which features at each site; only their columns of the encoder are used.
        texts: Ordinary text.

    Returns:
        By site and feature.
    """
    found = _activations_of(model, saes, features, texts)
    return {
        site: dict(zip(features[site], f.mean(0).tolist(), strict=True))
        for site, f in found.items()
    }


def typical_maxima(
    model: Model, saes: dict[Site, SAE], features: dict[Site, list[int]], texts: Sequence[Tokens]
) -> dict[Site, dict[int, float]]:
    """What single features reach when strongly present: their 99th percentile where they fire.

    Args:
        model: The model.
        saes: The SAE of each site.
        features: Which features at each site; only their columns of the encoder are used.
        texts: Ordinary text; ``<bos>`` is left out.

    Returns:
        By site and feature; 0 for a feature that fires nowhere in `texts`.
    """
    found = _activations_of(model, saes, features, texts)
    return {
        site: {
            index: float(column[column > 0].quantile(0.99)) if (column > 0).any() else 0.0
            for index, column in zip(features[site], f.T, strict=True)
        }
        for site, f in found.items()
    }


def _activations_of(
    model: Model, saes: dict[Site, SAE], features: dict[Site, list[int]], texts: Sequence[Tokens]
) -> dict[Site, Tensor]:
    """Activations ``(token, feature)`` of single features at each site."""
    read, found = _read(model, set(features), texts), {}
    for site, indices in features.items():
        sae = saes[site]
        with torch.inference_mode():
            blocks = [
                sae.encode_features(block.to(sae.W_enc.device), indices).float().cpu()
                for block in read[site].split(BLOCK)
            ]
        found[site] = torch.cat(blocks)
    return found


def _read(model: Model, sites: set[Site], texts: Sequence[Tokens]) -> dict[Site, Tensor]:
    """Activations ``(token, d_in)`` of all texts without their ``<bos>``, by site."""
    runs = [trace(model, [text], sorted(sites)).activations for text in texts]
    return {site: torch.cat([run[site][0, 1:] for run in runs]) for site in sites}


def _losses(model: Model, sae: SAE, site: Site, text: Tokens) -> tuple[float, float, float]:
    """Summed loss of a text: as it is, with the reconstruction, and with zeros at the site."""
    clean = trace(model, [text], [site, site.writes_at])
    with torch.inference_mode():
        put = sae.reconstruct(clean.activations[site][0].to(sae.W_enc.device)).cpu()
    target = site.writes_at
    changed = (
        trace(model, [text], edits=[Patch(target, x)]).logits
        for x in (put.float(), torch.zeros_like(put))
    )
    return tuple(next_token_loss(logits[0], text) for logits in (clean.logits, *changed))  # pyright: ignore[reportReturnType]


def next_token_loss(logits: Tensor, text: Tokens) -> float:
    """Summed loss of a text ``(pos, vocabulary)`` in nats; ``<bos>`` is never predicted."""
    ids = torch.tensor(text.ids[1:])
    return float(-logits[:-1].float().log_softmax(-1).gather(1, ids[:, None]).sum())


def _notes(found: Fit, published: float | None) -> tuple[str, ...]:
    """What is odd about the L0."""
    if published is None or not published:
        return ()
    factor = found.l0 / published
    if 1 / L0_FACTOR < factor < L0_FACTOR:
        return ()
    return (f"L0 is {factor:.2g} times the published one: a text unlike the training text?",)


def _refuse_a_wrong_site(model: Model, sae: SAE, found: Fit, texts: Sequence[Tokens]) -> None:
    """Try the SAE at every site of its widths.

    Raises:
        WrongSiteError: If one of them fits far better, or none fits.
    """
    config, few = model.config, _first(texts, SEARCH_TOKENS)
    layers = range(config.num_hidden_layers)
    sites = [
        Site(layer, kind) for layer in layers for kind in KINDS if kind != "embed" or not layer
    ]
    wanted = sae.config.d_in, sae.config.d_out
    sites = [s for s in sites if (s.width(config), s.writes_at.width(config)) == wanted]
    read = _read(model, {*sites, *(site.writes_at for site in sites)}, few)
    tried = [fit(sae, site, read) for site in tqdm(sites, desc="looking for the site", leave=False)]
    best, here = min(tried, key=lambda one: one.fvu), tried[sites.index(found.site)]
    if best.site != found.site and best.fvu < min(FVU_LIMIT, here.fvu / 2):
        raise WrongSiteError(
            f"{sae.name} does not belong at {found.site}: FVU {here.fvu:.2f} and L0 {here.l0:.0f} "
            f"there, FVU {best.fvu:.2f} and L0 {best.l0:.0f} at {best.site}, which is the likely "
            "right one"
        )
    if found.fvu > FVU_LIMIT:
        raise WrongSiteError(
            f"{sae.name} does not fit {model.name}: FVU {found.fvu:.2f} and L0 {found.l0:.0f} at "
            f"{found.site}, and nowhere is it far better (a file of another model, or of other "
            "weights of it?)"
        )


def _first(texts: Sequence[Tokens], count: int) -> list[Tokens]:
    """The first of `texts` that have `count` tokens together."""
    chosen = []
    for text in texts:
        chosen.append(text)
        count -= len(text)
        if count <= 0:
            break
    return chosen
