"""Tests that the code in README.md runs, and prints what its comments say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastloss
from fastloss import optim

README = (Path(fastloss.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)[1]
HOW_TO = README.partition("## How do I ...?")[2].partition("\n## ")[0]
#: The code of each line of the table, by its question.
ANSWERS = {
    question: re.findall("`([^`]+)`", answer)
    for question, answer in re.findall(r"^\| (.+?) \| (.*`.*) \|$", HOW_TO, re.MULTILINE)
}


def test_example_learns_what_its_comments_say(capsys):
    exec(EXAMPLE, {})
    printed = capsys.readouterr().out.splitlines()
    promised = re.findall(r"print\(.*\)  # (\d\.\d\d)", EXAMPLE)
    assert len(promised) == 3
    for number, line in zip(promised, printed, strict=False):
        assert float(line) == pytest.approx(float(number), abs=0.011)
    assert "passed" in printed[3]


@pytest.fixture
def setting(tmp_path, monkeypatch) -> dict[str, Any]:
    """Run in a folder with ``X.npy``, and return the names that the table uses."""
    data = fastloss.data.synthetic(700, 8, 3)
    monkeypatch.chdir(tmp_path)
    np.save("X.npy", data.X[:600])
    names = np.array(["cat", "dog", "owl"])[data.y[:600]]
    np.save("y.npy", names)
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"x": data.X[:600, 0], "kind": names}), "X.parquet")
    scope: dict[str, Any] = {
        "X": data.X[:600],
        "y": data.y[:600],
        "W": np.zeros((8, 3), np.float32),
        "half_X": data.X[:600].astype(np.float16),
        "names": names,
        "held_out": fastloss.Objective(data.X[600:], data.y[600:]),
        "row_weights": np.linspace(0.5, 1.5, 600),
        "rows": np.arange(32),
    }
    exec("import numpy as np, scipy.optimize, fastloss", scope)
    exec("from fastloss import LinearModel, Objective, optim", scope)
    return scope


def test_every_answer_runs_on_the_same_rows(setting):
    pytest.importorskip("scipy")
    assert len(ANSWERS) >= 14
    for question, codes in ANSWERS.items():
        for code in codes:
            try:
                exec(code, setting)
            except Exception as error:
                pytest.fail(f"{question}: {code}: {error!r}")
    assert isinstance(setting["X"], np.ndarray)
    assert setting["X"].dtype == np.float32
    assert setting["classes"].tolist() == ["cat", "dog", "owl"]
    model, names = setting["model"], setting["names"]
    assert np.mean(model.predict(setting["X"]) == names) > 0.8
    np.testing.assert_allclose(model.predict_proba(setting["X"]).sum(axis=1), 1.0, rtol=1e-5)
    assert optim.accuracy(setting["held_out"], setting["result"].W) > 0.8
    assert setting["dW"].shape == (8, 3)
