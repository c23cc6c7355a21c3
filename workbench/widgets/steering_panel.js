// @ts-check
/**
 * Steering panel: prompt, settings, edits, baselines, and the texts beside each other.
 *
 * From Python: traits, and messages {type: "reset", run}, {type: "tokens", run, column, tokens},
 * {type: "noted", seq}, {type: "refused", rows}, {type: "exported", what}. To Python: messages, listed in
 * `steering_panel.py`; the traits `prompt`, `turns`, `baseline_prompt` and `live` are written here.
 */

import { Frame, element, segmented, short } from "./shared.js";
import { enterEndsInputs, field, labelled } from "./steering_controls.js";
import { Exports } from "./steering_export.js";
import { RowList } from "./steering_list.js";
import { Prompt, Settings } from "./steering_prompt.js";
import { Pager, replayed } from "./steering_replay.js";
import { FeatureSearch } from "./steering_search.js";
import { Texts } from "./steering_texts.js";
/** @typedef {import("./shared.js").Model} Model */
/** @typedef {{id: string, title: string, on: boolean, hint: string}} Baseline */

class SteeringPanel {
  /** @param {{model: Model, el: HTMLElement}} view */
  constructor(view) {
    const replay = (view.model.get("takes") ?? []).length > 0 ? replayed(view.model) : null;
    this.model = replay ?? view.model;
    this.frame = new Frame({ el: view.el, model: this.model }, "wb-steering-panel");
    const { frame } = this;
    if (replay) frame.atEnd(replay.end);
    this.status = element("span", { class: "wb-status", role: "status" });
    frame.tools.prepend(this.status);
    this.runButton = element("button", { class: "wb-button wb-primary wb-run", type: "button", text: "Run" });
    this.prompt = new Prompt(frame, this.runButton, () => this.start());
    this.settings = new Settings(frame);
    this.search = new FeatureSearch(frame);
    this.list = new RowList(frame, () => this.search.opener.focus());
    this.texts = new Texts(frame);
    this.exports = new Exports(frame);
    this.pager = new Pager(frame);
    frame.body.append(this.prompt.node, this.settings.node, this.makeEdits(), this.makeComparison(),
      this.pager.node, this.texts.node, this.exports.node);
    enterEndsInputs(frame);
    frame.listen(this.runButton, "click", () => (this.texts.running ? this.stop() : this.start()));
    frame.watch(["status"], () => this.showStatus());
    frame.on("msg:custom", (message) => this.receive(message));
    this.showStatus();
    if (this.model.get("recorded")) this.rest();
    frame.watch(["take"], () => {
      this.list.refused(this.list.rows);
      this.rest();
    });
  }

  /** @param {any} message */
  receive(message) {
    if (message.type === "noted") this.list.noted(message.seq);
    else if (message.type === "refused") {
      this.list.refused(message.rows);
      this.settings.show();
    } else if (message.type === "exported") this.exports.exported(message.what);
    else if (this.texts.receive(message)) this.showStatus();
  }

  start() {
    this.prompt.save();
    this.model.send({ type: "run" });
  }

  stop() {
    this.runButton.disabled = true;
    this.runButton.textContent = "Stopping…";
    this.model.send({ type: "stop" });
  }

  /** A saved page has no kernel: what would need one is disabled or gone. */
  rest() {
    const { body } = this.frame;
    for (const node of [this.search.opener, this.exports.opener]) node.hidden = true;
    const controls = body.querySelectorAll("textarea, input, select, .wb-segment, .wb-run, .wb-row button, .wb-settings button, .wb-prompt-foot button");
    for (const control of controls) if (!control.matches(".wb-more-button")) control.setAttribute("disabled", "");
    for (const { row, slider } of this.list.edits.values()) {
      if ((row.recorded ?? []).length < 2) continue;
      for (const input of [slider.range, slider.entry]) input.disabled = false;
    }
  }

  // ------------------------------------------------------------------------------- sections

  makeEdits() {
    const { frame, model } = this;
    const live = segmented(frame, "Moving a slider", [["restart", "restarts"], ["next", "acts from next token"]],
      () => model.get("live"), (value) => frame.save("live", value));
    frame.watch(["live"], live.refresh);
    const freeze = segmented(frame, "Rest of the model", [["", "free"], ["att", "attention frozen"], ["all", "all frozen"]],
      () => model.get("freeze"), (value) => {
        model.set("freeze", value);
        model.send({ type: "freeze", value });
      });
    frame.watch(["freeze"], freeze.refresh);
    freeze.node.title = "Frozen: held at what it is in the unedited run, so that only direct paths carry the edits";
    const key = element("span", { class: "wb-safe-key" }, element("i"), element("span", { text: "safe range" }));
    const showKey = () => { key.hidden = !this.list.rows.some((row) => row.safe && row.slider); };
    frame.watch(["rows"], showKey);
    showKey();
    return element("div", { class: "wb-edits" },
      element("div", { class: "wb-controls" }, element("b", { text: "Edits" }), key, live.node),
      this.list.node, this.list.empty,
      element("div", { class: "wb-controls wb-edits-foot" }, this.search.opener, freeze.node), this.search.node);
  }

  makeComparison() {
    const { frame, model } = this;
    const boxes = element("span", { class: "wb-baseline-boxes" });
    const prompt = field("input", { class: "wb-input wb-baseline-prompt", type: "text", placeholder: "such as: Write about the sea.", "aria-label": "Instruction for plain prompting" });
    const instruction = labelled("instruction", prompt);
    const node = element("div", { class: "wb-comparison" }, element("span", { class: "wb-hint", text: "Compare with" }), boxes, instruction);
    frame.listen(prompt, "change", () => frame.save("baseline_prompt", prompt.value));
    frame.listen(boxes, "change", ({ target }) => model.send({ type: "baseline", id: target.value, on: target.checked }));
    const show = () => {
      /** @type {Baseline[]} */
      const baselines = model.get("baselines") ?? [];
      node.hidden = baselines.length === 0;
      instruction.hidden = !baselines.some(({ id, on }) => id === "prompt" && on);
      /** @type {NodeListOf<HTMLInputElement>} */
      const inputs = boxes.querySelectorAll("input");
      const present = [...inputs].map((input) => input.value);
      if (JSON.stringify(present) === JSON.stringify(baselines.map(({ id }) => id))) {
        baselines.forEach(({ on }, i) => { inputs[i].checked = on; });
        return;
      }
      boxes.replaceChildren(...baselines.map(({ id, title, on, hint }) => {
        const box = field("input", { type: "checkbox", value: id, checked: on, "aria-label": title });
        const label = element("label", { class: "wb-check", title: hint }, box, element("span", { text: title }));
        return label;
      }));
    };
    const fill = () => { prompt.value = model.get("baseline_prompt") ?? ""; };
    frame.watch(["baselines"], show);
    frame.watch(["baseline_prompt"], fill);
    show();
    fill();
    return node;
  }

  // --------------------------------------------------------------------------------- status

  showStatus() {
    const { state = "idle", total = 0, rate, done = 0 } = this.model.get("status") ?? {};
    const { columns, writing } = this.texts;
    const column = columns.get(writing);
    const which = column && writing !== "steered" ? `${String(column.title.textContent).toLowerCase()}, ` : "";
    const speed = Number.isFinite(rate) && rate > 0 ? ` · ${short(rate)} tokens/s` : "";
    /** @type {Record<string, string>} */
    const words = {
      idle: "Idle",
      running: `Running · ${which}${column?.tokens.length ?? 0} of ${total} tokens`,
      done: `Done · ${done} tokens${speed}`,
      stopped: `Stopped after ${done} of ${total} tokens`,
      error: `Failed after ${done} of ${total} tokens`,
    };
    this.status.textContent = words[state] ?? state;
    this.status.dataset.state = state;
    this.runButton.disabled = Boolean(this.model.get("recorded"));
    this.runButton.textContent = state === "running" ? "Stop" : "Run";
    this.runButton.classList.toggle("wb-primary", state !== "running");
    this.frame.schedule();
  }
}

/** @param {{model: Model, el: HTMLElement}} view */
function render(view) {
  const panel = new SteeringPanel(view);
  return () => panel.frame.cleanup();
}

export default { render };
