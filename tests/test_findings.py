"""What is said of results: where fastloss loses, what surrounded them, what is above the limit."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest

from fastloss import doctor, machine
from fastloss.benchmark import Results, findings, report, results
from fastloss.benchmark.results import Cell, GradientPoint, GradientStudy, Timing

ROUNDS = (0.98, 0.99, 1.0, 1.0, 1.01, 1.02)


def timing(name: str, seconds: float, n_rounds: int = 6) -> Timing:
    return Timing(name, [seconds * factor for factor in ROUNDS[:n_rounds]])


def cell(*timings: Timing, **fields: object) -> Cell:
    return Cell("softmax", 100, 20, 3, "float32", list(timings), **fields)


def results_of(*cells: Cell, environment: dict | None = None) -> Results:
    return Results("", "", {"affinity": 2, **(environment or {})}, cells=list(cells))


# --- where fastloss loses -------------------------------------------------------------------------


def test_every_contender_is_searched_for_one_that_beats_us():
    found = results_of(
        cell(timing("numpy", 2.0), timing("fused", 1.0), timing("auto", 1.0)),
        cell(timing("numpy", 1.0), timing("fused", 2.0), replace(timing("JAX", 0.5), kind="peer")),
    )
    table = findings.losses_table([found])
    assert [(row[1], row[3], row[4]) for row in table.rows] == [
        ("JAX", "fused 2 s", "4.00 [4.00, 4.00]"),
        ("numpy", "fused 2 s", "2.00 [2.00, 2.00]"),
    ]
    assert table.notes[0].startswith("Of 4 comparisons of fused and auto with another contender, 2")


def test_what_is_slower_for_certain_alone_is_a_loss():
    noisy = replace(timing("numpy", 1.0), seconds=[0.9, 1.1, 0.95, 1.05, 1.0, 1.0])
    close = cell(noisy, timing("fused", 1.01))
    few = cell(timing("numpy", 1.0, n_rounds=3), timing("fused", 2.0))
    table = findings.losses_table([results_of(close, few)])
    assert table.rows == []
    assert table.markdown() == (
        "Of 2 comparisons of fused and auto with another contender, 0 are lost: the interval is "
        "above 1.\n\n1 had too few rounds to decide."
    )
    assert table.notes[0] in str(table.rich())


def test_notes_explain_flat_lines_and_lines_above_numpy():
    def line(method: str, seconds: dict[int, float], evaluations: int) -> list[GradientPoint]:
        return [
            GradientPoint(method, n, timing(method, value), evaluations * n or 1, None)
            for n, value in seconds.items()
        ]

    points = [
        *line("per element, NumPy loss", {100: 0.02, 30_000: 60.0}, 2),
        *line("per element, numba loss", {100: 0.01, 30_000: 90.0}, 2),
        *line("analytic, NumPy", {100: 1e-4, 30_000: 2e-3}, 0),
        *line("analytic, numba", {100: 1e-5, 30_000: 3e-3}, 0),
        *line("analytic, naive", {100: 1e-2, 30_000: 3.0}, 0),
        *line("incremental", {100: 1e-2, 30_000: 3.0}, 2),
    ]
    bends, above = findings.gradient_notes(
        GradientStudy("softmax", 300, 10, points, fit_from=30_000)
    )
    assert "NumPy 100 µs and 1 ms, numba 50 µs and 1.5 ms" in bends
    assert "X, 6.9 MiB with 30,000, outgrows" in bends
    assert "'per element, numba loss' at 30,000 parameters; 'analytic, numba' at 30,000" in above
    # Without small counts there is nothing flat, and without slower loops nothing above.
    few = [point for point in points if point.n_parameters == 100]
    assert list(findings.gradient_notes(GradientStudy("softmax", 300, 10, few, fit_from=10))) == []


def test_the_gradient_study_is_searched_like_against_like():
    methods = {
        "per element, NumPy loss": 5.0,
        "per element, fused loss": 6.0,
        "incremental": 0.1,
        "analytic, NumPy": 1.0,
        "analytic, fused": 1.5,
    }
    points = [
        GradientPoint(method, 120_000, timing(method, seconds), 1, None)
        for method, seconds in methods.items()
    ]
    found = replace(results_of(), gradient=GradientStudy("softmax", 300, 10, points))
    rows = findings.losses_table([found]).rows
    assert [row[:2] for row in rows] == [
        ("gradient of softmax, analytic, 120,000 parameters", "analytic, NumPy"),
        ("gradient of softmax, per element, 120,000 parameters", "per element, NumPy loss"),
    ]


# --- how far results can be trusted ---------------------------------------------------------------


def test_variables_are_told_under_a_table_that_they_touch():
    variables = {"OPENBLAS_CORETYPE": "Haswell", "XLA_FLAGS": "x", "OMP_NUM_THREADS": "1"}
    found = results_of(
        cell(timing("numpy", 1.0), timing("fused", 1.0)),
        environment={"variables": variables, "load": 0.1},
    )
    notes = list(findings.surroundings_notes(found))
    assert notes == ["OPENBLAS_CORETYPE=Haswell was set, which changes numpy."]
    assert notes[0] in report.backends_table(found).notes
    rows = dict(report.environment_table(replace_environment(found)).rows)
    assert rows["OPENBLAS_CORETYPE"] == "Haswell"


def replace_environment(found: Results) -> Results:
    return replace(found, environment={**machine.environment(2, 0), **found.environment})


def test_a_busy_machine_is_told():
    found = results_of(cell(timing("fused", 1.0)), environment={"load": 2.5})
    assert list(findings.surroundings_notes(found)) == [
        "The load average was 2.5 at the start: another program, or a benchmark just before, was "
        "computing."
    ]


@pytest.mark.parametrize(
    ("has_unit", "limit_of", "why"),
    [(True, "arithmetic", "AMX"), (False, "arithmetic", "another"), (True, "reading X", "another")],
)
def test_a_contender_above_the_limit_has_a_footnote(has_unit, limit_of, why):
    found = cell(timing("numpy", 3.0), timing("fused", 1.0), limit_seconds=2.0, limit_of=limit_of)
    (note,) = findings.limit_notes([found], has_unit)
    assert "softmax, 100 x 20 x 3, above 100 %: fused;" in note
    assert why in note
    assert list(findings.limit_notes([replace(found, limit_seconds=0.5)], has_unit)) == []


def test_surroundings_are_recorded(monkeypatch):
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "123")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/somewhere")
    found = machine.environment(2, 0)
    assert found["variables"]["OPENBLAS_L2_SIZE"] == "123"
    assert "NUMBA_CACHE_DIR" not in found["variables"]
    assert found["load"] == pytest.approx(os.getloadavg()[0], abs=5)
    assert isinstance(found["governor"], str)


def test_doctor_says_what_to_do_about_the_surroundings(monkeypatch):
    found = {"load": 3.0, "governor": "powersave", "variables": {"MKL_CBWR": "AVX2"}}
    monkeypatch.setattr(doctor, "surroundings", lambda: found)
    advice = {finding.topic: finding.advice for finding in doctor.examine()}
    assert "measure when they have ended" in advice["load average"]
    assert "performance" in advice["clock governor"]
    assert "unset it" in advice["MKL_CBWR"]


# --- published results ----------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of one commit, which fastloss seems to be imported from."""

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True)

    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "kernel.py").write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(machine, "CHECKOUT", tmp_path)
    monkeypatch.setattr(results, "CHECKOUT", tmp_path)
    return tmp_path


def test_what_measuring_writes_is_no_change(checkout):
    clean = machine.git_state()
    assert len(clean) >= 7
    (checkout / "bench" / "results" / "cifar10.json").write_text("{}")
    (checkout / "BENCHMARKS.md").write_text("figures")
    assert machine.git_state() == clean
    (checkout / "kernel.py").write_text("2")
    assert machine.git_state() == f"{clean}-dirty"


def test_results_of_changed_files_are_not_published(checkout, tmp_path):
    published, elsewhere = checkout / "bench" / "results" / "a.json", tmp_path / "a.json"
    results.check_published([published, elsewhere])
    (checkout / "new.py").write_text("3")
    results.check_published([elsewhere])
    with pytest.raises(ValueError, match=r"a\.json would hold results of files .* --allow-dirty"):
        results.check_published([published])
