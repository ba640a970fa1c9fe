"""Loss and gradient by your own functions, in the groups of the backends: ``--candidate``."""

from __future__ import annotations

from typing import Any

import pytest
from problems import MOST_SECONDS, chosen_sizes, make_problem, seconds_of_rows
from suite import CALIBRATED, Contender, Suite, errors_of_loss_and_grad

from fastloss import tables
from fastloss.candidates import Candidate

pytestmark = CALIBRATED


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each case, with ids such as ``softmax-200x65x10-my_module:my_function``."""
    names = ("loss", "size", "candidate")
    candidates = metafunc.config.getoption("candidate", default=None)
    if candidates:
        loss = metafunc.config.getoption("candidate_loss")
        sizes = chosen_sizes(metafunc.config)
        cases = [
            pytest.param(loss, size, candidate, id=f"{loss}-{size}-{candidate.name}")
            for size in sizes
            for candidate in candidates
        ]
    else:
        skip = pytest.mark.skip(reason="your own functions are measured with --candidate")
        cases = [pytest.param("", "", None, id="candidates", marks=skip)]
    metafunc.parametrize(names, cases)


def test_loss_and_grad_of_candidate(
    benchmark: Any, suite: Suite, loss: str, size: str, candidate: Candidate
) -> None:
    problem = make_problem(size)
    X, y, W = problem.X, problem.y, problem.W
    needed = seconds_of_rows(lambda n: candidate.bind(W, X[:n], y[:n]), len(X))
    if needed > MOST_SECONDS:
        pytest.skip(f"one call would take about {tables.seconds(needed)}")
    check = errors_of_loss_and_grad(candidate.name, loss, problem)
    contender = Contender(
        name=candidate.name,
        kind="candidate",
        loss=loss,
        problem=problem,
        call=candidate.bind(W, X, y),
        check=lambda returned: check(candidate.result(returned)),
    )
    suite.measure(benchmark, f"{loss} {problem.title}", contender)
