"""Tokens on their way to the page: coalesced, in order, none of an older run."""

from __future__ import annotations

from typing import Any

import pytest

from workbench.widgets.token_stream import TokenStream

PAIR = ("steered", "plain")


class FakeClock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_stream_is_coalesced_in_order_and_complete() -> None:
    clock, sent = FakeClock(), []
    stream = TokenStream(sent.append, clock=clock)
    run = stream.start(PAIR)
    for number in range(1000):
        clock.now += 0.002
        assert stream.add(run, "steered" if number % 2 else "plain", [{"text": f"{number} "}])
    during = len(sent)
    assert 20 <= during / clock.now <= 25
    final = stream.finish(run)
    for column, first in (("plain", 0), ("steered", 1)):
        want = [f"{number} " for number in range(first, 1000, 2)]
        messages = [message for message in sent if message["column"] == column]
        assert [token["text"] for message in messages for token in message["tokens"]] == want
        assert final is not None
        assert [token["text"] for token in final[column]] == want


def test_first_tokens_of_both_columns_leave_at_once() -> None:
    sent: list[dict[str, Any]] = []
    stream = TokenStream(sent.append, clock=FakeClock())
    run = stream.start(PAIR)
    stream.add(run, "steered", [{"text": "a"}])
    stream.add(run, "plain", [{"text": "b"}])
    stream.add(run, "plain", [{"text": "c"}])
    assert [message["column"] for message in sent] == ["steered", "plain"]


def test_stale_run_is_told_so() -> None:
    sent: list[dict[str, Any]] = []
    stream = TokenStream(sent.append, clock=FakeClock())
    old = stream.start(PAIR)
    new = stream.start(PAIR)
    assert new > old
    assert not stream.add(old, "steered", [{"text": "late"}])
    assert stream.finish(old) is None
    assert sent == []


def test_a_new_run_drops_what_the_old_one_had_waiting() -> None:
    sent: list[dict[str, Any]] = []
    stream = TokenStream(sent.append, clock=FakeClock())
    old = stream.start(PAIR)
    for number in range(5):
        stream.add(old, "steered", [{"text": str(number)}])
    new = stream.start(PAIR)
    stream.add(new, "plain", [{"text": "new"}])
    assert stream.finish(new) == {"steered": [], "plain": [{"text": "new"}]}
    assert [message["tokens"] for message in sent if message["run"] == new] == [[{"text": "new"}]]


def test_tokens_are_checked_and_made_plain() -> None:
    sent: list[dict[str, Any]] = []
    stream = TokenStream(sent.append, clock=FakeClock())
    run = stream.start(PAIR)
    token = {"text": "a", "shift": float("nan"), "p": 1, "top": [("b", 0.5)]}
    stream.add(run, "plain", [token])
    assert sent[0]["tokens"] == [{"text": "a", "p": 1.0, "top": [["b", 0.5]]}]
    with pytest.raises(TypeError, match=r"token has no 'prob'"):
        stream.add(run, "plain", [{"text": "a", "prob": 1}])
    with pytest.raises(ValueError, match=r"column is 'left'; this run has: steered, plain"):
        stream.add(run, "left", [])
    with pytest.raises(ValueError, match=r"column is 'left'"):
        stream.finish(run, {"left": []})


def test_a_run_writes_as_many_columns_as_it_was_started_with() -> None:
    sent: list[dict[str, Any]] = []
    stream = TokenStream(sent.append, clock=FakeClock())
    run = stream.start([*PAIR, "random"])
    for column in ("random", "plain", "random"):
        stream.add(run, column, [{"text": column, "entropy": 0.5}])
    final = stream.finish(run, {"plain": [{"text": "known later", "shift": 2}]})
    assert final == {
        "steered": [],
        "plain": [{"text": "known later", "shift": 2.0}],
        "random": [{"text": "random", "entropy": 0.5}] * 2,
    }
