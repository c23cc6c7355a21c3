// @ts-check
/**
 * Feature heatmap: which features fire on which token.
 *
 * From Python: tokens, features, values (float32, row-major (position, feature)), masked, scale, unit,
 * selected. To Python: selected and scale. Hover, keyboard cursor and scrolling stay here.
 */

import {
  Frame, Legend, decimalsFor, element, exact, exactToken, fixed, floats, makeScale, percent, proseToken,
  segmented, stepOf,
} from "./shared.js";
import { MatrixPlot } from "./matrix.js";
/** @typedef {import("./shared.js").Model} Model */
/** @typedef {import("./matrix.js").Cell} Cell */
/** @typedef {{id: number, label?: string, max?: number | null}} Feature */

class FeatureHeatmap {
  /** @param {{model: Model, el: HTMLElement}} view */
  constructor(view) {
    this.model = view.model;
    this.frame = new Frame(view, "wb-feature-heatmap");
    this.data = this.read();
    this.scale = makeScale("linear", 0, 1);
    const toggle = segmented(this.frame, "Colour scale", [["linear", "linear"], ["log", "log"]],
      () => this.model.get("scale"), (value) => this.frame.save("scale", value));
    this.frame.tools.prepend(toggle.node);
    this.caption = element("div", { class: "wb-strip-caption" });
    this.strip = element("div", { class: "wb-strip" });
    this.empty = element("div", { class: "wb-empty", hidden: true });
    this.plot = this.makePlot();
    this.legend = new Legend(this.frame);
    this.frame.body.append(this.caption, this.strip, this.empty, this.plot.scroller, this.legend.node);
    this.stripFeature = -1;
    this.listenToStrip();
    this.frame.watch(["tokens", "features", "values", "masked"], () => this.load());
    this.frame.watch(["scale", "unit"], () => { toggle.refresh(); this.rescale(); });
    this.frame.watch(["selected"], () => this.showSelection());
    this.frame.onDraw(() => { this.showLegend(); this.colourStrip(); });
    this.load();
  }

  makePlot() {
    return new MatrixPlot(this.frame, {
      leftTitle: "feature",
      rightTitle: "max",
      leftWidth: (width) => Math.round(Math.min(250, Math.max(150, width * 0.27))),
      rightWidth: () => 54,
      left: (context, row, box, paint) => this.paintFeature(context, row, box, paint),
      right: (context, row, box, paint) => {
        context.font = `12px ${paint.face}`;
        context.textAlign = "right";
        context.fillText(fixed(this.data.rowMax[row], this.data.decimals), box.x + 46, box.y);
      },
    }, {
      label: "Heatmap of feature activations. Arrow keys move, Enter selects, Escape clears.",
      point: (cell) => this.point(cell),
      select: (cell) => this.select(cell ? [cell.position, cell.row] : []),
    });
  }

  /** Everything that follows from the traits alone. */
  read() {
    /** @type {string[]} */
    const tokens = this.model.get("tokens") ?? [];
    /** @type {Feature[]} */
    const features = this.model.get("features") ?? [];
    const values = floats(this.model.get("values"));
    const masked = new Set(/** @type {number[]} */ (this.model.get("masked") ?? []));
    const fits = values.length === tokens.length * features.length;
    const rowMax = features.map(() => 0);
    const rowPeak = features.map(() => -1);
    let smallest = Infinity;
    for (let position = 0; fits && position < tokens.length; position += 1) {
      if (masked.has(position)) continue;
      for (let row = 0; row < features.length; row += 1) {
        const value = values[position * features.length + row];
        if (value > 0 && value < smallest) smallest = value;
        if (value > rowMax[row]) {
          rowMax[row] = value;
          rowPeak[row] = position;
        }
      }
    }
    const largest = rowMax.reduce((a, b) => Math.max(a, b), 0);
    return {
      tokens, features, values, masked, fits, rowMax, rowPeak, smallest, largest,
      strongest: rowMax.indexOf(largest), decimals: decimalsFor(largest),
    };
  }

  /** @param {number} position @param {number} row */
  value(position, row) {
    return this.data.values[position * this.data.features.length + row];
  }

  load() {
    const data = this.read();
    this.data = data;
    const shown = data.fits && data.tokens.length > 0 && data.features.length > 0;
    this.empty.hidden = shown;
    this.empty.textContent = data.fits ? "No features to show."
      : `${data.values.length} values for ${data.tokens.length} tokens × ${data.features.length} features.`;
    for (const node of [this.caption, this.strip, this.plot.scroller, this.legend.node]) node.hidden = !shown;
    this.strip.replaceChildren(...data.tokens.map((token, position) => element("span", {
      text: proseToken(token), "data-position": position, "data-off": data.masked.has(position),
    })));
    this.plot.update({
      tokens: data.tokens, rows: shown ? data.features.length : 0, masked: data.masked,
      value: (position, row) => this.value(position, row),
    });
    this.rescale();
    this.showSelection();
  }

  rescale() {
    this.scale = makeScale(this.model.get("scale"), this.data.smallest, this.data.largest);
    this.plot.update({ share: this.scale.share });
  }

  showLegend() {
    const masked = this.data.masked.size ? `not scored${this.data.masked.has(0) ? " (BOS)" : ""}` : "";
    this.legend.show(this.scale, this.model.get("scale"), this.model.get("unit"), masked);
  }

  // ------------------------------------------------------------------------------ selecting

  /** @param {number[]} selected */
  select(selected) {
    this.frame.save("selected", selected);
    this.showSelection();
  }

  showSelection() {
    const [position, row] = this.model.get("selected") ?? [];
    const cell = row === undefined ? null : { position, row };
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
    const { tokens, features, masked, rowMax, rowPeak } = this.data;
    const token = position >= 0 ? exactToken(tokens[position]) : "";
    if (row < 0) {
      const note = masked.has(position) ? "not scored" : undefined;
      return { title: token, facts: [["position", String(position)]], note };
    }
    const feature = features[row];
    const lead = `${feature.id}${feature.label ? ` · ${feature.label}` : ""}`;
    const typical = feature.max && feature.max > 0 ? feature.max : null;
    /** @type {Array<[string, string]>} */
    const facts = typical ? [["typical maximum", exact(typical)]] : [];
    if (position < 0) {
      const peak = rowPeak[row];
      facts.unshift(["maximum here", exact(rowMax[row])]);
      if (peak >= 0) facts.push(["strongest on", `${exactToken(tokens[peak])} (${peak})`]);
      return { title: `feature ${feature.id}`, lead: feature.label, facts };
    }
    const value = this.value(position, row);
    const reference = typical ?? rowMax[row];
    const share = reference > 0 ? percent(value / reference) : "–";
    const name = typical ? "share of its typical maximum" : "share of its maximum here";
    const own = /** @type {Array<[string, string]>} */ ([["position", String(position)], ["activation", exact(value)]]);
    if (masked.has(position)) {
      return { title: token, lead, facts: own, note: "Masked: not scored, not coloured." };
    }
    return { title: token, lead, facts: [...own, [name, share]] };
  }

  // ------------------------------------------------------------------------------ the strip

  /** The feature that the strip shows: pointed at, else selected, else the strongest. */
  shownFeature() {
    const pointed = this.plot.pointed;
    if (pointed && pointed.row >= 0) return pointed.row;
    return this.plot.matrix.selected?.row ?? this.data.strongest;
  }

  colourStrip() {
    const row = this.shownFeature();
    const feature = this.data.features[row];
    if (!feature) return;
    const { ramp } = this.frame;
    const on = this.plot.pointed?.position ?? this.plot.matrix.selected?.position;
    this.caption.replaceChildren("tokens coloured by feature ",
      element("b", { text: `${feature.id}${feature.label ? ` · ${feature.label}` : ""}` }));
    for (const [position, node] of Array.from(this.strip.children).entries()) {
      const span = /** @type {HTMLElement} */ (node);
      span.toggleAttribute("data-on", position === on);
      if (this.data.masked.has(position)) continue;
      const step = stepOf(this.scale.share(this.value(position, row)));
      span.style.backgroundColor = step > 0 ? ramp.css[step] : "";
      span.style.color = step > 0 ? ramp.ink[step] : "";
    }
  }

  listenToStrip() {
    const cellOf = (/** @type {Event} */ event) => {
      const target = /** @type {HTMLElement} */ (event.target).closest("[data-position]");
      const row = this.plot.matrix.selected?.row ?? this.data.strongest;
      return target instanceof HTMLElement ? { position: Number(target.dataset.position), row } : null;
    };
    this.frame.listen(this.strip, "pointerover", (event) => {
      const cell = cellOf(event);
      this.plot.point(cell);
      if (cell) this.frame.card.place(event.target.getBoundingClientRect(), "below");
    });
    this.frame.listen(this.strip, "pointerleave", () => this.plot.point(null));
    this.frame.listen(this.strip, "click", (event) => {
      const cell = cellOf(event);
      if (!cell) return;
      this.plot.reveal(cell);
      this.plot.choose(cell);
    });
  }

  /**
   * The row's number and label, the number right-aligned in its own column.
   * @param {CanvasRenderingContext2D} context
   * @param {number} row
   * @param {import("./matrix.js").RowBox} box
   * @param {import("./matrix.js").Paint} paint
   */
  paintFeature(context, row, box, paint) {
    const feature = this.data.features[row];
    const digits = this.data.features.reduce((n, f) => Math.max(n, String(f.id).length), 1);
    const numbers = digits * 7.4 + 2;
    context.textAlign = "right";
    context.font = `12px ${paint.face}`;
    context.fillStyle = box.strong ? paint.ink : paint.faint;
    context.fillText(String(feature.id), numbers, box.y);
    context.textAlign = "left";
    context.font = `${box.strong ? 600 : 400} 12.5px ${paint.face}`;
    context.fillStyle = box.strong ? paint.ink : paint.soft;
    context.fillText(this.plot.fit(feature.label || "", box.width - numbers - 20), numbers + 10, box.y);
  }
}

/** @param {{model: Model, el: HTMLElement}} view */
function render(view) {
  const widget = new FeatureHeatmap(view);
  return () => widget.frame.cleanup();
}

export default { render };
