// @ts-check
/**
 * Lists of the dashboard: output tokens, nearest features, features that fire together with this one.
 */

import { decimalsFor, element, exactToken, fixed, percent, short } from "./shared.js";
import { Scope } from "./steering_controls.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {{token: string, effect: number}} Output */
/** @typedef {{layer: number, kind: string, index: number, label: string, about?: string, hint?: string}} Named */

/**
 * A part of the dashboard with a heading, hidden while it is empty.
 * @param {string} title
 * @param {string} hint
 * @param {Node} content
 */
function part(title, hint, content) {
  return element("section", { class: "wb-part" },
    element("div", { class: "wb-part-head" }, element("b", { text: title }), element("span", { class: "wb-hint", text: hint })), content);
}

/** A bar of a share of its track. @param {number} share @param {string} kind */
function bar(share, kind = "") {
  const node = element("span", { class: `wb-bar ${kind}` });
  node.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  return element("span", { class: "wb-bar-track", "aria-hidden": "true" }, node);
}

/** Output tokens that the feature makes more and less likely. */
export class Outputs {
  /** @param {Frame} frame */
  constructor(frame) {
    this.frame = frame;
    this.lists = ["promoted", "suppressed"].map((name) => ({ name, node: element("ol", { class: "wb-outputs" }) }));
    const [more, less] = this.lists.map(({ node }, i) => element("div", {},
      element("div", { class: "wb-list-title", text: ["more likely", "less likely"][i] }), node));
    this.note = element("div", { class: "wb-hint" });
    this.node = part("Output tokens", "", element("div", { class: "wb-pair" }, more, less));
    this.node.append(this.note);
    frame.watch(["promoted", "suppressed", "output_note"], () => this.show());
    this.show();
  }

  show() {
    const { model } = this.frame;
    /** @type {Output[][]} */
    const [promoted, suppressed] = this.lists.map(({ name }) => model.get(name) ?? []);
    const most = Math.max(0, ...[...promoted, ...suppressed].map(({ effect }) => Math.abs(effect)));
    [promoted, suppressed].forEach((outputs, i) => {
      this.lists[i].node.replaceChildren(...outputs.map(({ token, effect }) => element("li", {},
        element("span", { class: "wb-output", text: exactToken(token), title: exactToken(token) }),
        bar(Math.abs(effect) / most, effect < 0 ? "wb-less" : "wb-plus"),
        element("span", { class: "wb-number-cell", text: `${effect > 0 ? "+" : ""}${fixed(effect, decimalsFor(most))}` }))));
    });
    this.note.textContent = model.get("output_note") ?? "";
    this.node.hidden = most === 0 && this.note.textContent === "";
  }
}

/** Rows of features, each a button that opens the feature's own dashboard. */
class FeatureRows {
  /** @param {Frame} frame */
  constructor(frame) {
    this.frame = frame;
    this.scope = new Scope(frame);
  }

  clear() {
    this.scope.end();
    this.scope = new Scope(this.frame);
  }

  /**
   * @param {Named} feature
   * @param {number} share of the bar
   * @param {string} value
   * @param {string} said what the value is
   */
  row(feature, share, value, said) {
    const { layer, kind, index, label, about, hint } = feature;
    const name = `${layer} ${kind} ${index}`;
    const button = element("button", {
      class: "wb-feature", type: "button", title: about || (label ? "" : "no label; the tokens of its strongest passages"), "aria-label": `Feature ${name}, ${label || `no label, ${hint ?? ""}`}, ${said}`,
      disabled: Boolean(this.frame.model.get("recorded")),
    },
    element("span", { class: "wb-feature-index", text: String(index) }),
    element("span", { class: label ? "wb-feature-label" : "wb-feature-label wb-none", text: label || hint || "no label" }),
    bar(share), element("span", { class: "wb-number-cell", text: value }));
    this.scope.listen(button, "click", () => this.frame.model.send({ type: "open", layer, kind, index }));
    return button;
  }
}

/** The nearest features, a column a site. */
export class Neighbours {
  /** @param {Frame} frame */
  constructor(frame) {
    this.frame = frame;
    this.rows = new FeatureRows(frame);
    this.columns = element("div", { class: "wb-groups" });
    this.node = part("Nearest features", "by the cosine of their decoders", this.columns);
    frame.watch(["neighbours"], () => this.show());
    this.show();
  }

  show() {
    /** @type {Array<{title: string, own?: boolean, rows: Array<Named & {cosine: number}>}>} */
    const groups = this.frame.model.get("neighbours") ?? [];
    this.rows.clear();
    this.node.hidden = groups.length === 0;
    this.columns.replaceChildren(...groups.map(({ title, own, rows }) => element("div", { class: own ? "wb-group wb-own" : "wb-group" },
      element("div", { class: "wb-list-title", text: own ? `${title}, its own site` : title }),
      ...rows.map((one) => this.rows.row(one, one.cosine, fixed(one.cosine, 2), `cosine ${fixed(one.cosine, 3)}`)))));
  }
}

/** Features of the same site that fire on the same tokens. */
export class Company {
  /** @param {Frame} frame */
  constructor(frame) {
    this.frame = frame;
    this.rows = new FeatureRows(frame);
    this.list = element("div", { class: "wb-groups wb-company" });
    this.node = part("Fires together with", "share of this feature's tokens, and how many times as often as by chance", this.list);
    frame.watch(["cofiring"], () => this.show());
    this.show();
  }

  show() {
    /** @type {Array<Named & {together: number, of: number, lift: number}>} */
    const company = this.frame.model.get("cofiring") ?? [];
    this.rows.clear();
    this.node.hidden = company.length === 0;
    this.list.replaceChildren(...company.map((one) => this.rows.row(one, one.together / one.of,
      `${percent(one.together / one.of)} · ×${short(one.lift)}`,
      `on ${one.together} of ${one.of} tokens, ${short(one.lift)} times as often as by chance`)));
  }
}
