"""While it writes: sliders act at the next token or begin anew, Stop stops, panels take turns."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from steering.panels import OPTIONS, PROMPT, of_code, panel_of, put, send, words

import workbench as wb
from workbench.engine.tracing import Step
from workbench.lab import Lab
from workbench.panels import Steering
from workbench.panels.steering_texts import Column

LONG: dict[str, Any] = {"max_new_tokens": 120, "temperature": 1.0}


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


@pytest.fixture(scope="module")
def found(lab: Lab) -> list[int]:
    """Features of layer 4 that fire on the prompt."""
    return lab.run(PROMPT).features(4).top(4)


def at_token(
    monkeypatch: pytest.MonkeyPatch, number: int, do: Callable[[], Any], column: str = "steered"
) -> list[int]:
    """Call `do` once, when the text of `column` has `number` tokens; gives the step of the call."""
    done: list[int] = []
    write = Column.__call__

    def call(self: Column, step: Step) -> None:
        write(self, step)
        if self.name == column and step.index + 1 == number and not done:
            done.append(step.index)
            do()

    monkeypatch.setattr(Column, "__call__", call)
    return done


def finished(panel: Steering, seconds: float = 180) -> None:
    assert panel.job.join(seconds), "the panel still writes"
    assert panel.errands.join(seconds)
    assert panel.widget.error == "", panel.widget.error


def test_a_slider_acts_from_the_next_token_on(
    lab: Lab, found: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = panel_of(lab, (4, found[0]), max_new_tokens=20)
    panel.widget.live = "next"
    done = at_token(monkeypatch, 5, lambda: put(panel, 0, value=2.5))
    send(panel, "run")
    assert done == [4]
    edits = wb.LiveEdits([wb.Steer((4, found[0]), 0.0)])

    def change(step: Step) -> None:
        if step.index == 4:
            edits.replace(0, wb.Steer((4, found[0]), 2.5))

    wanted = lab.generate(PROMPT, edits=edits, stream=change, **{**OPTIONS, "max_new_tokens": 20})
    assert words(panel) == list(wanted.tokens.strings)
    assert words(panel)[:5] == words(panel, "plain")[:5]
    assert words(panel) != words(panel, "plain")
    assert any("value was changed while" in line for line in panel.widget.warnings)
    assert "at +2.5" in panel.widget.receipt[0]
    assert "2.5" in panel.widget.code
    send(panel, "run")  # now the text of the code
    assert words(panel) == list(of_code(panel).tokens.strings)
    assert panel.widget.warnings == []


@pytest.mark.parametrize("how", ["value", "mute", "add", "remove", "move", "mode", "settings"])
def test_a_change_of_the_set_begins_anew_while_running(
    lab: Lab, found: list[int], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    panel = panel_of(lab, (4, found[0]), (4, found[1]), strength=1.5, synchronous=False)
    if how != "value":  # which alone may act at once
        panel.widget.live = "next"
    ids = [row["id"] for row in panel.widget.rows]
    one, two = (wb.Steer((4, i), 1.5) for i in found[:2])
    change, edits = {
        "value": (lambda: put(panel, 0, value=3.0), [wb.Steer((4, found[0]), 3.0), two]),
        "mute": (lambda: put(panel, 0, muted=True), [two]),
        "add": (lambda: send(panel, "add", layer=5, kind="res", index=3), [one, two]),
        "remove": (lambda: send(panel, "remove", id=ids[0]), [two]),
        "move": (lambda: send(panel, "move", id=ids[1], to=0), [two, one]),
        "mode": (lambda: put(panel, 0, mode="ablate"), [wb.Ablate((4, found[0])), two]),
        "settings": (lambda: send(panel, "settings", key="seed", value=8), [one, two]),
    }[how]
    first = panel.widget.run + 1
    done = at_token(monkeypatch, 4, lambda: (change(), panel.errands.join(20)))
    send(panel, "run")
    finished(panel)
    assert done == [3]
    assert panel.widget.run == first + 1
    options: dict[str, Any] = OPTIONS | ({"seed": 8} if how == "settings" else {})
    wanted = lab.generate(PROMPT, edits=edits, **options)
    assert words(panel) == list(wanted.tokens.strings)
    assert panel.widget.status["state"] == "done"
    assert panel.widget.warnings == []


def test_stop_stops_within_one_token_and_keeps_what_is_there(
    lab: Lab, found: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = panel_of(lab, (4, found[0]), strength=1.0, synchronous=False, **LONG)
    done = at_token(monkeypatch, 6, lambda: send(panel, "stop"))
    send(panel, "run")
    finished(panel)
    assert done == [5]
    assert panel.widget.status["state"] == "stopped"
    wanted = lab.generate(
        PROMPT, edits=[wb.Steer((4, found[0]), 1.0)], **{**OPTIONS, **LONG, "max_new_tokens": 6}
    )
    assert words(panel) == list(wanted.tokens.strings)
    assert "acted at" in panel.widget.receipt[0]
    assert panel.widget.meters["steered"]["verdict"]
    assert "shift" in panel.widget.texts["steered"][-1]


def test_stop_in_the_unsteered_text_does_not_keep_a_part_of_it(
    lab: Lab, found: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = panel_of(lab, (4, found[0]), strength=1.0, synchronous=False)
    at_token(monkeypatch, 3, lambda: send(panel, "stop"), column="plain")
    send(panel, "run")
    finished(panel)
    assert len(words(panel, "plain")) == 3
    assert words(panel) == []
    assert panel.widget.status["state"] == "stopped"
    send(panel, "run")
    finished(panel)
    assert words(panel, "plain") == list(lab.generate(PROMPT, **OPTIONS).tokens.strings)


def test_the_unsteered_text_is_written_once(
    lab: Lab, found: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = panel_of(lab, (4, found[0]), strength=1.0)
    done = at_token(monkeypatch, 1, lambda: None, column="plain")
    send(panel, "run")
    assert done == [0]
    done.clear()
    put(panel, 0, value=2.0)
    assert done == []
    assert len(words(panel, "plain")) == OPTIONS["max_new_tokens"]
    panel.widget.prompt = "A boat"
    send(panel, "run")
    assert done == [0]


def test_an_interrupt_of_the_kernel_is_a_stop(
    lab: Lab, found: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = panel_of(lab, (4, found[0]), strength=1.0)

    def interrupt() -> None:
        raise KeyboardInterrupt

    at_token(monkeypatch, 4, interrupt)
    send(panel, "run")
    assert panel.widget.status["state"] == "stopped"
    assert len(words(panel)) == 4
    monkeypatch.undo()
    assert not lab.engine.turn.busy
    send(panel, "run")
    wanted = lab.generate(PROMPT, edits=[wb.Steer((4, found[0]), 1.0)], **OPTIONS)
    assert words(panel) == list(wanted.tokens.strings)


def test_an_error_on_the_way_is_shown_and_the_panel_goes_on(
    lab: Lab, found: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = panel_of(lab, (4, found[0]), strength=1.0, synchronous=False)

    def fail() -> None:
        raise RuntimeError("the GPU fell off")

    at_token(monkeypatch, 4, fail)
    send(panel, "run")
    assert panel.job.join(60)
    assert "the GPU fell off" in panel.widget.error
    assert panel.widget.status["state"] == "error"
    assert len(words(panel)) == 4
    send(panel, "run")
    finished(panel)
    assert len(words(panel)) == OPTIONS["max_new_tokens"]


def test_two_panels_and_a_cell_take_turns(lab: Lab, found: list[int]) -> None:
    panels = [
        panel_of(lab, (4, index), strength=1.5, synchronous=False, baselines=["random"])
        for index in found[:2]
    ]
    for panel in panels:
        send(panel, "run")
    send(panels[0], "search", how="text", query="A boat", other="")
    cell = lab.generate(PROMPT, edits=[wb.Steer((4, found[2]), 1.5)], **OPTIONS)
    for panel, index in zip(panels, found[:2], strict=True):
        finished(panel)
        wanted = lab.generate(PROMPT, edits=[wb.Steer((4, index), 1.5)], **OPTIONS)
        assert words(panel) == list(wanted.tokens.strings)
    again = lab.generate(PROMPT, edits=[wb.Steer((4, found[2]), 1.5)], **OPTIONS)
    assert cell.ids == again.ids
    assert panels[0].widget.found["rows"]


def test_the_newest_search_is_shown_and_no_feature_to_add_is_lost(
    lab: Lab, found: list[int]
) -> None:
    panel = panel_of(lab, synchronous=False)
    with lab.engine.turn.take():  # somebody else uses the model
        send(panel, "search", how="text", query="A boat", other="")
        time.sleep(0.1)
        for index in found:
            send(panel, "add", layer=4, kind="res", index=index)
        send(panel, "search", how="index", query="4 7", other="")
        time.sleep(0.2)
        assert panel.widget.found["state"] == "running"
    finished(panel)
    assert [row["index"] for row in panel.widget.rows] == found
    rows: Any = panel.widget.found["rows"]
    assert [row["index"] for row in rows] == [7]


def test_many_moves_of_a_slider_keep_the_memory_flat(lab: Lab, found: list[int]) -> None:
    panel = panel_of(lab, (4, found[0]), synchronous=False, max_new_tokens=6)
    id = panel.widget.rows[0]["id"]

    def move(times: int) -> None:
        for i in range(times):
            send(panel, "set", id=id, key="value", value=(i % 40) / 10)
            time.sleep(0.002)
        finished(panel)

    move(40)
    tracemalloc.start()
    move(20)
    before, _ = tracemalloc.get_traced_memory()
    move(200)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 2e6, f"{(after - before) / 1e6:.1f} MB more"
    assert threading.active_count() < 20
    last = lab.generate(
        PROMPT, edits=[wb.Steer((4, found[0]), (199 % 40) / 10)], **{**OPTIONS, "max_new_tokens": 6}
    )
    assert words(panel) == list(last.tokens.strings)
