"""Time `LogisticRegression.fit` against scikit-learn's, at the same number of iterations.

python bench/sklearn_fit.py
python bench/sklearn_fit.py --rows 0.02 --seconds 5     # a trial on 2 % of the rows

Rows are synthetic, in float32; D does not count the 1 of the intercept. Both fit the same objective
from zero with L-BFGS, and stop after the same number of iterations: that of the case, or fewer if
scikit-learn's loss no longer falls in float32. Before the times, the script compares the objectives
reached, in float64, and stops if fastloss's is higher by more than `MOST_ABOVE`.

The fits of a shape take turns in random order. Compiling is not timed. Other processes make the
ratios worthless: use a quiet machine.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import linear_model
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

import fastloss
from fastloss.backends.background import compilations
from fastloss.benchmark.measure import Ratio
from fastloss.lessons.tools import take_turns
from fastloss.sklearn import LogisticRegression
from fastloss.tables import Table

C = 1.0
#: Largest part by which fastloss's objective may exceed scikit-learn's.
MOST_ABOVE = 1e-3
# No fit reaches it, so the number of iterations ends them.
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Case:
    """A shape, the number of iterations, and the speed-up to reach."""

    n_rows: int
    n_features: int
    n_classes: int
    n_iterations: int
    goal: float


CASES = (
    Case(20_000, 768, 100, 40, 3.5),
    Case(10_000, 512, 1000, 15, 2.7),
    Case(60_000, 784, 10, 60, 5.0),
)


def objective_of(model: Any, X: NDArray[Any], y: NDArray[np.int64]) -> float:
    """Return scikit-learn's objective, divided by C and the number of rows, in float64."""
    W = np.vstack([model.coef_.T, model.intercept_]).astype(np.float64)
    objective = fastloss.Objective(
        X.astype(np.float64), y, l2=0.5 / (C * len(y)), intercept=True, backend="numpy"
    )
    return objective.loss(W)


def row_of(case: Case, share: float, seconds: float) -> tuple[str, ...]:
    """Check the objectives of a shape, time the fits, and return the row of the table."""
    n_rows = max(3 * case.n_classes, round(share * case.n_rows))
    data = fastloss.data.synthetic(n_rows, case.n_features, case.n_classes)
    X, y = data.X.astype(np.float32), data.y
    theirs = linear_model.LogisticRegression(C=C, max_iter=case.n_iterations, tol=TOLERANCE)
    expected = objective_of(theirs.fit(X, y), X, y)
    ours = LogisticRegression(C=C, max_iter=int(theirs.n_iter_[0]), tol=TOLERANCE)
    ours.fit(X, y)
    compilations.wait()
    reached = objective_of(ours.fit(X, y), X, y)
    shape = f"{n_rows} x {case.n_features} x {case.n_classes}"
    if reached > expected * (1 + MOST_ABOVE):
        sys.exit(f"{shape}: fastloss reached {reached:.6g}, scikit-learn {expected:.6g}")
    times = take_turns(
        {"fastloss": lambda: ours.fit(X, y), "scikit-learn": lambda: theirs.fit(X, y)},
        seconds=seconds,
    )
    ratio = Ratio.of(times["scikit-learn"], times["fastloss"])
    return (
        shape,
        f"{ours.n_iter_[0]}, {theirs.n_iter_[0]}",
        f"{reached:.5f}, {expected:.5f}",
        f"{np.median(times['fastloss']):.3f} s",
        f"{np.median(times['scikit-learn']):.3f} s",
        f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
        f"{case.goal:g}",
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=float, default=1.0, help="share of the rows of each shape")
    parser.add_argument("--threads", type=int, default=2, help="threads of both")
    parser.add_argument("--seconds", type=float, default=120.0, help="time for each shape")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    with threadpool_limits(arguments.threads), fastloss.use(n_threads=arguments.threads):
        rows = [row_of(case, arguments.rows, arguments.seconds) for case in CASES]
    columns = (
        *("N x D x C", "iterations (ours, theirs)", "objective (ours, theirs)"),
        *("fastloss", "scikit-learn", "times as fast", "goal"),
    )
    print(Table("", columns, rows).markdown())


if __name__ == "__main__":
    main()
