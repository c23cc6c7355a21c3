"""Shares: how much of a residual feature the stream below, the attention and the MLP each bring.

A layer adds to the stream, ``x = below + attention + mlp``, and what a feature reads is linear, so
its pre-activation splits exactly:

    pre = below . w + attention . w + mlp . w + bias,    w = W_enc[:, i],   bias = b_enc - b_dec . w

(``b_dec`` only where the SAE subtracts it). This is the direct-feature-attribution of Kissane et
al. 2024 ("Interpreting Attention Layer Outputs with Sparse Autoencoders", arXiv 2406.17759) with
the parts of a layer in the place of features. It reads text and the encoder, where
`workbench.analysis.births` reads decoders alone, and so checks it.

Parts also hold what is there on every token. What brings the feature *about* is what a part has on
the tokens where it fires above its mean over all tokens: `Shares.contrasts`, whose sum is that of
the pre-activation. Biases fall out of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.passages import Rows
from workbench.architectures import architecture_of
from workbench.engine.binding import FeatureSource
from workbench.engine.tracing import read
from workbench.models import Model
from workbench.sae import SAE
from workbench.sites import Kind, Site

PARTS = ("below", "attention", "mlp")
"""What a layer's residual stream is the sum of, in this order everywhere."""
BLOCK = 512
"""Tokens whose products with the encoder are held at once: 34 MB at 16,384 features."""


@dataclass(frozen=True, eq=False)
class Shares:
    """How the features of one residual site come about, in units of their pre-activation."""

    layer: int
    """Of the residual stream."""
    tokens: int
    """Tokens that were read, ``<bos>`` left out."""
    fires: Tensor
    """``(d_sae,)`` on how many of them each feature fires."""
    parts: Tensor
    """``(3, d_sae)`` what `PARTS` bring, mean over the tokens where the feature fires; 0 for one
    that never does."""
    bias: Tensor
    """``(d_sae,)`` what is there without them. With the parts it makes the pre-activation."""
    everywhere: Tensor
    """``(3, d_sae)`` what `PARTS` bring, mean over all tokens."""

    @property
    def pre(self) -> Tensor:
        """``(d_sae,)`` pre-activation, mean over the tokens where the feature fires."""
        return self.parts.sum(0) + self.bias

    @property
    def contrasts(self) -> Tensor:
        """``(3, d_sae)`` what `PARTS` bring where it fires above what they bring everywhere."""
        return self.parts - self.everywhere

    @property
    def fractions(self) -> Tensor:
        """``(3, d_sae)`` `contrasts` over their sum, 1 in all.

        A part that works against the feature is below 0. NaN for one that never fires.
        """
        contrasts = self.contrasts.masked_fill(self.fires == 0, torch.nan)
        return contrasts / contrasts.sum(0)

    def to_frame(self) -> pd.DataFrame:
        """One row for each feature that fires.

        Returns:
            Columns ``layer, feature, fires, pre, below, attention, mlp, bias``, and the fractions
            ``from_below, from_attention, from_mlp``.
        """
        rows = self.fires.nonzero()[:, 0]
        named = {"layer": self.layer, "feature": rows, "fires": self.fires[rows]}
        named |= {"pre": self.pre[rows]}
        named |= {part: self.parts[i, rows] for i, part in enumerate(PARTS)} | {
            "bias": self.bias[rows]
        }
        named |= {f"from_{part}": self.fractions[i, rows] for i, part in enumerate(PARTS)}
        return pd.DataFrame({name: _plain(x) for name, x in named.items()})


def shares(
    model: Model, source: FeatureSource, layers: Sequence[int], rows: Iterable[Rows]
) -> dict[int, Shares]:
    """Split the pre-activations of the residual features of some layers, in one pass over a text.

    Args:
        model: The model.
        source: Its SAEs.
        layers: Whose residual stream.
        rows: The text: `workbench.analysis.passages`.

    Raises:
        ValueError: If an SAE normalises its input, whose parts are then no sum, or a layer does not
            exist.
    """
    sums = {layer: _Sums(source.sae_at(Site(layer)), layer) for layer in sorted(set(layers))}
    kinds: tuple[Kind, ...] = ("att", "mlp", "res")
    sites = [Site(layer, kind) for layer in sums for kind in kinds]
    known = architecture_of(model.module)
    for part in rows:
        held: dict[Kind, Tensor] = {}

        def consume(site: Site, x: Tensor, part: Rows = part, held: dict = held) -> None:
            held[site.kind] = part.of(x)
            if site.kind != "res":
                return
            attention = known.attended(model.module, site.layer, held.pop("att"))
            mlp, stream = held.pop("mlp"), held.pop("res")
            attention, mlp, stream = attention.float(), mlp.float(), stream.float()
            sums[site.layer].add(stream, (stream - attention - mlp, attention, mlp))

        read(model, part.ids, sites, consume)
    return {layer: one.shares() for layer, one in sums.items()}


class _Sums:
    """Running sums of one residual site."""

    def __init__(self, sae: SAE, layer: int) -> None:
        if sae.normalize != "none":
            raise ValueError(
                f"{sae.name} normalises what it reads ({sae.normalize}): its pre-activation is no "
                "sum of what the parts of a layer bring"
            )
        self.sae, self.layer, self.tokens = sae, layer, 0
        self.fires = torch.zeros(sae.config.d_sae)
        self.parts = torch.zeros(3, sae.config.d_sae, dtype=torch.float64)
        self.totals = torch.zeros(3, sae.config.d_in, dtype=torch.float64)

    def add(self, stream: Tensor, parts: tuple[Tensor, ...]) -> None:
        """Take in some tokens ``(token, d_model)``."""
        positions, features, _ = self.sae.encode_sparse(stream.to(self.sae.W_enc.device))
        self.tokens += len(stream)
        self.fires += torch.bincount(features, minlength=len(self.fires)).cpu()
        weights = self.sae.W_enc.float()
        for number, part in enumerate(parts):
            x = part.to(weights.device)
            self.totals[number] += x.sum(0, dtype=torch.float64).cpu()
            # All products and then the active ones: columns of a matrix are slow to gather.
            for start in range(0, len(x), BLOCK):
                own = (positions >= start) & (positions < start + BLOCK)
                whose = features[own]
                brought = (x[start : start + BLOCK] @ weights)[positions[own] - start, whose]
                self.parts[number].index_add_(0, whose.cpu(), brought.double().cpu())

    def shares(self) -> Shares:
        """The means."""
        sae = self.sae
        bias = sae.b_enc.float()
        if sae.apply_b_dec_to_input:
            bias = bias - sae.b_dec.float() @ sae.W_enc.float()
        everywhere = self.totals.float().to(sae.W_enc.device) / max(self.tokens, 1)
        return Shares(
            self.layer,
            self.tokens,
            self.fires,
            (self.parts / self.fires.clamp(min=1)).float(),
            bias.cpu(),
            (everywhere @ sae.W_enc.float()).cpu(),
        )


def _plain(x: object) -> object:
    return x.numpy() if isinstance(x, Tensor) else x
