"""One file of tensors and plain values: safetensors with a JSON header, whole or not there.

No pickle: opening a file that somebody sent runs nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.files import readable, replaced_whole


def write_box(
    path: str | Path, format: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Path:
    """Write tensors and values as one file.

    Args:
        path: Where; what was there stays if the disk is full or the kernel dies on the way.
        format: What it is, with its version.
        header: What JSON can hold.
        tensors: By name.

    Returns:
        The path.
    """
    said = {"format": format, "header": json.dumps(header, allow_nan=True)}
    whole: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        # The format has no two names for one memory.
        whole[name] = own.clone() if place in seen else own
        seen.add(place)
    with replaced_whole(path) as partial:
        save_file(whole, partial, said)
    return Path(path)


def read_box(path: str | Path, what: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header as it is written and the tensors of a file.

    Args:
        path: The file.
        what: What it should be, for the message.

    Raises:
        OSError: If there is none, or it is a folder.
        ValueError: If it is no such file, or cut off.
    """
    path = readable(path, what)
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not {what}, or was cut off on its way ({error}): save it again, or copy "
            "the whole file"
        ) from error
