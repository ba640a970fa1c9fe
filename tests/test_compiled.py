"""The compiled backend from inside: kernels in plain Python, partition, fingerprint, disk cache."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from oracle import LOSSES, TOLERANCES, assert_close, layouts, make_data

import fastloss
from fastloss.backends import compiled, kernel

pytest.importorskip("numba")


# --- the templates are Python --------------------------------------------------------------------


@pytest.fixture
def interpreted(monkeypatch):
    """``backend="numba"`` without Numba: the templates run as the plain Python they are."""

    def templates(loss, *_):
        monkeypatch.setattr(kernel, "loss_row", loss.compiled)
        return kernel.evaluate_rows

    def score_templates(loss, *_):
        templates(loss)
        return kernel.score_rows

    monkeypatch.setattr(compiled, "rows_kernel", templates)
    monkeypatch.setattr(compiled, "scores_kernel", score_templates)
    monkeypatch.setattr(compiled, "_launch", lambda function, _, *arguments: function(*arguments))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_templates_run_as_plain_python(loss, dtype, interpreted, monkeypatch):
    # Blocks of one tile, so that a few rows make several blocks and chunks.
    monkeypatch.setattr(compiled, "_MAX_BLOCK_ROWS", kernel.TILE_ROWS)
    data = make_data(35, 3, 3, dtype, dtype, intercept=True)
    y = data.y.copy()
    y[[2, 8, 9, 10, 11, 32]] = 99  # the whole third block among them
    options = {
        "intercept": True,
        "sample_weight": np.linspace(0.5, 2.0, 35),
        "ignore_index": 99,
        "l2": 0.1,
    }
    for X in (data.X, np.asfortranarray(data.X)):
        assert_close(
            fastloss.loss_and_grad(data.W, X, y, loss, backend="numba", **options),
            fastloss.loss_and_grad(data.W, X, y, loss, backend="numpy", **options),
            dtype,
        )
    objective = fastloss.Objective(data.X, y, loss=loss, backend="numba", **options)
    np.testing.assert_allclose(objective.loss(data.W), objective(data.W)[0], rtol=1e-15)
    scores = data.X @ data.W[:-1]
    actual = fastloss.score_gradient(scores, data.y, loss=loss, backend="numba")
    expected = fastloss.score_gradient(scores, data.y, loss=loss, backend="numpy")
    for ours, theirs in zip(actual, expected, strict=True):
        tolerance = TOLERANCES[dtype][1]
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_vector_loops_may_not_assume_finite_numbers():
    """LLVM may use such a licence tomorrow if not today, so no result would tell."""
    assert {"reassoc", "contract", "nsz"} >= kernel.VECTOR_MATH


# --- the partition -------------------------------------------------------------------------------


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("W_T_shape", [(2, 16), (10, 80), (10, 3088), (1000, 2048), (32_000, 512)])
def test_partition(W_T_shape, itemsize):
    for n_rows in (1, 3, 4, 5, 255, 256, 257, 4096, 60_000, 10_000_001):
        block_rows, chunk_rows = compiled.partition(n_rows, W_T_shape, itemsize)
        n_chunks = -(-n_rows // chunk_rows)
        assert block_rows % kernel.TILE_ROWS == 0 < block_rows
        assert chunk_rows % block_rows == 0
        assert (n_chunks - 1) * chunk_rows < n_rows <= n_chunks * chunk_rows
        assert 1 <= n_chunks <= compiled._MAX_CHUNKS
        partial_bytes = W_T_shape[0] * W_T_shape[1] * itemsize
        assert n_chunks <= 2 or n_chunks * partial_bytes <= compiled._MAX_PARTIAL_BYTES
        one_tile = kernel.TILE_ROWS * W_T_shape[1] * itemsize
        assert block_rows * W_T_shape[1] * itemsize <= max(compiled._BLOCK_BYTES, one_tile)
        # Enough chunks for two threads as soon as there are two blocks.
        assert n_chunks >= min(2, -(-n_rows // block_rows))


# --- the fingerprint -----------------------------------------------------------------------------

BASE = """
import math
UNRELATED = 1.0
FACTOR = 2.0
def unrelated(x):
    return x
def inner(x):
    return math.exp(x)
def helper(x, eps=1e-3):
    return inner(x) + FACTOR * eps
def nested(x):
    return x - 1.0
def make(value):
    def row(scores, label, parameters):
        total = sum([nested(s) for s in scores])
        return helper(scores[label]) * value + total
    return row
row = make(3.0)
"""
CHANGES = {
    "constant in the function": ("* value + total", "* value + total + 1.0"),
    "operator": ("helper(scores[label]) * value", "helper(scores[label]) / value"),
    "helper": ("inner(x) + FACTOR", "inner(x) - FACTOR"),
    "helper of a helper": ("math.exp(x)", "math.exp(2.0 * x)"),
    "another function of a module": ("math.exp(x)", "math.expm1(x)"),
    "global constant": ("FACTOR = 2.0", "FACTOR = 2.5"),
    "default argument": ("eps=1e-3", "eps=1e-4"),
    "value of a closure": ("row = make(3.0)", "row = make(4.0)"),
    "helper of a function inside": ("x - 1.0", "x - 2.0"),
}
NO_CHANGES = {
    "unrelated constant": ("UNRELATED = 1.0", "UNRELATED = 2.0"),
    "unrelated function": ("    return x\n", "    return -x\n"),
    "other lines": ("import math", "\n\n# a comment\nimport math"),
    "nothing": ("", ""),
}


def fingerprint_of(source: str) -> str:
    names: dict = {}
    exec(source, names)
    return compiled.fingerprint(names["row"])


@pytest.mark.parametrize(("old", "new"), CHANGES.values(), ids=CHANGES)
def test_fingerprint_changes_with_what_a_kernel_is_made_of(old, new):
    assert BASE.count(old) == 1
    assert fingerprint_of(BASE.replace(old, new)) != fingerprint_of(BASE)


@pytest.mark.parametrize(("old", "new"), NO_CHANGES.values(), ids=NO_CHANGES)
def test_fingerprint_stays_when_other_code_changes(old, new):
    assert fingerprint_of(BASE.replace(old, new, 1)) == fingerprint_of(BASE)


def test_fingerprint_sees_through_compiled_helpers():
    def with_helper(body: str) -> str:
        jitted = f"import numba\n@numba.njit\ndef helper(x):\n    return {body}\n"
        return fingerprint_of(f"{jitted}def row(s, label, p):\n    return helper(s[label])\n")

    assert with_helper("x + 1") == with_helper("x + 1")
    assert with_helper("x + 1") != with_helper("x + 2")


def test_fingerprint_of_each_loss_is_its_own():
    rows = {loss.compiled for loss in LOSSES.values()}
    prints = {compiled.fingerprint(kernel.evaluate_rows, row) for row in rows}
    assert len(prints) == len(rows)


# --- compiling and the cache on disk -------------------------------------------------------------


@pytest.mark.parametrize("loss", ["softmax", "hinge"])
def test_one_signature_serves_all(loss):
    problem = make_data(37, 17, 7)
    for (_, X), (_, W) in itertools.product(layouts(problem.X), layouts(problem.W)):
        fastloss.loss_and_grad(W, X, problem.y, loss, backend="numba")
        fastloss.loss_and_grad(
            W, X, problem.y, loss, backend="numba", sample_weight=np.ones(37), out=np.empty((17, 7))
        )
    a_loss = LOSSES[loss]
    rows = compiled.rows_kernel(a_loss, problem.X.dtype, problem.W.dtype)
    assert len(rows.signatures) == 1
    scores = np.ones((37, 14))[:, ::2]
    scores.flags.writeable = False
    fastloss.score_gradient(scores, problem.y, loss=loss, backend="numba")
    assert len(compiled.scores_kernel(a_loss, scores.dtype).signatures) == 1


def test_parameters_share_a_kernel():
    kernels = {
        compiled.rows_kernel(loss, np.dtype("f8"), np.dtype("f8"))
        for loss in LOSSES.values()
        if isinstance(loss, fastloss.Hinge)
    }
    assert len(kernels) == 1


CALL = """
import numpy as np
import fastloss
from fastloss.backends import compiled

loss, dW = fastloss.loss_and_grad(np.zeros((2, 3)), np.ones((4, 2)), [0, 1, 2, 0], backend="numba")
np.testing.assert_allclose(loss, np.log(3))
kernel = compiled.rows_kernel(fastloss.Softmax(), np.dtype("f8"), np.dtype("f8"))
print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
"""


def test_disk_cache(tmp_path: Path, run_python):
    def call() -> str:
        # Another hash seed each time, as in another process of a user.
        return run_python(CALL, NUMBA_CACHE_DIR=str(tmp_path), PYTHONHASHSEED="random")

    def files() -> set[Path]:
        return {path for path in tmp_path.rglob("*") if path.is_file()}

    assert call() == "0 1\n"
    first = files()
    assert len(first) == 2  # one index, one kernel
    # What an older version of the loss would have left, and what another loss has.
    stem = "evaluate_rows_fastloss_losses_softmax_softmax_row_"
    others = set()
    for path in first:
        before, _, after = path.name.partition(stem)
        path.with_name(f"{before}{stem}{'0' * 16}{after[16:]}").write_bytes(b"stale")
        other = path.with_name(f"{before}{stem.replace('softmax', 'mine')}{after}")
        other.write_bytes(b"other")
        others.add(other)
    assert call() == "1 0\n"
    assert files() == first | others


COMPARE = """
import numpy as np
import fastloss

scores, labels = np.random.default_rng(0).standard_normal((50, 5)), np.arange(50) % 5
for loss in {losses}:
    actual = fastloss.score_gradient(scores, labels, loss=loss, backend="numba")
    expected = fastloss.score_gradient(scores, labels, loss=loss, backend="naive")
    np.testing.assert_allclose(actual[0], expected[0])
    np.testing.assert_allclose(actual[1], expected[1])
"""


def test_kernels_cached_by_different_processes_do_not_mix(tmp_path: Path, run_python):
    """Both have one parameter, and each is the first kernel of its process."""
    for losses in (["softmax"], ["crammer_singer"], ["softmax", "crammer_singer"]):
        run_python(COMPARE.format(losses=losses), NUMBA_CACHE_DIR=str(tmp_path))


def test_what_depends_on_the_loss_has_a_name_of_its_own():
    double = np.dtype(np.float64)
    for losses in itertools.combinations(LOSSES.values(), 2):
        if losses[0].compiled == losses[1].compiled:
            continue
        rows = [compiled.rows_kernel(loss, double, double).py_func for loss in losses]
        chunks = [row.__globals__["evaluate_chunk"].py_func for row in rows]
        guards = [chunk.__globals__["guarded_row"].py_func for chunk in chunks]
        inner = [guard.__globals__["loss_row"].py_func for guard in guards]
        for ours, theirs in (rows, chunks, guards, inner):
            assert ours.__qualname__ != theirs.__qualname__


@pytest.mark.parametrize("folder", ["{file}/folder", ""], ids=["cannot be made", "none"])
def test_works_without_a_disk_cache(folder, tmp_path: Path, run_python):
    file = tmp_path / "file"
    file.touch()
    output = run_python(
        CALL,
        NUMBA_CACHE_DIR=folder.format(file=file),
        # Nor beside the package or in the home of the user.
        NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator",
    )
    assert output == "0 1\n"
    assert list(tmp_path.rglob("*")) == [file]
