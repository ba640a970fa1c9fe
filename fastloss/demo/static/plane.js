// The plane: regions, lines, arrows and points, and how a pointer or a key moves a point.

import { add, fixed, points, set, ticks } from "./elements.js";
import { CLASSES, GLYPHS } from "./layout.js";

const STEP = 0.05; // of a point, by an arrow key; with Shift a fifth of it
const PICK = { mouse: 0.07, touch: 0.13 }; // distance of a pointer that still takes a point
const CLICK = 0.02; // a pointer that moves further drags

/** Add the two parts of an arrow, which `drawArrow` places. */
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

/** Build the plane in an svg element; return functions that draw a view and focus a point. */
export function makePlane(root, app) {
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
    event.stopPropagation();
  });

  function addMarker(point) {
    const group = add(pointLayer, "g", { class: "marker", tabindex: 0, role: "button" });
    group.addEventListener("focus", () => app.select(point));
    add(group, "circle", { class: "ring", r: 0.085 });
    return {
      group,
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
