"""Fit a linear probe: a linear classifier of a network's features, with C chosen on held-out rows.

    python examples/linear_probe.py features              # a folder with X.npy and y.npy
    python examples/linear_probe.py path/to/mnist         # the files of MNIST, as pixels / 255
    python examples/linear_probe.py --synthetic 100000x768x1000 --compare 5000

Rows for validation and for the test are set aside: they get the weight 0, so no fit copies the
features; only the rows to score are copied. The script fits a probe for each C, and starts each fit
from the weights of the last one. The final probe is fitted to the training and validation rows with
the best C. Printed are the table of the sweep, and the accuracy on the test rows with its 95 %
interval; ``accuracy.png`` shows the validation accuracy against C.

``--compare ROWS`` fits scikit-learn's LogisticRegression to that many of the rows too, with the
same C and number of iterations, and prints time and memory of both.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

import fastloss
from fastloss import plots
from fastloss.sklearn import LogisticRegression

# Rows of ImageNet's training set, to which a measured time is extrapolated.
IMAGENET_ROWS = 1_281_167


@dataclass(frozen=True)
class Rows:
    """All rows, and the numbers of those that are set aside."""

    X: NDArray[Any]
    y: NDArray[Any]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def weights_without(self, *parts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the weights (N,) of the rows: 0 in these parts, 1 elsewhere."""
        weights = np.ones(len(self.y))
        for part in parts:
            weights[part] = 0.0
        return weights


@dataclass(frozen=True)
class Fit:
    """A fit of the sweep. ``accuracy`` is that of the validation rows."""

    C: float
    accuracy: float
    n_iterations: int
    seconds: float
    W: tuple[NDArray[Any], NDArray[Any]]  # coefficients and intercepts


def load(arguments: argparse.Namespace) -> Rows:
    """Load the rows, and draw those to set aside. Files of features are mapped, not read."""
    if arguments.synthetic:
        data = fastloss.data.synthetic(*arguments.synthetic, dtype=np.float16)
    elif arguments.features is not None:
        data = fastloss.data.load(arguments.features)
    else:
        raise SystemExit("name a folder of features, or pass --synthetic ROWSxFEATURESxCLASSES")
    # For pixels from 0 to 1, the same C are of use as for features.
    X = data.X / np.float32(255) if data.X.dtype == np.uint8 else data.X
    order = np.random.default_rng(0).permutation(len(X))
    n = math.ceil(arguments.held_out * len(X))
    return Rows(X, data.y, np.sort(order[:n]), np.sort(order[n : 2 * n]))


def fit(probe: LogisticRegression, rows: Rows, weights: NDArray[np.float64]) -> float:
    """Fit the probe; return the seconds it took."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        # The iterations are limited on purpose, and the table shows them.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(rows.X, rows.y, sample_weight=weights)
    return time.perf_counter() - began


def sweep(probe: LogisticRegression, rows: Rows, strengths: Sequence[float]) -> list[Fit]:
    """Fit the probe for each C, the smallest first, and print a line for each."""
    X, y = rows.X[rows.validation], rows.y[rows.validation]
    weights = rows.weights_without(rows.validation, rows.test)
    fits = []
    print(f"{'C':>10} {'accuracy':>10} {'iterations':>12} {'seconds':>9}")
    for C in sorted(strengths):
        seconds = fit(probe.set_params(C=C), rows, weights)
        W = probe.coef_.copy(), probe.intercept_.copy()
        fits.append(Fit(C, probe.score(X, y), int(probe.n_iter_[0]), seconds, W))
        print(
            f"{C:10.3g} {fits[-1].accuracy:10.2%} {fits[-1].n_iterations:12} {seconds:9.1f}",
            flush=True,
        )
    return fits


def final_fit(probe: LogisticRegression, rows: Rows, best: Fit) -> float:
    """Fit the probe to all rows but those of the test, from the weights of the best fit."""
    probe.coef_, probe.intercept_ = best.W
    return fit(probe.set_params(C=best.C), rows, rows.weights_without(rows.test))


def interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of n rows (Wilson's score interval)."""
    z = 1.96
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return centre - half, centre + half


def draw(fits: Sequence[Fit], n: int, figure: Any) -> None:
    """Draw the validation accuracy against C, with its interval."""
    axes = figure.subplots()
    strengths, shares = [f.C for f in fits], [f.accuracy for f in fits]
    low, high = zip(*(interval(share, n) for share in shares), strict=True)
    axes.fill_between(strengths, low, high, alpha=0.2, linewidth=0)
    axes.plot(strengths, shares, marker="o")
    axes.set_xscale("log")
    axes.yaxis.set_major_formatter(lambda share, _: plots.percent(share))
    axes.set_xlabel("C: a larger one means a weaker penalty")
    axes.set_ylabel(f"accuracy on {n:,} validation rows")
    plots.heading(figure, "Validation accuracy of the probe, with its 95 % interval")


# --- against scikit-learn -------------------------------------------------------------------------


def compare(rows: Rows, n: int, C: float, max_iter: int) -> None:
    """Fit both libraries to the first n rows, each in a new process; print time and memory."""
    print(f"\nLogisticRegression(C={C:g}, max_iter={max_iter}) on {min(n, len(rows.y)):,} rows:")
    print(f"{'':>14} {'seconds':>9} {'iterations':>12} {'objective':>11} {'peak memory':>13}")
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/X.npy", rows.X[:n])
        np.save(f"{folder}/y.npy", rows.y[:n])
        for library in ("fastloss", "scikit-learn"):
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, context) as pool:
                measured = pool.submit(fit_in_process, library, folder, C, max_iter).result()
            seconds, n_iterations, objective, peak = measured
            print(
                f"{library:>14} {seconds:9.2f} {n_iterations:12} {objective:11.5g} "
                f"{peak / 2**20:10.0f} MB",
                flush=True,
            )


def fit_in_process(
    library: str, folder: str, C: float, max_iter: int
) -> tuple[float, int, float, float]:
    """Return seconds, iterations, objective reached, and peak memory in bytes of a fit."""
    import sklearn.linear_model

    X = np.load(f"{folder}/X.npy", mmap_mode="r" if library == "fastloss" else None)
    y = np.load(f"{folder}/y.npy")
    kind: Any = LogisticRegression
    if library == "scikit-learn":
        kind = sklearn.linear_model.LogisticRegression
        # It has no float16: float32 is its fastest type.
        X = X.astype(np.float32, copy=False)
    else:  # compile the kernels, which takes seconds once on a machine
        with warnings.catch_warnings(), fastloss.use(backend="fused"):
            warnings.simplefilter("ignore", ConvergenceWarning)
            kind(C=C, max_iter=1).fit(X, y)
    probe = kind(C=C, max_iter=max_iter)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(X, y)
    seconds = time.perf_counter() - began
    peak = peak_memory()
    objective = fastloss.Objective(
        X, np.searchsorted(probe.classes_, y), l2=0.5 / (C * len(y)), intercept=True
    )
    W = np.vstack([probe.coef_.T, probe.intercept_]).astype(np.float32)
    return seconds, int(probe.n_iter_[0]), objective.loss(W), peak


def peak_memory() -> float:
    """Return the most memory in bytes that this process has had; NaN where it is unknown."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return math.nan
    return next(1024 * float(line.split()[1]) for line in lines if line.startswith("VmHWM"))


# --- the command ----------------------------------------------------------------------------------


def shape(text: str) -> tuple[int, int, int]:
    """Return the numbers of rows, features and classes in "100000x768x1000"."""
    n_rows, n_features, n_classes = map(int, text.split("x"))
    return n_rows, n_features, n_classes


def main() -> None:
    """Read the options and run; bad options and data end in one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", nargs="?", help="a data set that fastloss.data.load reads")
    parser.add_argument("--synthetic", type=shape, help="draw such rows instead")
    parser.add_argument("--C", type=float, nargs="+", default=[1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0])
    parser.add_argument("--held-out", type=float, default=0.1, help="share for validation and test")
    parser.add_argument("--max-iter", type=int, default=100)
    parser.add_argument("--compare", type=int, metavar="ROWS", help="fit scikit-learn to them too")
    parser.add_argument("--out", type=Path, default=Path("linear-probe"))
    arguments = parser.parse_args()
    if not 0 < arguments.held_out < 0.5:
        parser.error(f"--held-out must be between 0 and 0.5, got {arguments.held_out:g}")
    try:
        run(arguments)
    except (OSError, TypeError, ValueError) as error:
        raise SystemExit(f"{parser.prog}: {error}") from None


def run(arguments: argparse.Namespace) -> None:
    """Run the sweep, the final fit and the comparison."""
    rows = load(arguments)
    print(f"{rows.X.shape[0]:,} rows, {rows.X.shape[1]:,} {rows.X.dtype} features")
    # A start near the minimum has a small gradient, so the tolerance is tighter than the default.
    probe = LogisticRegression(max_iter=arguments.max_iter, tol=1e-5, warm_start=True)
    fits = sweep(probe, rows, arguments.C)
    best = max(fits, key=lambda fitted: fitted.accuracy)
    seconds = final_fit(probe, rows, best)
    accuracy = probe.score(rows.X[rows.test], rows.y[rows.test])
    low, high = interval(accuracy, len(rows.test))
    print(
        f"\nC = {best.C:g}, fitted again to the validation rows too in {seconds:.1f} s: "
        f"accuracy {accuracy:.2%} [{low:.2%}, {high:.2%}] on {len(rows.test):,} test rows"
    )
    n_iterations = sum(fitted.n_iterations for fitted in fits)
    spent = sum(fitted.seconds for fitted in fits)
    print(
        f"{n_iterations} iterations of the sweep took {spent:.1f} s and {peak_memory() / 2**20:.0f}"
        f" MB at most. Extrapolated, not measured: the same sweep takes "
        f"{spent * IMAGENET_ROWS / len(rows.y) / 60:.3g} minutes on {IMAGENET_ROWS:,} rows."
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    stem = arguments.out / "accuracy"
    plots.picture(partial(draw, fits, len(rows.validation)), stem, height=3.6)
    print(f"picture: {stem}.png")
    if arguments.compare:
        compare(rows, arguments.compare, best.C, min(arguments.max_iter, 20))


if __name__ == "__main__":
    main()
