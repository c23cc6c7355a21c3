"""Edits: each at every kind of site, in one pass and while writing, against formulas in hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from conftest import D_SAE, RandomSuite
from engine.engine_cases import (
    EDITS,
    LONG,
    PLACES,
    SHORT,
    chosen,
    encoded_widths,
    moved,
    site,
    steer,
)
from engine.engine_oracle import (
    Place,
    Rule,
    close,
    feature,
    most_active,
    oracle,
    row,
    saes,
    seen,
    text_ids,
)
from torch import Tensor

from workbench.engine.edits import Ablate, Clamp, Scale, Steer, When
from workbench.engine.tracing import generate, trace
from workbench.models import Model
from workbench.sae import SAE
from workbench.sites import Site
from workbench.tokens import tokenize

NEW = 4
CASES = [
    (name, place)
    for name in EDITS
    for place in PLACES
    if not (name.startswith("patch") and place[1] == "transcoder")
]


@cache
def wanted(name: str, place: Place, text: str) -> tuple[Tensor, dict, list[int], list[Tensor]]:
    """Logits, activations, new tokens and their logits, by hooks."""
    rule, ids = EDITS[name](place)[1], text_ids(text)
    logits = oracle().run(ids, len(ids), [rule])
    leaving = dict(oracle().leaving)
    return logits, leaving, *oracle().write(ids, [rule], NEW)


@cache
def plain(text: str) -> tuple[Tensor, list[Tensor]]:
    ids = text_ids(text)
    return oracle().run(ids, len(ids)), oracle().write(ids, [], 1)[1]


def check_trace(
    model: Model, suite: RandomSuite, edits: list, texts: list[str], wants: list
) -> None:
    prompts = [tokenize(model.tokenizer, text) for text in texts]
    sites = [site(place) for place in wants[0][1]]
    run = trace(model, prompts, sites, edits=edits, source=suite)
    for number, (text, want) in enumerate(zip(texts, wants, strict=True)):
        pos = len(text_ids(text))
        close(run.logits[number, -pos:], want[0])
        for place, value in want[1].items():
            close(run.activations[site(place)][number, -pos:], value)


def check_writing(
    model: Model, suite: RandomSuite, edits: list, texts: list[str], wants: list, **options: Any
) -> None:
    prompts = [tokenize(model.tokenizer, text) for text in texts]
    steps: list[Tensor] = []
    found = generate(
        model,
        prompts,
        edits=edits,
        source=suite,
        temperature=0,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        stream=lambda step: steps.append(step.logits.clone()),
        **options,
    )
    for number, (text, (_, _, tokens, logits)) in enumerate(zip(texts, wants, strict=True)):
        for step, value in enumerate(logits):
            close(steps[step][number], value)
        assert found[number].ids == (*text_ids(text), *tokens)


@pytest.mark.parametrize(("name", "place"), CASES, ids=str)
class TestEveryEditAtEveryKindOfSite:
    def test_it_changed_something(self, name: str, place: Place) -> None:
        assert (wanted(name, place, LONG)[0] - plain(LONG)[0]).abs().max() > 1
        if not name.startswith("when"):
            assert (wanted(name, place, SHORT)[0] - plain(SHORT)[0]).abs().max() > 0.1

    def test_in_a_trace(self, model: Model, suite: RandomSuite, name: str, place: Place) -> None:
        edit = EDITS[name](place)[0]
        check_trace(model, suite, [edit], [LONG], [wanted(name, place, LONG)])

    def test_in_a_padded_batch(
        self, model: Model, suite: RandomSuite, name: str, place: Place
    ) -> None:
        edit, texts = EDITS[name](place)[0], [LONG, SHORT]
        wants = [wanted(name, place, text) for text in texts]
        check_trace(model, suite, [edit], texts, wants)
        check_writing(model, suite, [edit], texts, wants)


SCOPES: dict[str, tuple[dict, Callable[[int, int], bool]]] = {
    "all but bos": ({}, lambda p, n: p > 0),
    "prompt": ({"when": "prompt"}, lambda p, n: 0 < p < n),
    "generated": ({"when": "generated"}, lambda p, n: p >= n),
    "both": ({"when": "both"}, lambda p, n: p > 0),
    "a position": ({"positions": (2,)}, lambda p, n: p == 2),
    "the last position": ({"positions": (-1,)}, lambda p, n: p == n - 1),
    "several positions": ({"positions": [1, -2]}, lambda p, n: p in (1, n - 2)),
    "bos by name": ({"positions": (0,)}, lambda p, n: p == 0),
    "bos and another": ({"positions": (0, 3), "when": "prompt"}, lambda p, n: p in (0, 3)),
    "the prompt's pass": ({"steps": (0,)}, lambda p, n: 0 < p < n),
    "the first new token": ({"steps": (1,)}, lambda p, n: p == n),
    "some steps": ({"steps": (0, 2)}, lambda p, n: 0 < p < n or p == n + 1),
    "steps of writing": ({"steps": (0, 1, 3), "when": "generated"}, lambda p, n: p in (n, n + 2)),
    "steps and positions": ({"steps": (0, 1), "positions": (-1, 1)}, lambda p, n: p in (1, n - 1)),
}


@pytest.mark.parametrize("name", SCOPES)
@pytest.mark.parametrize("place", [(1, "res"), (1, "transcoder")], ids=str)
def test_where_an_edit_acts(model: Model, suite: RandomSuite, place: Place, name: str) -> None:
    options, where = SCOPES[name]
    i = chosen(place)
    edit = Clamp((1, i), 30.0, kind=place[1], **options)  # pyright: ignore[reportArgumentType]
    rule = replace(moved(place, i, lambda f: 30.0 - f), where=where)
    wants = []
    for text in (SHORT, LONG):
        ids = text_ids(text)
        logits = oracle().run(ids, len(ids), [rule])
        wants.append((logits, dict(oracle().leaving), *oracle().write(ids, [rule], NEW)))
        before = plain(text)[0]
        touched = [p for p in range(len(ids)) if where(p, len(ids))]
        changed = (logits - before).abs().amax(-1) > 0.1
        # Causal: nothing before the first touched position may move, and that one does.
        assert changed.nonzero().flatten().tolist()[:1] == touched[:1]
    texts = [SHORT, LONG]
    if "generated" not in options.get("when", "") and options.get("steps") != (1,):
        check_trace(model, suite, [edit], texts, wants)
    check_writing(model, suite, [edit], texts, wants)
    check_writing(model, suite, [edit], texts, wants, use_cache=False)
    check_writing(model, suite, [edit], [LONG], wants[1:])


def test_generated_tokens_are_steered_again_in_every_step(model: Model, suite: RandomSuite) -> None:
    ids = text_ids(LONG)
    unedited = oracle().write(ids, [], NEW)[1]
    rule = replace(steer("max")((1, "res"))[1], where=lambda p, n: p >= n)
    edited = oracle().write(ids, [rule], NEW)[1]
    close(edited[0], unedited[0])
    assert all((a - b).abs().max() > 1 for a, b in zip(edited[1:], unedited[1:], strict=True))
    edit = replace(steer("max")((1, "res"))[0], when="generated")
    seen_logits: list[Tensor] = []
    generate(
        model,
        [tokenize(model.tokenizer, LONG)],
        edits=[edit],
        source=suite,
        temperature=0,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        stream=lambda step: seen_logits.append(step.logits[0]),
    )
    for got, want in zip(seen_logits, edited, strict=True):
        close(got, want)


def several(places: list[Place], names: list[str]) -> tuple[list, list[Rule]]:
    pairs = [EDITS[name](place) for name, place in zip(names, places, strict=True)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


@pytest.mark.parametrize(
    ("places", "names"),
    [
        # Two scalings of one feature: one after the other would multiply.
        ([(1, "res")] * 3, ["scale", "scale", "clamp raw"]),
        ([(1, "att")] * 2, ["clamp max", "when at the same site"]),
        ([(1, "res")] * 3, ["patch whole", "patch features", "steer raw"]),
        ([(1, "mlp"), (1, "transcoder"), (1, "mlp")], ["scale", "ablate", "steer raw"]),
        # Several sites, named from the last to the first.
        (
            [(1, "res"), (1, "mlp"), (1, "transcoder"), (1, "att"), (0, "embed")],
            ["clamp raw", "clamp max", "clamp raw", "clamp max", "scale"],
        ),
        ([(1, "res"), (0, "embed"), (1, "att")], ["when at an earlier site", "scale", "clamp raw"]),
    ],
    ids=["one feature", "condition", "patches", "transcoder and mlp", "all kinds", "watched"],
)
def test_several_edits(
    model: Model, suite: RandomSuite, places: list[Place], names: list[str]
) -> None:
    edits, rules = several(places, names)
    wants = []
    for text in (LONG, SHORT):
        ids = text_ids(text)
        logits = oracle().run(ids, len(ids), rules)
        wants.append((logits, dict(oracle().leaving), *oracle().write(ids, rules, NEW)))
        for left_out in range(len(rules)):
            fewer = oracle().run(ids, len(ids), rules[:left_out] + rules[left_out + 1 :])
            if text == LONG:
                assert (fewer - logits).abs().max() > 0.1
    check_trace(model, suite, edits, [LONG, SHORT], wants)
    check_writing(model, suite, edits, [LONG, SHORT], wants)


def mixed(place: Place, count: int) -> list[tuple[int, float]]:
    """Features active at some positions of the long prompt only, and half their maximum."""
    x, found = seen(LONG, place)[1:], []
    for index in range(D_SAE):
        f = feature(place, x, index)
        above = float(f.max()) / 2
        if 2 <= int((f > above).sum()) <= len(f) - 2:
            found.append((index, above))
    # The one with the highest limit first, so that limits and features cannot be exchanged.
    return sorted(found, key=lambda pair: -pair[1])[:count]


def test_edits_of_one_site_keep_their_own_scopes_and_conditions(
    model: Model, suite: RandomSuite
) -> None:
    place, early = (1, "res"), (0, "embed")
    (a, over_a), (b, over_b) = mixed(place, 2)
    ((c, over_c),) = mixed(early, 1)
    edits = [
        Steer((1, 0), 6.0, unit="raw", when="prompt"),
        When((1, a), Steer((1, 1), 6.0, unit="raw"), above=over_a),
        Clamp((1, 2), 8.0, when="generated"),
        When((1, b), Steer((1, 3), 6.0, unit="raw"), above=over_b),
        When((0, c), Steer((1, 4), 6.0, unit="raw", steps=(0, 2)), above=over_c, kind="embed"),
    ]
    constant = [moved(place, i, lambda f: torch.full_like(f, 6.0)) for i in (0, 1, 3, 4)]
    rules = [
        replace(constant[0], where=lambda p, n: 0 < p < n),
        replace(constant[1], condition=(place, lambda x: feature(place, x, a) > over_a)),
        replace(moved(place, 2, lambda f: 8.0 - f), where=lambda p, n: p >= n),
        replace(constant[2], condition=(place, lambda x: feature(place, x, b) > over_b)),
        replace(
            constant[3],
            condition=(early, lambda x: feature(early, x, c) > over_c),
            where=lambda p, n: 0 < p < n or p == n + 1,
        ),
    ]
    wants = []
    for text in (LONG, SHORT):
        ids = text_ids(text)
        logits = oracle().run(ids, len(ids), rules)
        wants.append((logits, dict(oracle().leaving), *oracle().write(ids, rules, NEW)))
    for left_out in range(len(rules)):
        steps = oracle().write(text_ids(LONG), rules[:left_out] + rules[left_out + 1 :], NEW)[1]
        moves = [(x - y).abs().max() > 0.1 for x, y in zip(steps, wants[0][3], strict=True)]
        assert any(moves)
    check_writing(model, suite, edits, [LONG, SHORT], wants)
    check_writing(model, suite, edits, [SHORT], wants[1:], use_cache=False)


def test_twenty_edits_at_once(model: Model, suite: RandomSuite) -> None:
    place = (1, "res")
    edits = [Scale((1, i), 1.5) for i in range(20)]
    rules = [moved(place, i, lambda f: 0.5 * f) for i in range(20)]
    ids = text_ids(LONG)
    logits = oracle().run(ids, len(ids), rules)
    check_trace(model, suite, edits, [LONG], [(logits, dict(oracle().leaving))])
    assert (logits - plain(LONG)[0]).abs().max() > 1


def test_edits_of_one_site_share_one_encoding(
    model: Model, suite: RandomSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = encoded_widths(monkeypatch)
    edits = [Scale((1, i), 1.5) for i in range(20)] + [Scale((2, 0), 1.5)]
    generate(
        model,
        [tokenize(model.tokenizer, LONG)],
        edits=edits,
        source=suite,
        max_new_tokens=3,
        min_new_tokens=3,
    )
    # Never the whole encoder, and once a site and pass.
    assert widths == [20, 1] * 3


def test_steering_needs_no_encoder(
    model: Model, suite: RandomSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SAE, "encode", None)
    monkeypatch.setattr(SAE, "encode_features", None)
    trace(model, [tokenize(model.tokenizer, SHORT)], edits=[Steer((1, 3), 2.0)], source=suite)


def on_the_threshold(place: Place) -> RandomSuite:
    """The suite, with a first feature whose pre-activation is its threshold everywhere."""
    sae = saes()[place]
    column, bias, threshold = sae.W_enc.clone(), sae.b_enc.clone(), sae.threshold.clone()
    column[:, 0] = 0
    bias[0] = threshold[0] = 0.75
    exact = replace(sae, W_enc=column, b_enc=bias, threshold=threshold)
    return RandomSuite({site(place): exact})


def test_a_feature_on_its_threshold_is_off(model: Model) -> None:
    place = (1, "res")
    edits = [Clamp((1, 0), 2.0)]
    run = trace(
        model,
        [tokenize(model.tokenizer, SHORT)],
        [Site(1)],
        edits=edits,
        source=on_the_threshold(place),
    )
    wanted = seen(SHORT, place).clone()
    wanted[1:] += 2.0 * row(place, 0)  # and not 2.0 - 0.75
    close(run.activations[Site(1)][0], wanted)


def test_a_condition_has_to_be_exceeded(model: Model, suite: RandomSuite) -> None:
    place, ids = (1, "res"), text_ids(SHORT)
    i = most_active(SHORT, place)
    run = trace(model, [tokenize(model.tokenizer, SHORT)], [Site(1)])
    found = suite.sae_at(Site(1)).encode_features(run.activations[Site(1)][0], [i])[:, 0]
    best = int(found[1:].argmax()) + 1
    runner_up = float(found[[p for p in range(1, len(ids)) if p != best]].max())
    assert float(found[best]) > runner_up
    edit = When((1, i), Steer((1, 4), 5.0, unit="raw"), above=runner_up)
    edited = trace(model, [tokenize(model.tokenizer, SHORT)], [Site(1)], edits=[edit], source=suite)
    assert edited.receipts[0].acts[0].positions == (best,)


def test_a_topk_feature_is_edited_with_the_whole_encoder(model: Model) -> None:
    place, ids = (1, "res"), text_ids(LONG)
    whole = replace(saes()[place], threshold=None, activation="topk", k=3)
    x = seen(LONG, place)
    pre = (x @ whole.W_enc + whole.b_enc).clamp(min=0)
    kept = torch.zeros_like(pre)
    for position in range(len(ids)):
        for i in sorted(range(D_SAE), key=lambda i: -float(pre[position, i]))[:3]:
            kept[position, i] = pre[position, i]
    i = int(kept[1:].sum(0).argmax())
    assert 0 < int((kept[1:, i] > 0).sum()) < int((pre[1:, i] > 0).sum())
    rule = Rule(place, lambda x, p: -kept[:, i, None] * whole.W_dec[i])
    logits = oracle().run(ids, len(ids), [rule])
    source = RandomSuite({site(place): whole})
    check_trace(model, source, [Ablate((1, i))], [LONG], [(logits, dict(oracle().leaving))])


def test_an_encoder_that_subtracts_the_decoder_bias(model: Model) -> None:
    place, ids = (1, "res"), text_ids(LONG)
    centred = replace(saes()[place], apply_b_dec_to_input=True)

    def delta(x: Tensor, p: Tensor) -> Tensor:
        return -feature(place, x - centred.b_dec, 5)[:, None] * row(place, 5)

    logits = oracle().run(ids, len(ids), [Rule(place, delta)])
    assert (logits - plain(LONG)[0]).abs().max() > 1
    source = RandomSuite({site(place): centred})
    check_trace(model, source, [Ablate((1, 5))], [LONG], [(logits, dict(oracle().leaving))])


def test_edits_are_values() -> None:
    assert Steer((1, 2), 3.0) == Steer((1, 2), 3.0)
    assert Steer((1, 2), 3.0) != Steer((1, 2), 3.0, positions=[1])
    assert hash(Clamp((1, 2), 3.0)) == hash(Clamp((1, 2), 3.0))
    assert eval(repr(Scale((1, 2), 3.0, steps=[0]))) == Scale((1, 2), 3.0, steps=(0,))
