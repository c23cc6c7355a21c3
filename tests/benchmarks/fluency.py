"""``python -m tests.benchmarks.fluency``: are the limits right, and does the safe band hold?

1. Limits: how many texts of pocket are called fluent, strained and broken when nothing is edited,
   and when features are pushed by four typical maxima. What one sub-layer writes is small beside
   the stream that it is added to, so four maxima of it need not break anything.
2. Band: `lab.calibrate` suggests a band for each feature from 8 prompts and one seed. Then texts
   are written at both ends of it, where it is weakest, on other prompts with another seed. The
   band of a feature holds if at least `HOLDS` of them are fluent. Features: those that are known to
   write a concept, and others drawn at random among the live ones.

A number as the argument limits the features (``python -m tests.benchmarks.fluency 6``).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import torch

from workbench.analysis.fluency import fluency
from workbench.analysis.strengths import PROMPT_TOKENS, Control
from workbench.engine.edits import Edit
from workbench.engine.tracing import Generation, generate
from workbench.lab import Lab
from workbench.lab import open as open_lab
from workbench.pocket.corpus import documents
from workbench.tokens import Tokens

HOLDS = 0.8
"""Share of the texts at an end of the band that have to be fluent."""
PROMPTS, NEW, DOCUMENTS_SEED, SEED = 16, 40, 987_654, 101
SAMPLINGS = {"temperature 1": (1.0, 1.0), "temperature 0.8, top-p 0.95": (0.8, 0.95)}
ABSURD = 4.0
OTHERS = 12
"""Features that are drawn at random."""


def main(count: int | None = None) -> None:
    """Print both tables."""
    lab = open_lab()
    prompts = heads(lab, PROMPTS)
    features = list(islice(chosen(lab), count))
    for line in chain(limits(lab, prompts, features), bands(lab, prompts, features)):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def heads(lab: Lab, count: int) -> list[Tokens]:
    """Beginnings of documents that neither the model nor the calibration has seen."""
    found = []
    for document in documents(DOCUMENTS_SEED):
        ids = lab.tokenizer(document.text[:200], add_special_tokens=False)["input_ids"]
        if len(ids) >= 2 * PROMPT_TOKENS:
            found.append(lab.tokens(ids[: PROMPT_TOKENS - 1]))
        if len(found) == count:
            return found
    raise AssertionError("documents never end")


def chosen(lab: Lab) -> Iterator[Control]:
    """Features that write a concept and live ones at random, in turn."""
    random = torch.Generator().manual_seed(0)
    writers = [((one["layer"], one["feature"]), "res") for one in lab.suite.steering.values()]
    others = []
    for place in range(OTHERS):
        site = lab.suite.sites[place * len(lab.suite.sites) // OTHERS]
        live = (lab.suite.maxima(site) > 0).nonzero()[:, 0]
        index = int(live[torch.randint(len(live), (1,), generator=random)])
        others.append(((site.layer, index), site.kind))
    order = [f for pair in zip(writers, others, strict=False) for f in pair]
    for feature, kind in [*order, *writers[OTHERS:]]:
        yield Control.of(lab.suite, feature, kind, "steer")


def write(
    lab: Lab, prompts: Sequence[Tokens], each: Sequence[Sequence[Edit]], sampling: str
) -> list[list[Generation]]:
    """The prompts' texts under each list of edits, in one batch."""
    temperature, top_p = SAMPLINGS[sampling]
    texts = generate(
        lab.engine,
        [*prompts] * len(each),
        each=[edits for edits in each for _ in prompts],
        source=lab.suite,
        max_new_tokens=NEW,
        seed=SEED,
        temperature=temperature,
        top_p=top_p,
    )
    return [texts[i : i + len(prompts)] for i in range(0, len(texts), len(prompts))]


def limits(lab: Lab, prompts: Sequence[Tokens], features: Sequence[Control]) -> Iterator[str]:
    """Verdicts on texts that are fluent and on texts that are not."""
    passages = [lab.tokens(lab.tokenizer(p)["input_ids"][:PROMPT_TOKENS]) for p in lab.suite.sample]
    every = [*prompts, *passages]
    for sampling, (temperature, top_p) in SAMPLINGS.items():
        options = {"max_new_tokens": NEW, "temperature": temperature, "top_p": top_p}
        plain = [generate(lab.engine, every, seed=seed, **options) for seed in range(5)]
        alone = Counter(f.verdict for texts in plain for f in fluency(lab.engine, texts))
        beside = Counter(
            f.verdict
            for texts, twins in zip(plain, plain[1:] + plain[:1], strict=True)
            for f in fluency(lab.engine, texts, twins=twins)
        )
        yield row(f"unsteered, {sampling}, by the model's entropy", alone)
        yield row(f"unsteered, {sampling}, beside another seed's text", beside)
    few = prompts[:4]
    [twins] = write(lab, few, [[]], "temperature 1")
    for where, some in (
        ("residual features", [c for c in features if c.kind == "res"]),
        ("features of sub-layers", [c for c in features if c.kind != "res"]),
    ):
        each = [control.edits(sign * ABSURD) for control in some for sign in (1, -1)]
        steered = write(lab, few, each, "temperature 1")
        found = Counter(f.verdict for t in steered for f in fluency(lab.engine, t, twins=twins))
        yield row(f"{len(some)} {where} at +-{ABSURD:g} typical maxima", found)


def row(what: str, verdicts: Counter[str]) -> str:
    """One line of the first table."""
    total = verdicts.total()
    shares = "  ".join(f"{v} {verdicts[v] / total:6.1%}" for v in ("fluent", "strained", "broken"))
    return f"{what:66} {total:4} texts  {shares}"


def bands(lab: Lab, prompts: Sequence[Tokens], features: Sequence[Control]) -> Iterator[str]:
    """For each feature the band and the share of fluent texts at its ends; then the sums."""
    twins = {sampling: write(lab, prompts, [[]], sampling)[0] for sampling in SAMPLINGS}
    held: dict[str, list[float]] = {sampling: [] for sampling in SAMPLINGS}
    every: dict[str, list[bool]] = {sampling: [] for sampling in SAMPLINGS}
    for control in features:
        found = lab.calibrate(control.feature, control.kind, progress=False)
        ends = [end for end in dict.fromkeys(found.band) if end]
        line = f"{control.feature!s:10} {control.kind:10} {found.label:28} band {found.band}"
        for sampling in SAMPLINGS:
            texts = write(lab, prompts, [control.edits(end) for end in ends], sampling)
            verdicts = [
                [f.verdict == "fluent" for f in fluency(lab.engine, t, twins=twins[sampling])]
                for t in texts
            ]
            shares = [sum(v) / len(v) for v in verdicts]
            every[sampling] += [one for v in verdicts for one in v]
            held[sampling].append(min(shares, default=1.0))
            line += f"  {' '.join(f'{share:.0%}' for share in shares)}"
        yield line
    for sampling in SAMPLINGS:
        holds = sum(share >= HOLDS for share in held[sampling]) / len(held[sampling])
        fluent = sum(every[sampling]) / len(every[sampling])
        yield (
            f"{sampling}: at both ends at least {HOLDS:.0%} fluent for {holds:.0%} of "
            f"{len(features)} features; {fluent:.1%} of {len(every[sampling])} texts fluent"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
