"""Comparison of two benchmark runs: intervals, drift, the gate and the command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic_runs import CONTENDERS, ENVIRONMENT, N_ROWS, QUIET, Noise, run_of
from typer.testing import CliRunner

from fastloss.benchmark import comparison
from fastloss.benchmark.comparison import MOST_DRIFT, compare_runs, control_end, ratio_of_medians
from fastloss.benchmark.measure import Ratio
from fastloss.benchmark.results import Cell, Results, Timing
from fastloss.cli import app
from fastloss.cli.compare import parse_threshold

SHARED = Noise()
HARSH = Noise(stretches=0.05, length=5.0)
NOISES = [
    pytest.param(SHARED, id="shared"),
    pytest.param(HARSH, id="harsh", marks=pytest.mark.deep),
]


def pair(seed, noise=QUIET, **after):
    """Two runs of the same code, but for what ``after`` changes."""
    rng = np.random.default_rng(seed)
    rounds = after.get("n_rounds", 15)
    return run_of(rng, noise, n_rounds=rounds), run_of(rng, noise, **after)


def slowed(factor, contenders=CONTENDERS):
    return {(n_rows, name): factor for n_rows in N_ROWS for name in contenders}


def failed(result):
    return {(change.key.size, change.key.contender) for change in result.failures}


# Intervals.


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("n_rounds", [6, 9, 15])
def test_intervals_cover_no_change_in_93_percent_of_1000_draws(n_rounds, noise):
    covered = []
    for seed in range(200):
        result = compare_runs(*pair([seed, n_rounds], noise, n_rounds=n_rounds))
        # One draw a problem: its contenders share the stretches.
        ratios = [change.ratio for change in result.changes if change.key.contender == "fused"]
        covered += [ratio.low <= 1.0 <= ratio.high for ratio in ratios]
    assert len(covered) == 1000
    assert np.mean(covered) >= 0.93


def test_without_the_correction_a_drift_makes_intervals_miss():
    covered = []
    for seed in range(100):
        result = compare_runs(*pair([seed, 15], SHARED), cancel_drift=False)
        covered += [change.ratio.low <= 1.0 <= change.ratio.high for change in result.changes]
    assert np.mean(covered) < 0.85


@pytest.mark.parametrize("n_rounds", [6, 7, 9, 15])
def test_intervals_cover_a_change_of_independent_rounds(n_rounds):
    rng = np.random.default_rng(n_rounds)
    covered = 0
    for _ in range(1000):
        before, after = np.exp(rng.normal(0.0, 0.1, (2, n_rounds)))
        ratio = ratio_of_medians(before, 1.3 * after)
        covered += ratio.low <= 1.3 <= ratio.high
    assert covered >= 980


def test_of_six_rounds_the_interval_spans_the_extremes():
    before, after = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    ratio = ratio_of_medians(before, after, 0.1, 0.1)
    assert ratio.value == 10.0
    assert (ratio.low, ratio.high) == pytest.approx((10.0 / 6.0, 60.0))


def test_series_that_persist_have_wider_intervals():
    rng = np.random.default_rng(0)
    before, after = np.exp(rng.normal(0.0, 0.1, (2, 15)))
    steady, persistent = (ratio_of_medians(before, after, r, r) for r in (0.0, 0.5))
    assert persistent.low < steady.low < steady.high < persistent.high


def test_persistence_tells_stretches_from_independent_rounds():
    def persistence(noise):
        return comparison.persistence_of(comparison.timings(run_of(1, noise)).values())

    assert persistence(QUIET) < 0.1
    assert persistence(replace(HARSH, noise=0.005)) > 0.2
    assert comparison.persistence_of([Timing("a", [1.0] * 9), Timing("b", [1.0, 2.0])]) == 0.0


@pytest.mark.parametrize("rounds", [(5, 15), (15, 5), (1, 1)])
def test_fewer_than_six_rounds_give_a_ratio_that_never_fails(rounds):
    before, after = run_of(0, n_rounds=rounds[0]), run_of(1, n_rounds=rounds[1], slower=slowed(3.0))
    result = compare_runs(before, after, fail_above=0.05)
    assert not result.failures
    assert result.drift == 1.0
    for change in result.changes:
        assert change.ratio.low is None
        assert change.ratio.high is None
        assert change.ratio.verdict == "too few rounds"
        assert change.ratio.value == pytest.approx(3.0, rel=0.1)


# The gate.


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("n_rounds", [6, 9, 15])
def test_at_most_one_of_25_comparisons_without_a_change_fails(n_rounds, noise):
    results = [
        compare_runs(*pair([seed, n_rounds], noise, n_rounds=n_rounds), fail_above=0.05)
        for seed in range(100, 125)
    ]
    assert all(len(result.changes) == 20 for result in results)
    assert sum(bool(result.failures) for result in results) <= 1


@pytest.mark.parametrize(
    ("noise", "threshold"),
    [
        # 2 % a round, outliers, stretches of +5 % over 4 rounds on average, drift of 2 % a run.
        (SHARED, 0.05),
        # The same with 1 % a round, and without stretches.
        (Noise(noise=0.01, stretches=0.0), 0.10),
    ],
)
def test_a_slowdown_of_15_percent_is_found_in_19_of_20_comparisons(noise, threshold):
    results = [
        compare_runs(*pair([seed, 7], noise, slower={(400, "fused"): 1.15}), fail_above=threshold)
        for seed in range(20)
    ]
    assert sum(("400 x 64 x 10", "fused") in failed(result) for result in results) >= 19
    assert sum(bool(failed(result) - {("400 x 64 x 10", "fused")}) for result in results) <= 1


def test_a_slowdown_below_the_threshold_passes():
    before, after = pair(0, slower={(400, "fused"): 1.15})
    assert failed(compare_runs(before, after, fail_above=0.08)) == {("400 x 64 x 10", "fused")}
    assert not compare_runs(before, after, fail_above=0.20).failures
    assert not compare_runs(before, after).failures


@pytest.mark.parametrize("noisy", [0, 1])
def test_a_control_farther_off_than_the_slowdown_lets_it_pass(noisy):
    runs = pair(0, slower={(400, "fused"): 1.15})
    seconds = [1.3 * value for value in runs[noisy].control.seconds]
    runs[noisy].control_again = Timing("numpy", seconds)
    result = compare_runs(*runs, fail_above=0.05, cancel_drift=False)
    assert result.limit == pytest.approx(1.3, rel=0.02)
    assert not result.failures


def test_without_a_control_the_threshold_alone_counts():
    before, after = pair(0, slower={(400, "fused"): 1.15})
    before.control = after.control_again = None
    result = compare_runs(before, after, fail_above=0.05)
    assert result.limit == 1.05
    assert result.controls == (None, None)
    assert len(result.failures) == 1
    assert sum("no A/A control" in warning for warning in result.warnings) == 2


@pytest.mark.parametrize(
    ("ratio", "end"),
    [
        (Ratio(1.0, 0.8, 1.1, 6), 1.25),
        (Ratio(1.0, 0.95, 1.2, 6), 1.2),
        (Ratio(0.8, 0.0, math.inf, 5), 1.25),
    ],
)
def test_the_control_counts_with_its_farthest_end(ratio, end):
    assert control_end(SimpleNamespace(control_ratio=ratio)) == pytest.approx(end)


# Drift.


@pytest.mark.parametrize("drift", [0.95, 1.06])
def test_a_drift_of_the_whole_machine_is_cancelled(drift):
    before, after = pair(3, slower=slowed(drift), control_slower=drift)
    result = compare_runs(before, after, fail_above=0.02)
    assert result.drift == pytest.approx(drift, rel=0.01)
    assert not result.failures
    assert {change.ratio.verdict for change in result.changes} == {"no change"}
    kept = compare_runs(before, after, fail_above=0.02, cancel_drift=False)
    assert kept.drift == 1.0
    assert bool(kept.failures) == (drift > 1.0)


def test_half_of_the_contenders_are_no_drift_if_the_control_did_not_change():
    slower = slowed(1.15, ("numba", "fused"))
    result = compare_runs(*pair(4, slower=slower), fail_above=0.05)
    assert result.drift == pytest.approx(1.0, abs=0.01)
    assert len(result.failures) == 10


def test_a_control_alone_is_no_drift():
    result = compare_runs(*pair(4, control_slower=1.08))
    assert result.drift == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("contenders", "control", "drift"), [(1.08, 1.03, 1.03), (1.03, 1.08, 1.03), (0.92, 0.97, 0.97)]
)
def test_the_smaller_of_the_two_changes_is_the_drift(contenders, control, drift):
    before, after = pair(5, slower=slowed(contenders), control_slower=control)
    assert compare_runs(before, after).drift == pytest.approx(drift, abs=0.01)


def test_slower_contenders_are_not_excused_by_a_faster_control():
    result = compare_runs(*pair(4, slower=slowed(1.2), control_slower=0.9), fail_above=0.05)
    assert result.drift == 1.0
    assert len(result.failures) == 20


def test_a_slowdown_of_everything_fails_beyond_the_most_that_is_cancelled():
    result = compare_runs(*pair(5, slower=slowed(1.3), control_slower=1.3), fail_above=0.05)
    assert result.drift == MOST_DRIFT
    assert result.shared == pytest.approx(1.3, rel=0.01)
    assert len(result.failures) == 20


def test_a_contender_that_did_not_get_faster_with_all_others_does_not_fail():
    slower = {**slowed(0.92), (400, "fused"): 1.0}
    result = compare_runs(*pair(6, slower=slower, control_slower=0.92), fail_above=0.01)
    slowest = result.changes[0]
    assert (slowest.key.contender, slowest.ratio.verdict) == ("fused", "slower")
    assert slowest.ratio.low > result.limit
    assert not result.failures


def test_controls_of_different_sizes_say_nothing_of_the_drift():
    before, after = pair(3, slower=slowed(1.06), control_slower=1.06)
    del after.cells[-1]
    assert compare_runs(before, after).drift == 1.0


# What is compared with what.


def test_cells_and_gradient_points_match_by_problem_and_contender():
    before, after = pair(0, gradient=True, slower=slowed(1.5, ("numba",)))
    before.gradient = run_of(0, gradient=True).gradient
    before.cells[0].timings.append(Timing("old", [1.0] * 6))
    after.cells[0].timings.append(Timing("new", [1.0] * 6))
    after.cells[1] = replace(after.cells[1], dtype="float64")
    after.cells.reverse()
    result = compare_runs(before, after)
    keys = {change.key for change in result.changes}
    assert len(keys) == 4 * 4 + 2
    assert {key.size for key in keys if key.kind == "gradient"} == {
        "100 rows, 10 classes, 100 in W",
        "100 rows, 10 classes, 640 in W",
    }
    for change in result.changes:
        expected = 1.5 if change.key.contender == "numba" else 1.0
        assert change.ratio.value == pytest.approx(expected, rel=0.05)
    assert [key.contender for key in result.only_before] == ["old", *CONTENDERS]
    assert {key.dtype for key in result.only_after} == {"float64", "float32"}
    assert "new" in {key.contender for key in result.only_after}
    ratios = [change.ratio.value for change in result.changes]
    assert ratios == sorted(ratios, reverse=True)


def test_problems_measured_twice_match_in_order():
    before, after = run_of(0), run_of(1)
    for results, factor in ((before, 3.0), (after, 6.0)):
        timing = Timing("fused", [factor] * 6)
        results.cells.append(replace(results.cells[0], timings=[timing]))
    ratios = [
        change.ratio.value
        for change in compare_runs(before, after, cancel_drift=False).changes
        if change.key.contender == "fused" and change.key.size.startswith("100 ")
    ]
    assert ratios == pytest.approx([2.0, 1.0], rel=0.05)


def test_extrapolated_timings_are_compared_for_the_whole_problem():
    before, after = run_of(0), run_of(1)
    cell = after.cells[-1]
    naive = cell.timing("naive")
    halves = [value / 2 for value in naive.seconds]
    cell.timings[0] = replace(naive, fraction=naive.fraction / 2, seconds=halves)
    change = next(c for c in compare_runs(before, after).changes if c.extrapolated)
    assert (change.key.contender, change.key.size) == ("naive", cell.size)
    assert change.ratio.value == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(
    ("name", "value"),
    [("cpu", "Other"), ("cpus", 8), ("affinity", 2), ("threads", 1), ("system", "Darwin 1 arm64")],
)
def test_another_machine_is_an_error(name, value):
    before, after = run_of(0), run_of(1, environment={name: value})
    with pytest.raises(ValueError, match="from different machines"):
        compare_runs(before, after)
    del after.environment[name]
    with pytest.raises(ValueError, match="not recorded"):
        compare_runs(before, after)


def test_other_software_and_another_kernel_are_warnings():
    changes = {"system": "Linux 6.2.0 x86_64", "packages": {"numpy": "2.5.0", "numba": "0.68.1"}}
    warnings = compare_runs(run_of(0), run_of(1, environment=changes)).warnings
    assert any("packages: numpy 2.4.6 -> 2.5.0." in warning for warning in warnings)
    assert any("Linux 6.1.0 x86_64 -> Linux 6.2.0 x86_64" in warning for warning in warnings)
    assert not compare_runs(run_of(0), run_of(1)).warnings


def test_nothing_in_common_is_an_error():
    before, after = run_of(0), run_of(1)
    after.cells = [replace(cell, loss="hinge") for cell in after.cells]
    with pytest.raises(ValueError, match="no contender at the same problem in common"):
        compare_runs(before, after)
    after.cells = []
    with pytest.raises(ValueError, match="in common"):
        compare_runs(before, after)


# The command.


def run(*arguments: object):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


@pytest.fixture
def files(tmp_path):
    """A function that writes two runs and returns their paths."""

    def write(before: Results, after: Results) -> tuple[Path, Path]:
        paths = tmp_path / "before.json", tmp_path / "after.json"
        for path, results in zip(paths, (before, after), strict=True):
            results.save(path)
        return paths

    return write


def test_the_command_lists_the_worst_first_and_exits_with_1(files):
    paths = files(*pair(0, slower={(400, "fused"): 1.5, (100, "numpy"): 0.5}))
    result = run(*paths, "--fail-above", "10%")
    assert result.exit_code == 1
    assert result.stderr == ""
    rows = [line for line in result.stdout.splitlines() if line.startswith("  softmax")]
    assert "fused" in rows[0]
    assert rows[0].rstrip().endswith("slower, FAILS")
    assert "numpy" in rows[-1]
    assert rows[-1].rstrip().endswith("faster")
    assert "no change" in rows[5]
    assert "FAILED" in result.stdout
    assert "fused on softmax, 400 x 64 x 10 float32" in result.stdout
    assert "A/A control" in result.stdout
    assert any("~" in row for row in rows)
    assert sum("~" in row for row in rows) == 1


@pytest.mark.parametrize("options", [(), ("--fail-above", "0.9"), ("--fail-above", "60 %")])
def test_the_command_exits_with_0_if_nothing_fails(files, options):
    result = run(*files(*pair(0, slower={(400, "fused"): 1.5})), *options)
    assert result.exit_code == 0
    assert "slower" in result.stdout
    assert "FAIL" not in result.stdout
    assert ("Passed" in result.stdout) == bool(options)


def test_a_slowdown_within_the_controls_noise_is_not_decidable(files, tmp_path):
    before, after = pair(0, slower={(400, "fused"): 1.5})
    after.control_again = Timing("numpy", [1.9 * value for value in after.control.seconds])
    paths = files(before, after)
    result = run(*paths, "--fail-above", "10%")
    assert result.exit_code == 0
    assert "Not decidable: " in result.stdout
    assert "fused on softmax, 400 x 64 x 10 float32: slower by more than 10 %" in result.stdout
    assert "Passed" not in result.stdout
    record = json.loads(run(*paths, "--fail-above", "10%", "--json", "-").stdout)
    assert record["undecided"] == ["fused on softmax, 400 x 64 x 10 float32"]
    # Runs are found by the folders that bench writes too.
    for path in paths:
        (tmp_path / path.stem).mkdir()
        path.rename(tmp_path / path.stem / "results.json")
    folders = [tmp_path / path.stem for path in paths]
    assert run(*folders, "--fail-above", "90%").stdout.count("Passed: ") == 1
    assert "surely slower by more than 90 %" in run(*folders, "--fail-above", "90%").stdout


def test_json_says_all_that_the_table_says(files, tmp_path):
    before, after = pair(0, slower={(400, "fused"): 1.5})
    after.cells[0].timings.append(Timing("new", [1.0]))
    after.cells[1].timings[0] = replace(after.cells[1].timings[0], seconds=[0.1])
    paths = files(before, after)
    out = tmp_path / "deep" / "comparison.json"
    result = run(*paths, "--fail-above", "0.1", "--json", out)
    printed = run(*paths, "--fail-above", "0.1", "--json", "-")
    assert (result.exit_code, printed.exit_code) == (1, 1)
    assert f"Saved {out}" in result.stdout
    record = json.loads(printed.stdout)
    assert record == json.loads(out.read_text())
    assert record["failed"] is True
    assert record["limit"] >= 1.1
    assert record["fail_above"] == 0.1
    assert record["only_after"] == ["new on softmax, 100 x 64 x 10 float32"]
    worst = record["changes"][0]
    assert (worst["contender"], worst["fails"], worst["rounds"]) == ("fused", True, [15, 15])
    assert worst["ratio"]["low"] < worst["ratio"]["value"] < worst["ratio"]["high"]
    few = next(change for change in record["changes"] if change["rounds"] == [15, 1])
    assert (few["ratio"]["low"], few["verdict"]) == (None, "too few rounds")


def test_an_interrupted_run_is_compared_with_a_warning(files):
    before, after = pair(0)
    after.complete = False
    del after.cells[2:]
    result = run(*files(before, after), "--fail-above", "10%")
    assert result.exit_code == 0
    assert "The run after was interrupted" in result.stdout
    assert "Only in the run before: naive on softmax, 400 x 64 x 10 float32" in result.stdout
    assert "and 4 more" in result.stdout


@pytest.mark.parametrize(
    ("text", "value"), [("10%", 0.1), ("0.1", 0.1), (" 7.5 % ", 0.075), ("0", 0.0), ("150%", 1.5)]
)
def test_thresholds_are_percentages_or_fractions(text, value):
    assert parse_threshold(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["-5%", "-0.1", "nan", "NaN%", "inf", "ten", "", "%", "10", "1%%"])
def test_other_thresholds_are_one_line_and_exit_code_2(files, text):
    result = run(*files(*pair(0)), f"--fail-above={text}")
    assert result.exit_code == 2
    assert result.stderr.startswith("fastloss: --fail-above")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def damaged(change):
    record = json.loads(run_of(1).to_json())
    change(record)
    return json.dumps(record)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"schema": 1}',
        '{"a": 1}',
        '{"schema": 99}',
        run_of(1).to_json()[:-200],
        "[" * 100_000,
        damaged(lambda record: record.pop("cells")),
        damaged(lambda record: record.update(environment=[])),
        damaged(lambda record: record.update(unknown=1)),
        damaged(lambda record: record["cells"][0]["timings"][0].update(seconds=[])),
        damaged(lambda record: record["cells"][0]["timings"][0].update(seconds=[1.0, -1.0])),
        damaged(lambda record: record["cells"][0]["timings"][0].update(seconds=[0.0])),
        damaged(lambda record: record["cells"][0]["timings"][0].update(seconds=[float("inf")])),
        damaged(lambda record: record["cells"][0]["timings"][0].update(seconds=[float("nan")])),
        damaged(lambda record: record["cells"][0]["timings"][0].update(seconds=["1"])),
        damaged(lambda record: record["cells"][0]["timings"][0].update(fraction=0.0)),
        damaged(lambda record: record["cells"][0].update(n_rows=None)),
        damaged(lambda record: record["control"].update(seconds=None)),
    ],
    ids=range(20),
)
def test_what_is_no_result_file_is_one_line_and_exit_code_2(files, text):
    before, after = files(*pair(0))
    after.write_text(text)
    for paths in ((before, after), (after, before)):
        result = run(*paths)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"fastloss: {after} is not a result file of fastloss bench")
        assert result.stderr.count("\n") == 1


def test_bytes_a_folder_and_a_missing_file_are_one_line_and_exit_code_2(files, tmp_path):
    before, after = files(*pair(0))
    after.write_bytes(b"\xff\xfe\x00")
    for path in (after, tmp_path, tmp_path / "none.json"):
        result = run(before, path)
        assert result.exit_code == 2
        assert str(path) in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("change", [{"cpu": "Other"}, {"threads": 2}])
def test_results_of_another_machine_have_exit_code_2(files, change):
    result = run(*files(run_of(0), run_of(1, environment=change)))
    assert result.exit_code == 2
    assert result.stderr.startswith("fastloss: the results are from different machines (")
    assert str(ENVIRONMENT[next(iter(change))]) in result.stderr


def test_a_comparison_overwrites_neither_of_its_inputs(files):
    before, after = files(*pair(0))
    content = before.read_bytes(), after.read_bytes()
    for path in (before, after):
        result = run(before, after, "--json", path)
        assert result.exit_code == 2
        assert "are the same file" in result.stderr
    assert content == (before.read_bytes(), after.read_bytes())


def test_names_of_contenders_are_no_markup(files):
    runs = pair(0)
    for results in runs:
        results.cells = [Cell("softmax", 10, 2, 2, "float32", [Timing("[bold]me", [1.0] * 6)])]
    assert "[bold]me" in run(*files(*runs)).stdout
