// @ts-check
/**
 * When an edit acts: on the prompt, on new tokens, at steps or positions, or where a feature is strong.
 */

import { element, short } from "./shared.js";
import { choice, field, labelled, numberIn, textButton } from "./steering_controls.js";
/** @typedef {import("./steering_row.js").EditRow} EditRow */
/** @typedef {import("./steering_row.js").Row} Row */

/** @typedef {{layer: number, kind: string, index: number, value: number}} Condition */

/** @type {Array<[string, string]>} */
const WHEN = [
  ["both", "prompt and new tokens"], ["prompt", "prompt only"], ["generated", "new tokens only"],
  ["steps", "some steps"], ["positions", "some prompt positions"],
];
const RANGES = /^\s*\d+(\s*-\s*\d+)?(\s*,\s*\d+(\s*-\s*\d+)?)*\s*$/;
const KINDS = ["res", "att", "mlp", "transcoder", "embed"];

/** Empty where the edit acts everywhere. @param {Row} row */
export function whenWords({ when, where }) {
  if (when === "both") return "";
  return when === "steps" || when === "positions" ? `${when} ${where}` : WHEN.find(([key]) => key === when)?.[1] ?? when;
}

/** @param {Condition | null} above */
export function conditionWords(above) {
  return above ? `where L${above.layer} ${above.kind} ${above.index} > ${short(above.value)}` : "";
}

export class Conditions {
  /**
   * @param {EditRow} owner
   * @param {string} name
   */
  constructor(owner, name) {
    this.owner = owner;
    this.when = choice(`When ${name} acts`, WHEN);
    this.where = field("input", { class: "wb-input wb-where", type: "text", placeholder: "such as 0-3, 7", "aria-label": `Steps or positions of ${name}` });
    this.hint = element("span", { class: "wb-hint" });
    const number = (/** @type {string} */ what, /** @type {string} */ step) =>
      field("input", { class: "wb-number", type: "number", step, "aria-label": `${what} of the condition of ${name}` });
    this.layer = number("Layer", "1");
    this.kind = choice(`Kind of the condition of ${name}`, KINDS.map((kind) => [kind, kind]));
    this.index = number("Feature", "1");
    this.value = number("Activation", "any");
    this.clear = textButton("Clear", "wb-clear", `No condition for ${name}`);
    this.nodes = [
      element("div", { class: "wb-row-line" }, labelled("acts on", this.when), this.where, this.hint),
      element("div", { class: "wb-row-line wb-condition" }, element("span", { text: "only where" }), labelled("layer", this.layer),
        this.kind, labelled("feature", this.index), labelled("is above", this.value), this.clear),
    ];
    this.listen();
  }

  listen() {
    const { scope } = this.owner;
    scope.listen(this.when, "change", () => this.chosen());
    scope.listen(this.where, "change", () => this.placed());
    for (const input of [this.layer, this.kind, this.index, this.value]) scope.listen(input, "change", () => this.conditioned());
    scope.listen(this.clear, "click", () => {
      for (const input of [this.layer, this.index, this.value]) input.value = "";
      this.owner.list.change(this.owner.row.id, "above", null);
    });
  }

  /** Steps and positions are told once it is known which. */
  chosen() {
    const { list, row } = this.owner;
    list.note(row.id, "when", this.when.value);
    if (this.where.hidden || RANGES.test(row.where)) list.send(row.id, "when");
    else this.where.focus();
  }

  placed() {
    const { list, row } = this.owner;
    const valid = RANGES.test(this.where.value);
    this.where.setAttribute("aria-invalid", String(!valid));
    this.hint.textContent = valid ? "" : "numbers and ranges, such as 0-3, 7";
    if (!valid) return;
    list.change(row.id, "where", this.where.value.trim());
    list.note(row.id, "when", this.when.value);
    list.send(row.id, "when");
  }

  conditioned() {
    const { list, row } = this.owner;
    const [layer, index, value] = [this.layer, this.index, this.value].map(numberIn);
    if (layer === null || index === null || value === null) return;
    list.change(row.id, "above", { layer, kind: this.kind.value, index, value });
  }

  /** @param {Row} row */
  show(row) {
    this.when.value = row.when;
    this.where.hidden = row.when !== "steps" && row.when !== "positions";
    if (this.where.hidden) this.hint.textContent = "";
    if (this.where.value !== row.where && !this.where.hasAttribute("aria-invalid")) this.where.value = row.where;
    this.clear.hidden = row.above === null;
    if (!row.above) return;
    this.layer.value = String(row.above.layer);
    this.kind.value = row.above.kind;
    this.index.value = String(row.above.index);
    this.value.value = String(row.above.value);
  }
}
