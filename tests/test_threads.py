"""Any number of threads, of Numba's or Python's, and processes: the same bits, and no harm."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest
from oracle import LOSSES

import fastloss

numba = pytest.importorskip("numba")

# Several chunks, the last one short; several blocks a chunk; wide rows; one row.
SHAPES = [(5003, 9, 5), (2050, 130, 3), (67, 3073, 10), (1, 5, 2)]


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
        for n_threads in (1, 2, 1, 2, None):
            with fastloss.use(backend="numba", n_threads=n_threads):
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
        total, dW = fastloss.loss_and_grad(W, X, y, loss, backend="numba", n_threads=n_threads)
        print(loss, hashlib.sha256(np.float64(total).tobytes() + dW.tobytes()).hexdigest())
"""


def test_same_bits_with_more_threads_than_cores_and_in_another_process(run_python):
    lines = run_python(DIGESTS, NUMBA_NUM_THREADS="7").split("\n")[:-1]
    assert len(lines) == 8
    assert len(set(lines)) == 2
    rng = np.random.default_rng(0)
    X = rng.standard_normal((9000, 9)).astype("f4")
    W = rng.standard_normal((9, 5)).astype("f4")
    total, dW = fastloss.loss_and_grad(W, X, rng.integers(0, 5, 9000), backend="numba")
    digest = hashlib.sha256(np.float64(total).tobytes() + dW.tobytes()).hexdigest()
    assert lines[0] == f"softmax {digest}"


# Alone in a process: Numba's workqueue aborts when two threads launch at once.
CONCURRENT = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import fastloss

rng = np.random.default_rng(0)
X = rng.standard_normal((3000, 20))
W = rng.standard_normal((20, 5))
y = rng.integers(0, 5, 3000)
losses = ["softmax", "hinge", "crammer_singer", "one_vs_all"]
one_by_one = [fastloss.loss_and_grad(W, X, y, loss, backend="naive") for loss in losses]

def call(i):
    loss, (expected, gradient) = losses[i % 4], one_by_one[i % 4]
    backend = ("numba", "numba", "numba", "auto", "numpy")[i % 5]
    with fastloss.use(n_threads=(1, 2, None)[i % 3]):
        total, dW = fastloss.loss_and_grad(W, X, y, loss, backend=backend)
    np.testing.assert_allclose(total, expected, rtol=1e-12)
    np.testing.assert_allclose(dW, gradient, rtol=1e-9, atol=1e-12)

# The first calls come at once, and find nothing compiled.
with ThreadPoolExecutor(8) as pool:
    list(pool.map(call, range(400)))
print("done")
"""


@pytest.mark.parametrize("layer", ["default", "workqueue", "omp"])
def test_calls_from_several_python_threads(layer, run_python):
    output = run_python(CONCURRENT, NUMBA_THREADING_LAYER=layer)
    assert output == "done\n"


FORKED = """
import os, sys
import numpy as np
import fastloss

X, W, y = np.ones((6000, 500)), np.zeros((500, 10)), np.arange(6000) % 10
assert fastloss.explain(6000, 500, 10).backend == "numba"
expected, _ = fastloss.loss_and_grad(W, X, y)

import numba
openmp = numba.threading_layer() == "omp"
read, write = os.pipe()
child = os.fork()
if child == 0:
    try:
        total, _ = fastloss.loss_and_grad(W, X, y)
        np.testing.assert_allclose(total, expected)
        told = fastloss.explain(6000, 500, 10)
        assert told.backend == ("numpy" if openmp else "numba"), told
        try:
            fastloss.loss_and_grad(W, X, y, backend="numba")
            answer = "ran"
        except RuntimeError as error:
            answer = str(error)
            assert answer == "backend 'numba' cannot run: " + told.unavailable["numba"]
        os.write(write, answer.encode())
    finally:
        os._exit(0)
os.close(write)
answer = os.read(read, 1000).decode()
assert os.waitpid(child, 0)[1] == 0
assert answer.endswith("would kill it") if openmp else answer == "ran", answer
# The parent goes on.
fastloss.loss_and_grad(W, X, y, backend="numba")
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("layer", ["default", "workqueue", "omp"])
def test_a_forked_child_gets_an_answer(layer, run_python):
    # Python 3.12 warns of any fork of a process with threads, which is the point here.
    code = "import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n" + FORKED
    assert run_python(code, NUMBA_THREADING_LAYER=layer, timeout=60) == "done\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_forked_before_numba_ran_may_use_it(run_python):
    code = """
        import multiprocessing
        import numpy as np
        import fastloss

        def call(_):
            X, W = np.ones((500, 20)), np.zeros((20, 10))
            return fastloss.loss_and_grad(W, X, np.zeros(500, int), backend="numba")[0]

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
def test_nothing_heavy_is_imported_before_it_is_needed(use, run_python):
    heavy = ["numba", "llvmlite", "matplotlib", "rich", "scipy", "sklearn", "torch", "typer"]
    code = f"import sys, fastloss\n{use}\nprint([name for name in {heavy} if name in sys.modules])"
    assert run_python(code) == "[]\n"
