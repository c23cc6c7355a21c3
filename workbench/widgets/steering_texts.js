// @ts-check
/**
 * The texts beside each other, their legend, and what is to be said about them: warnings, receipt.
 */

import { Legend, element, makeScale } from "./shared.js";
import { SHADE, SHIFT_UNIT, TextColumn } from "./text_column.js";
import { TokenStrip } from "./token_strip.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {import("./text_column.js").Token} Token */
/** @typedef {{id: string, title: string, note: string}} Column */
/** @typedef {{type: string, run: number, column?: string, tokens?: Token[]}} Message */

/** What stands where a text will be. @type {Record<string, string>} */
const HINTS = {
  steered: "Run writes the text with the edits here,",
  plain: "and the text without them here, with the same seed.",
};

export class Texts {
  /** @param {Frame} frame */
  constructor(frame) {
    this.frame = frame;
    this.model = frame.model;
    this.run = Number(this.model.get("run") ?? 0);
    this.largest = 0;
    /** The column that is being written. */
    this.writing = "";
    /** @type {Map<string, TextColumn>} */
    this.columns = new Map();
    /** @type {TokenStrip | null} */
    this.strip = null;
    this.pair = element("div", { class: "wb-columns" });
    this.others = element("div", { class: "wb-columns wb-baselines" });
    this.legend = new Legend(frame);
    this.warnings = element("ul", { class: "wb-warnings", "aria-label": "Warnings" });
    this.receiptLines = element("ul");
    this.receipt = element("div", { class: "wb-receipt" }, element("b", { text: "Receipt" }), this.receiptLines);
    this.node = element("div", { class: "wb-texts" }, this.pair, this.others, this.legend.node, this.warnings, this.receipt);
    frame.watch(["columns"], () => this.showColumns());
    frame.watch(["texts", "run", "run_prompt"], () => this.showFinal());
    frame.watch(["meters"], () => this.showMeters());
    frame.watch(["receipt", "warnings"], () => this.showLines());
    frame.onDraw(() => this.draw());
    this.showColumns();
    this.showLines();
  }

  get running() {
    return this.model.get("status")?.state === "running";
  }

  showColumns() {
    /** @type {Column[]} */
    const wanted = this.model.get("columns") ?? [];
    const ids = new Set(wanted.map(({ id }) => id));
    for (const [id, column] of this.columns) {
      if (ids.has(id)) continue;
      column.end();
      this.columns.delete(id);
    }
    wanted.forEach(({ id, title, note }, i) => {
      const column = this.columns.get(id) ?? this.makeColumn(id, title);
      column.title.textContent = title;
      column.about.textContent = column.about.title = note;
      (i < 2 ? this.pair : this.others).append(column.node);
    });
    this.others.hidden = wanted.length <= 2;
    this.others.style.setProperty("--wb-count", String(Math.max(1, wanted.length - 2)));
    this.showFinal();
    this.showMeters();
  }

  /** @param {string} id @param {string} title */
  makeColumn(id, title) {
    const column = new TextColumn(this.frame, title, (pointed) => this.pointed(pointed));
    this.columns.set(id, column);
    if (id === "steered") {
      this.strip = new TokenStrip(this.frame, column);
      column.meter.after(this.strip.node);
    }
    return column;
  }

  /** @param {TextColumn} column */
  pointed(column) {
    const token = column.tokens[column.at];
    this.legend.point(token ? this.scale().share(token.shift ?? 0) : null);
    if (this.strip?.column === column) this.strip.draw();
  }

  // ---------------------------------------------------------------------------- from Python

  /** @param {Message} message @returns {boolean} whether it was of the newest run */
  receive({ type, run, column, tokens }) {
    if (type === "reset" && run >= this.run) {
      this.run = run;
      this.writing = "";
      for (const each of this.columns.values()) each.replace([]);
    } else if (type === "tokens" && run === this.run && column && tokens) {
      this.writing = column;
      this.columns.get(column)?.append(tokens);
    } else return false;
    this.frame.schedule();
    return true;
  }

  showFinal() {
    const prompt = String(this.model.get("run_prompt") ?? "");
    const texts = this.model.get("texts") ?? {};
    // While a run writes, the traits hold nothing yet: what was streamed stays.
    const written = !this.running || Object.keys(texts).length > 0;
    for (const [id, column] of this.columns) {
      column.prompt.textContent = prompt;
      if (written) column.replace(texts[id] ?? []);
      column.hint.textContent = this.model.get("run") > 0 ? "" : HINTS[id] ?? "";
    }
    this.run = Math.max(this.run, Number(this.model.get("run") ?? 0));
    this.frame.schedule();
  }

  showMeters() {
    const meters = this.model.get("meters") ?? {};
    for (const [id, column] of this.columns) column.showMeter(meters[id]);
  }

  showLines() {
    const fill = (/** @type {HTMLElement} */ list, /** @type {string} */ name) => {
      /** @type {string[]} */
      const lines = this.model.get(name) ?? [];
      list.replaceChildren(...lines.map((line) => element("li", { text: line })));
      return lines.length > 0;
    };
    this.warnings.hidden = !fill(this.warnings, "warnings");
    this.receipt.hidden = !fill(this.receiptLines, "receipt");
  }

  // ----------------------------------------------------------------------------------- page

  scale() {
    return makeScale("linear", 0, this.largest);
  }

  draw() {
    this.largest = 0;
    for (const { tokens } of this.columns.values()) {
      for (const { shift } of tokens) this.largest = Math.max(this.largest, shift ?? 0);
    }
    const { share } = this.scale();
    for (const column of this.columns.values()) column.shade(share);
    this.legend.node.hidden = this.largest === 0;
    this.legend.show(this.scale(), "linear", `shading: ${SHIFT_UNIT}`, "", SHADE);
    this.markDifferences();
    for (const [id, column] of this.columns) column.caret.hidden = !this.running || id !== this.writing;
    this.strip?.draw();
  }

  markDifferences() {
    const plain = this.columns.get("plain");
    if (!plain) return;
    for (const [id, column] of this.columns) {
      if (id === "plain") continue;
      const shared = Math.min(column.tokens.length, plain.tokens.length);
      const first = column.tokens.slice(0, shared).findIndex((token, i) => token.text !== plain.tokens[i].text);
      column.markDifference(first);
      if (id === "steered") plain.markDifference(first);
      const word = this.running ? "no difference so far" : "no difference";
      column.note.textContent = first >= 0 ? `differs from token ${first + 1} on` : shared > 0 ? word : "";
    }
  }
}
