"""One full gradient, numerical and analytic, as the parameter count grows. A group is a count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from problems import make_objective

import fastloss

N_ROWS, N_CLASSES = 100, 10


@pytest.mark.parametrize("n_features", [10, 30, 100])
@pytest.mark.parametrize("method", ["per_element", "incremental", "analytic"])
def test_full_gradient(benchmark: Any, method: str, n_features: int) -> None:
    benchmark.group = f"{n_features * N_CLASSES} parameters"
    objective, W = make_objective("softmax", "numpy", (N_ROWS, n_features, N_CLASSES))
    objective, W = objective.astype(np.float64), W.astype(np.float64)
    expected = objective(W)[1]
    if method == "analytic":
        gradient = benchmark(objective, W)[1]
    else:
        gradient = benchmark(fastloss.numerical_gradient, objective, W, method=method)
    np.testing.assert_allclose(gradient, expected, atol=1e-8)
