// @ts-check
/** Below the maps: the features of one map by token, layers from bottom to top, on the matrix. */

import { Legend, fixed, makeScale } from "./shared.js";
import { MatrixPlot } from "./matrix.js";
import { MAXIMUM } from "./evolution_data.js";
import { nodeCard } from "./evolution_words.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {import("./matrix.js").Cell} Cell */
/** @typedef {import("./matrix.js").Paint} Paint */
/** @typedef {import("./matrix.js").RowBox} RowBox */
/** @typedef {import("./evolution_data.js").EvolutionData} EvolutionData */

/** @typedef {{point: (cell: Cell | null) => void, select: (cell: Cell | null) => void}} Listeners */

export class TokenStrip {
  /** @param {Frame} frame @param {EvolutionData} data @param {Listeners} listeners */
  constructor(frame, data, listeners) {
    this.frame = frame;
    this.data = data;
    this.map = 0;
    this.paired = false;
    this.words = "";
    this.scale = makeScale("linear", 0, 1);
    this.plot = new MatrixPlot(frame, {
      leftTitle: "layer, feature",
      rightTitle: "cosine",
      leftWidth: (width) => (width < 560 ? 120 : Math.round(Math.min(300, Math.max(210, width * 0.28)))),
      rightWidth: (width) => (width < 560 ? 76 : 104),
      left: (context, row, box, paint) => this.paintNode(context, row, box, paint),
      right: (context, row, box, paint) => this.paintCosine(context, row, box, paint),
    }, {
      label: "The same features by token, layers from bottom to top. Arrow keys move, Enter selects, Escape clears.",
      point: (cell) => { this.point(cell); listeners.point(cell); },
      select: (cell) => listeners.select(cell),
    });
    this.legend = new Legend(frame);
    frame.onDraw(() => this.showLegend());
  }

  /** @param {number} map @param {number} threshold */
  load(map, threshold) {
    const { data } = this;
    this.map = map;
    const rows = data.rowsOf(map).filter((row) => data.shows(row, threshold));
    const paired = data.otherTokens.length > 0 && data.maps.length === 2;
    // Before and under the edits, or the two texts: one above the other in a cell.
    const bands = data.edited || paired ? 2 : 1;
    const across = paired && !data.edited ? this.partners(rows) : null;
    this.paired = across !== null;
    this.words = bands === 1 ? "" : across ? `upper half ${data.names[0]}, lower half ${data.names[1]}` : "upper half before the edits, lower half under them";
    const peaks = rows.map((row) => Math.max(data.peaks[row].value, data.editedPeaks?.[row].value ?? 0));
    this.scale = makeScale("linear", 0, data.own ? 1 : Math.max(0, ...peaks));
    // What is higher than a page scrolls in a window of a third of it.
    this.plot.tallest = rows.length > 26 ? 430 : 680;
    this.plot.update({
      labels: data.columnLabels(), tokens: data.tokens, masked: data.masked, order: rows.slice().reverse(), bands,
      rules: new Set(rows.filter((row, i) => data.nodes[rows[i + 1]]?.layer !== data.nodes[row].layer)),
      share: (value, row) => this.share(value, row),
      value: (position, row, band) => {
        if (across) return data.value((band ? across.get(row)?.[1] : across.get(row)?.[0]) ?? row, position);
        return band ? data.after(row, position) ?? 0 : data.value(row, position);
      },
    });
  }

  /** Scroll to the feature that is followed. */
  revealOrigin() {
    const row = this.data.maps[this.map]?.origin ?? -1;
    if (this.plot.lines.has(row)) this.plot.revealNext({ position: -1, row });
  }

  /** Of each node itself and the same feature in the other text, first text first. @param {number[]} rows */
  partners(rows) {
    const { data } = this;
    const same = (/** @type {number} */ row) => data.nodes.findIndex((one, other) => other !== row && data.mapOf(other) !== this.map
      && one.layer === data.nodes[row].layer && one.kind === data.nodes[row].kind && one.index === data.nodes[row].index);
    return new Map(rows.map((row) => [row, this.map === 0 ? [row, same(row)] : [same(row), row]]));
  }

  /** @param {number} value @param {number} row */
  share(value, row) {
    return this.scale.share(this.data.own ? this.data.share(row, value) : value);
  }

  /** @param {number} node @param {number} column */
  select(node, column) {
    const cell = node >= 0 && column >= 0 && this.plot.lines.has(node) ? { position: column, row: node } : null;
    const { selected } = this.plot.matrix;
    // An update asks for a drawing, and every drawing comes by here.
    if (cell?.row === selected?.row && cell?.position === selected?.position) return;
    if (cell && !this.plot.pointed) this.plot.revealNext(cell);
    this.plot.update({ selected: cell });
  }

  showLegend() {
    const { data, frame } = this;
    const masked = data.masked.size ? `not scored${data.masked.has(0) ? " (BOS)" : ""}` : "";
    const unit = data.own ? "share of the feature's own maximum" : frame.model.get("unit");
    this.legend.show(this.scale, "linear", [unit, this.words].filter(Boolean).join(" · "), masked);
  }

  /** @param {Cell | null} cell */
  point(cell) {
    const { card, live } = this.frame;
    this.legend.point(null);
    if (!cell) return card.hide();
    const { data } = this;
    const hidden = data.masked.has(cell.position);
    const token = cell.position >= 0 ? data.token(cell.position) : "";
    const content = cell.row < 0 ? { title: token, facts: /** @type {Array<[string, string]>} */ ([["position", String(cell.position)]]) }
      : nodeCard(data, cell.row, cell.position < 0 ? MAXIMUM : cell.position);
    if (hidden) content.note = "Masked: not scored, not coloured.";
    card.show(content, this.plot.boxOf(cell));
    live.textContent = [content.title, content.lead, ...(content.facts ?? []).map((fact) => fact.join(" "))].filter(Boolean).join(", ");
    if (cell.position < 0 || cell.row < 0 || hidden) return undefined;
    return this.legend.point(this.share(data.value(cell.row, cell.position), cell.row));
  }

  // -------------------------------------------------------------------------------- gutters

  /**
   * Layer (once a layer), kind, index and label; a dot marks the origin.
   * @param {CanvasRenderingContext2D} context
   * @param {number} row
   * @param {RowBox} box
   * @param {Paint} paint
   */
  paintNode(context, row, box, paint) {
    const { data, plot } = this;
    const node = data.nodes[row];
    const isOrigin = row === data.maps[this.map]?.origin;
    if (isOrigin) {
      context.fillStyle = paint.accent;
      context.beginPath();
      context.arc(4, box.y, 4, 0, 2 * Math.PI);
      context.fill();
    }
    const weight = box.strong || isOrigin ? 600 : 400;
    context.textAlign = "left";
    if (plot.matrix.rules.has(row)) {
      context.font = `600 12px ${paint.face}`;
      context.fillStyle = paint.ink;
      context.fillText(String(node.layer), 14, box.y);
    }
    context.font = `${weight} 12px ${paint.face}`;
    const faint = data.counts(row) ? paint.soft : paint.faint;
    context.fillStyle = box.strong || isOrigin ? paint.ink : paint.faint;
    context.fillText(plot.fit(node.kind, 44), 35, box.y);
    const digits = data.nodes.reduce((n, one) => Math.max(n, String(one.index).length), 1);
    const end = 66 + digits * 7.4;
    context.textAlign = "right";
    context.fillText(String(node.index), end, box.y);
    context.textAlign = "left";
    context.font = `${weight} 12.5px ${paint.face}`;
    context.fillStyle = box.strong || isOrigin ? paint.ink : faint;
    if (box.width - end > 60) context.fillText(plot.fit(node.label || "", box.width - end - 20), end + 10, box.y);
  }

  /**
   * The cosine to the origin as a number and a bar, hollow below the null, whose place a tick marks.
   * @param {CanvasRenderingContext2D} context
   * @param {number} row
   * @param {RowBox} box
   * @param {Paint} paint
   */
  paintCosine(context, row, box, paint) {
    const { data } = this;
    const { cosine } = data.nodes[row];
    const nullOf = data.nodes[row].null;
    if (cosine === null || cosine === undefined) return;
    context.font = `12px ${paint.face}`;
    context.textAlign = "right";
    context.fillText(fixed(cosine, 2), box.x + 42, box.y);
    const [from, length] = [box.x + 50, box.width - 56];
    context.fillStyle = paint.line;
    context.fillRect(from, box.y - 0.5, length, 1);
    context.fillStyle = row === data.maps[this.map]?.origin ? paint.accent : paint.faint;
    context.globalAlpha = data.counts(row) && cosine >= 0 ? 1 : 0.4;
    context.fillRect(from, box.y - 3, length * Math.min(1, Math.abs(cosine)), 6);
    context.globalAlpha = 1;
    if (nullOf === null || nullOf === undefined) return;
    context.fillStyle = paint.ink;
    context.fillRect(from + length * Math.min(1, Math.max(0, nullOf)), box.y - 5, 1, 10);
  }
}
