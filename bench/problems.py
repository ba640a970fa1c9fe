"""What the benchmark suites share: problems of the registries' losses and backends."""

from __future__ import annotations

from functools import cache

import numpy as np

import fastloss
from fastloss.arrays import Floats
from fastloss.backends import available_backends
from fastloss.losses import get_loss


@cache
def _problem(n_rows: int, n_features: int, n_classes: int) -> tuple[fastloss.data.Dataset, Floats]:
    """A synthetic data set and a ``W`` with scores of about 1."""
    dataset = fastloss.data.synthetic(n_rows, n_features, n_classes, seed=0)
    rng = np.random.default_rng(0)
    W = rng.standard_normal((n_features, n_classes)) / np.sqrt(n_features)
    return dataset, W.astype(np.float32)


def make_objective(
    loss: str, backend: str, size: tuple[int, int, int]
) -> tuple[fastloss.Objective, Floats]:
    """An objective at a size ``(N, D, C)``, and a ``W`` for it."""
    dataset, W = _problem(*size)
    return fastloss.Objective(dataset.X, dataset.y, loss=loss, backend=backend), W


def pairs() -> list[tuple[str, str]]:
    """Every loss with every backend that can run it."""
    return [
        (loss, backend)
        for loss in fastloss.available_losses()
        for backend in available_backends(get_loss(loss))
    ]
