// The demo's page. It draws; Python computes every loss, score and gradient that it shows.
//
// mount() builds the page in an element. A tab of `fastloss demo` connects it to a WebSocket
// (page.js), and render() to a widget's model. A widget gets all modules but page.js as one, so
// their names must differ. fastloss/demo/__init__.py lists the messages.

import { makeControls, makeHistory, makeReadings } from "./controls.js";
import { add, fixed, right, set } from "./elements.js";
import { PAGE } from "./layout.js";
import { makePlane } from "./plane.js";
import { makeStudies } from "./studies.js";

const RUN_MS = 40; // between two updates of a run, so that one sees them
const QUIET_MS = 700; // without a change, until the total is read out
const ERROR_MS = 10_000;

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

/**
 * Build the page in an element.
 *
 * `post` sends a message. `onAddress` gets the address of each state, and `reconnect` is called for
 * the button that is shown after `disconnected`; a widget has neither. Call `open` once messages can
 * be sent, and `receive` with each answer.
 */
export function mount(el, { post, onAddress = null, reconnect = null }) {
  const root = add(el, "div", { class: "fastloss-demo" });
  // In JupyterLab a digit would change the cell; it looks for this attribute where the focus is.
  root.addEventListener("focusin", ({ target }) => set(target, { "data-lm-suppress-shortcuts": true }));
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
    else if (answer.id === link.sent?.id) find("[data-error]").hidden = true;
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
