"""What SAELens says, run by SAELens' own interpreter: it knows nothing of the workbench.

``python sae_lens_side.py registry OUT.json`` writes its registry of Gemma Scope;
``python sae_lens_side.py encode IN.json OUT.npz`` opens SAE files and encodes activations.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig  # pyright: ignore[reportMissingImports]
from sae_lens.loading.pretrained_saes_directory import (  # pyright: ignore[reportMissingImports]
    get_pretrained_saes_directory,
)
from timing import timed  # pyright: ignore[reportMissingImports]


def registry() -> list[dict[str, Any]]:
    """Every entry of Gemma Scope and Gemma Scope 2."""
    rows = []
    for release, found in get_pretrained_saes_directory().items():
        if found.repo_id.startswith("google/gemma-scope-"):
            rows += [
                {
                    "release": release,
                    "id": name,
                    "model": found.model,
                    "repo": found.repo_id,
                    "path": path,
                    "l0": found.expected_l0.get(name),
                    "neuronpedia": found.neuronpedia_id.get(name),
                }
                for name, path in found.saes_map.items()
            ]
    return rows


def opened(path: str) -> JumpReLUSAE:
    """An SAE from a file in Gemma Scope's layout, as SAELens' loader reads one."""
    with np.load(path) as data:
        state = {name: torch.tensor(data[name]).float() for name in data}
    d_in, d_sae = state["W_enc"].shape
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d_in, d_sae=d_sae, apply_b_dec_to_input=False))
    sae.load_state_dict(state)
    return sae


@torch.no_grad()
def encode(job: list[dict[str, str]]) -> dict[str, Any]:
    """Features and times of each file of a job."""
    found: dict[str, Any] = {}
    for item in job:
        x = torch.from_numpy(np.load(item["x"]))
        sae = opened(item["path"])
        found[item["name"]] = sae.encode(x).numpy()
        times = timed(lambda path=item["path"]: opened(path)), timed(lambda s=sae, x=x: s.encode(x))
        found[f"{item['name']} ms"] = np.array(times)
    return found


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    if command == "registry":
        Path(paths[0]).write_text(json.dumps(registry()))
    else:
        np.savez(paths[1], **encode(json.loads(Path(paths[0]).read_text())))
