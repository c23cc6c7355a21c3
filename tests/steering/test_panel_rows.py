"""Rows as a person works them: add, set, mute, solo, move, remove, search; and what cannot be."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from steering.panels import OPTIONS, PROMPT, ask, of_code, panel_of, put, send, words

import workbench as wb
from workbench.lab import Lab
from workbench.sae.suite import Suite
from workbench.sites import Site


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


@pytest.fixture(scope="module")
def found(lab: Lab) -> list[int]:
    """Features of layer 4 that fire on the prompt."""
    return lab.run(PROMPT).features(4).top(4)


def written(lab: Lab, *edits: Any) -> list[str]:
    return list(lab.generate(PROMPT, edits=edits, **OPTIONS).tokens.strings)


def test_rows_are_added_muted_soloed_moved_and_removed(lab: Lab, found: list[int]) -> None:
    panel = panel_of(lab, (4, found[0]), strength=1.5)
    send(panel, "run")
    one, two = wb.Steer((4, found[0]), 1.5), wb.Steer((4, found[1]), 2.0)
    assert words(panel) == written(lab, one)

    send(panel, "add", layer=4, kind="res", index=found[1])
    assert [row["index"] for row in panel.widget.rows] == found[:2]
    assert panel.widget.rows[1]["value"] == 0
    assert words(panel) == written(lab, one)
    put(panel, 1, value=2.0)
    assert words(panel) == written(lab, one, two)

    put(panel, 0, muted=True)
    assert words(panel) == written(lab, two)
    assert any("muted" in line for line in panel.widget.receipt)
    assert of_code(panel).tokens.strings == tuple(words(panel))
    put(panel, 0, muted=False, solo=True)
    assert words(panel) == written(lab, one)
    assert any("not on solo" in line for line in panel.widget.receipt)
    put(panel, 0, solo=False)

    ids = [row["id"] for row in panel.widget.rows]
    send(panel, "move", id=ids[1], to=0)
    assert [row["id"] for row in panel.widget.rows] == ids[::-1]
    assert panel.widget.code.index(str(found[1])) < panel.widget.code.index(str(found[0]))
    send(panel, "remove", id=ids[0])
    assert [row["index"] for row in panel.widget.rows] == [found[1]]
    assert words(panel) == written(lab, two)
    send(panel, "remove", id=ids[1])
    assert words(panel) == written(lab) == words(panel, "plain")
    assert "no edit" in panel.widget.receipt[0]
    send(panel, "add", layer=4, kind="res", index=found[2])
    assert len({row["id"] for row in panel.widget.rows}) == 1


def test_a_mode_brings_its_own_slider(lab: Lab, found: list[int]) -> None:
    panel = panel_of(lab, (4, found[0]))
    row = panel.widget.rows[0]
    assert (row["low"], row["high"], row["unit"]) == (-4.0, 4.0, "× max")
    assert row["modes"] == ["steer", "clamp", "scale", "ablate", "patch"]
    put(panel, 0, mode="scale")
    row = panel.widget.rows[0]
    assert (row["value"], row["neutral"], row["unit"], row["slider"]) == (1.0, 1.0, "×", True)
    put(panel, 0, mode="ablate")
    assert not panel.widget.rows[0]["slider"]
    put(panel, 0, mode="clamp")
    row = panel.widget.rows[0]
    assert (row["value"], row["unit"], row["slider"]) == (1.0, "× max", True)
    assert "(v − f) · d" in row["formula"]


def test_units_are_of_the_norm_where_nothing_is_calibrated(lab: Lab, found: list[int]) -> None:
    suite = Suite(None, model="pocket")
    suite.use(lab.sae(layer=4), Site(4))
    bare = Lab(lab.engine, suite)
    panel = panel_of(bare, (4, found[0]), strength=0.5)
    assert panel.widget.rows[0]["unit"] == "× norm"
    send(panel, "run")
    wanted = bare.generate(PROMPT, edits=[wb.Steer((4, found[0]), 0.5, unit="norm")], **OPTIONS)
    assert words(panel) == list(wanted.tokens.strings)
    dead = [(s, int(i)) for s in lab.suite.sites for i in (lab.suite.maxima(s) <= 0).nonzero()]
    site, index = dead[0]  # it never fired in the calibration text, and has no typical maximum
    send(panel := panel_of(lab), "add", layer=site.layer, kind=site.kind, index=index)
    assert panel.widget.rows[0]["unit"] == "× norm"


def test_a_slider_reaches_as_far_as_its_value(lab: Lab, found: list[int]) -> None:
    assert panel_of(lab, (4, found[0]), strength=9.0).widget.rows[0]["high"] == 9.0
    row = panel_of(lab, (4, found[0]), low=-1, high=2).widget.rows[0]
    assert (row["low"], row["high"]) == (-1, 2)


def test_the_tested_range_is_drawn_for_features_that_were_tested(lab: Lab) -> None:
    tested = lab.edit_for("topic:music")
    panel = panel_of(lab, tested.feature, (3, 0))
    assert panel.widget.rows[0]["safe"] == [0.0, tested.strength]
    assert panel.widget.rows[0]["label"] == lab.suite.label(tested.site, tested.index) != ""
    assert panel.widget.rows[1]["safe"] is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"when": "positions"}, "places are written like"),
        ({"when": "steps", "where": "7-2"}, "smaller number first"),
        ({"mode": "patch"}, "give the text that the patch takes"),
        ({"mode": "patch", "other": "x", "when": "generated"}, "a patch acts on the prompt"),
        (
            {"above": {"layer": 7, "kind": "res", "index": 1, "value": 0.0}},
            "condition",
        ),
    ],
)
def test_a_row_that_says_nothing_yet_is_marked_and_left_out(
    lab: Lab, found: list[int], values: dict[str, Any], says: str
) -> None:
    panel = panel_of(lab, (4, found[0]), (4, found[1]), strength=1.5)
    put(panel, 1, **values)
    assert says in panel.widget.rows[1]["warning"]
    send(panel, "run")
    assert words(panel) == written(lab, wb.Steer((4, found[0]), 1.5))
    assert any(says in line for line in panel.widget.warnings)
    assert of_code(panel).tokens.strings == tuple(words(panel))
    put(panel, 1, mode="steer", value=0.5, when="both", above=None)
    assert panel.widget.rows[1]["warning"] == ""


def test_an_edit_that_never_acted_is_a_warning(lab: Lab, found: list[int]) -> None:
    never = {"layer": 4, "kind": "res", "index": found[1], "value": 1e6}
    panel = panel_of(lab, (4, found[0]), strength=1.5)
    put(panel, 0, above=never)
    send(panel, "run")
    assert "did not act" in panel.widget.rows[0]["warning"]
    assert "did not act" in panel.widget.warnings[0]
    assert "did not act" in panel.widget.receipt[0]
    put(panel, 0, above=None)
    send(panel, "run")
    assert panel.widget.rows[0]["warning"] == ""
    assert panel.widget.warnings == []


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"name": "set", "key": "value", "value": float("nan")}, "value is nan"),
        ({"name": "set", "key": "value", "value": 1e300}, "value is 1e+300"),
        ({"name": "set", "key": "value", "value": "2"}, "value is '2'"),
        ({"name": "set", "key": "mode", "value": "push"}, "mode is 'push'"),
        ({"name": "set", "key": "layer", "value": 3}, "key is 'layer'"),
        ({"name": "settings", "key": "top_p", "value": 7}, "top_p is 7"),
        ({"name": "settings", "key": "seed", "value": 0.5}, "seed is 0.5"),
        ({"name": "settings", "key": "temperature", "value": float("inf")}, "temperature is inf"),
        ({"name": "add", "layer": 4, "kind": "res", "index": 99_999}, "features 0 to 1023"),
        ({"name": "add", "layer": 40, "kind": "res", "index": 1}, "layer 40 does not exist"),
        ({"name": "add", "layer": 4, "kind": "transcoder", "index": 1}, "no SAE at layer 4"),
        ({"name": "add", "layer": 4, "kind": "resid", "index": 1}, "unknown kind"),
        ({"name": "add_splice", "layer": 4, "kind": "embed"}, "it must be 0 for 'embed'"),
        ({"name": "freeze", "value": "some"}, "'some'"),
        ({"name": "remove", "id": "nobody"}, "'nobody'"),
        ({"name": "open_recipe", "text": "[]"}, "this recipe cannot be read"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_half_done(
    lab: Lab, found: list[int], message: dict[str, Any], says: str
) -> None:
    panel = panel_of(lab, (4, found[0]), strength=1.5)
    send(panel, "run")
    before = (panel.recipe, panel.widget.texts, panel.widget.receipt, panel.widget.code)
    name = message["name"]
    fields = {key: value for key, value in message.items() if key != "name"}
    if name == "set":
        fields["id"] = panel.widget.rows[0]["id"]
    assert says in ask(panel, name, **fields)
    assert (panel.recipe, panel.widget.texts, panel.widget.receipt, panel.widget.code) == before
    send(panel, "run")
    assert panel.widget.texts == before[1]


@pytest.mark.parametrize(
    ("traits", "says"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": "x " * 400}, "context is 256"),
        ({"turns": [{"role": "assistant", "content": "Hi"}]}, "alternate"),
    ],
)
def test_a_prompt_that_cannot_be_is_said_and_the_old_texts_stay(
    lab: Lab, found: list[int], traits: dict[str, Any], says: str
) -> None:
    panel = panel_of(lab, (4, found[0]), strength=1.5)
    send(panel, "run")
    before = panel.widget.texts
    panel.widget.set_state(traits)
    assert says in ask(panel, "run")
    assert panel.widget.texts == before
    assert panel.widget.status["state"] == "done"


def test_a_system_turn_is_refused_with_the_reason(lab: Lab) -> None:
    turns = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]
    with pytest.raises(ValueError, match="Gemma has no system turn"):
        panel_of(lab, prompt=turns)
    panel = panel_of(lab)
    with pytest.raises(Exception, match="no system turn"):
        panel.widget.turns = turns


def test_an_edit_that_overflows_is_said(lab: Lab, found: list[int]) -> None:
    with pytest.raises(ValueError, match=r"1e\+38; give a number"):
        panel_of(lab, (4, found[0]), strength=1e38)
    panel = panel_of(lab, (4, found[0]), strength=1.0)
    # Float32 holds what a slider can say, so the model is made to give NaN.
    head: Any = lab.engine.module.lm_head
    spoil = head.register_forward_hook(
        lambda m, a, out: out * float("nan") if panel._writer._plain else out
    )
    error = ask(panel, "run")
    spoil.remove()
    assert "edit is too strong" in error
    assert panel.widget.status["state"] == "error"
    assert words(panel, "plain") == written(lab)
    send(panel, "run")
    assert words(panel) == written(lab, wb.Steer((4, found[0]), 1.0))


def test_a_full_context_is_said(lab: Lab) -> None:
    panel = panel_of(lab, prompt="a boat " * 124, max_new_tokens=60)
    room = 256 - len(lab.tokens(panel.widget.prompt))
    assert 0 < room < 60
    send(panel, "run")
    assert len(words(panel)) == room
    assert any("context of 256 tokens is full" in line for line in panel.widget.warnings)


def test_the_constructor_refuses_what_does_not_exist(lab: Lab) -> None:
    with pytest.raises(ValueError, match="features 0 to 1023"):
        panel_of(lab, (4, 5000))
    with pytest.raises(ValueError, match="no such baseline: luck"):
        panel_of(lab, baselines=["luck"])
    with pytest.raises(ValueError, match="strength"):
        panel_of(lab, (4, 1), strength=float("nan"))
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        panel_of(lab, max_new_tokens=0)
    with pytest.raises(TypeError):
        panel_of(lab, colour="red")


# ------------------------------------------------------------------------------- searching


def search(panel: Any, how: str, query: str, other: str = "") -> tuple[list[dict], str]:
    send(panel, "search", how=how, query=query, other=other)
    assert panel.widget.found["state"] == "done"
    assert panel.widget.found["how"] == how
    return panel.widget.found["rows"], panel.widget.found["error"]


def test_search_by_index(lab: Lab) -> None:
    panel = panel_of(lab)
    for query in ("5 231", "5/231", "layer 5 feature 231", "res, 5, 231"):
        rows, _ = search(panel, "index", query)
        assert [(r["layer"], r["kind"], r["index"]) for r in rows] == [(5, "res", 231)], query
    rows, _ = search(panel, "index", "5 att 17")
    assert (rows[0]["layer"], rows[0]["kind"], rows[0]["index"]) == (5, "att", 17)
    rows, _ = search(panel, "index", "17")
    assert [r["layer"] for r in rows] == list(range(8))
    for wrong, says in (
        ("5 9999", "features 0 to 1023"),
        ("9 1", "layer 9"),
        ("a boat", "write a"),
    ):
        rows, error = search(panel, "index", wrong)
        assert rows == []
        assert says in error


def test_search_by_label_is_lab_find(lab: Lab) -> None:
    rows, _ = search(panel_of(lab), "label", "language:fr")
    frame = lab.find("language:fr").head(len(rows))
    assert len(rows) > 2
    assert [r["index"] for r in rows] == list(frame["feature"])
    assert [r["score"] for r in rows] == list(frame["score"])
    assert search(panel_of(lab), "label", "no such label")[1] == "no label contains 'no such label'"


def test_search_by_text_ranks_by_share_of_the_maximum(lab: Lab) -> None:
    text = "Le chat est sur la table."
    rows, _ = search(panel_of(lab), "text", text)
    run = lab.run(text)
    shares = {}
    for layer in range(8):
        values = run.features(layer).dense()[1:].max(0).values
        maxima = lab.suite.maxima(Site(layer))
        for index in values.nonzero()[:, 0].tolist():
            if maxima[index] > 0:
                shares[layer, index] = float(values[index] / maxima[index])
    best = sorted(shares, key=lambda key: -shares[key])[:10]
    assert [(r["layer"], r["index"]) for r in rows[:10]] == best
    assert [r["score"] for r in rows[:10]] == pytest.approx([shares[key] for key in best])
    assert search(panel_of(lab), "text", "  ")[1] == "type what to look for"


def test_search_by_contrast_asks_the_lab(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Answer:
        frame = pd.DataFrame(
            [
                {
                    "layer": 3,
                    "kind": "res",
                    "feature": 7,
                    "score": 0.9,
                    "held_out": 0.8,
                    "control": 0.6,
                }
            ]
        )

    def contrast(*sides: list[str], **options: Any) -> Answer:
        asked.append((sides, options))
        return Answer()

    monkeypatch.setattr(Lab, "contrast", contrast, raising=False)
    monkeypatch.setattr(Lab, "contrast", lambda self, *s, **o: contrast(*s, **o), raising=False)
    rows, _ = search(panel_of(lab), "contrast", "Le chat\n\n La table ", "The cat")
    assert asked[0][0] == (["Le chat", "La table"], ["The cat"])
    assert (rows[0]["layer"], rows[0]["index"], rows[0]["score"]) == (3, 7, 0.9)
    assert "held out 0.80" in rows[0]["note"]
    assert "texts of both sides" in search(panel_of(lab), "contrast", "Le chat", " ")[1]
