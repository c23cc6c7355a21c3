// @ts-check
/**
 * Colours of a difference: one hue for more, one for less, the page's own grey for none.
 *
 * Blue against orange: the two stay apart in the common kinds of colour blindness (which mix red with
 * green), and luminance alone tells how large a difference is.
 */

import { rampOf } from "./shared.js";
/** @typedef {import("./shared.js").Ramp} Ramp */
/** @typedef {import("./shared.js").Scale} Scale */

const STOPS = {
  light: ["#0b3c6f", "#2a6db0", "#6ba6d8", "#b9d8ee", "#f4f5ef", "#f8d5ad", "#eca55c", "#c26d17", "#7a3f04"],
  dark: ["#bfe3ff", "#7fbdf0", "#4a88c0", "#2b527a", "#202329", "#6b4420", "#b06d24", "#ec9c43", "#ffdcab"],
};

/** Less at the left end, more at the right. @param {boolean} dark @returns {Ramp} */
export function makeDiverging(dark) {
  return rampOf(dark ? STOPS.dark : STOPS.light);
}

/**
 * A scale of sizes as one of differences: 0 in the middle of the ramp.
 * @param {Scale} sizes
 * @returns {Scale}
 */
export function signed(sizes) {
  const share = (/** @type {number} */ v) => 0.5 + 0.5 * Math.sign(v) * sizes.share(Math.abs(v));
  return { share, low: -sizes.high, middle: 0, high: sizes.high };
}
