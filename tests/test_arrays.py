"""Test that arrays of other kinds are accepted, or rejected with a valid suggestion."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import fastloss
from fastloss import optim

X, W = np.eye(3), np.arange(9.0).reshape(3, 3)
y = np.array([2, 0, 1])
GOOD = {"W": W, "X": X, "y": y, "sample_weight": np.array([1.0, 2.0, 3.0])}
RIGHT = fastloss.loss_and_grad(**GOOD, backend="numpy")


class Exports:
    """An array that NumPy would treat as a single object."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array


class OverDLPack(Exports):
    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


class Column(Exports):
    """A stand-in for a column of a data frame."""

    def to_numpy(self) -> np.ndarray:
        return self._array


class Parameter(Exports):
    """A stand-in for a PyTorch tensor that requires a gradient."""

    requires_grad = True

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")

    def detach(self) -> np.ndarray:
        return self._array


class BFloat16(Exports):
    dtype = "torch.bfloat16"

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("Got unsupported ScalarType BFloat16")

    def float(self) -> np.ndarray:
        return self._array.astype(np.float64)

    def long(self) -> np.ndarray:
        return self._array.astype(np.int64)


def misaligned(array: np.ndarray) -> np.ndarray:
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
    memory[:] = np.frombuffer(array.tobytes(), np.uint8)
    return memory.view(array.dtype).reshape(array.shape)


TAKEN = {
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "DLPack": OverDLPack,
    "to_numpy": Column,
    "list": np.ndarray.tolist,
    "tuple of arrays": tuple,
    "memoryview": memoryview,
    "misaligned": misaligned,
    "subclass": lambda array: array.view(type("Subclass", (np.ndarray,), {})),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("kind", TAKEN.values(), ids=TAKEN)
def test_other_arrays_are_accepted(kind, name):
    for backend in fastloss.available_backends():
        loss, dW = fastloss.loss_and_grad(**{**GOOD, name: kind(GOOD[name])}, backend=backend)
        assert loss == pytest.approx(RIGHT[0], rel=1e-12)
        np.testing.assert_allclose(dW, RIGHT[1], rtol=1e-12, atol=1e-15)
        assert dW.dtype == np.float64


def test_misaligned_weights_after_aligned_ones_are_accepted():
    objective = fastloss.Objective(X, y, sample_weight=GOOD["sample_weight"])
    for weights in (W, misaligned(W)):
        out = misaligned(W)
        loss, dW = objective(weights, out=out)
        assert loss == pytest.approx(RIGHT[0], rel=1e-12)
        assert dW is out
        np.testing.assert_allclose(dW, RIGHT[1], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("labels", [y[:, None], y[:, None].tolist(), y[:, None].astype(">i4")])
def test_column_of_labels_is_accepted(labels, tmp_path):
    loss, _ = fastloss.loss_and_grad(**{**GOOD, "y": labels}, backend="numpy")
    assert loss == RIGHT[0]
    np.savez(tmp_path / "keras.npz", x_train=X, y_train=labels)
    assert fastloss.data.load(tmp_path / "keras.npz").y.tolist() == y.tolist()


#: Rejected values and their errors, by argument. The suggested code must give an accepted value.
REFUSED: dict[str, dict[str, tuple[Any, type[Exception]]]] = {
    "y": {
        "whole floats": (y.astype(float), TypeError),
        "whole floats in a list": (y.astype(float).tolist(), TypeError),
        "float16": (y.astype("f2"), TypeError),
        "objects": (y.astype(object), TypeError),
        "strings": (np.array(["c", "a", "b"]), TypeError),
        "strings as objects": (np.array(["c", "a", "b"], object), TypeError),
        "strings in a list": (["c", "a", "b"], TypeError),
        "bytes": (np.array([b"c", b"a", b"b"]), TypeError),
        "dates": (np.array(["2003", "2001", "2002"], "M8[Y]"), TypeError),
        "one-hot": (np.eye(3, dtype=int)[y], ValueError),
        "one-hot floats": (np.eye(3)[y], ValueError),
        "one-hot truths": (np.eye(3)[y] > 0, ValueError),
        "one-hot lists": (np.eye(3, dtype=int)[y].tolist(), ValueError),
        "a row": (y[None, :], ValueError),
        "an iterator": (iter(y.tolist()), TypeError),
        "bfloat16": (BFloat16(y), TypeError),
        "a gradient": (Parameter(y), TypeError),
    },
    **{
        name: {
            "integers": (GOOD[name].astype(int), TypeError),
            "long double": (GOOD[name].astype("g"), TypeError),
            "integers in a list": (GOOD[name].astype(int).tolist(), TypeError),
            "integers as objects": (GOOD[name].astype(int).astype(object), TypeError),
            "floats as objects": (GOOD[name].astype(object), TypeError),
            "sparse": (scipy.sparse.csr_array(GOOD[name]), TypeError),
            "sparse matrix": (scipy.sparse.csc_matrix(GOOD[name]), TypeError),
            "bfloat16": (BFloat16(GOOD[name]), TypeError),
            "a gradient": (Parameter(GOOD[name]), TypeError),
            "text": (GOOD[name].astype(str), TypeError),
            "text in a list": (GOOD[name].astype(str).tolist(), TypeError),
            "complex": (GOOD[name] + 0j, TypeError),
        }
        for name in ("W", "X")
    },
    "sample_weight": {
        "a column": (GOOD["sample_weight"][:, None], ValueError),
        "objects": (GOOD["sample_weight"].astype(object), TypeError),
        "a gradient": (Parameter(GOOD["sample_weight"]), TypeError),
    },
}
REFUSED["W"]["float16"] = W.astype("f2"), TypeError
CASES = {
    f"{name}: {kind}": (name, *case)
    for name, cases in REFUSED.items()
    for kind, case in cases.items()
}


@pytest.mark.parametrize(("name", "value", "error"), CASES.values(), ids=CASES)
def test_suggested_code_is_accepted(name, value, error):
    inputs = {**GOOD, name: value}
    with pytest.raises(error, match=rf"^{name} ") as caught:
        fastloss.loss_and_grad(**inputs, backend="numpy")
    # The suggestion may be in brackets.
    code = re.sub(r"(\(whole.*)\)$", r"\1", str(caught.value)).rpartition("pass ")[2]
    inputs[name] = eval(code, {"np": np, name: value})
    if name in ("W", "X"):
        inputs |= {key: inputs[key].astype(inputs[name].dtype) for key in ("W", "X")}
    loss, _ = fastloss.loss_and_grad(**inputs, backend="numpy")
    assert loss == pytest.approx(RIGHT[0], rel=1e-5)


LONG = np.arange(12.0).reshape(4, 3) / 7  # four rows, so that no shape is square
FIXES = {
    "labels from 1": ("y", np.array([3, 1, 2, 2]), {}),
    "labels from 1 in a list": ("y", [3, 1, 2, 2], {}),
    "labels -1 and 1": ("y", [-1, 1, 1, -1], {}),
    "numbers of rows": ("y", np.array([5000, 7, 2**40, 7]), {}),
    "images": ("X", LONG.reshape(4, 3, 1), {}),
    "a row": ("X", LONG[0], {"y": [2]}),
    "transposed weights": ("W", LONG[:2], {"y": [0, 1, 1, 0]}),
    "transposed weights with a bias": ("W", LONG.T, {"intercept": True}),
    "no bias": ("W", LONG[:3], {"intercept": True}),
    "float32 weights": ("W", LONG[:3].astype("f4"), {}),
    "a weight vector": ("W", LONG[0], {"y": [0, 1, 1, 0]}),
    "a column of weights": ("W", LONG[:3, :1], {"y": [0, 1, 1, 0]}),
    "large integers": ("X", np.full((4, 3), 2**24 + 1), {}),
    "class weights in a list": ("class_weight", [1.0, 2.0, 3.0], {}),
    "class weights in an array": ("class_weight", np.ones(3), {}),
}


@pytest.mark.parametrize(("name", "value", "others"), FIXES.values(), ids=FIXES)
def test_suggested_code_mends_the_problem(name, value, others):
    inputs = {"W": LONG[:3], "X": LONG, "y": [2, 0, 1, 1], **others, name: value}
    with pytest.raises((TypeError, ValueError)) as caught:
        fastloss.loss_and_grad(**inputs)
    inputs[name] = eval(str(caught.value).rpartition("pass ")[2], {"np": np, name: value})
    assert np.isfinite(fastloss.loss_and_grad(**inputs)[0])


UNADVISED = {
    "two columns": (np.array([[2, 7], [0, 7], [1, 7]]), "got (3, 2); expected one label a row"),
    "all classes at once": (np.ones((3, 3), int), "got (3, 3); expected one label a row"),
    "missing": (
        np.array([2, None, 1], object),
        ": y[1] = None; drop rows without a label",
    ),
    "not a number": (
        np.array([2.0, np.nan, 1.0]),
        ": y[1] = nan; drop rows without a label",
    ),
    "too large": (np.array([2.0, 1e300, 1.0]), "got float64: y[1] = 1e+300"),
    "one negative": (np.array([2, -1, 1]), "[0, C); to skip these rows pass ignore_index=-1"),
}


@pytest.mark.parametrize(("labels", "message"), UNADVISED.values(), ids=UNADVISED)
def test_errors_without_code(labels, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message) + "$"):
        fastloss.loss_and_grad(W, X, labels)


def test_every_entry_point_names_the_argument():
    objective = fastloss.Objective(X, y)
    calls = {
        "w": lambda value: objective.flat(value),
        "W": lambda value: optim.minimize(objective, value),
        "W ": lambda value: optim.minimize(lambda W: (0.0, W), value),
        "W  ": lambda value: fastloss.check_gradient(objective, value),
        "W   ": lambda value: fastloss.numerical_gradient(objective, value),
        "the gradient": lambda value: fastloss.check_gradient(lambda W: (0.0, value), W),
        "scores": lambda value: fastloss.score_gradient(value, y),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=rf"^{name.strip()} cannot be made into an array"):
            call(Parameter(W))
