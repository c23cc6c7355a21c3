// @ts-check
/**
 * What the three widgets have in common.
 *
 * Python joins this file with a widget's own file into one module (`base.source`), so nothing is
 * fetched. It holds, in order: text (visible tokens, numbers), colour (one ramp for light and one for
 * dark pages), the Frame (root element, header, theme, error, cleanup), the hover Card, the legend.
 *
 * Text from outside reaches the page by `textContent` only. Every listener carries the signal of the
 * Frame's one AbortController, so that cleanup is one call.
 */

/**
 * The part of anywidget's model that the widgets use.
 * @typedef {object} Model
 * @property {(name: string) => any} get
 * @property {(name: string, value: unknown) => void} set
 * @property {() => void} save_changes
 * @property {(content: unknown) => void} send
 * @property {(event: string, handler: (...args: any[]) => void) => void} on
 * @property {(event: string, handler: (...args: any[]) => void) => void} off
 */

/** @typedef {{left: number, top: number, right: number, bottom: number}} Box in client pixels */
/** @typedef {"linear" | "log"} ScaleKind */

// ---------------------------------------------------------------------------------------- text

const SYMBOLS = new Map([["\n", "↵"], ["\r", "␍"], ["\t", "⇥"], ["\u00a0", "⍽"]]);
// Control and format characters: zero-width ones would make two different tokens look alike.
const UNSEEN = /[\u0000-\u001f\u007f-\u00a0\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu;

/**
 * One unprintable character as something that can be seen.
 * @param {string} character
 * @returns {string}
 */
function symbolOf(character) {
  const known = SYMBOLS.get(character);
  if (known) return known;
  const code = character.codePointAt(0) ?? 0;
  return code < 0x20 ? String.fromCodePoint(0x2400 + code) : `⟨${code.toString(16).toUpperCase()}⟩`;
}

/**
 * A token with every character visible, spaces included: for cards, where exactness matters.
 * @param {string} token
 */
export function exactToken(token) {
  return token.replace(UNSEEN, symbolOf).replaceAll(" ", "␣");
}

/**
 * A token as an axis label: without its leading space, which nearly every token has.
 * @param {string} token
 */
export function axisToken(token) {
  const bare = token.trim();
  return bare === "" || token.search(UNSEEN) >= 0 ? exactToken(token) : bare;
}

/**
 * A token inside running text: spaces stay spaces, a line break is shown and made.
 * @param {string} token
 */
export function proseToken(token) {
  return token.replace(UNSEEN, (c) => (c === "\n" ? "↵\n" : symbolOf(c)));
}

/**
 * A number to three significant digits, short enough for an axis.
 * @param {number} value
 */
export function short(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("e+", "e").replace("-", "−");
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

/**
 * A number with a fixed number of decimals, so that a column of them lines up.
 * @param {number} value
 * @param {number} decimals
 */
export function fixed(value, decimals) {
  return Number.isFinite(value) ? value.toFixed(decimals).replace("-", "−") : "–";
}

/**
 * The digits after the point that a column with this largest value needs.
 * @param {number} largest
 */
export function decimalsFor(largest) {
  if (!(largest > 0)) return 0;
  return Math.min(4, Math.max(0, 2 - Math.floor(Math.log10(largest) + 1e-9)));
}

/**
 * A number as exactly as float32 holds it: for cards.
 * @param {number} value
 */
export function exact(value) {
  if (!Number.isFinite(value)) return "not a number";
  return String(Number(value.toPrecision(6))).replace("-", "−");
}

/**
 * About `count` round steps from 0 to at least the largest value.
 * @param {number} largest
 * @param {number} count
 * @returns {number[]}
 */
export function roundTicks(largest, count) {
  if (!(largest > 0)) return [0];
  const rough = largest / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999) ?? rough;
  const ticks = [];
  for (let i = 0; (i - 1) * step < largest * 0.9999; i += 1) ticks.push(Number((i * step).toPrecision(6)));
  return ticks;
}

/** Round values of a logarithmic axis, few enough to be told apart. @param {number} low @param {number} high @param {number} most */
export function logTicks(low, high, most) {
  for (const digits of [[1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      for (const digit of digits) {
        const value = Number((digit * 10 ** power).toPrecision(3));
        if (value >= low * 0.999 && value <= high * 1.001) ticks.push(value);
      }
    }
    if (ticks.length <= most || digits.length === 1) {
      const every = Math.ceil(ticks.length / most);
      return ticks.filter((_, i) => i % every === 0);
    }
  }
  return [];
}

// -------------------------------------------------------------------------------------- colour

// Two sequential ramps, made in OKLCH so that lightness changes evenly: luminance falls (light page)
// or rises (dark page) at every step, so order survives every kind of colour blindness and a grey
// print. The first stop is close to the page: a feature that is off recedes.
const RAMPS = {
  light: ["#f4f5ef", "#d4ecc7", "#a4dcb4", "#67ccae", "#2baaaf", "#1285a7", "#275e9c", "#3b3582", "#301253"],
  dark: ["#202329", "#312a52", "#354073", "#2b5991", "#057e9c", "#1da09a", "#59c792", "#b0e477", "#f7f58a"],
};
const STEPS = 256;
// The smallest non-zero share is lifted to this one, so that "a little" never looks like "off".
const FIRST_VISIBLE = 0.06;

/**
 * @typedef {object} Ramp
 * @property {string[]} css 256 colours, from 0 to the maximum
 * @property {string[]} ink the text colour that is readable on each of them
 * @property {(upTo: number) => string} gradient the part from 0 to a share, as a CSS image
 */

/** @param {string} hex @returns {number[]} */
function channels(hex) {
  return [1, 3, 5].map((i) => Number.parseInt(hex.slice(i, i + 2), 16));
}

/** Relative luminance (WCAG 2.2). @param {number[]} rgb */
function luminance(rgb) {
  const [r, g, b] = rgb.map((v) => {
    const c = v / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** @param {boolean} dark @returns {Ramp} */
export function makeRamp(dark) {
  return rampOf(dark ? RAMPS.dark : RAMPS.light);
}

/** A ramp through these colours, at even distances. @param {string[]} stops @returns {Ramp} */
export function rampOf(stops) {
  /** @type {string[]} */
  const css = [];
  /** @type {string[]} */
  const ink = [];
  for (let i = 0; i < STEPS; i += 1) {
    const at = (i / (STEPS - 1)) * (stops.length - 1);
    const k = Math.min(stops.length - 2, Math.floor(at));
    const [a, b] = [channels(stops[k]), channels(stops[k + 1])];
    const rgb = a.map((v, c) => Math.round(v + (b[c] - v) * (at - k)));
    css.push(`rgb(${rgb.join(",")})`);
    ink.push(luminance(rgb) > 0.18 ? "#14171c" : "#f6f8fa");
  }
  const gradient = (/** @type {number} */ upTo) => {
    const parts = Array.from({ length: 17 }, (_, i) => css[stepOf((i / 16) * upTo)]);
    return `linear-gradient(to right, ${parts.join(", ")})`;
  };
  return { css, ink, gradient };
}

/**
 * Maps a value to its share of the colour ramp, and says which values to print beside the ramp.
 * @typedef {object} Scale
 * @property {(value: number) => number} share in [0, 1]
 * @property {number} low the value at the left end of the legend
 * @property {number} high
 * @property {number} middle
 */

/**
 * @param {ScaleKind} kind
 * @param {number} smallest smallest positive value
 * @param {number} largest
 * @returns {Scale}
 */
export function makeScale(kind, smallest, largest) {
  const high = largest > 0 ? largest : 1;
  if (kind === "log") {
    // Four decades are what the eye can tell apart on this ramp.
    const low = Math.min(high / 10, Math.max(smallest, high / 1e4));
    const span = Math.log(high / low);
    const share = (/** @type {number} */ v) =>
      v > 0 ? FIRST_VISIBLE + (1 - FIRST_VISIBLE) * Math.min(1, Math.max(0, Math.log(v / low) / span)) : 0;
    return { share, low, high, middle: Math.sqrt(low * high) };
  }
  const share = (/** @type {number} */ v) => (v > 0 ? Math.max(FIRST_VISIBLE, Math.min(1, v / high)) : 0);
  return { share, low: 0, high, middle: high / 2 };
}

/** The step of a 256-step ramp at a share. @param {number} share */
export function stepOf(share) {
  return Math.round(share * (STEPS - 1));
}

// ----------------------------------------------------------------------------------- documents

/**
 * An element with attributes and children; `text` becomes its textContent.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number | boolean | null | undefined>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = String(value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children);
  return node;
}

/**
 * The same for SVG.
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number>} [attributes]
 * @param {...Node} children
 * @returns {SVGElementTagNameMap[K]}
 */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = String(value);
    else node.setAttribute(name, String(value));
  }
  node.append(...children);
  return node;
}

/**
 * float32 values of a bytes trait. Copied, because a DataView may start at any byte.
 * @param {unknown} bytes
 * @returns {Float32Array}
 */
export function floats(bytes) {
  if (!(bytes instanceof DataView)) return new Float32Array(0);
  const whole = bytes.byteLength - (bytes.byteLength % 4);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + whole));
}

/**
 * Whether the page around a node is dark: what the host says, else what lies behind the node,
 * else what the reader's system prefers.
 * @param {Element} node
 */
function isDark(node) {
  const body = document.body;
  const jupyter = body.dataset.jpThemeLight;
  if (jupyter) return jupyter === "false";
  const code = body.dataset.vscodeThemeKind;
  if (code) return code.includes("dark") || code === "vscode-high-contrast";
  const colab = document.documentElement.getAttribute("theme");
  if (colab) return colab === "dark";
  for (let at = node.parentElement; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor.match(/[\d.]+/g)?.map(Number) ?? [];
    if (colour.length === 3 || colour[3] > 0.5) return luminance(colour.slice(0, 3)) < 0.3;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

// --------------------------------------------------------------------------------------- Frame

const NARROW = 620;
const MEDIUM = 860;
const SLIM = 470;

/**
 * One widget on the page: its root, header, error box and theme, and everything to undo at the end.
 *
 * The header shows the traits `title`, `subtitle` and `code`; the error box shows `error`. A subclass
 * is not needed: a widget builds its own elements into `body` and asks for redraws by `schedule`.
 */
export class Frame {
  /**
   * @param {{model: Model, el: HTMLElement}} view
   * @param {string} kind class name of the root
   */
  constructor({ model, el }, kind) {
    this.model = model;
    this.controller = new AbortController();
    this.signal = this.controller.signal;
    /** @type {Array<() => void>} */
    this.redraws = [];
    this.pending = 0;
    this.dark = false;
    this.width = 0;
    this.ramp = makeRamp(false);

    this.title = element("div", { class: "wb-title", role: "heading", "aria-level": "3" });
    this.subtitle = element("div", { class: "wb-subtitle" });
    this.tools = element("div", { class: "wb-tools" });
    const header = element("div", { class: "wb-header" },
      element("div", { class: "wb-headings" }, this.title, this.subtitle), this.tools);
    this.body = element("div", { class: "wb-body" });
    this.live = element("div", { class: "wb-sr", "aria-live": "polite" });
    this.root = element("section", { class: `wb ${kind}` }, header, this.body, this.live);
    el.append(this.root);
    this.addCodeButton();
    this.addErrorBox();
    this.card = new Card(this.root);
    this.watch(["title", "subtitle"], () => this.showHeadings());
    this.showHeadings();
    this.followTheme();
    this.followWidth();
  }

  /**
   * Add a listener that dies with the widget.
   * @param {EventTarget} target
   * @param {string} type
   * @param {(event: any) => void} handler
   * @param {AddEventListenerOptions} [options]
   */
  listen(target, type, handler, options = {}) {
    target.addEventListener(type, handler, { ...options, signal: this.signal });
  }

  /**
   * Call `handler` when one of these traits changes.
   * @param {string[]} names
   * @param {() => void} handler
   */
  watch(names, handler) {
    for (const name of names) this.on(`change:${name}`, handler);
  }

  /**
   * @param {string} event
   * @param {(...args: any[]) => void} handler
   */
  on(event, handler) {
    this.model.on(event, handler);
    this.atEnd(() => this.model.off(event, handler));
  }

  /** @param {() => void} undo */
  atEnd(undo) {
    this.signal.addEventListener("abort", undo, { once: true });
  }

  /** Register what to draw; all of it runs in the next frame after `schedule()`. @param {() => void} draw */
  onDraw(draw) {
    this.redraws.push(draw);
  }

  /** Ask for one repaint in the next frame, however often this is called. */
  schedule() {
    if (this.pending || this.signal.aborted) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      if (this.width > 0) for (const draw of this.redraws) draw();
    });
  }

  /** Remove the widget from the page, and every listener, observer and timer of it. */
  cleanup() {
    cancelAnimationFrame(this.pending);
    this.controller.abort();
    this.root.remove();
  }

  /** A trait set from the page, and sent. @param {string} name @param {unknown} value */
  save(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  /** The computed value of a custom property. @param {string} name */
  colour(name) {
    return getComputedStyle(this.root).getPropertyValue(name).trim();
  }

  showHeadings() {
    const { model } = this;
    this.title.textContent = model.get("title") ?? "";
    this.subtitle.textContent = model.get("subtitle") ?? "";
    this.title.hidden = !model.get("title");
    this.subtitle.hidden = !model.get("subtitle");
  }

  addCodeButton() {
    const button = element("button", { class: "wb-button wb-quiet", type: "button", text: "Copy as code" });
    const shown = element("textarea", {
      class: "wb-code", readonly: true, spellcheck: "false", "aria-label": "The same in Python", hidden: true,
    });
    let timer = 0;
    const say = (/** @type {string} */ text) => {
      button.textContent = text;
      clearTimeout(timer);
      timer = window.setTimeout(() => { button.textContent = "Copy as code"; }, 1600);
    };
    this.listen(button, "click", () => this.copy(String(this.model.get("code") ?? ""), say));
    const refresh = () => { button.hidden = !this.model.get("code"); };
    this.watch(["code"], refresh);
    refresh();
    this.atEnd(() => clearTimeout(timer));
    this.tools.append(button);
    this.body.before(shown);
    this.shown = shown;
  }

  /**
   * Copy a text, or show it selected where the page may not write to the clipboard.
   * @param {string} text
   * @param {(said: string) => void} say
   */
  async copy(text, say) {
    const { shown } = this;
    if (!shown) return;
    shown.hidden = true;
    try {
      await navigator.clipboard.writeText(text);
      if (!this.signal.aborted) say("Copied");
    } catch {
      // No permission, or a page without a secure origin: the reader copies by hand.
      if (this.signal.aborted) return;
      shown.value = text;
      shown.rows = Math.min(20, text.split("\n").length);
      shown.hidden = false;
      shown.focus();
      shown.select();
      say("Press Ctrl+C");
    }
  }

  addErrorBox() {
    const text = element("div", { class: "wb-error-text" });
    const close = element("button", { class: "wb-button wb-quiet", type: "button", text: "Dismiss" });
    const box = element("div", { class: "wb-error", role: "alert", hidden: true }, text, close);
    const refresh = () => {
      text.textContent = this.model.get("error") ?? "";
      box.hidden = !this.model.get("error");
    };
    this.watch(["error"], refresh);
    this.listen(close, "click", () => this.save("error", ""));
    this.body.before(box);
    refresh();
  }

  followTheme() {
    const apply = () => {
      const dark = isDark(this.root);
      if (dark === this.dark && this.root.dataset.theme) return;
      this.dark = dark;
      this.root.dataset.theme = dark ? "dark" : "light";
      this.ramp = makeRamp(dark);
      this.schedule();
    };
    const observer = new MutationObserver(apply);
    for (const node of [document.documentElement, document.body]) observer.observe(node, { attributes: true });
    this.atEnd(() => observer.disconnect());
    this.listen(matchMedia("(prefers-color-scheme: dark)"), "change", apply);
    apply();
  }

  followWidth() {
    const measure = () => {
      const width = this.root.clientWidth;
      if (width === this.width) return;
      // The first measure may be the first moment that the widget is on the page, with a background.
      this.width = width;
      this.root.classList.toggle("wb-narrow", width < NARROW);
      this.root.classList.toggle("wb-medium", width < MEDIUM);
      this.root.classList.toggle("wb-slim", width < SLIM);
      this.schedule();
    };
    const observer = new ResizeObserver(measure);
    observer.observe(this.root);
    this.atEnd(() => observer.disconnect());
    this.listen(window, "resize", () => this.schedule());
    measure();
  }
}

// ---------------------------------------------------------------------------------------- Card

/**
 * @typedef {object} CardContent
 * @property {string} title
 * @property {string} [lead] second line, in the ordinary face
 * @property {Array<[string, string]>} [facts] name and value
 * @property {Array<[string, number]>} [bars] name and share of 1, drawn as bars
 * @property {string} [barsTitle]
 * @property {string} [note] last line, muted
 */

/** The hover card: exact numbers beside the thing pointed at, never outside the widget. */
export class Card {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.node = element("div", { class: "wb-card", role: "tooltip", hidden: true });
    root.append(this.node);
  }

  /**
   * @param {CardContent} content
   * @param {Box} anchor
   * @param {"beside" | "below"} side where it goes if there is room
   */
  show(content, anchor, side = "beside") {
    const { node } = this;
    node.replaceChildren(element("div", { class: "wb-card-title", text: content.title }));
    if (content.lead) node.append(element("div", { class: "wb-card-lead", text: content.lead }));
    if (content.facts?.length) {
      const list = element("dl", { class: "wb-facts" });
      for (const [name, value] of content.facts) {
        list.append(element("dt", { text: name }), element("dd", { text: value }));
      }
      node.append(list);
    }
    if (content.bars?.length) node.append(this.bars(content.bars, content.barsTitle ?? ""));
    if (content.note) node.append(element("div", { class: "wb-card-note", text: content.note }));
    node.hidden = false;
    this.place(anchor, side);
  }

  /**
   * @param {Array<[string, number]>} bars
   * @param {string} title
   */
  bars(bars, title) {
    const list = element("div", { class: "wb-bars" }, element("div", { class: "wb-bars-title", text: title }));
    for (const [name, share] of bars) {
      const bar = element("span", { class: "wb-bar" });
      bar.style.width = `${Math.max(1, 100 * Math.min(1, share))}%`;
      list.append(
        element("span", { class: "wb-bar-name", text: name }),
        element("span", { class: "wb-bar-track" }, bar),
        element("span", { class: "wb-bar-value", text: percent(share) }),
      );
    }
    return list;
  }

  /**
   * Right of the anchor, else left, else below or above: wherever it fits.
   * @param {Box} anchor
   * @param {"beside" | "below"} side
   */
  place(anchor, side = "beside") {
    const { node } = this;
    const gap = 10;
    const frame = this.root.getBoundingClientRect();
    const [width, height] = [node.offsetWidth, node.offsetHeight];
    const right = anchor.right - frame.left + gap;
    const left = anchor.left - frame.left - gap - width;
    const above = anchor.top - frame.top - gap - height;
    let x = right;
    let y = anchor.top - frame.top - 6;
    if (side === "below" || right + width > frame.width) {
      x = left;
      if (side === "below" || left < 0) {
        x = Math.min(Math.max(0, anchor.left - frame.left - 12), frame.width - width);
        y = anchor.bottom - frame.top + gap;
        if (y + height > frame.height && above >= 0) y = above;
      }
    }
    node.style.left = `${Math.max(0, x)}px`;
    node.style.top = `${Math.max(0, Math.min(y, Math.max(frame.height - height, 0)))}px`;
  }

  hide() {
    this.node.hidden = true;
  }
}

/** A probability in percent, with a digit after the point when it is small. @param {number} share */
export function percent(share) {
  if (!Number.isFinite(share)) return "–";
  const value = 100 * share;
  if (value === 0) return "0 %";
  if (value > 0 && value < 0.1) return "< 0.1 %";
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}

// -------------------------------------------------------------------------------------- Legend

/** The colour ramp with its unit and three values, and a mark for the value pointed at. */
export class Legend {
  /** @param {Frame} frame */
  constructor(frame) {
    this.frame = frame;
    this.unit = element("span", { class: "wb-legend-unit" });
    this.zero = element("span", { class: "wb-legend-zero" }, element("i"), element("b", { text: "0" }));
    this.bar = element("span", { class: "wb-legend-bar" });
    this.mark = element("i", { class: "wb-legend-mark", hidden: true });
    this.ticks = ["0%", "50%", "100%"].map((left) => {
      const tick = element("b");
      tick.style.left = left;
      return tick;
    });
    this.bar.append(this.mark, ...this.ticks);
    this.masked = element("span", { class: "wb-legend-masked" }, element("i"), element("span"));
    this.node = element("div", { class: "wb-legend" }, this.unit, this.zero, this.bar, this.masked);
  }

  /**
   * @param {Scale} scale
   * @param {ScaleKind} kind
   * @param {string} unit
   * @param {string} masked what the hatching means; empty: nothing is masked
   * @param {number} upTo the share of the ramp that the largest value has
   */
  show(scale, kind, unit, masked, upTo = 1) {
    const { ramp } = this.frame;
    this.unit.textContent = unit;
    this.bar.style.backgroundImage = ramp.gradient(upTo);
    this.zero.hidden = kind !== "log";
    const swatch = /** @type {HTMLElement} */ (this.zero.firstChild);
    swatch.style.backgroundColor = ramp.css[0];
    [scale.low, scale.middle, scale.high].forEach((value, i) => { this.ticks[i].textContent = short(value); });
    this.masked.hidden = masked === "";
    /** @type {HTMLElement} */ (this.masked.lastChild).textContent = masked;
  }

  /** Point at a share of the ramp, or at nothing. @param {number | null} share */
  point(share) {
    // On a log scale zero has a swatch of its own, outside the ramp.
    this.mark.hidden = share === null || (share === 0 && !this.zero.hidden);
    if (share !== null) this.mark.style.left = `${100 * share}%`;
  }
}

// ------------------------------------------------------------------------------------ controls

/**
 * A switch of two or three words, one of them pressed.
 * @param {Frame} frame
 * @param {string} label
 * @param {Array<[string, string]>} options value and word
 * @param {() => string} get
 * @param {(value: string) => void} set
 * @returns {{node: HTMLElement, refresh: () => void}}
 */
export function segmented(frame, label, options, get, set) {
  const buttons = options.map(([value, word]) => {
    const button = element("button", { class: "wb-segment", type: "button", text: word });
    frame.listen(button, "click", () => {
      set(value);
      refresh();
    });
    return button;
  });
  const refresh = () => buttons.forEach((button, i) => {
    button.setAttribute("aria-pressed", String(options[i][0] === get()));
  });
  refresh();
  const group = element("span", { class: "wb-segments", role: "group", "aria-label": label }, ...buttons);
  return { node: element("span", { class: "wb-switch" }, element("span", { text: label, hidden: label === "" }), group), refresh };
}
