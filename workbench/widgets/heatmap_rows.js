// @ts-check
/**
 * Which rows of the heatmap are drawn, and in which order.
 *
 * Python sends the orders; the page only permutes and hides: pinned rows first, then the rest in the
 * chosen order, without those that the filter box leaves out. What was chosen goes back to Python.
 */

import { element, segmented } from "./shared.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {import("./shared.js").Model} Model */
/** @typedef {{id: number, label?: string, max?: number | null, density?: number, site?: string, attribution?: number}} Feature */

const PAUSE = 150;

/**
 * The number of a feature, behind its site where there are several.
 * @param {Feature} feature
 */
export function nameOf(feature) {
  return `${feature.site ? `${feature.site} ` : ""}${feature.id}`;
}

/**
 * Whether every word stands in the label or the site, or begins the number.
 * @param {Feature} feature
 * @param {string} text
 */
function matches(feature, text) {
  const shown = `${feature.label ?? ""} ${feature.site ?? ""}`.toLowerCase();
  const words = text.toLowerCase().split(/\s+/).filter((word) => word !== "");
  return words.every((word) => shown.includes(word) || String(feature.id).startsWith(word));
}

export class HeatmapRows {
  /**
   * @param {Frame} frame
   * @param {() => Feature[]} features
   * @param {() => void} changed called after every change of what is drawn
   */
  constructor(frame, features, changed) {
    this.frame = frame;
    this.model = frame.model;
    this.features = features;
    this.changed = changed;
    this.timer = 0;
    this.box = element("input", {
      class: "wb-filter", type: "search", placeholder: "Filter by label or number", spellcheck: "false",
      "aria-label": "Filter the rows by label or number",
    });
    this.count = element("span", { class: "wb-filter-count", "aria-live": "polite" });
    this.node = element("div", { class: "wb-filter-bar" }, this.box, this.count);
    this.switch = element("span", { hidden: true });
    frame.tools.prepend(this.switch);
    frame.listen(this.box, "input", () => {
      this.changed();
      clearTimeout(this.timer);
      this.timer = window.setTimeout(() => this.frame.save("filter", this.box.value), PAUSE);
    });
    frame.listen(this.box, "keydown", (event) => {
      if (event.key === "Escape" && this.box.value) {
        event.preventDefault();
        this.box.value = "";
        this.box.dispatchEvent(new Event("input"));
      }
    });
    frame.atEnd(() => clearTimeout(this.timer));
    frame.watch(["filter"], () => {
      // What comes back late must not take away what was typed since.
      if (document.activeElement === this.box || this.box.value === this.model.get("filter")) return;
      this.box.value = this.model.get("filter");
      this.changed();
    });
    frame.watch(["orders"], () => this.makeSwitch());
    frame.watch(["order"], () => { this.refresh(); this.changed(); });
    frame.watch(["pinned"], () => this.changed());
    this.box.value = this.model.get("filter") ?? "";
    this.refresh = () => {};
    this.makeSwitch();
  }

  makeSwitch() {
    const names = Object.keys(this.model.get("orders") ?? {});
    this.switch.hidden = names.length < 2;
    const made = segmented(this.frame, "Rows", names.map((name) => [name, name]),
      () => this.model.get("order") || names[0], (name) => this.frame.save("order", name));
    this.refresh = made.refresh;
    this.switch.replaceChildren(made.node);
  }

  /** Pinned rows, in the order in which they were pinned. @returns {number[]} */
  pinned() {
    const count = this.features().length;
    return (this.model.get("pinned") ?? []).filter((/** @type {number} */ row) => row < count);
  }

  /** @param {number} row @returns {boolean} whether it is pinned now */
  togglePin(row) {
    const pinned = this.pinned();
    const was = pinned.includes(row);
    this.frame.save("pinned", was ? pinned.filter((other) => other !== row) : [...pinned, row]);
    return !was;
  }

  /** Rows to draw, top to bottom. @returns {{order: number[], frozen: number, rules: Set<number>}} */
  arrange() {
    const features = this.features();
    const pinned = this.pinned();
    const asked = (this.model.get("orders") ?? {})[this.model.get("order")];
    /** @type {number[]} */
    const all = asked?.length === features.length ? asked : features.map((_, row) => row);
    const fixed = new Set(pinned);
    const text = this.box.value;
    const found = all.filter((row) => matches(features[row], text));
    const order = [...pinned, ...found.filter((row) => !fixed.has(row))];
    this.count.textContent = found.length < features.length ? `${found.length} of ${features.length} rows` : "";
    const rules = new Set(order.filter((row, line) => line > 0 && features[row].site !== features[order[line - 1]].site));
    return { order, frozen: pinned.length, rules };
  }
}
