"""Rebuild pocket from seeds: tokenizer, model, chat-tuned model, SAEs, evaluation, manifest.

Each stage writes its result under the work folder and is left out when the result is there, so an
interrupted build goes on where it stopped. The two trainings keep checkpoints of their own as well.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoTokenizer, Gemma2ForCausalLM, PreTrainedTokenizerFast

from workbench.models import Model, wrap
from workbench.pocket import dataset, evaluate
from workbench.pocket.corpus import documents
from workbench.pocket.language_model import CONTEXT, Recipe, train
from workbench.pocket.manifest import NAME, hashes
from workbench.pocket.suite_training import (
    TARGET_L0,
    Calibration,
    Plan,
    activations,
    calibrate,
    train_suite,
    write_suite,
)
from workbench.pocket.tokenizer import VOCABULARY, train_tokenizer
from workbench.sae import SAE
from workbench.sae.suite import SAMPLE, Suite
from workbench.sites import Site
from workbench.training import TrainConfig

TRAIN_SEED, TOKENIZER_SEED, CHAT_SEED, CALIBRATION_SEED, SAMPLE_SEED = 1, 2, 3, 5, 7
SAMPLE_DOCUMENTS = 16
CHAT_KINDS = ("chat",)
SAE_KINDS = ("att", "mlp", "res")
CHAT_RECIPE = Recipe(tokens=500_000, learning_rate=8e-4, exact=1.0, seed=1)
PLAN = Plan(
    TrainConfig(
        d_sae=1024,
        steps=3000,
        batch_size=1024,
        dead_tokens=120_000,
        revive_every=75,
        revive_until=0.8,
    )
)


@dataclass(frozen=True)
class Build:
    """The stages of one build."""

    work: Path
    """Where intermediate results go; about 200 MB."""
    rows: int = 50_000
    """Rows of 256 tokens in the training corpus."""
    recipe: Recipe = field(default_factory=Recipe)
    """Training of the base model."""
    chat_recipe: Recipe = CHAT_RECIPE
    """Tuning on chats."""
    plan: Plan = PLAN
    """Training of the SAEs."""

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

    def _rows(
        self, name: str, seed: int, count: int, kinds: tuple[str, ...] | None = None
    ) -> np.ndarray:
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
            model.generation_config.eos_token_id = [
                1,
                self.tokenizer.convert_tokens_to_ids("<end_of_turn>"),
            ]
            model.save_pretrained(folder)
        return _load(folder)

    def _model(self, module: Gemma2ForCausalLM, name: str) -> Model:
        return wrap(module, self.tokenizer, name=name)

    @property
    def sites(self) -> list[Site]:
        """Every layer and sub-layer that gets an SAE."""
        return sorted(Site(layer, kind) for layer in range(8) for kind in SAE_KINDS)

    def suite(self) -> Suite:
        """The SAEs of the base model, calibrated."""
        root = self.work / "sae"
        if not (root / "calibration.safetensors").exists():
            model = self._model(self.base(), "pocket")
            saes = train_suite(
                model, self.training_rows(), self.sites, self.plan, self.work / "suite"
            )
            rows = dataset.rows(self.tokenizer, CALIBRATION_SEED, 600)
            write_suite(saes, _calibration(model, saes, rows), root)
        return Suite(root, model="pocket")

    def evaluation(self, *, rows: int = evaluate.ROWS) -> dict[str, pd.DataFrame]:
        """The evaluation tables; labels are written beside the SAEs as a by-product."""
        folder = self.work / "evaluation"
        names = ("language", "saes", "concepts", "steering")
        if not all((folder / f"{name}.csv").exists() for name in names):
            done = evaluate.everything(self._model(self.base(), "pocket"), self.suite(), rows)
            _write_json(self.work / "sae" / "labels.json", done.labels)
            winners = evaluate.steering_winners(done.tables["steering"])
            _write_json(self.work / "sae" / "steering.json", winners)
            folder.mkdir(exist_ok=True)
            for name, table in done.tables.items():
                table.to_csv(folder / f"{name}.csv", index=False, float_format="%.4g")
        return {name: pd.read_csv(folder / f"{name}.csv") for name in names}

    def ship(self, root: Path) -> None:
        """Write everything that the package carries below `root`, with its manifest."""
        tables = self.evaluation()
        staging = self.work / "shipped"
        shutil.rmtree(staging, ignore_errors=True)
        for name, module in (("base", self.base()), ("it", self.chat())):
            module.bfloat16().save_pretrained(staging / name)
            self.tokenizer.save_pretrained(staging / name)
        shutil.copytree(self.work / "sae", staging / "sae")
        (staging / "sae" / SAMPLE).write_text(sample(self.tokenizer), encoding="utf-8")
        shutil.copytree(self.work / "evaluation", staging / "evaluation")
        manifest = {
            "format": 1,
            "seeds": {
                "training": TRAIN_SEED,
                "tokenizer": TOKENIZER_SEED,
                "chat": CHAT_SEED,
                "calibration": CALIBRATION_SEED,
                "evaluation": evaluate.SEED,
                "steering": evaluate.STEERING_SEED,
                "sample": SAMPLE_SEED,
            },
            "training_rows": self.rows,
            "base": asdict(self.recipe),
            "it": asdict(self.chat_recipe),
            "saes": {
                "config": self.plan.config.to_dict(),
                "block": self.plan.block,
                "target_l0": TARGET_L0,
            },
            "versions": {
                name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")
            },
            "summary": evaluate.summary(
                tables["language"], tables["saes"], tables["concepts"], tables["steering"]
            ),
            "files": hashes(staging),
        }
        _write_json(staging / NAME, manifest)
        shutil.rmtree(root, ignore_errors=True)
        shutil.move(staging, root)


def sample(tokenizer: Any) -> str:
    """Passages of held-out text for `Lab.check`, each within the context, between blank lines."""
    passages = []
    for one in islice(documents(SAMPLE_SEED), SAMPLE_DOCUMENTS):
        ids = tokenizer(one.text.replace("\n\n", "\n"), add_special_tokens=False)["input_ids"]
        passages.append(tokenizer.decode(ids[: CONTEXT // 2]).strip())
    return "\n\n".join(passages) + "\n"


def _calibration(model: Model, saes: dict[Site, SAE], rows: np.ndarray) -> dict[Site, Calibration]:
    sites = sorted({*saes, *(site.writes_at for site in saes)})
    parts = [activations(model, rows[i : i + 64], sites) for i in range(0, len(rows), 64)]
    read = {site: torch.cat([part[site] for part in parts]) for site in sites}
    return {site: calibrate(sae, read[site], read[site.writes_at]) for site, sae in saes.items()}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _load(folder: Path) -> Gemma2ForCausalLM:
    """The model as it is shipped: rounded to bfloat16, computed in float32."""
    module = Gemma2ForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    )
    return module.bfloat16().float().eval()
