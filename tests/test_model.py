"""Test `fastloss.model`: preprocessing, predictions and saved models."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import pytest

import fastloss
from fastloss import available_losses, data
from fastloss.blocks import row_blocks
from fastloss.data import DataFormatError
from fastloss.losses import get_loss
from fastloss.losses.hinge import Hinge
from fastloss.losses.softmax import Softmax
from fastloss.model import LinearModel
from fastloss.preprocessing import Preprocessing

PIXELS = np.random.default_rng(0).integers(0, 256, (300, 12), np.uint8)
KINDS = ("none", "mean_image", "standardize")


def model_of(X: np.ndarray, kind: str = "standardize", loss="softmax", C: int = 4) -> LinearModel:
    preprocessing = Preprocessing.fit(X, kind)
    W = np.random.default_rng(1).standard_normal((X.shape[1] + 1, C)).astype(preprocessing.dtype)
    names = tuple(f"class {c}" for c in range(C))
    return LinearModel(W, loss, preprocessing, names, (3, 4), {"data": "made up", "seed": 3})


# Preprocessing


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_preprocessing_follows_its_formula(kind, dtype):
    X = PIXELS.astype(dtype)
    x = X / 255 if dtype == np.uint8 else X.astype(np.float64)
    grey = 8 / 255 if dtype == np.uint8 else 0
    deviation = np.sqrt(x.var(axis=0) + grey**2)
    expected = {
        "none": x,
        "mean_image": x - x.mean(axis=0),
        "standardize": (x - x.mean(axis=0)) / deviation,
    }[kind]
    preprocessing = Preprocessing.fit(X, kind)
    rows = preprocessing.apply(X)
    assert rows.dtype == (np.float64 if dtype == np.float64 else np.float32)
    eps = np.finfo(rows.dtype).eps
    np.testing.assert_allclose(rows, expected, rtol=8 * eps, atol=8 * eps * np.abs(x).max())
    np.testing.assert_array_equal(X, PIXELS)  # the input is unchanged


@pytest.mark.parametrize("value", [0, 1, 77, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_constant_column_is_not_divided(value, dtype):
    X = PIXELS.astype(dtype)
    X[:, 5] = value
    preprocessing = Preprocessing.fit(X, "standardize")
    np.testing.assert_allclose(preprocessing.deviation[5], 8 / 255 if dtype == np.uint8 else 1)
    rows = preprocessing.apply(X)
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(rows[:, 5], 0, atol=1e-4 if value else 0)


def test_nearly_constant_column_is_divided():
    X = PIXELS.astype(np.float32)
    X[:, 5] = 254
    X[0, 5] = 255
    preprocessing = Preprocessing.fit(X, "standardize")
    np.testing.assert_allclose(preprocessing.deviation[5], X[:, 5].std(), rtol=1e-3)


def test_nearly_constant_pixel_is_not_amplified():
    X = np.zeros((10_000, 2), np.uint8)
    X[0] = 100
    rows = Preprocessing.fit(X, "standardize").apply(X)
    np.testing.assert_allclose(rows.max(), 100 / 8, rtol=0.01)


def test_preprocessing_uses_training_rows_only():
    preprocessing = Preprocessing.fit(PIXELS[:100], "mean_image")
    rows = preprocessing.apply(PIXELS[100:])
    assert np.abs(rows.mean(axis=0)).max() > 1e-3


def test_preprocessing_rejects_other_dtypes():
    with pytest.raises(ValueError, match="unknown preprocessing 'nope'; known: 'none'"):
        Preprocessing.fit(PIXELS, "nope")
    with pytest.raises(TypeError, match="X must be uint8 pixels as in training, got float32"):
        Preprocessing.fit(PIXELS).apply(PIXELS.astype(np.float32))
    with pytest.raises(TypeError, match="X must be float rows as in training, got uint8"):
        Preprocessing.fit(PIXELS.astype(np.float32)).apply(PIXELS)


# Scores, classes, counts


def test_scores_of_preprocessed_rows():
    model = model_of(PIXELS)
    rows = model.preprocessing.apply(PIXELS).astype(np.float64)
    expected = rows @ model.W[:-1] + model.W[-1]
    np.testing.assert_allclose(model.scores(PIXELS), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.predict(PIXELS), model.scores(PIXELS).argmax(axis=1))


def test_scores_of_more_rows_than_a_block_holds():
    model, many = model_of(PIXELS), np.tile(PIXELS, (300, 1))
    assert len(list(row_blocks(len(many), 4 * many.shape[1]))) == 2
    expected = np.tile(model.scores(PIXELS), (300, 1))
    np.testing.assert_allclose(model.scores(many), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.predict(many), expected.argmax(axis=1))


def test_confusion_counts_true_classes_in_rows():
    W = np.vstack([np.eye(3), np.zeros((1, 3))])
    plain = Preprocessing(of_pixels=False, dtype=np.dtype(np.float64))
    model = LinearModel(W, "hinge", plain, ("a", "b", "c"))
    X = np.eye(3)[[0, 0, 1, 2, 2, 2]]
    y = np.array([0, 1, 1, 2, 2, 0])
    np.testing.assert_array_equal(model.confusion(X, y), [[1, 0, 1], [1, 1, 0], [0, 0, 2]])
    np.testing.assert_allclose(model.accuracy(X, y), 4 / 6)


LABELS = {
    "strings": np.array(["dog", "cat", "a longer name", "ö"]),
    "list": ["dog", "cat", "a longer name", "ö"],
    "objects": np.array(["dog", "cat", "a longer name", "ö"], dtype=object),
    "gaps": np.array([7, -3, 40, 0], np.int32),
    "floats": np.array([0.5, -1.0, 2.0, 0.1], np.float32),
    "bytes": np.array([b"d", b"c", b"bb", b"a"]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_classes_of_any_kind_are_predicted_and_saved(tmp_path, kind):
    model = replace(model_of(PIXELS), classes=LABELS[kind], class_names=())
    places = model.class_numbers(PIXELS)
    predicted = model.predict(PIXELS)
    assert predicted.tolist() == [np.asarray(LABELS[kind])[place] for place in places]
    assert set(places) == {0, 1, 2, 3}
    assert model.class_names == tuple(map(str, model.classes.tolist()))
    assert model.accuracy(PIXELS, predicted) == 1.0
    assert model.accuracy(PIXELS, np.roll(predicted, 7).astype(object)) < 1.0
    counts = np.bincount(places, minlength=4)
    np.testing.assert_array_equal(model.confusion(PIXELS, predicted.tolist()), np.diag(counts))
    model.save(tmp_path / "model.npz")
    for other in (LinearModel.load(tmp_path / "model.npz"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(PIXELS), predicted)
        assert other.classes.dtype == model.classes.dtype != object
        assert other.class_names == model.class_names


def test_two_classes_may_be_bools():
    model = replace(model_of(PIXELS, C=2), classes=np.array([False, True]))
    assert model.predict(PIXELS).dtype == bool
    assert model.accuracy(PIXELS, model.scores(PIXELS)[:, 1] > model.scores(PIXELS)[:, 0]) == 1.0


@pytest.mark.parametrize(
    ("y", "error", "match"),
    [
        (["cat", "bird"], ValueError, r"y\[1\] = 'bird' is not one of the classes 'b', 'cat', 'a'"),
        ([0, 1], TypeError, "y must hold strings as the classes do, got int64"),
        (["cat", 1], TypeError, r"y must hold only strings or only numbers, got y\[1\] = 1"),
        (["cat"], ValueError, "y has 1 labels, but X has 2 rows"),
        ([["cat", "b"]], ValueError, r"y must have shape \(2,\), got \(1, 2\)"),
        (np.array(["2020", "2021"], "M8[Y]"), TypeError, "y must hold strings, integers, bools or"),
    ],
)
def test_labels_that_are_no_classes_raise(y, error, match):
    model = replace(model_of(PIXELS), classes=["b", "cat", "a", "ö"])
    with pytest.raises(error, match=match):
        model.accuracy(PIXELS[:2], y)


def test_probabilities_are_the_softmax_of_the_scores():
    model = model_of(PIXELS.astype(np.float64), loss=Softmax(label_smoothing=0.1))
    exps = np.exp(model.scores(PIXELS / 1.0))
    expected = exps / exps.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(PIXELS / 1.0), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_extreme_probabilities_sum_to_one(dtype):
    model = model_of(PIXELS.astype(dtype))
    model = replace(model, W=model.W * np.float32(1e4))
    many = np.tile(PIXELS, (300, 1)).astype(dtype)
    shares = model.predict_proba(many)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(shares.argmax(axis=1), model.predict(many))


def test_other_losses_have_no_probabilities():
    for name in set(available_losses()) - {"softmax"}:
        model = model_of(PIXELS, loss=name)
        with pytest.raises(ValueError, match="no probabilities: train with 'softmax'") as told:
            model.predict_proba(PIXELS)
        assert repr(model.loss) in str(told.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_have_no_prediction(bad):
    X = np.tile(PIXELS, (300, 1)).astype(np.float32)  # more than a block
    model = model_of(X)
    X[80_000, 2] = bad
    calls = [model.scores, model.predict, model.predict_proba, model.class_numbers]
    calls += [partial(f, y=np.zeros(len(X), int)) for f in (model.accuracy, model.confusion)]
    for call in calls:
        with pytest.raises(ValueError, match=rf"X\[80000, 2\] is {bad}, expected a finite number"):
            call(X)
    assert not np.isfinite(model.scores(X, require_finite=False)[80_000]).any()
    assert len(model.class_numbers(X, require_finite=False)) == len(X)
    with pytest.raises(ValueError, match=r"X\[1\] has too large entries"):
        model.predict(np.array([[0.0] * 12, [1e300] * 12]))


def test_rows_and_labels_in_another_order_are_named():
    model = model_of(PIXELS)
    with pytest.raises(ValueError, match=r"arguments look like \(y, X\); the order is \(X, y\)"):
        model.accuracy(np.zeros(300, int), PIXELS)


def test_mismatched_rows_and_labels_raise():
    model = model_of(PIXELS)
    with pytest.raises(ValueError, match="X has 11 features a row, the model was trained on 12"):
        model.predict(PIXELS[:, :11])
    with pytest.raises(ValueError, match=r"y\[2\] = 4 is not in \[0, 4\)"):
        model.accuracy(PIXELS[:3], np.array([0, 1, 4]))
    with pytest.raises(ValueError, match="y has 2 labels, but X has 3 rows"):
        model.accuracy(PIXELS[:3], np.array([0, 1]))


@pytest.mark.parametrize("first", [0, 1])
def test_float_labels_of_integer_classes_count_as_integers(first):
    model = replace(model_of(PIXELS), classes=np.arange(first, first + 4))
    labels = model.predict(PIXELS).astype(np.float64)
    assert model.accuracy(PIXELS, labels) == 1.0
    with pytest.raises(ValueError, match=r"y\[0\] = 0.5 is not one of the classes"):
        model.accuracy(PIXELS[:1], [0.5])


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"W": np.zeros((13, 4))}, TypeError, "W must be float32 as preprocessed rows"),
        ({"W": np.full((13, 4), np.nan, np.float32)}, ValueError, "W has entries that are not fin"),
        ({"class_names": ("a",)}, ValueError, "class_names has 1 names, expected 4"),
        ({"W": np.zeros((9, 4), np.float32)}, ValueError, r"mean has shape \(12,\), expected \(8"),
        ({"image_shape": (3, 3)}, ValueError, r"image_shape \(3, 3\) does not hold 12 features"),
        ({"loss": "nope"}, ValueError, "unknown loss 'nope'"),
        ({"classes": ["a", "b"]}, ValueError, r"classes has shape \(2,\), expected \(4,\)"),
        ({"classes": [3, 1, 2, 1]}, ValueError, "classes has 1 more than once"),
    ],
)
def test_mismatched_parts_raise(change, error, match):
    with pytest.raises(error, match=match):
        replace(model_of(PIXELS), **change)


def test_zero_deviation_raises():
    model = model_of(PIXELS)
    bad = replace(model.preprocessing, deviation=np.zeros(12, np.float32))
    with pytest.raises(ValueError, match="deviation has entries that are not > 0"):
        replace(model, preprocessing=bad)


# Files


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_saved_model_is_loaded_unchanged(tmp_path, kind, dtype):
    X = PIXELS.astype(dtype)
    model = model_of(X, kind)
    model.save(tmp_path / "new folder" / "model.npz")
    loaded = LinearModel.load(tmp_path / "new folder" / "model.npz")
    np.testing.assert_array_equal(loaded.W, model.W)
    np.testing.assert_array_equal(loaded.scores(X), model.scores(X))
    for name in ("loss", "class_names", "image_shape", "about"):
        assert getattr(loaded, name) == getattr(model, name)
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["model.npz"]


@pytest.mark.parametrize(
    "loss", [*available_losses(), Hinge(margin=0.5, power=2), Softmax(label_smoothing=0.1)], ids=str
)
def test_saved_loss_is_loaded_unchanged(tmp_path, loss):
    model_of(PIXELS, loss=loss).save(tmp_path / "model.npz")
    assert LinearModel.load(tmp_path / "model.npz").loss == get_loss(loss)


def test_file_of_an_older_version_is_loaded(tmp_path):
    path, model = tmp_path / "model.npz", model_of(PIXELS)
    model.save(path)
    record, parts = record_of(path)
    del record["history"], parts["classes"]
    text = json.dumps({**record, "format": "fastloss.LinearModel 1"})
    np.savez(path, **{**parts, "model": np.array(text)})
    loaded = LinearModel.load(path)
    np.testing.assert_array_equal(loaded.predict(PIXELS), model.predict(PIXELS))
    assert (loaded.classes.tolist(), len(loaded.history)) == ([0, 1, 2, 3], 0)


def record_of(path):
    with np.load(path) as archive:
        return json.loads(str(archive["model"])), {name: archive[name] for name in archive.files}


def test_foreign_and_damaged_files_raise(tmp_path):
    path = tmp_path / "model.npz"
    with pytest.raises(FileNotFoundError, match="no such file"):
        LinearModel.load(path)
    model_of(PIXELS).save(path)
    whole = path.read_bytes()
    record, parts = record_of(path)

    def refused(match: str) -> None:
        with pytest.raises(DataFormatError, match=match) as caught:
            LinearModel.load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    for content in (b"", b"hello", whole[: len(whole) // 2], whole[:-1], whole[:100]):
        path.write_bytes(content)
        refused("not a model that fastloss saved: ")
    np.savez(path, X=PIXELS, y=np.zeros(300, int))
    refused("found an archive of X, y")
    with path.open("wb") as stream:
        np.save(stream, PIXELS)
    refused("not a model that fastloss saved: ")
    np.savez(path, **{**parts, "model": np.array(json.dumps({**record, "format": "other 2"}))})
    refused("expected 'fastloss.LinearModel 2' with W, found 'other 2'")
    np.savez(path, **{**parts, "W": parts["W"][:-3]})
    refused("the parts of the model do not fit: mean has shape")
    np.savez(path, **{**parts, "W": parts["W"].astype(int)})
    refused("the parts of the model do not fit: W must be float32 or float64")
    del record["class_names"]
    np.savez(path, **{**parts, "model": np.array(json.dumps(record))})
    refused("the parts of the model do not fit: missing 'class_names'")


@pytest.mark.parametrize("seed", range(40))
def test_flipped_byte_raises_only_data_format_error(tmp_path, seed):
    path = tmp_path / "model.npz"
    model = model_of(PIXELS)
    model.save(path)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    content[rng.integers(len(content))] ^= int(rng.integers(1, 256))
    path.write_bytes(content)
    try:
        loaded = LinearModel.load(path)
    except DataFormatError:
        return
    # Bytes that mean nothing, such as a date.
    np.testing.assert_array_equal(loaded.W, model.W)


def test_save_does_not_replace_data(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, X=PIXELS, y=np.zeros(300, int))
    with pytest.raises(FileExistsError, match="another archive is there, of X, y"):
        model_of(PIXELS).save(path)
    assert data.load(path).n_classes == 1


@dataclass(frozen=True)
class OfAnotherName(Softmax):
    name: ClassVar[str] = "its own"


def test_loss_registered_under_another_name_is_loaded(tmp_path):
    fastloss.register_loss(OfAnotherName(0.1), "other")
    try:
        model_of(PIXELS, loss="other").save(tmp_path / "model.npz")
        assert LinearModel.load(tmp_path / "model.npz").loss == OfAnotherName(0.1)
    finally:
        fastloss.unregister_loss("other")


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("f4", 1e-36), ("f4", 1e-23), ("f4", 1e19), ("f4", 1e37), ("f8", 1e-300), ("f8", 1e300)],
)
def test_columns_of_any_scale_are_standardised(dtype, scale):
    X = (np.random.default_rng(0).standard_normal((300, 3)) * scale).astype(dtype)
    rows = Preprocessing.fit(X).apply(X)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std(axis=0), 1, rtol=1e-5)


def test_standardise_many_equal_rows():
    row = np.array([[0.1, 1e30]], np.float32)
    X = np.broadcast_to(row, (3_000_000, 2))
    fitted = Preprocessing.fit(X)
    np.testing.assert_array_equal(fitted.mean, row[0])
    np.testing.assert_array_equal(fitted.deviation, [1, 1])
