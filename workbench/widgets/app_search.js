// @ts-check
/**
 * Search of the app: by label, by examples, by what a feature writes; a result is chosen by a click.
 *
 * To Python: {type: "search", how, query} and {type: "choose", layer, kind, index}; the answer is the
 * trait `found`. Cheap searches run while the reader types, the others wait for Enter or the button.
 */

import { Frame, element, segmented, short } from "./shared.js";
import { field, textButton } from "./steering_controls.js";
/** @typedef {import("./shared.js").Model} Model */
/** @typedef {{id: string, text: string, hint: string, score?: string, typed?: boolean}} Way */
/** @typedef {{layer: number, kind: string, index: number, label: string, score: number | null, why: string}} Hit */
/** @typedef {{state: string, how: string, query: string, rows: Hit[], error: string}} Found */

const PAUSE = 250;

class AppSearch {
  /** @param {{model: Model, el: HTMLElement}} view */
  constructor(view) {
    this.model = view.model;
    this.frame = new Frame(view, "wb-app-search");
    const { frame, model } = this;
    /** @type {Way[]} */
    this.ways = model.get("ways") ?? [];
    this.how = model.get("found")?.how || (this.ways[0]?.id ?? "");
    this.timer = 0;
    this.asked = "";
    /** @type {Array<{hit: Hit, node: HTMLButtonElement}>} */
    this.results = [];
    this.tabs = segmented(frame, "By", this.ways.map(({ id, text }) => [id, text]), () => this.how, (how) => this.switchTo(how));
    this.query = field("input", { class: "wb-query", type: "search", spellcheck: "false", autocomplete: "off", "aria-label": "Search" });
    this.query.value = model.get("found")?.query ?? "";
    this.go = textButton("Search", "wb-go");
    this.state = element("div", { class: "wb-hint wb-search-state", role: "status" });
    this.list = element("div", { class: "wb-app-hits", role: "list", "aria-label": "Found features" });
    frame.body.append(this.tabs.node, element("div", { class: "wb-app-form" }, this.query, this.go), this.state, this.list);
    for (const control of [this.query, this.go]) control.disabled = Boolean(model.get("recorded"));
    frame.listen(this.query, "input", () => this.typed());
    frame.listen(this.go, "click", () => this.search());
    frame.listen(frame.body, "keydown", (event) => this.key(event));
    frame.watch(["found"], () => this.show());
    frame.watch(["chosen"], () => this.mark());
    frame.atEnd(() => clearTimeout(this.timer));
    this.showWay();
    this.show();
  }

  /** @returns {Way | undefined} */
  get way() {
    return this.ways.find(({ id }) => id === this.how);
  }

  /** @param {string} how */
  switchTo(how) {
    this.how = how;
    this.asked = "";
    this.showWay();
    this.show();
    this.query.focus();
    this.typed();
  }

  showWay() {
    const { hint = "", typed = false } = this.way ?? {};
    this.query.placeholder = hint;
    this.query.setAttribute("aria-label", `Search: ${hint}`);
    this.go.hidden = typed;
  }

  typed() {
    clearTimeout(this.timer);
    if (this.way?.typed) this.timer = window.setTimeout(() => this.search(), PAUSE);
  }

  search() {
    clearTimeout(this.timer);
    const query = this.query.value.trim();
    const asked = JSON.stringify([this.how, query]);
    if (query === "" || asked === this.asked) return;
    this.asked = asked;
    this.state.textContent = "Searching…";
    this.list.classList.add("wb-stale");
    this.model.send({ type: "search", how: this.how, query });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.isComposing) return;
    const at = this.results.findIndex(({ node }) => node === event.target);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && (at >= 0 || event.target === this.query)) {
      (this.results[at + step]?.node ?? this.query).focus();
    } else if (event.key === "Enter" && event.target === this.query) this.search();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  show() {
    /** @type {Found} */
    const found = this.model.get("found");
    const mine = found.how === this.how;
    const hits = mine ? found.rows : [];
    const failed = mine ? found.error : "";
    if (failed) this.asked = "";
    this.state.classList.toggle("wb-failed", failed !== "");
    this.list.classList.toggle("wb-stale", mine && found.state === "running");
    if (mine && found.state === "running") this.state.textContent = "Searching…";
    else this.state.textContent = failed || (mine && found.state === "done" && hits.length === 0 ? "Nothing found." : "");
    if (mine && found.state === "running") return;
    this.results = hits.map((hit) => ({ hit, node: this.result(hit) }));
    this.list.replaceChildren(...this.results.map(({ node }) => element("div", { role: "listitem" }, node)));
    this.mark();
  }

  /** @param {Hit} hit */
  result(hit) {
    const { layer, kind, index, label, score, why } = hit;
    const named = this.way?.score ?? "";
    const node = element("button", { class: "wb-app-hit", type: "button" },
      element("span", { class: "wb-app-hit-label", text: label || "no label" }),
      element("span", { class: "wb-app-hit-site", text: `${layer} ${kind} · ${index}` }),
      element("span", { class: "wb-app-hit-score", text: score === null ? "" : `${named} ${short(score)}`.trim() }),
      element("span", { class: "wb-app-hit-why", text: why, hidden: why === "" }));
    node.classList.toggle("wb-unnamed", !label);
    node.disabled = Boolean(this.model.get("recorded"));
    // Not through the frame: a result lives only until the next search.
    node.onclick = () => this.model.send({ type: "choose", layer, kind, index });
    return node;
  }

  mark() {
    const chosen = JSON.stringify(this.model.get("chosen") ?? []);
    for (const { hit: { layer, kind, index }, node } of this.results) {
      node.setAttribute("aria-pressed", String(JSON.stringify([layer, kind, index]) === chosen));
    }
  }
}

/** @param {{model: Model, el: HTMLElement}} view */
function render(view) {
  const search = new AppSearch(view);
  return () => search.frame.cleanup();
}

export default { render };
