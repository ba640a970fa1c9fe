"""Make problems for gradient checks, with and without a planted fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastloss


def problem(
    loss: Any,
    *,
    N: int = 30,
    D: int = 12,
    C: int = 4,
    scale: float = 1.0,
    seed: int = 0,
    dtype: Any = np.float64,
    **options: Any,
):
    """Return an objective on NumPy, and a W for it."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 256, (N, D)) if dtype == np.uint8 else rng.standard_normal((N, D))
    y = rng.integers(0, C, N)
    if options.get("ignore_index") is not None:
        y[::6] = options["ignore_index"]
    if options.pop("weighted", False):
        options["sample_weight"] = rng.uniform(0.0, 2.0, N)
        options["class_weight"] = "balanced"
    W = scale * rng.standard_normal((D + options.get("intercept", False), C))
    return fastloss.Objective(X.astype(dtype), y, loss=loss, backend="numpy", **options), W


def altered(objective: Any, change: Callable[[np.ndarray], Any]) -> Any:
    """Return a copy of an `Objective` that returns a changed gradient."""

    class Altered(fastloss.Objective):
        def __call__(self, W: Any, *, out: Any = None) -> Any:
            loss, gradient = super().__call__(W)
            return loss, change(gradient.copy())

    other = fastloss.Objective.__new__(Altered)
    other.__dict__.update(objective.__dict__)
    return other


def both(objective: Any, change: Callable[[np.ndarray], Any]) -> list[Any]:
    """Return the altered objective as an `Objective` and as a plain callable."""
    wrong = altered(objective, change)
    return [wrong, lambda W: wrong(W)]
