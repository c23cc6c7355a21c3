// @ts-check
/**
 * Recorded texts: the panel's traits come from the one that is shown, and a slider that moves leads to
 * the nearest. Nothing but its number, the trait `take`, goes to Python.
 */

import { element } from "./shared.js";
import { textButton } from "./steering_controls.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {import("./shared.js").Model} Model */
/** @typedef {import("./steering_row.js").Row} Row */
/** @typedef {{group: number, rows: Row[]} & Record<string, any>} Take */

/** How far a recorded text is from where the sliders stand. @param {Row[]} wanted @param {Row[]} rows */
function distance(wanted, rows) {
  const parts = rows.map((row, i) => Math.abs(row.value - wanted[i].value) / (row.high - row.low || 1));
  return parts.reduce((sum, part) => sum + part, 0);
}

/**
 * A model whose traits are those of the shown text.
 *
 * @param {Model} model
 * @returns {Model & {end: () => void}}
 */
export function replayed(model) {
  /** @type {Take[]} */
  const takes = model.get("takes");
  const clamped = () => Math.min(takes.length - 1, Math.max(0, Number(model.get("take")) || 0));
  let at = clamped();
  /** @type {Record<string, any>} */
  const state = { ...takes[at] };
  /** @type {Map<string, Set<Function>>} */
  const handlers = new Map();
  const fire = (/** @type {string} */ name) => { for (const handler of handlers.get(`change:${name}`) ?? []) handler(); };

  const show = (/** @type {number} */ number, /** @type {boolean} */ moved) => {
    at = number;
    const rows = moved ? state.rows : takes[at].rows;
    Object.assign(state, takes[at], { rows });
    for (const name of Object.keys(takes[at])) fire(name);
    fire("take");
  };
  const follow = () => {
    const { group } = takes[at];
    let best = at;
    takes.forEach((take, i) => {
      if (take.group === group && distance(state.rows, take.rows) < distance(state.rows, takes[best].rows) - 1e-9) best = i;
    });
    if (best === at) return;
    show(best, true);
    model.set("take", best);
    model.save_changes();
  };
  const told = () => { if (clamped() !== at) show(clamped(), false); };
  model.on("change:take", told);
  return {
    get: (name) => (name === "take" ? at : name in state ? state[name] : model.get(name)),
    set(name, value) {
      if (name === "take") {
        show(Number(value), false);
        model.set(name, value);
      } else if (name in state) {
        state[name] = value;
        fire(name);
        if (name === "rows") follow();
      } else model.set(name, value);
    },
    save_changes: () => model.save_changes(),
    send() {},
    on(event, handler) {
      const name = event.replace(/^change:/, "");
      if (name !== "take" && !(name in state)) return model.on(event, handler);
      handlers.set(event, (handlers.get(event) ?? new Set()).add(handler));
      return undefined;
    },
    off(event, handler) {
      if (!handlers.get(event)?.delete(handler)) model.off(event, handler);
    },
    end: () => model.off("change:take", told),
  };
}

/** Which of the recorded texts is shown, and buttons to the one before and after. */
export class Pager {
  /** @param {Frame} frame */
  constructor(frame) {
    this.frame = frame;
    const { model } = frame;
    this.back = textButton("‹", "wb-take", "Recorded text before");
    this.next = textButton("›", "wb-take", "Recorded text after");
    this.words = element("span", { role: "status", class: "wb-take-words" });
    this.node = element("div", { class: "wb-controls wb-pager" }, this.back, this.words, this.next);
    frame.listen(this.back, "click", () => this.go(-1));
    frame.listen(this.next, "click", () => this.go(1));
    frame.watch(["take"], () => this.show());
    this.node.hidden = (model.get("takes") ?? []).length < 2;
    this.show();
  }

  /** @param {number} by */
  go(by) {
    this.frame.save("take", this.frame.model.get("take") + by);
  }

  show() {
    const { model } = this.frame;
    const at = model.get("take");
    /** @type {Take[]} */
    const takes = model.get("takes") ?? [];
    if (takes.length === 0) return;
    const values = takes[at].rows.filter(({ slider }) => slider).map(({ value, unit }) => `${value} ${unit}`.trim());
    const where = values.length > 0 ? `, written at ${values.join(" and ")}` : "";
    this.words.textContent = `Recorded text ${at + 1} of ${takes.length}${where}`;
    this.back.disabled = at === 0;
    this.next.disabled = at === takes.length - 1;
  }
}
