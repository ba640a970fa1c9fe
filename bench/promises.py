"""Measure auto's choices, first calls, and calls that alternate with NumPy's products.

python bench/promises.py auto         # how close does auto get to the best choice?
python bench/promises.py cold-start   # how long does the first call of a process take?
python bench/promises.py neighbour    # are calls slower if they alternate with NumPy's products?

Each writes bench/results/studies/NAME.json; bench/write_benchmarks.py makes a page of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import fastloss
from fastloss import files
from fastloss.backends import auto, cost_model
from fastloss.backends.background import compilations
from fastloss.backends.base import Workload
from fastloss.benchmark.measure import Ratio, calibrate, settle, time_calls
from fastloss.benchmark.results import check_published
from fastloss.losses import get_loss
from fastloss.machine import environment
from fastloss.restoring import no_garbage_collection
from fastloss.threads import available_threads

RESULTS = Path(__file__).parent / "results" / "studies"

# --- auto ----------------------------------------------------------------------------------------

N_PROBLEMS = 120
#: The ranges of N, D and C: of any problem, of few rows with many features, and of tables. Half of
#: the problems are of the first kind.
ANY, FEW_ROWS, TABLES = (
    ((1, 1e6), (1, 1e4), (2, 1e5)),
    ((1, 500), (2000, 1e5), (2, 100)),
    ((1e5, 2e6), (2, 100), (2, 5)),
)
#: Limits that keep a problem in memory and a call below half a second.
MAX_NUMBERS, MAX_MULTIPLY_ADDS = 3e7, 1e10


def problems() -> list[tuple[str, str, tuple[int, int, int]]]:
    """Draw losses, types and shapes; the shapes are uniform in the logarithm."""
    rng = np.random.default_rng(0)
    names = fastloss.available_losses()
    drawn: list[tuple[str, str, tuple[int, int, int]]] = []
    while len(drawn) < N_PROBLEMS:
        ranges = (ANY, FEW_ROWS, ANY, TABLES)[len(drawn) // 2 % 4]
        N, D, C = (round(low * (high / low) ** rng.uniform()) for low, high in ranges)
        if max(N * D, N * C, D * C) <= MAX_NUMBERS and N * D * C <= MAX_MULTIPLY_ADDS:
            kind = len(drawn)
            drawn.append((names[kind % len(names)], ("float32", "float64")[kind % 2], (N, D, C)))
    return drawn


def measure_auto() -> dict[str, Any]:
    """Time all choices at each problem, and record the one that auto takes."""
    cells = []
    for done, (name, dtype, shape) in enumerate(problems()):
        workload = Workload(get_loss(name), shape, np.dtype(dtype), np.dtype(dtype))
        choice = auto.choose(workload, prepare=False)
        seconds = _race(_ways(workload, choice.predicted), rounds=5)
        taken = f"{choice.backend}, {choice.n_threads}"
        cells.append(
            {"loss": name, "dtype": dtype, "shape": shape, "taken": taken, "seconds": seconds}
        )
        best = min(seconds, key=lambda way: seconds[way])
        print(
            f"{done + 1:3} {name:14} {dtype} {shape}: {taken} takes "
            f"{seconds[taken] / seconds[best]:.3f} of {best}, {1e3 * seconds[best]:.4g} ms",
            flush=True,
        )
    return {
        "cells": cells,
        "costs": cost_model.current().source,
        "choice_seconds": _seconds_of_a_choice(),
    }


def _ways(
    workload: Workload, choices: Iterable[tuple[str, int]]
) -> dict[str, Callable[[], object]]:
    """Return a call for each of auto's choices: a backend and a number of threads."""
    rng = np.random.default_rng(0)
    n_rows, n_features, n_classes = workload.shape
    X = rng.standard_normal((n_rows, n_features)).astype(workload.X_type)
    W = rng.standard_normal((n_features, n_classes)) / np.sqrt(n_features)
    W = W.astype(workload.W_type)
    y = rng.integers(0, n_classes, n_rows)

    def way(backend: str, n_threads: int) -> Callable[[], object]:
        objective = fastloss.Objective(
            X, y, loss=workload.loss, backend=backend, n_threads=n_threads
        )
        return lambda: objective(W)

    return {f"{backend}, {n}": way(backend, n) for backend, n in choices}


def _race(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time the calls in turns; return their median seconds."""
    n_calls = {}
    for way, call in ways.items():
        call()
        n_calls[way], _ = calibrate(call, 0.004)
    samples: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, call in ways.items():
            settle()
            call()
            samples[way].append(time_calls(call, n_calls[way]))
    return {way: float(np.median(values)) for way, values in samples.items()}


def _seconds_of_a_choice() -> float:
    """Time a repeated choice, as in every call except the first of a shape."""
    single = np.dtype(np.float32)
    workload = Workload(get_loss("softmax"), (200, 65, 10), single, single)

    def choose() -> auto.Choice:
        return auto.choose(workload)

    while not choose().is_final:
        compilations.wait()
    return float(np.median([time_calls(choose, 1000) for _ in range(20)]))


# --- first calls ---------------------------------------------------------------------------------

FIRST_CALL = """
import sys, time
start = time.perf_counter()
import numpy as np
import fastloss
X, y = np.ones((2000, 785), np.float32), np.zeros(2000, np.int64)
W = np.zeros((785, 10), np.float32)
fastloss.loss_and_grad(W, X, y, backend=sys.argv[1])
print(time.perf_counter() - start)
"""
COMPILE = """
import time
import numba, numpy as np
from fastloss.kernels.loss_entry import loss_kernel
from fastloss.kernels.narrow import narrow_kernel
from fastloss.losses import get_loss
X_type, W_type = map(np.dtype, {types!r})
start = time.perf_counter()
loss_kernel(get_loss({loss!r}), W_type)
narrow_kernel(X_type, W_type)
print(time.perf_counter() - start)
"""


def measure_cold_start() -> dict[str, Any]:
    """Time the imports with the first call, and the compilation of a loss and type."""
    with tempfile.TemporaryDirectory() as folder:
        warm = {"NUMBA_CACHE_DIR": f"{folder}/numba", "FASTLOSS_CACHE_DIR": f"{folder}/fastloss"}
        for backend in ("numba", "fused", "auto"):
            _run(FIRST_CALL, backend, **warm)
        first = {
            f"{backend}, warm cache": [_run(FIRST_CALL, backend, **warm) for _ in range(9)]
            for backend in ("numpy", "numba", "fused", "auto")
        }
        for backend in ("numba", "fused", "auto"):
            first[f"{backend}, no cache"] = [
                _run(
                    FIRST_CALL,
                    backend,
                    NUMBA_CACHE_DIR=f"{folder}/{backend}{k}",
                    FASTLOSS_CACHE_DIR=f"{folder}/{backend}{k}",
                )
                for k in range(3)
            ]
        compiling = {}
        for number, (loss, *types) in enumerate(
            [("softmax", "f4", "f4"), ("hinge", "f8", "f8"), ("softmax", "u1", "f4")]
        ):
            code = COMPILE.format(loss=loss, types=tuple(types))
            compiling[f"{loss}, X {np.dtype(types[0])}"] = [
                _run(code, NUMBA_CACHE_DIR=f"{folder}/compile{number}{k}") for k in range(3)
            ]
    return {"first_calls": first, "compiling": compiling}


def _run(code: str, *arguments: str, **variables: str) -> float:
    """Run the code in its own Python process; return the number it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


# --- alternating with BLAS ----------------------------------------------------------------------


def measure_neighbour() -> dict[str, Any]:
    """Compare calls that alternate with NumPy's products with the two apart, as ratios."""
    rng = np.random.default_rng(0)
    ratios = {}
    for shape in ((256, 3073, 10), (20_000, 785, 10)):
        n_rows, n_features, n_classes = shape
        X = rng.standard_normal((n_rows, n_features)).astype(np.float32)
        W = np.zeros((n_features, n_classes), np.float32)
        validation = rng.standard_normal((2000, n_features)).astype(np.float32)
        y = rng.integers(0, n_classes, n_rows)
        objective = fastloss.Objective(X, y, backend="fused")

        def ours(objective: fastloss.Objective = objective, W: Any = W) -> object:
            return objective(W)

        def theirs(validation: Any = validation, W: Any = W) -> object:
            return validation @ W

        def in_turns(ours: Any = ours, theirs: Any = theirs) -> object:
            ours()
            return theirs()

        rounds: dict[str, list[float]] = {"apart": [], "in turns": []}
        with no_garbage_collection():
            for call in (ours, theirs, in_turns):
                time_calls(call, 20)
            for _ in range(15):
                settle()
                alone = time_calls(ours, 40)
                settle()
                rounds["apart"].append(alone + time_calls(theirs, 40))
                settle()
                rounds["in turns"].append(time_calls(in_turns, 40))
        ratio = Ratio.of(rounds["in turns"], rounds["apart"])
        ratios[" x ".join(map(str, shape))] = [ratio.value, ratio.low, ratio.high]
    return {"ratios": ratios}


STUDIES: dict[str, Callable[[], dict[str, Any]]] = {
    "auto": measure_auto,
    "cold-start": measure_cold_start,
    "neighbour": measure_neighbour,
}


def main(names: list[str], allow_dirty: bool = False) -> None:
    """Run the named studies (all by default), and store their results."""
    names = names or list(STUDIES)
    for name in names:
        if name not in STUDIES:
            raise SystemExit(f"no study is called {name!r}; there are {', '.join(STUDIES)}")
    if not allow_dirty:
        check_published(RESULTS / f"{name}.json" for name in names)
    for name in names:
        document = {"environment": environment(available_threads(), 0), **STUDIES[name]()}
        files.write(RESULTS / f"{name}.json", json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main([name for name in sys.argv[1:] if name != "--allow-dirty"], "--allow-dirty" in sys.argv)
