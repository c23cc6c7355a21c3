// @ts-check
/**
 * Add a feature: by label, by number, by what fires on a text, by the contrast of two texts.
 *
 * To Python: {type: "search", how, query, other}; the answer is the trait `found`. Labels and numbers
 * are searched while the reader types; the two that run the model wait for Enter or the button.
 */

import { element, segmented, short } from "./shared.js";
import { choice, field, fillChoice, textButton } from "./steering_controls.js";
import { siteOf } from "./steering_row.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {import("./steering_row.js").Row} Row */
/** @typedef {{layer: number, kind: string, index: number, label: string, score: number | null, note?: string}} Hit */
/** @typedef {{state: string, how?: string, rows?: Hit[], error?: string}} Found */

const SEARCH_PAUSE = 250;
/** @type {Record<string, {word: string, hint: string, score: string, typed: boolean}>} */
const HOW = {
  label: { word: "by label", hint: "words of the label, such as: capital cities", score: "match", typed: true },
  index: { word: "by number", hint: "layer/feature, such as: 5/231", score: "", typed: true },
  text: { word: "fires on a text", hint: "a text; the features that fire on it most are listed", score: "activation", typed: false },
  contrast: { word: "contrast of two", hint: "texts with it, one a line", score: "AUROC", typed: false },
};

export class FeatureSearch {
  /** @param {Frame} frame */
  constructor(frame) {
    this.frame = frame;
    this.model = frame.model;
    this.how = "label";
    this.at = -1;
    this.timer = 0;
    this.asked = "";
    /** @type {Array<{hit: Hit, node: HTMLElement, add: HTMLButtonElement}>} */
    this.results = [];
    this.opener = textButton("Add a feature", "wb-opener");
    this.tabs = segmented(frame, "Find", Object.entries(HOW).map(([how, { word }]) => [how, word]),
      () => this.how, (how) => this.switchTo(how));
    this.query = field("textarea", { class: "wb-query", rows: 1, spellcheck: "false", "aria-label": "Search" });
    this.other = field("textarea", { class: "wb-query", rows: 2, spellcheck: "false", "aria-label": "Texts without it", placeholder: "texts without it, one a line" });
    this.go = textButton("Search", "wb-go");
    this.state = element("span", { class: "wb-hint wb-search-state", role: "status" });
    this.list = element("div", { class: "wb-results", role: "list", "aria-label": "Found features" });
    this.site = choice("Site of the SAE", []);
    this.addSite = textButton("Add", "wb-add-site", "Add the whole SAE of the site");
    this.whole = element("div", { class: "wb-row-line wb-whole" },
      element("span", { text: "or a whole SAE: its reconstruction takes the activation's place" }), this.site, this.addSite);
    const close = textButton("Close", "wb-close");
    this.box = element("div", { class: "wb-search", hidden: true },
      element("div", { class: "wb-search-head" }, this.tabs.node, close),
      element("div", { class: "wb-search-form" }, this.query, this.other, this.go), this.state, this.list, this.whole);
    this.node = this.box;
    frame.listen(close, "click", () => this.open(false));
    this.listen();
    this.switchTo("label");
    this.showSites();
    this.show();
  }

  listen() {
    const { frame } = this;
    frame.listen(this.opener, "click", () => this.open(Boolean(this.box.hidden)));
    frame.listen(this.query, "input", () => this.typed());
    frame.listen(this.go, "click", () => this.search());
    frame.listen(this.box, "keydown", (event) => this.key(event));
    frame.listen(this.addSite, "click", () => {
      const [layer, kind] = this.site.value.split(" ");
      this.model.send({ type: "add_splice", layer: Number(layer), kind });
    });
    frame.watch(["found"], () => this.show());
    frame.watch(["rows"], () => this.markAdded());
    frame.watch(["sites"], () => this.showSites());
    frame.atEnd(() => clearTimeout(this.timer));
  }

  /** @param {boolean} open */
  open(open) {
    this.box.hidden = !open;
    this.opener.setAttribute("aria-expanded", String(open));
    if (open) this.query.focus();
    else this.opener.focus();
  }

  /** @param {string} how */
  switchTo(how) {
    this.how = how;
    const { hint, typed } = HOW[how];
    this.query.placeholder = hint;
    this.query.setAttribute("aria-label", `Search ${HOW[how].word}: ${hint}`);
    this.query.rows = how === "contrast" ? 2 : 1;
    this.other.hidden = how !== "contrast";
    this.go.hidden = typed;
    this.asked = "";
    this.show();
    if (typed) this.typed();
  }

  typed() {
    clearTimeout(this.timer);
    if (!HOW[this.how].typed) return;
    this.timer = window.setTimeout(() => this.search(), SEARCH_PAUSE);
  }

  search() {
    clearTimeout(this.timer);
    const [query, other] = [this.query.value.trim(), this.other.value.trim()];
    const asked = JSON.stringify([this.how, query, other]);
    if (query === "" || asked === this.asked || (this.how === "contrast" && other === "")) return;
    this.asked = asked;
    this.point(-1);
    this.state.textContent = "Searching…";
    this.list.classList.add("wb-stale");
    this.model.send({ type: "search", how: this.how, query, other });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.isComposing) return;
    if (event.key === "Escape") {
      event.stopPropagation();
      this.open(false);
      return;
    }
    const typing = event.target === this.query;
    const last = this.results.length - 1;
    if (typing && event.key === "ArrowDown" && last >= 0) this.point(Math.min(last, this.at + 1));
    else if (typing && event.key === "ArrowUp" && this.at >= 0) this.point(this.at - 1);
    else if (typing && event.key === "Enter" && !event.shiftKey) {
      if (this.at >= 0) this.add(this.results[this.at]);
      else this.search();
    } else return;
    event.preventDefault();
  }

  /** Highlight a result; -1: none. @param {number} index */
  point(index) {
    this.results[this.at]?.node.classList.remove("wb-pointed");
    this.at = index;
    const result = this.results[index];
    if (!result) return;
    result.node.classList.add("wb-pointed");
    result.node.scrollIntoView({ block: "nearest" });
    const { hit, add } = result;
    this.frame.live.textContent = `${hit.label || "no label"}, ${siteOf(hit)}, ${add.disabled ? "added" : "Enter adds"}`;
  }

  /** @param {{hit: Hit, add: HTMLButtonElement}} result */
  add({ hit: { layer, kind, index }, add }) {
    if (!add.disabled) this.model.send({ type: "add", layer, kind, index });
  }

  show() {
    /** @type {Found} */
    const found = this.model.get("found") ?? { state: "idle" };
    const mine = found.how === this.how;
    const hits = mine ? found.rows ?? [] : [];
    const failed = mine && found.error ? found.error : "";
    if (failed) this.asked = "";
    this.state.classList.toggle("wb-failed", failed !== "");
    if (mine && found.state === "running") this.state.textContent = "Searching…";
    else this.state.textContent = failed || (mine && found.state === "done" && hits.length === 0 ? "Nothing found." : "");
    this.list.classList.toggle("wb-stale", mine && found.state === "running");
    this.at = -1;
    this.results = hits.map((hit) => this.result(hit));
    const head = element("div", { class: "wb-result wb-result-head", "aria-hidden": "true" }, element("span", { text: "feature" }),
      element("span", { text: "site" }), element("span", { class: "wb-result-score", text: HOW[this.how].score }), element("span"));
    this.list.replaceChildren(...(hits.length > 0 ? [head] : []), ...this.results.map(({ node }) => node));
    this.list.hidden = hits.length === 0;
    this.markAdded();
  }

  /** @param {Hit} hit */
  result(hit) {
    const add = textButton("Add", "wb-add", `Add ${hit.label || "feature"} ${siteOf(hit)}`);
    const score = typeof hit.score === "number" ? short(hit.score) : "";
    const label = element("span", { class: "wb-result-label", text: hit.label || `feature ${hit.index}`, title: hit.label });
    const note = element("span", { class: "wb-result-note", text: hit.note ?? "", hidden: !hit.note });
    const node = element("div", { class: "wb-result", role: "listitem" }, element("span", { class: "wb-result-name" }, label, note),
      element("span", { class: "wb-result-site", text: siteOf(hit) }), element("span", { class: "wb-result-score", text: score }), add);
    const result = { hit, node, add };
    // Not through the frame: a result lives only until the next search.
    add.onclick = () => this.add(result);
    return result;
  }

  markAdded() {
    /** @type {Row[]} */
    const rows = this.model.get("rows") ?? [];
    const present = new Set(rows.map((row) => siteOf(row)));
    for (const { hit, add } of this.results) {
      add.disabled = present.has(siteOf(hit));
      add.textContent = add.disabled ? "Added" : "Add";
    }
  }

  showSites() {
    /** @type {Array<{layer: number, kind: string}>} */
    const sites = this.model.get("sites") ?? [];
    fillChoice(this.site, sites.map(({ layer, kind }) => [`${layer} ${kind}`, `layer ${layer} ${kind}`]));
    this.whole.hidden = sites.length === 0;
  }
}
