"""Exports of a run to pytest-benchmark and asv, read by these tools themselves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import CONTENDERS, N_ROWS, run_of
from typer.testing import CliRunner

from fastloss.benchmark import exports
from fastloss.benchmark.results import Timing
from fastloss.cli import app

BENCHMARK = "softmax.400x64x10.float32"


def export(*arguments: object):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.fixture
def saved(tmp_path):
    """A function that saves a run and returns its path."""

    def save(name="results.json", seed=0, **changes) -> Path:
        path = tmp_path / name
        run_of(seed, gradient=True, **changes).save(path)
        return path

    return save


@pytest.fixture(scope="session")
def tool(plain_environment):
    """Run another tool's command as its users do, and return what it prints."""

    def run(*command: object, cwd: Path) -> str:
        result = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=cwd,
            env={**plain_environment, "PYTHONWARNINGS": "", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


# pytest-benchmark.


@pytest.fixture
def pytest_benchmark():
    pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")


def test_pytest_benchmark_compares_two_exports(pytest_benchmark, saved, tmp_path, tool):
    for name, changes in (("before", {}), ("after", {"slower": {(400, "fused"): 2.0}})):
        path = saved(f"{name}-results.json", **changes)
        result = export(path, "--format", "pytest-benchmark", "--out", tmp_path / f"{name}.json")
        assert result.exit_code == 0
        assert result.stdout == f"Saved {tmp_path / f'{name}.json'}\n"
    # Its columns, sorted, say which of the two is slower.
    code = "from pytest_benchmark.cli import main; main()"
    files = ("before.json", "after.json")
    report = tool("-c", code, "compare", *files, "--columns=median", "-k", "400x64", cwd=tmp_path)
    rows = [line.split() for line in report.splitlines() if line.startswith(BENCHMARK)]
    assert len(rows) == 2 * len(CONTENDERS)
    fused = [row for row in rows if row[0] == f"{BENCHMARK}[fused]"]
    assert [row[1] for row in fused] == ["(before)", "(after)"]
    medians = [float(row[2].replace(",", "")) for row in fused]
    assert medians[1] / medians[0] == pytest.approx(2.0, rel=0.01)


def test_pytest_benchmark_compares_session_with_export(pytest_benchmark, saved, tmp_path, tool):
    path = saved()
    record = exports.pytest_benchmark(exports.Results.load(path))
    # A test of the same name, so that the session has something to compare with it.
    record["benchmarks"] = record["benchmarks"][:1]
    record["benchmarks"][0]["fullname"] = "test_a.py::test_a"
    record["benchmarks"][0]["name"] = "test_a"
    (tmp_path / "export.json").write_text(json.dumps(record))
    (tmp_path / "test_a.py").write_text("def test_a(benchmark):\n    benchmark(sum, [1])\n")
    command = (
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:xdist",
        "--benchmark-compare=export.json",
        "test_a.py",
    )
    report = tool(*command, cwd=tmp_path)
    assert "test_a (NOW)" in report
    assert "test_a (export" in report


@pytest.mark.parametrize("n_rounds", [1, 2, 3, 4, 5, 6, 7, 13, 15])
def test_statistics_are_those_of_pytest_benchmark(pytest_benchmark, n_rounds):
    from pytest_benchmark.stats import Stats

    seconds = np.random.default_rng(n_rounds).lognormal(size=n_rounds).tolist()
    stats = Stats()
    for value in seconds:
        stats.update(value)
    ours = exports._statistics(seconds)
    theirs = stats.as_dict()
    assert ours.keys() == theirs.keys()
    assert ours.pop("outliers") == theirs.pop("outliers")
    theirs.pop("hd15iqr")  # pytest-benchmark before 5.3 took the next larger value
    fence = theirs["q3"] + 1.5 * theirs["iqr"]
    assert ours.pop("hd15iqr") == max(value for value in seconds if value <= fence)
    assert ours == pytest.approx(theirs)


def test_seconds_are_those_of_the_whole_problem_and_extrapolated_ones_are_marked(saved, tmp_path):
    path = saved()
    out = tmp_path / "out.json"
    result = export(path, "--format", "pytest-benchmark", "--out", out)
    assert "~ were scaled up" in result.stderr
    record = json.loads(out.read_text())
    run = exports.Results.load(path)
    found = {bench["name"]: bench for bench in record["benchmarks"]}
    assert len(found) == len(N_ROWS) * len(CONTENDERS) + 2
    timing = run.cells[-1].timing("naive")
    bench = found["softmax.1600x64x10.float32[~naive]"]
    assert bench["extra_info"] == {"fraction": 0.25, "extrapolated": True}
    assert bench["stats"]["data"] == [4.0 * value for value in timing.seconds]
    assert bench["stats"]["median"] == pytest.approx(timing.summary.median)
    assert sum("~" in name for name in found) == 1
    assert record["commit_info"]["id"] == "0123abc"
    assert record["machine_info"]["cpu"]["brand_raw"] == "Example CPU (R) 3000"
    assert record["datetime"] == "2026-11-26T04:35:33+00:00"


# asv.


@pytest.fixture
def asv():
    """asv's module of results."""
    pytest.importorskip("asv", reason="asv is not installed")
    from asv import results

    return results


def test_asv_loads_the_result_file(asv, saved, tmp_path):
    path = saved()
    out = tmp_path / "results" / "asv.json"
    assert export(path, "--format", "asv", "--out", out, "--machine", "box").exit_code == 0
    loaded = asv.Results.load(str(out), machine_name="box")
    run = exports.Results.load(path)
    assert loaded.commit_hash == "0123abc"
    assert loaded.date == 1795667733000
    assert loaded.params["cpu"] == "Example CPU (R) 3000"
    assert len(loaded.get_all_result_keys()) == len(N_ROWS) + 2
    params = [["'naive'", "'numpy'", "'numba'", "'fused'"]]
    assert loaded.get_result_params(BENCHMARK) == params
    timings = run.cells[2].timings
    values = loaded.get_result_value(BENCHMARK, params)
    assert values == pytest.approx([timing.summary.median for timing in timings])
    assert loaded.get_result_samples(BENCHMARK, params) == [t.full_seconds for t in timings]
    largest = "softmax.1600x64x10.float32"
    params = loaded.get_result_params(largest)
    assert params[0][0] == "'~naive'"
    naive = run.cells[-1].timing("naive")
    assert loaded.get_result_samples(largest, params)[0] == naive.full_seconds
    assert loaded.get_result_value(largest, params)[0] == pytest.approx(naive.summary.median)


@pytest.mark.parametrize("n_rounds", [1, 3, 7, 8, 9, 15])
def test_statistics_are_those_of_asv(asv, n_rounds):
    from asv_runner.statistics import compute_stats

    seconds = np.random.default_rng(n_rounds).lognormal(size=n_rounds).tolist()
    _, theirs = compute_stats(seconds, 1)
    names = ("ci_99_a", "ci_99_b", "q_25", "q_75", "number", "repeat")
    ours = [column[0] for column in exports._asv_statistics([Timing("a", seconds)])]
    if n_rounds >= 8:  # below, asv assumes a distribution
        assert ours[:2] == pytest.approx([theirs["ci_99_a"], theirs["ci_99_b"]])
    else:
        assert ours[:2] == [-np.inf, np.inf]
    assert ours[2:] == pytest.approx([theirs[name] for name in names[2:]])


def test_asv_shows_and_compares_the_results_folder(asv, saved, tmp_path, tool):
    if shutil.which("git") is None:
        pytest.skip("asv show needs git, which is not installed")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], cwd=tmp_path, check=True)
    configuration = {
        **{"version": 1, "project": "p", "repo": ".", "branches": ["HEAD"]},
        **{"results_dir": "asv", "benchmark_dir": "none", "environment_type": "existing"},
    }
    (tmp_path / "asv.conf.json").write_text(json.dumps(configuration))
    before = saved("before.json")
    after = saved("after.json", 1, slower={(400, "fused"): 1.5}, environment={"git": "fedcba9"})
    for path in (before, after):
        assert export(path, "--format", "asv", "--out", tmp_path / "asv").exit_code == 0
    shown = tool("-m", "asv", "show", "0123abc", cwd=tmp_path)
    assert BENCHMARK in shown
    assert "failed" not in shown
    compared = tool("-m", "asv", "compare", "0123abc", "fedcba9", cwd=tmp_path)
    rows = [line for line in compared.splitlines() if f"{BENCHMARK}('" in line]
    assert len(rows) == len(CONTENDERS)
    slower = [line for line in compared.splitlines() if line.startswith("| +")]
    assert len(slower) == 1
    assert f"{BENCHMARK}('fused')" in slower[0]
    assert "1.5" in slower[0]


def test_a_results_folder_keeps_the_benchmarks_that_it_knows(saved, tmp_path):
    folder = tmp_path / "asv"
    folder.mkdir()
    known = {"other.time_it": {"name": "other.time_it"}, "version": 2}
    (folder / "benchmarks.json").write_text(json.dumps(known))
    run = run_of(0)
    fewer = replace(run.cells[2], timings=run.cells[2].timings[:1])
    run.cells = [fewer]
    run.save(tmp_path / "fewer.json")
    for path in (saved(), tmp_path / "fewer.json"):
        assert export(path, "--format", "asv", "--out", folder).exit_code == 0
    listing = json.loads((folder / "benchmarks.json").read_text())
    assert listing["other.time_it"] == {"name": "other.time_it"}
    assert listing[BENCHMARK]["params"] == [["'naive'", "'numpy'", "'numba'", "'fused'"]]


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}'])
def test_a_damaged_list_of_benchmarks_is_an_error_and_nothing_is_written(saved, tmp_path, text):
    folder = tmp_path / "asv"
    folder.mkdir()
    (folder / "benchmarks.json").write_text(text)
    result = export(saved(), "--format", "asv", "--out", folder)
    assert result.exit_code == 2
    assert f"{folder / 'benchmarks.json'} is" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["benchmarks.json"]
    assert (folder / "benchmarks.json").read_text() == text


def test_asv_needs_a_commit(saved, tmp_path):
    path = saved(environment={"git": ""})
    out = tmp_path / "asv.json"
    result = export(path, "--format", "asv", "--out", out)
    assert result.exit_code == 2
    assert "give one with --commit" in result.stderr
    assert not out.exists()
    assert export(path, "--format", "asv", "--out", out, "--commit", "a1b2c3d4e5").exit_code == 0
    assert json.loads(out.read_text())["commit_hash"] == "a1b2c3d4e5"


def test_a_changed_checkout_and_an_interrupted_run_are_said(saved, tmp_path):
    path = saved(environment={"git": "0123abc-dirty"}, complete=False)
    result = export(path, "--format", "asv", "--out", tmp_path / "asv.json")
    assert "the checkout had changes" in result.stderr
    assert "was interrupted" in result.stderr
    assert json.loads((tmp_path / "asv.json").read_text())["commit_hash"] == "0123abc"
    export(path, "--format", "pytest-benchmark", "--out", tmp_path / "pb.json")
    commit = json.loads((tmp_path / "pb.json").read_text())["commit_info"]
    assert (commit["id"], commit["dirty"]) == ("0123abc", True)


# Errors of both.


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--format", "csv"), "--format must be pytest-benchmark or asv, got 'csv'"),
        (("--format", "pytest-benchmark", "--commit", "a"), "are for --format asv"),
        (("--format", "asv", "--machine", "../x"), "--machine must be a name"),
        (("--format", "asv", "--machine", ".."), "--machine must be a name"),
        (("--format", "asv", "--commit", ""), "--commit must be a name"),
    ],
)
def test_wrong_options_are_one_line_and_exit_code_2(saved, tmp_path, options, told):
    result = export(saved(), *options, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["pytest-benchmark", "asv"])
def test_an_export_overwrites_no_input_and_needs_results(saved, tmp_path, format):
    path = saved()
    content = path.read_bytes()
    result = export(path, "--format", format, "--out", path)
    assert result.exit_code == 2
    assert "are the same file" in result.stderr
    assert path.read_bytes() == content
    path.write_text("{}")
    result = export(path, "--format", format, "--out", tmp_path / "out.json")
    assert result.exit_code == 2
    assert "is not a result file" in result.stderr
    undated = saved("undated.json", environment={"time": "yesterday"})
    result = export(undated, "--format", format, "--out", tmp_path / "out.json")
    assert result.exit_code == 2
    assert "when they were measured" in result.stderr
    assert not (tmp_path / "out.json").exists()
