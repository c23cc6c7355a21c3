"""Calibration: points by plain PyTorch, bands by hand, stopping, files, and bad input."""

from __future__ import annotations

import _thread
import json
import math
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from workbench.analysis import strengths as module_under_test
from workbench.analysis.calibration import Calibration, Point
from workbench.analysis.fluency import verdict
from workbench.analysis.strengths import FACTORS, SHARES, STEPS, Control
from workbench.engine.edits import Clamp, Edit, Scale, Steer
from workbench.engine.tracing import Generation
from workbench.lab import Lab
from workbench.sae.suite import Suite
from workbench.sites import Site

PROMPTS = ("Once upon a time", "In addition, Clara and Martin hum the")
FEATURE = (4, 26)
QUICK: dict[str, Any] = {"prompts": PROMPTS, "max_new_tokens": 8, "progress": False}


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


def read_plainly(lab: Lab, text: Generation, layer: int) -> tuple[float, torch.Tensor]:
    """Loss of the new tokens and the residual stream ``(new, d)`` there, by a plain hook."""
    module: Any = lab.engine.module
    seen: list[torch.Tensor] = []

    def keep(_: object, __: object, output: torch.Tensor) -> None:
        seen.append(output[0])

    handle = module.model.layers[layer].register_forward_hook(keep)
    try:
        with torch.no_grad():
            logits = module(input_ids=torch.tensor([text.ids])).logits[0]
    finally:
        handle.remove()
    new = len(text.tokens)
    wanted = torch.tensor(text.ids[-new:])
    loss = torch.nn.functional.cross_entropy(logits[-new - 1 : -1], wanted)
    return float(loss), seen[0][-new:]


@pytest.mark.parametrize(
    ("mode", "strength", "edit"),
    [
        ("steer", 1.5, Steer(FEATURE, 1.5)),
        ("steer", -2.0, Steer(FEATURE, -2.0)),
        ("clamp", 1.0, Clamp(FEATURE, 1.0, unit="max")),
        ("scale", 6.0, Scale((2, 756), 6.0)),
    ],
)
def test_points_are_what_plain_pytorch_finds(
    lab: Lab, mode: Any, strength: float, edit: Edit
) -> None:
    feature = edit.feature  # pyright: ignore[reportAttributeAccessIssue]
    found = lab.calibrate(feature, mode=mode, strengths=[strength], seed=3, **QUICK)
    point = next(p for p in found.points if p.strength == strength)
    texts = [lab.generate(p, edits=[edit], max_new_tokens=8, seed=3) for p in PROMPTS]
    twins = [lab.generate(p, max_new_tokens=8, seed=3) for p in PROMPTS]
    assert [t.ids for t in texts] != [t.ids for t in twins]
    sae = lab.sae(layer=feature[0])
    losses, excesses, effects = [], [], []
    for text, twin in zip(texts, twins, strict=True):
        loss, x = read_plainly(lab, text, feature[0])
        losses.append(loss)
        excesses.append(loss - read_plainly(lab, twin, feature[0])[0])
        effects.append(float(sae.encode(x)[:, feature[1]].mean()))
    maximum = lab.suite.typical_maximum(Site(feature[0]), feature[1])
    assert point.loss == pytest.approx(sum(losses) / 2, rel=1e-4)
    assert point.excess == pytest.approx(sum(excesses) / 2, abs=1e-4)
    assert point.effect == pytest.approx(sum(effects) / 2 / maximum, rel=1e-3, abs=1e-6)
    assert point.error == pytest.approx(abs(effects[0] - effects[1]) / 2 / maximum, abs=1e-4)
    assert point.tokens == sum(len(t.tokens) for t in texts) / 2
    added = [t.receipt.acts[0].relative_norm for t in texts]
    assert point.added == pytest.approx(sum(added) / 2, rel=1e-4)
    assert point.fluent == sum(verdict(e, 0.0) == "fluent" for e in excesses) / 2


def test_the_effect_of_what_the_text_really_holds_is_large(lab: Lab) -> None:
    """A feature of the sea in texts of the sea: so a push must raise the effect of the re-read."""
    found = lab.calibrate(FEATURE, strengths=[2.0], max_new_tokens=20, progress=False)
    plain, pushed = (point.effect for point in found.points)
    assert pushed > plain + 0.1


def test_the_neutral_point_is_the_unsteered_text(lab: Lab) -> None:
    for mode, neutral in (("steer", 0.0), ("scale", 1.0)):
        found = lab.calibrate(FEATURE, mode=mode, strengths=[0.5], **QUICK)  # pyright: ignore[reportArgumentType]
        point = next(p for p in found.points if p.strength == neutral)
        assert (point.excess, point.added) == (0.0, 0.0)
        assert len(found.points) == found.planned == 2


def test_batches_give_what_one_strength_at_a_time_gives(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = [-2.0, -1.0, 1.0, 2.0]
    together: Any = lab.calibrate(FEATURE, strengths=sweep, **QUICK).frame
    monkeypatch.setattr(module_under_test, "ROWS", 1)
    alone: Any = lab.calibrate(FEATURE, strengths=sweep, **QUICK).frame
    assert together.to_numpy() == pytest.approx(alone.to_numpy(), abs=1e-4)
    assert list(together["strength"]) == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert together["loss"].nunique() == 5


def test_controls_name_their_unit_and_range(lab: Lab) -> None:
    def of(mode: Any, suite: Suite) -> Control:
        return Control.of(suite, FEATURE, "res", mode)

    steer, scale = of("steer", lab.suite), of("scale", lab.suite)
    assert (steer.unit, steer.neutral, steer.strengths[-1]) == ("max", 0.0, STEPS[-1])
    assert (scale.unit, scale.neutral, scale.strengths) == ("raw", 1.0, FACTORS)
    assert of("clamp", lab.suite).edits(0.0) == [Clamp(FEATURE, 0.0, unit="max")]
    assert steer.edits(0.0) == scale.edits(1.0) == []
    bare = Suite(None, model="bare")
    bare.use(lab.sae(layer=4), Site(4))
    assert (of("steer", bare).unit, of("steer", bare).strengths[0]) == ("norm", -SHARES[-1])


def test_without_calibration_strengths_are_shares_of_the_norm(lab: Lab) -> None:
    bare = Suite(None, model="bare")
    bare.use(lab.sae(layer=4), Site(4))
    other = wb.open(lab.engine.module, tokenizer=lab.tokenizer, suite=bare)
    found = other.calibrate(FEATURE, strengths=[0.5], **QUICK)
    assert (found.unit, found.effect_unit) == ("norm", "activation")
    assert found.points[-1].added == pytest.approx(0.5, rel=0.2)
    assert "shares of the layer's mean norm" in repr(found)


def made(shares: dict[float, float], **changes: Any) -> Calibration:
    """A calibration with these shares of fluent texts, and effects that grow with strength."""
    points = tuple(
        Point(s, 0.1 + s / 10, 0.001, 1.0, 0.5, 0.0, share, 8.0, 0.1) for s, share in shares.items()
    )
    whole = Calibration(
        model="pocket",
        feature=(1, 2),
        kind="res",
        label="",
        mode="steer",
        unit="max",
        effect_unit="typical maxima",
        neutral=0.0,
        seed=0,
        max_new_tokens=8,
        prompts=("a",),
        planned=len(points),
        points=points,
    )
    return replace(whole, **changes)


@pytest.mark.parametrize(
    ("shares", "band", "best"),
    [
        ({-1: 1, 0: 1, 1: 1, 2: 1}, (-1, 2), 2),
        ({-1: 0.8, 0: 1, 1: 0.9, 2: 0.8}, (0, 1), 1),
        ({-2: 1, -1: 0.5, 0: 1, 1: 0.5, 2: 1}, (0, 0), 0),  # fluent beyond a gap does not count
        ({-1: 1, 0: 0.5, 1: 1}, (0, 0), 0),
        ({-1: 0.875, 0: 0.875, 1: 0.0}, (-1, 0), 0),
        ({0: 1}, (0, 0), 0),
        ({}, (0, 0), 0),
    ],
)
def test_band_by_hand(shares: dict[float, float], band: tuple[float, float], best: float) -> None:
    found = made(shares)
    assert found.band == band
    assert found.best == best
    found.figure()


def test_band_is_around_the_neutral_strength() -> None:
    shares = {-1: 1.0, 0: 0.2, 0.5: 1.0, 1: 1.0, 2: 1.0, 3: 0.1}
    assert made(shares, neutral=1.0, mode="scale", unit="raw").band == (0.5, 2)


def test_best_may_be_a_negative_push_for_the_callers_measure() -> None:
    found = made({-1: 1, 0: 1, 1: 1})
    turned = replace(found, points=tuple(replace(p, effect=-p.effect) for p in found.points))
    assert turned.best == -1
    flat = replace(found, points=tuple(replace(p, effect=0.5) for p in found.points))
    assert flat.best == 0


def test_notes_say_what_to_know() -> None:
    assert made({-1: 0.1, 0: 1, 1: 1, 2: 0}).notes == ()
    assert "stopped after 4 of 9" in made({-1: 0, 0: 1, 1: 1, 2: 0}, planned=9).notes[0]
    assert "fluent as far as was tried at 1" in made({-1: 0, 0: 1, 1: 1}).notes[0]
    assert "try smaller ones" in repr(made({-1: 0, 0: 1, 1: 0}))
    calm = made({-1: 0, 0: 1, 1: 1, 2: 0})
    silent = replace(calm, points=tuple(replace(p, added=0.0) for p in calm.points))
    assert "never acted" in silent.notes[0]
    noisy = replace(calm, points=tuple(replace(p, error=0.5) for p in calm.points))
    assert "may be chance" in noisy.notes[0]
    unknown = replace(calm, points=tuple(replace(p, error=None) for p in calm.points))
    assert unknown.notes == ()


def test_files_come_back_as_they_were(lab: Lab, tmp_path: Path) -> None:
    found = lab.calibrate(FEATURE, strengths=[1.0], **QUICK)
    again = Calibration.open(found.save(tmp_path / "sea.json"))
    assert again == found
    assert again.frame.equals(found.frame)
    assert again.prompts == PROMPTS


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": "workbench-run-1"}', '{"format": "workbench-calibration-1"}'],
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other.json is no workbench-calibration-1 file"):
        Calibration.open(path)


def test_a_file_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    path = made({0: 1}).save(tmp_path / "one.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "blue"}))
    with pytest.raises(ValueError, match="is no"):
        Calibration.open(path)


def test_the_callers_measure_gets_the_texts(lab: Lab) -> None:
    seen: list[list[str]] = []

    def letters(texts: list[str]) -> float:
        seen.append(texts)
        return float(len("".join(texts)))

    found = lab.calibrate(FEATURE, strengths=[1.0], effect=letters, **QUICK)
    twins = [lab.generate(p, max_new_tokens=8).text for p in PROMPTS]
    assert seen[0] == twins
    assert [p.effect for p in found.points] == [len("".join(texts)) for texts in seen]
    assert (found.effect_unit, found.points[0].error) == ("", None)
    with pytest.raises(ValueError, match="finite number for the texts, got nan"):
        lab.calibrate(FEATURE, strengths=[1.0], effect=lambda _: math.nan, **QUICK)


def stop_by_event(stop: threading.Event) -> Callable[[list[str]], float]:
    """Stops from another thread while the second strength is judged."""
    calls = iter(range(100))

    def measure(_: list[str]) -> float:
        if next(calls) == 1:
            threading.Thread(target=stop.set).start()
            stop.wait(5)
        return 0.0

    return measure


def test_a_stopped_sweep_returns_what_it_has(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_under_test, "ROWS", 1)
    stop = threading.Event()
    sweep = [1.0, -1.0, 2.0, -2.0]
    found = lab.calibrate(FEATURE, strengths=sweep, effect=stop_by_event(stop), stop=stop, **QUICK)
    assert [p.strength for p in found.points] == [-1.0, 0.0]  # from the neutral one outwards
    assert found.stopped
    assert "stopped after 2 of 5 strengths" in repr(found)
    nothing = lab.calibrate(FEATURE, strengths=sweep, stop=stop, **QUICK)
    assert (len(nothing.frame), nothing.band, nothing.planned) == (0, (0.0, 0.0), 5)
    assert list(nothing.frame) == list(found.frame)


def test_an_interrupted_kernel_keeps_what_is_done(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_under_test, "ROWS", 1)
    # As in a kernel; a process that was started in the background may be deaf to interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timers: list[threading.Timer] = []

    def interrupt_soon(_: list[str]) -> float:
        if not timers:  # the next strength is being written when it comes
            timers.append(threading.Timer(0.05, _thread.interrupt_main))
            timers[0].start()
        return 0.0

    options = {**QUICK, "max_new_tokens": 60}
    try:
        found = lab.calibrate(FEATURE, strengths=[1.0, 2.0, 3.0], effect=interrupt_soon, **options)
        timers[0].join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert found.stopped
    assert found.points[0].strength == 0.0
    assert lab.generate("Once", max_new_tokens=2).text  # the model is free again


def test_progress_is_shown_unless_it_is_not_wanted(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**QUICK, "strengths": [1.0]}
    lab.calibrate(FEATURE, **options)
    assert capsys.readouterr().err == ""
    lab.calibrate(FEATURE, **{**options, "progress": True})
    assert "2/2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("feature", "options", "error", "match"),
    [
        ((4, 26), {"mode": "ablate"}, ValueError, "mode must be one of 'steer'"),
        ((4, 9999), {}, ValueError, "9999"),
        ((99, 1), {}, ValueError, "layer 99"),
        ("sea", {}, TypeError, "a feature is"),
        ((4, 26), {"kind": "neck"}, ValueError, "neck"),
        ((4, 26), {"strengths": [math.nan]}, ValueError, "finite"),
        ((4, 26), {"strengths": ["much"]}, TypeError, "must be a number"),
        ((4, 26), {"strengths": []}, ValueError, "strengths is empty"),
        ((4, 26), {"prompts": []}, ValueError, "no prompts"),
        ((4, 26), {"prompts": [""]}, ValueError, "empty"),
        ((4, 26), {"max_new_tokens": 0}, ValueError, "at least 1"),
    ],
)
def test_bad_input_is_refused(
    lab: Lab, feature: Any, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        lab.calibrate(feature, **{**QUICK, **options})


def test_a_strength_that_overflows_is_explained(lab: Lab) -> None:
    with pytest.raises(ValueError, match="too strong"):
        lab.calibrate(FEATURE, strengths=[1e38], **QUICK)


def test_the_figure_shows_the_frame(lab: Lab) -> None:
    found = lab.calibrate(FEATURE, strengths=[-1.0, 1.0], **QUICK)
    drawn = json.loads(str(found.figure().to_json()))
    effect, loss, repeated = drawn["data"][:3]
    assert effect["y"] == pytest.approx(list(found.frame["effect"]))
    assert loss["y"] == pytest.approx(list(found.frame["excess"]))
    assert repeated["y"] == pytest.approx(list(found.frame["repetition"]))
    assert "(4, 26)" in drawn["layout"]["title"]["text"]
    assert drawn["layout"]["xaxis3"]["title"]["text"] == "steer by (typical maxima)"
