"""Judge one line: choose a step, and compare its quotient with the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fastloss.gradcheck.parts import Part
from fastloss.gradcheck.records import FAILING, GradientRecord, Status
from fastloss.numerical import Matrix

# CS231n's bands of the relative error.
WRONG, UNEASY, GOOD = 1e-2, 1e-4, 1e-7
# CS231n calls gradients too small to judge if both are below this.
TOO_SMALL = 1e-10

_SHRINK = 10.0
_N_STEPS = 5
# Rounding of a centred quotient, in eps * scale / h. Measured on 1,500 entries of softmax problems
# of 100 rows, at steps where rounding dominates: 0.14 at the median, 1.7 at most.
_ULPS = 8.0
# A smaller relative difference of the slopes on the two sides shows no relevant kink.
_STRAIGHT = 1e-2
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class _Trial:
    """Quotients of one step along a line."""

    h: float
    centred: float
    left: float
    right: float
    noise: float
    crosses: bool

    @property
    def jump(self) -> float:
        """Return the slope on the right minus the slope on the left."""
        return self.right - self.left


def judge(
    part: Part, V: Matrix, h: float, block: str, index: tuple[int, ...] | None
) -> GradientRecord:
    """Compare the analytic with the numerical slope along ``V``."""
    support = V != 0
    analytic = float(part.gradient[support] @ V[support])
    # A direction dilutes the error of an entry, so smaller steps follow unless it is "good".
    enough = GOOD if index is None else UNEASY
    trials = _trials(part, V, h, analytic, enough)
    believed, numerical, status = _verdict(part, analytic, trials, enough)
    return GradientRecord(
        part=part.name,
        block=block,
        index=index,
        analytic=analytic,
        numerical=numerical,
        relative_error=relative_error(analytic, numerical),
        status=status,
        h=believed.h,
        kink=status == "kink" or _met_kink(part, trials),
    )


def _trials(part: Part, V: Matrix, h: float, analytic: float, enough: float) -> list[_Trial]:
    """Try smaller and smaller steps until one settles the matter; return at least one trial."""
    trials = [_try(part, V, h)]
    if trials[0].noise == math.inf:
        raise ValueError(f"h = {h:g} does not change W, whose entries are too large for it")
    for k in range(1, _N_STEPS):
        if _settles(part, analytic, trials[-1], enough):
            break
        trial = _try(part, V, h / _SHRINK**k)
        if not math.isfinite(trial.centred):  # the step was lost to rounding
            break
        trials.append(trial)
    return trials


def _settles(part: Part, analytic: float, trial: _Trial, enough: float) -> bool:
    """Return whether no smaller step is needed."""
    size = max(abs(analytic), abs(trial.centred))
    if trial.crosses:
        return False
    if not math.isfinite(size) or size < TOO_SMALL:
        return True
    # If pieces are unknown, different slopes on the two sides may enclose a kink.
    if part.piece is None and abs(trial.jump) > 4 * trial.noise + _STRAIGHT * size:
        return False
    return abs(analytic - trial.centred) <= enough * size and trial.noise <= enough * size


def _try(part: Part, V: Matrix, h: float) -> _Trial:
    W = part.W
    above, below = ((W + step * V).astype(W.dtype) for step in (h, -h))
    # The steps after rounding (V has norm 1).
    up, down = (
        float(np.vdot(V, np.subtract(a, b, dtype=np.float64))) for a, b in ((above, W), (W, below))
    )
    if up <= 0 or down <= 0:
        return _Trial(h, math.nan, math.nan, math.nan, math.inf, False)
    crosses = part.piece is not None and not np.array_equal(part.piece(above), part.piece(below))
    upper, lower = part.loss(above), part.loss(below)
    return _Trial(
        h=h,
        centred=(upper - lower) / (up + down),
        left=(part.value - lower) / down,
        right=(upper - part.value) / up,
        noise=_ULPS * float(np.finfo(W.dtype).eps) * (part.scale + max(abs(upper), abs(lower))) / h,
        crosses=crosses,
    )


def _verdict(
    part: Part, analytic: float, trials: Sequence[_Trial], enough: float
) -> tuple[_Trial, float, Status]:
    """Return the chosen trial, its slope and the status."""
    last = trials[-1]
    if _settles(part, analytic, last, enough):
        return last, last.centred, _grade(analytic, last.centred, last.noise)
    finite = [trial for trial in trials if math.isfinite(trial.centred)]
    if not finite:  # the loss near W is not finite
        return last, last.centred, "wrong"
    beside = [trial for trial in finite if not trial.crosses]
    if not beside:
        return _verdict_at_corner(analytic, finite)
    trial, uncertainty = _most_certain(beside)
    status = _grade(analytic, trial.centred, uncertainty)
    if status in FAILING and part.piece is None and (corners := _corners(beside)):
        return _verdict_at_corner(analytic, corners)
    return trial, trial.centred, status


def _most_certain(trials: Sequence[_Trial]) -> tuple[_Trial, float]:
    """Return the trial with the smallest uncertainty, from numerical values only."""
    if len(trials) == 1:
        return trials[0], trials[0].noise
    change = [abs(large.centred - small.centred) for large, small in pairwise(trials)]
    # Truncation falls by 100 from step to step, so that of a trial is 1/99 of the last change.
    truncation = [2 * change[0], *(c / 50 for c in change)]
    uncertainty = [trial.noise + error for trial, error in zip(trials, truncation, strict=True)]
    # A kink within a step, but not within a smaller one, makes the two contradict each other.
    for k, trial in enumerate(trials):
        smaller = trials[k + 1 :]
        if any(abs(trial.centred - t.centred) > uncertainty[k] + t.noise for t in smaller):
            uncertainty[k] = math.inf
    best = int(np.argmin(uncertainty))
    return trials[best], uncertainty[best]


def _corners(trials: Sequence[_Trial]) -> list[_Trial]:
    """Return the trials whose slopes show a kink at ``W``.

    The jump of a smooth function falls with the step. The jump of a kink near ``W`` vanishes, and
    the jump of rounding grows. Only the jump of a corner at ``W`` stays.
    """

    def stays(k: int) -> bool:
        jump, noise = trials[k].jump, trials[k].noise
        others = [trials[k - 1], *trials[k + 1 :]]
        return abs(jump) > 4 * noise and all(
            abs(other.jump - jump) <= abs(jump) / 2 + 4 * other.noise for other in others
        )

    return [trials[k] for k in range(1, len(trials) - 1) if stays(k)]


def _verdict_at_corner(analytic: float, trials: Sequence[_Trial]) -> tuple[_Trial, float, Status]:
    """Judge a line of which every step crosses a kink: ``analytic`` must be between the slopes."""
    trial = min(trials, key=lambda trial: abs(trial.jump) + trial.noise)
    size = max(abs(trial.left), abs(trial.right))
    tolerance = trial.noise + UNEASY * size
    if abs(trial.jump) <= tolerance:  # a negligible kink, or one of a higher derivative
        return trial, trial.centred, _grade(analytic, trial.centred, trial.noise + trial.jump)
    low, high = sorted((trial.left, trial.right))
    nearest = min(max(analytic, low), high) if math.isfinite(analytic) else trial.centred
    if abs(analytic - nearest) <= tolerance:
        return trial, nearest, "kink"
    return trial, nearest, band(relative_error(analytic, nearest))


def _grade(analytic: float, numerical: float, uncertainty: float) -> Status:
    error = relative_error(analytic, numerical)
    if error == 0.0:
        return "good"
    if max(abs(analytic), abs(numerical)) < TOO_SMALL:
        return "too small"
    if error > UNEASY and abs(analytic - numerical) <= uncertainty:
        return "too small"
    return band(error)


def band(error: float) -> Status:
    """Return CS231n's name for a relative error; NaN is "wrong"."""
    if error <= GOOD:
        return "good"
    if error <= UNEASY:
        return "fine"
    return "uneasy" if error <= WRONG else "wrong"


def relative_error(a: float, n: float) -> float:
    if a == n:
        return 0.0
    with np.errstate(invalid="ignore"):
        return float(np.float64(abs(a - n)) / max(abs(a), abs(n)))


def _met_kink(part: Part, trials: Sequence[_Trial]) -> bool:
    """Return whether the first step met a kink; if pieces are unknown, guess from the jump.

    From ``h`` to ``h / 10`` the jump of a smooth function falls by 10. With a kink on the line, the
    jump falls by far more or not at all.
    """
    if part.piece is not None or part.smooth or len(trials) == 1:
        return trials[0].crosses
    first, second = trials[:2]
    large, small = abs(first.jump), abs(second.jump)
    if large <= 4 * first.noise:
        return False
    return small + 4 * second.noise < 0.03 * large or small - 4 * second.noise > 0.3 * large
