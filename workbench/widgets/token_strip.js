// @ts-check
/**
 * Two lanes under a text, one place a token: how far the edits moved the model, and how unsure it was.
 */

import { element, short, stepOf } from "./shared.js";
import { SHADE } from "./text_column.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {import("./text_column.js").TextColumn} TextColumn */

const LANE = 22;
const BETWEEN = 6;
const WIDEST = 14;

export class TokenStrip {
  /**
   * @param {Frame} frame
   * @param {TextColumn} column
   */
  constructor(frame, column) {
    this.frame = frame;
    this.column = column;
    this.canvas = element("canvas", { "aria-hidden": "true" });
    this.names = ["KL", "entropy"].map((name) => ({
      node: element("span", { class: "wb-lane" }, element("b", { text: name }), element("i")), name,
    }));
    this.node = element("div", { class: "wb-strip", title: "Click marks the token" },
      element("div", { class: "wb-lanes" }, ...this.names.map(({ node }) => node)), this.canvas);
    this.pitch = 1;
    frame.listen(this.canvas, "pointermove", (event) => column.point(this.tokenAt(event)));
    frame.listen(this.canvas, "pointerleave", () => column.point(-1));
    frame.listen(this.canvas, "click", (event) => column.mark(this.tokenAt(event)));
  }

  /** @param {PointerEvent} event */
  tokenAt(event) {
    const index = Math.floor(event.offsetX / this.pitch);
    return index < this.column.tokens.length ? index : -1;
  }

  draw() {
    const { canvas, column, frame } = this;
    const { tokens } = column;
    this.node.hidden = !tokens.some((token) => token.shift !== undefined || token.entropy !== undefined);
    if (this.node.hidden) return;
    const [width, height] = [canvas.clientWidth, 2 * LANE + BETWEEN];
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    if (!context || width === 0) return;
    context.scale(ratio, ratio);
    this.pitch = Math.min(WIDEST, width / tokens.length);
    const bar = Math.max(1, this.pitch - (this.pitch > 3 ? 1 : 0));
    const line = frame.colour("--wb-line");
    const lane = (/** @type {"shift" | "entropy"} */ key, /** @type {number} */ floor, /** @type {string} */ colour) => {
      const most = tokens.reduce((a, token) => Math.max(a, token[key] ?? 0), 0);
      context.fillStyle = line;
      context.fillRect(0, floor - 1, this.pitch * tokens.length, 1);
      // How unsure the model was is the background to how far it was moved.
      context.globalAlpha = key === "entropy" ? 0.5 : 1;
      context.fillStyle = colour;
      tokens.forEach((token, i) => {
        const value = token[key] ?? 0;
        if (!(value > 0)) return;
        const tall = Math.max(1, (value / most) * (LANE - 1));
        context.fillRect(i * this.pitch, floor - tall, bar, tall);
      });
      context.globalAlpha = 1;
      return most;
    };
    const most = [
      // Height tells the value; the colour is that of the text's strongest shade.
      lane("shift", LANE, frame.ramp.css[stepOf(SHADE)]),
      lane("entropy", height, frame.colour("--wb-faint")),
    ];
    this.names.forEach(({ node }, i) => { /** @type {HTMLElement} */ (node.lastChild).textContent = `to ${short(most[i])} nats`; });
    this.drawMarks(context, height);
  }

  /** @param {CanvasRenderingContext2D} context @param {number} height */
  drawMarks(context, height) {
    const { column } = this;
    context.fillStyle = this.frame.colour("--wb-accent");
    if (column.difference >= 0) context.fillRect(column.difference * this.pitch - 1, 0, 1.5, height);
    context.strokeStyle = this.frame.colour("--wb-accent");
    for (const index of [column.at, column.marked]) {
      if (index >= 0) context.strokeRect(index * this.pitch + 0.5, 0.5, Math.max(2, this.pitch - 1), height - 1);
    }
  }
}
