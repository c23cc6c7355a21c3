// @ts-check
/**
 * The panel as files: a standalone script and a recipe. To Python: {type: "export", what} and
 * {type: "open_recipe", text}; Python answers with the trait and {type: "exported", what}.
 */

import { element } from "./shared.js";
import { field, textButton } from "./steering_controls.js";
/** @typedef {import("./shared.js").Frame} Frame */

const LARGEST = 20_000_000;
/** @type {Record<string, [string, string]>} name and type of the file */
const FILES = { script: ["steering.py", "text/x-python"], recipe: ["steering.recipe.json", "application/json"] };

export class Exports {
  /** @param {Frame} frame */
  constructor(frame) {
    this.frame = frame;
    this.model = frame.model;
    /** @type {{what: string, deliver: (text: string) => void} | null} */
    this.wanted = null;
    this.copyScript = this.button("Copy script", "script", (text) => this.copy(text));
    this.saveScript = this.button("Download script", "script", (text) => this.download("script", text));
    this.saveRecipe = this.button("Save recipe", "recipe", (text) => this.download("recipe", text));
    this.opener = textButton("Open a recipe", "wb-open-recipe");
    this.file = field("input", { type: "file", accept: ".json,application/json", hidden: true });
    this.state = element("span", { class: "wb-hint", role: "status" });
    this.node = element("div", { class: "wb-exports" }, this.copyScript, this.saveScript, this.saveRecipe, this.opener, this.file, this.state);
    this.copyScript.title = this.saveScript.title = "Plain PyTorch and transformers, no workbench: writes the same tokens";
    frame.listen(this.opener, "click", () => this.file.click());
    frame.listen(this.file, "change", () => this.open());
  }

  /** @param {string} text @param {string} what @param {(text: string) => void} deliver */
  button(text, what, deliver) {
    const button = textButton(text, "");
    this.frame.listen(button, "click", () => {
      if (this.model.get("recorded")) return deliver(this.model.get(what));
      this.wanted = { what, deliver };
      this.state.textContent = "";
      this.model.send({ type: "export", what });
      return undefined;
    });
    if (this.model.get("recorded")) button.hidden = !this.model.get(what);
    return button;
  }

  /** Python has set the trait. @param {string} what */
  exported(what) {
    if (this.wanted?.what !== what) return;
    const { deliver } = this.wanted;
    this.wanted = null;
    deliver(String(this.model.get(what) ?? ""));
  }

  /** @param {string} text */
  copy(text) {
    this.frame.copy(text, (said) => { this.state.textContent = said; });
  }

  /** @param {string} what @param {string} text */
  download(what, text) {
    const [name, type] = FILES[what];
    const address = URL.createObjectURL(new Blob([text], { type }));
    element("a", { href: address, download: name }).click();
    // Not at once: the browser reads it after the click.
    window.setTimeout(() => URL.revokeObjectURL(address), 10_000);
    this.state.textContent = `${name} downloaded`;
  }

  async open() {
    const file = this.file.files?.[0];
    if (!file) return;
    if (file.size > LARGEST) this.state.textContent = `${file.name} is too large for a recipe (${Math.round(file.size / 1e6)} MB)`;
    else {
      const text = await file.text();
      if (this.frame.signal.aborted) return;
      this.model.send({ type: "open_recipe", text });
      this.state.textContent = `${file.name} opened`;
    }
    // The same file may be chosen again.
    this.file.value = "";
  }
}
