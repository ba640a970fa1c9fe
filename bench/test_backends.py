"""Loss and gradient: every loss on every backend. A group is a loss at a size, so that
pytest-benchmark's own table and histogram (``--benchmark-histogram``) compare backends.
"""

from __future__ import annotations

from typing import Any

import pytest
from problems import make_objective, pairs

SIZES = {"small": (200, 65, 10), "minibatch": (256, 3073, 10), "large": (4000, 3073, 10)}
# Python loops take seconds there and minutes over the rounds.
TOO_LARGE_FOR_LOOPS = {"minibatch", "large"}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("loss", "backend"), pairs(), ids="-".join)
def test_loss_and_gradient(benchmark: Any, loss: str, backend: str, size: str) -> None:
    if backend == "naive" and size in TOO_LARGE_FOR_LOOPS:
        pytest.skip("Python loops are too slow for this size")
    n_rows, n_features, n_classes = SIZES[size]
    benchmark.group = f"{loss} {n_rows} x {n_features} x {n_classes}"
    objective, W = make_objective(loss, backend, SIZES[size])
    # Compiled before the clock starts.
    expected = objective(W)[0]
    assert benchmark(objective, W)[0] == pytest.approx(expected)
