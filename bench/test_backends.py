"""Loss and gradient: every loss on every backend. A group is a loss at a size, so that
pytest-benchmark's own table and histogram (``--benchmark-histogram``) compare backends.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from problems import MOST_SECONDS, backend_cases, chosen_sizes, make_problem, seconds_of_call
from suite import CALIBRATED, Contender, Suite, errors_of_loss_and_grad

from fastloss import tables

pytestmark = CALIBRATED


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each case, with ids such as ``softmax-200x65x10-numba``."""
    cases = backend_cases(chosen_sizes(metafunc.config))
    metafunc.parametrize(("loss", "size", "backend"), cases, ids=map("-".join, cases))


def test_loss_and_grad(benchmark: Any, suite: Suite, loss: str, size: str, backend: str) -> None:
    problem = make_problem(size)
    needed = seconds_of_call(loss, backend, problem)
    if needed > MOST_SECONDS:
        pytest.skip(f"one call would take about {tables.seconds(needed)}")
    contender = Contender(
        name=backend,
        kind="backend",
        loss=loss,
        problem=problem,
        call=partial(problem.objective(loss, backend), problem.W),
        check=errors_of_loss_and_grad(backend, problem.objective(loss, "numpy"), problem.W),
    )
    suite.measure(benchmark, f"{loss} {problem.title}", contender)
