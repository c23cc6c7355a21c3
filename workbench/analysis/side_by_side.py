"""Several SAEs of one site, measured on the same texts.

Besides Gemma Scope's measures (see `workbench.analysis.evaluation`):

- ``dead``: share of the features that are active on none of the tokens.
- ``scale``: relative reconstruction bias (Rajamanoharan et al. 2024, arXiv 2404.16014, section
  4.1), here of what differs from the mean activation ``m``: with `u = x - m` and `v = xhat - m`,
  ``sum(v . v) / sum(v . u)``. It is 1 where the reconstruction has the right size, and below 1
  where an L1 penalty has shrunk it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.evaluation import next_token_loss
from workbench.engine.binding import common_site
from workbench.engine.edits import Patch
from workbench.engine.tracing import trace
from workbench.models import Model
from workbench.sae import SAE
from workbench.sae.metrics import fvu
from workbench.sites import Site
from workbench.tokens import Tokens

BLOCK = 512
"""Tokens that are encoded at once."""


def side_by_side(model: Model, saes: Mapping[str, SAE], texts: Sequence[Tokens]) -> pd.DataFrame:
    """Measure SAEs on texts; ``<bos>`` is left out of every figure and never replaced.

    Args:
        model: The model.
        saes: SAEs of one site, by name.
        texts: Texts that none of them was trained on.

    Returns:
        A row for each, named by the index: ``l0, fvu, recovered`` (loss recovered: 1 if the
        reconstruction costs nothing, 0 if it is as bad as zeros), ``loss`` and ``spliced``
        (next-token loss in nats as it is, and with the reconstruction), ``dead``, ``scale``,
        ``features``, ``tokens``.

    Raises:
        ValueError: If there is nothing to measure, or the SAEs are of different sites.
    """
    site = common_site(saes.values(), model.module)
    texts = [text for text in texts if len(text) > 1]
    if sum(len(text) - 1 for text in texts) < 2:
        raise ValueError("the texts have fewer than two tokens after <bos>: give longer ones")
    target, parts = site.writes_at, []
    clean_loss = zero_loss = 0.0
    losses = dict.fromkeys(saes, 0.0)
    for text in texts:
        clean = trace(model, [text], sorted({site, target}))
        x = clean.activations[site][0]
        clean_loss += next_token_loss(clean.logits[0], text)
        zero_loss += _patched(model, text, target, torch.zeros_like(clean.activations[target][0]))
        for name, sae in saes.items():
            losses[name] += _patched(model, text, target, _written(sae, x))
        parts.append((x[1:], clean.activations[target][0, 1:]))
    x, y = (torch.cat(column) for column in zip(*parts, strict=True))
    rows = [
        _row(sae, x, y, clean=clean_loss, spliced=losses[name], zero=zero_loss)
        for name, sae in saes.items()
    ]
    return pd.DataFrame(rows, index=pd.Index(list(saes), name="SAE"))


def _written(sae: SAE, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return sae.reconstruct(x.to(sae.W_enc.device)).float().cpu()


def _patched(model: Model, text: Tokens, site: Site, put: Tensor) -> float:
    """Summed loss of a text with `put` in place of the activation."""
    return next_token_loss(trace(model, [text], edits=[Patch(site, put)]).logits[0], text)


def _row(sae: SAE, x: Tensor, y: Tensor, *, clean: float, spliced: float, zero: float) -> dict:
    """The figures of an SAE, from what was read and the three summed losses."""
    active = torch.zeros(sae.config.d_sae, dtype=torch.int64)
    parts = []
    with torch.inference_mode():
        for block in x.split(BLOCK):
            f = sae.encode(block.to(sae.W_enc.device))
            active += (f != 0).sum(0).cpu()
            parts.append(sae.decode(f, block).float().cpu())
    put, y = torch.cat(parts), y.float()
    u, v = ((z.double() - y.double().mean(0)) for z in (y, put))
    return {
        "l0": float(active.sum()) / len(x),
        "fvu": fvu(y, put),
        "recovered": (zero - spliced) / (zero - clean),
        "loss": clean / len(x),
        "spliced": spliced / len(x),
        "dead": float((active == 0).float().mean()),
        "scale": float((v * v).sum() / (v * u).sum()),
        "features": sae.config.d_sae,
        "tokens": len(x),
    }
