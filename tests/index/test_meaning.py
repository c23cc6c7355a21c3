"""Search by meaning, with a small random encoder: against its last layer pooled by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from workbench.index import Index
from workbench.index.meaning import Encoder, encoder_at
from workbench.index.search import Search
from workbench.sites import Site

TEXTS = ["capital", "cities of France and their rivers", "die Stadt", "of"]
WORDS = ["[PAD]", "[UNK]", *sorted({word for text in TEXTS for word in text.split()})]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=1.0,
    )
    BertModel(config).save_pretrained(tmp_path)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(tmp_path)
    return tmp_path


def by_hand(folder: Path, text: str, pooling: str) -> np.ndarray:
    """One text alone, so that no padding is there to be mixed in."""
    module: Any = BertModel.from_pretrained(folder).eval()
    ids = torch.tensor([[WORDS.index(w) if w in WORDS else 1 for w in text.split()]])
    with torch.inference_mode():
        states = module(input_ids=ids).last_hidden_state[0].double().numpy()
    pooled = states.mean(0) if pooling == "mean" else states[0]
    return pooled / np.linalg.norm(pooled)


@pytest.mark.parametrize(("name", "pooling"), [(None, "mean"), ("mean", "mean"), ("cls", "first")])
def test_vectors_are_the_last_layer_pooled(folder: Path, name: str | None, pooling: str) -> None:
    if name:
        modes = {
            f"pooling_mode_{one}_token{'s' * (one == 'mean')}": False for one in ("mean", "cls")
        }
        modes[next(key for key in modes if f"_{name}_" in key)] = True
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes | {"dim": 16}))
    found = Encoder(folder).vectors([*TEXTS, TEXTS[0]], progress=False)
    wanted = np.stack([by_hand(folder, text, pooling) for text in [*TEXTS, TEXTS[0]]])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_search_ranks_labels_by_cosine(made: Index, folder: Path) -> None:
    sites = list(made.widths)
    labels = {sites[0]: {0: TEXTS[0], 3: TEXTS[1]}, sites[1]: {1: TEXTS[2], 2: "", 5: TEXTS[3]}}
    query = "Stadt of"
    found: Any = Search(made, labels=labels).find(query, by="meaning", encoder=folder, k=9)
    one = by_hand(folder, query, "mean")
    wanted: list[tuple[float, Site, int]] = sorted(
        (-float(by_hand(folder, text, "mean") @ one), site, index)
        for site, mine in labels.items()
        for index, text in mine.items()
        if text
    )
    assert found["feature"].tolist() == [index for _, _, index in wanted]
    np.testing.assert_allclose(found["score"], [-s for s, _, _ in wanted], atol=1e-5)
    assert found["why"][0].endswith(f"with label: {found['label'][0]}")


def test_no_labels_have_no_meaning(made: Index, folder: Path) -> None:
    assert Search(made).find("anything", by="meaning", encoder=folder).empty


def test_what_is_no_encoder_is_refused(made: Index, folder: Path) -> None:
    search = Search(made)
    with pytest.raises(ValueError, match=r"needs encoder=.*by='label' finds words"):
        search.find("x", by="meaning")
    with pytest.raises(ValueError, match=r"'nowhere' is no folder .* config\.json"):
        search.find("x", by="meaning", encoder="nowhere")
    with pytest.raises(ValueError, match="takes no encoder; by='meaning' does"):
        search.find("x", encoder=folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ValueError, match=r"asks for .*pooling_mode_max_tokens.*; known are"):
        Encoder(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    weights = BertModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"holds no sentence encoder: .*safetensors"):
        encoder_at(str(folder))
