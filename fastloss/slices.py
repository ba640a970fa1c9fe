"""Evaluate an objective on a line or a plane through the space of weights.

Scores are linear in ``W``: on a line ``X (W + a W1) = S + a S1``. ``X`` is therefore read once, for
the scores of all directions together. Each point then costs a loss over (N, C) scores.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss import arrays
from fastloss.api import score_gradient
from fastloss.arrays import Floats
from fastloss.blocks import float_blocks, row_blocks
from fastloss.objective import Objective
from fastloss.settings import AUTO

Values = NDArray[np.float64]
# The scores of some points, which stay in the cache with their losses and gradients. For 100 rows
# on a 2-core machine, planes took a third of their time at 4 MB.
_POINT_BYTES = 2**17


def line(objective: Objective, W: ArrayLike, W1: ArrayLike, a: ArrayLike) -> Values:
    """Compute ``L(W + a W1)`` for every ``a``, penalty included.

    Parameters
    ----------
    objective : the loss ``L``, with its row weights, intercept and penalty.
    W, W1 : (D, C) arrays, or (D + 1, C) with an intercept: a point and a direction.
    a : (A,) numbers.

    Returns
    -------
    losses : (A,) float64. All arithmetic is in float64, whatever the dtype of ``X``.

    Raises
    ------
    TypeError, ValueError : an array of the wrong kind or shape; the message names it.

    Examples
    --------
    >>> import numpy as np, fastloss
    >>> objective = fastloss.Objective(np.eye(2), [0, 1], loss="hinge")
    >>> line(objective, np.zeros((2, 2)), np.eye(2), [0.0, 0.5, 1.0, 2.0])
    array([1. , 0.5, 0. , 0. ])
    """
    steps = _steps("a", a)
    return _values(objective, {"W": W, "W1": W1}, np.stack([np.ones_like(steps), steps], axis=1))


def plane(
    objective: Objective,
    W: ArrayLike,
    W1: ArrayLike,
    W2: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    *,
    backend: str = AUTO,
) -> Values:
    """Compute ``L(W + a W1 + b W2)`` (A, B) for every ``a`` and ``b``; otherwise as `line`.

    ``backend`` computes the losses from the scores: see `score_gradient`.
    """
    along_1, along_2 = _steps("a", a), _steps("b", b)
    grid = np.meshgrid(along_1, along_2, indexing="ij")
    steps = np.stack([np.ones(grid[0].size), *(axis.ravel() for axis in grid)], axis=1)
    named = {"W": W, "W1": W1, "W2": W2}
    return _values(objective, named, steps, backend).reshape(grid[0].shape)


def random_direction(W: ArrayLike, seed: int = 0) -> Floats:
    """Draw a random direction with the dtype of ``W`` and the norms of its columns.

    A step of 1 then means the same for small and large weights.
    Source: H. Li et al., *Visualizing the loss landscape of neural nets*, 2018.
    """
    W = arrays.as_weights(W)
    direction = np.random.default_rng(seed).standard_normal(W.shape)
    direction *= np.linalg.norm(W, axis=0) / np.linalg.norm(direction, axis=0)
    return direction.astype(W.dtype)


def _steps(name: str, steps: ArrayLike) -> Values:
    array = arrays.as_floats(name, steps).astype(np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {array.shape}")
    return array


def _values(
    objective: Objective,
    named: dict[str, ArrayLike],
    coefficients: Values,
    backend: str = AUTO,
) -> Values:
    """Return the loss (P,) at P combinations of K matrices; ``coefficients`` is (P, K)."""
    stacked = _stacked(objective, named)
    arrays.check_label_range(objective.labels, int(objective.labels.max()), stacked.shape[-1])
    n_features = objective.X.shape[1]
    counted = np.flatnonzero(objective.labels != arrays.SKIP)
    all_labels, all_weights = objective.labels[counted], objective.row_weights[counted]
    losses = np.zeros(len(coefficients))
    n_scores = len(named) * stacked.shape[-1]
    for block, X in float_blocks(objective.X, stacked.dtype, n_scores, rows=counted):
        scores = _scores(X, stacked[:, :n_features])
        if objective.intercept:
            scores += stacked[:, -1:]
        labels, weights = all_labels[block], all_weights[block]
        # A call for each point would take longer than its arithmetic if there are few rows.
        for points in row_blocks(len(coefficients), scores[0].nbytes, _POINT_BYTES):
            combined = np.tensordot(coefficients[points], scores, axes=1)
            each, _ = score_gradient(
                combined.reshape(-1, stacked.shape[-1]),
                np.tile(labels, len(combined)),
                loss=objective.loss_function,
                backend=backend,
            )
            losses[points] += each.reshape(len(combined), -1) @ weights
    if objective.penalty.is_active:
        for points in row_blocks(len(coefficients), stacked[0].nbytes):
            combined = np.tensordot(coefficients[points], stacked[:, :n_features], axes=1)
            losses[points] += objective.penalty.values(combined)
    return losses


def _scores(X: Values, stacked: Values) -> Values:
    """Return ``X @ W`` (K, N, C) for each of K matrices, from one product."""
    K, D, C = stacked.shape
    side_by_side = stacked.transpose(1, 0, 2).reshape(D, K * C)
    return np.ascontiguousarray((X @ side_by_side).reshape(-1, K, C).transpose(1, 0, 2))


def _stacked(objective: Objective, named: dict[str, ArrayLike]) -> Values:
    """Stack the matrices to (K, D, C); raise unless all have one shape that fits the objective."""
    matrices = {name: arrays.as_floats(name, matrix) for name, matrix in named.items()}
    shape = matrices["W"].shape
    for name, matrix in matrices.items():
        if matrix.ndim != 2 or len(matrix) != objective.n_parameter_rows:
            raise ValueError(
                f"{name} must have {objective.n_parameter_rows} rows for this objective, "
                f"got shape {matrix.shape}"
            )
        if matrix.shape != shape:
            raise ValueError(f"{name} must have the shape of W, {shape}, got {matrix.shape}")
    return np.stack([*matrices.values()]).astype(np.float64)
