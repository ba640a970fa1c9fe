"""Check a student's answers to the exercises: ``exercises.check(my_function)``.

The name of a function selects its exercise. Answers that are no functions come with a name::

    exercises.check(line_hits)
    exercises.check(12.5, "ridge", arithmetic=2e11, bandwidth=2e10)

`fastloss.lessons.solutions` has a function of the same name for each exercise that asks for one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache, partial
from inspect import signature
from typing import Any

import numpy as np

import fastloss
from fastloss.kernel_cache import numba_unavailable
from fastloss.lessons import solutions
from fastloss.lessons.verdicts import (
    Fault,
    Verdict,
    as_number,
    call,
    compare,
    compare_loss,
    compare_pair,
    compare_time,
    explain_error,
    in_line,
    limit_memory,
    problem,
    unpack,
)

Checker = Callable[..., str | None]
_CHECKERS: dict[str, Checker] = {}


def check(answer: Any, name: str | None = None, **measured: Any) -> None:
    """Print whether an answer is right, where it is wrong, or that it is too slow or too large.

    Parameters
    ----------
    answer : the student's function, or a number or text; None means "not written yet".
    name : the exercise, one of `names`; by default the name of the function.
    measured : numbers of this machine that the expected answer depends on.

    Raises
    ------
    ValueError : an unknown exercise; the message lists the names.
    TypeError : a measured number is missing, or the exercise does not take it.
    """
    verdict = examine(answer, name, **measured)
    print(f"{_name_of(answer) if name is None else name}: {verdict}")


def examine(answer: Any, name: str | None = None, **measured: Any) -> Verdict:
    """Return the verdict that `check` prints; for graders."""
    name = _name_of(answer) if name is None else name
    if name not in _CHECKERS:
        known = f"known: {', '.join(_CHECKERS)}"
        if name is None:
            raise ValueError(f"{answer!r:.60} is no function: add the exercise's name; {known}")
        raise ValueError(f"unknown exercise {name!r}; {known}")
    try:
        signature(_CHECKERS[name]).bind(answer, **measured)
    except TypeError as error:  # the caller's mistake, not the student's
        raise TypeError(f"the exercise {name!r}: {error}") from None
    if answer is None:
        return Verdict("not written yet")
    try:
        return Verdict("right", _CHECKERS[name](answer, **measured) or "")
    except Fault as fault:
        return fault.verdict
    except Exception as error:
        return explain_error(error, getattr(answer, "py_func", answer))


def names() -> tuple[str, ...]:
    """Return the names of all exercises with a checker, in the order of the lessons."""
    return tuple(_CHECKERS)


def _name_of(answer: Any) -> str | None:
    name: str | None = getattr(answer, "__name__", None)
    return name


def _checker(function: Checker) -> Checker:
    """Register a checker under its name; it returns a remark or raises Fault."""
    _CHECKERS[function.__name__] = function
    return function


# --- lesson 1: the naive loop ---------------------------------------------------------------------


@_checker
def line_hits(function: Any) -> None:
    for shape, expected in {(3, 4, 5): (60, 15), (7, 2, 3): (42, 21)}.items():
        hits = unpack(f"line_hits{shape}", function(*shape), "hits of scores", "hits of exp")
        for what, came, right in zip(("scores[c] += ...", "math.exp"), hits, expected, strict=True):
            compare(f"the count of `{what}` for N, D, C = {shape}", came, right)


@_checker
def exp_share(answer: Any) -> str:
    if str(answer).upper() != "D":
        raise Fault(f"{answer!r} does not change the ratio of the two counts of `line_hits`")
    return "the counts have the ratio D"


@_checker
def naive_on_lists(function: Any) -> str:
    compare_loss(function, "softmax")
    arguments = problem(shape=(40, 100, 10))
    return compare_time(
        lambda: function(*arguments),
        lambda: solutions.naive_on_lists(*arguments),
        2.0,
        "Do the inner loops still index an array?",
    )


@_checker
def share_from_speedup(function: Any) -> None:
    for share, factor in ((0.5, 2.0), (0.9, 20.0), (0.1, 1000.0)):
        whole = 1 / (1 - share + share / factor)  # Amdahl's law
        what = f"the share for a whole {whole:.4g} and a part {factor:g} times as fast"
        compare(what, function(whole, factor), share)


# --- lesson 2: vectorising ------------------------------------------------------------------------


@_checker
def hinge_in_place(function: Any) -> str:
    compare_loss(function, "hinge")
    W, X, y = problem(np.float32, (5000, 20, 30))
    unit = len(X) * W.shape[1] * W.itemsize
    return limit_memory(lambda: function(W, X, y), unit, 2.0, "matrices of scores")


@_checker
def softmax_of_bytes(function: Any) -> str:
    W, pixels, y = problem(np.uint8, (4000, 200, 5))
    expected = fastloss.loss_and_grad(W, pixels / np.float32(255), y, backend="numpy")
    compare_pair(call(function, W, pixels, y), expected, 1e-4)
    remark = ""
    for n_rows in (2000, 4000):
        rows, labels = pixels[:n_rows], y[:n_rows]
        of_what = f"bytes for each byte of X, at N = {n_rows}"
        remark = limit_memory(partial(function, W, rows, labels), rows.nbytes, 1.0, of_what)
    return remark


@_checker
def peak_of_one_expression(function: Any) -> None:
    scores = np.random.default_rng(0).standard_normal((2000, 50))
    came = as_number(function(scores))
    if 2.9 < came / scores.nbytes < 3.1:
        raise Fault(f"{came:.3g} is the peak in bytes; divide it by `scores.nbytes`")
    if not 2.9 < came < 3.1:
        side = "less" if came > 3 else "more"
        raise Fault(
            f"{came:.3g} matrices; `peak_bytes` measures {side}. An array without a name dies "
            "after the operation that uses it"
        )


# --- lesson 3: compiling --------------------------------------------------------------------------


@_checker
def hinge_loop(function: Any) -> str:
    plain = getattr(function, "py_func", function)
    compare_loss(plain, "hinge")
    if (why_not := numba_unavailable()) is not None:
        return f"but not compiled: {why_not}"
    from numba.core.errors import NumbaError

    arguments = problem(shape=(300, 100, 20))
    compiled, solution = _compiled(function), _compiled(solutions.hinge_loop)
    try:
        compiled(*arguments)
    except NumbaError as error:
        raise Fault(f"Numba cannot compile it: {_cause(error, plain)}") from None
    compare_pair(compiled(*arguments), plain(*arguments), 1e-9)
    hint = "Is the loop over classes the innermost?"
    return compare_time(lambda: compiled(*arguments), lambda: solution(*arguments), 2.0, hint)


@cache
def _compiled(function: Any) -> Any:
    import numba

    return function if hasattr(function, "py_func") else numba.njit(function)


def _cause(error: Exception, function: Any) -> str:
    """Return the first line of Numba's message that says something, and the student's line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if not line.startswith(("Failed in", "-", "During:", "File "))]
    numbers = re.findall(r'^File ".+", line (\d+)', str(error), re.MULTILINE)
    places = [in_line(function.__code__.co_filename, int(number)) for number in numbers[-1:]]
    return ", ".join([*causes[:1], *places])


@_checker
def count_signatures(function: Any) -> None:
    hints = {
        2: "the memory layout belongs to the type of an array, too",
        3: "a slice is neither stored by rows nor by columns",
        4: "a read-only array has another type",
        10: "a second call with the same type compiles nothing",
    }
    came = function()
    if came != 5:
        raise Fault(f"{came!r} is not what Numba counts; {hints.get(came, 'see `signatures`')}")


@_checker
def seconds_a_day(function: Any) -> None:
    cases = {(2.0, 0.0, 24): 48.0, (0.5, 0.5, 1): 2350.0, (3.0, 0.1, 2): 945.8}
    for (first, each, starts), expected in cases.items():
        what = f"seconds_a_day({first}, {each}, starts={starts})"
        compare(what, function(first, each, starts=starts), expected)


@_checker
def cheapest_a_day(
    answer: Any,
    *,
    python: tuple[float, float],
    njit: tuple[float, float],
    cached: tuple[float, float],
) -> str:
    """Each version is a pair of seconds: the first call, and each later one."""
    versions = {"python": python, "njit": njit, "cached": cached}
    costs = {name: solutions.seconds_a_day(*times) for name, times in versions.items()}
    if answer not in costs:
        raise Fault(f"{answer!r}; expected one of {', '.join(costs)}")
    best = min(costs, key=lambda name: costs[name])
    if costs[answer] > 1.1 * costs[best]:
        raise Fault(f"{answer} takes {costs[answer]:.3g} s a day, another one less")
    return f"{costs[answer]:.3g} s a day"


# --- lesson 4: one pass ---------------------------------------------------------------------------


@_checker
def ridge_classes(function: Any) -> None:
    arithmetic, bandwidth = 300e9, 24e9
    for itemsize in (1, 4, 8):
        # At the ridge, computing 4 N D C operations takes as long as reading N D numbers.
        expected = arithmetic * itemsize / bandwidth / 4
        what = f"the classes for 300 Gflop/s, 24 GB/s and {itemsize} bytes a number"
        hint = "; a class costs 4 operations for each number of `itemsize` bytes"
        compare(what, function(arithmetic, bandwidth, itemsize), expected, hint=hint)


@_checker
def ridge(answer: Any, *, arithmetic: float, bandwidth: float) -> str:
    """The number of classes at the ridge for float32, on the student's own machine."""
    factor = as_number(answer) * bandwidth / arithmetic
    if 0.9 <= factor <= 1.1:
        return "for float32; uint8 needs a quarter of the classes"
    is_by_bytes = any(0.9 <= factor * n <= 1.1 for n in (4, 1 / 4))
    hint = "; a class costs 4 operations for each number of 4 bytes" if is_by_bytes else ""
    raise Fault(
        f"{answer:.4g} is too {'many' if factor > 1 else 'few'} for the lesson's last ceilings, "
        f"{arithmetic / 1e9:.0f} Gflop/s and {bandwidth / 1e9:.1f} GB/s{hint}"
    )


@_checker
def one_pass_numpy(function: Any) -> str:
    compare_loss(function, "softmax")
    W, X, y = problem(np.float32, (20_000, 64, 10))
    unit = len(X) * W.shape[1] * W.itemsize
    limit_memory(lambda: function(W, X, y), unit, 1.0, "matrices of all N x C scores")
    hint = "How many rows has a block, and does it fit the cache?"
    solution = partial(solutions.one_pass_numpy, W, X, y)
    return compare_time(lambda: function(W, X, y), solution, 2.0, hint)


@_checker
def shortest_time(function: Any) -> None:
    ceilings = {"bandwidth": 20e9, "arithmetic": 200e9}
    cases = {
        ((1000, 500, 2), 4, 1): 1e-4,  # reading 2 MB
        ((1000, 500, 2), 4, 2): 2e-4,
        ((1000, 500, 200), 4, 1): 2e-3,  # computing 0.4 Gflop
        ((1000, 500, 20), 1, 1): 2e-4,
    }
    for (shape, itemsize, passes), expected in cases.items():
        what = f"shortest_time({shape}, {itemsize}, {passes}, 20 GB/s, 200 Gflop/s)"
        compare(what, function(shape, itemsize, passes, **ceilings), expected)


# --- lesson 5: numerical gradients ----------------------------------------------------------------


@_checker
def softmax_of_complex(function: Any) -> None:
    W, X, y = problem()
    loss, dW = fastloss.loss_and_grad(W, X, y, backend="numpy")
    compare("the real part for a real W", np.real(call(function, W, X, y)), loss, 1e-12)
    V, h = np.cos(np.arange(W.size)).reshape(W.shape), 1e-20
    slope = np.imag(call(function, W + 1j * h * V, X, y)) / h
    if slope == 0:
        raise Fault("the imaginary part is 0: `abs`, `real` and `float` drop it")
    compare("the imaginary part over h, a slope,", slope, (dW * V).sum(), 1e-10)


@_checker
def complex_step_gradient(function: Any) -> None:
    W = np.linspace(-1, 1, 12).reshape(3, 4)
    gradient = call(function, lambda W: (W**3).sum() + np.exp(W).prod(), W)
    if gradient is not None and not np.any(gradient):
        raise Fault("the gradient is 0: a real array drops `1j * h`; step in `W.astype(complex)`")
    compare("the gradient", gradient, 3 * W**2 + np.exp(W.sum()), 1e-14)


@_checker
def fourth_order_gradient(function: Any) -> str:
    W = np.linspace(-1, 1, 12).reshape(3, 4)
    expected = 3 * np.cos(3 * W)

    def error(h: float) -> float:
        gradient = call(function, lambda W: float(np.sin(3 * W).sum()), W, h)
        compare("the gradient", gradient, expected, 0.1)
        return float(np.abs(gradient - expected).max())

    order = math.log(error(0.1) / max(error(0.02), 1e-300), 5)
    if not 3.5 < order < 4.5:
        raise Fault(f"from h = 0.02 to 0.1 the error grows as h to the {order:.1f}, expected 4")
    compare("the gradient at h = 1e-3", function(lambda W: np.sin(3 * W).sum(), W, 1e-3), expected)
    return f"the error grows as h to the {order:.1f}"


@_checker
def count_evaluations(function: Any) -> None:
    for n_parameters in (1, 10, 25):
        for scheme, expected in {"central": 2 * n_parameters, "forward": n_parameters + 1}.items():
            what = f"count_evaluations({n_parameters}, {scheme!r})"
            compare(what, function(n_parameters, scheme), expected)


@_checker
def cifar10_seconds(answer: Any) -> str:
    spent = as_number(answer)
    if math.isclose(spent, 30_731 * 0.05, rel_tol=0.01):
        raise Fault("this is the time of forward differences; the default is central")
    if not math.isclose(spent, 2 * 30_730 * 0.05, rel_tol=0.01):
        raise Fault(f"{spent:.5g} s; multiply the evaluations by 0.05 s")
    return "51 minutes for one gradient"


# --- lesson 6: gradient checks --------------------------------------------------------------------


@_checker
def bug_in_hiding(function: Any) -> None:
    _, X, y = problem()
    wrong, hidden, shown = unpack("it", call(function, X, y, 5), "function", "hidden", "shown")
    for W, what in ((hidden, "the W that hides the bug"), (shown, "the W that shows it")):
        if np.shape(W) != (12, 5):
            raise Fault(f"{what} has the shape {np.shape(W)}, expected (12, 5)")
    if np.any(hidden):
        raise Fault("the W that hides the bug is not all zeros")
    _check_penalty(wrong, X, y, shown)
    for seed in range(3):
        report = fastloss.check_gradient(wrong, hidden, seed=seed)
        if not report.passed:
            raise Fault(f"a check at W = 0 finds the bug, at the entry {report.worst.index}")
        if fastloss.check_gradient(wrong, shown, seed=seed).passed:
            raise Fault("no check finds a bug at the W that should show it")


def _check_penalty(wrong: Any, X: Any, y: Any, W: Any) -> None:
    """Raise Fault unless the loss is softmax with ``l1 sum|W| + l2 sum(W**2)``."""
    data = fastloss.Objective(X, y, backend="numpy")
    probes = [scale * W + shift for scale, shift in ((0, 0), (1, 0), (2, 0), (1, 1))]
    losses = [as_number(unpack("its function", wrong(V), "loss", "dW")[0]) for V in probes]
    added = np.array(losses) - [data.loss(V) for V in probes]
    sums = np.array([[np.abs(V).sum(), np.square(V).sum()] for V in probes])
    strengths = np.linalg.lstsq(sums, added)[0]
    if added[1] < 1e-9 or not np.allclose(sums @ strengths, added, rtol=1e-6, atol=1e-9):
        raise Fault("its loss is not the mean softmax loss with a penalty, L1 or L2")


@_checker
def statuses_at_corner(function: Any) -> None:
    for power, status in ((1, "kink"), (2, "good")):
        what = f"statuses_at_corner({power})"
        passed, statuses, n_kinks = unpack(what, function(power), "passed", "statuses", "n_kinks")
        if not passed:
            raise Fault(f"{what}: the gradient is right, but the check did not pass")
        if set(statuses) != {status}:
            raise Fault(f"{what} has the statuses {set(statuses)}; the check reports others")
        if n_kinks < 1:
            raise Fault(f"{what} has no kinks; the check meets some for both powers")


@_checker
def check_parts(function: Any) -> None:
    W, X, y = problem()
    objective = fastloss.Objective(X, y, backend="numpy")

    def data(W: Any, factor: float = 1.0) -> Any:
        loss, dW = objective(W)
        return loss, factor * dW

    def penalty(W: Any, factor: float = 1.0) -> Any:
        return 1e6 * float((W**2).sum()), factor * 2e6 * W

    right = {"total": True, "data": True, "penalty": True}
    cases: tuple[tuple[str, Any, Any, dict[str, bool]], ...] = (
        ("right parts", data, penalty, right),
        ("a wrong data gradient", partial(data, factor=2.0), penalty, {**right, "data": False}),
        (
            "a wrong penalty gradient",
            data,
            partial(penalty, factor=0.5),
            {"total": False, "data": True, "penalty": False},
        ),
    )
    for what, f, g, expected in cases:
        found = call(function, f, g, W)
        if not isinstance(found, dict) or set(found) != set(expected):
            raise Fault(f"it returned {found!r:.80}, expected a dict with the keys {list(right)}")
        for part, passes in expected.items():
            if bool(found[part]) != passes:
                came, expected_word = (("fails", "passes")[bool(v)] for v in (found[part], passes))
                raise Fault(f"for {what}, {part!r} {came}, but its check {expected_word}")
