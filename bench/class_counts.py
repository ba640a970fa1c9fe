"""Measure the time a class for every number of classes, to find counts that cost more than others.

python bench/class_counts.py 30000x1500 60000x785 --most 96 --rounds 5

The loss and gradient of all counts are timed in turns, so that a slow moment of the machine does
not fall on one of them. A ratio divides a count's time a class by the mean of its neighbours' in
the same round; the table shows the median of the rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastloss

#: Seconds of calls of a count in a round; a round's time is the median of the calls.
SECONDS = 0.1


def times(
    shape: tuple[int, int], counts: Sequence[int], rounds: int, dtype: np.dtype[Any], **options: Any
) -> NDArray[np.float64]:
    """Return seconds (rounds, counts) of a call of an objective with the ``options``."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape, np.float32).astype(dtype)
    result = np.empty((rounds, len(counts)))
    for r in range(-1, rounds):
        for k, n_classes in enumerate(counts):
            labels = rng.integers(0, n_classes, shape[0])
            objective = fastloss.Objective(X, labels, **options)
            W = (rng.standard_normal((shape[1], n_classes)) / 100).astype(dtype)
            dW = np.empty_like(W)
            seconds: list[float] = []
            objective(W, out=dW)
            # The first round warms up.
            while r >= 0 and (len(seconds) < 3 or sum(seconds) < SECONDS):
                begin = time.perf_counter()
                objective(W, out=dW)
                seconds.append(time.perf_counter() - begin)
            result[r, k] = np.median(seconds) if seconds else 0.0
    return result


def neighbour_ratios(seconds: NDArray[np.float64], counts: Sequence[int]) -> NDArray[np.float64]:
    """Return the time a class over the mean of both neighbours'; NaN for the first and the last."""
    each = seconds / np.array(counts)
    ratios = np.full(each.shape, np.nan)
    ratios[:, 1:-1] = 2 * each[:, 1:-1] / (each[:, :-2] + each[:, 2:])
    return np.asarray(np.median(ratios, axis=0))


def report(shape: tuple[int, int], counts: Sequence[int], seconds: NDArray[np.float64]) -> str:
    """Return a table: milliseconds, nanoseconds a row and class, and ratio for each count."""
    ratios = neighbour_ratios(seconds, counts)
    lines = [f"{shape[0]} x {shape[1]}", "classes      ms  ns a row and class  ratio to neighbours"]
    for n_classes, median, ratio in zip(counts, np.median(seconds, axis=0), ratios, strict=True):
        each = median / n_classes / shape[0] * 1e9
        lines.append(f"{n_classes:7} {median * 1e3:7.2f} {each:19.2f} {ratio:20.3f}")
    worst = sorted((r, n) for r, n in zip(ratios, counts, strict=True) if r == r)[:-6:-1]
    lines.append("worst: " + ", ".join(f"{n} classes {ratio:.3f}" for ratio, n in worst))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", nargs="+", help="rows x features, such as 30000x1500")
    parser.add_argument("--least", type=int, default=2, help="fewest classes")
    parser.add_argument("--most", type=int, default=96, help="most classes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--loss", default="softmax")
    parser.add_argument("--backend", default="fused")
    arguments = parser.parse_args()
    counts = range(arguments.least, arguments.most + 1)
    for text in arguments.shapes:
        n_rows, n_features = map(int, text.split("x"))
        seconds = times(
            (n_rows, n_features),
            counts,
            arguments.rounds,
            np.dtype(arguments.dtype),
            loss=arguments.loss,
            backend=arguments.backend,
        )
        print(report((n_rows, n_features), counts, seconds), flush=True)


if __name__ == "__main__":
    main()
