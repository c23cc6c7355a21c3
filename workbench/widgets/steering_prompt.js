// @ts-check
/**
 * What the texts begin with, a text or chat turns, and the sampler's settings.
 *
 * To Python: the traits `prompt` and `turns` when a box is left or run; {type: "settings", key, value}.
 */

import { element, exactToken, segmented } from "./shared.js";
import { Scope, choice, enterRuns, field, labelled, numberIn, textButton } from "./steering_controls.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {{role: string, content: string}} Turn */

/** @type {Array<[string, string]>} */
const ROLES = [["user", "User"], ["assistant", "Model"]];

// More tokens get a line of their own.
const SHORT = 24;

export class Prompt {
  /**
   * @param {Frame} frame
   * @param {HTMLElement} runButton
   * @param {() => void} run
   */
  constructor(frame, runButton, run) {
    this.frame = frame;
    this.model = frame.model;
    this.run = run;
    this.scope = new Scope(frame);
    /** @type {Array<{role: HTMLSelectElement, box: HTMLTextAreaElement}>} */
    this.boxes = [];
    /** @type {Turn[]} */
    this.kept = [];
    this.shown = "";
    this.box = this.makeBox("Prompt", 2);
    this.turns = element("div", { class: "wb-turns" });
    this.add = textButton("Add a turn", "wb-add-turn");
    this.form = segmented(frame, "", [["text", "Text"], ["chat", "Chat"]], () => this.mode, (mode) => this.switchTo(mode));
    this.form.node.lastElementChild?.setAttribute("aria-label", "Form of the prompt");
    this.tokens = element("div", { class: "wb-prompt-tokens" });
    const saved = this.model.get("recorded");
    this.hint = element("span", { class: "wb-hint", text: saved ? this.resting()
      : "Enter runs, Shift + Enter breaks the line." });
    this.node = element("div", { class: "wb-prompt-area" },
      element("div", { class: "wb-prompt-row" }, element("div", { class: "wb-prompt-boxes" }, this.box, this.turns), runButton),
      element("div", { class: "wb-prompt-foot" }, this.form.node, this.add, this.tokens, this.hint));
    frame.listen(this.box, "change", () => this.save());
    frame.listen(this.box, "keydown", (event) => this.key(event, this.box));
    frame.listen(this.add, "click", () => this.addTurn());
    frame.watch(["prompt", "turns", "chats"], () => this.show());
    frame.watch(["prompt_tokens"], () => this.showTokens());
    this.show();
    this.showTokens();
  }

  /** @param {string} label @param {number} rows */
  makeBox(label, rows) {
    return field("textarea", { class: "wb-prompt", rows, spellcheck: "false", "aria-label": label });
  }

  /** What there is to do where nobody writes texts. */
  resting() {
    const texts = (this.model.get("takes") ?? []).length;
    return texts > 1 ? "Recorded texts: move a slider, or step through them." : "A saved page: open the notebook to run it.";
  }

  get mode() {
    return (this.model.get("turns") ?? []).length > 0 ? "chat" : "text";
  }

  /** @param {KeyboardEvent} event @param {HTMLTextAreaElement} box */
  key(event, box) {
    enterRuns(event, box, () => {
      this.save();
      this.run();
    });
  }

  /** What is in the boxes, as traits. */
  save() {
    if (this.mode === "text") {
      if (this.box.value !== this.model.get("prompt")) this.frame.save("prompt", this.box.value);
      return;
    }
    const turns = this.boxes.map(({ role, box }) => ({ role: role.value, content: box.value }));
    this.shown = JSON.stringify(turns);
    if (this.shown !== JSON.stringify(this.model.get("turns"))) this.frame.save("turns", turns);
  }

  /** @param {string} mode */
  switchTo(mode) {
    if (mode === this.mode) return;
    this.save();
    if (mode === "chat") {
      this.frame.save("turns", this.kept.length > 0 ? this.kept : [{ role: "user", content: this.box.value }]);
    } else {
      this.kept = this.model.get("turns");
      this.frame.save("turns", []);
    }
  }

  addTurn() {
    this.save();
    /** @type {Turn[]} */
    const turns = this.model.get("turns");
    const role = turns.at(-1)?.role === "user" ? "assistant" : "user";
    this.frame.save("turns", [...turns, { role, content: "" }]);
    this.boxes.at(-1)?.box.focus();
  }

  /** @param {number} index */
  removeTurn(index) {
    this.save();
    this.frame.save("turns", this.model.get("turns").filter((/** @type {Turn} */ _turn, /** @type {number} */ i) => i !== index));
    this.boxes[Math.min(index, this.boxes.length - 1)]?.box.focus();
  }

  show() {
    /** @type {Turn[]} */
    const turns = this.model.get("turns") ?? [];
    const chat = turns.length > 0;
    const prompt = this.model.get("prompt") ?? "";
    if (this.box.value !== prompt) this.box.value = prompt;
    this.box.hidden = chat;
    this.turns.hidden = !chat;
    this.add.hidden = !chat;
    this.form.node.hidden = !this.model.get("chats") && !chat;
    this.form.refresh();
    if (JSON.stringify(turns) === this.shown) return;
    this.shown = JSON.stringify(turns);
    this.scope.end();
    this.scope = new Scope(this.frame);
    this.boxes = [];
    this.turns.replaceChildren(...turns.map((turn, i) => this.turn(turn, i, turns.length)));
  }

  /** @param {Turn} turn @param {number} index @param {number} count */
  turn(turn, index, count) {
    const { scope } = this;
    const role = choice(`Role of turn ${index + 1}`, ROLES);
    role.value = turn.role;
    const box = this.makeBox(`Turn ${index + 1}`, Math.min(6, Math.max(1, turn.content.split("\n").length)));
    box.value = turn.content;
    const remove = textButton("×", "wb-remove", `Remove turn ${index + 1}`);
    remove.hidden = count === 1;
    scope.listen(role, "change", () => this.save());
    scope.listen(box, "change", () => this.save());
    scope.listen(box, "keydown", (event) => this.key(event, box));
    scope.listen(remove, "click", () => this.removeTurn(index));
    this.boxes.push({ role, box });
    return element("div", { class: "wb-turn" }, role, box, remove);
  }

  /** The prompt as the model reads it: special tokens as chips, positions on hover. */
  showTokens() {
    /** @type {Array<{text: string, special: boolean}>} */
    const tokens = this.model.get("prompt_tokens") ?? [];
    this.tokens.hidden = tokens.length === 0;
    this.tokens.classList.toggle("wb-long", tokens.length > SHORT);
    this.tokens.replaceChildren(element("span", { class: "wb-hint", text: `${tokens.length} tokens` }),
      ...tokens.map(({ text, special }, i) => element("span", { class: special ? "wb-token wb-chip" : "wb-token", text: exactToken(text), title: `position ${i}` })));
  }
}

/** Length, temperature, top-p and seed. */
export class Settings {
  /** @param {Frame} frame */
  constructor(frame) {
    this.frame = frame;
    this.model = frame.model;
    const make = (/** @type {string} */ key, /** @type {string} */ title, /** @type {Record<string, string | number>} */ limits) => {
      const input = field("input", { class: "wb-number", type: "number", ...limits });
      frame.listen(input, "change", () => this.tell(key, input));
      return { key, input, node: labelled(title, input) };
    };
    this.fields = [
      make("max_new_tokens", "Tokens", { min: 1, step: 1 }),
      make("temperature", "Temperature", { min: 0, step: 0.1, title: "0 always takes the most probable token" }),
      make("top_p", "Top-p", { min: 0, max: 1, step: 0.05, title: "samples from the most probable tokens that hold this share" }),
      make("seed", "Seed", { min: 0, step: 1, title: "the same seed draws the same text, for every column" }),
    ];
    const next = textButton("New seed", "wb-new-seed");
    frame.listen(next, "click", () => this.send("seed", Math.floor(Math.random() * 1e6)));
    const nodes = this.fields.map(({ node }) => node);
    this.node = element("div", { class: "wb-settings" }, ...nodes.slice(0, 3), element("span", { class: "wb-seed" }, nodes[3], next));
    frame.watch(["settings"], () => this.show());
    this.show();
  }

  /** @param {string} key @param {HTMLInputElement} input */
  tell(key, input) {
    const value = numberIn(input);
    if (value === null || !input.checkValidity()) this.show();
    else this.send(key, value);
  }

  /** @param {string} key @param {number} value */
  send(key, value) {
    this.model.send({ type: "settings", key, value });
  }

  show() {
    const settings = this.model.get("settings") ?? {};
    for (const { key, input } of this.fields) input.value = String(settings[key] ?? "");
  }
}
