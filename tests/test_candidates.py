"""Verdicts on users' functions: right ones pass in every style, wrong ones get their diagnosis."""

from __future__ import annotations

import functools
import pickle
import re

import numba
import numpy as np
import pytest
import users_functions as users

import fastloss
from fastloss.benchmark import VerificationError
from fastloss.benchmark.candidates import verified
from fastloss.benchmark.run import verify
from fastloss.candidates import Candidate, Convention, check_candidate
from fastloss.candidates.cases import smooth_case
from fastloss.losses import get_loss

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
        (users.data_first, "softmax", {"order": ("x", "y", "w"), "layout": "DC"}),
        (users.everything, "softmax", EVERYTHING),
        (users.int32_labels, "softmax", {}),
        (users.ten_classes, "softmax", {"size": (500, 4, 10)}),
        (users.hundred_features, "softmax", {"size": (500, 100, 3)}),
        (users.hundred_rows, "softmax", {"size": (100, 3, 2)}),
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
        (
            users.labels_from_one_penalised,
            "softmax",
            {"l2": 0.1},
            "loss and gradient are right for the label y - 1",
        ),
        (users.epsilon_in_the_log, "softmax", {}, "added inside a log"),
        (users.true_class_counted, "hinge", {}, "off by the constant 1 at every W"),
        (users.mean_over_classes, "hinge", {}, "divided by the number of classes"),
        (users.penalised, "softmax", {}, "is a penalty in it? Pass --l2 0.1"),
        (users.penalised_by_a_third, "softmax", {}, "Pass --l2 0.3333333333 (in Python: l2=0.33"),
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
        (users.of_one_hot, "softmax", {}, "it seems to want one-hot labels (N, C): pass it"),
        (
            users.of_columns,
            "softmax",
            {},
            "`X` as (D, N): pass it `X.T` in a function of W, X, y; `W`",
        ),
        (users.right_one_way, "softmax", {}, "it seems to want f(X, y, W): pass --order X,y,W"),
        (users.columns_in_float32, "softmax", {}, "it seems to want (C, D): pass --layout cd"),
        (users.label_plus_one, "softmax", {}, "the label y + 1, and raises at the last class"),
        (users.penalised_over_rows, "softmax", {}, "its penalty is 0.1 / N * sum(W**2): do not"),
        (users.penalised_over_rows, "softmax", {"l2": 0.1 / 37}, "its penalty is 0.1 / N * sum"),
        (users.penalised_loss_only, "softmax", {}, "the gradient has none: add 2 * 0.1 * W to dW"),
        (users.penalised_gradient_only, "softmax", {}, "the loss has no penalty, but the gradient"),
        (users.penalised_sum, "softmax", {}, "the penalty is 0.1 * sum(W**2): pass --l2 0.1"),
        (users.lasso, "softmax", {}, "off by 0.1 * sum(abs(W)): an L1 penalty has no option"),
        (users.bias_first, "softmax", {"intercept": True}, "right for a bias in the first row"),
        (users.of_random_rows, "softmax", {}, "two calls with the same arguments differ"),
        (users.clipped, "softmax", {}, "are scores or probabilities clipped"),
        (users.dictionary, "softmax", {}, "it returns a dict: return the pair loss, dW"),
        (users.with_db, "softmax", {}, "it returns a third item"),
        (users.loss_in_an_array, "softmax", {}, "its loss has the shape (1,)"),
        (users.of_tensors, "softmax", {}, "(*map(torch.from_numpy, (W, X, y)))`"),
        (
            users.ten_classes,
            "softmax",
            {},
            "to want 10 classes: check it with --size 37x13x10",
        ),
        (
            users.hundred_features,
            "softmax",
            {},
            "100 features: check it with --size 37x100x5",
        ),
        (users.unshifted, "softmax", {}, "subtract each row's largest score before exp"),
        (users.shifted_by_the_largest_of_all, "softmax", {}, "subtract each row's largest score"),
    ],
)
def test_wrong_function_is_told_what_to_do(function, loss, options, advice):
    report = check_candidate(function, loss, **options)
    assert not report.passed
    assert advice in report.reason, f"{report.reason}\n{report}"
    assert len(report.advice) == 1


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        (
            users.one_row_wrong,
            r"dW\[7, \d\] = .* \(off by .* of the largest entry, allowed 1e-09\)",
        ),
        (users.not_a_number, r"dW\[3, 2\] = nan, expected -?0\.\d+$"),
        (users.changes_w, r"changes its argument W: compute on a copy"),
        (users.changes_x_and_y, r"changes its argument X and y: compute on a copy"),
        (
            users.complex_numbers,
            r"; dW must hold real numbers, not complex128",
        ),
        (users.no_gradient, r"returns \(float, None\); dW must have the shape of W"),
        (users.nan_at_zero, r"loss nan, expected 1.60"),
        (users.fails_for_seven, r"raises ValueError: seven$"),
        (users.infinite, r"loss inf, expected 2\.\d+$"),
        (users.rounded_slopes, r"dW\[\d+, \d\] = .*allowed 1e-04"),
    ],
)
def test_unexplained_difference_has_its_place_and_size(function, wrong):
    report = check_candidate(function)
    assert re.search(wrong, report.failures[0].wrong, re.MULTILINE), str(report)
    assert report.advice == ()
    assert report.failures[0].wrong.splitlines()[0] in report.reason


def test_gradient_beyond_the_subgradients_of_a_kink_is_wrong():
    report = check_candidate(users.hinge_beyond_its_kinks, "hinge")
    assert {finding.case for finding in report.failures} >= {"ties"}
    assert not {"ordinary scores", "one row"} & {finding.case for finding in report.failures}
    assert not report.fails_only_at_extremes


def test_function_that_fails_at_extreme_scores_only_is_told_so():
    report = check_candidate(users.unshifted)
    assert report.fails_only_at_extremes
    assert report.reason.startswith(
        "right at ordinary scores, wrong at extreme scores (very large scores)"
    )
    text = str(report)
    assert "wrong in float64 and float32: very negative scores\n    loss nan, expected 4." in text
    assert "right in float64 and float32: ordinary scores, one row, two classes, ties" in text


def test_infinite_loss_is_forgiven_only_where_scores_are_far_apart():
    report = check_candidate(users.infinite_loss_at_large_scores)
    assert {finding.case for finding in report.failures} == {"very large scores"}
    assert report.fails_only_at_extremes


def test_two_faults_are_two_sentences():
    def faults(W, X, y):
        loss, dW = users.log_sum_exp(W, X, y)
        return loss * len(y), -dW

    advice = check_candidate(faults).advice
    assert [sentence.split(":")[0] for sentence in advice] == [
        "the loss is 37 times too large",
        "the gradient is of the wrong sign",
    ]


@pytest.mark.parametrize("seed", range(5))
def test_problem_of_the_differences_has_no_kink_near(seed):
    case = smooth_case(Convention(), get_loss("hinge"), seed)
    scores = case.X @ case.W
    margins = scores - scores[np.arange(len(case.y)), case.y][:, None] + 1
    assert np.abs(margins).min() > 0.03


def test_exception_is_shown_with_the_users_frames_only():
    text = str(check_candidate(users.divides_by_zero))
    assert "raises ZeroDivisionError: division by zero" in text
    assert re.findall(r'File ".*[/\\](\w+\.py)", line \d+, in (\w+)', text) == [
        ("users_functions.py", "divides_by_zero"),
        ("users_functions.py", "inner"),
    ]


def test_exception_on_another_problem_is_shown_too():
    def for_many(W, X, y):
        if len(X) == 1:
            raise ValueError("one row")
        return users.log_sum_exp(W, X, y)

    report = check_candidate(for_many)
    assert [finding.case for finding in report.failures] == ["one row", "one row"]
    assert "in for_many" in str(report)
    assert report.reason == "one row, float64: raises ValueError: one row"


def test_limits_of_a_right_function_are_notes():
    notes = check_candidate(users.refuses_float64).notes
    assert "it takes float32 only, so it is verified in float32; for float64 it raises" in notes[0]
    assert notes[1].startswith("it does not take arrays that are not contiguous: it raises")
    assert check_candidate(users.refuses_float64).dtypes == ("float32",)
    assert "takes float64 only" in check_candidate(users.refuses_float32).notes[0]
    for function in (users.float32_inside, users.float32_gradient):
        report = check_candidate(function)
        assert "it computes in float32, so it is judged by float32's tolerances" in report.notes[0]
        assert report.precision == "float32"
    (note,) = check_candidate(users.softmax).notes
    assert note.startswith("scores far apart: its loss is inf, its gradient right")
    assert check_candidate(users.log_sum_exp).notes == ()


def test_float32_function_is_diagnosed_in_float32():
    def summed(W, X, y):
        loss, dW = users.refuses_float64(W, X, y)
        return loss * len(y), dW * len(y)

    report = check_candidate(summed)
    assert report.dtypes == ("float32",)
    assert report.advice[0].startswith("loss and gradient are 37 times too large")


def test_wrong_only_on_strided_arrays_is_wrong():
    def reads_memory(W, X, y):
        return users.log_sum_exp(W, X.ravel(order="K").reshape(X.shape), y)

    (failure,) = check_candidate(reads_memory).failures
    assert failure.case == "arrays that are not contiguous"


def test_gradient_of_another_loss_fails_the_differences():
    def other_gradient(W, X, y):
        return users.hinge(W, X, y)[0], users.log_sum_exp(W, X, y)[1]

    report = check_candidate(other_gradient, "hinge")
    assert "finite differences: loss and gradient do not belong together" in str(report)

    def on_the_problem_of_the_differences(W, X, y):
        return (other_gradient if len(X) == 7 else users.hinge)(W, X, y)

    other = check_candidate(on_the_problem_of_the_differences, "hinge")
    assert (other.failures, other.passed, other.reason) == ((), False, "the gradient check fails")


@pytest.mark.parametrize("layout", ["dc", "cd"])
def test_compiled_float32_signature(layout):
    signature = "Tuple((float64, float32[:, ::1]))(float32[:, ::1], float32[:, ::1], int64[::1])"
    compiled = numba.njit(signature)(users.loops if layout == "dc" else users.loops_of_columns)
    report = check_candidate(compiled, layout=layout)
    assert report.passed, str(report)
    assert len(report.notes) == 2
    other = check_candidate(compiled, layout="cd" if layout == "dc" else "dc")
    assert not other.passed


def test_report_names_the_candidate_and_shows_as_html():
    report = check_candidate(lambda W, X, y: (0.0, 0 * W), "hinge", l2=0.5, name="<b>")
    assert str(report).startswith("<b>: FAILED as hinge + 0.5 * sum(W**2), called as f(W, X, y)")
    assert report._repr_html_().startswith("<p><b>&lt;b&gt;: FAILED as hinge")
    name = check_candidate(lambda W, X, y: (0.0, 0 * W)).name
    assert re.fullmatch(r"lambda, test_candidates.py:\d+", name)
    assert check_candidate(functools.partial(users.four_arguments, reg=0.0)).passed


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"function": "no_colon"}, ValueError, "my_module:my_function"),
        ({"function": "no_such_module_at_all:f"}, ValueError, "No module named"),
        ({"function": "no_such_module.py:f"}, ValueError, "leave out .py: no_such_module:f"),
        ({"function": "no_such_module:f"}, ValueError, "looked in .*, PYTHONPATH and the inst"),
        ({"function": "json:no_such_function"}, ValueError, "no such function; json has"),
        ({"function": "users_functions:sofmax"}, ValueError, "did you mean 'softmax'"),
        ({"function": [users.softmax]}, TypeError, r"takes one function .* got \(function\)"),
        ({"function": (1.0, np.ones((2, 3)))}, TypeError, r"got \(float, array \(2, 3\)\)"),
        ({"loss": "nope"}, ValueError, "unknown loss 'nope'"),
        ({"loss": "cross_entropy"}, ValueError, "cross_entropy is 'softmax' here"),
        ({"order": "W,X"}, ValueError, "order must be a permutation of W,X,y, got 'W,X'"),
        ({"layout": "ab"}, ValueError, "layout must be"),
        ({"l2": -1.0}, ValueError, "l2 must be"),
        ({"intercept": 2}, TypeError, "intercept must be"),
    ],
)
def test_wrong_option_is_an_error(options, error, message):
    with pytest.raises(error, match=message):
        check_candidate(**{"function": users.softmax, **options})


def test_candidate_travels_and_is_called_in_the_packages_own_convention():
    rng = np.random.default_rng(0)
    X, y, W = rng.standard_normal((8, 4)), rng.integers(0, 3, 8), rng.standard_normal((5, 3))
    candidate = Candidate.of(users.everything, Convention(**EVERYTHING))
    candidate = pickle.loads(pickle.dumps(candidate))
    assert candidate.convention.arguments(W, X, y)[2].flags.c_contiguous
    loss, dW = candidate(W, X, y)
    expected = fastloss.loss_and_grad(W, X, y, l2=0.1, intercept=True, backend="numpy")
    np.testing.assert_allclose(loss, expected[0], rtol=1e-12)
    np.testing.assert_allclose(dW, expected[1], rtol=1e-9, atol=1e-12)


def test_size_and_labels_of_the_data_are_tried_and_noted():
    functions = (users.ten_classes, users.int32_labels, users.hundred_rows, users.wrong_sign)
    candidates = [Candidate.of(function) for function in functions]
    right, refused = verified(candidates, "softmax", sizes=[(100, 6, 10)])
    assert [candidate.labels for candidate in right] == [None, "int32", None]
    assert list(refused) == ["wrong_sign"]
    X, y, W = np.ones((3, 6)), np.arange(3), np.ones((6, 10))
    assert right[1](W, X, y)[0] == pytest.approx(np.log(10))
    report = check_candidate(users.int32_labels)
    assert "for int64 labels it raises TypeError: no definition for int64 labels" in str(report)
    report = check_candidate(users.hundred_rows, size=(100, 6, 10))
    assert "it is verified at 100x6x10 (N x D x C) only; at 37x13x5: loss " in str(report)
    assert "one row" not in {finding.case for finding in report.findings}
    # Too large to be tried with all its rows.
    assert not check_candidate(users.hundred_rows, size=(100, 30_000, 10)).passed


def test_report_of_a_wrong_function_says_that_it_stopped_and_has_a_short_repr(capsys):
    def loud(W, X, y):
        print("hello")
        return users.wrong_sign(W, X, y)

    report = check_candidate(loud)
    assert report.right_cases == "0 of 2, then stopped"
    assert "it stopped at the first wrong problem" in str(report)
    assert repr(report) == "<loud: FAILED as softmax; print it for the report>"
    assert capsys.readouterr().out == ""


def test_float32_function_is_timed_on_float32_copies():
    (right,), refused = verified(
        [Candidate.of(users.refuses_float64), Candidate.of(users.summed)], "softmax"
    )
    assert (right.dtype, right.precision) == ("float32", "float32")
    assert refused["summed"].startswith("loss and gradient are 37 times too large")
    rng = np.random.default_rng(0)
    X, y, W = rng.standard_normal((8, 4)), rng.integers(0, 3, 8), rng.standard_normal((4, 3))
    objective = fastloss.Objective(X, y, backend="numpy")
    verify("mine", right(W, X, y), objective, W, right.precision)
    with pytest.raises(VerificationError, match="mine is wrong: loss"):
        verify("mine", right(W, X, y), objective, W)


@pytest.mark.parametrize(
    ("size", "error", "match"),
    [
        ((5, 3), ValueError, r"size must be \(N, D, C\), such as \(37, 13, 10\), got \(5, 3\)"),
        ("5x3x2", ValueError, "size must be .* got '5x3x2'"),
        ((0, 3, 2), ValueError, "N of size"),
        ((5, 3.5, 2), TypeError, "D of size"),
        ((5, 3, 1), ValueError, "C of size"),
    ],
)
def test_bad_size_is_an_error(size, error, match):
    with pytest.raises(error, match=match):
        check_candidate(users.softmax, size=size)


def test_failing_differences_are_not_right_at_ordinary_scores():
    """Wrong on 7 rows, as many as the finite differences use, and where exp overflows."""

    def wrong(W, X, y):
        loss, dW = users.unshifted(W, X, y)
        return loss, dW * (1.5 if len(X) == 7 else 1.0)

    report = check_candidate(wrong)
    assert all(finding.extreme for finding in report.failures)
    assert not report.gradient_check.passed
    assert not report.fails_only_at_extremes
