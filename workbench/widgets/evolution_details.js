// @ts-check
/**
 * The selected node beside the maps, with what can be done with it, and the edits that are in force.
 */

import { element } from "./shared.js";
import { factsOf, noteOf } from "./evolution_words.js";
import { placeOf } from "./evolution_data.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {import("./evolution_data.js").EvolutionData} EvolutionData */

export class NodeDetails {
  /** @param {Frame} frame @param {EvolutionData} data */
  constructor(frame, data) {
    this.frame = frame;
    this.data = data;
    this.row = -1;
    const recorded = Boolean(frame.model.get("recorded"));
    this.place = element("div", { class: "wb-details-place" });
    this.label = element("div", { class: "wb-details-label" });
    this.facts = element("dl", { class: "wb-facts" });
    this.note = element("div", { class: "wb-hint" });
    this.strength = element("input", {
      class: "wb-strength", type: "number", step: "0.5", value: "2", "aria-label": "Strength in typical maxima",
      "data-lm-suppress-shortcuts": "true", disabled: recorded,
    });
    this.buttons = [
      this.ask("Re-centre", "Follow this feature instead", () => ({ type: "centre", node: this.row }), recorded),
      this.ask("Dashboard", "All that is known of it, below", () => ({ type: "open", node: this.row }), recorded),
      this.ask("Ablate", "Run the text again without it", () => ({ type: "ablate", node: this.row }), recorded),
    ];
    const steer = this.ask("Steer", "Run the text again with its direction added", () => (
      { type: "steer", node: this.row, strength: Number(this.strength.value) }), recorded);
    frame.listen(this.strength, "keydown", (event) => { if (event.key === "Enter" && !event.isComposing) steer.click(); });
    const unit = element("span", { class: "wb-hint", text: "× typical maximum" });
    this.actions = element("div", { class: "wb-details-actions" }, ...this.buttons,
      element("span", { class: "wb-steer" }, steer, this.strength, unit));
    this.hint = element("p", {
      class: "wb-hint", text: "Click a node, or move with the arrow keys and press Enter: re-centre the map on it, open its dashboard, or change it and watch the others.",
    });
    this.body = element("div", {}, this.place, this.label, this.actions, this.facts, this.note);
    this.editList = element("div", { class: "wb-edits" });
    this.node = element("aside", { class: "wb-details", "aria-label": "Selected feature" }, this.editList, this.hint, this.body);
    frame.listen(this.editList, "click", (event) => {
      const edit = event.target instanceof Element && event.target.getAttribute("data-edit");
      if (edit) frame.model.send({ type: "drop", edit: Number(edit) });
    });
    frame.watch(["edits", "said"], () => this.showEdits());
    this.showEdits();
  }

  /**
   * @param {string} text
   * @param {string} title
   * @param {() => object} message
   * @param {boolean} recorded
   */
  ask(text, title, message, recorded) {
    const button = element("button", { class: "wb-button", type: "button", text, title, disabled: recorded });
    this.frame.listen(button, "click", () => this.frame.model.send(message()));
    return button;
  }

  /** @param {number} row -1: none @param {number} column */
  show(row, column) {
    const { data } = this;
    this.row = row;
    const node = data.nodes[row];
    this.hint.hidden = Boolean(node);
    this.body.hidden = !node;
    if (!node) return;
    this.place.textContent = `${placeOf(node.layer, node.kind)} · ${node.index}`;
    this.label.textContent = node.label ?? "";
    this.label.hidden = !node.label;
    this.facts.replaceChildren(...factsOf(data, row, column).flatMap(([name, value]) => [
      element("dt", { text: name }), element("dd", { text: value }),
    ]));
    this.note.textContent = noteOf(data, row);
    this.buttons[0].disabled = row === data.maps[data.mapOf(row)]?.origin || Boolean(this.frame.model.get("recorded"));
  }

  /** The edits in force, each with a way to undo it. */
  showEdits() {
    const { frame } = this;
    /** @type {import("./evolution_data.js").EditRecord[]} */
    const edits = frame.model.get("edits") ?? [];
    this.editList.hidden = edits.length === 0;
    const recorded = Boolean(frame.model.get("recorded"));
    const chips = edits.map((edit, number) => {
      const undo = element("button", {
        class: "wb-undo", type: "button", text: "×", "data-edit": number, "aria-label": `Undo: ${edit.text}`, disabled: recorded,
      });
      return element("span", { class: "wb-chip" }, element("span", { text: edit.text }), undo);
    });
    const said = element("div", { class: "wb-said", text: frame.model.get("said") ?? "" });
    said.hidden = !said.textContent;
    this.editList.replaceChildren(...chips, said);
  }
}
