"""A recipe comes back as it was, and says what does not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from steering.small_lab import PROMPT, TURNS, write_small_lab

import workbench as wb
from workbench.lab import Lab
from workbench.recipes.recipe import Recipe, RecipeError, Settings
from workbench.recipes.rows import Above, Row, acting, places
from workbench.recipes.saes import rows_hash
from workbench.sites import Site

ROWS = (
    Row(id="a", layer=1, index=3, value=2.0),
    Row(
        id="b", layer=0, kind="att", index=4, mode="clamp", value=1.0, when="steps", where="0, 2-3"
    ),
    Row(
        id="c", layer=2, kind="mlp", index=5, mode="scale", value=0.5, above=Above(0, "res", 6, 0.2)
    ),
    Row(id="d", layer=1, kind="transcoder", index=7, mode="ablate", to="mean", muted=True),
    Row(
        id="e",
        layer=1,
        index=8,
        mode="patch",
        other="It was night",
        when="positions",
        where="1, -1",
    ),
    Row(id="f", layer=2, mode="splice", drop=(1, 2), error=True, when="generated"),
)
SETTINGS = Settings(max_new_tokens=6, temperature=0.7, top_p=0.9, seed=3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_small_lab(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def lab(folders: tuple[Path, Path]) -> Lab:
    return wb.open(str(folders[0]), suite=folders[1])


@pytest.fixture
def recipe(lab: Lab) -> Recipe:
    return Recipe.of(lab, PROMPT, ROWS, SETTINGS, freeze="att")


@pytest.mark.parametrize("prompt", [PROMPT, list(TURNS), "\n \u201c<bos>\U0001f642"])
def test_a_recipe_comes_back_equal(lab: Lab, tmp_path: Path, prompt: Any) -> None:
    recipe = Recipe.of(lab, prompt, ROWS, SETTINGS, freeze="all")
    found = wb.open_recipe(recipe.save(tmp_path / "steered.json"))
    assert found == recipe
    assert found.text == prompt
    assert found.problems(lab) == []
    assert [str(row) for row in found.rows] == [str(row) for row in ROWS]


def test_rows_become_the_edits_they_say(lab: Lab) -> None:
    edits = Recipe.of(lab, PROMPT, ROWS, SETTINGS).edits(lab)
    other = lab.run("It was night").activation(1)
    wanted = [
        wb.Steer((1, 3), 2.0),
        wb.Clamp((0, 4), 1.0, kind="att", unit="max", steps=(0, 2, 3)),
        wb.When((0, 6), wb.Scale((2, 5), 0.5, kind="mlp"), above=0.2),
        wb.Patch(Site(1), other, features=[8], positions=[1, -1]),
        wb.Splice(Site(2), drop=[1, 2], error=True, when="generated"),
    ]
    assert len(edits) == len(wanted)  # the muted row is none
    pairs: Any = zip(edits, wanted, strict=True)
    for got, want in pairs:
        if isinstance(want, wb.Patch):
            assert isinstance(got, wb.Patch)
            assert torch.equal(got.activation, want.activation)
            assert (got.site, got.features, got.scope) == (want.site, want.features, want.scope)
        else:
            assert got == want


def test_solo_counts_alone_and_resting_rows_do_not(lab: Lab) -> None:
    solo = (replace(ROWS[0], solo=True), *ROWS[1:])
    assert acting(solo) == solo[:1]
    assert [row.id for row in acting(ROWS)] == ["a", "b", "c", "e", "f"]
    resting = (replace(ROWS[0], value=0.0), replace(ROWS[2], value=1.0), ROWS[1])
    assert Recipe(model="m", rows=resting).counting == (ROWS[1],)


@pytest.mark.parametrize("freeze", ["", "att", "all"])
@pytest.mark.parametrize("prompt", [PROMPT, list(TURNS)])
def test_the_code_writes_the_same_text(
    lab: Lab, folders: tuple[Path, Path], freeze: str, prompt: Any, capsys: pytest.CaptureFixture
) -> None:
    recipe = Recipe.of(lab, prompt, ROWS, SETTINGS, freeze=freeze)
    names: dict[str, Any] = {}
    exec(recipe.code(lab), names)
    wanted = lab.generate(prompt, edits=recipe.edits(lab), **vars(SETTINGS))
    assert names["written"].ids == wanted.ids
    assert names["written"].text in capsys.readouterr().out
    assert wanted.ids != lab.generate(prompt, **vars(SETTINGS)).ids
    assert repr(str(folders[1])) in recipe.code(lab)  # else the model's own SAEs would be opened


def changed(recipe: Recipe, change: Callable[[dict[str, Any]], object]) -> str:
    data = json.loads(recipe.to_json())
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(version=2), ["version 2 .* reads 1"]),
        (lambda d: d.pop("format"), ["format is None"]),
        (lambda d: d.update(format="workbench-run-1"), ["format is 'workbench-run-1'"]),
        (lambda d: d["rows"][1].update(mode="push"), ["row 1: mode .*'push'"]),
        (lambda d: d["rows"][1].pop("layer"), ["row 1: 'layer' is missing"]),
        (lambda d: d["rows"][0].update(strength=3), ["row 0: 'strength' is unknown"]),
        (lambda d: d["rows"][0].update(value="2"), ["row 0: 'value' is '2' and must be float"]),
        (lambda d: d["rows"][0].update(value=float("nan")), ["row 0: value .* finite"]),
        (lambda d: d["rows"][0].update(layer=True), ["row 0: 'layer' is True"]),
        (lambda d: d["rows"][1].update(where="x"), ["row 1: places .* 'x'"]),
        (lambda d: d["rows"][0].update(index=-1), ["row 0: feature must be 0 or more"]),
        (lambda d: d["settings"].update(top_p=2), ["settings: top_p .* 2"]),
        (lambda d: d["settings"].update(seed=1.5), ["settings: 'seed' is 1.5"]),
        (lambda d: d.update(rows="all"), ["rows is 'all'"]),
        (lambda d: d.update(freeze="some"), ["freeze .*'some'"]),
        (lambda d: d.update(turns=[{"role": "system", "content": "x"}]), ["no system turn"]),
        (lambda d: d.update(turns=[{"role": "assistant", "content": "x"}]), ["alternate"]),
        (
            lambda d: (d["rows"][0].update(mode="push"), d["rows"][2].pop("id"), d.update(x=1)),
            ["row 0: mode", "row 2: 'id' is missing", "'x' is unknown"],
        ),
    ],
)
def test_a_file_that_is_no_recipe_says_all_that_is_wrong(
    recipe: Recipe, tmp_path: Path, change: Callable, says: list[str]
) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(changed(recipe, change), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        wb.open_recipe(path)
    assert len(caught.value.problems) == len(says)
    for problem, said in zip(caught.value.problems, says, strict=True):
        assert_matches(said, problem)


def assert_matches(pattern: str, text: str) -> None:
    import re

    assert re.search(pattern, text), f"{pattern!r} is not in {text!r}"


def test_a_file_that_is_no_recipe_is_named(tmp_path: Path) -> None:
    for name, content, said in (
        ("photo.jpg", bytes(range(128, 256)), "it is no text"),
        ("list.json", b"[]", "its format is 'list'"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RecipeError, match=f"{name} cannot be read as a recipe: {said}"):
            wb.open_recipe(tmp_path / name)
    with pytest.raises(IsADirectoryError, match="is a folder, and a saved recipe is one file"):
        wb.open_recipe(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*: give the path of a saved"):
        wb.open_recipe(tmp_path / "nowhere.json")


@pytest.mark.parametrize("text", ["", "{", "[1, 2", '{"format": "workbench-recipe", "version": 1'])
def test_broken_json_says_where(text: str) -> None:
    with pytest.raises(RecipeError, match=r"no JSON: .* line 1, column \d+"):
        Recipe.from_json(text)


def test_another_model_a_missing_sae_and_a_feature_out_of_range_are_listed(
    lab: Lab, recipe: Recipe
) -> None:
    other = replace(recipe, model="gemma-2-2b")
    assert_matches("made with 'gemma-2-2b' and this lab", "\n".join(other.problems(lab)))

    beyond = (Row(id="x", layer=9, index=1), Row(id="y", layer=1, index=40))
    found = replace(recipe, rows=beyond, saes=()).problems(lab)
    assert len(found) == 2
    assert_matches("feature index 40: .* has features 0 to 39", found[0])
    assert_matches("layer 9 does not exist: the model has 3 layers", found[1])

    bare = Lab(lab.engine)
    assert_matches("this lab has no SAEs", bare_problems := "\n".join(recipe.problems(bare)))
    assert bare_problems.count("\n") + 1 == len(recipe.saes)


def test_other_weights_and_other_maxima_are_listed(lab: Lab, recipe: Recipe) -> None:
    one = next(used for used in recipe.saes if used.site == Site(1))
    rest = tuple(used for used in recipe.saes if used.site != Site(1))
    assert one.features == (3, 8)
    sae = lab.sae(layer=1)

    def with_row(index: int) -> list[str]:
        W_dec = sae.W_dec.clone()
        W_dec[index, 0] += 1e-3
        suite = wb.Suite(lab.suite.root, model="other")
        suite.use(replace(sae, W_dec=W_dec), Site(1))
        return recipe.problems(Lab(lab.engine, suite))

    weights, maxima = with_row(3)
    assert_matches("SAE at layer 1 res has other weights", weights)
    assert_matches("those of the SAE at layer 1 res are not measured here", maxima)
    assert with_row(4) == [maxima]  # a row that the recipe does not use
    assert one.unit is not None
    twice = replace(one, unit=(one.unit[0] * 2, one.unit[1]))
    found = replace(recipe, saes=(*rest, twice)).problems(lab)
    assert len(found) == 1
    assert_matches("feature 3 of layer 1 res has a typical maximum .* 0.50 times", found[0])


def test_the_hash_is_of_every_weight_that_is_used(lab: Lab) -> None:
    sae = lab.sae(layer=1)
    before = rows_hash(sae, [3]), rows_hash(sae, None)
    assert before[0] != rows_hash(sae, [4])
    for name in ("W_enc", "b_enc", "W_dec", "threshold"):
        tensor = getattr(sae, name).clone()
        (tensor[:, 3] if name == "W_enc" else tensor[3:4]).add_(1e-4)
        other = replace(sae, **{name: tensor})
        assert rows_hash(other, [3]) != before[0], name
        assert rows_hash(other, None) != before[1], name
        assert rows_hash(other, [4]) == rows_hash(sae, [4]), name
    assert rows_hash(sae.to(dtype=torch.float64), [3]) == before[0]


def test_a_prompt_that_does_not_fit_is_listed(lab: Lab, recipe: Recipe) -> None:
    assert_matches("prompt: .* context is 64", replace(recipe, prompt="x" * 99).problems(lab)[0])
    assert_matches("prompt is empty", replace(recipe, prompt="").problems(lab)[0])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"value": float("inf")}, "value must be finite, got inf"),
        ({"kind": "resid"}, "unknown kind"),
        ({"mode": "patch", "when": "generated"}, "a patch acts on the prompt"),
        ({"mode": "splice", "above": Above(0, "res", 1, 0.0)}, "takes no condition"),
        ({"when": "positions", "where": ""}, "places are written like"),
        ({"when": "positions", "where": "5-2"}, "smaller number first"),
    ],
)
def test_rows_that_cannot_be_are_refused(row: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Row(**{"id": "a", "layer": 0, "index": 1} | row)


def test_a_patch_without_its_text_says_so(lab: Lab) -> None:
    with pytest.raises(ValueError, match="row a: a patch needs the other text"):
        Row(id="a", layer=0, index=1, mode="patch").edit(lab)


def test_places() -> None:
    assert places("0-3, 7,1 , -2--1") == (0, 1, 2, 3, 7, -2, -1)


def test_a_script_of_pocket_runs_alone_and_holds_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hf_" + "s" * 34
    monkeypatch.setenv("HF_TOKEN", secret)
    lab = wb.open("pocket-it")
    turns = [{"role": "user", "content": "Tell me about a boat."}]
    index = lab.run(turns).features(5).top(1)[0]
    recipe = Recipe.of(lab, turns, [Row(id="a", layer=5, index=index, value=1.0)], SETTINGS)
    script = tmp_path / "steered.py"
    script.write_text(recipe.script(lab), encoding="utf-8")
    assert secret not in recipe.script(lab) + recipe.to_json() + recipe.code(lab)
    done = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", "steered.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1"},
    )
    wanted = lab.generate(turns, edits=recipe.edits(lab), **vars(SETTINGS))
    *text, ids = done.stdout.splitlines()
    assert json.loads(ids) == list(wanted.ids)
    assert "\n".join(text) == wanted.text
    assert wanted.ids != lab.generate(turns, **vars(SETTINGS)).ids
    # It is in the environment that runs this test, so that it was not imported says something.
    assert "| transformers" in done.stderr
    assert "| workbench" not in done.stderr
    assert "| nnsight" not in done.stderr
