"""Every SAE format beside independent readers: the table that ``make peers`` prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from tests.sae.format_samples import SAMPLES, D, Maker
from workbench.sae import SAE
from workbench.sae.formats import read_sae

SIDE = Path(__file__).with_name("formats_side.py")
TOLERANCE = 1e-5
"""Largest difference of two orders of summation in float32, as a share of the largest value."""

FOLDERS = {
    "gemma_scope_2": "resid_post/layer_20_width_16k_l0_small",
    "gemma_scope_2_transcoder": "transcoder/layer_20_width_16k_l0_small_affine",
}
"""Where SAELens reads the site off the folder."""

OTHERWISE = {
    ("sparsify", "sparsify_by_saelens"): "it transposes a decoder that is the right way round",
    ("sparsify_skip_transcoder", "sparsify_by_saelens"): "the same, and it drops the skip",
    ("sparsify_skip_autoencoder", "sparsify_by_saelens"): "the same, and it drops the skip",
    ("llama_scope", "llama"): "it leaves the decoder's norm out of threshold and activations",
    ("llama_scope_transcoder", "llama"): "the same, and it takes the input's norm for the output",
    ("dictionary_learning_auto_encoder_new", "saelens"): "it looks for another name of the bias",
    ("sae_lens_fine_tuned_before_6", "saelens"): "version 6 has no place for the factor",
    ("sae_lens_log_threshold", "saelens"): "it reads log_threshold in training only",
    ("circuit_tracer_relu", "mwhanna"): "it has no skip connection",
    ("circuit_tracer_jumprelu", "mwhanna"): "it has no thresholds",
    ("gemma_scope_2_transcoder", "circuit_tracer"): "it wants outputs as wide as inputs",
}
"""Where SAELens 6.54.12 (or circuit-tracer 0.5.0) gives something else, or nothing, and why."""


def compare_formats(python: str, folder: Path) -> int:
    """Features and output of every format, by every reader that has it."""
    x = torch.randn(64, D, generator=torch.Generator().manual_seed(1)) * 2 + 1.5
    np.save(folder / "x.npy", x.numpy())
    subprocess.run([python, str(SIDE), "random", str(folder / "random")], check=True)
    opened, job = _ours(folder)
    for item in job:
        item["x"] = str(folder / "x.npy")
    (folder / "job.json").write_text(json.dumps(job))
    command = [python, str(SIDE), "read", str(folder / "job.json"), str(folder / "theirs.npz")]
    subprocess.run(command, check=True)
    theirs, differ = np.load(folder / "theirs.npz"), 0
    sys.stdout.write(
        "file, reader, largest difference of features and of output (of the largest value)\n"
    )
    with torch.inference_mode():
        for key in dict.fromkeys(key.rpartition("|")[0] for key in theirs.files):
            name, _, reader = key.partition("|")
            sae = opened[name]
            known = OTHERWISE.get((name, reader))
            if f"{key}|error" in theirs:
                text = str(theirs[f"{key}|error"]).splitlines()[0]
                # A library that is not installed says nothing; which are is in requirements.txt.
                wrong = known is None and not text.startswith("ModuleNotFoundError")
            else:
                ours = sae.encode(x).numpy(), sae.reconstruct(x).numpy()
                far = [
                    float(np.abs(a - theirs[f"{key}|{part}"]).max() / np.abs(a).max())
                    for a, part in zip(ours, "fy", strict=True)
                ]
                text = " ".join(f"{value:.1e}" for value in far)
                wrong = max(far) > TOLERANCE and known is None
            note = f"  ({known})" if known else ""
            sys.stdout.write(f"{name:52} {reader:22} {text}{note}\n")
            differ += wrong
    return differ


def _ours(folder: Path) -> tuple[dict[str, SAE], list[dict[str, str]]]:
    """Our reading of every file, and the list of them for the other side."""
    opened: dict[str, SAE] = {}
    job = []

    def add(name: str, kind: str, place: Path, weights: Path) -> None:
        opened[name] = read_sae(weights)
        job.append({"name": name, "format": kind, "folder": str(place), "weights": str(weights)})

    for place in sorted((folder / "random").iterdir()):
        add(f"SAELens {place.name}", "sae_lens", place, place / "sae_weights.safetensors")
    for name, write in SAMPLES.items():
        sample = write(Maker(folder / name / FOLDERS.get(name, "files")))
        add(name, sample.format, sample.folder, sample.path)
    for name, sae in list(opened.items()):
        try:
            place = sae.save(folder / "saved" / name)
        except ValueError:
            continue  # a test says which
        add(f"saved {name}", "sae_lens", place, place / "sae_weights.safetensors")
    return opened, job
