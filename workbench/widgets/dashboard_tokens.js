// @ts-check
/**
 * Tokens of a passage coloured by how strongly the feature fires on them, and the card of a token.
 */

import { element, exact, exactToken, percent, proseToken, stepOf } from "./shared.js";
/** @typedef {import("./shared.js").Frame} Frame */

// The part of the ramp that is used: a page of text in its darkest colours is hard to read.
export const DEPTH = 0.62;

/**
 * @typedef {object} Passage
 * @property {string[]} tokens
 * @property {number[]} values
 * @property {number} at the token that the passage is about; -1: none
 * @property {number} [below] share of the feature's firings that are weaker
 * @property {string} [place]
 * @property {number[]} [masked] positions that are not scored
 */

/**
 * A token in one line: a passage of code would take a screen.
 * @param {string} token
 */
function inline(token) {
  return proseToken(token).replaceAll("↵\n", "↵");
}

/** One span a token. @param {Passage} passage */
export function tokenSpans({ tokens, at, masked = [] }) {
  return tokens.map((token, i) => {
    const kind = masked.includes(i) ? "wb-word wb-masked" : i === at ? "wb-word wb-peak" : "wb-word";
    return element("span", { class: kind, text: inline(token) });
  });
}

/**
 * Colour the spans of a passage.
 * @param {Frame} frame
 * @param {HTMLElement[]} spans
 * @param {Passage} passage
 * @param {(value: number) => number} share of the ramp
 */
export function colourTokens({ ramp }, spans, { values, masked = [] }, share) {
  spans.forEach((span, i) => {
    const step = masked.includes(i) ? 0 : stepOf(share(values[i]) * DEPTH);
    span.style.backgroundColor = step > 0 ? ramp.css[step] : "";
    span.style.color = step > 0 ? ramp.ink[step] : "";
  });
}

/**
 * What the card of a token says.
 * @param {Passage} passage
 * @param {number} index
 * @param {number} maximum of the feature; 0: not known
 * @returns {import("./shared.js").CardContent}
 */
export function tokenCard(passage, index, maximum) {
  const { tokens, values, at, below, place, masked = [] } = passage;
  const title = exactToken(tokens[index]);
  if (masked.includes(index)) return { title, note: "masked: <bos> is never scored" };
  /** @type {Array<[string, string]>} */
  const facts = [["activation", exact(values[index])]];
  if (maximum > 0) facts.push(["of its maximum", percent(values[index] / maximum)]);
  if (index === at && below !== undefined) facts.push(["stronger than", `${percent(below)} of its firings`]);
  if (place) facts.push(["where", place]);
  return { title, facts };
}

/** A passage's text for a screen reader. @param {Passage} passage @param {number} index @param {number} maximum */
export function spoken(passage, index, maximum) {
  const { title, facts = [], note } = tokenCard(passage, index, maximum);
  return [title, ...facts.map((fact) => fact.join(" ")), note].filter((part) => part).join(", ");
}

/**
 * A block of passages that the pointer and the arrow keys step through, token by token.
 *
 * One tab stop for all of it. Up and down change the passage, left and right the token.
 */
export class TokenBlock {
  /**
   * @param {Frame} frame
   * @param {string} name for a screen reader
   * @param {(value: number | null) => void} onValue told the value of the token pointed at
   */
  constructor(frame, name, onValue) {
    this.frame = frame;
    this.onValue = onValue;
    /** @type {Passage[]} */
    this.passages = [];
    /** @type {HTMLElement[][]} */
    this.spans = [];
    this.row = -1;
    this.at = -1;
    this.maximum = 0;
    this.node = element("div", {
      class: "wb-text wb-passages", tabindex: "0", role: "group",
      "aria-label": `${name}. Arrow keys step through passages and tokens.`, "data-lm-suppress-shortcuts": "true",
    });
    frame.listen(this.node, "pointerover", (event) => this.pointAt(event.target));
    frame.listen(this.node, "pointerleave", () => this.point(-1, -1));
    frame.listen(this.node, "blur", () => this.point(-1, -1));
    frame.listen(this.node, "keydown", (event) => this.key(event));
  }

  /**
   * @param {Passage[]} passages
   * @param {(passage: Passage, spans: HTMLElement[], index: number) => Node[]} lines the nodes of a passage
   */
  fill(passages, lines) {
    this.point(-1, -1);
    this.passages = passages;
    this.spans = passages.map(tokenSpans);
    this.node.replaceChildren(...passages.flatMap((passage, i) => lines(passage, this.spans[i], i)));
  }

  /** @param {(value: number) => number} share @param {number} maximum */
  colour(share, maximum) {
    this.maximum = maximum;
    this.passages.forEach((passage, i) => colourTokens(this.frame, this.spans[i], passage, share));
  }

  /** @param {EventTarget | null} target */
  pointAt(target) {
    for (const [row, spans] of this.spans.entries()) {
      const at = spans.indexOf(/** @type {HTMLElement} */ (target));
      if (at >= 0) return this.point(row, at);
    }
    return this.point(-1, -1);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const { row, passages } = this;
    if (event.ctrlKey || event.metaKey || event.altKey || passages.length === 0) return;
    if (event.key === "Escape") return this.point(-1, -1);
    const to = { row: Math.max(0, row), at: this.at };
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      to.row = row < 0 ? 0 : row + (event.key === "ArrowDown" ? 1 : -1);
      if (to.row < 0 || to.row >= passages.length) return undefined;  // the page scrolls on
      to.at = passages[to.row].at;
    } else if (event.key === "ArrowRight") to.at = row < 0 ? Math.max(0, passages[0].at) : this.at + 1;
    else if (event.key === "ArrowLeft") to.at = row < 0 ? Math.max(0, passages[0].at) : this.at - 1;
    else if (event.key === "Home") to.at = 0;
    else if (event.key === "End") to.at = passages[to.row].tokens.length - 1;
    else return undefined;
    event.preventDefault();
    this.point(to.row, Math.max(0, Math.min(passages[to.row].tokens.length - 1, to.at)));
    this.spans[this.row]?.[this.at]?.scrollIntoView({ block: "nearest" });
    return undefined;
  }

  /** Show the card of a token; -1: none. @param {number} row @param {number} at */
  point(row, at) {
    if (row === this.row && at === this.at) return;
    this.spans[this.row]?.[this.at]?.classList.remove("wb-on");
    [this.row, this.at] = [row, at];
    const span = this.spans[row]?.[at];
    if (!span) {
      this.frame.card.hide();
      this.onValue(null);
      return;
    }
    span.classList.add("wb-on");
    const passage = this.passages[row];
    this.frame.card.show(tokenCard(passage, at, this.maximum), span.getBoundingClientRect(), "below");
    this.frame.live.textContent = spoken(passage, at, this.maximum);
    this.onValue((passage.masked ?? []).includes(at) ? null : passage.values[at]);
  }
}
