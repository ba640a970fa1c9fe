"""Measure the costs of `backends.cost_model` on this machine, for ``fastloss warmup``."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Sequence
from functools import partial
from itertools import groupby, product
from typing import Any

import numpy as np
from scipy.optimize import nnls

from fastloss.backends import cost_model, fused, parallel, vectorized
from fastloss.backends.base import Backend
from fastloss.benchmark.measure import SETTLE_SECONDS, settle, time_calls
from fastloss.losses import available_losses, get_loss
from fastloss.losses.base import Loss
from fastloss.problem import Problem
from fastloss.threads import available_threads

#: From a few numbers to more than the caches hold; each cost term dominates some shape.
SHAPES = (
    *((1, 10, 3), (1, 5000, 10), (1, 100, 1000), (1, 10, 50_000), (4, 6000, 1000), (10, 7000, 20)),
    *((16, 64, 10), (16, 3072, 10), (16, 64, 1000), (100, 4, 2), (200, 65, 10), (256, 784, 10)),
    *((256, 3073, 10), (256, 256, 100), (500, 10, 1000), (1000, 20, 3), (2000, 100, 10)),
    *((4000, 3073, 10), (4000, 64, 64), (2000, 256, 300), (1000, 512, 1000), (500, 64, 10_000)),
    *((1000, 15, 600), (4000, 60, 100), (40_000, 1, 80), (800, 2000, 15), (10_000, 180, 20)),
    *((3, 2, 20_000), (3, 10, 700), (6, 800, 25), (70, 10, 2000), (70, 10, 20_000), (300, 3000, 3)),
    # Few rows of many features.
    *((1, 60_000, 3), (16, 30_000, 10), (64, 40_000, 5), (300, 10_000, 10), (500, 3000, 40)),
    # Few rows and many classes, as for a vocabulary.
    *((4, 10, 10_000), (10, 30, 3000), (8, 3, 1000), (2, 300, 10), (12, 30, 30)),
    # Shapes dominated by arithmetic, and shapes dominated by laying out W.
    *((1500, 1000, 500), (1200, 800, 1200), (2000, 1500, 200), (1000, 3000, 90)),
    *((60, 8000, 70), (60, 300, 20_000), (16, 2000, 1500), (300, 20, 3000)),
    # Strips that rows fill only in part.
    *((3, 300, 6000), (2, 5000, 500), (7, 400, 120), (40, 1500, 1500)),
    *((30_000, 4, 120), (10_000, 60, 200)),
    *((20_000, 10, 10), (20_000, 784, 10), (20_000, 100, 40), (100_000, 4, 3), (100_000, 30, 5)),
)
#: Shapes dominated by the scores, with many or few per row, for either kernel.
SCORE_SHAPES = (
    *((4, 10, 10_000), (60, 10, 2000), (1000, 10, 300), (300, 10, 60)),
    *((2000, 20, 40), (20_000, 10, 10), (20_000, 4, 3)),
)
#: The lines are fitted to the mean time of these losses.
_LOSSES: tuple[str, ...] = ("softmax", "hinge")
_DTYPES = np.dtype(np.float32), np.dtype(np.float64)
# A time is the median of this many batches, which take _SECONDS together; if a call takes longer
# than _LONG seconds, of _FEWEST batches.
_REPEATS, _FEWEST = 5, 3
_SECONDS, _LONG = 0.01, 0.02
_MOST_OF_NUMBA = 2**25

#: Seconds per call, by way, number of threads, shape and loss.
_Times = dict[tuple[str, int, tuple[int, int, int], str], float]


def expected_seconds(pace: float) -> list[float]:
    """Predict the seconds of each step of `calibrate`, on a machine of this `slowness`."""
    costs, most = cost_model.current(), available_threads()
    steps = []
    for dtype in _DTYPES:
        for shape, names in _plan():
            seconds = 0.0
            for loss in map(get_loss, names):
                for way, n in product(_ways(loss, shape, dtype), sorted({1, most})):
                    once = pace * costs.seconds(way, shape, dtype.itemsize, n, repr(loss))
                    seconds += once * (2 + _n_repeats(once) * _n_calls(once)) + SETTLE_SECONDS
            steps.append(seconds)
    return steps


def slowness() -> float:
    """Return how many times as long as the known costs predict a NumPy call takes now."""
    shape, dtype = (256, 784, 10), np.dtype(np.float32)
    predicted = cost_model.current().seconds("numpy", shape, dtype.itemsize, 1, "")
    times = _measure(shape, dtype, 1, _LOSSES[:1], ways=("numpy",))
    return sum(times.values()) / predicted


def _plan() -> list[tuple[tuple[int, int, int], tuple[str, ...]]]:
    """Return the shapes to time in each dtype, with the losses."""
    plan = [(shape, _LOSSES) for shape in SHAPES]
    return plan + [(shape, available_losses()) for shape in SCORE_SHAPES]


def calibrate(progress: Callable[[str, int], None] = lambda what, done: None) -> cost_model.Costs:
    """Measure the costs of this machine; the kernels must be compiled already.

    ``progress`` is called before each step with a message and the number of steps done.
    """
    most = available_threads()
    table = cost_model.Costs(most, {}, "measured here", {})
    done = 0
    for dtype in _DTYPES:
        times: _Times = {}
        for shape, names in _plan():
            progress(f"timing {' x '.join(map(str, shape))} {dtype}", done)
            done += 1
            times |= _measure(shape, dtype, most, names)
        for way in cost_model.WAYS:
            for threads, n in (("one", 1), ("all", most)):
                _fit(table, (way, dtype.itemsize, threads), n, times)
    return table


def _fit(table: cost_model.Costs, key: cost_model.Key, n_threads: int, times: _Times) -> None:
    """Add the line of a way and thread count, and each loss's own factor."""
    way, itemsize, _ = key
    factors = {shape: cost_model.terms(way, shape, itemsize, n_threads) for _, _, shape, _ in times}
    here = {
        (shape, name): t for (w, n, shape, name), t in times.items() if (w, n) == (way, n_threads)
    }
    shapes = [shape for shape in SHAPES if (shape, _LOSSES[0]) in here]
    means = [float(np.mean([here[shape, name] for name in _LOSSES])) for shape in shapes]
    line = fit([factors[shape] for shape in shapes], means)
    table.lines[key] = line
    shapes = [shape for shape in SCORE_SHAPES if (shape, _LOSSES[0]) in here]
    rest = np.array(line)
    rest[cost_model.OF_LOSS] = 0.0
    known = [float(rest @ factors[shape]) for shape in shapes]
    mean = np.array([np.mean([here[shape, name] for name in _LOSSES]) for shape in shapes])
    for name in available_losses():
        # No shape of the kernel for few rows is dominated by scores.
        if shapes and (shapes[0], name) in here:
            seconds = [here[shape, name] for shape in shapes]
            (ratio,) = fit((mean - known)[:, None], seconds, known)
            table.of_losses[(*key, repr(get_loss(name)))] = ratio


def fit(
    factors: Any, seconds: Sequence[float], known: Sequence[float] | float = 0.0
) -> tuple[float, ...]:
    """Fit the non-negative line with the least squares of relative errors.

    ``known``: seconds to subtract from the measurements first.
    """
    measured = np.array(seconds)
    scaled = np.array(factors) / measured[:, None]
    scale = np.linalg.norm(scaled, axis=0)
    scale[scale == 0.0] = 1.0  # a term that no measurement has costs nothing
    line, _ = nnls(scaled / scale, (measured - known) / measured)
    return tuple((line / scale).tolist())


def _measure(
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    most: int,
    names: Iterable[str],
    ways: Container[str] = cost_model.WAYS,
) -> _Times:
    """Time the losses for each of the ways that can run this shape."""
    rng = np.random.default_rng(0)
    n_rows, n_features, n_classes = shape
    X = rng.standard_normal((n_rows, n_features)).astype(dtype)
    W = (rng.standard_normal((n_features, n_classes)) / np.sqrt(n_features)).astype(dtype)
    dW = np.empty_like(W)
    y = rng.integers(0, n_classes, n_rows)
    evaluators = []
    for name in names:
        loss = get_loss(name)
        problem = Problem(X, y, loss, False, None, float(n_rows), any_skipped=False)
        for way, backend in _ways(loss, shape, dtype).items():
            if way in ways:
                evaluators.append((way, name, backend.prepare(problem, n_classes, dtype)))
    times: _Times = {}
    # A way at a time, NumPy last: its threads spin for long after a call, and `settle` waits.
    evaluators.sort(key=lambda one: (one[0] == "numpy", one[0]))
    for way, group in groupby(evaluators, key=lambda one: one[0]):
        settle()
        for _, name, evaluate in group:
            for n in sorted({1, most}):
                times[way, n, shape, name] = _median(partial(evaluate, W, dW, n))
    return times


def _ways(loss: Loss, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> dict[str, Backend]:
    """Return the ways of the cost model that can run a shape, with their backends."""
    fused_way = fused.way(*shape, dtype.itemsize)
    ways: dict[str, Backend] = {
        "numpy": vectorized.BACKEND,
        "numba": parallel.BACKEND,
        fused_way: fused.BACKEND,
    }
    # Each further loss would compile for seconds, and the lines differ little. Plain loops are slow
    # on large problems, and never win there.
    if loss not in map(get_loss, _LOSSES) or math.prod(shape) > _MOST_OF_NUMBA:
        del ways["numba"]
    return {way: backend for way, backend in ways.items() if backend.unavailable(loss) is None}


def _median(call: Callable[[], Any]) -> float:
    call()
    once = time_calls(call, 1)
    n_calls = _n_calls(once)
    return float(np.median([time_calls(call, n_calls) for _ in range(_n_repeats(once))]))


def _n_repeats(seconds: float) -> int:
    """Return the batches, if one call takes this long."""
    return _REPEATS if seconds < _LONG else _FEWEST


def _n_calls(seconds: float) -> int:
    """Return the calls in a batch, if one call takes this long."""
    return max(1, int(_SECONDS / _REPEATS / max(seconds, 1e-7)))
