// What stands on the page, before any number is known.

export const FORMULAS = {
  hinge: "L<sub>i</sub> = Σ<sub>j≠y</sub> max(0, s<sub>j</sub> − s<sub>y</sub> + 1)",
  squared_hinge: "L<sub>i</sub> = Σ<sub>j≠y</sub> max(0, s<sub>j</sub> − s<sub>y</sub> + 1)²",
  crammer_singer: "L<sub>i</sub> = max(0, max<sub>j≠y</sub> s<sub>j</sub> − s<sub>y</sub> + 1)",
  one_vs_all: "L<sub>i</sub> = max(0, 1 − s<sub>y</sub>) + Σ<sub>j≠y</sub> max(0, 1 + s<sub>j</sub>)",
  softmax: "L<sub>i</sub> = −log( exp s<sub>y</sub> / Σ<sub>j</sub> exp s<sub>j</sub> )",
};
export const CLASSES = [0, 1, 2];
export const GLYPHS = [
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

export const PAGE = `
<div class="layout">
  <header>
    <h1>A linear classifier in the plane</h1>
    <p class="connection" data-connection hidden>The server has ended.
      <button type="button" data-reconnect>Connect again</button></p>
    <button type="button" data-link hidden>Copy link</button>
  </header>
  <p class="error" role="alert" data-error hidden></p>
  <section class="left" aria-label="Plane">
    <svg class="plane" viewBox="-1.17 -1.05 2.22 2.16" role="group"
      aria-label="Plane with the points. Arrow keys move a point, Delete deletes it, 0 to 2 set its class."></svg>
    <p class="legend"><span><i class="stem"></i>weights</span><span><i class="stem dashed"></i>minus the gradient</span>
      <span><i class="ring"></i>wrong</span><span class="hint">Drag a point, or click to add one.</span></p>
    <div class="toolbar">
      <div class="buttons">
        <button type="button" class="main" data-do="update">Update once</button>
        <button type="button" class="main" data-do="run">Run</button>
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
    <div class="choices">${choice("loss", "Loss")}${choice("optimizer", "Optimizer")}
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
      <figure><svg class="surface" viewBox="0 0 336 270" role="img" aria-label="Total loss over two parameters, with the path taken"></svg></figure>
      <div class="side"><label>Across <select data-axis="a"></select></label><label>Up <select data-axis="b"></select></label>
        <label>Range ± <input type="range" data-radius min="-1" max="2" step="0.1" value="0.6"></label>
        <p data-surface-here></p>
        <p class="note">The other parameters keep their present values. The line is the path taken, and the dot is now.</p></div>
    </div>
    <div role="tabpanel" data-panel="compare" tabindex="0" hidden>
      <div class="bar"><label>Updates <input type="number" data-updates value="100"></label>
        <span class="note">All losses on the same points, from the present weights, by the optimizer above.</span></div>
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
