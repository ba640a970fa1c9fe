"""Test the estimators of `fastloss.sklearn`: labels, types, errors, and work with scikit-learn."""

from __future__ import annotations

import pickle
import tracemalloc
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastloss
from fastloss import optim
from fastloss.sklearn import LinearClassifier, LinearSVC, LogisticRegression

X, Y = load_iris(return_X_y=True)
TWO = Y > 0  # versicolor and virginica
ESTIMATORS = [LinearClassifier(), LogisticRegression(max_iter=300), LinearSVC()]
NAMES = {
    "strings": np.array(["setosa", "versicolor", "virginica"]),
    "objects": np.array(["setosa", "versicolor", "virginica"], dtype=object),
    "gaps": np.array([-7, 3, 100]),
    "floats": np.array([0.0, 2.0, 5.0]),
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda model: type(model).__name__)
def test_labels_of_any_kind(estimator, kind):
    plain = clone(estimator).fit(X, Y)
    model = clone(estimator).fit(X, NAMES[kind][Y])
    assert model.classes_.tolist() == NAMES[kind].tolist()
    assert model.classes_.dtype == NAMES[kind].dtype
    np.testing.assert_array_equal(model.coef_, plain.coef_)
    np.testing.assert_array_equal(model.predict(X), NAMES[kind][plain.predict(X)])
    assert model.score(X, NAMES[kind][Y]) > 0.93


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda model: type(model).__name__)
def test_two_classes_have_one_row_of_coefficients(estimator):
    model = clone(estimator).fit(X[TWO], Y[TWO] == 2)
    assert model.classes_.tolist() == [False, True]
    assert model.coef_.shape == (1, 4)
    assert model.intercept_.shape == (1,)
    scores = model.decision_function(X)
    np.testing.assert_allclose(scores, X @ model.coef_[0] + model.intercept_[0])
    np.testing.assert_array_equal(model.predict(X), scores > 0)


@pytest.mark.parametrize(
    ("rows", "coefficients"),
    [("f8", "f8"), ("f4", "f4"), ("f2", "f4"), ("u1", "f4"), ("i8", "f8"), ("i2", "f8")],
)
def test_type_of_coefficients_follows_the_rows(rows, coefficients):
    tenths = np.rint(10 * X)
    model = LogisticRegression(max_iter=2000, tol=1e-5).fit(tenths.astype(rows), Y)
    assert model.coef_.dtype == model.intercept_.dtype == coefficients
    assert model.predict_proba(tenths.astype(rows)).dtype == coefficients
    expected = LogisticRegression(max_iter=2000, tol=1e-5).fit(tenths, Y).predict_proba(tenths)
    np.testing.assert_allclose(model.predict_proba(tenths), expected, atol=1e-2)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
@pytest.mark.parametrize("backend", ["numpy", "fused"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_rows_are_never_copied_whole(dtype, backend, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "X.npy", rng.integers(0, 9, (60_000, 1000), np.uint8).astype(dtype))
    rows = np.load(tmp_path / "X.npy", mmap_mode="r")
    y = rng.integers(0, 10, len(rows))
    model = LogisticRegression(max_iter=1)
    with fastloss.use(backend=backend):
        model.fit(rows[:2000], y[:2000])  # so that no kernel compiles below
        assert peak_of(lambda: model.fit(rows, y)) < 40e6  # the rows take 60 or 120 MB
    assert peak_of(lambda: model.predict(rows)) < 40e6


def peak_of(call) -> int:
    """Return the most bytes that are allocated at a time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_probabilities_exist_for_softmax_only():
    for model in (LogisticRegression(), LinearClassifier(fastloss.Softmax(0.1))):
        assert hasattr(model, "predict_proba")
        assert hasattr(model, "predict_log_proba")
    for model in (LinearSVC(), LinearClassifier("hinge"), LinearClassifier("no such loss")):
        assert not hasattr(model, "predict_proba")
        assert not hasattr(model, "predict_log_proba")


@pytest.mark.parametrize("rows", [slice(None), TWO])
def test_log_probabilities_do_not_round_to_minus_infinity(rows):
    model = LogisticRegression(C=1e6, max_iter=2000).fit(X[rows], Y[rows])
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))
    far = 1e4 * X
    assert model.predict_proba(far).min() == 0
    assert np.isfinite(model.predict_log_proba(far)).all()


def test_partial_fit_learns_from_a_stream():
    order = np.random.default_rng(0).permutation(len(X))
    scaled = StandardScaler().fit_transform(X)
    for method in ("lbfgs", optim.SGD(momentum=0.5, batch_size=8)):
        model = LinearClassifier("hinge", method=method, random_state=0)
        for _ in range(20):
            for rows in np.array_split(order, 5):
                model.partial_fit(scaled[rows], NAMES["strings"][Y[rows]], NAMES["strings"])
        assert model.score(scaled, NAMES["strings"][Y]) > 0.93
        assert model.n_iter_ == 100
        before = model.decision_function(scaled[:2])
        model.partial_fit(scaled[:2], ["virginica", "virginica"])  # a part may lack classes
        assert (model.decision_function(scaled[:2])[:, 2] > before[:, 2] + 0.05).all()


def test_partial_fit_names_wrong_classes_features_and_weights():
    with pytest.raises(ValueError, match="classes must name all labels in the first call"):
        LinearClassifier().partial_fit(X, Y)
    model = LinearClassifier().partial_fit(X, Y, [2, 1, 0])
    with pytest.raises(ValueError, match=r"classes are \[0 1\], in earlier calls they were"):
        model.partial_fit(X, Y, [0, 1])
    with pytest.raises(ValueError, match="y has the label 3, which is not one of the classes"):
        model.partial_fit(X, Y + 1)
    with pytest.raises(ValueError, match="X has 3 features, but LinearClassifier is expecting 4"):
        model.partial_fit(X[:, :3], Y)
    with pytest.raises(ValueError, match=r"classes must name two labels or more, got \[0\]"):
        LinearClassifier().partial_fit(X, 0 * Y, [0])
    with pytest.raises(ValueError, match="takes class weights by label, got 'balanced'"):
        LinearClassifier(class_weight="balanced").partial_fit(X, Y, [0, 1, 2])


@pytest.mark.parametrize("rows", [slice(None), TWO])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_warm_start_continues(rows, fit_intercept):
    model = LogisticRegression(warm_start=True, max_iter=500, fit_intercept=fit_intercept)
    cold = model.fit(X[rows], Y[rows]).n_iter_[0]
    coef = model.coef_.copy()
    assert model.fit(X[rows], Y[rows]).n_iter_[0] <= 1 < cold
    np.testing.assert_allclose(model.coef_, coef, atol=1e-3)
    with pytest.raises(ValueError, match="needs the features of the last fit"):
        model.fit(X[rows, :3], Y[rows])
    with pytest.raises(ValueError, match="needs the classes of the last fit"):
        model.fit(X[rows], Y[rows] + 1)


def test_crammer_singer_leaves_ties_at_zero():
    model = LinearClassifier("crammer_singer", fit_intercept=False, max_iter=300)
    assert model.fit(X, Y).score(X, Y) > 0.93


def test_random_state_decides_the_batches():
    def coef(seed):
        method = optim.SGD(batch_size=8)
        return LinearClassifier(method=method, max_iter=2, random_state=seed).fit(X, Y).coef_

    np.testing.assert_array_equal(coef(1), coef(1))
    assert not np.array_equal(coef(1), coef(2))


def test_convergence_warning_names_the_remedy():
    message = r"lbfgs did not converge in max_iter=3 iterations: scale the features, or raise max_"
    with pytest.warns(ConvergenceWarning, match=message) as caught:
        model = LogisticRegression(max_iter=3).fit(X, Y)
    assert caught[0].filename == __file__
    assert model.n_iter_.tolist() == [3]


def test_convergence_in_the_last_iteration_does_not_warn():
    n = LogisticRegression(max_iter=300).fit(X, Y).n_iter_[0]
    assert LogisticRegression(max_iter=n).fit(X, Y).n_iter_[0] == n


@dataclass(frozen=True)
class Interrupted(optim.SGD):
    def take_step(self, setting, state):
        raise KeyboardInterrupt


def test_interrupt_ends_a_search_and_leaves_the_estimator_as_it_was():
    model = LinearClassifier(method=Interrupted())
    before = vars(model).copy()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert vars(model) == before
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_failed_fit_keeps_the_last_one():
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    model = LinearClassifier().fit(frame, Y)
    expected = model.predict(frame)
    for fit in (model.fit, lambda *rows: model.partial_fit(*rows, [0, 1, 2])):
        with pytest.raises(ValueError, match=r"X\[0, 0\] is nan|expecting 4|feature names"):
            fit(np.nan * frame[["b", "a", "d"]], Y)
    assert model.n_features_in_ == 4
    np.testing.assert_array_equal(model.predict(frame), expected)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_stalled_search_warns_unless_the_loss_has_kinks(monkeypatch):
    monkeypatch.setattr(optim.LBFGS, "_search", lambda *_: None)
    with pytest.warns(ConvergenceWarning, match="lbfgs stopped before tol=0.0001 was reached"):
        LogisticRegression().fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LinearClassifier("hinge").fit(X, Y)


def test_weights_may_be_a_mask_or_a_number():
    counts = Y < 2
    expected = LogisticRegression().fit(X, Y, counts.astype(float)).coef_
    np.testing.assert_array_equal(LogisticRegression().fit(X, Y, counts).coef_, expected)
    np.testing.assert_array_equal(LogisticRegression().fit(X, Y, list(counts)).coef_, expected)
    plain = LogisticRegression(C=2.0).fit(X, Y).coef_
    np.testing.assert_allclose(LogisticRegression().fit(X, Y, 2).coef_, plain, atol=1e-3)


def changed(value, place=(3, 1)):
    rows = X.copy()
    rows[place] = value
    return rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((changed(np.nan), Y), r"X has NaN or infinity: X\[3, 1\] is nan, expected a finite"),
        ((changed(-np.inf), Y), r"X has NaN or infinity: X\[3, 1\] is -inf"),
        ((X, Y[:-1]), r"inconsistent numbers of samples: \[150, 149\]"),
        ((X, Y, np.ones(149)), r"sample_weight must have shape \(150,\), got \(149,\)"),
        ((X, Y, -np.ones(150)), r"sample_weight\[0\] = -1.0 must be finite and >= 0"),
        ((X, Y, np.zeros(150)), "the weight of every row is zero"),
        ((X, np.ones(150)), "y has one class, 1.0; two or more are needed"),
        ((X, X[:, 0]), "Unknown label type"),
        ((X, np.array(["a", None, "b"] * 50)), r"y\[1\] is None, a missing label"),
        ((X, (Y > 0).astype(object)), r"y holds numbers as Python objects; pass y.astype\('bool'"),
        ((X, Y, np.full(150, 1e308)), "the sum of sample_weight times class_weight is too large"),
        (
            (pd.DataFrame({"size": [1.0, 2.0], "name": ["a", "b"]}), [0, 1]),
            r"X\[0, 1\] \(column 'name'\) = 'a'; encode text as numbers first",
        ),
    ],
)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda model: type(model).__name__)
def test_bad_rows_raise_one_line(estimator, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        clone(estimator).fit(*arguments)
    assert "\n" not in str(caught.value)


def test_bad_rows_to_predict_raise():
    for model in (clone(estimator).fit(X, Y) for estimator in ESTIMATORS):
        with pytest.raises(ValueError, match=r"X\[3, 1\] is nan"):
            model.predict(changed(np.nan))


def test_warm_start_finds_nan_too():
    model = LogisticRegression(warm_start=True, max_iter=300).fit(X, Y)
    with pytest.raises(ValueError, match=r"X\[3, 1\] is -inf"):
        model.fit(changed(-np.inf), Y)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LogisticRegression(C=0), "C must be > 0, got 0"),
        (LogisticRegression(max_iter=0), "max_iter must be >= 1, got 0"),
        (LogisticRegression(tol=-1.0), "tol must be finite and >= 0"),
        (LogisticRegression(class_weight="equal"), "class_weight"),
        (LogisticRegression(class_weight={5: 1.0}), "names 5, which is not one of the classes 0,"),
        (LogisticRegression(class_weight={1: -1.0}), r"class_weight\[1\] must be finite and >= 0"),
        (LogisticRegression(C=1e-320), r"C times the sum of the weights, .*, is too small for fl"),
        (LinearSVC(loss="log"), "loss must be 'squared_hinge' or 'hinge', got 'log'"),
        (LinearSVC(multi_class="ovo"), "multi_class must be 'ovr' or 'crammer_singer'"),
        (LinearClassifier("hnge"), "did you mean 'hinge'"),
        (LinearClassifier(method="lbfsg"), "did you mean 'lbfgs'"),
        (LinearClassifier(l2=-1.0), "l2 must be finite and >= 0"),
    ],
)
def test_bad_parameters_raise_in_fit(model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y)


def test_search_in_two_processes_over_a_pipeline():
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    model = make_pipeline(StandardScaler(), LogisticRegression()).set_output(transform="pandas")
    grid = {"logisticregression__C": [1e-3, 1.0]}
    search = GridSearchCV(model, grid, cv=3, n_jobs=2).fit(frame, NAMES["strings"][Y])
    assert search.best_params_ == {"logisticregression__C": 1.0}
    assert search.best_score_ > 0.93
    best = pickle.loads(pickle.dumps(search.best_estimator_))
    assert best[-1].feature_names_in_.tolist() == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(best.predict(frame), search.predict(frame))


def test_sample_weight_is_routed():
    weights = np.random.default_rng(0).integers(0, 3, len(Y))
    with sklearn.config_context(enable_metadata_routing=True):
        model = LogisticRegression(max_iter=300).set_fit_request(sample_weight=True)
        model = model.set_score_request(sample_weight=True)
        search = GridSearchCV(model, {"C": [1.0]}, cv=3).fit(X, Y, sample_weight=weights)
    expected = clone(model).fit(X, Y, weights)
    np.testing.assert_array_equal(search.best_estimator_.coef_, expected.coef_)


def test_small_problems_compile_nothing(ran):
    LogisticRegression(max_iter=300).fit(X, Y)
    assert set(ran) == {"numpy"}
    ran.clear()
    with fastloss.use(backend="naive"):
        LinearClassifier(method="sgd", max_iter=1).fit(X, Y)
    assert set(ran) == {"naive"}


def test_missing_scikit_learn_names_the_extra(run_python):
    output = run_python("""
        import sys
        sys.modules["sklearn"] = None
        try:
            import fastloss.sklearn
        except ImportError as error:
            print(error)
    """)
    assert output.startswith("fastloss.sklearn needs scikit-learn, which is not installed: pip")
