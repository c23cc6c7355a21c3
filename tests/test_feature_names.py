"""A feature is named `(layer, index)` everywhere, and whatever else comes is refused alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from workbench.lab import Lab
from workbench.labels import Label, Labels
from workbench.runs import Run
from workbench.sites import Site

CALLS: dict[str, Callable[[Lab, Run, Any], object]] = {
    "run.evolution": lambda lab, run, feature: run.evolution(feature),
    "run.causes": lambda lab, run, feature: run.causes(feature),
    "run.lineage": lambda lab, run, feature: run.lineage(feature),
    "lab.dashboard": lambda lab, run, feature: lab.dashboard(feature),
    "lab.lineage": lambda lab, run, feature: lab.lineage(feature),
    "lab.reading": lambda lab, run, feature: lab.reading(feature),
    "lab.logit_effects": lambda lab, run, feature: lab.logit_effects(feature),
    "lab.calibrate": lambda lab, run, feature: lab.calibrate(feature),
    "lab.steering": lambda lab, run, feature: lab.steering("Anna", features=[feature]),
    "lab.autolabel": lambda lab, run, feature: lab.autolabel([feature]),
    "lab.labels.set": lambda lab, run, feature: lab.labels.set(feature, "x"),
    "lab.labels.note": lambda lab, run, feature: lab.labels.note(feature, "x"),
    "wb.Steer": lambda lab, run, feature: wb.Steer(feature, 1.0),
}


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


@pytest.fixture(scope="module")
def run(lab: Lab) -> Run:
    return lab.run("Anna loved the boat.")


@pytest.mark.parametrize("feature", [(5, 2.5), (5, "231"), (5,), 5, "5,231", (True, 1)], ids=repr)
@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_feature_is_refused(lab: Lab, run: Run, call: str, feature: object) -> None:
    with pytest.raises(TypeError, match=r"a feature is \(layer, index\), such as \(5, 231\); got"):
        CALLS[call](lab, run, feature)


@pytest.mark.parametrize("call", sorted(CALLS.keys() - {"wb.Steer"}))
def test_a_feature_that_does_not_exist_is_refused(lab: Lab, run: Run, call: str) -> None:
    with pytest.raises(ValueError, match="0 to 1023"):
        CALLS[call](lab, run, (5, 1024))
    assert "x" not in lab.labels.labelled().values()


def test_an_imported_label_of_no_feature_is_not_found_elsewhere(lab: Lab, tmp_path: Path) -> None:
    before = lab.labels
    with Labels(tmp_path / "mine.sqlite", model="pocket") as mine:
        try:
            lab.labels = mine
            mine.add_all(
                [Label(Site(7), 1024, "giraffe", "manual"), Label(Site(5), 1024, "zebra", "manual")]
            )
            mine.set((5, 3), "zebra stripes")
            found = lab.search("zebra")
            assert found[["layer", "kind", "feature"]].values.tolist() == [[5, "res", 3]]
            assert lab.search("giraffe").empty
        finally:
            lab.labels = before


def test_search_knows_the_labels_in_use(lab: Lab, tmp_path: Path) -> None:
    before = lab.labels
    stores = [Labels(tmp_path / f"{name}.sqlite", model="pocket") for name in "ab"]
    try:
        for store, index, text in zip(stores, (1, 2), ("zebra", "lemon"), strict=True):
            lab.labels = store
            store.set((3, index), text)
            assert lab.search(text)["feature"].tolist() == [index]
        assert lab.search("zebra").empty
    finally:
        lab.labels = before
        for store in stores:
            store.close()


@pytest.mark.parametrize("layer", ["57", True, 5.0, (5, "res"), [5.0]], ids=repr)
def test_a_heatmap_refuses_what_is_no_layer(run: Run, layer: Any) -> None:
    with pytest.raises(TypeError, match="layer must be a whole number"):
        run.heatmap(layer)


def test_a_site_that_was_not_read_has_no_badge(run: Run) -> None:
    with pytest.raises(ValueError, match="layer 9 res is not in this run"):
        run.badge(9)
