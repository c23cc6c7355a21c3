// @ts-check
/**
 * One column of streamed text: tokens shaded by how far the edits moved the model's distribution.
 */

import { element, exact, exactToken, percent, proseToken, short, stepOf } from "./shared.js";
import { Scope } from "./steering_controls.js";
/** @typedef {import("./shared.js").Frame} Frame */

/**
 * @typedef {object} Token
 * @property {string} text
 * @property {number} [shift] nats by which the edits moved the distribution
 * @property {number} [entropy] of the distribution, nats
 * @property {number} [p] probability in this text
 * @property {number} [p_before] without the edits, after the same text
 * @property {Array<[string, number]>} [top]
 */
/** @typedef {{verdict?: string, repetition?: number, loss?: number, excess?: number}} Meter */

// Only the part of the ramp on which the page's own ink stays readable.
export const SHADE = 0.5;
export const SHIFT_UNIT = "KL divergence from unsteered, nats";

export class TextColumn {
  /**
   * @param {Frame} frame
   * @param {string} title
   * @param {(column: TextColumn) => void} onPoint
   */
  constructor(frame, title, onPoint) {
    this.frame = frame;
    this.onPoint = onPoint;
    this.scope = new Scope(frame);
    /** @type {Token[]} */
    this.tokens = [];
    /** @type {HTMLElement[]} */
    this.spans = [];
    this.at = -1;
    this.marked = -1;
    this.difference = -1;
    this.prompt = element("span", { class: "wb-text-prompt" });
    this.stream = element("span");
    this.hint = element("span", { class: "wb-text-hint" });
    this.caret = element("span", { class: "wb-text-caret", hidden: true });
    this.title = element("b", { text: title });
    this.about = element("span", { class: "wb-text-about" });
    this.note = element("span", { class: "wb-text-note" });
    this.meter = element("div", { class: "wb-meter", hidden: true });
    this.text = element("div", {
      class: "wb-text", tabindex: "0", role: "textbox", "aria-readonly": "true", "aria-multiline": "true",
      "aria-label": `${title} text. Left and right arrow keys step through the tokens.`,
      "data-lm-suppress-shortcuts": "true",
    }, this.prompt, this.stream, this.caret, this.hint);
    this.node = element("div", { class: "wb-column" },
      element("div", { class: "wb-column-head" }, this.title, this.about, this.note), this.text, this.meter);
    const { scope } = this;
    scope.listen(this.stream, "pointerover", (event) => this.point(this.spans.indexOf(event.target)));
    scope.listen(this.stream, "click", (event) => this.mark(this.spans.indexOf(event.target)));
    scope.listen(this.text, "pointerleave", () => this.point(-1));
    scope.listen(this.text, "blur", () => this.point(-1));
    scope.listen(this.text, "keydown", (event) => this.key(event));
  }

  /** @param {Token[]} tokens */
  replace(tokens) {
    const same = tokens.length === this.tokens.length && tokens.every((token, i) => token.text === this.tokens[i].text);
    if (same) {
      this.tokens = tokens;
      return;
    }
    this.point(-1);
    this.mark(-1);
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
    this.tokens = [...this.tokens, ...tokens];
    this.spans.push(...spans);
    this.stream.append(...spans);
    if (atEnd) text.scrollTop = text.scrollHeight;
  }

  /** Colour the tokens. @param {(shift: number) => number} share of the ramp */
  shade(share) {
    const { ramp } = this.frame;
    this.spans.forEach((span, i) => {
      const step = stepOf(share(this.tokens[i].shift ?? 0) * SHADE);
      span.style.backgroundColor = step > 0 ? ramp.css[step] : "";
      span.style.color = step > 0 ? ramp.ink[step] : "";
    });
  }

  /** Mark the first token that differs from the unsteered text; -1: none. @param {number} index */
  markDifference(index) {
    if (this.difference !== index) this.spans[this.difference]?.classList.remove("wb-differs");
    this.difference = index;
    this.spans[index]?.classList.add("wb-differs");
  }

  /** Keep a token marked, or no longer if it is. @param {number} index */
  mark(index) {
    this.spans[this.marked]?.classList.remove("wb-marked");
    this.marked = index === this.marked ? -1 : index;
    const span = this.spans[this.marked];
    span?.classList.add("wb-marked");
    span?.scrollIntoView({ block: "nearest" });
    this.frame.schedule();
  }

  /** @param {Meter | undefined} meter */
  showMeter(meter) {
    this.meter.hidden = !meter || Object.keys(meter).length === 0;
    if (!meter || this.meter.hidden) return;
    const { verdict, repetition, loss, excess } = meter;
    const words = [];
    if (typeof repetition === "number") words.push(`repetition ${percent(repetition)}`);
    if (typeof loss === "number") {
      const beside = excess ? ` (${excess > 0 ? "+" : ""}${short(excess)})` : "";
      words.push(`loss ${short(loss)} nats a token${beside}`);
    }
    this.meter.title = "Repetition: share of the text that repeats itself. Loss: under the unsteered model; in brackets: above the unsteered text.";
    this.meter.replaceChildren(element("span", { class: "wb-verdict", "data-verdict": verdict ?? "", text: verdict ?? "", hidden: !verdict }),
      element("span", { text: words.join(" · ") }));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const last = this.spans.length - 1;
    if (event.key === "Enter" && this.at >= 0) {
      event.preventDefault();
      this.mark(this.at);
      return;
    }
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
    this.onPoint(this);
    if (!token) {
      this.frame.card.hide();
      return;
    }
    this.spans[index].classList.add("wb-on");
    const facts = this.facts(token, index);
    const others = (token.top ?? []).filter(([text]) => text !== token.text);
    const bars = others.map(([text, p]) => /** @type {[string, number]} */ ([exactToken(text), p]));
    const title = exactToken(token.text);
    const note = token.shift === undefined ? undefined : `shift: ${SHIFT_UNIT}`;
    this.frame.card.show({ title, facts, bars, barsTitle: "alternatives", note },
      this.spans[index].getBoundingClientRect(), "below");
    this.frame.live.textContent = [title, ...facts.map((f) => f.join(" "))].join(", ");
  }

  /** @param {Token} token @param {number} index @returns {Array<[string, string]>} */
  facts(token, index) {
    /** @type {Array<[string, string]>} */
    const facts = [["token", `${index + 1} of ${this.tokens.length}`]];
    if (token.p !== undefined) facts.push(["probability", percent(token.p)]);
    if (token.p_before !== undefined) facts.push(["without the edits", percent(token.p_before)]);
    if (token.shift !== undefined) facts.push(["shift", exact(token.shift)]);
    if (token.entropy !== undefined) facts.push(["entropy", `${exact(token.entropy)} nats`]);
    return facts;
  }

  end() {
    this.point(-1);
    this.scope.end();
    this.node.remove();
  }
}
