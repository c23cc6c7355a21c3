"""Recordings of runs: what was found comes back without a model, and bad files are refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import workbench as wb
from workbench.lab import Lab
from workbench.recording import box
from workbench.runs import Run, open_run
from workbench.sites import Site

TEXT = "The capital of France is Paris. Der Hund läuft im Wald."
BEFORE_PARIS = 5
MLP = (4, 17, "mlp")


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


@pytest.fixture(scope="module")
def run(lab: Lab) -> Run:
    """A run of which everything was asked once."""
    run = lab.run(TEXT)
    run.attribution(" Paris", position=BEFORE_PARIS, against=[" London"])
    run.attribution(" Paris", position=BEFORE_PARIS, sites=[Site(3), Site(4)])
    run.causes(feature_of(run), estimate=3)
    run.circuit(" Paris", position=BEFORE_PARIS, layers=[5], k=3)
    run.lens(k=3)
    return run


def feature_of(run: Run) -> tuple[int, int]:
    """A feature that fires on the text."""
    return 3, run.features(3).top(1)[0]


@pytest.fixture(scope="module")
def file(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recordings") / "france.run"
    return run.save(path, evolution=[feature_of(run), MLP])


@pytest.fixture
def opened(file: Path) -> Run:
    return open_run(file)


# ----------------------------------------------------------------------- the same answers


def test_a_recording_has_no_model_at_all(opened: Run) -> None:
    assert (opened.engine, opened.module, opened.suite, opened.dashboard) == (None,) * 4


@pytest.mark.parametrize("kind", ["res", "att", "mlp"])
def test_heatmaps_are_the_same(run: Run, opened: Run, kind: Any) -> None:
    before, after = (one.heatmap([2, 3], kind).widget for one in (run, opened))
    for name in ("values", "features", "orders", "tokens", "title", "subtitle", "masked"):
        assert getattr(after, name) == getattr(before, name), name
    assert "FVU" in opened.heatmap(3, kind).widget.subtitle


def test_a_heatmap_of_a_next_token_is_the_same(run: Run, opened: Run) -> None:
    options: dict[str, Any] = {"token": " Paris", "position": BEFORE_PARIS}
    before, after = (one.heatmap([3, 4], **options).widget for one in (run, opened))
    assert after.effects == before.effects
    assert after.target == before.target == "␣Paris"
    assert any(memoryview(after.effects).cast("f"))
    against = opened.heatmap(3, against=[" London"], **options)
    assert "London" in against.widget.target


def test_evolution_maps_are_the_same(run: Run, opened: Run) -> None:
    features = [feature_of(run), MLP]
    before, after = (one.evolution(features).widget for one in (run, opened))
    for name in ("nodes", "links", "maps", "values", "title", "subtitle", "tokens", "masked"):
        assert getattr(after, name) == getattr(before, name), name
    assert len(after.nodes) == 48


def test_labels_of_kin_that_are_silent_here_are_kept(lab: Lab, tmp_path: Path) -> None:
    run = lab.run("Hello")
    rows = lab.find("language").to_dict("records")
    features = [(row["layer"], row["feature"], row["kind"]) for row in rows[:8]]
    opened = open_run(run.save(tmp_path / "a.run", evolution=features))
    nodes = opened.evolution(features).widget.nodes
    assert nodes == run.evolution(features).widget.nodes
    silent = [
        node["label"]
        for node in nodes
        if not run.features(node["layer"], node["kind"]).of(node["index"]).any()
    ]
    assert any(silent)


def test_a_map_of_a_next_token_is_the_same_where_its_features_are_kept(
    run: Run, tmp_path: Path
) -> None:
    how: dict[str, Any] = {"token": " Paris", "position": BEFORE_PARIS, "k": 3}
    before = run.evolution(**how).widget  # shown once, so kept
    after = open_run(run.save(tmp_path / "a.run")).evolution(**how).widget
    assert after.nodes == before.nodes
    assert [node["attribution"] for node in after.nodes]


def test_tables_are_the_same(run: Run, opened: Run) -> None:
    feature = feature_of(run)
    pd.testing.assert_frame_equal(opened.chain(feature), run.chain(feature))
    pd.testing.assert_frame_equal(opened.lens(k=2), run.lens(k=2))
    before, after = (one.causes(feature, estimate=3) for one in (run, opened))
    pd.testing.assert_frame_equal(after.top(20), before.top(20))
    pd.testing.assert_frame_equal(after.next_tokens(), before.next_tokens())
    assert after.links(5) == before.links(5)
    site = next(iter(before.changes))
    assert torch.equal(
        after.changes[site].tokens.dense(),  # pyright: ignore[reportOptionalMemberAccess]
        before.changes[site].tokens.dense(),  # pyright: ignore[reportOptionalMemberAccess]
    )
    asked: dict[str, Any] = {"position": BEFORE_PARIS, "against": [" London"]}
    before, after = (one.attribution(" Paris", **asked) for one in (run, opened))
    pd.testing.assert_frame_equal(after.to_frame(), before.to_frame())
    assert (after.target, after.score) == (before.target, before.score)
    circuit: dict[str, Any] = {"position": BEFORE_PARIS, "layers": [5], "k": 3}
    assert opened.circuit(" Paris", **circuit).to_json() == next(
        one.to_json() for _, one in run.results.circuits
    )


def test_a_question_is_known_however_it_is_written(run: Run, opened: Run) -> None:
    place = BEFORE_PARIS - len(run.tokens)
    found = opened.attribution(" Paris", position=BEFORE_PARIS, against=" London")
    by_id = opened.attribution(found.target.token, position=place, against=found.target.against)
    assert by_id.score == found.score
    part = opened.attribution(" Paris", position=BEFORE_PARIS, sites=[Site(4)])
    assert list(part.parts) == [Site(4)]
    assert part.score != found.score  # against all tokens, and not against one


LATER = [Site(5), Site(7)]


@pytest.fixture
def asked(lab: Lab) -> Run:
    """A run of which nothing was asked yet."""
    return lab.run("The capital of France is")


def test_causes_are_kept_for_the_sites_that_were_asked(asked: Run, tmp_path: Path) -> None:
    feature = feature_of(asked)
    five = asked.causes(feature, sites=[Site(5)], estimate=2)
    opened = open_run(asked.save(tmp_path / "five.run"))
    kept = opened.causes(feature, sites=[Site(2), Site(5)])  # what is not later counts nowhere
    pd.testing.assert_frame_equal(kept.top(9), five.top(9))
    for sites, words in (
        ([Site(7)], r"at layer 5 res, and not at layer 7 res\. Give sites="),
        (LATER, "at layer 5 res, and not at layer 7 res"),
        (None, r"and not at layer 4 att, .* layer 6 res, 3 more\."),
        ([Site(2)], "and not at a site that is no later"),
    ):
        with pytest.raises(ValueError, match=words):
            opened.causes(feature, sites=sites)


def test_causes_at_other_sites_are_added_to_those_that_are_kept(asked: Run, tmp_path: Path) -> None:
    feature = feature_of(asked)
    live = {site: asked.causes(feature, sites=[site], estimate=2) for site in reversed(LATER)}
    both = asked.causes(feature, sites=LATER, estimate=0)
    asked.causes(feature, sites=[Site(6)], estimate=0)
    opened = open_run(asked.save(tmp_path / "some.run"))
    for site, before in live.items():
        after = opened.causes(feature, sites=[site])
        assert list(after.changes) == [site]
        assert set(after.estimates) == set(before.estimates)
        pd.testing.assert_frame_equal(after.top(9), before.top(9))
    found = opened.causes(feature, sites=LATER)
    assert found.links(9) == both.links(9)
    assert list(found.changes) == LATER


def test_the_default_attribution_is_at_all_the_sites(asked: Run, tmp_path: Path) -> None:
    whole = asked.attribution(" Paris")
    asked.attribution(" Paris", sites=[Site(3)])
    opened = open_run(asked.save(tmp_path / "a.run"))
    assert list(opened.attribution(" Paris").parts) == list(whole.parts)
    pd.testing.assert_frame_equal(opened.attribution(" Paris").top(9), whole.top(9))
    assert list(opened.attribution(" Paris", sites=[Site(3)]).parts) == [Site(3)]


def test_tokens_that_are_digits_stay_texts(lab: Lab, tmp_path: Path) -> None:
    run = lab.run("1234")
    before = run.lens(k=1)
    assert all(token.isdigit() for token in before["token"][before["position"] > 0])
    before["says"] = [str(i % 10) for i in range(len(before))]  # as the dates and numbers may be
    path = run.save(tmp_path / "digits.run")
    pd.testing.assert_frame_equal(open_run(path).lens(k=1), before, check_exact=True)
    text = before.to_json(orient="split")  # as it was written before
    old = _changed(
        tmp_path / "old.run", path, lambda header, _: header["lenses"].update({"1": text})
    )
    pd.testing.assert_frame_equal(open_run(old).lens(k=1), before)


def test_what_edits_did_stays_known(lab: Lab, tmp_path: Path) -> None:
    edited = lab.run(TEXT, edits=[wb.Ablate(feature_of(lab.run(TEXT)))])
    opened = open_run(edited.save(tmp_path / "edited.run"))
    assert opened.receipt == edited.receipt
    assert opened.receipt.acts[0].acted
    assert opened.edited == (repr(edited.edits[0]),)
    again = open_run(opened.save(tmp_path / "again.run"))
    assert again.edited == opened.edited


def test_a_recording_saved_again_is_the_same(opened: Run, file: Path, tmp_path: Path) -> None:
    again = opened.save(tmp_path / "again.run")
    with safe_open(file, "pt") as first, safe_open(again, "pt") as second:
        assert set(first.keys()) == set(second.keys())
        headers = [json.loads(one.metadata()["header"]) for one in (first, second)]
        assert headers[0] == headers[1]
        for name in first.keys():  # noqa: SIM118 (not a dict)
            assert torch.equal(first.get_tensor(name), second.get_tensor(name)), name


def test_a_light_recording_draws_everything(run: Run, file: Path, tmp_path: Path) -> None:
    path = run.save(tmp_path / "light.run", light=True)
    assert path.stat().st_size < 0.7 * file.stat().st_size
    light = open_run(path)
    assert light.heatmap(3).widget.values == run.heatmap(3).widget.values
    assert light.evolution(feature_of(run)).widget.nodes
    assert light.logits.shape == (len(run.tokens), 0)
    with pytest.raises(ValueError, match="light recording, which has features only"):
        light.activation(3)


def test_copied_code_opens_the_recording(opened: Run) -> None:
    panel = opened.heatmap(3, k=4)
    names: dict[str, Any] = {}
    exec(panel.widget.code.replace("run.heatmap(", "copy = run.heatmap("), names)
    assert names["copy"].widget.values == panel.widget.values
    assert names["run"].engine is None


# ------------------------------------------------------------------- what it cannot answer


def test_what_is_not_kept_is_named_with_what_is(run: Run, opened: Run) -> None:
    layer, index = feature_of(run)
    with pytest.raises(
        ValueError, match=rf"keeps the way of .*layer {layer} res {index}.*evolution"
    ):
        opened.evolution((3, 1))
    with pytest.raises(ValueError, match=r"keeps: to ' Paris' after token 5 \(2 sites\)|24 sites"):
        opened.attribution(" London", position=BEFORE_PARIS)
    with pytest.raises(ValueError, match="a recorded run has no model to differentiate"):
        opened.attribution(" Paris", position=BEFORE_PARIS, sites=[Site(0, "embed")])
    with pytest.raises(ValueError, match=rf"causes that it keeps: layer {layer} res {index}"):
        opened.causes(feature_of(run), how=2.0)
    with pytest.raises(ValueError, match="circuits that it keeps: to ' Paris'"):
        opened.circuit(" Paris", position=BEFORE_PARIS, k=4)
    with pytest.raises(ValueError, match="it keeps the lens with k=3"):
        opened.lens(k=4)
    with pytest.raises(ValueError, match="has no model to run again"):
        opened.evolution(feature_of(run)).ablate(feature_of(run))
    with pytest.raises(ValueError, match="no model to run: attribute again"):
        opened.attribution(" Paris", position=BEFORE_PARIS, against=" London").check()


def test_the_page_is_told_what_is_not_kept(run: Run, opened: Run) -> None:
    panel = opened.evolution(feature_of(run), synchronous=True)
    known = [(Site(4, "mlp"), 17)]
    other = next(n for n, node in enumerate(panel._nodes) if node not in [*known, *panel.features])
    before = panel.widget.nodes
    for message, said in (("centre", "keeps the way of"), ("open", "has no dashboards")):
        panel.widget._handle_custom_msg({"type": message, "node": other}, [])
        assert said in panel.widget.error
        assert panel.widget.busy == ""
    assert panel.widget.nodes == before


def test_a_feature_that_does_not_exist_leaves_no_file(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="feature index 99999"):
        run.save(tmp_path / "a.run", evolution=[(3, 99999)])
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------- bad files


def _old(path: Path, run: Run) -> None:
    """A recording as the first version wrote it, by its own words."""
    features = run.features(3)
    tensors = {
        "ids": torch.tensor(run.tokens.ids),
        "logits": run.logits.contiguous(),
        "activation/res/3": run.activation(3).contiguous(),
        "features/res/3/positions": features.positions,
        "features/res/3/indices": features.indices,
        "features/res/3/values": features.values,
        "features/res/3/d_sae": torch.tensor(features.d_sae),
    }
    header = {
        "format": "workbench-run-1",
        "model": "pocket",
        "strings": json.dumps(run.tokens.strings),
        "special": json.dumps(run.tokens.special),
        "labels": json.dumps({"res/3/5": "five"}),
    }
    save_file(tensors, path, header)


def test_recordings_of_the_first_version_open(run: Run, tmp_path: Path) -> None:
    _old(tmp_path / "old.run", run)
    opened = open_run(tmp_path / "old.run")
    assert opened.tokens == run.tokens
    assert opened.sites == (Site(3),)
    assert torch.equal(opened.features(3).dense(), run.features(3).dense())
    assert opened.label(Site(3), 5) == "five"
    with pytest.raises(ValueError, match="keeps the way of no feature"):
        opened.evolution((3, 5))


def _changed(path: Path, file: Path, change: Callable[[dict, dict], object]) -> Path:
    """A copy of a recording with another header or other tensors."""
    with safe_open(file, "pt") as opened:
        said = dict(opened.metadata())
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    header = json.loads(said["header"])
    change(header, tensors)
    save_file(tensors, path, {**said, "header": json.dumps(header)})
    return path


DAMAGES: dict[str, Callable[[dict, dict], object]] = {
    "no texts": lambda header, tensors: header.pop("strings"),
    "one text too few": lambda header, tensors: header["strings"].pop(),
    "no ids": lambda header, tensors: tensors.pop("ids"),
    "no indices": lambda header, tensors: tensors.pop("features/res/3/indices"),
    "a feature beyond the last": lambda header, tensors: tensors["features/res/3/indices"].fill_(
        10**6
    ),
    "a token before the first": lambda header, tensors: tensors["features/res/3/positions"].fill_(
        -1
    ),
    "a shorter column": lambda header, tensors: tensors.update(
        {"features/res/3/values": torch.ones(1)}
    ),
    "an unknown kind": lambda header, tensors: header["lineages"][0].update(origin=[3, "resid", 1]),
    "no effects": lambda header, tensors: tensors.pop("attribution/0/res/3/effects"),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damaged_recordings_are_refused(file: Path, tmp_path: Path, damage: str) -> None:
    bad = _changed(tmp_path / "bad.run", file, DAMAGES[damage])
    with pytest.raises(ValueError, match=r"bad\.run is a saved run, but damaged: .*Save it again"):
        open_run(bad)


def test_other_files_are_refused(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    for name, content in (
        ("cut", whole[: len(whole) // 2]),
        ("short", whole[:4]),
        ("empty", b""),
        ("text", b"hello " * 100),
        ("pickle", pickle.dumps({"a": 1})),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is not a saved run, or was cut off"):
            open_run(path)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere\.run"):
        open_run(tmp_path / "nowhere.run")
    with pytest.raises(IsADirectoryError, match="is a folder, and a saved run is one file"):
        open_run(tmp_path)
    save_file(
        {"x": torch.zeros(1)}, tmp_path / "new", {"format": "workbench-run-9", "header": "{}"}
    )
    with pytest.raises(ValueError, match=r"newer workbench \(workbench-run-9\).*update"):
        open_run(tmp_path / "new")


def test_what_was_there_stays_if_writing_fails(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "kept.run"
    target.write_bytes(file.read_bytes())

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(box, "save_file", full)
    with pytest.raises(OSError, match="no space left"):
        run.save(target)
    assert target.read_bytes() == file.read_bytes()
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_is_unpickled(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a recording was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert open_run(file).tokens


def test_the_edited_copy_of_a_run_has_its_own_results(run: Run) -> None:
    from workbench.panels.evolution_maps import with_edits

    edited = with_edits(run, [wb.Ablate(feature_of(run))])
    assert run.results.attributions
    assert edited.results.attributions == []
    assert edited.results.lineages == run.results.lineages
    assert replace(run).results is run.results
