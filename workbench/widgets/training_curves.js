// @ts-check
/**
 * Training curves: three line charts that grow while SAEs are trained, and a table of the figures.
 *
 * From Python: traits only. To Python: one message, {type: "stop"}.
 */

import { Frame, element, fixed, floats, percent, short, svg } from "./shared.js";
import { DASHES, TrainingChart, brief, nearest } from "./training_chart.js";
/** @typedef {import("./shared.js").Model} Model */
/** @typedef {import("./training_chart.js").Curve} Curve */
/** @typedef {import("./training_chart.js").Kind} Kind */

const WIDTH = 5;
/** @type {Kind[]} */
const KINDS = [
  { key: "fvu", title: "Loss", unit: "variance unexplained (FVU), log axis", log: true, least: 1, targets: false, say: short },
  { key: "l0", title: "L0", unit: "active features a token", log: false, least: 1, targets: true, say: short },
  { key: "dead", title: "Dead features", unit: "share of all", log: false, least: 0.01, targets: false, say: percent },
];

class TrainingCurves {
  /** @param {{model: Model, el: HTMLElement}} view */
  constructor(view) {
    this.model = view.model;
    this.frame = new Frame(view, "wb-training");
    const { frame } = this;
    /** @type {number | null} */
    this.guide = null;
    this.stop = element("button", { class: "wb-button wb-stop", type: "button", text: "Stop" });
    frame.listen(this.stop, "click", () => this.model.send({ type: "stop" }));
    frame.tools.prepend(this.stop);
    this.status = element("div", { class: "wb-training-status", role: "status" });
    this.bar = element("div", { class: "wb-training-done" }, element("i"));
    this.charts = KINDS.map((kind) => new TrainingChart(kind, (tokens, chart) => this.point(tokens, chart), frame.signal));
    this.holder = element("div", {
      class: "wb-curves", tabindex: "0", role: "group", "data-lm-suppress-shortcuts": "true",
      "aria-label": "Training curves. Left and right arrow keys step through what was measured, Escape lets go.",
    }, ...this.charts.map((chart) => chart.node));
    this.rows = element("tbody");
    this.head = element("thead");
    this.note = element("div", { class: "wb-hint" });
    frame.body.append(element("div", { class: "wb-training-head" }, this.bar, this.status), this.holder,
      element("table", { class: "wb-training-table" }, this.head, this.rows), this.note);
    frame.listen(this.holder, "keydown", (event) => this.key(event));
    frame.listen(this.holder, "blur", () => this.point(null));
    frame.watch(["state", "status", "done", "dead_tokens"], () => this.say());
    frame.watch(["points", "names", "targets", "total"], () => frame.schedule());
    frame.onDraw(() => this.draw());
    this.say();
    frame.schedule();
  }

  /** @returns {Curve[]} */
  get curves() {
    const targets = this.model.get("targets") ?? [];
    /** @type {Curve[]} */
    const curves = (this.model.get("names") ?? []).map((/** @type {string} */ name, /** @type {number} */ i) =>
      ({ name, target: targets[i] ?? 0, tokens: [], values: { fvu: [], l0: [], dead: [] } }));
    const flat = floats(this.model.get("points"));
    for (let at = 0; at + WIDTH <= flat.length; at += WIDTH) {
      const curve = curves[flat[at]];
      if (!curve) continue;
      curve.tokens.push(flat[at + 1]);
      KINDS.forEach(({ key }, i) => curve.values[key].push(flat[at + 2 + i]));
    }
    return curves;
  }

  say() {
    const { model } = this;
    const state = model.get("state");
    this.status.textContent = model.get("status") || state;
    this.frame.root.dataset.state = state;
    this.stop.hidden = !["reading", "running", "stopping"].includes(state);
    this.stop.disabled = state === "stopping" || Boolean(model.get("recorded"));
    this.stop.textContent = state === "stopping" ? "Stopping…" : "Stop";
    const fill = /** @type {HTMLElement} */ (this.bar.firstChild);
    fill.style.width = `${100 * Math.min(1, model.get("done") || 0)}%`;
    const dead = model.get("dead_tokens") ?? 0;
    this.note.textContent = dead ? `Dead: not active on the last ${dead.toLocaleString("en")} tokens.` : "";
    this.note.hidden = !dead;
  }

  draw() {
    const { curves } = this;
    const last = Math.max(1, ...curves.map((curve) => curve.tokens[curve.tokens.length - 1] ?? 0));
    const right = Math.max(last, this.model.get("total") ?? 0);
    for (const chart of this.charts) chart.draw(curves, right, this.guide);
    this.fill(curves);
  }

  /** The table: the figures where the reader points, or the last ones. @param {Curve[]} curves */
  fill(curves) {
    const heads = ["SAE", "tokens", "FVU", "L0", "target L0", "dead"];
    this.head.replaceChildren(element("tr", {}, ...heads.map((text) => element("th", { scope: "col", text }))));
    this.rows.replaceChildren(...curves.map((curve, number) => {
      const at = this.guide === null ? curve.tokens.length - 1 : nearest(curve, this.guide);
      const key = svg("svg", { class: "wb-curve-key", width: 30, height: 10, "aria-hidden": "true" });
      const line = svg("line", { x1: 0, x2: 30, y1: 5, y2: 5, "stroke-dasharray": DASHES[number % DASHES.length] });
      line.style.stroke = `var(--wb-curve-${number % DASHES.length})`;
      key.append(line);
      const said = at < 0 ? ["–", "–", "–"] : [brief(curve.tokens[at]), fixed(curve.values.fvu[at], 3), fixed(curve.values.l0[at], 1)];
      const dead = at < 0 ? "–" : percent(curve.values.dead[at]);
      return element("tr", {}, element("th", { scope: "row" }, key, element("span", { text: curve.name })),
        ...[...said, short(curve.target), dead].map((text) => element("td", { text })));
    }));
  }

  /**
   * Show what was measured near a number of tokens; null: the last.
   * @param {number | null} tokens
   * @param {TrainingChart} chart where the card goes
   */
  point(tokens, chart = this.charts[0]) {
    if (tokens === this.guide) return;
    const { curves, frame } = this;
    const first = curves.find((curve) => curve.tokens.length);
    this.guide = tokens === null || !first ? null : first.tokens[nearest(first, tokens)];
    frame.schedule();
    if (this.guide === null || tokens === null || !first) {
      frame.card.hide();
      return;
    }
    /** @type {Array<[string, string]>} */
    const facts = curves.filter((curve) => curve.tokens.length).map((curve) => {
      const at = nearest(curve, tokens);
      const { fvu, l0, dead } = curve.values;
      return [curve.name, `FVU ${fixed(fvu[at], 3)} · L0 ${fixed(l0[at], 1)} · dead ${percent(dead[at])}`];
    });
    const title = `${brief(this.guide)} tokens`;
    const box = chart.plot.getBoundingClientRect();
    const x = box.left + chart.x(this.guide);
    frame.card.show({ title, facts }, { left: x, right: x, top: box.top + 20, bottom: box.bottom });
    frame.live.textContent = [title, ...facts.map((fact) => fact.join(" "))].join(", ");
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const first = this.curves.find((curve) => curve.tokens.length);
    if (!first || event.ctrlKey || event.metaKey) return;
    const last = first.tokens.length - 1;
    const at = this.guide === null ? -1 : nearest(first, this.guide);
    /** @type {Record<string, number>} */
    const moves = { ArrowRight: at + 1, ArrowLeft: at < 0 ? last : at - 1, Home: 0, End: last };
    if (event.key === "Escape") this.point(null);
    else if (event.key in moves) this.point(first.tokens[Math.max(0, Math.min(last, moves[event.key]))]);
    else return;
    event.preventDefault();
  }
}

/** @param {{model: Model, el: HTMLElement}} view */
function render(view) {
  const curves = new TrainingCurves(view);
  return () => curves.frame.cleanup();
}

export default { render };
