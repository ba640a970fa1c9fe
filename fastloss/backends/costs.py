"""A model of what a call costs: six numbers for each way to run it, measured on this machine.

The seconds of a call with N rows, D features and C classes are modelled as::

    a + b N + c N C + d N D + e D C + f N D C

that is a call, the rows, the losses of the scores, reading X, laying out W and its gradient, and
arithmetic; none of a to f is negative. There is one such line for each way, type and number of
threads (one, or all). `benchmark.calibration` measures them and `store` keeps them in a file;
without it `DEFAULT` stands in, which says what was measured on one machine with two cores.
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

WAYS = ("numpy", "fused", "blas")
N_TERMS = 6

Key = tuple[str, int, str]  # the way, the bytes of a number, "one" or "all" threads


def terms(n_rows: int, n_features: int, n_classes: int) -> tuple[int, ...]:
    """What the six numbers are multiplied with."""
    return (
        1,
        n_rows,
        n_rows * n_classes,
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
        return sum(cost * term for cost, term in zip(line, terms(*shape), strict=True))


def fit(shapes: list[tuple[int, int, int]], seconds: list[float]) -> tuple[float, ...]:
    """The line that comes closest, in parts of each measurement, with no number below 0."""
    scaled = np.array([terms(*shape) for shape in shapes]) / np.array(seconds)[:, None]
    scale = np.linalg.norm(scaled, axis=0)
    return tuple(_nonnegative_least_squares(scaled / scale, np.ones(len(shapes))) / scale)


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
    if lines.keys() != DEFAULT.lines.keys() or {len(line) for line in lines.values()} != {N_TERMS}:
        raise ValueError("not a table of costs")
    return Costs(int(document["n_threads"]), lines, "measured here")


DEFAULT = Costs(
    n_threads=2,
    source="measured on another machine; fastloss warmup measures this one",
    lines={
        # a call, a row, a score, a number of X, of W, a multiply-add; in seconds
        ("numpy", 4, "one"): (4.1e-05, 1e-07, 3.3e-09, 7.7e-10, 9.3e-10, 3.5e-11),
        ("numpy", 4, "all"): (4.3e-05, 1.2e-07, 3.2e-09, 5.5e-10, 1e-09, 1.7e-11),
        ("fused", 4, "one"): (4.5e-06, 1.4e-08, 2.7e-09, 1.8e-10, 9.7e-10, 2.4e-11),
        ("fused", 4, "all"): (4.8e-06, 1.5e-08, 1.7e-09, 8.1e-11, 1.3e-09, 2.3e-11),
        ("blas", 4, "one"): (3e-05, 1.8e-08, 1.3e-09, 7.7e-10, 8.4e-10, 3.4e-11),
        ("blas", 4, "all"): (3.1e-05, 1.8e-08, 1.5e-09, 4.9e-10, 8.3e-10, 1.7e-11),
        ("numpy", 8, "one"): (4.3e-05, 1.1e-07, 4.7e-09, 1.2e-09, 1.8e-09, 8.3e-11),
        ("numpy", 8, "all"): (4.5e-05, 9e-08, 4.8e-09, 1.1e-09, 1.5e-09, 4.1e-11),
        ("fused", 8, "one"): (4.3e-06, 1.6e-08, 2.3e-09, 2.7e-10, 1.4e-09, 6.5e-11),
        ("fused", 8, "all"): (4.8e-06, 1.2e-08, 2.6e-09, 3.1e-10, 2.1e-09, 2.5e-11),
        ("blas", 8, "one"): (3.1e-05, 1.7e-08, 2.4e-09, 1.1e-09, 1.3e-09, 7.9e-11),
        ("blas", 8, "all"): (3.3e-05, 1.5e-08, 2.2e-09, 1e-09, 1.4e-09, 4.2e-11),
    },
)
