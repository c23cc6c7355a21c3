// @ts-check
/**
 * Small controls of the steering panel, and the scope in which their listeners live.
 *
 * JupyterLab takes keys (arrows, Enter, letters) from whatever has the focus, unless the element
 * itself or one around it says no: `field` says it.
 */

import { element } from "./shared.js";
/** @typedef {import("./shared.js").Frame} Frame */

/** Listeners of a part that may leave the page before the widget does. */
export class Scope {
  /** @param {Frame} frame */
  constructor(frame) {
    this.frame = frame;
    this.controller = new AbortController();
    const { signal } = this.controller;
    // Registered with its own signal, so that a part that is gone is not kept alive by the frame.
    frame.signal.addEventListener("abort", () => this.end(), { signal });
  }

  /**
   * @param {EventTarget} target
   * @param {string} type
   * @param {(event: any) => void} handler
   * @param {AddEventListenerOptions} [options]
   */
  listen(target, type, handler, options = {}) {
    target.addEventListener(type, handler, { ...options, signal: this.controller.signal });
  }

  end() {
    this.controller.abort();
  }
}

/**
 * A form element that keeps its keys.
 * @template {"input" | "select" | "textarea"} K
 * @param {K} tag
 * @param {Record<string, string | number | boolean | null | undefined>} attributes
 * @returns {HTMLElementTagNameMap[K]}
 */
export function field(tag, attributes) {
  return element(tag, { ...attributes, "data-lm-suppress-shortcuts": "true" });
}

/**
 * Let Enter end any input below the frame's root: JupyterLab keeps it from doing so, to leave it does.
 *
 * @param {Frame} frame
 */
export function enterEndsInputs(frame) {
  frame.listen(frame.root, "keydown", (/** @type {KeyboardEvent} */ event) => {
    const { target } = event;
    if (event.key !== "Enter" || event.isComposing || !(target instanceof HTMLInputElement)) return;
    target.blur();
    target.focus();
  });
}

/**
 * What Enter means in a box of several lines: alone it runs, with Shift it breaks the line, which
 * JupyterLab keeps the browser from doing.
 *
 * @param {KeyboardEvent} event
 * @param {HTMLTextAreaElement} box
 * @param {() => void} run
 */
export function enterRuns(event, box, run) {
  if (event.key !== "Enter" || event.isComposing) return;
  event.preventDefault();
  if (!event.shiftKey) {
    run();
    return;
  }
  box.setRangeText("\n", box.selectionStart, box.selectionEnd, "end");
  box.dispatchEvent(new Event("input", { bubbles: true }));
}

/**
 * @param {string} text
 * @param {string} kind further class names
 * @param {string} [label] what a screen reader says, where the text alone is not enough
 */
export function textButton(text, kind, label) {
  return element("button", { class: `wb-button wb-quiet ${kind}`, type: "button", text, "aria-label": label });
}

/**
 * A drop-down list.
 * @param {string} label
 * @param {Array<[string, string]>} options value and word
 */
export function choice(label, options) {
  const node = field("select", { class: "wb-select", "aria-label": label });
  fillChoice(node, options);
  return node;
}

/**
 * Give a list its options, if they are others than it has.
 * @param {HTMLSelectElement} node
 * @param {Array<[string, string]>} options
 */
export function fillChoice(node, options) {
  const present = [...node.options].map((option) => [option.value, option.text]);
  if (JSON.stringify(present) === JSON.stringify(options)) return;
  const { value } = node;
  node.replaceChildren(...options.map(([key, text]) => element("option", { value: key, text })));
  if (options.some(([key]) => key === value)) node.value = value;
}

/**
 * A word before a control.
 * @param {string} text
 * @param {...Node} controls
 */
export function labelled(text, ...controls) {
  return element("label", { class: "wb-labelled" }, element("span", { text }), ...controls);
}

/**
 * The number in a field, or null where there is none.
 * @param {HTMLInputElement} input
 */
export function numberIn(input) {
  const value = Number(input.value);
  return input.value.trim() === "" || !Number.isFinite(value) ? null : value;
}
