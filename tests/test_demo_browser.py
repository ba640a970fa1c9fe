"""The demo in a headless Chromium: every number on the page, the controls, and the layout."""

from __future__ import annotations

import os
import time
from io import BytesIO
from pathlib import Path

import demo_browser
import numpy as np
import pytest

import fastloss
from fastloss.demo.address import state_of
from fastloss.demo.state import BACKENDS, LOSSES

if reason := demo_browser.why_not():
    pytest.skip(reason, allow_module_level=True)
pytest.importorskip("uvicorn", reason="the extra demo is not installed")

from demo_page import SECONDS, checked, problem, served, snapshot, until

PICTURES = Path(__file__).parents[1] / "bench" / "plots"
SIZES = {"laptop": (1280, 720), "projector": (1920, 1080), "phone": (390, 844)}


@pytest.fixture(scope="module")
def url():
    with served() as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def browser():
    with demo_browser.browser() as opened:
        yield opened


@pytest.fixture
def open_page(browser, url):
    """Return a function that opens the demo; at the end no page may have had an error."""
    contexts, faults = [], []

    def note(request):
        if not request.url.startswith((url, "data:")):
            faults.append(request.url)

    def open_page(address="", size="laptop", theme="light", **keywords):
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, **keywords
        )
        contexts.append(context)
        context.set_default_timeout(1000 * SECONDS)
        page = context.new_page()
        page.on("request", note)
        page.on("websocket", lambda socket: note_socket(socket))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text))
        page.goto(url + (f"#{address}" if address else ""))
        page.wait_for_selector(".marker")
        return page

    def note_socket(socket):
        if not socket.url.startswith(url.replace("http", "ws", 1)):
            faults.append(socket.url)

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def page(open_page):
    return open_page()


def on_screen(page, x, y):
    """Return where a point of the plane is on the screen."""
    return page.locator(".left > .plane").evaluate(
        """(plane, [x, y]) => {
          const at = new DOMPoint(x, -y).matrixTransform(plane.getScreenCTM());
          return [at.x, at.y];
        }""",
        [x, y],
    )


def set_range(page, name, position):
    """Click a slider at a part of its length."""
    box = page.locator(f"[data-slide={name}]").bounding_box()
    page.mouse.click(box["x"] + position * box["width"], box["y"] + box["height"] / 2)


# --- numbers --------------------------------------------------------------------------------------


def test_page_begins_with_the_state_of_the_lecture(page):
    shown = checked(page)
    W, X, y = problem(shown)
    assert W.T.tolist() == [[1, 2, 0], [2, -4, 0.5], [3, -1, -0.5]]
    assert X[[0, 5, 8]].tolist() == [[0.5, 0.4], [-0.7, 0.2], [-0.4, -0.5]]
    assert y.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert shown["settings"]["lr"] == shown["settings"]["l2"] == 0.1


def test_numbers_follow_a_dragged_point(page):
    page.mouse.move(*on_screen(page, 0.8, 0.3))
    page.mouse.down()
    totals = []
    for x, y in ((0.1, 0.5), (-0.33, 0.21), (0.4, -0.77)):
        page.mouse.move(*on_screen(page, x, y))
        shown = until(page, lambda shown: np.allclose(shown["points"][1][:2], [x, y], atol=2e-3))  # noqa: B023
        totals.append(shown["readings"]["total"])
    page.mouse.up()
    page.mouse.move(*on_screen(page, 0, 0))
    assert checked(page)["readings"]["total"] == totals[-1]
    assert len(set(totals)) > 1
    # A pointer that leaves the plane takes the point to its edge.
    page.mouse.move(*on_screen(page, 0.4, -0.77))
    page.mouse.down()
    page.mouse.move(*on_screen(page, 3.0, 0.5))
    until(page, lambda shown: shown["points"][1][0] == 1.0)
    page.mouse.up()


def test_a_fast_drag_ends_with_the_last_move(page):
    demo_browser.hold_point(page, 0)
    result = demo_browser.drag(page, 2.0)
    assert result["updates"] > 10
    assert np.isfinite(result["latencies"]).all()
    checked(page)


def test_numbers_follow_sliders_and_fields(page):
    set_range(page, "l2", 0.8)
    assert until(page, lambda shown: shown["settings"]["l2"] > 1)["settings"]["l2"] < 100
    set_range(page, "l2", 0.001)
    assert until(page, lambda shown: shown["settings"]["l2"] == 0)["readings"]["penalty"] == 0
    page.get_by_label("L2 strength, number").fill("0.25")
    until(page, lambda shown: shown["settings"]["l2"] == 0.25)
    page.get_by_label("L2 strength, slider").press("ArrowRight")
    until(page, lambda shown: shown["settings"]["l2"] == pytest.approx(0.315, abs=0.01))
    set_range(page, "lr", 0.999)
    until(page, lambda shown: shown["settings"]["lr"] == pytest.approx(5, rel=0.05))
    page.get_by_label("Step size, number").fill("7")  # beyond the limit
    assert "lr must be a number" in page.get_by_role("alert").inner_text()
    page.get_by_label("Step size, number").blur()
    until(page, lambda shown: shown["settings"]["lr"] == pytest.approx(5, rel=0.05))


def test_numbers_follow_weights(page):
    page.get_by_label("weight of y, class 1: up by 0.1").click()
    page.get_by_label("bias, class 2: down by 0.1").click(click_count=2)
    page.get_by_label("weight of x, class 0", exact=True).fill("-1.23456789")
    page.get_by_label("weight of x, class 2", exact=True).press("ArrowDown")
    shown = until(page, lambda shown: problem(shown)[0][0, 2] == 2.9)
    W, _, _ = problem(shown)
    assert W.T.tolist() == [[-1.23456789, 2, 0], [2, -3.9, 0.5], [2.9, -1, -0.7]]


@pytest.mark.parametrize("weights", ["0,3;-2,0;0,0", "0,0;0,0;0,0", "1,1;1,1;1,1"])
def test_horizontal_vertical_and_missing_lines_are_drawn_right(open_page, weights):
    shown = checked(open_page(f"W={weights}&b=0.3,0.2,0.1"))
    rows = [row.split(",") for row in weights.split(";")]
    assert [line is None for line in shown["lines"]] == [row == ["0", "0"] for row in rows]


def test_an_update_goes_down_the_gradient_that_is_shown(page):
    before = checked(page)
    page.get_by_role("button", name="Update once").click()
    after = until(page, lambda shown: shown["readings"]["n_updates"] == 1)
    expected = np.subtract(before["weights"], 0.1 * np.array(before["gradients"]))
    np.testing.assert_allclose(after["weights"], expected, rtol=1e-12)
    assert after["readings"]["evaluations"] == 1
    page.get_by_role("combobox", name="Gradient", exact=True).select_option("per_element")
    page.get_by_role("button", name="Update once").click()
    assert (
        until(page, lambda shown: shown["readings"]["n_updates"] == 2)["readings"]["evaluations"]
        == 18
    )


def test_numbers_stay_right_while_running_and_dragging(page):
    page.get_by_role("button", name="Run", exact=True).click()
    page.mouse.move(*on_screen(page, 0.5, 0.4))
    page.mouse.down()
    end = time.monotonic() + 2.0
    snapshots = []
    while time.monotonic() < end:
        page.mouse.move(*on_screen(page, 0.4 * np.sin(len(snapshots)), 0.4))
        snapshots.append(checked(page))
    page.mouse.up()
    page.get_by_role("button", name="Stop").click()
    last = until(page, lambda shown: not shown["running"])
    assert len({shown["readings"]["total"] for shown in snapshots}) > 5
    assert last["readings"]["n_updates"] >= 10
    assert last["readings"]["total"] < snapshots[0]["readings"]["total"] / 2
    page.wait_for_timeout(200)
    assert checked(page)["readings"]["n_updates"] == last["readings"]["n_updates"]
    page.get_by_role("button", name="Reset").click()
    until(page, lambda shown: shown["readings"]["n_updates"] == 0)


def test_numbers_are_those_of_the_chosen_loss_and_backend(page):
    totals = set()
    for loss in LOSSES:
        page.get_by_role("combobox", name="Loss", exact=True).select_option(loss)
        shown = until(page, lambda shown: shown["settings"]["loss"] == loss)  # noqa: B023
        totals.add(round(shown["readings"]["total"], 9))
    assert len(totals) == len(LOSSES)
    for backend in BACKENDS:
        page.get_by_role("combobox", name="Backend", exact=True).select_option(backend)
        shown = until(
            page,
            lambda shown: shown["settings"]["backend"] == backend and not shown["preparing"],  # noqa: B023
        )
        page.get_by_role("button", name="Update once").click()
        n_updates = shown["readings"]["n_updates"] + 1
        until(page, lambda shown: shown["readings"]["n_updates"] == n_updates)  # noqa: B023


def test_points_are_added_deleted_and_relabelled(page):
    page.get_by_role("radio", name="2").check()
    page.mouse.click(*on_screen(page, -0.2, 0.1))
    shown = until(page, lambda shown: len(shown["points"]) == 10)
    np.testing.assert_allclose(shown["points"][9][:2], [-0.2, 0.1], atol=2e-3)
    assert shown["labels"][9] == 2
    page.get_by_label("class of point 10").select_option("1")
    until(page, lambda shown: shown["labels"][9] == 1)
    page.get_by_role("button", name="Delete point").click()
    until(page, lambda shown: len(shown["points"]) == 9)
    page.get_by_role("button", name="Randomise").click()
    until(page, lambda shown: shown["weights"][0] != 1)


def test_page_works_with_the_keyboard_alone(page):
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.ariaLabel ?? ''").startswith("Point 1, class 0"):
            break
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "none"  # the point has a ring instead
    page.keyboard.press("ArrowLeft")
    until(page, lambda shown: shown["points"][0][0] == 0.45)
    page.keyboard.press("Shift+ArrowUp")
    until(page, lambda shown: shown["points"][0][1] == 0.41)
    page.keyboard.press("2")
    until(page, lambda shown: shown["labels"][0] == 2)
    page.keyboard.press("Delete")
    shown = until(page, lambda shown: len(shown["points"]) == 8)
    assert shown["points"][0][:2] == [0.8, 0.3]
    assert page.evaluate("document.activeElement.ariaLabel").startswith("Point 1, class 0")
    page.get_by_role("tab", name="Loss surface").focus()
    page.keyboard.press("ArrowLeft")
    assert page.get_by_role("tabpanel").get_attribute("data-panel") == "cost"


def test_controls_have_names_and_the_total_is_read_out(page):
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, [role=button], [role=img]")]
          .filter((each) => !(each.ariaLabel || each.labels?.[0]?.textContent.trim() || each.textContent.trim()))
          .map((each) => each.outerHTML)"""  # noqa: E501
    )
    assert unnamed == []
    page.get_by_role("button", name="Update once").click()
    total = until(page, lambda shown: shown["readings"]["n_updates"] == 1)["readings"]["total"]
    live = page.locator("[aria-live]")
    live.get_by_text(f"Total loss {total:.3f}, ").wait_for(state="attached")


# --- studies --------------------------------------------------------------------------------------


def test_gradient_check_shows_both_gradients(page):
    page.get_by_role("tab", name="Gradient check").click()
    page.get_by_role("button", name="Check the gradient").click()
    page.get_by_text("✓ passed").wait_for()
    shown = checked(page)
    columns = page.locator(".check tbody").evaluate(
        """(body) => [...body.rows].map((row) =>
          [...row.querySelectorAll("[data-value]")].map((cell) => Number(cell.dataset.value)))"""
    )
    analytic, numerical = np.array(columns).T
    np.testing.assert_allclose(analytic, shown["gradients"], atol=1e-9)
    np.testing.assert_allclose(numerical, shown["gradients"], atol=1e-6)
    page.get_by_role("button", name="Update once").click()
    page.get_by_text("changed since this check").wait_for()


def test_loss_surface_follows_the_state(page):
    here = page.locator("[data-surface-here]")

    def shows_the_total():
        total = until(page, lambda shown: True)["readings"]["total"]
        here.get_by_text(f"Loss {total:.3f} at").wait_for()

    shows_the_total()
    page.get_by_role("button", name="Update once").click()
    until(page, lambda shown: shown["readings"]["n_updates"] == 1)
    shows_the_total()
    assert len(page.locator(".surface .path").get_attribute("points").split()) == 2
    page.get_by_role("combobox", name="Up", exact=True).select_option("2,2")
    here.get_by_text("b[2] = −0.50").wait_for()
    # Another place of the surface has the loss of the weights there.
    box = page.locator(".surface image").bounding_box()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.2 * box["height"])
    here.get_by_text("b[2] = 1.").wait_for()
    W, X, y = problem(snapshot(page))
    a, b = (float(part.split(",")[0]) for part in here.inner_text().split("= ")[1:])
    W[0, 0], W[2, 2] = a, b
    expected, _ = fastloss.loss_and_grad(W, X, y, loss="hinge", l2=0.1, intercept=True)
    assert float(here.get_attribute("data-value")) == pytest.approx(expected, abs=0.05)


def test_all_losses_are_compared_from_the_same_start(page):
    page.get_by_role("tab", name="All losses").click()
    page.locator(".card").nth(4).wait_for()
    W, X, y = problem(checked(page))
    starts = page.locator(".card p span").evaluate_all(
        "(all) => all.map((each) => Number(each.dataset.value))"
    )
    expected = [
        fastloss.loss_and_grad(W, X, y, loss=loss, l2=0.1, intercept=True)[0] for loss in LOSSES
    ]
    np.testing.assert_allclose(starts, expected, rtol=1e-6)
    page.get_by_label("Updates", exact=True).fill("1")
    page.wait_for_function(
        "() => document.querySelector('.spark .curve').points.numberOfItems === 2"
    )


def test_costs_fill_and_are_cancelled_while_the_page_goes_on(page):
    page.get_by_role("tab", name="Cost").click()
    page.evaluate(  # both before the first answer; fewer rows fit then
        """() => {
          for (const [name, value] of [["rows", 1000000], ["features", 3072]]) {
            const field = document.querySelector(`[data-type=${name}]`);
            field.value = value;
            field.dispatchEvent(new Event("input"));
            field.dispatchEvent(new Event("change"));
          }
        }"""
    )
    shown = until(page, lambda shown: shown["settings"]["features"] == 3072)
    assert shown["settings"]["rows"] < 20_000
    page.get_by_role("button", name="Measure").click()
    page.get_by_text("of 18,438").first.wait_for()
    page.mouse.move(*on_screen(page, 0.3, 0.8))
    page.mouse.down()
    page.mouse.move(*on_screen(page, 0.0, 0.0))
    until(page, lambda shown: abs(shown["points"][2][0]) < 0.01)
    page.mouse.up()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled.").wait_for()
    page.get_by_label("Features, number").fill("2")
    page.get_by_label("Rows, number").fill("9")
    page.get_by_role("button", name="Measure").click()
    page.get_by_text("Measured 9 × 2, 9 parameters.").wait_for()
    assert page.locator(".costs .fastest").count() == 2
    assert page.locator("td.cost.done").count() == 2 * len(BACKENDS) + 1


# --- address, tabs and errors ---------------------------------------------------------------------


def test_address_carries_the_state_to_another_tab(open_page):
    page = open_page("loss=softmax&l2=0.01&W=1,2.5;2,-4;3,-1")
    page.mouse.click(*on_screen(page, -0.2, 0.1))
    until(page, lambda shown: len(shown["points"]) == 10)
    page.wait_for_function("() => location.hash.includes('points=')")
    address = page.evaluate("location.hash")
    other = checked(open_page(address[1:]))
    same = ("points", "labels", "weights", "gradients", "lines")
    shown = snapshot(page)
    assert {name: other[name] for name in same} == {name: shown[name] for name in same}
    assert state_of(address).settings.loss == other["settings"]["loss"] == "softmax"
    page.evaluate("location.hash = 'l2=3'")
    until(page, lambda shown: shown["settings"]["l2"] == 3 and len(shown["points"]) == 9)


def test_a_damaged_address_is_an_error_and_the_start_state(open_page):
    page = open_page("l2=-1")
    assert "l2 must be a number" in page.get_by_role("alert").inner_text()
    assert checked(page)["settings"]["l2"] == 0.1


def test_a_tab_goes_on_with_its_state_after_the_server_was_restarted(browser):
    page = browser.new_page()
    page.set_default_timeout(1000 * SECONDS)
    with served() as port:
        page.goto(f"http://127.0.0.1:{port}/#l2=0.7")
        page.wait_for_selector(".marker")
    page.get_by_text("The server has ended.").wait_for()
    page.get_by_role("button", name="Update once").click()
    with served(port):
        page.get_by_role("button", name="Connect again").click()
        page.get_by_text("The server has ended.").wait_for(state="hidden")
        page.get_by_role("combobox", name="Loss", exact=True).select_option("softmax")
        shown = until(page, lambda shown: shown["settings"]["loss"] == "softmax")
        assert shown["settings"]["l2"] == 0.7
        page.close()


def test_ten_tabs_have_their_own_state(open_page):
    pages = [open_page(f"l2={n}") for n in range(10)]
    for n, page in enumerate(pages):
        page.mouse.move(*on_screen(page, 0.3, 0.8))
        page.mouse.down()
        page.mouse.move(*on_screen(page, n / 10, 0.0))
    for n, page in enumerate(pages):
        shown = until(page, lambda shown: abs(shown["points"][2][0] - n / 10) < 3e-3)  # noqa: B023
        assert shown["settings"]["l2"] == n


# --- layout ---------------------------------------------------------------------------------------

# Texts whose boxes overlap, outside of pictures, and elements that stand out of the window.
_FAULTS = """() => {
  const walker = document.createTreeWalker(document.querySelector(".layout"), NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (!node.data.trim() || node.parentElement.closest("svg, option, .unseen")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) if (box.width > 1) texts.push([node.data.trim(), box]);
  }
  const overlaps = texts.flatMap(([text, a], i) => texts.slice(i + 1).filter(([, b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4).map(([other]) => `${text} | ${other}`));
  const cut = texts.filter(([, box]) => box.right > innerWidth || box.left < 0).map(([text]) => text);
  return [overlaps, cut, document.documentElement.scrollWidth - innerWidth];
}"""  # noqa: E501


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tab", ["surface", "compare", "check"])
def test_no_text_overlaps_or_is_cut(open_page, size, tab):
    page = open_page("W=-1000.5,2;-12.25,-400;3,-1", size=size)
    page.locator(f"[data-tab={tab}]").click()
    if tab == "check":
        page.get_by_role("button", name="Check the gradient").click()
        page.locator(".check tbody tr").first.wait_for()
    if tab == "compare":
        page.locator(".card").first.wait_for()
    assert page.evaluate(_FAULTS) == [[], [], 0]


@pytest.mark.parametrize("size", ["laptop", "projector"])
def test_plane_readings_and_main_controls_are_seen_without_scrolling(open_page, size):
    page = open_page(size=size)
    for selector in (".left", ".readings", ".settings", ".parameters", ".points"):
        box = page.locator(selector).first.bounding_box()
        assert box["y"] + box["height"] <= SIZES[size][1], selector
    page.mouse.wheel(0, 2000)
    page.wait_for_function("() => scrollY > 50")
    assert page.locator(".left > .plane").bounding_box()["y"] >= 0


def test_a_finger_drags_a_point_on_a_phone(open_page):
    page = open_page(size="phone", has_touch=True, is_mobile=True)
    start, end = on_screen(page, 0.3, 0.8), on_screen(page, 0.0, 0.2)
    session = page.context.new_cdp_session(page)
    for kind, places in (("touchStart", [start]), ("touchMove", [end]), ("touchEnd", [])):
        touches = [{"x": x, "y": y} for x, y in places]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
    shown = until(page, lambda shown: shown["points"][2][1] < 0.3)
    np.testing.assert_allclose(shown["points"][2][:2], [0.0, 0.2], atol=6e-3)
    assert page.evaluate("scrollY") == 0


@pytest.mark.parametrize(("theme", "suffix"), [("light", ""), ("dark", "-dark")])
def test_pictures_of_the_page(open_page, theme, suffix):
    """With FASTLOSS_SCREENSHOTS=1 in the environment, the README's pictures are written."""
    from PIL import Image

    page = open_page("loss=softmax&l2=0.01&lr=0.5", theme=theme)
    for n in range(1, 13):
        page.get_by_role("button", name="Update once").click()
        until(page, lambda shown: shown["readings"]["n_updates"] == n)  # noqa: B023
    page.set_viewport_size({"width": 1280, "height": 1010})
    page.wait_for_function(
        "() => document.querySelector('.surface .path')?.points.numberOfItems === 13"
    )
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    ground = picture.getpixel((2, 2))
    assert (sum(ground) > 700) == (theme == "light")
    if os.environ.get("FASTLOSS_SCREENSHOTS"):
        few = picture.quantize(256, dither=Image.Dither.NONE)
        few.save(PICTURES / f"demo{suffix}.png", optimize=True)
