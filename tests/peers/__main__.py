"""``make peers``: the same weights in SAELens, in an environment of its own.

Prints whether features agree, how long opening and encoding take, whether the catalogue is SAELens'
registry, and what other readers make of every SAE format. The exit status is 1 if anything differs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from tests.peers.formats import compare_formats
from tests.peers.timing import timed
from workbench.lab import Lab
from workbench.lab import open as open_lab
from workbench.pocket.dataset import rows
from workbench.pocket.suite_training import activations
from workbench.sae.catalog import catalog, catalog_entry
from workbench.sae.gemma_scope import load_sae

SIDE = Path(__file__).with_name("sae_lens_side.py")
TOLERANCE = 1e-4
"""Largest difference of two orders of summation in float32, at activations of about 10."""

SLIPPED = {"gemma-2-9b/20-gemmascope-res-131k__l0-10", "gemma-2-9b/20-gemmascope-res-131k__l0-12"}
"""Neuronpedia ids that SAELens 6.54.12 gives to other SAEs: the first to one of layer 2. The
catalogue refuses them."""


def ask(python: str, command: str, *paths: Path) -> None:
    """Run the other side."""
    subprocess.run([python, str(SIDE), command, *map(str, paths)], check=True)


def compare_registry(python: str, folder: Path) -> int:
    """Whether every SAE of the registry is in the catalogue under all of its names."""
    ask(python, "registry", folder / "registry.json")
    registry = json.loads((folder / "registry.json").read_text())
    ours = {(row["repo"], row["path"]): row for row in catalog().to_dict("records")}
    wrong, names = [], 0
    for row in registry:
        place = row["repo"], row["path"]
        spellings = [f"{row['release']}/{row['id']}", f"{row['repo']}/{row['path']}"]
        spellings += {row["neuronpedia"]} - SLIPPED - {None}
        names += len(spellings)
        if place not in ours or (row["release"].endswith("-canonical") > ours[place]["canonical"]):
            wrong.append(f"{place} is missing or not canonical")
        for spelling in spellings:
            try:
                found = catalog_entry(spelling)
            except ValueError as error:
                wrong.append(str(error))
                continue
            if (found["repo"], found["path"]) != place:
                wrong.append(f"{spelling} finds {found['path']} and not {place}")
    sys.stdout.write(f"registry: {len(registry)} entries, {names} names, {len(wrong)} differ\n")
    sys.stdout.write("".join(f"  {line}\n" for line in wrong[:20]))
    return len(wrong)


def compare_features(python: str, folder: Path, lab: Lab) -> int:
    """Features and times of every SAE that is shipped, on held-out text."""
    ids = rows(lab.tokenizer, 10, 8)
    read = activations(lab.engine, ids, lab.suite.sites)
    files = {(e.layer, e.kind): e.path for e in lab.suite.entries}
    job = []
    for site in lab.suite.sites:
        np.save(folder / f"{site}.npy", read[site].numpy())
        path = files[site.layer, site.kind]
        job.append({"name": str(site), "path": str(path), "x": str(folder / f"{site}.npy")})
    (folder / "job.json").write_text(json.dumps(job))
    ask(python, "encode", folder / "job.json", folder / "theirs.npz")
    theirs, differ = np.load(folder / "theirs.npz"), 0
    sys.stdout.write("site, largest difference, active in one only, time to open and to encode\n")
    sys.stdout.write("(over SAELens' time)\n")
    for site, item in zip(lab.suite.sites, job, strict=True):
        sae = lab.suite.sae_at(site)
        with torch.inference_mode():
            ours = sae.encode(read[site]).numpy()
            encoding = timed(lambda s=sae, x=read[site]: s.encode(x))
        opening = timed(lambda path=item["path"]: load_sae(path))
        their_opening, their_encoding = theirs[f"{site} ms"]
        other = theirs[str(site)]
        far = float(np.abs(ours - other).max())
        one_only = int(((ours > 0) != (other > 0)).sum())
        differ += far > TOLERANCE
        sys.stdout.write(
            f"{site!s:14} {far:.1e} {one_only:4d} of {int((ours > 0).sum())} "
            f"{opening / their_opening:6.2f} {encoding / their_encoding:6.2f}\n"
        )
    return differ


def main() -> int:
    """Compare everything with the interpreter named as the only argument."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        differ = compare_registry(sys.argv[1], folder)
        differ += compare_features(sys.argv[1], folder, open_lab())
        differ += compare_formats(sys.argv[1], folder)
    return bool(differ)


if __name__ == "__main__":
    sys.exit(main())
