"""Gemma Scope at its true shapes, with random weights: ``python -m tests.benchmarks.scope``.

A random Gemma 2 of 2B's shape, and a ``params.npz`` of 16k features that stands in for all 26
layers (hard links: opened one by one, on disk once). Thresholds are set so that about 70 features
fire a token, as in the published SAEs. Takes 12 GB of memory and some minutes on two cores.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from tests.benchmarks.engine import paired
from workbench.engine.edits import Steer
from workbench.lab import Lab
from workbench.models import wrap
from workbench.pocket.manifest import weights
from workbench.sae.catalog import catalog, catalog_entry
from workbench.sae.gemma_scope import load_sae
from workbench.sae.suite import Suite
from workbench.sites import Site
from workbench.tokens import Tokens

D_MODEL, D_SAE, LAYERS, TOKENS, NEW = 2304, 16384, 26, 512, 8
SPARSITY = 2.63
"""Standard deviations above which a normal number lies with a chance of 70 in 16,384."""
MB = 1e6


def module(device: str, dtype: torch.dtype) -> Gemma2ForCausalLM:
    """A random model of Gemma 2 2B's shape whose residual keeps a size of about 1."""
    torch.manual_seed(0)
    config = Gemma2Config(attn_implementation="eager")  # pyright: ignore[reportCallIssue]
    shape = config.hidden_size, config.num_hidden_layers, config.head_dim
    assert shape == (D_MODEL, LAYERS, 256), shape
    with torch.device("meta"):
        model: Any = Gemma2ForCausalLM(config)
    model = model.to(dtype).to_empty(device=device)
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    model.model.embed_tokens.embed_scale.fill_(D_MODEL**0.5)
    noise = torch.randn(2**22 + 1, device=device).mul_(0.02).to(dtype)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.constant_(parameter, -0.9 if "post_" in name else 0.0)
        else:
            # The same numbers over and over, each time shifted: a draw for each takes minutes.
            flat = parameter.data.view(-1)
            for part in flat.split(len(noise)):
                part.copy_(noise[: len(part)])
    model.tie_weights()
    return model.eval()


def write_suite(folder: Path, size: float, *, layers: int = LAYERS) -> Path:
    """One file of true size under the names of all layers; returns that of layer 0.

    Args:
        folder: Where to put it.
        size: Root mean square of the activations, so that thresholds let 70 features pass.
        layers: How many layers.
    """
    random = np.random.default_rng(0)
    paths = [
        folder / f"gemma-scope-2b-pt-res/layer_{i}/width_16k/average_l0_71/params.npz"
        for i in range(layers)
    ]
    for path in paths:
        path.parent.mkdir(parents=True)
    rows = random.standard_normal((D_SAE, D_MODEL), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.savez(
        paths[0],
        W_enc=np.ascontiguousarray(rows.T),
        W_dec=rows,
        b_enc=np.zeros(D_SAE, np.float32),
        b_dec=np.zeros(D_MODEL, np.float32),
        threshold=np.full(D_SAE, SPARSITY * size, np.float32),
    )
    for path in paths[1:]:
        os.link(paths[0], path)
    return paths[0]


def median_ms(function: Callable[[], object], rounds: int = 15) -> float:
    """Median milliseconds of a call, after one to warm up."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[1:])


def catalogue() -> Iterator[tuple[str, str, str]]:
    """The table, a look-up, and a name that there is not."""
    start = time.perf_counter()
    catalog()
    yield (
        "catalogue of 11,289 SAEs, first time",
        f"{1e3 * (time.perf_counter() - start):.0f} ms",
        "",
    )
    found = median_ms(lambda: catalog_entry("gemma-2-2b/20-gemmascope-res-16k"))

    def miss() -> None:
        with suppress(ValueError):
            catalog_entry("google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_70")

    yield "  a name; one that is not there", f"{found:.0f}, {median_ms(miss, 3):.0f} ms", ""


def opening(path: Path) -> Iterator[tuple[str, str, str]]:
    """To the first decoder row and to the first encoding, beside numpy."""
    x = torch.randn(1, D_MODEL)
    row = median_ms(lambda: load_sae(path).direction(12345).sum())
    theirs = median_ms(lambda: np.load(path)["W_dec"][12345].sum(), 5)
    yield "open, first decoder row", f"{row:.1f} ms", "< 5 ms"
    yield "  the same with numpy.load", f"{theirs:.0f} ms", ""
    before = resident()
    held = load_sae(path)
    held.direction(12345).sum()
    yield "  resident memory it adds", f"{(resident() - before) / MB:.1f} MB", "0"
    first = median_ms(lambda: load_sae(path).encode(x), 7)

    def with_numpy() -> object:
        arrays = {k: torch.from_numpy(v) for k, v in np.load(path).items()}
        pre = x @ arrays["W_enc"] + arrays["b_enc"]
        return pre * (pre > arrays["threshold"])

    yield "open, first encoding / numpy.load", f"{first / median_ms(with_numpy, 5):.2f}", "< 1"


def resident() -> int:
    """Bytes that this process has in memory."""
    import psutil

    gc.collect()
    return psutil.Process().memory_info().rss


def peak(lab: Lab) -> int:
    """Most bytes so far: of the GPU if the model is on one, else resident."""
    if lab.engine.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def prompt(lab: Lab) -> Tokens:
    """512 random tokens."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 3000, (TOKENS - 1,), generator=random).tolist()
    return lab.tokens([2, *ids])


def features(lab: Lab, one: int) -> Iterator[tuple[str, str, str]]:
    """All layers of a long prompt against forward and encoder products; what memory it takes."""
    tokens = prompt(lab)
    sites = [Site(layer) for layer in range(LAYERS)]
    found: list[float] = []

    def plain() -> list[torch.Tensor]:
        read: list[torch.Tensor] = []
        module: Any = lab.engine.module
        hooks = [
            layer.register_forward_hook(lambda *args: read.append(args[2]))
            for layer in module.model.layers
        ]
        with torch.inference_mode():
            lab.engine.module(input_ids=tokens.tensor().to(lab.engine.device), use_cache=False)
        for hook in hooks:
            hook.remove()
        return read

    def limit() -> None:
        for x, site in zip(plain(), sites, strict=True):
            sae = lab.suite.sae_at(site)
            with torch.inference_mode():
                torch.relu(x[0].float() @ sae.W_enc + sae.b_enc)

    def ours() -> None:
        run = lab.run(tokens, sites=sites)
        for site in sites:
            found.append(len(run.features(site.layer).values) / TOKENS)

    plain()
    before = peak(lab)
    ours()
    yield "mean L0 of the features", f"{statistics.mean(found):.0f}", "about 70"
    extra = (peak(lab) - before - one) / before
    yield "peak memory over model + forward + one SAE", f"{extra:+.1%}", "<= +10 %"
    base, time_ours = paired(limit, ours, 3)
    yield "features at 26 layers / (forward + products)", f"{time_ours / base:.2f}", "<= 1.25"


def generation(lab: Lab, edits: int) -> tuple[str, str, str]:
    """Steered generation against plain ``generate``."""
    tokens = lab.tokens([2, *range(10, 40)])
    chosen = [Steer((i % LAYERS, i), 0.01, unit="raw") for i in range(edits)]
    ids = tokens.tensor().to(lab.engine.device)

    def plain() -> None:
        with torch.inference_mode():
            lab.engine.module.generate(  # pyright: ignore[reportCallIssue]
                ids, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False
            )

    def ours() -> None:
        lab.generate(tokens, edits=chosen, max_new_tokens=NEW, min_new_tokens=NEW, temperature=0)

    limit, measured = paired(plain, ours, 3)
    name = f"generation with {edits} edits / model.generate, speed"
    return name, f"{limit / measured:.2f}", ">= 0.99"


def rows(device: str, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Name, figure and target of each measurement."""
    yield from catalogue()
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    engine = wrap(
        module(device, dtype), AutoTokenizer.from_pretrained(weights() / "base"), name="2b-shape"
    )
    bare = Lab(engine)
    middle = bare.run(prompt(bare), sites=[Site(LAYERS // 2)]).activation(LAYERS // 2)[1:]
    path = write_suite(folder, float(middle.float().square().mean().sqrt()))
    one = path.stat().st_size
    yield from opening(path)
    lab = Lab(engine, Suite(folder, model="gemma-2-2b", device=engine.device, memory=one))
    yield from features(lab, one)
    roomy = Lab(engine, Suite(folder, model="gemma-2-2b", device=engine.device))
    yield from (generation(roomy, edits) for edits in (0, 1, 20))


def main() -> None:
    """Print a row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    device = parser.parse_args().device
    sys.stdout.write(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as name:
        for what, measured, target in rows(device, Path(name)):
            sys.stdout.write(f"{what:60} {measured:>9}   {target and 'target ' + target}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
