"""The benchmark suite in bench/, run for a short time in a process of its own, and its table."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import suite_report
from benchmark_pages import suite_page

ROOT = Path(__file__).parents[1]


CANDIDATES = """
import fastloss

def right(X, y, W):
    return fastloss.loss_and_grad(W, X, y, loss="crammer_singer", backend="numpy")

def wrong(X, y, W):
    loss, dW = right(X, y, W)
    return 2 * loss, dW
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory, plain_environment) -> Path:
    """A run of two losses at one size; without the limit, which takes seconds to measure.

    A right and a wrong candidate are measured too.
    """
    path = tmp_path_factory.mktemp("suite") / "suite.json"
    (path.parent / "users_module.py").write_text(CANDIDATES)
    command = [sys.executable, "-m", "pytest", "bench", "-q", "-p", "no:cacheprovider"]
    # The wrong candidate is skipped at the second size.
    options = ["--sizes=small,300x65x10", "--no-limit", "--benchmark-max-time=0.01"]
    options += ["--candidate=users_module:right", "--candidate=users_module:wrong"]
    options += ["--candidate-loss=crammer_singer", "--order=X,y,W"]
    words = ["-k", "(softmax or crammer_singer) and 200x65x10 or wrong"]
    ran = subprocess.run(
        [*command, *options, *words, f"--benchmark-json={path}"],
        cwd=ROOT,
        env={**plain_environment, "PYTHONPATH": f"{ROOT}{os.pathsep}{path.parent}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    last = ran.stdout.splitlines()[-1]
    assert re.search(r"(?<!\d)1 failed, \d+ passed, 1 skipped", last), ran.stdout
    assert " error" not in ran.stdout
    assert "users_module:wrong: FAILED as crammer_singer, called as f(X, y, W)" in ran.stdout
    assert "likely: the loss is twice the right one" in ran.stdout
    return path


def test_ids_are_words_and_groups_compare_backends(stored):
    found = json.loads(stored.read_text())["benchmarks"]
    assert "test_loss_and_grad[softmax-200x65x10-numba]" in {one["name"] for one in found}
    assert {one["group"] for one in found} == {
        "softmax 200 x 65 x 10 float32",
        "crammer_singer 200 x 65 x 10 float32",
    }
    assert {one["extra_info"]["x_bytes"] for one in found} == {200 * 65 * 4}
    assert all(0 <= one["extra_info"]["gradient_error"] < 2e-3 for one in found)


def test_candidate_is_in_the_group_of_the_backends(stored):
    found = json.loads(stored.read_text())["benchmarks"]
    (one,) = (one for one in found if one["extra_info"]["kind"] == "candidate")
    assert one["extra_info"]["contender"] == "users_module:right"
    assert one["extra_info"]["gradient_error"] < 1e-5
    assert one["group"] == "crammer_singer 200 x 65 x 10 float32"


def test_table_has_no_share_of_a_limit_that_was_not_measured(stored):
    table = suite_report.table(stored)
    assert len(table.rows) == 9
    assert {row[table.columns.index("of limit")] for row in table.rows} == {"-"}
    numpy = [row for row in table.rows if row[2] == "numpy"]
    assert {row[table.columns.index("x NumPy")] for row in numpy} == {"1"}


def test_table_leaves_out_shares_of_a_beaten_limit_and_quartiles_of_few_rounds(stored, tmp_path):
    document = json.loads(stored.read_text())
    for k, one in enumerate(document["benchmarks"]):
        one["extra_info"]["share_of_limit"] = 1.5 if k == 0 else 0.5
        one["stats"]["rounds"] = 4
    path = tmp_path / "suite.json"
    path.write_text(json.dumps(document))
    table = suite_report.table(path)
    shares = [row[table.columns.index("of limit")] for row in table.rows]
    assert shares == ["-"] * 4 + ["50.0 %"] * 5
    assert {row[table.columns.index("IQR")] for row in table.rows} == {"-"}


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="not a file of pytest-benchmark"):
        suite_report.table(path)


def test_page_shows_the_table(stored):
    page = "\n".join(suite_page(stored))
    assert page.startswith("# The pytest-benchmark suite")
    assert suite_report.table(stored).markdown() in page
