// @ts-check
/**
 * How strongly the feature fires where it fires: a histogram over a logarithmic axis of activation.
 *
 * The bins differ in width there, so a bar's height is its count over its width, in doublings of the
 * activation. Heights have a logarithmic axis too where they differ by more than the eye can tell on a
 * linear one; a switch chooses.
 */

import { element, exact, logTicks, roundTicks, segmented, short, svg } from "./shared.js";
/** @typedef {import("./shared.js").Frame} Frame */

const HEIGHT = 216;
const MARGIN = { left: 46, right: 10, top: 10, bottom: 34 };
// Where half of the bars would be lower than this share of the highest, a linear axis hides them.
const LOW = 0.05;

export class Histogram {
  /** @param {Frame} frame */
  constructor(frame) {
    this.frame = frame;
    /** @type {"linear" | "log" | ""} chosen by the reader; empty: as suits the counts */
    this.chosen = "";
    this.at = -1;
    /** @type {number | null} */
    this.marked = null;
    this.plot = svg("svg", { class: "wb-plot", "aria-hidden": "true" });
    this.holder = element("div", {
      class: "wb-histogram", tabindex: "0", role: "img",
      "aria-label": "Histogram of the feature's activation. Left and right arrow keys step through the bins.",
      "data-lm-suppress-shortcuts": "true",
    }, this.plot);
    this.scale = segmented(frame, "", [["linear", "linear"], ["log", "log"]], () => this.kind, (kind) => {
      this.chosen = kind === "log" ? "log" : "linear";
      frame.schedule();
    });
    this.note = element("div", { class: "wb-hint" });
    this.node = element("section", { class: "wb-part" },
      element("div", { class: "wb-part-head" }, element("b", { text: "Activations" }),
        element("span", { class: "wb-hint", text: "tokens per doubling" }), this.scale.node), this.holder, this.note);
    frame.listen(this.plot, "pointermove", (event) => this.point(this.binAt(event)));
    frame.listen(this.plot, "pointerleave", () => this.point(-1));
    frame.listen(this.holder, "blur", () => this.point(-1));
    frame.listen(this.holder, "keydown", (event) => this.key(event));
    frame.watch(["histogram"], () => { this.chosen = ""; this.at = -1; frame.schedule(); });
    frame.onDraw(() => this.draw());
  }

  /** @returns {{edges: number[], counts: number[], note: string}} */
  get data() {
    return this.frame.model.get("histogram") ?? { edges: [], counts: [], note: "" };
  }

  get kind() {
    if (this.chosen) return this.chosen;
    const heights = this.heights.filter((height) => height > 0).sort((a, b) => a - b);
    return heights[Math.floor(heights.length / 2)] < LOW * heights[heights.length - 1] ? "log" : "linear";
  }

  /** Tokens per doubling of the activation, for each bin. */
  get heights() {
    const { edges, counts } = this.data;
    return counts.map((count, i) => count / Math.log2(edges[i + 1] / edges[i]));
  }

  /** Show where a value lies; null: nowhere. @param {number | null} value */
  mark(value) {
    if (value === this.marked) return;
    this.marked = value;
    this.frame.schedule();
  }

  draw() {
    const { edges, counts, note } = this.data;
    this.node.hidden = counts.length === 0;
    this.note.textContent = note;
    this.note.hidden = note === "";
    if (counts.length === 0) return;
    this.scale.refresh();
    const width = Math.max(160, this.holder.clientWidth);
    this.plot.replaceChildren();
    this.plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.plot.setAttribute("width", String(width));
    this.plot.setAttribute("height", String(HEIGHT));
    const floor = HEIGHT - MARGIN.bottom;
    const [low, high] = [edges[0], edges[edges.length - 1]];
    const inner = width - MARGIN.left - MARGIN.right;
    // A lone bin would fill the plot: it gets the room of three.
    const pad = counts.length < 3 ? Math.log(high / low) : 0;
    const span = Math.log(high / low) + 2 * pad;
    this.x = (/** @type {number} */ value) => MARGIN.left + (inner * (Math.log(value / low) + pad)) / span;
    const heights = this.heights;
    const most = Math.max(...heights);
    const tall = floor - MARGIN.top;
    const log = this.kind === "log";
    // A logarithmic axis begins below the lowest bar, which has a height too.
    const least = Math.min(...heights.filter((height) => height > 0)) / 2;
    this.y = (/** @type {number} */ height) => floor - tall * (height <= 0 ? 0 : log ? Math.log(height / least) / Math.log(most / least) : height / most);
    const ticks = log ? logTicks(least, most, 5) : roundTicks(most, 4).filter((tick) => tick <= most);
    for (const tick of ticks) {
      const y = this.y(tick);
      this.plot.append(svg("line", { class: "wb-grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }),
        svg("text", { class: "wb-tick", x: MARGIN.left - 6, y: y + 4, "text-anchor": "end", text: brief(tick) }));
    }
    heights.forEach((height, i) => this.drawBin(i, height, floor));
    this.plot.append(svg("line", { class: "wb-axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: floor, y2: floor }));
    for (const tick of logTicks(edges[0], high, Math.floor(inner / 55))) {
      this.plot.append(svg("line", { class: "wb-axis", x1: this.x(tick), x2: this.x(tick), y1: floor, y2: floor + 4 }),
        svg("text", { class: "wb-tick", x: this.x(tick), y: floor + 16, "text-anchor": "middle", text: short(tick) }));
    }
    this.plot.append(svg("text", { class: "wb-tick", x: MARGIN.left + inner / 2, y: HEIGHT - 3, "text-anchor": "middle", text: "feature activation, log axis" }));
    if (this.marked !== null && this.marked >= low && this.marked <= high) {
      const x = this.x(this.marked);
      this.plot.append(svg("line", { class: "wb-mark", x1: x, x2: x, y1: MARGIN.top - 6, y2: floor }));
    }
  }

  /** @param {number} i @param {number} height @param {number} floor */
  drawBin(i, height, floor) {
    if (!this.x || !this.y) return;
    const { edges, counts } = this.data;
    const [left, right, y] = [this.x(edges[i]), this.x(edges[i + 1]), this.y(height)];
    const gap = right - left > 4 ? 1 : 0;
    this.plot.append(svg("rect", {
      class: i === this.at ? "wb-bin wb-on" : "wb-bin", "data-count": counts[i],
      x: left + gap / 2, y, width: Math.max(0.5, right - left - gap), height: Math.max(0, floor - y),
    }));
  }

  /** @param {PointerEvent} event */
  binAt(event) {
    const { edges, counts } = this.data;
    const x = event.clientX - this.plot.getBoundingClientRect().left;
    for (let i = 0; i < counts.length; i += 1) {
      if (this.x && x >= this.x(edges[i]) && x < this.x(edges[i + 1])) return i;
    }
    return -1;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const last = this.data.counts.length - 1;
    /** @type {Record<string, number>} */
    const moves = { ArrowRight: this.at + 1, ArrowLeft: this.at < 0 ? last : this.at - 1, Home: 0, End: last, Escape: -1 };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.point(event.key === "Escape" ? -1 : Math.max(0, Math.min(last, moves[event.key])));
  }

  /** Show the card of a bin; -1: none. @param {number} index */
  point(index) {
    if (index === this.at) return;
    this.at = index;
    const { card, live } = this.frame;
    this.draw();
    const bar = this.plot.querySelectorAll(".wb-bin")[index];
    if (!bar) {
      card.hide();
      return;
    }
    const { edges, counts } = this.data;
    const all = counts.reduce((sum, count) => sum + count, 0);
    const above = counts.slice(index).reduce((sum, count) => sum + count, 0);
    const title = `${exact(edges[index])} to ${exact(edges[index + 1])}`;
    /** @type {Array<[string, string]>} */
    const facts = [["tokens", counts[index].toLocaleString("en")], ["of its firings", share(counts[index] / all)],
      ["as strong or stronger", share(above / all)]];
    card.show({ title, facts }, bar.getBoundingClientRect());
    live.textContent = [title, ...facts.map((fact) => fact.join(" "))].join(", ");
  }
}

/** A count as an axis has room for it. @param {number} value */
function brief(value) {
  return value >= 10_000 ? `${Number((value / 1000).toPrecision(3))}k` : value.toLocaleString("en");
}

/** A share in percent to two digits, however small. @param {number} value */
function share(value) {
  return `${Number((100 * value).toPrecision(2))} %`;
}
