"""Compare every loss x backend x dtype x layout x option with the definitions."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from oracle import LOSSES, WAYS, Data, Exact, assert_close, layouts, make_data, reference

import fastloss

TYPES = [("f4", "f4"), ("f8", "f8"), *itertools.product(("u1", "f2"), ("f4", "f8"))]

pytestmark = [
    pytest.mark.parametrize("backend", WAYS),
    pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES),
]
each_type = pytest.mark.parametrize(("X_type", "W_type"), TYPES)


data = cache(make_data)


@cache
def expected(loss: fastloss.Loss, *arguments) -> Exact:
    problem = data(*arguments)
    return reference(problem.W, problem.X, problem.y, loss)


def check(problem: Data, loss, backend, **options) -> None:
    actual = fastloss.loss_and_grad(
        problem.W, problem.X, problem.y, loss, backend=backend, **options
    )
    assert_close(
        actual, reference(problem.W, problem.X, problem.y, loss, **options), problem.W.dtype
    )


@pytest.mark.one_in(5)
@each_type
def test_layouts(loss, backend, X_type, W_type, tmp_path):
    shape = (37, 17, 7, X_type, W_type)
    problem = data(*shape)
    on_disk = np.memmap(tmp_path / "X", X_type, "w+", shape=problem.X.shape)
    on_disk[:] = problem.X
    for name, X in itertools.chain(layouts(problem.X), [("memmap", on_disk)]):
        actual = fastloss.loss_and_grad(problem.W, X, problem.y, loss, backend=backend)
        assert actual[1].shape == problem.W.shape, name
        assert actual[1].dtype == problem.W.dtype, name
        assert_close(actual, expected(loss, *shape), W_type)


def test_layouts_of_W_and_y(loss, backend):
    shape = (37, 17, 7)
    problem = data(*shape)
    for (name, W), label_type in zip(
        layouts(problem.W), ["i1", "u1", "i2", "u4", "u8", ">i4"], strict=True
    ):
        labels = np.repeat(problem.y.astype(label_type), 2)[::2]
        actual = fastloss.loss_and_grad(W, problem.X, labels, loss, backend=backend)
        assert actual[1].shape == W.shape, name
        assert_close(actual, expected(loss, *shape), W.dtype)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("n_classes", [2, 3, 7, 11])
def test_shapes_with_partial_tiles(loss, backend, n_classes):
    for n_rows, n_features in itertools.product([1, 3, 5, 17], [1, 15, 16, 17]):
        for dtype in ("f4", "f8"):
            shape = (n_rows, n_features, n_classes, dtype, dtype)
            problem = data(*shape)
            actual = fastloss.loss_and_grad(problem.W, problem.X, problem.y, loss, backend=backend)
            assert_close(actual, expected(loss, *shape), dtype)


@pytest.mark.one_in(3)
# Several blocks and chunks with partial last ones, and many classes.
@pytest.mark.parametrize(
    ("shape", "types"),
    [((3001, 9, 5), types) for types in TYPES] + [((150, 33, 130), types) for types in TYPES[:2]],
)
def test_large_shapes(loss, backend, shape, types):
    problem = data(*shape, *types)
    actual = fastloss.loss_and_grad(problem.W, problem.X, problem.y, loss, backend=backend)
    assert_close(actual, expected(loss, *shape, *types), types[1])


# Each option once alone, then together; n_rows is no multiple of a tile.
SAMPLE_WEIGHT = np.random.default_rng(3).uniform(0, 3, 61)
SAMPLE_WEIGHT[::7] = 0.0
OPTIONS = [
    {},
    {"reduction": "sum"},
    {"intercept": True},
    {"l1": 0.3},
    {"l2": 0.2},
    {"sample_weight": SAMPLE_WEIGHT},
    {"class_weight": {0: 2.0, 3: 0.0, 4: 5.0}},
    {"class_weight": "balanced"},
    # The mean would hide a common factor.
    {"class_weight": "balanced", "ignore_index": 2, "reduction": "sum"},
    {"ignore_index": 2},
    {"intercept": True, "l1": 0.03, "l2": 0.02, "ignore_index": 4, "reduction": "sum"},
    {"intercept": True, "sample_weight": SAMPLE_WEIGHT, "class_weight": {1: 3.0}, "l2": 0.5},
    {
        "intercept": True,
        "l1": 0.1,
        "l2": 0.1,
        "sample_weight": SAMPLE_WEIGHT,
        "class_weight": "balanced",
        "ignore_index": 0,
    },
]


@pytest.mark.one_in(7)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "none")
@each_type
def test_options(loss, backend, X_type, W_type, options):
    problem = data(61, 13, 5, X_type, W_type, intercept=options.get("intercept", False))
    check(problem, loss, backend, **options)


def test_ignored_rows_with_invalid_labels_and_nan(loss, backend):
    problem = data(61, 13, 5)
    X, y = problem.X.copy(), problem.y.copy()
    # Whole blocks, first and last rows, and single ones.
    ignored = np.zeros(61, bool)
    ignored[[0, 5, 6, 7, 8, 9, 30, 60]] = True
    X[ignored], y[ignored] = np.nan, -100
    expected = reference(problem.W, X[~ignored], y[~ignored], loss)
    actual = fastloss.loss_and_grad(problem.W, X, y, loss, ignore_index=-100, backend=backend)
    assert_close(actual, expected, X.dtype)


def test_ignored_whole_blocks(loss, backend):
    problem = data(3001, 9, 5)
    y = problem.y.copy()
    y[100:2100] = 99
    kept = y != 99
    expected = fastloss.loss_and_grad(problem.W, problem.X[kept], y[kept], loss, backend="numpy")
    actual = fastloss.loss_and_grad(problem.W, problem.X, y, loss, ignore_index=99, backend=backend)
    assert_close(actual, expected, "f8")


@pytest.mark.one_in(3)
@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_out(loss, backend, order):
    problem = data(61, 13, 5, intercept=True)
    out = np.full((14, 10), np.nan)[:, ::2]  # its contents must not matter
    if order != "strided":
        out = np.array(out, order=order)
    options = {"intercept": True, "l1": 0.1, "l2": 0.1}
    total, dW = fastloss.loss_and_grad(
        problem.W, problem.X, problem.y, loss, backend=backend, out=out, **options
    )
    assert dW is out
    assert_close((total, out), reference(problem.W, problem.X, problem.y, loss, **options), "f8")


@pytest.mark.one_in(5)
@each_type
def test_loss_without_gradient_is_the_same(loss, backend, X_type, W_type):
    problem = data(61, 13, 5, X_type, W_type)
    objective = fastloss.Objective(problem.X, problem.y, loss=loss, l2=0.1, backend=backend)
    total = objective(problem.W)[0]
    np.testing.assert_allclose(objective.loss(problem.W), total, rtol=1e-15)
