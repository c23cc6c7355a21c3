// @ts-check
/** What the cards say of a node and of a link. */

import { exact } from "./shared.js";
import { MAXIMUM, placeOf } from "./evolution_data.js";
/** @typedef {import("./evolution_data.js").EvolutionData} EvolutionData */
/** @typedef {import("./shared.js").CardContent} CardContent */

/** @type {Record<string, string>} */
export const BIRTH_WORDS = {
  carried: "carried over from the layer below",
  mlp: "written by the layer's MLP",
  attention: "written by the layer's attention",
  new: "new: none of them accounts for it",
};
/** @type {Record<string, string>} */
const TIE_WORDS = {
  similar: "similar: both write one direction",
  carries: "carries: passed on by the residual stream",
  causes: "causes: ablating the first changes the second",
};

/** A number short enough for a card. @param {number | null | undefined} value */
function figure(value) {
  return value === null || value === undefined ? "–" : exact(Number(value.toPrecision(4)));
}

/**
 * @param {EvolutionData} data
 * @param {number} row
 * @param {number} column
 * @returns {Array<[string, string]>}
 */
export function factsOf(data, row, column) {
  const node = data.nodes[row];
  /** @type {Array<[string, string]>} */
  const facts = [];
  const [value, after] = [data.value(row, column), data.after(row, column)];
  const shown = Number.isFinite(value) ? figure(value) : "no such token";
  const peak = data.peaks[row].column;
  if (column === MAXIMUM) facts.push(["largest activation", shown], ["on", peak < 0 ? "no token" : data.columnWords(peak)]);
  else facts.push([`activation on ${data.columnWords(column)}`, shown]);
  if (after !== null) facts.push(["under the edits", Number.isFinite(after) ? figure(after) : "no such token"]);
  if (node.attribution !== undefined) facts.push(["attribution to the next token", figure(node.attribution)]);
  if (node.cosine !== null && node.cosine !== undefined) {
    facts.push(["cosine to the origin", figure(node.cosine)]);
    if (node.null !== null && node.null !== undefined) {
      facts.push(["null", figure(node.null)], ["margin", figure(data.margin(row))]);
    }
  }
  if (node.correlation !== null && node.correlation !== undefined) {
    facts.push(["correlation", figure(node.correlation)]);
    if (node.correlation_null !== null && node.correlation_null !== undefined) facts.push(["by chance", figure(node.correlation_null)]);
  }
  if (node.birth) facts.push(["born", BIRTH_WORDS[node.birth]]);
  if (node.trend) facts.push(["trend", node.trend]);
  if (node.children?.length) facts.push(["splits into", node.children.join(", ")]);
  if (node.parents?.length) facts.push(["merges", node.parents.join(", ")]);
  return facts;
}

/** What to know of a node before its numbers. @param {EvolutionData} data @param {number} row */
export function noteOf(data, row) {
  const notes = [];
  if (row === data.maps[data.mapOf(row)]?.origin) notes.push("Origin: the feature that is followed.");
  if (!data.counts(row)) notes.push("Below the null: nearest there is, and no kin.");
  const edits = data.edits.filter((edit) => edit.nodes.includes(row)).map((edit) => edit.text);
  if (edits.length) notes.push(`${edits.join("; ")}.`);
  return notes.join(" ");
}

/** @param {EvolutionData} data @param {number} row @param {number} column @returns {CardContent} */
export function nodeCard(data, row, column) {
  const node = data.nodes[row];
  return {
    title: `${placeOf(node.layer, node.kind)} · ${node.index}`, lead: node.label || undefined,
    facts: factsOf(data, row, column), note: noteOf(data, row) || undefined,
  };
}

/** @param {EvolutionData} data @param {number} number @returns {CardContent} */
export function linkCard(data, number) {
  const { source, target, tie, strength, margin } = data.links[number];
  const named = (/** @type {number} */ row) => `${data.name(row)}${data.nodes[row].label ? ` ${data.nodes[row].label}` : ""}`;
  const what = tie === "causes" ? "change of the second's activation" : "cosine";
  const sense = strength < 0 ? "The second falls without the first: it is driven by it." : "The second rises without the first: it is held down by it.";
  return {
    title: `${data.name(source)} → ${data.name(target)}`, lead: TIE_WORDS[tie],
    facts: [["from", named(source)], ["to", named(target)], [what, figure(strength)], ["above its null by", figure(margin)]],
    note: tie === "causes" ? sense : margin <= 0 ? "Not above the null." : undefined,
  };
}
