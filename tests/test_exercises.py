"""Tests that exercises of the lessons have stubs, and checkers that tell answers apart."""

from __future__ import annotations
import __future__

import math
from typing import Any

import numpy as np
import pytest

import fastloss
from fastloss import lessons
from fastloss.lessons import exercises, solutions
from fastloss.lessons.verdicts import Fault, Verdict, compare, judge_times

MEASURED: dict[str, dict[str, Any]] = {
    "ridge": {"arithmetic": 2e11, "bandwidth": 2e10},
    "cheapest_a_day": {"python": (0.1, 0.1), "njit": (1.5, 2e-4), "cached": (0.05, 2e-4)},
}
ANSWERS: dict[str, Any] = {
    "exp_share": "D",
    "ridge": 10.4,
    "cheapest_a_day": "cached",
    "cifar10_seconds": 3073,
}
WITH_NUMBA = {"hinge_loop", "count_signatures"}


def examine(name: str, answer: Any) -> Verdict:
    return exercises.examine(answer, name, **MEASURED.get(name, {}))


@pytest.mark.parametrize("name", exercises.names())
def test_solution_is_right(name):
    if name in WITH_NUMBA:
        pytest.importorskip("numba")
    answer = ANSWERS[name] if name in ANSWERS else getattr(solutions, name)
    verdict = examine(name, answer)
    assert verdict.status == "right", verdict


# --- stubs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lesson", lessons.all_lessons(), ids=lambda lesson: lesson.path.stem)
def test_stubs_are_not_written_yet(lesson, capsys):
    """Every stub runs, so that a whole lesson runs before its exercises are done."""
    starts = [cell.source.startswith("## Exercises\n") for cell in lesson.cells]
    seconds = {"Python": 0.1, "njit": 1e-4}
    namespace = {
        "medians": seconds, "waking": 0.1, "first_call": 1.0, "cached_first_call": 0.1,
        "n_cores": 1, "arithmetic": {1: 2e11}, "bandwidth": {1: 2e10},
    }  # fmt: skip
    for cell in lesson.cells[starts.index(True) :]:
        if cell.kind == "code":
            flags = __future__.annotations.compiler_flag
            exec(compile(cell.source, str(lesson.path), "exec", flags), namespace)
    printed = [line.partition(": ") for line in capsys.readouterr().out.splitlines()]
    assert {said for _, _, said in printed} == {"not written yet"}
    _seen.update({name: lesson.number for name, _, _ in printed})
    assert len(printed) >= len(lesson.exercises) == 3


_seen: dict[str, int] = {}


def test_every_checker_has_a_stub():
    if len(set(_seen.values())) < 6:
        pytest.skip("needs the stubs of all lessons, from the test above")
    assert tuple(_seen) == exercises.names()


# --- wrong answers --------------------------------------------------------------------------------


def twice(*indices: int) -> Any:
    """Return a wrapper that doubles these parts of a function's result."""

    def wrap(function: Any) -> Any:
        def wrong(*arguments: Any) -> Any:
            result = list(function(*arguments))
            for k in indices:
                result[k] = 2 * result[k]
            return tuple(result)

        return wrong

    return wrap


def unshifted(W, X, y):
    powers = [[math.exp(score) for score in row] for row in (X @ W).tolist()]
    slopes = np.array([[p / sum(row) for p in row] for row in powers])
    correct = slopes[np.arange(len(X)), y].copy()
    slopes[np.arange(len(X)), y] -= 1
    return -float(np.log(correct).mean()), X.T @ slopes / len(X)


def ten_times(W, X, y):
    for _ in range(10):  # slow enough on a busy machine, too
        result = solutions.naive_on_lists(W, X, y)
    return result


def hinge_with_temporaries(W, X, y):
    return fastloss.loss_and_grad(W, X + 0, y, loss="hinge", backend="naive")


def transposed(W, X, y):
    loss, dW = solutions.hinge_in_place(W, X, y)
    return loss, dW.T


def normalised_in_place(W, X, y):
    X -= X.mean()
    return solutions.hinge_in_place(W, X, y)


def whole_floats(W, pixels, y):
    return fastloss.loss_and_grad(W, pixels / np.float32(255), y, backend="numpy")


def unscaled_gradient(W, pixels, y):
    loss, dW = whole_floats(W, pixels, y)
    return loss, 255 * dW


def forgets_return(*arguments):
    solutions.line_hits(1, 2, 3)


def not_compiled(W, X, y):
    open("/dev/null").close()
    return solutions.hinge_in_place(W, X, y)


def one_matrix(W, X, y):
    losses, slopes = fastloss.score_gradient(X @ W, y, backend="numpy")
    return float(losses.mean()), X.T @ slopes / W.dtype.type(len(X))


def loses_imaginary_part(W, X, y):
    return complex(solutions.softmax_of_complex(W, X, y).real)


def central(f, W, h=1e-5):
    return fastloss.numerical_gradient(lambda W: float(np.real(f(W))), W, h=h)


def steps_in_real_array(f, W, h=1e-20):
    probe = W.astype(complex)
    return solutions.complex_step_gradient(lambda V: f(probe.real), W, h)


def probes_in_place(f, W, h=1e-20):
    W += 1e-3
    return solutions.complex_step_gradient(f, W, h)


def visible_bug(X, y, n_classes):
    wrong, hidden, shown = solutions.bug_in_hiding(X, y, n_classes)
    return twice(1)(wrong), hidden, shown


def no_bug(X, y, n_classes):
    _, hidden, shown = solutions.bug_in_hiding(X, y, n_classes)
    return fastloss.Objective(X, y, l2=0.1, backend="numpy"), hidden, shown


def no_penalty(X, y, n_classes):
    objective = fastloss.Objective(X, y, backend="numpy")

    def wrong(W):
        loss, dW = objective(W)
        return loss, dW * (1 + np.abs(W))

    _, hidden, shown = solutions.bug_in_hiding(X, y, n_classes)
    return wrong, hidden, shown


def failing_function(X, y, n_classes):
    def wrong(W):
        return 1 / int(W[0, 0]), W

    return wrong, np.zeros((12, 5)), np.ones((12, 5))


def trusts_the_total(data, penalty, W):
    return dict.fromkeys(("total", "data", "penalty"), True)


WRONG: list[tuple[str, Any, str, str]] = [
    ("line_hits", lambda n, d, c: (n * c, n * c), "wrong", "(3, 4, 5) is 15, expected 60"),
    ("line_hits", lambda n, d, c: n * d * c, "wrong", "returned int, expected (hits of scores,"),
    ("line_hits", forgets_return, "wrong", "returned NoneType"),
    ("exp_share", "N", "wrong", "does not change the ratio"),
    (
        "naive_on_lists",
        unshifted,
        "wrong",
        "(very large scores): raises OverflowError: math range error, in line",
    ),
    (
        "naive_on_lists",
        twice(0)(solutions.naive_on_lists),
        "wrong",
        "the loss is twice the right one",
    ),
    (
        "naive_on_lists",
        twice(1)(solutions.naive_on_lists),
        "wrong",
        "the gradient is twice the right one",
    ),
    ("naive_on_lists", ten_times, "slow", "at most 2 is asked"),
    ("share_from_speedup", lambda whole, part: 1 - 1 / whole, "wrong", "expected 0.5"),
    ("share_from_speedup", lambda whole, part: None, "wrong", "is a `return` missing?"),
    ("hinge_in_place", transposed, "wrong", "its dW is transposed: return dW.T"),
    ("hinge_in_place", normalised_in_place, "wrong", "changes its argument X"),
    ("softmax_of_bytes", unscaled_gradient, "wrong", "all entries are 255 times"),
    ("softmax_of_bytes", whole_floats, "large", "its peak is"),
    ("peak_of_one_expression", lambda scores: 3 * scores.nbytes, "wrong", "`scores.nbytes`"),
    ("peak_of_one_expression", lambda scores: 4, "wrong", "`peak_bytes` measures less"),
    ("hinge_loop", not_compiled, "wrong", ': open("/dev/null").close()'),
    ("count_signatures", lambda: 4, "wrong", "a read-only array has another type"),
    ("count_signatures", lambda: 10, "wrong", "compiles nothing"),
    ("seconds_a_day", lambda f, e, starts=24: starts * (f + 4700 * e), "wrong", "is 2350.5, exp"),
    ("cheapest_a_day", "njit", "wrong", "another one less"),
    ("cheapest_a_day", "numpy", "wrong", "expected one of python, njit, cached"),
    ("ridge_classes", lambda a, b, itemsize: a / b * itemsize, "wrong", "3.125; a class costs 4"),
    ("ridge", 40, "wrong", "200 Gflop/s and 20.0 GB/s; a class costs 4 operations"),
    ("ridge", 7, "wrong", "too few for the lesson's last ceilings"),
    ("ridge", "ten", "wrong", "'ten', expected numbers"),
    ("ridge", [1, 2], "wrong", "expected one number"),
    ("one_pass_numpy", one_matrix, "large", "matrices of all N x C scores"),
    (
        "shortest_time",
        lambda shape, size, passes, bandwidth, arithmetic: (
            passes * math.prod(shape[:2]) * size / bandwidth + 4 * math.prod(shape) / arithmetic
        ),
        "wrong",
        "is 0.00012, expected 0.0001",
    ),
    ("softmax_of_complex", loses_imaginary_part, "wrong", "`abs`, `real` and `float` drop it"),
    ("complex_step_gradient", steps_in_real_array, "wrong", "step in `W.astype(complex)`"),
    ("complex_step_gradient", central, "wrong", "(off by"),
    ("complex_step_gradient", probes_in_place, "wrong", "changes its argument W"),
    ("fourth_order_gradient", central, "wrong", "h to the 2.0, expected 4"),
    ("fourth_order_gradient", lambda f, W, h: W, "wrong", "the gradient[0, 0] is"),
    ("count_evaluations", lambda n, scheme: 2 * n, "wrong", "(10, 'forward') is 20, expected 11"),
    ("cifar10_seconds", 1536.5, "wrong", "forward differences"),
    ("cifar10_seconds", 3.07, "wrong", "3.07 s"),
    ("bug_in_hiding", visible_bug, "wrong", "a check at W = 0 finds the bug, at the entry"),
    ("bug_in_hiding", no_bug, "wrong", "no check finds a bug"),
    ("bug_in_hiding", no_penalty, "wrong", "not the mean softmax loss with a penalty"),
    ("bug_in_hiding", failing_function, "wrong", "ZeroDivisionError: "),
    ("statuses_at_corner", lambda power: (True, {"kink"}, 2), "wrong", "statuses_at_corner(2) has"),
    ("statuses_at_corner", lambda power: (False, {"kink"}, 2), "wrong", "did not pass"),
    ("check_parts", trusts_the_total, "wrong", "for a wrong data gradient, 'data' passes, but"),
    ("check_parts", lambda *parts: True, "wrong", "expected a dict with the keys"),
]


@pytest.mark.parametrize(
    ("name", "answer", "status", "message"),
    WRONG,
    ids=lambda value: getattr(value, "__name__", None),
)
def test_wrong_answer_is_told_apart(name, answer, status, message):
    if name in WITH_NUMBA:
        pytest.importorskip("numba")
    verdict = examine(name, answer)
    assert verdict.status == status, verdict
    assert message in verdict.message


def test_every_exercise_has_a_tested_wrong_answer():
    assert {name for name, *_ in WRONG} == set(exercises.names())


def test_error_shows_the_line_of_the_student_only():
    def half(number):
        return number / "2"

    def by_helper(n_rows, n_features, n_classes):
        return half(n_rows), n_rows * n_classes

    for name, answer, line in (
        ("bug_in_hiding", failing_function, "return 1 / int(W[0, 0]), W"),
        ("line_hits", by_helper, 'return number / "2"'),
    ):
        message = examine(name, answer).message
        assert message.endswith(f": {line}")
        assert "\n" not in message


def test_not_implemented_elsewhere_is_an_error():
    def calls_another(*arguments):
        return fastloss.Loss.naive(None, [], 0)

    assert examine("line_hits", calls_another).status == "wrong"


def test_unknown_name_lists_the_exercises():
    with pytest.raises(ValueError, match="unknown exercise 'mine'; known: line_hits, exp_share"):
        exercises.check(1, "mine")
    with pytest.raises(ValueError, match="'D' is no function: add the exercise's name; known: l"):
        exercises.check("D")


def test_missing_or_unknown_numbers_of_the_machine_are_no_wrong_answer():
    with pytest.raises(TypeError, match=r"'ridge': missing a required .*argument: 'arithmetic'"):
        exercises.check(12.5, "ridge")
    with pytest.raises(TypeError, match=r"'cheapest_a_day': missing a required .*: 'python'"):
        exercises.check("cached", "cheapest_a_day")
    with pytest.raises(TypeError, match=r"'line_hits': got an unexpected .*argument 'bandwidth'"):
        exercises.check(solutions.line_hits, bandwidth=2e10)


def test_check_prints_one_line(capsys):
    exercises.check(solutions.line_hits)
    exercises.check(10, "ridge", arithmetic=2e11, bandwidth=2e10)
    assert capsys.readouterr().out == (
        "line_hits: right\nridge: right: for float32; uint8 needs a quarter of the classes\n"
    )


def richardson(f, W, h=1e-3):
    gradient, wider = (fastloss.numerical_gradient(f, W, h=step) for step in (h, 2 * h))
    return (4 * gradient - wider) / 3


def hidden_by_l1(X, y, n_classes):
    objective = fastloss.Objective(X, y, backend="numpy")

    def wrong(W):
        loss, dW = objective(W)
        return loss + 0.1 * np.abs(W).sum(), dW + 0.2 * np.sign(W)

    hidden = np.zeros((X.shape[1], n_classes))
    return wrong, hidden, hidden + np.linspace(-1, 1, n_classes + 1)[1:]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("share_from_speedup", lambda s, k: k * (s - 1) / (s * (k - 1))),
        ("fourth_order_gradient", richardson),
        ("bug_in_hiding", hidden_by_l1),
    ],
)
def test_other_right_answers_are_right(name, answer):
    assert examine(name, answer).status == "right"


# --- parts of the judgement -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("came", "message"),
    [
        ([1.0, math.nan], r"a\[1\] is nan, expected 2"),
        ([1.0, 2.0 + 1e-7], r"a\[1\] is 2.0000001, expected 2"),
        ([1.0, 2.0 + 1e-8], r"a\[1\] is 2, expected 2 \(off by 1e-08\)"),
        ([-1.0, -2.0], r"a\[0\] is -1, expected 1; all entries are -1 times"),
        ([[1.0, 2.0]], r"a has the shape \(1, 2\), expected \(2,\)"),
        ("text", "a is 'text', expected numbers"),
    ],
)
def test_compare_names_the_first_bad_place(came, message):
    with pytest.raises(Fault, match=message):
        compare("a", came, [1.0, 2.0])


def test_hint_ends_the_message_on_a_shape_too():
    with pytest.raises(Fault, match=r"expected \(2, 1\); is it transposed\?; look at W$"):
        compare("a", [[1.0, 2.0]], [[1.0], [2.0]], hint="; look at W")


def test_busy_machine_is_no_fault():
    solution = [1.0] * 9
    slow = [3.0, 3.1, 3.2, 2.9, 3.0, 3.1, 3.0, 3.3, 3.0]
    busy = [1.0, 9.0, 3.0, 1.1, 5.0, 1.2, 8.0, 1.0, 4.0]
    spread = [5.4, 1.9, 11.0, 2.5, 30.0, 2.2, 10.0, 40.0, 9.0]  # clearly slow, whatever the round
    for times in (slow, spread):
        with pytest.raises(Fault, match="times as long as the solution; at most 2") as caught:
            judge_times({"yours": times, "solution": [1.0, 0.9] * 4 + [1.0]}, 2.0, "")
        assert caught.value.verdict.status == "slow"
    said = judge_times({"yours": busy, "solution": solution}, 2.0, "Is it the loop?")
    assert said.startswith("the machine is too busy to judge the time, ")
    assert said.endswith("3 times as long as the solution. Is it the loop? Run the cell again")
    assert "too busy" not in judge_times({"yours": slow, "solution": solution}, 4.0, "")


def test_line_profiler_counts_as_the_solution_does():
    line_profiler = pytest.importorskip("line_profiler")
    lesson = lessons.find_lesson(1)
    source = next(cell.source for cell in lesson.cells if "def naive(" in cell.source)
    namespace: dict[str, Any] = {}
    exec(lesson.cells[1].source, namespace)
    exec(source, namespace)
    naive = namespace["naive"]
    for shape in ((3, 4, 5), (7, 2, 3)):
        data = fastloss.data.synthetic(*shape, dtype=np.float64)
        profiler = line_profiler.LineProfiler(naive)
        profiler.runcall(naive, np.zeros(shape[1:]), data.X, data.y)
        ((_, timings),) = profiler.get_stats().timings.items()
        hits = {source.splitlines()[line - 1].strip(): count for line, count, _ in timings}
        n_hits, n_exp = solutions.line_hits(*shape)
        assert hits["scores[c] += X[i, d] * W[d, c]"] == n_hits
        ((line, n_rows),) = ((line, count) for line, count in hits.items() if "math.exp" in line)
        assert (n_rows, n_rows * shape[2]) == (shape[0], n_exp), line
