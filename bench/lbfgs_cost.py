"""Measure the cost of L-BFGS beside its evaluations, and that of SciPy's L-BFGS-B.

python bench/lbfgs_cost.py --seconds 30

An iteration is a step with all its evaluations, records and checks. Its overhead is the time that
is not spent in evaluations. Both methods start from 0 and take the same number of steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize

import fastloss
from fastloss import optim
from fastloss.benchmark.measure import Ratio
from fastloss.lessons.tools import take_turns
from fastloss.threads import blas_threads

#: Rows, columns and classes, and steps of a run.
SIZES = (((60_000, 785, 10), 20), ((20_000, 768, 100), 20), ((10_000, 512, 1000), 15))


class TimedObjective(fastloss.Objective):
    """An objective that notes the seconds of each evaluation."""

    seconds: list[float] = []  # noqa: RUF012, one list for all copies

    def __call__(self, W: Any, *, out: Any = None) -> tuple[float, Any]:
        begin = time.perf_counter()
        result = super().__call__(W, out=out)
        self.seconds.append(time.perf_counter() - begin)
        return result


class Contender:
    """A method; a call runs it, and notes its mean times."""

    def __init__(self, name: str, run: Callable[[], Any], n_steps: int) -> None:
        self.name, self._run, self._n_steps = name, run, n_steps
        self.evaluation: list[float] = []
        self.overhead: list[float] = []
        self.n_evaluations = 0

    def __call__(self) -> None:
        TimedObjective.seconds.clear()
        begin = time.perf_counter()
        self._run()
        whole, evaluations = time.perf_counter() - begin, TimedObjective.seconds
        self.n_evaluations = len(evaluations)
        self.evaluation.append(float(np.mean(evaluations)))
        self.overhead.append((whole - sum(evaluations)) / self._n_steps)

    def report(self) -> str:
        """Return the columns of the table after the size; the first, warming call is left out."""
        share = Ratio.of(self.overhead[1:], self.evaluation[1:])
        evaluation, overhead = np.median([self.evaluation[1:], self.overhead[1:]], axis=1) * 1e3
        iteration = overhead + evaluation * self.n_evaluations / self._n_steps
        return (
            f"{self.name:<8} {self.n_evaluations:11} {evaluation:8.2f} ms {iteration:8.2f} ms "
            f"{overhead:6.2f} ms   {share.value:6.1%} [{share.low:.1%}, {share.high:.1%}]"
        )


def contenders(shape: tuple[int, int, int], n_steps: int) -> list[Contender]:
    """Return both methods, on the same rows."""
    problem = fastloss.data.synthetic(*shape, seed=0)
    W = np.zeros(shape[1:], np.float32)
    objective = TimedObjective(problem.X, problem.y, l2=1e-5).reproducible(W)
    options = {"maxls": 50, "maxiter": n_steps, "gtol": 0.0, "ftol": 0.0}

    def ours() -> None:
        optim.minimize(objective, W, "lbfgs", max_steps=n_steps, tolerance=0.0)

    def scipys() -> None:
        w = W.ravel().astype(np.float64)
        # Threads of SciPy's own BLAS would spin, and slow down the evaluations.
        with blas_threads(1):
            scipy.optimize.minimize(objective.flat, w, jac=True, method="L-BFGS-B", options=options)

    return [Contender("fastloss", ours, n_steps), Contender("SciPy", scipys, n_steps)]


def main() -> None:
    """Print a line for each size and method."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="time for each size")
    seconds = parser.parse_args().seconds
    print(
        "N x D x C           method   evaluations    of them  iteration  overhead, of an evaluation"
    )
    for shape, n_steps in SIZES:
        both = contenders(shape, n_steps)
        take_turns({contender.name: contender for contender in both}, seconds=seconds)
        for contender in both:
            print(f"{' x '.join(map(str, shape)):<19} {contender.report()}", flush=True)


if __name__ == "__main__":
    main()
