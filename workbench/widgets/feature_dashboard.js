// @ts-check
/**
 * Feature dashboard: what is known of one feature, and a text of the reader's own.
 *
 * From Python: traits only. To Python: messages {type: "label", text}, {type: "note", text},
 * {type: "steer"}, {type: "follow"}, {type: "try", text}, {type: "open", layer, kind, index} and
 * {type: "back"}.
 */

import { Frame, element } from "./shared.js";
import { textButton } from "./steering_controls.js";
import { Head } from "./dashboard_head.js";
import { Histogram } from "./dashboard_histogram.js";
import { Passages } from "./dashboard_passages.js";
import { TryText } from "./dashboard_try.js";
import { Company, Neighbours, Outputs } from "./dashboard_lists.js";
/** @typedef {import("./shared.js").Model} Model */

class FeatureDashboard {
  /** @param {{model: Model, el: HTMLElement}} view */
  constructor(view) {
    this.model = view.model;
    this.frame = new Frame(view, "wb-dashboard");
    const { frame, model } = this;
    this.status = element("span", { class: "wb-hint", role: "status" });
    this.back = this.ask("Back", "back", "wb-back");
    this.steer = this.ask("Steer", "steer", "");
    this.follow = this.ask("Follow", "follow", "");
    this.steer.title = "Open a steering panel with this feature, below";
    this.follow.title = "Follow this feature through the layers, below";
    frame.tools.prepend(this.status, this.back, this.steer, this.follow);
    const histogram = new Histogram(frame);
    const mark = (/** @type {number | null} */ value) => histogram.mark(value);
    const outputs = new Outputs(frame);
    frame.body.append(new Head(frame).node,
      element("div", { class: "wb-first" }, histogram.node, outputs.node),
      new Passages(frame, mark).node, new TryText(frame, mark).node, new Neighbours(frame).node, new Company(frame).node);
    frame.watch(["history", "busy"], () => this.show());
    this.show();
    // The first width may be that of no content.
    frame.schedule();
  }

  /** @param {string} text @param {string} type @param {string} kind */
  ask(text, type, kind) {
    const button = textButton(text, kind);
    button.classList.remove("wb-quiet");
    button.disabled = Boolean(this.model.get("recorded"));
    this.frame.listen(button, "click", () => this.model.send({ type }));
    return button;
  }

  show() {
    const { model, back } = this;
    /** @type {string[]} */
    const history = model.get("history") ?? [];
    back.hidden = history.length === 0;
    back.title = history.length ? `To ${history[history.length - 1]}` : "";
    this.status.textContent = model.get("busy") ?? "";
    this.status.classList.toggle("wb-sr", !model.get("busy"));
  }
}

/** @param {{model: Model, el: HTMLElement}} view */
function render(view) {
  const board = new FeatureDashboard(view);
  return () => board.frame.cleanup();
}

export default { render };
