// @ts-check
/**
 * Feature heatmap: which features fire on which token, in one run or in two.
 *
 * From Python: tokens, features, values (float32, row-major (position, feature)), masked, scale, unit,
 * selected; orders, order, filter, pinned (see `heatmap_rows.js`). With a second run, over the same
 * columns: other_tokens, other_values, positions (of each column in either run, -1 where the run lacks
 * the token), names, view. With attributions: effects, target, show. Buttons for what may be done with
 * the selected cell: actions. To Python: selected, scale, view, show, order, filter, pinned, and the
 * messages `open` and `action`. Hover, keyboard cursor and scrolling stay here.
 */

import {
  Frame, Legend, axisToken, element, exact, exactToken, fixed, makeScale, percent, proseToken, segmented, stepOf,
} from "./shared.js";
import { MatrixPlot } from "./matrix.js";
import { HeatmapRows, nameOf } from "./heatmap_rows.js";
import { HeatmapValues, WORDS } from "./heatmap_values.js";
import { makeDiverging, signed } from "./diverging.js";
/** @typedef {import("./shared.js").Model} Model */
/** @typedef {import("./matrix.js").Cell} Cell */

const PIN_WIDTH = 20;
const INPUTS = [
  "tokens", "features", "values", "masked", "other_tokens", "other_values", "positions", "names", "effects", "target",
];

class FeatureHeatmap {
  /** @param {{model: Model, el: HTMLElement}} view */
  constructor(view) {
    this.model = view.model;
    this.frame = new Frame(view, "wb-feature-heatmap");
    this.values = new HeatmapValues(view.model);
    this.scale = makeScale("linear", 0, 1);
    /** @type {(value: number, row: number) => number} */
    this.share = this.scale.share;
    this.stale = false;
    this.coloured = "";
    this.texts = "";
    this.diverging = { dark: false, ramp: makeDiverging(false) };
    this.views = segmented(this.frame, "Runs", [["both", "both"], ["difference", "difference"]],
      () => this.model.get("view"), (value) => this.frame.save("view", value));
    this.shows = segmented(this.frame, "Values", [["activation", "activation"], ["attribution", "attribution"]],
      () => this.model.get("show"), (value) => this.frame.save("show", value));
    const scales = segmented(this.frame, "Colour scale", [["linear", "linear"], ["log", "log"], ["row", "per row"]],
      () => this.model.get("scale"), (value) => this.frame.save("scale", value));
    this.frame.tools.prepend(this.views.node, this.shows.node, scales.node);
    this.rows = new HeatmapRows(this.frame, () => this.data.features, () => this.arrange());
    this.caption = element("div", { class: "wb-strip-caption" });
    this.actions = element("span", { class: "wb-strip-actions" });
    this.head = element("div", { class: "wb-strip-head" }, this.caption, this.actions);
    this.strips = element("div", { class: "wb-strips" });
    this.empty = element("div", { class: "wb-empty", hidden: true });
    this.plot = this.makePlot();
    this.legend = new Legend(this.frame);
    this.bandKey = element("span", { class: "wb-bands", hidden: true });
    this.legend.node.append(this.bandKey);
    this.frame.body.append(
      this.head, this.strips, this.rows.node, this.empty, this.plot.scroller, this.legend.node,
    );
    this.listenToStrips();
    this.frame.watch(INPUTS, () => this.loadOnce());
    this.frame.watch(["scale", "unit", "view", "show"], () => {
      this.views.refresh();
      this.shows.refresh();
      scales.refresh();
      this.rescale();
    });
    this.frame.watch(["selected"], () => this.showSelection());
    this.frame.watch(["actions"], () => this.makeActions());
    this.makeActions();
    this.frame.onDraw(() => { this.showLegend(); this.colourStrips(); });
    this.load();
  }

  makePlot() {
    return new MatrixPlot(this.frame, {
      leftTitle: "feature",
      rightTitle: "max",
      leftWidth: (width) => {
        const { siteWidth, numbers, labelLength } = this.data;
        const site = siteWidth ? 44 : 0;
        const most = Math.min(250 + site, Math.max(150 + site / 2, width * 0.27));
        // No more than the longest label takes: the tokens can use the room.
        return Math.round(Math.max(128, Math.min(most, numbers + 26 + 7.8 * labelLength + PIN_WIDTH)));
      },
      rightWidth: () => 54,
      left: (context, row, box, paint) => this.paintFeature(context, row, box, paint),
      right: (context, row, box, paint) => {
        context.font = `12px ${paint.face}`;
        context.textAlign = "right";
        context.fillText(this.gutterText(row), box.x + 46, box.y);
      },
      foot: (position) => this.footOf(position),
    }, {
      label: "Heatmap of feature activations. Arrow keys move, Enter selects and opens, P pins a row to the top, Escape clears.",
      point: (cell) => this.point(cell),
      select: (cell) => this.choose(cell),
      key: (key, cell) => this.key(key, cell),
      press: (row, x, width) => (x >= width - PIN_WIDTH ? () => this.pin(row) : () => this.open(-1, row)),
    });
  }

  // ------------------------------------------------------------------------------- contents

  get data() {
    return this.values.data;
  }

  get peaks() {
    return this.values.peaks;
  }

  /** Several traits often change together: read them once. */
  loadOnce() {
    if (this.stale) return;
    this.stale = true;
    queueMicrotask(() => {
      this.stale = false;
      if (!this.frame.signal.aborted) this.load();
    });
  }

  load() {
    this.values.load();
    const { data } = this;
    const { two } = data;
    this.views.node.hidden = !two;
    this.shows.node.hidden = !data.attributed;
    this.makeStrips();
    this.plot.update({
      tokens: data.tokens, masked: data.masked,
      labels: two ? data.tokens.map((_, position) => this.headOf(position)) : null,
      value: (position, row, band) => this.values.value(position, row, band),
    });
    this.rescale();
    this.arrange();
  }

  /** Rows in their order; says so when there is none. */
  arrange() {
    const { data } = this;
    const whole = data.fits && data.tokens.length > 0 && data.features.length > 0;
    const arranged = this.rows.arrange();
    const shown = whole && arranged.order.length > 0;
    this.empty.hidden = shown;
    this.empty.textContent = !data.fits
      ? `${data.sizes.join(" and ")} values for ${data.tokens.length} tokens × ${data.features.length} features.`
      : whole ? "No row has these words in its label, or this number." : "No features to show.";
    for (const node of [this.head, this.strips, this.rows.node]) node.hidden = !whole;
    for (const node of [this.plot.scroller, this.legend.node]) node.hidden = !shown;
    this.plot.update(shown ? arranged : { order: [], frozen: 0 });
    this.showSelection();
  }

  rescale() {
    this.values.choose();
    const signs = this.values.signed();
    const { smallest, largest, value } = this.peaks;
    const kind = this.model.get("scale");
    const perRow = kind === "row";
    const sizes = makeScale(kind === "log" ? "log" : "linear", smallest, perRow ? 1 : largest);
    this.scale = signs ? signed(sizes) : sizes;
    this.coloured = "";
    this.plot.gutters.rightTitle = WORDS[this.values.shown()].gutter;
    const { share } = this.scale;
    this.share = perRow ? (v, row) => share(v / (Math.abs(value[row]) || 1)) : share;
    this.plot.update({ share: this.share, bands: this.values.bands.length, ramp: () => this.ramp() });
  }

  showLegend() {
    const { data, legend, frame } = this;
    const shown = this.values.shown();
    const signs = this.values.signed();
    const hatched = [
      ...(data.masked.size ? [`not scored${data.masked.has(0) ? " (BOS)" : ""}`] : []),
      ...(data.positions.flat().includes(-1) ? ["no such token in that run"] : []),
    ].join("; ");
    const [first, second] = data.names;
    const perRow = this.model.get("scale") === "row";
    const what = shown === "attribution" ? this.attributionName() : this.model.get("unit");
    const unit = `${what}${perRow ? `, share of the row's ${WORDS[shown].share}` : ""}`;
    // What has a sign has its zero inside the ramp, on a log scale too.
    legend.show(this.scale, signs || perRow ? "linear" : this.model.get("scale"),
      shown === "difference" ? `${unit}: ${second} − ${first}` : unit, hatched);
    if (signs) legend.bar.style.backgroundImage = this.ramp().gradient(1);
    this.bandKey.hidden = !data.two || signs;
    this.bandKey.textContent = `upper half of a cell: ${first}; lower half: ${second}`;
    frame.root.dataset.shown = shown;
  }

  /** The colours of what is shown. */
  ramp() {
    const { frame } = this;
    if (!this.values.signed()) return frame.ramp;
    if (this.diverging.dark !== frame.dark) this.diverging = { dark: frame.dark, ramp: makeDiverging(frame.dark) };
    return this.diverging.ramp;
  }

  // ------------------------------------------------------------------------------ selecting

  /** What a click or a key chose; choosing it again opens it again. @param {Cell | null} cell */
  choose(cell) {
    this.frame.save("selected", cell ? [cell.position, cell.row] : []);
    this.showSelection();
    if (cell) this.open(cell.position, cell.row);
  }

  /** Ask Python for more about a row. @param {number} position -1: the row's name was clicked @param {number} row */
  open(position, row) {
    this.model.send({ type: "open", position, row });
  }

  makeActions() {
    /** @type {string[]} */
    const names = this.model.get("recorded") ? [] : this.model.get("actions") ?? [];
    this.actions.replaceChildren(...names.map((name) => {
      const button = element("button", { class: "wb-button", type: "button", text: name });
      this.frame.listen(button, "click", () => {
        const [position, row] = this.model.get("selected");
        this.model.send({ type: "action", name, position, row });
      });
      return button;
    }));
    this.frame.schedule();
  }

  showSelection() {
    const [position, row] = this.model.get("selected") ?? [];
    const cell = row === undefined ? null : { position, row };
    const valid = cell && this.plot.exists(cell) ? cell : null;
    const known = this.plot.matrix.selected;
    const moved = valid?.row !== known?.row || valid?.position !== known?.position;
    if (valid && moved && !this.plot.pointed) this.plot.revealNext(valid);
    this.actions.toggleAttribute("data-idle", !valid);
    this.plot.update({ selected: valid });
  }

  /** @param {string} key @param {Cell} cell */
  key(key, cell) {
    if (key.toLowerCase() !== "p") return false;
    const line = this.plot.lines.get(cell.row) ?? 0;
    this.pin(cell.row);
    // The cursor stays where it is, so that the next row down is the one that came next.
    const { order } = this.plot.matrix;
    if (order.length) this.plot.moveTo({ ...cell, row: order[Math.min(line, order.length - 1)] });
    this.frame.live.textContent = this.pinText(cell.row);
    return true;
  }

  /** @param {number} row */
  pin(row) {
    this.rows.togglePin(row);
    this.frame.live.textContent = this.pinText(row);
  }

  /** @param {number} row */
  pinText(row) {
    const state = this.rows.pinned().includes(row) ? "pinned to the top" : "no longer pinned";
    return `${nameOf(this.data.features[row])} ${state}`;
  }

  // -------------------------------------------------------------------------------- the card

  /** @param {Cell | null} cell */
  point(cell) {
    const { card, live } = this.frame;
    this.legend.point(null);
    if (!cell) return card.hide();
    const content = this.cardOf(cell);
    card.show(content, this.plot.boxOf(cell));
    live.textContent = [content.title, content.lead, ...(content.facts ?? []).map((f) => f.join(" "))].join(", ");
    if (cell.position < 0 || cell.row < 0 || this.data.masked.has(cell.position)) return undefined;
    const value = this.values.value(cell.position, cell.row);
    return Number.isFinite(value) ? this.legend.point(this.share(value, cell.row)) : undefined;
  }

  /** @param {Cell} cell @returns {import("./shared.js").CardContent} */
  cardOf({ position, row }) {
    const { features, masked } = this.data;
    const title = position >= 0 ? this.tokenText(position, exactToken) : "";
    /** @type {[string, string]} */
    const place = ["position", this.placeOf(position)];
    if (row < 0) return { title, facts: [place], note: masked.has(position) ? "not scored" : undefined };
    const feature = features[row];
    if (position < 0) return this.rowCard(row);
    const lead = `${nameOf(feature)}${feature.label ? ` · ${feature.label}` : ""}`;
    const facts = [place, ...this.numbersOf(position, row)];
    return { title, lead, facts, note: masked.has(position) ? "Masked: not scored, not coloured." : undefined };
  }

  /** @param {number} row @returns {import("./shared.js").CardContent} */
  rowCard(row) {
    const { features } = this.data;
    const { id, label, site, max, density, attribution } = features[row];
    const words = WORDS[this.values.shown()];
    const peak = this.peaks.position[row];
    /** @type {Array<[string, string]>} */
    const facts = [[words.peak, this.signedText(this.peaks.value[row], exact)]];
    if (peak >= 0) facts.push([words.on, `${this.tokenText(peak, exactToken)} (${this.placeOf(peak)})`]);
    if (attribution !== undefined) facts.push([`${this.attributionName()}, all tokens`, withSign(attribution, exact)]);
    if (max && max > 0) facts.push(["typical maximum", exact(max)]);
    if (density !== undefined) facts.push(["fires on ordinary tokens", percent(density)]);
    const note = this.rows.pinned().includes(row) ? "Pinned: P or the pin releases it." : "P or the pin keeps it on top.";
    return { title: `feature ${id}${site ? ` of ${site}` : ""}`, lead: label, facts, note };
  }

  /** @param {number} position @param {number} row @returns {Array<[string, string]>} */
  numbersOf(position, row) {
    const { values, others, effects, features, masked, two, names, attributed } = this.data;
    const at = position * features.length + row;
    const say = (/** @type {number} */ v) => (Number.isFinite(v) ? exact(v) : "no such token");
    /** @type {Array<[string, string]>} */
    const facts = two ? [[names[0], say(values[at])], [names[1], say(others[at])]] : [["activation", exact(values[at])]];
    const change = others[at] - values[at];
    if (two && Number.isFinite(change)) facts.push(["change", withSign(change, exact)]);
    if (attributed) facts.push([this.attributionName(), withSign(effects[at], exact)]);
    if (masked.has(position) || two) return facts;
    const { max } = features[row];
    const typical = max && max > 0 ? max : null;
    const reference = typical ?? this.largestOf(row);
    const name = typical ? "share of its typical maximum" : "share of its maximum here";
    return [...facts, [name, reference > 0 ? percent(values[at] / reference) : "–"]];
  }

  /** The largest activation of a row, whatever is drawn. @param {number} row */
  largestOf(row) {
    const { tokens, features, values, masked } = this.data;
    return tokens.reduce((most, _, at) => (masked.has(at) ? most : Math.max(most, values[at * features.length + row])), 0);
  }

  attributionName() {
    return `attribution to ${this.model.get("target")}`;
  }

  /** The number beside a row. @param {number} row */
  gutterText(row) {
    const { features, totalDecimals } = this.data;
    const total = this.values.shown() === "attribution" ? features[row].attribution : undefined;
    return total === undefined ? this.signedText(this.peaks.value[row], fixed) : withSign(total, fixed, totalDecimals);
  }

  /** With a sign where there are signs. @param {number} value @param {(v: number, d: number) => string} form */
  signedText(value, form) {
    const { decimals } = this.peaks;
    return this.values.signed() ? withSign(value, form, decimals) : form(value, decimals);
  }

  // ------------------------------------------------------------------------------ the tokens

  /** Whether a run has the token of a column. @param {number} run @param {number} position */
  has(run, position) {
    return (this.data.positions[run]?.[position] ?? 0) >= 0;
  }

  /**
   * The token of a column; of two runs both, where they differ.
   * @param {number} position
   * @param {(token: string) => string} form
   */
  tokenText(position, form) {
    const { tokens, otherTokens, two } = this.data;
    if (!two) return form(tokens[position]);
    if (!this.has(0, position)) return `+ ${form(otherTokens[position])}`;
    if (!this.has(1, position)) return `− ${form(tokens[position])}`;
    const pair = [form(tokens[position]), form(otherTokens[position])];
    return pair[0] === pair[1] ? pair[0] : pair.join(" → ");
  }

  /** @param {number} position */
  headOf(position) {
    return this.tokenText(position, axisToken);
  }

  /** Position in the text; of two runs both, where they differ. @param {number} column */
  placeOf(column) {
    const { positions, two } = this.data;
    if (!two || !positions.length) return String(column);
    const [a, b] = positions.map((of) => (of[column] < 0 ? "none" : String(of[column])));
    return a === b ? a : `${a} → ${b}`;
  }

  /** What stands below a column: its position in the first run. @param {number} column */
  footOf(column) {
    const { positions, two } = this.data;
    const place = two && positions.length ? positions[0][column] : column;
    return place < 0 ? "+" : String(place);
  }

  /** The texts, made anew only when they are new: a heatmap may get values many times a second. */
  makeStrips() {
    const { tokens, otherTokens, masked, positions, names, two } = this.data;
    const shown = JSON.stringify([tokens, otherTokens, [...masked], positions, names, two]);
    if (shown === this.texts) return;
    this.texts = shown;
    this.strips.replaceChildren(...(two ? [0, 1] : [0]).flatMap((run) => this.makeStrip(run)));
  }

  /** @param {number} run */
  makeStrip(run) {
    const { tokens, otherTokens, masked, two, names } = this.data;
    const shown = run === 0 ? tokens : otherTokens;
    const spans = shown.flatMap((token, position) => (this.has(run, position) ? [element("span", {
      text: proseToken(token), "data-position": position, "data-off": masked.has(position),
      "data-new": two && !(this.has(1 - run, position) && tokens[position] === otherTokens[position]),
    })] : []));
    const strip = element("div", { class: "wb-strip" }, ...spans);
    return two ? [element("span", { class: "wb-strip-name", text: names[run] }), strip] : [strip];
  }

  /** The feature that the strips show: pointed at, else selected, else the strongest. */
  shownFeature() {
    const pointed = this.plot.pointed;
    if (pointed && pointed.row >= 0) return pointed.row;
    return this.plot.matrix.selected?.row ?? this.peaks.strongest;
  }

  colourStrips() {
    const row = this.shownFeature();
    const feature = this.data.features[row];
    if (!feature) return;
    const on = this.plot.pointed?.position ?? this.plot.matrix.selected?.position;
    const state = `${row} ${on} ${this.frame.dark}`;
    if (state === this.coloured) return;
    this.coloured = state;
    const ramp = this.ramp();
    this.caption.replaceChildren("tokens coloured by feature ",
      element("b", { text: `${nameOf(feature)}${feature.label ? ` · ${feature.label}` : ""}` }));
    for (const [run, strip] of Array.from(this.strips.querySelectorAll(".wb-strip")).entries()) {
      for (const span of /** @type {Iterable<HTMLElement>} */ (Array.from(strip.children))) {
        const position = Number(span.dataset.position);
        span.toggleAttribute("data-on", position === on);
        if (this.data.masked.has(position)) continue;
        const value = this.values.value(position, row, run);
        // A token that the other run lacks has no difference.
        const off = !Number.isFinite(value) || value === 0;
        const step = off ? 0 : stepOf(this.share(value, row));
        span.style.backgroundColor = off ? "" : ramp.css[step];
        span.style.color = off ? "" : ramp.ink[step];
      }
    }
  }

  listenToStrips() {
    const cellOf = (/** @type {Event} */ event) => {
      const target = /** @type {HTMLElement} */ (event.target).closest("[data-position]");
      const row = this.plot.matrix.selected?.row ?? this.peaks.strongest;
      return target instanceof HTMLElement ? { position: Number(target.dataset.position), row } : null;
    };
    this.frame.listen(this.strips, "pointerover", (event) => {
      const cell = cellOf(event);
      this.plot.point(cell);
      if (cell) this.frame.card.place(event.target.getBoundingClientRect(), "below");
    });
    this.frame.listen(this.strips, "pointerleave", () => this.plot.point(null));
    this.frame.listen(this.strips, "click", (event) => {
      const cell = cellOf(event);
      if (!cell) return;
      this.plot.reveal(cell);
      this.plot.choose(cell);
    });
  }

  // ---------------------------------------------------------------------------- the row names

  /**
   * The row's site, number and label, the number right-aligned in its own column; a pin at the end.
   * @param {CanvasRenderingContext2D} context
   * @param {number} row
   * @param {import("./matrix.js").RowBox} box
   * @param {import("./matrix.js").Paint} paint
   */
  paintFeature(context, row, box, paint) {
    const { features, numbers } = this.data;
    const feature = features[row];
    const pinned = this.plot.matrix.frozen > 0 && this.rows.pinned().includes(row);
    context.font = `11px ${paint.face}`;
    context.fillStyle = paint.faint;
    if (feature.site) context.fillText(feature.site, 0, box.y);
    context.textAlign = "right";
    context.font = `12px ${paint.face}`;
    context.fillStyle = box.strong ? paint.ink : paint.faint;
    context.fillText(String(feature.id), numbers, box.y);
    context.textAlign = "left";
    context.font = `${box.strong ? 600 : 400} 12.5px ${paint.face}`;
    context.fillStyle = box.strong ? paint.ink : paint.soft;
    const room = box.width - numbers - 14 - PIN_WIDTH;
    context.fillText(this.plot.fit(feature.label || "", room), numbers + 10, box.y);
    if (pinned || this.plot.pointed?.row === row) {
      drawPin(context, box.x + box.width - PIN_WIDTH / 2 - 1, box.y, pinned ? paint.accent : paint.faint, pinned);
    }
  }
}

/**
 * @param {number} value
 * @param {(value: number, decimals: number) => string} form
 * @param {number} [decimals]
 */
function withSign(value, form, decimals = 0) {
  return `${value > 0 ? "+" : ""}${form(value, decimals)}`;
}

/**
 * A drawing pin: head, and the needle below it.
 * @param {CanvasRenderingContext2D} context
 * @param {number} x
 * @param {number} y
 * @param {string} colour
 * @param {boolean} filled
 */
function drawPin(context, x, y, colour, filled) {
  context.beginPath();
  context.arc(x, y - 2.5, 3.5, 0, 2 * Math.PI);
  context.moveTo(x, y + 1);
  context.lineTo(x, y + 7);
  context.strokeStyle = colour;
  context.fillStyle = colour;
  context.lineWidth = 1.4;
  context.stroke();
  if (filled) context.fill();
}

/** @param {{model: Model, el: HTMLElement}} view */
function render(view) {
  const widget = new FeatureHeatmap(view);
  return () => widget.frame.cleanup();
}

export default { render };
