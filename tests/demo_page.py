"""Serve the demo for tests, read all numbers from its page, and compare them with fastloss."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import numpy as np

import fastloss
from fastloss.demo import server

SECONDS = 120.0

# Reads everything at once, so that a running page cannot change in between.
_SNAPSHOT = """(root) => {
  const all = (selector) => [...root.querySelectorAll(selector)];
  const value = (element) => Number(element.dataset.value);
  const path = (selector) => all(selector).map((element) => element.getAttribute("d"));
  return {
    points: all(".points tbody tr").map((row) => [...row.querySelectorAll(".number")].map(value)),
    labels: all(".points tbody select").map((select) => Number(select.value)),
    right: all(".points .mark").map((mark) => mark.dataset.value === "true"),
    weights: all("[data-weight]").map(value),
    gradients: all("[data-gradient]").map(value),
    readings: Object.fromEntries(all("[data-show]").map((each) => [each.dataset.show, value(each)])),
    settings: {
      ...Object.fromEntries(all("[data-set]").map((select) => [select.dataset.set, select.value])),
      ...Object.fromEntries(all("[data-type]").map((field) => [field.dataset.type, value(field)])),
    },
    sliders: Object.fromEntries(all("[data-slide]").map((range) => [range.dataset.slide, value(range)])),
    markers: all(".left .marker").map((marker) => [marker.getAttribute("transform"), marker.getAttribute("class")]),
    lines: path(".left .lines path"),
    arrows: path(".left .arrow:not(.descent) .stem"),
    descents: path(".left .arrow.descent .stem"),
    regions: all(".left .region").map((region) => region.getAttribute("points")),
    curve: root.querySelector("[data-history]").getAttribute("aria-label"),
    texts: all("[data-value]:not([type=range])").map((each) => [each.dataset.value, each.value ?? each.textContent]),
    preparing: !root.querySelector("[data-preparing]").hidden,
    running: root.querySelector("[data-do=stop]") !== null,
  };
}"""  # noqa: E501


@contextmanager
def served(port: int = 0) -> Iterator[int]:
    """Serve the demo in a thread; yield its port."""
    listener = server.listen("127.0.0.1", port)
    running = server.server()
    thread = Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        running.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


def snapshot(page) -> dict[str, Any]:
    """Return all numbers on a page, or in an element of one, and what the picture shows."""
    return page.locator(".fastloss-demo").evaluate(_SNAPSHOT)


def checked(page) -> dict[str, Any]:
    """Return a snapshot whose numbers are right."""
    shown = snapshot(page)
    check(shown)
    return shown


def until(page, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until a snapshot meets the condition; return it, with its numbers checked."""
    end = time.monotonic() + SECONDS
    while not condition(shown := snapshot(page)):
        assert time.monotonic() < end, shown
        time.sleep(0.01)
    check(shown)
    return shown


def problem(shown) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return W (3, 3) with the biases as last row, the points and their labels."""
    points = np.array([row[:2] for row in shown["points"]])
    return np.reshape(shown["weights"], (3, 3)).T, points, np.array(shown["labels"])


def check(shown) -> None:
    """Compare every number of a snapshot with fastloss, to 1e-6; compare the picture too."""
    W, X, y = problem(shown)
    loss, l2 = shown["settings"]["loss"], shown["settings"]["l2"]
    arguments = {"loss": loss, "intercept": True, "backend": "numpy"}
    total, dW = fastloss.loss_and_grad(W, X, y, l2=l2, **arguments)
    data_loss, _ = fastloss.loss_and_grad(W, X, y, **arguments)
    scores = X @ W[:2] + W[2]
    losses, _ = fastloss.score_gradient(scores, y, loss=loss, backend="numpy")
    right = scores.argmax(axis=1) == y

    readings = shown["readings"]
    _close(readings["total"], total)
    _close(readings["data_loss"], data_loss)
    _close(readings["penalty"], l2 * np.sum(W[:2] ** 2))
    _close(readings["accuracy"], right.mean())
    _close(shown["gradients"], dW.T.ravel())
    _close([row[2:5] for row in shown["points"]], scores)
    _close([row[5] for row in shown["points"]], losses)
    assert shown["right"] == right.tolist()
    for name, value in shown["sliders"].items():
        assert value == shown["settings"][name]
    _check_texts(shown["texts"])
    _check_picture(shown, W, dW)


def _close(actual, expected) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


def _check_texts(texts) -> None:
    """Compare each text that is a number with the value behind it: the last digit is rounded."""
    numbers = [(value, text.replace("\u2212", "-")) for value, text in texts]
    numbers = [(v, t) for v, t in numbers if re.fullmatch(r"-?\d+\.\d+", t)]
    assert len(numbers) > 50
    for value, text in numbers:
        digits = len(text.split(".")[1])
        assert abs(float(value) - float(text)) <= 0.5001 * 10.0**-digits, (value, text)


def _check_picture(shown, W, dW) -> None:
    X, y = problem(shown)[1:]
    assert len(shown["markers"]) == len(X)
    for (place, kind), point, label, right in zip(
        shown["markers"], X, y, shown["right"], strict=True
    ):
        _close(_pairs(place), [point])
        assert f"class-{label}" in kind
        assert ("wrong" not in kind) == right
    for k in range(3):
        if (line := shown["lines"][k]) is not None:
            ends = _pairs(line)
            _close(ends @ W[:2, k] + W[2, k], np.zeros(2))
            _along(shown["arrows"][k], W[:2, k])
            if np.any(dW[:2, k]):
                _along(shown["descents"][k], -dW[:2, k])
        corners = _pairs(shown["regions"][k])
        if len(corners):
            scores = corners @ W[:2] + W[2]
            _close(scores[:, k], scores.max(axis=1))
    assert shown["curve"].endswith(f"at update {int(shown['readings']['n_updates'])}")


def _pairs(text: str) -> np.ndarray:
    """Return the points in a path; in the picture y points down."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", text)
    return np.array(numbers, float).reshape(-1, 2) * [1, -1]


def _along(stem: str, vector) -> None:
    start, end = _pairs(stem)
    direction = (end - start) / np.linalg.norm(end - start)
    np.testing.assert_allclose(direction, vector / np.linalg.norm(vector), atol=1e-4)
