// @ts-check
/**
 * The chosen feature of the app, always in sight, and the tabs that show what is known of it.
 *
 * To Python: {type: "tab", id}. The panels below are widgets of their own, which Python shows.
 */

import { Frame, element } from "./shared.js";
/** @typedef {import("./shared.js").Model} Model */

class AppFeature {
  /** @param {{model: Model, el: HTMLElement}} view */
  constructor(view) {
    this.model = view.model;
    this.frame = new Frame(view, "wb-app-feature");
    const { frame } = this;
    this.status = element("span", { class: "wb-hint wb-app-status", role: "status" });
    this.list = element("div", { class: "wb-tabs", role: "tablist", "aria-label": "What to see of the feature" });
    this.hint = element("div", { class: "wb-empty" });
    /** @type {Array<{id: string, node: HTMLButtonElement}>} */
    this.tabs = [];
    frame.tools.prepend(this.status);
    frame.body.append(this.list, this.hint);
    frame.listen(this.list, "keydown", (event) => this.key(event));
    frame.watch(["tabs"], () => this.showTabs());
    frame.watch(["tab"], () => this.mark());
    frame.watch(["busy", "hint"], () => this.showState());
    this.showTabs();
    this.showState();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const at = this.tabs.findIndex(({ node }) => node === event.target);
    if (!step || at < 0) return;
    event.preventDefault();
    // JupyterLab would take the arrow for its cells.
    event.stopPropagation();
    const next = this.tabs[(at + step + this.tabs.length) % this.tabs.length];
    next.node.focus();
    this.open(next.id);
  }

  /** @param {string} id */
  open(id) {
    if (id !== this.model.get("tab")) this.model.send({ type: "tab", id });
  }

  showTabs() {
    /** @type {Array<{id: string, text: string}>} */
    const tabs = this.model.get("tabs") ?? [];
    this.tabs = tabs.map(({ id, text }) => {
      const node = element("button", { class: "wb-tab", type: "button", role: "tab", text });
      node.disabled = Boolean(this.model.get("recorded"));
      node.onclick = () => this.open(id);
      return { id, node };
    });
    this.list.hidden = tabs.length === 0 || Boolean(this.model.get("recorded"));
    this.list.replaceChildren(...this.tabs.map(({ node }) => node));
    this.mark();
  }

  mark() {
    const tab = this.model.get("tab");
    for (const { id, node } of this.tabs) {
      node.setAttribute("aria-selected", String(id === tab));
      node.tabIndex = id === tab ? 0 : -1;
    }
  }

  showState() {
    const busy = this.model.get("busy") ?? "";
    this.frame.root.classList.toggle("wb-busy", busy !== "");
    this.frame.root.setAttribute("aria-busy", String(busy !== ""));
    this.status.textContent = busy;
    const hint = this.model.get("hint") ?? "";
    this.hint.textContent = hint;
    this.hint.hidden = hint === "";
  }
}

/** @param {{model: Model, el: HTMLElement}} view */
function render(view) {
  const head = new AppFeature(view);
  return () => head.frame.cleanup();
}

export default { render };
