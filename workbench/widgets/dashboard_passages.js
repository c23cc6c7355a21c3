// @ts-check
/**
 * Passages of the corpus: the strongest, or some from the whole range of activation.
 */

import { Legend, decimalsFor, element, fixed, makeScale, segmented } from "./shared.js";
import { textButton } from "./steering_controls.js";
import { DEPTH, TokenBlock } from "./dashboard_tokens.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {import("./dashboard_tokens.js").Passage} Passage */

const FIRST = 6;
/** @type {Array<[number, string]>} a firing that beats so large a share of the others, and what it is called */
const BANDS = [
  [0.99, "strongest hundredth of its firings"],
  [0.9, "strongest tenth"],
  [0.5, "upper half"],
  [0.1, "lower half"],
  [-1, "weakest tenth"],
];

/** The band of a passage. @param {Passage} passage */
export function bandOf({ below = 0 }) {
  return BANDS.find(([least]) => below >= least)?.[1] ?? "";
}

export class Passages {
  /**
   * @param {Frame} frame
   * @param {(value: number | null) => void} onValue
   */
  constructor(frame, onValue) {
    this.frame = frame;
    this.which = "top";
    this.all = false;
    this.block = new TokenBlock(frame, "Passages of the corpus", onValue);
    this.choice = segmented(frame, "", [["top", "Strongest"], ["spread", "Whole range"]], () => this.which, (which) => {
      this.which = which;
      this.all = false;
      this.fill();
    });
    this.legend = new Legend(frame);
    this.more = textButton("", "wb-more");
    this.node = element("section", { class: "wb-part wb-passages-part" },
      element("div", { class: "wb-part-head" }, element("b", { text: "Passages" }), this.choice.node, this.legend.node),
      this.block.node, this.more);
    frame.listen(this.more, "click", () => {
      this.all = !this.all;
      this.fill();
    });
    frame.watch(["top", "spread"], () => {
      this.all = false;
      this.fill();
    });
    frame.watch(["maximum"], () => frame.schedule());
    frame.onDraw(() => this.colour());
    this.fill();
  }

  /** @returns {Passage[]} */
  get given() {
    return this.frame.model.get(this.which) ?? [];
  }

  fill() {
    const { given } = this;
    const none = ["top", "spread"].every((which) => (this.frame.model.get(which) ?? []).length === 0);
    this.node.hidden = none;
    const shown = this.all ? given : some(given, this.which);
    const decimals = decimalsFor(Math.max(0, ...given.map(valueOf)));
    let band = "";
    this.block.fill(shown, (passage, spans) => {
      const line = element("div", { class: "wb-passage" },
        element("span", { class: "wb-passage-value", text: fixed(valueOf(passage), decimals) }),
        element("div", { class: "wb-passage-text" }, ...spans));
      const now = this.which === "spread" ? bandOf(passage) : "";
      if (now === band) return [line];
      band = now;
      return [element("div", { class: "wb-band", text: now }), line];
    });
    this.more.hidden = given.length <= FIRST;
    this.more.textContent = this.all ? "Show fewer" : `Show all ${given.length}`;
    this.choice.refresh();
    this.frame.schedule();
  }

  colour() {
    const maximum = this.frame.model.get("maximum") || Math.max(0, ...this.given.flatMap(({ values }) => values));
    const scale = makeScale("linear", 0, maximum);
    this.block.colour(scale.share, maximum);
    this.legend.show(scale, "linear", "feature activation", "", DEPTH);
  }
}

/** @param {Passage} passage */
function valueOf({ values, at }) {
  return values[at];
}

/**
 * The first of the strongest, or of the whole range as many, evenly from its one end to the other.
 * @param {Passage[]} passages
 * @param {string} which
 */
function some(passages, which) {
  if (which === "top" || passages.length <= FIRST) return passages.slice(0, FIRST);
  return Array.from({ length: FIRST }, (_, i) => passages[Math.round((i * (passages.length - 1)) / (FIRST - 1))]);
}
