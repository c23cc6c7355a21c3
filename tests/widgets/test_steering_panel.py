"""The steering panel: streaming, sliders, run and stop, both texts."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from playwright.sync_api import Locator

from tests.widgets import samples
from tests.widgets.bridge import Bridge
from workbench.widgets import SteeringPanel
from workbench.widgets.token_stream import TokenStream

pytestmark = pytest.mark.browser

# In one task of the page, so that no pause can pass between the moves however busy the machine is.
MOVE = """(input, values) => {
    for (const value of values) {
        input.value = value;
        input.dispatchEvent(new Event('input', { bubbles: true }));
    }
}"""


def texts(host: Locator) -> list[str]:
    return [column.text_content() or "" for column in host.locator(".wb-text").all()]


class FakeClock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_stream_is_coalesced_in_order_and_complete() -> None:
    clock, sent = FakeClock(), []
    stream = TokenStream(sent.append, clock=clock)
    run = stream.start()
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
    run = stream.start()
    stream.add(run, "steered", [{"text": "a"}])
    stream.add(run, "plain", [{"text": "b"}])
    stream.add(run, "plain", [{"text": "c"}])
    assert [message["column"] for message in sent] == ["steered", "plain"]


def test_stale_run_is_told_so() -> None:
    sent: list[dict[str, Any]] = []
    stream = TokenStream(sent.append, clock=FakeClock())
    old = stream.start()
    new = stream.start()
    assert new > old
    assert not stream.add(old, "steered", [{"text": "late"}])
    assert stream.finish(old) is None
    assert sent == []


def test_a_new_run_drops_what_the_old_one_had_waiting() -> None:
    sent: list[dict[str, Any]] = []
    stream = TokenStream(sent.append, clock=FakeClock())
    old = stream.start()
    for number in range(5):
        stream.add(old, "steered", [{"text": str(number)}])
    new = stream.start()
    stream.add(new, "plain", [{"text": "new"}])
    assert stream.finish(new) == {"steered": [], "plain": [{"text": "new"}]}
    assert [message["tokens"] for message in sent if message["run"] == new] == [[{"text": "new"}]]


def test_tokens_are_checked_and_made_plain() -> None:
    sent: list[dict[str, Any]] = []
    stream = TokenStream(sent.append, clock=FakeClock())
    run = stream.start()
    token = {"text": "a", "shift": float("nan"), "p": 1, "top": [("b", 0.5)]}
    stream.add(run, "plain", [token])
    assert sent[0]["tokens"] == [{"text": "a", "p": 1.0, "top": [["b", 0.5]]}]
    with pytest.raises(TypeError, match=r"token has no 'prob'"):
        stream.add(run, "plain", [{"text": "a", "prob": 1}])
    with pytest.raises(ValueError, match=r"column is 'left'; allowed: steered, plain"):
        stream.add(run, "left", [])


def test_two_hundred_tokens_from_a_thread_arrive_in_order(bridge: Bridge) -> None:
    panel = samples.steering()
    host = bridge.show(panel)
    finished = threading.Event()

    def work() -> None:
        run = panel.start(total=200)
        for number in range(200):
            panel.stream(run, "steered", [{"text": f" {number}", "shift": number / 200}])
        panel.finish(run)
        finished.set()

    threading.Thread(target=work).start()
    bridge.until(finished.is_set)
    bridge.painted()
    want = "".join(f" {number}" for number in range(200))
    assert texts(host)[0] == samples.PROMPT + want
    assert len(bridge.custom("tokens")) < 50
    assert panel.status["state"] == "done"
    assert "Done · 200 tokens · " in (host.locator(".wb-status").text_content() or "")


def test_stream_shows_before_the_end_and_ignores_stale_runs(bridge: Bridge) -> None:
    panel = samples.steering()
    host = bridge.show(panel)
    old = panel.start(total=9)
    panel.stream(old, "steered", [{"text": " old"}])
    bridge.painted()
    assert texts(host)[0] == f"{samples.PROMPT} old"
    assert host.locator(".wb-status").text_content() == "Running · 1 of 9 tokens"
    new = panel.start(total=9, prompt="Elsewhere")
    # The first is refused in Python; the second stands for one that was already on its way.
    assert not panel.stream(old, "steered", [{"text": " stale"}])
    panel.send({"type": "tokens", "run": old, "column": "steered", "tokens": [{"text": " stale"}]})
    assert panel.stream(new, "steered", [{"text": " new"}])
    assert panel.stream(new, "plain", [{"text": " twin"}])
    bridge.painted()
    assert texts(host) == ["Elsewhere new", "Elsewhere twin"]
    assert not panel.finish(old, receipt=["wrong"])
    assert panel.finish(new, state="stopped", receipt=["Steer 231: 1 step"])
    bridge.painted()
    assert texts(host) == ["Elsewhere new", "Elsewhere twin"]
    assert host.locator(".wb-status").text_content() == "Stopped after 1 of 9 tokens"
    assert panel.receipt == ["Steer 231: 1 step"]


def test_final_texts_show_difference_shading_and_receipt(bridge: Bridge) -> None:
    panel = samples.finished_steering()
    host = bridge.show(panel)
    marks = host.locator(".wb-differs")
    assert marks.all_text_contents() == [" in", " near"]
    assert "differs from token 6 on" in (host.text_content() or "")
    shade = "s => s.style.backgroundColor"
    strongest = max(range(23), key=lambda number: panel.steered[number]["shift"])
    spans = host.locator(".wb-text").first.locator("span span")
    assert spans.nth(strongest).evaluate(shade) != spans.nth(0).evaluate(shade)
    assert host.locator(".wb-legend").is_visible()
    host.get_by_text("Receipt", exact=True).click()
    assert host.locator(".wb-receipt li").all_text_contents() == panel.receipt


def test_the_end_may_know_more_than_the_stream(bridge: Bridge) -> None:
    panel = samples.steering()
    host = bridge.show(panel)
    run = panel.start(total=2)
    panel.stream(run, "plain", [{"text": " a"}])
    bridge.painted()
    assert host.locator(".wb-status").text_content() == "Running · unsteered, 1 of 2 tokens"
    panel.stream(run, "steered", [{"text": " b"}])
    bridge.painted()
    assert host.locator(".wb-legend").is_hidden()
    panel.finish(run, steered=[{"text": " b", "shift": 2.5}])
    bridge.painted()
    assert panel.steered == [{"text": " b", "shift": 2.5}]
    assert panel.plain == [{"text": " a"}]
    assert "2.5" in (host.locator(".wb-legend").text_content() or "")


def test_a_token_tells_its_probabilities(bridge: Bridge) -> None:
    panel = samples.finished_steering()
    host = bridge.show(panel)
    card = host.locator(".wb-card")
    spans = host.locator(".wb-text").first.locator("span span")
    spans.nth(6).hover()
    text = card.text_content() or ""
    assert text.startswith("␣Tokyo")
    token = panel.steered[6]
    assert f"probability{round(100 * token['p'])} %" in text
    assert "without the edits" in text
    others = card.locator(".wb-bar-name").all_text_contents()
    assert "␣the" in others
    assert "␣Tokyo" not in others
    host.locator(".wb-text").first.focus()
    bridge.page.keyboard.press("End")
    assert (card.text_content() or "").startswith(".")
    bridge.page.keyboard.press("Escape")
    assert card.is_hidden()


def test_a_moving_slider_is_sent_once_after_a_pause(bridge: Bridge) -> None:
    panel = samples.steering()
    heard: list[tuple[int, float]] = []
    panel.on_change(lambda row, value: heard.append((row, value)))
    host = bridge.show(panel)
    slider = host.locator(".wb-range").first
    slider.evaluate(MOVE, ["1", "2", "4.5"])
    bridge.until(lambda: heard)
    bridge.page.wait_for_timeout(250)
    assert heard == [(0, 4.5)]
    assert panel.rows[0]["value"] == 4.5
    assert host.locator(".wb-number").first.input_value() == "4.5"
    assert panel.rows[1]["value"] == 6.5


def test_a_slider_that_is_let_go_is_sent_at_once(bridge: Bridge) -> None:
    panel = samples.steering()
    heard: list[tuple[int, float]] = []
    panel.on_change(lambda row, value: heard.append((row, value)))
    slider = bridge.show(panel).locator(".wb-range").first
    # Both events in one task: the pause cannot have passed when the message leaves.
    slider.evaluate(
        """input => {
            input.dispatchEvent(new Event('pointerdown'));
            input.value = '2';
            input.dispatchEvent(new Event('input'));
            input.dispatchEvent(new Event('change'));
        }"""
    )
    bridge.until(lambda: heard)
    bridge.page.wait_for_timeout(200)
    assert heard == [(0, 2.0)]


def test_a_text_that_follows_hears_while_the_slider_moves(bridge: Bridge) -> None:
    panel = samples.steering(live="next")
    heard: list[float] = []
    panel.on_change(lambda _row, value: heard.append(value))
    slider = bridge.show(panel).locator(".wb-range").first
    elapsed = slider.evaluate(
        """async input => {
            const start = performance.now();
            for (let i = 0; i < 30; i += 1) {
                input.value = i / 4;
                input.dispatchEvent(new Event('input'));
                await new Promise((done) => setTimeout(done, 20));
            }
            return performance.now() - start;
        }"""
    )
    bridge.until(lambda: heard and heard[-1] == 7.5)
    assert 2 <= len(heard) <= elapsed / 100 + 2
    assert heard == sorted(heard)


def test_keys_number_reset_and_mute(bridge: Bridge) -> None:
    panel = samples.steering()
    heard: list[tuple[Any, ...]] = []
    panel.on_change(lambda *change: heard.append(change))
    panel.on_mute(lambda *change: heard.append(("mute", *change)))
    host = bridge.show(panel)
    host.locator(".wb-range").first.press("ArrowRight")
    bridge.until(lambda: heard == [(0, 4.0)])
    number = host.locator(".wb-number").first
    number.fill("99")
    number.press("Enter")
    bridge.until(lambda: heard[1:] == [(0, 8.0)])
    assert number.input_value() == "8"
    assert "wb-beyond" in (host.locator(".wb-slider").first.get_attribute("class") or "")
    host.get_by_role("button", name="Reset layer 6 mlp feature 76").click()
    bridge.until(lambda: heard[2:] == [(2, 1)])
    mute = host.get_by_role("button", name="Mute layer 5 res feature 231")
    mute.click()
    bridge.until(lambda: heard[3:] == [("mute", 0, True)])
    assert mute.get_attribute("aria-pressed") == "true"
    assert panel.rows[0]["muted"] is True


def test_python_moves_a_slider_without_an_echo(bridge: Bridge) -> None:
    panel = samples.steering()
    heard: list[tuple[int, float]] = []
    panel.on_change(lambda row, value: heard.append((row, value)))
    host = bridge.show(panel)
    panel.set_value(1, -2.5)
    bridge.painted()
    assert host.locator(".wb-range").nth(1).input_value() == "-2.5"
    bridge.page.wait_for_timeout(200)
    assert heard == []


def test_run_and_stop(bridge: Bridge) -> None:
    panel = samples.steering()
    heard: list[Any] = []
    panel.on_stop(lambda: heard.append("stop"))

    @panel.on_run
    def _begin(prompt: str) -> None:
        heard.append(prompt)
        panel.start(total=5)

    host = bridge.show(panel)
    box = host.get_by_role("textbox", name="Prompt")
    box.fill("A new prompt")
    box.press("Shift+Enter")
    assert heard == []
    box.fill("A new prompt")
    box.press("Enter")
    bridge.until(lambda: heard == ["A new prompt"])
    bridge.painted()
    assert panel.prompt == "A new prompt"
    button = host.locator(".wb-run")
    assert button.text_content() == "Stop"
    button.click()
    bridge.until(lambda: heard[-1] == "stop")
    panel.finish(panel.run, state="stopped")
    bridge.painted()
    assert button.text_content() == "Run"
    button.click()
    bridge.until(lambda: heard[2:] == ["A new prompt"])


def test_live_switch(bridge: Bridge) -> None:
    panel = samples.steering()
    host = bridge.show(panel)
    host.get_by_role("button", name="from next token").click()
    bridge.until(lambda: panel.live == "next")
    panel.live = "restart"
    bridge.painted()
    pressed = host.get_by_role("button", name="restart").get_attribute("aria-pressed")
    assert pressed == "true"


def test_handler_errors_are_shown(bridge: Bridge) -> None:
    panel = samples.steering()

    @panel.on_run
    def _fail(prompt: str) -> None:
        raise RuntimeError(f"no model for {prompt!r}")

    host = bridge.show(panel)
    host.locator(".wb-run").click()
    bridge.until(lambda: panel.error)
    bridge.painted()
    shown = host.get_by_role("alert").text_content() or ""
    assert "on_run: RuntimeError: no model for 'Once upon" in shown
    assert "test_steering_panel.py, line" in shown


def test_wrong_messages_and_rows_are_refused(bridge: Bridge) -> None:
    panel = samples.steering()
    bridge.show(panel)
    panel._handle_custom_msg({"type": "set", "row": 7, "value": 1}, [])
    assert "row 7 cannot be 1.0; there are 3 rows" in panel.error
    panel._handle_custom_msg({"type": "fly"}, [])
    assert "message type is 'fly'; allowed: run, stop, set, mute" in panel.error
    with pytest.raises(ValueError, match=r"row 0: low 3 must be below high 3"):
        SteeringPanel(rows=[{**samples.ROWS[0], "low": 3, "high": 3}])
    with pytest.raises(TypeError, match=r"row 0 has no 'vale'. Did you mean 'value'\?"):
        SteeringPanel(rows=[{**samples.ROWS[0], "vale": 3}])
    with pytest.raises(ValueError, match=r"state is 'over'; allowed: done, stopped, error"):
        panel.finish(0, state="over")


def test_a_second_view_has_the_present_state(bridge: Bridge) -> None:
    panel = samples.finished_steering()
    first = bridge.show(panel)
    first.locator(".wb-range").first.press("ArrowRight")
    bridge.until(lambda: panel.rows[0]["value"] == 4.0)
    bridge.page.evaluate("id => bridge.show(id)", panel.model_id)
    assert bridge.page.locator(".wb-number").nth(3).input_value() == "4"
    assert bridge.page.locator(".wb-text").nth(2).text_content() == texts(first)[0]


def test_twin_has_settings_and_both_texts() -> None:
    twin = samples.finished_steering().static_html()
    assert "in Tokyo, the capital of Japan." in twin
    assert "near the forest." in twin
    assert "<td>5 res</td><td>231</td><td>capital cities</td><td>3.5</td>" in twin
    assert "<td>muted</td>" in twin
    assert "23 positions in 22 steps" in twin
