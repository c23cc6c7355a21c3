"""Lens: what the residual stream, or a feature's direction, says if it is read as logits.

The logit lens (nostalgebraist 2020, "interpreting GPT: the logit lens"): the stream after any layer
goes through the final norm, the unembedding and the soft cap, as only the last layer's does in the
model. Early layers are not written to be read so: what comes out there is a hint.

A direction alone has no norm to be divided by, so its tokens are those of
`workbench.features.logit_effects`, up to a positive factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.lineage import Lineage
from workbench.architectures import architecture_of, resolve
from workbench.engine.binding import FeatureSource
from workbench.features import check_count, logit_effects

STREAM = ["layer", "position", "rank", "id", "logit", "probability"]
DIRECTION = ["layer", "kind", "feature", "rank", "id", "effect"]


def stream_logits(module: Any, stream: Tensor) -> Tensor:
    """The residual stream of any layer, read as the last one is ``(..., vocabulary)``.

    Args:
        module: A transformers model of an architecture that `workbench.architectures` knows.
        stream: ``(..., d_model)``.
    """
    known = architecture_of(module)
    norm, head = resolve(module, known.norm), resolve(module, known.head)
    with torch.inference_mode():
        x = stream.to(device=head.weight.device, dtype=head.weight.dtype)
        # By `forward`, past the hooks of a tracer that may be at work on these modules.
        logits = head.forward(norm.forward(x))
        cap = getattr(module.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap


def stream_lens(module: Any, streams: Mapping[int, Tensor], *, k: int = 5) -> pd.DataFrame:
    """The tokens that each layer's stream would have the model say next.

    Args:
        module: As in `stream_logits`.
        streams: Of each layer ``(pos, d_model)``.
        k: Tokens of each.

    Returns:
        Columns ``layer, position, rank, id, logit, probability``; ``<bos>`` left out.

    Raises:
        ValueError: If `k` is below 1.
    """
    check_count(k)
    rows = []
    for layer, stream in sorted(streams.items()):
        for position in range(1, len(stream)):  # one at a time: a vocabulary is wide
            logits = stream_logits(module, stream[position]).float().cpu()
            best = logits.topk(min(k, len(logits)))
            probabilities = (best.values - logits.logsumexp(-1)).exp()
            rows += [
                (layer, position, rank, token, logit, probability)
                for rank, (token, logit, probability) in enumerate(
                    zip(
                        best.indices.tolist(),
                        best.values.tolist(),
                        probabilities.tolist(),
                        strict=True,
                    )
                )
            ]
    return pd.DataFrame(rows, columns=STREAM)


def direction_lens(
    module: Any, source: FeatureSource, lineage: Lineage, *, k: int = 5
) -> pd.DataFrame:
    """The tokens that a feature makes more likely by the direct path, at each site of its kin.

    Args:
        module: As in `stream_logits`.
        source: The SAEs.
        lineage: The feature through the layers; only those that count are read.
        k: Tokens of each.

    Returns:
        Columns ``layer, kind, feature, rank, id, effect``.

    Raises:
        ValueError: If `k` is below 1.
    """
    check_count(k)
    rows = []
    for one in lineage.kin:
        if not one.counts:
            continue
        direction = source.sae_at(one.site).direction(one.index)
        if one.site.kind == "att":
            known = architecture_of(module)
            direction = known.into_stream(module, one.site.layer, direction[None])[0]
        effects = logit_effects(module, direction).cpu()
        best = effects.topk(min(k, len(effects)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        rows += [
            (one.site.layer, one.site.kind, one.index, rank, token, effect)
            for rank, (token, effect) in enumerate(pairs)
        ]
    return pd.DataFrame(rows, columns=DIRECTION)
