"""Test the estimators on dask arrays."""

from __future__ import annotations

from collections.abc import Iterator

import dask.array as da
import numpy as np
import pytest
from clusters import local_client
from distributed import Client

from fastloss import data
from fastloss.sklearn import LinearClassifier, LinearSVC, LogisticRegression

ROWS = data.synthetic(4000, 25, 3, seed=2)
NAMES = np.array(["ant", "bee", "cat"])[ROWS.y]
X = da.from_array(ROWS.X, chunks=(900, 10))
Y = da.from_array(NAMES, chunks=700)
WEIGHTS = np.random.default_rng(0).random(4000)


@pytest.fixture(scope="module", autouse=True)
def client() -> Iterator[Client]:
    with local_client(2, processes=False) as client:
        yield client


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(),
        LogisticRegression(class_weight={"ant": 2.0}, fit_intercept=False),
        LinearSVC(class_weight="balanced"),
        LinearClassifier("crammer_singer", method="sgd", max_iter=2, random_state=0),
    ],
    ids=str,
)
def test_fit_on_a_cluster_is_that_on_one_machine(model, client):
    on_cluster = model.fit(X, Y, sample_weight=da.from_array(WEIGHTS, chunks=500))
    coef, intercept, classes = model.coef_, model.intercept_, model.classes_
    labels = model.predict(X)
    assert isinstance(labels, da.Array)
    labels = labels.compute()
    model.fit(ROWS.X, NAMES, sample_weight=WEIGHTS)
    assert on_cluster is model
    np.testing.assert_array_equal(classes, model.classes_)
    np.testing.assert_allclose(coef, model.coef_, atol=3e-3 * abs(model.coef_).max())
    np.testing.assert_allclose(intercept, model.intercept_, atol=3e-3)
    assert np.mean(labels == model.predict(ROWS.X)) > 0.99


def test_predictions_are_dask_arrays_with_the_same_numbers():
    model = LogisticRegression().fit(ROWS.X, NAMES)
    rows = X[X[:, 0] < 0]  # unknown chunk sizes, perhaps empty blocks
    plain = ROWS.X[ROWS.X[:, 0] < 0]
    for name in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        found, expected = getattr(model, name)(rows), getattr(model, name)(plain)
        assert (found.ndim, found.dtype) == (expected.ndim, expected.dtype)
        found = found.compute()
        if name == "predict":
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert model.score(X, Y) == model.score(ROWS.X, NAMES)


def test_two_classes_and_integer_rows_with_labels_in_memory():
    two = ROWS.y > 0
    integers = np.round(10 * ROWS.X).astype(np.int32)
    rows = da.from_array(integers, chunks=(1000, 25))
    model = LogisticRegression().fit(rows, two, sample_weight=da.ones(4000) > 0)
    assert model.coef_.shape == (1, 25)
    assert model.coef_.dtype == np.float64
    expected = LogisticRegression().fit(integers, two)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-3)
    decided = model.decision_function(da.from_array(integers, chunks=(1000, 25)))
    assert decided.shape == (4000,)


def test_bad_input_is_one_line():
    with pytest.raises(ValueError, match="y has one class, 'ant'"):
        LogisticRegression().fit(X, np.full(4000, "ant"))
    with pytest.raises(ValueError, match="y has 3999 labels, but X has 4000 rows"):
        LogisticRegression().fit(X, NAMES[:-1])
    with pytest.raises(ValueError, match=r"must have shape \(4000,\), got \(3999,\)"):
        LogisticRegression().fit(X, Y, sample_weight=da.ones(3999, chunks=900))
    with pytest.raises(ValueError, match="sample_weight has an entry that is not finite and >= 0"):
        LogisticRegression().fit(X, Y, sample_weight=-da.ones(4000, chunks=900))
    with pytest.raises(TypeError, match=r"only strings or only numbers, got y\[1\] = 1"):
        LogisticRegression().fit(X, np.array(["a", 1] * 2000, object))
    bad = ROWS.X.copy()
    bad[3500, 2] = np.nan
    with pytest.raises(ValueError, match="X has NaN or infinity in row 3500"):
        LogisticRegression().fit(da.from_array(bad, chunks=(900, 25)), NAMES)
    model = LogisticRegression().fit(ROWS.X, NAMES)
    with pytest.raises(ValueError, match="X has 24 features, but LogisticRegression is expecting"):
        model.predict(X[:, 1:])
    with pytest.raises(ValueError, match=r"X must be a matrix \(N, D\), got shape \(4000,\)"):
        model.predict(X[:, 0])
