// @ts-check
/**
 * One edit: what it acts on, its mode and strength, mute, solo and remove; the rest folded away.
 */

import { element, svg } from "./shared.js";
import { Scope, choice, field, fillChoice, textButton } from "./steering_controls.js";
import { Conditions, conditionWords, whenWords } from "./steering_conditions.js";
import { StrengthSlider, neutralOf } from "./steering_slider.js";
/** @typedef {import("./steering_list.js").RowList} RowList */
/** @typedef {import("./steering_conditions.js").Condition} Condition */

/**
 * @typedef {object} Row
 * @property {string} id
 * @property {number} layer
 * @property {string} kind
 * @property {number | null} index null: every feature of the SAE
 * @property {string} label
 * @property {string} mode
 * @property {string[]} modes
 * @property {boolean} slider
 * @property {number} value
 * @property {number} low
 * @property {number} high
 * @property {number} step
 * @property {string} unit
 * @property {number} neutral
 * @property {[number, number] | null} safe
 * @property {string} to
 * @property {boolean} error
 * @property {string} other
 * @property {string} when
 * @property {string} where
 * @property {Condition | null} above
 * @property {string} formula
 * @property {boolean} muted
 * @property {boolean} solo
 * @property {string} warning
 * @property {number[]} [recorded] values at which there are texts
 */

/** A site and feature, short. @param {{layer: number, kind: string, index: number | null}} row */
export function siteOf({ layer, kind, index }) {
  return index === null ? `L${layer} ${kind}` : `L${layer} ${kind} ${index}`;
}

/** The same for a screen reader. @param {Row} row */
function spoken({ layer, kind, index }) {
  return `layer ${layer} ${kind}${index === null ? "" : ` feature ${index}`}`;
}

export class EditRow {
  /**
   * @param {RowList} list
   * @param {Row} row
   */
  constructor(list, row) {
    this.list = list;
    this.row = row;
    this.scope = new Scope(list.frame);
    const name = spoken(row);
    this.handle = this.makeHandle(name);
    this.label = element("span", { class: "wb-row-label" });
    this.facts = element("span", { class: "wb-row-facts" });
    this.warning = element("span", { class: "wb-row-warning" });
    this.mode = choice(`Mode of ${name}`, []);
    this.mode.classList.add("wb-mode");
    this.slider = new StrengthSlider(this.scope, row, name, {
      note: (value) => list.note(this.row.id, "value", value),
      send: () => list.send(this.row.id, "value"),
      follows: () => list.model.get("live") === "next",
    });
    this.to = choice(`What ${name} is set to`, [["zero", "to zero"], ["mean", "to its mean over ordinary text"]]);
    this.error = choice(`Error term of ${name}`, [["", "without the SAE's error term"], ["on", "with the SAE's error term"]]);
    this.other = field("input", { class: "wb-input", type: "text", placeholder: "text to take the activation from", "aria-label": `Text that ${name} is taken from` });
    this.mute = textButton("Mute", "wb-toggle wb-mute", `Mute ${name}`);
    this.solo = textButton("Solo", "wb-toggle wb-solo", `Solo ${name}`);
    this.more = textButton("More", "wb-toggle wb-more-button", `More about ${name}`);
    this.remove = textButton("×", "wb-remove", `Remove ${name}`);
    this.reset = textButton("Reset", "wb-reset", `Reset ${name}`);
    this.up = textButton("Move up", "wb-up", `Move ${name} up`);
    this.down = textButton("Move down", "wb-down", `Move ${name} down`);
    this.formula = element("code", { class: "wb-formula" });
    this.conditions = new Conditions(this, name);
    this.folded = element("div", { class: "wb-row-more", hidden: true }, ...this.conditions.nodes,
      element("div", { class: "wb-row-line" }, this.formula,
        element("span", { class: "wb-row-tools" }, this.reset, this.up, this.down)));
    this.plain = element("span", { class: "wb-row-plain" }, this.to, this.error, this.other);
    this.node = element("div", { class: "wb-row", role: "listitem" }, this.handle,
      element("span", { class: "wb-row-name" }, this.label, this.facts, this.warning), this.mode,
      this.slider.track, this.slider.amount, this.plain,
      element("span", { class: "wb-row-tools" }, this.mute, this.solo, this.more, this.remove), this.folded);
    this.listen();
  }

  /** @param {string} name */
  makeHandle(name) {
    const dots = svg("svg", { viewBox: "0 0 10 16", width: 10, height: 16, "aria-hidden": "true" });
    for (const y of [3, 8, 13]) for (const x of [2.5, 7.5]) dots.append(svg("circle", { cx: x, cy: y, r: 1.3 }));
    return element("button", {
      class: "wb-handle", type: "button", "data-lm-suppress-shortcuts": "true", title: "Drag, or press the up and down arrow keys",
      "aria-label": `Order of ${name}: up and down arrow keys move it`,
    }, dots);
  }

  listen() {
    const { scope, list } = this;
    const change = (/** @type {string} */ key, /** @type {unknown} */ value) => list.change(this.row.id, key, value);
    scope.listen(this.mode, "change", () => change("mode", this.mode.value));
    scope.listen(this.to, "change", () => change("to", this.to.value));
    scope.listen(this.error, "change", () => change("error", this.error.value === "on"));
    scope.listen(this.other, "change", () => change("other", this.other.value));
    scope.listen(this.mute, "click", () => change("muted", !this.row.muted));
    scope.listen(this.solo, "click", () => change("solo", !this.row.solo));
    scope.listen(this.remove, "click", () => list.remove(this.row.id));
    scope.listen(this.reset, "click", () => this.slider.jump(neutralOf(this.row)));
    scope.listen(this.up, "click", () => list.shift(this.row.id, -1));
    scope.listen(this.down, "click", () => list.shift(this.row.id, 1));
    scope.listen(this.more, "click", () => this.fold(!this.folded.hidden));
    for (const type of ["pointerenter", "focus"]) scope.listen(this.mode, type, () => this.showFormula());
    for (const type of ["pointerleave", "blur", "pointerdown"]) scope.listen(this.mode, type, () => list.frame.card.hide());
    list.followHandle(this);
  }

  showFormula() {
    const { mode, formula } = this.row;
    if (formula) this.list.frame.card.show({ title: mode, lead: formula }, this.mode.getBoundingClientRect(), "below");
  }

  /** @param {boolean} closed */
  fold(closed) {
    this.folded.hidden = closed;
    this.more.setAttribute("aria-expanded", String(!closed));
  }

  /**
   * @param {Row} row
   * @param {{silent: boolean, first: boolean, last: boolean}} place silent: muted, or another is solo
   */
  show(row, { silent, first, last }) {
    this.row = row;
    this.label.textContent = row.label || (row.index === null ? "whole SAE" : `feature ${row.index}`);
    this.label.title = row.label;
    const facts = [siteOf(row), whenWords(row), conditionWords(row.above)].filter(Boolean);
    this.facts.replaceChildren(...facts.map((text) => element("span", { text })));
    this.warning.textContent = row.warning;
    this.warning.hidden = row.warning === "";
    fillChoice(this.mode, [...new Set([...row.modes, row.mode])].map((mode) => [mode, mode]));
    this.mode.value = row.mode;
    this.slider.show(row);
    for (const part of [this.slider.track, this.slider.amount, this.reset]) part.hidden = !row.slider;
    this.plain.hidden = row.slider;
    this.to.hidden = row.mode !== "ablate";
    this.to.value = row.to;
    this.error.hidden = row.mode !== "splice";
    this.error.value = row.error ? "on" : "";
    this.other.hidden = row.mode !== "patch";
    if (this.other.value !== row.other) this.other.value = row.other;
    this.mute.setAttribute("aria-pressed", String(row.muted));
    this.solo.setAttribute("aria-pressed", String(row.solo));
    this.more.setAttribute("aria-expanded", String(!this.folded.hidden));
    this.formula.textContent = row.formula;
    this.formula.hidden = row.formula === "";
    this.conditions.show(row);
    this.node.classList.toggle("wb-silent", silent);
    [this.up.disabled, this.down.disabled] = [first, last];
  }

  end() {
    this.scope.end();
    this.node.remove();
  }
}
