"""Standalone scripts as text: the template with its optional parts, and tensors as source."""

from __future__ import annotations

import base64
import inspect
import re

import numpy as np
import torch
from torch import Tensor

from workbench.models import Model
from workbench.pocket.manifest import weights
from workbench.recipes import standalone_template
from workbench.sources import find_source

LINE = 96
"""Characters of base64 in a line."""


def template(words: set[str]) -> str:
    """The code of the template below its docstring, with the optional parts of `words`."""
    source = inspect.getsource(standalone_template)
    source = source[source.index("from __future__") :]
    lines, open_parts = [], []
    for line in source.splitlines():
        mark = line.strip()
        if mark.startswith("# if "):
            open_parts.append(set(mark.removeprefix("# if ").split()) <= words)
        elif mark == "# fi":
            open_parts.pop()
        elif all(open_parts):
            lines.append(re.sub(r"  # (noqa|pyright).*", "", line))
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)) + "\n"


def filled(text: str, name: str, content: str) -> str:
    """`text` with `content` between the marks of `name`."""
    before, rest = text.split(f"# >> {name}\n")
    return before + content + rest.split(f"# << {name}")[1]


def numbers(tensor: Tensor, indent: int = 8) -> str:
    """A tensor as the call that makes it again, in lines of base64."""
    data = tensor.detach().float().cpu().contiguous().numpy().astype("<f4")
    text = base64.b64encode(data.tobytes()).decode("ascii")
    pad = " " * (indent + 4)
    lines = [f'{pad}"{text[i : i + LINE]}"' for i in range(0, len(text), LINE)] or [f'{pad}""']
    shape = ", ".join(map(str, data.shape))
    cast = ".bfloat16()" if tensor.dtype == torch.bfloat16 else ""
    return "numbers(\n" + "\n".join(lines) + f",\n{pad}{shape},\n{' ' * indent}){cast}"


def short(value: float) -> float:
    """The shortest number that is the same in float32."""
    return float(str(np.float32(value)))


def place_of(model: Model) -> str:
    """Folder or hub id of a model; empty where only its owner knows."""
    shipped = {"pocket": "base", "pocket-it": "it"}
    if model.name in shipped:
        return str(weights() / shipped[model.name])
    try:
        source = find_source(model.name)
    except ValueError:
        return ""
    if source.adapter is not None:
        return ""
    return source.repo or str(source.folder)
