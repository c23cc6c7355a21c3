// @ts-check
/**
 * One column of streamed text: tokens shaded by how far the edits moved the model's distribution.
 */

import { element, exact, exactToken, percent, proseToken, stepOf } from "./shared.js";
/** @typedef {import("./shared.js").Frame} Frame */

/**
 * @typedef {object} Token
 * @property {string} text
 * @property {number} [shift]
 * @property {number} [p] probability in this text
 * @property {number} [p_before] without the edits, after the same text
 * @property {Array<[string, number]>} [top]
 */

// Only the part of the ramp on which the page's own ink stays readable.
export const SHADE = 0.5;

export class TextColumn {
  /**
   * @param {Frame} frame
   * @param {string} heading
   * @param {() => string} shiftUnit
   * @param {(shift: number | null) => void} onPoint
   */
  constructor(frame, heading, shiftUnit, onPoint) {
    this.frame = frame;
    this.shiftUnit = shiftUnit;
    this.onPoint = onPoint;
    /** @type {Token[]} */
    this.tokens = [];
    /** @type {HTMLElement[]} */
    this.spans = [];
    this.prompt = element("span", { class: "wb-text-prompt" });
    this.stream = element("span");
    this.caret = element("span", { class: "wb-text-caret", hidden: true });
    this.note = element("span", { class: "wb-text-note" });
    this.text = element("div", {
      class: "wb-text", tabindex: "0", role: "textbox", "aria-readonly": "true", "aria-multiline": "true",
      "aria-label": `${heading} text. Left and right arrow keys step through the tokens.`,
      "data-lm-suppress-shortcuts": "true",
    }, this.prompt, this.stream, this.caret);
    this.node = element("div", { class: "wb-column" },
      element("div", { class: "wb-column-head" }, element("b", { text: heading }), this.note), this.text);
    this.at = -1;
    frame.listen(this.stream, "pointerover", (event) => this.point(this.spans.indexOf(event.target)));
    frame.listen(this.text, "pointerleave", () => this.point(-1));
    frame.listen(this.text, "blur", () => this.point(-1));
    frame.listen(this.text, "keydown", (event) => this.key(event));
  }

  /** @param {Token[]} tokens */
  replace(tokens) {
    this.point(-1);
    this.tokens = [];
    this.spans = [];
    this.stream.replaceChildren();
    this.append(tokens);
  }

  /** @param {Token[]} tokens */
  append(tokens) {
    const { text } = this;
    const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 24;
    const spans = tokens.map((token) => element("span", { text: proseToken(token.text) }));
    this.tokens.push(...tokens);
    this.spans.push(...spans);
    this.stream.append(...spans);
    if (atEnd) text.scrollTop = text.scrollHeight;
  }

  /** Colour the tokens from one on. @param {(shift: number) => number} share @param {number} from */
  shade(share, from = 0) {
    const { ramp } = this.frame;
    for (let i = from; i < this.spans.length; i += 1) {
      const shift = this.tokens[i].shift ?? 0;
      const step = stepOf(share(shift) * SHADE);
      this.spans[i].style.backgroundColor = step > 0 ? ramp.css[step] : "";
      this.spans[i].style.color = step > 0 ? ramp.ink[step] : "";
    }
  }

  /** Mark the first token that differs from the other column; -1: none. @param {number} index */
  markDifference(index) {
    this.spans[index]?.classList.add("wb-differs");
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const last = this.spans.length - 1;
    /** @type {Record<string, number>} */
    const moves = { ArrowRight: this.at + 1, ArrowLeft: this.at - 1, Home: 0, End: last, Escape: -1 };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || last < 0) return;
    event.preventDefault();
    const to = moves[event.key];
    this.point(event.key === "Escape" ? -1 : Math.max(0, Math.min(last, to)));
    this.spans[this.at]?.scrollIntoView({ block: "nearest" });
  }

  /** Show the card of a token; -1: hide it. @param {number} index */
  point(index) {
    if (index === this.at) return;
    this.spans[this.at]?.classList.remove("wb-on");
    this.at = index;
    const token = this.tokens[index];
    this.onPoint(token ? token.shift ?? 0 : null);
    if (!token) {
      this.frame.card.hide();
      return;
    }
    this.spans[index].classList.add("wb-on");
    /** @type {Array<[string, string]>} */
    const facts = [["token", `${index + 1} of ${this.tokens.length}`]];
    if (token.p !== undefined) facts.push(["probability", percent(token.p)]);
    if (token.p_before !== undefined) facts.push(["without the edits", percent(token.p_before)]);
    if (token.shift !== undefined) facts.push(["shift", exact(token.shift)]);
    const others = (token.top ?? []).filter(([text]) => text !== token.text);
    const bars = others.map(([text, p]) => /** @type {[string, number]} */ ([exactToken(text), p]));
    const title = exactToken(token.text);
    const note = token.shift === undefined ? undefined : `shift: ${this.shiftUnit()}`;
    this.frame.card.show({ title, facts, bars, barsTitle: "alternatives", note },
      this.spans[index].getBoundingClientRect(), "below");
    this.frame.live.textContent = [title, ...facts.map((f) => f.join(" "))].join(", ");
  }
}
