"""Llama Scope: ``hyperparams.json`` and ``checkpoints/final.safetensors``.

The published code (OpenMOSS Language-Model-SAEs as of December 2024, ``sae.py``: ``from_config``)
rewrites the stored weights when it opens them, and the threshold is meant for what comes out:

    s_in, s_out = sqrt(d_model) / dataset_average_activation_norm["in"], ["out"]
    b_enc = encoder.bias / s_in;   b_dec = decoder.bias / s_out
    W_dec = decoder.weight^T s_in / s_out                      (if norm_activation="dataset-wise")
    n = ||W_dec||, row by row:  W_enc n, b_enc n, W_dec / n    (if sparsity_include_decoder_norm)
    f = pre where pre > jump_relu_threshold, else 0

So activations are in units of the raw input, decoder rows have norm 1, and the threshold is held
against ``pre ||W_dec||``. (Llama Scope: He et al. 2024, arXiv 2410.20526. SAELens leaves the
decoder's norm out, both of the threshold and of the activations.) Both matrices are copied, because
all of this changes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.sae.base import SAE, Activation
from workbench.sae.formats.files import (
    Request,
    check_finite,
    check_keys,
    check_sizes,
    make_sae,
    matrix,
    read_json,
    read_safetensors,
    vector,
)

KEYS = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")


def read(request: Request) -> SAE:
    """Open the SAE of a request, with all factors folded into its weights.

    Raises:
        ValueError: The file is not whole, of another kind, or has no certain site.
    """
    path, config = request.weights, read_json(request.folder / "hyperparams.json")
    tensors = read_safetensors(path)
    biased = config.get("use_decoder_bias", True)
    check_keys(path, tensors, KEYS if biased else KEYS[:3])
    W_enc = matrix(path, tensors, "encoder.weight").T.float()
    W_dec = matrix(path, tensors, "decoder.weight").T.float()
    b_dec = tensors["decoder.bias"].float() if biased else torch.zeros(W_dec.shape[1])
    d_in, d_sae = W_enc.shape
    check_sizes(path, config, {"d_model": d_in, "d_sae": d_sae})
    check_sizes(path, {"d_sae": d_sae}, {"d_sae": W_dec.shape[0]})
    b_enc = vector(path, tensors, "encoder.bias", d_sae)
    norm = config.get("norm_activation")
    if norm == "dataset-wise":
        s_in, s_out = _factors(request.folder, config, d_in)
        b_enc, b_dec, W_dec = b_enc / s_in, b_dec / s_out, W_dec * (s_in / s_out)
    elif norm not in ("none", "inference", "token-wise"):
        raise ValueError(
            f"{request.folder / 'hyperparams.json'} has norm_activation={norm!r}: supported are "
            "'dataset-wise', 'token-wise', 'inference' and 'none'."
        )
    if config.get("sparsity_include_decoder_norm"):
        check_finite(path, "decoder.weight", W_dec)
        n = torch.linalg.vector_norm(W_dec, dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
        W_enc, b_enc, W_dec = W_enc * n, b_enc * n, W_dec / n[:, None]
    hook = str(config.get("hook_point_in") or "")
    hook_out = str(config.get("hook_point_out") or "")
    return make_sae(
        request,
        W_enc=W_enc,
        b_enc=b_enc,
        W_dec=W_dec,
        b_dec=b_dec,
        **_activation(request.folder, config, d_sae),
        normalize="constant_norm" if norm == "token-wise" else "none",
        apply_b_dec_to_input=bool(biased and config.get("apply_decoder_bias_to_pre_encoder")),
        hook=hook,
        hook_out="" if hook_out == hook else hook_out,
        model=str(config.get("model_name") or ""),
    )


def _factors(folder: Path, config: dict[str, Any], d_model: int) -> tuple[float, float]:
    """What inputs and outputs were multiplied by in training."""
    norms = config.get("dataset_average_activation_norm") or {}
    for side in ("in", "out"):
        if not isinstance(norms.get(side), int | float) or norms[side] <= 0:
            raise ValueError(
                f"{folder / 'hyperparams.json'} has norm_activation='dataset-wise' and "
                f"dataset_average_activation_norm={norms!r}: both norms, in and out, are needed."
            )
    return d_model**0.5 / norms["in"], d_model**0.5 / norms["out"]


def _activation(folder: Path, config: dict[str, Any], d_sae: int) -> dict[str, Any]:
    """The activation function: a TopK with a threshold is run as a JumpReLU, as published."""
    name = str(config.get("act_fn", "")).lower()
    number = config.get("jump_relu_threshold") or 0.0
    if config.get("use_glu_encoder") or name not in ("jumprelu", "topk", "relu"):
        found = "a gated linear unit" if config.get("use_glu_encoder") else f"act_fn={name!r}"
        raise ValueError(
            f"{folder / 'hyperparams.json'} has {found}: supported are jumprelu, topk and relu."
        )
    chosen: dict[str, Any] = {"activation": "jumprelu" if number > 0 else name}
    activation: Activation = chosen["activation"]
    if activation == "jumprelu":
        chosen["threshold"] = _every(number, d_sae)
    elif activation == "topk":
        chosen["k"] = config.get("top_k")
    return chosen


def _every(number: float, d_sae: int) -> Tensor:
    return torch.full((d_sae,), float(number))
