"""Tests of ``fastloss bench``, ``check``, ``doctor`` and ``warmup``, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import fastloss
from fastloss.benchmark import peers, plots
from fastloss.benchmark import plan as plan_module
from fastloss.cli import app
from fastloss.kernels.wide_problem import units

QUICK = ("--quick", "--no-gradient-study", "--no-first-calls")
TINY = ("--sizes", "60x12x4", *QUICK)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def cifar10_folder():
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar-10-batches-bin"
    if not folder.exists():
        pytest.skip(f"needs the CIFAR-10 files at {folder}")
    return folder


@pytest.fixture
def candidates(tmp_path, monkeypatch):
    """Return the name of a module in the current folder, with a right and a wrong function."""
    (tmp_path / "users_module.py").write_text(
        "import numpy as np\n"
        "def right(W, X, y):\n"
        "    S = X @ W\n"
        "    p = np.exp(S - S.max(1, keepdims=True))\n"
        "    p /= p.sum(1, keepdims=True)\n"
        "    rows = np.arange(len(y))\n"
        "    loss = -np.log(p[rows, y]).mean()\n"
        "    p[rows, y] -= 1\n"
        "    return loss, X.T @ p / len(y)\n"
        "def wrong(W, X, y):\n"
        "    loss, dW = right(W, X, y)\n"
        "    return loss, dW * len(y)\n"
        "def other(X, y, W):\n"
        "    loss, dW = right(W.T, np.hstack([X, np.ones((len(X), 1), X.dtype)]), y)\n"
        "    P = 0.1 * W * (np.arange(W.shape[1]) < X.shape[1])\n"
        "    return loss + (P * W).sum(), dW.T + 2 * P\n"
        "def few_rows(W, X, y):\n"
        "    loss, dW = right(W, X, y)\n"
        "    return loss + (len(X) == 40), dW\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "users_module"
    sys.modules.pop("users_module", None)


def test_bench_prints_tables_and_saves_files(tmp_path):
    result = run("bench", *TINY, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for text in (
        "softmax",
        "60 x 12 x 4",
        "naive",
        "numpy",
        "numba",
        "fused",
        "A/A control",
        "Saved",
    ):
        assert text in result.stdout
    # No escape codes and no progress bar without a terminal.
    assert "\x1b" not in result.stdout
    assert result.stderr == ""
    names = {path.name for path in (tmp_path / "out").iterdir()}
    plots = {f"backends{theme}.{kind}" for theme in ("", "-dark") for kind in ("png", "svg")}
    assert names == {"results.json", *plots}


@pytest.mark.deep
def test_bench_json_to_stdout_is_json_and_nothing_else(tmp_path):
    result = run("bench", *TINY, "--backend", "numpy", "--json", "-", "--out", tmp_path)
    record = json.loads(result.stdout)
    assert record["complete"]
    assert record["cells"][0]["timings"][0]["contender"] == "numpy"


def test_bench_of_real_pixels(cifar10_folder, tmp_path):
    result = run(
        "bench",
        *("--data", cifar10_folder, "--sizes", "30", "--backend", "numpy", *QUICK),
        *("--dtype", "uint8", "--out", tmp_path),
    )
    assert result.exit_code == 0, result.output
    assert "30 x 3073 x 10 uint8" in result.stdout
    assert "Krizhevsky" in result.stdout


def test_bench_of_a_candidate(candidates, tmp_path):
    arguments = ("bench", *TINY, "--backend", "numpy", "--out", tmp_path / "out")
    both = [f"--candidate={candidates}:{name}" for name in ("right", "wrong")]
    result = run(*arguments, *both)
    assert result.exit_code == 1
    (cell,) = fastloss.benchmark.Results.load(tmp_path / "out" / "results.json").cells
    assert list(cell.refused) == [f"{candidates}:wrong"]
    assert cell.timing(f"{candidates}:right").where == "own process"
    assert f"{candidates}:right" in result.stdout
    assert "refused: " in result.stdout
    result = run(*arguments, "--candidate", f"{candidates}:wrong")
    assert result.exit_code == 1
    assert "nothing was timed" in result.stderr
    assert "wrong in float64 and float32: ordinary scores\n    dW[" in result.stderr
    assert "Traceback" not in result.output


def test_bench_lists_skipped_peers(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda module: None)
    options = ("--backend", "numpy", "--seconds", "0.2", "--out", tmp_path)
    result = run("bench", "--peers", *TINY, *options)
    assert result.exit_code == 0, result.output
    for text in ("numpy", "Skipped", "PyTorch compiled", "torch not installed"):
        assert text in result.stdout


def test_interrupted_bench_saves_its_cells(tmp_path, monkeypatch):
    measure_cell, calls = plan_module.measure_cell, []

    def interrupt_second(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        measure_cell(*arguments)

    monkeypatch.setattr(plan_module, "measure_cell", interrupt_second)
    sizes = ("--sizes", "60x12x4,70x12x4", *QUICK)
    result = run("bench", *sizes, "--backend", "numpy", "--out", tmp_path)
    assert result.exit_code == 130
    assert "Interrupted" in result.stdout
    record = json.loads((tmp_path / "results.json").read_text())
    assert not record["complete"]
    assert [cell["n_rows"] for cell in record["cells"]] == [60]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench", "--loss", "nope"), "unknown loss 'nope'; known: "),
        (("bench", "--backend", "nope"), "unknown backend 'nope'; known: "),
        (("bench", "--sizes", "10x20"), "N or NxDxC"),
        (("bench", "--data", "/no/such/place"), "/no/such/place"),
        (("bench", "--threads", "0"), "threads"),
        (("bench", "--candidate", "nonsense"), "my_module:my_function"),
        (("check", "--loss", "nope"), "unknown loss 'nope'"),
        (("check", "--l2", "1"), "--order describe a --candidate"),
        (
            ("check", "--candidate", "m:f", "--loss", "hinge", "--loss", "softmax"),
            "give one --loss",
        ),
        (("check", "--candidate", "m:f", "--backend", "numpy"), "--backend does not apply"),
        (("check", "--candidate", "m:f", "--size", "40"), "--size must be NxDxC"),
        (("check", "--size", "4x5x6"), "--size describes a --candidate"),
        (("bench", "--candidate", "m:f", "--order", "X,y"), "permutation of W,X,y, got 'X,y'"),
        (("warmup", "--dtype", "int8"), "float16, float32, float64 or uint8"),
        (("warmup", "--dtype", "nonsense"), "nonsense"),
    ],
)
def test_bad_input_ends_in_one_clear_line(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_check_passes_every_loss(tmp_path):
    X = np.random.default_rng(0).random((40, 5)).astype(np.float16)
    np.savez(tmp_path / "d.npz", X=X, y=np.arange(40) % 3)
    result = run("check", "--data", tmp_path / "d.npz", "--rows", 20)
    assert result.exit_code == 0, result.output
    n_checks = len(fastloss.available_losses()) * len(fastloss.available_backends())
    assert result.stdout.count("passed") == n_checks
    assert "20 rows x 5 features" in result.stdout


def test_check_of_a_wrong_candidate_fails_with_the_report(candidates):
    right, wrong = ("--candidate", f"{candidates}:right"), ("--candidate", f"{candidates}:wrong")
    result = run("check", *right)
    assert result.exit_code == 0
    assert "Loss and gradient of softmax" in result.stdout
    result = run("check", *wrong, *right)
    assert result.exit_code == 1
    assert re.search(r"users_module:wrong +FAILED", result.stdout)
    assert re.search(r"users_module:right +passed", result.stdout)
    assert "likely: the gradient is 37 times too large" in result.stdout
    result = run("check", *right, "--loss", "hinge")
    assert result.exit_code == 1
    assert "it computes the loss softmax: pass --loss softmax" in result.stdout


def test_check_tries_the_size_of_an_option_and_of_the_data(candidates, tmp_path):
    with Path(f"{candidates}.py").open("a") as file:
        file.write("def four(W, X, y):\n    return right(W + np.zeros(4), X, y)\n")
    np.savez(tmp_path / "d.npz", X=np.random.default_rng(0).random((40, 5)), y=np.arange(40) % 4)
    four = ("check", "--candidate", f"{candidates}:four")
    assert "it seems to want 4 classes: check it with --size 37x13x4" in run(*four).stdout
    for options in (("--size", "9x3x4"), ("--data", "d.npz")):
        result = run(*four, *options)
        assert result.exit_code == 0, result.output
        assert "it is verified at 37x" in result.stdout


def test_check_calls_a_candidate_as_the_options_say(candidates, tmp_path):
    np.savez(tmp_path / "d.npz", X=np.random.default_rng(0).random((40, 5)), y=np.arange(40) % 3)
    options = ("--l2", 0.1, "--intercept", "--layout", "cd", "--order", "X,y,W")
    result = run("check", "--candidate", f"{candidates}:other", *options, "--data", "d.npz")
    assert result.exit_code == 0, result.output
    assert "softmax + 0.1 * sum(W**2) with a bias row" in result.stdout
    result = run("check", "--candidate", f"{candidates}:few_rows", "--data", "d.npz")
    assert result.exit_code == 1
    assert "wrong in float64 and float32: rows of d.npz" in result.stdout
    out = ("--backend", "numpy", "--seconds", "0.2", "--out", tmp_path / "o")
    result = run("bench", "--candidate", f"{candidates}:other", *options, *TINY, *out)
    assert result.exit_code == 0, result.output
    assert "every loss + 0.1 * sum(W**2) with a bias row" in result.stdout


def test_doctor_reports_every_topic():
    result = run("doctor")
    assert result.exit_code == 0, result.output
    for topic in ("CPU", "threads", "Numba", "vectors", "costs", "kernel cache", "BLAS"):
        assert topic in result.stdout


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("FASTLOSS_CACHE_DIR", __file__, "cannot write"),
        ("NUMBA_DISABLE_JIT", "1", "backend 'fused' cannot run: NUMBA_DISABLE_JIT is set"),
        ("NUMBA_NUM_THREADS", "0", "backend 'fused' cannot run: numba cannot be imported"),
    ],
)
def test_warmup_fails_at_once_with_the_reason(variable, value, message):
    """It neither measures for minutes first nor counts kernels that do not exist."""
    command = [sys.executable, "-m", "fastloss", "warmup", "--loss", "hinge", "--dtype", "float32"]
    environment = {**os.environ, variable: value}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.startswith("fastloss: ")
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.deep
def test_warmup_fills_the_cache_that_doctor_counts(tmp_path):
    """Commands run in their own processes, because a process reads NUMBA_CACHE_DIR once."""

    def fastloss(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "fastloss", *arguments],
            env={
                "NUMBA_CACHE_DIR": str(tmp_path / "numba"),
                "FASTLOSS_CACHE_DIR": str(tmp_path / "fastloss"),
                "PATH": "",
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert "0 kernels" in fastloss("doctor")
    out = fastloss("warmup", "--loss", "hinge", "--dtype", "float32", "--no-calibrate")
    # One kernel each for the loss, narrow, few rows and strips, and one for each unit of wide.
    n = 4 + len(units(100, 100, np.dtype(np.float32)))
    assert out.startswith(f"{n} kernels, {n} to compile in about ")
    assert f"\n{n} kernels compiled in " in out
    assert f"{n} kernels" in fastloss("doctor")


def test_missing_typer_names_the_extra_to_install():
    code = "import sys; sys.modules['typer'] = None\nfrom fastloss.__main__ import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "pip install '.[bench]' in a checkout" in result.stderr
    assert "Traceback" not in result.stderr


def test_readme_commands_exist():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    for command in ("make bench", "make test"):
        assert command in readme


@pytest.mark.parametrize(
    "options",
    [
        ("--json", "o/results.json"),
        ("--json", "o/gradient-error-dark.svg"),
        ("--json", "d.npz"),
        ("--json", "users_module.py", "--candidate", "users_module:right"),
    ],
)
def test_bench_refuses_an_output_over_another_file(candidates, tmp_path, options):
    np.savez(tmp_path / "d.npz", X=np.ones((4, 2)), y=np.arange(4) % 2)
    before = [(tmp_path / name).read_bytes() for name in ("d.npz", "users_module.py")]
    result = run("bench", "--data", "d.npz", "--out", "o", *options)
    assert result.exit_code == 2
    assert "are the same file" in result.stderr
    assert before == [(tmp_path / name).read_bytes() for name in ("d.npz", "users_module.py")]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError: invalid syntax (users_module.py, line 1)"),
        ("raise SystemExit(5)", "SystemExit: 5"),
    ],
)
def test_candidate_that_cannot_be_imported_is_one_line(candidates, tmp_path, code, told):
    (tmp_path / "users_module.py").write_text(code)
    result = run("bench", "--candidate", "users_module:f", "--out", "o")
    assert result.exit_code == 2
    assert result.stderr == f"fastloss: candidate 'users_module:f': {told}\n"
    assert run("bench", "--candidate", ":f", "--out", "o").stderr.startswith(
        "fastloss: candidate must look like"
    )


@pytest.mark.deep
def test_failed_plot_costs_one_line(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("no fonts")

    monkeypatch.setattr(plots, "plot_backends", fail)
    result = run("bench", *TINY, "--backend", "numpy", "--out", tmp_path)
    assert result.exit_code == 0
    assert result.stderr == "fastloss: no picture of backends: no fonts\n"
    assert "numpy" in result.stdout
    assert (tmp_path / "results.json").exists()
