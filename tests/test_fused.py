"""The compiled backend from inside: losses, partition, many classes, fingerprint, disk cache."""

from __future__ import annotations

import itertools
import platform
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from oracle import LOSSES, TOLERANCES, assert_close, layouts, make_data

import fastloss
from fastloss.backends import fused
from fastloss.backends.base import Problem

pytest.importorskip("numba")

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


# --- the compiled form of a loss is Python --------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_blocks_run_as_plain_python(loss, dtype):
    rng = np.random.default_rng(0)
    scores, labels = (3 * rng.standard_normal((21, 5))).astype(dtype), rng.integers(0, 5, 21)
    expected, gradient = loss.vectorized(scores.copy(), labels)
    block, losses = np.ascontiguousarray(scores.T), np.empty(21)
    loss.block(block, labels, loss.parameters, losses)
    tolerance = TOLERANCES[dtype][1]
    np.testing.assert_allclose(losses, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(block.T, gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64 only")
def test_blocks_become_vector_instructions(tmp_path, run_python):
    """A change that only slows a loss down by a factor of five breaks no other test."""
    code = """
        import itertools, re, numpy as np, fastloss
        from fastloss.backends import fused
        for name, dtype in itertools.product(fastloss.available_losses(), ("f4", "f8")):
            loss = fastloss.losses.get_loss(name)
            assembly = fused.loss_kernel(loss, np.dtype(dtype))._library.get_asm_str()
            arithmetic = r"\\bv(?:add|sub|mul|max|min|cmp\\w*|fn?m\\w+)([ps])[sd]\\b"
            kinds = re.findall(arithmetic, assembly)
            # Of loops that stay scalar there are none, and a handful of the initial values.
            if kinds.count("p") < 10:
                print(f"{name} {dtype}: {kinds.count('p')} of {len(kinds)} are vectors")
    """
    environment = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path)
    assert run_python(code, **environment) == ""


# --- the partition -------------------------------------------------------------------------------


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("shape", [(5, 2), (10, 3), (65, 10), (784, 7), (3073, 10), (12_000, 96)])
def test_partition(shape, itemsize):
    n_features, n_classes = shape
    for n_rows in (1, 3, 4, 5, 255, 256, 257, 4096, 60_000, 10_000_001):
        cut = fused.partition(n_rows, n_features, n_classes, itemsize)
        n_chunks, n_padded, n_columns = cut.partials_shape
        assert (n_chunks - 1) * cut.chunk_rows < n_rows <= n_chunks * cut.chunk_rows
        assert 1 <= n_chunks <= fused._MAX_CHUNKS
        assert n_chunks <= 2 or n_chunks * n_padded * n_columns * itemsize <= (
            fused._MAX_PARTIAL_BYTES
        )
        # Whole tiles of classes; whole cache lines of features, and one for the bias.
        assert n_padded % cut.tile_classes == 0 <= n_padded - n_classes < cut.tile_classes
        assert n_columns * itemsize % 64 == 0
        assert n_columns * itemsize >= n_features * itemsize + 64
        assert cut.block_rows * itemsize % 64 == 0 < cut.block_rows
        # Enough chunks for two threads as soon as it is worth waking the second.
        work = 2 * n_rows * n_features * n_classes
        if work >= fused._SERIAL_MULTIPLY_ADDS and n_rows >= 2 * fused._MIN_CHUNK_ROWS:
            assert n_chunks >= 2
        if work < fused._SERIAL_MULTIPLY_ADDS:
            assert n_chunks == 1


@pytest.mark.parametrize("n_classes", range(2, 97))
def test_tiles_waste_little(n_classes):
    cut = fused.partition(1000, 100, n_classes, 4)
    assert cut.tile_classes in fused._TILE_CLASSES
    assert cut.partials_shape[1] - n_classes <= 2


# --- many classes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3073, 10), "narrow"),
        ((100, 96), "narrow"),
        ((1, 97), "wide"),
        ((8000, 20), "narrow"),
        ((8000, 21), "wide"),  # as a W of more than 640 KiB
        ((100_000, 12), "narrow"),
    ],
)
def test_way(shape, expected):
    assert fused.way(*shape, 4) == expected


@pytest.mark.parametrize("several_blocks", [False, True])
@pytest.mark.parametrize("X_type", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_many_classes(loss, X_type, several_blocks, monkeypatch):
    if several_blocks:
        monkeypatch.setattr(fused, "_WIDE_BYTES", 1000)
        monkeypatch.setattr(fused, "_MIN_WIDE_ROWS", 7)
    rng = np.random.default_rng(0)
    W_type = np.float64 if X_type == np.float64 else np.float32
    X = (rng.uniform(0, 9, (159, 23))).astype(X_type)
    W = (rng.standard_normal((24, 103)) / 9).astype(W_type)
    y = rng.integers(0, 103, 159)
    y[5:9] = 999
    options = {
        "loss": loss,
        "intercept": True,
        "sample_weight": rng.uniform(0, 2, 159),
        "ignore_index": 999,
        "l2": 0.1,
    }
    for rows in (X, np.asfortranarray(X)):
        actual = fastloss.loss_and_grad(W, rows, y, backend="fused", **options)
        expected = fastloss.loss_and_grad(W, rows, y, backend="numpy", **options)
        assert_close(actual, expected, W_type)
    objective = fastloss.Objective(X, y, backend="fused", **options)
    np.testing.assert_allclose(objective.loss(W), objective(W)[0], rtol=1e-12)


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize(
    "shape",
    # Odd numbers of features, one strip of rows and several, pieces that are not whole.
    [(1, 1, 97), (31, 2, 98), (32, 31, 130), (33, 385, 257), (70, 600, 97), (1100, 12, 300)],
)
@pytest.mark.parametrize("intercept", [False, True])
def test_wide_shapes(shape, intercept, dtype):
    n_rows, n_features, n_classes = shape
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_features)).astype(dtype)
    W = rng.standard_normal((n_features + intercept, n_classes)).astype(dtype)
    call = W / n_features**0.5, X, rng.integers(0, n_classes, n_rows)
    actual = fastloss.loss_and_grad(*call, intercept=intercept, backend="fused")
    assert_close(actual, fastloss.loss_and_grad(*call, intercept=intercept, backend="numpy"), dtype)


def test_batches_of_many_classes(monkeypatch):
    """Rows in any order, although the first and the last of a strip lie as if they followed."""
    monkeypatch.setattr(fused, "_WIDE_BYTES", 1000)
    monkeypatch.setattr(fused, "_MIN_WIDE_ROWS", 64)
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((200, 23)), rng.standard_normal((23, 103))
    y = rng.integers(0, 103, 200)
    strip = fused.product_widths(DOUBLE)[0]
    rows = np.concatenate(
        [[0], rng.permutation(np.arange(1, strip - 1)), [strip - 1], rng.permutation(200)]
    )
    problem = Problem(X, y, fastloss.Softmax(), False, None, float(len(rows)), any_skipped=False)
    evaluate = fused.BACKEND.prepare_batches(problem, len(rows), 103, DOUBLE)
    dW = np.empty_like(W)
    actual = evaluate(rows, W, dW, 2), dW
    assert_close(actual, fastloss.loss_and_grad(W, X[rows], y[rows], backend="numpy"), np.float64)


def test_many_classes_get_the_same_bits_from_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(fused, "_WIDE_BYTES", 100_000)
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((900, 223)), rng.standard_normal((223, 283))
    objective = fastloss.Objective(X, rng.integers(0, 283, 900), backend="fused")
    results = []
    for n_threads in (1, 2, 3):
        with fastloss.use(n_threads=n_threads):
            results.append(objective(W))
    for loss, dW in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(dW, results[0][1])


@pytest.mark.parametrize("n_features", [3, 387])
def test_padding_of_a_strip_does_not_count(n_features):
    """An excluded class: 0 * -inf must not come of a row that is none, nor of a feature."""
    X, W = np.ones((5, n_features)), np.zeros((n_features, 100))
    W[:, 7] = -np.inf
    call = W, X, np.zeros(5, int)
    actual = fastloss.loss_and_grad(*call, backend="fused")
    assert_close(actual, fastloss.loss_and_grad(*call, backend="numpy"), np.float64)
    np.testing.assert_allclose(actual[0], np.log(99))


def test_no_row_that_counts_is_a_gradient_of_zeros():
    X, W = np.ones((4, 3)), np.ones((4, 70))
    dW = np.full_like(W, 7.0)
    options = {"ignore_index": 99, "reduction": "sum", "intercept": True}
    loss, _ = fastloss.loss_and_grad(W, X, [99] * 4, backend="fused", out=dW, **options)
    assert loss == 0.0
    np.testing.assert_array_equal(dW, 0.0)


@pytest.mark.parametrize("n_rows", [1, 15, 16, 17])
@pytest.mark.parametrize("n_classes", [4, 104])
def test_few_rows(n_rows, n_classes):
    data = make_data(n_rows, 33, n_classes, np.float64, np.float64)
    actual = fastloss.loss_and_grad(data.W, data.X, data.y, backend="fused")
    assert_close(
        actual, fastloss.loss_and_grad(data.W, data.X, data.y, backend="numpy"), np.float64
    )


def test_scores_of_many_classes_are_never_whole():
    n_rows, n_classes = 2048, 8000
    X, W = np.ones((n_rows, 16), np.float32), np.zeros((16, n_classes), np.float32)
    objective = fastloss.Objective(X, np.zeros(n_rows, int), backend="fused")
    dW = np.empty_like(W)
    objective(W, out=dW)  # compiles
    tracemalloc.start()
    objective(W, out=dW)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n_rows * n_classes * 4 / 4


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
    return fused.fingerprint(names["row"])


@pytest.mark.parametrize(("old", "new"), CHANGES.values(), ids=CHANGES)
def test_fingerprint_changes_with_the_sources_of_a_kernel(old, new):
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
    blocks = {loss.block for loss in LOSSES.values()}
    assert len({fused.fingerprint(block) for block in blocks}) == len(blocks)


# --- compiling and the cache on disk -------------------------------------------------------------


@pytest.mark.parametrize("loss", ["softmax", "hinge"])
def test_one_signature_serves_all(loss):
    problem = make_data(37, 17, 7)
    for (_, X), (_, W) in itertools.product(layouts(problem.X), layouts(problem.W)):
        fastloss.loss_and_grad(W, X, problem.y, loss, backend="fused")
        fastloss.loss_and_grad(
            W, X, problem.y, loss, backend="fused", sample_weight=np.ones(37), out=np.empty((17, 7))
        )
    assert len(fused.narrow_kernel(DOUBLE, DOUBLE).signatures) == 1
    scores = np.ones((37, 14))[:, ::2]
    scores.flags.writeable = False
    fastloss.score_gradient(scores, problem.y, loss=loss, backend="fused")
    assert len(fused.strips_kernel(DOUBLE).signatures) == 1


def test_parameters_share_a_kernel():
    hinges = [loss for loss in LOSSES.values() if isinstance(loss, fastloss.Hinge)]
    assert len({fused.loss_kernel(loss, DOUBLE) for loss in hinges}) == 1 < len(hinges)


CALL = """
import numpy as np
import fastloss
from fastloss.backends import fused

X, y = np.ones((40, 2)), np.arange(40) % 3
loss, dW = fastloss.loss_and_grad(np.zeros((2, 3)), X, y, backend="fused")
np.testing.assert_allclose(loss, np.log(3))
double = np.dtype("f8")
kernel = fused.narrow_kernel(double, double)
hits = fused.loss_kernel(fastloss.Softmax(), double).cache_hits
print(hits, sum(kernel.stats.cache_hits.values()))
"""


def test_disk_cache(tmp_path: Path, run_python):
    def call() -> str:
        # Another hash seed each time, as in another process of a user.
        return run_python(CALL, NUMBA_CACHE_DIR=str(tmp_path), PYTHONHASHSEED="random")

    def files() -> set[Path]:
        return {path for path in tmp_path.rglob("*") if path.is_file()}

    assert call() == "0 0\n"
    first = files()
    assert len(first) == 4  # an index and a kernel: the loss, and what goes through X
    # What an older version of the loss would have left, and what another loss has.
    stem = "fastloss_losses_softmax_softmax_block_1_float64_"
    others = set()
    for path in (path for path in first if stem in path.name):
        before, _, after = path.name.partition(stem)
        path.with_name(f"{before}{stem}{'0' * 16}{after[16:]}").write_bytes(b"stale")
        other = path.with_name(f"{before}{stem.replace('softmax', 'mine')}{after}")
        other.write_bytes(b"other")
        others.add(other)
    assert len(others) == 2
    assert call() == "1 1\n"
    assert files() == first | others


@pytest.mark.parametrize("n", [2, pytest.param(8, marks=pytest.mark.deep)])
def test_processes_that_start_together_share_the_cache(n, tmp_path: Path, run_python):
    with ThreadPoolExecutor(n) as pool:
        calls = [pool.submit(run_python, CALL, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(n)]
        for call in calls:
            assert call.result()
    assert run_python(CALL, NUMBA_CACHE_DIR=str(tmp_path)) == "1 1\n"


FULL_DISK = """
import numba.core.caching

def save(*_):
    raise OSError(28, "No space left on device")

numba.core.caching.IndexDataCacheFile._save_index = save
"""


@pytest.mark.deep
def test_a_full_disk(tmp_path: Path, run_python):
    assert run_python(FULL_DISK + CALL, NUMBA_CACHE_DIR=str(tmp_path)) == "0 0\n"


COMPARE = """
import numpy as np
import fastloss

rng = np.random.default_rng(0)
for loss, dtype in {kernels}:
    X, y = rng.standard_normal((50, 7)).astype(dtype), np.arange(50) % 5
    for n_classes in (5, 105):  # through the narrow kernel, and through the wide one
        W = rng.standard_normal((7, n_classes)).astype(dtype)
        call = W, X, y, loss
        actual = fastloss.loss_and_grad(*call, backend="fused")
        expected = fastloss.loss_and_grad(*call, backend="naive")
        np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
        np.testing.assert_allclose(actual[1], expected[1], atol=1e-5)
"""


@pytest.mark.deep
def test_kernels_cached_by_different_processes_do_not_mix(tmp_path: Path, run_python):
    """Each is the first kernel of its process, and then they meet."""
    kernels = [("softmax", "float64"), ("crammer_singer", "float64"), ("softmax", "float32")]
    for some in ([kernels[0]], [kernels[1]], [kernels[2]], kernels, kernels[::-1]):
        run_python(COMPARE.format(kernels=some), NUMBA_CACHE_DIR=str(tmp_path))


@pytest.mark.parametrize(
    "folder",
    ["{file}/folder", pytest.param("", marks=pytest.mark.deep)],
    ids=["cannot be made", "none"],
)
def test_works_without_a_disk_cache(folder, tmp_path: Path, run_python):
    file = tmp_path / "file"
    file.touch()
    output = run_python(
        CALL,
        NUMBA_CACHE_DIR=folder.format(file=file),
        # Nor beside the package or in the home of the user.
        NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator",
    )
    assert output == "0 0\n"
    assert list(tmp_path.rglob("*")) == [file]
