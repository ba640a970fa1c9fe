"""Statistics and turns of the harness."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest

from fastloss.benchmark import measure
from fastloss.benchmark.measure import PowerLaw, Ratio, Summary
from fastloss.restoring import no_garbage_collection


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
    contenders = {name: Fake(name, turns, s) for name, s in (("a", 1e-3), ("b", 2e-3), ("c", 3e-3))}
    rng = np.random.default_rng(0)
    seconds = measure.race(contenders, max_rounds=max_rounds, max_seconds=max_seconds, rng=rng)
    return seconds, turns


def test_every_contender_has_one_turn_a_round_in_random_order():
    seconds, turns = run_race(20, 60.0)
    rounds = [tuple(turns[i : i + 3]) for i in range(0, 60, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 3
    assert seconds == {"a": [1e-3] * 20, "b": [2e-3] * 20, "c": [3e-3] * 20}


def test_the_time_budget_ends_a_race_after_at_least_one_round():
    seconds, _ = run_race(20, 0.0)
    assert {name: len(series) for name, series in seconds.items()} == {"a": 1, "b": 1, "c": 1}


def test_only_a_short_call_is_warmed_up():
    turns: list[str] = []
    short, long = Fake("short", turns, 1e-3), Fake("long", turns, 1.0)
    contenders = {"short": short, "long": long}
    measure.race(contenders, max_rounds=1, max_seconds=9.0, rng=np.random.default_rng(0))
    assert short.warm_seconds == measure.WARM_SECONDS
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
    slow = [2.0, 4.0, 6.0, 8.0]
    ratio = Ratio.of(slow, [1.0, 2.0, 3.0, 4.0])
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 2.0, 2.0)


def test_ratio_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    ratios = [
        Ratio.of(3.0 * rng.lognormal(0.0, 0.2, 15), rng.lognormal(0.0, 0.2, 15)) for _ in range(200)
    ]
    covered = np.mean([ratio.low < 3.0 < ratio.high for ratio in ratios])
    assert 0.9 < covered < 0.99


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
    with pytest.raises(ImportError, match=r"pip install 'fastloss\[bench\]'"):
        PowerLaw.fit([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])


def test_relative_error_is_of_the_largest_entry():
    assert measure.relative_error(np.array([1.0, 4.0]), np.array([2.0, 4.0])) == 0.25
    assert measure.relative_error(np.array([0.5]), np.array([0.0])) == 0.5
