"""Test the entries that the gradient check samples, and its report."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any, ClassVar

import numpy as np
import pytest
from gradient_problems import altered, problem

import fastloss
from fastloss.gradcheck import GradientCheck, GradientRecord

# --- sampled entries -------------------------------------------------------------------------


@pytest.mark.parametrize("n_coordinates", [1, 7, 60, 10**6])
def test_entries_are_spread_over_rows_columns_and_bias(n_coordinates: int) -> None:
    objective, W = problem("softmax", D=100, C=10, intercept=True)
    check = fastloss.check_gradient(objective, W, n_coordinates=n_coordinates, n_directions=0)
    places = [record.index for record in check.records if record.part == "data"]
    assert len(set(places)) == len(places)
    features = [place for place in places if place[0] < 100]
    n_bias = len(places) - len(features)
    np.testing.assert_equal(n_bias, min(10, max(1, n_coordinates // 6)))
    np.testing.assert_equal(len(features), min(1000, max(1, n_coordinates - n_bias)))
    assert all((r.block == "bias") == (r.index[0] == 100) for r in check.records)
    if n_coordinates == 60:
        assert {column for _, column in features} == set(range(10))
        strata = np.floor(np.array([row for row, _ in features]) / 100 * 50)
        assert len(set(strata)) > 40
        assert np.diff(sorted(row for row, _ in features)).max() <= 4


def test_w_and_gradient_buffers_are_copied() -> None:
    W = np.random.default_rng(0).standard_normal((3, 4))
    before = W.copy()
    buffer = np.empty_like(W)

    def f(w: np.ndarray) -> tuple[float, np.ndarray]:
        loss = float((w**3).sum())
        # A reused buffer: later calls overwrite the gradient at W.
        buffer[:] = 3 * w**2 if np.array_equal(w, before) else np.nan
        w[:] = np.nan
        return loss, buffer

    check = fastloss.check_gradient(f, W)
    assert check.passed, str(check)
    np.testing.assert_array_equal(W, before)


def test_evaluations_are_counted() -> None:
    objective, W = problem("softmax", l2=0.1)
    calls = 0

    def f(w: np.ndarray) -> Any:
        nonlocal calls
        calls += 1
        return objective(w)

    np.testing.assert_equal(fastloss.check_gradient(f, W).n_evaluations, calls)
    flat = fastloss.check_gradient(objective.flat, W.ravel())
    assert flat.passed
    assert {record.index and len(record.index) for record in flat.records} == {1, None}


# --- the report ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (np.negative, "the sign is wrong"),
        (lambda g: g * 30, "1/N is missing"),
        (lambda g: g / 30, "divided by N once too often"),
        (lambda g: g * 0.7, "analytic / numerical is 0.7 wherever it fails"),
        (lambda g: np.concatenate([g[:-1], g[-1:] * [1, 2, 3, 4]]), "only entries of the bias"),
    ],
)
def test_likely_causes(change: Callable[[np.ndarray], Any], hint: str) -> None:
    objective, W = problem("softmax", intercept=True)
    assert hint in str(fastloss.check_gradient(altered(objective, change), W))


def test_report() -> None:
    objective, W = problem("hinge", l2=0.1)

    def change(gradient: np.ndarray) -> np.ndarray:
        gradient[3, 1] += 1.0
        return gradient

    check = fastloss.check_gradient(altered(objective, change), W, n_coordinates=48)
    lines = str(check).splitlines()
    assert str(check).isascii()
    assert lines[0].startswith("Gradient check FAILED: largest relative error")
    header = next(i for i, line in enumerate(lines) if line.startswith("part "))
    first = lines[header + 1]
    np.testing.assert_equal(first.split()[:5], ["data", "row", "3", "(3,", "1)"])
    # Aligned: every row has its status where the header says.
    start = lines[header].index("status")
    statuses = {line[start:].split("  ")[0] for line in lines[header + 1 :]}
    assert statuses <= set(check.counts)
    np.testing.assert_equal(sum(check.counts.values()), len(check.records))
    np.testing.assert_equal(pickle.loads(pickle.dumps(check)), check)


def test_html_is_escaped_and_balanced() -> None:
    class Balance(HTMLParser):
        open: ClassVar[list[str]] = []

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag != "br":
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            np.testing.assert_equal(self.open.pop(), tag)

    text = fastloss.check_gradient(lambda w: (w.sum(), np.ones_like(w)), np.eye(2))._repr_html_()
    assert "&lt;lambda&gt;" in text
    assert "<lambda>" not in text
    Balance().feed(text)
    np.testing.assert_equal(Balance.open, [])


def record(status: Any, error: float, index: Any = (0, 0), part: Any = "data") -> GradientRecord:
    return GradientRecord(part, "row 0", index, 1.0, 1.0, error, status, 1e-5)


def test_verdict() -> None:
    def check(*records: GradientRecord) -> GradientCheck:
        return GradientCheck(records, "", 0)

    good, kink, small = record("good", 1e-9), record("kink", 0.5), record("too small", 1.0)
    direction, entry = record("wrong", 0.9, None), record("wrong", 0.1)
    assert check(good, kink, small).passed
    assert check(kink).passed
    assert not check(small).passed
    assert not check(record("good", 0.0, part="penalty"), small).passed
    assert not check(good, record("uneasy", 1e-3)).passed
    np.testing.assert_equal(check(good, kink, small).max_relative_error, 1e-9)
    assert check(good, direction, entry).worst is entry
    assert check(good, direction).worst is direction
    assert check(entry, record("wrong", np.nan)).worst.relative_error is not entry
