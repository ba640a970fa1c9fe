"""Write a state as a short text for the page's address, so that a teacher can send it.

The text has a part for everything that differs from the start, ``name=value`` joined by ``&``::

    points=0.5,0.4,0;0.8,0.3,1&W=1,2;2,-4;3,-1&b=0,0.5,-0.5&loss=softmax&l2=0.01

A point is x, y and class; ``W`` has a row for each class. Numbers have all their digits, so the
state comes back exactly. History and the memory of the optimizer are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np

from fastloss.demo.messages import Message, MessageError
from fastloss.demo.state import MOST_POINTS, N_CLASSES, SETTINGS, State


def address_of(state: State) -> str:
    """Return the text for a state; the start state has an empty one."""
    start = _start()
    return "&".join(f"{name}={text}" for name, text in _parts(state).items() if text != start[name])


@cache
def _start() -> dict[str, str]:
    return _parts(State())


def _parts(state: State) -> dict[str, str]:
    places, labels = state.points.tolist(), state.labels.tolist()
    points = ((*place, label) for place, label in zip(places, labels, strict=True))
    return {
        "points": ";".join(map(_joined, points)),
        "W": ";".join(map(_joined, state.W[:2].T.tolist())),
        "b": _joined(state.W[2].tolist()),
        **{name: _written(getattr(state.settings, name)) for name in SETTINGS},
    }


def _joined(values: Iterable[float]) -> str:
    return ",".join(map(_written, values))


def _written(value: Any) -> str:
    """Return the shortest text that reads back as the same value."""
    if isinstance(value, str):
        return value
    return repr(float(value)).removesuffix(".0")


def state_of(address: str) -> State:
    """Read a state from its text, with or without the leading ``#``.

    Raises `MessageError` if a part is unknown, damaged or beyond the limits of a message.
    """
    state = State()
    parts = _split(address.removeprefix("#"))
    if "points" in parts:
        _read_points(state, parts.pop("points"))
    _read_weights(state, parts.pop("W", None), parts.pop("b", None))
    if parts:
        state.set(Message({name: _value(text) for name, text in parts.items()}))
    return state


def _split(address: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in filter(None, address.split("&")):
        name, equals, text = part.partition("=")
        if not equals or name in parts:
            raise MessageError(f"the address has a part {part[:40]!r}, which is no name=value")
        parts[name] = text
    return parts


def _read_points(state: State, text: str) -> None:
    rows = _rows("points", text)
    if not 1 <= len(rows) <= MOST_POINTS or any(len(row) != 3 for row in rows):
        raise MessageError(f"points of the address must be 1 to {MOST_POINTS} times x,y,class")
    state.points = np.zeros((len(rows), 2))
    state.labels = np.zeros(len(rows), np.int64)
    for point, (x, y, label) in enumerate(rows):
        state.move(Message({"point": point, "x": x, "y": y}))
        state.label(Message({"point": point, "class": _whole(label)}))


def _read_weights(state: State, weights: str | None, biases: str | None) -> None:
    W = state.W.T.tolist()  # a row for each class: weight of x, weight of y, bias
    if weights is not None:
        for row, pair in zip(W, _matrix("W", weights, (N_CLASSES, 2)), strict=True):
            row[:2] = pair
    if biases is not None:
        for row, bias in zip(W, _matrix("b", biases, (1, N_CLASSES))[0], strict=True):
            row[2] = bias
    for k, row in enumerate(W):
        for column, value in enumerate(row):
            state.weight(Message({"class": k, "column": column, "value": value}))


def _matrix(name: str, text: str, shape: tuple[int, int]) -> list[list[float]]:
    rows = _rows(name, text)
    if [len(row) for row in rows] != [shape[1]] * shape[0]:
        raise MessageError(f"{name} of the address must have {shape[0]} x {shape[1]} numbers")
    return rows


def _rows(name: str, text: str) -> list[list[float]]:
    try:
        return [[float(value) for value in row.split(",")] for row in text.split(";")]
    except ValueError:
        raise MessageError(f"{name} of the address must hold numbers, got {text[:40]!r}") from None


def _value(text: str) -> str | float | int:
    """Return a number if the text is one, else the text."""
    number: Callable[[str], float]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() else value
