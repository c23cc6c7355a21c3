// @ts-check
/**
 * The app's bar: the prompt, examples of prompts, and which features to draw.
 *
 * To Python: {type: "run", prompt} and {type: "place", value}.
 */

import { Frame, element } from "./shared.js";
import { choice, enterRuns, field, textButton } from "./steering_controls.js";
/** @typedef {import("./shared.js").Model} Model */

class AppPrompt {
  /** @param {{model: Model, el: HTMLElement}} view */
  constructor(view) {
    this.model = view.model;
    this.frame = new Frame(view, "wb-app-prompt");
    const { frame, model } = this;
    this.recorded = Boolean(model.get("recorded"));
    this.box = field("textarea", { class: "wb-prompt", rows: 1, spellcheck: "false", "aria-label": "Prompt", placeholder: "Type a prompt" });
    this.button = element("button", { class: "wb-button wb-primary wb-run", type: "button", text: "Run", title: "Enter runs, Shift + Enter breaks the line" });
    this.place = choice("Features of", []);
    this.where = element("label", { class: "wb-labelled" }, element("span", { text: "Features of" }), this.place);
    this.status = element("span", { class: "wb-hint wb-app-status", role: "status" });
    this.examples = element("div", { class: "wb-examples" });
    frame.body.append(
      element("div", { class: "wb-prompt-row" }, this.box, this.button),
      element("div", { class: "wb-prompt-foot" }, this.where, this.examples, this.status));
    for (const control of [this.box, this.button, this.place]) control.disabled = this.recorded;
    frame.listen(this.box, "keydown", (event) => enterRuns(event, this.box, () => this.run()));
    frame.listen(this.box, "input", () => this.fit());
    frame.listen(this.button, "click", () => this.run());
    frame.listen(this.place, "change", () => model.send({ type: "place", value: this.place.value }));
    frame.watch(["prompt"], () => this.showPrompt());
    // What failed is not what is drawn.
    frame.watch(["places", "place", "error"], () => this.showPlaces());
    frame.watch(["examples"], () => this.showExamples());
    frame.watch(["busy", "note"], () => this.showState());
    frame.onDraw(() => this.fit());
    this.showPrompt();
    this.showPlaces();
    this.showExamples();
    this.showState();
    frame.schedule();
  }

  run() {
    this.model.send({ type: "run", prompt: this.box.value });
  }

  /** As high as its text, up to six lines. */
  fit() {
    const { box } = this;
    box.style.height = "auto";
    box.style.height = `${Math.min(box.scrollHeight + 2, 150)}px`;
  }

  showPrompt() {
    this.box.value = this.model.get("prompt") ?? "";
    this.fit();
  }

  showPlaces() {
    /** @type {Array<{value: string, text: string, group?: string}>} */
    const places = this.model.get("places") ?? [];
    /** @type {Map<string, Node[]>} */
    const groups = new Map();
    for (const { value, text, group } of places) {
      const option = element("option", { value, text });
      groups.set(group ?? "", [...(groups.get(group ?? "") ?? []), option]);
    }
    this.place.replaceChildren(...[...groups].flatMap(([label, options]) => (
      label ? [element("optgroup", { label }, ...options)] : options)));
    this.place.value = this.model.get("place") ?? "";
    this.where.hidden = places.length === 0;
  }

  showExamples() {
    /** @type {string[]} */
    const examples = this.model.get("examples") ?? [];
    this.examples.hidden = examples.length === 0 || this.recorded;
    this.examples.replaceChildren(element("span", { class: "wb-hint", text: "Try" }), ...examples.map((text) => {
      const button = textButton(text, "wb-example", `Run the prompt: ${text}`);
      // Not through the frame: a button lives only until the next examples.
      button.onclick = () => {
        this.box.value = text;
        this.run();
      };
      return button;
    }));
  }

  showState() {
    const busy = this.model.get("busy") ?? "";
    this.frame.root.classList.toggle("wb-busy", busy !== "");
    this.frame.root.setAttribute("aria-busy", String(busy !== ""));
    this.status.textContent = busy || (this.model.get("note") ?? "");
  }
}

/** @param {{model: Model, el: HTMLElement}} view */
function render(view) {
  const bar = new AppPrompt(view);
  return () => bar.frame.cleanup();
}

export default { render };
