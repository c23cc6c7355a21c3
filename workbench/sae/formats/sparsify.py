"""EleutherAI's sparsify: ``{hookpoint}/cfg.json`` and ``sae.safetensors``.

    pre = (x, or x - b_dec unless cfg.transcode) encoder.weight^T + encoder.bias
    f   = the k largest of relu(pre)
    y   = f W_dec + b_dec + x W_skip^T

(`sparsify/sparse_coder.py` and ``fused_encoder.py``, version 1.3.3.) `W_dec (num_latents, d_in)` is
stored as this package wants it; the encoder is a transposed view of the file.

The folder is named by the module whose output is read: ``layers.5``, ``layers.5.mlp``,
``layers.5.attention``, ``embed_tokens``. A transcoder of ``layers.5.mlp`` reads that module's
input.
"""

from __future__ import annotations

import re

from workbench.sae.base import SAE
from workbench.sae.formats.files import (
    Request,
    check_keys,
    check_sizes,
    make_sae,
    matrix,
    read_json,
    read_safetensors,
)
from workbench.sae.formats.places import is_gemma

KEYS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")


def read(request: Request) -> SAE:
    """Open the SAE of a request; nothing is copied on the CPU in float32.

    Raises:
        ValueError: The file is not whole, of another activation, or has no certain site.
    """
    path = request.weights
    config = read_json(request.folder / "cfg.json")
    activation = config.get("activation", "topk")
    if activation != "topk" or config.get("signed"):
        raise ValueError(
            f"{path} has the activation {activation!r}{' (signed)' * bool(config.get('signed'))}: "
            "of sparsify's, only 'topk' is supported."
        )
    if not isinstance(config.get("k"), int):
        raise ValueError(f"{request.folder / 'cfg.json'} has k={config.get('k')!r}, no number.")
    tensors = read_safetensors(path)
    skip = bool(config.get("skip_connection"))
    check_keys(path, tensors, (*KEYS, *["W_skip"] * skip))
    W_enc = matrix(path, tensors, "encoder.weight").T
    d_in, d_sae = W_enc.shape
    told = {"d_in": config.get("d_in"), "num_latents": config.get("num_latents") or None}
    check_sizes(path, told, {"d_in": d_in, "num_latents": d_sae})
    transcode = bool(config.get("transcode"))
    module = request.folder.absolute().name
    run = request.folder.parent / "config.json"
    model = str(read_json(run).get("model") or "") if run.is_file() else ""
    hook, known = _hook(module, request.model or model, transcode=transcode)
    return make_sae(
        request,
        W_enc=W_enc,
        b_enc=tensors["encoder.bias"],
        W_dec=matrix(path, tensors, "W_dec"),
        b_dec=tensors["b_dec"],
        activation="topk",
        k=config["k"],
        W_skip=tensors.get("W_skip"),
        apply_b_dec_to_input=not transcode,
        hook=hook,
        hook_out=module if transcode else "",
        certain=known,
        model=model,
    )


def _hook(module: str, model: str, *, transcode: bool) -> tuple[str, bool]:
    """The activation that the module of a folder stands for, and whether that is a known site."""
    found = re.fullmatch(r"layers\.(\d+)(?:\.(mlp|attention|self_attn))?", module)
    if found is None:
        return (f"{module}.input" if transcode else module), not transcode
    layer, part = found.groups()
    if part is None:
        return module, not transcode
    if is_gemma(model):
        return (f"{module}.input" if transcode else module), False
    if transcode:
        return (
            (f"blocks.{layer}.mlp.hook_in", True) if part == "mlp" else (f"{module}.input", False)
        )
    return f"blocks.{layer}.{'hook_mlp_out' if part == 'mlp' else 'hook_attn_out'}", True
