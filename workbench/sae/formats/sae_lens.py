"""SAELens: ``cfg.json`` and ``sae_weights.safetensors``, of version 6 and of those before.

=============================  ==================================================================
standard                       ``f = relu(pre)``
topk                           the k largest of relu(pre); times ``||W_dec||`` for the choice and
                               for f, if ``rescale_acts_by_decoder_norm`` (folded into the weights)
jumprelu                       relu(pre) where pre exceeds ``threshold``, or ``exp(log_threshold)``;
                               batch-topk and Matryoshka SAEs are saved as this
gated                          see `workbench.sae.formats.files.gated`
transcoder                     ``relu(x W_enc + b_enc) W_dec + b_dec``
skip_transcoder                the same ``+ x W_skip^T``
jumprelu_(skip_)transcoder     the same with ``threshold``
=============================  ==================================================================

with ``pre = (x - b_dec if apply_b_dec_to_input) W_enc + b_enc`` (version 6.54.12, `saes/*.py`). The
stored layout is this package's: nothing is copied on the CPU in float32 but thresholds and what a
factor is folded into. An Anthropic-style ReLU SAE ("Scaling Monosemanticity") is ``standard`` with
``apply_b_dec_to_input`` false; `SAE.with_unit_rows` gives its feature activations ``f ||W_dec||``.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.sae.base import SAE, Activation, Normalize
from workbench.sae.formats.files import (
    Request,
    above,
    check_finite,
    check_keys,
    check_sizes,
    gated,
    make_sae,
    matrix,
    read_json,
    read_safetensors,
    vector,
)
from workbench.sae.formats.places import site_of

CONFIG, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
COMMON = ("W_enc", "W_dec", "b_dec")
KEYS = {
    "standard": (*COMMON, "b_enc"),
    "topk": (*COMMON, "b_enc"),
    "jumprelu": (*COMMON, "b_enc", "threshold"),
    "gated": (*COMMON, "b_gate", "b_mag", "r_mag"),
    "transcoder": (*COMMON, "b_enc"),
    "skip_transcoder": (*COMMON, "b_enc", "W_skip"),
    "jumprelu_transcoder": (*COMMON, "b_enc", "threshold"),
    "jumprelu_skip_transcoder": (*COMMON, "b_enc", "threshold", "W_skip"),
}
REFUSED = {
    "abstopk": "its features have two signs",
    "temporal": "its features depend on other tokens",
    "matching_pursuit": "its encoder is a loop and no matrix product",
    "batchtopk": "it is a training checkpoint: save it with SAELens' save_inference_model",
    "matryoshka_batchtopk": "it is a training checkpoint: save it with save_inference_model",
}
NORMALIZE: dict[str, Normalize] = {
    "none": "none",
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm",
    "expected_average_only_in": "none",
}


def read(request: Request) -> SAE:
    """Open the SAE of a request.

    Raises:
        ValueError: The file is not whole, of an architecture or a normalisation that is not
            supported, or has no certain site.
    """
    path, config = request.weights, read_json(request.folder / CONFIG)
    about = config["metadata"] if isinstance(config.get("metadata"), dict) else config
    architecture = _architecture(request.folder / CONFIG, config)
    transcoder = architecture.endswith("transcoder")
    tensors: dict[str, Any] = _tensors(path, architecture, config)
    d_in, d_sae = matrix(path, tensors, "W_enc").shape
    sizes = {"d_in": d_in, "d_sae": d_sae, "d_out": matrix(path, tensors, "W_dec").shape[1]}
    check_sizes(path, config, sizes if transcoder else {"d_in": d_in, "d_sae": d_sae})
    normalize = _normalize(request.folder, config, tensors, transcoder=transcoder)
    subtract = bool(config.get("apply_b_dec_to_input", not transcoder))
    _warn_of_processing(path, about)
    if about.get("hook_head_index") is not None:
        raise ValueError(
            f"{path} reads head {about['hook_head_index']} alone: an SAE of one head has no site "
            "here; those of all heads side by side ('att') have."
        )
    k = _k(config) if architecture == "topk" else None
    if k is not None and config.get("rescale_acts_by_decoder_norm"):
        _fold_norms(path, tensors)
    return make_sae(
        request,
        **tensors,
        activation=_activation(architecture, tensors),
        k=k,
        normalize=normalize,
        apply_b_dec_to_input=subtract,
        hook=_hook(about),
        hook_out=str(about.get("hf_hook_name_out") or about.get("hook_name_out") or ""),
        model=str(about.get("model_name") or ""),
        l0=about.get("l0"),
    )


def _architecture(path: Path, config: dict[str, Any]) -> str:
    """The architecture; before version 6 a top-k was a standard SAE with another function."""
    name = config.get("architecture") or "standard"
    function = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    if name == "standard" and function == "topk":
        name = "topk"
    if name in REFUSED or name not in KEYS:
        why = f" ({REFUSED[name]})" if name in REFUSED else ""
        raise ValueError(
            f"{path} has the architecture {name!r}{why}: supported are {', '.join(KEYS)}."
        )
    if function not in ("relu", "topk"):
        raise ValueError(f"{path} has activation_fn {function!r}: supported are relu and topk.")
    return name


def _activation(architecture: str, tensors: dict[str, Tensor]) -> Activation:
    if architecture == "topk":
        return "topk"
    return "jumprelu" if "threshold" in tensors else "relu"


def _k(config: dict[str, Any]) -> int | None:
    k = config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k")
    return k if isinstance(k, int) else None


def _tensors(path: Path, architecture: str, config: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors by this package's names; thresholds and gates made those of a JumpReLU."""
    found = read_safetensors(path)
    if "threshold" in KEYS[architecture] and "log_threshold" in found:
        found["threshold"] = found.pop("log_threshold").float().exp()
    check_keys(path, found, KEYS[architecture], ("scaling_factor",))
    W_enc, scaling = matrix(path, found, "W_enc"), found.pop("scaling_factor", None)
    if architecture == "gated":
        encoder = gated(path, W_enc, found, "r_mag", "b_mag", "b_gate")
        found = {name: found[name] for name in COMMON} | encoder
    elif "threshold" in found:
        found["threshold"] = above(path, found, W_enc.shape[1])
    if scaling is not None and not bool((scaling == 1).all()):
        if not config.get("finetuning_scaling_factor"):
            raise ValueError(
                f"{path} has a scaling_factor that is not 1, and its config does not say that the "
                "decoder was fine-tuned with it (finetuning_scaling_factor)."
            )
        scaling = vector(path, {"scaling_factor": scaling}, "scaling_factor", W_enc.shape[1])
        found["W_dec"] = matrix(path, found, "W_dec").float() * scaling[:, None]
    return found


def _normalize(
    folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], *, transcoder: bool
) -> Normalize:
    """The token's normalisation; a constant factor is folded as SAELens folds it."""
    told = config.get("normalize_activations") or "none"
    told = "expected_average_only_in" if told is True else told
    if told not in NORMALIZE or (transcoder and told in ("layer_norm", "constant_norm_rescale")):
        raise ValueError(
            f"{folder / CONFIG} has normalize_activations={told!r}{' in a transcoder' * transcoder}"
            f": supported are {', '.join(NORMALIZE)}, for transcoders none."
        )
    if told == "expected_average_only_in":
        scaler = folder / SCALER
        scale = read_json(scaler).get("scaling_factor") if scaler.is_file() else None
        if not isinstance(scale, int | float) or transcoder:
            raise ValueError(
                f"{folder / CONFIG} has normalize_activations={told!r}, and the factor that it was "
                f"trained with is not there ({SCALER}): without it every activation is wrong. "
                "Fold it in with SAELens (fold_activation_norm_scaling_factor) and save again."
            )
        tensors["W_enc"] = tensors["W_enc"].float() * scale
        tensors["W_dec"] = tensors["W_dec"].float() / scale
        tensors["b_dec"] = tensors["b_dec"].float() / scale
    return NORMALIZE[told]


def _fold_norms(path: Path, tensors: dict[str, Tensor]) -> None:
    """Rescale a TopK so that its pre-activations are those among which it chooses."""
    check_finite(path, "W_dec", tensors["W_dec"])
    norms = torch.linalg.vector_norm(tensors["W_dec"].float(), dim=-1).clamp(min=1e-8)
    check_sizes(path, {"d_sae": len(norms)}, {"d_sae": tensors["W_enc"].shape[1]})
    tensors["W_enc"] = tensors["W_enc"].float() * norms
    tensors["b_enc"] = vector(path, tensors, "b_enc", len(norms)) * norms
    tensors["W_dec"] = tensors["W_dec"].float() / norms[:, None]


def _hook(about: dict[str, Any]) -> str:
    """The activation's name: Hugging Face's if it is a certain site, else TransformerLens'."""
    names = [str(about.get(key) or "") for key in ("hf_hook_name", "hook_name", "hook_point")]
    return next((name for name in names if site_of(name)), next(filter(None, names), ""))


def _warn_of_processing(path: Path, about: dict[str, Any]) -> None:
    if (about.get("model_from_pretrained_kwargs") or {}).get("center_writing_weights"):
        warnings.warn(
            f"{path} was trained on a model with centred writing weights: subtract the mean of "
            "each residual activation before encoding, or features of the plain model differ.",
            UserWarning,
            stacklevel=6,
        )
