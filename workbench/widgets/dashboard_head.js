// @ts-check
/**
 * Top of the dashboard: the label with its source and its editor, the figures, what is missing.
 */

import { element } from "./shared.js";
import { textButton } from "./steering_controls.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {{text: string, about: string}} Label */

/**
 * A text that becomes a field when it is edited: Enter keeps it, Escape does not.
 */
class Editable {
  /**
   * @param {Frame} frame
   * @param {{name: string, add: string, edit: string, kind: string, get: () => string, keep: (text: string) => void}} options
   */
  constructor(frame, options) {
    this.frame = frame;
    this.options = options;
    this.text = element("span", { class: `wb-editable-text ${options.kind}` });
    this.opener = textButton(options.edit, "wb-edit");
    this.input = element("input", { class: "wb-input wb-editable-input", type: "text", "aria-label": options.name, "data-lm-suppress-shortcuts": "true" });
    this.keeper = textButton("Save", "");
    this.leaver = textButton("Cancel", "");
    this.form = element("span", { class: "wb-editable-form", hidden: true }, this.input, this.keeper, this.leaver);
    this.node = element("div", { class: "wb-editable" }, this.text, this.form, this.opener);
    frame.listen(this.opener, "click", () => this.open());
    frame.listen(this.keeper, "click", () => this.close(true));
    frame.listen(this.leaver, "click", () => this.close(false));
    frame.listen(this.input, "keydown", (event) => {
      if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
      // The focus moves to the button, which the same key would press.
      event.preventDefault();
      this.close(event.key === "Enter");
    });
    this.show();
  }

  show() {
    const text = this.options.get();
    this.text.textContent = text;
    this.text.hidden = text === "" || !this.form.hidden;
    this.opener.textContent = text === "" ? this.options.add : this.options.edit;
  }

  open() {
    this.input.value = this.options.get();
    this.form.hidden = false;
    this.opener.hidden = true;
    this.show();
    this.input.focus();
    this.input.select();
  }

  /** @param {boolean} keep */
  close(keep) {
    const text = this.input.value.trim();
    if (keep && text !== this.options.get()) this.options.keep(text);
    this.form.hidden = true;
    this.opener.hidden = false;
    this.show();
    this.opener.focus();
  }
}

export class Head {
  /** @param {Frame} frame */
  constructor(frame) {
    this.frame = frame;
    const { model } = frame;
    this.label = new Editable(frame, {
      name: "Label of the feature", add: "Add a label", edit: "Edit", kind: "wb-label",
      get: () => model.get("label")?.text ?? "", keep: (text) => model.send({ type: "label", text }),
    });
    this.note = new Editable(frame, {
      name: "Note on the feature", add: "Add a note", edit: "Edit note", kind: "wb-note",
      get: () => model.get("note") ?? "", keep: (text) => model.send({ type: "note", text }),
    });
    this.source = element("span", { class: "wb-hint wb-source" });
    this.label.text.after(this.source);
    this.facts = element("dl", { class: "wb-figures" });
    this.missing = element("div", { class: "wb-missing", role: "note" });
    this.node = element("div", { class: "wb-dashboard-head" }, this.label.node, this.note.node, this.facts, this.missing);
    frame.watch(["label", "note"], () => this.showLabel());
    frame.watch(["facts"], () => this.showFacts());
    frame.watch(["missing", "remedy"], () => this.showMissing());
    this.showLabel();
    this.showFacts();
    this.showMissing();
    if (model.get("recorded")) for (const { opener } of [this.label, this.note]) opener.disabled = true;
  }

  showLabel() {
    const label = this.frame.model.get("label");
    const about = label?.text ? label.about : "";
    this.source.textContent = about;
    this.source.hidden = about === "";
    this.label.show();
    this.note.show();
  }

  showFacts() {
    /** @type {Array<{name: string, value: string, hint?: string}>} */
    const facts = this.frame.model.get("facts") ?? [];
    this.facts.hidden = facts.length === 0;
    this.facts.replaceChildren(...facts.map(({ name, value, hint }) => element("div", {},
      element("dt", { text: name }), element("dd", { text: value }), element("dd", { class: "wb-hint", text: hint ?? "" }))));
  }

  showMissing() {
    const { model } = this.frame;
    const [missing, remedy] = [model.get("missing") ?? "", model.get("remedy") ?? ""];
    this.missing.hidden = missing === "";
    this.missing.replaceChildren(element("span", { text: missing }));
    if (remedy) this.missing.append(element("code", { class: "wb-remedy", text: remedy }));
  }
}
