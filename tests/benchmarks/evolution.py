"""Evolution against the truth, and how fast: ``python -m tests.benchmarks.evolution``.

Parts (``--only``): ``speed`` of kinship on pocket and of a block at the shape of Gemma 2 2B's SAEs;
``false`` rate of kin between decoders that have nothing to do with one another; ``births`` from
weights by layer, beside the exact shares of the parts of a layer; ``probes``: the layer in which a
linear probe first finds a concept, against the layer in which its feature is born. Seconds are of
wall clock and, behind the slash, of the processor, which a busy machine does not stretch.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from workbench.analysis.births import ancestry, births
from workbench.analysis.evolution import evolve, relatives
from workbench.analysis.kinship import DRAWS, Kinship
from workbench.analysis.passages import passages
from workbench.analysis.shares import PARTS, shares
from workbench.engine.binding import FeatureSource
from workbench.lab import Lab
from workbench.lab import open as open_lab
from workbench.pocket.corpus.concepts import CONCEPTS
from workbench.pocket.evaluate import Text
from workbench.pocket.scoring import f1_table
from workbench.sae import SAE, SAEConfig
from workbench.sae.suite import Suite
from workbench.sites import Kind, Site

SEED, ROWS, TOKENS = 93, 160, 12_288
"""Of the labelled text, and of the index's text that shares are read from."""
SUPPORT, GOOD = 25, 0.5
"""Tokens that a concept has in each half, and the F1 that its feature reaches."""
WIDTH, D_MODEL, LAYERS = 16_384, 2304, 26
Line = tuple[str, str]


def correlated(one: object, other: object) -> float:
    """Spearman's rho."""
    return float(np.asarray(spearmanr(one, other))[0])


def timed(work: Callable[[], object]) -> str:
    """Seconds that some work takes."""
    wall, own = time.perf_counter(), time.process_time()
    work()
    return f"{time.perf_counter() - wall:.2f} / {time.process_time() - own:.2f} s"


# Speed.


def speed(lab: Lab) -> Iterator[Line]:
    """Kinship on pocket, then a block at the shape of 2B."""
    module, suite = lab.engine.module, lab.suite
    site, index = Site(4), 286
    relatives(module, suite, site, index)  # opens the SAEs
    yield (
        "pocket: one feature, nearest at 24 sites with nulls",
        timed(lambda: relatives(module, suite, site, index)),
    )
    yield (
        "pocket: one feature, whole lineage (target 2 s)",
        timed(lambda: evolve(module, suite, site, index)),
    )
    yield "pocket: births of all 8,192 residual features", timed(lambda: every_birth(lab))
    yield (
        "pocket: all 276 pairs of sites, both ways, all features",
        timed(lambda: every_pair(module, suite)),
    )
    yield from at_2b()


def every_birth(lab: Lab) -> list[list[str]]:
    kinship = Kinship(lab.engine.module, lab.suite)
    return [list(births(kinship, layer, lab.suite.sites).births) for layer in range(8)]


def every_pair(module: object, suite: Suite) -> None:
    kinship = Kinship(module, suite)
    for number, one in enumerate(suite.sites):
        for other in suite.sites[number + 1 :]:
            kinship.both_ways(one, other)


def at_2b() -> Iterator[Line]:
    """One pair of sites of 16,384 features, an eighth of it measured."""
    suite = Suite(None, model="2b")
    for site in (Site(0), Site(1)):
        rows = torch.randn(WIDTH, D_MODEL, generator=torch.Generator().manual_seed(site.layer))
        config = SAEConfig("", site.layer, "res", WIDTH, None, "", D_MODEL, D_MODEL, WIDTH)
        none = torch.zeros(1)
        sae = SAE(rows.T, none.expand(WIDTH), rows, none.expand(D_MODEL), None, "relu", config)
        suite.use(sae, site)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kinship, part = Kinship(None, suite), WIDTH // 8
    own = time.process_time()
    kinship.null(Site(0), Site(1))
    null = time.process_time() - own
    own = time.process_time()
    kinship.matches(Site(0), Site(1), range(part))
    block = time.process_time() - own
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    pair = 8 * block + null
    yield f"2B: null of a pair ({DRAWS} draws), processor time", f"{null:.1f} s"
    yield f"2B: block of {part} x {WIDTH}, processor time", f"{block:.1f} s"
    yield "2B: one feature over 26 x 3 sites, from that", f"{78 * null:.0f} s"
    needed = LAYERS * 3 + LAYERS - 1
    yield f"2B: births, splits, merges of all ({needed} pairs)", f"{needed * pair / 60:.0f} min"
    yield "2B: all 3,003 pairs of sites", f"{3003 * (8 * block + 2 * null) / 3600:.1f} h"
    yield "2B: peak memory beyond the two SAEs", f"{peak:.2f} GB"
    yield "2B: the two decoders alone are", f"{2 * WIDTH * D_MODEL * 4 / 1e9:.2f} GB"


# False positives.


@dataclass
class Strangers:
    """A suite in which the decoders of some layers have nothing to do with the others'."""

    suite: Suite
    how: str

    def sae_at(self, site: Site) -> SAE:
        """The SAE, with a strange decoder in every odd layer."""
        sae = self.suite.sae_at(site)
        if site.layer % 2 == 0:
            return sae
        random = torch.Generator().manual_seed(site.layer)
        rows = sae.W_dec.float()
        width = rows.shape[1]
        if self.how == "rotated":
            rows = rows @ torch.linalg.qr(torch.randn(width, width, generator=random)).Q
        else:  # each row's entries in an order of its own
            rows = rows.gather(1, torch.rand(rows.shape, generator=random).argsort(1))
        return replace(sae, W_dec=rows)


def false_rate(lab: Lab) -> Iterator[Line]:
    """Share of features that pass for kin where there are none, and where there are some."""
    kinds: tuple[Kind, ...] = ("res", "mlp", "att")
    pairs = [
        (Site(layer), Site(other, kind))
        for layer in range(0, 8, 2)
        for other in range(1, 8, 2)
        for kind in kinds
    ]
    for how in ("rotated", "shuffled"):
        source: FeatureSource = Strangers(lab.suite, how)  # pyright: ignore
        kinship = Kinship(lab.engine.module, source)
        rates = [
            float(kinship.matches(*ends).counts.float().mean())
            for one, other in pairs
            for ends in ((one, other), (other, one))
        ]
        most = max(rates)
        yield f"kin between {how} decoders, level 1 %", f"{np.mean(rates):.2%}, most {most:.2%}"
    kinship = Kinship(lab.engine.module, lab.suite)
    rates = [float(kinship.matches(*pair).counts.float().mean()) for pair in pairs]
    yield "kin between the real ones", f"{np.mean(rates):.2%}"


# Births.


def birth_tables(lab: Lab) -> Iterator[Line]:
    """Births from weights by layer, and how they agree with the exact shares."""
    kinship, suite = Kinship(lab.engine.module, lab.suite), lab.suite
    rows = passages(lab.engine, lab.feature_index, TOKENS)
    exact = shares(lab.engine, suite, range(8), rows)
    names = {"carried": "below", "attention": "attention", "mlp": "mlp"}
    for layer in range(8):
        found, one = births(kinship, layer, suite.sites), exact[layer]
        count = pd.Series(found.births).value_counts(normalize=True)
        said = ", ".join(
            f"{name} {count.get(name, 0):.2f}" for name in ("carried", "mlp", "attention", "new")
        )
        yield f"layer {layer}: births by weights", said
        seen = one.fires >= 20
        median = one.fractions[:, seen].median(1).values
        yield (
            f"layer {layer}: median exact fraction",
            ", ".join(f"{part} {value:.2f}" for part, value in zip(PARTS, median, strict=True)),
        )
        best = [PARTS[i] for i in one.contrasts.argmax(0).tolist()]
        told = [i for i in seen.nonzero()[:, 0].tolist() if found.births[i] != "new"]
        same = np.mean([names[found.births[i]] == best[i] for i in told])
        shuffled = np.random.default_rng(0).permutation(told)
        chance = np.mean(
            [names[found.births[i]] == best[j] for i, j in zip(told, shuffled, strict=True)]
        )
        yield (
            f"layer {layer}: largest share where it says ({len(told)})",
            f"{same:.2f} agree, {chance:.2f} shuffled",
        )
        said = []
        for name, match in found.sources.items():
            fraction = one.fractions[PARTS.index(names[name])][seen]
            rho = correlated(match.cosines[seen], fraction)
            kin = match.counts[seen]
            said.append(
                f"{name} rho {rho:.2f}, {fraction[kin].median():.2f} if kin, "
                f"{fraction[~kin].median():.2f} if not"
            )
        yield f"layer {layer}: cosine against its fraction", "; ".join(said)


# Probes.


def average_precision(truth: Tensor, score: Tensor) -> Tensor:
    """Of each column ``(concept,)``: mean precision at the true ones, by falling score."""
    order = score.argsort(0, descending=True)
    hits = truth.gather(0, order).double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)[:, None]
    return (precision * hits).sum(0) / hits.sum(0).clamp(min=1)


def probed(x: Tensor, truth: Tensor, first: Tensor) -> Tensor:
    """Held-out average precision of a linear probe of each concept ``(concept,)``.

    Least squares on half of the rows, with a ridge: Fisher's discriminant.
    """
    x = x.double()
    x = (x - x[first].mean(0)) / x[first].std(0).clamp(min=1e-6)
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    own = x[first]
    gram = own.T @ own + 10 * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, own.T @ truth[first].double())
    return average_precision(truth[~first], x[~first] @ weights)


def probes(lab: Lab) -> Iterator[Line]:
    """Rank correlation of the layer a probe finds a concept in and the layer it is born in."""
    text = Text.of(lab.tokenizer, ROWS, SEED)
    read = text.read(lab.engine, [Site(layer) for layer in range(8)])
    rows = np.broadcast_to(np.arange(ROWS)[:, None], text.keep.shape)[text.keep]
    first, labels = torch.from_numpy(rows % 2 == 0), text.labels
    often = torch.minimum(labels[first].sum(0), labels[~first].sum(0)) >= SUPPORT
    table = torch.stack([probed(read[Site(layer)], labels, first) for layer in range(8)])
    features = [lab.suite.sae_at(Site(layer)).encode(read[Site(layer)]) for layer in range(8)]
    scores = torch.stack([f1_table(f[first] > 0, labels[first]) for f in features])
    standardised = [_standardised(f) for f in features]
    kinship = Kinship(lab.engine.module, lab.suite)
    found = []
    for column in often.nonzero()[:, 0].tolist():
        layer, index = divmod(int(scores[:, :, column].argmax()), scores.shape[1])
        chain = ancestry(kinship, Site(layer), index, lab.suite.sites)
        own = standardised[layer][:, index]
        near = [float((own @ z).max()) for z in standardised[: layer + 1]]
        curve = table[:, column]
        row = {
            "concept": CONCEPTS[column],
            "f1": float(scores[layer, index, column]),
            "layer": layer,
            "weights": chain[-1][0].layer,
            "correlation": next(i for i, r in enumerate(near) if r >= 0.5),
            "gain": float(curve.max() - curve[0]),
        }
        for share in (0.9, 0.95, 0.99):
            row[f"probe {share}"] = int((curve >= share * curve.max()).nonzero()[0])
        found.append(row)
    frame: Any = pd.DataFrame(found)
    labelled = {one.label for one in lab.suite.find("") if one.site.kind == "res"}
    yield from ranked(frame[frame["concept"].isin(labelled)], "labelled concepts")
    yield from ranked(frame[frame["f1"] >= GOOD], f"concepts with a feature of F1 {GOOD}")
    late = frame[(frame["gain"] >= 0.05) & (frame["f1"] >= 0.3)]
    yield from ranked(late, "concepts that layer 0 lacks (AP grows by 0.05)")
    sys.stdout.write(frame.round(2).to_string(index=False) + "\n")


def _standardised(f: Tensor) -> Tensor:
    f = f - f.mean(0)
    return f / f.norm(dim=0).clamp(min=1e-9)


def ranked(frame: Any, what: str) -> Iterator[Line]:
    """Spearman's rho of each birth with each probe, and what shuffled concepts reach."""
    random = np.random.default_rng(0)
    for probe in ("probe 0.9", "probe 0.95", "probe 0.99"):
        truth = frame[probe].to_numpy()
        zero = float((truth == 0).mean())
        said = []
        for birth in ("layer", "weights", "correlation"):
            born = frame[birth].to_numpy()
            if len(set(truth)) < 2 or len(set(born)) < 2:
                said.append(f"{birth} constant")
                continue
            rho = correlated(truth, born)
            chance = [correlated(random.permutation(truth), born) for _ in range(500)]
            said.append(
                f"{birth} {rho:.2f} (95 % of shuffles below {np.quantile(chance, 0.95):.2f})"
            )
        yield f"{what} ({len(frame)}), {probe}, {zero:.0%} at layer 0", "; ".join(said)


PARTS_OF_IT = {
    "speed": speed,
    "false": false_rate,
    "births": birth_tables,
    "probes": probes,
}


def main() -> None:
    """Print a line as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS_OF_IT, action="append")
    chosen = parser.parse_args().only or list(PARTS_OF_IT)
    lab = open_lab()
    sys.stdout.write(f"{lab}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    for name in chosen:
        for what, measured in PARTS_OF_IT[name](lab):
            sys.stdout.write(f"{what:72} {measured}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
