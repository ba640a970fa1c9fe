"""Against what others compute: torch, optax and scikit-learn, where they are installed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from oracle import BACKENDS, assert_close, make_data

import fastloss
from fastloss import CrammerSinger, Hinge, Softmax


def peer(name: str):
    """The module, or a skip; its own warnings at import are no business of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed")


each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_type = pytest.mark.parametrize("dtype", ["f4", "f8"])


def torch_loss_and_grad(function, data):
    torch = peer("torch")
    W = torch.tensor(data.W, requires_grad=True)
    loss = function(torch.tensor(data.X) @ W, torch.tensor(data.y))
    loss.backward()
    return loss.item(), W.grad.numpy()


@each_backend
@each_type
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_softmax_is_torch_cross_entropy(smoothing, dtype, backend):
    torch = peer("torch")
    data = make_data(61, 13, 5, dtype, dtype)
    expected = torch_loss_and_grad(
        torch.nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="mean"), data
    )
    actual = fastloss.loss_and_grad(data.W, data.X, data.y, Softmax(smoothing), backend=backend)
    assert_close(actual, expected, dtype)


@each_backend
@each_type
def test_weights_and_ignored_rows_are_those_of_torch(dtype, backend):
    torch = peer("torch")
    data = make_data(61, 13, 5, dtype, dtype)
    by_class = {0: 0.5, 1: 2.0, 2: 1.0, 3: 3.0, 4: 0.0}
    weight = torch.tensor(list(by_class.values()), dtype=torch.tensor(data.W).dtype)
    expected = torch_loss_and_grad(torch.nn.CrossEntropyLoss(weight, ignore_index=1), data)
    actual = fastloss.loss_and_grad(
        data.W, data.X, data.y, class_weight=by_class, ignore_index=1, backend=backend
    )
    assert_close(actual, expected, dtype)


@each_backend
@each_type
@pytest.mark.parametrize("power", [1, 2])
def test_hinge_is_torch_multi_margin_times_C(power, dtype, backend):
    torch = peer("torch")
    data = make_data(61, 13, 5, dtype, dtype)
    loss, dW = torch_loss_and_grad(torch.nn.MultiMarginLoss(p=power, margin=1.0), data)
    actual = fastloss.loss_and_grad(data.W, data.X, data.y, Hinge(power=power), backend=backend)
    assert_close(actual, (5 * loss, 5 * dW), dtype)


@each_backend
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_is_optax_cross_entropy(smoothing, backend):
    jax, optax = peer("jax"), peer("optax")
    data = make_data(61, 13, 5, "f4", "f4")

    def mean_loss(W):
        targets = optax.smooth_labels(jax.nn.one_hot(data.y, 5), smoothing)
        return optax.softmax_cross_entropy(data.X @ W, targets).mean()

    with jax.default_matmul_precision("highest"):
        loss, dW = jax.value_and_grad(mean_loss)(data.W)
    actual = fastloss.loss_and_grad(data.W, data.X, data.y, Softmax(smoothing), backend=backend)
    assert_close(actual, (float(loss), np.asarray(dW)), "f4")


@each_backend
def test_crammer_singer_is_sklearn_hinge_loss(backend):
    metrics = peer("sklearn.metrics")
    data = make_data(61, 13, 5)
    expected = metrics.hinge_loss(data.y, data.X @ data.W, labels=np.arange(5))
    objective = fastloss.Objective(data.X, data.y, loss=CrammerSinger(), backend=backend)
    np.testing.assert_allclose(objective.loss(data.W), expected, rtol=1e-13)


@each_backend
def test_softmax_is_sklearn_log_loss(backend):
    metrics, special = peer("sklearn.metrics"), peer("scipy.special")
    data = make_data(61, 13, 5)
    weight = np.linspace(0.5, 2, 61)
    probabilities = special.softmax(data.X @ data.W, axis=1)
    expected = metrics.log_loss(data.y, probabilities, sample_weight=weight, labels=np.arange(5))
    objective = fastloss.Objective(data.X, data.y, sample_weight=weight, backend=backend)
    np.testing.assert_allclose(objective.loss(data.W), expected, rtol=1e-13)


@each_backend
@each_type
def test_softmax_with_l2_is_sklearn_linear_model_loss(dtype, backend):
    # Private there, hence perhaps gone: half the L2 strength times sum(W**2), bias not penalised.
    linear, losses = peer("sklearn.linear_model._linear_loss"), peer("sklearn._loss.loss")
    data = make_data(61, 13, 5, dtype, dtype, intercept=True)
    weight = np.linspace(0.5, 2, 61).astype(dtype)
    model = linear.LinearModelLoss(losses.HalfMultinomialLoss(n_classes=5), fit_intercept=True)
    loss, gradient = model.loss_gradient(
        np.asfortranarray(data.W.T),
        data.X,
        data.y.astype(dtype),
        sample_weight=weight,
        l2_reg_strength=0.25,
    )
    actual = fastloss.loss_and_grad(
        data.W,
        data.X,
        data.y,
        intercept=True,
        sample_weight=weight,
        l2=0.125,
        backend=backend,
    )
    assert_close(actual, (loss, gradient.T), dtype)


def test_candidate_in_pytorch_in_float32_or_in_a_graph():
    torch = peer("torch")

    def of_tensors(W, X, y, dtype=torch.float32, **options):
        w = torch.tensor(W, dtype=dtype, requires_grad=True)
        scores = torch.tensor(X, dtype=dtype) @ w
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor(y))
        return loss.item(), torch.autograd.grad(loss, w, **options)[0]

    report = fastloss.check_candidate(of_tensors)
    assert report.passed, str(report)
    assert "computes in float32" in report.notes[0]
    report = fastloss.check_candidate(lambda W, X, y: of_tensors(W, X, y, create_graph=True))
    assert "return `dW.detach().numpy()`" in report.reason
