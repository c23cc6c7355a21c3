"""Rows of the steering panel: strengths, modes, conditions, order, and nothing lost on the way."""

from __future__ import annotations

import gc

import pytest
from playwright.sync_api import expect

from tests.widgets import steering_samples as samples
from tests.widgets.bridge import Bridge
from tests.widgets.steering_actions import MOVE, labels, listen, setting
from workbench.widgets import SteeringPanel

pytestmark = pytest.mark.browser

SITE = "layer 5 res feature 231"


def reorder(panel: SteeringPanel) -> None:
    """Do what the panel's owner does when a row is moved or removed."""

    def move(id: str, to: int) -> None:
        rows = [row for row in panel.rows if row["id"] != id]
        rows.insert(to, next(row for row in panel.rows if row["id"] == id))
        panel.rows = rows

    def remove(id: str) -> None:
        panel.rows = [row for row in panel.rows if row["id"] != id]

    panel.on("move", move)
    panel.on("remove", remove)


def ids(panel: SteeringPanel) -> str:
    return "".join(row["id"] for row in panel.rows)


# -------------------------------------------------------------------------------- strength


def test_a_moving_slider_is_sent_once_after_a_pause(bridge: Bridge) -> None:
    panel = samples.steering()
    heard = listen(panel, "set")
    host = bridge.show(panel)
    host.locator(".wb-range").first.evaluate(MOVE, ["1", "2", "4.5"])
    bridge.until(lambda: heard)
    bridge.page.wait_for_timeout(250)
    assert heard == [setting("a", "value", 4.5)]
    assert panel.rows[0]["value"] == 4.5
    assert host.locator(".wb-amount .wb-number").first.input_value() == "4.5"
    assert panel.rows[1]["value"] == 6.5


def test_a_slider_that_is_let_go_is_sent_at_once(bridge: Bridge) -> None:
    panel = samples.steering()
    heard = listen(panel, "set")
    slider = bridge.show(panel).locator(".wb-range").first
    # All in one task: what is sent in it has waited for no pause.
    at_once = slider.evaluate(
        """(input, id) => {
            const model = bridge.model(id);
            const { send } = model;
            const sent = [];
            model.send = (content) => { sent.push(content.value); send.call(model, content); };
            input.dispatchEvent(new Event('pointerdown'));
            input.value = '2';
            input.dispatchEvent(new Event('input'));
            input.dispatchEvent(new Event('change'));
            return sent;
        }""",
        panel.model_id,
    )
    assert at_once == [2]
    bridge.until(lambda: heard)
    bridge.page.wait_for_timeout(200)
    assert heard == [setting("a", "value", 2)]


def test_a_text_that_follows_hears_while_the_slider_moves(bridge: Bridge) -> None:
    panel = samples.steering(live="next")
    heard = listen(panel, "set")
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
    bridge.until(lambda: heard and heard[-1][1]["value"] == 7.5)
    values = [fields["value"] for _, fields in heard]
    assert 2 <= len(values) <= elapsed / 100 + 2
    assert values == sorted(values)


def test_a_slider_is_dragged_while_the_text_streams(bridge: Bridge) -> None:
    panel = samples.steering(live="next")
    heard = listen(panel, "set")
    host = bridge.show(panel)
    run = panel.start(total=40)
    slider = host.locator(".wb-range").first
    box = slider.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    bridge.page.mouse.move(box["x"] + box["width"] * 0.72, y)
    bridge.page.mouse.down()
    for number in range(12):
        bridge.page.mouse.move(box["x"] + box["width"] * (0.72 - 0.03 * number), y)
        assert panel.stream(run, "steered", [{"text": f" {number}", "shift": 0.1 * number}])
        bridge.pump()
    bridge.page.mouse.up()
    shown = float(slider.input_value())
    bridge.until(lambda: heard and heard[-1][1]["value"] == shown)
    assert panel.rows[0]["value"] == shown < 3.5
    panel.finish(run)
    bridge.painted()
    assert (host.locator(".wb-text").first.text_content() or "").endswith(" 10 11")
    assert float(slider.input_value()) == shown


def test_keys_number_reset_and_safe_range(bridge: Bridge) -> None:
    panel = samples.steering()
    heard = listen(panel, "set")
    host = bridge.show(panel)
    host.locator(".wb-range").first.press("ArrowRight")
    bridge.until(lambda: heard == [setting("a", "value", 4)])
    number = host.get_by_label(f"Strength of {SITE} as a number")
    number.fill("99")
    number.press("Enter")
    bridge.until(lambda: heard[1:] == [setting("a", "value", 8)])
    assert number.input_value() == "8"
    beyond = host.locator(".wb-beyond").count
    assert beyond() == 2
    number.fill("")
    number.press("Enter")
    assert number.input_value() == "8"
    host.get_by_role("button", name=f"More about {SITE}").click()
    host.get_by_role("button", name=f"Reset {SITE}").click()
    bridge.until(lambda: heard[2:] == [setting("a", "value", 0)])
    assert beyond() == 1
    more = host.get_by_role("button", name="More about layer 6 mlp feature 76")
    more.click()
    host.get_by_role("button", name="Reset layer 6 mlp feature 76").click()
    bridge.until(lambda: heard[3:] == [setting("c", "value", 1)])


def test_the_safe_band_is_where_its_ends_are(bridge: Bridge) -> None:
    panel = samples.steering()
    host = bridge.show(panel)
    boxes = [
        host.locator(f".wb-row >> nth=0 >> {part}").bounding_box()
        for part in (".wb-track-line", ".wb-track-safe", ".wb-track-zero")
    ]
    line, band, zero = [box for box in boxes if box]
    low, high = -8, 8

    def x(value: float) -> float:
        return line["x"] + line["width"] * (value - low) / (high - low)

    assert band["x"] == pytest.approx(x(-4), abs=1)
    assert band["x"] + band["width"] == pytest.approx(x(5), abs=1)
    assert zero["x"] + zero["width"] / 2 == pytest.approx(x(0), abs=1)


def test_python_moves_a_slider_without_an_echo(bridge: Bridge) -> None:
    panel = samples.steering()
    heard = listen(panel, "set")
    host = bridge.show(panel)
    panel.update_row("b", value=-2.5)
    bridge.painted()
    assert host.locator(".wb-range").nth(1).input_value() == "-2.5"
    bridge.page.wait_for_timeout(200)
    assert heard == []


# ------------------------------------------------------------------- what else a row holds


def test_mute_solo_and_mode(bridge: Bridge) -> None:
    panel = samples.steering()
    heard = listen(panel, "set")
    host = bridge.show(panel)
    silent = [False, False, True]

    def shown() -> list[bool]:
        rows = host.locator(".wb-row").all()
        return ["wb-silent" in (row.get_attribute("class") or "") for row in rows]

    assert shown() == silent
    host.get_by_role("button", name=f"Mute {SITE}").click()
    bridge.until(lambda: heard == [setting("a", "muted", True)])
    assert shown() == [True, False, True]
    host.get_by_role("button", name=f"Mute {SITE}").click()
    host.get_by_role("button", name=f"Solo {SITE}").click()
    bridge.until(lambda: heard[2:] == [setting("a", "solo", True)])
    assert shown() == [False, True, True]
    assert panel.rows[0]["solo"] is True
    host.get_by_label(f"Mode of {SITE}").select_option("ablate")
    bridge.until(lambda: heard[3:] == [setting("a", "mode", "ablate")])
    # The owner of the panel answers with what the mode needs.
    panel.update_row("a", slider=False, to="zero", formula="x − f d")
    bridge.painted()
    assert host.locator(".wb-range").first.is_hidden()
    host.get_by_label(f"What {SITE} is set to").select_option("mean")
    bridge.until(lambda: heard[4:] == [setting("a", "to", "mean")])
    host.get_by_label(f"Mode of {SITE}").hover()
    assert host.locator(".wb-card").text_content() == "ablatex − f d"


def test_modes_without_a_slider_show_what_they_need(bridge: Bridge) -> None:
    panel = samples.steering(rows=samples.RARE_ROWS)
    heard = listen(panel, "set")
    host = bridge.show(panel)
    assert host.locator(".wb-range:visible").count() == 0
    other = host.get_by_label("Text that layer 4 res feature 1288 is taken from")
    other.fill("In summer it was low.")
    other.press("Enter")
    host.get_by_label("Error term of layer 7 mlp").select_option("")
    bridge.until(lambda: len(heard) == 2)
    assert heard == [setting("e", "other", "In summer it was low."), setting("f", "error", False)]
    assert host.locator(".wb-row-warning:visible").all_text_contents() == [
        "did not act: the feature was silent"
    ]
    assert labels(host)[2] == "whole SAE"


def test_when_steps_and_a_condition(bridge: Bridge) -> None:
    panel = samples.steering()
    heard = listen(panel, "set")
    host = bridge.show(panel)
    host.get_by_role("button", name=f"More about {SITE}").click()
    when = host.get_by_label(f"When {SITE} acts")
    when.select_option("prompt")
    bridge.until(lambda: heard == [setting("a", "when", "prompt")])
    when.select_option("steps")
    where = host.get_by_label(f"Steps or positions of {SITE}")
    expect(where).to_be_focused()
    where.fill("first")
    where.press("Enter")
    assert where.get_attribute("aria-invalid") == "true"
    assert len(heard) == 1
    where.fill("0-3, 7")
    where.press("Enter")
    bridge.until(lambda: len(heard) == 3)
    assert heard[1:] == [setting("a", "where", "0-3, 7"), setting("a", "when", "steps")]
    facts = host.locator(".wb-row-facts").first
    assert facts.locator("span").all_text_contents() == ["L5 res 231", "steps 0-3, 7"]
    for name, value in (("Layer", "2"), ("Feature", "88"), ("Activation", "0.5")):
        host.get_by_label(f"{name} of the condition of {SITE}").fill(value)
    host.get_by_label(f"Kind of the condition of {SITE}").select_option("mlp")
    above = {"layer": 2, "kind": "mlp", "index": 88, "value": 0.5}
    bridge.until(lambda: heard[-1] == setting("a", "above", above))
    assert panel.rows[0]["above"] == above
    assert "where L2 mlp 88 > 0.5" in facts.locator("span").all_text_contents()
    host.get_by_role("button", name=f"No condition for {SITE}").click()
    bridge.until(lambda: panel.rows[0]["above"] is None)


# ------------------------------------------------------------------------------------ order


def test_rows_are_reordered_by_keyboard(bridge: Bridge) -> None:
    panel = samples.steering()
    reorder(panel)
    heard = listen(panel, "move")
    host = bridge.show(panel)
    handle = host.get_by_role("button", name=f"Order of {SITE}")
    handle.press("ArrowDown")
    handle.press("ArrowDown")
    bridge.until(lambda: ids(panel) == "bca")
    bridge.painted()
    assert [fields["to"] for _, fields in heard] == [1, 2]
    assert labels(host)[2] == "capital cities"
    expect(handle).to_be_focused()
    handle.press("ArrowDown")
    handle.press("Home")
    bridge.until(lambda: ids(panel) == "abc")
    assert len(heard) == 3
    host.get_by_role("button", name="More about layer 6 mlp feature 76").click()
    host.get_by_role("button", name="Move layer 6 mlp feature 76 up").click()
    bridge.until(lambda: ids(panel) == "acb")


def test_rows_are_reordered_by_dragging(bridge: Bridge) -> None:
    panel = samples.steering()
    reorder(panel)
    host = bridge.show(panel)
    handles = host.locator(".wb-handle")
    start, end = handles.nth(0).bounding_box(), handles.nth(2).bounding_box()
    assert start is not None
    assert end is not None
    mouse = bridge.page.mouse
    mouse.move(start["x"] + 5, start["y"] + 8)
    mouse.down()
    mouse.move(end["x"] + 5, end["y"] + 40, steps=5)
    assert host.locator(".wb-drop-after").count() == 1
    mouse.up()
    bridge.until(lambda: ids(panel) == "bca")
    bridge.painted()
    assert labels(host)[2] == "capital cities"
    assert host.locator(".wb-drop-after, .wb-drop-before, .wb-dragged").count() == 0


def test_a_removed_row_leaves_the_focus_on_the_panel(bridge: Bridge) -> None:
    panel = samples.steering()
    reorder(panel)
    host = bridge.show(panel)
    host.get_by_role("button", name=f"Remove {SITE}").press("Enter")
    bridge.until(lambda: ids(panel) == "bc")
    bridge.painted()
    assert len(labels(host)) == 2
    expect(host.get_by_role("button", name="Add a feature")).to_be_focused()
    panel.rows = []
    bridge.painted()
    assert host.get_by_text("No edit yet").is_visible()


# ------------------------------------------------------------------------- nothing is lost


def test_older_rows_from_python_do_not_undo_a_change(bridge: Bridge) -> None:
    panel = samples.steering()
    host = bridge.show(panel)
    # A kernel that has not yet read the message: it waits in this list.
    bridge.page.evaluate(
        "id => { bridge.model(id).send = (content) => { window.held = content; }; }", panel.model_id
    )
    host.get_by_role("button", name=f"Solo {SITE}").click()
    assert host.get_by_role("button", name=f"Solo {SITE}").get_attribute("aria-pressed") == "true"
    panel.update_row("b", warning="did not act")
    bridge.painted()
    assert host.locator(".wb-row-warning").nth(1).is_visible()
    assert host.get_by_role("button", name=f"Solo {SITE}").get_attribute("aria-pressed") == "true"
    panel._handle_custom_msg(bridge.page.evaluate("window.held"), [])
    assert panel.rows[0]["solo"] is True
    bridge.painted()
    # Now Python has heard: what it says next holds.
    panel.update_row("a", solo=False)
    bridge.painted()
    assert host.get_by_role("button", name=f"Solo {SITE}").get_attribute("aria-pressed") == "false"


def test_what_python_refuses_is_taken_back(bridge: Bridge) -> None:
    panel = samples.steering()

    def refuse(**_fields: object) -> None:
        raise ValueError("not now")

    panel.on("set", refuse)
    panel.on("settings", refuse)
    host = bridge.show(panel)
    before = dict(panel.rows[0])
    host.get_by_role("button", name=f"Mute {SITE}").click()
    bridge.until(lambda: panel.error)
    bridge.painted()
    assert panel.rows[0] == before
    assert host.get_by_role("button", name=f"Mute {SITE}").get_attribute("aria-pressed") == "false"
    panel.error = ""
    seed = host.get_by_label("Seed", exact=True)
    seed.fill("12")
    seed.press("Enter")
    bridge.until(lambda: panel.error)
    bridge.painted()
    assert panel.settings["seed"] == 0
    assert seed.input_value() == "0"


def test_a_saved_trait_does_not_carry_old_rows_to_python(bridge: Bridge) -> None:
    panel = samples.steering()
    host = bridge.show(panel)
    host.locator(".wb-range").first.evaluate(MOVE, ["1"])
    bridge.until(lambda: panel.rows[0]["value"] == 1)
    panel.update_row("a", value=-3)
    host.get_by_role("button", name="acts from next token").click()
    bridge.until(lambda: panel.live == "next")
    assert panel.rows[0]["value"] == -3
    bridge.painted()
    assert host.locator(".wb-range").first.input_value() == "-3"


def test_five_hundred_moves_leave_memory_flat(bridge: Bridge) -> None:
    panel = samples.steering(live="next")
    heard = listen(panel, "set")
    slider = bridge.show(panel).locator(".wb-range").first
    session = bridge.page.context.new_cdp_session(bridge.page)

    def move(times: int) -> None:
        for _ in range(times // 50):
            slider.evaluate(
                """async input => {
                    for (let i = 0; i < 50; i += 1) {
                        input.dispatchEvent(new Event('pointerdown'));
                        input.value = (i % 30) / 2 - 7;
                        input.dispatchEvent(new Event('input'));
                        input.dispatchEvent(new Event('change'));
                        await new Promise((done) => setTimeout(done));
                    }
                }"""
            )
            bridge.until(lambda: len(heard) == 50)
            bridge.painted()
            heard.clear()
            bridge.sent.clear()

    def sizes() -> tuple[int, int, dict[str, int]]:
        gc.collect()
        session.send("HeapProfiler.collectGarbage")
        heap = session.send("Runtime.getHeapUsage")["usedSize"]
        return heap, len(gc.get_objects()), bridge.left(panel)

    move(50)
    before = sizes()
    move(500)
    after = sizes()
    assert after[0] - before[0] < 500_000
    assert after[1] - before[1] < 500  # Python objects, with 500 moves between
    assert after[2] == before[2]


def test_two_panels_do_not_hear_each_other(bridge: Bridge) -> None:
    first, second = samples.steering(), samples.steering()
    heard = listen(first, "set", "run"), listen(second, "set", "run")
    first_host, second_host = bridge.show(first), bridge.show(second)
    first_host.locator(".wb-range").first.press("ArrowRight")
    second_host.locator(".wb-run").click()
    bridge.until(lambda: heard[0] and heard[1])
    assert heard == ([setting("a", "value", 4)], [("run", {})])
    run = first.start(total=3)
    first.stream(run, "steered", [{"text": " only here"}])
    bridge.painted()
    assert "only here" in (first_host.text_content() or "")
    assert "only here" not in (second_host.text_content() or "")
    assert second.rows[0]["value"] == 3.5
