"""Texts by what they mean: vectors from a small sentence encoder that lies on this machine.

A folder in the layout of transformers, such as a copy of ``sentence-transformers/all-MiniLM-L6-v2``
(90 MB). A text's vector is the mean of the last layer over its tokens, or the first token's, as
``1_Pooling/config.json`` says (Reimers and Gurevych 2019, "Sentence-BERT", arXiv 1908.10084,
section 3), of unit length. Nothing is downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

BATCH, TOKENS = 128, 128
"""Texts at once, and the tokens of each that are read: labels are shorter."""
MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}


class Encoder:
    """A sentence encoder, with the vectors of the texts that it has read."""

    def __init__(self, folder: Path) -> None:
        """Load it.

        Args:
            folder: Weights in safetensors, configuration and tokenizer.

        Raises:
            ValueError: If it is not such a folder, or pools in another way.
        """
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"encoder={str(folder)!r} is no folder with a sentence encoder: give one that has "
                "config.json, model.safetensors and a tokenizer, such as a download of "
                "sentence-transformers/all-MiniLM-L6-v2"
            )
        self._pooling = _pooling(folder / "1_Pooling" / "config.json")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            # Weights in the pickle format are not read.
            self._module: Any = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            ).eval()
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} holds no sentence encoder: {error}") from error
        self._known: dict[str, np.ndarray] = {}

    def vectors(self, texts: Sequence[str], *, progress: bool = True) -> np.ndarray:
        """A unit vector for each text ``(text, d)``; a text is read once.

        Args:
            texts: At least one.
            progress: Whether to show a bar.
        """
        new = sorted({text for text in texts if text not in self._known}, key=len)
        starts = range(0, len(new), BATCH)
        for start in tqdm(
            starts, "labels read", unit="batch", disable=not progress or len(new) < 2
        ):
            part = new[start : start + BATCH]
            self._known |= zip(part, self._read(part), strict=True)
        return np.stack([self._known[text] for text in texts])

    def _read(self, texts: list[str]) -> np.ndarray:
        given = self._tokenizer(
            texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        with torch.inference_mode():
            states: Tensor = self._module(**given).last_hidden_state.float()
        if self._pooling == "first":
            pooled = states[:, 0]
        else:
            mask = given["attention_mask"][..., None]
            pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        return nn.functional.normalize(pooled, dim=-1).numpy()


@lru_cache(maxsize=2)
def encoder_at(folder: str) -> Encoder:
    """The encoder of a folder, loaded once."""
    return Encoder(Path(folder).expanduser())


def _pooling(path: Path) -> str:
    """How a text's vector is made of its tokens'.

    Raises:
        ValueError: If in no way that is known here.
    """
    if not path.is_file():
        return "mean"
    said = json.loads(path.read_text(encoding="utf-8"))
    wanted = [name for name, on in said.items() if name.startswith("pooling_mode") and on is True]
    if len(wanted) != 1 or wanted[0] not in MODES:
        raise ValueError(f"{path} asks for {wanted}; known are {', '.join(MODES)}, one of them")
    return MODES[wanted[0]]
