"""Test the gradient check at kinks, and where rounding hides the gradient."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from gradient_problems import both, problem

import fastloss
from fastloss.penalties import Penalty

# --- kinks -----------------------------------------------------------------------------------


def hinge_at_zero_margin() -> tuple[fastloss.Objective, np.ndarray]:
    """Return a problem whose margins against class 1 are exactly 0."""
    W = np.array([[1.0, 0.0, -2.0], [0.0, 0.5, 0.25]])
    return fastloss.Objective([[1.0, 0.0], [2.0, 2.0]], [0, 0], loss="hinge"), W


def test_zero_margin_is_a_kink_with_bounded_slopes() -> None:
    objective, W = hinge_at_zero_margin()
    np.testing.assert_equal(objective.loss(W), 0.0)
    check = fastloss.check_gradient(objective, W)
    assert check.passed, str(check)
    assert check.n_kinks >= check.counts["kink"] > 0, str(check)
    # Row 0 may pull its entries of columns 0 and 1 by up to 1/2 (N = 2); row 1, whose margin is 0
    # as well, lets the slope of an entry by itself reach 3/2.
    for value, status in [(0.0, "kink"), (0.2, "kink"), (-0.01, "wrong"), (1.6, "wrong")]:

        def change(gradient: np.ndarray, value: float = value) -> np.ndarray:
            gradient[0, :2] = -value, value
            return gradient

        for f in both(objective, change):
            check = fastloss.check_gradient(f, W)
            (record,) = [r for r in check.records if r.index == (0, 1)]
            np.testing.assert_equal(record.status, status, err_msg=str(check))
            assert record.kink, str(check)
            np.testing.assert_equal(check.passed, status == "kink", err_msg=str(check))


def test_kink_of_second_derivative_is_graded() -> None:
    objective, W = hinge_at_zero_margin()
    squared = fastloss.Objective(objective.X, objective.labels, loss="squared_hinge", l2=0.1)
    squared.X[1] = [-2.0, 2.0]  # active, so that there is a gradient to judge
    check = fastloss.check_gradient(squared, W)
    assert check.passed, str(check)
    (entry,) = [r for r in check.records if r.part == "data" and r.index == (0, 1)]
    np.testing.assert_equal((entry.kink, entry.status in ("fine", "good")), (True, True))


@pytest.mark.parametrize("value", [0.0, 0.09, -0.09, 0.11, -0.2, 1e9])
def test_l1_at_zero_accepts_only_slopes_between(value: float) -> None:
    objective, W = problem("softmax", l1=0.1)
    W[:] = 0.0

    class Slope(Penalty):
        def add_gradient(self, W: Any, dW: Any) -> None:
            dW += value

    objective.penalty = Slope(l1=0.1)
    check = fastloss.check_gradient(objective, W)
    entries = [r for r in check.records if r.part == "penalty" and r.index is not None]
    expected = "kink" if abs(value) < 0.1 else "wrong"
    np.testing.assert_equal({record.status for record in entries}, {expected})
    np.testing.assert_equal(check.passed, abs(value) < 0.1)

    def callable_(w: np.ndarray) -> tuple[float, np.ndarray]:
        return 0.1 * float(np.abs(w).sum()), np.full_like(w, value)

    plain = fastloss.check_gradient(callable_, W, n_directions=0)
    if value:  # 0 is also the mean of the two slopes
        np.testing.assert_equal({record.status for record in plain.records}, {expected})
    np.testing.assert_equal(plain.passed, abs(value) < 0.1)


@pytest.mark.parametrize("distance", [4e-6, 4e-7, 4e-8])
def test_kink_near_w_is_avoided_by_a_smaller_step(distance: float) -> None:
    W = np.full((3, 3), distance)
    objective = fastloss.Objective(np.eye(3), [0, 1, 2], l1=0.1)
    for slope, passed in [(0.1, True), (0.0, False), (-0.1, False), (0.04, False)]:

        def f(w: np.ndarray, slope: float = slope) -> tuple[float, np.ndarray]:
            return 0.1 * float(np.abs(w).sum()), np.full_like(w, slope)

        check = fastloss.check_gradient(f, W, n_directions=0)
        np.testing.assert_equal(check.passed, passed, err_msg=str(check))
        np.testing.assert_equal(check.counts["kink"], 0)
        if passed:
            np.testing.assert_equal(check.n_kinks, 9)
    check = fastloss.check_gradient(objective, W, n_directions=0)
    assert check.passed
    entries = [record for record in check.records if record.part == "penalty"]
    assert all(record.kink and record.status == "good" for record in entries), str(check)
    assert all(record.h < distance for record in entries), str(check)


def test_raw_images_meet_kinks_and_pass() -> None:
    loss = fastloss.Hinge(margin=0.0)  # near the margins of a small W
    objective, W = problem(loss, dtype=np.uint8, N=100, D=300, C=10, scale=1e-4)
    check = fastloss.check_gradient(objective, W)
    assert check.passed, str(check)
    assert check.n_kinks > 3, str(check)
    smooth, W = problem("softmax", dtype=np.uint8, N=100, D=300, C=10, scale=1e-4)
    check = fastloss.check_gradient(smooth, W)
    np.testing.assert_equal((check.passed, check.n_kinks), (True, 0))
    assert "the loss is smooth" in str(check)


# --- rounding --------------------------------------------------------------------------------


def test_gradients_below_1e_10_are_too_small_and_do_not_pass() -> None:
    objective, W = problem("softmax")
    tiny = fastloss.check_gradient(
        lambda w: (1e-11 * objective.loss(w), -1e-11 * objective(w)[1]), W
    )
    np.testing.assert_equal(tiny.counts["too small"], len(tiny.records))
    np.testing.assert_equal((tiny.passed, tiny.max_relative_error), (False, np.nan))
    assert "nothing is large enough to judge" in str(tiny)
    assert tiny.worst in tiny.records


def test_rounding_passes_but_hides_no_larger_error() -> None:
    """A large constant leaves the quotient few digits."""
    objective, W = problem("softmax")

    def f(scale: float) -> Callable[[np.ndarray], Any]:
        def loss_and_gradient(w: np.ndarray) -> Any:
            loss, gradient = objective(w)
            gradient[::2] *= scale
            gradient[1::2] *= 1e-4  # rounding hides these rows
            return loss + 1e5, gradient

        return loss_and_gradient

    right = fastloss.check_gradient(f(1.0), W, n_directions=0)
    odd = [record for record in right.records if record.index[0] % 2]
    assert all(r.failed for r in odd if abs(r.numerical) > 1e-3), str(right)
    assert not any(r.failed for r in right.records if r.index[0] % 2 == 0), str(right)
    wrong = fastloss.check_gradient(f(1.1), W, n_directions=0)
    even = [r for r in wrong.records if r.index[0] % 2 == 0 and abs(r.numerical) > 1e-3]
    assert len(even) > 10
    assert all(record.failed for record in even), str(wrong)


def test_small_loss_of_large_scores_does_not_fail() -> None:
    for seed, scale in product(range(6), (30.0, 300.0)):
        objective, W = problem("softmax", D=20, N=40, scale=scale, seed=seed)
        y = (objective.X @ W).argmax(axis=1)
        sure = fastloss.Objective(objective.X, y, backend="numpy")
        for f in (sure, lambda w, f=sure: f(w)) if scale < 100 else (sure,):
            check = fastloss.check_gradient(f, W)
            assert not any(record.failed for record in check.records), str(check)


def test_float32_loss_gives_a_note() -> None:
    def f(w: np.ndarray) -> tuple[np.float32, np.ndarray]:
        return np.square(w, dtype=np.float32, casting="same_kind").sum(), 2.0 * w

    check = fastloss.check_gradient(f, np.random.default_rng(0).standard_normal((4, 3)))
    assert not check.passed
    assert "every loss is a float32 number" in str(check)
