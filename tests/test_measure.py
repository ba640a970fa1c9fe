"""Statistics and turns of the harness."""

from __future__ import annotations

import math
import sys
import threading
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from fastloss.benchmark import measure
from fastloss.benchmark.measure import MIN_ROUNDS, PowerLaw, Ratio, Summary
from fastloss.restoring import no_garbage_collection

Series = NDArray[np.float64]


class Fake:
    """A contender that only records its turns."""

    def __init__(self, name: str, turns: list[str], seconds: float) -> None:
        self.name, self.turns, self.seconds = name, turns, seconds

    def calibrate(self, min_seconds: float) -> tuple[int, float]:
        return 3, self.seconds

    def sample(self, n_calls: int, warm_seconds: float) -> float:
        assert n_calls == 3
        self.warm_seconds = warm_seconds
        self.turns.append(self.name)
        return self.seconds


def run_race(max_rounds: int, max_seconds: float) -> tuple[dict[str, list[float]], list[str]]:
    turns: list[str] = []
    times = (("a", 1.0e-3), ("b", 1.2e-3), ("c", 1.4e-3))
    contenders = {name: Fake(name, turns, s) for name, s in times}
    rng = np.random.default_rng(0)
    seconds = measure.race(contenders, max_rounds=max_rounds, max_seconds=max_seconds, rng=rng)
    return seconds, turns


def test_every_contender_has_one_turn_a_round_in_random_order():
    seconds, turns = run_race(20, 60.0)
    rounds = [tuple(turns[i : i + 3]) for i in range(0, 60, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 3
    assert seconds == {"a": [1.0e-3] * 20, "b": [1.2e-3] * 20, "c": [1.4e-3] * 20}


def test_the_time_budget_ends_a_race_when_an_interval_can_be_had():
    seconds, _ = run_race(20, 0.0)
    assert {len(series) for series in seconds.values()} == {MIN_ROUNDS}
    assert {len(series) for series in run_race(3, 0.0)[0].values()} == {3}


def test_only_contenders_close_to_another_get_more_rounds():
    times = {"fast": 1e-3, "close": 1.5e-3, "slow": 4e-3, "slower": 9e-3}
    contenders = {name: Fake(name, [], seconds) for name, seconds in times.items()}
    rng = np.random.default_rng(0)
    seconds = measure.race(contenders, max_rounds=20, max_seconds=60.0, rng=rng)
    n_rounds = {name: len(series) for name, series in seconds.items()}
    assert n_rounds == {"fast": 20, "close": 20, "slow": MIN_ROUNDS, "slower": MIN_ROUNDS}


def test_only_a_short_call_is_warmed_up(monkeypatch):
    monkeypatch.setattr(measure, "WARM_SECONDS", 0.15)
    turns: list[str] = []
    short, long = Fake("short", turns, 1e-3), Fake("long", turns, 1.0)
    contenders = {"short": short, "long": long}
    measure.race(contenders, max_rounds=1, max_seconds=9.0, rng=np.random.default_rng(0))
    assert short.warm_seconds == 0.15
    assert long.warm_seconds == 0.0


def test_a_turn_ends_when_no_thread_computes():
    spins = []

    def spin() -> None:
        end = time.perf_counter() + 0.1
        while time.perf_counter() < end:
            pass
        spins.append(True)

    threading.Thread(target=spin).start()
    measure.settle()
    assert spins, "the thread was still at it"


def test_calibrated_batches_last_as_long_as_asked():
    n_calls, seconds = measure.calibrate(lambda: sum(range(200)), 0.01)
    assert n_calls > 1
    assert n_calls * seconds >= 0.01


def test_garbage_collection_is_off_in_the_block_and_restored():
    import gc

    with no_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_ratio_of_exact_multiples_is_exact():
    slow = [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    assert Ratio.of(slow, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == Ratio(2.0, 2.0, 2.0, 6)


def test_ratio_of_too_few_rounds_has_no_interval():
    ratio = Ratio.of([2.0] * 5, [1.0] * 9)
    assert ratio == Ratio(2.0, 0.0, math.inf, 5)
    assert not ratio.has_interval
    assert ratio.uncertainty == math.inf


def test_ratio_of_unequal_series_takes_their_first_rounds():
    assert Ratio.of([3.0] * 6 + [9.0] * 6, [1.0] * 6) == Ratio(3.0, 3.0, 3.0, 6)


def test_the_interval_is_of_the_sign_test():
    # The ranks of a table of the 95 % interval of a median (Conover, 1999, table A3).
    ranks = {6: 1, 8: 1, 9: 2, 12: 3, 15: 4, 20: 6, 25: 8, 30: 10}
    for n, k in ranks.items():
        ratio = Ratio.of(np.random.default_rng(n).permutation(n) + 1.0, np.ones(n))
        assert (ratio.low, ratio.high) == (k, n + 1 - k), n


def independent(rng: np.random.Generator, n: int) -> tuple[Series, Series]:
    """Skewed noise, that of each contender of its own."""
    return 3.0 * rng.lognormal(0.0, 0.2, n), rng.lognormal(0.0, 0.05, n)


def interrupted(rng: np.random.Generator, n: int) -> tuple[Series, Series]:
    """A little noise, and now and then a batch that takes twice as long."""
    slow, fast = (rng.normal(1.0, 0.01, n) * (1 + (rng.random(n) < 0.1)) for _ in range(2))
    return 3.0 * slow, fast


def in_stretches(rng: np.random.Generator, n: int) -> tuple[Series, Series]:
    """Stretches of some rounds in which everything takes longer, and a little noise."""
    switches = rng.random(n) < 0.3
    machine = 1.0 + 0.3 * (np.cumsum(switches) % 2)
    return 3.0 * machine * rng.normal(1.0, 0.02, n), machine * rng.normal(1.0, 0.02, n)


@pytest.mark.parametrize("n_rounds", [6, 9, 15])
@pytest.mark.parametrize("noise", [independent, interrupted, in_stretches])
def test_ratio_interval_covers_the_truth_as_often_as_it_says(noise, n_rounds):
    rng = np.random.default_rng(1)
    ratios = [Ratio.of(*noise(rng, n_rounds)) for _ in range(2000)]
    covered = np.mean([ratio.low <= 3.0 <= ratio.high for ratio in ratios])
    assert 0.94 < covered < 0.99


def test_interval_is_narrow_where_the_machine_is_slow_for_a_while():
    # Intervals of contenders that are resampled apart would be as wide as the stretches: 30 %.
    rng = np.random.default_rng(1)
    widths = [
        ratio.high - ratio.low for ratio in (Ratio.of(*in_stretches(rng, 15)) for _ in range(50))
    ]
    assert np.median(widths) < 0.05 * 3.0


def test_summary_is_median_and_quartiles():
    assert Summary.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Summary(3.0, 2.0, 4.0, 5)


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_power_law_is_recovered(slope):
    sizes = np.array([100.0, 1000.0, 1e4, 1e5])
    law = PowerLaw.fit(sizes, 3e-6 * sizes**slope)
    np.testing.assert_allclose([law.slope, law.scale], [slope, 3e-6], rtol=1e-10)
    # SciPy's standard error is the root of a difference: eight digits are right.
    np.testing.assert_allclose([law.low, law.high], slope, rtol=1e-6)


def test_power_law_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    sizes = np.array([100.0, 300.0, 1000.0, 3000.0, 1e4])
    laws = [PowerLaw.fit(sizes, sizes**1.5 * rng.lognormal(0, 0.1, 5)) for _ in range(400)]
    covered = np.mean([law.low < 1.5 < law.high for law in laws])
    assert 0.91 < covered < 0.98


def test_power_law_needs_three_points():
    with pytest.raises(ValueError, match="3 points, got 2"):
        PowerLaw.fit([1.0, 2.0], [1.0, 2.0])


def test_power_law_without_scipy_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[bench\]'"):
        PowerLaw.fit([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])


def test_relative_error_is_of_the_largest_entry():
    assert measure.relative_error(np.array([1.0, 4.0]), np.array([2.0, 4.0])) == 0.25
    assert measure.relative_error(np.array([0.5]), np.array([0.0])) == 0.5
