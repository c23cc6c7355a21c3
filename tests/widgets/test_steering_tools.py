"""Around the rows: search, chat, settings, baselines, the frozen rest, files in and out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.widgets import steering_samples as samples
from tests.widgets.bridge import Bridge
from tests.widgets.steering_actions import labels, listen
from workbench.widgets import SteeringPanel

pytestmark = pytest.mark.browser


def open_search(host: Locator) -> Locator:
    host.get_by_role("button", name="Add a feature").click()
    box = host.locator(".wb-query").first
    expect(box).to_be_focused()
    return box


def answer(panel: SteeringPanel, how: str) -> None:
    panel.found = {"state": "done", "how": how, "rows": samples.HITS, "error": ""}


# ----------------------------------------------------------------------------------- search


def test_a_feature_is_found_by_its_label_and_added_by_keyboard(bridge: Bridge) -> None:
    panel = samples.steering(rows=samples.ROWS[:1])
    heard = listen(panel, "search", "add")
    host = bridge.show(panel)
    box = open_search(host)
    # In one go: on a slow machine there are pauses between the letters of a real keyboard.
    box.evaluate(
        """box => { for (const text of ["c", "citi", "cities"]) {
          box.value = text; box.dispatchEvent(new Event("input", {bubbles: true})); } }"""
    )
    bridge.until(lambda: heard)
    assert heard == [("search", {"how": "label", "query": "cities", "other": ""})]
    panel.found = {"state": "running", "how": "label", "rows": [], "error": ""}
    bridge.painted()
    assert host.get_by_text("Searching…").is_visible()
    answer(panel, "label")
    bridge.painted()
    sites = host.locator(".wb-result-site").all_text_contents()
    assert sites == ["L5 res 231", "L3 res 902", "L6 mlp 12"]
    added = host.locator(".wb-add")
    assert [button.text_content() for button in added.all()] == ["Added", "Add", "Add"]
    box.press("ArrowDown")
    box.press("ArrowDown")
    assert host.locator(".wb-pointed .wb-result-label").text_content() == "names of cities"
    box.press("Enter")
    bridge.until(lambda: heard[1:] == [("add", {"layer": 3, "kind": "res", "index": 902})])
    hit = {key: samples.HITS[1][key] for key in ("layer", "kind", "index", "label")}
    panel.rows = [*panel.rows, {**hit, "id": "n", "low": -4, "high": 4, "step": 0.1, "value": 0}]
    bridge.painted()
    assert labels(host) == ["capital cities", "names of cities"]
    assert added.nth(1).is_disabled()
    box.press("Escape")
    assert box.is_hidden()
    expect(host.get_by_role("button", name="Add a feature")).to_be_focused()


def test_a_result_is_added_by_its_button(bridge: Bridge) -> None:
    panel = samples.steering(rows=[])
    heard = listen(panel, "add")
    answer(panel, "label")
    host = bridge.show(panel)
    open_search(host)
    host.get_by_role("button", name="Add city squares and markets L6 mlp 12").click()
    bridge.until(lambda: heard == [("add", {"layer": 6, "kind": "mlp", "index": 12})])


def test_every_way_to_search_is_asked_for_what_it_needs(bridge: Bridge) -> None:
    panel = samples.steering()
    heard = listen(panel, "search")
    host = bridge.show(panel)
    box = open_search(host)
    host.get_by_role("button", name="by number").click()
    box.fill("5/231")
    box.press("Enter")
    bridge.until(lambda: len(heard) == 1)
    # The two that run the model wait until they are told to.
    host.get_by_role("button", name="fires on a text").click()
    box.fill("Tokyo is large")
    bridge.page.wait_for_timeout(400)
    assert len(heard) == 1
    box.press("Enter")
    bridge.until(lambda: len(heard) == 2)
    host.get_by_role("button", name="contrast of two").click()
    go = host.get_by_role("button", name="Search", exact=True)
    go.click()
    assert len(heard) == 2  # nothing to contrast with
    host.get_by_label("Texts without it").fill("The sea is calm\nA dog ran")
    go.click()
    bridge.until(lambda: len(heard) == 3)
    assert [fields for _, fields in heard] == [
        {"how": "index", "query": "5/231", "other": ""},
        {"how": "text", "query": "Tokyo is large", "other": ""},
        {"how": "contrast", "query": "Tokyo is large", "other": "The sea is calm\nA dog ran"},
    ]
    answer(panel, "label")  # late, and of another way to search
    bridge.painted()
    assert host.locator(".wb-result").count() == 0
    answer(panel, "contrast")
    bridge.painted()
    scores = host.locator(".wb-result-score").all_text_contents()
    assert scores == ["AUROC", "0.97", "0.84", "0.61"]


def test_a_search_that_fails_or_finds_nothing_says_so(bridge: Bridge) -> None:
    panel = samples.steering()
    heard = listen(panel, "search")
    host = bridge.show(panel)
    box = open_search(host)
    box.fill("zebra")
    box.press("Enter")
    bridge.until(lambda: heard)
    panel.found = {"state": "done", "how": "label", "rows": [], "error": ""}
    bridge.painted()
    assert host.locator(".wb-search-state").text_content() == "Nothing found."
    panel.found = {"state": "done", "how": "label", "rows": [], "error": "no labels here"}
    bridge.painted()
    assert host.locator(".wb-search-state").text_content() == "no labels here"
    box.press("Enter")
    bridge.until(lambda: len(heard) == 2)


def test_a_whole_sae_is_spliced(bridge: Bridge) -> None:
    panel = samples.steering()
    heard = listen(panel, "add_splice")
    host = bridge.show(panel)
    open_search(host)
    host.get_by_label("Site of the SAE").select_option("layer 6 mlp")
    host.get_by_role("button", name="Add the whole SAE of the site").click()
    bridge.until(lambda: heard == [("add_splice", {"layer": 6, "kind": "mlp"})])
    panel.sites = []
    bridge.painted()
    assert host.get_by_label("Site of the SAE").is_hidden()


# ------------------------------------------------------------------------- prompt, settings


def test_chat_turns_are_written_and_run(bridge: Bridge) -> None:
    panel = samples.steering(chats=True)
    heard = listen(panel, "run")
    host = bridge.show(panel)
    host.get_by_role("button", name="Chat").click()
    bridge.until(lambda: panel.turns == [{"role": "user", "content": samples.PROMPT}])
    host.get_by_role("button", name="Add a turn").click()
    bridge.until(lambda: len(panel.turns) == 2)
    answer = host.get_by_role("textbox", name="Turn 2")
    expect(answer).to_be_focused()
    answer.fill("Dear me!")
    host.get_by_role("button", name="Add a turn").click()
    bridge.until(lambda: len(panel.turns) == 3)
    host.get_by_role("textbox", name="Turn 3").fill("Go on.")
    host.get_by_role("textbox", name="Turn 3").press("Enter")
    bridge.until(lambda: heard)
    assert panel.turns == [
        {"role": "user", "content": samples.PROMPT},
        {"role": "assistant", "content": "Dear me!"},
        {"role": "user", "content": "Go on."},
    ]
    run = panel.start(total=1)
    panel.finish(run)
    assert panel.run_prompt == ""
    host.get_by_role("button", name="Remove turn 2").click()
    bridge.until(lambda: len(panel.turns) == 2)
    bridge.painted()
    assert host.get_by_role("textbox", name="Turn 2").input_value() == "Go on."
    host.get_by_role("button", name="Text", exact=True).click()
    bridge.until(lambda: panel.turns == [])
    assert host.get_by_role("textbox", name="Prompt", exact=True).is_visible()
    host.get_by_role("button", name="Chat").click()
    bridge.until(lambda: len(panel.turns) == 2)


def test_a_model_without_a_template_offers_no_chat(bridge: Bridge) -> None:
    host = bridge.show(samples.steering())
    assert host.get_by_role("button", name="Chat").is_hidden()


def test_the_prompt_is_shown_as_the_model_reads_it(bridge: Bridge) -> None:
    panel = samples.finished_steering()
    host = bridge.show(panel)
    tokens = host.locator(".wb-token")
    assert tokens.all_text_contents()[:3] == ["<bos>", "Once", "␣upon"]
    assert host.locator(".wb-chip").all_text_contents() == ["<bos>"]
    assert tokens.nth(2).get_attribute("title") == "position 2"


def test_settings_are_told_and_nonsense_is_not(bridge: Bridge) -> None:
    panel = samples.steering()
    heard = listen(panel, "settings")
    host = bridge.show(panel)
    for label, value in (("Tokens", "20"), ("Temperature", "0"), ("Top-p", "0.5"), ("Seed", "7")):
        field = host.get_by_label(label, exact=True)
        field.fill(value)
        field.press("Enter")
    bridge.until(lambda: len(heard) == 4)
    assert panel.settings == {"max_new_tokens": 20, "temperature": 0, "top_p": 0.5, "seed": 7}
    for label, value in (("Tokens", "0"), ("Temperature", "-1"), ("Top-p", "2"), ("Seed", "")):
        field = host.get_by_label(label, exact=True)
        field.fill(value)
        field.press("Enter")
    bridge.painted()
    assert host.get_by_label("Tokens", exact=True).input_value() == "20"
    assert host.get_by_label("Seed", exact=True).input_value() == "7"
    assert panel.error == ""  # Python was not even asked
    assert len(heard) == 4
    host.get_by_role("button", name="New seed").click()
    bridge.until(lambda: len(heard) == 5)
    bridge.painted()
    assert panel.settings["seed"] == heard[4][1]["value"]
    assert host.get_by_label("Seed", exact=True).input_value() == str(panel.settings["seed"])


def test_baselines_freeze_and_live(bridge: Bridge) -> None:
    panel = samples.steering()
    heard = listen(panel, "baseline", "freeze")
    host = bridge.show(panel)
    instruction = host.get_by_label("Instruction for plain prompting")
    assert instruction.is_hidden()
    box = host.get_by_label("plain prompting", exact=True)
    assert "No edit" in (host.locator(".wb-check").nth(2).get_attribute("title") or "")
    box.check()
    bridge.until(lambda: heard == [("baseline", {"id": "prompt", "on": True})])
    bridge.painted()
    assert [each["on"] for each in panel.baselines] == [False, False, True]
    instruction.fill("Write about Japan.")
    instruction.press("Enter")
    bridge.until(lambda: panel.baseline_prompt == "Write about Japan.")
    host.get_by_role("button", name="attention frozen").click()
    bridge.until(lambda: heard[1:] == [("freeze", {"value": "att"})])
    assert panel.freeze == "att"
    host.get_by_role("button", name="acts from next token").click()
    bridge.until(lambda: panel.live == "next")
    panel.live = "restart"
    bridge.painted()
    pressed = host.get_by_role("button", name="restarts").get_attribute("aria-pressed")
    assert pressed == "true"


# ------------------------------------------------------------------------------------ files


def test_a_script_is_copied_and_a_recipe_is_saved(bridge: Bridge, tmp_path: Path) -> None:
    panel = samples.steering()
    recipe = json.dumps({"version": 1, "prompt": "<script>"})
    panel.on(
        "export", lambda what: panel.exported(what, recipe if what == "recipe" else "import x")
    )
    host = bridge.show(panel)
    bridge.page.evaluate(
        """() => Object.defineProperty(navigator, 'clipboard',
            { value: { writeText: async (text) => { window.copied = text; } } })"""
    )
    host.get_by_role("button", name="Copy script").click()
    bridge.until(lambda: bridge.page.evaluate("window.copied === 'import x'"))
    expect(host.locator(".wb-exports .wb-hint")).to_have_text("Copied")
    bridge.sent.clear()
    for name, text, file in (
        ("Save recipe", recipe, "steering.recipe.json"),
        ("Download script", "import x", "steering.py"),
    ):
        with bridge.page.expect_download() as waiting:
            host.get_by_role("button", name=name).click()
            bridge.until(lambda: bridge.custom("exported"))
        assert waiting.value.suggested_filename == file
        waiting.value.save_as(tmp_path / file)
        assert (tmp_path / file).read_text(encoding="utf-8") == text
        bridge.sent.clear()


def test_a_script_is_shown_where_the_clipboard_is_closed(bridge: Bridge) -> None:
    panel = samples.steering()
    panel.on("export", lambda what: panel.exported(what, "import torch"))
    host = bridge.show(panel)
    host.get_by_role("button", name="Copy script").click()
    bridge.until(lambda: panel.script == "import torch")
    bridge.painted()
    expect(host.locator(".wb-code")).to_have_value("import torch")


def test_a_recipe_is_opened(bridge: Bridge) -> None:
    panel = samples.steering()

    def open_recipe(text: str) -> None:
        recipe = json.loads(text)
        panel.prompt, panel.rows = recipe["prompt"], recipe["rows"]

    panel.on("open_recipe", open_recipe)
    host = bridge.show(panel)
    text = json.dumps({"prompt": "From a file", "rows": samples.RARE_ROWS}).encode()
    with bridge.page.expect_file_chooser() as waiting:
        host.get_by_role("button", name="Open a recipe").click()
    waiting.value.set_files(
        {"name": "mine.json", "mimeType": "application/json", "buffer": text}  # type: ignore[arg-type]
    )
    bridge.until(lambda: panel.prompt == "From a file")
    bridge.painted()
    assert host.get_by_role("textbox", name="Prompt", exact=True).input_value() == "From a file"
    assert labels(host) == ["definite article", "seasons of the year", "whole SAE"]
    with bridge.page.expect_file_chooser() as waiting:
        host.get_by_role("button", name="Open a recipe").click()
    waiting.value.set_files(
        {"name": "bad.json", "mimeType": "application/json", "buffer": b"not JSON"}  # type: ignore[arg-type]
    )
    bridge.until(lambda: "on 'open_recipe': JSONDecodeError" in panel.error)


def test_keys_of_controls_are_kept_from_the_notebook(bridge: Bridge) -> None:
    host = bridge.show(samples.finished_steering(rows=[*samples.ROWS, *samples.RARE_ROWS]))
    open_search(host)
    for more in host.locator(".wb-more-button").all():
        more.click()
    fields = host.locator("input, select, textarea:not(.wb-code), .wb-handle, .wb-text")
    unguarded = fields.evaluate_all(
        "all => all.filter((at) => !at.closest('[data-lm-suppress-shortcuts]')).length"
    )
    assert fields.count() > 60
    assert unguarded == 0
