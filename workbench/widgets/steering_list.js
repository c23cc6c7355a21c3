// @ts-check
/**
 * The rows: kept in step with Python, in the reader's order.
 *
 * What the reader changes is shown at once and told by {type: "set", id, key, value, seq}. Python answers
 * {type: "noted", seq}; until then its `rows` may be older than the change, so the change is laid over
 * them. {type: "refused", rows} takes everything back.
 */

import { element } from "./shared.js";
import { EditRow } from "./steering_row.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {import("./shared.js").Model} Model */
/** @typedef {import("./steering_row.js").Row} Row */
/** @typedef {{id: string, key: keyof Row, value: any, seq: string, ends: string}} Change */

/** A value means the same only on the same scale. @param {Row} row */
function endsOf({ mode, low, high }) {
  return `${mode} ${low} ${high}`;
}

export class RowList {
  /**
   * @param {Frame} frame
   * @param {() => void} leave called when the focused row has gone
   */
  constructor(frame, leave) {
    this.frame = frame;
    this.model = frame.model;
    this.leave = leave;
    /** @type {Map<string, EditRow>} */
    this.edits = new Map();
    /** @type {Change[]} */
    this.changes = [];
    this.view = Math.random().toString(36).slice(2);
    this.sent = 0;
    this.node = element("div", { class: "wb-rows", role: "list", "aria-label": "Edits" });
    this.empty = element("div", { class: "wb-empty", text: "No edit yet: both texts will be the same." });
    frame.watch(["rows"], () => this.show());
    this.show();
  }

  /** @returns {Row[]} */
  get rows() {
    return this.model.get("rows") ?? [];
  }

  // ------------------------------------------------------------------------------ changes

  /** @param {string} id @param {string} key @param {unknown} value */
  change(id, key, value) {
    this.note(id, key, value);
    this.send(id, key);
  }

  /** Show a change without telling it. @param {string} id @param {string} key @param {any} value */
  note(id, key, value) {
    const row = this.rows.find((each) => each.id === id);
    if (!row) return;
    this.forget((change) => change.id === id && change.key === key);
    this.changes.push({ id, key: /** @type {keyof Row} */ (key), value, seq: "", ends: endsOf(row) });
    this.model.set("rows", this.rows.map((each) => (each.id === id ? { ...each, [key]: value } : each)));
  }

  /** Tell the change that is shown. @param {string} id @param {string} key */
  send(id, key) {
    const change = this.changes.find((each) => each.id === id && each.key === key);
    if (!change) return;
    this.sent += 1;
    change.seq = `${this.view} ${this.sent}`;
    this.model.send({ type: "set", id, key, value: change.value, seq: change.seq });
  }

  /** @param {(change: Change) => boolean} which */
  forget(which) {
    this.changes = this.changes.filter((change) => !which(change));
  }

  /** @param {string} seq */
  noted(seq) {
    this.forget((change) => change.seq === seq);
  }

  /** @param {Row[]} rows as they hold in Python */
  refused(rows) {
    this.changes = [];
    this.model.set("rows", rows);
    for (const edit of this.edits.values()) edit.slider.show(edit.row, true);
  }

  /** Python's rows with what it has not yet heard of. @returns {Row[]} the same list if that is nothing */
  overlaid() {
    const { rows } = this;
    const byId = new Map(rows.map((row) => [row.id, row]));
    this.forget(({ id, key, ends }) => {
      const row = byId.get(id);
      return !row || (key === "value" && endsOf(row) !== ends);
    });
    const differ = this.changes.filter(({ id, key, value }) => JSON.stringify(byId.get(id)?.[key]) !== JSON.stringify(value));
    if (differ.length === 0) return rows;
    for (const { id, key, value } of differ) byId.set(id, { .../** @type {Row} */ (byId.get(id)), [key]: value });
    return [...byId.values()];
  }

  // -------------------------------------------------------------------------------- order

  /** @param {string} id @param {number} to place from 0 */
  move(id, to) {
    const rows = [...this.rows];
    const from = rows.findIndex((row) => row.id === id);
    const place = Math.max(0, Math.min(rows.length - 1, to));
    if (from < 0 || from === place) return;
    rows.splice(place, 0, ...rows.splice(from, 1));
    this.model.set("rows", rows);
    this.model.send({ type: "move", id, to: place });
    this.frame.live.textContent = `${place + 1} of ${rows.length}`;
  }

  /** @param {string} id @param {number} by */
  shift(id, by) {
    this.move(id, this.rows.findIndex((row) => row.id === id) + by);
  }

  /** @param {string} id */
  remove(id) {
    this.model.send({ type: "remove", id });
  }

  /** Move a row by its handle, with the pointer or the arrow keys. @param {EditRow} edit */
  followHandle(edit) {
    const { handle, scope } = edit;
    scope.listen(handle, "keydown", (event) => {
      /** @type {Record<string, number>} */
      const steps = { ArrowUp: -1, ArrowDown: 1, Home: -Infinity, End: Infinity };
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.shift(edit.row.id, steps[event.key]);
    });
    let to = -1;
    scope.listen(handle, "pointerdown", (event) => {
      if (event.button !== 0) return;
      handle.setPointerCapture(event.pointerId);
      to = this.rows.findIndex((row) => row.id === edit.row.id);
      edit.node.classList.add("wb-dragged");
    });
    scope.listen(handle, "pointermove", (event) => {
      if (to < 0) return;
      to = this.placeAt(event.clientY, edit);
      this.markPlace(to, edit);
    });
    const drop = (/** @type {boolean} */ done) => {
      if (to < 0) return;
      const place = to;
      to = -1;
      edit.node.classList.remove("wb-dragged");
      this.markPlace(-1, edit);
      if (done) this.move(edit.row.id, place);
    };
    scope.listen(handle, "pointerup", () => drop(true));
    scope.listen(handle, "pointercancel", () => drop(false));
  }

  /** The place that a row would have if it were dropped at a height. @param {number} y @param {EditRow} edit */
  placeAt(y, edit) {
    const others = [...this.node.children].filter((node) => node !== edit.node);
    return others.filter((node) => {
      const box = node.getBoundingClientRect();
      return (box.top + box.bottom) / 2 < y;
    }).length;
  }

  /** @param {number} to @param {EditRow} edit */
  markPlace(to, edit) {
    const others = [...this.node.children].filter((node) => node !== edit.node);
    others.forEach((node, i) => {
      node.classList.toggle("wb-drop-before", i === to);
      node.classList.toggle("wb-drop-after", to === others.length && i === to - 1);
    });
  }

  // --------------------------------------------------------------------------------- page

  show() {
    const rows = this.overlaid();
    // Setting calls this method again, with nothing left to lay over.
    if (rows !== this.rows) return this.model.set("rows", rows);
    const page = /** @type {Document | ShadowRoot} */ (this.node.getRootNode());
    const focused = this.node.contains(page.activeElement) ? /** @type {HTMLElement} */ (page.activeElement) : null;
    const ids = new Set(rows.map((row) => row.id));
    for (const [id, edit] of this.edits) {
      if (ids.has(id)) continue;
      edit.end();
      this.edits.delete(id);
    }
    const solo = rows.some((row) => row.solo && !row.muted);
    rows.forEach((row, i) => {
      const edit = this.edits.get(row.id) ?? new EditRow(this, row);
      this.edits.set(row.id, edit);
      edit.show(row, { silent: row.muted || (solo && !row.solo), first: i === 0, last: i === rows.length - 1 });
      if (this.node.children[i] !== edit.node) this.node.insertBefore(edit.node, this.node.children[i] ?? null);
    });
    this.empty.hidden = rows.length > 0;
    if (!focused || page.activeElement === focused) return undefined;
    if (this.node.contains(focused)) focused.focus({ preventScroll: true });
    else this.leave();
    return undefined;
  }
}
