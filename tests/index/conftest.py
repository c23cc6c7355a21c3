"""A small corpus, and all that an index should say of it, worked out token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch

from workbench.index import Index, Shape, build
from workbench.models import Model
from workbench.sites import Site

CONTEXT, WINDOW = 24, 16
WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "ran", "far", "away", "from", "red", "dogs")
SHAPE = Shape(top=5, bins=4, stratified=2)


def corpus(count: int = 30, seed: int = 0) -> list[str]:
    """Documents of 1 to 60 bytes; some are alike, one is empty."""
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(WORDS, random.integers(1, 12))) for _ in range(count)]
    texts[3] = ""
    texts[7] = texts[5]
    return texts


@dataclass(frozen=True)
class Truth:
    """Every activation of every scored token, found row by row with plain hooks."""

    acts: np.ndarray
    """``(token, d_sae)``."""
    document: list[int]
    position: list[int]
    row: list[int]
    passage: list[tuple[list[int], int]]
    """Of each token the numbers of the tokens around it in its piece, and its place among them."""
    content: list[tuple[int, ...]]
    """The last eight ids up to each token in its piece."""
    documents: list[list[int]]


def truth(model: Model, source: Any, site: Site, texts: Sequence[str], context: int) -> Truth:
    """Pack, run and encode with nothing of the index."""
    documents = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    stream = []
    for number, ids in enumerate(documents):
        stream += [(token, number, place) for place, token in enumerate(ids)]
        stream.append((model.tokenizer.eos_token_id, None, None))
    width = context - 1
    rows = [stream[i : i + width] for i in range(0, len(stream), width)]
    acts, flat = [], []
    sae = source.sae_at(site)
    for number, row in enumerate(rows):
        ids = torch.tensor([[model.tokenizer.bos_token_id, *(token for token, _, _ in row)]])
        f = sae.encode(_activation(model, site, ids)[0, 1:]).numpy()
        for (token, document, place), values in zip(row, f, strict=True):
            if document is not None:
                acts.append(values)
                flat.append((token, document, place, number))
    pieces: dict[tuple[int, int], list[int]] = {}
    for i, (_, document, _, row) in enumerate(flat):
        pieces.setdefault((document, row), []).append(i)
    passage, content = [], []
    for i, (_, document, _, row) in enumerate(flat):
        piece = pieces[document, row]
        at = piece.index(i)
        start = max(0, at - WINDOW)
        passage.append((piece[start : at + WINDOW + 1], at - start))
        content.append(tuple(flat[j][0] for j in piece[max(0, at - 7) : at + 1]))
    return Truth(
        np.array(acts),
        [document for _, document, _, _ in flat],
        [place for _, _, place, _ in flat],
        [row for _, _, _, row in flat],
        passage,
        content,
        documents,
    )


def _activation(model: Model, site: Site, ids: torch.Tensor) -> torch.Tensor:
    """The activation by a plain hook, by the formulas of the table in `workbench.sites`."""
    module: Any = model.module
    layer = module.model.layers[site.layer]
    found = {}
    if site.kind == "att":
        place = layer.self_attn.o_proj
        handle = place.register_forward_pre_hook(lambda _, args: found.update(x=args[0]))
    elif site.kind == "transcoder":
        place = layer.pre_feedforward_layernorm
        handle = place.register_forward_pre_hook(lambda _, args: found.update(x=args[0]))
    else:
        place = {
            "embed": module.model.embed_tokens,
            "mlp": layer.post_feedforward_layernorm,
            "res": layer,
        }[site.kind]
        handle = place.register_forward_hook(lambda _, __, out: found.update(x=out))
    with torch.no_grad():
        module(input_ids=ids, use_cache=False)
    handle.remove()
    x = found["x"]
    if site.kind == "transcoder":
        return x / (x.pow(2).mean(-1, keepdim=True) + place.eps).sqrt()
    return x / module.config.hidden_size**0.5 if site.kind == "embed" else x


def tables(path: Path) -> dict[str, list[tuple]]:
    """Everything an index file holds, but how and when it was made."""
    with duckdb.connect(str(path), read_only=True) as connection:
        names = [row[0] for row in connection.execute("SHOW TABLES").fetchall()]
        assert len(names) == 8
        return {
            name: connection.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall()
            for name in names
        }


def indexed(model: Model, suite: Any, path: Path, texts: Any = None, **options: Any) -> Index:
    """An index of the small corpus at some sites."""
    texts = corpus() if texts is None else texts
    sites = options.pop("sites", [Site(1, "res"), Site(0, "mlp")])
    given = {"shape": SHAPE, "context": CONTEXT, "batch": 4, "progress": False, **options}
    return build(model, suite, texts, sites, path=path, **given)


@pytest.fixture(scope="session")
def made(model: Model, suite: Any, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index of the small corpus at one site of each kind."""
    sites = [Site(0, "embed"), *(Site(1, k) for k in ("att", "transcoder", "mlp", "res"))]
    return indexed(model, suite, tmp_path_factory.mktemp("index") / "i.duckdb", sites=sites)
