"""circuit-tracer's transcoders: ``layer_{N}.safetensors``, and ``config.yaml`` for the whole set.

    f = relu(x W_enc^T + b_enc), or with a JumpReLU ``pre`` where ``pre > threshold``, else 0
    y = f W_dec + b_dec + x W_skip^T

(`circuit_tracer/transcoder/single_layer_transcoder.py`, version 0.5.0.) `W_enc (d_sae, d_model)` is
read as a transposed view; `W_dec (d_sae, d_model)` is stored as wanted. A JumpReLU is there if the
file has ``activation_function.threshold``.
"""

from __future__ import annotations

import re
from pathlib import Path

from workbench.sae.base import SAE
from workbench.sae.formats.files import Request, check_keys, make_sae, matrix, read_safetensors

KEYS = ("W_enc", "b_enc", "W_dec", "b_dec")
THRESHOLD = "activation_function.threshold"


def read(request: Request) -> SAE:
    """Open the transcoder of a request; nothing is copied on the CPU in float32.

    Raises:
        ValueError: The file is not whole, part of a cross-layer set, or has no certain site.
    """
    path = request.weights
    tensors = read_safetensors(path)
    check_keys(path, tensors, KEYS, (THRESHOLD, "W_skip"))
    config = _config(request.folder / "config.yaml")
    if config.get("model_kind", "transcoder_set") != "transcoder_set":
        raise ValueError(
            f"{request.folder / 'config.yaml'} has model_kind={config['model_kind']!r}: a feature "
            "that writes to several layers has no place in an SAE of one site; supported is "
            "'transcoder_set'."
        )
    layer = path.stem.removeprefix("layer_")
    reads, writes = config.get("feature_input_hook"), config.get("feature_output_hook")
    return make_sae(
        request,
        W_enc=matrix(path, tensors, "W_enc").T,
        b_enc=tensors["b_enc"],
        W_dec=matrix(path, tensors, "W_dec"),
        b_dec=tensors["b_dec"],
        activation="jumprelu" if THRESHOLD in tensors else "relu",
        threshold=tensors.get(THRESHOLD),
        W_skip=tensors.get("W_skip"),
        hook=f"blocks.{layer}.{reads}" if reads else f"layer_{layer}",
        hook_out=f"blocks.{layer}.{writes}" if writes else "",
        model=config.get("model_name", ""),
    )


def _config(path: Path) -> dict[str, str]:
    """The top-level ``key: value`` lines of the config.

    The file is YAML of which only plain strings matter here, so no parser is needed for it.
    """
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"(\w+):\s+(['\"]?)([^'\"#]+?)\2\s*(?:#.*)?", line) for line in lines]
    return {match[1]: match[3] for match in found if match}
