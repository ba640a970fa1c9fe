"""One full gradient, numerical and analytic, as the parameter count grows. A group is a count."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import pytest
from problems import make_problem, size_id
from suite import (
    CALIBRATED,
    Contender,
    Suite,
    errors_of_loss_and_grad,
    errors_of_numerical_gradient,
)

import fastloss
from fastloss.backends import available_backends
from fastloss.losses import get_loss

pytestmark = CALIBRATED

LOSS = "softmax"
N_ROWS, N_CLASSES = 100, 10
FEATURE_COUNTS = (10, 30, 100)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make tests with ids such as ``per_element-1000-parameters`` and ``analytic-numpy-1000-...``.

    Numerical gradients are those of the NumPy backend; analytic ones are those of every backend.
    """
    names = available_backends(get_loss(LOSS))
    methods = [
        ("per_element", "numpy"),
        ("incremental", "numpy"),
        *(("analytic", name) for name in names),
    ]
    cases = [(method, name, count) for count in FEATURE_COUNTS for method, name in methods]
    ids = [f"{method}-{name}-{count * N_CLASSES}-parameters" for method, name, count in cases]
    metafunc.parametrize(("method", "backend", "n_features"), cases, ids=ids)


def test_gradient(
    benchmark: Any,
    suite: Suite,
    method: Literal["analytic", "per_element", "incremental"],
    backend: str,
    n_features: int,
) -> None:
    problem = make_problem(size_id((N_ROWS, n_features, N_CLASSES)), "float64")
    objective = problem.objective(LOSS, backend)
    contender = Contender(
        name=backend,
        kind="backend",
        loss=LOSS,
        problem=problem,
        call=partial(objective, problem.W),
        check=errors_of_loss_and_grad(backend, problem.objective(LOSS, "numpy"), problem.W),
    )
    if method != "analytic":
        contender = Contender(
            name=f"numerical, {method.replace('_', ' ')}",
            kind="numerical",
            loss=LOSS,
            problem=problem,
            call=partial(fastloss.numerical_gradient, objective, problem.W, method=method),
            check=errors_of_numerical_gradient(method, LOSS, problem),
        )
    suite.measure(benchmark, f"{LOSS} gradient of {problem.W.size} parameters", contender)
