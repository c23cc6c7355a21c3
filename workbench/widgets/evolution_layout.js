// @ts-check
/**
 * Where everything of one map stands: layers from bottom to top, kinds of site from left to right.
 *
 * Pure: numbers in, numbers and path texts out.
 */

import { KIND_ORDER } from "./evolution_data.js";
/** @typedef {import("./evolution_data.js").EvolutionData} EvolutionData */
/** @typedef {{x: number, y: number, room: number}} Place `room`: width to the right of the node */
/** @typedef {{kind: string, left: number, width: number}} Column */

/**
 * @typedef {object} Layout
 * @property {number} width
 * @property {number} height
 * @property {Column[]} columns
 * @property {{layer: number, y: number}[]} layers
 * @property {number} pitch height of a layer
 * @property {number} largest radius of a node of full size
 * @property {boolean} labelled whether there is room for names beside the nodes
 * @property {number} left where the columns begin
 * @property {Map<number, Place>} places by node
 * @property {{x: number, y: number} | null} target where the next token stands
 */

export const MAP_EDGE = { left: 34, right: 8, top: 12, foot: 26, target: 34 };
const LABEL_ROOM = 70;
// From here on one of several maps is drawn as one alone is.
const WIDE = 480;
// An embedding has one site in all.
const COLUMN_WEIGHT = /** @type {Record<string, number>} */ ({ embed: 0.6 });

/**
 * @param {EvolutionData} data
 * @param {number} map
 * @param {number} width
 * @param {boolean} small one of several
 * @returns {Layout}
 */
export function layoutOf(data, map, width, small) {
  const rows = data.rowsOf(map);
  const [lowest, highest] = data.nodes.reduce(([low, high], node) => [Math.min(low, node.layer), Math.max(high, node.layer)], [Infinity, 0]);
  const numbers = Array.from({ length: highest - lowest + 1 }, (_, i) => lowest + i);
  const kinds = [...new Set(data.nodes.map((node) => node.kind))].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  const narrow = small && width < WIDE;
  const pitch = narrow ? bound(300 / numbers.length, 10, 30) : bound((small ? 480 : 600) / numbers.length, small ? 18 : 23, small ? 40 : 50);
  const hasTarget = Boolean(data.maps[map]?.target);
  const top = MAP_EDGE.top + (hasTarget ? MAP_EDGE.target : 0);
  const height = top + numbers.length * pitch + MAP_EDGE.foot;
  const left = MAP_EDGE.left;
  const columns = columnsOf(kinds, left, width - MAP_EDGE.right);
  const largest = Math.min(pitch * 0.46, 20, Math.min(...columns.map((one) => one.width)) * 0.3);
  const layers = numbers.map((layer, i) => ({ layer, y: top + (numbers.length - i - 0.5) * pitch }));
  const labelled = !narrow && Math.max(...columns.map((one) => one.width)) - 2 * largest > LABEL_ROOM;
  const places = placesOf(data, rows, columns, layers, largest, labelled);
  const last = columns[columns.length - 1];
  const target = hasTarget && last ? { x: labelled ? last.left + largest + 4 : last.left + last.width / 2, y: MAP_EDGE.top + 10 } : null;
  return { width, height, columns, layers, pitch, largest, labelled, left, places, target };
}

/** @param {string} kind */
function rank(kind) {
  const at = KIND_ORDER.indexOf(kind);
  return at < 0 ? KIND_ORDER.length : at;
}

/** @param {number} value @param {number} low @param {number} high */
function bound(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

/** @param {string[]} kinds @param {number} from @param {number} to @returns {Column[]} */
function columnsOf(kinds, from, to) {
  const weights = kinds.map((kind) => COLUMN_WEIGHT[kind] ?? 1);
  const whole = weights.reduce((sum, one) => sum + one, 0) || 1;
  let at = from;
  return kinds.map((kind, i) => {
    const width = ((to - from) * weights[i]) / whole;
    at += width;
    return { kind, left: at - width, width };
  });
}

/**
 * Features of one site share the width of its column, the one that matters most first.
 * @param {EvolutionData} data
 * @param {number[]} rows
 * @param {Column[]} columns
 * @param {{layer: number, y: number}[]} layers
 * @param {number} largest
 * @param {boolean} labelled
 */
function placesOf(data, rows, columns, layers, largest, labelled) {
  /** @type {Map<string, number[]>} */
  const cells = new Map();
  for (const row of rows) {
    const { layer, kind } = data.nodes[row];
    const key = `${layer} ${kind}`;
    cells.set(key, [...(cells.get(key) ?? []), row]);
  }
  // The same number of slots in all of a column, so that they stand in lines.
  const slots = new Map(columns.map(({ kind }) => [kind, Math.max(1, ...[...cells.values()].map((cell) => (data.nodes[cell[0]].kind === kind ? cell.length : 0)))]));
  const effect = (/** @type {number} */ row) => Math.abs(data.nodes[row].attribution ?? 0);
  /** @type {Map<number, Place>} */
  const places = new Map();
  for (const cell of cells.values()) {
    const { layer, kind } = data.nodes[cell[0]];
    const column = columns.find((one) => one.kind === kind);
    const line = layers.find((one) => one.layer === layer);
    if (!column || !line) continue;
    const share = column.width / (slots.get(kind) ?? 1);
    cell.sort((a, b) => effect(b) - effect(a)).forEach((row, i) => {
      const from = column.left + i * share;
      const x = labelled ? from + largest + 4 : from + share / 2;
      places.set(row, { x, y: line.y, room: from + share - x - largest - 10 });
    });
  }
  return places;
}

/**
 * The curve of a link, as four points of a cubic.
 * @param {{x: number, y: number}} a
 * @param {{x: number, y: number}} b
 * @param {number} pitch
 * @returns {[number, number, number, number, number, number, number, number]}
 */
export function curveOf(a, b, pitch) {
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  if (Math.abs(dx) < 1) {
    // Over other nodes of the column in a bow, as wide as it is long.
    const span = Math.abs(dy) / pitch;
    const bow = span < 1.5 ? 0 : Math.min(58, 9 + 7 * span);
    return [a.x, a.y, a.x - bow, a.y + dy / 3, b.x - bow, b.y - dy / 3, b.x, b.y];
  }
  if (Math.abs(dy) < 1) {
    const lift = Math.min(pitch * 0.62, 24);
    return [a.x, a.y, a.x + dx / 4, a.y - lift, b.x - dx / 4, b.y - lift, b.x, b.y];
  }
  return [a.x, a.y, a.x, a.y + dy * 0.55, b.x, b.y - dy * 0.55, b.x, b.y];
}

/** @param {number[]} curve */
export function pathOf(curve) {
  const [ax, ay, bx, by, cx, cy, dx, dy] = curve.map((v) => Math.round(v * 10) / 10);
  return `M${ax} ${ay}C${bx} ${by} ${cx} ${cy} ${dx} ${dy}`;
}

/** A point of a cubic and the direction there. @param {number[]} c @param {number} t */
export function pointOn(c, t) {
  const u = 1 - t;
  const at = (/** @type {number} */ k) => u * u * u * c[k] + 3 * u * u * t * c[k + 2] + 3 * u * t * t * c[k + 4] + t * t * t * c[k + 6];
  const slope = (/** @type {number} */ k) =>
    3 * u * u * (c[k + 2] - c[k]) + 6 * u * t * (c[k + 4] - c[k + 2]) + 3 * t * t * (c[k + 6] - c[k + 4]);
  return { x: at(0), y: at(1), angle: Math.atan2(slope(1), slope(0)) };
}

/**
 * The mark of a link that causes: an arrow head if the target falls with its source, a bar if it rises.
 * @param {number[]} curve
 * @param {boolean} excites
 */
export function markOf(curve, excites) {
  const { x, y, angle } = pointOn(curve, 0.62);
  const turn = (/** @type {number} */ px, /** @type {number} */ py) => {
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    return `${(x + px * cos - py * sin).toFixed(1)} ${(y + px * sin + py * cos).toFixed(1)}`;
  };
  return excites ? `M${turn(-4, -4.5)}L${turn(4, 0)}L${turn(-4, 4.5)}Z` : `M${turn(-1.2, -6)}L${turn(1.2, -6)}L${turn(1.2, 6)}L${turn(-1.2, 6)}Z`;
}

/** Outlines around (0, 0), each of the area of the unit circle. @type {Record<string, string>} */
const SHAPES = {
  carried: "M0 -1A1 1 0 1 1 0 1A1 1 0 1 1 0 -1Z",
  mlp: "M-.886 -.886H.886V.886H-.886Z",
  attention: "M0 -1.253L1.253 0L0 1.253L-1.253 0Z",
  new: "M0 -1.555L1.347 .778H-1.347Z",
};

/** The outline of a birth. @param {string} colour */
export function shapeOf(colour) {
  return SHAPES[colour] ?? SHAPES.carried;
}
