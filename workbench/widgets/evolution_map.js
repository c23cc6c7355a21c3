// @ts-check
/**
 * Evolution map: features by layer and kind of site, and below them the same by token.
 *
 * From Python: traits, see evolution_map.py. To Python: selected ([node, token]), threshold, token,
 * scale and view as traits, and messages {type: "centre" | "open" | "ablate", node}, {type: "steer",
 * node, strength}, {type: "drop", edit} and {type: "restore"}.
 */

import { Frame, element, segmented } from "./shared.js";
import { EvolutionData, MAXIMUM } from "./evolution_data.js";
import { MapDrawing } from "./evolution_drawing.js";
import { linkCard, nodeCard } from "./evolution_words.js";
import { NodeDetails } from "./evolution_details.js";
import { MapControls, legendOf } from "./evolution_controls.js";
import { TokenStrip } from "./evolution_strip.js";
import { LayerChart } from "./evolution_chart.js";
/** @typedef {import("./shared.js").Model} Model */
/** @typedef {import("./matrix.js").Cell} Cell */
/** @typedef {import("./evolution_drawing.js").Pointed} Pointed */

const NARROWEST = 250;
const GAP = 14;

class EvolutionMap {
  /** @param {{model: Model, el: HTMLElement}} view */
  constructor(view) {
    const { model } = view;
    this.model = model;
    this.frame = new Frame(view, "wb-evolution-map");
    const { frame } = this;
    // Before the parts register theirs: they draw what this one prepares.
    frame.onDraw(() => this.draw());
    this.data = new EvolutionData(model);
    /** @type {Pointed} */
    this.pointed = null;
    /** @type {number | null} the token pointed at in the strip */
    this.preview = null;
    this.column = Number(model.get("token") ?? MAXIMUM);
    this.threshold = Number(model.get("threshold") ?? -1);
    /** @type {MapDrawing[]} made once: their listeners live as long as the widget */
    this.pool = [];
    /** @type {MapDrawing[]} those that are on the page */
    this.maps = [];
    this.built = { width: 0, stale: true };
    this.status = element("span", { class: "wb-hint", role: "status" });
    frame.tools.prepend(this.status);
    this.empty = element("div", { class: "wb-empty", hidden: true });
    this.controls = new MapControls(frame, this.data, {
      column: () => this.column, setColumn: (column, done) => this.setColumn(column, done),
      threshold: () => this.threshold, setThreshold: (value, done) => this.setThreshold(value, done),
    });
    this.grid = element("div", { class: "wb-map-grid" });
    this.details = new NodeDetails(frame, this.data);
    this.legend = element("div");
    this.strip = new TokenStrip(frame, this.data, {
      point: (cell) => this.pointInStrip(cell), select: (cell) => this.selectInStrip(cell),
    });
    this.chart = new LayerChart(frame, this.data, (node, at) => this.point(node < 0 ? null : { node }, at));
    this.view = segmented(frame, "", [["tokens", "tokens × layers"], ["layers", "one token through the layers"]],
      () => model.get("view"), (value) => frame.save("view", value));
    this.whose = element("b", { class: "wb-below-title" });
    const below = element("div", { class: "wb-below-head" }, this.whose, this.view.node);
    const side = element("div", { class: "wb-map-side" }, this.details.node, this.legend);
    this.main = element("div", { class: "wb-map-main" }, this.grid, side);
    this.parts = [this.controls.node, this.main, below];
    frame.body.append(this.empty, ...this.parts, this.strip.plot.scroller, this.strip.legend.node, this.chart.node);
    frame.watch(["nodes", "links", "maps", "tokens", "other_tokens", "values", "edited", "masked", "names"], () => this.load());
    frame.watch(["scale", "edits"], () => this.load());
    frame.watch(["unit"], () => frame.schedule());
    frame.watch(["view"], () => { this.view.refresh(); frame.schedule(); });
    frame.watch(["token"], () => { this.column = Number(model.get("token")); frame.schedule(); });
    frame.watch(["threshold"], () => { this.threshold = Number(model.get("threshold")); this.loadStrip(); frame.schedule(); });
    frame.watch(["selected"], () => { this.loadStrip(); frame.schedule(); });
    frame.watch(["busy"], () => { this.status.textContent = model.get("busy") ?? ""; });
    this.status.textContent = model.get("busy") ?? "";
    this.load();
  }

  // ----------------------------------------------------------------------------- what is shown

  /** Take in new data; all the traits of one message lead to one drawing. */
  load() {
    this.built.stale = true;
    this.frame.schedule();
  }

  reload() {
    const { data } = this;
    data.load();
    if (this.pointed && "node" in this.pointed && this.pointed.node >= data.nodes.length) this.pointed = null;
    if (this.pointed && "link" in this.pointed && this.pointed.link >= data.links.length) this.pointed = null;
    if (this.column >= data.tokens.length) this.column = MAXIMUM;
    const shown = data.fits && data.nodes.length > 0 && data.tokens.length > 0;
    this.empty.hidden = shown;
    this.empty.textContent = data.fits ? "No layers to show."
      : `${data.values.length} values for ${data.nodes.length} nodes × ${data.tokens.length} tokens.`;
    for (const node of this.parts) node.hidden = !shown;
    while (this.pool.length < data.maps.length) this.pool.push(this.makeMap(this.pool.length));
    this.maps = this.pool.slice(0, data.maps.length);
    this.grid.replaceChildren(...this.maps.map((map) => map.node));
    this.main.classList.toggle("wb-several", data.maps.length > 1);
    this.legend.replaceChildren(legendOf(data));
    this.loadStrip();
    this.strip.revealOrigin();
    return shown;
  }

  /** @param {number} number */
  makeMap(number) {
    const map = new MapDrawing(this.frame, this.data, number, {
      point: (pointed, at) => this.point(pointed, at),
      select: (node) => this.select(node, this.column),
      fit: (text, width, bold) => this.fit(text, width, bold),
    });
    this.frame.listen(map.holder, "keydown", (event) => this.key(event, map));
    return map;
  }

  /** @param {string} text @param {number} width @param {boolean} bold */
  fit(text, width, bold) {
    const { plot } = this.strip;
    plot.context.font = `${bold ? 600 : 400} 12px ${getComputedStyle(this.frame.root).fontFamily}`;
    return plot.fit(text, width);
  }

  /** The map whose features stand below: that of the selected node, else the first. */
  active() {
    const [node] = this.model.get("selected") ?? [];
    return node !== undefined && this.data.nodes[node] ? this.data.mapOf(node) : 0;
  }

  loadStrip() {
    const map = this.active();
    this.strip.load(map, this.threshold);
    const { data } = this;
    this.whose.textContent = data.maps.length > 1 && !this.strip.paired ? data.maps[map]?.title ?? "" : "";
    this.whose.hidden = !this.whose.textContent;
    this.frame.schedule();
  }

  draw() {
    const fresh = this.built.stale;
    if (fresh && !this.reload()) {
      this.built.stale = false;
      for (const node of [this.strip.plot.scroller, this.strip.legend.node, this.chart.node]) node.hidden = true;
      return;
    }
    if (!this.data.fits || !this.data.nodes.length) return;
    this.arrange(fresh);
    const [node = -1, column = this.column] = this.model.get("selected") ?? [];
    const selected = this.data.nodes[node] ? node : -1;
    const at = this.preview ?? this.column;
    for (const map of this.maps) map.show({ column: at, threshold: this.threshold, selected, pointed: this.pointed });
    this.controls.show();
    this.details.show(selected, at);
    this.strip.select(selected, column);
    this.showBelow(at);
  }

  /** Build the maps anew if the data or the width are new. @param {boolean} fresh */
  arrange(fresh) {
    const several = this.maps.length > 1;
    const whole = this.grid.clientWidth;
    const most = Math.max(1, Math.min(this.maps.length, Math.floor((whole + GAP) / (NARROWEST + GAP))));
    // As many in the last line as in the others, if that is possible.
    const across = Math.ceil(this.maps.length / Math.ceil(this.maps.length / most));
    const width = Math.floor((whole - GAP * (across - 1)) / across);
    this.grid.style.gridTemplateColumns = `repeat(${across}, minmax(0, 1fr))`;
    if (!fresh && this.built.width === width) return;
    for (const map of this.maps) map.build(width, several);
    this.built = { width, stale: false };
  }

  /** @param {number} column */
  showBelow(column) {
    const layers = this.model.get("view") === "layers";
    this.strip.plot.scroller.hidden = layers;
    this.strip.legend.node.hidden = layers;
    this.chart.node.hidden = !layers;
    const rows = this.data.rowsOf(this.active()).filter((row) => this.data.shows(row, this.threshold));
    this.chart.show(rows, column, this.pointed && "node" in this.pointed ? this.pointed.node : -1);
  }

  // -------------------------------------------------------------------------------- settings

  /** @param {number} column @param {boolean} done */
  setColumn(column, done) {
    this.column = column;
    this.preview = null;
    if (done) this.frame.save("token", column);
    this.frame.schedule();
  }

  /** @param {number} value @param {boolean} done */
  setThreshold(value, done) {
    // At its lowest end the slider hides nothing, whatever comes later.
    this.threshold = value <= this.data.margins().low ? -1 : value;
    if (done) this.frame.save("threshold", this.threshold);
    this.loadStrip();
  }

  // ------------------------------------------------------------------- pointing and selecting

  /** @param {Pointed} pointed @param {Element | null} at */
  point(pointed, at) {
    const same = JSON.stringify(pointed) === JSON.stringify(this.pointed);
    this.pointed = pointed;
    const { card, live } = this.frame;
    const [selected] = this.model.get("selected") ?? [];
    // What the details say already, the card would only cover.
    if (!pointed || !at || ("node" in pointed && pointed.node === selected)) card.hide();
    else if (!same) {
      const content = "node" in pointed ? nodeCard(this.data, pointed.node, this.column) : linkCard(this.data, pointed.link);
      card.show(content, at.getBoundingClientRect());
      live.textContent = [content.title, content.lead, ...(content.facts ?? []).map((fact) => fact.join(" "))].filter(Boolean).join(", ");
    }
    if (!same) this.frame.schedule();
  }

  /** @param {number} node -1: none @param {number} column */
  select(node, column) {
    this.frame.save("selected", node < 0 ? [] : [node, column]);
    this.frame.card.hide();
    this.loadStrip();
  }

  /** @param {Cell | null} cell */
  pointInStrip(cell) {
    this.preview = cell && cell.position >= 0 && !this.data.masked.has(cell.position) ? cell.position : null;
    this.pointed = cell && cell.row >= 0 ? { node: cell.row } : null;
    this.frame.schedule();
  }

  /** @param {Cell | null} cell */
  selectInStrip(cell) {
    if (!cell) return this.select(-1, MAXIMUM);
    if (!this.data.masked.has(cell.position)) this.setColumn(cell.position, true);
    return this.select(cell.row, cell.position);
  }

  /** @param {KeyboardEvent} event @param {MapDrawing} map */
  key(event, map) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [selected] = this.model.get("selected") ?? [];
    const shown = (/** @type {number} */ row) => this.data.shows(row, this.threshold);
    const inMap = (/** @type {number | undefined} */ row) => (row !== undefined && map.layout?.places.has(row) ? row : undefined);
    const pointed = this.pointed && "node" in this.pointed ? inMap(this.pointed.node) : undefined;
    const origin = this.data.maps[map.map]?.origin;
    const from = pointed ?? inMap(selected) ?? inMap(origin) ?? this.data.rowsOf(map.map)[0];
    if (event.key.startsWith("Arrow")) {
      const row = pointed === undefined ? from : map.neighbour(from, event.key, shown);
      this.point({ node: row }, map.elementOf(row));
    } else if (event.key === "Enter" || event.key === " ") this.select(from, this.column);
    else if (event.key === "Escape") {
      this.point(null, null);
      this.select(-1, MAXIMUM);
    } else return;
    event.preventDefault();
  }
}

/** @param {{model: Model, el: HTMLElement}} view */
function render(view) {
  const widget = new EvolutionMap(view);
  return () => widget.frame.cleanup();
}

export default { render };
