"""Readers of every published SAE format, behind one function.

`read_sae` tells the format by the names of the files in a folder; the reader then checks the
config's words and the tensors' names, shapes and values. Nothing is guessed: what does not fit is
refused with what was found and what would fit.

>>> sorted(FILES["sae_lens"])
['activation_scaler.json', 'cfg.json', 'sae_weights.safetensors']
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from workbench.sae.base import SAE, TENSORS
from workbench.sae.formats import (
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    openai,
    sae_lens,
    sparsify,
)
from workbench.sae.formats.files import Request, check_finite
from workbench.sae.formats.saving import save_sae_lens

__all__ = ["FILES", "FORMATS", "Format", "check_sae", "format_of", "read_sae", "save_sae_lens"]


@dataclass(frozen=True)
class Format:
    """How a format is told, and what reads it.

    Attributes:
        weights: File name, below the SAE's folder, of its tensors; may have wildcards.
        beside: Files that must be there, too.
        optional: Files that are read if they are there.
        holds: Names of tensors and config keys, for messages.
        read: The reader.
    """

    weights: str
    beside: tuple[str, ...]
    optional: tuple[str, ...]
    holds: str
    read: Callable[[Request], SAE]


FORMATS = {
    "gemma_scope": Format(
        "params.npz", (), (), "W_enc, W_dec, b_enc, b_dec, threshold", gemma_scope.read
    ),
    "gemma_scope_2": Format(
        "params.safetensors",
        (),
        ("config.json",),
        "w_enc, w_dec, b_enc, b_dec, threshold; config: hf_hook_point_in, type",
        gemma_scope_2.read,
    ),
    "sae_lens": Format(
        "sae_weights.safetensors",
        ("cfg.json",),
        ("activation_scaler.json",),
        "W_enc, W_dec, b_dec, b_enc or b_gate; config: architecture, d_in, d_sae",
        sae_lens.read,
    ),
    "sparsify": Format(
        "sae.safetensors",
        ("cfg.json",),
        ("../config.json",),
        "encoder.weight, encoder.bias, W_dec, b_dec; config: k, d_in",
        sparsify.read,
    ),
    "dictionary_learning": Format(
        "ae.pt",
        ("config.json",),
        (),
        "encoder.weight or W_enc; config: trainer.dict_class",
        dictionary_learning.read,
    ),
    "llama_scope": Format(
        "checkpoints/final.safetensors",
        ("hyperparams.json",),
        (),
        "encoder.weight, decoder.weight; config: hook_point_in, norm_activation, act_fn",
        llama_scope.read,
    ),
    "circuit_tracer": Format(
        "layer_*.safetensors",
        (),
        ("config.yaml",),
        "W_enc, W_dec, b_enc, b_dec; config: model_kind, feature_input_hook",
        circuit_tracer.read,
    ),
    "openai": Format(
        "[0-9]*.pt", (), (), "pre_bias, encoder.weight, latent_bias, decoder.weight", openai.read
    ),
}
"""Every format by name."""

FILES = {name: (found.weights, *found.beside, *found.optional) for name, found in FORMATS.items()}
"""Names of the files that belong to each format, relative to the SAE's folder: what to download."""


def format_of(path: str | Path) -> str:
    """The name of a folder's or a file's format.

    Args:
        path: The SAE's folder, or its file of tensors.

    Raises:
        FileNotFoundError: There is nothing at that path.
        ValueError: No format fits, or more than one.
    """
    return _found(Path(path))[0]


def read_sae(
    path: str | Path,
    *,
    model: str = "",
    layer: int | None = None,
    kind: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> SAE:
    """Open an SAE of any published format.

    A file in the dtype asked for is mapped, not copied, on the CPU; each reader says what it copies
    and why. Biases and thresholds are checked to be finite; `check_sae` reads all.

    Args:
        path: The SAE's folder, or its file of tensors. Where a folder holds one file a layer,
            `layer` chooses.
        model: Name of the model; the file's word if left out.
        layer: Layer; the file's word if left out.
        kind: Kind of site; the file's word if left out.
        dtype: Dtype to compute in: float32 or bfloat16.
        device: Where to put it.

    Raises:
        FileNotFoundError: There is nothing at that path.
        ValueError: The format is not known, the file is damaged or would run code, the SAE does
            what this package's cannot, or nobody says which activation it reads.
    """
    name, folder, weights = _found(Path(path), layer)
    request = Request(folder, weights, model, layer, kind, dtype, device)
    return FORMATS[name].read(request)


def check_sae(path: str | Path, *, layer: int | None = None) -> None:
    """Read a whole SAE once and check it: all that `read_sae` checks, and every value finite.

    Args:
        path: As for `read_sae`.
        layer: Which file, where a folder holds one a layer.

    Raises:
        FileNotFoundError: There is nothing at that path.
        ValueError: Something is wrong; the message says what.
    """
    name, folder, weights = _found(Path(path), layer)
    # Where it belongs does not matter here, so an SAE that does not say is as good as any.
    sae = FORMATS[name].read(Request(folder, weights, layer=layer or 0, kind="res"))
    for array in TENSORS:
        if getattr(sae, array) is not None:
            check_finite(weights, array, getattr(sae, array))


def _found(path: Path, layer: int | None = None) -> tuple[str, Path, Path]:
    """Format, folder and file of tensors."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder.")
    found = []
    for name, known in FORMATS.items():
        for folder, files in _candidates(path, known.weights):
            chosen = _chosen(files, layer)
            if chosen and all((folder / other).is_file() for other in known.beside):
                found.append((name, folder, chosen))
    if len(found) == 1:
        name, folder, chosen = found[0]
        if len(chosen) > 1:
            raise ValueError(
                f"{path} holds {len(chosen)} SAEs of the format {name} "
                f"({', '.join(sorted(file.name for file in chosen)[:3])} ...): pass layer= or the "
                "path of one file."
            )
        return name, folder, chosen[0]
    raise ValueError(_unknown(path, [name for name, _, _ in found]))


def _candidates(path: Path, weights: str) -> list[tuple[Path, list[Path]]]:
    """Folders in which `path` may be an SAE of a format, with their files of tensors."""
    if path.is_dir():
        return [(path, [file for file in path.glob(weights) if file.is_file()])]
    depth = weights.count("/") + 1
    folder = path.absolute().parents[depth - 1]
    fits = fnmatch.fnmatch(path.absolute().relative_to(folder).as_posix(), weights)
    return [(folder, [path])] if fits else []


def _chosen(files: list[Path], layer: int | None) -> list[Path]:
    """Of several files, one a layer, those of the layer."""
    if len(files) < 2 or layer is None:
        return files
    return [file for file in files if file.stem in (f"layer_{layer}", str(layer))]


def _unknown(path: Path, fitting: list[str]) -> str:
    folder = path if path.is_dir() else path.parent
    names = sorted(file.name + "/" * file.is_dir() for file in folder.iterdir())
    held = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    if fitting:
        return (
            f"{path} fits {', '.join(fitting)} (it holds {held}): pass the path of the file of "
            "tensors."
        )
    known = "\n".join(
        f"  {name}: {' + '.join((each.weights, *each.beside))} ({each.holds})"
        for name, each in FORMATS.items()
    )
    clt = any(fnmatch.fnmatch(name, "W_enc_*.safetensors") for name in names)
    why = " (a cross-layer transcoder, which is not supported)" if clt else ""
    # Of a file, what lies beside it says nothing.
    inside = f"; it holds {held or 'nothing'}" if path.is_dir() else ""
    return f"{path} is no SAE of a known format{why}{inside}. Known are\n{known}"
