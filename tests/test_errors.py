"""Test that each bad input raises its own error on every backend, before the backend runs."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.sparse
from oracle import BACKENDS

import fastloss
from fastloss import CrammerSinger, Hinge, OneVsAll, Softmax
from fastloss.backends import get_backend

N, D, C = 20, 6, 10
rng = np.random.default_rng(0)
X = rng.standard_normal((N, D))
W = rng.standard_normal((D, C))
y = np.arange(N) % C
ROW_TYPES = "float16, float32, float64 or uint8"


def changed(array, place, value, dtype=None):
    copy = array.astype(dtype or array.dtype)
    copy[place] = value
    return copy


def masked(array):
    return np.ma.masked_array(array, mask=np.zeros(array.shape, bool))


def frozen(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Return the name of a backend, and let all backends fail if called."""

    def fail(*_):
        pytest.fail("a backend was reached with bad input")

    for name in BACKENDS:
        monkeypatch.setattr(type(get_backend(name)), "evaluate", fail)
        monkeypatch.setattr(type(get_backend(name)), "score_gradient", fail)
    return request.param


# --- arrays --------------------------------------------------------------------------------------

LABELS = {
    "too large": (
        changed(y, 17, 10),
        ValueError,
        "y[17] = 10 is not in [0, 10); 11 classes need as many columns",
    ),
    "the first of several": (
        changed(y, [4, 9], [12, 11]),
        ValueError,
        "y[4] = 12 is not in [0, 10)",
    ),
    "negative": (changed(y, 3, -1), ValueError, "y[3] = -1 is not in [0, "),
    "int8, negative": (changed(y, 3, -128, "i1"), ValueError, "y[3] = -128 is not in [0, "),
    # These wrap round to -1 and to 0 if cast to int64 without a check.
    "uint64, -1 wrapped": (
        changed(y, 5, 2**64 - 1, "u8"),
        ValueError,
        "y[5] = 18446744073709551615 is not in [0, ",
    ),
    "uint64, large": (changed(y, 5, 2**63, "u8"), ValueError, f"y[5] = {2**63} is not in [0, "),
    "float": (y.astype(float), TypeError, "y must hold integers, got float64 (whole numbers: pass"),
    "fraction": (changed(y, 2, 0.5, "f8"), TypeError, "got float64: y[2] = 0.5"),
    "NaN": (changed(y, 2, np.nan, "f4"), TypeError, "got float32: y[2] = nan"),
    "infinite": (changed(y, 2, np.inf, "f4"), TypeError, "got float32: y[2] = inf"),
    "bool": (y > 5, TypeError, "y must hold integers, got bool"),
    "strings": (y.astype(str), TypeError, "y must hold integers, got <U"),
    "objects": (y.astype(object), TypeError, "y must be a numeric array, got ndarray (dtype obj"),
    "None": (None, TypeError, "y must be a numeric array, got NoneType"),
    "masked": (masked(y), TypeError, "y is a masked array"),
    "one-hot": (np.eye(C, dtype=int)[y], ValueError, "for one-hot rows pass y.argmax(axis=1)"),
    "scalar": (np.int64(3), ValueError, "y must have shape (20,), got ()"),
    "too short": (y[:-1], ValueError, "y has 19 labels, but X has 20 rows"),
    "too long": (np.append(y, 0), ValueError, "y has 21 labels, but X has 20 rows"),
}


@pytest.mark.parametrize(("labels", "error", "message"), LABELS.values(), ids=LABELS)
def test_labels(labels, error, message, backend):
    with pytest.raises(error, match=re.escape(message)):
        fastloss.loss_and_grad(W, X, labels, backend=backend)
    with pytest.raises(error, match=re.escape(message.replace("X has", "scores has"))):
        fastloss.score_gradient(X @ W, labels, backend=backend)


MATRICES = {
    "X too wide": ({"X": np.ones((N, D + 1))}, ValueError, "W must have 7 rows for X with 7 col"),
    "X too narrow": ({"X": X[:, 1:]}, ValueError, "W must have 5 rows for X with 5 columns"),
    "bias row without intercept": (
        {"W": np.ones((D + 1, C))},
        ValueError,
        "got shape (7, 10); if its last row is the bias, pass intercept=True",
    ),
    "no bias row with intercept": (
        {"intercept": True},
        ValueError,
        "W must have 7 rows for X with 6 columns and intercept=True, got shape (6, 10)",
    ),
    "X with ones and intercept": (
        {"X": np.ones((N, D + 1)), "W": np.ones((D + 1, C)), "intercept": True},
        ValueError,
        "W must have 8 rows",
    ),
    "no rows": ({"X": X[:0], "y": y[:0]}, ValueError, "X must not be empty, got shape (0, 6)"),
    "no features": ({"X": X[:, :0]}, ValueError, "X must not be empty, got shape (20, 0)"),
    "intercept": ({"intercept": np.array([0, 1])}, TypeError, "intercept must be True or False"),
    "1-D X": ({"X": X[0]}, ValueError, "X must be a matrix (N, D), got shape (6,)"),
    "images": ({"X": np.ones((N, 2, 3))}, ValueError, "X must be a matrix (N, D), got shape (20,"),
    "ragged X": ({"X": [[1.0, 2.0], [3.0]]}, ValueError, "X cannot be made into an array"),
    "int64 X": ({"X": X.astype(int)}, TypeError, f"X must be {ROW_TYPES}, got int64"),
    "int8 X": ({"X": X.astype("i1")}, TypeError, f"X must be {ROW_TYPES}, got int8"),
    "bool X": ({"X": X > 0}, TypeError, f"X must be {ROW_TYPES}, got bool"),
    "words": ({"X": [["1", "a"]]}, TypeError, "uint8, got <U1: X[0, 1] = 'a'"),
    "object X": ({"X": X.astype(object)}, TypeError, "X must be a numeric array, got ndarray"),
    "sparse X": ({"X": scipy.sparse.csr_array(X)}, TypeError, "numeric array, got csr_array"),
    "masked X": ({"X": masked(X)}, TypeError, "X is a masked array; fill it"),
    "complex X": ({"X": X + 0j}, TypeError, f"X must be {ROW_TYPES}, got complex128"),
    "float16": ({"X": X.astype("f2"), "W": W.astype("f2")}, TypeError, "W must be float32 or"),
    "float16 W": ({"W": W.astype("f2")}, TypeError, "W must be float32 or float64, got float16"),
    "uint8 W": ({"W": W.astype("u1")}, TypeError, "W must be float32 or float64, got uint8"),
    "masked W": ({"W": masked(W)}, TypeError, "W is a masked array"),
    "one class": ({"W": W[:, :1], "y": y * 0}, ValueError, "W must have at least 2 columns (cl"),
    "1-D W": ({"W": W[0]}, ValueError, "W must be a matrix (D, C), got shape (10,)"),
    "float32 X": (
        {"X": X.astype("f4")},
        TypeError,
        "W and X must have the same float type, got float64 and float32",
    ),
    "float32 W": (
        {"W": W.astype("f4")},
        TypeError,
        "W and X must have the same float type, got float32 and float64",
    ),
}


@pytest.mark.parametrize(("inputs", "error", "message"), MATRICES.values(), ids=MATRICES)
def test_matrices(inputs, error, message, backend):
    with pytest.raises(error, match=re.escape(message)):
        fastloss.loss_and_grad(**{"W": W, "X": X, "y": y, **inputs}, backend=backend)


def test_arguments_in_another_order_are_named(backend):
    values = {"W": W, "X": X, "y": y}
    for order in (("X", "y", "W"), ("X", "W", "y"), ("y", "X", "W"), ("W", "y", "X")):
        told = f"the arguments look like ({', '.join(order)}); the order is (W, X, y)"
        for labels in (y, y.astype(np.uint8)):
            given = [labels if name == "y" else values[name] for name in order]
            with pytest.raises((TypeError, ValueError), match=re.escape(told)):
                fastloss.loss_and_grad(*given, backend=backend)
    biased = np.ones((D + 1, C))
    with pytest.raises(ValueError, match=r"look like \(X, W, y\)"):
        fastloss.loss_and_grad(X, biased, y, intercept=True, backend=backend)
    with pytest.raises(TypeError, match=r"look like \(y, X\); the order is \(X, y\)"):
        fastloss.Objective(y, X)
    with pytest.raises(TypeError, match=r"look like \(y, scores\); the order is \(scores, y\)"):
        fastloss.score_gradient(y, X, backend=backend)
    estimate = fastloss.Objective(X, y).minibatch(3)
    with pytest.raises(TypeError, match=r"look like \(W, rows\); the order is \(rows, W\)"):
        estimate(W, [0, 1, 2])


@pytest.mark.parametrize(
    ("rows", "advice"), [(slice(0, 3), "np.arange("), (np.arange(N) < 3, "np.flatnonzero(rows)")]
)
def test_rows_of_a_minibatch_that_are_no_numbers(rows, advice):
    with pytest.raises(TypeError, match=re.escape(f"pass {advice}")):
        fastloss.Objective(X, y).minibatch(3)(rows, W)


SCORES = {
    "1-D": (X[0], ValueError, "scores must be a matrix (N, C), got shape (6,)"),
    "empty": (X[:0], ValueError, "scores must not be empty"),
    "one class": (X[:, :1], ValueError, "scores must have at least 2 columns (classes)"),
    "integers": (X.astype(int), TypeError, "scores must be float32 or float64, got int64"),
    "uint8": (X.astype("u1"), TypeError, "scores must be float32 or float64, got uint8"),
    "float16": (X.astype("f2"), TypeError, "scores must be float32 or float64, got float16"),
    "masked": (masked(X), TypeError, "scores is a masked array"),
}


@pytest.mark.parametrize(("scores", "error", "message"), SCORES.values(), ids=SCORES)
def test_scores(scores, error, message, backend):
    with pytest.raises(error, match=re.escape(message)):
        fastloss.score_gradient(scores, np.zeros(len(scores), int), backend=backend)


def out_cases():
    whole = np.ones(D * C + 5)
    return {
        "W itself": (W, W, ValueError, "out overlaps W"),
        "part of W": (
            whole[: D * C].reshape(D, C),
            whole[5:].reshape(D, C),
            ValueError,
            "out overlaps W",
        ),
        "transposed W": ((square := np.ones((C, C))), square.T, ValueError, "out overlaps W"),
        "shape": (W, np.empty((C, D)), ValueError, "out must have the shape of W, (6, 10), got (1"),
        "dtype": (W, np.empty((D, C), "f4"), TypeError, "out must have the dtype of W, float64"),
        "read-only": (W, frozen(W), ValueError, "out is read-only"),
        "list": (W, W.tolist(), TypeError, "out must be an ndarray, got list"),
    }


@pytest.mark.parametrize(
    ("weights", "out", "error", "message"), out_cases().values(), ids=out_cases()
)
def test_out(weights, out, error, message, backend):
    rows = np.ones((N, len(weights)))
    before = np.array(out)
    with pytest.raises(error, match=re.escape(message)):
        fastloss.loss_and_grad(weights, rows, y, backend=backend, out=out)
    np.testing.assert_array_equal(out, before)


@pytest.mark.parametrize("name", ["X", "y", "sample_weight"])
def test_out_overlapping_the_rows(name, backend):
    memory = np.zeros(100) if name == "y" else np.ones(100)
    inputs = {"X": np.ones((10, 2)), "y": np.zeros(10, int), "sample_weight": np.ones(10)}
    inputs[name] = {
        "X": memory[:20].reshape(10, 2),
        "y": memory[:10].view(np.int64),
        "sample_weight": memory[:10],
    }[name]
    with pytest.raises(ValueError, match=f"out overlaps {name}"):
        fastloss.loss_and_grad(
            np.ones((2, 3)), **inputs, backend=backend, out=memory[8:14].reshape(2, 3)
        )


# --- the other arguments -------------------------------------------------------------------------

weights = np.ones(N)
ARGUMENTS = {
    "negative weight": (
        {"sample_weight": changed(weights, 4, -0.5)},
        ValueError,
        "sample_weight[4] = -0.5 must be finite and >= 0",
    ),
    "NaN weight": ({"sample_weight": changed(weights, 4, np.nan)}, ValueError, "[4] = nan must be"),
    "infinite weight": ({"sample_weight": changed(weights, 4, np.inf)}, ValueError, "[4] = inf m"),
    "weights of wrong length": (
        {"sample_weight": weights[:-1]},
        ValueError,
        "sample_weight must have shape (20,), got (19,)",
    ),
    "weights as a column": ({"sample_weight": weights[:, None]}, ValueError, "got (20, 1)"),
    "one weight": ({"sample_weight": 1.0}, ValueError, "sample_weight must have shape (20,), got"),
    "weights as strings": ({"sample_weight": ["1"] * N}, TypeError, "must hold real numbers"),
    "weights as bool": ({"sample_weight": y > 3}, TypeError, "must hold real numbers, got bool"),
    "weights as complex": ({"sample_weight": weights + 0j}, TypeError, "must hold real numbers"),
    "masked weights": ({"sample_weight": masked(weights)}, TypeError, "sample_weight is a masked"),
    "class key of 1.5": ({"class_weight": {1.5: 2.0}}, ValueError, "has the key 1.5, expected an"),
    "class key of a string": ({"class_weight": {"cat": 2.0}}, ValueError, "has the key 'cat'"),
    "class key of -1": ({"class_weight": {-1: 2.0}}, ValueError, "class_weight has the key -1"),
    "negative class weight": (
        {"class_weight": {1: -2.0}},
        ValueError,
        "class_weight[1] must be finite and >= 0, got -2.0",
    ),
    "NaN class weight": ({"class_weight": {1: np.nan}}, ValueError, "class_weight[1] must be fin"),
    "string class weight": ({"class_weight": {1: "2"}}, TypeError, "class_weight[1] must be a rea"),
    "unknown class weights": (
        {"class_weight": "balance"},
        ValueError,
        "class_weight must be a mapping or 'balanced', got 'balance'",
    ),
    "list of class weights": ({"class_weight": [1.0] * C}, TypeError, "must be a mapping or 'bal"),
    "class key beyond W": (
        {"class_weight": {10: 2.0}},
        ValueError,
        "class_weight names 10, which is not in [0, 10)",
    ),
    "zero weights": (
        {"sample_weight": weights * 0},
        ValueError,
        "the weights of the 20 rows sum to 0 (each is ignored or has the weight 0)",
    ),
    "zero class weights": ({"class_weight": dict.fromkeys(range(C), 0.0)}, ValueError, "sum to 0"),
    "all ignored": (
        {"y": np.full(N, -1), "ignore_index": -1},
        ValueError,
        "sum to 0 (each is ignored or has the weight 0)",
    ),
    "ignore_index of 1.0": ({"ignore_index": 1.0}, TypeError, "ignore_index must be an integer or"),
    "negative l1": ({"l1": -1.0}, ValueError, "l1 must be finite and >= 0, got -1.0"),
    "negative l2": ({"l2": -1e-9}, ValueError, "l2 must be finite and >= 0, got -1e-09"),
    "NaN l1": ({"l1": np.nan}, ValueError, "l1 must be finite and >= 0, got nan"),
    "infinite l2": ({"l2": np.inf}, ValueError, "l2 must be finite and >= 0, got inf"),
    "string l2": ({"l2": "0.1"}, TypeError, "l2 must be a real number, got '0.1'"),
    "no l2": ({"l2": None}, TypeError, "l2 must be a real number, got None"),
    "reduction": ({"reduction": "none"}, ValueError, "reduction must be 'mean' or 'sum', got 'no"),
    "unknown loss": (
        {"loss": "sofmax"},
        ValueError,
        f"unknown loss 'sofmax'; known: {', '.join(map(repr, fastloss.available_losses()))}; "
        "did you mean 'softmax'?",
    ),
    "a class for a loss": ({"loss": Softmax}, TypeError, "loss must be a name or a fastloss.Loss"),
    "no loss": ({"loss": None}, TypeError, "loss must be a name or a fastloss.Loss, got None"),
    "no threads": ({"n_threads": 0}, ValueError, "n_threads must be >= 1, got 0"),
    "negative threads": ({"n_threads": -2}, ValueError, "n_threads must be >= 1, got -2"),
    "half a thread": ({"n_threads": 1.5}, TypeError, "n_threads must be an integer, got 1.5"),
    "True threads": ({"n_threads": True}, TypeError, "n_threads must be an integer, got True"),
    "threads by name": ({"n_threads": "2"}, TypeError, "n_threads must be an integer, got '2'"),
}


@pytest.mark.parametrize(("argument", "error", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments(argument, error, message, backend):
    out = np.full((D, C), 7.0)
    with pytest.raises(error, match=re.escape(message)):
        fastloss.loss_and_grad(W, **{"X": X, "y": y, **argument}, backend=backend, out=out)
    np.testing.assert_array_equal(out, 7.0)


def test_class_weights_of_rows_that_do_not_count_may_name_any_label():
    expected = fastloss.loss_and_grad(W, X, y, backend="numpy")[0]
    for options in (
        {"class_weight": {10: 0.0}},
        {"class_weight": {99: 2.0}, "ignore_index": 99},
    ):
        loss, _ = fastloss.loss_and_grad(W, X, y, backend="numpy", **options)
        np.testing.assert_allclose(loss, expected)


@pytest.mark.parametrize("argument", ["W", "X", "y"])
def test_failed_calls_do_not_change_out(argument, backend):
    out = np.full((D, C), 7.0)
    bad = {"W": W[:, :1], "X": X[:, 1:], "y": changed(y, 0, 10)}
    with pytest.raises(ValueError, match=argument):
        fastloss.loss_and_grad(
            **{"W": W, "X": X, "y": y, argument: bad[argument]}, backend=backend, out=out
        )
    np.testing.assert_array_equal(out, 7.0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "nothing", [{"sample_weight": weights * 0}, {"y": np.full(N, -1), "ignore_index": -1}]
)
def test_sum_over_no_rows_is_the_penalty(nothing, backend):
    total, dW = fastloss.loss_and_grad(
        W, **{"X": X, "y": y, **nothing}, l2=0.5, reduction="sum", backend=backend
    )
    np.testing.assert_allclose(total, 0.5 * np.square(W).sum())
    np.testing.assert_allclose(dW, W)


LOSSES = {
    "margin -1": (lambda: Hinge(margin=-1), "margin must be finite and >= 0, got -1"),
    "margin NaN": (lambda: Hinge(margin=np.nan), "margin must be finite and >= 0, got nan"),
    "margin inf": (lambda: CrammerSinger(np.inf), "margin must be finite and >= 0, got inf"),
    "margin of one-vs-all": (lambda: OneVsAll(margin=-0.1), "margin must be finite and >= 0"),
    "power 3": (lambda: Hinge(power=3), "power must be 1 (hinge) or 2 (squared hinge), got 3"),
    "power 0": (lambda: OneVsAll(power=0), "power must be 1 (hinge) or 2 (squared hinge), got 0"),
    "class_reduction": (lambda: Hinge(class_reduction="max"), "must be 'sum' or 'mean', got 'max'"),
    "smoothing 1": (lambda: Softmax(label_smoothing=1.0), "label_smoothing must be in [0, 1), got"),
    "smoothing < 0": (lambda: Softmax(-0.1), "label_smoothing must be in [0, 1), got -0.1"),
    "smoothing NaN": (lambda: Softmax(np.nan), "label_smoothing must be in [0, 1), got nan"),
}


@pytest.mark.parametrize(("make", "message"), LOSSES.values(), ids=LOSSES)
def test_parameters_of_losses(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


# --- names, settings, environment ----------------------------------------------------------------

UNKNOWN = f"unknown backend 'cuda'; known: {', '.join(map(repr, BACKENDS))}"


def test_unknown_backend(monkeypatch):
    with pytest.raises(ValueError, match=UNKNOWN):
        fastloss.loss_and_grad(W, X, y, backend="cuda")
    with pytest.raises(ValueError, match=UNKNOWN), fastloss.use(backend="cuda"):
        pass
    with pytest.raises(ValueError, match=UNKNOWN):
        fastloss.explain(N, D, C, backend="cuda")
    with pytest.raises(TypeError, match="backend must be a name, got None"):
        fastloss.loss_and_grad(W, X, y, backend=None)
    monkeypatch.setenv("FASTLOSS_BACKEND", "cuda")
    with pytest.raises(ValueError, match=UNKNOWN):
        fastloss.loss_and_grad(W, X, y)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "1e3", "²"])
def test_number_of_threads_in_the_environment(text, backend, monkeypatch):
    monkeypatch.setenv("FASTLOSS_NUM_THREADS", text)
    with pytest.raises(ValueError, match="FASTLOSS_NUM_THREADS must be"):
        fastloss.loss_and_grad(W, X, y, backend=backend)


@pytest.mark.parametrize(("n_threads", "error"), [(0, ValueError), (1.5, TypeError)])
def test_number_of_threads_in_use(n_threads, error):
    with pytest.raises(error, match="n_threads must be"), fastloss.use(n_threads=n_threads):
        pass


@pytest.mark.parametrize("size", ["N", "D", "C"])
def test_explain_of_size_0_raises(size):
    with pytest.raises(ValueError, match=f"{size} must be >= 1, got 0"):
        fastloss.explain(**{"N": 1, "D": 1, "C": 2, size: 0})


def test_explain_of_int32_raises():
    with pytest.raises(TypeError, match=f"dtype must be {ROW_TYPES}, got int32"):
        fastloss.explain(N, D, C, dtype=np.int32)


# --- Objective -----------------------------------------------------------------------------------


@pytest.mark.parametrize("w", [np.ones(D * C + 1), np.ones((D, C))], ids=["size", "2-D"])
def test_flat_of_other_shapes_raises(w, backend):
    objective = fastloss.Objective(X, y, backend=backend)
    with pytest.raises(ValueError, match="w must be 1-D with a multiple of 6 entries"):
        objective.flat(w)


@pytest.mark.parametrize("rows", [slice(0, 0), [], np.zeros(N, bool), 3], ids=str)
def test_batch_without_rows_raises(rows):
    with pytest.raises(ValueError, match="rows must select at least one row"):
        fastloss.Objective(X, y).batch(rows)


def test_mean_of_batch_without_weight_raises():
    objective = fastloss.Objective(X, y, sample_weight=y)
    with pytest.raises(ValueError, match="sum to 0"):
        objective.batch([0, 10])


def test_astype_float16_raises():
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got float16"):
        fastloss.Objective(X, y).astype(np.float16)
