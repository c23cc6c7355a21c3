"""``python -m tests.benchmarks.training``: the figures of tutorial 07, for other seeds and texts.

1. JumpReLU, TopK and ReLU are trained side by side as there, then measured on texts that they were
   not trained on and marked by pocket's true concepts.
2. Of the TopK's features that tell German sentences from English ones with the best score, the one
   that `Lab.contrast` puts first and the strongest: how many other sites have kin of each, and what
   it writes. The texts are printed, since their language is best judged by reading.

A number as the argument is that of the seeds (``python -m tests.benchmarks.training 2``); each
takes some two minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import islice, product
from typing import Any

import workbench as wb
from workbench.lab import Lab
from workbench.pocket.corpus import documents
from workbench.pocket.found import concepts_found
from workbench.sae import SAE
from workbench.training.config import Activation

LAYER = 3
KINDS: dict[str, Activation] = {"JumpReLU": "jumprelu", "TopK": "topk", "ReLU": "relu"}
COMMON: dict[str, Any] = {"d_sae": 512, "target_l0": 16, "steps": 600, "batch_size": 1024}
COMMON |= {"lr": 4e-3, "dead_tokens": 60_000, "revive_every": 50, "log_every": 10}
PEOPLE = ("Anna", "Martin", "Clara", "Daniel")
GERMAN = ("das Boot", "die Stadt", "den Garten", "das Haus")
ENGLISH = ("the boat", "the city", "the garden", "the house")


def texts(seed: int, count: int) -> list[str]:
    """Documents of pocket's generator."""
    return [one.text for one in islice(documents(seed), count)]


def measured(lab: Lab, seed: int) -> tuple[dict[str, SAE], Any]:
    """The SAEs of one seed, and a row of figures for each."""
    configs = {
        name: wb.TrainConfig(activation=kind, seed=seed, **COMMON) for name, kind in KINDS.items()
    }
    training = lab.train_saes(texts(101 + 10 * seed, 600), configs, layer=LAYER, reuse=6, seed=seed)
    saes = training.wait()
    held_out = [text[:400] for text in texts(102 + 10 * seed, 24)]
    table: Any = training.evaluate(held_out)[["l0", "fvu", "recovered", "scale", "dead"]]
    return saes, table.join(_marks(lab, saes))


def _marks(lab: Lab, saes: Mapping[str, SAE]) -> Any:
    """Of each SAE: concepts found, and the mean score, of tokens and of stretches."""
    marks: Any = concepts_found(lab.engine, saes)
    found = marks[list(saes)].ge(marks["limit"], axis=0).groupby(marks["of"]).sum().T
    means = marks.groupby("of")[list(saes)].mean().T
    return found.add_suffix(" found").join(means.add_suffix(" score"))


def german(lab: Lab) -> Any:
    """Features that tell German from English with the best score; by `Lab.contrast`."""
    sides = [
        [f"{who} {verb} {what}." for who, what in product(PEOPLE, things)]
        for verb, things in (("sieht", GERMAN), ("sees", ENGLISH))
    ]
    frame: Any = lab.contrast(*sides, layers=[LAYER], progress=False).frame
    return frame[frame["score"] == frame["score"].max()]


def followed(lab: Lab, index: int) -> str:
    """Kin of a feature at other sites, and what it writes."""
    kin: Any = lab.lineage((LAYER, index)).to_frame()
    others = kin[(kin["layer"] != LAYER) | (kin["kind"] != "res")]
    edit = wb.Steer((LAYER, index), 0.6, unit="norm")
    text = str(lab.generate("Once upon a time", edits=[edit], max_new_tokens=30, seed=1))
    related = f"kin at {others['counts'].sum()} of {len(others)} other sites"
    return f"feature {index}: {related}; writes {text!r}"


def main() -> None:
    """Print the table and the texts of each seed."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    for seed in range(seeds):
        lab = wb.open("pocket")
        saes, table = measured(lab, seed)
        print(f"\nseed {seed}\n{table.round(3).to_string()}")
        lab.use(saes["TopK"])
        best = german(lab)
        print("  first:    ", followed(lab, int(best["feature"].iloc[0])))
        print("  strongest:", followed(lab, int(best.nlargest(1, "positive")["feature"].iloc[0])))


if __name__ == "__main__":
    main()
