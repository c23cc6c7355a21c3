// @ts-check
/** Sliders and switches above the maps, and the legend that says in words what is drawn. */

import { element, fixed, segmented, svg } from "./shared.js";
import { MAXIMUM } from "./evolution_data.js";
import { shapeOf } from "./evolution_layout.js";
import { BIRTH_WORDS } from "./evolution_words.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {import("./evolution_data.js").EvolutionData} EvolutionData */

/** @typedef {{column: () => number, setColumn: (column: number, done: boolean) => void, threshold: () => number, setThreshold: (value: number, done: boolean) => void}} Settings */

export class MapControls {
  /** @param {Frame} frame @param {EvolutionData} data @param {Settings} settings */
  constructor(frame, data, settings) {
    this.frame = frame;
    this.data = data;
    this.settings = settings;
    this.token = this.slider("Token", (value, done) => settings.setColumn(this.columns()[value] ?? MAXIMUM, done));
    this.margin = this.slider("Threshold", (value, done) => settings.setThreshold(value, done));
    this.scale = segmented(frame, "Size", [["all", "activation"], ["own", "share of its maximum"]],
      () => frame.model.get("scale"), (value) => frame.save("scale", value));
    this.scale.node.title = "One measure for all features, or each against its own usual maximum";
    frame.watch(["scale"], () => this.scale.refresh());
    this.node = element("div", { class: "wb-map-controls" }, this.token.node, this.margin.node, this.scale.node);
  }

  /** @param {string} name @param {(value: number, done: boolean) => void} set told of every move, and of its end */
  slider(name, set) {
    const input = element("input", { type: "range", "aria-label": name, "data-lm-suppress-shortcuts": "true" });
    const said = element("output", { class: "wb-slider-said" });
    let moved = -Infinity;
    const move = (/** @type {boolean} */ done) => { moved = performance.now(); set(Number(input.value), done); };
    this.frame.listen(input, "input", () => move(false));
    this.frame.listen(input, "change", () => move(true));
    const node = element("label", { class: "wb-map-slider" }, element("span", { text: name }), input, said);
    return { input, said, node, moving: () => performance.now() - moved < 500 };
  }

  /** What the token slider goes through: the maximum, then every scored token. */
  columns() {
    return [MAXIMUM, ...this.data.tokens.map((_, column) => column).filter((column) => !this.data.masked.has(column))];
  }

  show() {
    const { data, token, margin, settings } = this;
    const { low, high } = data.margins();
    const columns = this.columns();
    setRange(token.input, { min: "0", max: String(columns.length - 1), step: "1" }, Math.max(0, columns.indexOf(settings.column())), token.moving());
    setRange(margin.input, { min: String(low), max: String(high), step: "0.01" }, Math.max(low, settings.threshold()), margin.moving());
    const words = settings.column() === MAXIMUM ? "maximum over all" : data.columnWords(settings.column());
    token.said.textContent = words;
    token.input.setAttribute("aria-valuetext", words);
    const hidden = data.nodes.filter((_, row) => !data.shows(row, settings.threshold())).length;
    const bound = settings.threshold() <= low ? "everything" : `margin ≥ ${fixed(settings.threshold(), 2)}`;
    margin.said.textContent = `${bound}${hidden ? `, ${hidden} of ${data.nodes.length} hidden` : ""}`;
    margin.input.setAttribute("aria-valuetext", margin.said.textContent);
  }
}

/**
 * What Python answers may be of a position that the slider has left: it is not put back while it is moved.
 * @param {HTMLInputElement} input
 * @param {Record<string, string>} range
 * @param {number} value
 * @param {boolean} moving
 */
function setRange(input, range, value, moving) {
  for (const [name, bound] of Object.entries(range)) if (input.getAttribute(name) !== bound) input.setAttribute(name, bound);
  if (!moving && Number(input.value) !== value) input.value = String(value);
}

const TIE_LEGEND = /** @type {const} */ ([
  ["similar", "similar: writes the same direction"], ["carries", "carries: passed on or written there"],
  ["causes", "causes: an ablation of one changes the other (arrow: drives it, bar: holds it down)"],
]);

/** @param {EvolutionData} data @returns {HTMLElement} */
export function legendOf(data) {
  const colours = data.coloursSeen();
  const births = Object.entries(BIRTH_WORDS).filter(([birth]) => colours.has(/** @type {any} */ (birth)))
    .map(([birth, words]) => item(glyph(birth, "wb-node", 6), words));
  if (colours.has("unknown")) births.push(item(glyph("unknown", "wb-node", 6), "birth not known"));
  const ties = new Set(data.links.map((link) => link.tie));
  const kinds = TIE_LEGEND.filter(([tie]) => ties.has(tie)).map(([tie, words]) => item(line(tie), words));
  const rest = [item(sizes(), data.own ? "area: activation as a share of the feature's maximum" : "area: activation")];
  if (data.nodes.some((_, row) => !data.counts(row))) rest.push(item(glyph("carried", "wb-node wb-unrelated", 6), "nearest there is, but below the null: no kin"));
  const forked = (/** @type {"children" | "parents"} */ way) => data.nodes.some((node) => (node[way]?.length ?? 0) > 1);
  if (forked("children") || forked("parents")) rest.push(item(forks(), "ticks above: splits in the next layer, below: merges"));
  if (data.nodes.some((node) => node.trend && node.trend !== "steady")) rest.push(item(arrows(), "stronger, weaker than in the layer below"));
  if (data.edited) rest.push(item(compared(), "ring: before the edits, filled: under them"));
  if (data.maps.some((one) => one.target)) rest.push(item(effect(), "blue: raises the next token, orange: lowers it"));
  return element("div", { class: "wb-map-legend" }, ...births, ...kinds, ...rest);
}

/** @param {SVGElement} drawing @param {string} words */
function item(drawing, words) {
  return element("span", { class: "wb-key" }, drawing, element("span", { text: words }));
}

/** @param {number} width @param {...Node} parts */
function small(width, ...parts) {
  return svg("svg", { class: "wb-map wb-key-drawing", width, height: 16, viewBox: `0 0 ${width} 16`, "aria-hidden": "true" }, ...parts);
}

/** @param {string} birth @param {string} kind @param {number} size */
function glyph(birth, kind, size) {
  const shape = svg("path", { class: "wb-after", d: shapeOf(birth), transform: `scale(${size})` });
  return small(18, svg("g", { class: kind, "data-birth": birth, transform: "translate(9 8)" }, shape));
}

/** @param {string} tie */
function line(tie) {
  const group = svg("g", { class: "wb-link", "data-tie": tie }, svg("path", { class: "wb-line", d: "M1 8H33", "stroke-width": 2 }));
  if (tie === "causes") group.append(svg("path", { class: "wb-mark", d: "M17 3.5L25 8L17 12.5Z" }));
  return small(34, group);
}

function sizes() {
  return small(40, ...[[5, 2.5], [16, 4.5], [31, 7]].map(([x, r]) =>
    svg("g", { class: "wb-node", "data-birth": "unknown" }, svg("circle", { class: "wb-after", cx: x, cy: 8, r }))));
}

function forks() {
  const ticks = [[-4, -7], [4, -7]].map(([x, y]) => svg("line", { class: "wb-fork", x1: 0, y1: 0, x2: x, y2: y }));
  return small(18, svg("g", { class: "wb-node", "data-birth": "carried", transform: "translate(9 10)" }, ...ticks,
    svg("circle", { class: "wb-after", r: 3.5 })));
}

function arrows() {
  return small(34, svg("text", { class: "wb-name", x: 9, y: 12, text: "↑ ↓" }));
}

function compared() {
  const before = svg("path", { class: "wb-before", d: shapeOf("carried"), transform: "scale(7)" });
  const after = svg("path", { class: "wb-after", d: shapeOf("carried"), transform: "scale(3.5)" });
  return small(18, svg("g", { class: "wb-node wb-compared", "data-birth": "carried", transform: "translate(9 8)" }, before, after));
}

function effect() {
  return small(34, svg("path", { class: "wb-effect", "data-sign": "more", d: "M1 5H33", "stroke-width": 3 }),
    svg("path", { class: "wb-effect", "data-sign": "less", d: "M1 11H33", "stroke-width": 3 }));
}
