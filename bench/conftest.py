"""The benchmark suite: options, and what it tells pytest-benchmark.

Measure, on a quiet machine (about 3 minutes; the first run compiles first)::

    pytest bench                                  # every loss and size, backends side by side
    pytest bench -k "softmax and numba"           # some of it, by words of the ids
    pytest bench --sizes small,mnist_full,64x10x7 # other sizes: names, N x D x C, or all
    pytest bench --peers                          # PyTorch, JAX and scikit-learn too, if installed
    pytest bench --candidate my_module:my_function  # your own too, softmax or --candidate-loss;
                                                  # --l2, --intercept, --layout, --order as in check
    pytest bench --benchmark-histogram            # an SVG for each group
    pytest bench --benchmark-json suite.json && python bench/suite_report.py suite.json

Compare with an earlier run of this machine, and fail if a median is more than 10 % longer::

    pytest bench --benchmark-autosave
    pytest bench --benchmark-compare --benchmark-compare-fail=median:10%

``--benchmark-max-time`` is the time of each benchmark's rounds. Paths come before
``--benchmark-compare`` and ``--benchmark-histogram``, which would take them for their values.

All contenders run in this one process, one after the other, so their thread pools can disturb each
other, and noise of the machine meets some of them only. ``fastloss bench`` is more careful: each
contender has a process of its own, and they take turns.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest
from problems import LARGE_SIZES, SIZES, parse_sizes
from suite import Suite, machine, start

from fastloss.candidates import as_candidates, resolve_candidate
from fastloss.cli.common import convention_of
from fastloss.losses import available_losses
from fastloss.settings import threads_to_use

# To look for doctests in a lesson would be to run it.
collect_ignore_glob = ["lessons/[0-9]*.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("fastloss", "the benchmark suite of fastloss")
    group.addoption(
        "--sizes",
        type=parse_sizes,
        metavar="SIZES",
        help=f"names, NxDxC or 'all', between commas (default: {','.join(SIZES)}; "
        f"larger: {','.join(LARGE_SIZES)})",
    )
    group.addoption(
        "--candidate",
        action="append",
        metavar="my_module:my_function",
        help="verify and measure your function (W, X, y) -> (loss, dW) too; may be repeated",
    )
    group.addoption(
        "--candidate-loss",
        choices=available_losses(),
        default="softmax",
        help="the loss that it computes (default: softmax)",
    )
    group.addoption(
        "--l2", type=float, default=0.0, help="the candidate's loss has l2 * sum(W**2) in it"
    )
    group.addoption("--intercept", action="store_true", help="the candidate's W has a bias row")
    group.addoption("--layout", default="dc", help="the candidate's W: dc (D, C) or cd (C, D)")
    group.addoption("--order", default="W,X,y", help="the candidate's arguments, such as X,y,W")
    group.addoption("--peers", action="store_true", help="measure other libraries too")
    group.addoption(
        "--no-limit", action="store_true", help="do not measure the limit of the machine"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Give the candidates their convention; put the median first, as means follow interruptions."""
    option = config.option
    try:
        convention = convention_of(
            option.candidate, option.l2, option.intercept, option.layout, option.order
        )
        for place in option.candidate or ():
            resolve_candidate(place)
        option.candidate = as_candidates(option.candidate or [], convention)
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(str(error)) from None
    if config.option.benchmark_columns is None:
        config.option.benchmark_columns = ["median", "iqr", "min", "max", "rounds", "iterations"]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Count a failure once: for pytest-benchmark, an unused benchmark is another error."""
    report = yield
    benchmark = getattr(item, "funcargs", {}).get("benchmark")
    if report.failed and benchmark is not None:
        benchmark.skipped = True
    return report


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Let two runs on one machine compare as such, unless their numbers of threads differ."""
    for name in ("hz_actual", "hz_actual_friendly"):  # the clock at this moment
        machine_info["cpu"].pop(name, None)
    machine_info["threads"] = threads_to_use()


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    """Store what a reader needs to judge the figures."""
    output_json["fastloss"] = machine()


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest) -> Iterator[Suite]:
    """Measure contenders; the limits of the machine are kept for the session."""
    with start(measure_limit=not request.config.getoption("no_limit")) as suite:
        yield suite
