// @ts-check
/**
 * The model of a saved page: anywidget's interface over the stored state, with no kernel behind it.
 *
 * Python puts this file and a widget's own module into one HTML file. Selecting, hovering and scales
 * work as in a notebook; what would need the kernel is told so by the state `recorded`.
 */

/** @typedef {import("./shared.js").Model} Model */

/**
 * @param {string} json the traits, and the bytes traits in base64
 * @returns {Model}
 */
export function recordedModel(json) {
  /** @type {{state: Record<string, any>, bytes: Record<string, string>}} */
  const { state, bytes } = JSON.parse(json);
  for (const [name, text] of Object.entries(bytes)) {
    // A loop, since Uint8Array.from with a function takes seconds for a large matrix.
    const characters = atob(text);
    const raw = new Uint8Array(characters.length);
    for (let i = 0; i < raw.length; i += 1) raw[i] = characters.charCodeAt(i);
    state[name] = new DataView(raw.buffer);
  }
  const events = new EventTarget();
  /** @type {Map<Function, EventListener>} */
  const wrapped = new Map();
  return {
    get: (name) => state[name],
    set(name, value) {
      state[name] = value;
      events.dispatchEvent(new Event(`change:${name}`));
    },
    save_changes() {},
    send() {},
    on(event, handler) {
      const listener = () => handler();
      wrapped.set(handler, listener);
      events.addEventListener(event, listener);
    },
    off(event, handler) {
      events.removeEventListener(event, wrapped.get(handler) ?? null);
      wrapped.delete(handler);
    },
  };
}
