"""Contenders in processes of their own."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

from fastloss.benchmark.worker import Session, Worker, WorkerError


@dataclass(frozen=True)
class Evaluate:
    """A task that evaluates an expression; importable in the worker through the search path."""

    expression: str

    def bind(self) -> Callable[[], Any]:
        return partial(eval, self.expression, {"np": np, "os": os, "sys": sys})


@pytest.fixture(scope="module")
def worker():
    with Worker(n_threads=1) as one:
        yield one


def test_a_task_runs_in_another_process_with_its_own_threads(worker):
    assert worker.run(Evaluate("os.getpid()")) != os.getpid()
    assert worker.run(Evaluate("__import__('numba').get_num_threads()")) == 1
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        assert worker.run(Evaluate(f"os.environ['{variable}']")) == "1"


def test_prints_of_a_contender_do_not_disturb_the_replies(worker):
    assert worker.run(Evaluate("print('hello') or sys.stdout.flush() or 42")) == 42


def test_an_error_is_told_and_the_worker_goes_on(worker):
    with pytest.raises(WorkerError, match="ZeroDivisionError: division by zero"):
        worker.run(Evaluate("1 / 0"))
    assert worker.run(Evaluate("1 + 1")) == 2


def test_a_task_that_cannot_travel_leaves_the_worker_usable(worker):
    with pytest.raises(TypeError, match="cannot pickle"):
        worker.run(threading.Lock())
    assert worker.run(Evaluate("3")) == 3


def test_a_process_that_ends_is_an_error():
    with Worker(1) as one, pytest.raises(WorkerError, match="ended with code 7"):
        one.run(Evaluate("os._exit(7)"))


def test_prepare_times_the_first_call_and_keeps_it_for_sampling(worker):
    seconds, result = worker.prepare(Evaluate("sum(range(1000))"))
    assert result == 499500
    assert seconds > 0
    n_calls, single = worker.calibrate(0.01)
    assert n_calls * single >= 0.01
    assert worker.sample(n_calls, 0.0) > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident peak is Linux only")
def test_peak_extra_bytes_sees_temporaries(worker):
    worker.prepare(Evaluate("np.ones(2**23).sum()"))
    peak = worker.peak_extra_bytes()
    assert 0.9 * 2**26 < peak < 1.5 * 2**26
    worker.prepare(Evaluate("1"))
    assert worker.peak_extra_bytes() < 2**23


def test_a_session_is_the_same_in_this_process():
    with Session() as session:
        assert session.run(Evaluate("os.getpid()")) == os.getpid()
        assert session.prepare(Evaluate("7"))[1] == 7
        assert session.sample(2, 0.0) >= 0


def test_module_that_measures_when_imported_ends(tmp_path, run_python):
    """Its function's process imports the module, and would measure too, and so on."""
    (tmp_path / "measures.py").write_text(
        "import numpy as np, fastloss\n"
        "from fastloss.benchmark import Settings, compare\n"
        "def mine(W, X, y):\n"
        "    return fastloss.loss_and_grad(W, X, y, backend='numpy')\n"
        "X, y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2\n"
        "settings = Settings(max_rounds=1, measure_ceilings=False, first_calls=False)\n"
        "results = compare({'mine': mine}, X, y, backends=('numpy',), settings=settings)\n"
        "print(results.cells[0].timing('mine').note)\n"
    )
    note = run_python("import measures", tmp_path)
    assert note.startswith("timed in this process")
    assert "must not start another benchmark" in note
