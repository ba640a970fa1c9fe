"""Functions as users write them: right ones in many styles, and wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np


def softmax(W: Any, X: Any, y: Any) -> tuple[Any, Any]:
    """The usual one: the log of a probability."""
    scores = X @ W
    scores -= scores.max(axis=1, keepdims=True)
    p = np.exp(scores)
    p /= p.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(p[rows, y]).mean()
    p[rows, y] -= 1
    return loss, X.T @ p / len(y)


def log_sum_exp(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    scores = X @ W
    scores = scores - scores.max(axis=1, keepdims=True)
    z = np.exp(scores).sum(axis=1)
    loss = np.mean(np.log(z) - scores[np.arange(len(y)), y])
    p = np.exp(scores) / z[:, None]
    return float(loss), X.T @ (p - np.eye(W.shape[1])[y]) / len(y)


def one_hot(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    """0 * log 0 is NaN at far-apart scores."""
    target = np.eye(W.shape[1])[y]
    scores = X @ W
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return -(target * np.log(p)).sum() / len(y), X.T @ (p - target) / len(y)


def ten_classes(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    """Right for ten classes, and a broadcast error for others."""
    target = np.eye(10)[y]
    scores = X @ W
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return -np.log((p * target).sum(1)).sum() / len(y), X.T @ (p - target) / len(y)


def hundred_rows(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    """Divides by its own number of rows: wrong for others, without an exception."""
    loss, dW = log_sum_exp(W, X, y)
    return loss * len(y) / 100, dW * len(y) / 100


def hundred_features(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    return log_sum_exp(W, X.reshape(-1, 100), y)


def label_plus_one(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    """An IndexError at the last class."""
    scores, rows = X @ W, np.arange(len(y))
    z = np.exp(scores - scores.max(1, keepdims=True))
    p = z / z.sum(1, keepdims=True)
    loss = -np.log(p[rows, y + 1]).mean()
    p[rows, y + 1] -= 1
    return loss, X.T @ p / len(y)


def penalised_over_rows(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return loss + 0.1 / len(y) * (W * W).sum(), dW + 0.2 / len(y) * W


def penalised_loss_only(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return loss + 0.1 * (W * W).sum(), dW


def penalised_gradient_only(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return loss, dW + 0.2 * W


def penalised_sum(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return len(y) * loss + 0.1 * (W * W).sum(), len(y) * dW + 0.2 * W


def lasso(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return loss + 0.1 * np.abs(W).sum(), dW + 0.1 * np.sign(W)


def bias_first(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    return log_sum_exp(W, np.hstack([np.ones((len(X), 1), X.dtype), X]), y)


def of_random_rows(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    chosen = np.random.default_rng().choice(len(y), max(1, len(y) // 2))
    return log_sum_exp(W, X[chosen], y[chosen])


def clipped(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return min(loss, 69.0), dW


def with_db(W: Any, X: Any, y: Any) -> tuple[float, Any, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return loss, dW, dW.sum(0)


def loss_in_an_array(W: Any, X: Any, y: Any) -> tuple[Any, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return np.array([loss]), dW


def of_tensors(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    raise TypeError("mm(): argument 'input' must be Tensor, not numpy.ndarray")


def int32_labels(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    """As a compiled signature of int32 labels."""
    if y.dtype != np.int32:
        raise TypeError(f"no definition for {y.dtype} labels")
    return log_sum_exp(W, X, y)


def hinge(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    rows = np.arange(len(y))
    scores = X @ W
    margins = np.maximum(0, scores - scores[rows, y][:, None] + 1)
    margins[rows, y] = 0
    mask = (margins > 0).astype(X.dtype)
    mask[rows, y] = -mask.sum(axis=1)
    return margins.sum() / len(y), X.T @ mask / len(y)


def hinge_from_the_right(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    """Another subgradient at the kink: the one with >=."""
    rows = np.arange(len(y))
    scores = X @ W
    margins = scores - scores[rows, y][:, None] + 1
    margins[rows, y] = -1
    mask = (margins >= 0).astype(X.dtype)
    mask[rows, y] = -mask.sum(axis=1)
    return np.maximum(margins, 0).sum() / len(y), X.T @ mask / len(y)


def crammer_singer_last_tie(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    """Ties go to the highest class; the package takes the lowest."""
    rows = np.arange(len(y))
    scores = X @ W
    augmented = scores + 1
    augmented[rows, y] -= 1
    best = augmented.shape[1] - 1 - augmented[:, ::-1].argmax(axis=1)
    dscores = np.zeros_like(scores)
    dscores[rows, best] += 1
    dscores[rows, y] -= 1
    return (augmented[rows, best] - scores[rows, y]).mean(), X.T @ dscores / len(y)


def float32_inside(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    """Computes in float32, adds up the loss in float64, returns float64."""
    loss, dW = log_sum_exp(W.astype(np.float32), X.astype(np.float32), y)
    return loss, dW.astype(np.float64)


def float32_gradient(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    """The loss is float64's; the gradient is rounded to float32."""
    loss, dW = log_sum_exp(W, X, y)
    return loss, dW.astype(np.float32)


def refuses_float64(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    if W.dtype != np.float32 or X.dtype != np.float32:
        raise TypeError("No matching definition for argument type(s) array(float64, 2d, C)")
    if not (W.flags.c_contiguous and X.flags.c_contiguous):
        raise TypeError("No matching definition for argument type(s) array(float32, 2d, A)")
    loss, dW = log_sum_exp(W, X, y)
    return loss, dW.astype(np.float32)


def refuses_float32(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    if W.dtype != np.float64:
        raise TypeError("float64 only")
    return log_sum_exp(W, X, y)


def columns(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W.T, X, y)
    return loss, dW.T


def data_first(X: Any, y: Any, W: Any) -> tuple[float, Any]:
    return log_sum_exp(W, X, y)


def penalised(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return loss + 0.1 * np.sum(W * W), dW + 0.2 * W


def half_penalised(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return loss + 0.5 * 0.1 * np.sum(W * W), dW + 0.1 * W


def with_bias(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    ones = np.ones((len(X), 1), X.dtype)
    return log_sum_exp(W, np.hstack([X, ones]), y)


def everything(X: Any, y: Any, W: Any) -> tuple[float, Any]:
    """Another order, (C, D + 1) weights, a penalty that spares the bias."""
    loss, dW = with_bias(W.T, X, y)
    penalty = np.array(0.1 * W)
    penalty[:, -1] = 0
    return loss + (penalty * W).sum(), dW.T + 2 * penalty


# Wrong functions


def summed(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return loss * len(y), dW * len(y)


def gradient_summed(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return loss, dW * len(y)


def base_two(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return loss / np.log(2), dW


def wrong_sign(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return loss, -dW


def unshifted(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    p = np.exp(X @ W)
    p /= p.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(p[rows, y]).mean()
    p[rows, y] -= 1
    return loss, X.T @ p / len(y)


def shifted_by_the_largest_of_all(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    """Rows whose scores all lie far below another row's underflow."""
    scores = X @ W
    p = np.exp(scores - scores.max())
    p /= p.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(p[rows, y]).mean()
    p[rows, y] -= 1
    return loss, X.T @ p / len(y)


def over_rows(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    p = np.exp(X @ W)
    p /= p.sum(axis=0)
    rows = np.arange(len(y))
    loss = -np.log(p[rows, y]).mean()
    p[rows, y] -= 1
    return loss, X.T @ p / len(y)


def no_one_subtracted(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return loss, dW + X.T @ np.eye(W.shape[1])[y] / len(y)


def labels_from_one(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    return log_sum_exp(W, X, y - 1)


def epsilon_in_the_log(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    _, dW = log_sum_exp(W, X, y)
    scores = X @ W
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return -np.log(p[np.arange(len(y)), y] + 1e-8).mean(), dW


def true_class_counted(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = hinge(W, X, y)
    return loss + 1, dW


def no_true_class(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    scores = X @ W
    rows = np.arange(len(y))
    margins = np.maximum(0, scores - scores[rows, y][:, None] + 1)
    margins[rows, y] = 0
    return margins.sum() / len(y), X.T @ (margins > 0) / len(y)


def mean_over_classes(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    """PyTorch's multi_margin_loss."""
    loss, dW = hinge(W, X, y)
    return loss / W.shape[1], dW / W.shape[1]


def half_gradient_of_penalty(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = log_sum_exp(W, X, y)
    return loss + 0.1 * np.sum(W * W), dW + 0.1 * W


def bias_penalised(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = with_bias(W, X, y)
    return loss + 0.1 * np.sum(W * W), dW + 0.2 * W


def bias_of_zero(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    loss, dW = with_bias(W, X, y)
    dW[-1] = 0
    return loss, dW


def swapped(W: Any, X: Any, y: Any) -> Any:
    return log_sum_exp(W, X, y)[::-1]


def nothing(W: Any, X: Any, y: Any) -> None:
    log_sum_exp(W, X, y)


def loss_alone(W: Any, X: Any, y: Any) -> float:
    return log_sum_exp(W, X, y)[0]


def gradient_alone(W: Any, X: Any, y: Any) -> Any:
    return log_sum_exp(W, X, y)[1]


def losses_of_rows(W: Any, X: Any, y: Any) -> Any:
    loss, dW = log_sum_exp(W, X, y)
    return np.full(len(y), loss), dW


def transposed(W: Any, X: Any, y: Any) -> Any:
    loss, dW = log_sum_exp(W, X, y)
    return loss, dW.T


def flat(W: Any, X: Any, y: Any) -> Any:
    loss, dW = log_sum_exp(W, X, y)
    return loss, dW.ravel()


def of_scores(W: Any, X: Any, y: Any) -> Any:
    loss, _ = log_sum_exp(W, X, y)
    return loss, X @ W


def changes_w(W: Any, X: Any, y: Any) -> Any:
    result = log_sum_exp(W, X, y)
    W *= 2
    return result


def four_arguments(W: Any, X: Any, y: Any, reg: float) -> Any:
    return log_sum_exp(W, X, y)


def two_arguments(W: Any, X: Any) -> Any:
    return 0.0, W


def divides_by_zero(W: Any, X: Any, y: Any) -> Any:
    def inner(n: int) -> float:
        return 1 / (n - n)

    return inner(len(y)), np.linalg.inv(W)


def one_row_wrong(W: Any, X: Any, y: Any) -> Any:
    loss, dW = log_sum_exp(W, X, y)
    dW[7 % len(dW)] *= 1.01
    return loss, dW


def not_a_number(W: Any, X: Any, y: Any) -> Any:
    loss, dW = log_sum_exp(W, X, y)
    dW[3, 2 % dW.shape[1]] = np.nan
    return loss, dW


def changes_x_and_y(W: Any, X: Any, y: Any) -> Any:
    result = log_sum_exp(W, X, y)
    X[0], y[0] = 0, (y[0] + 1) % 5
    return result


def rounded_slopes(W: Any, X: Any, y: Any) -> Any:
    """Computes in float32, and too roughly for it."""
    loss, dW = log_sum_exp(W.astype(np.float32), X.astype(np.float32), y)
    return loss, dW.astype(np.float16)


def hinge_beyond_its_kinks(W: Any, X: Any, y: Any) -> Any:
    """The slope at a kink is 3; 0 to 1 are right."""
    rows = np.arange(len(y))
    scores = X @ W
    margins = scores - scores[rows, y][:, None] + 1
    margins[rows, y] = -1
    mask = np.where(margins > 0, 1.0, np.where(margins == 0, 3.0, 0.0))
    mask[rows, y] = -mask.sum(axis=1)
    return np.maximum(margins, 0).sum() / len(y), X.T @ mask / len(y)


def loops(W: Any, X: Any, y: Any) -> Any:
    """Plain loops for Numba; the loss adds up in float64."""
    loss, dW = 0.0, np.zeros_like(W)
    for i in range(len(X)):
        scores = np.zeros(W.shape[1], W.dtype)
        for d in range(len(W)):
            for j in range(len(scores)):
                scores[j] += X[i, d] * W[d, j]
        scores -= scores.max()
        z = np.exp(scores).sum()
        loss += np.log(z) - scores[y[i]]
        for j in range(len(scores)):
            slope = np.exp(scores[j]) / z - (1.0 if j == y[i] else 0.0)
            for d in range(len(W)):
                dW[d, j] += slope * X[i, d] / len(X)
    return loss / len(X), dW


def loops_of_columns(W: Any, X: Any, y: Any) -> Any:
    """The same for W (C, D)."""
    loss, dW = 0.0, np.zeros_like(W)
    for i in range(len(X)):
        scores = np.zeros(len(W), W.dtype)
        for j in range(len(W)):
            for d in range(W.shape[1]):
                scores[j] += X[i, d] * W[j, d]
        scores -= scores.max()
        z = np.exp(scores).sum()
        loss += np.log(z) - scores[y[i]]
        for j in range(len(W)):
            slope = np.exp(scores[j]) / z - (1.0 if j == y[i] else 0.0)
            for d in range(W.shape[1]):
                dW[j, d] += slope * X[i, d] / len(X)
    return loss / len(X), dW


def of_one_hot(W: Any, X: Any, Y: Any) -> Any:
    return log_sum_exp(W, X, (Y @ np.arange(Y.shape[1])).astype(int))


def of_columns(W: Any, X: Any, y: Any) -> Any:
    """Takes W (C, D) and X (D, N)."""
    loss, dW = log_sum_exp(W.T, X.T, y)
    return loss, dW.T


def columns_in_float32(W: Any, X: Any, y: Any) -> Any:
    loss, dW = refuses_float64(np.ascontiguousarray(W.T), X, y)
    return loss, dW.T


def complex_numbers(W: Any, X: Any, y: Any) -> Any:
    loss, dW = log_sum_exp(W, X, y)
    return loss, dW.astype(complex)


def dictionary(W: Any, X: Any, y: Any) -> Any:
    loss, dW = log_sum_exp(W, X, y)
    return {"loss": loss, "gradient": dW}


def no_gradient(W: Any, X: Any, y: Any) -> Any:
    return float(log_sum_exp(W, X, y)[0]), None


def infinite(W: Any, X: Any, y: Any) -> Any:
    return np.inf, np.full(W.shape, np.inf)


def labels_from_one_penalised(W: Any, X: Any, y: Any) -> Any:
    return penalised(W, X, y - 1)


def infinite_loss_at_large_scores(W: Any, X: Any, y: Any) -> Any:
    loss, dW = log_sum_exp(W, X, y)
    return np.inf if (X @ W).min() > 1000 else loss, dW


def right_one_way(A: Any, B: Any, C: Any) -> Any:
    """Right as f(X, y, W); returns zeros for W (C, D)."""
    if C.ndim == 2:
        return log_sum_exp(C, A, B)
    if A.shape[0] != 5:
        raise ValueError("wrong shapes")
    return 0.0, np.zeros_like(A)


def penalised_by_a_third(W: Any, X: Any, y: Any) -> Any:
    loss, dW = log_sum_exp(W, X, y)
    return loss + np.sum(W * W) / 3, dW + 2 * W / 3


def nan_at_zero(W: Any, X: Any, y: Any) -> Any:
    return log_sum_exp(W * (np.abs(W).max() / np.abs(W).max()), X, y)


def fails_for_seven(W: Any, X: Any, y: Any) -> Any:
    if len(X) == 7:
        raise ValueError("seven")
    return log_sum_exp(W, X, y)
