"""Anatomy: what the weights alone say of a feature, before any text is read.

Which features write nearly the same direction, what it writes into the logits, and how far what it
reads is from what it writes: an encoder also has to tell its feature from others that share its
direction, so the two differ even in a good SAE, and the SAE's own median says by how much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.analysis.kinship import Relative, written_directions
from workbench.architectures import architecture_of
from workbench.features import check_count, logit_effects
from workbench.sae import SAE
from workbench.sae.suite import Suite
from workbench.sites import Site


@dataclass(frozen=True)
class Angle:
    """Between what a feature reads and what it writes."""

    cosine: float
    """Of its encoder column and its decoder row."""
    median: float
    """The same over all features of the SAE; of an even number the lower one in the middle."""

    @property
    def degrees(self) -> float:
        """0 if the feature reads just what it writes, 90 if the two have nothing in common."""
        return math.degrees(math.acos(max(-1.0, min(1.0, self.cosine))))


@dataclass(frozen=True)
class TokenEffects:
    """The ends of `workbench.features.logit_effects`: ``(token id, effect)``, the largest first."""

    promoted: tuple[tuple[int, float], ...]
    """Tokens that the feature makes more likely."""
    suppressed: tuple[tuple[int, float], ...]
    """Tokens that it makes less likely."""


def encoder_decoder_angle(sae: SAE, index: int) -> Angle | None:
    """How far what a feature reads is from what it writes.

    Returns:
        None for a transcoder, which reads one activation and writes another.

    Raises:
        ValueError: If the feature does not exist.
    """
    index = sae.check_index(index)
    if sae.config.kind == "transcoder" or sae.config.d_in != sae.config.d_out:
        return None
    cosines = nn.functional.cosine_similarity(sae.W_enc.float().T, sae.W_dec.float(), dim=-1)
    return Angle(float(cosines[index]), float(cosines.median()))


def nearest(
    module: Any, suite: Suite, site: Site, index: int, *, k: int = 6, reach: int = 1
) -> dict[Site, list[Relative]]:
    """The `k` features whose decoders are nearest, here and in the neighbouring layers.

    As in `workbench.analysis.kinship`, by the cosine of what they write into the stream. The
    feature itself is left out, and nothing is downloaded.

    Args:
        module: A transformers model of an architecture that `workbench.architectures` knows.
        suite: The SAEs.
        site: Where the feature is.
        index: Which it is.
        k: How many of each site, at most.
        reach: How many layers before and after, of the same kind of site.

    Returns:
        For each site that has an SAE at hand, in execution order, the nearest first.

    Raises:
        ValueError: If the feature does not exist, or `k` is below 1.
    """
    sae, k = suite.sae_at(site), check_count(k)
    direction = written_directions(module, site, sae)[sae.check_index(index)]
    near = [
        other
        for other in suite.sites
        if other.kind == site.kind
        and abs(other.layer - site.layer) <= reach
        and (other == site or suite.at_hand(other))
    ]
    found = {}
    for other in near:
        cosines = written_directions(module, other, suite.sae_at(other)) @ direction
        if other == site:
            cosines[index] = -torch.inf
        best = cosines.topk(min(k, len(cosines) - (other == site)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        found[other] = [Relative(other, i, cosine) for i, cosine in pairs]
    return found


def token_effects(
    module: Any, site: Site, sae: SAE, index: int, *, k: int = 10, vocabulary: int | None = None
) -> TokenEffects:
    """The tokens whose logits a feature raises and lowers most, by its direct path.

    The decoder row of an ``att`` SAE is first carried through ``W_O`` into the stream. What is left
    out on the way, and why that keeps the order: `workbench.features.logit_effects`.

    Args:
        module: As in `nearest`.
        site: Where the SAE reads.
        sae: The SAE.
        index: The feature.
        k: How many at each end; at most half of the vocabulary.
        vocabulary: Number of tokens that the tokenizer has; ids from there on fill up the matrix.

    Raises:
        ValueError: If the feature does not exist, or `k` is below 1.
    """
    direction: Tensor = sae.direction(index)
    if site.kind == "att":
        direction = architecture_of(module).into_stream(module, site.layer, direction[None])[0]
    effects = logit_effects(module, direction)[:vocabulary]
    k = min(check_count(k), len(effects) // 2)
    ends = []
    for largest in (True, False):
        end = effects.topk(k, largest=largest)
        ends.append(tuple(zip(end.indices.tolist(), end.values.tolist(), strict=True)))
    return TokenEffects(*ends)
