"""Test calls on several threads, from several Python threads, and in several processes."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import weakref
from queue import SimpleQueue
from threading import Event

import numpy as np
import pytest
from oracle import LOSSES

import fastloss
from fastloss.threads import Team, available_threads

numba = pytest.importorskip("numba")

# Several chunks, the last one short; several blocks a chunk; wide rows; a few rows; many classes.
SHAPES = [(50_003, 9, 5), (5050, 330, 3), (300, 3073, 10), (16, 5, 2), (700, 20, 130)]


@pytest.mark.parametrize("types", [("f4", "f4"), ("f8", "f8"), ("u1", "f4")], ids="-".join)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_same_bits_for_any_number_of_threads(loss, types):
    for n_rows, n_features, n_classes in SHAPES:
        rng = np.random.default_rng(0)
        X = (rng.standard_normal((n_rows, n_features)) * 30).astype(types[0])
        W = (rng.standard_normal((n_features, n_classes)) / 99).astype(types[1])
        y = rng.integers(0, n_classes, n_rows)
        objective = fastloss.Objective(X, y, loss=loss, sample_weight=rng.uniform(0, 1, n_rows))
        results = []
        for n_threads in (1, 2, 3, 2, None):
            with fastloss.use(backend="fused", n_threads=n_threads):
                scores = fastloss.score_gradient(X[:, :1] * W[:1], y, loss=loss)
                results.append((*objective(W), *scores))
        for result in results[1:]:
            for actual, expected in zip(result, results[0], strict=True):
                np.testing.assert_array_equal(actual, expected)


DIGESTS = """
import hashlib
import numpy as np
import fastloss

rng = np.random.default_rng(0)
X = rng.standard_normal((9000, 9)).astype("f4")
W = rng.standard_normal((9, 5)).astype("f4")
y = rng.integers(0, 5, 9000)
for n_threads in (1, 2, 3, 7):
    for loss in ("softmax", "hinge"):
        total, dW = fastloss.loss_and_grad(W, X, y, loss, backend="fused", n_threads=n_threads)
        print(loss, hashlib.sha256(np.float64(total).tobytes() + dW.tobytes()).hexdigest())
"""


def test_same_bits_with_more_threads_than_cores_and_in_another_process(run_python):
    lines = run_python(DIGESTS, NUMBA_NUM_THREADS="7").split("\n")[:-1]
    assert len(lines) == 8
    assert len(set(lines)) == 2
    rng = np.random.default_rng(0)
    X = rng.standard_normal((9000, 9)).astype("f4")
    W = rng.standard_normal((9, 5)).astype("f4")
    total, dW = fastloss.loss_and_grad(W, X, rng.integers(0, 5, 9000), backend="fused")
    digest = hashlib.sha256(np.float64(total).tobytes() + dW.tobytes()).hexdigest()
    assert lines[0] == f"softmax {digest}"


CONCURRENT = """
from concurrent.futures import ThreadPoolExecutor
import numba
import numpy as np
import fastloss

@numba.njit(parallel=True)
def mine(x):
    total = 0.0
    for i in numba.prange(len(x)):
        total += x[i]
    return total

rng = np.random.default_rng(0)
X = rng.standard_normal((30_000, 20))
W = rng.standard_normal((20, 5))
y = rng.integers(0, 5, len(X))
losses = ["softmax", "hinge", "crammer_singer", "one_vs_all"]
one_by_one = [fastloss.loss_and_grad(W, X, y, loss, backend="numpy") for loss in losses]
mine(X[:, 0].copy())

def call(i):
    loss, (expected, gradient) = losses[i % 4], one_by_one[i % 4]
    backend = ("fused", "fused", "fused", "auto", "numpy")[i % 5]
    with fastloss.use(n_threads=(1, 2, None)[i % 3]):
        total, dW = fastloss.loss_and_grad(W, X, y, loss, backend=backend)
    np.testing.assert_allclose(total, expected, rtol=1e-12)
    np.testing.assert_allclose(dW, gradient, rtol=1e-9, atol=1e-12)

# The first calls come at once, before any kernel is compiled.
with ThreadPoolExecutor(8) as pool:
    done = pool.map(call, range(200))
    # Meanwhile a parallel function of the user runs on Numba's threads.
    for _ in range(50):
        np.testing.assert_allclose(mine(X[:, 0].copy()), X[:, 0].sum())
    list(done)
print("done")
"""


@pytest.mark.parametrize(
    "layer", ["default", "workqueue", pytest.param("omp", marks=pytest.mark.deep)]
)
def test_calls_from_several_python_threads(layer, run_python):
    output = run_python(CONCURRENT, NUMBA_THREADING_LAYER=layer)
    assert output == "done\n"


FORKED = """
import os
import numpy as np
import fastloss

X, y = np.ones((6000, 500)), np.arange(6000) % 10
W = np.random.default_rng(0).standard_normal((500, 10))
expected = fastloss.loss_and_grad(W, X, y, backend="fused")  # helpers have been started
wide = fastloss.loss_and_grad(np.tile(W, 9), X, y, backend="fused")  # and BLAS's threads

child = os.fork()
if child == 0:
    status = 1
    try:
        for backend in ("fused", "auto"):
            loss, dW = fastloss.loss_and_grad(W, X, y, backend=backend)
            np.testing.assert_allclose(loss, expected[0], rtol=1e-12)
            np.testing.assert_allclose(dW, expected[1], atol=1e-12)
        loss, dW = fastloss.loss_and_grad(np.tile(W, 9), X, y, backend="fused")
        np.testing.assert_allclose(dW, wide[1], atol=1e-12)
        status = 0
    finally:
        os._exit(status)
assert os.waitpid(child, 0)[1] == 0
# The parent goes on.
fastloss.loss_and_grad(W, X, y, backend="fused")
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("layer", ["default", "workqueue", "omp"])
def test_forked_child_computes(layer, run_python):
    # Python 3.12 warns about forking a process with threads, as this test does.
    code = "import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n" + FORKED
    assert run_python(code, NUMBA_THREADING_LAYER=layer, timeout=60) == "done\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_child_forked_before_numba_ran_computes(run_python):
    code = """
        import multiprocessing
        import numpy as np
        import fastloss

        def call(_):
            X, W = np.ones((500, 20)), np.zeros((20, 10))
            return fastloss.loss_and_grad(W, X, np.zeros(500, int), backend="fused")[0]

        with multiprocessing.get_context("fork").Pool(2) as pool:
            np.testing.assert_allclose(pool.map(call, range(4)), np.log(10))
        print("done")
        """
    assert run_python(code, timeout=60) == "done\n"


@pytest.mark.parametrize(
    "use",
    [
        "",
        "fastloss.loss_and_grad([[0.0, 0.0]], [[1.0]], [0], backend='numpy')",
        "fastloss.loss_and_grad([[0.0, 0.0]], [[1.0]], [0], backend='naive', n_threads=1)",
        "fastloss.Objective([[1.0]], [0]); fastloss.explain(60_000, 785, 10)",
    ],
    ids=["import", "numpy", "naive", "Objective"],
)
def test_heavy_modules_are_imported_late(use, run_python):
    heavy = ["numba", "llvmlite", "matplotlib", "rich", "scipy", "sklearn", "torch", "typer"]
    code = f"import sys, fastloss\n{use}\nprint([name for name in {heavy} if name in sys.modules])"
    assert run_python(code) == "[]\n"


def test_busy_helpers_do_not_block_the_caller():
    """The calling thread does the rest, and does not wait for work that no helper has begun."""
    team = Team()
    may_go_on, pieces = Event(), SimpleQueue()

    def function(name: str) -> bool:
        if threading.current_thread().name == "fastloss":
            assert may_go_on.wait(30)
            return True
        pieces.put(name)
        return True

    for name in "abcde":  # the only helper is busy with the first
        team.run(function, (name,), 2)
    may_go_on.set()
    assert [pieces.get() for _ in range(5)] == [*"abcde"]


@pytest.mark.skipif(available_threads() < 2, reason="one CPU, no helpers")
def test_caller_waits_for_unfinished_helpers():
    team, order = Team(), []

    def function() -> bool:
        if threading.current_thread().name != "fastloss":
            started.wait(30)
            return False
        started.set()
        order.append("helper")
        return True

    started = Event()
    team.run(function, (), 2)
    assert order == ["helper"]


@pytest.mark.skipif(available_threads() < 2, reason="one CPU, no helpers")
def test_helpers_release_arguments():
    team = Team()
    large = np.zeros(10)
    reference = weakref.ref(large)
    seen = Event()

    def function(array: object) -> bool:
        if threading.current_thread().name == "fastloss":
            seen.set()
        return seen.wait(30)

    team.run(function, (large,), 2)
    del large
    deadline = time.monotonic() + 30
    while reference() is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert reference() is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_helpers_run_on_other_cpus_than_the_caller():
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one CPU")
    cpus = sorted(allowed)[:2]
    caller = iter(cpus)
    team, before = Team(lambda: next(caller)), set(threading.enumerate())
    for cpu in cpus:
        team.run(lambda: True, (), 2)
        (helper,) = set(threading.enumerate()) - before
        assert os.sched_getaffinity(helper.native_id) == allowed - {cpu}
    assert os.sched_getaffinity(0) == allowed


def test_unknown_cpu():
    team, left, done = Team(lambda: -1), [0, 1, 2], []

    def take() -> bool:
        while left:
            done.append(left.pop())
        return len(done) == 3

    team.run(take, (), 2)
    assert sorted(done) == [0, 1, 2]
