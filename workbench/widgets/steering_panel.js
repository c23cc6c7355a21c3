// @ts-check
/**
 * Steering panel: prompt, one slider a feature, steered text beside its unsteered twin.
 *
 * From Python: traits, and messages {type: "reset", run} and {type: "tokens", run, column, tokens}.
 * To Python: {type: "run", prompt}, {type: "stop"}, {type: "set", row, value}, {type: "mute", row, muted};
 * `prompt` and `live` as traits. A slider that moves is sent after a pause, or at an interval while the
 * running text follows it; letting go sends at once.
 */

import { Frame, Legend, element, makeScale, segmented, short } from "./shared.js";
import { SHADE, TextColumn } from "./text_column.js";
/** @typedef {import("./shared.js").Model} Model */
/** @typedef {import("./text_column.js").Token} Token */

/**
 * @typedef {object} Row
 * @property {number} layer
 * @property {string} kind
 * @property {number} index
 * @property {string} label
 * @property {number} low
 * @property {number} high
 * @property {number} step
 * @property {number} value
 * @property {[number, number]} [safe]
 * @property {string} [unit]
 * @property {string} [mode]
 * @property {boolean} [muted]
 * @property {number} [neutral]
 */

const PAUSE = 100;
const THUMB = 16;

/** Where nothing is changed. @param {Row} row */
function neutralOf(row) {
  const value = row.neutral ?? (row.mode === "scale" ? 1 : 0);
  return Math.min(row.high, Math.max(row.low, value));
}

/** One feature: its name, slider, number, reset and mute. */
class Slider {
  /**
   * @param {SteeringPanel} panel
   * @param {number} number
   * @param {Row} row
   */
  constructor(panel, number, row) {
    this.panel = panel;
    this.number = number;
    this.row = row;
    this.held = false;
    this.timer = 0;
    const name = `layer ${row.layer} ${row.kind} feature ${row.index}`;
    // JupyterLab takes arrow keys from whatever has the focus, unless that element itself says no.
    this.range = element("input", { class: "wb-range", type: "range", "aria-label": `Strength of ${name}`,
      "data-lm-suppress-shortcuts": "true" });
    this.entry = element("input", { class: "wb-number", type: "number", "aria-label": `Strength of ${name} as a number` });
    for (const input of [this.range, this.entry]) {
      input.min = String(row.low);
      input.max = String(row.high);
      input.step = input === this.range ? String(row.step) : "any";
    }
    const button = (/** @type {string} */ text, /** @type {string} */ kind) =>
      element("button", { class: `wb-button wb-quiet ${kind}`, type: "button", text, "aria-label": `${text} ${name}` });
    this.reset = button("Reset", "wb-reset");
    this.mute = button("Mute", "wb-mute");
    this.fill = element("span", { class: "wb-track-fill" });
    this.node = element("div", { class: "wb-slider" }, this.nameCell(), this.trackCell(),
      element("span", { class: "wb-amount" }, this.entry, element("span", { class: "wb-unit", text: row.unit ?? "" })),
      element("span", { class: "wb-slider-tools" }, this.reset, this.mute));
    this.listen();
    this.show(row);
  }

  nameCell() {
    const { row } = this;
    const label = element("span", { class: "wb-slider-label", text: row.label, title: row.label });
    const tag = element("span", { class: "wb-slider-site", text: `L${row.layer} ${row.kind} ${row.index}` });
    const mode = element("span", { class: "wb-slider-mode", text: row.mode ?? "", hidden: !row.mode });
    return element("span", { class: "wb-slider-name" }, label, element("span", {}, tag, mode));
  }

  trackCell() {
    const { row } = this;
    const track = element("span", { class: "wb-track", "aria-hidden": "true" }, element("span", { class: "wb-track-line" }));
    if (row.safe) {
      const band = element("span", { class: "wb-track-safe" });
      const [from, to] = row.safe.map((v) => Math.min(row.high, Math.max(row.low, v)));
      band.style.left = this.left(from);
      band.style.width = `calc((100% - ${THUMB}px) * ${(to - from) / (row.high - row.low)})`;
      track.append(band);
    }
    const neutral = element("span", { class: "wb-track-zero" });
    neutral.style.left = this.left(neutralOf(row));
    track.append(this.fill, neutral);
    const scale = element("span", { class: "wb-track-ticks", "aria-hidden": "true" });
    for (const value of new Set([row.low, neutralOf(row), row.high])) {
      const tick = element("b", { text: short(value) });
      tick.style.left = this.left(value);
      scale.append(tick);
    }
    return element("span", { class: "wb-slider-track" }, track, this.range, scale);
  }

  /** Where the middle of the thumb is at a value. @param {number} value */
  left(value) {
    const share = (value - this.row.low) / (this.row.high - this.row.low);
    return `calc(${THUMB / 2}px + (100% - ${THUMB}px) * ${share})`;
  }

  listen() {
    const { frame } = this.panel;
    frame.listen(this.range, "pointerdown", () => { this.held = true; });
    frame.listen(this.range, "input", () => this.moved(Number(this.range.value)));
    frame.listen(this.range, "change", () => this.released());
    frame.listen(this.entry, "change", () => {
      if (this.entry.value.trim() === "") return this.show(this.row);
      return this.jump(Number(this.entry.value));
    });
    frame.listen(this.reset, "click", () => this.jump(neutralOf(this.row)));
    frame.listen(this.mute, "click", () => this.toggleMute());
    frame.atEnd(() => clearTimeout(this.timer));
  }

  /** @param {number} value */
  moved(value) {
    this.panel.note(this.number, { value });
    // While the text follows the slider it is told at an interval; otherwise after a pause, since
    // every message would start the text again.
    const follow = this.panel.model.get("live") === "next" && this.timer;
    if (follow) return;
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.send(), PAUSE);
  }

  /** A mouse or finger that lets go is sent at once; a key may be held down, so it waits. */
  released() {
    if (this.held) this.send();
    this.held = false;
  }

  /** @param {number} value */
  jump(value) {
    const { low, high } = this.row;
    this.panel.note(this.number, { value: Math.min(high, Math.max(low, value)) });
    this.send();
  }

  send() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.panel.model.send({ type: "set", row: this.number, value: this.row.value });
  }

  toggleMute() {
    const muted = !this.row.muted;
    this.panel.note(this.number, { muted });
    this.panel.model.send({ type: "mute", row: this.number, muted });
  }

  /** Show a row's state. @param {Row} row */
  show(row) {
    this.row = row;
    const neutral = neutralOf(row);
    if (Number(this.range.value) !== row.value) this.range.value = String(row.value);
    if (Number(this.entry.value) !== row.value || this.entry.value === "") this.entry.value = String(row.value);
    const [from, to] = [Math.min(neutral, row.value), Math.max(neutral, row.value)];
    this.fill.style.left = this.left(from);
    this.fill.style.width = `calc((100% - ${THUMB}px) * ${(to - from) / (row.high - row.low)})`;
    const beyond = Boolean(row.safe && (row.value < row.safe[0] || row.value > row.safe[1]));
    this.node.classList.toggle("wb-beyond", beyond);
    this.entry.title = beyond ? "Outside the safe range" : "";
    this.node.classList.toggle("wb-muted", Boolean(row.muted));
    this.mute.setAttribute("aria-pressed", String(Boolean(row.muted)));
    this.mute.textContent = row.muted ? "Muted" : "Mute";
  }
}

class SteeringPanel {
  /** @param {{model: Model, el: HTMLElement}} view */
  constructor(view) {
    this.model = view.model;
    this.frame = new Frame(view, "wb-steering-panel");
    this.run = Number(this.model.get("run") ?? 0);
    this.largest = 0;
    this.shape = "";
    /** @type {Slider[]} */
    this.sliders = [];
    this.status = element("span", { class: "wb-status", role: "status" });
    this.frame.tools.prepend(this.status);
    this.promptBox = this.makePrompt();
    this.list = element("div", { class: "wb-sliders" });
    const unit = () => String(this.model.get("shift_unit") ?? "");
    const point = (/** @type {number | null} */ shift) => this.legend.point(shift === null ? null : this.scale().share(shift));
    this.columns = {
      steered: new TextColumn(this.frame, "Steered", unit, point),
      plain: new TextColumn(this.frame, "Unsteered", unit, point),
    };
    this.legend = new Legend(this.frame);
    this.receipt = this.makeReceipt();
    this.frame.body.append(this.promptBox, this.makeControls(), this.list,
      element("div", { class: "wb-columns" }, this.columns.steered.node, this.columns.plain.node),
      this.legend.node, this.receipt);
    this.follow();
    this.showRows();
    this.showFinal();
    this.showStatus();
  }

  follow() {
    const { frame } = this;
    frame.watch(["rows"], () => this.showRows());
    frame.watch(["steered", "plain", "run_prompt"], () => this.showFinal());
    frame.watch(["status"], () => this.showStatus());
    frame.watch(["receipt"], () => this.showReceipt());
    frame.watch(["shift_unit"], () => frame.schedule());
    frame.on("msg:custom", (message) => this.receive(message));
    frame.onDraw(() => this.shadeAll());
    if (!this.model.get("recorded")) return;
    const controls = frame.body.querySelectorAll("textarea, input, .wb-slider button, .wb-run, .wb-segment");
    for (const control of controls) control.setAttribute("disabled", "");
  }

  // --------------------------------------------------------------------- prompt and status

  makePrompt() {
    const box = element("textarea", { class: "wb-prompt", rows: 2, spellcheck: "false", "aria-label": "Prompt" });
    const button = element("button", { class: "wb-button wb-primary wb-run", type: "button", text: "Run" });
    box.value = this.model.get("prompt") ?? "";
    this.runButton = button;
    const start = () => {
      this.frame.save("prompt", box.value);
      this.model.send({ type: "run", prompt: box.value });
    };
    const stop = () => {
      button.disabled = true;
      button.textContent = "Stopping…";
      this.model.send({ type: "stop" });
    };
    this.frame.watch(["prompt"], () => { box.value = this.model.get("prompt") ?? ""; });
    this.frame.listen(button, "click", () => (this.running() ? stop() : start()));
    this.frame.listen(box, "keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      start();
    });
    const hint = this.model.get("recorded") ? "A saved page: open the notebook to run it."
      : "Enter runs, Shift + Enter breaks the line.";
    return element("div", { class: "wb-prompt-area" },
      element("div", { class: "wb-prompt-row", "data-lm-suppress-shortcuts": "true" }, box, button),
      element("div", { class: "wb-hint", text: hint }));
  }

  makeControls() {
    const live = segmented(this.frame, "While moving", [["restart", "restart"], ["next", "from next token"]],
      () => this.model.get("live"), (value) => this.frame.save("live", value));
    this.frame.watch(["live"], live.refresh);
    const key = element("span", { class: "wb-safe-key" }, element("i"), element("span", { text: "safe range" }));
    this.safeKey = key;
    return element("div", { class: "wb-controls" }, element("b", { text: "Features" }), key, live.node);
  }

  running() {
    return this.model.get("status")?.state === "running";
  }

  showStatus() {
    const { state = "idle", total = 0, rate } = this.model.get("status") ?? {};
    const { steered, plain } = this.columns;
    // A panel may write the unsteered text first: say which one is growing.
    const twinFirst = steered.tokens.length === 0 && plain.tokens.length > 0;
    const written = (twinFirst ? plain : steered).tokens.length;
    const done = state === "running" ? written : this.model.get("status")?.done ?? 0;
    const speed = Number.isFinite(rate) && rate > 0 ? ` · ${short(rate)} tokens/s` : "";
    /** @type {Record<string, string>} */
    const words = {
      idle: "Idle",
      running: `Running · ${twinFirst ? "unsteered, " : ""}${done} of ${total} tokens`,
      done: `Done · ${done} tokens${speed}`,
      stopped: `Stopped after ${done} of ${total} tokens`,
      error: `Failed after ${done} of ${total} tokens`,
    };
    this.status.textContent = words[state] ?? state;
    this.status.dataset.state = state;
    for (const column of Object.values(this.columns)) column.caret.hidden = state !== "running";
    if (!this.runButton) return;
    this.runButton.disabled = Boolean(this.model.get("recorded"));
    this.runButton.textContent = state === "running" ? "Stop" : "Run";
    this.runButton.classList.toggle("wb-primary", state !== "running");
  }

  // ------------------------------------------------------------------------------- sliders

  /**
   * Keep a control's state on the page's side; Python is told by a message.
   * @param {number} number
   * @param {Partial<Row>} change
   */
  note(number, change) {
    /** @type {Row[]} */
    const rows = this.model.get("rows");
    this.model.set("rows", rows.map((row, i) => (i === number ? { ...row, ...change } : row)));
  }

  showRows() {
    /** @type {Row[]} */
    const rows = this.model.get("rows") ?? [];
    const shape = JSON.stringify(rows.map(({ value, muted, ...rest }) => rest));
    if (shape === this.shape) {
      rows.forEach((row, i) => {
        if (!this.sliders[i].held || row.value === Number(this.sliders[i].range.value)) this.sliders[i].show(row);
      });
      return;
    }
    this.shape = shape;
    this.sliders = rows.map((row, i) => new Slider(this, i, row));
    this.list.replaceChildren(...this.sliders.map((slider) => slider.node));
    if (this.safeKey) this.safeKey.hidden = !rows.some((row) => row.safe);
  }

  // ---------------------------------------------------------------------------------- text

  /** @param {{type: string, run: number, column?: "steered" | "plain", tokens?: Token[]}} message */
  receive(message) {
    if (message.type === "reset" && message.run >= this.run) {
      this.run = message.run;
      this.largest = 0;
      for (const column of Object.values(this.columns)) column.replace([]);
    } else if (message.type === "tokens" && message.run === this.run && message.column && message.tokens) {
      this.columns[message.column].append(message.tokens);
    } else {
      return;
    }
    this.showStatus();
    this.frame.schedule();
  }

  showFinal() {
    const { steered, plain } = this.columns;
    const prompt = String(this.model.get("run_prompt") ?? "");
    for (const [column, name] of /** @type {const} */ ([[steered, "steered"], [plain, "plain"]])) {
      column.prompt.textContent = prompt;
      column.replace(this.model.get(name) ?? []);
    }
    this.run = Math.max(this.run, Number(this.model.get("run") ?? 0));
    this.frame.schedule();
  }

  scale() {
    return makeScale("linear", 0, this.largest);
  }

  shadeAll() {
    const { steered, plain } = this.columns;
    const shifts = [...steered.tokens, ...plain.tokens].map((token) => token.shift ?? 0);
    this.largest = shifts.reduce((a, b) => Math.max(a, b), 0);
    const { share } = this.scale();
    for (const column of [steered, plain]) column.shade(share);
    this.legend.node.hidden = this.largest === 0;
    this.legend.show(this.scale(), "linear", `shading: ${this.model.get("shift_unit")}`, "", SHADE);
    this.markDifference();
  }

  markDifference() {
    const { steered, plain } = this.columns;
    const shared = Math.min(steered.tokens.length, plain.tokens.length);
    const first = steered.tokens.slice(0, shared).findIndex((token, i) => token.text !== plain.tokens[i].text);
    for (const column of [steered, plain]) column.markDifference(first);
    const word = first >= 0 ? `differs from token ${first + 1} on` : shared > 0 ? "no difference so far" : "";
    steered.note.textContent = this.running() || first >= 0 ? word : shared > 0 ? "no difference" : "";
  }

  // ------------------------------------------------------------------------------- receipt

  makeReceipt() {
    this.receiptLines = element("ul");
    const box = element("details", { class: "wb-receipt" }, element("summary", { text: "Receipt" }), this.receiptLines);
    this.receipt = box;
    this.showReceipt();
    return box;
  }

  showReceipt() {
    /** @type {string[]} */
    const lines = this.model.get("receipt") ?? [];
    this.receiptLines?.replaceChildren(...lines.map((line) => element("li", { text: line })));
    if (this.receipt) this.receipt.hidden = lines.length === 0;
  }
}

/** @param {{model: Model, el: HTMLElement}} view */
function render(view) {
  const panel = new SteeringPanel(view);
  return () => panel.frame.cleanup();
}

export default { render };
