"""Time L-BFGS on MNIST until it reaches the final loss of scikit-learn's logistic regression.

python bench/train_mnist.py --data path/to/mnist
python bench/train_mnist.py --data path/to/mnist --intelex-python path/to/venv/bin/python

The objective is scikit-learn's: mean cross-entropy plus 0.5 / N times the squared weights without
the intercept (C = 1). All contenders read the same file of pixels in [0, 1]. Each fit runs alone in
a new process with a set number of threads, and each round has a new random order. Imports, reading
the array and fastloss's compiling are not timed. fastloss's `Objective` evaluates all solutions in
float64.

"fastloss to X" is L-BFGS from 0 on the given array. It stops at the first iteration whose loss is
no higher than the final loss of X in a fit before the first round. "centred" first subtracts the
mean of each pixel, which is timed too. Its solution is converted back to the given array. (The
intercept is not penalised, so the minimum is the same.)

A peer runs with all threads and with one, and the faster of the two is compared. Threads that spin
while they wait become twenty times as slow if anything else runs beside them. The script measures
the share of the machine that other processes use during each fit. Above a twentieth the ratios are
meaningless, and the script fails with that message.

scikit-learn-intelex is a separate package that patches scikit-learn. Point --intelex-python to an
interpreter that has it, or install it into this one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# fastloss is imported inside functions: an interpreter with scikit-learn-intelex may lack it.

RESULT = Path(__file__).parent / "results" / "studies" / "train-mnist.json"
MAX_ITERATIONS = 100
MOST_STEPS = 1000
#: Largest share of the machine that other processes may use during a fit.
MOST_BY_OTHERS = 0.05

Fit: TypeAlias = tuple[float, int, NDArray[Any]]  # seconds, iterations, W (D + 1, C)


# --- in the contender's process -------------------------------------------------------------------


def fit_sklearn(X: NDArray[Any], y: NDArray[np.int64], *, patched: bool) -> Fit:
    """Fit ``LogisticRegression(C=1, max_iter=100)``, of scikit-learn-intelex if ``patched``."""
    if patched:
        import_module("sklearnex").patch_sklearn(verbose=False)
    from sklearn.linear_model import LogisticRegression

    def fit(X: NDArray[Any], y: NDArray[np.int64], max_iter: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the warning that the fit has not converged
            return LogisticRegression(C=1.0, solver="lbfgs", max_iter=max_iter).fit(X, y)

    fit(X[:1000], y[:1000], 2)
    start = time.perf_counter()
    fitted = fit(X, y, MAX_ITERATIONS)
    seconds = time.perf_counter() - start
    W = np.vstack([fitted.coef_.T, fitted.intercept_])
    return seconds, int(np.max(fitted.n_iter_)), W


def fit_fastloss(
    X: NDArray[Any], y: NDArray[np.int64], *, target: float, n_threads: int, centred: bool
) -> Fit:
    """Run L-BFGS until the loss is no higher than ``target``."""
    from fastloss import Objective
    from fastloss.optim import minimize

    l2, n_classes = 0.5 / len(X), int(y.max()) + 1

    def fit(X: NDArray[Any], y: NDArray[np.int64], max_steps: int) -> tuple[int, NDArray[Any]]:
        mean = X.mean(axis=0, dtype=np.float64).astype(X.dtype) if centred else None
        objective = Objective(
            X if mean is None else X - mean, y, l2=l2, intercept=True, n_threads=n_threads
        )
        result = minimize(
            objective,
            np.zeros((X.shape[1] + 1, n_classes), X.dtype),
            "lbfgs",
            max_steps=max_steps,
            tolerance=0.0,
            callback=lambda record: record.loss <= target,
        )
        W = result.W.astype(np.float64)
        if mean is not None:
            W[-1] -= mean @ W[:-1]
        return result.n_steps, W

    fit(X[:1000], y[:1000], 2)
    start = time.perf_counter()
    n_steps, W = fit(X, y, MOST_STEPS)
    return time.perf_counter() - start, n_steps, W


def run_contender(name: str, folder: Path, n_threads: int) -> None:
    """Fit, save W in the folder, and print seconds and iterations."""
    X, y = np.load(folder / "X.npy"), np.load(folder / "y.npy")
    kind, _, target = name.partition(":")
    if kind in ("sklearn", "intelex"):
        seconds, iterations, W = fit_sklearn(X, y, patched=kind == "intelex")
    else:
        seconds, iterations, W = fit_fastloss(
            X, y, target=float(target), n_threads=n_threads, centred=kind == "centred"
        )
    np.save(folder / "W.npy", W)
    print(json.dumps([seconds, iterations]))


# --- in the process that compares -----------------------------------------------------------------


class Bench:
    """The arrays in a folder, and the fits of all contenders."""

    def __init__(
        self, X: NDArray[Any], y: NDArray[np.int64], folder: Path, n_threads: int, intelex: str
    ) -> None:
        from fastloss import Objective

        np.save(folder / "X.npy", X)
        np.save(folder / "y.npy", y)
        self.folder, self.n_threads, self.intelex = folder, n_threads, intelex
        # Evaluates all solutions.
        self.exact = Objective(X.astype(np.float64), y, l2=0.5 / len(X), intercept=True)

    def fit(self, name: str, n_threads: int) -> dict[str, float]:
        """Fit in a new process; return seconds, iterations, the float64 loss and others' load."""
        threads = {
            f"{library}_NUM_THREADS": str(n_threads)
            for library in ("OMP", "OPENBLAS", "MKL", "NUMBA", "FASTLOSS")
        }
        python = self.intelex if name == "intelex" else sys.executable
        command = [python, __file__, "--contender", name, "--folder", str(self.folder)]
        before = _machine_seconds()
        done = subprocess.run(
            [*command, "--threads", str(n_threads)],
            env={**os.environ, **threads},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        others = _share_of_others(before, _machine_seconds())
        seconds, iterations = json.loads(done.stdout.splitlines()[-1])
        loss = self.exact.loss(np.load(self.folder / "W.npy").astype(np.float64))
        return {"seconds": seconds, "iterations": iterations, "loss": loss, "others": others}

    def run(self, n_rounds: int, seed: int) -> tuple[dict[str, float], dict[str, list[Any]]]:
        """Return the loss of each peer to reach, and the fits of each contender, by round."""
        peers = ["sklearn", "intelex"] if self.intelex else ["sklearn"]
        targets = {peer: self.fit(peer, 1)["loss"] for peer in peers}
        names = {}
        for peer, target in targets.items():
            names[peer] = peer, self.n_threads
            names[f"{peer}, 1 thread"] = peer, 1
            for kind in ("fastloss", "centred"):
                names[f"{kind} to {peer}"] = f"{kind}:{target!r}", self.n_threads
        rng = np.random.default_rng(seed)
        fits: dict[str, list[Any]] = {name: [] for name in names}
        for round_number in range(n_rounds):
            for name in rng.permutation(list(names)):
                fits[name].append(self.fit(*names[name]))
                latest = fits[name][-1]
                print(
                    f"round {round_number + 1}, {name}: {latest['seconds']:.2f} s, "
                    f"{latest['iterations']} iterations, loss {latest['loss']:.6f}, "
                    f"others used {latest['others']:.0%} of the machine",
                    file=sys.stderr,
                )
        return targets, fits


def _machine_seconds() -> tuple[float, float, float]:
    """Return wall time, busy time of all CPUs, and CPU time of this process and its children."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, soft_irq = map(int, fields[:7])
    busy = (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), busy, sum(os.times()[:4])


def _share_of_others(before: tuple[float, ...], after: tuple[float, ...]) -> float:
    wall, busy, own = (end - start for start, end in zip(before, after, strict=True))
    return max(0.0, busy - own) / (wall * (os.cpu_count() or 1))


def compare(targets: dict[str, float], fits: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Return how many times as fast fastloss reaches each peer's final loss, and if it does."""
    from fastloss.benchmark.measure import Ratio

    seconds = {name: [fit["seconds"] for fit in runs] for name, runs in fits.items()}
    rows = []
    for peer, target in targets.items():
        best = min((peer, f"{peer}, 1 thread"), key=lambda name: np.median(seconds[name]))
        for kind in ("fastloss", "centred"):
            name = f"{kind} to {peer}"
            # A float32 loss is exact to about 1e-7; repeated fits of scikit-learn differ by more.
            reached = max(fit["loss"] for fit in fits[name]) <= target * (1 + 1e-6)
            ratio = asdict(Ratio.of(seconds[best], seconds[name]))
            rows.append({"peer": best, "contender": name, "reached": reached, "ratio": ratio})
    return rows


def report(record: dict[str, Any]) -> None:
    """Print times and ratios."""
    from fastloss.benchmark.measure import Summary

    print(f"{record['rows']:,} rows, {record['dtype']}, {record['threads']} threads")
    for name, runs in record["fits"].items():
        times = [fit["seconds"] for fit in runs]
        losses = sorted(fit["loss"] for fit in runs)
        print(
            f"{name:22}{Summary.of(times).median:7.2f} s ({min(times):.2f} to {max(times):.2f}), "
            f"{runs[0]['iterations']:4} iterations, loss {losses[0]:.6f} to {losses[-1]:.6f}"
        )
    for row in record["comparisons"]:
        ratio = row["ratio"]
        reached = "" if row["reached"] else ", BUT IT DID NOT REACH THE LOSS"
        print(
            f"{row['contender']}: {ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}] "
            f"times as fast as {row['peer']}{reached}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the contenders, print the report, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of MNIST's files")
    parser.add_argument("--rows", type=int, help="use only the first rows")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--intelex-python", help="an interpreter with scikit-learn-intelex")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contender:
        run_contender(options.contender, options.folder, options.threads)
        return
    if options.data is None:
        parser.error("--data is needed: the folder of MNIST's files")

    from fastloss import data, files
    from fastloss.machine import environment
    from fastloss.preprocessing import Preprocessing

    mnist = data.load(options.data).rows(slice(options.rows))
    X = Preprocessing.fit(mnist.X, "none").apply(mnist.X).astype(options.dtype, copy=False)
    intelex = options.intelex_python or (sys.executable if find_spec("sklearnex") else "")
    with tempfile.TemporaryDirectory(prefix="fastloss-train-") as folder:
        bench = Bench(X, mnist.y, Path(folder), options.threads, intelex)
        targets, fits = bench.run(options.rounds, options.seed)
    record = {
        "title": "L-BFGS on MNIST: time to the loss that another library ends with",
        "rows": len(X),
        "dtype": options.dtype,
        "threads": options.threads,
        "targets": targets,
        "quiet": all(fit["others"] <= MOST_BY_OTHERS for runs in fits.values() for fit in runs),
        "comparisons": compare(targets, fits),
        "fits": fits,
        "environment": environment(options.threads, options.seed),
    }
    report(record)
    files.write(options.out, json.dumps(record, indent=1) + "\n")
    if not all(row["reached"] for row in record["comparisons"]):
        sys.exit("a loss was not reached")
    if not record["quiet"]:
        sys.exit("other processes used the machine during a fit: the ratios above are meaningless")


if __name__ == "__main__":
    main()
