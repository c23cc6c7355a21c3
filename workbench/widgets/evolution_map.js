// @ts-check
/**
 * Evolution map: a feature's nearest relative at every layer and sub-layer, on every token.
 *
 * From Python: sites (bottom to top), tokens, values (float32, row-major (site, position)), origin,
 * masked, unit, selected. To Python: selected, as [site, position].
 */

import {
  Frame, Legend, element, exact, exactToken, fixed, floats, makeScale, roundTicks, short, svg,
} from "./shared.js";
import { MatrixPlot } from "./matrix.js";
/** @typedef {import("./shared.js").Model} Model */
/** @typedef {import("./matrix.js").Cell} Cell */
/** @typedef {{layer: number, kind: string, index: number, cosine: number, label?: string}} Site */

const CHART = { height: 204, left: 46, right: 64, top: 30, bottom: 38 };
/** Marker shapes around (0, 0). @type {Record<string, string>} */
const MARKS = {
  res: "M0 -3.6A3.6 3.6 0 1 1 0 3.6A3.6 3.6 0 1 1 0 -3.6Z",
  att: "M0 -4.4L4.4 0L0 4.4L-4.4 0Z",
  mlp: "M-3.3 -3.3H3.3V3.3H-3.3Z",
  transcoder: "M0 -4.2L4 3.2H-4Z",
  embed: "M0 4.2L4 -3.2H-4Z",
};

class EvolutionMap {
  /** @param {{model: Model, el: HTMLElement}} view */
  constructor(view) {
    this.model = view.model;
    this.frame = new Frame(view, "wb-evolution-map");
    this.data = this.read();
    this.scale = makeScale("linear", 0, 1);
    this.empty = element("div", { class: "wb-empty", hidden: true });
    this.plot = this.makePlot();
    this.legend = new Legend(this.frame);
    this.originKey = element("span", { class: "wb-origin-key" },
      element("i"), element("span", { text: "origin: the feature that is followed" }));
    this.legend.node.append(this.originKey);
    this.chartTitle = element("div", { class: "wb-chart-title" });
    this.drawing = svg("svg", { role: "img", height: CHART.height });
    this.chart = element("div", { class: "wb-chart" }, this.chartTitle, this.drawing);
    this.frame.body.append(this.empty, this.plot.scroller, this.legend.node, this.chart);
    this.frame.watch(["sites", "tokens", "values", "masked", "origin"], () => this.load());
    this.frame.watch(["unit"], () => this.frame.schedule());
    this.frame.watch(["selected"], () => this.showSelection());
    this.frame.onDraw(() => { this.showLegend(); this.drawChart(); });
    this.frame.listen(this.drawing, "pointermove", (event) => this.pointInChart(event));
    this.frame.listen(this.drawing, "pointerleave", () => this.plot.point(null));
    this.load();
  }

  makePlot() {
    return new MatrixPlot(this.frame, {
      leftTitle: "layer, feature",
      rightTitle: "cosine",
      leftWidth: (width) => (width < 560 ? 120 : Math.round(Math.min(300, Math.max(210, width * 0.28)))),
      rightWidth: (width) => (width < 560 ? 76 : 104),
      left: (context, row, box, paint) => this.paintSite(context, row, box, paint),
      right: (context, row, box, paint) => this.paintCosine(context, row, box, paint),
    }, {
      label: "Map of a feature's relatives, layers from bottom to top. Arrow keys move, Enter selects, Escape clears.",
      point: (cell) => this.point(cell),
      select: (cell) => this.select(cell ? [cell.row, cell.position] : []),
    });
  }

  read() {
    /** @type {Site[]} */
    const sites = this.model.get("sites") ?? [];
    /** @type {string[]} */
    const tokens = this.model.get("tokens") ?? [];
    const values = floats(this.model.get("values"));
    const masked = new Set(/** @type {number[]} */ (this.model.get("masked") ?? []));
    const fits = values.length === sites.length * tokens.length;
    const origin = this.model.get("origin") ?? -1;
    let largest = 0;
    // Without a selection the chart follows the token on which the origin fires most.
    let [best, strongest] = [-Infinity, 0];
    for (let i = 0; fits && i < values.length; i += 1) {
      const position = i % tokens.length;
      if (masked.has(position)) continue;
      largest = Math.max(largest, values[i]);
      const counts = origin < 0 || Math.floor(i / tokens.length) === origin;
      if (counts && values[i] > best) [best, strongest] = [values[i], position];
    }
    const rules = new Set(sites.flatMap((site, i) => (sites[i + 1]?.layer !== site.layer ? [i] : [])));
    return { sites, tokens, values, masked, fits, origin, largest, strongest, rules };
  }

  /** @param {number} position @param {number} row */
  value(position, row) {
    return this.data.values[row * this.data.tokens.length + position];
  }

  load() {
    const data = this.read();
    this.data = data;
    const shown = data.fits && data.sites.length > 0 && data.tokens.length > 0;
    this.empty.hidden = shown;
    this.empty.textContent = data.fits ? "No layers to show."
      : `${data.values.length} values for ${data.sites.length} sites × ${data.tokens.length} tokens.`;
    for (const node of [this.plot.scroller, this.legend.node, this.chart]) node.hidden = !shown;
    this.originKey.hidden = data.origin < 0;
    this.scale = makeScale("linear", 0, data.largest);
    this.plot.update({
      tokens: data.tokens, rows: shown ? data.sites.length : 0, bottomUp: true, masked: data.masked,
      rules: data.rules, share: this.scale.share, value: (position, row) => this.value(position, row),
    });
    if (data.origin >= 0 && data.origin < data.sites.length) {
      this.plot.revealNext({ position: -1, row: data.origin });
    }
    this.showSelection();
  }

  showLegend() {
    const masked = this.data.masked.size ? `not scored${this.data.masked.has(0) ? " (BOS)" : ""}` : "";
    this.legend.show(this.scale, "linear", this.model.get("unit"), masked);
  }

  /** @param {number[]} selected */
  select(selected) {
    this.frame.save("selected", selected);
    this.showSelection();
  }

  showSelection() {
    const [row, position] = this.model.get("selected") ?? [];
    const cell = position === undefined ? null : { position, row };
    const valid = cell && this.plot.exists(cell) ? cell : null;
    if (valid && !this.plot.pointed) this.plot.revealNext(valid);
    this.plot.update({ selected: valid });
  }

  /** @param {Cell | null} cell */
  point(cell) {
    const { card, live } = this.frame;
    this.legend.point(null);
    if (!cell) return card.hide();
    const content = this.cardOf(cell);
    card.show(content, this.plot.boxOf(cell));
    live.textContent = [content.title, content.lead, ...(content.facts ?? []).map((f) => f.join(" "))].join(", ");
    if (cell.position < 0 || cell.row < 0 || this.data.masked.has(cell.position)) return undefined;
    return this.legend.point(this.scale.share(this.value(cell.position, cell.row)));
  }

  /** @param {Cell} cell @returns {import("./shared.js").CardContent} */
  cardOf({ position, row }) {
    const { sites, tokens, masked, origin } = this.data;
    const hidden = masked.has(position);
    const what = row === origin ? "Origin: the feature that is followed." : undefined;
    const note = hidden ? "Masked: not scored, not coloured." : what;
    const token = position >= 0 ? exactToken(tokens[position]) : "";
    if (row < 0) return { title: token, facts: [["position", String(position)]], note: hidden ? note : undefined };
    const site = sites[row];
    const lead = `layer ${site.layer} ${site.kind} · ${site.index}${site.label ? ` ${site.label}` : ""}`;
    /** @type {Array<[string, string]>} */
    const facts = [["cosine to the origin", exact(site.cosine)]];
    if (position < 0) {
      const name = `${site.index}${site.label ? ` · ${site.label}` : ""}`;
      return { title: `layer ${site.layer} ${site.kind}`, lead: name, facts, note: what };
    }
    facts.unshift(["position", String(position)], ["activation", exact(this.value(position, row))]);
    return { title: token, lead, facts, note };
  }

  // -------------------------------------------------------------------------------- gutters

  /**
   * Layer (once a layer), kind, index and label of a site; a dot marks the origin.
   * @param {CanvasRenderingContext2D} context
   * @param {number} row
   * @param {import("./matrix.js").RowBox} box
   * @param {import("./matrix.js").Paint} paint
   */
  paintSite(context, row, box, paint) {
    const { sites, origin, rules } = this.data;
    const site = sites[row];
    const isOrigin = row === origin;
    if (isOrigin) {
      context.fillStyle = paint.accent;
      context.beginPath();
      context.arc(4, box.y, 4, 0, 2 * Math.PI);
      context.fill();
    }
    const weight = box.strong || isOrigin ? 600 : 400;
    context.textAlign = "left";
    if (rules.has(row)) {
      context.font = `600 12px ${paint.face}`;
      context.fillStyle = paint.ink;
      context.fillText(String(site.layer), 14, box.y);
    }
    context.font = `${weight} 12px ${paint.face}`;
    context.fillStyle = box.strong || isOrigin ? paint.ink : paint.faint;
    context.fillText(this.plot.fit(site.kind, 44), 35, box.y);
    const digits = sites.reduce((n, s) => Math.max(n, String(s.index).length), 1);
    const end = 66 + digits * 7.4;
    context.textAlign = "right";
    context.fillText(String(site.index), end, box.y);
    context.textAlign = "left";
    context.font = `${weight} 12.5px ${paint.face}`;
    context.fillStyle = box.strong || isOrigin ? paint.ink : paint.soft;
    if (box.width - end > 60) context.fillText(this.plot.fit(site.label || "", box.width - end - 20), end + 10, box.y);
  }

  /**
   * The cosine to the origin as a number and a bar from zero.
   * @param {CanvasRenderingContext2D} context
   * @param {number} row
   * @param {import("./matrix.js").RowBox} box
   * @param {import("./matrix.js").Paint} paint
   */
  paintCosine(context, row, box, paint) {
    const { cosine } = this.data.sites[row];
    context.font = `12px ${paint.face}`;
    context.textAlign = "right";
    context.fillText(fixed(cosine, 2), box.x + 42, box.y);
    const [from, length] = [box.x + 50, box.width - 56];
    context.fillStyle = paint.line;
    context.fillRect(from, box.y - 0.5, length, 1);
    context.fillStyle = row === this.data.origin ? paint.accent : paint.faint;
    context.globalAlpha = cosine < 0 ? 0.45 : 1;
    context.fillRect(from, box.y - 3, length * Math.min(1, Math.abs(cosine)), 6);
    context.globalAlpha = 1;
  }

  // ---------------------------------------------------------------------------- line chart

  shownPosition() {
    const pointed = this.plot.pointed;
    if (pointed && pointed.position >= 0) return pointed.position;
    return this.plot.matrix.selected?.position ?? this.data.strongest;
  }

  drawChart() {
    const { sites, tokens, fits } = this.data;
    if (!fits || !sites.length || !tokens.length) return;
    const position = this.shownPosition();
    const chosen = this.plot.pointed || this.plot.matrix.selected ? "" : " (strongest at the origin)";
    this.chartTitle.replaceChildren("activation through the layers on ",
      element("b", { text: exactToken(tokens[position]) }), ` at position ${position}${chosen}`);
    const width = Math.max(240, this.chart.clientWidth);
    this.drawing.setAttribute("width", String(width));
    this.drawing.setAttribute("aria-label", `Line chart: ${this.chartTitle.textContent}`);
    const { left, right, top, bottom, height } = CHART;
    const ticks = roundTicks(this.data.largest, 4);
    const highest = ticks[ticks.length - 1] || 1;
    const x = (/** @type {number} */ i) => left + ((i + 0.5) / sites.length) * (width - left - right);
    const y = (/** @type {number} */ v) => height - bottom - (Math.max(0, v) / highest) * (height - bottom - top);
    const parts = [...this.axisParts(x, y, ticks, width), ...this.seriesParts(x, y, position, width)];
    this.drawing.replaceChildren(...parts);
  }

  /**
   * @param {(i: number) => number} x
   * @param {(v: number) => number} y
   * @param {number[]} ticks
   * @param {number} width
   * @returns {Node[]}
   */
  axisParts(x, y, ticks, width) {
    const { sites, origin } = this.data;
    const { left, right, top, bottom, height } = CHART;
    const parts = ticks.flatMap((tick) => [
      svg("line", { class: "wb-grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end", text: short(tick) }),
    ]);
    const layers = [...new Set(sites.map((site) => site.layer))];
    const every = Math.ceil((layers.length * 22) / (width - left - right));
    layers.forEach((layer, k) => {
      const inside = sites.flatMap((site, i) => (site.layer === layer ? [i] : []));
      if (k % every) return;
      const middle = (x(inside[0]) + x(inside[inside.length - 1])) / 2;
      const edge = (x(inside[0]) + x(inside[0] - 1)) / 2;
      if (k) parts.push(svg("line", { class: "wb-grid", x1: edge, x2: edge, y1: height - bottom, y2: height - bottom + 6 }));
      parts.push(svg("text", { x: middle, y: height - bottom + 16, "text-anchor": "middle", text: layer }));
    });
    parts.push(
      svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle", text: "layer" }),
      svg("text", { x: 0, y: 11, text: this.model.get("unit") }),
    );
    if (origin >= 0 && origin < sites.length) {
      parts.push(
        svg("line", { class: "wb-origin-line", x1: x(origin), x2: x(origin), y1: top - 3, y2: height - bottom }),
        svg("text", { class: "wb-origin-text", x: x(origin), y: top - 7, "text-anchor": "middle", text: "origin" }),
      );
    }
    const guide = this.plot.pointed?.row ?? -1;
    if (guide >= 0) parts.push(svg("line", { class: "wb-guide", x1: x(guide), x2: x(guide), y1: top, y2: height - bottom }));
    return parts;
  }

  /**
   * One line a kind of site, named at its right end.
   * @param {(i: number) => number} x
   * @param {(v: number) => number} y
   * @param {number} position
   * @param {number} width
   * @returns {Node[]}
   */
  seriesParts(x, y, position, width) {
    const { sites } = this.data;
    const kinds = [...new Set(sites.map((site) => site.kind))];
    const names = kinds.map((kind) => {
      const last = sites.map((site) => site.kind).lastIndexOf(kind);
      return { kind, last, at: y(this.value(position, last)) };
    }).sort((a, b) => a.at - b.at);
    // Names of lines that end close together are pushed apart; then the stack is kept inside.
    names.forEach((name, i) => { if (i) name.at = Math.max(name.at, names[i - 1].at + 14); });
    const over = (names.at(-1)?.at ?? 0) - (CHART.height - CHART.bottom);
    return names.flatMap(({ kind, at }) => {
      const colour = `var(--wb-${kind in MARKS ? kind : "embed"})`;
      const own = sites.flatMap((site, i) => (site.kind === kind ? [i] : []));
      const points = own.map((i) => /** @type {const} */ ([x(i), y(this.value(position, i))]));
      const line = svg("polyline", { class: "wb-series", points: points.map((p) => p.join(",")).join(" ") });
      line.style.stroke = colour;
      const marks = points.map(([px, py]) => {
        const mark = svg("path", { class: "wb-point", d: MARKS[kind] ?? MARKS.embed, transform: `translate(${px} ${py})` });
        mark.style.fill = colour;
        return mark;
      });
      const name = svg("text", {
        class: "wb-series-name", x: width - CHART.right + 10, y: at + 4 - Math.max(0, over), text: kind,
      });
      name.style.fill = colour;
      return [line, ...marks, name];
    });
  }

  /** Pointing at the chart points at the site below the mouse. @param {PointerEvent} event */
  pointInChart(event) {
    const { sites } = this.data;
    const frame = this.drawing.getBoundingClientRect();
    const share = (event.clientX - frame.left - CHART.left) / (frame.width - CHART.left - CHART.right);
    const row = Math.floor(share * sites.length);
    if (row < 0 || row >= sites.length) return this.plot.point(null);
    this.plot.point({ position: this.shownPosition(), row });
    const x = frame.left + CHART.left + ((row + 0.5) / sites.length) * (frame.width - CHART.left - CHART.right);
    return this.frame.card.place({ left: x, right: x, top: frame.top, bottom: frame.bottom }, "below");
  }
}

/** @param {{model: Model, el: HTMLElement}} view */
function render(view) {
  const widget = new EvolutionMap(view);
  return () => widget.frame.cleanup();
}

export default { render };
