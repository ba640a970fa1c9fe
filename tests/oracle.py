"""Define the losses by their formulas, as a reference for every backend.

The code is slow and short on purpose. The same formulas run on mpmath numbers (exact for these
tests) and on NumPy's long doubles. They share only the parameters of a loss with the package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import mpmath
import numpy as np

import fastloss
from fastloss.kernels.limits import Limits

BACKENDS = fastloss.available_backends()
#: Limits that choose one kernel for every problem: that for few rows, and the wide one on vectors
#: or on a matrix unit.
KERNELS = {
    "fused_few_rows": Limits(narrow_classes=math.inf, few_rows=math.inf, many_features=0),
    "fused_vectors": Limits(narrow_classes=0, matrix_rows=math.inf),
    "fused_amx": Limits(narrow_classes=0, matrix_rows=0, matrix_sum=0),
}
#: The backends that tests run; `conftest` registers those of `KERNELS` for tests that take them.
WAYS = [*BACKENDS, *(KERNELS if "fused" in BACKENDS else ())]

#: All registered losses, and variants of their parameters.
LOSSES: dict[str, fastloss.Loss] = {
    **{name: fastloss.losses.get_loss(name) for name in fastloss.available_losses()},
    "softmax_smoothed": fastloss.Softmax(label_smoothing=0.1),
    "hinge_margin_0": fastloss.Hinge(margin=0.0),
    "hinge_margin_2.5": fastloss.Hinge(margin=2.5),
    "hinge_true_class": fastloss.Hinge(margin=0.75, include_true_class=True),
    "hinge_mean": fastloss.Hinge(class_reduction="mean"),
    "squared_hinge_all": fastloss.Hinge(0.5, 2, include_true_class=True, class_reduction="mean"),
    "crammer_singer_0.25": fastloss.CrammerSinger(margin=0.25),
    "one_vs_all_squared": fastloss.OneVsAll(margin=0.5, power=2),
}

#: Promised accuracy: error of the loss over the sum of its absolute terms, and error of the
#: gradient over its largest entry.
TOLERANCES = {np.dtype(np.float32): (2e-6, 1e-5), np.dtype(np.float64): (1e-13, 1e-12)}

#: Least distance of a margin from 0, so that float32 stays on the same side of each kink.
KINK_DISTANCE = 1e-3

Row = tuple[Any, list[Any]]


# --- the definitions -----------------------------------------------------------------------------


def softmax(loss: fastloss.Softmax, s: list[Any], y: int, exp: Any, log: Any) -> Row:
    exponentials = [exp(s_j) for s_j in s]
    p = [e / sum(exponentials) for e in exponentials]
    q = [loss.label_smoothing / (s[0] * 0 + len(s)) for _ in s]
    q[y] += 1 - loss.label_smoothing
    value = -sum(q_j * log(p_j) for q_j, p_j in zip(q, p, strict=True) if q_j)
    return value, [p_j - q_j for q_j, p_j in zip(q, p, strict=True)]


def hinge(loss: fastloss.Hinge, s: list[Any], y: int, exp: Any, log: Any) -> Row:
    terms = len(s) - (not loss.include_true_class) if loss.class_reduction == "mean" else 1
    value, gradient = s[0] * 0, [s[0] * 0 for _ in s]
    for j in range(len(s)):
        margin = s[j] - s[y] + loss.margin
        if j == y and not loss.include_true_class:
            continue
        if margin > 0:
            value += margin**loss.power / terms
            slope = loss.power * margin ** (loss.power - 1) / terms
            gradient[j] += slope
            gradient[y] -= slope
    return value, gradient


def crammer_singer(loss: fastloss.CrammerSinger, s: list[Any], y: int, exp: Any, log: Any) -> Row:
    rivals = [j for j in range(len(s)) if j != y]
    best = max(rivals, key=lambda j: s[j])  # the first of equals
    margin = s[best] - s[y] + loss.margin
    gradient = [s[0] * 0 for _ in s]
    if margin > 0:
        gradient[best] += 1
        gradient[y] -= 1
    return max(margin, margin * 0), gradient


def one_vs_all(loss: fastloss.OneVsAll, s: list[Any], y: int, exp: Any, log: Any) -> Row:
    value, gradient = s[0] * 0, [s[0] * 0 for _ in s]
    for j in range(len(s)):
        target = 1 if j == y else -1
        margin = loss.margin - target * s[j]
        if margin > 0:
            value += margin**loss.power
            gradient[j] = -target * loss.power * margin ** (loss.power - 1)
    return value, gradient


DEFINITIONS: dict[type[fastloss.Loss], Callable[..., Row]] = {
    fastloss.Softmax: softmax,
    fastloss.Hinge: hinge,
    fastloss.CrammerSinger: crammer_singer,
    fastloss.OneVsAll: one_vs_all,
}


@cache
def exact_row(loss: fastloss.Loss, scores: tuple[float, ...], label: int) -> Row:
    """Return loss and gradient of a row, to 50 digits beyond the smallest probability's first."""
    spread = max(scores) - min(scores)
    with mpmath.workdps(50 + int(spread / 2.3)):
        s = [mpmath.mpf(score) for score in scores]
        value, gradient = DEFINITIONS[type(loss)](loss, s, label, mpmath.exp, mpmath.log)
        return float(value), [float(g) for g in gradient]


# --- the whole objective, straightforward --------------------------------------------------------


class Exact(NamedTuple):
    """A loss, its gradient, and the sum of the absolute terms of the loss."""

    loss: float
    dW: np.ndarray
    terms: float


def reference(
    W: np.ndarray,
    X: np.ndarray,
    y: np.ndarray,
    loss: fastloss.Loss,
    *,
    l1: float = 0.0,
    l2: float = 0.0,
    intercept: bool = False,
    sample_weight: np.ndarray | None = None,
    class_weight: Any = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Exact:
    """Compute `fastloss.loss_and_grad` row by row in long doubles."""
    wide = np.longdouble
    weights, features = W.astype(wide), X.astype(wide)
    if intercept:
        features = np.hstack([features, np.ones((len(X), 1), wide)])
    counted = [
        i
        for i in range(len(y))
        if (ignore_index is None or y[i] != ignore_index)
        and (sample_weight is None or sample_weight[i] != 0)
    ]
    if isinstance(class_weight, str):
        counts = {c: sum(int(y[i]) == c for i in counted) for c in {int(y[i]) for i in counted}}
        class_weight = {c: len(counted) / (len(counts) * count) for c, count in counts.items()}
    total, terms, total_weight, dW = wide(0), wide(0), wide(0), np.zeros_like(weights)
    for i in counted:
        weight = wide(1 if sample_weight is None else float(sample_weight[i]))
        weight *= (class_weight or {}).get(int(y[i]), 1)
        scores = list(features[i] @ weights)
        value, gradient = DEFINITIONS[type(loss)](loss, scores, int(y[i]), np.exp, np.log)
        gradient = np.array(gradient, wide)
        total += weight * value
        # Products may cancel in a score, but their rounding errors do not.
        terms += weight * (value + np.abs(features[i]) @ np.abs(weights) @ np.abs(gradient))
        total_weight += weight
        dW += weight * np.outer(features[i], gradient)
    if reduction == "mean":
        total, terms, dW = total / total_weight, terms / total_weight, dW / total_weight
    penalised = slice(0, -1) if intercept else slice(None)
    penalty = l1 * np.abs(weights[penalised]).sum() + l2 * (weights[penalised] ** 2).sum()
    dW[penalised] += l1 * np.sign(weights[penalised]) + 2 * l2 * weights[penalised]
    return Exact(float(total + penalty), dW.astype(np.float64), float(terms + penalty))


def assert_close(
    actual: tuple[float, np.ndarray], expected: tuple[float, np.ndarray] | Exact, dtype: Any
) -> None:
    """Assert that loss and gradient are within `TOLERANCES` of the expected ones.

    The error of the loss is relative to the sum of its absolute terms if known, else to the loss.
    """
    loss_tolerance, gradient_tolerance = TOLERANCES[np.dtype(dtype)]
    size = expected.terms if isinstance(expected, Exact) else expected[0]
    np.testing.assert_allclose(actual[0], expected[0], rtol=0, atol=loss_tolerance * size)
    largest = np.abs(expected[1]).max()
    np.testing.assert_allclose(
        actual[1], expected[1], rtol=0, atol=gradient_tolerance * largest, strict=False
    )


# --- data away from kinks ------------------------------------------------------------------------


def kink_distances(loss: fastloss.Loss, scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the distance (N,) of each row's margins from the nearest kink of the loss."""
    rows = np.arange(len(y))
    wrong = np.arange(scores.shape[1]) != y[:, None]
    if isinstance(loss, fastloss.OneVsAll):
        return np.abs(loss.margin - np.where(wrong, -1, 1) * scores).min(axis=1)
    if isinstance(loss, fastloss.Hinge):
        margins = scores - scores[rows, y][:, None] + loss.margin
        return np.where(wrong, np.abs(margins), np.inf).min(axis=1)
    if isinstance(loss, fastloss.CrammerSinger):
        rivals = np.sort(np.where(wrong, scores, -np.inf), axis=1)
        lead = np.abs(rivals[:, -1] - scores[rows, y] + loss.margin)
        return np.minimum(lead, rivals[:, -1] - rivals[:, -2])
    return np.full(len(y), np.inf)


@dataclass(frozen=True)
class Data:
    """A random problem without rows near a kink of any loss in `LOSSES`."""

    W: np.ndarray
    X: np.ndarray
    y: np.ndarray


def make_data(
    n_rows: int,
    n_features: int,
    n_classes: int,
    X_type: Any = np.float64,
    W_type: Any = np.float64,
    *,
    intercept: bool = False,
    seed: int = 0,
) -> Data:
    """Draw rows until enough of them keep `KINK_DISTANCE`."""
    rng = np.random.default_rng(seed)
    scale = 1 / 150 if np.dtype(X_type) == np.uint8 else 1.0
    W = (rng.standard_normal((n_features + intercept, n_classes)) * scale).astype(W_type)
    W /= np.sqrt(n_features).astype(W_type)
    kept_X, kept_y = [np.empty((0, n_features), X_type)], [np.empty(0, np.int64)]
    while sum(map(len, kept_y)) < n_rows:
        if np.dtype(X_type) == np.uint8:
            X = rng.integers(0, 256, (2 * n_rows, n_features), np.uint8)
        else:
            X = rng.standard_normal((2 * n_rows, n_features)).astype(X_type)
        y = rng.integers(0, n_classes, 2 * n_rows)
        scores = X @ W[:n_features].astype(np.float64)
        scores += W[-1] if intercept else 0.0
        distances = [kink_distances(loss, scores, y) for loss in LOSSES.values()]
        away = np.min(distances, axis=0) > KINK_DISTANCE
        kept_X.append(X[away])
        kept_y.append(y[away])
    return Data(W, np.concatenate(kept_X)[:n_rows], np.concatenate(kept_y)[:n_rows])


def layouts(X: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the numbers of ``X`` in every layout in memory, by name."""
    yield "C", np.ascontiguousarray(X)
    yield "F", np.asfortranarray(X)
    larger = np.full((2 * len(X), 2 * X.shape[1]), 77, X.dtype)
    larger[::2, ::2] = X
    yield "strided", larger[::2, ::2]
    yield "reversed", np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1]
    yield "offset", np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(X.dtype).reshape(X.shape)
    frozen = X.copy()
    frozen.flags.writeable = False
    yield "readonly", frozen
