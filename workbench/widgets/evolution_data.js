// @ts-check
/**
 * The numbers behind the evolution map: what the traits hold, and what follows from them.
 *
 * A node is a row of `values`. The column -1 stands for the maximum over the scored tokens.
 */

import { axisToken, exactToken, floats } from "./shared.js";
/** @typedef {import("./shared.js").Model} Model */
/** @typedef {"carried" | "mlp" | "attention" | "new"} Birth */
/** @typedef {"similar" | "carries" | "causes"} Tie */
/** @typedef {"carried" | "mlp" | "attention" | "new" | "unknown"} Colour */

/**
 * @typedef {object} MapNode
 * @property {number} layer
 * @property {string} kind
 * @property {number} index
 * @property {number} [map]
 * @property {string} [label]
 * @property {number | null} [cosine]
 * @property {number | null} [null]
 * @property {number | null} [correlation]
 * @property {number | null} [correlation_null]
 * @property {Birth | null} [birth]
 * @property {string | null} [trend]
 * @property {number[]} [children]
 * @property {number[]} [parents]
 * @property {number} [attribution]
 * @property {number} [maximum]
 */

/** @typedef {{source: number, target: number, tie: Tie, strength: number, margin: number}} Link */
/** @typedef {{title: string, origin: number, target?: string}} MapRecord */
/** @typedef {{text: string, nodes: number[]}} EditRecord */

export const KIND_ORDER = ["embed", "att", "transcoder", "mlp", "res"];
/** @type {Record<string, string>} */
export const KIND_WORDS = {
  embed: "embedding", att: "attention", transcoder: "transcoder", mlp: "MLP", res: "residual stream",
};
/** The colour of a sub-layer's features is that of the births that it gives. @type {Record<string, Colour>} */
const COLOUR_OF_KIND = { att: "attention", mlp: "mlp", transcoder: "mlp", embed: "carried" };
export const MAXIMUM = -1;

export class EvolutionData {
  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    /** @type {MapNode[]} */
    this.nodes = [];
    /** @type {Link[]} */
    this.links = [];
    /** @type {MapRecord[]} */
    this.maps = [];
    /** @type {string[]} */
    this.tokens = [];
    /** @type {string[]} */
    this.otherTokens = [];
    /** @type {string[]} */
    this.names = [];
    /** @type {EditRecord[]} */
    this.edits = [];
    /** @type {Set<number>} columns that are not scored */
    this.masked = new Set();
    /** @type {Float32Array} */
    this.values = new Float32Array(0);
    /** @type {Float32Array | null} */
    this.edited = null;
    this.fits = true;
    /** @type {{value: number, column: number}[]} */
    this.peaks = [];
    /** @type {{value: number, column: number}[] | null} */
    this.editedPeaks = null;
    this.largest = 1;
    this.strongestEffect = 1;
    /** @type {Set<number>} nodes that an edit acts on */
    this.changed = new Set();
    this.own = false;
    this.load();
  }

  /** Take in the traits. */
  load() {
    const get = (/** @type {string} */ name) => this.model.get(name);
    this.nodes = get("nodes") ?? [];
    this.links = get("links") ?? [];
    this.maps = get("maps") ?? [];
    this.tokens = get("tokens") ?? [];
    this.otherTokens = get("other_tokens") ?? [];
    this.names = get("names") ?? ["run", "other"];
    this.edits = get("edits") ?? [];
    this.masked = new Set(/** @type {number[]} */ (get("masked") ?? []));
    this.values = floats(get("values"));
    const edited = floats(get("edited"));
    const size = this.nodes.length * this.tokens.length;
    this.fits = this.values.length === size;
    this.edited = edited.length === size && size > 0 ? edited : null;
    this.peaks = this.peaksOf(this.values);
    this.editedPeaks = this.edited ? this.peaksOf(this.edited) : null;
    // What is no kin must not make the others small.
    this.largest = this.peaks.reduce((most, one, row) => (this.counts(row) ? Math.max(most, one.value) : most), 0) || 1;
    this.strongestEffect = this.links.reduce((most, link) => (link.tie === "causes" ? Math.max(most, Math.abs(link.strength)) : most), 0) || 1;
    this.changed = new Set(this.edits.flatMap((edit) => edit.nodes));
    this.own = get("scale") === "own";
  }

  /** Largest scored value of each node, and its column; column -1 where nothing fires. @param {Float32Array} values */
  peaksOf(values) {
    const width = this.tokens.length;
    return this.nodes.map((_, row) => {
      let [value, column] = [0, -1];
      for (let at = 0; this.fits && at < width; at += 1) {
        const found = values[row * width + at];
        if (found > value && !this.masked.has(at)) [value, column] = [found, at];
      }
      return { value, column };
    });
  }

  /** @param {number} row @param {number} column */
  value(row, column) {
    return column === MAXIMUM ? this.peaks[row].value : this.values[row * this.tokens.length + column];
  }

  /** The same under the edits. @param {number} row @param {number} column @returns {number | null} */
  after(row, column) {
    if (!this.edited || !this.editedPeaks) return null;
    return column === MAXIMUM ? this.editedPeaks[row].value : this.edited[row * this.tokens.length + column];
  }

  /** A value as a share of what counts as full size. @param {number} row @param {number} value */
  share(row, value) {
    if (!(value > 0)) return 0;
    const node = this.nodes[row];
    const full = this.own ? node.maximum || this.peaks[row].value || 1 : this.largest;
    return value / full;
  }

  /** @param {number} row */
  mapOf(row) {
    return this.nodes[row].map ?? 0;
  }

  /** The nodes of a map, in execution order. @param {number} map */
  rowsOf(map) {
    return this.nodes.flatMap((_, row) => (this.mapOf(row) === map ? [row] : []));
  }

  /** Cosine above the null; where no null is known, as large as can be. @param {number} row */
  margin(row) {
    const { cosine } = this.nodes[row];
    const nullOf = this.nodes[row].null;
    return cosine === null || cosine === undefined || nullOf === null || nullOf === undefined ? 1 : cosine - nullOf;
  }

  /** Whether a node is kin to the origin. @param {number} row */
  counts(row) {
    return this.margin(row) > 0;
  }

  /**
   * What the threshold is held against: of cosines their margin, of effects their share of the largest.
   * @param {Link} link
   */
  linkMargin(link) {
    return link.tie === "causes" ? link.margin / this.strongestEffect : link.margin;
  }

  /** How thick a link is drawn, 0 to 1. @param {Link} link */
  linkShare(link) {
    return Math.min(1, Math.abs(link.strength) / (link.tie === "causes" ? this.strongestEffect : 1));
  }

  /** @param {number} row @param {number} threshold */
  shows(row, threshold) {
    return this.margin(row) >= threshold || row === this.maps[this.mapOf(row)]?.origin;
  }

  /** @param {Link} link @param {number} threshold */
  showsLink(link, threshold) {
    return this.linkMargin(link) >= threshold && this.shows(link.source, threshold) && this.shows(link.target, threshold);
  }

  /** The range of the threshold: from showing all to the largest margin. */
  margins() {
    const all = this.nodes.map((_, row) => this.margin(row)).concat(this.links.map((link) => this.linkMargin(link)));
    const low = Math.min(0, ...all);
    return { low: Math.floor(low * 100) / 100, high: Math.max(0.01, Math.ceil(Math.max(0, ...all) * 100) / 100) };
  }

  /** @param {number} row @returns {Colour} */
  colour(row) {
    const { birth, kind } = this.nodes[row];
    return birth ?? COLOUR_OF_KIND[kind] ?? "unknown";
  }

  /** The births that are to be explained. */
  coloursSeen() {
    return new Set(this.nodes.flatMap((_, row) => (this.counts(row) ? [this.colour(row)] : [])));
  }

  /** A node in a few words. @param {number} row */
  name(row) {
    const { layer, kind, index } = this.nodes[row];
    return `${placeOf(layer, kind)} · ${index}`;
  }

  /** A token as it is, of both texts where they differ. @param {number} column */
  token(column) {
    return joined(this.tokens[column] ?? "", this.otherTokens.length ? this.otherTokens[column] : null, exactToken);
  }

  /** Above the columns, where two texts differ. @returns {string[] | null} */
  columnLabels() {
    if (!this.otherTokens.length) return null;
    return this.tokens.map((token, column) => joined(token, this.otherTokens[column], axisToken));
  }

  /** The chosen token in words. @param {number} column */
  columnWords(column) {
    return column === MAXIMUM ? "maximum over the tokens" : `${this.token(column)} (${column})`;
  }
}

/** @param {number} layer @param {string} kind */
export function placeOf(layer, kind) {
  return kind === "embed" ? "embedding" : `layer ${layer} ${kind}`;
}

/** @param {string} token @param {string | null} other @param {(token: string) => string} show */
function joined(token, other, show) {
  if (other === null || other === token) return show(token);
  if (other === "") return `− ${show(token)}`;
  return token === "" ? `+ ${show(other)}` : `${show(token)} → ${show(other)}`;
}
