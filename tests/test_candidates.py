"""Verdicts on users' functions: right ones pass in every style, wrong ones get their diagnosis."""

from __future__ import annotations

import pytest
import users_functions as users

import fastloss
from fastloss.candidates import check_candidate

EVERYTHING = {"order": "X,y,W", "layout": "cd", "l2": 0.1, "intercept": True}


@pytest.mark.parametrize(
    ("function", "loss", "options"),
    [
        (users.softmax, "softmax", {}),
        (users.log_sum_exp, "softmax", {}),
        (users.one_hot, "softmax", {}),
        (users.hinge, "hinge", {}),
        (users.hinge_from_the_right, "hinge", {}),
        (users.crammer_singer_last_tie, "crammer_singer", {}),
        (users.float32_inside, "softmax", {}),
        (users.float32_gradient, "softmax", {}),
        (users.refuses_float64, "softmax", {}),
        (users.refuses_float32, "softmax", {}),
        (users.columns, "softmax", {"layout": "cd"}),
        (users.data_first, "softmax", {"order": "X, y, W"}),
        (users.penalised, "softmax", {"l2": 0.1}),
        (users.half_penalised, "softmax", {"l2": 0.05}),
        (users.with_bias, "softmax", {"intercept": True}),
        (users.everything, "softmax", EVERYTHING),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_right_function_passes(function, loss, options, seed):
    report = check_candidate(function, loss, seed=seed, **options)
    assert report.passed, str(report)
    assert report.reason == ""


@pytest.mark.parametrize("loss", fastloss.available_losses())
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_every_loss_of_the_package_passes_as_itself(loss, dtype):
    def ours(W, X, y):
        W, X = W.astype(dtype or W.dtype), X.astype(dtype or X.dtype)
        return fastloss.loss_and_grad(W, X, y, loss=loss, l2=0.01, intercept=True, backend="numpy")

    report = check_candidate(ours, loss, l2=0.01, intercept=True)
    assert report.passed, str(report)
    assert ("computes in float32" in str(report)) == (dtype == "float32")


@pytest.mark.parametrize(
    ("function", "loss", "options", "advice"),
    [
        (users.summed, "softmax", {}, "loss and gradient are 37 times too large"),
        (users.gradient_summed, "softmax", {}, "the gradient is 37 times too large"),
        (users.base_two, "softmax", {}, "the loss is 1 / log(2) times too large"),
        (users.wrong_sign, "softmax", {}, "the gradient is of the wrong sign"),
        (users.softmax, "hinge", {}, "it computes the loss softmax: pass --loss softmax"),
        (users.hinge, "squared_hinge", {}, "it computes the loss hinge: pass --loss hinge"),
        (users.over_rows, "softmax", {}, "normalised over the rows"),
        (users.no_one_subtracted, "softmax", {}, "subtract 1 at [arange(N), y]"),
        (users.no_true_class, "hinge", {}, "its column lacks minus the sum of the others"),
        (users.labels_from_one, "softmax", {}, "labels start at 0"),
        (users.epsilon_in_the_log, "softmax", {}, "added inside a log"),
        (users.true_class_counted, "hinge", {}, "off by the constant 1 at every W"),
        (users.mean_over_classes, "hinge", {}, "divided by the number of classes"),
        (users.penalised, "softmax", {}, "is a penalty in it? Pass --l2 0.1"),
        (users.penalised, "softmax", {"l2": 0.5}, "its penalty is 0.1 * sum(W**2): pass --l2 0.1"),
        (
            users.half_penalised,
            "softmax",
            {"l2": 0.1},
            "(is it l2 / 2 * sum(W**2)?): pass --l2 0.05",
        ),
        (users.softmax, "softmax", {"l2": 0.1}, "it has no penalty: leave out --l2 0.1"),
        (users.half_gradient_of_penalty, "softmax", {"l2": 0.1}, "the gradient has 2 * 0.05 * W"),
        (users.bias_penalised, "softmax", {"l2": 0.1, "intercept": True}, "leave that row out"),
        (users.bias_of_zero, "softmax", {"intercept": True}, "only the last row of dW"),
        (users.swapped, "softmax", {}, "it returns (gradient, loss)"),
        (users.nothing, "softmax", {}, "it returns None"),
        (users.loss_alone, "softmax", {}, "it returns the loss alone"),
        (users.gradient_alone, "softmax", {}, "it returns the gradient alone"),
        (users.losses_of_rows, "softmax", {}, "a loss for each row: return their mean"),
        (users.transposed, "softmax", {}, "its dW is transposed"),
        (users.flat, "softmax", {}, "return dW.reshape(W.shape)"),
        (users.of_scores, "softmax", {}, "return X.T @ dscores"),
        (users.columns, "softmax", {}, "`W` is (D, C); it seems to want (C, D): pass --layout cd"),
        (users.softmax, "softmax", {"layout": "cd"}, "it seems to want (D, C): pass --layout dc"),
        (users.data_first, "softmax", {}, "it seems to want f(X, y, W): pass --order X,y,W"),
        (users.everything, "softmax", {"l2": 0.1}, "--order X,y,W"),
        (users.softmax, "softmax", {"order": "y,X,W"}, "pass --order W,X,y"),
        (users.with_bias, "softmax", {}, "it seems to want a bias row in `W`: pass --intercept"),
        (users.softmax, "softmax", {"intercept": True}, "`W` without a bias row"),
        (users.four_arguments, "softmax", {}, "but also needs reg: check a function of three"),
        (users.two_arguments, "softmax", {}, "but takes 2 arguments"),
        (users.unshifted, "softmax", {}, "subtract each row's largest score before exp"),
        (users.shifted_by_the_largest_of_all, "softmax", {}, "subtract each row's largest score"),
    ],
)
def test_wrong_function_is_told_what_to_do(function, loss, options, advice):
    report = check_candidate(function, loss, **options)
    assert not report.passed
    assert advice in report.reason, f"{report.reason}\n{report}"
    assert len(report.advice) == 1
