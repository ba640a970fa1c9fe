"""Solutions of the exercises, in the order of the lessons. Try the exercises first.

Numba is imported only where a solution needs it: browsers have none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import fastloss
from fastloss.lessons.tools import peak_bytes

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
Pixels = NDArray[np.uint8]

# --- Lesson 1: the naive loop ---------------------------------------------------------------------


def line_hits(n_rows: int, n_features: int, n_classes: int) -> tuple[int, int]:
    """Return how often ``scores[c] += ...`` runs, and how often ``math.exp``.

    The ratio is D, so only fewer features raise the share of ``exp``. N and C multiply both counts.
    """
    return n_rows * n_features * n_classes, n_rows * n_classes


def naive_on_lists(W: Floats, X: Floats, y: Labels) -> tuple[float, Floats]:
    """Run the softmax loop on Python floats: about three times as fast as on arrays."""
    columns = [column.tolist() for column in W.T]
    gradient = [[0.0] * len(W) for _ in columns]
    loss = 0.0
    for row, label in zip(X.tolist(), y.tolist(), strict=True):
        scores = []
        for column in columns:
            score = 0.0
            for d in range(len(row)):
                score += row[d] * column[d]
            scores.append(score)
        top = max(scores)
        powers = [math.exp(s - top) for s in scores]
        total = sum(powers)
        loss += math.log(total) - (scores[label] - top)
        for c in range(len(columns)):
            slope = (powers[c] / total - (c == label)) / len(X)
            own = gradient[c]
            for d in range(len(row)):
                own[d] += row[d] * slope
    return loss / len(X), np.array(gradient).T


def share_from_speedup(whole: float, part: float) -> float:
    """Return the part's share p of the time: solve ``whole = 1 / (1 - p + p / part)`` for p."""
    return (1 - 1 / whole) / (1 - 1 / part)


# --- Lesson 2: vectorising ------------------------------------------------------------------------


def hinge_in_place(W: Floats, X: Floats, y: Labels) -> tuple[float, Floats]:
    """Compute the multiclass SVM in one matrix: scores, then margins, violations and slopes."""
    rows = np.arange(len(X))
    scores = X @ W
    scores -= scores[rows, y, None] - scores.dtype.type(1)
    scores[rows, y] = 0
    np.maximum(scores, 0, out=scores)
    loss = float(scores.sum(dtype=np.float64)) / len(X)
    np.sign(scores, out=scores)
    scores[rows, y] = -scores.sum(axis=1)
    scores /= len(X)
    return loss, X.T @ scores


def softmax_of_bytes(
    W: Floats, pixels: Pixels, y: Labels, block_rows: int = 64
) -> tuple[float, Floats]:
    """Compute the softmax loss on ``pixels / 255``: scale ``W``, and convert block by block."""
    scale = W.dtype.type(255)
    scaled = W / scale
    dW = np.zeros_like(W)
    loss = 0.0
    for start in range(0, len(pixels), block_rows):
        block = pixels[start : start + block_rows].astype(W.dtype)
        labels = y[start : start + block_rows]
        rows = np.arange(len(block))
        slopes = block @ scaled
        slopes -= slopes.max(axis=1, keepdims=True)
        correct = slopes[rows, labels]
        np.exp(slopes, out=slopes)
        totals = slopes.sum(axis=1)
        loss += float((np.log(totals) - correct).sum(dtype=np.float64))
        slopes /= totals[:, None]
        slopes[rows, labels] -= 1
        dW += block.T @ slopes
    return loss / len(pixels), dW / (scale * len(pixels))


def peak_of_one_expression(scores: Floats) -> float:
    """Return the peak of ``exp(S - max) / exp(S - max).sum()``, in matrices like ``S``: 3.

    While the second ``exp`` runs, three matrices are alive: the first ``exp``, the second
    difference, and the result. An array without a name dies after the operation that uses it.
    """

    def probabilities() -> Floats:
        return np.asarray(np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum())

    return peak_bytes(probabilities) / scores.nbytes


# --- Lesson 3: compiling --------------------------------------------------------------------------


def hinge_loop(W: Any, X: Any, y: Any) -> Any:
    """Compute the multiclass SVM as a loop, with the adjacent weights of a row innermost.

    ``numba.njit(hinge_loop)`` compiles it.
    """
    n_rows, n_features = X.shape
    n_classes = W.shape[1]
    dW = np.zeros_like(W)
    scores = np.zeros(n_classes)
    loss = 0.0
    for i in range(n_rows):
        scores[:] = 0.0
        for d in range(n_features):
            for c in range(n_classes):
                scores[c] += X[i, d] * W[d, c]
        slopes = np.zeros(n_classes)
        for c in range(n_classes):
            margin = scores[c] - scores[y[i]] + 1.0
            if c != y[i] and margin > 0.0:
                loss += margin
                slopes[c] = 1.0
                slopes[y[i]] -= 1.0
        for d in range(n_features):
            for c in range(n_classes):
                dW[d, c] += X[i, d] * slopes[c]
    return loss / n_rows, dW / n_rows


def count_signatures() -> int:
    """Return 5: layouts (by rows, by columns, neither) and read-only flags belong to the type."""
    import numba

    @numba.njit  # type: ignore[untyped-decorator]
    def first(a: Any) -> Any:
        return a[0, 0]

    by_rows = np.ones((4, 4))
    read_only = by_rows.copy()
    read_only.flags.writeable = False
    arrays = (
        by_rows,
        by_rows.astype(np.float32),
        np.asfortranarray(by_rows),
        by_rows[:, ::2],
        read_only,
    )
    for array in (*arrays, *arrays):
        first(array)
    return len(first.signatures)


def seconds_a_day(first_call: float, each_call: float, starts: int = 24) -> float:
    """Return seconds per day for ``starts`` processes with 20 epochs of 235 calls each."""
    return starts * (first_call + (20 * 235 - 1) * each_call)


# --- Lesson 4: one pass ---------------------------------------------------------------------------


def ridge_classes(arithmetic: float, bandwidth: float, itemsize: int) -> float:
    """Return the number of classes from which on arithmetic limits one pass.

    The intensity is ``4 N D C / (N D itemsize) = 4 C / itemsize``; the ridge is at
    ``arithmetic / bandwidth``. ``uint8`` reaches it with a quarter of float32's classes.
    """
    return arithmetic / bandwidth * itemsize / 4


def one_pass_numpy(
    W: Floats, X: Floats, y: Labels, block_bytes: int = 2**18
) -> tuple[float, Floats]:
    """Compute the softmax loss with blocks of rows that stay in the cache for both products."""
    block_rows = max(1, block_bytes // (X.shape[1] * X.itemsize))
    dW = np.zeros_like(W)
    loss = 0.0
    for start in range(0, len(X), block_rows):
        block = X[start : start + block_rows]
        losses, slopes = fastloss.score_gradient(
            block @ W, y[start : start + block_rows], loss="softmax", backend="numpy"
        )
        loss += float(losses.sum(dtype=np.float64))
        dW += block.T @ slopes
    return loss / len(X), dW / W.dtype.type(len(X))


def shortest_time(
    shape: tuple[int, int, int],
    itemsize: int,
    passes: int,
    *,
    bandwidth: float,
    arithmetic: float,
) -> float:
    """Return the seconds for reading ``X``, or for the two products, whichever is longer."""
    n_rows, n_features, n_classes = shape
    reading = passes * n_rows * n_features * itemsize / bandwidth
    computing = 4 * n_rows * n_features * n_classes / arithmetic
    return max(reading, computing)


# --- Lesson 5: numerical gradients ----------------------------------------------------------------


def softmax_of_complex(W: NDArray[Any], X: Floats, y: Labels) -> complex:
    """Return the mean softmax loss of a real or complex ``W``.

    The shift is the largest *real* part: any real constant leaves the derivative unchanged.
    """
    scores = X @ W
    shifted = scores - scores.real.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(X)), y]
    return complex(losses.mean())


def complex_step_gradient(
    f: Callable[[NDArray[Any]], complex], W: Floats, h: float = 1e-20
) -> Floats:
    """Compute ``Im f(W + i h e) / h`` for every entry."""
    gradient = np.empty(W.shape)
    probe = W.astype(complex)
    for place in np.ndindex(W.shape):
        probe[place] = complex(W[place], h)
        gradient[place] = f(probe).imag / h
        probe[place] = W[place]
    return gradient


def fourth_order_gradient(f: Callable[[Floats], float], W: Floats, h: float = 1e-3) -> Floats:
    """Combine differences over h and 2 h so that their errors of order h^2 cancel.

    The error is ``h^4 / 30 |f'''''|``: slope 4 on the right, -1 on the left, and the best h near
    ``eps**(1/5)``, 7e-4.
    """
    gradient = np.empty(W.shape)
    probe = W.copy()
    for place in np.ndindex(W.shape):

        def difference(step: float, place: tuple[int, ...] = place) -> float:
            probe[place] = W[place] + step
            above = f(probe)
            probe[place] = W[place] - step
            below = f(probe)
            probe[place] = W[place]
            return above - below

        gradient[place] = (8 * difference(h) - difference(2 * h)) / (12 * h)
    return gradient


def count_evaluations(n_parameters: int, scheme: Literal["central", "forward"]) -> int:
    """Return the evaluations of a whole numerical gradient: 2 P central, P + 1 forward."""
    calls = 0

    def f(W: Floats) -> float:
        nonlocal calls
        calls += 1
        return float((W**2).sum())

    fastloss.numerical_gradient(f, np.ones(n_parameters), scheme=scheme)
    return calls


# --- Lesson 6: gradient checks --------------------------------------------------------------------


def bug_in_hiding(
    X: Floats, y: Labels, n_classes: int
) -> tuple[Callable[[Floats], tuple[float, Floats]], Floats, Floats]:
    """Return a wrong gradient, a ``W`` that hides the error, and a ``W`` that shows it.

    The penalty's gradient has the wrong sign, and is 0 at ``W = 0``. So check where no term
    vanishes: at random weights of the size that trained ones have, not at the start.
    """
    data_loss = fastloss.Objective(X, y, loss="softmax", backend="numpy")

    def wrong(W: Floats) -> tuple[float, Floats]:
        loss, dW = data_loss(W)
        return loss + 0.1 * float((W**2).sum()), dW - 2 * 0.1 * W

    hidden = np.zeros((X.shape[1], n_classes))
    return wrong, hidden, np.random.default_rng(0).standard_normal(hidden.shape)


def statuses_at_corner(power: int) -> tuple[bool, set[str], int]:
    """Return verdict, statuses and kinks for ``max(0, m)**power`` with margins of 0 and 2.

    The hinge has two slopes at 0, and the gradient must lie between them: status "kink". The
    squared hinge has one slope at 0 and a kink only in its second derivative. The check meets that
    kink too, but compares as strictly as elsewhere.
    """
    corner = fastloss.Objective([[1.0], [1.0]], [0, 1], loss=fastloss.Hinge(power=power))
    report = fastloss.check_gradient(corner, np.array([[1.0, 0.0]]))
    return report.passed, {record.status for record in report.records}, report.n_kinks


def check_parts(
    data: Callable[[Floats], tuple[float, Floats]],
    penalty: Callable[[Floats], tuple[float, Floats]],
    W: Floats,
) -> dict[str, bool]:
    """Return whether the sum passes the check, and whether each of its two parts does.

    In the sum, a large penalty hides the data: the slopes of the data are smaller than the rounding
    of so large a loss. Checked separately, each part is compared on its own scale.
    """

    def total(W: Floats) -> tuple[float, Floats]:
        (data_loss, data_gradient), (penalty_loss, penalty_gradient) = data(W), penalty(W)
        return data_loss + penalty_loss, data_gradient + penalty_gradient

    functions = {"total": total, "data": data, "penalty": penalty}
    return {name: fastloss.check_gradient(f, W).passed for name, f in functions.items()}
