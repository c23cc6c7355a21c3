"""What packed weights cost and gain on this CPU: ``python -m tests.benchmarks.quantization``.

Three layers of Gemma 2 2B's shape with random weights, written once and opened by `load` as a user
would, in turn: speeds are ratios to float32 taken in one run. What `load` refuses is not measured.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import torch
from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from workbench.models import Model, load
from workbench.pocket.manifest import weights

ROUNDS, NEW, PROMPT = 5, 8, 128
VARIANTS = {
    "float32": {"dtype": torch.float32},
    "bfloat16": {"dtype": torch.bfloat16},
    "8bit": {"quantization": "8bit"},
}


def save(folder: str) -> None:
    """A random model of the 2B's layers, and pocket's tokenizer."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(weights() / "base")
    config = Gemma2Config(num_hidden_layers=3, vocab_size=len(tokenizer))
    Gemma2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def seconds(function: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def write(model: Model, ids: torch.Tensor) -> None:
    """Some tokens, greedily."""
    model.module.generate(  # pyright: ignore[reportCallIssue]
        ids[:, :8], max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False
    )


def main() -> None:
    """Print a row for each way to open the model."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        save(folder)
        models = {name: load(folder, device="cpu", **how) for name, how in VARIANTS.items()}
        ids = torch.randint(10, 2000, (1, PROMPT))
        logits = {name: model.module(ids).logits.float() for name, model in models.items()}
        writing: dict[str, list[float]] = {name: [] for name in models}
        reading: dict[str, list[float]] = {name: [] for name in models}
        for turn in range(ROUNDS + 1):
            for name, model in models.items():
                times = (
                    seconds(lambda m=model: write(m, ids)),
                    seconds(lambda m=model: m.module(ids)),
                )
                if turn:  # the first warms up
                    writing[name].append(times[0])
                    reading[name].append(times[1])
        exact = logits["float32"]
        sys.stdout.write("weights     tokens/s   speed    prompt's time   logit error\n")
        for name in models:
            wrote, read = statistics.median(writing[name]), statistics.median(reading[name])
            sys.stdout.write(
                f"{name:10} {NEW / wrote:9.1f} {statistics.median(writing['float32']) / wrote:7.2f}"
                f" {read / statistics.median(reading['float32']):16.2f}"
                f" {float((logits[name] - exact).norm() / exact.norm()):13.3f}\n"
            )


if __name__ == "__main__":
    main()
