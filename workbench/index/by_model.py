"""Scores of every feature that need the model or the SAEs: what it writes, and on what it fires.

Nothing is approximated: a product with every decoder row. That is a run over the decoders of the
sites that are asked for, so name sites where they are many and wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.analysis.text_features import Sides, read_texts
from workbench.architectures import architecture_of
from workbench.engine.binding import FeatureSource
from workbench.models import Model
from workbench.sae.suite import Suite
from workbench.sites import Site
from workbench.tokens import Tokens

ROWS = 8192
"""Decoder rows that are carried into the stream at once, to measure them."""


class Decoders:
    """What the features of some sites write into the residual stream.

    As `workbench.analysis.kinship.written_directions`, but held as the SAEs hold them: a product
    with every direction reads each decoder once and copies none.
    """

    def __init__(self, module: Any, source: FeatureSource) -> None:
        self._module, self._source = module, source
        self._lengths: dict[Site, Tensor] = {}
        self._carried: dict[Site, Tensor] = {}
        self._mean: Tensor | None = None

    def direction(self, site: Site, index: int) -> Tensor:
        """What one feature writes ``(d_model,)``, of unit norm."""
        row = self._source.sae_at(site).W_dec[index][None].float()
        return torch.nn.functional.normalize(self._into_stream(site, row), dim=-1)[0]

    def token_directions(self, ids: Sequence[int]) -> Tensor:
        """What the stream is multiplied by to give each of some logits ``(token, d_model)``.

        Above the mean of all tokens, because what is added to every logit alike changes nothing;
        through the linear part of the final norm, as `workbench.features.logit_effects`.
        """
        known = architecture_of(self._module)
        weight = known.unembedding(self._module)
        with torch.inference_mode():
            if self._mean is None:
                self._mean = weight.float().mean(0)
            return known.out_of_logits(self._module, weight[list(ids)].float() - self._mean)

    def products(self, site: Site, direction: Tensor) -> Tensor:
        """The product of `direction` ``(d_model,)`` with what each feature writes ``(d_sae,)``."""
        sae = self._source.sae_at(site)
        with torch.inference_mode():
            direction = direction.to(sae.W_dec.device).float()
            if site.kind == "att":
                direction = self._back(site) @ direction
            found = sae.W_dec.float() @ direction
            return (found / self._length(site)).cpu()

    def _into_stream(self, site: Site, rows: Tensor) -> Tensor:
        if site.kind != "att":
            return rows
        return architecture_of(self._module).into_stream(self._module, site.layer, rows)

    def _back(self, site: Site) -> Tensor:
        """From the stream to the outputs of the heads ``(d_att, d_model)``."""
        if site not in self._carried:
            rows = self._source.sae_at(site).W_dec
            unit = torch.eye(rows.shape[1], device=rows.device)
            self._carried[site] = self._into_stream(site, unit).to(rows.device)
        return self._carried[site]

    def _length(self, site: Site) -> Tensor:
        """``(d_sae,)`` norm of what each writes; 1 for a feature that writes nothing."""
        if site not in self._lengths:
            parts = self._source.sae_at(site).W_dec.split(ROWS)
            norms = [self._into_stream(site, part.float()).norm(dim=-1) for part in parts]
            found = torch.cat(norms).to(parts[0].device)
            self._lengths[site] = torch.where(found > 0, found, 1.0)
        return self._lengths[site]


def fires(
    model: Model,
    suite: Suite,
    positive: Sequence[Tokens],
    negative: Sequence[Tokens],
    maxima: Mapping[Site, np.ndarray],
) -> dict[Site, np.ndarray]:
    """How strongly each feature fires in each side of texts.

    Args:
        model: The model.
        suite: Its SAEs.
        positive: Texts of one side.
        negative: Texts of the other, or none.
        maxima: Of each site what counts as 1 for each feature ``(d_sae,)``; where that is 0, its
            peak in these texts is.

    Returns:
        Of each site ``(3, d_sae)``: mean over the positive texts of its peak, 0 to 1, over the
        negative ones, and the standard deviation over all.
    """
    side = np.repeat([True, False], [len(positive), len(negative)])
    sides = Sides((*positive, *negative), side, np.ones(len(side), bool), ())
    found = {}
    for one in read_texts(model, suite, sides, list(maxima), pool="max", progress=False):
        scale = maxima[one.site][one.features]
        scale = np.where(scale > 0, scale, one.values.max(0, initial=1e-30))
        share = np.minimum(one.values / scale, 1)
        out = np.zeros((3, len(maxima[one.site])))
        out[0, one.features] = share[side].mean(0)
        if not side.all():
            out[1, one.features] = share[~side].mean(0)
        out[2, one.features] = share.std(0)
        found[one.site] = out
    return found
