// @ts-check
/** One small chart of the training: a figure over the tokens, with a line for each SAE. */

import { element, logTicks, roundTicks, short, svg } from "./shared.js";

const HEIGHT = 208;
const MARGIN = { left: 46, right: 12, top: 12, bottom: 38 };
/** Of the lines, so that they differ without colour too: a stroke's dashes, one SAE each. */
export const DASHES = ["", "7 3", "2 3", "9 3 2 3", "12 5"];

/**
 * @typedef {object} Curve
 * @property {string} name
 * @property {number} target L0 that it is trained towards
 * @property {number[]} tokens
 * @property {Record<string, number[]>} values by the name of the figure
 */

/**
 * @typedef {object} Kind
 * @property {string} key which figure of the curves
 * @property {string} title
 * @property {string} unit of the vertical axis
 * @property {boolean} log whether the axis is logarithmic
 * @property {number} least the axis reaches at least so far
 * @property {boolean} targets whether targets are drawn
 * @property {(value: number) => string} say a value on the axis
 */

export class TrainingChart {
  /**
   * @param {Kind} kind
   * @param {(tokens: number | null, chart: TrainingChart) => void} point called with the place that is pointed at
   * @param {AbortSignal} signal
   */
  constructor(kind, point, signal) {
    this.kind = kind;
    this.plot = svg("svg", { class: "wb-plot", role: "img", height: HEIGHT });
    this.node = element("figure", { class: "wb-training-chart" },
      element("figcaption", {}, element("b", { text: kind.title }), element("span", { class: "wb-hint", text: kind.unit })), this.plot);
    this.plot.addEventListener("pointermove", (event) => point(this.tokensAt(event), this), { signal });
    this.plot.addEventListener("pointerleave", () => point(null, this), { signal });
    this.right = 1;
    this.width = 0;
  }

  /**
   * @param {Curve[]} curves
   * @param {number} right the right end of the axis, in tokens
   * @param {number | null} guide where the reader points
   */
  draw(curves, right, guide) {
    const { kind, plot } = this;
    this.right = right;
    this.width = Math.max(150, this.node.clientWidth);
    plot.setAttribute("width", String(this.width));
    plot.setAttribute("aria-label", `${kind.title}, ${kind.unit}: ${curves.map((curve) => said(curve, kind)).join("; ")}`);
    const scale = this.scale(curves);
    const parts = [...this.axes(scale)];
    if (kind.targets) parts.push(...this.targets(curves, scale.y));
    if (guide !== null) {
      parts.push(svg("line", { class: "wb-guide", x1: this.x(guide), x2: this.x(guide), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
    }
    curves.forEach((curve, number) => parts.push(...this.line(curve, number, scale.y, guide)));
    plot.replaceChildren(...parts);
  }

  /** @param {number} tokens */
  x(tokens) {
    return MARGIN.left + (tokens / this.right) * (this.width - MARGIN.left - MARGIN.right);
  }

  /** @param {PointerEvent} event */
  tokensAt(event) {
    const x = event.clientX - this.plot.getBoundingClientRect().left;
    const share = (x - MARGIN.left) / (this.width - MARGIN.left - MARGIN.right);
    return share < -0.02 || share > 1.02 ? null : share * this.right;
  }

  /**
   * The vertical axis: its ticks, and where a value lies.
   * @param {Curve[]} curves
   * @returns {{ticks: number[], y: (value: number) => number}}
   */
  scale(curves) {
    const { kind } = this;
    const values = curves.flatMap((curve) => [...curve.values[kind.key], ...(kind.targets ? [curve.target] : [])]);
    const floor = HEIGHT - MARGIN.bottom;
    const tall = floor - MARGIN.top;
    const positive = values.filter((value) => value > 0);
    if (kind.log && positive.length) {
      const low = Math.min(...positive) * 0.9;
      const high = Math.max(...positive, low * 3) * 1.05;
      const y = (/** @type {number} */ v) => floor - tall * Math.max(0, Math.log(Math.max(v, low) / low) / Math.log(high / low));
      return { ticks: ticksOf(low, high), y };
    }
    const ticks = roundTicks(Math.max(kind.least, ...values), 4);
    const top = ticks[ticks.length - 1];
    return { ticks, y: (v) => floor - tall * (Math.max(0, v) / top) };
  }

  /** @param {{ticks: number[], y: (value: number) => number}} scale @returns {Node[]} */
  axes({ ticks, y }) {
    const { width, kind } = this;
    const floor = HEIGHT - MARGIN.bottom;
    const parts = ticks.flatMap((tick) => [
      svg("line", { class: "wb-grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "wb-tick", x: MARGIN.left - 6, y: y(tick) + 4, "text-anchor": "end", text: kind.say(tick) }),
    ]);
    parts.push(svg("line", { class: "wb-axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: floor, y2: floor }));
    const places = roundTicks(this.right, Math.max(1, Math.floor((width - MARGIN.left) / 64))).filter((tick) => tick <= this.right * 1.001);
    for (const tick of places) {
      parts.push(svg("line", { class: "wb-axis", x1: this.x(tick), x2: this.x(tick), y1: floor, y2: floor + 4 }),
        svg("text", { class: "wb-tick", x: this.x(tick), y: floor + 16, "text-anchor": "middle", text: brief(tick) }));
    }
    parts.push(svg("text", { class: "wb-tick", x: (MARGIN.left + width - MARGIN.right) / 2, y: HEIGHT - 5, "text-anchor": "middle", text: "tokens trained on" }));
    return parts;
  }

  /** @param {Curve[]} curves @param {(value: number) => number} y @returns {Node[]} */
  targets(curves, y) {
    return [...new Set(curves.map((curve) => curve.target))].flatMap((target) => [
      svg("line", { class: "wb-target", "data-target": target, x1: MARGIN.left, x2: this.width - MARGIN.right, y1: y(target), y2: y(target) }),
      svg("text", { class: "wb-target-name", x: this.width - MARGIN.right, y: y(target) + 14, "text-anchor": "end", text: `target ${short(target)}` }),
    ]);
  }

  /**
   * @param {Curve} curve
   * @param {number} number
   * @param {(value: number) => number} y
   * @param {number | null} guide
   * @returns {Node[]}
   */
  line(curve, number, y, guide) {
    const values = curve.values[this.kind.key];
    const points = curve.tokens.map((tokens, i) => `${this.x(tokens).toFixed(1)},${y(values[i]).toFixed(1)}`).join(" ");
    const colour = `var(--wb-curve-${number % DASHES.length})`;
    const line = svg("polyline", { class: "wb-curve", "data-name": curve.name, points, "stroke-dasharray": DASHES[number % DASHES.length] });
    line.style.stroke = colour;
    if (!values.length) return [line];
    const at = guide === null ? values.length - 1 : nearest(curve, guide);
    const mark = svg("circle", { class: "wb-curve-end", cx: this.x(curve.tokens[at]), cy: y(values[at]), r: 3.2 });
    mark.style.fill = colour;
    return [line, mark];
  }
}

/** The point of a curve that is nearest to a number of tokens; -1: it has none. @param {Curve} curve @param {number} tokens */
export function nearest(curve, tokens) {
  let best = -1;
  curve.tokens.forEach((one, i) => {
    if (best < 0 || Math.abs(one - tokens) < Math.abs(curve.tokens[best] - tokens)) best = i;
  });
  return best;
}

/** Round values of a logarithmic axis; more of them where it spans less than a decade. @param {number} low @param {number} high */
function ticksOf(low, high) {
  const ticks = logTicks(low, high, 6);
  if (high > 10 * low) return ticks;
  const power = 10 ** Math.floor(Math.log10(low));
  return [1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70].map((digit) => Number((digit * power).toPrecision(3)))
    .filter((tick) => tick >= low && tick <= high);
}

/** A number of tokens, short. @param {number} value */
export function brief(value) {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  return value >= 1e4 ? `${Number((value / 1000).toPrecision(3))}k` : value.toLocaleString("en");
}

/** Where a curve is now, in words. @param {Curve} curve @param {Kind} kind */
function said(curve, kind) {
  const values = curve.values[kind.key];
  return values.length ? `${curve.name} ${kind.say(values[values.length - 1])}` : `${curve.name} not begun`;
}
