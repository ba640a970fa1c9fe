"""Measure what a `DaskObjective` adds to the time of an evaluation, on workers of this machine.

Run ``python bench/dask_overhead.py`` on a quiet machine. Each row times an `Objective` in this
process and a `DaskObjective` on local workers in turns, with as many threads in all. The overhead
is the difference of the medians. ``--json`` also writes the numbers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import dask.array
import numpy as np
from distributed import Client, LocalCluster

import fastloss
from fastloss.arrays import Floats
from fastloss.dask import DaskObjective
from fastloss.threads import available_threads

#: N x D x C: the cost of the messages alone, and blocks that take about 100 ms.
SHAPES = ((256, 3072, 10), (60_000, 3072, 10), (40_000, 768, 1000))
ROUNDS = 40


def seconds(
    f: Callable[[Floats], object], g: Callable[[Floats], object], W: Floats
) -> tuple[float, float]:
    """Return the median seconds of two functions, called in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    began = time.perf_counter()
    while len(times[0]) < ROUNDS and (len(times[0]) < 5 or time.perf_counter() - began < 30):
        for call, taken in zip((f, g), times, strict=True):
            start = time.perf_counter()
            call(W)
            taken.append(time.perf_counter() - start)
    return float(np.median(times[0])), float(np.median(times[1]))


def measured(client: Client, shape: tuple[int, int, int], n_threads: int) -> dict[str, float | str]:
    """Time one shape; the first calls load kernels and are not counted."""
    n_rows, n_features, n_classes = shape
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_features), dtype=np.float32)
    y = rng.integers(0, n_classes, n_rows)
    W = 0.01 * rng.standard_normal((n_features + 1, n_classes), dtype=np.float32)
    single = fastloss.Objective(X, y, intercept=True, n_threads=n_threads).reproducible(W)
    with DaskObjective(
        dask.array.from_array(X), y, n_classes=n_classes, intercept=True, client=client
    ) as objective:
        np.testing.assert_allclose(objective(W)[0], single(W)[0], rtol=2e-6)
        alone, on_cluster = seconds(single, objective, W)
    return {
        "shape": " x ".join(map(str, shape)),
        "one process, ms": 1e3 * alone,
        "workers, ms": 1e3 * on_cluster,
        "overhead, ms": 1e3 * (on_cluster - alone),
        "ratio": on_cluster / alone,
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    # Read now: the cluster sets OMP_NUM_THREADS=1 in this process, too.
    n_threads = max(1, available_threads() // arguments.workers)
    with (
        LocalCluster(
            n_workers=arguments.workers,
            threads_per_worker=n_threads,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": ":0"},
        ) as cluster,
        Client(cluster) as client,
    ):
        rows = [measured(client, shape, n_threads * arguments.workers) for shape in SHAPES]
    print(f"{arguments.workers} workers with {n_threads} threads each")
    for row in rows:
        print(
            ", ".join(
                f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
                for name, value in row.items()
            )
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
