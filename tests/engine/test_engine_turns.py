"""Interruptions: stops, live changes, second callers, errors; after each the model is as new."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import RandomSuite
from engine.engine_oracle import (
    Rule,
    close,
    most_active,
    oracle,
    row,
    text_ids,
)
from torch import Tensor
from transformers import DynamicCache

from workbench.engine.edits import Ablate, Patch, Scale, Steer, When
from workbench.engine.receipts import NoEffectWarning
from workbench.engine.tracing import Generation, LiveEdits, Step, generate, trace
from workbench.models import Model, Turn
from workbench.sites import Site
from workbench.tokens import Tokens, tokenize

TEXT, SHORT = "The cat sat", "Hi 5"
PLACE = (1, "res")


def prompt(model: Model) -> list[Tokens]:
    return [tokenize(model.tokenizer, TEXT)]


@pytest.fixture(autouse=True)
def as_good_as_new(model: Model) -> Iterator[None]:
    threads = set(threading.enumerate())
    yield
    assert not model.turn.busy
    ids = text_ids(TEXT)
    run = trace(model, prompt(model), [Site(1)])
    close(run.logits[0], oracle().run(ids, len(ids)))
    close(run.activations[Site(1)][0], oracle().leaving[PLACE])
    assert set(threading.enumerate()) == threads


def write(model: Model, suite: RandomSuite, **options: Any) -> Generation:
    defaults: dict[str, Any] = {
        "edits": [Steer((1, 3), 1.0)],
        "temperature": 0,
        "max_new_tokens": 8,
        "min_new_tokens": 8,
    }
    return generate(model, prompt(model), source=suite, **{**defaults, **options})[0]


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list]:
    found: list = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


@pytest.mark.parametrize("edits", [[], [Steer((1, 3), 1.0)]], ids=["plain", "edited"])
def test_a_stop_from_another_thread_ends_within_one_token(
    model: Model, suite: RandomSuite, edits: list
) -> None:
    stop = threading.Event()

    def stream(step: Step) -> None:
        if step.index == 2:
            other = threading.Thread(target=stop.set)
            other.start()
            other.join()

    found = write(model, suite, edits=edits, stop=stop, stream=stream)
    assert (found.finish, len(found.tokens)) == ("stopped", 3)
    assert found.tokens.ids == write(model, suite, edits=edits).tokens.ids[:3]


def test_a_stop_before_the_start_writes_nothing_and_does_not_warn(
    model: Model, suite: RandomSuite
) -> None:
    stop = threading.Event()
    stop.set()
    found = write(model, suite, stop=stop)
    assert (found.finish, found.text, found.ids) == ("stopped", "", text_ids(TEXT))


class TestLiveEdits:
    def by_hand(self, strengths: list[float], index: int) -> tuple[list[int], list[Tensor]]:
        """A cached run with a strength for each pass."""
        ids, text, steps = list(text_ids(TEXT)), list(text_ids(TEXT)), []
        cache, start = DynamicCache(config=oracle().module.config), 0
        for strength in strengths:
            rule = Rule(PLACE, lambda x, p, s=strength: s * row(PLACE, index).expand(len(x), -1))
            logits = oracle().run(text[start:], len(ids), [rule], cache=cache, start=start)[-1]
            start = len(text)
            steps.append(logits.clone())
            logits[1] = -torch.inf
            text.append(int(logits.argmax()))
        return text[len(ids) :], steps

    def test_a_change_holds_from_the_very_next_token(
        self, model: Model, suite: RandomSuite
    ) -> None:
        i = most_active(TEXT, PLACE)
        live = LiveEdits([Steer((1, i), 1.0, unit="raw")])
        steps: list[Tensor] = []

        def stream(step: Step) -> None:
            steps.append(step.logits[0].clone())
            if step.index == 2:
                live.replace(0, Steer((1, i), 9.0, unit="raw"))

        found = write(model, suite, edits=live, stream=stream, max_new_tokens=6, min_new_tokens=6)
        tokens, wanted = self.by_hand([1.0] * 3 + [9.0] * 3, i)
        constant = self.by_hand([1.0] * 6, i)[1]
        for got, want in zip(steps, wanted, strict=True):
            close(got, want)
        assert list(found.tokens.ids) == tokens
        close(steps[2], constant[2])
        assert (steps[3] - constant[3]).abs().max() > 1

    def test_a_live_edit_may_rest_without_a_warning(self, model: Model, suite: RandomSuite) -> None:
        # Warnings are errors here; the fixed edit below shows that this one would have warned.
        resting = Steer((1, 3), 0.0)
        found = write(model, suite, edits=LiveEdits([resting, Steer((1, 4), 1.0)]))
        assert [act.acted for act in found.receipt.acts] == [False, True]
        with pytest.warns(NoEffectWarning):
            write(model, suite, edits=[resting])

    def test_a_change_while_the_edits_are_being_bound_is_not_lost(
        self, model: Model, suite: RandomSuite
    ) -> None:
        i = most_active(TEXT, PLACE)
        live = LiveEdits([Steer((1, i), 1.0)])

        class Meddler(RandomSuite):
            def typical_maximum(self, site: Any, index: int) -> float:
                if live.edits[0] == Steer((1, i), 1.0):
                    live.replace(0, Steer((1, i), 7.0))
                return 1.0

        steps: list[Tensor] = []
        write(
            model,
            Meddler(suite.saes),
            edits=live,
            stream=lambda s: steps.append(s.logits[0].clone()),
            max_new_tokens=2,
            min_new_tokens=2,
        )
        for got, want in zip(steps, self.by_hand([7.0, 7.0], i)[1], strict=True):
            close(got, want)

    def test_no_change_is_lost_between_two_threads(self) -> None:
        live = LiveEdits([Steer((1, i), 0.0) for i in range(8)])

        def move(index: int) -> None:
            for strength in range(300):
                live.replace(index, Steer((1, index), float(strength)))

        workers = [threading.Thread(target=move, args=(i,)) for i in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert live.edits == tuple(Steer((1, i), 299.0) for i in range(8))

    def test_an_edit_may_become_another_at_the_same_site(
        self, model: Model, suite: RandomSuite
    ) -> None:
        live = LiveEdits([Steer((1, 3), 1.0), Ablate((1, 5))])

        def stream(step: Step) -> None:
            if step.index == 1:
                live.replace(0, Scale((1, 7), 30.0))

        found = write(model, suite, edits=live, stream=stream)
        assert found.receipt.acts[0].steps[:2] == (0, 1)

    def test_a_receipt_counts_every_feature_that_an_edit_was(
        self, model: Model, suite: RandomSuite
    ) -> None:
        live = LiveEdits([Steer((1, 3), 1.0, unit="raw", when="generated")])
        norms = [float(row(PLACE, i).pow(2).sum().sqrt()) for i in (3, 7)]
        assert abs(norms[0] - norms[1]) > 0.1

        def stream(step: Step) -> None:
            if step.index == 2:
                live.replace(0, Steer((1, 7), 1.0, unit="raw", when="generated"))

        found = write(model, suite, edits=live, stream=stream, max_new_tokens=6, min_new_tokens=6)
        # Five tokens were read: two under the first feature, three under the second.
        wanted = (2 * norms[0] + 3 * norms[1]) / 5
        assert found.receipt.acts[0].steps == (1, 2, 3, 4, 5)
        assert found.receipt.acts[0].mean_norm == pytest.approx(wanted, rel=1e-4)

    def test_an_edit_may_not_move(self) -> None:
        live = LiveEdits([Steer((1, 3), 1.0), When((0, 1), Steer((1, 3), 1.0))])
        with pytest.raises(ValueError, match="layer 1 res and cannot move to layer 2 res"):
            live.replace(0, Steer((2, 3), 1.0))
        with pytest.raises(ValueError, match="cannot move to layer 0 att while running"):
            live.replace(1, When((0, 1), Steer((1, 3), 1.0), kind="att"))
        with pytest.raises(IndexError, match="no edit 2; there are 2"):
            live.replace(2, Steer((1, 3), 1.0))
        with pytest.raises(TypeError, match="edit 1 is 'up'"):
            live.replace(1, "up")  # pyright: ignore[reportArgumentType]
        live.replace(1, Ablate((1, 9)))
        assert live.edits == (Steer((1, 3), 1.0), Ablate((1, 9)))

    def test_a_change_to_a_feature_that_does_not_exist_ends_the_run(
        self, model: Model, suite: RandomSuite
    ) -> None:
        live = LiveEdits([Steer((1, 3), 1.0)])
        with pytest.raises(ValueError, match="feature index 40"):
            write(
                model,
                suite,
                edits=live,
                stream=lambda step: live.replace(0, Steer((1, 40), 1.0)),
            )


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
@pytest.mark.parametrize("edits", [[], [Steer((1, 3), 1.0)]], ids=["plain", "edited"])
def test_an_error_in_a_stream_comes_out_as_it_is(
    model: Model, suite: RandomSuite, edits: list, error: type[BaseException]
) -> None:
    def stream(step: Step) -> None:
        if step.index == 1:
            raise error("mine")

    before = write(model, suite)
    with pytest.raises(error, match="mine"):
        write(model, suite, edits=edits, stream=stream)
    assert write(model, suite) == before


def test_an_edit_that_makes_the_model_overflow_is_named(model: Model, suite: RandomSuite) -> None:
    with pytest.raises(ValueError, match="an edit is too strong"):
        write(model, suite, edits=[Steer((1, 3), 3e38, unit="raw")])


def test_an_error_at_a_site_comes_out_as_it_is(
    model: Model, suite: RandomSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ArithmeticError("at the site")

    monkeypatch.setattr("workbench.engine.program.Group.coefficients", broken)
    with pytest.raises(ArithmeticError, match="at the site"):
        write(model, suite)
    with pytest.raises(ArithmeticError, match="at the site"):
        trace(model, prompt(model), edits=[Steer((1, 3), 1.0)], source=suite)


def test_a_second_caller_waits(model: Model, suite: RandomSuite) -> None:
    alone = write(model, suite).ids, write(model, suite, edits=[]).ids
    started, order = threading.Event(), []

    def slow(step: Step) -> None:
        started.set()
        time.sleep(0.02)
        order.append("first")

    thread, found = in_thread(lambda: write(model, suite, stream=slow))
    assert started.wait(30)
    second = write(model, suite, edits=[], stream=lambda step: order.append("second"))
    thread.join()
    assert (found[0].ids, second.ids) == alone
    assert order == ["first"] * 8 + ["second"] * 8


def test_a_second_caller_may_end_the_first(model: Model, suite: RandomSuite) -> None:
    started, stop = threading.Event(), threading.Event()

    def until_stopped(step: Step) -> None:
        if step.index == 1:
            started.set()
            assert stop.wait(30)

    thread, found = in_thread(lambda: write(model, suite, stream=until_stopped, stop=stop))
    assert started.wait(30)
    second = write(model, suite, busy="cancel")
    thread.join()
    assert (found[0].finish, len(found[0].tokens)) == ("stopped", 2)
    assert (second.finish, len(second.tokens)) == ("length", 8)


def test_the_first_is_asked_to_stop_without_being_given_an_event(
    model: Model, suite: RandomSuite
) -> None:
    started = threading.Event()

    def slow(step: Step) -> None:
        started.set()
        time.sleep(0.02)

    thread, found = in_thread(
        lambda: write(model, suite, stream=slow, max_new_tokens=50, min_new_tokens=50)
    )
    assert started.wait(30)
    trace(model, prompt(model), busy="cancel")
    thread.join()
    assert found[0].finish == "stopped"
    assert len(found[0].tokens) < 50


def test_a_trace_cannot_be_cancelled_and_is_waited_for() -> None:
    turn = Turn()

    def second() -> str:
        with turn.take(busy="cancel"):
            return "had its turn"

    with turn.take():
        thread, found = in_thread(second)
        time.sleep(0.1)
        assert not found
    thread.join()
    assert found == ["had its turn"]
    assert not turn.busy


@pytest.mark.parametrize("busy", ["wait", "cancel"])
def test_a_run_inside_of_a_run_is_refused(model: Model, suite: RandomSuite, busy: Any) -> None:
    def stream(step: Step) -> None:
        trace(model, prompt(model), busy=busy)

    with pytest.raises(RuntimeError, match="in use by this very call"):
        write(model, suite, stream=stream)


def test_many_threads_take_turns(model: Model, suite: RandomSuite) -> None:
    wanted = {i: write(model, suite, edits=[Steer((1, i), 3.0)]).ids for i in range(4)}
    assert len(set(wanted.values())) > 1
    jobs = [in_thread(lambda i=i: write(model, suite, edits=[Steer((1, i), 3.0)])) for i in wanted]
    for thread, _ in jobs:
        thread.join()
    assert {i: jobs[i][1][0].ids for i in wanted} == wanted


class TestReceipts:
    def test_a_steering_by_hand(self, model: Model, suite: RandomSuite) -> None:
        for options in ({}, {"use_cache": False}):
            found = write(
                model,
                suite,
                edits=[Steer((1, 3), -2.0, unit="raw")],
                max_new_tokens=4,
                min_new_tokens=4,
                **options,
            )
            (act,) = found.receipt.acts
            rule = Rule(PLACE, lambda x, p: -2.0 * row(PLACE, 3).expand_as(x))
            # The last token was written and never read.
            read = found.ids[:-1]
            oracle().run(read, len(text_ids(TEXT)), [rule])
            sizes = oracle().arriving[PLACE][1:].pow(2).sum(-1).sqrt()
            norm = 2.0 * float(row(PLACE, 3).pow(2).sum().sqrt())
            assert act.steps == (0, 1, 2, 3)
            assert act.positions == tuple(range(1, len(read)))
            assert act.mean_norm == pytest.approx(norm, rel=1e-4)
            assert act.relative_norm == pytest.approx(float((norm / sizes).mean()), rel=1e-3)
            assert "acted at 14 positions in 4 steps" in str(found.receipt)

    def test_a_transcoder_is_compared_with_where_it_writes(
        self, model: Model, suite: RandomSuite
    ) -> None:
        place = (1, "transcoder")
        ids = text_ids(TEXT)
        run = trace(
            model,
            prompt(model),
            edits=[Steer((1, 3), 2.0, kind="transcoder", unit="raw")],
            source=suite,
        )
        oracle().run(ids, len(ids))
        sizes = oracle().arriving[1, "mlp"][1:].pow(2).sum(-1).sqrt()
        norm = 2.0 * float(row(place, 3).pow(2).sum().sqrt())
        (act,) = run.receipts[0].acts
        assert act.relative_norm == pytest.approx(float((norm / sizes).mean()), rel=1e-3)

    def test_an_ablation_acts_where_the_feature_is_active(
        self, model: Model, suite: RandomSuite
    ) -> None:
        from engine.engine_oracle import feature, seen

        texts = (TEXT, SHORT)
        prompts = [tokenize(model.tokenizer, text) for text in texts]
        i = most_active(TEXT, PLACE)
        edits = [Ablate((1, i)), Steer((1, 4), 1.0, positions=(2, -1)), Steer((1, 4), 1.0)]
        edits[2] = Patch(Site(2), seen(SHORT, (2, "res")), positions=(1, 3))
        run = trace(model, prompts, edits=edits, source=suite)
        for number, text in enumerate(texts):
            length = len(text_ids(text))
            found = feature(PLACE, seen(text, PLACE), i)
            active = [p for p in range(1, length) if found[p] > 0]
            first, second, third = run.receipts[number].acts
            assert first.positions == tuple(active)
            assert first.steps == ((0,) if active else ())
            norm = float(row(PLACE, i).pow(2).sum().sqrt())
            wanted = sum(float(found[p]) for p in active) / max(len(active), 1) * norm
            assert first.mean_norm == pytest.approx(wanted, rel=1e-4)
            assert second.positions == (2, length - 1)
            assert third.positions == ((1, 3) if number == 0 else third.positions)

    @pytest.mark.parametrize(
        "edit",
        [
            Steer((1, 3), 0.0),
            Scale((1, 3), 1.0),
            Steer((1, 3), 1.0, when="generated"),
            Steer((1, 3), 1.0, positions=(50,)),
            Steer((1, 3), 1.0, positions=(-50,)),
            Steer((1, 3), 1.0, steps=(9,)),
            When((1, 3), Steer((1, 3), 1.0), above=1e6),
        ],
        ids=repr,
    )
    def test_an_edit_that_never_acts_is_a_warning(
        self, model: Model, suite: RandomSuite, edit: Any
    ) -> None:
        with pytest.warns(NoEffectWarning, match="edit 1 did not act") as caught:
            run = trace(model, prompt(model), edits=[Steer((1, 4), 1.0), edit], source=suite)
        assert len(caught) == 1
        # The warning points at the line that asked for the run.
        assert caught[0].filename == __file__
        assert [act.acted for act in run.receipts[0].acts] == [True, False]
        assert "edit 1: did not act" in str(run.receipts[0])
        with pytest.warns(NoEffectWarning, match="edit 0 did not act"):
            write(model, suite, edits=[edit], max_new_tokens=1, min_new_tokens=1)

    def test_one_row_is_enough_to_act(self, model: Model, suite: RandomSuite) -> None:
        prompts = [tokenize(model.tokenizer, text) for text in (TEXT, SHORT)]
        edits = [Steer((1, 3), 1.0, positions=(9,))]
        run = trace(model, prompts, edits=edits, source=suite)
        assert [r.acts[0].positions for r in run.receipts] == [(9,), ()]

    def test_without_edits_there_is_nothing_to_tell(self, model: Model) -> None:
        assert str(trace(model, prompt(model)).receipts[0]) == "no edits"
