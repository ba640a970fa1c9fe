"""Compute the shapes of the plane, in its own coordinates, so that the page only draws them.

A classifier of 2-D points has a score ``s_k(x, y) = a_k x + b_k y + c_k`` for each class. The
region where a score is the highest is an intersection of half-planes, so it is a convex polygon.
"""

from __future__ import annotations

import math

Point = tuple[float, float]
#: The coefficients a, b and c of a x + b y + c.
Score = tuple[float, float, float]
#: Left, right, bottom and top.
Box = tuple[float, float, float, float]

# The longest arrow is this part of the width of the box; the vector of this norm has half of it.
_LONGEST = 0.3
_HALF_NORM = 2.0


def regions(scores: list[Score], box: Box) -> list[list[Point]]:
    """Return for each class the polygon in which its score is the highest; it may be empty.

    Where two scores are equal everywhere, the lower class has the region, as in `accuracy`.
    """
    return [_region(scores, k, box) for k in range(len(scores))]


def _region(scores: list[Score], k: int, box: Box) -> list[Point]:
    left, right, bottom, top = box
    polygon = [(left, bottom), (right, bottom), (right, top), (left, top)]
    own = scores[k]
    for j, other in enumerate(scores):
        if j == k:
            continue
        if own == other:
            polygon = polygon if k < j else []
            continue
        a, b, c = (s - t for s, t in zip(own, other, strict=True))
        polygon = _clip(polygon, (a, b, c))
    return polygon


def _clip(polygon: list[Point], score: Score) -> list[Point]:
    """Return the part of a convex polygon where the score is >= 0 (Sutherland and Hodgman)."""
    a, b, c = score
    values = [a * x + b * y + c for x, y in polygon]
    kept: list[Point] = []
    for i, (point, value) in enumerate(zip(polygon, values, strict=True)):
        before, earlier = polygon[i - 1], values[i - 1]
        if (earlier < 0) != (value < 0):
            t = earlier / (earlier - value)
            kept.append(
                (before[0] + t * (point[0] - before[0]), before[1] + t * (point[1] - before[1]))
            )
        if value >= 0:
            kept.append(point)
    # A line through a corner leaves a point or an edge, which has no area.
    return kept if len(set(kept)) >= 3 else []


def zero_line(score: Score, box: Box) -> tuple[Point, Point] | None:
    """Return the ends of the line ``score = 0`` inside the box; None if it does not cross it."""
    a, b, c = score
    norm = math.hypot(a, b)
    if norm == 0.0:
        return None
    a, b, c = a / norm, b / norm, c / norm
    foot, direction = (-a * c, -b * c), (-b, a)
    low, high = -math.inf, math.inf
    for start, step, least, most in zip(foot, direction, box[::2], box[1::2], strict=True):
        if step == 0.0:
            if not least <= start <= most:
                return None
            continue
        first, last = sorted(((least - start) / step, (most - start) / step))
        low, high = max(low, first), min(high, last)
    if not low < high:
        return None
    near, far = ((foot[0] + t * direction[0], foot[1] + t * direction[1]) for t in (low, high))
    return near, far


def arrow(line: tuple[Point, Point] | None, vector: Point, box: Box) -> tuple[Point, Point] | None:
    """Return an arrow along the vector from the middle of a line; None if either is missing.

    Its direction is exact. Its length grows with the norm n of the vector, as ``n / (n + 2)``, so
    that a long vector stays inside the picture.
    """
    norm = math.hypot(*vector)
    if line is None or norm == 0.0:
        return None
    (x0, y0), (x1, y1) = line
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    scale = _LONGEST * (box[1] - box[0]) / (norm + _HALF_NORM)
    return (x, y), (x + scale * vector[0], y + scale * vector[1])
