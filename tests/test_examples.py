"""Run the examples as a user would."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastloss

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLES / "linear_probe.py", *arguments]
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=folder, timeout=300
    )


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Return the folder and the output of a probe on float16 features in a folder of arrays."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("probe")
    data = fastloss.data.synthetic(1500, 30, 4, dtype=np.float16)
    np.save(folder / "X.npy", data.X)
    np.save(folder / "y.npy", data.y)
    ended = run(folder, "--C", 1e-4, 1e-2, 1, "--compare", 600, folder=folder)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return folder, ended.stdout


def test_probe_finds_the_best_strength(printed):
    _, text = printed
    assert text.startswith("1,500 rows, 30 float16 features\n")
    table = re.findall(r"^ +([\d.e-]+) +([\d.]+)% +(\d+) +[\d.]+$", text, re.MULTILINE)
    assert [float(C) for C, *_ in table] == [1e-4, 1e-2, 1.0]
    accuracies = [float(accuracy) for _, accuracy, _ in table]
    chosen = float(re.search(r"^C = ([\d.e-]+), fitted again", text, re.MULTILINE)[1])
    assert accuracies[[1e-4, 1e-2, 1.0].index(chosen)] == max(accuracies) > 80
    share, low, high = map(float, re.findall(r"([\d.]+)%", text.split("fitted again")[1])[:3])
    assert 80 < low < share < high


def test_probe_is_compared_with_scikit_learn(printed):
    _, text = printed
    ours, theirs = (
        float(re.search(rf"^ +{name} +[\d.]+ +\d+ +([\d.]+)", text, re.MULTILINE)[1])
        for name in ("fastloss", "scikit-learn")
    )
    # Centred features let L-BFGS get further in the same number of iterations.
    assert ours == pytest.approx(theirs, rel=0.02)


def test_probe_draws_a_picture(printed):
    folder, _ = printed
    assert (folder / "linear-probe" / "accuracy.png").stat().st_size > 5000
    assert (folder / "linear-probe" / "accuracy-dark.svg").exists()


def test_lines_of_the_page_print_an_accuracy_for_each_strength(printed, monkeypatch, capsys):
    folder, _ = printed
    page = (EXAMPLES.parent / "docs" / "linear_probes.md").read_text(encoding="utf-8")
    code = re.search(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[1]
    monkeypatch.chdir(folder)
    exec(code, {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [float(C) for C, _ in lines] == [1e-3, 1e-2, 1e-1, 1.0]
    assert min(float(accuracy) for _, accuracy in lines) > 0.8


def test_bad_features_and_options_end_in_one_line(tmp_path, monkeypatch, capsys):
    main = runpy.run_path(str(EXAMPLES / "linear_probe.py"))["main"]
    for options, message in (
        (["nowhere"], "linear_probe.py: nowhere: no such file or folder"),
        (["--synthetic", "300x5x3", "--C", "0"], "linear_probe.py: C must be > 0, got 0.0"),
    ):
        monkeypatch.setattr(sys, "argv", ["linear_probe.py", *options])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit, match=re.escape(message)):
            main()
    monkeypatch.setattr(sys, "argv", ["linear_probe.py", "features", "--held-out", "0.5"])
    with pytest.raises(SystemExit):
        main()
    assert "--held-out must be between 0 and 0.5, got 0.5" in capsys.readouterr().err


def test_probe_without_features_says_what_to_name(tmp_path):
    ended = run(folder=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == (
        "name a folder of features, or pass --synthetic ROWSxFEATURESxCLASSES\n"
    )
