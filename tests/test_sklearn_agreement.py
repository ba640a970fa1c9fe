"""Compare the estimators with scikit-learn's, and with minima found another way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize
from sklearn import linear_model, svm
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, make_blobs

import fastloss
from fastloss import optim
from fastloss.data import load_mnist
from fastloss.sklearn import LinearClassifier, LinearSVC, LogisticRegression
from fastloss.sklearn.fitting import Centred

TIGHT = {"tol": 1e-9, "max_iter": 5000}


def iris():
    return load_iris(return_X_y=True)


def digits():
    X, y = load_digits(return_X_y=True)
    return X[:500] / 16, y[:500]


def two_classes():
    X, y = load_breast_cancer(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0), y


def collinear():
    X, y = iris()
    return np.hstack([X, X[:, :2], 2 * X[:, 2:3] + 1]), y


def separable():
    return make_blobs(60, centers=3, cluster_std=0.1, random_state=0)


PROBLEMS = [iris, digits, two_classes, collinear, separable]


def assert_same_fit(ours, theirs, X, coef_error=1e-4, error=1e-4):
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=error)
    assert ours.coef_.shape == theirs.coef_.shape
    assert ours.intercept_.shape == theirs.intercept_.shape
    scale = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=coef_error * scale)
    ours_b, theirs_b = ours.intercept_, theirs.intercept_
    if len(ours_b) > 1:  # a shift of all biases changes no probability
        ours_b, theirs_b = ours_b - ours_b.mean(), theirs_b - theirs_b.mean()
    np.testing.assert_allclose(ours_b, theirs_b, atol=coef_error * max(scale, abs(theirs_b).max()))


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(
    "parameters",
    [{}, {"C": 0.05, "class_weight": "balanced"}, {"fit_intercept": False, "C": 3.0}],
    ids=repr,
)
def test_logistic_regression_is_scikit_learns(problem, parameters):
    X, y = problem()
    weights = 0.5 + np.random.default_rng(0).integers(0, 4, len(y)) if parameters else None
    ours = LogisticRegression(**parameters, **TIGHT).fit(X, y, weights)
    theirs = linear_model.LogisticRegression(**parameters, **TIGHT).fit(X, y, weights)
    assert_same_fit(ours, theirs, X, coef_error=3e-4)
    assert ours.n_iter_.shape == theirs.n_iter_.shape == (1,)


def test_class_weights_by_label_are_scikit_learns():
    X, y = iris()
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    parameters = {"class_weight": {"virginica": 5.0, "setosa": 0.5}, **TIGHT}
    ours = LogisticRegression(**parameters).fit(X, names)
    theirs = linear_model.LogisticRegression(**parameters).fit(X, names)
    assert_same_fit(ours, theirs, X)
    assert ours.predict(X).tolist() == theirs.predict(X).tolist()


def test_logistic_regression_of_mnist_is_scikit_learns(real):
    train = load_mnist(real / "mnist")
    X, y = train.X[:1500], train.y[:1500]
    parameters = {"C": 1e-3, "tol": 1e-7, "max_iter": 3000}
    theirs = linear_model.LogisticRegression(**parameters).fit(X / 255.0, y)
    for scaled in (X / 255.0, (X / 255.0).astype(np.float32)):
        ours = LogisticRegression(**parameters).fit(scaled, y)
        assert_same_fit(ours, theirs, scaled, coef_error=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_narrow_rows_on_fused_kernels_are_scikit_learns(dtype):
    X, y = load_digits(return_X_y=True)
    theirs = linear_model.LogisticRegression(C=1e-4, **TIGHT).fit(X, y)
    with fastloss.use(backend="fused"):
        ours = LogisticRegression(C=1e-4, tol=1e-5, max_iter=300).fit(X.astype(dtype), y)
    # In float32, rounding hides the fall of the loss over the last steps.
    assert_same_fit(ours, theirs, X, coef_error=1e-3, error=5e-4)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # float32 rounds
def test_features_far_from_unit_size_reach_the_minimum(factor):
    X, y = iris()
    objective = fastloss.Objective(factor * X, y, l2=0.5 / len(y), intercept=True)
    losses = []
    for dtype in (np.float32, np.float64):
        model = LogisticRegression(max_iter=300, tol=1e-3).fit((factor * X).astype(dtype), y)
        losses.append(objective.loss(np.vstack([model.coef_.T, model.intercept_]).astype(float)))
    theirs = linear_model.LogisticRegression(max_iter=3000, tol=1e-7).fit(factor * X, y)
    expected = objective.loss(np.vstack([theirs.coef_.T, theirs.intercept_]))
    assert max(losses) < expected * (1 + 1e-3)


def test_no_penalty_with_infinite_C():
    X, y = make_blobs(200, centers=3, cluster_std=4.0, random_state=0)
    ours = LogisticRegression(C=np.inf, **TIGHT).fit(X, y)
    theirs = linear_model.LogisticRegression(C=np.inf, **TIGHT).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("problem", [iris, digits, two_classes])
def test_linear_svc_without_intercept_is_scikit_learns(problem):
    X, y = problem()
    weights = 1.0 + np.random.default_rng(0).integers(0, 3, len(y))
    parameters = {"C": 0.1, "fit_intercept": False, "tol": 1e-8}
    if problem is two_classes:  # scikit-learn weighs a row of many classes in one of its problems
        parameters["class_weight"] = "balanced"
    ours = LinearSVC(**parameters, max_iter=5000).fit(X, y, weights)
    theirs = svm.LinearSVC(**parameters, dual=False, max_iter=5000).fit(X, y, weights)
    scale = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-3 * scale)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_array_equal(ours.intercept_, np.zeros(len(ours.coef_)))


@pytest.mark.parametrize("problem", [iris, two_classes])
@pytest.mark.parametrize("kind", [{"loss": "hinge"}, {"multi_class": "crammer_singer"}], ids=repr)
def test_kinked_linear_svc_is_scikit_learns_nearly(problem, kind):
    X, y = problem()
    parameters = {"C": 0.1, "fit_intercept": False, **kind}

    def primal(model):
        scores = model.decision_function(X)
        if scores.ndim == 1:
            losses = np.maximum(0, 1 - (2 * y - 1) * scores)
            halves = 0.25 if "multi_class" in kind else 0.5  # of two opposite rows
            return 0.1 * losses.sum() + halves * np.square(model.coef_).sum()
        target = scores[np.arange(len(y)), y]
        others = scores.copy()
        others[np.arange(len(y)), y] = -np.inf
        if "multi_class" in kind:
            losses = np.maximum(0, 1 + others.max(axis=1) - target)
        else:
            losses = np.maximum(0, 1 + others).sum(axis=1) + np.maximum(0, 1 - target)
        return 0.1 * losses.sum() + 0.5 * np.square(model.coef_).sum()

    ours = LinearSVC(**parameters).fit(X, y)
    theirs = svm.LinearSVC(**parameters, tol=1e-6, max_iter=100_000, random_state=0).fit(X, y)
    assert primal(ours) < 1.01 * primal(theirs)


@pytest.mark.parametrize("problem", [iris, two_classes])
def test_linear_svc_minimises_its_documented_objective(problem):
    """With the bias, which scikit-learn penalises."""
    X, y = problem()
    n_scores = 1 if y.max() == 1 else 3
    positive = [1] if n_scores == 1 else [0, 1, 2]
    t = np.where(y[:, None] == positive, 1, -1)

    def objective(w):
        W, b = w[n_scores:].reshape(-1, n_scores), w[:n_scores]
        slack = np.maximum(0, 1 - t * (X @ W + b))
        down = -2 * 0.1 * t * slack
        gradient = np.concatenate([down.sum(axis=0), (X.T @ down + W).ravel()])
        return 0.1 * np.square(slack).sum() + 0.5 * np.square(W).sum(), gradient

    start = np.zeros(n_scores * (X.shape[1] + 1))
    options = {"maxiter": 10_000, "maxfun": 10**6, "gtol": 1e-8, "ftol": 0.0}
    end = optimize.minimize(objective, start, jac=True, options=options, method="L-BFGS-B")
    model = LinearSVC(C=0.1, tol=1e-8, max_iter=5000).fit(X, y)
    found = np.concatenate([model.intercept_, model.coef_.T.ravel()])
    assert objective(found)[0] <= end.fun * (1 + 1e-6)
    np.testing.assert_allclose(found, end.x, atol=1e-3 * np.abs(end.x).max())


@pytest.mark.parametrize("loss", ["softmax", "squared_hinge", fastloss.Softmax(0.1)])
def test_linear_classifier_minimises_its_documented_objective(loss):
    X, y = iris()
    weights = 1.0 + np.random.default_rng(0).integers(0, 3, len(y))
    model = LinearClassifier(loss, l2=1e-2, class_weight={1: 3.0}, tol=1e-8, max_iter=5000)
    model.fit(X, y, weights)
    objective = fastloss.Objective(
        *(X, y),
        **{"loss": loss, "l2": 1e-2, "intercept": True},
        **{"sample_weight": weights, "class_weight": {1: 3.0}},
    )
    W = np.vstack([model.coef_.T, model.intercept_])
    assert np.abs(objective(W)[1]).max() < 1e-6


def test_kinked_losses_end_near_the_minimum():
    X, y = iris()
    for loss in ("hinge", "crammer_singer", "one_vs_all"):
        objective = fastloss.Objective(X, y, loss=loss, l2=1e-2, intercept=True)
        method = optim.SGD(momentum=0.9, batch_size=32, schedule=optim.Cosine(epochs=1000))
        other = optim.minimize(objective, np.zeros((5, 3)), method, max_epochs=1000)
        model = LinearClassifier(loss, l2=1e-2, max_iter=1000).fit(X, y)
        loss_of_model = objective.loss(np.vstack([model.coef_.T, model.intercept_]))
        assert loss_of_model < 1.01 * other.loss


def test_centred_objective_has_the_loss_and_gradient_of_its_features():
    X, y = iris()
    objective = fastloss.Objective(X, y, l2=0.1, intercept=True)
    centred = Centred(objective, X.mean(axis=0), 4.0)
    W = np.random.default_rng(0).normal(size=(5, 3))
    V = centred.point(W)
    np.testing.assert_allclose(centred.weights(V), W, atol=1e-14)
    other = fastloss.Objective(X - X.mean(axis=0), y, l2=0.1, intercept=True)
    of_size = np.array([1.0] * 4 + [4.0])[:, None]  # the bias is in units of 4
    loss, gradient = other(of_size * V)
    for ours, theirs in zip(centred(V), (loss, of_size * gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-13)
