"""Test `LinearModel.fit`: training on arrays with labels of any kind."""

from __future__ import annotations

import numpy as np
import pytest

import fastloss
from fastloss import data
from fastloss.model import LinearModel
from fastloss.training import Job, Settings

ROWS = data.synthetic(400, 15, 4, seed=3)
NAMES = np.array(["d", "c", "b", "a"])  # in another order than the class numbers
X, y = ROWS.X, NAMES[ROWS.y]


def fit(X=X, y=y, **settings) -> LinearModel:
    return LinearModel.fit(X, y, **{"epochs": 4, "batch_size": 32, **settings})


def assert_same_weights(one: LinearModel, other: LinearModel) -> None:
    np.testing.assert_array_equal(one.W, other.W)


@pytest.mark.parametrize("settings", [{}, {"preprocessing": "mean_image", "validation": 33}])
def test_fit_trains_as_the_command_does(tmp_path, settings):
    np.savez(tmp_path / "d.npz", X=ROWS.X, y=ROWS.y)
    outcome = Job(Settings(epochs=4, batch_size=32), tmp_path / "d.npz", **settings).run()
    model = fit(y=ROWS.y, **settings)
    assert_same_weights(model, outcome.model)
    assert model.about["accuracy"] == outcome.accuracies
    assert model.about["settings"] == str(outcome.settings)
    shares = [record.validation_accuracy for record in model.history]
    assert shares == [record.validation_accuracy for record in outcome.result.history]
    assert len(model.history) == 5


@pytest.mark.parametrize(
    "labels",
    [
        y,
        y.tolist(),
        y.astype(object),
        y[:, None],
        y.astype("S"),
        np.array([40, 7, 0, -3])[ROWS.y],
        np.array([4.5, 2.0, 0.25, -1.0], np.float32)[ROWS.y],
    ],
    ids=["array", "list", "objects", "column", "bytes", "gaps", "floats"],
)
def test_labels_of_any_kind_give_the_same_model(labels):
    model = fit(y=labels)
    assert_same_weights(model, fit(y=3 - ROWS.y))
    np.testing.assert_array_equal(model.classes, np.unique(np.asarray(labels)))
    assert model.accuracy(X, labels) > 0.7
    assert (model.predict(X) == np.asarray(labels).ravel()).mean() == model.accuracy(X, labels)


def test_loaded_model_is_the_fitted_one(tmp_path):
    model = fit()
    model.save(tmp_path / "m.npz")
    loaded = fastloss.LinearModel.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.history == model.history
    assert loaded.about == model.about


def test_rows_of_any_type():
    assert_same_weights(fit(X.tolist()), fit(X.astype(np.float64)))
    pixels = np.clip(40 * X + 128, 0, 255).astype(np.uint8)
    model = fit(pixels)
    assert model.accuracy(pixels, y) > 0.7
    assert model.W.dtype == np.float32
    assert fit(y=ROWS.y < 2).predict(X).dtype == bool


def test_other_integers_and_bools_are_cast_to_float32():
    whole = (10 * X).astype(np.int64)
    model = fit(whole.tolist())
    assert_same_weights(model, fit(whole.astype(np.float32)))
    np.testing.assert_array_equal(model.predict(whole[:9]), model.predict(whole[:9].astype("f4")))
    assert_same_weights(fit(X > 0), fit((X > 0).astype(np.float32)))


def test_columns_of_data_frames_are_named():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X[:, :2], columns=["age", "income"])
    model = fit(frame)
    for value, told in [
        (np.nan, r"X\[7, 1\] \(column 'income'\) is nan"),
        ("b", r"\(column 'income'\) = 'b'; encode text as numbers first"),
        (None, r"X\[7, 1\] \(column 'income'\) .*; fill missing values first"),
    ]:
        bad = frame.astype(object if value is None or value == "b" else float)
        bad.iloc[7, 1] = value
        for call in (fit, model.predict):
            with pytest.raises((TypeError, ValueError), match=told):
                call(bad)


def test_ignored_labels_are_left_out():
    labels = ROWS.y.copy()
    ignored = np.arange(400) % 5 == 1
    labels[ignored] = -1
    rows = np.where(ignored[:, None], np.nan, X)
    weight = np.linspace(1, 2, 400)
    expected = fit(X[~ignored], labels[~ignored], sample_weight=weight[~ignored])
    model = fit(rows, labels, sample_weight=weight, ignore_index=-1)
    assert model.classes.tolist() == [0, 1, 2, 3]
    assert_same_weights(model, expected)
    held_out = fit(X, ROWS.y, validation=(rows, labels), ignore_index=-1)
    assert held_out.about["accuracy"]["validation"] == held_out.accuracy(
        X[~ignored], ROWS.y[~ignored]
    )
    assert fit(X, labels).classes.tolist() == [-1, 0, 1, 2, 3]


def test_validation_rows_of_the_caller():
    last = slice(350, None)
    model = fit(X[:350], y[:350], validation=(X[last], y[last].tolist()))
    assert model.about["accuracy"]["validation"] == model.accuracy(X[last], y[last])
    assert_same_weights(model, fit(validation=50))
    alone = fit(validation=0)
    assert set(alone.about["accuracy"]) == {"train"}
    assert alone.history[-1].validation_accuracy is None


def test_weights_of_rows_and_classes():
    weight = np.where(y == "b", 3.0, 1.0)
    weighted = fit(class_weight={"b": 3})
    assert_same_weights(weighted, fit(sample_weight=weight))
    assert weighted.confusion(X, y)[:, 1].sum() > fit().confusion(X, y)[:, 1].sum()
    # Sorted rows: validation rows are drawn, and the weights must follow the others.
    order = np.argsort(y, kind="stable")
    drawn = fit(X[order], y[order], sample_weight=weight[order])
    assert_same_weights(drawn, fit(X[order], y[order], class_weight={"b": 3}))
    few = (y != "a") | (np.arange(400) % 8 == 0)
    balanced = fit(X[few], y[few], class_weight="balanced")
    assert balanced.confusion(X, y)[:, 0].sum() > fit(X[few], y[few]).confusion(X, y)[:, 0].sum()


def test_patience_keeps_the_best_and_says_why_it_stopped():
    model = fit(epochs=40, lr=0.3, schedule="constant", patience=2)
    shares = model.history.column("validation_accuracy")
    assert len(shares) < 41
    assert model.about["accuracy"]["validation"] == shares.max() > shares[-1]
    assert model.about["stopped"].startswith("no higher validation accuracy in 2 records")


def test_callback_stops_and_loss_may_be_an_instance():
    model = fit(loss=fastloss.Softmax(label_smoothing=0.1), callback=lambda record: record.step > 1)
    assert len(model.history) == 2
    assert model.loss == fastloss.Softmax(label_smoothing=0.1)
    assert "loss=Softmax(label_smoothing=0.1), optimizer=sgd, lr=" in model.about["settings"]
    # The default lr is that of the loss's name.
    assert model.history[-1].learning_rate == fit(epochs=4).history[1].learning_rate


WITH_NAN = np.where(np.arange(400)[:, None] == 7, np.nan, X)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"y": ["a"] * 400}, ValueError, "too few classes: 'a'; 2 needed"),
        ({"y": ["a", 1] * 200}, TypeError, r"only strings or only numbers, got y\[1\] = 1"),
        ({"y": [None] * 400}, ValueError, r"y\[0\] is None, a missing label; drop rows without"),
        ({"y": ["a", np.nan] * 200}, ValueError, r"y\[1\] is nan, a missing label"),
        ({"y": [np.nan, "a"] * 200}, ValueError, r"y\[0\] is nan, a missing label"),
        ({"y": np.full(400, np.nan)}, ValueError, r"y\[0\] is nan, .*; drop rows without a label"),
        ({"X": y, "y": X}, TypeError, r"look like \(y, X\); the order is \(X, y\)"),
        ({"X": np.full((400, 2), 2**25)}, TypeError, "got int64; pass X.astype"),
        ({"ignore_index": "a"}, TypeError, "ignore_index must be an integer or None, got 'a'"),
        ({"ignore_index": -1}, TypeError, "ignore_index needs labels that are numbers"),
        ({"y": [5] * 400, "ignore_index": 5}, ValueError, "each of the 400 labels is ignore_index"),
        ({"y": y[:7]}, ValueError, "y has 7 labels, but X has 400 rows"),
        ({"y": X[:, 0]}, ValueError, "y has 400 different numbers, too many for classes"),
        ({"y": np.eye(4)[ROWS.y]}, ValueError, r"for one-hot rows pass y.argmax\(axis=1\)"),
        ({"X": WITH_NAN}, ValueError, r"X\[7, 0\] is nan"),
        ({"X": X[0]}, ValueError, r"X must be a matrix \(N, D\)"),
        ({"class_weight": {"x": 2}}, ValueError, "names 'x', which is none of the classes 'a', "),
        ({"class_weight": "even"}, ValueError, "must be a mapping or 'balanced', got 'even'"),
        ({"sample_weight": [1.0]}, ValueError, r"sample_weight must have shape \(400,\)"),
        ({"validation": 400}, ValueError, r"validation must be in \[0, 400\)"),
        ({"validation": (X[:2], ["a", "x"])}, ValueError, r"validation: y\[1\] = 'x' is not one"),
        ({"validation": (WITH_NAN, y)}, ValueError, r"validation: X\[7, 0\] is nan"),
        ({"validation": (X[:, :3], y)}, ValueError, "the rows for validation have 3 features"),
        ({"validation": 0, "patience": 2}, ValueError, "need validation rows"),
        ({"optimizer": "lbfgs", "momentum": 0.5}, ValueError, "'lbfgs' takes no"),
    ],
)
def test_invalid_arguments_raise(settings, error, match):
    with pytest.raises(error, match=match):
        fit(**settings)
