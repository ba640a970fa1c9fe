"""Tests of fastloss.optim.line_search against MINPACK-2's dcsrch, as SciPy translated it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastloss.optim.line_search import LineSearch

#: Functions with their derivatives, of the step and of a random positive number.
FUNCTIONS = {
    "rational": (
        lambda t, b: -t / (t * t + b),
        lambda t, b: (t * t - b) / (t * t + b) ** 2,
    ),
    "quartic": (
        lambda t, b: (t + b / 50) ** 5 - 2 * (t + b / 50) ** 4,
        lambda t, b: 5 * (t + b / 50) ** 4 - 8 * (t + b / 50) ** 3,
    ),
    "logistic": (
        lambda t, b: math.log1p(math.exp(-b * t)) + 1e-3 * t * t,
        lambda t, b: -b / (1 + math.exp(min(b * t, 700))) + 2e-3 * t,
    ),
    "hinge": (
        lambda t, b: max(0.0, 1 - b * t) + max(0.0, t - b) + 1e-3 * t * t,
        lambda t, b: -b * (b * t < 1) + 1.0 * (t > b) + 2e-3 * t,
    ),
    "waves": (
        lambda t, b: math.sin(b * t + 2) + 0.01 * t * t,
        lambda t, b: b * math.cos(b * t + 2) + 0.02 * t,
    ),
    "falling": (lambda t, b: -math.log1p(b * t), lambda t, b: -b / (1 + b * t)),
    "noise": (
        lambda t, b: math.exp(-t) + 1e-9 * math.sin(1e9 * t + b),
        lambda t, b: -math.exp(-t),
    ),
    "wrong slope": (lambda t, b: b * t, lambda t, b: -b),
}


def steps_of_scipy(f, slope, step: float, most: int) -> tuple[list[float], bool]:
    """Return the steps that dcsrch tries with L-BFGS-B's constants, and whether it ends."""
    dcsrch = pytest.importorskip("scipy.optimize._dcsrch").DCSRCH
    search = dcsrch(None, None, ftol=1e-3, gtol=0.9, xtol=0.1, stpmin=0.0, stpmax=1e10)
    steps = []
    step, _, _, task = search._iterate(step, f(0.0), slope(0.0), b"START")
    while task[:2] == b"FG" and len(steps) < most:
        steps.append(float(step))
        step, _, _, task = search._iterate(step, f(float(step)), slope(float(step)), task)
    return steps, task[:2] != b"FG"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_step_is_the_one_of_dcsrch(name):
    rng = np.random.default_rng(0)
    value, derivative = FUNCTIONS[name]
    n_steps = []
    for _ in range(150):
        b, first = 10 ** rng.uniform(-0.7, 0.7), 10 ** rng.uniform(-5, 2)
        expected, ends = steps_of_scipy(
            lambda t, b=b: value(t, b), lambda t, b=b: derivative(t, b), first, most=25
        )
        search = LineSearch(value(0.0, b), derivative(0.0, b), first)
        for step in expected:
            assert search.step == pytest.approx(step, rel=1e-7)
            assert not search.is_done
            search.tell(value(search.step, b), derivative(search.step, b))
        assert search.is_done == ends
        n_steps.append(len(expected))
    assert max(n_steps) > 2  # interpolation is tested, not the first step alone


def test_accepted_step_satisfies_the_wolfe_conditions():
    value, derivative = FUNCTIONS["rational"]
    for first in (1e-3, 1.0, 30.0):
        search = LineSearch(0.0, derivative(0.0, 2.0), first)
        while not search.is_done:
            search.tell(value(search.step, 2.0), derivative(search.step, 2.0))
        assert value(search.step, 2.0) <= 1e-3 * search.step * derivative(0.0, 2.0)
        assert abs(derivative(search.step, 2.0)) <= 0.9 * abs(derivative(0.0, 2.0))


def test_step_is_shortened_until_the_loss_is_finite():
    search = LineSearch(1.0, -1.0, 1000.0)
    tried = []
    while not search.is_done and len(tried) < 30:
        tried.append(search.step)
        if search.step > 2.0:
            search.shorten()
        else:
            search.tell(1.0 - search.step, -1.0)
    assert tried == pytest.approx([1000.0, 100.0, 10.0, 1.0])
    assert search.step == 1.0  # a longer step may overflow again, so this one is accepted


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_losses_near_overflow_and_underflow_end_the_search(scale):
    for kind in (1.0, -1.0):
        search = LineSearch(0.0, -scale, 1.0)
        for _ in range(60):
            if search.is_done:
                break
            assert 0.0 <= search.step <= 1e10
            search.tell(scale * kind * search.step, -scale * (search.step < 1))
        assert math.isfinite(search.step)
