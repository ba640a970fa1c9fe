"""Test `DaskObjective` with ``reduce=``: two processes, whose sums a function adds."""

from __future__ import annotations

import multiprocessing
import threading

import numpy as np
import pytest

import fastloss
from fastloss import optim
from fastloss.dask import DaskObjective

N, D, C = 500, 12, 4
_RNG = np.random.default_rng(0)
X = _RNG.standard_normal((N, D)).astype(np.float32)
y = _RNG.integers(0, C, N)
WEIGHTS = np.where(_RNG.random(N) < 0.2, 0.0, _RNG.random(N))
W = _RNG.standard_normal((D + 1, C)).astype(np.float32)
SETTINGS = {"n_classes": C, "l2": 0.01, "intercept": True, "class_weight": "balanced"}


def alone(array):
    return array


def _answers(rank: int, pipe, task) -> None:
    """Run a task on a half of the rows; send its answer, or its error."""

    def reduce(array):
        pipe.send(array)
        other = pipe.recv()
        return array + other if rank == 0 else other + array

    try:
        answer = task(slice(0, 200) if rank == 0 else slice(200, None), reduce)
    except Exception as error:
        answer = error
    pipe.send(("answer", answer))


def on_two(task, start=threading.Thread):
    """Return the answers of two processes or threads, between which arrays are passed on."""
    ends = [multiprocessing.Pipe() for _ in range(2)]
    workers = [start(target=_answers, args=(rank, end[1], task)) for rank, end in enumerate(ends)]
    for worker in workers:
        worker.start()
    pipes = [end[0] for end in ends]
    while True:
        messages = [pipe.recv() for pipe in pipes]
        if isinstance(messages[0], tuple):
            break
        for pipe, message in zip(pipes, reversed(messages), strict=True):
            pipe.send(message)
    for worker in workers:
        worker.join()
    return [answer for _, answer in messages]


def _work(rows, reduce):
    with DaskObjective(
        X[rows],
        y[rows],
        sample_weight=WEIGHTS[rows],
        reduce=reduce,
        first_row=rows.start or 0,
        backend="numpy",
        **SETTINGS,
    ) as objective:
        start = np.zeros_like(W)
        return (
            objective.shape,
            objective(W),
            objective.minibatch(50, 400)(np.arange(100, 300, 4), W),
            optim.minimize(objective, start, "lbfgs", max_steps=5).W,
            optim.minimize(objective, start, optim.SGD(batch_size=64), max_epochs=1).W,
            optim.accuracy(objective, W),
            objective.facts(),
        )


def test_two_processes_agree_with_one():
    first, second = on_two(_work, multiprocessing.get_context("spawn").Process)
    for a, b in zip(first, second, strict=True):  # the same bits in both
        np.testing.assert_equal(a, b)
    settings = {name: value for name, value in SETTINGS.items() if name != "n_classes"}
    single = fastloss.Objective(X, y, sample_weight=WEIGHTS, backend="numpy", **settings)
    shape, evaluated, estimated, lbfgs, sgd, accuracy, _ = first
    assert shape == (N, D)
    for actual, expected in [
        (evaluated, single(W)),
        (estimated, single.minibatch(50, 400)(np.arange(100, 300, 4), W)),
    ]:
        np.testing.assert_allclose(actual[0], expected[0], rtol=2e-6)
        largest = abs(expected[1]).max()
        np.testing.assert_allclose(actual[1], expected[1], rtol=0, atol=1e-5 * largest)
    start = np.zeros_like(W)
    expected = optim.minimize(single, start, "lbfgs", max_steps=5).W
    np.testing.assert_allclose(lbfgs, expected, atol=1e-3)
    expected = optim.minimize(single, start, optim.SGD(batch_size=64), max_epochs=1).W
    np.testing.assert_allclose(sgd, expected, atol=1e-5)
    assert accuracy == optim.accuracy(single, W)


def test_bad_rows_of_one_process_are_an_error_in_both():
    labels = y.copy()
    labels[250] = C

    def task(rows, reduce):
        return DaskObjective(
            X[rows], labels[rows], n_classes=C, reduce=reduce, first_row=rows.start or 0
        )

    first, second = on_two(task)
    assert str(first) == "the rows of 1 other process(es) are invalid"
    assert str(second).startswith("y[250] = 4 is not in [0, 4)")


def test_processes_with_other_features_are_an_error_in_both():
    def task(rows, reduce):
        width = D if rows.start == 0 else D - 1
        return DaskObjective(X[rows, :width], y[rows], n_classes=C, reduce=reduce)

    for error in on_two(task):
        assert "all processes must have rows of the same features" in str(error)


def test_weights_of_one_process_are_an_error_in_both():
    def task(rows, reduce):
        weights = WEIGHTS[rows] if rows.start == 0 else None
        arguments = {"n_classes": C, "sample_weight": weights, "reduce": reduce}
        return DaskObjective(X[rows], y[rows], **arguments).shape

    for error in on_two(task):
        assert "all or none must pass sample_weight" in str(error)


def test_process_with_the_mean_number_of_features_sees_that_others_differ():
    sent, errors, everyone = {}, {}, threading.Barrier(3, timeout=20)

    def work(width):
        def reduce(array):
            sent[width] = array
            everyone.wait()
            total = sum(sent.values())
            everyone.wait()
            return total

        try:
            DaskObjective(X[:, :width], y, n_classes=C, reduce=reduce)
        except Exception as error:
            errors[width] = str(error)

    threads = [threading.Thread(target=work, args=(width,)) for width in (9, 10, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for width in (9, 10, 11):
        assert (
            f"same features, and all or none must pass sample_weight; here they are {width} of"
            in errors[width]
        )


def test_entries_that_are_not_finite_are_an_error_in_both():
    rows_with_nan = X.copy()
    rows_with_nan[300, 2] = np.inf

    def task(rows, reduce):
        first_row = rows.start or 0
        return DaskObjective(
            rows_with_nan[rows], y[rows], n_classes=C, reduce=reduce, first_row=first_row
        ).check_finite()

    first, second = on_two(task)
    assert str(first) == "X of another process has an entry that is not finite"
    assert str(second).startswith("X[300, 2] is inf")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_classes": None}, "reduce needs n_classes"),
        ({"reduce": np.sum}, r"reduce must return an array of shape \(1,\), got \(\)"),
        ({"X": X[:0], "y": y[:0]}, "X must not be empty"),
        ({"first_row": -1}, "first_row must be >= 0"),
    ],
)
def test_bad_arguments(settings, message):
    arguments = {"X": X, "y": y, "n_classes": C, "reduce": alone, **settings}
    with pytest.raises(ValueError, match=message):
        DaskObjective(arguments.pop("X"), arguments.pop("y"), **arguments)


def test_batches_need_the_number_of_the_first_row():
    with (
        DaskObjective(X, y, n_classes=C, reduce=alone) as objective,
        pytest.raises(ValueError, match="pass first_row="),
    ):
        optim.minimize(objective, W[:-1], "sgd")


def test_missing_client_is_one_error():
    with pytest.raises(ValueError, match="there is no dask client: make one"):
        DaskObjective([(X, y)], n_classes=C)


def test_without_dask_only_reduce_works(run_python):
    code = """
        import sys
        sys.modules["distributed"] = sys.modules["dask"] = None
        import numpy as np
        from fastloss.dask import DaskObjective
        X, y = np.eye(3), np.arange(3)
        print(DaskObjective(X, y, n_classes=3, reduce=lambda a: a)(np.zeros((3, 3)))[0])
        try:
            DaskObjective([(X, y)])
        except ImportError as error:
            print(error)
    """
    loss, error = run_python(code).splitlines()
    assert float(loss) == pytest.approx(np.log(3))
    assert error.startswith("DaskObjective needs dask and distributed, or reduce=")
    assert ".[dask]" in error
