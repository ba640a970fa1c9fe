"""Tests that threads and processes end, and leave no limits or workers behind."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import fastloss
from fastloss import threads
from fastloss.backends import parallel
from fastloss.backends.background import Compilations
from fastloss.benchmark.worker import Worker, WorkerError
from fastloss.doctor import examine
from fastloss.kernels import matrix_unit
from fastloss.threads import Team, available_threads, blas_threads, cpu_quota
from fastloss.training import Prepared, Settings, Splits, fill_in, run_sweep

several_cpus = pytest.mark.skipif(threads.usable_cpus() < 2, reason="one CPU, no helpers")


def blas_now() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


# Helpers


@several_cpus
@pytest.mark.parametrize("kind", [MemoryError, KeyboardInterrupt, SystemExit])
def test_error_in_a_helper_reaches_the_caller_and_spares_the_team(kind):
    team = Team()
    seen = threading.Event()

    def fail() -> bool:
        if threading.current_thread().name != "fastloss":
            return not seen.wait(30)
        seen.set()
        raise kind("in a helper")

    for _ in range(3):
        seen.clear()
        with pytest.raises(kind, match="in a helper"):
            team.run(fail, (), 2)
    helped = threading.Event()

    def succeed() -> bool:
        if threading.current_thread().name != "fastloss":
            return helped.wait(30)
        helped.set()
        return True

    team.run(succeed, (), 2)
    assert helped.is_set()


@several_cpus
def test_run_does_not_wait_for_a_busy_helper():
    team = Team()
    busy, leave = threading.Event(), threading.Event()

    def occupy() -> bool:
        if threading.current_thread().name == "fastloss":
            busy.set()
            return leave.wait(30)
        return busy.wait(30)

    team.run(occupy, (), 2)
    began = time.monotonic()
    with pytest.raises(ValueError, match="the caller's"):
        team.run(lambda: (_ for _ in ()).throw(ValueError("the caller's")), (), 2)
    team.run(lambda: False, (), 2)
    assert time.monotonic() - began < 10
    leave.set()


@several_cpus
def test_failed_thread_start_runs_on_the_calling_thread(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    Team().run(lambda: not done.append(1), (), 2)
    assert done == [1]
    compilations = Compilations()
    assert not compilations.start("key", lambda: None)
    compilations.wait()


def test_wait_for_a_compilation_times_out():
    compilations, go_on = Compilations(), threading.Event()
    compilations.start("key", lambda: go_on.wait(30))
    began = time.monotonic()
    compilations.wait(0.1)
    assert time.monotonic() - began < 10
    go_on.set()
    compilations.wait()


# Limits of BLAS


@several_cpus
def test_overlapping_blas_limits_are_restored_in_any_order():
    before = blas_now()
    first, second = blas_threads(1), blas_threads(2)
    first.__enter__()
    other = threading.Thread(target=second.__enter__)
    other.start()
    other.join()
    assert set(blas_now()) == {1}  # the smaller limit counts
    first.__exit__(None, None, None)
    assert set(blas_now()) == {2}
    second.__exit__(None, None, None)
    assert blas_now() == before


@several_cpus
def test_blas_limits_are_restored_after_calls_from_several_threads():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((500, 20)), rng.integers(0, 3, 500)
    objective = fastloss.Objective(X, y, backend="numpy")
    W, before, seen = np.zeros((20, 3)), blas_now(), []

    def work(n_threads: int) -> None:
        with fastloss.use(n_threads=n_threads):
            for _ in range(100):
                objective(W)
        seen.append(n_threads)

    workers = [threading.Thread(target=work, args=(n,)) for n in (1, 2, 1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(seen) == [1, 1, 2, 2]
    assert blas_now() == before


INTERRUPTED = """
import gc, sys
import numpy as np
from threadpoolctl import threadpool_info
import fastloss
from fastloss.losses import jit
from fastloss.settings import threads_to_use
from fastloss.threads import blas_threads

def state():
    blas = [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]
    return blas, numba.get_num_threads(), gc.isenabled(), threads_to_use()

def limited():
    with blas_threads(1), jit.numba_threads(1), no_garbage_collection(False):
        with fastloss.use(n_threads=7):
            pass

def interrupt_at(k):
    'Raise KeyboardInterrupt at the k-th call or line inside of fastloss, as Ctrl-C does.'
    count = 0
    def trace(frame, event, argument):
        nonlocal count
        if event not in ("call", "line") or "/fastloss/" not in frame.f_code.co_filename:
            return trace
        count += 1
        if count == k:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace
    sys.settrace(trace)
    try:
        limited()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False

import numba
from fastloss.restoring import no_garbage_collection
limited()
before = state()
k = 1
while interrupt_at(k):
    assert state() == before, (k, state(), before)
    k += 1
assert k > 50
print("done")
"""


def test_interrupt_anywhere_leaves_no_limit_behind(run_python):
    pytest.importorskip("numba")
    assert run_python(INTERRUPTED) == "done\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child_drops_the_limits_of_other_threads(run_python):
    code = """
        import os, threading, warnings
        import numpy as np
        from threadpoolctl import threadpool_info
        from fastloss.threads import blas_threads

        warnings.simplefilter("ignore", DeprecationWarning)
        def blas():
            return [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]
        before, entered, leave = blas(), threading.Event(), threading.Event()
        def hold():
            with blas_threads(1):
                entered.set()
                leave.wait(30)
        thread = threading.Thread(target=hold)
        thread.start()
        entered.wait(30)
        child = os.fork()
        if child == 0:
            with blas_threads(2):
                pass
            os._exit(0 if blas() == before else 1)
        assert os.waitpid(child, 0)[1] == 0
        leave.set()
        thread.join()
        assert blas() == before
        print("done")
        """
    assert run_python(code, timeout=60) == "done\n"


# Workers and sweeps


class Sleep:
    def bind(self):
        return lambda: time.sleep(60)


class Fork:
    """A task that ends the process, but leaves a child that keeps the pipes open."""

    def bind(self):
        if os.fork():
            os._exit(3)
        time.sleep(5)
        os._exit(0)


def test_contender_that_never_answers_is_an_error():
    with Worker(1, most_seconds=1.0) as worker, pytest.raises(WorkerError, match=r"in 1 s"):
        worker.prepare(Sleep())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_end_of_a_contender_is_noticed_while_its_child_keeps_the_pipes():
    began = time.monotonic()
    with Worker(1) as worker, pytest.raises(WorkerError, match="ended with code 3"):
        worker.run(Fork())
    assert time.monotonic() - began < 4.5


@pytest.mark.parametrize("submitted", [0, 1])
def test_interrupt_while_trials_are_submitted_loses_no_trial(submitted, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    submit = ThreadPoolExecutor.submit
    calls = []

    def interrupted(pool, *arguments):
        future = submit(pool, *arguments)
        calls.append(future)
        if len(calls) == submitted + 1:
            future.result()
            raise KeyboardInterrupt
        return future

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    data = fastloss.data.synthetic(60, 4, 3)
    prepared = Prepared.of(Splits(data.rows(slice(40)), data.rows(slice(40, None))))
    points = [fill_in(Settings(epochs=2.0, batch_size=20), prepared.scale)] * 3
    trials = run_sweep(prepared, points, n_threads=1)
    assert sorted(trial.number for trial in trials) == [0, 1, 2]
    assert sum(trial.result is not None for trial in trials) == submitted + 1


# The number of threads


def test_smallest_thread_limit_counts(monkeypatch):
    most = threads.usable_cpus()
    for name in threads.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert available_threads() == min(most, cpu_quota())
    for name in threads.THREAD_VARIABLES:
        for value, expected in [("1", 1), ("1,4", 1), (" 1 ", 1)]:
            monkeypatch.setenv(name, value)
            assert available_threads() == expected
            assert threads.thread_limits()[name] == expected
            assert fastloss.explain(9000, 900, 10).n_threads == expected
        for value in ("", "0", "-1", "many", "99999"):
            monkeypatch.setenv(name, value)
            assert available_threads() == min(most, cpu_quota())
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with fastloss.use(n_threads=3):
        assert fastloss.explain(9, 9, 3, backend="numpy").n_threads == 3
    monkeypatch.setenv("FASTLOSS_NUM_THREADS", "2")
    assert fastloss.explain(9, 9, 3, backend="numpy").n_threads == 2


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "9" * 5000])
def test_bad_number_of_threads_names_its_variable(monkeypatch, value):
    monkeypatch.setenv("FASTLOSS_NUM_THREADS", value)
    with pytest.raises(ValueError, match="FASTLOSS_NUM_THREADS must be an integer >= 1"):
        fastloss.explain(9, 9, 3)


def test_bad_backend_names_its_variable(monkeypatch):
    monkeypatch.setenv("FASTLOSS_BACKEND", "nope")
    with pytest.raises(ValueError, match="FASTLOSS_BACKEND: unknown backend 'nope'"):
        fastloss.explain(9, 9, 3)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000"}, 1),
        ("0::/../x\n", {"cpu.max": "300000 100000"}, 3),
        (
            "4:cpu,cpuacct:/docker/x\n0::/\n",
            {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
            2,
        ),
        ("4:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "9"}, 2**31),
        ("0::/\n", {"cpu.max": "nonsense"}, 2**31),
        ("", {}, 2**31),
    ],
)
def test_cpu_quota_of_control_groups(tmp_path, groups, files, expected):
    (tmp_path / "cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "fs") == expected


def test_doctor_names_the_limit_that_decides_the_threads(monkeypatch):
    def found() -> str:
        return next(finding.found for finding in examine() if finding.topic == "threads")

    monkeypatch.setenv("OMP_NUM_THREADS", "1,2")
    assert found().startswith("1, decided by ")
    assert "OMP_NUM_THREADS 1" in found()
    monkeypatch.setenv("FASTLOSS_NUM_THREADS", "3")
    assert found().startswith("3, decided by FASTLOSS_NUM_THREADS (FASTLOSS_NUM_THREADS 3, ")
    monkeypatch.setenv("FASTLOSS_NUM_THREADS", "999")
    advice = next(finding.advice for finding in examine() if finding.topic == "threads")
    assert advice.startswith("more threads than usable CPUs: set FASTLOSS_NUM_THREADS to ")
    monkeypatch.setenv("FASTLOSS_NUM_THREADS", "no")
    assert found() == "none: FASTLOSS_NUM_THREADS must be an integer >= 1, got 'no'"


def test_doctor_names_bad_variables(monkeypatch):
    bad = {
        "FASTLOSS_BACKEND": ("cuda", "FASTLOSS_BACKEND: unknown backend 'cuda'; known: 'naive', "),
        "FASTLOSS_AMX": ("off", "FASTLOSS_AMX must be 0 (no matrix unit) or 1 (the default), got"),
        "MKL_NUM_THREADS": ("two", "no number >= 1, so it limits nothing"),
        "FASTLOSS_NUM_THREADS": ("abc", "FASTLOSS_NUM_THREADS must be an integer >= 1, got 'abc'"),
        "FASTLOSS_THREADS": ("2", "not read; known: FASTLOSS_AMX, FASTLOSS_BACKEND, FASTLOSS_CACH"),
    }
    for variable, (value, _) in bad.items():
        monkeypatch.setenv(variable, value)
    matrix_unit.is_allowed.cache_clear()
    advice = {finding.topic: finding.advice for finding in examine()}
    for variable, (_, beginning) in bad.items():
        assert advice[variable].startswith(beginning)
    with pytest.raises(ValueError, match=r"FASTLOSS_AMX must be 0 .*, got 'off'"):
        matrix_unit.is_allowed()
    monkeypatch.setenv("FASTLOSS_AMX", "0")
    assert not matrix_unit.is_allowed()
    matrix_unit.is_allowed.cache_clear()


def test_calls_notice_bad_variables(monkeypatch, run_python):
    X = np.ones((4, 2))
    monkeypatch.setenv("FASTLOSS_AMX", "maybe")
    with pytest.raises(ValueError, match=r"FASTLOSS_AMX must be 0 .*, got 'maybe'"):
        fastloss.loss_and_grad(np.zeros((2, 3)), X, [0, 1, 2, 0])
    monkeypatch.delenv("FASTLOSS_AMX")
    monkeypatch.setenv("FASTLOSS_THREADS", "2")
    code = """
        import warnings, fastloss
        warnings.simplefilter("always")
        with warnings.catch_warnings(record=True) as told:
            for _ in range(2):
                fastloss.loss_and_grad([[0.0, 0.0]], [[1.0]], [1])
        print(*(f"{warning.filename}: {warning.message}" for warning in told), sep="|")
    """
    told = run_python(code)
    assert told.startswith("<string>: FASTLOSS_THREADS is not read; known: FASTLOSS_AMX, ")
    assert "|" not in told


@several_cpus
@pytest.mark.parametrize("backend", ["numpy", "numba", "fused"])
def test_every_backend_respects_the_number_of_threads(backend, monkeypatch):
    if backend not in fastloss.available_backends():
        pytest.skip("no Numba")
    data = fastloss.data.synthetic(5000, 100, 5)
    W, seen = np.zeros((100, 5), np.float32), []
    team_run, numba_threads = threads.team.run, parallel.numba_threads
    monkeypatch.setattr(threads.team, "run", lambda *a: (seen.append(a[-1]), team_run(*a)))
    monkeypatch.setattr(parallel, "numba_threads", lambda n: (seen.append(n), numba_threads(n))[1])

    class Spy(type(fastloss.Softmax())):
        def vectorized(self, scores, labels):
            seen.append(min(blas_now()))  # unused BLAS libraries may be loaded without a limit
            return super().vectorized(scores, labels)

    loss = Spy() if backend == "numpy" else "softmax"
    with monkeypatch.context() as patch:
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        fastloss.loss_and_grad(W, data.X, data.y, loss, backend=backend)
        assert set(seen) <= {1}
        fastloss.loss_and_grad(W, data.X, data.y, loss, backend=backend, n_threads=2)
        assert max(seen) == 2
