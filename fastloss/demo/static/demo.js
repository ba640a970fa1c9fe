// The demo's page. It draws; Python computes every number that it shows.
//
// mount() builds the page in an element. A tab of `fastloss demo` connects it to a WebSocket
// (page.js), and render() to a widget's model. fastloss/demo/__init__.py lists the messages.

const RUN_MS = 40; // between two updates of a run, so that one sees them
const STUDY_MS = 250; // between two requests of a study that follows the picture
const QUIET_MS = 700; // without a change, until the total is read out
const ERROR_MS = 10_000;
const STEP = 0.05; // of a point, by an arrow key; with Shift a fifth of it
const PICK = { mouse: 0.07, touch: 0.13 }; // distance of a pointer that still takes a point
const CLICK = 0.02; // a pointer that moves further drags

// --- elements and numbers -----------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

/** Add an element to a parent. Attributes that are null are left out. */
function add(parent, tag, attributes = {}, text = null) {
  const isSvg = parent.namespaceURI === SVG || tag === "svg";
  const element = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  set(element, attributes);
  if (text !== null) element.textContent = text;
  return parent.appendChild(element);
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null) element.removeAttribute(name);
    else element.setAttribute(name, value);
  }
}

/** Show a number; all its digits are kept in `data-value`. */
function show(element, value, text = fixed(value)) {
  element.dataset.value = value;
  // Most numbers stay the same while one thing changes. A field is not overwritten under the hand.
  if (element.shown === text || element.isTyping) return;
  element.shown = text;
  if (element instanceof HTMLInputElement) element.value = text;
  else element.textContent = text;
}

function fixed(value, digits = 3) {
  const size = Math.abs(value);
  const text = size >= 1e5 ? value.toExponential(2) : value.toFixed(size >= 1000 ? 1 : digits);
  return (/[1-9]/.test(text) ? text : text.replace("-", "")).replace(/-/g, "\u2212");
}

/** Return the text of a number in a field, which must not have a typographic minus. */
const typed = (value) => String(Number(Math.abs(value) < 1 ? value.toPrecision(3) : value.toFixed(3)));

const whole = (value) => value.toLocaleString("en");

function duration(seconds) {
  const units = [[1e-6, "µs"], [1e-3, "ms"], [1, "s"], [60, "min"], [3600, "h"], [86400, "days"]];
  const [size, name] = units.findLast(([size]) => seconds >= size) ?? units[0];
  const value = seconds / size;
  return `${value >= 1000 ? whole(Math.round(value)) : value.toPrecision(3)} ${name}`;
}

const parameter = (k, column) => (column === 2 ? `b[${k}]` : `W[${k}, ${"xy"[column]}]`);
const PARAMETERS = [0, 1, 2].flatMap((k) => [0, 1, 2].map((column) => [k, column]));
const points = (polygon) => polygon.map(([x, y]) => `${x},${-y}`).join(" ");
const right = (points) => points.filter((point) => point.right).length;

/** Return round numbers that divide [low, high] into about n parts. */
function ticks(low, high, n) {
  const raw = (high - low) / n || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

// --- what stands on the page --------------------------------------------------------------------

const FORMULAS = {
  hinge: "L<sub>i</sub> = Σ<sub>j≠y</sub> max(0, s<sub>j</sub> − s<sub>y</sub> + 1)",
  squared_hinge: "L<sub>i</sub> = Σ<sub>j≠y</sub> max(0, s<sub>j</sub> − s<sub>y</sub> + 1)²",
  crammer_singer: "L<sub>i</sub> = max(0, max<sub>j≠y</sub> s<sub>j</sub> − s<sub>y</sub> + 1)",
  one_vs_all: "L<sub>i</sub> = max(0, 1 − s<sub>y</sub>) + Σ<sub>j≠y</sub> max(0, 1 + s<sub>j</sub>)",
  softmax: "L<sub>i</sub> = −log( exp s<sub>y</sub> / Σ<sub>j</sub> exp s<sub>j</sub> )",
};
const CLASSES = [0, 1, 2];
const GLYPHS = [
  "M.052 0A.052 .052 0 1 1 -.052 0A.052 .052 0 1 1 .052 0Z",
  "M-.048 -.048H.048V.048H-.048Z",
  "M0 -.074L.07 .046H-.07Z",
];
const glyph = (k) =>
  `<svg class="glyph class-${k}" viewBox="-.08 -.08 .16 .16" aria-hidden="true"><path d="${GLYPHS[k]}"/></svg>`;

const reading = (name, title) =>
  `<div class="reading ${name}"><span>${title}</span><output data-show="${name}"></output></div>`;
const choice = (name, title) => `<label>${title}<select data-set="${name}"></select></label>`;
const slider = (name, title) => `
  <div class="slider" role="group" aria-label="${title}"><span>${title}</span>
    <input type="range" data-slide="${name}" aria-label="${title}, slider">
    <input type="number" data-type="${name}" min="0" step="any" aria-label="${title}, number"></div>`;
const weight = (k, column) => {
  const name = `${column === 2 ? "bias" : `weight of ${"xy"[column]}`}, class ${k}`;
  return `<td><div class="weight">
    <button type="button" data-nudge="-1" data-at="${k},${column}" aria-label="${name}: down by 0.1">−</button>
    <input type="number" step="0.1" data-weight="${k},${column}" aria-label="${name}">
    <button type="button" data-nudge="1" data-at="${k},${column}" aria-label="${name}: up by 0.1">+</button>
    </div></td><td class="number gradient" data-gradient="${k},${column}"></td>`;
};

const STUDIES = { surface: "Loss surface", compare: "All losses", check: "Gradient check", cost: "Cost" };

const PAGE = `
<div class="layout">
  <header>
    <h1>A linear classifier in the plane</h1>
    <p class="connection" data-connection hidden>The server has ended.
      <button type="button" data-reconnect>Connect again</button></p>
    <button type="button" data-link hidden>Copy link</button>
  </header>
  <p class="error" role="alert" data-error hidden></p>
  <section class="left" aria-label="Plane">
    <svg class="plane" viewBox="-1.13 -1.05 2.18 2.15" role="group"
      aria-label="Plane with the points. Arrow keys move a point, Delete deletes it, 0 to 2 set its class."></svg>
    <p class="legend"><span><i class="stem"></i>weights</span><span><i class="stem dashed"></i>minus the gradient</span>
      <span><i class="ring"></i>wrong</span><span class="hint">Drag a point, or click to add one.</span></p>
    <div class="toolbar">
      <div class="buttons">
        <button type="button" class="main" data-do="update">Update once</button>
        <button type="button" class="main" data-do="run" aria-pressed="false">Run</button>
        <button type="button" data-do="randomise">Randomise</button>
        <button type="button" data-do="reset">Reset</button>
      </div>
      <fieldset class="classes"><legend>New point</legend>
        ${CLASSES.map((k) => `<label><input type="radio" value="${k}" ${k ? "" : "checked"}>${glyph(k)}${k}</label>`).join("")}
        <button type="button" data-add>Add</button>
        <button type="button" data-delete>Delete point</button>
      </fieldset>
    </div>
  </section>
  <section class="readings" aria-label="Readings">
    ${reading("total", "Total loss")}${reading("data_loss", "= data loss")}
    ${reading("penalty", "+ L2 penalty")}${reading("accuracy", "Accuracy")}${reading("n_updates", "Updates")}
    ${reading("evaluations", "Loss evaluations")}${reading("seconds", "Last update")}
  </section>
  <section class="settings" aria-label="Settings">
    <div class="choices">${choice("loss", "Loss")}${choice("optimiser", "Optimiser")}
      ${choice("gradient", "Gradient")}${choice("backend", "Backend")}</div>
    <div class="sliders">${slider("lr", "Step size")}${slider("l2", "L2 strength")}</div>
    <p class="formula"><span data-formula></span><span data-preparing hidden>compiling; NumPy computes until then</span></p>
  </section>
  <table class="parameters" aria-label="Weights and biases, each with its gradient">
    <thead><tr><th scope="col">class</th><th scope="col">weight of x</th><th scope="col">gradient</th>
      <th scope="col">weight of y</th><th scope="col">gradient</th><th scope="col">bias</th><th scope="col">gradient</th></tr></thead>
    <tbody>${CLASSES.map((k) => `<tr><th scope="row">${glyph(k)}${k}</th>${CLASSES.map((c) => weight(k, c)).join("")}</tr>`).join("")}</tbody>
  </table>
  <div class="pair">
  <section class="scores" aria-label="Points">
    <table class="points"><thead><tr><th scope="col" aria-label="point">#</th><th scope="col">class</th><th scope="col">x</th><th scope="col">y</th>
      ${CLASSES.map((k) => `<th scope="col">s<sub>${k}</sub></th>`).join("")}<th scope="col">loss</th><th scope="col" aria-label="right or wrong">✓</th></tr></thead>
      <tbody></tbody></table>
  </section>
  <section class="history" aria-label="Curve of the total loss"><h2>Total loss over updates</h2><svg data-history></svg></section>
  </div>
  <section class="studies">
    <div role="tablist" aria-label="Studies">
      ${Object.entries(STUDIES).map(([name, title]) => `<button type="button" role="tab" data-tab="${name}">${title}</button>`).join("")}
    </div>
    <div role="tabpanel" data-panel="surface" tabindex="0">
      <figure><svg class="surface" viewBox="0 0 320 270" role="img" aria-label="Total loss over two parameters, with the path taken"></svg></figure>
      <div class="side"><label>Across <select data-axis="a"></select></label><label>Up <select data-axis="b"></select></label>
        <label>Range ± <input type="range" data-radius min="-1" max="2" step="0.1" value="0.6"></label>
        <p data-surface-here></p>
        <p class="note">The other parameters keep their present values. The line is the path taken, and the dot is now.</p></div>
    </div>
    <div role="tabpanel" data-panel="compare" tabindex="0" hidden>
      <div class="bar"><label>Updates <input type="number" data-updates min="1" max="200" value="100"></label>
        <span class="note">All losses on the same points, from the present weights, by the optimiser above.</span></div>
      <div class="cards"></div>
    </div>
    <div role="tabpanel" data-panel="check" tabindex="0" hidden>
      <div class="bar"><button type="button" class="main" data-check>Check the gradient</button><span data-verdict></span></div>
      <table class="check"><thead><tr><th scope="col">parameter</th><th scope="col">analytic</th><th scope="col">numerical</th>
        <th scope="col">difference</th></tr></thead><tbody></tbody></table>
    </div>
    <div role="tabpanel" data-panel="cost" tabindex="0" hidden>
      <div class="sliders">${slider("rows", "Rows")}${slider("features", "Features")}</div>
      <div class="bar"><button type="button" class="main" data-measure>Measure</button>
        <button type="button" data-cancel disabled>Cancel</button><span data-cost-state></span></div>
      <table class="costs"></table>
      <p class="note">Time of one update on this computer. The points are repeated, and random features are added.
        A numerical gradient that would take too long is stopped, and its time is projected (≈).</p>
    </div>
  </section>
  <p class="unseen" aria-live="polite" data-live></p>
</div>`;

// --- messages -----------------------------------------------------------------------------------

/**
 * Send changes one at a time. A drag makes more of them than can be answered, so a change replaces
 * one with the same key that still waits: the picture is never behind by more than one answer.
 */
class Link {
  constructor(post) {
    this.post = post;
    // Views of one widget see each other's answers: their numbers must differ.
    this.count = Math.floor(Math.random() * 2 ** 31) * 2 ** 20;
    this.restart();
  }

  restart() {
    this.waiting = new Map();
    this.sent = null; // the change under way: id, key and message
  }

  send(message) {
    this.count += 1;
    this.post({ id: this.count, ...message });
    return this.count;
  }

  /** Return the last change with this key that has no answer yet. */
  pending(key) {
    return this.waiting.get(key) ?? (this.sent?.key === key ? this.sent.message : undefined);
  }

  change(message, key = Symbol("once")) {
    this.waiting.set(key, message);
    if (this.sent === null) this.next();
  }

  next() {
    const [first] = this.waiting;
    if (!first) return;
    const [key, message] = first;
    this.waiting.delete(key);
    this.sent = { key, message, id: this.send(message) };
  }

  answered(id) {
    if (id !== this.sent?.id) return;
    this.sent = null;
    this.next();
  }
}

// --- the plane ----------------------------------------------------------------------------------

function arrowShapes(group) {
  return { group, stem: add(group, "path", { class: "stem" }), head: add(group, "path", { class: "head" }) };
}

function drawArrow({ group, stem, head }, arrow) {
  set(group, { visibility: arrow ? "visible" : "hidden" });
  if (!arrow) return;
  const [[x0, y0], [x1, y1]] = arrow;
  const length = Math.hypot(x1 - x0, y1 - y0);
  const size = Math.min(0.07, 0.6 * length);
  const [u, v] = [((x1 - x0) / length) * size, ((y1 - y0) / length) * size];
  const [x, y] = [x1 - u, y1 - v]; // where the head begins
  set(stem, { d: `M${x0} ${-y0}L${x} ${-y}` });
  set(head, { d: `M${points([[x1, y1], [x - v / 2, y + u / 2], [x + v / 2, y - u / 2]])}Z` });
}

/** Place a label beside each line, away from points and other labels. */
function labelPlaces(lines, taken) {
  return lines.map((line) => {
    if (!line) return null;
    const [[x0, y0], [x1, y1]] = line;
    const length = Math.hypot(x1 - x0, y1 - y0);
    const [u, v] = [(x1 - x0) / length, (y1 - y0) / length];
    const places = [0.12, 0.25, length - 0.25, length - 0.12].flatMap((t) =>
      [-0.07, 0.07].map((side) => [x0 + t * u - side * v, y0 + t * v + side * u]));
    const room = ([x, y]) => Math.min(
      ...taken.map(([p, q]) => Math.hypot((p - x) / 1.5, q - y)), 3 * (0.9 - Math.abs(x)), 3 * (0.97 - Math.abs(y)));
    const best = places.reduce((one, other) => (room(other) > room(one) ? other : one));
    taken.push(best);
    return best;
  });
}

function makePlane(root, app) {
  const { box: [left, rightEdge, bottom, top] } = app.setup;
  const layer = (name) => add(root, "g", { class: name });
  const frame = layer("regions");
  add(frame, "rect", { class: "frame", x: left, y: -top, width: rightEdge - left, height: top - bottom });
  const regions = CLASSES.map((k) => add(frame, "polygon", { class: `region class-${k}` }));
  const grid = layer("grid");
  for (const at of ticks(left, rightEdge, 4)) {
    add(grid, "path", { d: `M${at} ${-bottom}V${-top}M${left} ${-at}H${rightEdge}` });
    add(grid, "text", { x: at, y: -bottom + 0.075, "text-anchor": "middle" }, fixed(at, 1));
    add(grid, "text", { x: left - 0.025, y: -at + 0.018, "text-anchor": "end" }, fixed(at, 1));
  }
  const lineLayer = layer("lines");
  const lines = CLASSES.map((k) => add(lineLayer, "path", { class: `class-${k}` }));
  const arrows = CLASSES.map((k) => arrowShapes(add(layer("arrow"), "g", { class: `class-${k}` })));
  const gradients = CLASSES.map((k) => arrowShapes(add(layer("arrow descent"), "g", { class: `class-${k}` })));
  const pointLayer = layer("markers");
  const labelLayer = layer("labels");
  const labels = CLASSES.map((k) => add(labelLayer, "text", { class: `class-${k}`, "text-anchor": "middle" }));
  labels.forEach((label, k) => {
    add(label, "tspan", {}, "s");
    add(label, "tspan", { class: "sub", dy: 0.02 }, k);
    add(label, "tspan", { dy: -0.02 }, " = 0");
  });
  let markers = [];
  let drag = null;

  function position(event) {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(root.getScreenCTM().inverse());
    return [x, -y];
  }

  function nearest([x, y], within) {
    const away = app.view.points.map((point) => Math.hypot(point.x - x, point.y - y));
    const point = away.indexOf(Math.min(...away));
    return away[point] <= within ? point : null;
  }

  const move = (point, x, y) => app.link.change({ do: "move", point, x, y }, `move ${point}`);

  root.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    root.setPointerCapture(event.pointerId);
    const start = position(event);
    const point = nearest(start, PICK[event.pointerType] ?? PICK.touch);
    const offset = point === null ? [0, 0] : [app.view.points[point].x - start[0], app.view.points[point].y - start[1]];
    drag = { point, start, offset, moved: false };
    if (point !== null) markers[point].group.focus({ preventScroll: true });
  });
  root.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [x, y] = position(event);
    drag.moved ||= Math.hypot(x - drag.start[0], y - drag.start[1]) > CLICK;
    if (drag.point !== null && drag.moved) move(drag.point, x + drag.offset[0], y + drag.offset[1]);
  });
  root.addEventListener("pointerup", () => {
    const inside = drag && drag.start[0] >= left && drag.start[0] <= rightEdge && Math.abs(drag.start[1]) <= top;
    if (inside && drag.point === null && !drag.moved) app.addPoint(...drag.start);
    drag = null;
  });
  root.addEventListener("pointercancel", () => (drag = null));

  root.addEventListener("keydown", (event) => {
    const point = markers.findIndex(({ group }) => group === event.target);
    if (point < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const { x, y } = app.link.pending(`move ${point}`) ?? app.view.points[point];
    const step = event.shiftKey ? STEP / 5 : STEP;
    const steps = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
    if (steps) move(point, x + steps[0], y + steps[1]);
    else if (event.key === "Delete" || event.key === "Backspace") app.deletePoint(point);
    else if (CLASSES.includes(Number(event.key))) app.link.change({ do: "label", point, class: Number(event.key) });
    else return;
    event.preventDefault();
  });

  function addMarker(point) {
    const group = add(pointLayer, "g", { class: "marker", tabindex: 0, role: "button" });
    group.addEventListener("focus", () => app.select(point));
    return {
      group,
      ring: add(group, "circle", { class: "ring", r: 0.085 }),
      shape: add(group, "path"),
      text: add(group, "text", { "text-anchor": "middle", y: 0.021 }, point + 1),
    };
  }

  return {
    focus: (point) => markers[point]?.group.focus(),
    draw(view) {
      regions.forEach((region, k) => set(region, { points: points(view.regions[k]) }));
      lines.forEach((line, k) => set(line, { d: view.lines[k] ? `M${points(view.lines[k])}` : null }));
      arrows.forEach((arrow, k) => drawArrow(arrow, view.arrows[k]));
      gradients.forEach((arrow, k) => drawArrow(arrow, view.gradient_arrows[k]));
      const taken = [...view.points.map(({ x, y }) => [x, y]), ...view.arrows.filter(Boolean).map(([, tip]) => tip)];
      labelPlaces(view.lines, taken).forEach((place, k) =>
        set(labels[k], { x: place?.[0] ?? null, y: place ? 0.02 - place[1] : null, visibility: place ? null : "hidden" }));
      while (markers.length > view.points.length) markers.pop().group.remove();
      while (markers.length < view.points.length) markers.push(addMarker(markers.length));
      view.points.forEach((point, i) => {
        const { group, shape, text } = markers[i];
        const state = `${point.right ? "right" : "wrong"}${i === app.selected ? " selected" : ""}`;
        set(group, {
          transform: `translate(${point.x} ${-point.y})`,
          class: `marker class-${point.class} ${state}`,
          "aria-label": `Point ${i + 1}, class ${point.class}, x ${point.x}, y ${point.y}, loss ${fixed(point.loss)}, ${state}`,
        });
        set(shape, { d: GLYPHS[point.class] });
        set(text, { class: i > 8 ? "small" : null });
      });
    },
  };
}

// --- readings and controls ----------------------------------------------------------------------

function makeReadings(find, app) {
  const body = find(".points tbody");
  const outputs = [...find.all("[data-show]")];
  let rows = [];

  function addRow(point) {
    const row = add(body, "tr");
    row.addEventListener("pointerdown", () => app.select(point));
    const head = add(row, "th", { scope: "row" }, point + 1);
    const select = add(add(row, "td"), "select", { "aria-label": `class of point ${point + 1}` });
    CLASSES.forEach((k) => add(select, "option", { value: k }, k));
    select.addEventListener("change", () =>
      app.link.change({ do: "label", point, class: Number(select.value) }));
    const cells = ["x", "y", "s0", "s1", "s2", "loss"].map((name) => add(row, "td", { class: "number", "data-cell": name }));
    return { row, head, select, cells, mark: add(row, "td", { class: "mark", "data-cell": "right" }) };
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

function makeControls(find, app) {
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
    if (other && value * app.view[other] > limits.numbers)
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
      show(field, now(), now().toFixed(3));
      show(gradient, slope(view));
    }
    find("[data-formula]").innerHTML = `${FORMULAS[view.loss] ?? ""}<span>, total = mean L<sub>i</sub> + λ ΣW²</span>`;
    find("[data-preparing]").hidden = !view.preparing;
    for (const button of find.all("[data-do=run], [data-do=stop]")) {
      set(button, { "data-do": view.running ? "stop" : "run", "aria-pressed": view.running });
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

// --- curves -------------------------------------------------------------------------------------

/** Draw a curve from 0 with axes into an svg element. */
function drawCurve(root, xs, ys, { width, height }, axes = true) {
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
      add(root, "text", { x: left - 5, y: y(value) + 5, "text-anchor": "end" }, most < 1e4 ? String(value) : value.toExponential(0));
    }
    for (const value of ticks(xs[0], last, 4).filter(Number.isInteger))
      add(root, "text", { x: x(value), y: height - 10, "text-anchor": "middle" }, whole(value));
  } else add(root, "path", { class: "rule", d: `M${left} ${bottom}H${width - 2}` });
  add(root, "polyline", { class: "curve", points: ys.map((value, i) => `${x(xs[i]).toFixed(2)},${y(value).toFixed(2)}`).join(" ") });
  add(root, "circle", { class: "now", r: axes ? 5 : 3.5, cx: x(xs.at(-1)), cy: y(ys.at(-1)) });
}

function makeHistory(root) {
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

// --- studies ------------------------------------------------------------------------------------

// Viridis: its lightness rises with the loss, also for the colour-blind.
const VIRIDIS = [[68, 1, 84], [65, 68, 135], [42, 120, 142], [34, 168, 132], [122, 209, 81], [253, 231, 37]];

function viridis(t) {
  const at = Math.min(Math.max(t, 0), 1) * (VIRIDIS.length - 1);
  const i = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return VIRIDIS[i].map((from, c) => Math.round(from + (at - i) * (VIRIDIS[i + 1][c] - from)));
}

/** Return the pieces of the line where values[i][j] crosses a level (marching squares). */
function contour(values, level, place) {
  const pieces = [];
  for (let i = 0; i + 1 < values.length; i += 1)
    for (let j = 0; j + 1 < values[i].length; j += 1) {
      const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
      const crossings = corners.flatMap(([p, q], edge) => {
        const [r, s] = corners[(edge + 1) % 4];
        const [from, to] = [values[p][q], values[r][s]];
        if (from < level === to < level) return [];
        const t = (level - from) / (to - from);
        return [place(p + t * (r - p), q + t * (s - q))];
      });
      for (let k = 0; k + 1 < crossings.length; k += 2) pieces.push(`M${crossings[k]}L${crossings[k + 1]}`);
    }
  return pieces.join("");
}

function makeSurface(find, root) {
  const [left, topEdge, size] = [52, 8, 226];
  const axes = ["a", "b"].map((name) => find(`[data-axis=${name}]`));
  axes.forEach((select, i) => {
    PARAMETERS.forEach(([k, column]) => add(select, "option", { value: `${k},${column}` }, parameter(k, column)));
    select.value = `0,${i}`;
  });
  const radius = find("[data-radius]");
  const here = find("[data-surface-here]");
  const chosen = () => axes.map((select) => select.value.split(",").map(Number));
  let surface = null;

  function draw(answer) {
    surface = answer;
    const { a_values: as, b_values: bs, losses, path } = answer;
    const n = as.length - 1;
    const flat = losses.flat();
    const [least, most] = [Math.min(...flat), Math.max(...flat)];
    // The root spreads the levels near the minimum, where the path ends.
    const shade = losses.map((row) => row.map((loss) => Math.sqrt((loss - least) / (most - least || 1))));
    const across = (value) => left + (size * (value - as[0])) / (as[n] - as[0]);
    const up = (value) => topEdge + size - (size * (value - bs[0])) / (bs[n] - bs[0]);
    const cell = size / n; // the first and last cells of the picture stand out by half
    root.replaceChildren();
    const clip = add(root, "svg", { x: left, y: topEdge, width: size, height: size, viewBox: `${left} ${topEdge} ${size} ${size}` });
    add(clip, "image", { x: left - cell / 2, y: topEdge - cell / 2, width: size + cell, height: size + cell, href: picture(shade), preserveAspectRatio: "none" });
    for (let level = 0.1; level < 0.99; level += 0.1)
      add(clip, "path", { class: "contour", d: contour(shade, level, (i, j) => `${(left + cell * i).toFixed(1)} ${(topEdge + size - cell * j).toFixed(1)}`) });
    const line = path.map(([a, b]) => `${across(a).toFixed(1)},${up(b).toFixed(1)}`);
    for (const layer of ["halo", "path"]) add(clip, "polyline", { class: layer, points: line.join(" ") });
    const [a, b] = path.at(-1);
    add(clip, "circle", { class: "now", r: 5, cx: across(a), cy: up(b) });
    for (const value of ticks(as[0], as[n], 4)) add(root, "text", { x: across(value), y: topEdge + size + 15, "text-anchor": "middle" }, typed(value));
    for (const value of ticks(bs[0], bs[n], 4)) add(root, "text", { x: left - 5, y: up(value) + 4, "text-anchor": "end" }, typed(value));
    add(root, "text", { x: left + size / 2, y: 266, "text-anchor": "middle", class: "name" }, parameter(...answer.a));
    add(root, "text", { transform: `translate(12 ${topEdge + size / 2}) rotate(-90)`, "text-anchor": "middle", class: "name" }, parameter(...answer.b));
    const key = add(root, "g");
    for (let i = 0; i < 60; i += 1)
      add(key, "rect", { x: 286, y: topEdge + (size * (59 - i)) / 60, width: 8, height: size / 60 + 0.5, fill: `rgb(${viridis(i / 59)})` });
    add(key, "text", { x: 297, y: topEdge + 9 }, fixed(most, most < 100 ? 1 : 0));
    add(key, "text", { x: 297, y: topEdge + size }, fixed(least, 2));
    tell(a, b);
  }

  /** Colour the grid in a small picture, which the browser smooths. */
  function picture(shade) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = shade.length;
    const context = canvas.getContext("2d");
    const image = context.createImageData(shade.length, shade.length);
    shade.forEach((column, i) => column.forEach((t, j) =>
      image.data.set([...viridis(t), 255], 4 * (i + (shade.length - 1 - j) * shade.length))));
    context.putImageData(image, 0, 0);
    return canvas.toDataURL();
  }

  /** Tell the loss at the grid point next to these values. */
  function tell(a, b) {
    const near = (values, value) => values.reduce((best, each, i) => (Math.abs(each - value) < Math.abs(values[best] - value) ? i : best), 0);
    const [i, j] = [near(surface.a_values, a), near(surface.b_values, b)];
    const [first, second] = [parameter(...surface.a), parameter(...surface.b)];
    show(here, surface.losses[i][j], `Loss ${fixed(surface.losses[i][j])} at ${first} = ${fixed(surface.a_values[i], 2)}, ${second} = ${fixed(surface.b_values[j], 2)}`);
  }

  root.addEventListener("pointermove", (event) => {
    if (!surface) return;
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(root.getScreenCTM().inverse());
    const along = (values, t) => values[0] + Math.min(Math.max(t, 0), 1) * (values.at(-1) - values[0]);
    tell(along(surface.a_values, (x - left) / size), along(surface.b_values, (topEdge + size - y) / size));
  });
  const same = () => axes[0].value === axes[1].value;
  return {
    follows: true,
    inputs: [...axes, radius],
    request: () => (same() ? null : { do: "surface", a: chosen()[0], b: chosen()[1], radius: Number((10 ** Number(radius.value)).toPrecision(3)) }),
    draw,
  };
}

function makeCompare(find, app) {
  const cards = find(".cards");
  const field = find("[data-updates]");
  return {
    follows: true,
    inputs: [field],
    request: () => ({ do: "compare", updates: Math.min(Math.max(Math.round(field.valueAsNumber) || 1, 1), 200) }),
    draw({ curves }) {
      cards.replaceChildren();
      for (const { loss, totals, accuracies, regions, error } of curves) {
        const card = add(cards, "article", { class: loss === app.view.loss ? "card chosen" : "card" });
        add(card, "h3", {}, app.setup.choices.loss[loss].replace(/ \(.*/, ""));
        const plane = add(card, "svg", { class: "plane", viewBox: "-1 -1 2 2", role: "img", "aria-label": "Regions after the updates" });
        regions.forEach((region, k) => add(plane, "polygon", { class: `region class-${k}`, points: points(region) }));
        for (const point of app.view.points)
          add(add(plane, "g", { class: `marker class-${point.class}`, transform: `translate(${point.x} ${-point.y}) scale(1.3)` }), "path", { d: GLYPHS[point.class] });
        drawCurve(add(card, "svg", { class: "spark", "aria-hidden": true }), totals.map((_, i) => i), totals, { width: 150, height: 50 }, false);
        const text = add(card, "p");
        add(text, "span", { "data-value": totals[0] }, fixed(totals[0], 2));
        text.append(" → ");
        add(text, "b", { "data-value": totals.at(-1) }, fixed(totals.at(-1), 3));
        const n = app.view.points.length;
        add(card, "p", { "data-value": accuracies.at(-1) }, `${Math.round(accuracies.at(-1) * n)} of ${n} right`);
        if (error) add(card, "p", { class: "note" }, `Stopped after ${totals.length - 1} updates: it diverges.`).title = error;
      }
    },
  };
}

function makeCheck(find) {
  const [verdict, body, table] = [find("[data-verdict]"), find("table.check tbody"), find("table.check")];
  return {
    button: find("[data-check]"),
    request: () => ({ do: "check" }),
    draw({ passed, max_relative_error: error, n_evaluations, notes, entries }) {
      table.classList.remove("stale");
      verdict.className = passed ? "passed" : "failed";
      const detail = error === null ? "" : `; largest relative error ${error.toExponential(1)}`;
      verdict.textContent = `${passed ? "✓ passed" : "✗ failed"}${detail}; ${whole(n_evaluations)} loss evaluations. ${notes.join(" ")}`;
      body.replaceChildren();
      for (const { class: k, column, analytic, numerical } of entries) {
        const row = add(body, "tr", { class: `class-${k}` });
        add(row, "th", { scope: "row" }, parameter(k, column));
        show(add(row, "td", { class: "number" }), analytic, fixed(analytic, 9));
        show(add(row, "td", { class: "number" }), numerical, fixed(numerical, 9));
        const difference = Math.abs(analytic - numerical);
        add(row, "td", { class: "number" }, difference ? difference.toExponential(1).replace("-", "\u2212") : "0");
      }
    },
    outdated() {
      if (body.children.length && !table.classList.contains("stale")) {
        table.classList.add("stale");
        verdict.className = "note";
        verdict.textContent = "The state has changed since this check.";
      }
    },
  };
}

function makeCost(find, app) {
  const { backend: backends, gradient: gradients } = app.setup.choices;
  const [table, state, cancel] = [find("table.costs"), find("[data-cost-state]"), find("[data-cancel]")];
  const button = find("[data-measure]");
  let asked = null;
  // After the first measurement, another size is measured when its slider is let go.
  for (const name of ["rows", "features"])
    for (const control of find.all(`[data-slide=${name}], [data-type=${name}]`))
      control.addEventListener("change", () => asked !== null && setTimeout(() => button.click(), STUDY_MS));
  cancel.addEventListener("click", () => {
    app.link.send({ do: "cancel", what: "cost" });
    cancel.disabled = true;
    state.textContent = "Cancelled.";
  });

  function drawCell(parent, cell, fastest) {
    const box = add(parent, "td", { class: `cost ${cell?.status ?? "none"}${fastest === cell ? " fastest" : ""}` });
    if (!cell) return;
    const { status, projected, done, needed, seconds, error } = cell;
    const time = status === "done" ? seconds : projected;
    const text = time === null ? { waiting: "…", failed: "failed" }[status] ?? status : `${status === "done" ? "" : "≈ "}${duration(time)}`;
    const number = add(box, "span", { class: "time" }, text);
    if (time !== null) number.dataset.value = time;
    if (error) box.title = error;
    if (time > 0) add(add(box, "span", { class: "meter" }), "i", { style: `width:${Math.min(100, 4 + 9 * Math.max(0, Math.log10(time) + 6))}%` });
    if (needed > 1 && ["running", "projected"].includes(status)) add(box, "small", {}, `${whole(done)} of ${whole(needed)}`);
    if (fastest === cell) add(box, "small", {}, "fastest");
  }

  return {
    button,
    request: () => {
      cancel.disabled = false;
      state.textContent = "Starting…";
      return { do: "cost" };
    },
    asked: (id) => (asked = id),
    failed(id) {
      if (id !== asked) return;
      cancel.disabled = true;
      state.textContent = "";
    },
    draw({ rows, features, parameters, cells, running }) {
      state.textContent = `${running ? "Measuring" : "Measured"} ${whole(rows)} × ${whole(features)}, ${whole(parameters)} parameters.`;
      cancel.disabled = !running;
      table.replaceChildren();
      const head = add(add(table, "thead"), "tr");
      add(head, "th", { scope: "col" }, "gradient");
      for (const [name, title] of Object.entries(backends)) add(head, "th", { scope: "col", class: name === app.view.backend ? "chosen" : null }, title);
      const body = add(table, "tbody");
      for (const [gradient, title] of Object.entries(gradients)) {
        const row = add(body, "tr", { class: gradient === app.view.gradient ? "chosen" : null });
        const { needed } = cells.find((cell) => cell.gradient === gradient);
        add(add(row, "th", { scope: "row" }, title), "small", {}, needed > 1 ? `${whole(needed)} evaluations` : "1 evaluation");
        const known = cells.filter((cell) => cell.gradient === gradient && cell.projected !== null);
        const fastest = running || known.length < 2 ? null : known.reduce((a, b) => (b.projected < a.projected ? b : a));
        for (const backend of Object.keys(backends))
          drawCell(row, cells.find((cell) => cell.gradient === gradient && cell.backend === backend), fastest);
      }
    },
  };
}

/** Show one study at a time. Some follow the picture: they ask again when the state has changed. */
function makeStudies(find, app, prefix) {
  const studies = {
    surface: makeSurface(find, find("svg.surface")),
    compare: makeCompare(find, app),
    check: makeCheck(find),
    cost: makeCost(find, app),
  };
  const tabs = [...find.all("[data-tab]")];
  let open = "surface";
  let asked = { id: null, state: null, at: 0, next: 0 };
  let timer = null;
  const stateOf = (view) => `${view.address} ${view.n_updates}`;
  let shown = null;

  function ask() {
    timer = null;
    const study = studies[open];
    const message = study.request();
    if (!study.follows || !message || asked.id !== null) return;
    asked = { id: app.link.send(message), state: stateOf(app.view), at: performance.now(), next: Infinity };
  }

  function follow() {
    if (timer !== null || asked.id !== null || !studies[open].follows || asked.state === stateOf(app.view)) return;
    timer = setTimeout(ask, Math.max(0, asked.next - performance.now()));
  }

  function choose(name, focus = false) {
    open = name;
    for (const tab of tabs) {
      const isOpen = tab.dataset.tab === name;
      set(tab, { "aria-selected": isOpen, tabindex: isOpen ? 0 : -1, id: `${prefix}-${tab.dataset.tab}`, "aria-controls": `${prefix}-${tab.dataset.tab}-panel` });
      const panel = find(`[data-panel=${tab.dataset.tab}]`);
      set(panel, { id: `${prefix}-${tab.dataset.tab}-panel`, "aria-labelledby": `${prefix}-${tab.dataset.tab}` });
      panel.hidden = !isOpen;
      if (isOpen && focus) tab.focus();
    }
    again();
  }

  function again() {
    asked.state = null;
    asked.next = 0;
    if (app.view) follow();
  }

  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => choose(tab.dataset.tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: tabs.length - 1 }[event.key];
      if (step) choose(tabs[(i + step) % tabs.length].dataset.tab, true);
    });
  });
  for (const study of Object.values(studies)) {
    study.inputs?.forEach((input) => input.addEventListener("input", again));
    study.button?.addEventListener("click", () => {
      const id = app.link.send(study.request());
      study.asked?.(id);
    });
  }
  choose(open);

  return {
    draw(view) {
      if (shown !== null && shown !== stateOf(view)) studies.check.outdated();
      shown = stateOf(view);
      follow();
    },
    receive(answer) {
      for (const [name, study] of Object.entries(studies)) if (answer[name]) study.draw(answer[name]);
      if (answer.error) studies.cost.failed(answer.id);
      if (answer.id === asked.id) {
        asked.id = null;
        // A study takes a fifth of the time at most, so that it does not slow a drag down.
        const now = performance.now();
        asked.next = Math.max(asked.at + STUDY_MS, now + 4 * (now - asked.at));
        follow();
      }
    },
    restart: () => (asked = { id: null, state: null, at: 0, next: 0 }),
  };
}

// --- the page -----------------------------------------------------------------------------------

/**
 * Build the page in an element.
 *
 * `post` sends a message. `onAddress` gets the address of each state, and `reconnect` is called for
 * the button that is shown after `disconnected`; a widget has neither. Call `open` once messages can
 * be sent, and `receive` with each answer.
 */
export function mount(el, { post, onAddress = null, reconnect = null }) {
  const root = add(el, "div", { class: "fastloss-demo" });
  root.innerHTML = PAGE;
  const find = (selector) => root.querySelector(selector);
  find.all = (selector) => root.querySelectorAll(selector);
  const app = { link: new Link(post), setup: null, view: null, selected: null, select, addPoint, deletePoint };
  const { link } = app;
  let parts = null;
  let focusNext = null;
  let seen = null; // the number of the message that asks for the next update of a run
  const timers = {};

  function later(name, milliseconds, call) {
    clearTimeout(timers[name]);
    timers[name] = setTimeout(call, milliseconds);
  }

  function build() {
    const plane = makePlane(find(".layout .plane"), app);
    const studies = makeStudies(find, app, `fastloss-${link.count}`);
    const draws = [plane.draw, makeReadings(find, app), makeControls(find, app), makeHistory(find("[data-history]")), studies.draw];
    parts = { plane, studies, draws };
  }

  function draw() {
    if (!app.view) return;
    for (const each of parts.draws) each(app.view);
    find("[data-delete]").disabled = app.selected === null || app.view.points.length === 1;
  }

  function receive(answer) {
    if (answer.setup && !app.setup) {
      app.setup = answer.setup;
      build();
    }
    if (answer.id === seen) seen = null;
    if (answer.error) fail(answer.error);
    if (answer.view) take(answer.view);
    parts?.studies.receive(answer);
    link.answered(answer.id);
  }

  function take(view) {
    app.view = view;
    if (app.selected >= view.points.length) app.selected = null;
    draw();
    if (focusNext !== null && focusNext < view.points.length) {
      parts.plane.focus(focusNext);
      focusNext = null;
    }
    onAddress?.(view.address);
    later("live", QUIET_MS, () => {
      find("[data-live]").textContent = `Total loss ${fixed(view.total)}, ${right(view.points)} of ${view.points.length} points right`;
    });
    if (!view.running) {
      seen = null;
      clearTimeout(timers.run);
      timers.run = null;
    } else if (seen === null && !timers.run)
      later("run", RUN_MS, () => {
        timers.run = null;
        seen = link.send({ do: "seen" });
      });
  }

  function fail(text) {
    const box = find("[data-error]");
    box.textContent = text;
    box.hidden = false;
    later("error", ERROR_MS, () => (box.hidden = true));
  }

  function select(point) {
    if (app.selected === point) return;
    app.selected = point;
    draw();
  }

  function addPoint(x, y) {
    const label = Number(find(".classes input:checked").value);
    focusNext = app.view.points.length;
    link.change({ do: "add", x, y, class: label });
  }

  function deletePoint(point) {
    focusNext = Math.min(point, app.view.points.length - 2);
    link.change({ do: "delete", point });
  }

  async function copyLink() {
    const address = app.view.address;
    await navigator.clipboard.writeText(location.href.split("#")[0] + (address ? `#${address}` : ""));
    find("[data-link]").textContent = "Copied";
    later("link", 2000, () => (find("[data-link]").textContent = "Copy link"));
  }

  root.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button || !app.view) return;
    const { dataset } = button;
    if (dataset.do) link.change({ do: dataset.do });
    else if ("add" in dataset) addPoint(0, 0);
    else if ("delete" in dataset) deletePoint(app.selected);
    else if ("link" in dataset) copyLink().catch(() => fail("The browser does not let the page copy: copy its address."));
    else if ("reconnect" in dataset) reconnect();
  });
  root.addEventListener("redraw", draw);
  find("[data-link]").hidden = onAddress === null;
  // Radio buttons of one name exclude each other, also those of two widgets.
  for (const radio of find.all(".classes input")) radio.name = `fastloss-${link.count}`;

  return {
    receive,
    open: (address) => {
      find("[data-connection]").hidden = true;
      link.restart(); // changes made without a connection have no answer
      link.send({ do: "open", ...(address === undefined ? {} : { address }) });
    },
    disconnected: () => {
      find("[data-connection]").hidden = false;
      parts?.studies.restart();
      seen = null;
    },
    close: () => {
      Object.values(timers).forEach(clearTimeout);
      root.remove();
    },
  };
}

/** Show the page as a view of a widget. */
function render({ model, el }) {
  const page = mount(el, { post: (message) => model.send(message) });
  const receive = (content) => page.receive(content);
  model.on("msg:custom", receive);
  page.open();
  return () => {
    model.off("msg:custom", receive);
    page.close();
  };
}

export default { render };
