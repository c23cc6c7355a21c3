"""Gemma Scope 2 (Gemma 3): ``params.safetensors`` and ``config.json``.

    pre = x w_enc + b_enc;  f = relu(pre) where pre > threshold, else 0
    y   = f w_dec + b_dec + x affine_skip_connection

`w_enc (d_in, d_sae)`, `w_dec (d_sae, d_out)` and, for a transcoder trained with an affine
connection, `affine_skip_connection (d_in, d_out)`, whose transposed view is ``W_skip``. A
transcoder reads the output of ``pre_feedforward_layernorm``, gain included: the opposite of Gemma
Scope 1.

Where a repository has no config the folders say the site, as in
``resid_post/layer_12_width_16k_l0_small``.
"""

from __future__ import annotations

import re
from typing import Any

from workbench.sae.base import SAE
from workbench.sae.formats.files import (
    Request,
    above,
    check_keys,
    check_sizes,
    make_sae,
    matrix,
    read_json,
    read_safetensors,
)

KEYS = ("w_enc", "w_dec", "b_enc", "b_dec", "threshold")
SKIP = "affine_skip_connection"
PLACES = {
    "resid_post": "output",
    "attn_out": "self_attn.o_proj.input",
    "mlp_out": "post_feedforward_layernorm.output",
    "transcoder": "pre_feedforward_layernorm.output",
}
"""What a folder's name means, as in the configs."""
OUTPUT = "post_feedforward_layernorm.output"


def read(request: Request) -> SAE:
    """Open the SAE of a request; nothing is copied on the CPU in float32 but the thresholds.

    Raises:
        ValueError: The file is not whole, of several layers, or has no certain site.
    """
    path = request.weights
    config = _config(request)
    if config.get("type") in ("crosscoder", "clt"):
        raise ValueError(
            f"{path} is a {config['type']}, which reads or writes several layers at once: an SAE "
            "of one site has no place for it. Take a resid_post, attn_out, mlp_out or transcoder."
        )
    if config.get("architecture", "jump_relu") != "jump_relu":
        raise ValueError(
            f"{path}: architecture {config['architecture']!r} is not known; Gemma Scope 2 has "
            "'jump_relu'."
        )
    tensors = read_safetensors(path)
    check_keys(path, tensors, KEYS, (SKIP,))
    if config.get("affine_connection") and SKIP not in tensors:
        raise ValueError(f"{path} lacks {SKIP}, and its config says affine_connection.")
    W_enc = matrix(path, tensors, "w_enc")
    check_sizes(path, {"width": config.get("width")}, {"width": W_enc.shape[1]})
    skip = matrix(path, tensors, SKIP).T if SKIP in tensors else None
    return make_sae(
        request,
        W_enc=W_enc,
        b_enc=tensors["b_enc"],
        W_dec=matrix(path, tensors, "w_dec"),
        b_dec=tensors["b_dec"],
        threshold=above(path, tensors, W_enc.shape[1]),
        W_skip=skip,
        activation="jumprelu",
        hook=config.get("hf_hook_point_in") or "",
        hook_out=_output(config),
        model=str(config.get("model_name") or "").replace("gemma-v3", "gemma-3"),
        l0=config.get("l0"),
    )


def _config(request: Request) -> dict[str, Any]:
    """The config of the file, or what its folders say."""
    path = request.folder / "config.json"
    if path.is_file():
        return read_json(path)
    place = "/".join(request.folder.absolute().parts[-2:])
    layer = re.search(r"layer_(\d+)", place)
    names = [name for name in PLACES if name in place]
    if layer is None or len(names) != 1:
        return {}
    config = {"hf_hook_point_in": f"model.layers.{layer[1]}.{PLACES[names[0]]}"}
    if names == ["transcoder"]:
        config["hf_hook_point_out"] = f"model.layers.{layer[1]}.{OUTPUT}"
    return config


def _output(config: dict[str, Any]) -> str:
    out = config.get("hf_hook_point_out") or ""
    return "" if out == config.get("hf_hook_point_in") else out
