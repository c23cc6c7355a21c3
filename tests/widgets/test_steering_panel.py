"""The steering panel: streaming, run and stop, texts beside each other, what is said about them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.widgets import steering_samples as samples
from tests.widgets.bridge import Bridge
from tests.widgets.steering_actions import listen, texts
from workbench.widgets import SteeringPanel

pytestmark = pytest.mark.browser

INK = """canvas => {
    const { data, width, height } = canvas.getContext('2d')
        .getImageData(0, 0, canvas.width, canvas.height);
    const dark = new Array(width).fill(0);
    for (let i = 3; i < data.length; i += 4) if (data[i] > 0) dark[((i - 3) / 4) % width] += 1;
    return dark;
}"""
"""Painted pixels in each column of a canvas."""


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


def test_final_texts_show_difference_shading_receipt_and_warnings(bridge: Bridge) -> None:
    panel = samples.finished_steering()
    host = bridge.show(panel)
    assert host.locator(".wb-differs").all_text_contents() == [" in", " near"]
    assert "differs from token 6 on" in (host.text_content() or "")
    shade = "s => s.style.backgroundColor"
    steered = panel.texts["steered"]
    strongest = max(range(len(steered)), key=lambda number: steered[number]["shift"])
    spans = host.locator(".wb-text").first.locator("span span")
    assert spans.nth(strongest).evaluate(shade) != spans.nth(0).evaluate(shade)
    assert host.locator(".wb-legend").is_visible()
    assert host.locator(".wb-receipt li").all_text_contents() == panel.receipt
    assert host.locator(".wb-receipt li").first.is_visible()
    assert host.locator(".wb-warnings").is_hidden()
    panel.warnings = ["Ablate L2 att 17 did not act"]
    bridge.painted()
    assert host.locator(".wb-warnings li").all_text_contents() == panel.warnings


def test_the_end_may_know_more_than_the_stream(bridge: Bridge) -> None:
    panel = samples.steering()
    host = bridge.show(panel)
    run = panel.start(total=2)
    panel.stream(run, "plain", [{"text": " a"}])
    bridge.painted()
    assert host.locator(".wb-status").text_content() == "Running · unsteered, 1 of 2 tokens"
    carets = host.locator(".wb-text-caret")
    assert [caret.is_visible() for caret in carets.all()] == [False, True]
    panel.stream(run, "steered", [{"text": " b"}])
    bridge.painted()
    assert host.locator(".wb-legend").is_hidden()
    assert host.locator(".wb-strip").is_hidden()
    panel.finish(run, texts={"steered": [{"text": " b", "shift": 2.5}]})
    bridge.painted()
    assert panel.texts == {"steered": [{"text": " b", "shift": 2.5}], "plain": [{"text": " a"}]}
    assert "2.5" in (host.locator(".wb-legend").text_content() or "")
    assert host.locator(".wb-strip").is_visible()
    assert not any(caret.is_visible() for caret in carets.all())


def test_a_token_tells_its_probabilities(bridge: Bridge) -> None:
    panel = samples.finished_steering()
    host = bridge.show(panel)
    card = host.locator(".wb-card")
    spans = host.locator(".wb-text").first.locator("span span")
    spans.nth(6).hover()
    text = card.text_content() or ""
    assert text.startswith("␣Tokyo")
    token = panel.texts["steered"][6]
    assert f"probability{round(100 * token['p'])} %" in text
    assert "without the edits" in text
    assert f"entropy{token['entropy']:.6g} nats" in text
    others = card.locator(".wb-bar-name").all_text_contents()
    assert "␣the" in others
    assert "␣Tokyo" not in others
    host.locator(".wb-text").first.focus()
    bridge.page.keyboard.press("End")
    assert (card.text_content() or "").startswith(".")
    bridge.page.keyboard.press("Escape")
    assert card.is_hidden()


def test_the_strip_stands_under_its_tokens_and_marks_one(bridge: Bridge) -> None:
    panel = samples.finished_steering()
    host = bridge.show(panel)
    canvas = host.locator(".wb-strip canvas")
    steered = panel.texts["steered"]
    pitch = 14
    ink = canvas.evaluate(INK)
    heights = [max(ink[i * pitch + 2 : (i + 1) * pitch - 2]) for i in range(len(steered))]
    # Two lanes of 21 pixels, each with a floor of one; the difference mark is on an edge.
    shifts, entropies = ([token[key] for token in steered] for key in ("shift", "entropy"))
    want = [
        max(1, 21 * shift / max(shifts)) + max(1, 21 * entropy / max(entropies))
        for shift, entropy in zip(shifts, entropies, strict=True)
    ]
    assert heights == pytest.approx(want, abs=4)
    assert sum(ink[len(steered) * pitch + 2 :]) == 0
    canvas.hover(position={"x": 9 * pitch + 5, "y": 10})
    assert (host.locator(".wb-card").text_content() or "").startswith("␣capital")
    canvas.click(position={"x": 9 * pitch + 5, "y": 10})
    assert host.locator(".wb-marked").all_text_contents() == [" capital"]
    canvas.click(position={"x": 9 * pitch + 5, "y": 10})
    assert host.locator(".wb-marked").count() == 0
    lanes = host.locator(".wb-lane").all_text_contents()
    assert [lane.split("to")[0] for lane in lanes] == ["KL", "entropy"]
    assert all(" nats" in lane for lane in lanes)


def test_baselines_have_texts_meters_and_differences_of_their_own(bridge: Bridge) -> None:
    panel = samples.finished_steering(columns=samples.columns("random", "prompt"))
    host = bridge.show(panel)
    heads = host.locator(".wb-column-head b").all_text_contents()
    assert heads == ["Steered", "Unsteered", "Random direction", "Plain prompting"]
    assert texts(host)[2] == samples.PROMPT + samples.RANDOM.replace("|", "")
    notes = host.locator(".wb-text-note").all_text_contents()
    assert notes == ["differs from token 6 on", "", *["differs from token 3 on"] * 2]
    verdicts = host.locator(".wb-verdict").all_text_contents()
    assert verdicts[:3] == ["strained", "fluent", "broken"]
    meters = [meter.text_content() for meter in host.locator(".wb-meter").all()]
    assert meters[2] == "brokenrepetition 31 % · loss 6.4 nats a token (+4.2)"
    assert host.locator(".wb-meter").nth(3).is_hidden()
    boxes = [host.locator(".wb-column").nth(n).bounding_box() for n in range(4)]
    tops = [box["y"] for box in boxes if box]
    assert tops[0] == tops[1] < tops[2] == tops[3]
    panel.columns = samples.columns()
    bridge.painted()
    assert host.locator(".wb-column").count() == 2


def test_a_narrow_page_has_one_text_below_the_other(open_bridge: Callable[..., Bridge]) -> None:
    bridge = open_bridge(width=600)
    host = bridge.show(samples.finished_steering(columns=samples.columns("random")))
    boxes = [column.bounding_box() for column in host.locator(".wb-column").all()]
    lefts = [box["x"] for box in boxes if box]
    tops = [box["y"] for box in boxes if box]
    assert len(set(lefts)) == 1
    assert tops == sorted(tops)
    assert len(set(tops)) == 3


def test_run_and_stop(bridge: Bridge) -> None:
    panel = samples.steering()
    heard = listen(panel, "stop")
    prompts: list[str] = []

    def begin() -> None:
        prompts.append(panel.prompt)
        panel.start(total=8)

    panel.on("run", begin)
    host = bridge.show(panel)
    box = host.get_by_role("textbox", name="Prompt", exact=True)
    box.fill("A new prompt")
    box.press("Shift+Enter")
    assert prompts == []
    box.fill("A new prompt")
    box.press("Enter")
    bridge.until(lambda: prompts == ["A new prompt"])
    bridge.painted()
    assert panel.run_prompt == "A new prompt"
    button = host.locator(".wb-run")
    assert button.text_content() == "Stop"
    button.click()
    bridge.until(lambda: heard == [("stop", {})])
    panel.finish(panel.run, state="stopped")
    bridge.painted()
    assert button.text_content() == "Run"
    button.click()
    bridge.until(lambda: len(prompts) == 2)


def test_handler_errors_are_shown(bridge: Bridge) -> None:
    panel = samples.steering()

    def fail() -> None:
        raise RuntimeError(f"no model for {panel.prompt!r}")

    panel.on("run", fail)
    host = bridge.show(panel)
    host.locator(".wb-run").click()
    bridge.until(lambda: panel.error)
    bridge.painted()
    shown = host.get_by_role("alert").text_content() or ""
    assert "on 'run': RuntimeError: no model for 'Once upon" in shown
    assert "test_steering_panel.py, line" in shown


def test_wrong_messages_and_traits_are_refused() -> None:
    panel = samples.steering()
    for content, want in [
        ({"type": "fly"}, "no message 'fly'; there are run, stop, set"),
        ({"type": "set", "id": "z", "key": "value", "value": 1}, "row is 'z'; allowed: 'a', 'b'"),
        ({"type": "set", "id": "a", "key": "layer", "value": 1}, "key is 'layer'; allowed: 'mode'"),
        (
            {"type": "set", "id": "a", "key": "value", "value": float("nan")},
            "row 'a': value is nan; give a number from -8 to 8",
        ),
        ({"type": "set", "id": "a", "key": "value", "value": 9}, "from -8 to 8"),
        ({"type": "settings", "key": "top_p", "value": 2}, "top_p is 2; give a number from 0 to 1"),
        ({"type": "settings", "key": "seed", "value": 0.5}, "seed is 0.5; give a whole number"),
        ({"type": "baseline", "id": "x", "on": True}, "baseline is 'x'; allowed: 'random'"),
        ({"type": "search", "how": "luck", "query": "", "other": ""}, "how is 'luck'"),
        ({"type": "export", "what": "all"}, "what is 'all'; allowed: 'script', 'recipe'"),
        ({"type": "freeze", "value": "some"}, "'some'"),
    ]:
        panel.error = ""
        panel._handle_custom_msg(content, [])
        assert want in panel.error
    with pytest.raises(ValueError, match=r"no message 'walk'; there are run"):
        panel.on("walk", print)
    with pytest.raises(ValueError, match=r"state is 'over'; allowed: 'done', 'stopped', 'error'"):
        panel.finish(0, state="over")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": 8, "high": 8}, r"row 0: low 8.0 must be below high 8.0"),
        ({"value": 9}, r"row 0: value is 9; give a number from -8 to 8"),
        ({"step": float("nan")}, r"row 0: step is nan"),
        ({"safe": [4, -4]}, r"row 0: safe is \[4, -4\]"),
        ({"mode": "stear"}, r"row 0: mode is 'stear'; allowed: 'steer'"),
        ({"when": "later"}, r"row 0: when is 'later'"),
        ({"id": "b"}, r"two rows have the id 'b'"),
    ],
)
def test_rows_that_cannot_be_drawn_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SteeringPanel(rows=[{**samples.ROWS[0], **change}, samples.ROWS[1]])


def test_typos_and_system_turns_are_refused() -> None:
    with pytest.raises(TypeError, match=r"row 0 has no 'vale'. Did you mean 'value'\?"):
        SteeringPanel(rows=[{**samples.ROWS[0], "vale": 3}])
    with pytest.raises(ValueError, match="Gemma's template has no system turn"):
        SteeringPanel(turns=[{"role": "system", "content": "Be kind."}])
    with pytest.raises(TypeError, match=r"settings has no 'temp'"):
        SteeringPanel(settings={"temp": 1})


def test_a_second_view_has_the_present_state(bridge: Bridge) -> None:
    panel = samples.finished_steering()
    first = bridge.show(panel)
    first.locator(".wb-range").first.press("ArrowRight")
    bridge.until(lambda: panel.rows[0]["value"] == 4.0)
    bridge.page.evaluate("id => bridge.show(id)", panel.model_id)
    views = bridge.page.locator("section.wb")
    assert views.nth(1).locator(".wb-amount .wb-number").first.input_value() == "4"
    assert texts(views.nth(1)) == texts(views.nth(0)) != []


def test_twin_has_everything_that_a_reader_needs() -> None:
    panel = samples.finished_steering(
        rows=[*samples.ROWS, *samples.RARE_ROWS],
        columns=samples.columns("random"),
        freeze="att",
    )
    panel.warnings = ["Ablate did <not> act"]
    twin = panel.static_html()
    for want in (
        "in Tokyo, the capital of Japan.",
        "near the forest.",
        "He played with it all day.",
        "<td>5 res</td><td>231</td><td>capital cities</td><td>steer</td><td>3.5</td><td>× max</td>",
        "if L2 mlp 88 &gt; 0.5",
        "<td>muted</td>",
        "to mean, did not act: the feature was silent",
        "positions 0-3, 7",
        "<td>all</td>",
        "with the error term",
        "max_new_tokens 64 · temperature 0.8 · top_p 0.95 · seed 0 · attention frozen",
        "strained, repetition 4 %, loss 3.12 nats a token (+0.94)",
        "23 positions in 22 steps",
        "Ablate did &lt;not&gt; act",
    ):
        assert want in twin
    chat = samples.steering(turns=samples.TURNS).static_html()
    assert "<b>assistant</b>: A boat left the harbour." in chat
    assert samples.PROMPT not in chat
