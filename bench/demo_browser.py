"""Open the demo in a headless Chromium, for the tests and for `demo_drag.py`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Nothing in the browser may look for updates: the tests count requests to other hosts.
_FLAGS = (
    "--no-sandbox",  # in a container it has no user namespaces
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_NAMES = ("chromium", "chromium-browser", "google-chrome")

# Moves the held pointer between two places for some milliseconds, as a fast mouse does. Returns
# when each move was made, and how many moves the picture had at each change of the point.
_DRAG = """async ([milliseconds, x0, x1, y0, y1]) => {
  const plane = document.querySelector(".left > .plane");
  const marker = document.querySelector(".marker.selected");
  const start = performance.now();
  const moves = [];
  const drawn = [];
  const places = new Map();
  const observer = new MutationObserver(() => {
    const move = places.get(marker.getAttribute("transform"));
    if (move !== undefined) drawn.push([performance.now() - start, move]);
  });
  observer.observe(marker, { attributeFilter: ["transform"] });
  while (performance.now() - start < milliseconds) {
    const t = (moves.length % 200) / 200;
    const [x, y] = [x0 + t * (x1 - x0), y0 + t * (y1 - y0)];
    const at = new DOMPoint(x, -y).matrixTransform(plane.getScreenCTM());
    // The page rounds to 4 decimals, like Python; the pointer is exact.
    places.set(`translate(${Number(x.toFixed(4))} ${-Number(y.toFixed(4))})`, moves.length);
    moves.push(performance.now() - start);
    plane.dispatchEvent(new PointerEvent("pointermove", { clientX: at.x, clientY: at.y }));
    await new Promise((done) => setTimeout(done, 8));
  }
  await new Promise((done) => setTimeout(done, 500));
  observer.disconnect();
  return { moves, drawn };
}"""


def why_not() -> str | None:
    """Return the reason why no browser can be opened; None if one can."""
    if find_spec("playwright") is None:
        return "Playwright for Python is not installed"
    if not any(map(shutil.which, _NAMES)):
        return f"no Chromium: none of {', '.join(_NAMES)} is on the path"
    return None


@contextmanager
def browser() -> Iterator[Browser]:
    """Open a headless Chromium, and close it at the end."""
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, _NAMES)))
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=_FLAGS)
        try:
            yield opened
        finally:
            opened.close()


def hold_point(page: Page, point: int) -> None:
    """Press the mouse on a point of the plane."""
    box = page.locator(".left > .plane .marker").nth(point).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()


def drag(page: Page, seconds: float) -> dict[str, Any]:
    """Drag the held point at 125 moves a second.

    Returns the number of ``moves``, the number of times the point was drawn at another place
    (``updates``), and for each move the milliseconds until the picture showed it or a later one
    (``latencies``; infinite if it never did).
    """
    record = page.evaluate(_DRAG, [1000 * seconds, -0.8, 0.8, 0.9, -0.9])
    latencies = []
    for move, made in enumerate(record["moves"]):
        later = (at - made for at, shown in record["drawn"] if shown >= move)
        latencies.append(min(later, default=float("inf")))
    return {
        "moves": len(record["moves"]),
        "updates": len(record["drawn"]),
        "latencies": latencies,
    }
