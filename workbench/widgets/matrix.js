// @ts-check
/**
 * The matrix that the heatmap and the evolution map draw: rows by tokens on one canvas.
 *
 * The canvas is as large as the visible part only and sticks to the corner of a scrolling sheet of the
 * full size; each frame draws the cells that can be seen. So 512 tokens by 1000 rows cost as much as a
 * screenful. Gutters (row labels left, a number right, tokens above, positions below) are painted on
 * the same canvas and do not scroll away, nor do the first lines, if some are frozen.
 *
 * A row is a row of the data, a line is where it stands: `order` lists the rows to draw, top to bottom.
 */

import { axisToken, element, stepOf } from "./shared.js";
/** @typedef {import("./shared.js").Frame} Frame */
/** @typedef {import("./shared.js").Box} Box */
/** @typedef {import("./shared.js").Ramp} Ramp */

/** @typedef {{position: number, row: number}} Cell position -1: the row's label; row -1: the token's */

/**
 * @typedef {object} Paint resolved colours and faces of the current theme
 * @property {string} ink
 * @property {string} soft
 * @property {string} faint
 * @property {string} line
 * @property {string} surface
 * @property {string} accent
 * @property {string} face
 * @property {string} mono
 */

/**
 * @typedef {object} RowBox where a row's gutter is, in canvas pixels
 * @property {number} x
 * @property {number} y middle of the row
 * @property {number} width
 * @property {number} height
 * @property {boolean} strong the row is pointed at or selected
 */

/**
 * @typedef {object} Matrix what to draw
 * @property {string[]} tokens
 * @property {number[]} order rows to draw, top to bottom
 * @property {number} frozen the first lines that stay when the others scroll
 * @property {number} bands values in a cell, one above the other
 * @property {(position: number, row: number, band: number) => number} value
 * @property {(value: number, row: number) => number} share of the colour ramp
 * @property {() => Ramp} ramp the colours
 * @property {string[] | null} labels above the columns, where the tokens as they are will not do
 * @property {Set<number>} masked positions
 * @property {Set<number>} rules rows with a line above them
 * @property {Cell | null} selected
 */

/**
 * @typedef {object} Part lines from `top` to `end`, drawn between two heights
 * @property {number} first position
 * @property {number} last
 * @property {number} top
 * @property {number} end
 * @property {number} above
 * @property {number} below
 */

/**
 * @typedef {object} Gutters
 * @property {string} leftTitle
 * @property {string} rightTitle
 * @property {(width: number) => number} leftWidth of the gutter in a plot of this width
 * @property {(width: number) => number} rightWidth
 * @property {(context: CanvasRenderingContext2D, row: number, box: RowBox, paint: Paint) => void} left
 * @property {(context: CanvasRenderingContext2D, row: number, box: RowBox, paint: Paint) => void} right
 * @property {(position: number) => string} [foot] what stands below a column: its number
 */

/**
 * @typedef {object} Events
 * @property {string} label
 * @property {(cell: Cell | null) => void} point
 * @property {(cell: Cell | null) => void} select
 * @property {(key: string, cell: Cell) => boolean} [key] any other key; whether it meant something
 * @property {(row: number, x: number, width: number) => (() => void) | null} [press] what a click into
 *   the left gutter would do there
 */

const ROW = 22;
const CELL = { least: 19, most: 72 };
const FOOT = 34;
const TILT = Math.PI / 4;
const LONGEST_LABEL = 104;
const TALLEST = 660;
const LABEL_SIZE = 12;

export class MatrixPlot {
  /**
   * @param {Frame} frame
   * @param {Gutters} gutters
   * @param {Events} events
   */
  constructor(frame, gutters, events) {
    this.frame = frame;
    this.gutters = gutters;
    this.events = events;
    /** @type {Matrix} */
    this.matrix = {
      tokens: [], order: [], frozen: 0, bands: 1, value: () => 0, share: () => 0, ramp: () => frame.ramp, labels: null,
      masked: new Set(), rules: new Set(), selected: null,
    };
    /** @type {Map<number, number>} row -> line */
    this.lines = new Map();
    /** @type {Cell | null} pointed at by the mouse or the arrow keys */
    this.pointed = null;
    this.byKey = false;
    this.tallest = TALLEST;
    this.mouse = { x: -1, y: -1 };
    /** @type {string[]} */
    this.labels = [];
    /** @type {Map<string, string>} */
    this.fitted = new Map();
    this.size = { left: 0, right: 0, head: 0, cell: CELL.least, width: 0, height: 0, tilted: false };
    /** @type {{labels: string[], font: string, width: number}} */
    this.measured = { labels: [], font: "", width: 0 };
    this.frames = 0;
    /** @type {Cell | null} */
    this.toReveal = null;
    this.canvas = element("canvas", { "aria-hidden": "true" });
    this.sheet = element("div", { class: "wb-sheet" }, this.canvas);
    // Without the suppress mark JupyterLab takes the arrow keys to walk from cell to cell.
    this.scroller = element("div", {
      class: "wb-scroller", tabindex: "0", role: "application", "aria-roledescription": "heatmap",
      "aria-label": events.label, "data-lm-suppress-shortcuts": "true",
    }, this.sheet);
    this.context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    frame.onDraw(() => this.draw());
    frame.listen(this.scroller, "scroll", () => frame.schedule(), { passive: true });
    frame.listen(this.scroller, "pointermove", (event) => this.follow(event));
    frame.listen(this.scroller, "pointerleave", () => { if (!this.byKey) this.point(null); });
    frame.listen(this.scroller, "click", (event) => {
      const press = this.pressAt(event);
      if (press) press();
      else this.choose(this.cellAt(event));
    });
    frame.listen(this.scroller, "keydown", (event) => this.key(event));
    frame.listen(this.scroller, "blur", () => this.point(null));
  }

  /** @param {Partial<Matrix>} matrix */
  update(matrix) {
    Object.assign(this.matrix, matrix);
    if (matrix.tokens) this.labels = this.matrix.labels ?? matrix.tokens.map(axisToken);
    if (matrix.order) this.lines = new Map(matrix.order.map((row, line) => [row, line]));
    if (this.pointed && !this.exists(this.pointed)) this.pointed = null;
    this.frame.schedule();
  }

  /** @param {Cell} cell */
  exists(cell) {
    return cell.position < this.matrix.tokens.length && (cell.row < 0 || this.lines.has(cell.row));
  }

  // ------------------------------------------------------------------------------- pointing

  /**
   * A mouse at rest gets events too when the page scrolls under it; the arrow keys keep their cell.
   * @param {PointerEvent} event
   */
  follow(event) {
    const { clientX: x, clientY: y } = event;
    if (this.byKey && this.mouse.x === x && this.mouse.y === y) return;
    this.mouse = { x, y };
    this.byKey = false;
    this.scroller.style.cursor = this.pressAt(event) ? "pointer" : "";
    this.point(this.cellAt(event));
  }

  /** What a click here would do to the row's name. @param {PointerEvent | MouseEvent} event */
  pressAt(event) {
    const cell = this.cellAt(event);
    const x = event.clientX - this.canvas.getBoundingClientRect().left;
    if (!cell || cell.row < 0 || x >= this.size.left) return null;
    return this.events.press?.(cell.row, x, this.size.left) ?? null;
  }

  /** @param {Cell | null} cell */
  point(cell) {
    if (cell?.position === this.pointed?.position && cell?.row === this.pointed?.row) return;
    this.pointed = cell;
    this.events.point(cell);
    this.frame.schedule();
  }

  /** @param {Cell | null} cell */
  choose(cell) {
    if (cell && cell.position >= 0 && cell.row >= 0) this.events.select(cell);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const { tokens, order, selected } = this.matrix;
    if (event.ctrlKey || event.metaKey || event.altKey || !tokens.length || !order.length) return;
    const from = this.pointed ?? selected ?? { position: 0, row: order[0] };
    const start = this.pointed === null && selected === null;
    const page = Math.max(1, Math.floor((this.size.height - this.size.head - FOOT) / ROW) - 1);
    /** @type {Record<string, [number, number]>} */
    const moves = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
      PageUp: [0, -page], PageDown: [0, page], Home: [-tokens.length, 0], End: [tokens.length, 0],
    };
    const clamp = (/** @type {number} */ v, /** @type {number} */ n) => Math.min(n - 1, Math.max(0, v));
    if (event.key in moves) {
      const [dx, dy] = start ? [0, 0] : moves[event.key];
      const line = clamp((this.lines.get(from.row) ?? 0) + dy, order.length);
      const cell = { position: clamp(from.position + dx, tokens.length), row: order[line] };
      this.moveTo(cell);
    } else if (event.key === "Enter" || event.key === " ") {
      this.choose(from);
    } else if (event.key === "Escape") {
      this.point(null);
      this.events.select(null);
    } else if (!this.events.key?.(event.key, from)) {
      return;
    }
    event.preventDefault();
  }

  /** Move the keyboard's cursor. @param {Cell} cell */
  moveTo(cell) {
    this.byKey = true;
    this.reveal(cell);
    this.point(cell);
  }

  /** The same after the next drawing has measured: for new contents. @param {Cell | null} cell */
  revealNext(cell) {
    this.toReveal = cell;
    this.frame.schedule();
  }

  /** Scroll so that a cell is inside the visible part. @param {Cell} cell */
  reveal(cell) {
    const { left, right, head, cell: wide, width, height } = this.size;
    const { scroller } = this;
    const x = cell.position * wide;
    const line = this.lines.get(cell.row) ?? -1;
    const roomX = width - left - right;
    const roomY = height - head - FOOT;
    if (cell.position >= 0) scroller.scrollLeft = Math.max(Math.min(scroller.scrollLeft, x), x + wide - roomX);
    if (line < this.frozen()) return;
    const under = (line - this.frozen()) * ROW;
    scroller.scrollTop = Math.max(Math.min(scroller.scrollTop, under), (line + 1) * ROW - roomY);
  }

  /** How many lines do not scroll: never so many that nothing else is seen. */
  frozen() {
    const seen = Math.round((this.edges().bottom - this.size.head) / ROW);
    return Math.min(this.matrix.frozen, seen >> 1);
  }

  /** Upper edge of a line on the canvas. @param {number} line */
  lineTop(line) {
    return this.size.head + line * ROW - (line < this.frozen() ? 0 : this.scroller.scrollTop);
  }

  /** Upper edge of a row on the canvas. @param {number} row */
  rowTop(row) {
    return this.lineTop(this.lines.get(row) ?? 0);
  }

  /** @param {PointerEvent | MouseEvent} event @returns {Cell | null} */
  cellAt(event) {
    const frame = this.canvas.getBoundingClientRect();
    const x = event.clientX - frame.left;
    const y = event.clientY - frame.top;
    const { left, head, cell } = this.size;
    const { tokens, order } = this.matrix;
    const edge = this.edges();
    const fixedLine = Math.floor((y - head) / ROW);
    const line = fixedLine < this.frozen() ? fixedLine : Math.floor((y - head + this.scroller.scrollTop) / ROW);
    const position = Math.floor((x - left + this.scroller.scrollLeft) / cell);
    const inRows = y >= head && y < edge.bottom && line >= 0 && line < order.length;
    const inColumns = x >= left && x < edge.right && position < tokens.length;
    const row = inRows ? order[line] : -1;
    if (inRows && inColumns) return { position, row };
    if (inRows && (x < left || x < edge.right + this.size.right)) return { position: -1, row };
    return inColumns && (y < head || y >= edge.bottom) ? { position, row: -1 } : null;
  }

  /** Where a cell or a label is on the screen. @param {Cell} cell @returns {Box} */
  boxOf(cell) {
    const frame = this.canvas.getBoundingClientRect();
    const { left, head, cell: wide } = this.size;
    const x = cell.position < 0 ? 0 : left + cell.position * wide - this.scroller.scrollLeft;
    const y = cell.row < 0 ? head - ROW : this.rowTop(cell.row);
    const width = cell.position < 0 ? left : wide;
    return {
      left: frame.left + x, top: frame.top + y, right: frame.left + x + width, bottom: frame.top + y + ROW,
    };
  }

  // -------------------------------------------------------------------------------- drawing

  /** Right and lower edge of the cells on the canvas. */
  edges() {
    const { left, right, head, cell, width, height } = this.size;
    return {
      right: Math.min(width - right, left + this.matrix.tokens.length * cell),
      bottom: Math.min(height - FOOT, head + this.matrix.order.length * ROW),
    };
  }

  /** @returns {Paint} */
  paint() {
    const style = getComputedStyle(this.frame.root);
    const get = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    return {
      ink: get("--wb-ink"), soft: get("--wb-soft"), faint: get("--wb-faint"), line: get("--wb-line"),
      surface: get("--wb-surface"), accent: get("--wb-accent"),
      face: style.fontFamily, mono: get("--wb-mono"),
    };
  }

  /** Sizes that follow from the width and the labels; resizes the sheet and the canvas. @param {Paint} paint */
  measure(paint) {
    const { matrix, gutters, scroller, canvas, context: c } = this;
    c.font = `${LABEL_SIZE}px ${paint.face}`;
    const available = scroller.clientWidth;
    const left = gutters.leftWidth(available);
    const right = gutters.rightWidth(available);
    const room = available - left - right;
    const count = Math.max(1, matrix.tokens.length);
    const cell = Math.floor(Math.min(CELL.most, Math.max(CELL.least, room / count)));
    const widest = this.widestLabel();
    const tilted = widest + 10 > cell;
    const head = tilted ? Math.ceil((widest + 8) * Math.sin(TILT) + 16) : 30;
    const whole = { width: left + count * cell + right, height: head + matrix.order.length * ROW + FOOT };
    // Whole rows only: half a line of text at the lower edge reads as a mistake.
    const shown = Math.min(matrix.order.length, Math.floor((this.tallest - head - FOOT) / ROW));
    const height = head + shown * ROW + FOOT;
    scroller.style.height = `${height + (scroller.offsetHeight - scroller.clientHeight)}px`;
    this.sheet.style.width = `${whole.width > available ? whole.width : available}px`;
    this.sheet.style.height = `${whole.height}px`;
    const width = scroller.clientWidth;
    this.size = { left, right, head, cell, width, height, tilted };
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== h) {
      canvas.width = w;
      canvas.height = h;
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  /** Width of the widest token label, measured again when the labels or the face change. */
  widestLabel() {
    const { context: c, labels } = this;
    if (this.measured.labels !== labels || this.measured.font !== c.font) {
      const widest = labels.reduce((most, text) => Math.max(most, c.measureText(text).width), 0);
      this.measured = { labels, font: c.font, width: Math.min(LONGEST_LABEL, widest) };
    }
    return this.measured.width;
  }

  draw() {
    const paint = this.paint();
    this.measure(paint);
    if (this.toReveal) this.reveal(this.toReveal);
    this.toReveal = null;
    const { context: c, canvas, size } = this;
    c.clearRect(0, 0, size.width, size.height);
    c.textBaseline = "middle";
    const edge = this.edges();
    const { scrollLeft, scrollTop } = this.scroller;
    const first = Math.max(0, Math.floor(scrollLeft / size.cell));
    const last = Math.min(this.matrix.tokens.length, Math.ceil((scrollLeft + edge.right - size.left) / size.cell));
    const frozen = this.frozen();
    const under = size.head + frozen * ROW;
    const end = Math.min(this.matrix.order.length, Math.ceil((scrollTop + edge.bottom - size.head) / ROW));
    const scrolled = { first, last, top: frozen + Math.floor(scrollTop / ROW), end, above: under, below: edge.bottom };
    const fixed = { first, last, top: 0, end: frozen, above: size.head, below: under };
    for (const part of frozen ? [scrolled, fixed] : [scrolled]) {
      this.drawCells(part, paint);
      this.drawGutters(part, paint);
    }
    if (frozen) {
      c.fillStyle = paint.faint;
      c.fillRect(0, under - 1, edge.right + size.right, 1);
    }
    this.drawHead(first, last, paint);
    this.drawFoot(first, last, paint);
    this.frames += 1;
    // Tests and other scripts find a cell's pixel by these.
    Object.assign(canvas.dataset, {
      left: size.left, top: size.head, cell: size.cell, row: ROW, frames: this.frames,
    });
  }

  /** @param {Part} part @param {Paint} paint */
  drawCells({ first, last, top, end, above, below }, paint) {
    const { context: c, matrix, size } = this;
    const edge = this.edges();
    const ramp = matrix.ramp();
    c.save();
    c.beginPath();
    c.rect(size.left, above - 1, edge.right - size.left + 1, below - above + 2);
    c.clip();
    for (let line = top; line < end; line += 1) {
      const row = matrix.order[line];
      const y = this.lineTop(line);
      for (let position = first; position < last; position += 1) this.drawCell(position, row, y, ramp, paint);
      if (matrix.rules.has(row) && line > 0) {
        c.fillStyle = paint.line;
        c.fillRect(size.left, y - 1, edge.right - size.left - 1, 1);
      }
    }
    for (const [cell, weight] of /** @type {Array<[Cell | null, number]>} */ ([[matrix.selected, 2], [this.pointed, 1]])) {
      const line = cell && cell.position >= 0 ? this.lines.get(cell.row) ?? -1 : -1;
      if (cell && line >= top && line < end) this.outline(cell, paint, weight);
    }
    c.restore();
  }

  /**
   * @param {number} position
   * @param {number} row
   * @param {number} top
   * @param {Ramp} ramp
   * @param {Paint} paint
   */
  drawCell(position, row, top, ramp, paint) {
    const { context: c, matrix, size } = this;
    const x = size.left + position * size.cell - this.scroller.scrollLeft;
    const masked = matrix.masked.has(position);
    // Bands touch, and a wider gap parts the rows: what belongs together is seen to.
    const height = matrix.bands > 1 ? (ROW - 2) / matrix.bands : ROW - 1;
    for (let band = 0; band < matrix.bands; band += 1) {
      const value = matrix.value(position, row, band);
      const y = top + band * height;
      const hidden = masked || !Number.isFinite(value);
      c.fillStyle = hidden ? paint.surface : ramp.css[stepOf(matrix.share(value, row))];
      c.fillRect(x, y, size.cell - 1, height);
      if (hidden) this.hatch(x, y, size.cell - 1, height, paint);
    }
  }

  /**
   * @param {number} x
   * @param {number} y
   * @param {number} width
   * @param {number} height
   * @param {Paint} paint
   */
  hatch(x, y, width, height, paint) {
    const c = this.context;
    c.save();
    c.beginPath();
    c.rect(x, y, width, height);
    c.clip();
    c.strokeStyle = paint.line;
    c.lineWidth = 1;
    c.beginPath();
    for (let d = -height; d < width; d += 5) {
      c.moveTo(x + d, y + height);
      c.lineTo(x + d + height, y);
    }
    c.stroke();
    c.restore();
  }

  /**
   * Dark and light line together stand out from every colour of the ramp.
   * @param {Cell} cell
   * @param {Paint} paint
   * @param {number} weight
   */
  outline(cell, paint, weight) {
    const { context: c, size } = this;
    const x = size.left + cell.position * size.cell - this.scroller.scrollLeft;
    const y = this.rowTop(cell.row);
    c.lineWidth = weight;
    c.strokeStyle = weight > 1 ? paint.accent : paint.ink;
    c.strokeRect(x - 0.5, y - 0.5, size.cell, ROW);
    c.lineWidth = 1;
    c.strokeStyle = paint.surface;
    c.strokeRect(x + weight / 2, y + weight / 2, size.cell - 1 - weight, ROW - 1 - weight);
  }

  /** @param {Part} part @param {Paint} paint */
  drawGutters({ top, end, above, below }, paint) {
    const { context: c, gutters, size, matrix } = this;
    const edge = this.edges();
    c.save();
    c.beginPath();
    c.rect(0, above - 1, size.width, below - above + 2);
    c.clip();
    for (let line = top; line < end; line += 1) {
      const row = matrix.order[line];
      const y = this.lineTop(line) + (ROW - 1) / 2;
      const strong = this.pointed?.row === row || (!this.pointed && matrix.selected?.row === row);
      const rule = matrix.rules.has(row) && line > 0;
      for (const side of /** @type {const} */ (["left", "right"])) {
        const x = side === "left" ? 0 : edge.right;
        const width = side === "left" ? size.left : size.right;
        if (rule) {
          c.fillStyle = paint.line;
          c.fillRect(x, Math.round(y - ROW / 2) - 0.5, width, 1);
        }
        c.fillStyle = strong ? paint.ink : paint.soft;
        c.textAlign = "left";
        gutters[side](c, row, { x, y, width, height: ROW, strong }, paint);
      }
    }
    c.restore();
  }

  /** @param {number} first @param {number} last @param {Paint} paint */
  drawHead(first, last, paint) {
    const { context: c, size, matrix } = this;
    const edge = this.edges();
    const base = size.head - 9;
    c.save();
    c.beginPath();
    c.rect(size.left - 2, 0, size.width - size.left + 2, size.head);
    c.clip();
    for (let position = first; position < last; position += 1) {
      const x = size.left + (position + 0.5) * size.cell - this.scroller.scrollLeft - 0.5;
      if (x < size.left || x > edge.right) continue;
      const strong = this.pointed?.position === position || (!this.pointed && matrix.selected?.position === position);
      const colour = strong ? paint.ink : matrix.masked.has(position) ? paint.faint : paint.soft;
      this.headLabel(this.labels[position], x, base, colour, strong, paint);
    }
    c.restore();
    c.font = `11px ${paint.face}`;
    c.fillStyle = paint.faint;
    c.textAlign = "left";
    c.fillText(this.fit(this.gutters.leftTitle, size.left - 8), 0, base);
    if (!this.gutters.rightTitle) return;
    const x = edge.right + (size.tilted ? 18 : 32);
    this.headLabel(this.gutters.rightTitle, x, base, paint.faint, false, paint);
  }

  /**
   * @param {string} text
   * @param {number} x
   * @param {number} y
   * @param {string} colour
   * @param {boolean} strong
   * @param {Paint} paint
   */
  headLabel(text, x, y, colour, strong, paint) {
    const { context: c, size } = this;
    c.save();
    c.font = `${strong ? 600 : 400} ${LABEL_SIZE}px ${paint.face}`;
    c.fillStyle = colour;
    c.translate(x, y);
    c.textAlign = size.tilted ? "left" : "center";
    if (size.tilted) c.rotate(-TILT);
    c.fillText(this.fit(text, size.tilted ? LONGEST_LABEL : size.cell - 4), 0, 0);
    c.restore();
  }

  /** @param {number} first @param {number} last @param {Paint} paint */
  drawFoot(first, last, paint) {
    const { context: c, size } = this;
    const edge = this.edges();
    const every = [1, 2, 5, 10, 20, 50, 100].find((n) => n * size.cell >= 26) ?? 200;
    c.font = `11px ${paint.face}`;
    c.textAlign = "center";
    for (let position = first; position < last; position += 1) {
      const x = size.left + (position + 0.5) * size.cell - this.scroller.scrollLeft - 0.5;
      if (position % every || x < size.left || x > edge.right - 4) continue;
      c.fillStyle = paint.line;
      c.fillRect(Math.round(x), edge.bottom + 2, 1, 4);
      c.fillStyle = this.pointed?.position === position ? paint.ink : paint.faint;
      c.fillText(this.gutters.foot?.(position) ?? String(position), x, edge.bottom + 15);
    }
    c.textAlign = "right";
    c.fillStyle = paint.faint;
    c.fillText("token position", size.left - 10, edge.bottom + 15);
    const lines = Math.round((edge.bottom - size.head) / ROW);
    const count = this.matrix.order.length;
    if (lines >= count || size.left < 210) return;
    const top = Math.round(this.scroller.scrollTop / ROW) + this.frozen();
    c.textAlign = "left";
    c.fillText(`rows ${top + 1}–${Math.min(count, top + lines - this.frozen())} of ${count}`, 0, edge.bottom + 15);
  }

  /**
   * A text cut to a width, with an ellipsis, in the context's current font.
   * @param {string} text
   * @param {number} width
   */
  fit(text, width) {
    const { context: c, fitted } = this;
    const key = `${c.font}|${Math.round(width)}|${text}`;
    const known = fitted.get(key);
    if (known !== undefined) return known;
    let result = text;
    if (c.measureText(text).width > width) {
      const characters = Array.from(text);
      let [low, high] = [0, characters.length];
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (c.measureText(`${characters.slice(0, middle).join("").trimEnd()}…`).width <= width) low = middle;
        else high = middle - 1;
      }
      result = low > 0 ? `${characters.slice(0, low).join("").trimEnd()}…` : "";
    }
    if (fitted.size > 6000) fitted.clear();
    fitted.set(key, result);
    return result;
  }
}
