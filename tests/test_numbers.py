"""Test that numeric arguments become Python's own numbers, and other objects raise errors."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

import fastloss
from fastloss import data, optim
from fastloss.arrays import as_integer, as_real
from fastloss.penalties import Penalty
from fastloss.training import Settings


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_any_integer_becomes_an_int(value):
    found = as_integer("n", value, 1, 3)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize(
    ("value", "number"),
    [(0.5, 0.5), (np.float32(0.5), 0.5), (np.float16(2), 2.0), (Fraction(1, 4), 0.25), (3, 3.0)],
)
def test_any_real_number_becomes_a_float(value, number):
    found = as_real("a", value)
    assert (found, type(found)) == (number, float)


@pytest.mark.parametrize(
    "value", [True, np.True_, 1.0, "1", None, [1], 1j, np.array([1])], ids=repr
)
def test_other_objects_than_integers_raise(value):
    with pytest.raises(TypeError, match=r"^n must be an integer, got "):
        as_integer("n", value)


@pytest.mark.parametrize("value", [True, np.True_, "1", None, [1.0], 1j, np.ones(1)], ids=repr)
def test_other_objects_than_real_numbers_raise(value):
    with pytest.raises(TypeError, match=r"^a must be a real number, got "):
        as_real("a", value)


@pytest.mark.parametrize(
    ("value", "limits", "message"),
    [
        (np.int64(0), (1,), "n must be >= 1, got 0"),
        (0, (1, 5), "n must be in [1, 5], got 0"),
        (6, (1, 5), "n must be in [1, 5], got 6"),
    ],
)
def test_integers_out_of_range_raise(value, limits, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        as_integer("n", value, *limits)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "limits", "message"),
    [
        (-1, {}, "a must be finite and >= 0, got -1.0"),
        (math.inf, {}, "a must be finite and >= 0, got inf"),
        (10**400, {}, "a must be finite and >= 0, got inf"),
        (np.float32("nan"), {}, "a must be finite and >= 0, got nan"),
        (0, {"above": 0.0}, "a must be finite and > 0, got 0.0"),
        (math.nan, {"above": 0.0, "finite": False}, "a must be > 0, got nan"),
        (1.0, {"below": 1.0}, "a must be in [0, 1), got 1.0"),
        (0.5, {"least": 1.0}, "a must be finite and >= 1, got 0.5"),
    ],
)
def test_real_numbers_out_of_range_raise(value, limits, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        as_real("a", value, **limits)
    assert str(caught.value) == message


def test_infinity_is_accepted_without_finite():
    assert as_real("a", math.inf, above=0.0, finite=False) == math.inf


# Each function passes its number to one parameter.
INTEGERS = {
    "power": lambda n: fastloss.Hinge(power=n),
    "power of one-vs-all": lambda n: fastloss.OneVsAll(power=n),
    "batch_size": lambda n: optim.SGD(batch_size=n),
    "batch_size of Adam": lambda n: optim.Adam(batch_size=n),
    "memory": lambda n: optim.LBFGS(memory=n),
    "steps": lambda n: Settings(steps=n),
}
REALS = {
    "margin": lambda a: fastloss.Hinge(margin=a),
    "margin of Crammer-Singer": lambda a: fastloss.CrammerSinger(a),
    "margin of one-vs-all": lambda a: fastloss.OneVsAll(margin=a),
    "label_smoothing": lambda a: fastloss.Softmax(a),
    "l1": lambda a: Penalty(l1=a),
    "l2": lambda a: Penalty(l2=a),
    "lr": lambda a: optim.GradientDescent(lr=a),
    "momentum": lambda a: optim.SGD(momentum=a),
    "beta1": lambda a: optim.Adam(beta1=a),
    "eps": lambda a: optim.Adam(eps=a),
    "scale": lambda a: optim.RandomSearch(scale=a),
    "every": lambda a: optim.StepDecay(every=a),
    "start": lambda a: optim.Warmup(start=a),
    "epochs": lambda a: Settings(epochs=a),
}


@pytest.mark.parametrize("make", INTEGERS.values(), ids=INTEGERS)
def test_integers_of_records_are_converted(make):
    assert repr(make(np.int64(2))) == repr(make(2))
    for value in (True, 2.0, "2"):
        with pytest.raises(TypeError, match="must be an integer, got"):
            make(value)


@pytest.mark.parametrize("make", REALS.values(), ids=REALS)
def test_real_numbers_of_records_are_converted(make):
    assert repr(make(np.float32(0.5))) == repr(make(0.5))
    for value in (True, "0.5"):
        with pytest.raises(TypeError, match="must be a real number, got"):
            make(value)


X, Y, W = np.eye(4), np.array([0, 1, 2, 0]), np.ones((4, 3))
CALLS = {
    "n_threads": lambda n: fastloss.loss_and_grad(W, X, Y, backend="numpy", n_threads=n),
    "ignore_index": lambda n: fastloss.loss_and_grad(W, X, Y, backend="numpy", ignore_index=n),
    "explain": lambda n: fastloss.explain(n, 4, 3, backend="numpy"),
    "minibatch": lambda n: fastloss.Objective(X, Y, backend="numpy").minibatch(n),
    "max_rows": lambda n: fastloss.check_gradient(fastloss.Objective(X, Y), W, max_rows=n),
    "max_steps": lambda n: optim.minimize(fastloss.Objective(X, Y), W, max_steps=n),
    "seed": lambda n: data.synthetic(2, 2, 2, seed=n),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_integers_of_calls_are_converted(call):
    call(np.int64(2))
    with pytest.raises(TypeError, match=r"must be an integer( or None)?, got True"):
        call(True)


def test_loss_is_a_python_float_for_numpy_strengths():
    loss, dW = fastloss.loss_and_grad(
        np.ones((4, 3), np.float32), X.astype(np.float32), Y, l2=np.float64(0.5), l1=np.float32(0.5)
    )
    assert type(loss) is float
    assert dW.dtype == np.float32


def test_strength_true_raises():
    with pytest.raises(TypeError, match="l2 must be a real number, got True"):
        fastloss.loss_and_grad(W, X, Y, l2=True)
