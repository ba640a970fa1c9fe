"""Analytic against numerical gradients, with a graded verdict.

Every judgement is of one *line* ``t -> f(W + t V)``: a coordinate (V has a single 1) or a direction
(a dense V of norm 1). The analytic slope is ``a = sum(gradient * V)``, the numerical one ``n`` a
centred difference in float64.

Which step is believed. The first of ``h``, ``h / 10``, ``h / 100``, ... that settles the matter: no
known kink in between, ``a`` and ``n`` agree, and far more closely than rounding could make them. If
none does, the judge is the step of the smallest uncertainty: rounding (`_ULPS` ulps over ``h``, of
the loss and of the scores behind it, or of 1 where these are unknown) plus truncation (from
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

from __future__ import annotations

import html
import math
import numbers
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss.api import Objective
from fastloss.numerical import Matrix, as_number, check_step, scores_of
from fastloss.penalties import Penalty

Part = Literal["data", "penalty", "total"]
Status = Literal["good", "fine", "uneasy", "wrong", "kink", "too small"]
Oracle: TypeAlias = "Objective | Callable[[NDArray[Any]], tuple[float, Any]]"

# The course's bands of the relative error.
WRONG, UNEASY, GOOD = 1e-2, 1e-4, 1e-7
# Where both gradients are below this, it calls them too small to judge.
TOO_SMALL = 1e-10

_SHRINK = 10.0
_N_STEPS = 5
# Rounding of a centred quotient, in eps * scale / h. Measured on 1,500 entries of softmax problems
# of 100 rows, at steps where nothing else counts: 0.14 at the median, 1.7 at most.
_ULPS = 8.0
# Slopes on the two sides that differ by less than this show no kink that matters.
_STRAIGHT = 1e-2
_EPS = float(np.finfo(np.float64).eps)
_FAILING = ("wrong", "uneasy")
_STATUSES: tuple[Status, ...] = ("wrong", "uneasy", "kink", "fine", "good", "too small")
_SHOWN_PER_PART = 5


@dataclass(frozen=True)
class GradientRecord:
    """One comparison.

    ``index`` is the entry of ``W``, None for a direction. ``relative_error`` is
    ``|a - n| / max(|a|, |n|)``; where ``status`` is "kink", ``n`` is the nearest slope there.
    ``h`` is the step that was believed, and ``kink`` whether the first step met a kink.
    """

    part: Part
    block: str
    index: tuple[int, ...] | None
    analytic: float
    numerical: float
    relative_error: float
    status: Status
    h: float
    kink: bool = False

    @property
    def failed(self) -> bool:
        """Whether the status is "wrong" or "uneasy"."""
        return self.status in _FAILING

    @property
    def severity(self) -> tuple[bool, bool, float]:
        """To order records by, the worst last: failures, among them entries, by their error."""
        error = math.inf if math.isnan(self.relative_error) else self.relative_error
        return self.failed, self.failed and self.index is not None, error


@dataclass(frozen=True)
class GradientCheck:
    """The verdict of `check_gradient`; print it for the table."""

    records: tuple[GradientRecord, ...]
    subject: str
    n_evaluations: int
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """No record is "wrong" or "uneasy", and something of the data or total was judged."""
        judged = any(r.status != "too small" and r.part != "penalty" for r in self.records)
        return judged and not any(record.failed for record in self.records)

    @property
    def judged(self) -> tuple[GradientRecord, ...]:
        """The records with a graded error: neither "kink" nor "too small"."""
        return tuple(r for r in self.records if r.status not in ("kink", "too small"))

    @property
    def max_relative_error(self) -> float:
        """The largest of the graded errors; NaN if one is, or if there are none."""
        errors = [record.relative_error for record in self.judged]
        return float(np.max(errors)) if errors else math.nan

    @property
    def worst(self) -> GradientRecord:
        """The worst record: a failing entry, else a failing direction, else the largest error."""
        return max(self.judged or self.records, key=lambda record: record.severity)

    @property
    def n_kinks(self) -> int:
        """Of how many records a kink lay within the first step."""
        return sum(record.kink for record in self.records)

    @property
    def counts(self) -> dict[Status, int]:
        """How many records have each status."""
        found = Counter(record.status for record in self.records)
        return {status: found[status] for status in _STATUSES}

    def __str__(self) -> str:
        rows = [_COLUMNS, *map(_cells, self._shown())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*self._summary(), "", *table])

    def _repr_html_(self) -> str:
        summary = "<br>".join(html.escape(line) for line in self._summary())
        header = "".join(f"<th>{html.escape(name)}</th>" for name in _COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(record)) + "</tr>"
            for record in self._shown()
        )
        return (
            f"<p>{summary}</p><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"
        )

    def _summary(self) -> Iterator[str]:
        verdict = "passed" if self.passed else "FAILED"
        yield (
            f"Gradient check {verdict}: largest relative error {self.max_relative_error:.1e} "
            f"in {len(self.judged)} judged of {len(self.records)}"
        )
        yield f"{self.subject}; {self.n_evaluations} evaluations"
        for part in dict.fromkeys(record.part for record in self.records):
            found = Counter(r.status for r in self.records if r.part == part)
            counts = ", ".join(f"{found[s]} {s}" for s in _STATUSES if found[s])
            yield f"  {part}: {counts}"
        if self.n_kinks:
            yield f"  {self.n_kinks} met a kink within the first step"
        for note in self.notes:
            yield f"  note: {note}"

    def _shown(self) -> Iterator[GradientRecord]:
        """The worst few of each part."""
        for part in dict.fromkeys(record.part for record in self.records):
            records = [record for record in self.records if record.part == part]
            records.sort(key=lambda record: record.severity, reverse=True)
            yield from records[:_SHOWN_PER_PART]


_COLUMNS = ("part", "where", "index", "analytic", "numerical", "relative error", "status", "h")


def _cells(record: GradientRecord) -> tuple[str, ...]:
    return (
        record.part,
        record.block,
        "" if record.index is None else str(record.index),
        f"{record.analytic: .6e}",
        f"{record.numerical: .6e}",
        f"{record.relative_error:.1e}",
        record.status,
        f"{record.h:.0e}",
    )


def check_gradient(
    f: Oracle,
    W: ArrayLike,
    *,
    h: float = 1e-5,
    n_coordinates: int = 60,
    n_directions: int = 4,
    max_rows: int = 100,
    seed: int = 0,
) -> GradientCheck:
    """Compare the gradient that ``f`` returns with centred differences of its loss, in float64.

    Relative errors ``|a - n| / max(|a|, |n|)`` (both zero: 0) are graded as the course does: above
    1e-2 "wrong", to 1e-4 "uneasy", to 1e-7 "fine" (usual where there are kinks), else "good". Both
    below 1e-10, or apart by no more than rounding: "too small" to judge. A correct subgradient at a
    kink of the loss is a "kink". The notes at the top of `fastloss.gradcheck` give the rules.

    Of an `Objective` the data loss and the penalty are checked apart, and that the gradient it
    returns is their sum (one record of the part "total").

    Parameters
    ----------
    f : an `Objective`, cast to float64 and cut down to ``max_rows`` random rows of weight > 0; or
        any callable ``W -> (loss, gradient)``, handed float64 copies of ``W``.
    W : floats of any shape; (D, C) or (D + 1, C) for an `Objective`. Never modified.
    h : first step, finite and > 0; smaller ones follow where it cannot settle the matter.
    n_coordinates : entries compared, at least 1, spread over all rows and columns of ``W``; of the
        bias row a sixth, at least one. A direction of its own covers the whole bias row.
    n_directions : dense random directions. They meet every entry; where one disagrees and no entry
        did, bisection finds an entry that does.
    max_rows : of an `Objective`, at least 1.
    seed : of the rows, entries and directions; the same seed, the same records.

    Raises
    ------
    TypeError : ``f`` is not callable or does not return ``(loss, gradient)``.
    ValueError : the gradient has not the shape of ``W``; the loss is not finite.

    Source: CS231n, "Neural Networks Part 3: gradient checks".

    Examples
    --------
    >>> import numpy as np, fastloss
    >>> objective = fastloss.Objective([[1.0, 2.0], [3.0, 4.0]], [0, 2], loss="hinge", l2=0.1)
    >>> check = fastloss.check_gradient(objective, np.eye(2, 3))
    >>> check.passed
    True
    >>> def wrong(W):
    ...     return float((W**2).sum()), W  # the gradient is 2 W
    >>> check = fastloss.check_gradient(wrong, np.ones((2, 3)))
    >>> check.worst.status, round(check.worst.relative_error, 4)
    ('wrong', 0.5)
    """
    check_step(h)
    _check_count("n_coordinates", n_coordinates, 1)
    _check_count("n_directions", n_directions, 0)
    _check_count("max_rows", max_rows, 1)
    rng = np.random.default_rng(seed)
    counter = _Counter()
    if isinstance(f, Objective):
        objective, subject = _reduced(f, max_rows, seed, rng)
        parameters = _as_float64(W)
        parts = _parts_of_objective(objective, parameters, counter)
    else:
        parts = [_part_of_callable(f, _as_float64(W), counter)]
        name = ascii(getattr(f, "__name__", type(f).__name__)).strip("'")
        subject = f"{name}, W of shape {parts[0].W.shape}"
    records = [
        record
        for part in parts
        for record in _check_part(part, float(h), n_coordinates, n_directions, rng)
    ]
    if isinstance(f, Objective) and len(parts) == 2:
        records.append(_check_sum(objective, parameters, parts, float(h)))
        counter.evaluations += 1
    notes = _notes(records, parts, counter)
    return GradientCheck(tuple(records), f"{subject}, h = {h:g}", counter.evaluations, notes)


def _check_count(name: str, count: int, least: int) -> None:
    if isinstance(count, bool) or not isinstance(count, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {count!r}")
    if operator.index(count) < least:
        raise ValueError(f"{name} must be >= {least}, got {count}")


def _as_float64(W: ArrayLike) -> Matrix:
    array = np.asarray(W)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"W must hold real numbers, got {array.dtype}")
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"W must be a non-empty array, got shape {array.shape}")
    return array.astype(np.float64)


# --- what is checked -------------------------------------------------------------------------


class _Counter:
    """Counts the evaluations, and watches for losses that were computed in float32."""

    def __init__(self) -> None:
        self.evaluations = 0
        self.all_float32 = True

    def take(self, loss: float) -> float:
        self.evaluations += 1
        with np.errstate(over="ignore", invalid="ignore"):
            self.all_float32 &= float(np.float32(loss)) == loss
        return loss


@dataclass(frozen=True)
class _Part:
    """A function with its gradient at ``W``, and what is known of its kinks and rounding."""

    name: Part
    W: Matrix
    loss: Callable[[Matrix], float]
    value: float
    gradient: Matrix
    # The smooth piece that a W is on; None where nobody knows.
    piece: Callable[[Matrix], NDArray[Any]] | None
    # Size of the numbers behind the loss, whose rounding the loss inherits.
    scale: float = 0.0
    bias_row: int | None = None
    n_rows: int | None = None

    @property
    def smooth(self) -> bool:
        """Known to have no kinks."""
        return self.name == "data" and self.piece is None


def _reduced(
    f: Objective, max_rows: int, seed: int, rng: np.random.Generator
) -> tuple[Objective, str]:
    """``f`` in float64 over at most ``max_rows`` rows, and what it is."""
    n_rows, n_features = f.X.shape
    taken = f"all {n_rows} rows"
    if n_rows > max_rows:
        candidates = np.flatnonzero(f.row_weights > 0)
        if candidates.size > max_rows:
            candidates = np.sort(rng.choice(candidates, max_rows, replace=False))
        # No candidates: all weights are 0, and any row is as good.
        rows = candidates if candidates.size else np.arange(max_rows)
        f = f.batch(rows)
        taken = f"{len(rows)} of {n_rows} rows (seed {seed})"
    penalty = f"l1={f.penalty.l1:g}, l2={f.penalty.l2:g}, intercept={f.intercept}"
    return f.astype(np.float64), f"{f.loss_function!r}, {taken} of {n_features} features, {penalty}"


def _parts_of_objective(objective: Objective, W: Matrix, counter: _Counter) -> list[_Part]:
    data = objective.without_penalty()
    rows = np.flatnonzero(data.row_weights > 0)
    labels = data.labels[rows]
    value, gradient = _evaluate(data, W, counter)

    def data_piece(at: Matrix) -> NDArray[Any] | None:
        with np.errstate(over="ignore", invalid="ignore"):
            return data.loss_function.pieces(scores_of(data, at, rows), labels)

    bias_row = len(W) - 1 if objective.intercept else None
    has_pieces = rows.size and data_piece(W) is not None
    parts = [
        _Part(
            name="data",
            W=W,
            loss=lambda at: counter.take(data.loss(at)),
            value=value,
            gradient=gradient,
            piece=data_piece if has_pieces else None,  # type: ignore[arg-type]  # it is not None
            scale=_score_scale(data, W, rows),
            bias_row=bias_row,
            n_rows=len(rows),
        )
    ]
    if objective.penalty != Penalty():
        parts.append(_penalty_part(objective.penalty, W[:bias_row], counter))
    return parts


def _score_scale(data: Objective, W: Matrix, rows: NDArray[np.intp]) -> float:
    """Weighted mean (or sum) over rows of the largest ``sqrt(sum_d (x_d w_d)^2)``.

    Scores are rounded relative to their terms, so a small loss of large scores is no more exact
    than they are.
    """
    n_features = data.X.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        squares = data.X[rows] ** 2 @ W[:n_features] ** 2
        if data.intercept:
            squares += W[-1] ** 2
    return float(data.row_weights[rows] @ np.sqrt(squares.max(axis=1, initial=0.0)))


def _penalty_part(penalty: Penalty, W: Matrix, counter: _Counter) -> _Part:
    gradient = np.zeros_like(W)
    penalty.add_gradient(W, gradient)
    return _Part(
        name="penalty",
        W=W,
        loss=lambda at: counter.take(penalty.value(at)),
        value=counter.take(penalty.value(W)),
        gradient=gradient,
        piece=np.sign if penalty.l1 else None,
    )


def _part_of_callable(f: Callable[..., Any], W: Matrix, counter: _Counter) -> _Part:
    if not callable(f):
        raise TypeError(f"f must be a fastloss.Objective or callable, got {type(f).__name__}")
    value, gradient = _evaluate(f, W, counter)
    return _Part(
        name="total",
        W=W,
        loss=lambda at: counter.take(as_number(f(at)[0])),
        value=value,
        gradient=gradient,
        piece=None,
        # Margins, probabilities and the like are of this size, however small the loss.
        scale=1.0,
    )


def _evaluate(f: Callable[..., Any], W: Matrix, counter: _Counter) -> tuple[float, Matrix]:
    """Loss and gradient at a copy of ``W``, checked."""
    result = f(W.copy())
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(f"f must return (loss, gradient), got {type(result).__name__}")
    loss = counter.take(as_number(result[0]))
    gradient = np.asarray(result[1])
    if gradient.shape != W.shape:
        raise ValueError(f"the gradient must have the shape of W, {W.shape}, got {gradient.shape}")
    if gradient.dtype.kind not in "iuf":
        raise TypeError(f"the gradient must hold real numbers, got {gradient.dtype}")
    if not math.isfinite(loss):
        raise ValueError(f"the loss at W is {loss}; its gradient cannot be checked")
    # Always a copy: f may write its next gradient to the same array.
    return loss, gradient.astype(np.float64)


def _check_sum(objective: Objective, W: Matrix, parts: Sequence[_Part], h: float) -> GradientRecord:
    """Whether the gradient that the objective returns is the sum of the parts."""
    data, penalty = (part.gradient for part in parts)
    expected = data.copy()
    expected[: len(penalty)] += penalty
    total = objective(W)[1]
    rounding = np.abs(data)
    rounding[: len(penalty)] += np.abs(penalty)
    excess = np.abs(total - expected) - 16 * _EPS * rounding
    place = np.unravel_index(int(np.argmax(excess)), W.shape)
    index = tuple(int(i) for i in place)
    analytic, sum_of_parts = float(total[index]), float(expected[index])
    error = 0.0 if excess[index] <= 0 else _relative_error(analytic, sum_of_parts)
    return GradientRecord(
        "total", "data + penalty", index, analytic, sum_of_parts, error, _band(error), h
    )


# --- where it is checked ---------------------------------------------------------------------


def _check_part(
    part: _Part, h: float, n_coordinates: int, n_directions: int, rng: np.random.Generator
) -> list[GradientRecord]:
    """Records of the entries and the directions of a part."""
    records = [_judge_entry(part, flat, h) for flat in _sampled_entries(part, n_coordinates, rng)]
    directions = list(_directions(part, n_directions, rng))
    along = [_judge(part, V, h, block, None) for block, V in directions]
    if not any(record.failed for record in records):
        records += _locate(part, h, [V for _, V in directions], along)
    return records + along


def _sampled_entries(part: _Part, n_coordinates: int, rng: np.random.Generator) -> list[int]:
    """Flat indices, spread over all rows and columns; the bias row and what is not finite too."""
    n_rows = len(part.W)
    n_columns = part.W.size // n_rows
    chosen = set(np.flatnonzero(~np.isfinite(part.gradient))[:1].tolist())
    if part.bias_row is not None:
        n_rows -= 1
        n_bias = min(n_columns, max(1, n_coordinates // 6))
        columns = rng.choice(n_columns, n_bias, replace=False)
        chosen.update((part.bias_row * n_columns + columns).tolist())
        n_coordinates -= n_bias
    n_coordinates = min(max(n_coordinates, 1), n_rows * n_columns)
    # One entry from each of equal runs of rows, and the columns in turn: no block is left out.
    bounds = np.linspace(0, n_rows, n_coordinates + 1)
    rows = np.floor(rng.uniform(bounds[:-1], bounds[1:])).astype(int).clip(0, n_rows - 1)
    columns = np.resize(rng.permutation(n_columns), n_coordinates)
    entries = rows * n_columns + columns
    missing = n_coordinates - len(set(entries.tolist()))
    if missing:
        rest = np.setdiff1d(np.arange(n_rows * n_columns), entries)
        entries = np.append(entries, rng.choice(rest, missing, replace=False))
    return sorted(chosen.union(entries.tolist()))


def _directions(
    part: _Part, n_directions: int, rng: np.random.Generator
) -> Iterator[tuple[str, Matrix]]:
    for _ in range(n_directions):
        yield "direction", _unit(rng.standard_normal(part.W.shape))
    if n_directions and part.bias_row is not None:
        V = np.zeros(part.W.shape)
        V[part.bias_row] = rng.standard_normal(part.W.shape[1:])
        yield "bias direction", _unit(V)


def _unit(V: Matrix) -> Matrix:
    return np.asarray(V / np.linalg.norm(V))


def _locate(
    part: _Part, h: float, directions: Sequence[Matrix], along: Sequence[GradientRecord]
) -> list[GradientRecord]:
    """A failing entry behind a direction that disagrees, if one can be found.

    In a direction, an error in few entries is diluted by all others. So one that is no more than
    "fine" is followed as well; the entry alone decides.
    """
    order = sorted(range(len(along)), key=lambda k: along[k].severity, reverse=True)
    suspects = [k for k in order if along[k].failed]
    suspects = suspects or [k for k in order if along[k].status == "fine"][:1]
    for k in suspects:
        record = _judge_entry(part, _bisect(part, directions[k], h), h)
        if record.failed:
            return [record]
    return []


def _bisect(part: _Part, V: Matrix, h: float) -> int:
    """The entry (flat) reached by always keeping the half of ``V`` that disagrees more.

    Entries are in row-major order, so rows are halved first and then the columns of one row.
    """
    entries = np.flatnonzero(V)
    while len(entries) > 1:
        halves = np.array_split(entries, 2)
        entries = max(halves, key=lambda half: _disagreement(part, V, half, h))
    return int(entries[0])


def _disagreement(part: _Part, V: Matrix, entries: NDArray[np.intp], h: float) -> float:
    """``|a - n|`` of ``V`` on some entries only."""
    some = np.zeros(V.shape)
    some.flat[entries] = V.flat[entries]
    record = _judge(part, _unit(some), h, "", None)
    difference = abs(record.analytic - record.numerical) * float(np.linalg.norm(some))
    return math.inf if math.isnan(difference) else difference


def _judge_entry(part: _Part, flat: int, h: float) -> GradientRecord:
    index = tuple(int(i) for i in np.unravel_index(flat, part.W.shape))
    V = np.zeros(part.W.shape)
    V[index] = 1.0
    kind = "row" if len(index) > 1 else "entry"
    block = "bias" if index[0] == part.bias_row else f"{kind} {index[0]}"
    return _judge(part, V, h, block, index)


# --- how a line is judged --------------------------------------------------------------------


@dataclass(frozen=True)
class _Trial:
    """The quotients of one step along a line."""

    h: float
    centred: float
    left: float
    right: float
    noise: float
    crosses: bool

    @property
    def jump(self) -> float:
        """By how much the slope on the right exceeds the one on the left."""
        return self.right - self.left


def _judge(
    part: _Part, V: Matrix, h: float, block: str, index: tuple[int, ...] | None
) -> GradientRecord:
    """Compare the two slopes of the line along ``V``."""
    support = V != 0
    analytic = float(part.gradient[support] @ V[support])
    # In a direction an error is diluted: it must be good, or be looked at more closely.
    enough = GOOD if index is None else UNEASY
    trials = _trials(part, V, h, analytic, enough)
    believed, numerical, status = _verdict(part, analytic, trials, enough)
    return GradientRecord(
        part=part.name,
        block=block,
        index=index,
        analytic=analytic,
        numerical=numerical,
        relative_error=_relative_error(analytic, numerical),
        status=status,
        h=believed.h,
        kink=status == "kink" or _met_kink(part, trials),
    )


def _trials(part: _Part, V: Matrix, h: float, analytic: float, enough: float) -> list[_Trial]:
    """Smaller and smaller steps, until one settles the matter; never none."""
    trials = [_try(part, V, h)]
    if trials[0].noise == math.inf:
        raise ValueError(f"h = {h:g} does not change W, whose entries are too large for it")
    for k in range(1, _N_STEPS):
        if _settles(part, analytic, trials[-1], enough):
            break
        trial = _try(part, V, h / _SHRINK**k)
        if not math.isfinite(trial.centred):  # swallowed by rounding
            break
        trials.append(trial)
    return trials


def _settles(part: _Part, analytic: float, trial: _Trial, enough: float) -> bool:
    """Whether no smaller step need be tried."""
    size = max(abs(analytic), abs(trial.centred))
    if trial.crosses:
        return False
    if not math.isfinite(size) or size < TOO_SMALL:
        return True
    # Of unknown pieces, slopes that differ on the two sides may enclose a kink.
    if part.piece is None and abs(trial.jump) > 4 * trial.noise + _STRAIGHT * size:
        return False
    return abs(analytic - trial.centred) <= enough * size and trial.noise <= enough * size


def _try(part: _Part, V: Matrix, h: float) -> _Trial:
    above, below = part.W + h * V, part.W - h * V
    # The steps that were really made, after rounding (V has norm 1).
    up, down = float(np.vdot(V, above - part.W)), float(np.vdot(V, part.W - below))
    if up <= 0 or down <= 0:
        return _Trial(h, math.nan, math.nan, math.nan, math.inf, False)
    crosses = part.piece is not None and not np.array_equal(part.piece(above), part.piece(below))
    upper, lower = part.loss(above), part.loss(below)
    return _Trial(
        h=h,
        centred=(upper - lower) / (up + down),
        left=(part.value - lower) / down,
        right=(upper - part.value) / up,
        noise=_ULPS * _EPS * (part.scale + max(abs(upper), abs(lower))) / h,
        crosses=crosses,
    )


def _verdict(
    part: _Part, analytic: float, trials: Sequence[_Trial], enough: float
) -> tuple[_Trial, float, Status]:
    """The trial that is believed, its slope and the status."""
    last = trials[-1]
    if _settles(part, analytic, last, enough):
        return last, last.centred, _grade(analytic, last.centred, last.noise)
    finite = [trial for trial in trials if math.isfinite(trial.centred)]
    if not finite:  # the loss beside W is not
        return last, last.centred, "wrong"
    beside = [trial for trial in finite if not trial.crosses]
    if not beside:
        return _verdict_at_corner(analytic, finite)
    trial, uncertainty = _most_certain(beside)
    status = _grade(analytic, trial.centred, uncertainty)
    if status in _FAILING and part.piece is None and (corners := _corners(beside)):
        return _verdict_at_corner(analytic, corners)
    return trial, trial.centred, status


def _most_certain(trials: Sequence[_Trial]) -> tuple[_Trial, float]:
    """The trial of the smallest uncertainty, from the numerical values alone."""
    if len(trials) == 1:
        return trials[0], trials[0].noise
    change = [abs(large.centred - small.centred) for large, small in pairwise(trials)]
    # Truncation falls by 100 from step to step: a trial's own is 1/99 of the last change.
    truncation = [2 * change[0], *(c / 50 for c in change)]
    uncertainty = [trial.noise + error for trial, error in zip(trials, truncation, strict=True)]
    # A kink within a step, but not within a smaller one, shows in that they contradict each other.
    for k, trial in enumerate(trials):
        smaller = trials[k + 1 :]
        if any(abs(trial.centred - t.centred) > uncertainty[k] + t.noise for t in smaller):
            uncertainty[k] = math.inf
    best = int(np.argmin(uncertainty))
    return trials[best], uncertainty[best]


def _corners(trials: Sequence[_Trial]) -> list[_Trial]:
    """The trials around a kink at ``W``, as far as the slopes show that there is one.

    As the step falls, the jump of a smooth function falls with it, that of a kink beside ``W``
    ends, and that of rounding grows; that of a corner stays, from a larger step to the smallest.
    """

    def stays(k: int) -> bool:
        jump, noise = trials[k].jump, trials[k].noise
        others = [trials[k - 1], *trials[k + 1 :]]
        return abs(jump) > 4 * noise and all(
            abs(other.jump - jump) <= abs(jump) / 2 + 4 * other.noise for other in others
        )

    return [trials[k] for k in range(1, len(trials) - 1) if stays(k)]


def _verdict_at_corner(analytic: float, trials: Sequence[_Trial]) -> tuple[_Trial, float, Status]:
    """Judge where every step crosses a kink: the gradient must lie between the slopes."""
    trial = min(trials, key=lambda trial: abs(trial.jump) + trial.noise)
    size = max(abs(trial.left), abs(trial.right))
    tolerance = trial.noise + UNEASY * size
    if abs(trial.jump) <= tolerance:  # a kink of a higher derivative, or one that hardly matters
        return trial, trial.centred, _grade(analytic, trial.centred, trial.noise + trial.jump)
    low, high = sorted((trial.left, trial.right))
    nearest = min(max(analytic, low), high) if math.isfinite(analytic) else trial.centred
    if abs(analytic - nearest) <= tolerance:
        return trial, nearest, "kink"
    return trial, nearest, _band(_relative_error(analytic, nearest))


def _grade(analytic: float, numerical: float, uncertainty: float) -> Status:
    error = _relative_error(analytic, numerical)
    if error == 0.0:
        return "good"
    if max(abs(analytic), abs(numerical)) < TOO_SMALL:
        return "too small"
    if error > UNEASY and abs(analytic - numerical) <= uncertainty:
        return "too small"
    return _band(error)


def _band(error: float) -> Status:
    """The course's name for a relative error; of NaN "wrong"."""
    if error <= GOOD:
        return "good"
    if error <= UNEASY:
        return "fine"
    return "uneasy" if error <= WRONG else "wrong"


def _relative_error(a: float, n: float) -> float:
    if a == n:
        return 0.0
    with np.errstate(invalid="ignore"):
        return float(np.float64(abs(a - n)) / max(abs(a), abs(n)))


def _met_kink(part: _Part, trials: Sequence[_Trial]) -> bool:
    """Whether the first step met a kink; of unknown pieces, guessed from the jump.

    From ``h`` to ``h / 10`` the jump of a smooth function falls by 10, and that of a line with one
    kink by far more or not at all.
    """
    if part.piece is not None or part.smooth or len(trials) == 1:
        return trials[0].crosses
    first, second = trials[:2]
    large, small = abs(first.jump), abs(second.jump)
    if large <= 4 * first.noise:
        return False
    return small + 4 * second.noise < 0.03 * large or small - 4 * second.noise > 0.3 * large


# --- what the report adds --------------------------------------------------------------------


def _notes(
    records: Sequence[GradientRecord], parts: Sequence[_Part], counter: _Counter
) -> tuple[str, ...]:
    notes = []
    for part in parts:
        own = [record for record in records if record.part == part.name]
        notes += [f"{part.name}: {note}" for note in _notes_on_part(part, own)]
    if counter.all_float32 and any(record.failed for record in records):
        notes.append("every loss is a float32 number: compute it in float64")
    return tuple(notes)


def _notes_on_part(part: _Part, records: Sequence[GradientRecord]) -> Iterator[str]:
    failed = [record for record in records if record.failed]
    statuses = {record.status for record in records}
    if statuses == {"too small"}:
        yield "nothing is large enough to judge; scale the loss up, or take another W"
    if statuses == {"kink"}:
        yield "everything lies on a kink; take another W for a sharper check"
    if part.smooth and "fine" in statuses and not failed:
        yield "the loss is smooth, so errors above 1e-7 are truncation or rounding, not kinks"
    if not np.isfinite(part.gradient).all():
        count = np.count_nonzero(~np.isfinite(part.gradient))
        yield f"{count} of {part.gradient.size} entries of the gradient are not finite"
    elif failed:
        yield from _likely_causes(part, records, failed)


def _likely_causes(
    part: _Part, records: Sequence[GradientRecord], failed: Sequence[GradientRecord]
) -> Iterator[str]:
    entries = [record for record in failed if record.index is not None]
    passed = any(r.index is not None and r.status in ("good", "fine") for r in records)
    if entries and passed and {record.block for record in entries} == {"bias"}:
        yield "only entries of the bias fail"
    ratios = [r.analytic / r.numerical for r in entries if r.numerical]
    if len(ratios) < 2 or max(ratios) - min(ratios) > 0.01 * abs(ratios[0]):
        return
    ratio = float(np.median(ratios))
    cause = _cause_of_ratio(ratio, part)
    yield f"analytic / numerical is {ratio:.4g} wherever it fails{cause and f': {cause}'}"


def _cause_of_ratio(ratio: float, part: _Part) -> str:
    def near(value: float) -> bool:
        return abs(ratio - value) <= 0.01 * abs(value)

    if near(-1.0):
        return "the sign is wrong"
    if part.n_rows is not None and part.n_rows > 1 and near(part.n_rows):
        return "the number of rows, so 1/N is missing in the gradient"
    if part.n_rows is not None and part.n_rows > 1 and near(1 / part.n_rows):
        return "1 / the number of rows, so the gradient is divided by N once too often"
    if near(0.25) or near(0.5) or near(2.0):
        return "a factor of a square; the gradient of l2 * sum(W**2) is 2 * l2 * W"
    if ratio > 2 and abs(ratio - round(ratio)) <= 1e-3:
        return "a whole number; is 1/N missing in the gradient?"
    return ""
