"""Time contenders reliably: calibrated batches, random turns, ratios with intervals.

Noise on a shared machine comes in stretches. So contenders take turns in random order, and each is
warmed before it is timed. Comparisons divide the times of two contenders in the same round. The
median of these ratios is reported, with its exact interval.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastloss.version import install_extra

#: The clock's resolution and single interruptions distort shorter batches.
MIN_BATCH_SECONDS = 0.010
#: Least time that `settle` takes.
SETTLE_SECONDS = 0.005
#: Time to wake the thread pool, the caches and the clock before a timed batch. After a second of
#: rest, a kernel takes a tenth longer for the first 0.1 s.
WARM_SECONDS = 0.100

#: Fewest rounds that give a 95 % interval. Five would give 93.75 %.
MIN_ROUNDS = 6
#: Contenders whose times are within this factor of each other get as many rounds as time allows.
_CLOSE = 2.0


class Timed(Protocol):
    """A call to calibrate and time: a `worker.Session`, in this process or another."""

    def calibrate(self, min_seconds: float) -> tuple[int, float]: ...

    def sample(self, n_calls: int, warm_seconds: float) -> float: ...


def time_calls(call: Callable[[], Any], n_calls: int) -> float:
    """Return the mean seconds per call of a batch of ``n_calls``."""
    repeats = range(n_calls)
    start = time.perf_counter()
    for _ in repeats:
        call()
    return (time.perf_counter() - start) / n_calls


def calibrate(call: Callable[[], Any], min_seconds: float) -> tuple[int, float]:
    """Return the number of calls that fill ``min_seconds``, and the seconds per call."""
    n_calls = 1
    while True:
        seconds = time_calls(call, n_calls)
        if seconds * n_calls >= min_seconds:
            return n_calls, seconds
        # Aim a little above the target: the next batch is then likely to be the last.
        n_calls = max(n_calls + 1, min(10 * n_calls, math.ceil(1.2 * min_seconds / seconds)))


def warm(call: Callable[[], Any], seconds: float) -> None:
    """Repeat the call until ``seconds`` have passed."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        call()


def settle() -> None:
    """Wait until all threads of this process are idle, but at most half a second.

    OpenBLAS's threads spin for a tenth of a second after a call. They would take a core from the
    contender that has the next turn.
    """
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(SETTLE_SECONDS)
        if time.process_time() - before < 0.002:
            break


@dataclass(frozen=True)
class Summary:
    """Median and quartiles of the seconds per call, over the rounds."""

    median: float
    low: float
    high: float
    n_rounds: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Summary:
        low, median, high = np.percentile(seconds, [25, 50, 75])
        return cls(float(median), float(low), float(high), len(seconds))


@dataclass(frozen=True)
class Ratio:
    """The time of one contender over the time of another, with a 95 % interval.

    With fewer than `MIN_ROUNDS` rounds, the interval is from 0 to infinity.
    """

    value: float
    low: float
    high: float
    n_rounds: int

    @classmethod
    def of(cls, numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
        """Compute the median of the rounds' ratios; the shorter series sets the number of rounds.

        A stretch of noise slows both contenders of a round, and leaves their ratio unchanged. The
        sign test gives the interval: the k-th smallest and the k-th largest ratio, with the largest
        k that reaches 95 % (Conover, *Practical Nonparametric Statistics*, 1999, section 3.2). It
        assumes only that the rounds are independent.
        """
        n_rounds = min(len(numerator), len(denominator))
        ratios = np.sort(np.divide(numerator[:n_rounds], denominator[:n_rounds]))
        k = _sign_test_rank(n_rounds)
        low, high = (ratios[k - 1], ratios[-k]) if k else (0.0, math.inf)
        return cls(float(np.median(ratios)), float(low), float(high), n_rounds)

    @property
    def has_interval(self) -> bool:
        """Whether there were enough rounds for an interval."""
        return self.n_rounds >= MIN_ROUNDS

    @property
    def uncertainty(self) -> float:
        """The distance from 1 to the farther end of the interval."""
        return max(abs(self.low - 1), abs(self.high - 1))


@cache
def _sign_test_rank(n: int) -> int:
    """Return the largest k whose k-th smallest and k-th largest of n enclose 95 %, or 0."""
    # outside: the chance that the ratios of rank k + 1 do not enclose the median.
    k, outside = 0, 0.0
    while (outside := outside + 2 * math.comb(n, k) / 2**n) <= 0.05:
        k += 1
    return k


@dataclass(frozen=True)
class PowerLaw:
    """``seconds = scale * parameters**slope``, least squares in log-log, with a 95 % interval."""

    slope: float
    low: float
    high: float
    scale: float
    n_points: int

    @classmethod
    def fit(cls, sizes: Sequence[float], seconds: Sequence[float]) -> PowerLaw:
        """Fit at least three points; the interval is Student's t on the residuals.

        Raises
        ------
        ValueError : fewer than three points.
        ImportError : SciPy is not installed.
        """
        if len(sizes) < 3:
            raise ValueError(f"a slope with an interval needs 3 points, got {len(sizes)}")
        try:
            from scipy.stats import linregress, t
        except ImportError as error:
            raise ImportError(f"a slope needs SciPy: {install_extra('bench')}") from error
        line = linregress(np.log(sizes), np.log(seconds))
        half = float(t.ppf(0.975, len(sizes) - 2) * line.stderr)
        slope, scale = float(line.slope), math.exp(line.intercept)
        return cls(slope, slope - half, slope + half, scale, len(sizes))


def race(
    contenders: Mapping[str, Timed],
    *,
    max_rounds: int,
    max_seconds: float,
    rng: np.random.Generator,
    warm_seconds: float | None = None,
    after_round: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Time the contenders in turns, in random order; return the seconds per call of each round.

    The first `MIN_ROUNDS` rounds time all contenders (if ``max_rounds`` allows). Later rounds time
    only contenders whose calibrated times are close. They stop after ``max_rounds``, or when the
    next round would pass ``max_seconds``. Before its turn, each contender warms up for
    ``warm_seconds`` (`WARM_SECONDS`), unless one call takes half of that or longer.
    """
    if warm_seconds is None:
        warm_seconds = WARM_SECONDS
    calibrated = {
        name: contender.calibrate(MIN_BATCH_SECONDS) for name, contender in contenders.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    start = time.perf_counter()
    for _ in range(max_rounds):
        begin = time.perf_counter()
        for name in rng.permutation(names):
            n_calls, single = calibrated[name]
            needed = warm_seconds if single < warm_seconds / 2 else 0.0
            seconds[name].append(contenders[name].sample(n_calls, needed))
        after_round()
        if len(seconds[names[0]]) >= MIN_ROUNDS:
            names = _close(names, {name: single for name, (_, single) in calibrated.items()})
            if not names or 2 * time.perf_counter() - begin - start > max_seconds:
                break
    return seconds


def _close(names: Sequence[str], seconds: Mapping[str, float]) -> list[str]:
    """Return the names whose time is within a factor `_CLOSE` of another's."""
    return [
        name
        for name in names
        if any(
            1 / _CLOSE < seconds[name] / seconds[other] < _CLOSE for other in names if other != name
        )
    ]


def relative_error(value: NDArray[Any], reference: NDArray[Any]) -> float:
    """Compute the largest difference, relative to the largest entry of the reference."""
    scale = float(np.abs(reference).max())
    difference = float(np.abs(np.asarray(value, reference.dtype) - reference).max())
    return difference / scale if scale else difference
