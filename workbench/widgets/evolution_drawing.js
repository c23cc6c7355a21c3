// @ts-check
/**
 * One map as SVG: built when the data or the width change, then only sizes and classes are set.
 */

import { element, svg } from "./shared.js";
import { KIND_WORDS } from "./evolution_data.js";
import { MAP_EDGE, curveOf, layoutOf, markOf, pathOf, shapeOf } from "./evolution_layout.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {import("./evolution_data.js").EvolutionData} EvolutionData */
/** @typedef {import("./evolution_layout.js").Layout} Layout */
/** @typedef {{node: number} | {link: number} | null} Pointed */
/** @typedef {{column: number, threshold: number, selected: number, pointed: Pointed}} Shown */

/**
 * @typedef {object} Doing what the map tells the widget
 * @property {(pointed: Pointed, at: Element | null) => void} point
 * @property {(node: number) => void} select -1: nothing
 * @property {(text: string, width: number, bold: boolean) => string} fit
 */

const LEAST = 2.6;
const MOST = 1.35;
const TRENDS = /** @type {Record<string, string>} */ ({ strengthening: " ↑", steady: "", fading: " ↓" });

export class MapDrawing {
  /**
   * @param {Frame} frame
   * @param {EvolutionData} data
   * @param {number} map
   * @param {Doing} doing
   */
  constructor(frame, data, map, doing) {
    this.data = data;
    this.map = map;
    this.doing = doing;
    /** @type {Layout | null} */
    this.layout = null;
    /** @type {Map<number, {group: SVGGElement, before: SVGElement, after: SVGElement, cross: SVGElement, ring: SVGElement}>} */
    this.nodes = new Map();
    /** @type {Map<number, SVGGElement>} */
    this.links = new Map();
    /** @type {{threshold: number, pointed: Pointed}} what the links show */
    this.drawn = { threshold: NaN, pointed: null };
    this.title = element("div", { class: "wb-map-title" });
    this.drawing = svg("svg", { class: "wb-map", "aria-hidden": "true" });
    this.holder = element("div", {
      class: "wb-map-holder", tabindex: "0", role: "application", "aria-roledescription": "map of features",
      "aria-label": this.words(), "data-lm-suppress-shortcuts": "true",
    }, this.drawing);
    this.node = element("figure", { class: "wb-map-figure", "data-map": map }, this.title, this.holder);
    frame.listen(this.drawing, "pointermove", (event) => this.follow(event.target));
    frame.listen(this.drawing, "pointerleave", () => doing.point(null, null));
    frame.listen(this.holder, "blur", () => doing.point(null, null));
    frame.listen(this.drawing, "click", (event) => {
      const found = this.targetOf(event.target);
      if (!found) doing.select(-1);
      else if ("node" in found) doing.select(found.node);
    });
  }

  words() {
    const title = this.data.maps[this.map]?.title;
    return `${title ? `${title}: ` : ""}map of features, layers from bottom to top. Arrow keys move, Enter selects, Escape clears.`;
  }

  // ------------------------------------------------------------------------------- pointing

  /** @param {EventTarget | null} target @returns {Pointed} */
  targetOf(target) {
    const hit = target instanceof Element ? target.closest("[data-node], [data-link]") : null;
    if (!hit) return null;
    const node = hit.getAttribute("data-node");
    return node !== null ? { node: Number(node) } : { link: Number(hit.getAttribute("data-link")) };
  }

  /** @param {EventTarget | null} target */
  follow(target) {
    const found = this.targetOf(target);
    this.doing.point(found, found && "node" in found ? this.elementOf(found.node) : found ? /** @type {Element} */ (target) : null);
  }

  /** @param {number} row */
  elementOf(row) {
    return this.nodes.get(row)?.group.querySelector(".wb-hit") ?? null;
  }

  /**
   * The node that an arrow key leads to: the nearest in that direction.
   * @param {number} from
   * @param {string} key
   * @param {(row: number) => boolean} shown
   */
  neighbour(from, key, shown) {
    const layout = this.layout;
    const here = layout?.places.get(from);
    if (!layout || !here) return from;
    const [right, up] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key] ?? [0, 0];
    let [best, least] = [from, Infinity];
    for (const [row, place] of layout.places) {
      if (row === from || !shown(row)) continue;
      const [dx, dy] = [place.x - here.x, here.y - place.y];
      const along = dx * right + dy * up;
      const across = Math.abs(dx * up) + Math.abs(dy * right);
      const cost = along + 3 * across;
      if (along > 1 && cost < least) [best, least] = [row, cost];
    }
    return best;
  }

  // -------------------------------------------------------------------------------- building

  /** @param {number} width @param {boolean} small */
  build(width, small) {
    const { data, map } = this;
    const layout = layoutOf(data, map, width, small);
    this.layout = layout;
    const title = data.maps[map]?.title ?? "";
    this.title.textContent = title;
    this.title.hidden = title === "";
    this.holder.setAttribute("aria-label", this.words());
    this.node.classList.toggle("wb-small", small);
    this.drawing.setAttribute("width", String(width));
    this.drawing.setAttribute("height", String(layout.height));
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${layout.height}`);
    this.nodes.clear();
    this.links.clear();
    this.drawn = { threshold: NaN, pointed: null };
    this.drawing.classList.remove("wb-dimmed");
    const links = data.links.flatMap((link, i) => (data.mapOf(link.source) === map ? [this.linkPart(i, layout)] : []));
    const nodes = [...layout.places.keys()].map((row) => this.nodePart(row, layout));
    this.drawing.replaceChildren(...this.ground(layout), ...this.targetParts(layout),
      svg("g", { class: "wb-links" }, ...links), svg("g", { class: "wb-nodes" }, ...nodes));
  }

  /** Layers, kinds of site, and the residual stream as a band. @param {Layout} layout */
  ground(layout) {
    const { columns, layers, left, width, pitch, height } = layout;
    const bottom = height - MAP_EDGE.foot;
    /** @type {Node[]} */
    const parts = [];
    const stream = columns.find((column) => column.kind === "res");
    const middle = stream && (layout.labelled ? stream.left + layout.largest + 4 : stream.left + stream.width / 2);
    if (stream && middle !== undefined) {
      const half = layout.largest + 4;
      parts.push(svg("rect", { class: "wb-stream", x: middle - half, y: layers[layers.length - 1].y - pitch / 2, width: 2 * half, height: bottom - layers[layers.length - 1].y + pitch / 2, rx: 5 }));
    }
    const every = Math.max(1, Math.ceil(13 / pitch));
    for (const { layer, y } of layers) {
      parts.push(svg("line", { class: "wb-grid", x1: left - 6, x2: width, y1: y + pitch / 2, y2: y + pitch / 2 }));
      if (layer % every === 0) parts.push(svg("text", { class: "wb-layer", x: left - 12, y: y + 4, "text-anchor": "end", text: layer }));
    }
    for (const column of columns) {
      const word = layout.labelled || column.width > 92 ? KIND_WORDS[column.kind] ?? column.kind : column.kind;
      const x = layout.labelled ? column.left + 2 : column.left + column.width / 2;
      parts.push(svg("text", { class: "wb-kind", x, y: bottom + 17, "text-anchor": layout.labelled ? "start" : "middle", text: word }));
    }
    parts.push(svg("text", { class: "wb-kind", x: 0, y: bottom + 17, text: "layer" }));
    return parts;
  }

  /** The next token, and what each feature has to do with it. @param {Layout} layout */
  targetParts(layout) {
    const { data, map } = this;
    const { target } = layout;
    if (!target) return [];
    const rows = data.rowsOf(map);
    const most = rows.reduce((top, row) => Math.max(top, Math.abs(data.nodes[row].attribution ?? 0)), 0) || 1;
    const lines = rows.flatMap((row) => {
      const place = layout.places.get(row);
      const effect = data.nodes[row].attribution ?? 0;
      if (!place || effect === 0) return [];
      const line = svg("path", { class: "wb-effect", "data-sign": effect > 0 ? "more" : "less", "data-of": row, d: pathOf(curveOf(place, target, layout.pitch)) });
      line.style.strokeWidth = `${1 + (7 * Math.abs(effect)) / most}px`;
      return [line];
    });
    return [...lines, svg("circle", { class: "wb-target", cx: target.x, cy: target.y, r: 6 }),
      svg("text", { class: "wb-target-name", x: target.x + 12, y: target.y + 4, text: `next token ${data.maps[map].target}` })];
  }

  /** @param {number} number @param {Layout} layout */
  linkPart(number, layout) {
    const link = this.data.links[number];
    const [from, to] = [layout.places.get(link.source), layout.places.get(link.target)];
    const group = svg("g", { class: "wb-link", "data-link": number, "data-tie": link.tie });
    this.links.set(number, group);
    if (!from || !to) return group;
    const curve = curveOf(from, to, layout.pitch);
    const d = pathOf(curve);
    const line = svg("path", { class: "wb-line", d });
    const most = Math.max(2, Math.min(6, layout.pitch / 7));
    line.style.strokeWidth = `${(0.7 + (most - 0.7) * this.data.linkShare(link)).toFixed(2)}px`;
    group.append(svg("path", { class: "wb-hit", d }), line);
    // An ablation that lowers the target says that the source drives it.
    if (link.tie === "causes") group.append(svg("path", { class: "wb-mark", d: markOf(curve, link.strength < 0) }));
    return group;
  }

  /** @param {number} row @param {Layout} layout */
  nodePart(row, layout) {
    const { data } = this;
    const node = data.nodes[row];
    const place = layout.places.get(row) ?? { x: 0, y: 0, room: 0 };
    const d = shapeOf(data.colour(row));
    const before = svg("path", { class: "wb-before", d });
    const after = svg("path", { class: "wb-after", d });
    const cross = svg("path", { class: "wb-cross", d: "M-4 -4L4 4M-4 4L4 -4" });
    const group = svg("g", {
      class: data.counts(row) ? "wb-node" : "wb-node wb-unrelated", "data-node": row, "data-birth": data.colour(row),
      transform: `translate(${place.x.toFixed(1)} ${place.y.toFixed(1)})`,
    }, ...this.forks(row, layout), before, after, cross,
    // On top, and for small marks larger than they are: links between layers keep their room.
    svg("circle", { class: "wb-hit", r: Math.max(7, Math.min(layout.pitch * 0.36, layout.largest + 3)) }));
    const ring = svg("circle", { class: "wb-origin", r: 9 });
    if (data.maps[this.map]?.origin === row) group.append(ring);
    if (layout.labelled && place.room > 22) {
      const words = `${node.index}${node.label ? ` ${node.label}` : ""}`;
      const trend = TRENDS[node.trend ?? ""] ?? "";
      const text = `${this.doing.fit(words, place.room - (trend ? 12 : 0), data.maps[this.map]?.origin === row)}${trend}`;
      group.append(svg("text", { class: "wb-name", x: layout.largest + 7, y: 4, text }));
    }
    this.nodes.set(row, { group, before, after, cross, ring });
    return group;
  }

  /** Short ticks above a node that splits, below one in which others merge. @param {number} row @param {Layout} layout */
  forks(row, layout) {
    const { children = [], parents = [] } = this.data.nodes[row];
    const size = Math.min(layout.pitch / 2, layout.largest + 4);
    const fan = (/** @type {number} */ count, /** @type {number} */ way) => Array.from({ length: Math.min(count, 4) }, (_, i) => {
      const angle = ((i - (Math.min(count, 4) - 1) / 2) * Math.PI) / 7;
      const [x, y] = [Math.sin(angle), -way * Math.cos(angle)];
      return svg("line", { class: "wb-fork", x1: 0, y1: 0, x2: (x * size * 1.25).toFixed(1), y2: (y * size * 1.25).toFixed(1) });
    });
    return [...(children.length > 1 ? fan(children.length, 1) : []), ...(parents.length > 1 ? fan(parents.length, -1) : [])];
  }

  // -------------------------------------------------------------------------------- updating

  /** @param {Shown} shown */
  show({ column, threshold, selected, pointed }) {
    const { data, layout } = this;
    if (!layout) return;
    for (const [row, parts] of this.nodes) {
      const visible = data.shows(row, threshold);
      const cap = data.counts(row) ? MOST : 1;
      parts.group.classList.toggle("wb-away", !visible);
      if (!visible) continue;
      const value = data.value(row, column);
      const after = data.after(row, column);
      const radius = this.radius(data.share(row, value), cap);
      const inner = after === null ? radius : this.radius(data.share(row, after), cap);
      parts.after.setAttribute("transform", `scale(${inner.toFixed(2)})`);
      // Round everything that the shape is: a square reaches further than a circle of its area.
      parts.ring.setAttribute("r", (1.3 * Math.max(inner, after === null ? 0 : radius, 4) + 3).toFixed(1));
      parts.before.setAttribute("transform", `scale(${radius.toFixed(2)})`);
      parts.group.classList.toggle("wb-off", !((after ?? value) > 0));
      parts.group.classList.toggle("wb-compared", after !== null);
      parts.group.classList.toggle("wb-changed", data.changed.has(row));
      parts.group.classList.toggle("wb-selected", row === selected);
    }
    // Another token leaves the links as they are, and there may be hundreds.
    if (this.drawn.threshold !== threshold) {
      for (const [number, group] of this.links) {
        const link = data.links[number];
        group.classList.toggle("wb-away", !data.showsLink(link, threshold));
        group.classList.toggle("wb-weak", link.margin <= 0);
      }
    }
    if (this.drawn.pointed !== pointed) this.light(pointed);
    this.drawn = { threshold, pointed };
  }

  /** The area says the activation. @param {number} share @param {number} cap */
  radius(share, cap) {
    return Math.max(LEAST, Math.min(cap, Math.sqrt(share)) * (this.layout?.largest ?? 0));
  }

  /** What belongs to the thing pointed at stands out. @param {Pointed} pointed */
  light(pointed) {
    const { data } = this;
    const lit = new Set();
    const near = (/** @type {import("./evolution_data.js").Link} */ link, /** @type {number} */ number) =>
      pointed && ("link" in pointed ? pointed.link === number : link.source === pointed.node || link.target === pointed.node);
    for (const [number, group] of this.links) {
      const link = data.links[number];
      const on = Boolean(near(link, number));
      group.classList.toggle("wb-lit", on);
      if (on) lit.add(link.source).add(link.target);
    }
    if (pointed && "node" in pointed) lit.add(pointed.node);
    for (const [row, { group }] of this.nodes) group.classList.toggle("wb-lit", lit.has(row));
    const here = lit.size > 0 && [...lit].some((row) => this.nodes.has(row));
    this.drawing.classList.toggle("wb-dimmed", here);
  }
}
