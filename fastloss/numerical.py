"""Compute numerical gradients by finite differences, one entry of ``W`` at a time.

They are slow and approximate, but need no derivation; analytic gradients are checked and timed
against them. Two methods compute the same numbers::

    per_element    P entries, each a whole evaluation of the loss           O(P N D C)
    incremental    W[d, c] reaches column c of the scores only: the scores
                   once, then a column of them for each entry               O(N D C + P N)

Both methods have a set-up, then one call per coordinate, in column order. The time of all
coordinates can therefore be extrapolated: time two subsets of the same columns, and extend the
difference. The set-up is one evaluation for a forward scheme. For ``incremental`` it is the scores,
and O(N C) per column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss import arrays
from fastloss.arrays import as_real
from fastloss.blocks import float_blocks
from fastloss.objective import Objective

Scheme = Literal["central", "forward"]
Method = Literal["per_element", "incremental"]
Place = tuple[int, ...]
Matrix = NDArray[np.float64]


def numerical_gradient(
    f: Objective | Callable[[NDArray[Any]], Any],
    W: ArrayLike,
    *,
    h: float = 1e-5,
    scheme: Scheme = "central",
    method: Method = "per_element",
    coordinates: ArrayLike | None = None,
) -> Matrix:
    """Compute the gradient of ``f`` at ``W`` by finite differences.

    With ``e`` the unit matrix of an entry::

        forward    (f(W + h e) - f(W)) / h             error  h/2 |f''| + 2 eps |f| / h
        central    (f(W + h e) - f(W - h e)) / (2 h)   error  h^2/6 |f'''| + eps |f| / h

    In float64 the best ``h`` is about 1e-8 forward and 6e-6 central (square and cube root of
    ``eps``). The quotient divides by the rounded step, ``(w + h) - (w - h)``. If a kink lies
    between the probes, the result is a mean of the slopes around it.

    Parameters
    ----------
    f : an `Objective` (its loss, penalty included), or a callable ``W -> loss`` or
        ``W -> (loss, gradient)``. It gets a copy of ``W``, which it must not keep or change.
    W : floats of any shape; (D, C) or (D + 1, C) for an `Objective`. Never modified.
    h : step, finite and > 0.
    scheme : "central", 2 P evaluations for P entries, or "forward", P + 1 (30,731 at 3073 x 10).
    method : "per_element" calls ``f`` in the dtype of ``W``. In float32, rounding destroys most of
        the result, so cast ``W`` and use ``objective.astype(np.float64)``. "incremental" takes an
        `Objective` only, and computes in float64 whatever the dtypes.
    coordinates : (K, W.ndim) integers >= 0, the entries to compute; None means all.

    Returns
    -------
    float64 array of the shape of ``W``, or (K,) in the order of ``coordinates``.

    Raises
    ------
    TypeError : an argument of the wrong kind, such as "incremental" with a plain callable.
    ValueError : a wrong value or shape, or a step too small to change an entry.

    Source: CS231n, "Optimization: computing the gradient numerically with finite differences".

    Examples
    --------
    >>> import numpy as np, fastloss
    >>> objective = fastloss.Objective([[1.0, 2.0], [3.0, 4.0]], [0, 2], l2=0.1)
    >>> W = np.ones((2, 3))
    >>> fastloss.numerical_gradient(objective, W).round(6)
    array([[ 0.366667,  0.866667, -0.633333],
           [ 0.2     ,  1.2     , -0.8     ]])
    >>> fastloss.numerical_gradient(objective, W, method="incremental", coordinates=[(1, 2)])
    array([-0.8])
    """
    quotients: dict[str, type[_PerElement] | type[_Incremental]] = {
        "per_element": _PerElement,
        "incremental": _Incremental,
    }
    h = as_real("h", h, above=0.0)
    _check_choice("scheme", scheme, ("central", "forward"))
    _check_choice("method", method, tuple(quotients))
    weights = as_parameters(W)
    places = None if coordinates is None else _as_places(coordinates, weights.shape)
    quotient = quotients[method](f, weights, h, scheme == "central")
    if places is None:
        gradient = np.empty(weights.shape)
        for place in _column_by_column(weights.shape):
            gradient[place] = quotient(place)
        return gradient
    values = np.empty(len(places))
    for k in np.argsort(places[:, -1], kind="stable"):
        values[k] = quotient(tuple(places[k].tolist()))
    return values


class _Quotient:
    """Difference quotients at single places of ``W``, a copy of the caller's array."""

    def __init__(self, W: NDArray[Any], h: float, central: bool) -> None:
        self.W = W
        self.h = W.dtype.type(h)
        self.central = central

    def probes(self, place: Place) -> tuple[Any, Any, float]:
        """Return the two rounded values of the entry, and their distance."""
        w = self.W[place]
        with arrays.ieee_arithmetic():
            above = w + self.h
            below = w - self.h if self.central else w
            step = float(above - below)
        if step == 0.0:
            raise ValueError(
                f"h = {float(self.h):g} does not change W[{', '.join(map(str, place))}] = {w} "
                f"in {self.W.dtype}; take a larger h"
            )
        return above, below, step


class _PerElement(_Quotient):
    """Quotients whose probes each evaluate ``f``."""

    def __init__(self, f: Callable[..., Any], W: NDArray[Any], h: float, central: bool) -> None:
        super().__init__(W.copy(), h, central)
        self.loss = as_loss(f)
        self.base = math.nan if central else self.loss(self.W)

    def __call__(self, place: Place) -> float:
        above, below, step = self.probes(place)
        w = self.W[place]
        self.W[place] = above
        upper = self.loss(self.W)
        lower = self.base
        if self.central:
            self.W[place] = below
            lower = self.loss(self.W)
        self.W[place] = w
        return (upper - lower) / step


class _Incremental(_Quotient):
    """Quotients whose probes change one column of the scores, and the penalty of one entry."""

    def __init__(self, f: Callable[..., Any], W: NDArray[Any], h: float, central: bool) -> None:
        if not isinstance(f, Objective):
            raise TypeError(
                "method='incremental' needs a fastloss.Objective, whose scores it can reach, got "
                f"{type(f).__name__}; take method='per_element'"
            )
        super().__init__(W.astype(np.float64), h, central)
        _check_fit(f, self.W)
        self.objective = f
        self.rows = np.flatnonzero(f.labels != arrays.SKIP)
        self.labels = f.labels[self.rows]
        self.scores = scores_of(f, self.W, self.rows)
        self.row_weights = f.row_weights[self.rows]
        # As in the backends, a NaN or +inf score makes the loss NaN.
        self.row_weights[~(self.scores.max(axis=1, initial=-np.inf) < np.inf)] = np.nan
        self.column = -1

    def __call__(self, place: Place) -> float:
        feature, column = place
        with arrays.ieee_arithmetic():
            if column != self.column:
                self._take_column(column)
            above, below, step = self.probes(place)
            w = self.W[place]
            x = self._feature(feature)
            upper = self.losses(self.values + (above - w) * x)
            lower = self.losses(self.values + (below - w) * x) if self.central else self.base
            # Subtract row by row, then sum: rows that do not change cancel exactly.
            difference = float(self.row_weights @ (upper - lower))
            difference += self._penalty(feature, above) - self._penalty(feature, below)
        return difference / step

    def _take_column(self, column: int) -> None:
        """Compute the values that all entries of a column of ``W`` share."""
        self.column = column
        self.values = np.ascontiguousarray(self.scores[:, column])
        self.losses = self.objective.loss_function.column_losses(self.scores, self.labels, column)
        if not self.central:
            self.base = self.losses(self.values)

    def _feature(self, feature: int) -> Matrix | float:
        X = self.objective.X
        if feature == X.shape[1]:
            return 1.0
        column = X[:, feature]
        if len(self.rows) < len(column):
            column = column[self.rows]
        return column.astype(np.float64)

    def _penalty(self, feature: int, w: float) -> float:
        if feature == self.objective.X.shape[1]:
            return 0.0
        return self.objective.penalty.value(np.array([w]))


def scores_of(objective: Objective, W: Matrix, rows: NDArray[np.intp]) -> Matrix:
    """Return the scores (n, C) of ``rows`` in float64; ``X`` is converted in blocks."""
    scores = np.empty((len(rows), W.shape[1]))
    with arrays.ieee_arithmetic():
        for block, X in float_blocks(objective.X, scores.dtype, W.shape[1], rows=rows):
            scores[block] = X @ W[: X.shape[1]]
        if objective.intercept:
            scores += W[-1]
    return scores


def as_loss(f: Objective | Callable[..., Any]) -> Callable[[NDArray[Any]], float]:
    """Return ``f`` as ``W -> loss``, whether or not it also returns a gradient."""
    if isinstance(f, Objective):
        return f.loss
    if not callable(f):
        raise TypeError(f"f must be a fastloss.Objective or callable, got {type(f).__name__}")

    def loss(W: NDArray[Any]) -> float:
        value = f(W)
        return as_number(value[0] if isinstance(value, tuple) else value)

    return loss


def as_number(loss: Any) -> float:
    """Return a callable's loss as a float; raise TypeError if it is no number."""
    try:
        return float(loss)
    except (TypeError, ValueError):
        raise TypeError(
            f"f must return a loss or (loss, gradient), and the loss must be a number, got "
            f"{type(loss).__name__} of shape {np.shape(loss)}"
        ) from None


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; known: {', '.join(map(repr, known))}")


def as_parameters(W: ArrayLike) -> NDArray[Any]:
    """Return ``W`` in its own float dtype; integers become float64."""
    array = arrays.as_array("W", W)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"W must hold real numbers, got {array.dtype}")
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"W must be a non-empty array, got shape {array.shape}")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _as_places(coordinates: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return ``coordinates`` as int64 (K, ndim); raise unless all are inside ``shape``."""
    array = arrays.as_array("coordinates", coordinates)
    if array.size == 0:
        return np.empty((0, len(shape)), dtype=np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"coordinates must be integers, got {array.dtype}")
    if array.ndim != 2 or array.shape[1] != len(shape):
        raise ValueError(
            f"coordinates must have shape (K, {len(shape)}) for W of shape {shape}, got "
            f"{array.shape}"
        )
    bad = np.flatnonzero(((array < 0) | (array >= np.array(shape))).any(axis=1))
    if bad.size:
        raise ValueError(
            f"coordinates[{bad[0]}] = {tuple(array[bad[0]].tolist())} is outside W of shape {shape}"
        )
    return array.astype(np.int64)


def _check_fit(objective: Objective, W: Matrix) -> None:
    """Raise unless ``W`` fits the rows; its float dtype may differ from that of ``X``."""
    arrays.as_weights(W)
    if len(W) != objective.n_parameter_rows:
        raise ValueError(
            f"W must have {objective.n_parameter_rows} rows for X with {objective.X.shape[1]} "
            f"columns and intercept={objective.intercept}, got shape {W.shape}"
        )
    arrays.check_label_range(objective.labels, int(objective.labels.max()), W.shape[1])


def _column_by_column(shape: tuple[int, ...]) -> Iterator[Place]:
    for column in range(shape[-1]):
        for rest in np.ndindex(shape[:-1]):
            yield (*rest, column)
