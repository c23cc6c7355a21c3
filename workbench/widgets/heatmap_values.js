// @ts-check
/**
 * The numbers behind the heatmap: what the traits hold, and which of it is drawn.
 *
 * One run shows its activations, or the attributions that Python sends beside them; two runs show both
 * values in each cell, or their difference. Differences and attributions have a sign.
 */

import { decimalsFor, floats } from "./shared.js";
/** @typedef {import("./shared.js").Model} Model */
/** @typedef {import("./heatmap_rows.js").Feature} Feature */
/** @typedef {"activation" | "attribution" | "difference"} Shown */

/** @type {Record<Shown, {gutter: string, peak: string, on: string, share: string}>} */
export const WORDS = {
  activation: { gutter: "max", peak: "maximum here", on: "strongest on", share: "maximum" },
  attribution: { gutter: "total", peak: "largest attribution", on: "on", share: "largest attribution" },
  difference: { gutter: "change", peak: "largest change", on: "on", share: "largest change" },
};

export class HeatmapValues {
  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    this.data = this.read();
    this.bands = this.makeBands();
    this.peaks = this.measure();
  }

  /** Take in the traits. */
  load() {
    this.data = this.read();
  }

  /** Choose what is drawn, and measure it. */
  choose() {
    this.bands = this.makeBands();
    this.peaks = this.measure();
  }

  /** Everything that follows from the traits alone. */
  read() {
    const get = (/** @type {string} */ name) => this.model.get(name);
    /** @type {string[]} */
    const tokens = get("tokens") ?? [];
    /** @type {Feature[]} */
    const features = get("features") ?? [];
    const values = floats(get("values"));
    const others = floats(get("other_values"));
    const effects = floats(get("effects"));
    const masked = new Set(/** @type {number[]} */ (get("masked") ?? []));
    /** @type {number[][]} */
    const positions = get("positions") ?? [];
    const two = others.length > 0;
    const sizes = [values, others, effects].map((one) => one.length).filter((size, i) => i === 0 || size > 0);
    const fits = sizes.every((size) => size === tokens.length * features.length);
    /** @type {string[]} */
    const otherTokens = two ? get("other_tokens") ?? [] : [];
    const siteWidth = features.reduce((most, f) => Math.max(most, f.site?.length ?? 0), 0);
    const digits = features.reduce((most, f) => Math.max(most, String(f.id).length), 1);
    const labelLength = features.reduce((most, f) => Math.max(most, f.label?.length ?? 0), 0);
    // Where the column of right-aligned numbers ends.
    const numbers = (siteWidth ? siteWidth * 6.2 + 6 : 0) + digits * 7.4 + 2;
    const totals = features.reduce((most, f) => Math.max(most, Math.abs(f.attribution ?? 0)), 0);
    /** @type {string[]} */
    const names = get("names") ?? [];
    return {
      tokens, features, values, others, effects, otherTokens, positions, masked, two, fits, sizes, siteWidth, numbers, labelLength,
      attributed: !two && effects.length > 0, totalDecimals: decimalsFor(totals),
      names: [names[0] ?? "run", names[1] ?? "other"],
    };
  }

  /** What is drawn. @returns {Shown} */
  shown() {
    if (this.data.two) return this.model.get("view") === "difference" ? "difference" : "activation";
    return this.data.attributed && this.model.get("show") === "attribution" ? "attribution" : "activation";
  }

  /** Whether what is drawn has a sign. */
  signed() {
    return this.shown() !== "activation";
  }

  /** A matrix for each band of a cell: one run or its attributions, both runs, or their difference. */
  makeBands() {
    const { values, others, effects, two, fits } = this.data;
    if (!fits) return [values];
    const shown = this.shown();
    if (shown === "difference") return [others.map((value, at) => value - values[at])];
    if (shown === "attribution") return [effects];
    return two ? [values, others] : [values];
  }

  /** What is drawn in a band of a cell. @param {number} position @param {number} row @param {number} [band] */
  value(position, row, band = 0) {
    const bands = this.bands;
    return bands[band < bands.length ? band : 0][position * this.data.features.length + row];
  }

  /** Peak of each row over the scored positions, of the size, and the range for the colours. */
  measure() {
    const { tokens, features, masked, fits } = this.data;
    const rows = features.length;
    const value = new Float64Array(rows);
    const position = new Int32Array(rows).fill(-1);
    const signed = this.signed();
    let smallest = Infinity;
    for (const band of fits ? this.bands : []) {
      for (let column = 0; column < tokens.length; column += 1) {
        if (masked.has(column)) continue;
        for (let row = 0; row < rows; row += 1) {
          const found = band[column * rows + row];
          const size = signed ? Math.abs(found) : found;
          if (size > 0 && size < smallest) smallest = size;
          if (size > Math.abs(value[row])) {
            value[row] = found;
            position[row] = column;
          }
        }
      }
    }
    const largest = value.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    return {
      value, position, smallest, largest, decimals: decimalsFor(largest),
      strongest: value.findIndex((v) => Math.abs(v) === largest),
    };
  }
}
