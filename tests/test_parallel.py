"""Test the numba backend: chunks, Numba's threads and layers, forks, and the cache."""

from __future__ import annotations

import os

import numpy as np
import pytest
from oracle import LOSSES

import fastloss
from fastloss.backends.parallel import chunks_of
from fastloss.losses.base import Loss
from fastloss.losses.jit import Jit, njit, numba_threads, prange, threads_to_use
from fastloss.losses.rows import BLOCK_ROWS

numba = pytest.importorskip("numba")

LAYERS = ["default", "workqueue", "omp"]
by_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


# --- one row --------------------------------------------------------------------------------------


@by_loss
def test_row_form_in_python_equals_naive_form(loss):
    rng = np.random.default_rng(0)
    for n_classes in (2, 3, 10):
        for label in (0, n_classes - 1):
            scores = rng.standard_normal(n_classes)
            expected = loss.naive(scores.tolist(), label)
            actual = loss.row(scores, label, loss.parameters)
            np.testing.assert_allclose(actual, expected[0], rtol=1e-14)
            np.testing.assert_allclose(scores, expected[1], rtol=1e-13, atol=1e-15)


def test_every_loss_has_a_parallel_function_with_prange():
    for loss in LOSSES.values():
        assert loss.parallel.targetoptions == {"parallel": True}
        assert "prange" in loss.parallel.py_func.__code__.co_names


def test_prange_is_range_in_python():
    assert list(prange(3)) == [0, 1, 2]


def test_decorator_without_options():
    @njit
    def double(x: float) -> float:
        """Twice."""
        return 2.0 * x

    assert isinstance(double, Jit)
    assert (double(2.0), double.__name__, double.__doc__) == (4.0, "double", "Twice.")


# --- chunks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_rows", [1, 63, 64, 127, 128, 1000, 4099, 10**7])
@pytest.mark.parametrize("n_parameters", [2, 30_730, 10**8])
def test_chunks_hold_each_row_once(n_rows, n_parameters):
    chunks = chunks_of(n_rows, n_parameters)
    assert chunks[0, 0] == 0
    assert chunks[-1, 1] == n_rows
    np.testing.assert_array_equal(chunks[1:, 0], chunks[:-1, 1])
    assert (chunks[:, 1] > chunks[:, 0]).all()
    assert len(chunks) * n_parameters * 8 <= max(2**28, 8 * n_parameters)


@by_loss
@pytest.mark.parametrize("n_rows", [1, BLOCK_ROWS, BLOCK_ROWS + 1, 16 * BLOCK_ROWS + 3])
def test_results_on_the_edges_of_blocks_and_chunks(loss, n_rows):
    rng = np.random.default_rng(n_rows)
    X, W = rng.standard_normal((n_rows, 5)), rng.standard_normal((6, 3))
    y, weights = rng.integers(0, 3, n_rows), rng.uniform(0.5, 2, n_rows)
    call = {"loss": loss, "intercept": True, "sample_weight": weights}
    loss_value, dW = fastloss.loss_and_grad(W, X, y, backend="numba", **call)
    expected = fastloss.loss_and_grad(W, X, y, backend="numpy", **call)
    np.testing.assert_allclose(loss_value, expected[0], rtol=1e-13)
    np.testing.assert_allclose(dW, expected[1], rtol=1e-12, atol=1e-13)


def test_constant_column_keeps_its_digits_over_many_rows():
    X = np.broadcast_to(np.ones((1, 1), np.float32), (3_000_000, 1))
    W = np.zeros((1, 3), np.float32)
    _, dW = fastloss.loss_and_grad(W, X, np.zeros(len(X), int), backend="numba")
    np.testing.assert_allclose(dW, [[-2 / 3, 1 / 3, 1 / 3]], rtol=1e-6)


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("types", [("f4", "f4"), ("f8", "f8"), ("u1", "f4")], ids="-".join)
@by_loss
def test_same_bits_for_any_number_of_threads(loss, types):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((5003, 31)) * 30).astype(types[0])
    W = (rng.standard_normal((31, 5)) / 99).astype(types[1])
    y = rng.integers(0, 5, len(X))
    objective = fastloss.Objective(X, y, loss=loss, sample_weight=rng.uniform(0, 1, len(X)))
    results = []
    for n_threads in (1, 2, 3, None):
        with fastloss.use(backend="numba", n_threads=n_threads):
            scores = fastloss.score_gradient(X[:, :5] * W[:1], y, loss=loss)
            results.append((*objective(W), *scores))
    for result in results[1:]:
        for actual, expected in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_number_of_threads_is_restored():
    before = numba.get_num_threads()
    with numba_threads(1):
        assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == before
    problem = fastloss.data.synthetic(5000, 30, 4, seed=0)
    for n_threads in (1, 2):
        objective = fastloss.Objective(problem.X, problem.y, backend="numba", n_threads=n_threads)
        objective(np.zeros((30, 4), np.float32))
        assert numba.get_num_threads() == before


def test_no_more_threads_than_numba_has():
    most = numba.config.NUMBA_NUM_THREADS
    assert threads_to_use(1) == 1
    assert threads_to_use(most + 5) in (1, most)


CALL = """
import sys
import numpy as np
import fastloss
from fastloss.losses.jit import threads_to_use
rng = np.random.default_rng(0)
X, W = rng.standard_normal((20_000, 20)), rng.standard_normal((20, 5))
y = rng.integers(0, 5, len(X))
def check(loss="softmax", **options):
    total, dW = fastloss.loss_and_grad(W, X, y, loss, backend="numba", **options)
    expected = fastloss.loss_and_grad(W, X, y, loss, backend="numpy")
    np.testing.assert_allclose(total, expected[0], rtol=1e-12)
    np.testing.assert_allclose(dW, expected[1], atol=1e-12)
"""


def test_serial_under_workqueue(run_python):
    code = CALL + "check()\nprint(threads_to_use(2))"
    assert run_python(code, NUMBA_THREADING_LAYER="workqueue") == "1\n"


def test_serial_without_a_threading_layer(run_python):
    code = CALL + "check()\nprint(threads_to_use(2))"
    assert run_python(code, NUMBA_THREADING_LAYER="none-such") == "1\n"


CONCURRENT = """
from concurrent.futures import ThreadPoolExecutor
import numba

@numba.njit(parallel=True)
def mine(x):
    total = 0.0
    for i in numba.prange(len(x)):
        total += x[i]
    return total

column = X[:, 0].copy()
mine(column)
losses = ["softmax", "hinge", "crammer_singer", "one_vs_all"]
with ThreadPoolExecutor(8) as pool:
    done = [pool.submit(check, losses[i % 4], n_threads=(1, 2, None)[i % 3]) for i in range(100)]
    # A user's own parallel function meanwhile, on the same threads.
    for _ in range(50):
        np.testing.assert_allclose(mine(column), column.sum())
    for call in done:
        call.result()
print("done")
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_eight_python_threads_beside_a_parallel_function_of_the_user(layer, run_python):
    assert run_python(CALL + CONCURRENT, NUMBA_THREADING_LAYER=layer) == "done\n"


FORKED = """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: the point here
check()
child = os.fork()
if child == 0:
    status = 1
    try:
        check()
        check("hinge")  # compiled by the child
        assert threads_to_use(2) == 1
        status = 0
    finally:
        os._exit(status)
assert os.waitpid(child, 0)[1] == 0
check()
print("done")
"""


@needs_fork
@pytest.mark.parametrize("layer", LAYERS)
def test_forked_child_computes(layer, run_python):
    assert run_python(CALL + FORKED, NUMBA_THREADING_LAYER=layer) == "done\n"


# --- cache ----------------------------------------------------------------------------------------

LOSS_FILE = """
from dataclasses import dataclass
import fastloss
from fastloss.losses.jit import njit, prange
from fastloss.losses.rows import add_block, add_row, all_below_infinity, finish_row, score_row
import numpy as np

@njit
def slope():
    return {slope}

@njit
def row(scores, label, parameters):
    loss = slope() * scores[label]
    scores[:] = 0.0
    scores[label] = slope()
    return loss

@njit(parallel=True)
def rows(X, W_T, labels, weights, parameters, chunks, losses, partials):
    for k in prange(len(chunks)):
        scores = np.empty(len(W_T), W_T.dtype)
        sums = np.zeros(partials.shape[1:], W_T.dtype)
        for i in range(chunks[k, 0], chunks[k, 1]):
            score_row(X[i], W_T, scores)
            is_valid = all_below_infinity(scores)
            losses[k] += finish_row(scores, row(scores, labels[i], parameters), is_valid, 1.0)
            add_row(X[i], scores, sums)
        add_block(sums, partials[k])

@dataclass(frozen=True)
class Linear(fastloss.Loss):
    name = "linear"
    row = row
    parallel = rows

    def naive(self, scores, label):
        raise NotImplementedError

    vectorized = naive

X, y = np.ones((20_000, 3)), np.zeros(20_000, int)
print(fastloss.loss_and_grad(np.ones((3, 2)), X, y, Linear(), backend="numba")[0])
"""


@pytest.mark.deep
def test_changed_helper_is_compiled_again(tmp_path, run_python):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for slope in ("2.0", "3.0", "2.0"):
        (tmp_path / "linear.py").write_text(LOSS_FILE.format(slope=slope))
        assert run_python("import linear", tmp_path, **cache) == f"{3 * float(slope)}\n"


def test_second_process_compiles_nothing(tmp_path, run_python):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": "random"}
    code = CALL + "check()\nfastloss.score_gradient(X[:, :5], y, backend='numba')"
    run_python(code, **cache)
    kept = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    assert kept
    run_python(code, **cache)
    assert {path: path.stat().st_ino for path in tmp_path.iterdir()} == kept


# --- losses that it cannot run --------------------------------------------------------------------


def test_loss_without_a_form_for_numba_is_refused():
    class Plain(Loss):
        name = "plain"
        naive = vectorized = None  # type: ignore[assignment]

    why_not = fastloss.backends.get_backend("numba").unavailable(Plain())
    assert why_not == "the loss 'plain' has no row form for Numba"
