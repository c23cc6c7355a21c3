// @ts-check
/**
 * The page's side of the bridge: models that speak with Python objects through one function, hosts to
 * render into, and counters that show what a cleanup left behind.
 */
/** @typedef {(id: string, data: unknown) => void} ToPython */
(() => {
  const bridgeToPython = /** @type {ToPython} */ ((id, data) => /** @type {any} */ (window).bridgeToPython(id, data));
  /** @param {string} text base64 */
  const view = (text) => {
    const characters = atob(text);
    const bytes = new Uint8Array(characters.length);
    for (let i = 0; i < bytes.length; i += 1) bytes[i] = characters.charCodeAt(i);
    return new DataView(bytes.buffer);
  };

  class Model {
    /** @param {string} id @param {Record<string, any>} state */
    constructor(id, state) {
      this.id = id;
      this.state = state;
      /** @type {Record<string, any>} */
      this.dirty = {};
      /** @type {Map<string, Function[]>} */
      this.handlers = new Map();
    }

    /** @param {string} name */
    get(name) { return this.state[name]; }

    /** @param {string} name @param {unknown} value */
    set(name, value) {
      this.state[name] = value;
      this.dirty[name] = value;
      this.fire(`change:${name}`);
    }

    save_changes() {
      const state = this.dirty;
      this.dirty = {};
      bridgeToPython(this.id, { method: "update", state, buffer_paths: [] });
    }

    /** @param {unknown} content */
    send(content) { bridgeToPython(this.id, { method: "custom", content }); }

    /** @param {string} event @param {Function} handler */
    on(event, handler) { this.handlers.set(event, [...(this.handlers.get(event) ?? []), handler]); }

    /** @param {string} event @param {Function} handler */
    off(event, handler) {
      this.handlers.set(event, (this.handlers.get(event) ?? []).filter((h) => h !== handler));
    }

    /** @param {string} event @param {...unknown} values */
    fire(event, ...values) { for (const handler of this.handlers.get(event) ?? []) handler(...values); }

    /** All values first, then the events: as Jupyter's models do. @param {Record<string, any>} state */
    patch(state) {
      Object.assign(this.state, state);
      for (const name of Object.keys(state)) this.fire(`change:${name}`);
    }
  }

  /** @type {Map<string, Model>} */
  const models = new Map();
  /** @type {Map<string, () => void>} */
  const cleanups = new Map();
  const frame = () => new Promise(requestAnimationFrame);

  const counts = { listeners: 0, observers: 0 };
  const add = EventTarget.prototype.addEventListener;
  /** @this {EventTarget} */
  EventTarget.prototype.addEventListener = function (type, listener, options) {
    if (!(this instanceof AbortSignal)) {
      counts.listeners += 1;
      const signal = typeof options === "object" ? options.signal : undefined;
      if (signal) add.call(signal, "abort", () => { counts.listeners -= 1; }, { once: true });
    }
    return add.call(this, type, listener, options);
  };
  for (const Observer of [ResizeObserver, MutationObserver]) {
    const { observe, disconnect } = Observer.prototype;
    /** @type {WeakSet<object>} */
    const active = new WeakSet();
    Observer.prototype.observe = function (/** @type {any} */ ...args) {
      if (!active.has(this)) counts.observers += 1;
      active.add(this);
      return Reflect.apply(observe, this, args);
    };
    Observer.prototype.disconnect = function () {
      if (active.delete(this)) counts.observers -= 1;
      return disconnect.call(this);
    };
  }

  const bridge = {
    /** @param {string} id @param {string} type @param {any} data @param {string[]} buffers */
    receive(id, type, data, buffers) {
      for (const [i, path] of (data.buffer_paths ?? []).entries()) {
        const holder = path.slice(0, -1).reduce((/** @type {any} */ at, /** @type {any} */ key) => at[key], data.state);
        holder[path.at(-1)] = view(buffers[i]);
      }
      const model = models.get(id);
      if (type === "comm_open") models.set(id, new Model(id, data.state));
      else if (data.method === "update") model?.patch(data.state);
      else if (data.method === "custom") model?.fire("msg:custom", data.content, buffers.map(view));
    },

    /** @param {string} id */
    async show(id) {
      const model = /** @type {Model} */ (models.get(id));
      const style = document.createElement("style");
      style.textContent = model.get("_css");
      const el = document.createElement("div");
      el.dataset.model = id;
      document.body.append(style, el);
      const url = URL.createObjectURL(new Blob([model.get("_esm")], { type: "text/javascript" }));
      const { default: widget } = await import(url);
      URL.revokeObjectURL(url);
      cleanups.set(id, await widget.render({ model, el }));
      await bridge.painted();
    },

    /** @param {string} id */
    model(id) { return models.get(id); },

    /** @param {string} id */
    clean(id) { cleanups.get(id)?.(); },

    /** Let a trait come anew with the value that it has. @param {string} id @param {string} name */
    async again(id, name) {
      const model = models.get(id);
      model?.patch({ [name]: model.get(name) });
      await bridge.painted();
    },

    async painted() {
      await frame();
      await frame();
    },

    /** @param {string} id what is left of a widget */
    left(id) {
      const handlers = [...(models.get(id)?.handlers.values() ?? [])].flat().length;
      const nodes = document.querySelector(`[data-model="${id}"]`)?.childNodes.length;
      return { ...counts, handlers, nodes };
    },
  };
  Object.assign(window, { bridge });
})();
