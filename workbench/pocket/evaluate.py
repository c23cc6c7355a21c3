"""Evaluate what is shipped, on documents never trained on, and print it as tables.

1. Language: loss against the generator's entropy.
2. SAEs: L0, FVU, loss recovered, dead features.
3. Concepts: the best feature of each, beside shuffled labels and sparse probes.
4. Steering: the best feature, the mean difference and a random direction for each persistent
   concept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.engine.edits import Patch
from workbench.engine.tracing import trace
from workbench.models import Model
from workbench.pocket import steering_score
from workbench.pocket.corpus.concepts import CONCEPTS, LOCAL, PERSISTENT
from workbench.pocket.dataset import EOS, LabelledRows, labelled_rows
from workbench.pocket.scoring import (
    Found,
    Halves,
    Search,
    probe,
    score_local,
    score_persistent,
    windows,
)
from workbench.pocket.suite_training import activations
from workbench.sae.metrics import fvu
from workbench.sae.suite import Suite
from workbench.sites import Site
from workbench.tokens import tokens_of

SEED, STEERING_SEED = 4, 6
ROWS = 480
"""Held-out rows; every concept needs support in both halves of them."""
BLOCK = 32
SUPPORT = 30
"""Concepts with fewer tokens or windows on the reporting half are listed but not counted."""


@dataclass(frozen=True)
class Text:
    """Held-out rows and the activations that they give."""

    rows: LabelledRows
    keep: np.ndarray
    """``(row, pos)`` positions that are scored."""

    @classmethod
    def of(cls, tokenizer: Any, count: int, seed: int = SEED) -> Text:
        """`count` held-out rows."""
        rows = labelled_rows(tokenizer, seed, count, CONCEPTS)
        keep = rows.ids != EOS
        keep[:, 0] = False
        return cls(rows, keep)

    def read(self, model: Model, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """Activations ``(token, d_in)`` of the kept positions."""
        parts = [
            activations(model, self.rows.ids[i : i + BLOCK], sites)
            for i in range(0, len(self.rows.ids), BLOCK)
        ]
        return {site: torch.cat([part[site] for part in parts]) for site in sites}

    @property
    def labels(self) -> Tensor:
        """``(token, concept)`` bool of the kept positions."""
        return torch.from_numpy(self.rows.labels[self.keep])


def language(model: Model, text: Text) -> pd.DataFrame:
    """Next-token loss and the generator's entropy in nats, overall and by kind of document."""
    losses = []
    for start in range(0, len(text.rows.ids), BLOCK):
        ids = text.rows.ids[start : start + BLOCK].astype(np.int64)
        logits = trace(model, [tokens_of(model.tokenizer, row) for row in ids.tolist()]).logits
        logprobs = logits[:, :-1].log_softmax(-1)
        losses.append(-logprobs.gather(2, torch.from_numpy(ids)[:, 1:, None])[..., 0].numpy())
    keep = text.keep[:, 1:]
    frame = pd.DataFrame(
        {
            "kind": text.rows.kinds[:, 1:][keep],
            "loss": np.concatenate(losses)[keep],
            "entropy": text.rows.nats[:, 1:][keep],
        }
    )
    table = frame.groupby("kind").agg(
        tokens=("loss", "size"), loss=("loss", "mean"), entropy=("entropy", "mean")
    )
    table.loc["all"] = [len(frame), frame["loss"].mean(), frame["entropy"].mean()]
    return table.reset_index()


def spliced_losses(model: Model, suite: Suite, text: Text, rows: int) -> pd.DataFrame:
    """Mean loss over some rows with one site at a time replaced, ``<bos>`` left alone.

    Returns:
        A row for each site, with columns ``loss`` (nothing replaced), ``spliced`` (the SAE's
        reconstruction) and ``zero``.
    """
    sites = [site for site in suite.sites if site.kind != "transcoder"]
    totals = pd.DataFrame(0.0, index=sites, columns=["loss", "spliced", "zero"])
    size = 0
    for row in tqdm(text.rows.ids[:rows].astype(np.int64).tolist(), desc="loss recovered"):
        tokens = tokens_of(model.tokenizer, row)
        read = trace(model, [tokens], sites)
        size += int((torch.tensor(row)[1:] != EOS).sum())
        totals["loss"] += _loss(read.logits[0], row)
        for site in sites:
            x = read.activations[site][0]
            for name, put in (
                ("spliced", suite.sae_at(site).reconstruct(x)),
                ("zero", torch.zeros_like(x)),
            ):
                logits = trace(model, [tokens], edits=[Patch(site, put)]).logits[0]
                totals.loc[site, name] += _loss(logits, row)
    return totals / size


def _loss(logits: Tensor, row: list[int]) -> float:
    """Summed loss over the tokens of a row that are scored."""
    ids = torch.tensor(row)[1:]
    losses = -logits[:-1].log_softmax(-1).gather(1, ids[:, None])[:, 0]
    return float(losses[ids != EOS].sum())


def quality(
    model: Model, suite: Suite, text: Text, read: dict[Site, Tensor], *, rows: int = 12
) -> pd.DataFrame:
    """L0, FVU, loss recovered and dead features of each SAE.

    Loss recovered is ``(loss with zero - loss with the SAE) / (loss with zero - loss)``: 1 if
    splicing the reconstruction in costs nothing, 0 if it is as bad as removing the activation.
    """
    losses = spliced_losses(model, suite, text, rows)
    table = []
    for site in tqdm(suite.sites, desc="SAE quality"):
        sae = suite.sae_at(site)
        f = sae.encode(read[site])
        row = {
            "layer": site.layer,
            "kind": site.kind,
            "l0": float((f > 0).float().sum(-1).mean()),
            "fvu": fvu(read[site.writes_at], sae.decode(f)),
            "dead": float((~(f > 0).any(0)).float().mean()),
        }
        if site in losses.index:
            clean, spliced, zero = losses.loc[site]
            row |= {
                "loss": clean,
                "spliced": spliced,
                "recovered": (zero - spliced) / (zero - clean),
            }
        table.append(row)
    return pd.DataFrame(table)


@dataclass(frozen=True)
class Concepts:
    """The outcome of the search for concepts."""

    table: pd.DataFrame
    """A row for each concept."""
    best: dict[str, list[Found]]
    """The best feature of each persistent concept at each residual site, best first."""
    labels: dict[str, dict[str, dict[str, Any]]]
    """``{"res/3": {"231": {"label": "language:de", "score": 0.99}}}``: features that a concept
    describes well."""


def concepts(suite: Suite, text: Text, read: dict[Site, Tensor]) -> Concepts:
    """Search every SAE for the feature of every concept; `read` is what `Text.read` gave."""
    labels, halves = text.labels, Halves.of(text.rows, text.keep)
    local_labels = labels[:, [CONCEPTS.index(c) for c in LOCAL]]
    random = torch.Generator().manual_seed(0)
    shuffled_labels = local_labels[torch.randperm(len(labels), generator=random)]
    found, chance = Search({}), Search({})
    by_site: dict[str, list[Found]] = {c: [] for c in PERSISTENT}
    names: dict[str, dict[int, tuple[float, str]]] = {}
    for site in tqdm(suite.sites, desc="concepts"):
        f = suite.sae_at(site).encode(read[site])
        here = Search({})
        score_local(here, site, f, local_labels, halves)
        score_local(chance, site, f, shuffled_labels, halves)
        means, held, admitted, owner = windows(f, text.rows, text.keep, PERSISTENT)
        first = owner % 2 == 0
        score_persistent(here, site, means, held, admitted, first, PERSISTENT)
        order = np.random.default_rng(0).permutation(len(means))
        score_persistent(chance, site, means[order], held, admitted, first, PERSISTENT)
        for concept, one in here.best.items():
            found.offer(one)
            if concept in by_site and site.kind == "res":
                by_site[concept].append(one)
        _name(names, site, here)
    probes = _probes(suite, text, read, found.best)
    rows = [_row(one, chance.best[c], probes.get(c, {})) for c, one in found.best.items()]
    ranked = {c: sorted(ones, key=lambda one: -one.chosen) for c, ones in by_site.items()}
    table = pd.DataFrame(rows).sort_values(["persistent", "score"], ascending=False)
    plain = {
        site: {
            str(i): {"label": text, "score": round(score, 3)}
            for i, (score, text) in sorted(own.items())
        }
        for site, own in names.items()
    }
    return Concepts(table.reset_index(drop=True), ranked, plain)


def _name(names: dict, site: Site, here: Search) -> None:
    """Give features of `site` the name of a concept that they stand for."""
    own = names.setdefault(f"{site.kind}/{site.layer}", {})
    for concept, one in here.best.items():
        good = one.score >= (0.95 if concept in PERSISTENT else 0.7) and one.support >= SUPPORT
        if good and one.score > own.get(one.index, (0.0, ""))[0]:
            own[one.index] = (one.score, concept)


def _probes(
    suite: Suite, text: Text, read: dict[Site, Tensor], best: dict[str, Found]
) -> dict[str, dict[int, float]]:
    """Sparse probes of each concept with 1 and 5 features, at the site of its best feature."""
    from sklearn.metrics import f1_score, roc_auc_score

    def f1(truth: np.ndarray, probability: np.ndarray) -> float:
        return float(f1_score(truth, probability > 0.5))

    labels, halves = text.labels, Halves.of(text.rows, text.keep)
    # A sample is enough for a control and keeps the whole search within minutes.
    sample = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))[:8_000]
    out: dict[str, dict[int, float]] = {}
    for site in sorted({one.site for one in best.values()}):
        f = suite.sae_at(site).encode(read[site])
        means, held, admitted, owner = windows(f, text.rows, text.keep, PERSISTENT)
        for concept in (c for c, one in best.items() if one.site == site):
            if concept in PERSISTENT:
                column = PERSISTENT.index(concept)
                rows = admitted[:, column]
                x, truth, half = means[rows], held[rows, column], (owner % 2 == 0)[rows]
            else:
                x = f[sample].numpy()
                truth = labels[sample, CONCEPTS.index(concept)].numpy()
                half = halves.first[sample].numpy()
            sides = (truth[half], ~truth[half], truth[~half], ~truth[~half])
            if min(side.sum() for side in sides) >= 5:
                measure = roc_auc_score if concept in PERSISTENT else f1
                out[concept] = {k: probe(x, truth, half, k, measure) for k in (1, 5)}
    return out


def _row(one: Found, chance: Found, probes: dict[int, float]) -> dict[str, Any]:
    return {
        "concept": one.concept,
        "persistent": one.concept in PERSISTENT,
        "site": str(one.site),
        "feature": one.index,
        "score": one.score,
        "shuffled": chance.score,
        "probe_1": probes.get(1, float("nan")),
        "probe_5": probes.get(5, float("nan")),
        "support": one.support,
    }


def steering(
    model: Model,
    suite: Suite,
    text: Text,
    read: dict[Site, Tensor],
    found: Concepts,
    *,
    prompts: int = 12,
) -> pd.DataFrame:
    """The best feature of each persistent concept, and its rivals."""
    labels = text.labels
    table = []
    for concept in tqdm(steering_score.scorable(), desc="steering"):
        beginnings = steering_score.prompts_without(model, concept, 2 * prompts, STEERING_SEED)
        choosing = steering_score.Bench.of(model, concept, beginnings[:prompts])
        trying = steering_score.Bench.of(model, concept, beginnings[prompts:])
        features = [one for one in found.best[concept] if 1 <= one.site.layer <= 6][:3]
        candidates = [
            (
                one.site,
                suite.sae_at(one.site).direction(one.index),
                suite.typical_maximum(one.site, one.index),
            )
            for one in features
        ]
        feature = steering_score.choose(choosing, candidates)
        factor = concept.split(":")[0]
        columns = [i for i, c in enumerate(CONCEPTS) if c.startswith(f"{factor}:")]
        site = feature.site
        vector = steering_score.mean_difference(
            read[site], labels, CONCEPTS.index(concept), columns
        )
        rival = steering_score.choose(choosing, [(site, vector, 1.0)], (1.0, 2.0, 3.5))
        noise = torch.randn(len(vector), generator=torch.Generator().manual_seed(0))
        noise *= feature.direction.norm() / noise.norm()
        index = next(
            one.index
            for one, c in zip(features, candidates, strict=True)
            if c[1] is feature.direction and one.site == site
        )
        row = {
            "concept": concept,
            "layer": site.layer,
            "feature": index,
            "strength": feature.strength,
            "unsteered": trying.base.share,
        }
        for name, outcome in (
            ("feature", trying.try_out(site, feature.direction, feature.size)),
            ("vector", trying.try_out(site, rival.direction, rival.size)),
            ("random", trying.try_out(site, noise, feature.size)),
        ):
            row |= {
                f"{name}_share": outcome.share,
                f"{name}_price": outcome.price,
                f"{name}_works": steering_score.succeeds(outcome, trying.base),
            }
        table.append(row)
    return pd.DataFrame(table)


def steering_winners(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The features that passed where a random direction did not; see `Suite.steering`."""
    return {
        row["concept"]: {
            "layer": int(row["layer"]),
            "feature": int(row["feature"]),
            "strength": float(row["strength"]),
            "share": round(float(row["feature_share"]), 3),
        }
        for row in table.to_dict("records")
        if row["feature_works"] and not row["random_works"]
    }


@dataclass(frozen=True)
class Evaluation:
    """All tables, and the labels that the search gave."""

    tables: dict[str, pd.DataFrame]
    """``language``, ``saes``, ``concepts`` and ``steering``."""
    labels: dict[str, dict[str, dict[str, Any]]]
    """See `Concepts.labels`."""


def everything(model: Model, suite: Suite, rows: int) -> Evaluation:
    """Run every evaluation on `rows` held-out rows."""
    text = Text.of(model.tokenizer, rows)
    read = text.read(model, suite.sites)
    found = concepts(suite, text, read)
    tables = {
        "language": language(model, text),
        "saes": quality(model, suite, text, read),
        "concepts": found.table,
        "steering": steering(model, suite, text, read, found),
    }
    return Evaluation(tables, found.labels)


def summary(
    language_table: pd.DataFrame,
    sae_table: pd.DataFrame,
    concept_table: pd.DataFrame,
    steering_table: Any,
) -> dict[str, float]:
    """The few numbers that the README quotes."""
    counted: Any = concept_table[concept_table["support"] >= SUPPORT]
    local = counted[~counted["persistent"]]
    persistent = counted[counted["persistent"]]
    total: Any = language_table.iloc[-1]
    own: Any = sae_table[sae_table["kind"] != "transcoder"]
    return {
        "loss": float(total["loss"]),
        "entropy": float(total["entropy"]),
        "l0_lowest": float(own["l0"].min()),
        "l0_highest": float(own["l0"].max()),
        "fvu_highest": float(own["fvu"].max()),
        "recovered_lowest": float(own["recovered"].min()),
        "dead_highest": float(own["dead"].max()),
        "local_concepts": float(len(local)),
        "local_f1_0.7": float((local["score"] >= 0.7).mean()),
        "persistent_concepts": float(len(persistent)),
        "persistent_auroc_0.95": float((persistent["score"] >= 0.95).mean()),
        "steering_concepts": float(len(steering_table)),
        "steering_feature_works": float(
            (steering_table["feature_works"] & ~steering_table["random_works"]).sum()
        ),
        "steering_vector_works": float(steering_table["vector_works"].sum()),
        "steering_random_works": float(steering_table["random_works"].sum()),
    }
