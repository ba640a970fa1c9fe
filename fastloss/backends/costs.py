"""A model of what a call costs: six numbers for each way to run it, measured on this machine.

The seconds of a call with N rows, D features and C classes are modelled as::

    a + b N + c N C + d N D + e D C + f N D C

that is a call, the rows, the losses of the scores, reading X, laying out W and its gradient, and
arithmetic; none of a to f is negative. In the losses, N counts as many rows as the strips that they
are cut into could hold, on threads that all take as many. There is one such line for each way, type
and number of threads (one, or all). `benchmark.calibration` measures them and `store` keeps them in
a file; without it `DEFAULT` stands in, which says what was measured on one machine with two cores.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.backends import compiled

#: Of the model: numbers that another one was fitted with are not read.
VERSION = 2
WAYS = ("numpy", "fused", "blas")
N_TERMS = 6

Key = tuple[str, int, str]  # the way, the bytes of a number, "one" or "all" threads


def terms(way: str, shape: tuple[int, int, int], itemsize: int, n_threads: int) -> tuple[int, ...]:
    """What the six numbers are multiplied with."""
    n_rows, n_features, n_classes = shape
    n_scored = n_rows
    if way == "blas":
        step = n_threads * compiled.strip_rows(n_classes, itemsize)
        n_scored = -(-n_rows // step) * step
    return (
        1,
        n_rows,
        n_scored * n_classes,
        n_rows * n_features,
        n_features * n_classes,
        n_rows * n_features * n_classes,
    )


@dataclass(frozen=True)
class Costs:
    """The numbers, and for how many threads "all" stands."""

    n_threads: int
    lines: Mapping[Key, tuple[float, ...]]
    source: str

    def seconds(
        self, way: str, shape: tuple[int, int, int], itemsize: int, n_threads: int
    ) -> float:
        """What a call should take."""
        line = self.lines[way, itemsize, "one" if n_threads == 1 else "all"]
        factors = terms(way, shape, itemsize, n_threads)
        return sum(cost * factor for cost, factor in zip(line, factors, strict=True))


def fit(factors: list[tuple[int, ...]], seconds: list[float]) -> tuple[float, ...]:
    """The line that comes closest, in parts of each measurement, with no number below 0."""
    scaled = np.array(factors) / np.array(seconds)[:, None]
    scale = np.linalg.norm(scaled, axis=0)
    return tuple(_nonnegative_least_squares(scaled / scale, np.ones(len(seconds))) / scale)


def _nonnegative_least_squares(
    A: NDArray[np.float64], b: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``argmin |A x - b|`` with ``x >= 0``, a coordinate at a time; the columns have norm 1."""
    x = np.zeros(A.shape[1])
    gram, right = A.T @ A, A.T @ b
    for _ in range(20_000):
        for k in range(len(x)):
            x[k] = max(0.0, x[k] + right[k] - gram[k] @ x)
    return x


# --- kept between processes -----------------------------------------------------------------------


def folder() -> Path:
    """Where fastloss keeps what it learnt of this machine: ``FASTLOSS_CACHE_DIR``, or the usual."""
    if given := os.environ.get("FASTLOSS_CACHE_DIR"):
        return Path(given)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", str(Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return Path(base) / "fastloss"


def path() -> Path:
    """The file of the costs."""
    return folder() / "costs.json"


def store(costs: Costs) -> None:
    """Write the file, whole or not at all; OSError where that cannot be."""
    document = {
        "version": VERSION,
        "n_threads": costs.n_threads,
        "lines": [{"key": key, "costs": line} for key, line in costs.lines.items()],
    }
    folder().mkdir(parents=True, exist_ok=True)
    draft = path().with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(document, indent=1))
    draft.replace(path())
    current.cache_clear()


@cache
def current() -> Costs:
    """The stored costs; `DEFAULT` if there are none, or none that can be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return _parse(json.loads(path().read_text()))
    return DEFAULT


def _parse(document: Any) -> Costs:
    lines = {tuple(entry["key"]): tuple(map(float, entry["costs"])) for entry in document["lines"]}
    if document["version"] != VERSION:
        raise ValueError("costs of another model")
    if lines.keys() != DEFAULT.lines.keys() or {len(line) for line in lines.values()} != {N_TERMS}:
        raise ValueError("not a table of costs")
    return Costs(int(document["n_threads"]), lines, "measured here")


DEFAULT = Costs(
    n_threads=2,
    source="measured on another machine; fastloss warmup measures this one",
    lines={
        # a call, a row, a score, a number of X, of W, a multiply-add; in seconds
        ("numpy", 4, "one"): (2.8e-05, 9.6e-08, 2.7e-09, 6.9e-10, 9.9e-10, 2.2e-11),
        ("numpy", 4, "all"): (3e-05, 9.8e-08, 2.8e-09, 4.8e-10, 8.9e-10, 1.1e-11),
        ("fused", 4, "one"): (3.9e-06, 1.1e-08, 1.6e-09, 1.1e-10, 3.4e-10, 2.2e-11),
        ("fused", 4, "all"): (4.4e-06, 7.1e-09, 1.4e-09, 1.2e-10, 5.1e-10, 1.2e-11),
        ("blas", 4, "one"): (3.2e-05, 1.7e-08, 8.2e-10, 6.7e-10, 5.1e-10, 2.2e-11),
        ("blas", 4, "all"): (3.5e-05, 2e-08, 4e-10, 4.7e-10, 3.4e-10, 1.2e-11),
        ("numpy", 8, "one"): (2.5e-05, 8.6e-08, 4.7e-09, 1.4e-09, 1.6e-09, 5e-11),
        ("numpy", 8, "all"): (2.6e-05, 8.9e-08, 4.8e-09, 1e-09, 1.8e-09, 2.5e-11),
        ("fused", 8, "one"): (3.7e-06, 1.1e-08, 1.7e-09, 1.8e-10, 9.2e-10, 5.3e-11),
        ("fused", 8, "all"): (4.2e-06, 6.2e-09, 1.8e-09, 1.9e-10, 1.5e-09, 3e-11),
        ("blas", 8, "one"): (2.6e-05, 1.7e-08, 1.5e-09, 1.4e-09, 9.3e-10, 5.1e-11),
        ("blas", 8, "all"): (3.1e-05, 2e-08, 7.8e-10, 9.8e-10, 6.4e-10, 2.8e-11),
    },
)
