"""Tests that inputs are validated and converted once, where they enter the package."""

from __future__ import annotations

import threading
from fractions import Fraction

import numpy as np
import pytest

import fastloss
from fastloss import optim, slices
from fastloss.training import Prepared, Settings, Splits, fill_in, fit, load_splits, make_method

DATA = fastloss.data.synthetic(60, 4, 3, dtype=np.float64)
W = np.random.default_rng(0).standard_normal((4, 3))


def objective(**keywords) -> fastloss.Objective:
    return fastloss.Objective(DATA.X, DATA.y, **keywords)


# Buffers kept between calls


@pytest.mark.parametrize("backend", fastloss.available_backends())
def test_minibatch_serves_several_threads(backend):
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 2, 60)
    batch = objective(backend=backend, n_threads=1, sample_weight=weights).minibatch(50)
    sets = [rng.permutation(60)[:50] for _ in range(4)]
    expected = [batch(rows, W) for rows in sets]
    results: list[list[tuple[float, np.ndarray]]] = [[] for _ in sets]

    def work(i: int) -> None:
        results[i] = [batch(sets[i], W) for _ in range(100)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (loss, dW), those in zip(expected, results, strict=True):
        assert len(those) == 100
        for other, gradient in those:
            assert other == loss
            np.testing.assert_array_equal(gradient, dW)


# Rows

MASK = np.arange(60) % 2 == 0


@pytest.mark.parametrize(
    ("rows", "error", "match"),
    [
        (MASK[:-1], IndexError, r"mask of shape \(60,\), got \(59,\)"),
        ([0.0, 1.0], TypeError, "rows must hold integers, got float64"),
        (["0", "1"], TypeError, "rows must hold integers"),
        ([-1, 0], IndexError, r"rows must be in \[0, 60\), got -1"),
        ([0, 60], IndexError, r"rows must be in \[0, 60\), got 60"),
        (np.array([2**64 - 1], np.uint64), IndexError, r"rows must be in \[0, 60\)"),
        (np.zeros((2, 2), int), ValueError, "in one dimension"),
        (np.ma.array([0, 1], mask=[0, 1]), TypeError, "rows is a masked array"),
    ],
)
def test_wrong_rows_are_refused(rows, error, match):
    for select in (objective().batch, DATA.rows):
        with pytest.raises(error, match=match):
            select(rows)


@pytest.mark.parametrize("rows", [MASK, MASK[:2], [0.5, 1.0], [0.0, 1.0]])
def test_minibatch_refuses_masks_and_floats(rows):
    with pytest.raises(TypeError, match="rows must hold integers"):
        objective().minibatch(2)(rows, W)


def test_masks_indices_and_slices_select_the_same_rows():
    expected = objective().batch(slice(None, None, 2))(W)
    for rows in (MASK, MASK.tolist(), np.flatnonzero(MASK), tuple(range(0, 60, 2))):
        assert objective().batch(rows)(W)[0] == pytest.approx(expected[0], rel=1e-14)
        assert len(DATA.rows(rows)) == 30


def test_fractional_n_candidates_is_refused():
    with pytest.raises(TypeError, match="n_candidates must be an integer"):
        objective().minibatch(2, 10.5)


# Weights


@pytest.mark.parametrize("dtype", [int, np.uint8, np.float16])
def test_flat_converts_other_numbers_to_floats(dtype):
    loss, gradient = objective().flat(np.ones(12, dtype))
    expected = objective().flat(np.ones(12))
    assert (loss, gradient.dtype) == (expected[0], np.float64)
    np.testing.assert_array_equal(gradient, expected[1])


@pytest.mark.parametrize("w", [np.ones(12, complex), np.ones(12, bool), ["1"] * 12])
def test_flat_refuses_numbers_that_are_not_real(w):
    with pytest.raises(TypeError, match="w must hold real numbers"):
        objective().flat(w)


def test_accuracy_refuses_integer_weights():
    with pytest.raises(TypeError, match="W must be float32 or float64"):
        optim.accuracy(objective(), np.ones((4, 3), int))


def test_slices_refuse_numbers_that_are_not_real():
    for arguments in ((W.astype(complex), W, [1.0]), (W, W, ["1"]), (W, W, [True])):
        with pytest.raises(TypeError, match="must hold real numbers"):
            slices.line(objective(), *arguments)


def test_complex_gradient_is_refused():
    for minimise in (
        lambda f: optim.minimize(f, W, optim.GradientDescent(), max_steps=1),
        lambda f: fastloss.check_gradient(f, W),
    ):
        with pytest.raises(TypeError, match="the gradient must hold real numbers"):
            minimise(lambda V: (1.0, V.astype(complex)))


def test_objective_is_not_cast_to_uint8():
    with pytest.raises(TypeError, match="dtype must be float32 or float64"):
        objective().astype(np.uint8)


def test_loss_is_a_float_whatever_a_backend_returns(monkeypatch):
    class Sloppy(type(fastloss.backends.get_backend("numpy"))):
        name = "sloppy"

        def evaluate(self, *arguments):
            return np.float32(super().evaluate(*arguments))

    fastloss.register_backend(Sloppy)
    try:
        sloppy = objective(backend="sloppy", l2=0.1)
        for loss in (sloppy(W)[0], sloppy.loss(W), sloppy.minibatch(2)([0, 1], W)[0]):
            assert type(loss) is float
    finally:
        fastloss.backends.unregister_backend("sloppy")


# Parameters


@pytest.mark.parametrize("value", [2, 1, 0, 0.5, "yes", "", None, np.array([True])], ids=repr)
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("include_true_class", fastloss.Hinge),
        ("intercept", objective),
        ("nesterov", lambda nesterov: optim.SGD(momentum=0.5, nesterov=nesterov)),
        ("line_search", optim.GradientDescent),
        ("shuffle", optim.SGD),
        ("shuffle", optim.Adam),
        ("reproducible", lambda **k: optim.minimize(objective(), W, max_steps=1, **k)),
        ("resume", lambda **k: optim.minimize(objective(), W, max_steps=1, **k)),
    ],
)
def test_flags_must_be_bools(name, make, value):
    with pytest.raises(TypeError, match=f"{name} must be True or False, got "):
        make(**{name: value})


def test_numpy_bools_are_bools():
    for value in (True, False):
        loss = fastloss.Hinge(include_true_class=np.bool_(value))
        assert loss == fastloss.Hinge(include_true_class=value)
        assert loss.include_true_class is value
        assert objective(intercept=np.bool_(value)).intercept is value


@pytest.mark.parametrize("value", ["max", "Sum", None, ["sum"], True])
def test_unknown_reductions_are_refused(value):
    with pytest.raises(ValueError, match="class_reduction must be 'sum' or 'mean', got "):
        fastloss.Hinge(class_reduction=value)
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum', got "):
        objective(reduction=value)


@pytest.mark.parametrize("number", [np.float32(0.3), np.float16(0.3), Fraction(3, 10)], ids=repr)
def test_real_parameters_become_floats(number):
    plain = float(number)
    for loss in (fastloss.Hinge, fastloss.CrammerSinger, fastloss.OneVsAll, fastloss.Softmax):
        assert loss(number) == loss(plain)
        assert all(type(p) is float for p in loss(number).parameters)
    for name in ("lr", "momentum"):
        assert type(getattr(optim.SGD(**{name: number}), name)) is float
    for name in ("lr", "l1", "l2", "momentum", "epochs"):
        assert type(getattr(Settings(**{name: number}), name)) is float


# Schedules and splits


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "gradient_descent"])
def test_schedule_spans_a_run_limited_by_steps(optimizer):
    prepared = Prepared.of(Splits(DATA))
    for limits in ({"steps": 30}, {"steps": 30, "epochs": 1000.0}):
        settings = Settings(optimizer=optimizer, schedule="cosine", **limits)
        if optimizer != "gradient_descent":
            settings = Settings(optimizer=optimizer, schedule="cosine", batch_size=20, **limits)
        filled = fill_in(settings, prepared.scale)
        rates = fit(prepared, filled).history.column("learning_rate")[1:]
        assert 0 < rates[-1] < 0.02 * filled.lr


def test_schedule_spans_the_shorter_of_two_limits():
    settings = Settings(schedule="cosine", lr=1.0, steps=90, epochs=7.0, batch_size=20)
    assert make_method(settings, 60).schedule == optim.Cosine(7.0)
    assert make_method(settings, 600).schedule == optim.Cosine(3.0)


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(800) // 100,
        7 - np.arange(800) // 100,
        np.array([3, 0, 5, 1, 7, 2, 6, 4])[np.arange(800) // 100],
        np.concatenate([np.arange(600) % 6, 6 + np.arange(200) % 2]),
        np.concatenate([np.arange(700) % 8, np.arange(100) % 7]),
        np.concatenate([np.full(770, 0), np.repeat(np.arange(1, 8), [10, 10, 5, 2, 1, 1, 1])]),
    ],
)
def test_validation_rows_have_each_class_in_proportion(tmp_path, labels):
    np.savez(tmp_path / "d.npz", X=np.arange(800.0)[:, None], y=labels)
    splits = load_splits(tmp_path / "d.npz", seed=3)
    counts, found = (np.bincount(s.y, minlength=8) for s in (splits.train, splits.validation))
    assert (counts > 0).all()
    np.testing.assert_allclose(found, np.bincount(labels) / 8, atol=2.5)
    rows = np.concatenate([splits.train.X[:, 0], splits.validation.X[:, 0]])
    np.testing.assert_array_equal(np.sort(rows), np.arange(800))
    again = load_splits(tmp_path / "d.npz", seed=3)
    np.testing.assert_array_equal(again.validation.X, splits.validation.X)
