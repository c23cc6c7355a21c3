"""Fluency: the losses by the plain module, the repetition by hand, the limits on pocket."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from conftest import RandomSuite

import workbench as wb
from workbench.analysis import fluency as module_under_test
from workbench.analysis.fluency import (
    BROKEN_EXCESS,
    BROKEN_REPETITION,
    FLUENT_EXCESS,
    FLUENT_REPETITION,
    Fluency,
    fluency,
    repetition,
    verdict,
)
from workbench.engine.edits import Steer
from workbench.engine.tracing import Generation, generate
from workbench.lab import Lab
from workbench.models import Model
from workbench.tokens import Tokens, tokenize, tokens_of


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


@pytest.fixture(scope="module")
def prompts(model: Model) -> list[Tokens]:
    return [tokenize(model.tokenizer, text) for text in ("Hello", "a", "Once upon a time")]


def by_hand(model: Model, text: Generation) -> tuple[float, float]:
    """Mean loss and entropy of the new tokens, one text at a time and without the engine."""
    ids = torch.tensor([text.ids])
    with torch.no_grad():
        logits = model.module(input_ids=ids).logits[0].double()
    start = len(text.prompt)
    loss = F.cross_entropy(logits[start - 1 : -1], ids[0, start:])
    entropy = torch.distributions.Categorical(logits=logits[start - 1 : -1]).entropy().mean()
    return float(loss), float(entropy)


def test_losses_are_those_of_the_plain_module(
    model: Model, suite: RandomSuite, prompts: list[Tokens]
) -> None:
    steered = generate(
        model, prompts, edits=[Steer((1, 3), 2.0)], source=suite, max_new_tokens=12, seed=3
    )
    plain = generate(model, prompts, max_new_tokens=9, seed=3)
    alone, beside = fluency(model, steered), fluency(model, steered, twins=plain)
    for text, twin, one, two in zip(steered, plain, alone, beside, strict=True):
        loss, entropy = by_hand(model, text)
        assert one.loss == two.loss == pytest.approx(loss, rel=1e-4)
        assert one.excess == pytest.approx(loss - entropy, abs=1e-3)
        assert two.excess == pytest.approx(loss - by_hand(model, twin)[0], abs=1e-3)
        assert abs(loss - sum(text.logprobs) / -len(text.logprobs)) > 0.1  # not the steered model's


def test_blocks_give_what_one_batch_gives(
    model: Model, prompts: list[Tokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = generate(model, prompts, max_new_tokens=8)
    whole = fluency(model, texts)
    monkeypatch.setattr(module_under_test, "LOGITS", 1)
    for one, other in zip(fluency(model, texts), whole, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
    assert len({one.loss for one in whole}) == 3


def test_the_same_ids_after_another_prompt_are_another_text(
    model: Model, prompts: list[Tokens]
) -> None:
    long = generate(model, prompts[2:], max_new_tokens=8)[0]
    cut = len(long.prompt) + 4
    late = replace(
        long,
        prompt=tokens_of(model.tokenizer, long.ids[:cut]),
        tokens=tokens_of(model.tokenizer, long.ids[cut:]),
    )
    found = fluency(model, [long, late])
    assert [one.loss for one in found] == pytest.approx(
        [by_hand(model, text)[0] for text in (long, late)], rel=1e-4
    )
    assert abs(found[0].loss - found[1].loss) > 0.01


def test_a_text_of_no_tokens_is_fluent_and_no_twin(model: Model, prompts: list[Tokens]) -> None:
    text = generate(model, prompts[:1], max_new_tokens=5)[0]
    empty = replace(text, ids=text.prompt.ids, tokens=tokens_of(model.tokenizer, []))
    assert fluency(model, [empty]) == [Fluency(0.0, 0.0, 0.0)]
    assert fluency(model, [text], twins=[empty]) == fluency(model, [text])
    assert fluency(model, []) == []


def test_twins_are_counted(model: Model, prompts: list[Tokens]) -> None:
    texts = generate(model, prompts, max_new_tokens=2)
    with pytest.raises(ValueError, match="got 3 and 2 twins"):
        fluency(model, texts, twins=texts[:2])


@pytest.mark.parametrize(
    ("ids", "share"),
    [
        ([], 0.0),
        ([1, 2, 3], 0.0),
        ([1] * 4, 0.0),
        ([1] * 5, 1 / 2),  # two 4-grams, one distinct
        ([1] * 40, 36 / 37),
        ([1, 2] * 20, 35 / 37),
        (list(range(40)), 0.0),
        ([1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3], 0.0),  # 3-grams may come again
        ([1, 2, 3, 4, 9, 1, 2, 3, 4], 1 / 6),
    ],
)
def test_repetition_by_hand(ids: list[int], share: float) -> None:
    assert repetition(ids) == pytest.approx(share)


@pytest.mark.parametrize(
    ("excess", "repeated", "expected"),
    [
        (-0.5, 0.0, "fluent"),
        (FLUENT_EXCESS, FLUENT_REPETITION, "fluent"),
        (FLUENT_EXCESS + 0.01, 0.0, "strained"),
        (0.0, FLUENT_REPETITION + 0.01, "strained"),
        (BROKEN_EXCESS, BROKEN_REPETITION, "strained"),
        (BROKEN_EXCESS + 0.01, 0.0, "broken"),
        (-2.0, BROKEN_REPETITION + 0.01, "broken"),
    ],
)
def test_the_worse_measure_decides(excess: float, repeated: float, expected: str) -> None:
    assert verdict(excess, repeated) == Fluency(1.0, excess, repeated).verdict == expected
    assert expected in str(Fluency(1.0, excess, repeated))


def test_pocket_unsteered_is_fluent_and_far_too_strong_is_broken(lab: Lab) -> None:
    prompts = [lab.tokens(p.split()[0]) for p in lab.suite.sample[:8]]
    model, source = lab.engine, lab.suite
    plain = generate(model, prompts, max_new_tokens=40, seed=11)
    twins = generate(model, prompts, max_new_tokens=40, seed=12)
    for found in (fluency(model, plain), fluency(model, plain, twins=twins)):
        assert [one.verdict for one in found].count("fluent") >= 7
        assert all(math.isfinite(one.loss) and 0 <= one.repetition <= 1 for one in found)
    feature = lab.edit_for("topic:music").feature
    for strength in (6.0, -6.0):
        wild = generate(
            model, prompts, edits=[Steer(feature, strength)], source=source, max_new_tokens=40
        )
        found = fluency(model, wild, twins=plain)
        assert [one.verdict for one in found].count("broken") >= 7


def test_a_loop_is_broken_although_it_is_probable(lab: Lab) -> None:
    """The loss alone would call greedy loops fluent: that is why repetition counts."""
    prompts = [lab.tokens(" ".join(p.split()[:6])) for p in lab.suite.sample]
    texts = generate(lab.engine, prompts, max_new_tokens=60, temperature=0)
    found = fluency(lab.engine, texts)
    assert max(one.excess for one in found) < FLUENT_EXCESS
    assert [one.verdict for one in found].count("broken") >= 3
