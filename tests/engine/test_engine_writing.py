"""Writing: greedy and drawn tokens, ends, streams, and what a row owes to nobody but itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from conftest import RandomSuite, byte_tokenizer, loud_module
from engine.engine_oracle import (
    Rule,
    close,
    most_active,
    oracle,
    row,
    text_ids,
)
from IPython.lib.pretty import pretty
from torch import Tensor

from workbench.engine.edits import Steer
from workbench.engine.tracing import Generation, Step, generate, sample, trace
from workbench.models import Model, wrap
from workbench.tokens import Tokens, tokenize

LONG, SHORT = "The cat sat", "Hi 5"


def prompts(model: Model, *texts: str) -> list[Tokens]:
    return [tokenize(model.tokenizer, text) for text in texts]


def write(model: Model, *texts: str, **options: Any) -> list[Generation]:
    return generate(model, prompts(model, *texts), **{"temperature": 0, **options})


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("text", [LONG, SHORT])
def test_greedy_is_what_transformers_writes(model: Model, text: str, use_cache: bool) -> None:
    # Twenty tokens are well past the sliding window of six.
    ids = torch.tensor([text_ids(text)])
    wanted = oracle().module.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20
    )
    assert wanted.shape[1] == ids.shape[1] + 20
    (found,) = write(model, text, max_new_tokens=20, use_cache=use_cache)
    assert list(found.ids) == wanted[0].tolist()
    assert found.tokens.ids == found.ids[ids.shape[1] :]
    assert found.text == model.tokenizer.decode(found.tokens.ids, skip_special_tokens=True)


def test_an_edited_text_is_the_same_with_edits_that_do_nothing_and_without_a_trace(
    model: Model, suite: RandomSuite
) -> None:
    # A tiny edit goes through nnsight, no edit does not.
    tiny = [Steer((1, 3), 1e-9, unit="raw")]
    plain = write(model, LONG, SHORT, max_new_tokens=12)
    traced = write(model, LONG, SHORT, max_new_tokens=12, edits=tiny, source=suite)
    assert [g.ids for g in plain] == [g.ids for g in traced]


def test_a_steered_text_past_the_window_is_the_hooks(model: Model, suite: RandomSuite) -> None:
    i = most_active(LONG, (1, "res"))
    rule = Rule((1, "res"), lambda x, p: 4.0 * row((1, "res"), i).expand_as(x))
    for options in ({}, {"use_cache": False}):
        found = write(
            model,
            SHORT,
            LONG,
            edits=[Steer((1, i), 4.0, unit="raw")],
            source=suite,
            max_new_tokens=9,
            min_new_tokens=9,
            **options,
        )
        for text, generation in zip((SHORT, LONG), found, strict=True):
            wanted = oracle().write(text_ids(text), [rule], 9)[0]
            assert list(generation.tokens.ids) == wanted
            assert wanted != oracle().write(text_ids(text), [], 9)[0]


def ending(model: Model, *tokens: int) -> Model:
    """The same model with other tokens that end a text."""
    module: Any = model.module
    module.generation_config.eos_token_id = list(tokens)
    return model


def an_end() -> tuple[int, int]:
    """A token that ends the long prompt's text early and the short one's not, and how early."""
    long = oracle().write(text_ids(LONG), [], 10)[0]
    short = oracle().write(text_ids(SHORT), [], 10)[0]
    for place, token in enumerate(long):
        if place >= 2 and token not in long[:place] and token not in short:
            return token, place
    raise AssertionError("no token of the long prompt's text would do")


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("use_cache", [True, False])
def test_each_row_ends_by_itself(
    fresh: Model, suite: RandomSuite, use_cache: bool, edited: bool
) -> None:
    token, place = an_end()
    model = ending(fresh, EOS_NEVER, token)
    # Too small to change the text, and with a record of where it acted.
    small: list[Any] = [Steer((1, 3), 1e-6, positions=(1,)), Steer((2, 3), 1e-6, unit="raw")]
    edits = small if edited else []
    options: dict[str, Any] = {
        "max_new_tokens": 10, "use_cache": use_cache, "edits": edits, "source": suite,
    }  # fmt: skip
    both = write(model, LONG, SHORT, **options)
    alone = [write(model, text, **options)[0] for text in (LONG, SHORT)]
    for one, beside in zip(alone, both, strict=True):
        assert one.ids == beside.ids
        assert one.finish == beside.finish
        assert one.logprobs == pytest.approx(beside.logprobs, abs=1e-4)
        for a, b in zip(one.receipt.acts, beside.receipt.acts, strict=True):
            assert (a.steps, a.positions) == (b.steps, b.positions)
            assert a.mean_norm == pytest.approx(b.mean_norm, rel=1e-4)
    assert both[0].tokens.ids[-1] == token
    assert len(both[0].tokens) == len(both[0].logprobs) == place + 1
    assert (both[0].finish, both[1].finish) == ("end", "length")
    assert len(both[1].tokens) == 10


EOS_NEVER = 1


def test_the_stream_shows_padding_for_a_row_that_has_ended(fresh: Model) -> None:
    token, place = an_end()
    steps: list[Step] = []
    write(ending(fresh, token), LONG, SHORT, max_new_tokens=10, stream=steps.append)
    assert [step.ids[0] for step in steps[place:]] == [token] + [0] * (9 - place)
    assert steps[-1].strings[0] == "<pad>"


def test_a_text_that_ends_early_ends_the_run(fresh: Model, suite: RandomSuite) -> None:
    token, place = an_end()
    for edits in ([], [Steer((1, 3), 1e-9, unit="raw")]):
        steps: list[Step] = []
        (found,) = write(
            ending(fresh, token),
            LONG,
            max_new_tokens=40,
            edits=edits,
            source=suite,
            stream=steps.append,
        )
        assert found.finish == "end"
        assert len(steps) == len(found.tokens) == place + 1


def test_no_end_before_the_least_number_of_tokens(fresh: Model) -> None:
    token, place = an_end()
    model = ending(fresh, token)
    steps: list[Step] = []
    least = place + 3
    (found,) = write(
        model, LONG, max_new_tokens=12, min_new_tokens=least, stream=lambda s: steps.append(s)
    )
    assert token not in found.tokens.ids[:least]
    assert len(found.tokens) >= least
    # The second choice where the first would have been the end, and the model's own probability.
    best = steps[place].logits[0].topk(2)
    assert best.indices[0] == token
    assert found.tokens.ids[place] == best.indices[1]
    wanted = math.log(float(steps[place].logits[0].softmax(-1)[found.tokens.ids[place]]))
    assert found.logprobs[place] == pytest.approx(wanted, abs=1e-4)


def test_finish_by_length_and_by_context(model: Model) -> None:
    (found,) = write(model, LONG, max_new_tokens=3)
    assert (found.finish, len(found.tokens)) == ("length", 3)
    (found,) = write(model, LONG, max_new_tokens=100, min_new_tokens=100)
    assert (found.finish, len(found.ids)) == ("context", 64)
    (found,) = write(model, LONG, max_new_tokens=52, min_new_tokens=52)
    assert (found.finish, len(found.ids)) == ("length", 64)
    (found,) = write(model, "a" * 63, max_new_tokens=5)
    assert (found.finish, found.tokens.ids, found.text) == ("context", (), "")


def test_the_context_of_a_row_does_not_depend_on_its_company(model: Model) -> None:
    long = "a" * 60
    both = write(model, long, SHORT, max_new_tokens=8, min_new_tokens=8)
    assert [(g.finish, len(g.tokens)) for g in both] == [("context", 3), ("length", 8)]
    assert both[1].ids == write(model, SHORT, max_new_tokens=8, min_new_tokens=8)[0].ids


def test_logprobs_are_those_of_a_pass_over_the_finished_text(
    model: Model, suite: RandomSuite
) -> None:
    i = most_active(LONG, (1, "res"))
    edits = [Steer((1, i), 2.0, unit="raw")]
    found = generate(
        model,
        prompts(model, LONG, SHORT),
        edits=edits,
        source=suite,
        temperature=3.0,
        top_p=0.9,
        max_new_tokens=6,
    )
    rule = Rule((1, "res"), lambda x, p: 2.0 * row((1, "res"), i).expand_as(x))
    for text, generation in zip((LONG, SHORT), found, strict=True):
        start = len(text_ids(text))
        logits = oracle().run(generation.ids, start, [rule])
        for place, (token, got) in enumerate(
            zip(generation.tokens.ids, generation.logprobs, strict=True)
        ):
            line = logits[start - 1 + place]
            wanted = float(line[token]) - math.log(sum(math.exp(v) for v in line.tolist()))
            assert got == pytest.approx(wanted, abs=2e-3)


class TestDrawing:
    options = {"temperature": 6.0, "max_new_tokens": 12, "min_new_tokens": 12}

    def test_a_seed_fixes_the_text(self, model: Model) -> None:
        texts = [write(model, LONG, seed=seed, **self.options)[0].ids for seed in (0, 0, 1, 2)]
        assert texts[0] == texts[1]
        assert len(set(texts)) == 3

    def test_a_prompt_draws_the_same_in_company(self, model: Model) -> None:
        both = write(model, LONG, SHORT, seed=3, **self.options)
        turned = write(model, SHORT, LONG, seed=3, **self.options)
        assert both[0].ids == turned[1].ids == write(model, LONG, seed=3, **self.options)[0].ids
        assert both[1].ids == turned[0].ids == write(model, SHORT, seed=3, **self.options)[0].ids

    def test_drawing_leaves_the_global_generator_alone(self, model: Model) -> None:
        torch.manual_seed(5)
        before = torch.random.get_rng_state()
        write(model, SHORT, **self.options)
        assert torch.random.get_rng_state().equal(before)

    def test_drawn_tokens_are_among_the_allowed(self, model: Model) -> None:
        steps: list[Step] = []
        options = {**self.options, "top_p": 0.5, "stream": steps.append}
        write(model, LONG, SHORT, **options)
        sizes = []
        for step in steps:
            for number, token in enumerate(step.ids):
                logits = step.logits[number].clone()
                logits[EOS_NEVER] = -torch.inf
                kept = allowed(logits.tolist(), 6.0, 0.5)
                sizes.append(len(kept))
                assert token in kept
        assert max(sizes) > 3


def allowed(logits: list[float], temperature: float, top_p: float) -> dict[int, float]:
    """The smallest set of likeliest tokens that holds `top_p`, one by one."""
    weights = [math.exp(value / temperature) for value in logits]
    total = sum(weights)
    kept: dict[int, float] = {}
    for token in sorted(range(len(logits)), key=lambda i: -weights[i]):
        kept[token] = weights[token] / total
        if sum(kept.values()) >= top_p:
            break
    share = sum(kept.values())
    return {token: probability / share for token, probability in kept.items()}


@pytest.mark.parametrize("top_p", [0.01, 0.4, 0.75, 0.95, 1.0])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_top_p_is_the_smallest_set_after_the_temperature(temperature: float, top_p: float) -> None:
    logits = torch.tensor([[1.0, -0.5, 2.2, 0.3, -3.0, 1.9]])
    wanted = allowed(logits[0].tolist(), temperature, top_p)
    count = 3000
    random = torch.Generator().manual_seed(11)
    draws = sample(logits.expand(count, -1), temperature, top_p, [random] * count)
    share = torch.bincount(draws, minlength=6) / count
    for token in range(6):
        probability = wanted.get(token, 0.0)
        deviation = math.sqrt(probability * (1 - probability) / count)
        assert abs(float(share[token]) - probability) <= 4.5 * deviation


def test_a_tiny_temperature_is_greedy() -> None:
    logits = torch.tensor([[1.0, 30.0, 29.9]])
    assert sample(logits, 1e-38, 1.0, [torch.Generator()]).tolist() == [1]
    assert sample(logits, 0, 1.0, [torch.Generator()]).tolist() == [1]


def test_each_token_is_streamed_once_and_in_order(model: Model, suite: RandomSuite) -> None:
    for edits in ([], [Steer((1, 3), 1.0)]):
        steps: list[Step] = []
        found = write(
            model,
            LONG,
            SHORT,
            edits=edits,
            source=suite,
            max_new_tokens=5,
            min_new_tokens=5,
            stream=steps.append,
        )
        assert [step.index for step in steps] == [0, 1, 2, 3, 4]
        for number, generation in enumerate(found):
            assert tuple(step.ids[number] for step in steps) == generation.tokens.ids
            assert tuple(step.strings[number] for step in steps) == generation.tokens.strings
        assert steps[0].logits.shape == (2, 262)


def test_streamed_logits_are_the_models(model: Model) -> None:
    steps: list[Tensor] = []
    ids = text_ids(SHORT)
    write(model, SHORT, max_new_tokens=2, stream=lambda step: steps.append(step.logits[0]))
    close(steps[0], oracle().run(ids, len(ids))[-1])
    close(steps[0], trace(model, prompts(model, SHORT)).logits[0, -1])


def test_a_generation_prints_as_its_whole_text(model: Model) -> None:
    (found,) = write(model, "é🙂", max_new_tokens=2)
    assert str(found) == "é🙂" + found.text


def test_a_notebook_shows_a_text_and_what_edits_did(model: Model, suite: RandomSuite) -> None:
    (plain,) = write(model, "ab", max_new_tokens=2)
    (edited,) = generate(
        model,
        prompts(model, "ab"),
        edits=[Steer((1, 3), 1.0, unit="raw")],
        source=suite,
        max_new_tokens=2,
    )
    assert pretty(plain) == f"<{plain}>"
    assert pretty(edited) == f"<{edited}>\n{edited.receipt}"
    assert str(edited.receipt).startswith("edit 0: ")
    assert pretty([plain, plain]) == f"[<{plain}>, <{plain}>]"
    assert repr(plain).startswith("Generation(prompt=Tokens(")


def test_one_end_token_may_be_a_plain_number() -> None:
    module: Any = loud_module()
    model = wrap(module, byte_tokenizer(), name="plain")
    assert model.end_tokens == (1,)
    module.generation_config.eos_token_id = None
    assert model.end_tokens == (1,)
    model.tokenizer.eos_token = None
    assert model.end_tokens == ()
    assert write(model, SHORT, max_new_tokens=2, min_new_tokens=1)[0].finish == "length"
