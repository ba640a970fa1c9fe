"""The demo's state: messages, limits, the text for the address, and the shapes of the plane."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastloss.demo import geometry
from fastloss.demo.address import address_of, state_of
from fastloss.demo.messages import MOST_CHARACTERS, Message, MessageError
from fastloss.demo.state import (
    BOX,
    LOSSES,
    MOST_HISTORY,
    MOST_NUMBERS,
    MOST_POINTS,
    OPTIMIZERS,
    State,
)

NUMBERS = st.floats(-1e6, 1e6)
SCORES = st.tuples(*[st.floats(-5, 5).map(lambda value: round(value, 6))] * 3)


# --- messages and limits --------------------------------------------------------------------------


def test_start_state_is_that_of_the_lecture():
    state = State()
    assert state.points[state.labels == 1].tolist() == [[-0.4, 0.3], [-0.3, 0.7], [-0.7, 0.2]]
    assert state.W[:2].T.tolist() == [[1, 2], [2, -4], [3, -1]]
    assert state.W[2].tolist() == [0, 0.5, -0.5]
    assert (state.settings.lr, state.settings.l2) == (0.1, 0.1)


def test_a_point_that_leaves_the_plane_stops_at_its_edge():
    state = State()
    state.move(Message({"point": 3, "x": 7, "y": -0.123456}))
    assert state.points[3].tolist() == [1.0, -0.1235]


def test_points_are_added_labelled_and_deleted():
    state = State()
    state.add(Message({"x": 0.25, "y": -0.5, "class": 1}))
    state.label(Message({"point": 9, "class": 2}))
    assert (state.points[9].tolist(), state.labels[9]) == ([0.25, -0.5], 2)
    state.delete(Message({"point": 0}))
    assert len(state.points) == len(state.labels) == 9
    assert state.points[-1].tolist() == [0.25, -0.5]


def test_number_of_points_is_limited():
    state = State()
    new = Message({"x": 0, "y": 0, "class": 0})
    for _ in range(MOST_POINTS - 9):
        state.add(new)
    with pytest.raises(MessageError, match=f"at most {MOST_POINTS} points"):
        state.add(new)
    for _ in range(MOST_POINTS - 1):
        state.delete(Message({"point": 0}))
    with pytest.raises(MessageError, match="last point"):
        state.delete(Message({"point": 0}))


@pytest.mark.parametrize(
    ("do", "fields", "error"),
    [
        ("move", {"point": 9, "x": 0, "y": 0}, "point must be an integer from 0 to 8, got 9"),
        ("move", {"point": True, "x": 0, "y": 0}, "point must be an integer"),
        ("move", {"point": 0, "x": math.nan, "y": 0}, "x must be a number"),
        ("move", {"point": 0, "x": "0", "y": 0}, "x must be a number"),
        ("move", {"point": 0, "x": 0}, "no field 'y'"),
        ("add", {"x": 0, "y": 0, "class": 3}, "class must be an integer from 0 to 2"),
        ("weight", {"class": 0, "column": 3, "value": 0}, "column must be"),
        ("weight", {"class": 0, "column": 0, "value": 1e7}, "value must be a number"),
        ("set", {}, "set takes loss, l2"),
        ("set", {"history": 1}, "set takes loss, l2"),
        ("set", {"loss": "mse"}, "loss must be one of hinge, "),
        ("set", {"loss": ["hinge"]}, "loss must be one of hinge, "),
        ("set", {"backend": "torch"}, "backend must be one of naive, "),
        ("set", {"l2": -0.1}, "l2 must be a number from 0 to 100"),
        ("set", {"lr": 0}, "lr must be a number from 0.0005 to 5"),
        ("set", {"rows": 10**6 + 1}, "rows must be an integer from 1 to 1000000"),
        ("set", {"rows": 1e3}, "rows must be an integer"),
        ("set", {"features": 3073}, "features must be an integer from 2 to 3072"),
        ("set", {"rows": 10**6, "features": 3072}, "lower one of them first"),
    ],
)
def test_an_invalid_message_is_refused_and_changes_nothing(do, fields, error):
    state = State()
    with pytest.raises(MessageError, match=error):
        getattr(state, do)(Message(fields))
    assert address_of(state) == ""


def test_one_invalid_setting_refuses_all_of_its_message():
    state = State()
    with pytest.raises(MessageError, match="l2"):
        state.set(Message({"loss": "softmax", "l2": "much"}))
    assert state.settings == State().settings


def test_sizes_up_to_the_limit_are_accepted():
    state = State()
    state.set(Message({"rows": MOST_NUMBERS // 3072, "features": 3072}))
    assert state.settings.features == 3072


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "must be JSON"),
        ("[" * 20_000, "must be JSON"),
        ("9" * 10_000, "must be JSON"),
        ('"' + "x" * MOST_CHARACTERS, "may have"),
        ("[]", r"must be an object, got \[\]"),
    ],
)
def test_text_that_is_no_message_is_refused(text, error):
    with pytest.raises(MessageError, match=error):
        Message.parse(text)


def test_an_error_shows_the_beginning_of_a_long_value():
    with pytest.raises(MessageError) as caught:
        Message({"loss": "\n" * 5000}).choice("loss", LOSSES)
    assert len(str(caught.value)) < 200


def test_history_keeps_the_whole_run_in_bounds():
    state = State()
    for n in range(10 * MOST_HISTORY):
        state.record(float(n))
        state.n_updates += 1
    updates = [n for n, _ in state.history]
    assert MOST_HISTORY // 2 <= len(updates) == len(state.path) < MOST_HISTORY
    assert updates[0] == 0
    assert updates[-1] > 9 * MOST_HISTORY
    assert updates == sorted(updates)
    assert all(total == n for n, total in state.history)


def test_a_snapshot_keeps_its_values():
    state = State()
    kept = state.snapshot()
    state.move(Message({"point": 0, "x": 0, "y": 0}))
    state.weight(Message({"class": 0, "column": 0, "value": 9}))
    state.label(Message({"point": 0, "class": 2}))
    state.record(1.0)
    assert address_of(kept) == ""
    assert kept.history == []


# --- the address ----------------------------------------------------------------------------------


@given(
    W=st.lists(NUMBERS, min_size=9, max_size=9),
    points=st.lists(
        st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.integers(0, 2)), min_size=1, max_size=12
    ),
    l2=st.floats(0, 100),
    lr=st.floats(0.0005, 5),
    loss=st.sampled_from(list(LOSSES)),
    optimizer=st.sampled_from(list(OPTIMIZERS)),
    rows=st.integers(1, 10**6),
)
def test_address_brings_the_same_state_back(W, points, l2, lr, loss, optimizer, rows):
    state = State()
    for x, y, label in points:
        state.add(Message({"x": x, "y": y, "class": label}))
    for _ in range(9):
        state.delete(Message({"point": 0}))
    for value, (k, column) in zip(W, itertools.product(range(3), range(3)), strict=True):
        state.weight(Message({"class": k, "column": column, "value": value}))
    state.set(Message({"l2": l2, "lr": lr, "loss": loss, "optimizer": optimizer, "rows": rows}))
    back = state_of("#" + address_of(state))
    np.testing.assert_array_equal(back.points, state.points)
    np.testing.assert_array_equal(back.labels, state.labels)
    np.testing.assert_array_equal(back.W, state.W)
    assert back.settings == state.settings


def test_address_names_what_differs_from_the_start():
    state = State()
    state.set(Message({"l2": 1, "loss": "softmax"}))
    assert address_of(state) == "loss=softmax&l2=1"


@pytest.mark.parametrize(
    "address",
    [
        "loss",
        "loss=mse",
        "loss=hinge&loss=softmax",
        "colour=red",
        "l2=much",
        "l2=nan",
        "rows=1e3",
        "W=1,2;3,4",
        "W=1,2;3,4;5",
        "W=1,2;3,4;5,inf",
        "b=1,2",
        "b=1,2;3",
        "b=",
        "points=",
        "points=0,0",
        "points=0,0,0.5",
        "points=0,0,3",
        "points=nan,0,1",
        "points=" + ";".join(["0,0,0"] * (MOST_POINTS + 1)),
        "rows=1000000&features=3072",
    ],
)
def test_a_damaged_address_is_refused(address):
    with pytest.raises(MessageError):
        state_of(address)


# --- geometry -------------------------------------------------------------------------------------


def _contains(polygon, x, y):
    """Return how far a point is inside a convex polygon in counter-clockwise order."""
    if not polygon:
        return -np.inf
    sides = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return min(
        ((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) / math.hypot(x1 - x0, y1 - y0)
        for (x0, y0), (x1, y1) in sides
        if (x0, y0) != (x1, y1)
    )


@given(st.lists(SCORES, min_size=3, max_size=3))
def test_a_region_holds_the_places_where_its_score_is_highest(scores):
    regions = geometry.regions(scores, BOX)
    for x, y in np.random.default_rng(0).uniform(-1, 1, (50, 2)):
        values = [a * x + b * y + c for a, b, c in scores]
        best, second = sorted(values)[:-3:-1]
        if best - second > 1e-6:
            inside = [_contains(polygon, x, y) for polygon in regions]
            assert inside[values.index(best)] > -1e-9
            assert sum(each > 1e-9 for each in inside) <= 1


def test_equal_scores_belong_to_the_lowest_class():
    whole, *others = geometry.regions([(1.0, 2.0, 0.0)] * 3, BOX)
    assert len(whole) == 4
    assert others == [[], []]


def test_a_class_that_never_wins_has_no_region():
    assert geometry.regions([(0.0, 0.0, 1.0), (0.0, 0.0, 0.0)], BOX)[1] == []


@pytest.mark.parametrize(
    ("score", "line"),
    [
        ((0.0, 2.0, -1.0), {(-1.0, 0.5), (1.0, 0.5)}),  # horizontal
        ((-4.0, 0.0, -1.0), {(-0.25, -1.0), (-0.25, 1.0)}),  # vertical
        ((1.0, 1.0, 0.0), {(-1.0, 1.0), (1.0, -1.0)}),
        ((1e-200, 0.0, 0.0), {(0.0, -1.0), (0.0, 1.0)}),
    ],
)
def test_zero_line_ends_at_the_box(score, line):
    found = geometry.zero_line(score, BOX)
    assert {(round(x, 12) + 0.0, round(y, 12) + 0.0) for x, y in found} == line


@pytest.mark.parametrize(
    "score", [(0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 2.0), (0.0, 1.0, -2.0), (1.0, 1.0, 5.0)]
)
def test_a_line_outside_the_box_is_absent(score):
    assert geometry.zero_line(score, BOX) is None


@given(SCORES)
def test_zero_line_and_arrow_are_on_the_score(score):
    line = geometry.zero_line(score, BOX)
    if line is None:
        corners = itertools.product(BOX[:2], BOX[2:])
        signs = {np.sign(score[0] * x + score[1] * y + score[2]) for x, y in corners}
        assert signs != {-1.0, 1.0}
        return
    for x, y in line:
        assert max(abs(x), abs(y)) <= 1 + 1e-9
        assert abs(score[0] * x + score[1] * y + score[2]) < 1e-9
    (x0, y0), (x1, y1) = geometry.arrow(line, score[:2], BOX)
    assert abs((x1 - x0) * score[1] - (y1 - y0) * score[0]) < 1e-9
    assert (x1 - x0) * score[0] + (y1 - y0) * score[1] > 0
    assert math.hypot(x1 - x0, y1 - y0) <= 0.6


def test_a_longer_vector_has_a_longer_arrow():
    line = ((-1.0, 0.0), (1.0, 0.0))
    lengths = [geometry.arrow(line, (0.0, norm), BOX)[1][1] for norm in (0.1, 1.0, 10.0, 1e5)]
    assert lengths == sorted(set(lengths))
    assert geometry.arrow(line, (0.0, 0.0), BOX) is None
    assert geometry.arrow(None, (0.0, 1.0), BOX) is None
