"""dictionary_learning: ``ae.pt`` and ``config.json``; its ``trainer.dict_class`` gives the formula.

=======================  ========================================================================
AutoEncoder              ``f = relu((x - bias) E^T + encoder.bias)``; ``y = f D^T + bias``
AutoEncoderNew           ``f = relu(x E^T + encoder.bias)``; ``y = f D^T + decoder.bias``
GatedAutoEncoder         of ``x - decoder_bias``: see `workbench.sae.formats.files.gated`
AutoEncoderTopK          the k largest of ``relu((x - b_dec) E^T + encoder.bias)``
BatchTopKSAE             ``relu((x - b_dec) E^T + encoder.bias)`` where it exceeds ``threshold``
MatryoshkaBatchTopKSAE   the same with ``W_enc``, ``b_enc``, ``W_dec``
JumpReluAutoEncoder      ``relu(x W_enc + b_enc)`` where ``x W_enc + b_enc`` exceeds ``threshold``
=======================  ========================================================================

``E`` and ``D`` are `encoder.weight (dict, act)` and `decoder.weight (act, dict)`; both are read as
transposed views. The formulas are those of the classes' ``encode`` and ``decode`` with default
arguments (version 0.1.0), so a top-k class chooses by k and the batch classes by their threshold;
a threshold of -1, which was never set, leaves the relu. Activations have the stored scale, where
``AutoEncoder.from_pretrained`` would make the decoder's rows unit: see `SAE.with_unit_rows`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from workbench.sae.base import SAE
from workbench.sae.formats.files import (
    Request,
    above,
    check_keys,
    check_sizes,
    gated,
    make_sae,
    matrix,
    read_json,
    read_torch,
)
from workbench.sae.formats.places import is_gemma

_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_NAMED = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
KEYS = {
    "AutoEncoder": (*_LINEAR, "bias"),
    "AutoEncoderNew": (*_LINEAR, "decoder.bias"),
    "GatedAutoEncoder": (
        "encoder.weight", "decoder.weight", "decoder_bias", "r_mag", "gate_bias", "mag_bias",
    ),
    "AutoEncoderTopK": (*_LINEAR, "b_dec", "k"),
    "BatchTopKSAE": (*_LINEAR, "b_dec", "threshold"),
    "MatryoshkaBatchTopKSAE": _NAMED,
    "JumpReluAutoEncoder": _NAMED,
}  # fmt: skip
BUFFERS = {
    "AutoEncoderTopK": ("threshold",),
    "BatchTopKSAE": ("k",),
    "MatryoshkaBatchTopKSAE": ("k", "group_sizes"),
}
"""Tensors beside the weights that the formula does not need."""
BIAS = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias", "GatedAutoEncoder": "decoder_bias"}
UNCENTRED = ("AutoEncoderNew", "JumpReluAutoEncoder")
SUBMODULES = {
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
}
"""Beginnings of ``submodule_name``, in TransformerLens' words."""


def read(request: Request) -> SAE:
    """Open the SAE of a request.

    On the CPU in float32 nothing is copied but one vector of thresholds, and the encoder of a gated
    SAE, which is scaled.

    Raises:
        ValueError: The file is not whole, of an unknown class, or has no certain site.
    """
    path = request.weights
    trainer = read_json(request.folder / "config.json").get("trainer") or {}
    name = trainer.get("dict_class")
    if name not in KEYS:
        raise ValueError(
            f"{request.folder / 'config.json'} has trainer.dict_class={name!r}: supported are "
            f"{', '.join(KEYS)}."
        )
    state = read_torch(path)
    check_keys(path, state, KEYS[name], BUFFERS.get(name, ()))
    parts = _parts(request, name, state)
    d_in, d_sae = parts["W_enc"].shape
    check_sizes(path, trainer, {"activation_dim": d_in, "dict_size": d_sae})
    hook, certain = _hook(trainer, request.model or str(trainer.get("lm_name") or ""))
    k = int(state["k"]) if name == "AutoEncoderTopK" else None
    activation = "topk" if k is not None else "jumprelu" if "threshold" in parts else "relu"
    return make_sae(
        request,
        **parts,
        activation=activation,
        k=k,
        apply_b_dec_to_input=name not in UNCENTRED,
        hook=hook,
        certain=certain,
        model=str(trainer.get("lm_name") or ""),
    )


def _parts(request: Request, name: str, state: dict[str, Any]) -> dict[str, Any]:
    """Encoder, decoder, biases and thresholds of a class."""
    path = request.weights
    bias = state[BIAS.get(name, "b_dec")]
    if "W_enc" in state:
        found: dict[str, Tensor] = {
            "W_enc": matrix(path, state, "W_enc"),
            "b_enc": state["b_enc"],
        }
        W_dec = matrix(path, state, "W_dec")
    else:
        found = {"W_enc": matrix(path, state, "encoder.weight").T}
        W_dec = matrix(path, state, "decoder.weight").T
    if name == "GatedAutoEncoder":
        found = gated(path, found["W_enc"], state, "r_mag", "mag_bias", "gate_bias")
    elif "encoder.bias" in state:
        found["b_enc"] = state["encoder.bias"]
    if "threshold" in KEYS[name]:
        found["threshold"] = above(path, state, found["W_enc"].shape[1])
    return {**found, "W_dec": W_dec, "b_dec": bias}


def _hook(trainer: dict[str, Any], model: str) -> tuple[str, bool]:
    """The activation of a submodule's name such as ``resid_post_layer_8``."""
    module, layer = str(trainer.get("submodule_name") or ""), trainer.get("layer")
    for start, name in SUBMODULES.items():
        if module.startswith(start) and isinstance(layer, int):
            # Of Gemma's sub-layers the module gives its output before the norm that follows it.
            return f"blocks.{layer}.{name}", start == "resid_post" or not is_gemma(model)
    return (module or (f"layer_{layer}" if isinstance(layer, int) else "")), False
