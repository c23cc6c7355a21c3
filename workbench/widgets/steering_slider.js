// @ts-check
/**
 * A strength: slider with its safe band, and the same as a number.
 *
 * A slider that moves tells its value after a pause, or at an interval while the running text follows
 * it; letting go tells at once.
 */

import { element, short } from "./shared.js";
import { field, numberIn } from "./steering_controls.js";
/** @typedef {import("./steering_controls.js").Scope} Scope */
/** @typedef {import("./steering_row.js").Row} Row */

const SLIDER_PAUSE = 100;
const THUMB = 16;
// More numbers would run into each other.
const MOST_TICKS = 7;

/** Where nothing is changed. @param {Row} row */
export function neutralOf(row) {
  return Math.min(row.high, Math.max(row.low, row.neutral));
}

export class StrengthSlider {
  /**
   * @param {Scope} scope
   * @param {Row} row
   * @param {string} name of the row, for screen readers
   * @param {{note: (value: number) => void, send: () => void, follows: () => boolean}} owner
   */
  constructor(scope, row, name, owner) {
    this.owner = owner;
    this.row = row;
    this.held = false;
    this.timer = 0;
    this.shape = "";
    this.range = field("input", { class: "wb-range", type: "range", "aria-label": `Strength of ${name}` });
    this.entry = field("input", { class: "wb-number", type: "number", step: "any", "aria-label": `Strength of ${name} as a number` });
    this.unit = element("span", { class: "wb-unit" });
    this.band = element("span", { class: "wb-track-safe" });
    this.fill = element("span", { class: "wb-track-fill" });
    this.zero = element("span", { class: "wb-track-zero" });
    this.ticks = element("span", { class: "wb-track-ticks", "aria-hidden": "true" });
    this.track = element("span", { class: "wb-slider-track" },
      element("span", { class: "wb-track", "aria-hidden": "true" },
        element("span", { class: "wb-track-line" }), this.band, this.fill, this.zero),
      this.range, this.ticks);
    this.amount = element("span", { class: "wb-amount" }, this.entry, this.unit);
    scope.listen(this.range, "pointerdown", () => { this.held = true; });
    scope.listen(this.range, "input", () => this.moved(Number(this.range.value)));
    scope.listen(this.range, "change", () => this.released());
    scope.listen(this.entry, "change", () => this.typed());
    scope.listen(this.entry, "keydown", (event) => {
      if (event.key === "Escape") this.show(this.row, true);
    });
    scope.controller.signal.addEventListener("abort", () => clearTimeout(this.timer));
  }

  /** Where the middle of the thumb is at a value. @param {number} value */
  left(value) {
    const share = (value - this.row.low) / (this.row.high - this.row.low);
    return `calc(${THUMB / 2}px + (100% - ${THUMB}px) * ${share})`;
  }

  /** @param {number} from @param {number} to */
  width(from, to) {
    return `calc((100% - ${THUMB}px) * ${(to - from) / (this.row.high - this.row.low)})`;
  }

  /** @param {number} value */
  moved(value) {
    this.owner.note(value);
    if (this.owner.follows() && this.timer) return;
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.send(), SLIDER_PAUSE);
  }

  /** A mouse or finger that lets go is told at once; a key may be held down, so it waits. */
  released() {
    if (this.held) this.send();
    this.held = false;
  }

  typed() {
    const value = numberIn(this.entry);
    if (value === null) this.show(this.row, true);
    else this.jump(value);
  }

  /** @param {number} value */
  jump(value) {
    this.owner.note(Math.min(this.row.high, Math.max(this.row.low, value)));
    this.send();
    this.show(this.row, true);
  }

  send() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.owner.send();
  }

  /** @param {Row} row @param {boolean} [all] also what is being typed */
  show(row, all = false) {
    this.row = row;
    this.scale();
    const neutral = neutralOf(row);
    if (Number(this.range.value) !== row.value) this.range.value = String(row.value);
    const typing = /** @type {Document | ShadowRoot} */ (this.entry.getRootNode()).activeElement === this.entry;
    if ((all || !typing) && numberIn(this.entry) !== row.value) this.entry.value = String(row.value);
    const [from, to] = [Math.min(neutral, row.value), Math.max(neutral, row.value)];
    this.fill.style.left = this.left(from);
    this.fill.style.width = this.width(from, to);
    const beyond = Boolean(row.safe && (row.value < row.safe[0] || row.value > row.safe[1]));
    this.amount.classList.toggle("wb-beyond", beyond);
    this.entry.title = beyond ? "Outside the safe range: the text may fall apart" : "";
  }

  /** What depends on the ends only. */
  scale() {
    const { low, high, step, unit, safe, recorded = [] } = this.row;
    const neutral = neutralOf(this.row);
    const shape = JSON.stringify([low, high, step, unit, safe, neutral, recorded]);
    if (shape === this.shape) return;
    this.shape = shape;
    for (const input of [this.range, this.entry]) {
      input.min = String(low);
      input.max = String(high);
    }
    this.range.step = String(step);
    this.unit.textContent = unit;
    this.band.hidden = !safe;
    if (safe) {
      const [from, to] = safe.map((value) => Math.min(high, Math.max(low, value)));
      this.band.style.left = this.left(from);
      this.band.style.width = this.width(from, to);
    }
    this.zero.style.left = this.left(neutral);
    const marked = recorded.length > 1 && recorded.length <= MOST_TICKS ? recorded : [low, neutral, high];
    this.ticks.replaceChildren(...[...new Set(marked)].map((value) => {
      const tick = element("b", { text: short(value) });
      tick.style.left = this.left(value);
      return tick;
    }));
  }
}
