// The readings, the controls and the curve beside the plane.

import { add, duration, fixed, right, set, show, ticks, typed, whole } from "./elements.js";
import { CLASSES, FORMULAS } from "./layout.js";

/** Build the table of the points; return a function that shows all readings of a view. */
export function makeReadings(find, app) {
  const body = find(".points tbody");
  const outputs = [...find.all("[data-show]")];
  let rows = [];

  function addRow(point) {
    const row = add(body, "tr");
    row.addEventListener("pointerdown", () => app.select(point));
    add(row, "th", { scope: "row" }, point + 1);
    const select = add(add(row, "td"), "select", { "aria-label": `class of point ${point + 1}` });
    CLASSES.forEach((k) => add(select, "option", { value: k }, k));
    select.addEventListener("change", () =>
      app.link.change({ do: "label", point, class: Number(select.value) }));
    const cells = ["x", "y", "s0", "s1", "s2", "loss"].map((name) => add(row, "td", { class: "number", "data-cell": name }));
    return { row, select, cells, mark: add(row, "td", { class: "mark", "data-cell": "right" }) };
  }

  const shown = {
    accuracy: (view) => `${right(view.points)} of ${view.points.length}`,
    n_updates: (view) => whole(view.n_updates),
    evaluations: (view) => (view.n_updates ? whole(view.evaluations) : "–"),
    seconds: (view) => (view.n_updates ? duration(view.seconds) : "–"),
  };

  return (view) => {
    for (const output of outputs) {
      const name = output.dataset.show;
      show(output, view[name], shown[name]?.(view) ?? fixed(view[name]));
    }
    while (rows.length > view.points.length) rows.pop().row.remove();
    while (rows.length < view.points.length) rows.push(addRow(rows.length));
    view.points.forEach((point, i) => {
      const { row, select, cells, mark } = rows[i];
      row.className = `class-${point.class}${i === app.selected ? " selected" : ""}${point.right ? "" : " wrong"}`;
      select.value = point.class;
      [point.x, point.y, ...point.scores, point.loss].forEach((value, c) => {
        show(cells[c], value, fixed(value, c < 2 ? 2 : 3));
        cells[c].classList.toggle("own", c === point.class + 2);
      });
      mark.dataset.value = point.right;
      mark.textContent = point.right ? "✓" : "✗";
      set(mark, { "aria-label": point.right ? "right" : "wrong" });
    });
  };
}

/** Values of the logarithmic sliders: the position is the decimal logarithm of the value. */
const SCALES = {
  lr: { digits: 3 },
  l2: { digits: 3, least: 0.01 }, // the lowest position means 0
  rows: { digits: 2, whole: true },
  features: { digits: 2, whole: true },
};

/** Connect settings and weights; return a function that shows those of a view. */
export function makeControls(find, app) {
  const { choices, limits } = app.setup;
  const selects = [...find.all("[data-set]")];
  for (const select of selects) {
    for (const [value, title] of Object.entries(choices[select.dataset.set])) add(select, "option", { value }, title);
    select.addEventListener("change", () => change(select.dataset.set, select.value));
  }

  /** Set a setting. Rows times features are limited, so the larger one lowers the other. */
  function change(name, value) {
    const message = { do: "set", [name]: value };
    const other = { rows: "features", features: "rows" }[name];
    // The other one may have been changed without an answer yet.
    if (other && value * (app.link.pending(`set ${other}`)?.[other] ?? app.view[other]) > limits.numbers)
      message[other] = Math.max(limits[other][0], Math.floor(limits.numbers / value));
    app.link.change(message, `set ${name}`);
  }

  const sliders = Object.entries(SCALES).map(([name, scale]) => {
    const range = find(`[data-slide=${name}]`);
    const field = find(`[data-type=${name}]`);
    const [least, most] = [scale.least ?? limits[name][0], limits[name][1]];
    const zero = scale.least ? Math.log10(least) - 0.1 : -Infinity;
    set(range, { min: scale.least ? zero : Math.log10(least), max: Math.log10(most), step: "any" });
    range.addEventListener("input", () => {
      const position = Number(range.value);
      if (position < zero + 0.05) return change(name, 0);
      const value = Math.min(most, Math.max(least, Number((10 ** position).toPrecision(scale.digits))));
      change(name, scale.whole ? Math.round(value) : value);
    });
    stepByKeys(range, (steps) => (range.value = Number(range.value) + steps * 0.1));
    whenTyped(field, (value) => change(name, value));
    return { name, range, field, position: (value) => (value > 0 ? Math.log10(value) : zero) };
  });

  const weights = [...find.all("[data-weight]")].map((field) => {
    const [k, column] = field.dataset.weight.split(",").map(Number);
    const key = `weight ${k} ${column}`;
    const send = (value) => app.link.change({ do: "weight", class: k, column, value }, key);
    const now = () => (column === 2 ? app.view.b[k] : app.view.W[k][column]);
    const nudge = (sign) => send(Number(((app.link.pending(key)?.value ?? now()) + sign * 0.1).toFixed(10)));
    whenTyped(field, send);
    stepByKeys(field, nudge);
    for (const button of find.all(`[data-at="${k},${column}"]`))
      button.addEventListener("click", () => nudge(Number(button.dataset.nudge)));
    return { field, now, gradient: find(`[data-gradient="${k},${column}"]`), slope: (view) => (column === 2 ? view.db[k] : view.dW[k][column]) };
  });

  return (view) => {
    for (const select of selects) select.value = view[select.dataset.set];
    for (const { name, range, field, position } of sliders) {
      const value = view[name];
      if (!range.matches(":active")) range.value = position(value);
      set(range, { "aria-valuetext": typed(value), "data-value": value });
      show(field, value, typed(value));
    }
    for (const { field, now, gradient, slope } of weights) {
      show(field, now(), fixed(now()).replace(/\u2212/g, "-"));
      show(gradient, slope(view));
    }
    find("[data-formula]").innerHTML = `${FORMULAS[view.loss] ?? ""}<span>, total = mean L<sub>i</sub> + λ ΣW²</span>`;
    find("[data-preparing]").hidden = !view.preparing;
    for (const button of find.all("[data-do=run], [data-do=stop]")) {
      set(button, { "data-do": view.running ? "stop" : "run" });
      button.textContent = view.running ? "Stop" : "Run";
    }
  };
}

/** Call a function with each number that is typed; until the field is left, it is not overwritten. */
function whenTyped(field, send) {
  field.addEventListener("input", () => {
    field.isTyping = true;
    if (Number.isFinite(field.valueAsNumber)) send(field.valueAsNumber);
  });
  field.addEventListener("change", () => leave());
  field.addEventListener("blur", () => leave());
  const leave = () => {
    if (!field.isTyping) return;
    field.isTyping = false;
    field.shown = null;
    field.dispatchEvent(new Event("redraw", { bubbles: true }));
  };
}

/** Arrow keys change a control by steps of our own. */
function stepByKeys(control, nudge) {
  control.addEventListener("keydown", (event) => {
    const vertical = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    const horizontal = control.type === "range" ? { ArrowRight: 1, ArrowLeft: -1 }[event.key] : undefined;
    const sign = vertical ?? horizontal;
    if (!sign) return;
    event.preventDefault();
    control.isTyping = false;
    control.shown = null;
    nudge(sign);
    if (control.type === "range") control.dispatchEvent(new Event("input"));
  });
}

/** Draw a curve from 0 with axes into an svg element. */
export function drawCurve(root, xs, ys, { width, height }, axes = true) {
  root.replaceChildren();
  set(root, { viewBox: `0 0 ${width} ${height}` });
  const [left, bottom] = axes ? [44, height - 34] : [2, height - 3];
  const finite = ys.filter(Number.isFinite);
  const most = Math.max(...finite, 1e-9);
  const last = Math.max(xs.at(-1), 1);
  const x = (value) => left + ((width - 10 - left) * (value - xs[0])) / Math.max(last - xs[0], 1);
  const y = (value) => bottom - ((bottom - 8) * value) / most;
  if (axes) {
    for (const value of ticks(0, most, 4)) {
      add(root, "path", { class: "rule", d: `M${left} ${y(value)}H${width - 8}` });
      add(root, "text", { x: left - 5, y: y(value) + 5, "text-anchor": "end" }, most < 1e4 || !value ? String(value) : value.toExponential(0));
    }
    for (const value of ticks(xs[0], last, 4).filter(Number.isInteger))
      add(root, "text", { x: x(value), y: height - 10, "text-anchor": "middle" }, whole(value));
  } else add(root, "path", { class: "rule", d: `M${left} ${bottom}H${width - 2}` });
  add(root, "polyline", { class: "curve", points: ys.map((value, i) => `${x(xs[i]).toFixed(2)},${y(value).toFixed(2)}`).join(" ") });
  add(root, "circle", { class: "now", r: axes ? 5 : 3.5, cx: x(xs.at(-1)), cy: y(ys.at(-1)) });
}

/** Return a function that draws the totals of a view; the curve fills its element. */
export function makeHistory(root) {
  let size = { width: 300, height: 200 };
  new ResizeObserver(([{ contentRect }]) => {
    size = { width: Math.max(contentRect.width, 100), height: Math.max(contentRect.height, 80) };
    root.dispatchEvent(new Event("redraw", { bubbles: true }));
  }).observe(root);
  return ({ history }) => {
    const [xs, ys] = [0, 1].map((column) => history.map((pair) => pair[column]));
    drawCurve(root, xs, ys, size);
    set(root, { role: "img", "aria-label": `Total loss ${fixed(ys[0])} at update ${xs[0]}, ${fixed(ys.at(-1))} at update ${xs.at(-1)}` });
  };
}
