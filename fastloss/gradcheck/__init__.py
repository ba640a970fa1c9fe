"""Compare analytic with numerical gradients, and grade the differences.

Each comparison is on one *line* ``t -> f(W + t V)``. The line is a coordinate (V has a single 1) or
a direction (V is dense and has norm 1). The analytic slope is ``a = sum(gradient * V)``. The
numerical slope ``n`` is a centred difference in float64, or in float32 for a callable of that type.

Choice of the step. The check takes the first of ``h``, ``h / 10``, ``h / 100``, ... that settles
the matter: no known kink lies between the probes, ``a`` and ``n`` agree, and rounding is small
enough to tell. If no step does, the check takes the step with the smallest uncertainty, which is
the sum of two errors. Rounding is 8 ulps over ``h``, of the loss and of the scores behind it (of 1
if these are unknown). Truncation is estimated from neighbouring steps. Steps that smaller ones
contradict are excluded. This second choice uses numerical values only and never ``a``, so a wrong
gradient cannot influence it. A difference within the uncertainty is "too small" to judge. An error
can therefore hide behind rounding only if no tried step could have shown it.

Kinks. For an `Objective`, `Loss.pieces` and the signs of ``W`` (L1) tell whether a kink lies
between two probes. Steps across a kink are excluded. If every step crosses one, the line has a
corner at ``W``; then ``a`` must be between the slopes on the left and on the right. For a plain
callable, and for a loss whose ``pieces`` are None, pieces are unknown. The check then assumes a
corner at ``W`` only if the two slopes keep their distance as ``h`` falls and rounding cannot
explain it; in a smooth function the distance falls with ``h``.

Source of the recipe and the bands: CS231n, "Neural Networks Part 3: gradient checks".
"""

from fastloss.gradcheck.check import check_gradient
from fastloss.gradcheck.records import GradientCheck, GradientRecord

__all__ = ["GradientCheck", "GradientRecord", "check_gradient"]
