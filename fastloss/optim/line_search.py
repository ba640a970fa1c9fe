"""A line search for a step that satisfies the strong Wolfe conditions.

Along a direction of descent, with the loss ``f(t)`` at step length ``t`` and its slope ``f'(t)``::

    f(t) <= f(0) + 1e-3 t f'(0)        the loss decreases sufficiently
    |f'(t)| <= 0.9 |f'(0)|             the slope has become flatter

This is the method of Moré and Thuente, *Line search algorithms with guaranteed sufficient
decrease*, 1994, in the form of MINPACK-2's ``dcsrch`` and ``dcstep``. L-BFGS-B uses the same method
and constants. So does SciPy, with a private class that the tests compare every step with.
"""

from __future__ import annotations

import math
from typing import NamedTuple

_SUFFICIENT = 1e-3
_FLATTER = 0.9
# The search ends when the bracket is narrower than this fraction of its upper end.
_NARROW = 0.1
_LONGEST = 1e10
# Without a bracket, the next step exceeds the last one by 1.1 to 4 times the last increase.
_LEAST_GROWTH, _MOST_GROWTH = 1.1, 4.0
# A bracket that does not shrink to this fraction in two steps is halved.
_SHRINK = 0.66


class _Point(NamedTuple):
    """A step length with its loss and slope."""

    step: float
    loss: float
    slope: float

    def tilted(self, slope: float) -> _Point:
        """Return the point after a line through the origin is subtracted from the loss."""
        return _Point(self.step, self.loss - slope * self.step, self.slope - slope)


class LineSearch:
    """A search that names the next ``step`` to try, and is told its loss and slope.

    Parameters
    ----------
    loss, slope : at step length 0; the slope is negative.
    step : the first step length to try, > 0.

    Attributes
    ----------
    step : the next step length to try; once ``is_done``, the accepted one.
    is_done : whether the last step is accepted. It satisfies both conditions, or is the best step
        that was found when rounding or the least width of the bracket prevents progress. It is 0
        if no step lowered the loss.
    """

    def __init__(self, loss: float, slope: float, step: float) -> None:
        self.step = step
        self.is_done = False
        self._start = self._best = self._other = _Point(0.0, loss, slope)
        self._is_bracketed = False
        # In the first stage, no step has had a sufficient decrease and a slope >= 0.
        self._is_first_stage = True
        self._low, self._high = 0.0, step + _MOST_GROWTH * step
        self._longest = _LONGEST
        self._width, self._width_before = _LONGEST, 2 * _LONGEST

    def tell(self, loss: float, slope: float) -> None:
        """Use the finite loss and slope at ``step``: accept it, or choose the next step."""
        new = _Point(self.step, loss, slope)
        needed_slope = _SUFFICIENT * self._start.slope
        needed = self._start.loss + needed_slope * new.step
        if loss <= needed and slope >= 0:
            self._is_first_stage = False
        self.is_done = self._is_accepted(new, needed, needed_slope)
        if self.is_done:
            return
        # Until the decrease is sufficient, search for a minimum of the loss above the needed line.
        is_tilted = self._is_first_stage and needed < loss <= self._best.loss
        tilt = needed_slope if is_tilted else 0.0
        points = [point.tilted(tilt) for point in (self._best, self._other, new)]
        self.step = self._interpolated(*points)
        self._best, self._other = (point.tilted(-tilt) for point in self._interval(*points))
        self._limit_step(new)

    def shorten(self) -> None:
        """Choose a tenth of the way from the best step to ``step``, where the loss overflows."""
        best = self._best.step
        self.step = best + 0.1 * (self.step - best)
        self._longest = max(self.step, best)

    def _is_accepted(self, new: _Point, needed: float, needed_slope: float) -> bool:
        is_sufficient = new.loss <= needed
        if is_sufficient and abs(new.slope) <= _FLATTER * -self._start.slope:
            return True
        if is_sufficient and new.step == self._longest and new.slope <= needed_slope:
            return True
        return new.step == 0.0 or self._is_exhausted(new.step)

    def _is_exhausted(self, step: float) -> bool:
        """Return whether the bracket leaves no room for another step."""
        is_inside = self._low < step < self._high
        is_narrow = self._high - self._low <= _NARROW * self._high
        return self._is_bracketed and (not is_inside or is_narrow)

    def _interpolated(self, best: _Point, other: _Point, new: _Point) -> float:
        """Return a step near the minimum of interpolants; note whether a minimum is bracketed."""
        back = best.step - new.step
        if new.loss > best.loss:
            self._is_bracketed = True
            cubic = _cubic_step(best, new)
            chord = _ratio(new.loss - best.loss, back)  # minus the mean slope
            parabola = best.step - 0.5 * back * _ratio(best.slope, chord + best.slope)
            if abs(cubic - best.step) <= abs(parabola - best.step):
                return cubic
            return cubic + 0.5 * (parabola - cubic)
        secant = new.step + back * _ratio(new.slope, new.slope - best.slope)
        if _are_opposite(new, best):
            self._is_bracketed = True
            return _farther(new.step, _cubic_step(new, best), secant)
        end = self._high if new.step > best.step else self._low
        if abs(new.slope) >= abs(best.slope):
            return _cubic_step(new, other) if self._is_bracketed else end
        cubic = _cubic_step(new, best)
        # A cubic without a minimum beyond the new step falls for ever (NaN: it has no minimum).
        if not (cubic - new.step) * back < 0:
            cubic = end
        if not self._is_bracketed:
            return min(max(_farther(new.step, cubic, secant), self._low), self._high)
        step = secant if abs(cubic - new.step) >= abs(secant - new.step) else cubic
        most = new.step + _SHRINK * (other.step - new.step)
        return min(step, most) if new.step > best.step else max(step, most)

    def _interval(self, best: _Point, other: _Point, new: _Point) -> tuple[_Point, _Point]:
        """Return the step of least loss, and the other end of the interval with the minimum."""
        if new.loss > best.loss:
            return best, new
        return new, best if _are_opposite(new, best) else other

    def _limit_step(self, new: _Point) -> None:
        """Halve a bracket that shrinks slowly, and keep the next step within its limits."""
        best, other = self._best.step, self._other.step
        if self._is_bracketed:
            if abs(other - best) >= _SHRINK * self._width_before:
                self.step = best + 0.5 * (other - best)
            self._width_before, self._width = self._width, abs(other - best)
            self._low, self._high = min(best, other), max(best, other)
        else:
            self._low = self.step + _LEAST_GROWTH * (self.step - best)
            self._high = self.step + _MOST_GROWTH * (self.step - best)
        self.step = min(max(self.step, 0.0), self._longest)
        # A step that overflowed to NaN is not inside either.
        if self._is_exhausted(self.step) or not math.isfinite(self.step):
            self.step = best


def _are_opposite(new: _Point, best: _Point) -> bool:
    """Return whether the slopes have opposite signs."""
    return (new.slope < 0 < best.slope) or (best.slope < 0 < new.slope)


def _farther(step: float, first: float, second: float) -> float:
    """Return the one of two steps that is farther from ``step``; the second one on a tie."""
    return first if abs(first - step) > abs(second - step) else second


def _ratio(numerator: float, denominator: float) -> float:
    """Return the quotient, or NaN for a division by 0."""
    return numerator / denominator if denominator else math.nan


def _cubic_step(a: _Point, b: _Point) -> float:
    """Return the minimum of the cubic with the losses and slopes of two points; NaN for none."""
    theta = 3.0 * _ratio(a.loss - b.loss, b.step - a.step) + a.slope + b.slope
    # Scaled, so that squares do not overflow.
    scale = max(abs(theta), abs(a.slope), abs(b.slope))
    square = _ratio(theta, scale) ** 2 - _ratio(a.slope, scale) * _ratio(b.slope, scale)
    if not square > 0:
        return math.nan
    gamma = math.copysign(scale * math.sqrt(square), b.step - a.step)
    r = _ratio(gamma - a.slope + theta, gamma - a.slope + gamma + b.slope)
    return a.step + r * (b.step - a.step)
