"""Measures the numbers of `backends.costs` on this machine: ``fastloss warmup``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from fastloss.backends import compiled, costs, vectorized
from fastloss.backends.base import Evaluator, Problem
from fastloss.benchmark.measure import time_calls
from fastloss.losses import get_loss
from fastloss.threads import available_threads

#: From a few numbers to more than caches hold; each of the six terms leads somewhere.
SHAPES = (
    *((1, 10, 3), (1, 5000, 10), (1, 100, 1000), (1, 10, 50_000), (4, 6000, 1000), (10, 7000, 20)),
    *((16, 64, 10), (16, 3072, 10), (16, 64, 1000), (100, 4, 2), (200, 65, 10), (256, 784, 10)),
    *((256, 3073, 10), (256, 256, 100), (500, 10, 1000), (1000, 20, 3), (2000, 100, 10)),
    *((4000, 3073, 10), (4000, 64, 64), (2000, 256, 300), (1000, 512, 1000), (500, 64, 10_000)),
    *((1000, 15, 600), (4000, 60, 100), (100_000, 1, 80), (800, 2000, 15), (10_000, 180, 20)),
    *((3, 2, 20_000), (3, 10, 700), (6, 800, 25), (70, 10, 2000), (70, 10, 20_000), (300, 3000, 3)),
    # Where arithmetic is all: both leave it to BLAS, and no noise of others must tell them apart.
    *((3000, 1500, 500), (2000, 1000, 2000), (4000, 2000, 200)),
    *((20_000, 10, 10), (20_000, 784, 10), (20_000, 100, 40), (100_000, 4, 3), (200_000, 30, 5)),
)
_LOSSES = ("softmax", "hinge")
_SECONDS = 0.01
_PAUSE = 0.05


def calibrate(progress: Callable[[str, int], None] = lambda what, done: None) -> costs.Costs:
    """The costs of this machine. The kernels must be compiled: that is not a cost of a call."""
    lines = {}
    most = available_threads()
    done = 0
    for itemsize, dtype in ((4, np.float32), (8, np.float64)):
        measured: dict[tuple[str, int], list[tuple[tuple[int, int, int], float]]] = {}
        for shape in SHAPES:
            progress(f"timing {' x '.join(map(str, shape))} {np.dtype(dtype)}", done)
            done += 1
            for key, seconds in _measure(shape, np.dtype(dtype), most):
                measured.setdefault(key, []).append((shape, seconds))
        for way in costs.WAYS:
            for name, n in (("one", 1), ("all", most)):
                timed = measured[way, n]
                lines[way, itemsize, name] = costs.fit(
                    [costs.terms(way, shape, itemsize, n) for shape, _ in timed],
                    [seconds for _, seconds in timed],
                )
    return costs.Costs(most, lines, "measured here")


def _measure(
    shape: tuple[int, int, int], dtype: np.dtype[Any], most: int
) -> Iterator[tuple[tuple[str, int], float]]:
    """The mean time of the losses for each way that can run this shape."""
    rng = np.random.default_rng(0)
    n_rows, n_features, n_classes = shape
    X = rng.standard_normal((n_rows, n_features)).astype(dtype)
    W = (rng.standard_normal((n_features, n_classes)) / np.sqrt(n_features)).astype(dtype)
    dW = np.empty_like(W)
    y = rng.integers(0, n_classes, n_rows)
    problems = [
        Problem(X, y, get_loss(name), False, None, float(n_rows), any_skipped=False)
        for name in _LOSSES
    ]
    for way in costs.WAYS:
        if way == "fused" and not compiled.is_fused(n_rows, n_classes):
            continue
        for n in sorted({1, most}):
            seconds = [
                _median(partial(_evaluator(way, problem, n_classes, dtype), W, dW, n))
                for problem in problems
            ]
            yield (way, n), float(np.mean(seconds))


def _evaluator(way: str, problem: Problem, n_classes: int, dtype: np.dtype[Any]) -> Evaluator:
    if way == "fused":
        return compiled.Fused(problem, n_classes, dtype)
    if way == "blas":
        return partial(compiled.evaluate_with_blas, problem)
    return partial(vectorized.BACKEND.evaluate, problem)


def _median(call: Callable[[], Any]) -> float:
    # The threads of BLAS go on spinning for a while after a call, on a core that is then missing.
    time.sleep(_PAUSE)
    call()
    first = time_calls(call, 1)
    n_calls = max(1, int(_SECONDS / 5 / max(first, 1e-7)))
    return float(np.median([time_calls(call, n_calls) for _ in range(5)]))
