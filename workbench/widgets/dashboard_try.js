// @ts-check
/**
 * A text of the reader's own, coloured while it is written. To Python: {type: "try", text}.
 */

import { element, makeScale, short } from "./shared.js";
import { field } from "./steering_controls.js";
import { TokenBlock } from "./dashboard_tokens.js";
/** @typedef {import("./shared.js").Frame} Frame */

const PAUSE = 250;

export class TryText {
  /**
   * @param {Frame} frame
   * @param {(value: number | null) => void} onValue
   */
  constructor(frame, onValue) {
    this.frame = frame;
    this.timer = 0;
    this.sent = frame.model.get("tried")?.text ?? "";
    this.block = new TokenBlock(frame, "Your text", onValue);
    this.input = field("textarea", { class: "wb-input wb-try", rows: 2, spellcheck: "false", "aria-label": "Your own text", placeholder: "Type a text: it is coloured while you write" });
    this.input.value = this.sent;
    this.said = element("span", { class: "wb-hint", role: "status" });
    this.node = element("section", { class: "wb-part" },
      element("div", { class: "wb-part-head" }, element("b", { text: "Try your own text" }), this.said), this.input, this.block.node);
    frame.listen(this.input, "input", () => this.soon());
    frame.listen(this.input, "change", () => this.ask());
    frame.watch(["tried", "maximum"], () => this.show());
    frame.onDraw(() => this.colour());
    frame.atEnd(() => clearTimeout(this.timer));
    this.input.disabled = Boolean(frame.model.get("recorded"));
    this.show();
  }

  soon() {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.ask(), PAUSE);
  }

  ask() {
    clearTimeout(this.timer);
    const text = this.input.value;
    if (text === this.sent) return;
    this.sent = text;
    this.frame.model.send({ type: "try", text });
  }

  get tried() {
    return { text: "", tokens: [], values: [], masked: [], state: "idle", ...this.frame.model.get("tried") };
  }

  show() {
    const { text, tokens, values, masked, state } = this.tried;
    // What is being typed is newer than any answer.
    if (document.activeElement !== this.input && this.input.value !== text) {
      this.input.value = text;
      this.sent = text;
    }
    const passage = { tokens, values, masked, at: -1 };
    this.block.node.hidden = tokens.length === 0;
    this.block.fill(tokens.length ? [passage] : [], (_, spans) => [element("div", { class: "wb-passage-text" }, ...spans)]);
    this.said.textContent = this.words(values, masked, state);
    this.frame.schedule();
  }

  /** @param {number[]} values @param {number[]} masked @param {string} state */
  words(values, masked, state) {
    if (state === "running") return "Reading…";
    if (values.length === 0) return "";
    const scored = values.filter((_, i) => !masked.includes(i));
    const fires = scored.filter((value) => value > 0).length;
    if (fires === 0) return `silent on all ${scored.length} tokens`;
    return `fires on ${fires} of ${scored.length} tokens, at most ${short(Math.max(...scored))}`;
  }

  colour() {
    const { values, masked } = this.tried;
    const own = Math.max(0, ...values.filter((/** @type {number} */ _, /** @type {number} */ i) => !masked.includes(i)));
    const maximum = this.frame.model.get("maximum") || own;
    this.block.colour(makeScale("linear", 0, maximum).share, maximum);
  }
}
