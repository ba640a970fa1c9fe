"""Test `DaskObjective` on clusters of 1, 2 and 4 worker processes."""

from __future__ import annotations

import copy
import math
import pickle
import re
from collections.abc import Iterator

import dask
import dask.array as da
import distributed
import numpy as np
import pytest
from clusters import assert_soon, keys_in_memory, local_client
from distributed import Client

import fastloss
from fastloss import optim
from fastloss.dask import DaskObjective
from fastloss.dask.block import rows_in_block
from fastloss.dask.tree import partial_sums, total
from fastloss.settings import threads_to_use

N, D, C = 9000, 40, 5
_RNG = np.random.default_rng(0)
X = _RNG.standard_normal((N, D)).astype(np.float32)
W = (0.1 * _RNG.standard_normal((D + 1, C))).astype(np.float32)
y = np.argmax(X @ W[:-1] + _RNG.gumbel(size=(N, C)), axis=1)
WEIGHTS = np.where(_RNG.random(N) < 0.1, 0.0, _RNG.random(N))
SETTINGS = {"l2": 0.01, "intercept": True}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_client(2) as client:
        yield client


@pytest.fixture(scope="module")
def objective(client: Client) -> Iterator[DaskObjective]:
    with DaskObjective(da.from_array(X, chunks=(1000, D)), y, n_classes=C, **SETTINGS) as objective:
        yield objective


@pytest.fixture(scope="module")
def single() -> fastloss.Objective:
    return fastloss.Objective(X, y, **SETTINGS)


def assert_same(actual: tuple[float, np.ndarray], expected: tuple[float, np.ndarray]) -> None:
    """Compare with the tolerances of float32, or those of float64."""
    rtol, atol = (2e-6, 1e-5) if expected[1].dtype == np.float32 else (1e-13, 1e-12)
    np.testing.assert_allclose(actual[0], expected[0], rtol=rtol)
    np.testing.assert_allclose(actual[1], expected[1], rtol=0, atol=atol * abs(expected[1]).max())
    assert actual[1].dtype == expected[1].dtype


# --- without a cluster ----------------------------------------------------------------------------


@pytest.mark.parametrize("n_blocks", [1, 2, 5, 8, 13])
def test_tree_gives_the_same_bits_for_any_placement(n_blocks):
    rng = np.random.default_rng(n_blocks)
    losses, gradients = rng.random(n_blocks), rng.standard_normal((n_blocks, 3))

    def evaluate(number):
        return losses[number], gradients[number].copy()

    def summed(placement):
        parts = {}
        for worker in set(placement):
            numbers = [n for n, place in enumerate(placement) if place == worker]
            parts |= partial_sums(numbers, n_blocks, evaluate)
        return total(parts, n_blocks)

    loss, gradient = summed([0] * n_blocks)
    np.testing.assert_allclose(loss, math.fsum(losses), rtol=1e-14)
    np.testing.assert_allclose(gradient, gradients.sum(axis=0), rtol=1e-12, atol=1e-14)
    for _ in range(10):
        other = summed(rng.integers(0, 4, n_blocks).tolist())
        assert other[0] == loss
        np.testing.assert_array_equal(other[1], gradient)


def test_aligned_workers_send_one_sum_each_and_others_few():
    def evaluate(number):
        return 1.0, None

    assert list(partial_sums(range(0, 32), 64, evaluate)) == [(0, 32)]
    assert list(partial_sums(range(48, 64), 64, evaluate)) == [(48, 64)]
    assert len(partial_sums(range(1, 63), 64, evaluate)) == 2 * 5


def test_blocks_without_rows_of_a_batch_add_nothing():
    assert total(partial_sums([2], 5, lambda number: None), 5) is None
    parts = partial_sums(range(5), 5, lambda number: (2.0, None) if number % 2 else None)
    assert total(parts, 5) == (4.0, None)


def test_float32_sums_of_a_thousand_blocks_lose_few_digits():
    gradients = np.random.default_rng(0).random((1024, 50)).astype(np.float32)

    def evaluate(number):
        return 0.0, gradients[number].copy()

    _, gradient = total(partial_sums(range(1024), 1024, evaluate), 1024)
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, gradients.sum(axis=0, dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "itemsize", "least", "most"),
    [
        ((100, 20), 4, 1, 1),  # too small to cut
        ((60_000, 785), 4, 20, 30),  # smaller ones would mostly add gradients
        ((40_000, 768), 4, 16, 16),
        ((10_000_000, 768), 2, 100, 200),  # 15 GB, at most 128 MB each
        ((1_000_000_000, 768), 2, 900, 1024),  # more would slow down every evaluation
    ],
)
def test_number_of_blocks(shape, itemsize, least, most):
    rows = rows_in_block(*shape, itemsize)
    assert least <= math.ceil(shape[0] / rows) <= most


# --- agreement ------------------------------------------------------------------------------------


def test_objective_agrees_with_one_process(objective, single):
    assert objective.shape == single.shape
    assert objective.n_parameter_rows == D + 1
    assert objective.weight_sum == 1.0
    assert "9000 rows x 40 float32 features, 5 classes" in repr(objective)
    assert_same(objective(W), single(W))
    out = np.empty_like(W)
    loss, dW = objective(W, out=out)
    assert dW is out
    np.testing.assert_allclose(objective.loss(W), loss, rtol=1e-7)
    np.testing.assert_allclose(objective.terms(W), single.terms(W), rtol=2e-6)
    np.testing.assert_array_equal(objective.class_counts, np.bincount(y))


@pytest.mark.parametrize(
    ("dtype", "loss", "reduction"),
    [
        (np.float64, "hinge", "mean"),
        (np.float32, fastloss.Softmax(label_smoothing=0.1), "sum"),
        (np.uint8, "squared_hinge", "mean"),
        (np.float16, "softmax", "mean"),
    ],
)
def test_types_losses_and_weights_agree_with_one_process(client, dtype, loss, reduction):
    rows = np.abs(40 * X).astype(dtype) if dtype == np.uint8 else X.astype(dtype)
    settings = {
        "loss": loss,
        "reduction": reduction,
        "class_weight": "balanced",
        "ignore_index": 3,
        "l1": 1e-3,
        **SETTINGS,
    }
    weights = W.astype(np.float64 if dtype == np.float64 else np.float32)
    expected = fastloss.Objective(rows, y, sample_weight=WEIGHTS, **settings)
    with DaskObjective(
        da.from_array(rows, chunks=(4000, 7)),
        da.from_array(y, chunks=700),
        n_classes=C,
        sample_weight=da.from_array(WEIGHTS, chunks=N),
        **settings,
    ) as objective:
        assert_same(objective(weights), expected(weights))
        np.testing.assert_array_equal(objective.counted_rows(), expected.counted_rows())
        some = expected.counted_rows()[::700]
        for actual, wanted in zip(
            objective.weighted_rows(some), expected.weighted_rows(some), strict=True
        ):
            np.testing.assert_allclose(actual, wanted, rtol=1e-12)
        np.testing.assert_allclose(objective.weight_sum, expected.weight_sum, rtol=1e-12)
        assert optim.accuracy(objective, weights) == optim.accuracy(expected, weights)


def test_tiny_weights_have_the_mean_of_weights_of_one(client, objective):
    rows = da.from_array(X, chunks=(3000, D))
    with DaskObjective(
        rows, y, n_classes=C, sample_weight=np.full(N, 1e-250), class_weight={0: 1.0}, **SETTINGS
    ) as tiny:
        assert_same(tiny(W), objective(W))


def test_minibatches_agree_with_one_process(objective, single):
    rows = np.random.default_rng(1).permutation(N)[:300]
    assert_same(objective.minibatch(300)(rows, W), single.minibatch(300)(rows, W))
    assert_same(objective.minibatch(300, 600)(rows, W), single.minibatch(300, 600)(rows, W))
    with pytest.raises(ValueError, match=r"rows must have shape \(300,\), got \(2,\)"):
        objective.minibatch(300)(rows[:2], W)


# --- the same bits --------------------------------------------------------------------------------


def fits(client: Client) -> list[np.ndarray]:
    """Return the weights after runs of several methods, and a gradient."""
    rows = da.from_array(X, chunks=(2500, D))
    with DaskObjective(rows, y, n_classes=C, client=client, **SETTINGS) as objective:
        start = np.zeros_like(W)
        sgd = optim.SGD(batch_size=900, momentum=0.9)
        return [
            objective(W)[1],
            optim.minimize(objective, start, "lbfgs", max_steps=5).W,
            optim.minimize(objective, start, sgd, max_epochs=1).W,
        ]


def test_1_2_and_4_workers_give_the_same_bits_and_those_of_one_process_nearly(client, single):
    on_two = fits(client)
    for n_workers in (1, 4):
        with local_client(n_workers, processes=False) as other:
            for actual, expected in zip(fits(other), on_two, strict=True):
                np.testing.assert_array_equal(actual, expected)
    start = np.zeros_like(W)
    lbfgs = optim.minimize(single, start, "lbfgs", max_steps=5).W
    np.testing.assert_allclose(on_two[1], lbfgs, atol=1e-4)
    # lr is None: the learning rate from the rows must be the same, too.
    sgd = optim.minimize(single, start, optim.SGD(batch_size=900, momentum=0.9), max_epochs=1).W
    np.testing.assert_allclose(on_two[2], sgd, atol=1e-5)


def test_no_row_moves_after_the_start_and_each_block_is_on_one_worker(client, objective):
    def sent(dask_worker):
        return dask_worker.transfer_outgoing_bytes_total

    before = client.run(sent)
    objective(W)
    optim.minimize(objective, W, optim.SGD(batch_size=500), max_steps=5)
    assert client.run(sent) == before
    holders = client.who_has(objective._store._rows)
    assert {len(addresses) for addresses in holders.values()} == {1}
    assert len({addresses[0] for addresses in holders.values()}) == 2


def test_kernels_get_the_threads_of_their_worker():
    with (
        local_client(1, processes=False, threads_per_worker=3) as one,
        DaskObjective([(X, y)], client=one, **SETTINGS) as objective,
    ):
        assert objective._store.call(lambda blocks: threads_to_use()) == [3]


# --- forms of the input ---------------------------------------------------------------------------


def _ends():
    return [(0, 2500), (2500, 2500), (2500, 6000), (6000, N)]  # the second one is empty


def test_blocks_may_be_delayed_pairs_or_futures_on_their_workers(client, single):
    delayed = dask.delayed
    parts = [(X[a:b], y[a:b]) for a, b in _ends()]
    workers = sorted(client.nthreads())
    held = {
        worker: client.submit(lambda *pair: pair, X[a:b], y[a:b], workers=[worker])
        for worker, (a, b) in zip(workers, [(0, 6000), (6000, N)], strict=True)
    }
    forms = {
        "pairs": ([(delayed(a), delayed(b)) for a, b in parts], None),
        "delayed pairs": ([delayed(pair) for pair in parts], None),
        "two lists": ([delayed(a) for a, _ in parts], [b for _, b in parts]),
        "workers": (held, None),
    }
    for name, (rows, labels) in forms.items():
        with DaskObjective(rows, labels, **SETTINGS) as objective:
            assert objective.n_classes == C, name
            assert_same(objective(W), single(W))
            assert_same(
                objective.minibatch(2)(np.array([1, N - 1]), W),
                single.minibatch(2)(np.array([1, N - 1]), W),
            )
            if name == "workers":  # the rows stay where they were
                assert objective._store._holders == {workers[0]: [0], workers[1]: [1]}


def test_unknown_chunk_sizes_are_computed_once(client, single):
    rows = da.from_array(X, chunks=(2000, D))
    labels = da.from_array(y, chunks=2000)
    known = rows[:, 0] < np.inf
    with DaskObjective(rows[known], labels[known], n_classes=C, **SETTINGS) as objective:
        assert_same(objective(W), single(W))


def test_rows_in_memory_stay_on_their_workers(client, single):
    n_rows = rows_in_block(N, D, 4)
    rows = client.persist(da.from_array(X, chunks=(n_rows, D)))
    with DaskObjective(rows, da.from_array(y, chunks=n_rows), n_classes=C, **SETTINGS) as objective:
        assert_same(objective(W), single(W))
        before = client.who_has(distributed.futures_of(rows))
        after = client.who_has(objective._store._rows)
        for number, block in enumerate(objective._store._rows):
            assert after[block.key] == before[rows.name, number, 0]


# --- optim ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["random_search", "random_local_search", "adam"])
def test_other_methods_run_unchanged(objective, single, method):
    actual = optim.minimize(objective, np.zeros_like(W), method, max_steps=3, validation=objective)
    expected = optim.minimize(single, np.zeros_like(W), method, max_steps=3, validation=single)
    np.testing.assert_allclose(actual.loss, expected.loss, rtol=1e-5)
    assert actual.record.validation_accuracy == pytest.approx(
        expected.record.validation_accuracy, abs=2 / N
    )


@pytest.mark.parametrize("method", [optim.SGD(lr=0.1, batch_size=1000), optim.LBFGS()], ids=str)
def test_checkpoints_resume_with_the_same_bits_and_refuse_other_rows(
    client, objective, tmp_path, method
):
    path = tmp_path / "run.npz"
    run = {"method": method, "seed": 3, "checkpoint": path}
    optim.minimize(objective, np.zeros_like(W), max_steps=4, **run)
    resumed = optim.minimize(objective, np.zeros_like(W), max_steps=9, resume=True, **run)
    whole = optim.minimize(objective, np.zeros_like(W), method, seed=3, max_steps=9)
    np.testing.assert_array_equal(resumed.W, whole.W)
    shifted = da.from_array(X, chunks=(1000, D)), np.roll(y, 1)
    with (
        DaskObjective(*shifted, n_classes=C, **SETTINGS) as other,
        pytest.raises(ValueError, match="checkpoint of another run: other labels"),
    ):
        optim.minimize(other, np.zeros_like(W), max_steps=9, resume=True, **run)


# --- errors ---------------------------------------------------------------------------------------


def _bad(array, row, value):
    changed = array.copy()
    changed[row] = value
    return changed


ROWS = da.from_array(X, chunks=(3000, D))
BAD_INPUTS = [
    (ROWS, _bad(y, 8765, 5), {}, ValueError, r"^y\[8765\] = 5 is not in \[0, 5\)"),
    (ROWS, _bad(y, 7000, -1), {}, ValueError, r"^y\[7000\] = -1 is not in \[0, C\)"),
    (
        *(ROWS, y, {"sample_weight": _bad(WEIGHTS, 8000, -2.0)}, ValueError),
        r"^sample_weight\[8000\] = -2.0 must be finite and >= 0",
    ),
    (ROWS, y[:-1], {}, ValueError, "y has 8999 labels, but X has 9000 rows"),
    (ROWS, None, {}, TypeError, "y is missing"),
    (ROWS, y.astype(float), {}, TypeError, "^block 0: y must hold integers, got float64"),
    (ROWS.astype(int), y, {}, TypeError, "^block 0: X must be float16, float32"),
    (ROWS[:, 0], y, {}, ValueError, r"X must be a matrix \(N, D\)"),
    (ROWS[:0], y[:0], {}, ValueError, "X must not be empty"),
    (X, y, {}, TypeError, "got ndarray; for rows in this process use fastloss.Objective"),
    ([(X, y)], [y, y], {}, ValueError, "y has 2 blocks, but X has 1"),
    ([X], None, {}, TypeError, r"a block must be a pair \(X, y\)"),
    ([], None, {}, ValueError, "X must not be empty"),
    ([(X, y), (X[:, 1:], y)], None, {}, ValueError, "block 1 has 39 of float32, expected 40"),
    (ROWS, y, {"class_weight": {7: 2.0}}, ValueError, r"class_weight names 7, which is not in"),
    (ROWS, y, {"class_weight": "even"}, ValueError, "class_weight must be a mapping or 'balanced'"),
    (ROWS, y, {"sample_weight": np.zeros(N)}, ValueError, "the weights of the 9000 rows sum to 0"),
    (ROWS, y, {"loss": "hing"}, ValueError, "unknown loss 'hing'"),
    (ROWS, y, {"l2": -1.0}, ValueError, "l2 must be finite and >= 0"),
    (ROWS, y, {"reduction": "max"}, ValueError, "reduction must be 'mean' or 'sum'"),
    (ROWS, y, {"n_classes": 1}, ValueError, "n_classes must be"),
    (X, y, {"reduce": sum, "n_classes": None}, ValueError, "reduce needs n_classes"),
]


@pytest.mark.parametrize(("rows", "labels", "settings", "kind", "message"), BAD_INPUTS)
def test_bad_input_raises_one_line(client, rows, labels, settings, kind, message):
    with pytest.raises(kind, match=message) as caught:
        DaskObjective(rows, labels, **{"n_classes": C, **settings})
    assert "\n" not in str(caught.value)


def test_errors_of_a_call(objective):
    with pytest.raises(ValueError, match="W must have 41 rows"):
        objective(W[:-1])
    with pytest.raises(ValueError, match=r"W must have 5 columns \(classes\), got shape \(41, 6\)"):
        objective(np.zeros((D + 1, 6), np.float32))
    with pytest.raises(TypeError, match="W and X must have the same float type"):
        objective(W.astype(np.float64))
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            copied(objective)


def test_entry_that_is_not_finite_is_named_by_its_row(client):
    rows = da.from_array(_bad(X, (8500, 3), np.nan), chunks=(3000, D))
    with (
        DaskObjective(rows, y, n_classes=C, **SETTINGS) as objective,
        pytest.raises(ValueError, match=re.escape("loss at the start is nan: X[8500, 3] is nan")),
    ):
        optim.minimize(objective, W, "gradient_descent", max_steps=2)


def test_closed_objective_frees_the_cluster_and_says_so(client):
    with DaskObjective(ROWS, y, n_classes=C, **SETTINGS) as objective:
        keys = {rows.key for rows in objective._store._rows}
        assert keys <= set(keys_in_memory(client))
    with pytest.raises(RuntimeError, match="the objective is closed"):
        objective(W)
    assert_soon(lambda: keys.isdisjoint(keys_in_memory(client)))


def test_progress_is_told(client):
    told = []
    DaskObjective(
        ROWS, y, n_classes=C, progress=lambda message, share: told.append((message, share))
    ).close()
    assert told[-1] == ("4 of 4 blocks loaded", 1.0)
