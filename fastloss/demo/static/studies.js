// The studies below: loss surface, all losses, gradient check, cost.

import { drawCurve } from "./controls.js";
import { PARAMETERS, add, duration, fixed, parameter, points, set, show, ticks, typed, whole } from "./elements.js";
import { GLYPHS } from "./layout.js";

const STUDY_MS = 250; // between two requests of a study that follows the picture

// Viridis: its lightness rises with the loss, also for the colour-blind.
const VIRIDIS = [[68, 1, 84], [65, 68, 135], [42, 120, 142], [34, 168, 132], [122, 209, 81], [253, 231, 37]];

/** Return red, green and blue for a number from 0 to 1. */
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

// A study has `request`, which returns its message, and `draw`, which shows the answer. One that
// follows the picture asks by itself, also when one of its `inputs` changes; others have a `button`.

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
  const [least, most] = app.setup.limits.updates;
  set(field, { min: least, max: most });
  return {
    follows: true,
    inputs: [field],
    request: () => ({ do: "compare", updates: Math.min(Math.max(Math.round(field.valueAsNumber) || least, least), most) }),
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

  function drawCell(parent, entry, fastest) {
    const box = add(parent, "td", { class: `cost ${entry?.status ?? "none"}${fastest === entry ? " fastest" : ""}` });
    if (!entry) return;
    const { status, projected, done, needed, seconds, error } = entry;
    const time = status === "done" ? seconds : projected;
    const text = time === null ? { waiting: "…", failed: "failed" }[status] ?? status : `${status === "done" ? "" : "≈ "}${duration(time)}`;
    const number = add(box, "span", { class: "time" }, text);
    if (time !== null) number.dataset.value = time;
    if (error) box.title = error;
    if (time > 0) add(add(box, "span", { class: "meter" }), "i", { style: `width:${Math.min(100, 4 + 9 * Math.max(0, Math.log10(time) + 6))}%` });
    if (needed > 1 && ["running", "projected"].includes(status)) add(box, "small", {}, `${whole(done)} of ${whole(needed)}`);
    if (fastest === entry) add(box, "small", {}, "fastest");
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
    draw({ rows, features, parameters, entries, running }) {
      state.textContent = `${running ? "Measuring" : "Measured"} ${whole(rows)} × ${whole(features)}, ${whole(parameters)} parameters.`;
      cancel.disabled = !running;
      table.replaceChildren();
      const head = add(add(table, "thead"), "tr");
      add(head, "th", { scope: "col" }, "gradient");
      for (const [name, title] of Object.entries(backends)) add(head, "th", { scope: "col", class: name === app.view.backend ? "chosen" : null }, title);
      const body = add(table, "tbody");
      for (const [gradient, title] of Object.entries(gradients)) {
        const row = add(body, "tr", { class: gradient === app.view.gradient ? "chosen" : null });
        const { needed } = entries.find((entry) => entry.gradient === gradient);
        add(add(row, "th", { scope: "row" }, title), "small", {}, needed > 1 ? `${whole(needed)} evaluations` : "1 evaluation");
        const known = entries.filter((entry) => entry.gradient === gradient && entry.projected !== null);
        const fastest = running || known.length < 2 ? null : known.reduce((a, b) => (b.projected < a.projected ? b : a));
        for (const backend of Object.keys(backends))
          drawCell(row, entries.find((entry) => entry.gradient === gradient && entry.backend === backend), fastest);
      }
    },
  };
}

/** Show one study at a time. Some follow the picture: they ask again when the state has changed. */
export function makeStudies(find, app, prefix) {
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
