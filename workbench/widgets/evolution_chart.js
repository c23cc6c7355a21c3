// @ts-check
/** One token through the layers: a line for each kind of site, with the null of nothing but zero. */

import { element, roundTicks, short, svg } from "./shared.js";
import { MAXIMUM } from "./evolution_data.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {import("./evolution_data.js").EvolutionData} EvolutionData */

const CHART = { height: 204, left: 46, right: 76, top: 30, bottom: 38 };
/** Marker shapes around (0, 0). @type {Record<string, string>} */
const MARKS = {
  res: "M0 -3.6A3.6 3.6 0 1 1 0 3.6A3.6 3.6 0 1 1 0 -3.6Z",
  att: "M0 -4.4L4.4 0L0 4.4L-4.4 0Z",
  mlp: "M-3.3 -3.3H3.3V3.3H-3.3Z",
  transcoder: "M0 -4.2L4 3.2H-4Z",
  embed: "M0 4.2L4 -3.2H-4Z",
};

export class LayerChart {
  /** @param {Frame} frame @param {EvolutionData} data @param {(node: number, at: Element | null) => void} point */
  constructor(frame, data, point) {
    this.frame = frame;
    this.data = data;
    this.point = point;
    /** @type {number[]} */
    this.rows = [];
    this.column = MAXIMUM;
    this.pointed = -1;
    this.title = element("div", { class: "wb-chart-title" });
    this.drawing = svg("svg", { role: "img", height: CHART.height });
    this.node = element("div", { class: "wb-chart" }, this.title, this.drawing);
    frame.listen(this.drawing, "pointermove", (event) => this.follow(event));
    frame.listen(this.drawing, "pointerleave", () => point(-1, null));
  }

  /** @param {number[]} rows in execution order @param {number} column @param {number} pointed */
  show(rows, column, pointed) {
    Object.assign(this, { rows, column, pointed });
    if (!rows.length || this.node.hidden) return;
    const { data } = this;
    this.title.replaceChildren("activation through the layers: ", element("b", { text: data.columnWords(column) }));
    const width = Math.max(240, this.node.clientWidth);
    this.drawing.setAttribute("width", String(width));
    this.drawing.setAttribute("aria-label", `Line chart: ${this.title.textContent}`);
    const { left, right, top, bottom, height } = CHART;
    const most = rows.reduce((top, row) => Math.max(top, data.peaks[row].value, data.editedPeaks?.[row].value ?? 0), 0);
    const ticks = roundTicks(most, 4);
    const highest = ticks[ticks.length - 1] || 1;
    const x = (/** @type {number} */ i) => left + ((i + 0.5) / rows.length) * (width - left - right);
    const y = (/** @type {number} */ v) => height - bottom - (Math.max(0, v) / highest) * (height - bottom - top);
    this.drawing.replaceChildren(...this.axisParts(x, y, ticks, width), ...this.seriesParts(x, y, width));
  }

  /**
   * @param {(i: number) => number} x
   * @param {(v: number) => number} y
   * @param {number[]} ticks
   * @param {number} width
   * @returns {Node[]}
   */
  axisParts(x, y, ticks, width) {
    const { data, rows } = this;
    const { left, right, top, bottom, height } = CHART;
    const parts = ticks.flatMap((tick) => [
      svg("line", { class: "wb-grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end", text: short(tick) }),
    ]);
    const layers = [...new Set(rows.map((row) => data.nodes[row].layer))];
    const every = Math.ceil((layers.length * 22) / (width - left - right));
    layers.forEach((layer, k) => {
      const inside = rows.flatMap((row, i) => (data.nodes[row].layer === layer ? [i] : []));
      if (k % every) return;
      const edge = (x(inside[0]) + x(inside[0] - 1)) / 2;
      if (k) parts.push(svg("line", { class: "wb-grid", x1: edge, x2: edge, y1: height - bottom, y2: height - bottom + 6 }));
      parts.push(svg("text", { x: (x(inside[0]) + x(inside[inside.length - 1])) / 2, y: height - bottom + 16, "text-anchor": "middle", text: layer }));
    });
    parts.push(svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle", text: "layer" }),
      svg("text", { x: 0, y: 11, text: this.frame.model.get("unit") }));
    const origin = rows.findIndex((row) => data.maps[data.mapOf(row)]?.origin === row);
    if (origin >= 0) {
      parts.push(svg("line", { class: "wb-origin-line", x1: x(origin), x2: x(origin), y1: top - 3, y2: height - bottom }),
        svg("text", { class: "wb-origin-text", x: x(origin), y: top - 7, "text-anchor": "middle", text: "origin" }));
    }
    const guide = rows.indexOf(this.pointed);
    if (guide >= 0) parts.push(svg("line", { class: "wb-guide", x1: x(guide), x2: x(guide), y1: top, y2: height - bottom }));
    return parts;
  }

  /**
   * One line a kind of site, named at its right end; under edits a dotted one for before.
   * @param {(i: number) => number} x
   * @param {(v: number) => number} y
   * @param {number} width
   * @returns {Node[]}
   */
  seriesParts(x, y, width) {
    const { data, rows, column } = this;
    const now = (/** @type {number} */ row) => data.after(row, column) ?? data.value(row, column);
    const kinds = [...new Set(rows.map((row) => data.nodes[row].kind))];
    const names = kinds.map((kind) => {
      const last = rows[rows.map((row) => data.nodes[row].kind).lastIndexOf(kind)];
      return { kind, at: y(now(last)) };
    }).sort((a, b) => a.at - b.at);
    // Names of lines that end close together are pushed apart; then the stack is kept inside.
    names.forEach((name, i) => { if (i) name.at = Math.max(name.at, names[i - 1].at + 14); });
    const over = Math.max(0, (names[names.length - 1]?.at ?? 0) - (CHART.height - CHART.bottom));
    return names.flatMap(({ kind, at }) => {
      const colour = `var(--wb-${kind in MARKS ? kind : "embed"})`;
      const own = rows.flatMap((row, i) => (data.nodes[row].kind === kind ? [i] : []));
      const lines = [now, ...(data.edited ? [(/** @type {number} */ row) => data.value(row, column)] : [])].map((value, k) => {
        const points = own.map((i) => `${x(i)},${y(value(rows[i]))}`).join(" ");
        const line = svg("polyline", { class: k ? "wb-series wb-series-before" : "wb-series", points });
        line.style.stroke = colour;
        return line;
      });
      const marks = own.map((i) => {
        const mark = svg("path", { class: "wb-point", d: MARKS[kind] ?? MARKS.embed, transform: `translate(${x(i)} ${y(now(rows[i]))})` });
        mark.style.fill = colour;
        return mark;
      });
      const name = svg("text", { class: "wb-series-name", x: width - CHART.right + 10, y: at + 4 - over, text: kind });
      name.style.fill = colour;
      return [...lines, ...marks, name];
    });
  }

  /** Pointing at the chart points at the node below the mouse. @param {PointerEvent} event */
  follow(event) {
    const frame = this.drawing.getBoundingClientRect();
    const share = (event.clientX - frame.left - CHART.left) / (frame.width - CHART.left - CHART.right);
    const row = this.rows[Math.floor(share * this.rows.length)];
    this.point(row ?? -1, row === undefined ? null : this.drawing);
  }
}
