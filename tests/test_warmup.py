"""Tests of what ``fastloss warmup`` says before, during and after its work."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest
from typer.testing import CliRunner

import fastloss
from fastloss.backends import cost_model

pytest.importorskip("numba")
pytest.importorskip("scipy")
from fastloss.benchmark import calibration, warmup
from fastloss.cli import app, common


def uncompilable_block(scores, labels, parameters, losses):
    losses[:] = open(labels)  # noqa: SIM115


@dataclass(frozen=True)
class Uncompilable(fastloss.Softmax):
    name: ClassVar[str] = "uncompilable"
    block = staticmethod(uncompilable_block)


@pytest.fixture
def calibrated(tmp_path, monkeypatch):
    """Keep costs in a folder of this test, and replace the timings, which take a minute."""

    def calibrate(progress):
        for step in range(len(calibration.expected_seconds(1.0))):
            progress(f"timing {step}", step)
        return cost_model.default()

    monkeypatch.setenv("FASTLOSS_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(calibration, "calibrate", calibrate)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    cost_model.current.cache_clear()
    yield tmp_path
    cost_model.current.cache_clear()


def run(*arguments: str):
    return CliRunner().invoke(app, ["warmup", "--loss", "hinge", "--dtype", "float32", *arguments])


def test_warmup_says_what_it_will_do_and_has_done(calibrated, monkeypatch):
    monkeypatch.setattr(common, "_LINE_SECONDS", 0.0)
    run("--no-calibrate")
    result = run()
    assert result.exit_code == 0, result.output
    plan, compiled, timed = result.stdout.splitlines()
    assert re.fullmatch(r"\d kernels, 0 to compile; then timings, in about \d+ s", plan)
    assert compiled.startswith("0 kernels compiled in ")
    assert re.match(r"calls timed in \d+ s, \d+ s in all; costs kept in .*costs.json", timed)
    assert (calibrated / "costs.json").exists()
    lines = result.stderr.splitlines()
    n_steps = 2 * (len(calibration.SHAPES) + len(calibration.SCORE_SHAPES))
    assert len(lines) == n_steps
    assert re.fullmatch("0%, 0 s: timing 0", lines[0])
    left = r"\d+ s, about 0 s left"
    assert re.fullmatch(rf"(9\d|100)%, {left}: timing {n_steps - 1}", lines[-1])


def test_time_left_follows_the_pace(monkeypatch, capsys):
    monkeypatch.setattr(time, "monotonic", iter([0.0, 20.0, 90.0]).__next__)
    with common.progress_bar(100.0, in_lines=True) as progress:
        progress("fast", 40.0)
        progress("slow", 60.0)
    told = ["40%, 20 s, about 30 s left: fast", "60%, 90 s, about 60 s left: slow"]
    assert capsys.readouterr().err.splitlines() == told


def test_timing_on_a_busy_machine_is_reported(calibrated, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (2.5, 0.0, 0.0), raising=False)
    told = "fastloss: load average 2.50: other programs compute: measure when they have ended\n"
    assert run().stderr.startswith(told)
    assert told not in run("--no-calibrate").stderr


def test_plan_counts_kernels_once():
    """Losses share kernels, and dtypes of X share the losses' own."""
    whole = warmup.Plan.of(["softmax", "hinge"], ["float32", "uint8"], calibrate=False)
    one = warmup.Plan.of(["softmax"], ["float32"], calibrate=False)
    n_wide = sum(name.startswith("wide") for name in one.names)
    assert len(one.names) == 4 + n_wide
    of_pixels = sum("uint8" in name for name in whole.names)
    assert of_pixels >= 6  # narrow, few rows and wide, for W in float32 and float64
    # Further: the hinge in float32, and both losses and the strips in float64.
    assert len(whole.names) == len(one.names) + of_pixels + 4
    names = [name for _, new in whole.missing for name in new]
    assert len(names) == len(set(names)) == whole.n_missing
    assert len(whole.compile_seconds) == len(whole.missing)


def test_predicted_times_follow_the_pace():
    fast, slow = (sum(calibration.expected_seconds(pace)) for pace in (1.0, 3.0))
    assert 20 < fast < 200
    assert 2 < slow / fast < 3  # short calls are repeated less often
    assert 0.05 < calibration.slowness() < 100


def test_kernels_that_cannot_be_compiled_are_reported(calibrated):
    fastloss.register_loss(Uncompilable)
    try:
        result = run("--loss", "uncompilable", "--no-calibrate")
    finally:
        fastloss.unregister_loss("uncompilable")
    assert result.exit_code == 2
    assert "to compile" in result.stdout
    assert "kernels that cannot be compiled: narrow-float32-float32-" in result.stderr
    assert "uncompilable_block" in result.stderr
