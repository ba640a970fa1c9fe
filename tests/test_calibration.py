"""Costs of calls are fitted to measured times."""

from __future__ import annotations

import numpy as np
import pytest

from fastloss.backends import cost_model

pytest.importorskip("numba")
pytest.importorskip("scipy")
from fastloss.benchmark.calibration import fit


def test_fit_finds_the_line_it_was_given():
    line = (2e-5, 1e-8, 3e-9, 1e-9, 4e-10, 0.0, 5e-11)
    rng = np.random.default_rng(0)
    shapes = [tuple(map(int, 10 ** rng.uniform(0, 4, 3))) for _ in range(40)]
    factors = [cost_model.terms("numpy", shape, 4, 1) for shape in shapes]
    seconds = [float(np.dot(line, row)) for row in factors]
    found = fit(factors, seconds)
    predicted = [float(np.dot(found, row)) for row in factors]
    np.testing.assert_allclose(predicted, seconds, rtol=1e-3)
    np.testing.assert_allclose(found, line, rtol=0.02, atol=1e-11)


def test_fit_gives_no_negative_cost():
    shapes = [(1, 1, 1), (10, 1, 1), (100, 1, 1), (1, 100, 2), (1, 1, 100)]
    factors = [cost_model.terms("narrow", shape, 4, 2) for shape in shapes]
    assert min(fit(factors, [5.0, 4.0, 3.0, 2.0, 1.0])) >= 0.0


def test_known_seconds_are_left_out_of_a_fit():
    (ratio,) = fit([[1.0], [2.0]], [11.0, 7.0], known=[8.0, 1.0])
    np.testing.assert_allclose(ratio, 3.0)
