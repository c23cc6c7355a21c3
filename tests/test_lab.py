"""What a user does first, on the shipped model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from workbench.lab import Lab
from workbench.panels.jobs import LatestJob
from workbench.runs import Run, open_run


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


@pytest.fixture(scope="module")
def run(lab: Lab) -> Run:
    return lab.run("Once upon a time there was a boat in the harbour.")


def test_saes_and_labels_are_tables(lab: Lab) -> None:
    assert list(lab.saes.columns) == ["layer", "kind", "width", "l0", "path"]
    assert len(lab.saes) == 24
    found = lab.find("language:")
    assert len(found) > 3
    assert found["score"].is_monotonic_decreasing


def test_unknown_names_are_answered_with_near_ones(lab: Lab) -> None:
    with pytest.raises(ValueError, match=r"no feature .*language:hu"):
        lab.feature("language:xx")
    with pytest.raises(ValueError, match=r"labelled 'German'; known, nearest first: language:de, "):
        lab.feature("German")
    wrong: Any = 3
    for ask in (lab.feature, lab.find):
        with pytest.raises(TypeError, match="label is a text, got 3"):
            ask(wrong)
    with pytest.raises(ValueError, match=r"no SAE at layer 8 res; it has kinds .*, layers 0 to 7"):
        lab.sae(layer=8)
    with pytest.raises(TypeError, match="l0 must be a number, got 'x'"):
        lab.sae(layer=5, l0="x")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"no SAE at layer 3 res of width 16k; it has kinds"):
        lab.sae(layer=3, width="16k")
    with pytest.raises(ValueError, match="layer 9"):
        lab.relatives((9, 1))


@pytest.mark.parametrize("prompt", ["", [], "   " * 400])
def test_impossible_prompts_are_refused(lab: Lab, prompt: str) -> None:
    with pytest.raises((ValueError, TypeError), match="prompt"):
        lab.run(prompt)


@pytest.mark.parametrize("prompt", ["🙂", "Привет, мир", "日本", "a", "<bos>x", "\n\n"])
def test_any_text_can_be_run(lab: Lab, prompt: str) -> None:
    found = lab.run(prompt)
    assert found.tokens.ids[0] == 2
    assert found.tokens.ids.count(2) == 1
    assert found.top(3).notna().all(axis=None)


def test_heatmap_is_the_features(run: Run) -> None:
    import numpy as np

    panel = run.heatmap(3, k=6)
    values = np.frombuffer(panel.widget.values, np.float32).reshape(len(run.tokens), 6)
    assert values == pytest.approx(run.features(3).columns(panel.features).numpy())
    panel.widget.selected = [4, 2]
    assert panel.selected == (4, 3, panel.features[2], "res")


def test_evolution_holds_itself_and_its_relatives(lab: Lab, run: Run) -> None:
    index = run.features(3).top(1)[0]
    panel = run.evolution((3, index))
    assert len(panel.lineage.kin) == 24
    own = panel.lineage.kin[panel.widget.maps[0]["origin"]]
    assert (own.site.layer, own.index, own.cosine) == (3, index, 1.0)
    table = lab.relatives((3, index))
    assert list(table["feature"]) == [one.index for one in panel.lineage.kin]


@pytest.mark.parametrize("prompt", ["Vidám halak 🐟 úsznak.", [2, 7, 300]])
def test_copied_code_draws_the_same_pictures(lab: Lab, prompt: str | list[int]) -> None:
    run = lab.run(prompt)
    for panel in (run.heatmap(3, k=4), run.evolution((3, run.features(3).top(1)[0]))):
        scope: dict = {"wb": wb}
        *opening, call = panel.widget.code.split("\n")
        exec("\n".join(opening), scope)
        exec(f"copy = {call}", scope)
        assert scope["run"].tokens.ids == run.tokens.ids
        assert scope["copy"].widget.values == panel.widget.values


def test_recording_replays_the_heatmap_without_a_model(run: Run, tmp_path: Path) -> None:
    opened = open_run(run.save(tmp_path / "boat.run"))
    assert opened.heatmap(3).widget.values == run.heatmap(3).widget.values
    with pytest.raises(ValueError, match="a recorded run has no SAEs"):
        opened.evolution((3, 1))


def test_one_edit_that_is_no_list_is_named(lab: Lab) -> None:
    with pytest.raises(TypeError, match="edits is a list, such as"):
        lab.generate("A boat", edits=wb.Steer((3, 0), 1.0))  # pyright: ignore[reportArgumentType]


def test_sites_are_a_list_of_sites(lab: Lab) -> None:
    wrong: list[Any] = [[5], 5, wb.Site(5), "5", [(5, "res")]]
    for sites in wrong:
        with pytest.raises(TypeError, match=r"sites is a list of sites, such as \[wb\.Site\(5\)\]"):
            lab.run("A boat", sites=sites)


def test_what_is_no_sae_is_refused(lab: Lab) -> None:
    wrong: list[Any] = ["x", None, wb.Site(5)]
    for sae in wrong:
        for ask in (lab.use, lab.check):
            with pytest.raises(
                TypeError, match=r"an open SAE is needed, such as lab\.sae\(layer=5\)"
            ):
                ask(sae)


def test_a_steering_panel_says_what_it_holds(lab: Lab) -> None:
    panel = lab.steering("A boat", [(3, 7)], strength=2.0)
    assert repr(panel) == "<Steering of pocket: 'A boat', 3 res 7 steer 2 × max>"
    assert repr(lab.steering()) == "<Steering of pocket: '', no edit>"


def test_a_sweep_takes_lists_of_edits(lab: Lab) -> None:
    wrong: list[Any] = [[wb.Steer((3, 0), 1.0)], wb.Steer((3, 0), 1.0), ["ab"]]
    for each in wrong:
        with pytest.raises(
            TypeError, match=r"each variant is a list of edits: \[\[\], \[wb\.Steer"
        ):
            lab.sweep("A boat", each)


@pytest.mark.parametrize("name", [None, 5, []])
def test_what_names_no_model_is_refused(name: Any) -> None:
    with pytest.raises(TypeError, match=r"name is a model's name .*, a folder, or .*; got"):
        wb.open(name)


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match=r"wb\.open has no 'devise'\. Did you mean 'device'\?"):
        wb.open(devise="cpu")


def test_a_folder_may_be_a_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds neither config"):
        wb.open(tmp_path)


def test_panels_name_the_option_that_was_meant(lab: Lab, run: Run) -> None:
    with pytest.raises(TypeError, match=r"Steering has no 'strenght'\. Did you mean 'strength'\?"):
        lab.steering("A boat", strenght=2.0)
    with pytest.raises(TypeError, match=r"App has no 'promt'\. Did you mean 'prompt'\?"):
        lab.app(promt="A boat")
    with pytest.raises(TypeError, match=r"Heatmap has no 'foo'\. Allowed: .*kind"):
        run.heatmap(foo=1)


@pytest.mark.parametrize("prompt", [None, 42, b"abc"])
def test_what_is_no_prompt_of_a_panel_is_refused(lab: Lab, prompt: Any) -> None:
    with pytest.raises(ValueError, match=r"a text, or a list of chat turns such as .*; got"):
        lab.steering(prompt)
    with pytest.raises(TypeError, match=r"prompt is a text, got .*; lab\.run takes ids"):
        lab.app(prompt)


@pytest.mark.parametrize("strength", ["6", None, [1], True, torch.tensor(1.0)])
def test_a_strength_is_what_an_edit_takes(lab: Lab, strength: Any) -> None:
    with pytest.raises(TypeError, match="strength must be a number, got"):
        wb.Steer((3, 0), strength)
    with pytest.raises(TypeError, match="strength must be a number, got"):
        lab.steering(strength=strength)
    with pytest.raises(TypeError, match="value must be a number, got"):
        lab.steering("A boat", [(3, 0)]).record([strength])


def test_a_count_is_a_whole_number(run: Run) -> None:
    wrong: list[Any] = ["3", None, 2.5, True]
    for k in wrong:
        with pytest.raises(TypeError, match="k must be a whole number, got"):
            run.top(5, k=k)


def test_latest_job_wins() -> None:
    import threading

    done: list[int] = []
    started = threading.Event()

    def job(number: int):  # noqa: ANN202
        def work(stop: threading.Event) -> None:
            started.set()
            stop.wait(5 if number == 0 else 0)
            done.append(number)

        return work

    errors: list[BaseException] = []
    jobs = LatestJob(errors.append)
    jobs.submit(job(0))
    started.wait(5)
    for number in (1, 2, 3):
        jobs.submit(job(number))
    assert jobs.join(10)
    assert done == [0, 3]
    assert errors == []


ENDING = """
import sys, threading, time
from workbench.panels.jobs import Errands, LatestJob

def fail(error):
    raise error

begun, runner, errands = threading.Event(), LatestJob(fail), Errands(fail)

def job(stop):
    begun.set()
    stop.wait(60)
    print("stopped", flush=True)

runner.submit(job)
errands.submit(lambda: (time.sleep(0.5), print("written", flush=True)))
begun.wait(60)
"""


def test_the_end_of_the_program_waits_for_its_threads() -> None:
    """A thread that is still in torch when Python ends aborts the program with a core dump."""
    done = subprocess.run(
        [sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=50, check=True
    )
    assert sorted(done.stdout.split()) == ["stopped", "written"]


def test_a_loaded_module_needs_a_tokenizer_and_takes_no_options(lab: Lab) -> None:
    module = lab.engine.module
    with pytest.raises(ValueError, match="give its tokenizer="):
        wb.open(module)
    with pytest.raises(ValueError, match="got quantization"):
        wb.open(module, tokenizer=lab.tokenizer, quantization="8bit")
    again = wb.open(module, tokenizer=lab.tokenizer, suite=lab.suite)
    assert again.generate("Once", max_new_tokens=3, seed=1).ids == (
        lab.generate("Once", max_new_tokens=3, seed=1).ids
    )


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gemma-2-2b", "gemma-2-2b"),
        ("gemma-2-2b-it", "gemma-2-2b"),
        ("gemma-2-9b-it", "gemma-2-9b-it"),
        ("gemma-3-1b-it", "gemma-3-1b-it"),
        ("someone/model", None),
    ],
)
def test_a_tuned_model_without_saes_gets_those_of_its_base(lab: Lab, name, model) -> None:
    from dataclasses import replace

    from workbench.lab.opening import _suite

    suite = _suite(replace(lab.engine, name=name), None, None, None, torch.float32)
    assert (suite.model if suite else None) == model
    asked = _suite(lab.engine, "google/gemma-2-9b", None, None, torch.float32)
    assert asked is not None
    assert asked.model == "gemma-2-9b"
