"""A sparse autoencoder: four matrices and an activation function.

    pre  = (x - b_dec if apply_b_dec_to_input else x) W_enc + b_enc
    f    = JumpReLU: pre where pre > threshold, else 0       (strictly greater)
           ReLU:     max(pre, 0)
           TopK:     the k largest of max(pre, 0), else 0    (ties: the lowest index)
    xhat = f W_dec + b_dec

Names, shapes and conventions are Gemma Scope's (Lieberum et al. 2024, arXiv 2408.05147, section 2
and appendix A). A transcoder is the same object whose output is another activation than its input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

__all__ = ["SAE", "SAEConfig"]

Activation = Literal["jumprelu", "relu", "topk"]


@dataclass(frozen=True)
class SAEConfig:
    """Where an SAE belongs and how large it is.

    Attributes:
        model: Name of the model, empty if unknown.
        layer: Layer of the site.
        kind: Kind of site: `res`, `att`, `mlp`, `transcoder` or `embed`.
        width: Number of features in the name of the SAE.
        l0: Mean number of active features per token in that name; None if unknown.
        source: File or repository path the SAE was read from, empty if made here.
        d_in: Width of the input.
        d_out: Width of the output.
        d_sae: Number of features.
    """

    model: str
    layer: int
    kind: str
    width: int
    l0: float | None
    source: str
    d_in: int
    d_out: int
    d_sae: int


@dataclass(frozen=True, eq=False, repr=False)
class SAE:
    """One sparse autoencoder or transcoder.

    Attributes:
        W_enc: Encoder directions as columns `(d_in, d_sae)`.
        b_enc: Encoder bias `(d_sae,)`.
        W_dec: Decoder directions as rows `(d_sae, d_out)`.
        b_dec: Decoder bias `(d_out,)`.
        threshold: Thresholds of a JumpReLU `(d_sae,)`, else None.
        activation: `"jumprelu"`, `"relu"` or `"topk"`.
        k: Number of features that TopK keeps, else None.
        apply_b_dec_to_input: Whether the decoder bias is subtracted from the input.
        config: Site and sizes.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    threshold: Tensor | None
    activation: Activation
    config: SAEConfig
    k: int | None = None
    apply_b_dec_to_input: bool = False
