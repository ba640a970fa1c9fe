"""Test rows of float16: their results are those of the same rows in the dtype of ``W``."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from oracle import WAYS, layouts

import fastloss
from fastloss import LinearModel, Objective, optim
from fastloss.arrays import FLOAT_TYPES

N, D = 157, 37
rng = np.random.default_rng(0)
HALVES = rng.standard_normal((N, D)).astype(np.float16)
# Subnormal numbers, the largest number, and signs of 0.
HALVES[3, :6] = 6e-8, -6e-8, 65504, 0.0, -0.0, 6e-5


def problem(n_classes: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    W = np.random.default_rng(1).standard_normal((D + 1, n_classes)) / 99
    return W.astype(dtype), np.arange(N) % n_classes


def assert_same_bits(actual, expected) -> None:
    assert actual[0] == expected[0]
    assert actual[1].dtype == expected[1].dtype
    np.testing.assert_array_equal(actual[1], expected[1])


# The narrow and the wide kernel of `fused`.
@pytest.mark.parametrize("n_classes", [5, 103])
@pytest.mark.parametrize("dtype", FLOAT_TYPES, ids=str)
@pytest.mark.parametrize("backend", WAYS)
def test_same_bits_as_rows_cast_before(backend, dtype, n_classes, tmp_path):
    if backend == "naive" and n_classes > 5:
        pytest.skip("one number at a time, whatever their number")
    W, y = problem(n_classes, dtype)
    on_disk = np.memmap(tmp_path / "X", np.float16, "w+", shape=HALVES.shape)
    on_disk[:] = HALVES
    for name, X in itertools.chain(layouts(HALVES), [("memmap", on_disk)]):
        one, other = (
            Objective(rows, y, loss="hinge", intercept=True, backend=backend)
            for rows in (X, np.array(X, dtype, order="K"))
        )
        assert_same_bits(one(W), other(W))
        assert one.loss(W) == other.loss(W), name
    chosen = rng.permutation(N)[:60]
    assert_same_bits(one.minibatch(60)(chosen, W), other.minibatch(60)(chosen, W))
    assert_same_bits(one.batch(chosen)(W), other.batch(chosen)(W))
    assert_same_bits(one.flat(W.ravel()), other.flat(W.ravel()))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("backend", WAYS)
def test_rows_that_are_not_finite(backend, value):
    W, y = problem(5, np.dtype(np.float32))
    X = HALVES.copy()
    X[17, 2] = value
    total, dW = fastloss.loss_and_grad(np.abs(W), np.abs(X), y, intercept=True, backend=backend)
    assert np.isnan(total)
    assert np.isnan(dW).any()
    y[17] = 99
    ignoring = fastloss.loss_and_grad(W, X, y, intercept=True, ignore_index=99, backend=backend)
    assert np.isfinite(ignoring[0])
    assert np.isfinite(ignoring[1]).all()


def test_same_bits_on_any_number_of_threads():
    data = fastloss.data.synthetic(9000, 40, 5, dtype=np.float16)
    W = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    objective = Objective(data.X, data.y, backend="fused")
    one, two = (fastloss.use(n_threads=n) for n in (1, 2))
    with one:
        expected = objective(W)
    with two:
        assert_same_bits(objective(W), expected)


def test_objective_is_cast_checked_and_minimised():
    W, y = problem(5, np.dtype(np.float32))
    objective = Objective(HALVES[4:], y[4:], intercept=True, l2=0.01)
    assert objective.astype(np.float64).X.dtype == np.float64
    assert "37 float16 features" in repr(objective)
    assert fastloss.check_gradient(objective, W).passed
    cast = objective.astype(np.float32)
    results = [optim.minimize(f, W, max_epochs=2, seed=1) for f in (objective, cast)]
    np.testing.assert_array_equal(results[0].W, results[1].W)
    assert optim.accuracy(objective, W) == optim.accuracy(cast, W)


def test_model_of_float16_rows_is_that_of_float32_rows():
    data = fastloss.data.synthetic(900, 12, 3, dtype=np.float16)
    one, other = (LinearModel.fit(X, data.y) for X in (data.X, data.X.astype(np.float32)))
    assert one.W.dtype == one.preprocessing.dtype == np.float32
    np.testing.assert_array_equal(one.W, other.W)
    np.testing.assert_array_equal(one.predict_proba(data.X), other.predict_proba(data.X))
