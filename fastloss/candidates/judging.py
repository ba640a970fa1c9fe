"""Compare a loss and a gradient with the right ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.candidates.cases import Expected

#: Largest errors of small problems: relative for the loss, over the largest entry for the gradient.
TOLERANCES = {"float32": (1e-5, 1e-4), "float64": (1e-11, 1e-9)}
# Roundings of the largest score that a result may inherit.
_ULPS = 4.0
# Bounds of slopes at a kink come from differences.
_KINK_TOLERANCE = 1e-4


def errors_of(value: float, gradient: NDArray[Any], expected: Expected) -> tuple[float, float]:
    """Return the relative error of the loss, and that of the gradient over its largest entry."""
    loss_error = abs(value - expected.loss) / max(abs(expected.loss), 1e-300)
    scale = float(np.abs(expected.gradient).max()) or 1.0
    return loss_error, float(_distance(gradient, expected).max()) / scale


def misfits(
    value: float,
    gradient: NDArray[Any],
    expected: Expected,
    tolerances: tuple[float, float],
) -> dict[str, str]:
    """Say what is wrong with "loss" and "gradient": where, by how much; empty if both are right."""
    found = {}
    loss_error, gradient_error = errors_of(value, gradient, expected)
    allowed_loss, allowed_gradient = tolerances
    # Written so that NaN fails too.
    if not loss_error <= allowed_loss:
        found["loss"] = f"loss {value!r}, expected {expected.loss!r}" + _off(
            loss_error, allowed_loss, "it"
        )
    if not gradient_error <= allowed_gradient:
        off = np.nan_to_num(_distance(gradient, expected), nan=np.inf)
        d, c = np.unravel_index(off.argmax(), off.shape)
        found["gradient"] = (
            f"dW[{d}, {c}] = {float(gradient[d, c])!r}, expected {float(expected.gradient[d, c])!r}"
        ) + _off(gradient_error, allowed_gradient, "the largest entry")
    return found


def tolerances(expected: Expected, precision: str) -> tuple[float, float]:
    """Return the errors allowed in a small problem, with the rounding of its scores."""
    loss, gradient = TOLERANCES[precision]
    rounding = _ULPS * float(np.finfo(precision).eps) * expected.largest_score
    if expected.upper is not expected.lower:
        gradient = max(gradient, _KINK_TOLERANCE)
    return loss + rounding / max(abs(expected.loss), 1e-300), gradient + rounding


def _off(error: float, allowed: float, scale: str) -> str:
    if not np.isfinite(error):
        return ""
    return f" (off by {error:.1e} of {scale}, allowed {allowed:.0e})"


def _distance(gradient: NDArray[Any], expected: Expected) -> NDArray[np.float64]:
    """Return how far each entry lies outside its bounds."""
    gradient = np.asarray(gradient, np.float64)
    with np.errstate(invalid="ignore"):
        inside = np.clip(gradient, expected.lower, expected.upper)
        # An entry of inf is inf away from a bound, not inf - inf.
        return np.abs(gradient - inside)
