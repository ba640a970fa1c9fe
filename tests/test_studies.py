"""The studies on small problems: verification, cut-offs, records, tables and plots."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest

import fastloss
from fastloss.backends import get_backend
from fastloss.benchmark import Results, Settings, findings, gradient_study, report
from fastloss.benchmark.gradient_study import high_precision_gradient
from fastloss.benchmark.measure import Ratio
from fastloss.benchmark.plan import Plan, parse_size
from fastloss.benchmark.plots import save_all
from fastloss.benchmark.results import Cell, GradientPoint, GradientStudy, Timing
from fastloss.benchmark.run import Run
from fastloss.benchmark.tasks import BackendTask, Inputs
from fastloss.losses import get_loss

FAST = Settings(max_rounds=3, cell_seconds=0.3, first_calls=False)


@pytest.fixture(scope="module")
def measured() -> Results:
    """A loss at a size that Python loops cannot finish in the budget, and a gradient study."""
    plan = Plan.make(losses=["softmax"], sizes=[(2000, 40, 5)], settings=FAST)
    plan.feature_counts = (4, 20, 40, 60)
    steps: list[int] = []
    results = plan.run(lambda message, done: steps.append(done))
    assert steps == sorted(steps)
    assert steps[-1] < plan.n_steps
    return results


def test_every_loss_has_every_backend_verified_and_timed(measured):
    assert measured.complete
    assert [cell.loss for cell in measured.cells] == ["softmax"]
    for cell in measured.cells:
        assert [timing.contender for timing in cell.timings] == ["naive", "numpy", "numba", "fused"]
        assert cell.size == "2000 x 40 x 5"
        assert cell.limit_seconds > 0
        for timing in cell.timings:
            assert timing.gradient_error < 2e-3
            assert min(timing.seconds) > 0


def test_a_naive_loop_is_cut_off_and_said_to_be(measured):
    naive, fast = (measured.cells[0].timing(name) for name in ("naive", "numpy"))
    assert 0 < naive.fraction < 1
    assert naive.extrapolated
    assert not fast.extrapolated
    np.testing.assert_allclose(naive.full_seconds, np.array(naive.seconds) / naive.fraction)
    text = report.backends_table(measured).markdown()
    assert "| naive | ~" in text
    assert "cut off by the time budget" in text
    assert f"naive on softmax, 2000 x 40 x 5: {round(naive.fraction * 2000)} of 2000 rows" in text


@pytest.mark.deep
def test_first_calls_are_reported_apart(measured):
    settings = replace(FAST, first_calls=True, measure_ceilings=False, max_rounds=1)
    plan = Plan.make(
        losses=["softmax"],
        backends=["fused"],
        sizes=[(50, 8, 3)],
        gradient_study=False,
        settings=settings,
    )
    results = plan.run()
    fused = results.cells[0].timing("fused")
    assert fused.first_call_cold > 2 * fused.first_call
    assert "softmax" in report.first_calls_table(results).markdown()
    assert measured.cells[0].timing("fused").first_call is None


def test_tables_have_no_first_calls_where_none_were_timed(measured):
    assert not any(table.title.startswith("First call") for table in report.all_tables(measured))


def test_speedups_are_ratios_of_full_times(measured):
    cell = measured.cells[0]
    naive, numpy = cell.timing("naive"), cell.timing("numpy")
    speedup = cell.speedup(numpy, "naive")
    ratios = np.divide(naive.full_seconds, numpy.full_seconds)
    np.testing.assert_allclose(speedup.value, np.median(ratios))
    assert not speedup.has_interval
    assert "(3 rounds)" in report.backends_table(measured).markdown()
    assert cell.speedup(naive, "naive") is None


def test_gradient_study_covers_methods_and_counts(measured):
    study = measured.gradient
    assert len(study.methods) == 9
    for method in study.methods:
        assert [point.n_parameters for point in study.of(method)] == [20, 100, 200, 300]
    per_element = study.of("per element, NumPy loss")[-1]
    assert per_element.loss_evaluations == 600
    analytic = study.of("analytic, NumPy")[-1]
    assert analytic.loss_evaluations == 1
    if analytic.error is not None:
        assert analytic.error < 1e-13
        assert 1e-13 < per_element.error < 1e-6
        assert 1e-13 < study.of("incremental")[-1].error < 1e-6


def test_results_come_back_from_json_as_they_were(measured, tmp_path):
    path = tmp_path / "deep" / "results.json"
    measured.save(path)
    again = Results.load(path)
    assert again == measured
    assert not list(path.parent.glob("*.part"))
    path.write_text('{"schema": 999}')
    with pytest.raises(ValueError, match="schema"):
        Results.load(path)


def test_environment_says_what_the_results_are_from(measured):
    environment = measured.environment
    assert environment["packages"]["numpy"] == np.__version__
    assert environment["threads"] == FAST.n_threads
    assert environment["threading_layer"] in ("omp", "tbb", "workqueue")
    assert {"cpu", "blas", "affinity", "git", "seed"} <= set(environment)
    rows = dict(report.environment_table(measured).rows)
    assert rows["multiply-add peak, float32"].endswith("GFLOP/s")


def test_control_is_the_same_contender_twice(measured):
    series = [timing.seconds for timing in (measured.control, measured.control_again)]
    assert measured.control_ratio == Ratio.of(*series)
    assert "not measured" in findings.control_line(replace(measured, control=None))


def test_the_control_says_what_it_is_worth(measured):
    def said(one: list[float], other: list[float]) -> str:
        timings = Timing("numpy", one), Timing("numpy", other)
        return findings.control_line(
            replace(measured, control=timings[0], control_again=timings[1])
        )

    assert said([1.0] * 3, [1.1] * 3).endswith("0.909, from 3 rounds: too few for an interval.")
    rounds = [0.98, 0.99, 1.0, 1.0, 1.02, 1.03]
    assert said(rounds, [1.0] * 6).endswith(
        "1.000 [0.980, 1.030]; differences below about 3 % mean nothing here."
    )
    assert "[0.980, 3.000]: too noisy to compare" in said([*rounds[:5], 3.0], [1.0] * 6)


def test_machine_without_a_commit_has_none(measured):
    without = replace(measured, environment={**measured.environment, "git": ""})
    assert "commit" not in findings.plain_machine(without)


def test_plots_are_written_as_png_and_svg_light_and_dark(measured, tmp_path):
    paths = save_all(measured, tmp_path)
    assert {path.name for path in paths} == {
        f"{stem}{suffix}"
        for stem in ("backends", "gradient", "gradient-error")
        for suffix in (".png", ".svg", "-dark.png", "-dark.svg")
    }
    for path in paths:
        data = path.read_bytes()
        assert len(data) > 5000
        assert data.startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml")
    svg = (tmp_path / "gradient.svg").read_text()
    for label in ("analytic, NumPy", "per element, naive loss", "parameters"):
        assert label in svg


def test_an_interrupted_run_keeps_what_it_measured(monkeypatch):
    from fastloss.benchmark import plan as plan_module

    measure_cell, calls = plan_module.measure_cell, []

    def interrupt_second(run, loss, *arguments):
        calls.append(loss)
        if len(calls) == 2:
            raise KeyboardInterrupt
        measure_cell(run, loss, *arguments)

    monkeypatch.setattr(plan_module, "measure_cell", interrupt_second)
    plan = Plan.make(
        losses=["softmax", "hinge"], backends=["numpy"], sizes=[(50, 8, 3)], settings=FAST
    )
    with pytest.raises(KeyboardInterrupt):
        plan.interrupted()
    with pytest.raises(KeyboardInterrupt):
        plan.run()
    results = plan.interrupted()
    assert not results.complete
    assert [cell.loss for cell in results.cells] == ["softmax"]


@pytest.mark.deep
def test_a_loss_only_this_process_knows_is_measured_in_another():
    pytest.importorskip("cloudpickle")

    class Local(type(get_loss("hinge"))):  # no worker can import a local class
        pass

    fastloss.register_loss(Local(margin=0.5), "local_hinge")
    try:
        plan = Plan.make(
            losses=["local_hinge"],
            backends=["numpy"],
            sizes=[(50, 8, 3)],
            gradient_study=False,
            settings=replace(FAST, measure_ceilings=False),
        )
        (cell,) = plan.run().cells
    finally:
        fastloss.unregister_loss("local_hinge")
    assert cell.timings[0].where == "own process"


@pytest.mark.parametrize("loss", ["softmax", "hinge"])
def test_high_precision_gradient_agrees_with_mpmath(loss):
    rng = np.random.default_rng(0)
    X, W, y = rng.standard_normal((6, 4)), rng.standard_normal((4, 3)), rng.integers(0, 3, 6)
    with mpmath.workdps(40):
        scores = mpmath.matrix(X.tolist()) * mpmath.matrix(W.tolist())
        expected = np.zeros((4, 3))
        for i, label in enumerate(y):
            row = [scores[i, j] for j in range(3)]
            if loss == "softmax":
                total = sum(mpmath.exp(s) for s in row)
                slopes = [mpmath.exp(s) / total - (j == label) for j, s in enumerate(row)]
            else:
                slopes = [int(j != label and s - row[label] + 1 > 0) for j, s in enumerate(row)]
                slopes[label] = -sum(slopes)
            expected += np.outer(X[i], [float(s) for s in slopes]) / 6
    gradient = high_precision_gradient(get_loss(loss), W, X, y)
    np.testing.assert_allclose(gradient.astype(float), expected, rtol=1e-13, atol=1e-16)


def points(method: str, seconds: dict[int, float], **timing: Any) -> list[GradientPoint]:
    return [
        GradientPoint(method, count, Timing(method, [value] * 3, **timing), 1, None)
        for count, value in seconds.items()
    ]


def test_a_pass_before_the_first_coordinate_is_a_small_part_of_what_is_scaled_up(tmp_path):
    """The incremental method: a pass of 0.1 s, then 10 us for each coordinate."""

    class Clock:
        def prepare(self, task: Any) -> None:
            assert task.n_rows == 0
            self.n = len(task.coordinates)

        def sample(self, n_calls: int, seconds: float) -> float:
            return 0.1 + 1e-5 * self.n

    W = np.zeros((30_000, 10))
    inputs = Inputs.save(tmp_path, np.zeros((16, 30_000)), np.zeros(16, int), W)
    task = BackendTask(inputs, get_loss("softmax"), "numpy", get_backend("numpy"), n_rows=16)
    method = gradient_study._Method("incremental", "numpy", "incremental")
    run = Run(Results("", "", {}), replace(FAST, cell_seconds=4.0), tmp_path)
    n, n_rows = gradient_study._affordable_part(run, Clock(), method, task, np.arange(W.size))
    assert n_rows == 0
    assert 1e-5 * n >= 0.35


def test_crossovers_and_slopes_of_known_lines():
    counts = [1000, 10_000, 100_000]
    study = GradientStudy(
        "softmax",
        100,
        10,
        points("square", {n: 1e-9 * n**2 for n in counts})
        + points("linear", {n: 3e-5 * n for n in counts}),
    )
    ((below, above, count),) = study.crossovers()
    assert (below, above) == ("square", "linear")
    np.testing.assert_allclose(count, 30_000, rtol=1e-9)
    np.testing.assert_allclose(study.slope("square").slope, 2.0)
    np.testing.assert_allclose(study.slope("linear").slope, 1.0)
    assert report.crossover_lines(study) == ["linear overtakes square at about 30,000 parameters"]
    assert "2.00 [2.00, 2.00]" in report.gradient_table(study).markdown()


def test_methods_that_change_places_twice_are_as_fast_as_each_other():
    ones = {100: 1.0, 1000: 1.0, 10_000: 1.0}
    study = GradientStudy(
        "softmax",
        9,
        3,
        points("flat", ones) + points("noisy", {**ones, 100: 1.1, 1000: 0.9, 10_000: 1.1}),
    )
    assert study.crossovers() == []


def test_extrapolated_timings_are_marked():
    study = GradientStudy("softmax", 9, 3, points("slow", {1000: 1.0}, fraction=0.25))
    assert "| slow | ~4 s | - |" in report.gradient_table(study).markdown()
    cell = Cell("softmax", 1, 2, 3, "float32", [Timing("naive", [1.0, 1.0], fraction=0.1)])
    assert "~10 s" in report.backends_table(Results("", "", {}, cells=[cell])).markdown()


def test_ratios_read_well():
    assert report.ratio(Ratio(2.0, 1.9, 2.1, 9)) == "2.00 [1.90, 2.10]"
    assert report.ratio(Ratio(1234.0, 1.0, 2.0, 9), extrapolated=True) == "~1,234 [1.00, 2.00]"
    assert report.ratio(Ratio(1 / 500, 1 / 800, 0.1, 9)) == "1/500 [1/800, 0.10]"
    assert report.ratio(Ratio.of([500.0] * 4, [1.0] * 4)) == "500 (4 rounds)"
    assert report.ratio(None) == "1"
    assert report.ratio(Ratio.of([2.0] * 4, [1.0] * 4)) == "2.00 (4 rounds)"


@pytest.mark.parametrize(("text", "size"), [("500", (500, None, None)), (" 20x30X4 ", (20, 30, 4))])
def test_sizes_are_parsed(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "10x20", "axbxc", "0x2x3", "-5", "1x2x3x4"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="N or NxDxC"):
        parse_size(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"losses": ["nope"]}, "unknown loss 'nope'"),
        ({"backends": ["nope"]}, "unknown backend 'nope'"),
        ({"dtype": "int32"}, "dtype must be"),
        ({"data": Path("/no/such/folder")}, "no/such/folder"),
        ({"candidates": ["json:dumps"], "losses": ["softmax", "hinge"]}, "one --loss"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_before_anything_is_measured(arguments, message):
    with pytest.raises((ValueError, OSError), match=message):
        Plan.make(**arguments)


def test_a_size_the_data_cannot_supply_is_refused(tmp_path):
    np.savez(tmp_path / "d.npz", X=np.ones((20, 3)), y=np.arange(20) % 4)
    for size in [(21, None, None), (10, 7, 4), (10, 4, 9)]:
        with pytest.raises(ValueError, match="has 20 x 4 x 4"):
            Plan.make(data=tmp_path / "d.npz", sizes=[size])
    plan = Plan.make(data=tmp_path / "d.npz", sizes=[(10, 4, 4)], dtype="float64")
    X, y, n_classes = plan.problem(plan.sizes[0])
    assert (X.shape, X.dtype, len(y), n_classes) == ((10, 4), np.float64, 10, 4)
    np.testing.assert_array_equal(X[:, -1], 1.0)


def test_numbers_too_large_for_the_type_of_X_are_refused(tmp_path):
    np.savez(tmp_path / "d.npz", X=[[1.0, 2.0], [3.0, 1e5]], y=[0, 1])
    plan = Plan.make(data=tmp_path / "d.npz", dtype="float16")
    with pytest.raises(ValueError, match=r"X\[1, 1\] is inf, expected a finite number"):
        plan.problem(plan.sizes[0])
    assert plan.problem((1, None, None))[0].tolist() == [[1, 2, 1]]


def test_stored_results_can_be_read():
    folder = Path(__file__).parents[1] / "bench" / "results"
    for path in folder.glob("*.json"):
        assert json.loads(path.read_text())["schema"] == 1
        assert Results.load(path).complete
