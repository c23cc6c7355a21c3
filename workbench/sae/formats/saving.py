"""Writing an SAE in SAELens' format, which every SAE here fits but for a TopK transcoder.

Architectures and words are those of version 6.54.12; see `workbench.sae.formats.sae_lens`.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from workbench.files import writable_folder
from workbench.sae.base import SAE, Normalize
from workbench.sae.formats.files import check_finite
from workbench.sae.formats.places import hook_name
from workbench.sae.formats.sae_lens import CONFIG, WEIGHTS

VERSION = "6.54.12"
NORMALIZE: dict[Normalize, str] = {
    "none": "none",
    "layer_norm": "layer_norm",
    "constant_norm": "constant_norm_rescale",
}
ARCHITECTURES = {
    ("relu", False, False): "standard",
    ("topk", False, False): "topk",
    ("jumprelu", False, False): "jumprelu",
    ("relu", True, False): "transcoder",
    ("relu", True, True): "skip_transcoder",
    ("jumprelu", True, False): "jumprelu_transcoder",
    ("jumprelu", True, True): "jumprelu_skip_transcoder",
}
"""Architecture by activation, being a transcoder, and having a skip connection."""


def save_sae_lens(sae: SAE, folder: str | Path) -> Path:
    """Write an SAE as SAELens 6 does, so that ``sae_lens.SAE.load_from_disk`` opens it.

    The old config goes first and the new one comes last, each file in one step: whatever happens,
    the folder never holds a config with the weights of another SAE.

    Args:
        sae: The SAE.
        folder: Where to put ``cfg.json`` and ``sae_weights.safetensors``; made if it is missing.

    Returns:
        The folder.

    Raises:
        ValueError: SAELens has no architecture for it, a value is not finite, or the path is empty.
        OSError: The folder cannot be made or written to.
    """
    tensors, config = _written(sae)
    for name, tensor in tensors.items():
        check_finite(Path(folder, WEIGHTS), name, tensor)
    folder = writable_folder(folder)
    text = json.dumps(config, indent=2) + "\n"
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as name:
        weights, described = Path(name, WEIGHTS), Path(name, CONFIG)
        save_file(tensors, weights, {"format": "pt"})
        described.write_text(text, encoding="utf-8")
        for path in (weights, described):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        (folder / CONFIG).unlink(missing_ok=True)
        weights.replace(folder / WEIGHTS)
        described.replace(folder / CONFIG)
    return folder


def _written(sae: SAE) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and config of an SAE in SAELens' words."""
    config, skip = sae.config, sae.W_skip is not None
    transcoder = skip or bool(config.hook_out) or config.d_in != config.d_out
    transcoder |= config.kind in ("transcoder", "mlp_in")
    architecture = ARCHITECTURES.get((sae.activation, transcoder, skip))
    if architecture is None or (transcoder and sae.normalize != "none"):
        raise ValueError(
            f"{sae.name}: SAELens has no {sae.activation} transcoder, nor one that normalises; "
            f"it has {', '.join(ARCHITECTURES.values())}."
        )
    if sae.threshold is not None and bool((sae.threshold < 0).any()):
        raise ValueError(
            f"{sae.name} has thresholds below 0, and SAELens' JumpReLU never gives a negative "
            "activation: the file would be another function."
        )
    b_enc, subtract = sae.b_enc, sae.apply_b_dec_to_input
    if transcoder and subtract:
        b_enc, subtract = b_enc - sae.b_dec @ sae.W_enc, False
    tensors = {"W_enc": sae.W_enc, "b_enc": b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    tensors |= {"threshold": sae.threshold} if sae.threshold is not None else {}
    tensors |= {"W_skip": sae.W_skip} if sae.W_skip is not None else {}
    about = _about(sae, transcoder=transcoder)
    written: dict[str, Any] = {
        "architecture": architecture,
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "dtype": str(sae.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": subtract,
        "normalize_activations": NORMALIZE[sae.normalize],
        "reshape_activations": "hook_z" if config.kind == "att" else "none",
    }
    written |= {"k": sae.k, "rescale_acts_by_decoder_norm": False} if sae.k is not None else {}
    written |= {"d_out": config.d_out} if transcoder else {}
    written["metadata"] = {name: value for name, value in about.items() if value not in (None, "")}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, written


def _about(sae: SAE, *, transcoder: bool) -> dict[str, Any]:
    """What SAELens keeps of an SAE's origin: activations in both libraries' words."""
    config = sae.config
    names = _names(config.hook, hook_name(config.layer, config.kind))
    about = {
        "model_name": config.model,
        "hook_name": names[0],
        "hf_hook_name": names[1],
        "prepend_bos": True,
        "l0": config.l0,
        "sae_lens_version": VERSION,
    }
    if transcoder:
        names = _names(config.hook_out, hook_name(config.layer, "mlp"))
        about |= {"hook_name_out": names[0], "hf_hook_name_out": names[1]}
    return about


def _names(told: str, usual: str) -> tuple[str, str]:
    """TransformerLens' and Hugging Face's name of an activation, as far as they are known."""
    return (told, "") if told.startswith(("blocks.", "hook_")) else (usual, told)
