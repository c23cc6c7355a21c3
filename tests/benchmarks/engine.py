"""The engine against its limits, as ratios taken in one run.

Each pair is timed in turn, A B A B, and the ratio is that of the medians, so that a machine whose
speed drifts does not decide it. Run all benchmarks with ``make bench``.
"""

from __future__ import annotations

import gc
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import torch

from workbench.engine.edits import Steer
from workbench.engine.tracing import LiveEdits, Step
from workbench.lab import Lab

NEW = 48
TEXT = (
    "Once upon a time there was a beautiful boat in the harbour. Anna loved the boat. "
    "She painted the boat and the boat was wonderful. "
)


def paired(
    first: Callable[[], object], second: Callable[[], object], rounds: int = 7
) -> tuple[float, float]:
    """Median seconds of both, taken in turn after a warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for round_number in range(rounds + 1):
        for function, kept in zip((first, second), times, strict=True):
            start = time.perf_counter()
            function()
            if round_number:
                kept.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def generation(lab: Lab, edits: int) -> float:
    """Speed of generation with `edits` edits over that of plain ``model.generate``."""
    module, tokens = lab.engine.module, lab.tokens(TEXT)
    layers = lab.engine.config.num_hidden_layers
    chosen = [Steer((i % layers, i), 0.01, unit="raw") for i in range(edits)]

    def plain() -> None:
        with torch.inference_mode():
            module.generate(  # pyright: ignore[reportCallIssue]
                tokens.tensor(), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False
            )

    def ours() -> None:
        lab.generate(tokens, edits=chosen, max_new_tokens=NEW, min_new_tokens=NEW, temperature=0)

    limit, measured = paired(plain, ours)
    return limit / measured


def features(lab: Lab) -> float:
    """Time for the features at all sites over one forward pass plus the encoder products."""
    tokens = lab.tokens(TEXT * 5)
    read = lab.run(tokens)

    def limit() -> None:
        with torch.inference_mode():
            lab.engine.module(input_ids=tokens.tensor(), use_cache=False)
            for site, x in read.activations.items():
                sae = lab.suite.sae_at(site)
                torch.relu(x @ sae.W_enc + sae.b_enc)

    def ours() -> None:
        run = lab.run(tokens)
        for site in lab.suite.sites:
            run.features(site.layer, site.kind)

    least, measured = paired(limit, ours)
    return measured / least


def slider(lab: Lab) -> float:
    """Median milliseconds from a changed strength to the first token drawn under it."""
    live = LiveEdits([Steer((3, 0), 0.0, unit="raw")])
    waits: list[float] = []
    changed = [0.0]

    def stream(step: Step) -> None:
        # The strength was replaced while the token before was on its way; this one was drawn under
        # it.
        if changed[0]:
            waits.append(time.perf_counter() - changed[0])
        live.replace(0, Steer((3, 0), float(step.index), unit="raw"))
        changed[0] = time.perf_counter()

    lab.generate(TEXT, edits=live, max_new_tokens=21, min_new_tokens=21, stream=stream)
    return statistics.median(waits) * 1000


def growth(lab: Lab, moves: int = 500) -> float:
    """Megabytes by which the process grew over `moves` restarts of a short steered generation."""
    tokens = lab.tokens("Once upon a time")

    def run(count: int) -> None:
        for i in range(count):
            lab.generate(
                tokens, edits=[Steer((3, 0), float(i % 9 + 1), unit="raw")], max_new_tokens=2
            )

    run(100)  # allocators and caches fill once
    gc.collect()
    before = resident()
    run(moves)
    gc.collect()
    return (resident() - before) / 2**20


def resident() -> int:
    """Resident bytes of this process."""
    with open("/proc/self/statm") as file:  # noqa: PTH123 (not a path of the project)
        return int(file.read().split()[1]) * resource.getpagesize()


def imports() -> float:
    """Time to import the workbench over importing torch, transformers and nnsight."""

    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    peers = (
        "import torch, transformers, nnsight; "
        "transformers.AutoModelForCausalLM, nnsight.TransformersModel"
    )
    limit, ours = paired(
        lambda: run(peers), lambda: run("import workbench as wb; wb.Lab"), rounds=3
    )
    return ours / limit


def stop_delay(lab: Lab) -> float:
    """Milliseconds from setting the stop event to the return of the call (median of 7)."""
    waits = []
    for _ in range(7):
        stop, when = threading.Event(), [0.0]

        def stream(step: Step, stop: threading.Event = stop, when: list[float] = when) -> None:
            if step.index == 5:
                when[0] = time.perf_counter()
                stop.set()

        lab.generate(TEXT, max_new_tokens=NEW, min_new_tokens=NEW, stream=stream, stop=stop)
        waits.append(time.perf_counter() - when[0])
    return statistics.median(waits) * 1000


def rows(lab: Lab) -> Iterator[tuple[str, str, str]]:
    """``(what, measured, target)`` of every benchmark."""
    for edits in (0, 1, 20):
        ratio = f"{generation(lab, edits):.2f}"
        yield f"generation with {edits} edits / model.generate, speed", ratio, ">= 0.95"
    ratio = f"{features(lab):.2f}"
    yield "features at all sites / (forward + encoder products), time", ratio, "<= 1.25"
    yield "changed strength to first token under it", f"{slider(lab):.0f} ms", "< 100 ms"
    yield "stop to return", f"{stop_delay(lab):.0f} ms", "one token"
    yield "growth over 500 steered generations", f"{growth(lab):.1f} MB", "< 5 MB"
    peers = "import workbench / import torch + transformers + nnsight, time"
    yield peers, f"{imports():.2f}", "1.0"
