"""What the benchmarks measure: problems by size, and every loss with whatever can compute it."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import pytest
from numpy.typing import NDArray

import fastloss
from fastloss.arrays import Floats
from fastloss.backends import available_backends, get_backend
from fastloss.backends.base import Workload
from fastloss.benchmark.peers import PEERS, Peer
from fastloss.losses import get_loss

#: Sizes ``(N, D, C)`` that every run measures.
SIZES = {
    "small": (200, 65, 10),
    "minibatch": (256, 3073, 10),
    "cifar10": (4000, 3073, 10),
    "mnist": (10_000, 785, 10),
    "many_classes": (1000, 513, 1000),
}
#: Sizes that are measured when they are asked for.
LARGE_SIZES = {
    "cifar10_full": (50_000, 3073, 10),
    "mnist_full": (60_000, 785, 10),
    "tabular": (1_000_000, 31, 2),
    "probe": (20_000, 769, 1000),
    "vocabulary": (64, 768, 32_000),
}
#: Sizes for a run that only checks that the benchmarks work.
QUICK_SIZES = ("small", "minibatch")

#: A call that takes longer is not measured: the suite needs at least ten of them.
MOST_SECONDS = 0.5
_PROBE_ROWS = 4


def size_id(size: tuple[int, int, int]) -> str:
    """Return the size as it stands in the ids of tests, ``200x65x10``."""
    return "x".join(map(str, size))


def size_of_id(text: str) -> tuple[int, int, int]:
    """Return the size ``(N, D, C)`` of an id; ValueError if it is none."""
    numbers = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if numbers is None:
        raise ValueError(f"a size must look like 200x65x10, got {text!r}")
    n_rows, n_features, n_classes = map(int, numbers.groups())
    return n_rows, n_features, n_classes


def parse_sizes(text: str) -> list[str]:
    """Return the ids of the sizes in ``text``: names, ``NxDxC`` or ``all``, between commas.

    Raises `argparse.ArgumentTypeError`, which names the known sizes.
    """
    known = SIZES | LARGE_SIZES
    ids: dict[str, None] = {}
    for word in text.split(","):
        try:
            chosen = known if word == "all" else [word]
            ids |= dict.fromkeys(size_id(known.get(w) or size_of_id(w)) for w in chosen)
        except ValueError as error:
            names = ", ".join(known)
            raise argparse.ArgumentTypeError(f"{error}, or be 'all' or a name ({names})") from None
    return list(ids)


def chosen_sizes(config: pytest.Config) -> list[str]:
    """Return the ids of the sizes that this run measures: ``--sizes``, or the usual ones."""
    sizes: list[str] | None = config.getoption("sizes", default=None)
    if sizes is None:
        quick = config.getoption("benchmark_disable") and not config.getoption("benchmark_enable")
        sizes = [size_id(SIZES[name]) for name in (QUICK_SIZES if quick else SIZES)]
    return sizes


@dataclass(frozen=True)
class BenchProblem:
    """A synthetic problem: ``X`` (N, D), ``y`` (N,) and a ``W`` (D, C) with scores of about 1."""

    X: Floats
    y: NDArray[np.int64]
    W: Floats

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(N, D, C)``."""
        return len(self.X), *self.W.shape

    @property
    def title(self) -> str:
        """``N x D x C`` and the type."""
        return f"{' x '.join(map(str, self.shape))} {self.X.dtype}"

    def objective(self, loss: str, backend: str) -> fastloss.Objective:
        """Return the mean loss over all rows."""
        return fastloss.Objective(self.X, self.y, loss=loss, backend=backend)


# One at a time: some are large. Tests are in the order of their sizes.
@lru_cache(maxsize=1)
def make_problem(size: str, dtype: str = "float32") -> BenchProblem:
    """Return the problem of a size (an id); the same arguments give the same arrays."""
    n_rows, n_features, n_classes = size_of_id(size)
    dataset = fastloss.data.synthetic(n_rows, n_features, n_classes, seed=0, dtype=dtype)
    rng = np.random.default_rng(0)
    W = rng.standard_normal((n_features, n_classes)) / np.sqrt(n_features)
    return BenchProblem(dataset.X, dataset.y, W.astype(dtype))


def backend_cases(sizes: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return ``(loss, size, backend)``: every loss with all backends that can run it."""
    return [
        (loss, size, backend)
        for size in sizes
        for loss in fastloss.available_losses()
        for backend in available_backends(get_loss(loss))
    ]


#: Peers by the words that stand for them in the ids of tests.
PEERS_BY_ID: dict[str, Peer] = {
    re.sub(r"[^a-z0-9]+", "_", peer.name.lower()): peer for peer in PEERS
}


def peer_cases(sizes: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return ``(loss, size, peer)``: every peer with every loss that it computes."""
    return [
        (loss, size, name)
        for size in sizes
        for loss in fastloss.available_losses()
        for name, peer in PEERS_BY_ID.items()
        if loss in peer.losses
    ]


def seconds_of_call(loss: str, backend: str, problem: BenchProblem) -> float:
    """Return about how long a call takes: what the backend predicts, else scaled up from 4 rows.

    A few rows are tried only where there is no prediction, because a backend may compile for them.
    """
    n_rows = len(problem.X)
    workload = Workload(get_loss(loss), problem.shape, problem.X.dtype, problem.W.dtype)
    predicted = get_backend(backend).predict(workload)
    if predicted:
        return min(predicted.values())
    objective = problem.objective(loss, backend)
    return seconds_of_rows(lambda n: partial(objective.batch(slice(n)), problem.W), n_rows)


def seconds_of_rows(bind: Callable[[int], Callable[[], object]], n_rows: int) -> float:
    """Return about how long a call on ``n_rows`` takes; ``bind(n)`` returns the call on n rows."""
    few = min(n_rows, _PROBE_ROWS)
    call = bind(few)
    call()
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * n_rows / few
