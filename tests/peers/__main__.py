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
from typing import Any

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
WRONG_MODEL = {"gemma-scope-9b-it-res": "gemma-2-9b"}
"""Releases registered with another model than their repository names (SAELens' loader goes by the
repository)."""
WRONG_L0 = {"gemma-scope-9b-pt-res-canonical/layer_20/width_524k/canonical": 78}
"""L0s stated beside a folder that names another: this one's is average_l0_48."""


def ask(python: str, command: str, *paths: Path) -> None:
    """Run the other side."""
    subprocess.run([python, str(SIDE), command, *map(str, paths)], check=True)


def compare_registry(python: str, folder: Path) -> int:
    """Whether catalogue and registry name the same SAEs, with all names, L0s and models."""
    ask(python, "registry", folder / "registry.json")
    registry = json.loads((folder / "registry.json").read_text())
    ours = {(row["repo"], row["path"]): row for row in catalog().to_dict("records")}
    wrong, names, l0s, slipped = [], 0, 0, set[str]()
    for row in registry:
        place = row["repo"], row["path"]
        if place not in ours:
            wrong.append(f"{place} is missing")
            continue
        wrong += stated(row, ours[place])
        l0s += bool(row["l0"])
        spellings = {f"{row['release']}/{row['id']}", "/".join(place), row["neuronpedia"]} - {None}
        slipped |= spellings & SLIPPED
        names += len(spellings - SLIPPED)
        for spelling in sorted(spellings - SLIPPED):
            try:
                found = catalog_entry(spelling)
            except ValueError as error:
                wrong.append(str(error))
                continue
            if (found["repo"], found["path"]) != place:
                wrong.append(f"{spelling} finds {found['path']} and not {place}")
    only_here = ours.keys() - {(row["repo"], row["path"]) for row in registry}
    # The registry has one transcoder of each layer of Gemma Scope, the catalogue more.
    wrong += [f"{place} is not in the registry" for place in only_here if not more(ours[place])]
    sys.stdout.write(
        f"registry: {len(registry)} entries of {len(ours) - len(only_here)} SAEs, {names} names, "
        f"{l0s} L0s, {len(wrong)} differ; {len(only_here)} transcoders are here alone\n"
        f"mistakes of the registry: {', '.join(sorted(slipped))} belong to other SAEs; "
        f"{', '.join(f'{k} is registered with {v}' for k, v in (WRONG_MODEL | WRONG_L0).items())}\n"
    )
    sys.stdout.write("".join(f"  {line}\n" for line in wrong[:20]))
    return len(wrong)


def stated(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """What an entry of the registry states otherwise than the catalogue. Its L0 may be 0: none."""
    name = f"{theirs['release']}/{theirs['id']}"
    model = theirs["model"].removeprefix("google/")
    wrong = []
    if model != WRONG_MODEL.get(theirs["release"], ours["model"]):
        wrong.append(f"{name} has model {model} and not {ours['model']}")
    if theirs["l0"] not in (0, ours["l0"], WRONG_L0.get(name)):
        wrong.append(f"{name} has L0 {theirs['l0']} and not {ours['l0']}")
    if theirs["release"].endswith("-canonical") > ours["canonical"]:
        wrong.append(f"{name} is not canonical here")
    return wrong


def more(row: dict[str, Any]) -> bool:
    """Whether an SAE is one of those that only the catalogue has."""
    return row["repo"] == "google/gemma-scope-2b-pt-transcoders"


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
