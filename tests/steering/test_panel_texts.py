"""The panel shows what the lab writes, and the code and files that it gives write it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from steering.panels import OPTIONS, PROMPT, ask, of_code, panel_of, put, send, words

import workbench as wb
from workbench.analysis.fluency import fluency
from workbench.engine.edits import Edit
from workbench.engine.receipts import NoEffectWarning
from workbench.lab import Lab
from workbench.sites import Kind, Site
from workbench.tokens import strings_of

OTHER = "Il était une fois un petit chat qui aimait la musique."
TURNS = [{"role": "user", "content": "Tell me about a boat."}]


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


@pytest.fixture(scope="module")
def chat() -> Lab:
    return wb.open("pocket-it")


def firing(lab: Lab, layer: int, kind: Kind = "res", rank: int = 0) -> int:
    return lab.run(PROMPT).features(layer, kind).top(rank + 1)[rank]


def written(lab: Lab, prompt: Any, edits: list[Edit], **options: Any) -> Any:
    return lab.generate(prompt, edits=edits, **OPTIONS | options)


MODES: dict[str, tuple[dict[str, Any], Callable[[Lab, int, Kind], list[Edit]]]] = {
    "steer": ({"value": 1.5}, lambda _, i, k: [wb.Steer((4, i), 1.5, kind=k)]),
    "clamp": (
        {"mode": "clamp", "value": 2.5},
        lambda _, i, k: [wb.Clamp((4, i), 2.5, kind=k, unit="max")],
    ),
    "scale": ({"mode": "scale", "value": -2.0}, lambda _, i, k: [wb.Scale((4, i), -2.0, kind=k)]),
    "ablate": ({"mode": "ablate"}, lambda _, i, k: [wb.Ablate((4, i), kind=k)]),
    "mean": (
        {"mode": "ablate", "to": "mean"},
        lambda _, i, k: [wb.Ablate((4, i), kind=k, to="mean")],
    ),
    "patch": (
        {"mode": "patch", "other": OTHER},
        lambda lab, i, k: [wb.Patch(Site(4, k), lab.run(OTHER).activation(4, k), features=[i])],
    ),
    "prompt only": (
        {"value": 1.5, "when": "prompt"},
        lambda _, i, k: [wb.Steer((4, i), 1.5, kind=k, when="prompt")],
    ),
    "steps": (
        {"value": 1.5, "when": "steps", "where": "1, 3-4"},
        lambda _, i, k: [wb.Steer((4, i), 1.5, kind=k, steps=[1, 3, 4])],
    ),
    "positions": (
        {"value": 1.5, "when": "positions", "where": "1-2, -1"},
        lambda _, i, k: [wb.Steer((4, i), 1.5, kind=k, positions=[1, 2, -1])],
    ),
}


@pytest.mark.parametrize("kind", ["res", "att", "mlp"])
@pytest.mark.parametrize("mode", MODES)
def test_each_mode_shows_what_the_lab_writes(lab: Lab, mode: str, kind: Kind) -> None:
    changes, edits = MODES[mode]
    index = firing(lab, 4, kind, 1)
    panel = panel_of(lab, (4, index), kind=kind)
    put(panel, 0, **changes)
    send(panel, "run")
    steered = written(lab, PROMPT, edits(lab, index, kind))
    plain = written(lab, PROMPT, [])
    assert words(panel) == list(steered.tokens.strings)
    assert words(panel, "plain") == list(plain.tokens.strings)
    assert of_code(panel).ids == steered.ids
    assert str(steered.receipt.acts[0]) in panel.widget.receipt[0]
    assert panel.widget.warnings == []
    assert max(token["shift"] for token in panel.widget.texts["steered"]) > 1e-4


def test_a_condition_a_splice_and_a_freeze(lab: Lab) -> None:
    index, watched = firing(lab, 4), firing(lab, 2, "mlp")
    panel = panel_of(lab, (4, index), strength=1.5)
    above = {"layer": 2, "kind": "mlp", "index": watched, "value": 0.5}
    put(panel, 0, above=above)
    send(panel, "add_splice", layer=5, kind="mlp")
    send(panel, "freeze", value="att")
    send(panel, "run")
    edits: list[Edit] = [
        wb.When((2, watched), wb.Steer((4, index), 1.5), above=0.5, kind="mlp"),
        wb.Splice(Site(5, "mlp")),
    ]
    frozen = wb.freeze_rest(edits, lab.engine.config, what="att")
    steered = written(lab, PROMPT, [*edits, *frozen])
    assert words(panel) == list(steered.tokens.strings) == list(of_code(panel).tokens.strings)
    assert len(panel.widget.receipt) == 3
    assert "frozen: 3 sites" in panel.widget.receipt[2]
    put(panel, 1, error=True)
    send(panel, "freeze", value="")
    with pytest.warns(NoEffectWarning):
        again = written(lab, PROMPT, [edits[0], wb.Splice(Site(5, "mlp"), error=True)])
    assert words(panel) == list(again.tokens.strings)
    assert "SAE" in panel.widget.rows[1]["label"]
    assert "did not act" in panel.widget.rows[1]["warning"]  # with its error it changes nothing
    assert any("splice" in line and "did not act" in line for line in panel.widget.warnings)


def test_chat_turns_go_through_the_template(chat: Lab) -> None:
    index = chat.run(TURNS).features(5).top(1)[0]
    panel = panel_of(chat, (5, index), prompt=TURNS, strength=1.5, max_new_tokens=8)
    assert panel.widget.chats
    send(panel, "run")
    steered = written(chat, TURNS, [wb.Steer((5, index), 1.5)], max_new_tokens=8)
    assert words(panel) == list(steered.tokens.strings)
    assert of_code(panel).ids == steered.ids
    shown = panel.widget.prompt_tokens
    assert [t["text"] for t in shown] == list(chat.tokens(TURNS).strings)
    assert [t["special"] for t in shown] == list(chat.tokens(TURNS).special)
    assert panel.recipe.turns == tuple(TURNS)


def test_two_runs_with_one_seed_are_equal_and_another_seed_is_not(lab: Lab) -> None:
    panel = panel_of(lab, (4, firing(lab, 4)), strength=1.0)
    send(panel, "run")
    first = panel.widget.texts
    send(panel, "run")
    assert panel.widget.texts == first
    send(panel, "settings", key="seed", value=5)
    assert words(panel) != [t["text"] for t in first["steered"]]
    assert words(panel, "plain") != [t["text"] for t in first["plain"]]
    assert words(panel) == list(of_code(panel).tokens.strings)
    send(panel, "settings", key="temperature", value=0)
    assert words(panel) == list(
        written(lab, PROMPT, [wb.Steer((4, firing(lab, 4)), 1.0)], temperature=0).tokens.strings
    )


def test_shifts_are_divergences_after_the_same_text(lab: Lab) -> None:
    edit = wb.Steer((4, firing(lab, 4)), 2.0)
    panel = panel_of(lab, edit.feature, strength=2.0)
    send(panel, "run")
    steered = written(lab, PROMPT, [edit])
    first, last = len(steered.prompt) - 1, len(steered.ids) - 1
    whole = lab.tokens(list(steered.ids))
    moved = lab.run(whole, edits=[edit]).logits[first:last].log_softmax(-1)
    before = lab.run(whole).logits[first:last].log_softmax(-1)
    tokens = panel.widget.texts["steered"]
    divergence = torch.nn.functional.kl_div(before, moved, log_target=True, reduction="none").sum(
        -1
    )
    entropy = torch.distributions.Categorical(logits=moved).entropy()
    assert [t["shift"] for t in tokens] == pytest.approx(divergence.tolist(), rel=1e-3, abs=1e-4)
    assert [t["entropy"] for t in tokens] == pytest.approx(entropy.tolist(), rel=1e-3, abs=1e-4)
    for i, token in enumerate(tokens):
        chosen = steered.tokens.ids[i]
        assert token["p"] == pytest.approx(float(moved[i, chosen].exp()), rel=1e-3)
        assert token["p_before"] == pytest.approx(float(before[i, chosen].exp()), rel=1e-3)
        best = moved[i].exp().topk(4)
        others = [
            (string, p)
            for token_id, string, p in zip(
                best.indices.tolist(),
                strings_of(lab.tokenizer, best.indices.tolist()),
                best.values.tolist(),
                strict=True,
            )
            if token_id != chosen
        ][:3]
        assert [text for text, _ in token["top"]] == [text for text, _ in others]
        shown = [p for _, p in token["top"]]
        assert shown == pytest.approx([p for _, p in others], rel=1e-3)
    assert "shift" not in panel.widget.texts["plain"][0]


def test_meters_are_those_of_fluency(lab: Lab) -> None:
    edit = wb.Steer((4, firing(lab, 4)), 3.0)
    panel = panel_of(lab, edit.feature, strength=3.0)
    send(panel, "run")
    texts = [written(lab, PROMPT, [edit]), written(lab, PROMPT, [])]
    wanted = fluency(lab.engine, texts, twins=[texts[1]] * 2)
    for name, found in zip(("steered", "plain"), wanted, strict=True):
        meter = panel.widget.meters[name]
        assert meter["verdict"] == found.verdict
        assert meter["loss"] == pytest.approx(found.loss, rel=1e-3)
        assert meter["excess"] == pytest.approx(found.excess, abs=1e-3)
        assert meter["repetition"] == found.repetition


def test_baselines_are_written_beside(lab: Lab) -> None:
    edit = wb.Steer((4, firing(lab, 4)), 2.0)
    panel = panel_of(lab, edit.feature, strength=2.0, baselines=["random"], baseline_prompt="Le")
    send(panel, "run")
    assert [c["id"] for c in panel.widget.columns] == ["steered", "plain", "random"]
    alone = words(panel)
    for name in ("feature", "prompt"):
        send(panel, "baseline", id=name, on=True)
    assert [c["id"] for c in panel.widget.columns] == [
        *("steered", "plain", "random", "feature", "prompt")
    ]
    assert words(panel) == alone
    assert len({tuple(words(panel, c["id"])) for c in panel.widget.columns}) >= 4
    assert set(panel.widget.meters) == {"steered", "plain", "random", "feature", "prompt"}
    prompted = written(lab, f"Le {PROMPT}", [])
    assert words(panel, "prompt") == list(prompted.tokens.strings)
    assert panel.widget.columns[4]["note"] == "Le"
    assert max(t["shift"] for t in panel.widget.texts["random"]) > 1e-3
    assert max(t["shift"] for t in panel.widget.texts["feature"]) > 1e-3
    panel.widget.baseline_prompt = "  "
    send(panel, "run")
    assert [c["id"] for c in panel.widget.columns] == ["steered", "plain", "random", "feature"]
    assert any("needs an instruction" in line for line in panel.widget.warnings)
    send(panel, "baseline", id="random", on=False)
    assert [c["id"] for c in panel.widget.columns] == ["steered", "plain", "feature"]


def test_an_instruction_goes_into_the_first_turn_of_a_chat(chat: Lab) -> None:
    panel = panel_of(
        chat, prompt=TURNS, baselines=["prompt"], baseline_prompt="In French:", max_new_tokens=6
    )
    send(panel, "run")
    turn = {"role": "user", "content": "In French:\n" + TURNS[0]["content"]}
    assert words(panel, "prompt") == list(
        written(chat, [turn], [], max_new_tokens=6).tokens.strings
    )


def test_a_recipe_is_saved_and_opened_with_the_same_text(lab: Lab) -> None:
    panel = panel_of(lab, (4, firing(lab, 4)), strength=1.5)
    send(panel, "add", layer=3, kind="att", index=firing(lab, 3, "att"))
    put(panel, 1, mode="scale", value=-1.0)
    send(panel, "freeze", value="all")
    send(panel, "run")
    sent: list[Any] = []
    panel.widget.send = lambda content, buffers=None: sent.append(content)
    send(panel, "export", what="recipe")
    assert {"type": "exported", "what": "recipe"} in sent
    recipe = panel.widget.recipe
    other = panel_of(lab, prompt="else", seed=9)
    send(other, "open_recipe", text=recipe)
    assert other.recipe == panel.recipe
    send(other, "run")
    assert other.widget.texts == panel.widget.texts
    assert other.widget.rows == panel.widget.rows
    third = lab.steering(recipe=wb.Recipe.from_json(recipe), synchronous=True)
    assert third.widget.code == panel.widget.code
    before = dict(other.widget.rows[0])
    data = json.loads(recipe)
    data["rows"][0]["index"] = 99_999
    assert "99999" in ask(other, "open_recipe", text=json.dumps(data))
    assert "no JSON" in ask(other, "open_recipe", text="{")
    assert other.widget.rows[0] == before
    data = json.loads(recipe)
    data["model"] = "gemma-2-2b"
    send(other, "open_recipe", text=json.dumps(data))  # it runs, and what differs is said
    assert any("gemma-2-2b" in line for line in other.widget.warnings)


def test_a_splice_of_some_features_keeps_them_through_the_panel(lab: Lab) -> None:
    row = wb.Row(id="s", layer=4, mode="splice", keep=(firing(lab, 4), 7))
    recipe = wb.Recipe.of(lab, PROMPT, [row])
    panel = panel_of(lab, recipe=recipe)
    assert panel.recipe.rows == (row,)
    send(panel, "run")
    edits: list[Edit] = [wb.Splice(Site(4), keep=row.keep)]
    wanted = lab.generate(PROMPT, edits=edits, **vars(recipe.settings))
    assert words(panel) == list(wanted.tokens.strings)


def test_the_script_is_exported(lab: Lab) -> None:
    panel = panel_of(lab, (4, firing(lab, 4)), strength=1.5)
    send(panel, "export", what="script")
    assert panel.widget.script == panel.recipe.script(lab)
    compile(panel.widget.script, "steered.py", "exec")
    assert "import workbench" not in panel.widget.script


def test_the_static_twin_has_texts_rows_and_receipt(lab: Lab, tmp_path: Any) -> None:
    panel = panel_of(lab, (4, firing(lab, 4)), strength=1.5, baselines=["random"])
    send(panel, "run")
    page = panel.save_html(tmp_path / "panel.html").read_text(encoding="utf-8")
    twin = panel.widget.static_html()
    for column in ("steered", "plain", "random"):
        assert max(words(panel, column), key=len).strip() in twin
    assert "acted at" in twin
    assert str(firing(lab, 4)) in twin
    assert "acted at" in page
