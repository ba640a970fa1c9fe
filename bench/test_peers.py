"""Loss and gradient by other libraries, in the groups of the backends. Measured with ``--peers``.

They are in a file of their own, which runs last: their thread pools stay once they have started.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from problems import PEERS_BY_ID, chosen_sizes, make_problem, peer_cases
from suite import CALIBRATED, Contender, Suite, errors_of_loss_and_grad

from fastloss.benchmark.peers import PeerProblem
from fastloss.settings import threads_to_use

# The warnings of other libraries are theirs to mend.
pytestmark = [CALIBRATED, pytest.mark.filterwarnings("ignore")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each case, with ids such as ``softmax-200x65x10-jax_optax``."""
    names = ("loss", "size", "peer")
    if metafunc.config.getoption("peers", default=False):
        cases = peer_cases(chosen_sizes(metafunc.config))
        metafunc.parametrize(names, cases, ids=map("-".join, cases))
    else:
        skip = pytest.mark.skip(reason="other libraries are measured with --peers")
        metafunc.parametrize(names, [pytest.param("", "", "", id="peers", marks=skip)])


@pytest.fixture
def _same_cpus() -> Iterator[None]:
    """Give back the CPUs of this process: JAX's peer leaves it one for each of its threads."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    yield
    if cpus:
        os.sched_setaffinity(0, cpus)


@pytest.mark.usefixtures("_same_cpus")
def test_loss_and_grad_of_peer(
    benchmark: Any, suite: Suite, loss: str, size: str, peer: str
) -> None:
    library = PEERS_BY_ID[peer]
    if reason := library.unavailable(loss):
        pytest.skip(f"{library.name}: {reason}")
    problem = make_problem(size)
    W = np.ascontiguousarray(problem.W.T)
    try:
        call = library.bind(PeerProblem(loss, problem.X, problem.y, W, threads_to_use()))
        call()
    except Exception as error:  # such as a missing compiler: no fault of the suite
        lines = str(error).splitlines()
        pytest.skip(f"{library.name}: {lines[0] if lines else type(error).__name__}")
    check = errors_of_loss_and_grad(library.name, problem.objective(loss, "numpy"), problem.W)
    contender = Contender(
        name=library.name,
        kind="peer",
        loss=loss,
        problem=problem,
        call=call,
        check=lambda result: check((float(result[0]), np.asarray(result[1]).T)),
    )
    suite.measure(benchmark, f"{loss} {problem.title}", contender)
