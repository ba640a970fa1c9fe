"""The gradient check: what is right passes, what is planted is caught, named and explained."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pytest

import fastloss
from fastloss.gradcheck import GradientCheck, GradientRecord
from fastloss.losses.base import Loss
from fastloss.penalties import Penalty

LOSSES: list[Any] = [
    *fastloss.available_losses(),
    fastloss.Softmax(label_smoothing=0.1),
    fastloss.Hinge(margin=0.0, class_reduction="mean"),
    fastloss.OneVsAll(power=2),
]


def problem(
    loss: Any,
    *,
    N: int = 30,
    D: int = 12,
    C: int = 4,
    scale: float = 1.0,
    seed: int = 0,
    dtype: Any = np.float64,
    **options: Any,
):
    """An objective in NumPy, and a W for it."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 256, (N, D)) if dtype == np.uint8 else rng.standard_normal((N, D))
    y = rng.integers(0, C, N)
    if options.get("ignore_index") is not None:
        y[::6] = options["ignore_index"]
    if options.pop("weighted", False):
        options["sample_weight"] = rng.uniform(0.0, 2.0, N)
        options["class_weight"] = "balanced"
    W = scale * rng.standard_normal((D + options.get("intercept", False), C))
    return fastloss.Objective(X.astype(dtype), y, loss=loss, backend="numpy", **options), W


def altered(objective: Any, change: Callable[[np.ndarray], Any]) -> Any:
    """An Objective whose gradient is changed on its way out, and a plain callable alike."""

    class Altered(fastloss.Objective):
        def __call__(self, W: Any, *, out: Any = None) -> Any:
            loss, gradient = super().__call__(W)
            return loss, change(gradient.copy())

    other = fastloss.Objective.__new__(Altered)
    other.__dict__.update(objective.__dict__)
    return other


def both(objective: Any, change: Callable[[np.ndarray], Any]) -> list[Any]:
    """The two ways a gradient comes in: an `Objective` and any callable."""
    wrong = altered(objective, change)
    return [wrong, lambda W: wrong(W)]


# --- what is right passes --------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0])
def test_every_loss_passes(loss: Any, dtype: Any, scale: float) -> None:
    grid = list(product((False, True), ((0, 0), (0.1, 0.05)), (False, True), (None, 9)))
    # Any two of the values meet in every third.
    for seed, (intercept, (l1, l2), weighted, ignore_index) in enumerate(grid[::3]):
        objective, W = problem(
            loss,
            dtype=dtype,
            scale=scale,
            seed=seed,
            intercept=intercept,
            l1=l1,
            l2=l2,
            weighted=weighted,
            ignore_index=ignore_index,
            reduction="sum" if seed % 3 else "mean",
        )
        check = fastloss.check_gradient(objective, W, seed=seed, n_coordinates=40)
        assert check.passed, str(check)
        parts = {record.part for record in check.records}
        assert parts == ({"data", "penalty", "total"} if l1 else {"data"})
        plain = fastloss.check_gradient(lambda w, f=objective: f(w), W, n_coordinates=12)
        assert plain.passed, str(plain)


@pytest.mark.parametrize("backend", ["naive", "fused"])
def test_every_backend_passes(backend: str) -> None:
    X = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    objective = fastloss.Objective(X, np.arange(20) % 3, l2=0.1, backend=backend)
    check = fastloss.check_gradient(objective, np.ones((5, 3), np.float32))
    assert check.passed, str(check)
    assert check.max_relative_error < 1e-6, str(check)


def test_float32_and_large_data_are_cut_down_to_float64_rows() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 6)).astype(np.float32)
    weight = (np.arange(400) % 4 == 0).astype(float)
    objective = fastloss.Objective(X, rng.integers(0, 3, 400), sample_weight=weight, l2=0.1)
    W = rng.standard_normal((6, 3)).astype(np.float32)
    W.flags.writeable = False
    before = W.copy()
    check = fastloss.check_gradient(objective, W, max_rows=40, seed=5)
    assert check.passed, str(check)
    assert check.max_relative_error < 1e-6, str(check)
    assert "40 of 400 rows (seed 5)" in str(check)
    np.testing.assert_array_equal(W, before)
    assert fastloss.check_gradient(objective, W, max_rows=40, seed=5) == check
    assert fastloss.check_gradient(objective, W, max_rows=40, seed=6) != check
    # Rows that weigh nothing are not drawn: here 100 are left.
    assert "100 of 400 rows" in str(fastloss.check_gradient(objective, W, max_rows=200))


def test_a_loss_that_is_zero_everywhere_passes_and_says_so() -> None:
    objective = fastloss.Objective(np.eye(3), [0, 1, 2], loss="hinge")
    check = fastloss.check_gradient(objective, 9 * np.eye(3))
    assert check.passed
    np.testing.assert_equal(check.counts["good"], len(check.records))
    np.testing.assert_equal(check.max_relative_error, 0.0)


@dataclass(frozen=True)
class Late(Loss):
    """Registered by someone else: |s_j - 1| summed, with kinks that it tells of, or not."""

    name: ClassVar[str] = "late_of_gradcheck_test"
    tells: bool = True

    def naive(self, scores: list[float], label: int) -> tuple[float, list[float]]:
        raise NotImplementedError

    def vectorized(self, scores: Any, labels: Any) -> tuple[Any, Any]:
        return np.abs(scores - 1.0).sum(axis=1), np.sign(scores - 1.0)

    def pieces(self, scores: Any, labels: Any) -> Any:
        return np.sign(scores - 1.0) if self.tells else None


@pytest.mark.parametrize("tells", [True, False])
def test_a_loss_registered_later_needs_nothing_here(tells: bool) -> None:
    fastloss.register_loss(Late(tells))
    try:
        # At W = 1 the scores of the unit rows are 1: every entry lies on a kink.
        for W in (np.ones((4, 3)), np.ones((4, 3)) + 1e-6, np.full((4, 3), 0.3)):
            objective = fastloss.Objective(np.eye(4), [0, 1, 2, 0], loss=Late.name)
            check = fastloss.check_gradient(objective, W)
            assert check.passed, str(check)
            wrong = fastloss.check_gradient(altered(objective, lambda g: g + 0.3), W)
            assert wrong.worst.status == "wrong", str(wrong)
    finally:
        fastloss.unregister_loss(Late.name)


# --- what is planted is caught ---------------------------------------------------------------


@pytest.mark.one_in(2)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_wrong_gradients_are_caught(loss: Any, dtype: Any) -> None:
    objective, W = problem(loss, dtype=dtype, scale=0.1, intercept=True)
    shifted = fastloss.Objective(
        objective.X, (objective.labels + 1) % 4, loss=loss, intercept=True, backend="numpy"
    )

    def bias(gradient: np.ndarray) -> np.ndarray:
        gradient[-1] *= 1.1
        return gradient

    changes = {
        "sign": np.negative,
        "1/N": lambda gradient: gradient * 30,
        "3 %": lambda gradient: gradient * 1.03,
        "0.1 %": lambda gradient: gradient * 1.001,
        "zero": np.zeros_like,
        "bias": bias,
    }
    for name, change in changes.items():
        for f in both(objective, change):
            check = fastloss.check_gradient(f, W)
            assert not check.passed, f"{name}\n{check}"
            expected = "uneasy" if name == "0.1 %" else "wrong"
            assert check.worst.status == expected, f"{name}\n{check}"
            if name == "bias":
                assert check.worst.index is not None, str(check)
                assert check.worst.index[0] == 12, str(check)
    off_by_one = fastloss.check_gradient(lambda w: (objective.loss(w), shifted(w)[1]), W)
    assert off_by_one.worst.status == "wrong", str(off_by_one)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("factor", [0.0, 1.2])
def test_one_wrong_row_of_3073_is_found(loss: Any, factor: float) -> None:
    objective, W = problem(loss, N=10, D=3072, C=3, scale=0.01, intercept=True)
    row = 1234

    def change(gradient: np.ndarray) -> np.ndarray:
        gradient[row] *= factor
        return gradient

    for f in both(objective, change):
        check = fastloss.check_gradient(f, W, n_coordinates=20, n_directions=1)
        assert not check.passed, str(check)
        assert check.worst.status == "wrong", str(check)
        assert check.worst.block == f"row {row}", str(check)


@pytest.mark.parametrize("light", [1e-2, 1e-4])
def test_one_wrong_entry_among_large_ones_is_found(light: float) -> None:
    # A dark pixel. At 1e-4 of the others' gradient, all directions stay below 1e-4: "fine".
    objective, W = problem("softmax", D=500, scale=0.01)
    objective.X[:, 123] *= light

    def change(gradient: np.ndarray) -> np.ndarray:
        gradient[123, 2] *= 2.0
        return gradient

    for f in both(objective, change):
        check = fastloss.check_gradient(f, W, n_coordinates=10)
        np.testing.assert_equal(check.worst.index, (123, 2), err_msg=str(check))
        np.testing.assert_allclose(check.worst.relative_error, 0.5, rtol=1e-3)
        directions = {r.status for r in check.records if r.index is None}
        assert ("uneasy" in directions) == (light == 1e-2), str(check)


@dataclass(frozen=True)
class HalvedPenalty(Penalty):
    """The gradient of another convention."""

    factor: float = 0.5

    def add_gradient(self, W: Any, dW: Any) -> None:
        dW += self.factor * self.l2 * W


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_a_penalty_of_another_convention_is_caught(loss: Any, factor: float) -> None:
    # Tiny beside the data's gradient: only a check of its own shows it.
    objective, W = problem(loss, l2=1e-6, intercept=True)
    objective.penalty = HalvedPenalty(l2=1e-6, factor=factor)
    check = fastloss.check_gradient(objective, W)
    failed = [record for record in check.records if record.failed]
    assert {record.part for record in failed} == {"penalty"}, str(check)
    assert "the gradient of l2 * sum(W**2) is 2 * l2 * W" in str(check)


def test_a_penalised_bias_is_caught() -> None:
    class Penalised(fastloss.Objective):
        def _penalised(self, W: Any) -> Any:
            return W

    objective, W = problem("softmax", l2=0.1, intercept=True)
    other = fastloss.Objective.__new__(Penalised)
    other.__dict__.update(objective.__dict__)
    check = fastloss.check_gradient(other, W)
    assert not check.passed
    np.testing.assert_equal((check.worst.part, check.worst.index[0]), ("total", 12))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_caught(value: float) -> None:
    objective, W = problem("hinge", D=500)

    def change(gradient: np.ndarray) -> np.ndarray:
        gradient[321, 2] = value
        return gradient

    for f in both(objective, change):
        check = fastloss.check_gradient(f, W)
        assert not check.passed
        np.testing.assert_equal((check.worst.index, check.worst.status), ((321, 2), "wrong"))
        np.testing.assert_equal(check.max_relative_error, np.nan)
        assert "1 of 2000 entries of the gradient are not finite" in str(check)


def test_a_loss_that_breaks_beside_w_is_not_passed() -> None:
    def f(W: np.ndarray) -> tuple[float, np.ndarray]:
        return (float(W.sum()) if (W == 1).all() else np.nan), np.ones_like(W)

    check = fastloss.check_gradient(f, np.ones((2, 2)))
    np.testing.assert_equal(check.counts["wrong"], len(check.records))


# --- kinks -----------------------------------------------------------------------------------


def hinge_at_zero_margin() -> tuple[fastloss.Objective, np.ndarray]:
    """Rows whose margins against class 1 are exactly 0."""
    W = np.array([[1.0, 0.0, -2.0], [0.0, 0.5, 0.25]])
    return fastloss.Objective([[1.0, 0.0], [2.0, 2.0]], [0, 0], loss="hinge"), W


def test_a_margin_of_zero_is_a_kink_and_no_excuse() -> None:
    objective, W = hinge_at_zero_margin()
    np.testing.assert_equal(objective.loss(W), 0.0)
    check = fastloss.check_gradient(objective, W)
    assert check.passed, str(check)
    assert check.n_kinks >= check.counts["kink"] > 0, str(check)
    # Row 0 may pull its entries of columns 0 and 1 by up to 1/2 (N = 2); row 1, whose margin is 0
    # as well, lets the slope of an entry by itself reach 3/2.
    for value, status in [(0.0, "kink"), (0.2, "kink"), (-0.01, "wrong"), (1.6, "wrong")]:

        def change(gradient: np.ndarray, value: float = value) -> np.ndarray:
            gradient[0, :2] = -value, value
            return gradient

        for f in both(objective, change):
            check = fastloss.check_gradient(f, W)
            (record,) = [r for r in check.records if r.index == (0, 1)]
            np.testing.assert_equal(record.status, status, err_msg=str(check))
            assert record.kink, str(check)
            np.testing.assert_equal(check.passed, status == "kink", err_msg=str(check))


def test_a_kink_of_the_second_derivative_is_judged_like_any_point() -> None:
    objective, W = hinge_at_zero_margin()
    squared = fastloss.Objective(objective.X, objective.labels, loss="squared_hinge", l2=0.1)
    squared.X[1] = [-2.0, 2.0]  # active, so that there is a gradient to judge
    check = fastloss.check_gradient(squared, W)
    assert check.passed, str(check)
    (entry,) = [r for r in check.records if r.part == "data" and r.index == (0, 1)]
    np.testing.assert_equal((entry.kink, entry.status in ("fine", "good")), (True, True))


@pytest.mark.parametrize("value", [0.0, 0.09, -0.09, 0.11, -0.2, 1e9])
def test_l1_at_zero_takes_any_slope_between_and_no_other(value: float) -> None:
    objective, W = problem("softmax", l1=0.1)
    W[:] = 0.0

    class Slope(Penalty):
        def add_gradient(self, W: Any, dW: Any) -> None:
            dW += value

    objective.penalty = Slope(l1=0.1)
    check = fastloss.check_gradient(objective, W)
    entries = [r for r in check.records if r.part == "penalty" and r.index is not None]
    expected = "kink" if abs(value) < 0.1 else "wrong"
    np.testing.assert_equal({record.status for record in entries}, {expected})
    np.testing.assert_equal(check.passed, abs(value) < 0.1)

    def callable_(w: np.ndarray) -> tuple[float, np.ndarray]:
        return 0.1 * float(np.abs(w).sum()), np.full_like(w, value)

    plain = fastloss.check_gradient(callable_, W, n_directions=0)
    if value:  # 0 is also the mean of the two slopes
        np.testing.assert_equal({record.status for record in plain.records}, {expected})
    np.testing.assert_equal(plain.passed, abs(value) < 0.1)


@pytest.mark.parametrize("distance", [4e-6, 4e-7, 4e-8])
def test_a_kink_beside_w_is_met_and_left_by_a_smaller_step(distance: float) -> None:
    W = np.full((3, 3), distance)
    objective = fastloss.Objective(np.eye(3), [0, 1, 2], l1=0.1)
    for slope, passed in [(0.1, True), (0.0, False), (-0.1, False), (0.04, False)]:

        def f(w: np.ndarray, slope: float = slope) -> tuple[float, np.ndarray]:
            return 0.1 * float(np.abs(w).sum()), np.full_like(w, slope)

        check = fastloss.check_gradient(f, W, n_directions=0)
        np.testing.assert_equal(check.passed, passed, err_msg=str(check))
        np.testing.assert_equal(check.counts["kink"], 0)
        if passed:
            np.testing.assert_equal(check.n_kinks, 9)
    check = fastloss.check_gradient(objective, W, n_directions=0)
    assert check.passed
    entries = [record for record in check.records if record.part == "penalty"]
    assert all(record.kink and record.status == "good" for record in entries), str(check)
    assert all(record.h < distance for record in entries), str(check)


def test_raw_images_meet_kinks_and_pass() -> None:
    loss = fastloss.Hinge(margin=0.0)  # about where the margins of a small W are
    objective, W = problem(loss, dtype=np.uint8, N=100, D=300, C=10, scale=1e-4)
    check = fastloss.check_gradient(objective, W)
    assert check.passed, str(check)
    assert check.n_kinks > 3, str(check)
    smooth, W = problem("softmax", dtype=np.uint8, N=100, D=300, C=10, scale=1e-4)
    check = fastloss.check_gradient(smooth, W)
    np.testing.assert_equal((check.passed, check.n_kinks), (True, 0))
    assert "the loss is smooth" in str(check)


# --- what cannot be judged -------------------------------------------------------------------


def test_gradients_below_1e_10_are_too_small_and_nothing_judged_is_no_pass() -> None:
    objective, W = problem("softmax")
    tiny = fastloss.check_gradient(
        lambda w: (1e-11 * objective.loss(w), -1e-11 * objective(w)[1]), W
    )
    np.testing.assert_equal(tiny.counts["too small"], len(tiny.records))
    np.testing.assert_equal((tiny.passed, tiny.max_relative_error), (False, np.nan))
    assert "nothing is large enough to judge" in str(tiny)
    assert tiny.worst in tiny.records


def test_rounding_is_not_called_wrong_and_hides_no_more_than_itself() -> None:
    """Beside a large constant the quotient has few digits left."""
    objective, W = problem("softmax")

    def f(scale: float) -> Callable[[np.ndarray], Any]:
        def loss_and_gradient(w: np.ndarray) -> Any:
            loss, gradient = objective(w)
            gradient[::2] *= scale
            gradient[1::2] *= 1e-4  # these rows drown in it
            return loss + 1e5, gradient

        return loss_and_gradient

    right = fastloss.check_gradient(f(1.0), W, n_directions=0)
    odd = [record for record in right.records if record.index[0] % 2]
    assert all(r.failed for r in odd if abs(r.numerical) > 1e-3), str(right)
    assert not any(r.failed for r in right.records if r.index[0] % 2 == 0), str(right)
    wrong = fastloss.check_gradient(f(1.1), W, n_directions=0)
    even = [r for r in wrong.records if r.index[0] % 2 == 0 and abs(r.numerical) > 1e-3]
    assert len(even) > 10
    assert all(record.failed for record in even), str(wrong)


def test_large_scores_behind_a_small_loss_are_not_called_wrong() -> None:
    for seed, scale in product(range(6), (30.0, 300.0)):
        objective, W = problem("softmax", D=20, N=40, scale=scale, seed=seed)
        y = (objective.X @ W).argmax(axis=1)
        sure = fastloss.Objective(objective.X, y, backend="numpy")
        for f in (sure, lambda w, f=sure: f(w)) if scale < 100 else (sure,):
            check = fastloss.check_gradient(f, W)
            assert not any(record.failed for record in check.records), str(check)


def test_float32_inside_is_hinted_at() -> None:
    def f(w: np.ndarray) -> tuple[np.float32, np.ndarray]:
        return np.square(w, dtype=np.float32, casting="same_kind").sum(), 2.0 * w

    check = fastloss.check_gradient(f, np.random.default_rng(0).standard_normal((4, 3)))
    assert not check.passed
    assert "every loss is a float32 number" in str(check)


# --- where it looks --------------------------------------------------------------------------


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


def test_w_is_never_handed_out_and_buffers_are_copied() -> None:
    W = np.random.default_rng(0).standard_normal((3, 4))
    before = W.copy()
    buffer = np.empty_like(W)

    def f(w: np.ndarray) -> tuple[float, np.ndarray]:
        loss = float((w**3).sum())
        # A buffer that is used again, for what has nothing to do with W any more.
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


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"h": -1.0}, ValueError, "h must be finite and > 0"),
        ({"n_coordinates": 0}, ValueError, "n_coordinates must be >= 1, got 0"),
        ({"n_directions": -1}, ValueError, "n_directions must be >= 0"),
        ({"max_rows": 2.5}, TypeError, r"max_rows must be an integer, got 2\.5"),
        ({"W": 1e15 * np.ones((12, 4))}, ValueError, "h = 1e-05 does not change W"),
        ({"W": np.ones((11, 4))}, ValueError, "W must have 12 rows"),
        ({"W": np.ones((12, 4), complex)}, TypeError, "W must hold real numbers"),
        ({"W": np.ones((0, 4))}, ValueError, "W must be a non-empty array"),
        ({"W": np.full((12, 4), np.nan)}, ValueError, "the loss at W is nan"),
    ],
)
def test_errors(options: dict[str, Any], error: Any, message: str) -> None:
    objective, W = problem("softmax")
    with pytest.raises(error, match=message):
        fastloss.check_gradient(objective, **{"W": W, **options})


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (7, TypeError, "Objective or callable, got int"),
        (lambda w: w.sum(), TypeError, r"must return \(loss, gradient\), got float64"),
        (lambda w: (w, w), TypeError, "the loss must be a number, got ndarray"),
        (lambda w: (1.0, w.T), ValueError, r"shape of W, \(2, 3\), got \(3, 2\)"),
        (lambda w: (1.0, w.ravel()), ValueError, r"shape of W, \(2, 3\), got \(6,\)"),
        (lambda w: (1.0, w * 1j), TypeError, "the gradient must hold real numbers"),
    ],
)
def test_errors_of_f(f: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        fastloss.check_gradient(f, np.ones((2, 3)))
