"""Rebuild pocket from seeds: tokenizer, rows, language model, chat-tuned model, SAEs, evaluation, manifest.

Each stage writes its result under the work folder and is left out when the result is there, so an interrupted build goes
on where it stopped. The two trainings keep checkpoints of their own as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, Gemma2ForCausalLM, PreTrainedTokenizerFast

from workbench.pocket import dataset
from workbench.pocket.corpus import documents
from workbench.pocket.language_model import Recipe, train
from workbench.pocket.tokenizer import VOCABULARY, train_tokenizer

TRAIN_SEED, TOKENIZER_SEED, CHAT_SEED, HELD_OUT_SEED = 1, 2, 3, 4
CHAT_KINDS = ("chat",)


@dataclass(frozen=True)
class Build:
    """The stages of one build."""

    work: Path
    """Where intermediate results go; about 200 MB."""
    rows: int = 50_000
    """Rows of 256 tokens in the training corpus."""
    recipe: Recipe = Recipe()
    """Training of the base model."""
    chat_recipe: Recipe = Recipe(tokens=1_200_000, learning_rate=5e-4, exact=1.0, seed=1)
    """Tuning on chats."""

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Learned from its own corpus of 10,000 documents."""
        folder = self.work / "tokenizer"
        if not (folder / "tokenizer.json").exists():
            texts = (document.text for document in islice(documents(TOKENIZER_SEED), 10_000))
            train_tokenizer(texts).save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder)

    def training_rows(self) -> np.ndarray:
        """``(row, pos)`` of the training corpus."""
        return self._rows("rows.npy", TRAIN_SEED, self.rows)

    def _rows(self, name: str, seed: int, count: int, kinds: tuple[str, ...] | None = None) -> np.ndarray:
        path = self.work / name
        if not path.exists():
            chosen = {} if kinds is None else {"kinds": kinds}
            partial = path.with_suffix(".partial.npy")
            np.save(partial, dataset.rows(self.tokenizer, seed, count, **chosen))
            partial.replace(path)
        return np.load(path, mmap_mode="r")

    def base(self) -> Gemma2ForCausalLM:
        """The base model."""
        folder = self.work / "base"
        if not (folder / "model.safetensors").exists():
            rows = self.training_rows()
            train(rows, self.recipe, folder, vocabulary=VOCABULARY).save_pretrained(folder)
        return _load(folder)

    def chat(self) -> Gemma2ForCausalLM:
        """The base model tuned on chats."""
        folder = self.work / "it"
        if not (folder / "model.safetensors").exists():
            rows = self._rows("chat.npy", CHAT_SEED, 2000, CHAT_KINDS)
            model = train(rows, self.chat_recipe, folder, start=self.base())
            model.generation_config.eos_token_id = [1, self.tokenizer.convert_tokens_to_ids("<end_of_turn>")]
            model.save_pretrained(folder)
        return _load(folder)


def _load(folder: Path) -> Gemma2ForCausalLM:
    return Gemma2ForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
