"""Judge a student's function: compare values, time it, measure its memory, explain its errors."""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

import fastloss
from fastloss.arrays import weight_types
from fastloss.candidates import check_candidate
from fastloss.candidates.calling import file_of, user_frames
from fastloss.lessons import tools
from fastloss.tables import seconds

Status = Literal["right", "wrong", "slow", "large", "not written yet"]


@dataclass(frozen=True)
class Verdict:
    """What `fastloss.lessons.exercises.examine` found.

    "slow" and "large" are right results that take more time or memory than the exercise asks for.
    """

    status: Status
    message: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.message}" if self.message else self.status


class Fault(Exception):
    """A reason why an answer is not right; ends its examination."""

    def __init__(self, message: str, status: Status = "wrong") -> None:
        super().__init__(message)
        self.verdict = Verdict(status, message)


# --- values ---------------------------------------------------------------------------------------


def compare(what: str, came: Any, expected: Any, rtol: float = 1e-9, hint: str = "") -> None:
    """Raise Fault at the first place where ``came`` is not ``expected``.

    The tolerance is ``rtol`` times the largest entry of ``expected``. ``what`` names the value in
    the message, and ``hint`` ends it.
    """
    expected = np.asarray(expected, np.float64)
    found = _as_floats(what, came)
    if found.shape != expected.shape:
        turned = "; is it transposed?" if found.T.shape == expected.shape else ""
        raise Fault(f"{what} has the shape {found.shape}, expected {expected.shape}{turned}{hint}")
    is_off, place = tools.find_off(found, expected, rtol)
    if not is_off.any():
        return
    texts = [f"{array[place]:.8g}" for array in (found, expected)]
    off = f" (off by {abs(found[place] - expected[place]):.1g})" if texts[0] == texts[1] else ""
    hints = f"{_factor(found, expected)}{hint}"
    raise Fault(f"{what}{tools.index(place)} is {texts[0]}, expected {texts[1]}{off}{hints}")


def as_number(came: Any) -> float:
    """Return a single number; raise Fault if ``came`` is none."""
    found = _as_floats("the answer", came)
    if found.shape:
        raise Fault(f"the answer has the shape {found.shape}, expected one number")
    return float(found)


def _as_floats(what: str, came: Any) -> NDArray[np.float64]:
    if came is None:
        raise Fault(f"{what} is None; is a `return` missing?")
    try:
        return np.asarray(came, np.float64)
    except (TypeError, ValueError):
        raise Fault(f"{what} is {came!r:.60}, expected numbers") from None


def _factor(found: NDArray[np.float64], expected: NDArray[np.float64]) -> str:
    """Return a hint if a matrix is a multiple of the expected one."""
    square = float((expected * expected).sum())
    factor = float((found * expected).sum()) / square if square else math.nan
    is_multiple = np.allclose(found, factor * expected, rtol=1e-4, atol=0.0)
    if found.size == 1 or not is_multiple or math.isclose(factor, 1.0, rel_tol=1e-3):
        return ""
    return f"; all entries are {factor:.4g} times the expected ones"


def unpack(what: str, came: Any, *names: str) -> tuple[Any, ...]:
    """Return the parts of a tuple; raise Fault if it has not a part for each name."""
    if not isinstance(came, tuple) or len(came) != len(names):
        found = f"a tuple of {len(came)}" if isinstance(came, tuple) else type(came).__name__
        raise Fault(f"{what} returned {found}, expected ({', '.join(names)})")
    return came


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; raise Fault if it changes an array that it was given."""
    given = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    result = function(*given)
    for k, (after, before) in enumerate(zip(given, arguments, strict=True)):
        if isinstance(before, np.ndarray) and not np.array_equal(after, before):
            raise Fault(f"it changes its argument {_parameter(function, k)}; work on a copy")
    return result


def _parameter(function: Callable[..., Any], k: int) -> str:
    """Return the name of the k-th parameter, or its place from 1."""
    with suppress(TypeError, ValueError):  # a builtin has no signature
        named = [p for p in signature(function).parameters.values() if p.kind != p.VAR_POSITIONAL]
        if k < len(named):
            return named[k].name
    return str(k + 1)


def problem(
    dtype: DTypeLike = np.float64, shape: tuple[int, int, int] = (60, 12, 5)
) -> tuple[Any, Any, Any]:
    """Return ``(W, X, y)`` of a small problem, N x D x C."""
    data = fastloss.data.synthetic(*shape, dtype=dtype, seed=3)
    W = np.random.default_rng(1).standard_normal(shape[1:])
    return W.astype(weight_types(data.X.dtype)[0]), data.X, data.y


def compare_loss(function: Callable[..., Any], loss: str) -> None:
    """Raise Fault unless ``function(W, X, y)`` computes a loss of fastloss and its gradient."""
    function(*problem())  # an exception goes to `explain_error`
    report = check_candidate(function, loss)
    if not report.passed:
        lines = [in_line(frame.filename, frame.lineno or 0) for frame in report.frames[-1:]]
        raise Fault(", ".join([report.reason, *lines]))


def compare_pair(came: Any, expected: tuple[float, Any], rtol: float) -> None:
    """Raise Fault unless ``came`` is the expected loss and gradient."""
    loss, dW = unpack("it", came, "loss", "dW")
    compare("the loss", loss, expected[0], rtol)
    compare("dW", dW, expected[1], rtol)


# --- time and memory ------------------------------------------------------------------------------


def compare_time(
    yours: Callable[[], Any], solution: Callable[[], Any], limit: float, hint: str
) -> str:
    """Time both in turns; return a sentence, or raise Fault as `judge_times` does.

    Each round is one call of each: on a busy machine, many short calls pass without interruption.
    """
    contenders = {"yours": yours, "solution": solution}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    end = perf_counter() + 1.5
    while len(times["yours"]) < 9 or (perf_counter() < end and len(times["yours"]) < 1000):
        for name, contender in contenders.items():
            start = perf_counter()
            contender()
            times[name].append(perf_counter() - start)
    return judge_times(times, limit, hint)


def judge_times(times: Mapping[str, Sequence[float]], limit: float, hint: str) -> str:
    """Return a sentence on the times of "yours" and "solution", in seconds by round.

    Raises
    ------
    Fault : "slow"; the ratio is above ``limit`` both in the median round and between the shortest
        times. If only one of them is, the machine is too busy to tell, which is no fault.
    """
    median = float(np.median(np.divide(times["yours"], times["solution"])))
    exceed = median > limit, min(times["yours"]) > limit * min(times["solution"])
    numbers = (
        f"{seconds(float(np.median(times['yours'])))} a call, {median:.2g} times as long as the "
        "solution"
    )
    if all(exceed):
        raise Fault(
            f"the result is right, but {numbers}; at most {limit:g} is asked. {hint}", "slow"
        )
    if any(exceed):
        return f"the machine is too busy to judge the time, {numbers}. {hint} Run the cell again"
    return numbers


def limit_memory(function: Callable[[], Any], unit: int, limit: float, of_what: str) -> str:
    """Return a sentence on the peak memory of a call, in units of ``unit`` bytes.

    Raises
    ------
    Fault : "large"; the peak is at or above ``limit`` units.
    """
    peak = tools.peak_bytes(function) / unit
    numbers = f"its peak is {peak:.2g} {of_what}"
    if peak >= limit:
        raise Fault(f"the result is right, but {numbers}; less than {limit:g} is asked", "large")
    return numbers


# --- errors ---------------------------------------------------------------------------------------


def explain_error(error: Exception, function: Any) -> Verdict:
    """Return the verdict on an exception: its message, and the student's line that raised it."""
    frames = user_frames(error, function)
    if not frames:
        return Verdict("wrong", _named(error))
    last = frames[-1]
    if isinstance(error, NotImplementedError) and last.filename == file_of(function):
        return Verdict("not written yet")
    return Verdict("wrong", f"{_named(error)}, {in_line(last.filename, last.lineno or 0)}")


def in_line(filename: str, number: int) -> str:
    """Return a line of a student's code, with its number in the script or cell."""
    return f"in line {number}: {linecache.getline(filename, number).strip()}".rstrip(": ")


def _named(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(": ")
