"""Wrong input: each mistake is named, with the value given, before the model runs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import D_MODEL, RandomSuite, byte_tokenizer, loud_module
from engine.engine_oracle import saes

from workbench.engine.edits import Ablate, Clamp, Freeze, Patch, Scale, Splice, Steer, When
from workbench.engine.tracing import LiveEdits, generate, trace
from workbench.models import Model, wrap
from workbench.sites import Site
from workbench.tokens import tokenize

X = torch.zeros(3, D_MODEL)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Site(-1), ValueError, "layer -1 does not exist; it must be 0 or more"),
        (lambda: Site(1, "embed"), ValueError, "it must be 0 for 'embed'"),
        (lambda: Site(True), TypeError, "layer must be a whole number, got True"),
        (lambda: Site(1.0), TypeError, "layer must be a whole number, got 1.0"),  # type: ignore
        (lambda: Site(1, "attn"), ValueError, "unknown kind of site 'attn'; the kinds are"),  # type: ignore
        (lambda: Steer((1, 2), 1.0, kind="x"), ValueError, "unknown kind of site 'x'"),  # type: ignore
        (lambda: Steer((-1, 2), 1.0), ValueError, "layer -1 does not exist"),
        (lambda: Steer((1, 2), math.nan), ValueError, "strength must be finite, got nan"),
        (lambda: Steer((1, 2), math.inf), ValueError, "strength must be finite, got inf"),
        (lambda: Clamp((1, 2), math.nan), ValueError, "value must be finite"),
        (lambda: Scale((1, 2), -math.inf), ValueError, "factor must be finite"),
        (lambda: Steer((1, 2), "3"), TypeError, "strength must be a number, got '3'"),  # type: ignore
        (lambda: Steer((1, 2), True), TypeError, "strength must be a number"),
        (lambda: Steer((1, 2), 1.0, unit="percent"), ValueError, "unit must be one of 'max'"),  # type: ignore
        (lambda: Clamp((1, 2), 1.0, unit=""), ValueError, "unit must be one of"),  # type: ignore
        (lambda: Ablate((1, 2), when="always"), ValueError, "when must be one of 'prompt'"),  # type: ignore
        (
            lambda: Ablate((1, 2), when="generated", positions=(1,)),
            ValueError,
            "use steps with when='generated'",
        ),
        (lambda: Ablate((1, 2), steps=(-1,)), ValueError, "count forward passes from 0, got -1"),
        (lambda: Ablate((1, 2), positions=3), TypeError, "positions is a list.*got 3"),  # type: ignore
        (lambda: Ablate((1, 2), positions="12"), TypeError, "positions is a list.*got '12'"),  # type: ignore
        (lambda: Ablate((1, 2), positions=(1.5,)), TypeError, "positions is a list"),  # type: ignore
        (lambda: Ablate((1, 2), positions=()), TypeError, r"positions is a list.*got \(\)"),
        (lambda: Ablate((1, 2), steps=(True,)), TypeError, "steps is a list"),
        (lambda: Ablate([1, 2]), TypeError, r"a feature is \(layer, index\).*got \[1, 2\]"),  # type: ignore
        (lambda: Ablate((1, 2.0)), TypeError, "a feature is"),  # type: ignore
        (lambda: Ablate((1, 2, 3)), TypeError, "a feature is"),  # type: ignore
        (lambda: Patch(Site(1), torch.zeros(3)), ValueError, r"\(pos, d_in\), got \(3,\)"),
        (lambda: Patch(Site(1), None), ValueError, "got NoneType"),  # type: ignore
        (lambda: Patch(Site(1), X / 0), ValueError, "NaN or infinity"),
        (lambda: Patch((1, "res"), X), TypeError, "a patch needs a Site"),  # type: ignore
        (lambda: Patch(Site(1), X, features=()), TypeError, "features is a list"),
        (
            lambda: Patch(Site(1, "transcoder"), X),
            ValueError,
            "layer 1 transcoder is only read: patch what its MLP writes, at layer 1 mlp",
        ),
        (
            lambda: When((2, 0), Steer((1, 0), 1.0)),
            ValueError,
            "read at layer 2 res, after the edit acts at layer 1 res",
        ),
        (lambda: When((0, 0), Patch(Site(1), X)), TypeError, "to do, got Patch"),  # type: ignore
        (lambda: When((0, 0), Steer((1, 0), 1.0), above=math.nan), ValueError, "above must be"),
        (lambda: Splice("res"), TypeError, "a splice needs a Site"),  # type: ignore
        (lambda: Splice(Site(1), keep=(1,), drop=(2,)), ValueError, "give one of them"),
        (lambda: Splice(Site(1), keep=[1.5]), TypeError, "keep is a list of whole"),  # type: ignore
        (lambda: Splice(Site(1), keep=3), TypeError, "keep is a list of whole"),  # type: ignore
        (lambda: Splice(Site(1), error=1), TypeError, "error is True or False"),  # type: ignore
        (lambda: Splice(Site(1), when="now"), ValueError, "when must be one of"),  # type: ignore
        (lambda: Freeze(3), TypeError, "a freeze needs a Site"),  # type: ignore
        (
            lambda: Freeze(Site(1, "transcoder")),
            ValueError,
            "layer 1 transcoder is only read: freeze what its MLP writes, at layer 1 mlp",
        ),
        (lambda: Ablate((1, 0), to="one"), ValueError, "to must be one of 'zero', 'mean'"),  # type: ignore
        (
            lambda: LiveEdits([Splice(Site(1)), Steer((1, 0), 1.0), Splice(Site(1), keep=())]),
            ValueError,
            "edits 0 and 2 both replace the activation at layer 1 res",
        ),
        (
            lambda: LiveEdits([Splice(Site(1, "transcoder")), Patch(Site(1, "mlp"), X)]),
            ValueError,
            "edits 0 and 1 both replace the activation at layer 1 mlp",
        ),
        (lambda: LiveEdits([3]), TypeError, "edit 0 is 3; an edit is one of Steer, Clamp"),  # type: ignore
        (lambda: LiveEdits(Steer((1, 0), 1.0)), TypeError, "edits is a list, such as"),  # type: ignore
    ],
)  # fmt: skip
def test_what_is_no_edit_is_refused(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def test_replacements_that_never_meet_may_stand_side_by_side() -> None:
    pairs = [
        (Splice(Site(1), when="prompt"), Splice(Site(1), when="generated")),
        (Splice(Site(1), steps=(0, 1)), Splice(Site(1), steps=(2,))),
        (Patch(Site(1), X, positions=(1,)), Patch(Site(1), X, positions=(2, 3))),
        (Splice(Site(1)), Splice(Site(1), drop=(2,), error=True)),
        (Splice(Site(1)), Splice(Site(2))),
        (Splice(Site(1)), Patch(Site(1), X, features=(2,))),
    ]
    for pair in pairs:
        assert LiveEdits(pair).edits == pair
    with pytest.raises(ValueError, match="both replace"):  # where the end is, nobody knows yet
        LiveEdits([Patch(Site(1), X, positions=(1,)), Patch(Site(1), X, positions=(-1,))])


def test_a_tables_own_integers_are_welcome() -> None:
    layer, index = np.int64(1), np.int64(2)
    edit = Steer((layer, index), np.float32(2.0), positions=[np.int64(3)])  # pyright: ignore
    assert edit == Steer((1, 2), 2.0, positions=(3,))
    assert type(edit.site.layer) is type(edit.index) is int
    assert Site(layer) == Site(1)  # pyright: ignore[reportArgumentType]


def edit_of(name: str) -> Any:
    wide = torch.zeros(3, 32)
    return {
        "layer": Steer((3, 0), 1.0),
        "condition": When((1, 99), Steer((1, 0), 1.0)),
        "feature": Steer((1, 40), 1.0),
        "negative": Ablate((1, -1)),
        "patch width": Patch(Site(1), wide),
        "patch feature": Patch(Site(1), X, features=(40,)),
        "patch layer": Patch(Site(7), X),
        "splice feature": Splice(Site(1), drop=(40,), error=True),
        "freeze layer": Freeze(Site(7)),
        "word": "Steer",
    }[name]


@pytest.mark.parametrize("run", [trace, generate])
@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("condition", ValueError, "feature index 99"),
        ("feature", ValueError, "feature index 40: .*has features 0 to 39"),
        ("negative", ValueError, "feature index -1"),
        ("patch width", ValueError, "the patch at layer 1 res is 32 wide and the activation 24"),
        ("patch feature", ValueError, "feature index 40"),
        ("patch layer", ValueError, "layer 7 does not exist: the model has 3 layers, 0 to 2"),
        ("splice feature", ValueError, "feature index 40"),
        ("freeze layer", ValueError, "layer 7 does not exist: the model has 3 layers, 0 to 2"),
        ("word", TypeError, "edit 0 is 'Steer'; an edit is one of"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(
    model: Model, suite: RandomSuite, run: Any, name: str, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        run(model, [tokenize(model.tokenizer, "Hi")], edits=[edit_of(name)], source=suite)
    assert not model.turn.busy


def test_a_layer_out_of_range_is_refused(model: Model) -> None:
    prompt = [tokenize(model.tokenizer, "Hi")]
    with pytest.raises(ValueError, match="layer 3 does not exist: the model has 3 layers, 0 to 2"):
        trace(model, prompt, [Site(1), Site(3)])
    beyond = RandomSuite({Site(3): saes()[2, "res"]})
    with pytest.raises(ValueError, match="layer 3 does not exist"):
        generate(model, prompt, edits=[Steer((3, 0), 1.0)], source=beyond)


@pytest.mark.parametrize(
    "edit",
    [Steer((1, 0), 1.0), Ablate((1, 0)), When((1, 0), Steer((2, 0), 1.0)),
     Patch(Site(1), X, features=(0,)), Splice(Site(1))],
    ids=["steer", "ablate", "when", "patch", "splice"],
)  # fmt: skip
def test_an_sae_of_another_width_is_refused(model: Model, edit: Any) -> None:
    wrong = RandomSuite({Site(1): saes()[1, "att"], Site(2): saes()[2, "res"]})
    with pytest.raises(ValueError, match=r"SAE for layer 1 res maps width 32 to 32 .* needs 24"):
        trace(model, [tokenize(model.tokenizer, "Hi")], edits=[edit], source=wrong)


def test_a_transcoder_that_writes_another_width_is_refused(model: Model) -> None:
    sae = saes()[1, "transcoder"]
    wide = replace(
        sae,
        W_dec=torch.zeros(40, 30),
        b_dec=torch.zeros(30),
        config=replace(sae.config, d_out=30),
    )
    edit = Steer((1, 0), 1.0, kind="transcoder")
    source = RandomSuite({Site(1, "transcoder"): wide})
    with pytest.raises(ValueError, match="maps width 24 to 30"):
        trace(model, [tokenize(model.tokenizer, "Hi")], edits=[edit], source=source)


def test_editing_a_feature_needs_a_source(model: Model) -> None:
    with pytest.raises(ValueError, match="needs a suite of SAEs"):
        trace(model, [tokenize(model.tokenizer, "Hi")], edits=[Steer((1, 0), 1.0)])


def test_prompts_are_tokens_and_there_is_one(model: Model) -> None:
    for run in (trace, generate):
        with pytest.raises(ValueError, match="there are no prompts"):
            run(model, [])
        with pytest.raises(TypeError, match=r"made by workbench\.tokens\.tokenize; got 'Hi'"):
            run(model, ["Hi"])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens must be at least 1, got 0"),
        ({"max_new_tokens": 2.5}, TypeError, "max_new_tokens must be a whole number, got 2.5"),
        ({"max_new_tokens": True}, TypeError, "max_new_tokens must be a whole number"),
        ({"min_new_tokens": -1}, ValueError, r"0 to max_new_tokens \(64\), got -1"),
        ({"min_new_tokens": 65}, ValueError, r"0 to max_new_tokens \(64\), got 65"),
        ({"temperature": -0.1}, ValueError, "temperature must be 0 .* got -0.1"),
        ({"temperature": math.nan}, ValueError, "temperature must be 0"),
        ({"temperature": math.inf}, ValueError, "temperature must be 0"),
        ({"temperature": "hot"}, TypeError, "temperature must be a number, got 'hot'"),
        ({"top_p": 0.0}, ValueError, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.1}, ValueError, "top_p must be above 0 and at most 1, got 1.1"),
        ({"top_p": math.nan}, ValueError, "top_p must be above 0"),
        ({"seed": 1.0}, TypeError, "seed must be a whole number, got 1.0"),
        ({"seed": True}, TypeError, "seed must be a whole number"),
        ({"seed": -1}, ValueError, "seed must be 0 to"),
        ({"seed": 2**64}, ValueError, "seed must be 0 to"),
        ({"busy": "now"}, ValueError, "busy must be 'wait' or 'cancel', got 'now'"),
    ],
    ids=repr,
)
def test_wrong_settings_are_refused(
    model: Model, options: dict, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        generate(model, [tokenize(model.tokenizer, "Hi")], **options)


def test_a_model_that_would_compute_wrongly_is_refused() -> None:
    with pytest.raises(ValueError, match="overflows in float16"):
        wrap(loud_module().half(), byte_tokenizer(), name="half")
    module: Any = loud_module()
    module.config._attn_implementation = "sdpa"
    with pytest.raises(ValueError, match="'sdpa' attention leaves the cap out"):
        wrap(module, byte_tokenizer(), name="uncapped")


def test_a_transcoder_cannot_be_written(model: Model) -> None:
    with pytest.raises(ValueError, match="can only be read; a transcoder writes at layer 1 mlp"):
        Site(1, "transcoder").write(model.module, torch.zeros(1))
