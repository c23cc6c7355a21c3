"""``python -m tests.benchmarks.steering``: does what we find to steer by steer, and at what price?

On pocket, where the truth is known, in four tables:

1. Recall: for each concept that labels a residual feature, whether `lab.contrast` of texts with and
   without it lists a feature with that label among its first five.
2. Steering: for each concept whose words can be counted, the best feature, the difference of means,
   a random direction of the feature's norm, and an example of the concept put before the prompt.
   What to use and how strongly is chosen on some prompts (the highest share of the concept's words
   among those of its factor with at least `FLUENT` of the texts fluent) and scored on others.
3. Band: whether the texts stay fluent inside the band that `lab.calibrate` suggests for the
   feature, on prompts and a seed that it has not seen.
4. Autosteer: the gain of its proposal on unseen examples beside its controls.

``--out FOLDER`` writes the tables as CSV and all of it as Markdown; ``--concepts 4`` stops early.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.fluency import Fluency, fluency
from workbench.engine.directions import Directions, random_direction
from workbench.engine.edits import Steer
from workbench.engine.tracing import Generation, generate
from workbench.lab import Lab
from workbench.lab import open as open_lab
from workbench.pocket.corpus import documents
from workbench.pocket.corpus.concepts import CONCEPTS, PERSISTENT
from workbench.pocket.corpus.markers import share
from workbench.pocket.dataset import encode
from workbench.pocket.steering_score import prompts_without, scorable
from workbench.sites import Site
from workbench.tokens import Tokens, tokens_of

TEXTS, TEXT_TOKENS, TEXT_SEED = 32, 40, 810
"""Texts a side, for contrast and autosteer."""
CHOOSING, SCORING = 6, 12
CHOOSING_SEED, SCORING_SEED, BAND_SEED = 811, 812, 813
"""Prompts and their documents; also the seeds of the sampling."""
NEW, FLUENT = 40, 0.8
"""New tokens, and the share of texts that have to be fluent."""
LAYERS = range(1, 7)
FEATURES, FEATURE_STRENGTHS = 3, (0.5, 0.75, 1.25, 2.0)
VECTOR_LAYERS, VECTOR_STRENGTHS = (1, 3, 5), (0.5, 1.0, 2.0, 3.0)
EXAMPLES = (16, 48, 96)
"""Tokens of the example that is put before the prompt."""
DRAWS = 2
"""Random directions."""
WINDOW, WINDOWS_OF = 16, 1200
"""Tokens of a text of the recall table, and documents that they are cut from."""


@dataclass(frozen=True, eq=False)
class Way:
    """One way to bring a concept in."""

    name: str
    where: str
    strength: float
    site: Site | None = None
    vector: Tensor | None = None
    """What is added; None for an example before the prompt."""


@dataclass(frozen=True)
class Score:
    """What a way did on some prompts."""

    share: float
    fluent: float
    excess: float
    repetition: float

    @classmethod
    def of(cls, texts: Sequence[str], found: Sequence[Fluency], concept: str) -> Score:
        """Means over texts; the share is that of all their words together."""
        counts = [share(text, concept) for text in texts]
        own, total = (sum(column) for column in zip(*counts, strict=True))

        def mean(values: Sequence[float]) -> float:
            return sum(values) / len(values)

        return cls(
            own / max(total, 1),
            mean([one.verdict == "fluent" for one in found]),
            mean([one.excess for one in found]),
            mean([one.repetition for one in found]),
        )


def sides(lab: Lab, concept: str, seed: int) -> tuple[list[Tokens], list[Tokens]]:
    """Beginnings of stories with the concept, and with another value of its factor, throughout."""
    factor = concept.split(":")[0]
    found: tuple[list[Tokens], list[Tokens]] = ([], [])
    for document in documents(seed, ("story",)):
        ids, names, _ = encode(lab.tokenizer, document)
        values = {n for own in names[:TEXT_TOKENS] for n in own if n.startswith(f"{factor}:")}
        side = found[0 if concept in values else 1]
        if len(values) == 1 and len(side) < TEXTS and len(ids) >= TEXT_TOKENS:
            side.append(lab.tokens(ids[:TEXT_TOKENS]))
        if min(map(len, found)) == TEXTS:
            break
    return found


def recall(lab: Lab, count: int | None) -> pd.DataFrame:
    """The rank of the first feature with the concept's label, by concept."""
    labels = {one.label for one in lab.suite.find("") if one.site.kind == "res"}
    windows = []
    for document in islice(documents(TEXT_SEED), WINDOWS_OF):
        ids, names, _ = encode(lab.tokenizer, document)
        for start in range(0, len(ids) - WINDOW + 1, WINDOW):
            part = slice(start, start + WINDOW)
            windows.append((document.kind, ids[part], names[part]))
    rows = []
    for concept in [c for c in CONCEPTS if c in labels][:count]:
        there, lacking = _windows(concept, windows)
        pool = "mean" if concept in PERSISTENT else "max"
        found = lab.contrast(there, lacking, pool=pool, progress=False).frame
        places = [
            place
            for place, (layer, feature) in enumerate(
                zip(found["layer"], found["feature"], strict=True), 1
            )
            if _named(lab, Site(layer), feature) == concept
        ]
        best = found.iloc[0]
        rows.append(
            {
                "concept": concept,
                "texts": len(there),
                "rank": places[0] if places else None,
                "held_out": best["held_out"],
                "control": best["control"],
            }
        )
    return pd.DataFrame(rows).astype({"rank": "Int64"})


def _named(lab: Lab, site: Site, index: int) -> str:
    """The label of a feature that stands for something; not that of one that only writes it."""
    label = lab.suite.label(site, index)
    return "" if label.startswith("writes ") else label


def _windows(
    concept: str, windows: Sequence[tuple[str, list[int], list[frozenset[str]]]]
) -> tuple[list[list[int]], list[list[int]]]:
    """Windows with the concept and without it; as far as there are any, of the same documents."""
    factor = concept.partition(":")[0] + ":"
    there, lacking = [], []
    for window in windows:
        names = window[2]
        if concept in PERSISTENT:
            if not all(any(n.startswith(factor) for n in own) for own in names):
                continue
            holds = [concept in own for own in names]
            if any(holds) and not all(holds):
                continue
        side = there if any(concept in own for own in names) else lacking
        side.append(window)
    draw = random.Random(0)
    draw.shuffle(there)
    draw.shuffle(lacking)
    there = there[:TEXTS]
    chosen = []
    for kind, _, _ in there:
        place = next((i for i, other in enumerate(lacking) if other[0] == kind), 0)
        chosen.append(lacking.pop(place))
    return [ids for _, ids, _ in there], [ids for _, ids, _ in chosen]


def write(
    lab: Lab,
    prompts: Sequence[Tokens],
    ways: Sequence[Way | None],
    examples: Sequence[Tokens],
    seed: int,
) -> list[list[Generation]]:
    """The texts of each way for all prompts, in one batch; None is the unsteered twin.

    Those of an example are given back as if the prompt had stood alone, as they are judged.
    """  # fmt: skip
    vectors: dict[Site, list[Tensor]] = {}
    starts: list[Tokens] = []
    each: list[list[Steer]] = []
    for way in ways:
        edits = []
        if way is not None and way.site is not None and way.vector is not None:
            own = vectors.setdefault(way.site, [])
            edits = [Steer((way.site.layer, len(own)), way.strength, kind=way.site.kind)]
            own.append(way.vector)
        for number, prompt in enumerate(prompts):
            start = prompt
            if way is not None and way.vector is None:
                example = examples[number % len(examples)].ids[: 1 + int(way.strength)]
                start = tokens_of(lab.tokenizer, [*example, *prompt.ids[1:]])
            starts.append(start)
            each.append(edits)
    found = generate(
        lab.engine,
        starts,
        each=each,
        source=Directions({site: torch.stack(own) for site, own in vectors.items()}),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        seed=seed,
    )
    plain = [
        replace(text, prompt=prompt, ids=(*prompt.ids, *text.tokens.ids))
        for text, prompt in zip(found, [*prompts] * len(ways), strict=True)
    ]
    return [plain[i : i + len(prompts)] for i in range(0, len(plain), len(prompts))]


def scores(
    lab: Lab,
    concept: str,
    prompts: Sequence[Tokens],
    ways: Sequence[Way],
    examples: Sequence[Tokens],
    seed: int,
) -> list[Score]:
    """The unsteered score, then that of each way."""
    steered = [way for way in ways if way.vector is not None]
    written = dict(
        zip(
            [None, *steered],
            write(lab, prompts, [None, *steered], examples, seed),
            strict=True,
        )
    )
    # Apart, so that the steered texts are not padded to the length of the examples.
    prompted = [way for way in ways if way.vector is None]
    if prompted:
        found = write(lab, prompts, prompted, examples, seed)
        written |= dict(zip(prompted, found, strict=True))
    texts = [written[way] for way in (None, *ways)]
    judged = fluency(lab.engine, [t for own in texts for t in own], twins=texts[0] * len(texts))
    return [
        Score.of([t.text for t in own], judged[i * len(own) : (i + 1) * len(own)], concept)
        for i, own in enumerate(texts)
    ]


def choose(ways: Sequence[Way], found: Sequence[Score], name: str) -> Way:
    """The highest share among the ways that stay fluent; the most fluent where none does."""
    own = [(way, score) for way, score in zip(ways, found, strict=True) if way.name == name]
    good = [pair for pair in own if pair[1].fluent >= FLUENT]
    if good:
        return max(good, key=lambda pair: pair[1].share)[0]
    return max(own, key=lambda pair: pair[1].fluent)[0]


def candidates(
    lab: Lab, concept: str, there: Sequence[Tokens], lacking: Sequence[Tokens]
) -> list[Way]:
    """Everything that is tried on the prompts for choosing."""
    found = lab.contrast(there, lacking, layers=LAYERS, k=FEATURES, progress=False)
    places: Any = found.frame[["layer", "feature"]]
    features = {(layer, feature) for layer, feature in places.to_numpy().tolist()}
    if concept in lab.suite.steering:
        features.add(lab.edit_for(concept).feature)
    ways = []
    for layer, index in sorted(features):
        site = Site(layer)
        vector = lab.suite.sae_at(site).direction(index) * lab.suite.typical_maximum(site, index)
        ways += [Way("feature", f"({layer}, {index})", s, site, vector) for s in FEATURE_STRENGTHS]
    for layer in VECTOR_LAYERS:
        vector = found.direction(layer).vector
        ways += [Way("vector", f"layer {layer}", s, Site(layer), vector) for s in VECTOR_STRENGTHS]
    return ways + [Way("prompt", "example", tokens) for tokens in EXAMPLES]


def steer(lab: Lab, concept: str) -> tuple[list[dict], tuple[int, int]]:
    """Rows of one concept, and the feature that was chosen."""
    there, lacking = sides(lab, concept, TEXT_SEED)
    # Longer than the texts of the contrast, and other ones.
    examples = _long_examples(lab, concept)
    ways = candidates(lab, concept, there, lacking)
    prompts = prompts_without(lab.engine, concept, CHOOSING, CHOOSING_SEED)
    tried = scores(lab, concept, prompts, ways, examples, CHOOSING_SEED)[1:]
    feature, vector, prompt = (choose(ways, tried, n) for n in ("feature", "vector", "prompt"))
    assert feature.site is not None
    assert feature.vector is not None
    norm = float(feature.vector.norm())
    noise = [
        replace(
            feature, name="random", vector=random_direction(feature.site, len(feature.vector), norm,
            seed).vector, where=f"layer {feature.site.layer}",
        )
        for seed in range(DRAWS)
    ]  # fmt: skip
    prompts = prompts_without(lab.engine, concept, SCORING, SCORING_SEED)
    final = [feature, vector, prompt, *noise]
    plain, *found = scores(lab, concept, prompts, final, examples, SCORING_SEED)
    mean = {k: float(v) for k, v in pd.DataFrame(map(vars, found[3:])).mean().items()}
    rows = [{"concept": concept, "way": "unsteered", **vars(plain)}]
    for way, score in zip(final[:3], found[:3], strict=True):
        rows.append(_row(concept, way, vars(score)))
    rows.insert(3, _row(concept, noise[0], mean))
    layer, index = feature.where.strip("()").split(",")
    return rows, (int(layer), int(index))


def _row(concept: str, way: Way, score: dict) -> dict:
    return {"concept": concept, "way": way.name, "where": way.where, "strength": way.strength,
            **score}  # fmt: skip


def _long_examples(lab: Lab, concept: str) -> list[Tokens]:
    found = []
    for document in documents(TEXT_SEED + 50, ("story",)):
        ids, names, _ = encode(lab.tokenizer, document)
        if len(ids) >= max(EXAMPLES) and all(concept in own for own in names[: max(EXAMPLES)]):
            found.append(lab.tokens(ids[: max(EXAMPLES)]))
        if len(found) == SCORING:
            break
    return found


def band(lab: Lab, concept: str, feature: tuple[int, int]) -> dict:
    """The share of fluent texts at the ends of the suggested band and half way to them."""
    low, high = lab.calibrate(feature, progress=False).band
    prompts = prompts_without(lab.engine, concept, SCORING, BAND_SEED)
    site = Site(feature[0])
    sae, size = lab.suite.sae_at(site), lab.suite.typical_maximum(site, feature[1])
    strengths = [s for s in dict.fromkeys((low, low / 2, high / 2, high)) if s]
    ways = [Way("feature", "", s, site, sae.direction(feature[1]) * size) for s in strengths]
    fluent = {}
    if ways:
        found = scores(lab, concept, prompts, ways, (), BAND_SEED)[1:]
        fluent = dict(zip(strengths, (score.fluent for score in found), strict=True))
    return {
        "concept": concept,
        "feature": str(feature),
        "low": low,
        "high": high,
        "at low": fluent.get(low),
        "at high": fluent.get(high),
        "inside": sum(fluent.values()) / len(fluent) if fluent else None,
    }


def propose(lab: Lab, concept: str) -> dict:
    """Held-out gain of the proposal and of its controls."""
    there, lacking = sides(lab, concept, TEXT_SEED)
    found: Any = lab.autosteer(concept, there, against=lacking, progress=False).frame
    gains = found.groupby("what", sort=False)["gain"].first()
    price = found["price"].iloc[0] if len(found) else 0.0
    return {
        "concept": concept,
        "edits": int((found["what"] == "alone").sum()),
        "gain": gains.get("proposal", 0.0),
        "random features": gains.get("random features", 0.0),
        "random directions": gains.get("random directions", 0.0),
        "price": price,
    }


def summary(tables: dict[str, Any]) -> Iterator[str]:
    """The few lines that matter."""
    found = tables["recall"]
    yield (
        f"recall: a feature labelled with the concept is among the first 5 for "
        f"{int((found['rank'] <= 5).sum())} of {len(found)} concepts (first 20: "
        f"{int(found['rank'].notna().sum())}); the first feature beats its control on texts not "
        f"seen for {int((found['held_out'] > found['control']).sum())}"
    )
    steering = tables["steering"]
    for way, rows in steering.groupby("way", sort=False):
        yield (
            f"{way}: mean share {rows['share'].mean():.3f}, fluent {rows['fluent'].mean():.0%}, "
            f"excess {rows['excess'].mean():+.2f} nats, repetition {rows['repetition'].mean():.3f}"
        )
    shares = steering.pivot_table(index="concept", columns="way", values="share")
    for way in ("vector", "random", "prompt", "unsteered"):
        ahead = int((shares["feature"] > shares[way]).sum())
        yield f"the feature brings in more than {way} for {ahead} of {len(shares)} concepts"
    bands = tables["band"]
    yield (
        f"band: inside it {bands['inside'].mean():.1%} of the texts are fluent; at least "
        f"{FLUENT:.0%} are for {int((bands['inside'] >= FLUENT).sum())} of {len(bands)} concepts "
        f"(at its upper end for {int((bands['at high'].fillna(1) >= FLUENT).sum())})"
    )
    auto = tables["autosteer"]
    rivals = auto[["random features", "random directions"]].max(axis=1)
    yield (
        f"autosteer: mean held-out gain {auto['gain'].mean():.3f} nats a token (random features "
        f"{auto['random features'].mean():.3f}, directions {auto['random directions'].mean():.3f});"
        f" more than both for {int((auto['gain'] > rivals).sum())} of {len(auto)} concepts"
    )


def markdown(frame: pd.DataFrame) -> str:
    """A table, numbers rounded."""
    cells = [
        ["" if pd.isna(v) else f"{v:.3g}" if isinstance(v, float) else str(v) for v in row]
        for row in frame.itertuples(index=False)
    ]
    lines = [list(map(str, frame.columns)), ["---"] * len(frame.columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.steering")
    parser.add_argument("--out", type=Path, help="folder for CSV files and steering.md")
    parser.add_argument("--concepts", type=int, help="only so many")
    asked = parser.parse_args()
    started, lab = time.perf_counter(), open_lab()
    rows, bands, proposals = [], [], []
    found = recall(lab, asked.concepts)
    print(f"{_spent(started)} recall", flush=True)
    text = ""
    for concept in scorable()[: asked.concepts]:
        own, feature = steer(lab, concept)
        rows += own
        bands.append(band(lab, concept, feature))
        proposals.append(propose(lab, concept))
        print(f"{_spent(started)} {concept}", flush=True)
        text = report({"recall": found, "steering": pd.DataFrame(rows), "band": pd.DataFrame(bands),
                       "autosteer": pd.DataFrame(proposals)}, asked.out)  # fmt: skip
    print(f"{text}\n\n{_spent(started)}, {torch.get_num_threads()} threads")


def _spent(started: float) -> str:
    return f"{time.perf_counter() - started:5.0f} s ({time.process_time():.0f} s of CPU)"


def report(tables: dict[str, pd.DataFrame], folder: Path | None) -> str:
    """Everything so far as Markdown; written to `folder`, with the tables as CSV."""
    text = "\n\n".join(
        ["\n".join(f"- {line}" for line in summary(tables)), *map(markdown, tables.values())]
    )
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False)
        (folder / "steering.md").write_text(text + "\n", encoding="utf-8")
    return text


if __name__ == "__main__":
    main()
