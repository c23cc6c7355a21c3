"""An exported script writes, without workbench, what the lab writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import byte_tokenizer, random_sae
from steering.small_lab import KINDS, PROMPT, TURNS, write_small_lab
from transformers import LlamaConfig, LlamaForCausalLM

import workbench as wb
from workbench.engine.edits import Edit
from workbench.lab import Lab
from workbench.recipes.recipe import Recipe, Settings
from workbench.recipes.rows import MODES, Above, Row
from workbench.recipes.standalone import standalone_script
from workbench.sae import SAE
from workbench.sae.suite import Suite
from workbench.sites import Kind, Site
from workbench.tokens import Prompt

GREEDY = Settings(max_new_tokens=12, temperature=0.0)
SAMPLED = Settings(max_new_tokens=12, temperature=1.3, top_p=0.9, seed=5)
OTHER = "It was a dark and stormy night, "
BLOCK = """
import sys
class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("workbench", "nnsight", "sae_lens"):
            raise ImportError(f"{name} must not be imported here")
sys.meta_path.insert(0, Refuses())
"""
RUNNER = (
    BLOCK
    + """
import contextlib, io, json, runpy
names = sys.argv[1:]
for name in names:
    sys.argv = [name]
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_path(name, run_name="__main__")
        found = out.getvalue().splitlines()[-1]
    except BaseException as error:
        found = json.dumps(f"{type(error).__name__}: {error}")
    print(json.dumps([name, json.loads(found)]), flush=True)
"""
)


def run_scripts(folder: Path, scripts: dict[str, str]) -> dict[str, list[int] | str]:
    """What each script prints last, all of them in one interpreter that cannot see workbench."""
    for name, text in scripts.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    (folder / "runner.py").write_text(RUNNER, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "runner.py", *(f"{name}.py" for name in scripts)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {Path(name).stem: ids for name, ids in rows}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    model, suite = write_small_lab(tmp_path_factory.mktemp("small"))
    return wb.open(str(model), suite=suite)


def active(lab: Lab, layer: int, kind: Kind, rank: int = 0) -> int:
    """A feature that fires on the prompt."""
    return lab.run(PROMPT).features(layer, kind).top(3)[rank]


def rows_of(lab: Lab, mode: str, kind: Kind) -> list[Row]:
    """Rows that use a mode at a kind of site of the middle layer."""
    row = Row(id="a", layer=1, kind=kind, index=active(lab, 1, kind), value=1.5)
    if mode == "condition":
        above = Above(0, "mlp", active(lab, 0, "mlp"), 0.5)
        return [replace(row, above=above, value=3.0)]
    if mode == "scale":
        return [replace(row, mode="scale", value=-1.0)]
    if mode == "ablate":
        return [
            replace(row, mode="ablate"),
            replace(row, id="b", index=active(lab, 1, kind, 1), mode="ablate"),
        ]
    if mode == "patch":
        return [replace(row, mode="patch", other=OTHER)]
    if mode == "splice":
        return [replace(row, mode="splice", index=-1, unit="max", value=0.0)]
    return [replace(row, mode=mode)]  # pyright: ignore[reportArgumentType]


@dataclass
class Case:
    script: str
    ids: tuple[int, ...]
    plain: tuple[int, ...]


def case(lab: Lab, prompt: Prompt, edits: Sequence[Edit], settings: Settings) -> Case:
    options = vars(settings)
    lab.prepare(edits)
    script = standalone_script(lab.engine, lab.suite, prompt, edits, **options)
    steered = lab.generate(prompt, edits=edits, **options)
    return Case(script, steered.ids, lab.generate(prompt, **options).ids)


def recipe_case(
    lab: Lab, prompt: Prompt, rows: list[Row], settings: Settings, freeze: str = ""
) -> Case:
    recipe = Recipe.of(lab, prompt, rows, settings, freeze=freeze)
    found = case(lab, recipe.text, recipe.edits(lab), settings)
    return replace(found, script=recipe.script(lab))


CASES: list[tuple[str, Kind]] = [
    (mode, kind)
    for mode in (*MODES, "condition")
    for kind in KINDS
    if (mode, kind) != ("patch", "transcoder")  # a transcoder's input is only read
]


def odd_saes(lab: Lab) -> dict[str, SAE]:
    """SAEs of other families: what they compute is not only a JumpReLU."""
    sae = lab.sae(layer=1)
    relu = replace(sae, activation="relu", threshold=None)
    return {
        "relu": relu,
        "topk": replace(relu, activation="topk", k=6),
        "centred": replace(sae, apply_b_dec_to_input=True),
        "layer-norm": replace(sae, normalize="layer_norm"),
        "constant-norm": replace(relu, normalize="constant_norm"),
    }


def llama_lab(folder: Path) -> Lab:
    """Another architecture, whose transcoders read after the norm's gain."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
    module = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), initializer_range=1.0, **sizes, **heads)
    )
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    suite = Suite(None, model="llama")
    for number, kind in enumerate(KINDS):
        site = Site(1, kind)
        suite.use(random_sae(site, site.width(module.config), 50 + number, d_out=24), site)
    return wb.open(str(folder), suite=suite)


ODD = ("relu", "topk", "centred", "layer-norm", "constant-norm")


@pytest.fixture(scope="module")
def written(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Case, object]]:
    """Every case and what its script printed, in one interpreter: torch is slow to load."""
    cases: dict[str, Case] = {}
    for mode, kind in CASES:
        for name, settings in (("greedy", GREEDY), ("sampled", SAMPLED)):
            rows = rows_of(lab, mode, kind)
            cases[f"{mode}-{kind}-{name}"] = recipe_case(lab, PROMPT, rows, settings)
    f = active(lab, 1, "res")
    steer = Row(id="a", layer=1, index=f, value=2.0)
    splice = Row(id="s", layer=1, mode="splice")
    mlp = Row(id="m", layer=1, kind="mlp", index=active(lab, 1, "mlp"), value=2.0)
    transcoder = replace(mlp, id="t", kind="transcoder", index=active(lab, 1, "transcoder"))
    more = {
        "turns": (TURNS, [steer], ""),
        "two-bos": ("<bos><bos>Once", [steer], ""),
        "prompt-only": (PROMPT, [replace(steer, when="prompt")], ""),
        "generated-only": (PROMPT, [replace(steer, when="generated")], ""),
        "positions": (PROMPT, [replace(steer, when="positions", where="0-2, -1")], ""),
        "steps": (PROMPT, [replace(steer, when="steps", where="0, 2-4")], ""),
        "norm": (PROMPT, [replace(steer, unit="norm", value=1.0)], ""),
        "raw-clamp": (PROMPT, [replace(steer, unit="raw", mode="clamp", value=9.0)], ""),
        "mean": (PROMPT, [replace(steer, mode="ablate", to="mean")], ""),
        "patch-positions": (
            PROMPT,
            [replace(steer, mode="patch", other="Tom", when="positions", where="1,2,9")],
            "",
        ),
        "keep": (PROMPT, [replace(splice, keep=(1, f, 7))], ""),
        "drop": (PROMPT, [replace(splice, drop=(1, f, 7))], ""),
        "keep-error": (PROMPT, [replace(splice, keep=(1, f, 7), error=True)], ""),
        "drop-error": (PROMPT, [replace(splice, drop=(1, f, 7), error=True)], ""),
        "transcoder-drop": (
            PROMPT,
            [replace(splice, kind="transcoder", drop=(transcoder.index,))],
            "",
        ),
        "one-site": (PROMPT, [mlp, transcoder, replace(splice, kind="mlp", keep=(1, 2, 3))], ""),
        "many": (
            PROMPT,
            [
                replace(steer, id=str(i), layer=i % 3, index=active(lab, i % 3, "res", i // 3))
                for i in range(9)
            ],
            "",
        ),
        "freeze-att": (PROMPT, [replace(steer, layer=0, index=active(lab, 0, "res"))], "att"),
        "freeze-all": (PROMPT, [mlp, transcoder], "all"),
        "to-the-end": ("x" * 58, [steer], ""),
    }
    for name, (prompt, rows, freeze) in more.items():
        cases[name] = recipe_case(lab, prompt, rows, SAMPLED, freeze)
    # What has no row in a recipe and is an edit all the same.
    edit = wb.Steer((1, f), 2.0)
    whole = wb.Patch(Site(1, "mlp"), lab.run(OTHER).activation(1, "mlp"), positions=[1, 3, 40])
    cases["ids"] = case(lab, [2, 70, 80, 90], [edit], SAMPLED)
    cases["activation"] = case(lab, PROMPT, [whole], SAMPLED)
    cases["no-edit"] = case(lab, PROMPT, [], SAMPLED)
    for name, sae in odd_saes(lab).items():
        odd = Suite(None, model="small")
        odd.use(sae, Site(1))
        other = Lab(lab.engine, odd)
        edits = [wb.Steer((1, 3), 4.0, unit="raw"), wb.Scale((1, 5), -2.0), wb.Clamp((1, 7), 9.0)]
        cases[name] = case(other, PROMPT, edits, SAMPLED)
        cases[f"{name}-splice"] = case(other, PROMPT, [wb.Splice(Site(1), drop=[3])], SAMPLED)
        patch = wb.Patch(Site(1), lab.run(OTHER).activation(1), features=[3, 5])
        cases[f"{name}-patch"] = case(
            other, PROMPT, [patch, wb.Splice(Site(1), drop=[1], error=True)], SAMPLED
        )
    llama = llama_lab(tmp_path_factory.mktemp("llama"))
    for kind in KINDS:
        steer, index = wb.Steer((1, 3), 9.0, kind=kind, unit="raw"), 5
        cases[f"llama-{kind}"] = case(
            llama, PROMPT, [steer, wb.Scale((1, index), -3.0, kind=kind)], SAMPLED
        )
    scripts = {name: one.script for name, one in cases.items()}
    printed = run_scripts(tmp_path_factory.mktemp("scripts"), scripts)
    return {name: (one, printed[name]) for name, one in cases.items()}


NAMES = [f"{mode}-{kind}-{how}" for mode, kind in CASES for how in ("greedy", "sampled")] + [
    *("turns", "ids", "two-bos", "prompt-only", "generated-only", "positions", "steps", "norm"),
    *("raw-clamp", "mean", "patch-positions", "keep", "drop", "keep-error", "drop-error"),
    *("transcoder-drop", "one-site", "many", "freeze-att", "freeze-all", "to-the-end"),
    *("activation", "no-edit"),
    *(f"llama-{kind}" for kind in KINDS),
    *(f"{name}{more}" for name in ODD for more in ("", "-splice", "-patch")),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_script_prints_the_same_ids_as_the_lab(name: str, written: dict) -> None:
    one, printed = written[name]
    assert printed == list(one.ids)


def test_every_case_is_asked_for_and_most_change_the_text(written: dict) -> None:
    assert set(NAMES) == set(written)
    same = [name for name, (one, _) in written.items() if one.ids == one.plain]
    assert len(same) <= 0.1 * len(written), same


def test_a_script_that_no_editor_would_open_is_refused(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.recipes.standalone.LARGEST", 10_000)
    whole, few = wb.Splice(Site(1)), wb.Splice(Site(1), drop=[3], error=True)
    with pytest.raises(ValueError, match=r"MB of weights .* needs the whole SAE"):
        standalone_script(lab.engine, lab.suite, PROMPT, [whole])
    assert len(standalone_script(lab.engine, lab.suite, PROMPT, [few])) < 16_000


def test_a_script_holds_the_needed_rows_and_only_the_code_that_it_needs(lab: Lab) -> None:
    plain = standalone_script(lab.engine, lab.suite, PROMPT, [wb.Steer((1, 3), 1.0)])
    rich = standalone_script(
        lab.engine, lab.suite, PROMPT, [wb.When((0, 2), wb.Steer((1, 3), 1.0)), wb.Splice(Site(2))]
    )
    for word in ("above", "splice", "FROZEN", "ACTIVATIONS", "TURNS", "normalize", "topk", "# if"):
        assert word not in plain, word
    assert "above" in rich
    assert "splice" in rich
    assert "'features': [3]" in plain
    assert len(plain) < 14_000
    assert "workbench" not in plain.split('"""')[2]
