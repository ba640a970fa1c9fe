"""Predict the seconds of a call from seven measured costs.

The seconds of a call with N rows, D features and C classes are modelled as::

    a + b N + c N C + d N C (beyond cache) + e N D + f D C + g N D C

The terms are: the call, the rows, the losses of the scores, their extra cost beyond the cache,
reading X, laying out W and its gradient, and arithmetic. None of a to g is negative.

The wide kernel cuts rows into strips. One of its two products works on whole strips; there N is
rounded up to whole strips. In the losses, N is rounded up to the same number of strips per thread.

Each way (numpy, numba and the kernels of fused), dtype and number of threads (one, or all) has its
own seven costs. A loss that was measured has a factor for b, c and d. `benchmark.calibration`
measures the costs and `store` keeps them in a file. Without that file, `default` returns costs that
were measured on a machine with the same kind of CPU.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fastloss import files, kernel_cache
from fastloss.arrays import as_integer
from fastloss.backends import default_costs
from fastloss.backends.base import Workload
from fastloss.folders import cache_folder
from fastloss.kernels.wide_problem import STRIP_BYTES, units_without_numba

#: Model version. Costs fitted by another version are ignored.
VERSION = 7
WAYS = ("numpy", "numba", "narrow", "few_rows", "wide")
N_TERMS = 7

#: The terms that depend on the loss.
OF_LOSS = slice(1, 4)

# Scores of up to this size stay in L2, together with their gradients.
_CACHE_BYTES = 2**20

Key = tuple[str, int, str]  # the way, the bytes of a number, "one" or "all" threads


def terms(
    way: str, shape: tuple[int, int, int], itemsize: int, n_threads: int
) -> tuple[float, ...]:
    """Return the factors of the seven costs."""
    n_rows, n_features, n_classes = shape
    n_multiplied: float = n_rows
    n_scored = n_rows
    if way == "wide":
        strip = STRIP_BYTES // itemsize
        n_multiplied = (n_rows + -(-n_rows // strip) * strip) / 2
        n_scored = -(-n_rows // (n_threads * strip)) * n_threads * strip
    n_scores = n_scored * n_classes
    return (
        1,
        n_rows,
        n_scores,
        n_scores if n_scores * itemsize > _CACHE_BYTES else 0,
        n_rows * n_features,
        n_features * n_classes,
        n_multiplied * n_features * n_classes,
    )


@dataclass(frozen=True)
class Costs:
    """Measured costs, and the thread count that "all" stands for.

    ``of_losses`` holds the factor of a loss for the terms `OF_LOSS`, by its ``repr``. The hash is
    by identity, because one table is in use at a time.
    """

    __hash__ = object.__hash__

    n_threads: int
    lines: dict[Key, tuple[float, ...]]
    source: str
    of_losses: dict[tuple[str, int, str, str], float] = field(default_factory=dict)

    def seconds(
        self, way: str, shape: tuple[int, int, int], itemsize: int, n_threads: int, loss: str = ""
    ) -> float:
        """Return the predicted seconds of a call."""
        key = way, itemsize, "one" if n_threads == 1 else "all"
        line = self.lines[key]
        factors = terms(way, shape, itemsize, n_threads)
        seconds = [cost * factor for cost, factor in zip(line, factors, strict=True)]
        of_loss = sum(seconds[OF_LOSS])
        return sum(seconds) + of_loss * (self.of_losses.get((*key, loss), 1.0) - 1.0)


def predict(way: str, workload: Workload) -> dict[int, float]:
    """Return the predicted seconds of a call on one thread and on all threads it may use."""
    costs, itemsize, loss = current(), workload.W_type.itemsize, repr(workload.loss)
    return {
        n: costs.seconds(way, workload.shape, itemsize, n, loss)
        for n in sorted({1, workload.n_threads})
    }


# --- kept between processes -----------------------------------------------------------------------


def path() -> Path:
    """Return the file of the costs; raise FileNotFoundError without a home directory."""
    folder = cache_folder()
    if folder is None:
        raise FileNotFoundError("there is no home directory; set FASTLOSS_CACHE_DIR to a folder")
    return folder / "costs.json"


def store(costs: Costs) -> None:
    """Write the costs to their file, whole or not at all; raise OSError if that fails."""
    document = {
        "version": VERSION,
        "cpu": kernel_cache.cpu_kind(),
        "n_threads": costs.n_threads,
        "lines": [{"key": key, "costs": line} for key, line in costs.lines.items()],
        "of_losses": [{"key": key, "times": times} for key, times in costs.of_losses.items()],
    }
    files.write(path(), json.dumps(document, indent=1))
    current.cache_clear()


@cache
def current() -> Costs:
    """Return the stored costs, or `default` if no valid ones are stored."""
    with suppress(Exception):  # the file may hold any JSON
        return _parse(json.loads(path().read_text()))
    return default()


@cache
def default() -> Costs:
    """Return the costs of a measured machine with this kind of CPU."""
    kind = kind_of_cpu()
    source = f"measured on another machine with {kind}; fastloss warmup measures this one"
    return Costs(2, default_costs.LINES[kind], source)


def kind_of_cpu() -> str:
    """Return "AMX", "AVX-512" or "AVX2": the largest vectors or matrices that kernels use here.

    CPUs with smaller vectors, and those of unknown features, count as AVX2.
    """
    with suppress(ValueError):  # a bad FASTLOSS_AMX, which the kernels report
        if "amx" in units_without_numba(np.dtype(np.float32)):
            return "AMX"
    return "AVX-512" if "avx512f" in kernel_cache.cpu_features() else "AVX2"


def _parse(document: Any) -> Costs:
    lines = {tuple(entry["key"]): tuple(map(float, entry["costs"])) for entry in document["lines"]}
    of_losses = {tuple(entry["key"]): float(entry["times"]) for entry in document["of_losses"]}
    if document["version"] != VERSION:
        raise ValueError("costs of another model")
    if document["cpu"] != kernel_cache.cpu_kind():  # machines may share a home directory
        raise ValueError("costs of another kind of CPU")
    lengths = {len(line) for line in lines.values()}
    if lines.keys() != default().lines.keys() or lengths != {N_TERMS}:
        raise ValueError("not a table of costs")
    numbers = [*chain(*lines.values()), *of_losses.values()]
    if not all(0.0 <= number < math.inf for number in numbers):
        raise ValueError("costs must be finite and >= 0")
    n_threads = as_integer("n_threads", document["n_threads"], 1)
    return Costs(n_threads, lines, "measured here", of_losses)
