// Elements of the page, numbers as text, and round numbers for axes.

const SVG = "http://www.w3.org/2000/svg";

/** Add an element to a parent, and return it. */
export function add(parent, tag, attributes = {}, text = null) {
  const isSvg = parent.namespaceURI === SVG || tag === "svg";
  const element = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  set(element, attributes);
  if (text !== null) element.textContent = text;
  return parent.appendChild(element);
}

/** Set attributes; null removes one. */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null) element.removeAttribute(name);
    else element.setAttribute(name, value);
  }
}

/** Show a number; all its digits are kept in `data-value`. */
export function show(element, value, text = fixed(value)) {
  element.dataset.value = value;
  // Most numbers stay the same while one thing changes. A field is not overwritten under the hand.
  if (element.shown === text || element.isTyping) return;
  element.shown = text;
  if (element instanceof HTMLInputElement) element.value = text;
  else element.textContent = text;
}

export function fixed(value, digits = 3) {
  const size = Math.abs(value);
  const text = size >= 1e5 ? value.toExponential(2) : value.toFixed(size >= 1000 ? 1 : digits);
  return (/[1-9]/.test(text) ? text : text.replace("-", "")).replace(/-/g, "\u2212");
}

/** Return the text of a number in a field, which must not have a typographic minus. */
export const typed = (value) => String(Number(Math.abs(value) < 1 ? value.toPrecision(3) : value.toFixed(3)));

export const whole = (value) => value.toLocaleString("en");

export function duration(seconds) {
  const units = [[1e-6, "µs"], [1e-3, "ms"], [1, "s"], [60, "min"], [3600, "h"], [86400, "days"]];
  const [size, name] = units.findLast(([size]) => seconds >= size) ?? units[0];
  const value = seconds / size;
  return `${value >= 999.5 ? whole(Math.round(value)) : value.toPrecision(3)} ${name}`;
}

export const parameter = (k, column) => (column === 2 ? `b[${k}]` : `W[${k}, ${"xy"[column]}]`);
export const PARAMETERS = [0, 1, 2].flatMap((k) => [0, 1, 2].map((column) => [k, column]));
export const points = (polygon) => polygon.map(([x, y]) => `${x},${-y}`).join(" ");
export const right = (points) => points.filter((point) => point.right).length;

/** Return round numbers that divide [low, high] into about n parts. */
export function ticks(low, high, n) {
  const raw = (high - low) / n || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}
