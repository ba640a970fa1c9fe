"""Loss and gradient by your own functions, in the groups of the backends: ``--candidate``.

A function is verified once, as by ``fastloss check``. A wrong one is one failure: it is skipped at
the other sizes. The backends beside it compute the loss alone, without the terms of its convention.
"""

from __future__ import annotations

from typing import Any

import pytest
from problems import MOST_SECONDS, chosen_sizes, make_problem, seconds_of_rows, size_of_id
from suite import CALIBRATED, Contender, Suite, errors_of_loss_and_grad

from fastloss import tables
from fastloss.benchmark.candidates import verified
from fastloss.benchmark.run import VerificationError, with_bias_row
from fastloss.candidates import Candidate

pytestmark = CALIBRATED
# The candidates of this session that were verified already; None for a wrong one.
_verified: dict[str, Candidate | None] = {}


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


def _right(candidate: Candidate, loss: str, sizes: list[str]) -> Candidate:
    """Return the candidate with what its verification found; fail if it is wrong, but once."""
    if candidate.name not in _verified:
        _verified[candidate.name] = None
        try:
            (right,), _ = verified([candidate], loss, sizes=[size_of_id(size) for size in sizes])
        except VerificationError as error:
            pytest.fail(str(error), pytrace=False)
        _verified[candidate.name] = right
    found = _verified[candidate.name]
    if found is None:
        pytest.skip(f"{candidate.name} is wrong: its first failure says why")
    return found


def test_loss_and_grad_of_candidate(
    benchmark: Any,
    suite: Suite,
    request: pytest.FixtureRequest,
    loss: str,
    size: str,
    candidate: Candidate,
) -> None:
    candidate = _right(candidate, loss, chosen_sizes(request.config))
    problem = make_problem(size)
    X, y, W = problem.X, problem.y, problem.W
    if candidate.convention.intercept:
        W = with_bias_row(W)
    needed = seconds_of_rows(lambda n: candidate.bind(W, X[:n], y[:n]), len(X))
    if needed > MOST_SECONDS:
        pytest.skip(f"one call would take about {tables.seconds(needed)}")
    reference = candidate.convention.objective(X, y, loss, "numpy")
    errors_of = errors_of_loss_and_grad(candidate.name, reference, W, candidate.precision)
    contender = Contender(
        name=candidate.name,
        kind="candidate",
        loss=loss,
        problem=problem,
        call=candidate.bind(W, X, y),
        check=lambda returned: errors_of(candidate.result(returned)),
    )
    suite.measure(benchmark, f"{loss} {problem.title}", contender)
