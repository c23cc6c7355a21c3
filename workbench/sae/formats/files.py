"""What all readers share: opening files, checking them, and making the SAE.

Nothing is copied that can stay where it is. safetensors and PyTorch's zip files are mapped, and a
matrix that a format stores the other way round is a transposed view of the mapping: matrix products
take it as it is. Copies are made where numbers change (another dtype or device, a factor folded
into weights), which the readers say.

Pickles are never executed: ``.pt`` files are opened with ``torch.load(weights_only=True)``, which
accepts tensors and plain values only.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench.sae.base import SAE, Activation, Normalize, SAEConfig
from workbench.sae.formats.places import KINDS, layer_of, site_of

STORED = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
COMPUTED = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Request:
    """A file to read, and what the caller says about it.

    Attributes:
        folder: The folder of the SAE.
        weights: The file that holds the tensors.
        model: Name of the model; empty to take the file's word.
        layer: Layer; None to take the file's word.
        kind: Kind of site; None to take the file's word.
        dtype: Dtype to compute in.
        device: Where to put it.
    """

    folder: Path
    weights: Path
    model: str = ""
    layer: int | None = None
    kind: str | None = None
    dtype: torch.dtype = torch.float32
    device: str | torch.device = "cpu"

    def site(self, hook: str, *, certain: bool = True) -> tuple[int, str]:
        """Layer and kind: the caller's, or what the file's name of the activation means.

        Args:
            hook: The activation as the file names it; empty if it does not.
            certain: False if that name is known to mean another activation in this model.

        Raises:
            ValueError: Neither says.
        """
        found = site_of(hook) if certain else None
        layer = self.layer
        if layer is None:
            layer = layer_of(hook) if found is None else found[0]
        kind = found[1] if self.kind is None and found is not None else self.kind
        missing = [f"{name}=" for name, v in (("layer", layer), ("kind", kind)) if v is None]
        if layer is None or kind is None:
            said = f"calls its activation {hook!r}" if hook else "does not say where it belongs"
            raise ValueError(
                f"{self.weights} {said}, which names no certain site: pass {' and '.join(missing)} "
                f"(kinds: {', '.join(KINDS)})."
            )
        return layer, kind


def read_json(path: Path) -> dict[str, Any]:
    """A config file.

    Raises:
        ValueError: It is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): fetch it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a JSON object.")
    return content


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, mapped.

    Raises:
        ValueError: The file is not whole.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is not a whole safetensors file ({error}): "
            "delete it and fetch it again."
        ) from error


def read_torch(path: Path) -> dict[str, Any]:
    """The state dict of a ``.pt`` file: tensors (mapped where the file allows it) and plain values.

    Raises:
        ValueError: The file would have to run code to be read, or is not a state dict.
    """
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            # PyTorch's format from before 1.6 is not a zip and cannot be mapped.
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is a pickle that holds more than tensors and plain values, and reading it "
            "would run code: it is refused. Ask for a safetensors file, or re-save the state dict "
            f"where you trust the file. (torch: {str(error).splitlines()[0]})"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is not a whole PyTorch file "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}): delete it "
            "and fetch it again."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a state dict.")
    return content


def check_keys(
    path: Path, held: Collection[str], need: Collection[str], may: Collection[str] = ()
) -> None:
    """Refuse a file that lacks an array, or has one whose part in the formula is not known.

    Raises:
        ValueError: Naming the keys.
    """
    missing = [key for key in need if key not in held]
    extra = sorted(key for key in held if key not in need and key not in may)
    if missing or extra:
        wrong = [f"lacks {', '.join(missing)}"] * bool(missing)
        wrong += [f"holds {', '.join(extra)}, which this format has not"] * bool(extra)
        raise ValueError(
            f"{path} {' and '.join(wrong)}: expected {', '.join(need)}; found "
            f"{', '.join(sorted(held)) or 'nothing'}."
        )


def check_sizes(path: Path, told: Mapping[str, object], found: Mapping[str, int]) -> None:
    """Refuse tensors of other sizes than the config says; what it leaves out is not checked.

    Raises:
        ValueError: Naming the size.
    """
    for name, size in found.items():
        if told.get(name) not in (None, size):
            raise ValueError(f"{path}: the tensors have {name}={size}, the config {told[name]!r}.")


def matrix(path: Path, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """A matrix of a file.

    Raises:
        ValueError: It has not two dimensions.
    """
    found = tensors[name]
    if found.ndim != 2:
        raise ValueError(f"{path}: {name} has shape {tuple(found.shape)}, expected a matrix.")
    return found


def vector(path: Path, tensors: Mapping[str, Tensor], name: str, size: int) -> Tensor:
    """A vector of a file, in float32, for folding into other tensors.

    Raises:
        ValueError: It has another shape.
    """
    found = tensors[name]
    if found.shape != (size,):
        raise ValueError(
            f"{path}: {name} has shape {tuple(found.shape)}, expected ({size},), a number for each "
            "feature."
        )
    return found.float()


def make_sae(
    request: Request,
    *,
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    b_dec: Tensor,
    activation: Activation,
    hook: str,
    hook_out: str = "",
    certain: bool = True,
    threshold: Tensor | None = None,
    k: int | None = None,
    W_skip: Tensor | None = None,
    normalize: Normalize = "none",
    apply_b_dec_to_input: bool = False,
    model: str = "",
    l0: float | None = None,
) -> SAE:
    """The SAE of a request, with tensors `(d_in, d_sae)`, `(d_sae, d_out)` and so on.

    Vectors are checked to be finite; `workbench.sae.formats.check_sae` reads the matrices, too.

    Raises:
        ValueError: A tensor has a wrong shape, dtype or value, or the site is not known.
    """
    if request.dtype not in COMPUTED:
        raise ValueError(
            f"dtype={request.dtype}: expected torch.float32 or torch.bfloat16 (float16 overflows)."
        )
    tensors = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    tensors |= {} if threshold is None else {"threshold": threshold}
    tensors |= {} if W_skip is None else {"W_skip": W_skip}
    for name, tensor in tensors.items():
        if tensor.dtype not in STORED:
            raise ValueError(f"{request.weights}: {name} is {tensor.dtype}, expected real numbers.")
        if tensor.ndim < 2:
            check_finite(request.weights, name, tensor)
    d_in, d_sae = matrix(request.weights, tensors, "W_enc").shape
    layer, kind = request.site(hook, certain=certain)
    config = SAEConfig(
        model=request.model or model,
        layer=layer,
        kind=kind,
        width=d_sae,
        l0=l0,
        source=str(request.weights),
        d_in=d_in,
        d_out=matrix(request.weights, tensors, "W_dec").shape[1],
        d_sae=d_sae,
        hook=hook,
        hook_out=hook_out,
    )
    moved = {
        name: tensor.detach().to(device=request.device, dtype=request.dtype)
        for name, tensor in tensors.items()
    }
    try:
        return SAE(
            **{"threshold": None, **moved},
            activation=activation,
            k=k,
            normalize=normalize,
            apply_b_dec_to_input=apply_b_dec_to_input,
            config=config,
        )
    except ValueError as error:
        raise ValueError(f"{request.weights}: {error}") from error


def check_finite(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinities.

    Raises:
        ValueError: Naming the tensor and how many values it is.
    """
    wrong = tensor.numel() - int(torch.isfinite(tensor).sum())
    if wrong:
        raise ValueError(
            f"{path}: {name} ({str(tensor.dtype).removeprefix('torch.')}) holds {wrong} value(s) "
            "that are not finite: delete the file and fetch it again."
        )


def gated(
    path: Path, W_enc: Tensor, tensors: Mapping[str, Tensor], r_mag: str, b_mag: str, b_gate: str
) -> dict[str, Tensor]:
    """A gated encoder as a JumpReLU of the same function (Rajamanoharan et al. 2024).

    With ``z = x W_enc`` and ``e = exp(r_mag)``, a gated SAE (arXiv 2404.16014, section 3.2) has
    ``f = relu(e z + b_mag)`` where ``z + b_gate > 0``, else 0. Its pre-activation is
    ``p = e z + b_mag``. As ``e > 0`` the gate is open where ``e z + e b_gate > 0``, that is where
    ``p > b_mag - e b_gate``; and relu needs ``p > 0``. Both hold where ``p`` exceeds the larger of
    the two, and then ``f = p``.

    Args:
        path: The file, for messages.
        W_enc: Encoder directions as columns `(d_in, d_sae)`.
        tensors: Those of the file.
        r_mag: Name of the logarithm of the magnitudes' scale.
        b_mag: Name of the magnitudes' bias.
        b_gate: Name of the gates' bias.

    Returns:
        `W_enc`, a copy scaled by ``e``; ``b_enc`` and ``threshold``. In float32.

    Raises:
        ValueError: One of the three has another shape.
    """
    size = W_enc.shape[1]
    scale = vector(path, tensors, r_mag, size).exp()
    bias = vector(path, tensors, b_mag, size)
    threshold = (bias - vector(path, tensors, b_gate, size) * scale).clamp(min=0)
    return {"W_enc": W_enc.float() * scale, "b_enc": bias, "threshold": threshold}


def above(path: Path, tensors: Mapping[str, Tensor], d_sae: int) -> Tensor:
    """Thresholds `(d_sae,)` of an activation that keeps ``relu(pre)`` where it exceeds them.

    One number counts for every feature. Below 0 the relu decides, so a negative threshold is 0.

    Raises:
        ValueError: The threshold has another shape.
    """
    found = tensors["threshold"]
    if found.ndim == 0:
        return found.float().clamp(min=0).repeat(d_sae)
    return vector(path, tensors, "threshold", d_sae).clamp(min=0)
