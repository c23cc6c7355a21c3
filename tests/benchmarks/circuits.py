"""``python -m tests.benchmarks.circuits``: are estimates right, and do circuits carry the target?

1. Attribution against ablation: rank correlation over the top 50 features of each prompt, for the
   plain slope and for the average with dimmed layers. The targets are what the model writes next.
2. Circuits of the top 20 features for facts and rules that pocket was taught: faithfulness without
   and with the SAEs' errors, completeness, and the same for random active features, five draws.
   With the stream split at one layer, at three and at all: each split adds its SAE's errors.
3. Time of an attribution against a forward and backward pass of the bare model.
4. Memory at 26 layers of 16k features: what is held, counted, and one SAE of that shape measured.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import mean, median

import torch

from workbench.analysis.attribution import Target, attribute
from workbench.analysis.circuit_edges import strongest
from workbench.analysis.faithfulness import Faithfulness, measure, random_spots
from workbench.features import Features
from workbench.lab import Lab
from workbench.lab import open as open_lab
from workbench.sae import SAE, SAEConfig
from workbench.sites import Site
from workbench.tokens import Tokens

FACTS = (
    ("capital of France", "The capital of France is", " Paris", ()),
    ("capital of Germany", "The capital of Germany is", " Berlin", ()),
    ("weekday order", "Monday, Tuesday, Wednesday, Thursday,", " Friday", ()),
    ("month order", "January, February, March,", " April", ()),
    ("number order", "one, two, three,", " four", ()),
    ("agreement", "Many dogs", " are", (" is",)),
    ("opposite", "The opposite of big is", " small", ()),
    ("brackets", "print(max(3, 4", "))", ()),
    ("language of a city", "People in Paris speak", " French", ()),
    ("German word", "The German word for water is", " W", ()),
)
"""Name, prompt, next token, tokens that it stands against."""
COUNTRIES = ("Spain", "Italy", "Hungary", "Greece", "Poland", "Norway", "Japan", "Russia")
PROMPTS = (
    *(f"The capital of {country} is" for country in COUNTRIES),
    "After Monday comes",
    "Nach Montag kommt",
    "The day before Friday is",
    "lundi, mardi, mercredi,",
    "Today is Sunday, tomorrow is",
    "The opposite of happy is",
    "It is not hot, it is",
    "The cow says",
    "What does the dog say?",
    "In Spanish, cat is",
    "The French word for bread is",
    "People in Berlin speak",
    "two plus three is",
    "5, 6, 7, 8,",
    "sum([2, 4, 6",
    "for i in range(",
)
"""Others than the facts, on some of which the share to dim was chosen."""
SPLITS = ((4,), (3, 5, 7), tuple(range(8)))
K, TOP, DRAWS, DIMMED = 20, 50, 5, 3
WIDE, D_MODEL, LAYERS, POSITIONS, ACTIVE = 16_384, 2304, 26, 64, 100


def main() -> None:
    """Print every line as soon as it is measured."""
    lab = open_lab()
    for part in (speed, ranks, circuits):
        for line in part(lab):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    for line in memory():
        sys.stdout.write(line + "\n")


def ranks(lab: Lab) -> Iterator[str]:
    """Rank correlations, a line a prompt; then the means."""
    found: dict[tuple[str, int], list[float]] = {}
    for prompt in PROMPTS:
        tokens = lab.tokens(prompt)
        token = int(lab.run(tokens, sites=[]).logits[-1].argmax())
        target = Target.of(lab.engine, tokens, token)
        line = f"{prompt:40} {target.string!r:12}"
        for which, sites in (("all sites", lab.suite.sites), ("res", residual(lab))):
            for dimmed in (0, DIMMED):
                one = attribute(lab.engine, lab.suite, tokens, target, sites, dimmed=dimmed)
                agreement = one.check(TOP).rank_correlation
                found.setdefault((which, dimmed), []).append(agreement)
                line += f"  {which}, dimmed {dimmed}: {agreement:.3f}"
        yield line
    for (which, dimmed), all_of in found.items():
        passed = mean(one >= 0.8 for one in all_of)
        yield (
            f"rank correlation of the top {TOP}, {which}, dimmed {dimmed}: mean {mean(all_of):.3f},"
            f" least {min(all_of):.3f}, {passed:.0%} of {len(all_of)} prompts at 0.8 or more"
        )


def residual(lab: Lab) -> list[Site]:
    """The residual sites."""
    return [site for site in lab.suite.sites if site.kind == "res"]


def circuits(lab: Lab) -> Iterator[str]:
    """Faithfulness of each fact's circuit, random ones beside; then means over the facts."""
    for layers in SPLITS:
        sites = [Site(layer) for layer in layers]
        rows = []
        for name, prompt, token, against in FACTS:
            tokens = lab.tokens(prompt)
            target = Target.of(lab.engine, tokens, token, against=against)
            one = attribute(lab.engine, lab.suite, tokens, target, sites, dimmed=DIMMED)
            active = [part.activations for part in one.parts.values()]
            sets = [strongest(one, K)]
            sets += [random_spots(active, K, target.position, seed) for seed in range(DRAWS)]
            mine, *others = measure(lab.engine, lab.suite, tokens, target, sites, sets)
            rows.append((figures(mine), tuple(map(mean, zip(*map(figures, others), strict=True)))))
            yield f"layers {layers}: {name:20} score {one.score:5.1f}  {shown(*rows[-1])}"
        means = [tuple(map(mean, zip(*column, strict=True))) for column in zip(*rows, strict=True)]
        yield f"layers {layers}: mean of {len(FACTS)} facts              {shown(*means)}"


def figures(one: Faithfulness) -> tuple[float, ...]:
    """The four shares."""
    with_errors = one.faithfulness_with_errors
    return (one.faithfulness, with_errors, one.above_errors, one.completeness)


def shown(mine: tuple[float, ...], other: tuple[float, ...]) -> str:
    """A circuit's figures and those of random features."""
    names = ("faithful", "with errors", "above errors", "left without it")
    return "  ".join(
        f"{name} {a:5.2f} (random {b:5.2f})" for name, a, b in zip(names, mine, other, strict=True)
    )


def speed(lab: Lab) -> Iterator[str]:
    """Attribution over forward plus backward, in turns, medians."""
    tokens = lab.tokens(" ".join(prompt for _, prompt, _, _ in FACTS))
    target = Target.of(lab.engine, tokens, " Paris")
    module, ids = lab.engine.module, torch.tensor([tokens.ids])

    def bare() -> None:
        with torch.enable_grad():
            score = target.score(module(input_ids=ids, use_cache=False).logits[0])
            torch.autograd.grad(score, list(module.parameters()), allow_unused=True)

    for which, sites in (("all sites", lab.suite.sites), ("res", residual(lab))):
        for dimmed in (0, DIMMED):

            def ours(sites: Sequence[Site] = sites, dimmed: int = dimmed) -> None:
                attribute(lab.engine, lab.suite, tokens, target, sites, dimmed=dimmed)

            slow, fast = in_turns(ours, bare)
            yield (
                f"attribution of {len(tokens)} tokens, {which}, dimmed {dimmed}: {slow:.3f} s, "
                f"forward + backward {fast:.3f} s, ratio {slow / fast:.2f} (target 4)"
            )


def in_turns(*calls: Callable[[], None], times: int = 7) -> list[float]:
    """Median processor time of each."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(times + 1):
        for one, call in zip(taken, calls, strict=True):
            start = time.process_time()
            call()
            one.append(time.process_time() - start)
    return [median(one[1:]) for one in taken]


def memory() -> Iterator[str]:
    """What a circuit at 26 x 16k holds."""
    stream = 2 * LAYERS * POSITIONS * D_MODEL * 4
    entries = LAYERS * POSITIONS * ACTIVE * (8 + 8 + 4) * 2
    sae = 2 * D_MODEL * WIDE * 4
    yield (
        f"{LAYERS} layers of {WIDE:,} features, {POSITIONS} tokens, {ACTIVE} active: stream and "
        f"slopes {stream / 1e6:.0f} MB, active features and effects {entries / 1e6:.0f} MB, an SAE "
        f"{sae / 1e6:.0f} MB, one at a time; a dense matrix of two layers' features would be "
        f"{WIDE * WIDE * 4 / 1e6:.0f} MB"
    )
    torch.manual_seed(0)
    site = Site(0)
    wide = SAE(
        W_enc=torch.randn(D_MODEL, WIDE) / D_MODEL**0.5,
        b_enc=torch.zeros(WIDE),
        W_dec=torch.randn(WIDE, D_MODEL) / D_MODEL**0.5,
        b_dec=torch.zeros(D_MODEL),
        threshold=torch.full((WIDE,), 2.5),
        activation="jumprelu",
        config=SAEConfig("", 0, "res", WIDE, None, "", D_MODEL, D_MODEL, WIDE),
    )
    lab = open_lab()
    tokens = lab.tokens(list(range(10, 9 + POSITIONS)))
    x = torch.randn(len(tokens), D_MODEL)
    before, start = peak(), time.process_time()
    measured = one_layer(lab, wide, site, tokens, x)
    yield (
        f"one such layer, measured: {measured} active, {time.process_time() - start:.2f} s, "
        f"{(peak() - before) / 1e6:.0f} MB above the most that making the SAE itself took"
    )


def one_layer(lab: Lab, sae: SAE, site: Site, tokens: Tokens, x: torch.Tensor) -> int:
    """Encode, attribute and choose nodes at one layer of the large shape."""
    from workbench.analysis.attribution import Attribution, _part
    from workbench.analysis.circuit_edges import _cut

    active = Features.encode(sae, site, tokens, x)
    part = _part(sae, active, x, x, torch.randn_like(x))
    target = Target.of(lab.engine, tokens, 5)
    found = Attribution(tokens, target, 1.0, {site: part})
    _cut(sae, site, part, found, strongest(found, K), 0.0)
    return len(active.values)


def peak() -> int:
    """The most memory that this process has held, in bytes."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


if __name__ == "__main__":
    main()
