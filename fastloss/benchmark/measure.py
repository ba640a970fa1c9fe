"""Timing without fooling oneself: calibrated batches, random turns, ratios with intervals.

Shared machines are noisy, and noise comes in stretches. So contenders take turns in random order,
each is warmed before it is timed, and what is reported is how many times as long one takes as
another in the same round: the median of the rounds, with its exact interval.
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

#: A batch shorter than this is at the mercy of the clock and of single interruptions.
MIN_BATCH_SECONDS = 0.010
#: What wakes up a thread pool, a cache and a clock frequency before a batch is timed. After a rest
#: of a second, when others had their turns, a kernel takes a tenth longer for the first 0.1 s.
WARM_SECONDS = 0.100

#: Fewest rounds that carry an interval of 95 %. Five would carry one of 93.75 %.
MIN_ROUNDS = 6
#: Contenders whose times are within this factor of each other get all the rounds there is time for.
_CLOSE = 2.0


class Timed(Protocol):
    """Something that can be calibrated and timed: a `worker.Session`, here or far away."""

    def calibrate(self, min_seconds: float) -> tuple[int, float]: ...

    def sample(self, n_calls: int, warm_seconds: float) -> float: ...


def time_calls(call: Callable[[], Any], n_calls: int) -> float:
    """Seconds a call, over a batch of ``n_calls``."""
    repeats = range(n_calls)
    start = time.perf_counter()
    for _ in repeats:
        call()
    return (time.perf_counter() - start) / n_calls


def calibrate(call: Callable[[], Any], min_seconds: float) -> tuple[int, float]:
    """How many calls fill ``min_seconds``, and the seconds a call."""
    n_calls = 1
    while True:
        seconds = time_calls(call, n_calls)
        if seconds * n_calls >= min_seconds:
            return n_calls, seconds
        # A little above the target, so that the next batch is likely to be the last.
        n_calls = max(n_calls + 1, min(10 * n_calls, math.ceil(1.2 * min_seconds / seconds)))


def warm(call: Callable[[], Any], seconds: float) -> None:
    """Call until ``seconds`` have passed."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        call()


def settle() -> None:
    """Wait until no thread of this process computes any more, or half a second.

    Those of OpenBLAS go on spinning for a tenth of a second after a call, on a core that whoever
    has the next turn would miss.
    """
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(0.005)
        if time.process_time() - before < 0.002:
            break


@dataclass(frozen=True)
class Summary:
    """Median and quartiles of the seconds a call, over the rounds."""

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
    """How many times as long one contender takes as another, with a 95 % interval.

    From fewer than `MIN_ROUNDS` rounds nothing follows: the interval is from 0 to infinity.
    """

    value: float
    low: float
    high: float
    n_rounds: int

    @classmethod
    def of(cls, numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
        """The median of the rounds' ratios; series of unequal length share their first rounds.

        A stretch of noise slows both contenders of a round, and leaves their ratio as it is. The
        interval is that of the sign test: the k-th smallest and the k-th largest ratio, with the
        largest k for which 95 % are reached (Conover, *Practical Nonparametric Statistics*, 1999,
        section 3.2). It assumes nothing of the noise but that rounds are independent.
        """
        n_rounds = min(len(numerator), len(denominator))
        ratios = np.sort(np.divide(numerator[:n_rounds], denominator[:n_rounds]))
        k = _sign_test_rank(n_rounds)
        low, high = (ratios[k - 1], ratios[-k]) if k else (0.0, math.inf)
        return cls(float(np.median(ratios)), float(low), float(high), n_rounds)

    @property
    def has_interval(self) -> bool:
        """Whether there were rounds enough."""
        return self.n_rounds >= MIN_ROUNDS

    @property
    def uncertainty(self) -> float:
        """How far the farther end of the interval is from 1."""
        return max(abs(self.low - 1), abs(self.high - 1))


@cache
def _sign_test_rank(n: int) -> int:
    """Return the largest k whose k-th smallest and largest of n enclose 95 %, or 0."""
    # outside: the chance that the median is not between those of rank k + 1.
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
    """Seconds a call of each contender, a number a round, taken in turns in random order.

    `MIN_ROUNDS` rounds are always run (if ``max_rounds`` allows). Those that follow are for
    contenders that are close to another one, by their calibration. They stop after ``max_rounds``,
    or when the next round would pass ``max_seconds``. Before its turn a contender is called for
    ``warm_seconds`` (`WARM_SECONDS`), unless a call takes half of that or longer.
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
    """Return those whose time is within a factor `_CLOSE` of another's."""
    return [
        name
        for name in names
        if any(
            1 / _CLOSE < seconds[name] / seconds[other] < _CLOSE for other in names if other != name
        )
    ]


def relative_error(value: NDArray[Any], reference: NDArray[Any]) -> float:
    """Largest difference, relative to the largest entry of the reference."""
    scale = float(np.abs(reference).max())
    difference = float(np.abs(np.asarray(value, reference.dtype) - reference).max())
    return difference / scale if scale else difference
