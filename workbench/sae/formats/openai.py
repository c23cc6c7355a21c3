"""OpenAI's SAEs of GPT-2 small: ``{location}/autoencoders/{layer}.pt``.

    pre = (x - pre_bias) encoder.weight^T + latent_bias
    f   = relu(pre), or the k largest of relu(pre)
    y   = f decoder.weight^T + pre_bias

(Gao et al. 2024, arXiv 2406.04093, and the published `sparse_autoencoder/model.py`.) The TopK
versions normalise each token first and undo it at the end: that is `SAE.normalize="layer_norm"`.
Both matrices are transposed views of the file.
"""

from __future__ import annotations

import re

from workbench.sae.base import SAE
from workbench.sae.formats.files import Request, check_keys, make_sae, matrix, read_torch

KEYS = ("pre_bias", "encoder.weight", "latent_bias", "decoder.weight")
STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
PLACES = {
    "mlp_post_act": "mlp.hook_post",
    "resid_delta_mlp": "hook_mlp_out",
    "resid_delta_attn": "hook_attn_out",
    "resid_post_attn": "hook_resid_mid",
    "resid_post_mlp": "hook_resid_post",
}
"""The folder's location, in TransformerLens' words."""


def read(request: Request) -> SAE:
    """Open the SAE of a request; nothing is copied on the CPU in float32.

    Raises:
        ValueError: The file is not whole, of another activation, or has no certain site.
    """
    path = request.weights
    state = read_torch(path)
    check_keys(path, state, KEYS, (*STATISTICS, "activation", "activation_state_dict"))
    name = state.get("activation", "ReLU")
    settings = state.get("activation_state_dict") or {}
    if name not in ("ReLU", "TopK") or settings.get("postact_fn", "ReLU") != "ReLU":
        function = f"{name} with {settings['postact_fn']}" if name == "TopK" else name
        raise ValueError(
            f"{path} has the activation {function}, whose features are not sparse activations of "
            "one sign: ReLU, and TopK with ReLU, are supported."
        )
    if name == "TopK" and not isinstance(settings.get("k"), int):
        raise ValueError(f"{path}: activation_state_dict has k={settings.get('k')!r}, no number.")
    return make_sae(
        request,
        W_enc=matrix(path, state, "encoder.weight").T,
        b_enc=state["latent_bias"],
        W_dec=matrix(path, state, "decoder.weight").T,
        b_dec=state["pre_bias"],
        activation="topk" if name == "TopK" else "relu",
        k=settings["k"] if name == "TopK" else None,
        normalize="layer_norm" if name == "TopK" else "none",
        apply_b_dec_to_input=True,
        hook=_hook(request),
        model="gpt2",
    )


def _hook(request: Request) -> str:
    """The activation, from folders such as ``resid_post_mlp_v5_32k/autoencoders/8.pt``."""
    parts = request.weights.absolute().parts
    location = re.sub(r"_v\d+(_\d+k)?$", "", parts[-3]) if len(parts) > 3 else ""
    if location not in PLACES or not request.weights.stem.isdigit():
        return ""
    return f"blocks.{request.weights.stem}.{PLACES[location]}"
