"""Analytic against numerical gradients, with a graded verdict.

Every judgement is of one *line* ``t -> f(W + t V)``: a coordinate (V has a single 1) or a direction
(a dense V of norm 1). The analytic slope is ``a = sum(gradient * V)``, the numerical one ``n`` a
centred difference in float64.

Which step is believed. The first of ``h``, ``h / 10``, ``h / 100``, ... that settles the matter: no
known kink in between, ``a`` and ``n`` agree, and far more closely than rounding could make them. If
none does, the judge is the step of the smallest uncertainty: rounding (8 ulps over ``h``, of the
loss and of the scores behind it, or of 1 where these are unknown) plus truncation (from
neighbouring steps); a step that smaller ones contradict is out. That choice looks at the numerical
values alone, never at ``a``, so no wrong gradient can influence it. A difference within that
uncertainty is "too small" to judge; hence what can hide behind rounding is an error that no step
tried could have shown, and no other.

Kinks. For an `Objective` it is known whether one lies between two probes, from `Loss.pieces` and
the signs of ``W`` (L1). Steps across a kink are left out. If there is one however small the step,
the line has a corner at ``W`` itself, and ``a`` must lie between the slopes on the left and on the
right: what lies outside is as wrong as ever. Of a plain callable (and a loss whose ``pieces`` are
None) no pieces are known. There a corner at ``W`` is believed only where the two slopes keep their
distance as ``h`` falls (in a smooth function it falls with ``h``) and rounding cannot explain it.

Source of the recipe and the bands: CS231n, "Neural Networks Part 3: gradient checks".
"""

from fastloss.gradcheck.check import check_gradient
from fastloss.gradcheck.records import GradientCheck, GradientRecord

__all__ = ["GradientCheck", "GradientRecord", "check_gradient"]
