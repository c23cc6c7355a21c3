"""Which of pocket's true concepts the features of an SAE have found.

Pocket's text generator says of every token what it belongs to, so an SAE can be marked like an
exam, as no SAE of any other model can. A concept of single tokens (``weekday``) counts as found
where one feature predicts it with an F1 of 0.7, one of stretches (``language:de``) where the mean
activation over 16 tokens separates it with an AUROC of 0.95: the limits by which the shipped
features got their labels. Feature and threshold are chosen on one half of the text and marked on
the other; see `workbench.pocket.scoring`.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor

from workbench.engine.binding import common_site
from workbench.engine.tracing import read
from workbench.models import Model
from workbench.pocket.corpus.concepts import CONCEPTS, LOCAL, PERSISTENT
from workbench.pocket.evaluate import SEED, SUPPORT, Text
from workbench.pocket.scoring import Halves, Search, score_local, score_persistent, windows
from workbench.sae import SAE
from workbench.sites import Site

LIMITS = {"token": 0.7, "stretch": 0.95}
"""F1 of a concept of tokens, AUROC of one of stretches, from which it counts as found."""
BLOCK = 16
"""Rows that are read at once."""
TOKENS, FEATURES = 2048, 128
"""That are encoded at once, and that are marked at once."""


def concepts_found(
    model: Model, saes: Mapping[str, SAE], *, rows: int = 120, seed: int = SEED
) -> pd.DataFrame:
    """The score of the best feature of each SAE for each concept, on held-out text.

    Args:
        model: Pocket.
        saes: SAEs of one site, by name.
        rows: Rows of 256 tokens; with few of them, rare concepts cannot be marked.
        seed: Of the text.

    Returns:
        A row for each concept that is frequent enough, with columns ``of`` (``"token"`` or
        ``"stretch"``), ``support``, ``limit`` and the score of each SAE under its name.

    Raises:
        ValueError: If the SAEs are not of one site.
    """
    site = common_site(saes.values(), model.module)
    text = Text.of(model.tokenizer, rows, seed)
    x = _activations(model, text, site)
    marked = {name: _marked(sae, text, x, site) for name, sae in saes.items()}
    found = next(iter(marked.values())).best
    table = []
    for concept in CONCEPTS:
        if concept not in found or found[concept].support < SUPPORT:
            continue
        of = "stretch" if concept in PERSISTENT else "token"
        scores = {name: search.best[concept].score for name, search in marked.items()}
        row = {"of": of, "support": found[concept].support, "limit": LIMITS[of]}
        table.append({"concept": concept, **row, **scores})
    columns = ["concept", "of", "support", "limit", *saes]
    return pd.DataFrame(table, columns=columns).set_index("concept")


def _activations(model: Model, text: Text, site: Site) -> Tensor:
    """Activations ``(token, d_in)`` of the positions that are scored."""
    parts = []
    for start in range(0, len(text.keep), BLOCK):
        ids = torch.from_numpy(text.rows.ids[start : start + BLOCK].astype("int64"))
        keep = torch.from_numpy(text.keep[start : start + BLOCK])
        read(model, ids, [site], lambda _, x, keep=keep: parts.append(x[keep.to(x.device)].cpu()))
    return torch.cat(parts).float()


def _marked(sae: SAE, text: Text, x: Tensor, site: Site) -> Search:
    """The best feature for each concept; some tokens or features at a time, to spare memory."""
    f = torch.empty(len(x), sae.config.d_sae)
    with torch.inference_mode():
        for start in range(0, len(x), TOKENS):
            f[start : start + TOKENS] = sae.encode(x[start : start + TOKENS].to(sae.W_enc.device))
    search, halves = Search({}), Halves.of(text.rows, text.keep)
    local = text.labels[:, [CONCEPTS.index(concept) for concept in LOCAL]]
    for some in f.split(FEATURES, dim=1):
        score_local(search, site, some, local, halves)
    means, held, admitted, owner = windows(f, text.rows, text.keep, PERSISTENT)
    score_persistent(search, site, means, held, admitted, owner % 2 == 0, PERSISTENT)
    return search
