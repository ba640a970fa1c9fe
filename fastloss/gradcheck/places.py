"""Choose entries and directions to check, and find the entry behind a failing direction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fastloss.gradcheck.line import judge
from fastloss.gradcheck.parts import Part
from fastloss.gradcheck.records import GradientRecord
from fastloss.numerical import Matrix


def check_part(
    part: Part, h: float, n_coordinates: int, n_directions: int, rng: np.random.Generator
) -> list[GradientRecord]:
    """Return records of entries and directions of a part."""
    records = [_judge_entry(part, flat, h) for flat in _sampled_entries(part, n_coordinates, rng)]
    directions = list(_directions(part, n_directions, rng))
    along = [judge(part, V, h, block, None) for block, V in directions]
    if not any(record.failed for record in records):
        records += _locate(part, h, [V for _, V in directions], along)
    return records + along


def _sampled_entries(part: Part, n_coordinates: int, rng: np.random.Generator) -> list[int]:
    """Return flat indices, spread over all rows and columns, with the bias row.

    The first entry whose gradient is not finite is always included.
    """
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
    # One entry from each of equal runs of rows, and columns in turn, so that no block is missed.
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
    part: Part, n_directions: int, rng: np.random.Generator
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
    part: Part, h: float, directions: Sequence[Matrix], along: Sequence[GradientRecord]
) -> list[GradientRecord]:
    """Return a failing entry behind a direction that disagrees, if bisection finds one.

    A direction dilutes the error of a few entries. If no direction fails, the worst "fine" one is
    bisected instead. The entry alone decides.
    """
    order = sorted(range(len(along)), key=lambda k: along[k].severity, reverse=True)
    suspects = [k for k in order if along[k].failed]
    suspects = suspects or [k for k in order if along[k].status == "fine"][:1]
    for k in suspects:
        record = _judge_entry(part, _bisect(part, directions[k], h), h)
        if record.failed:
            return [record]
    return []


def _bisect(part: Part, V: Matrix, h: float) -> int:
    """Return the flat index of an entry, found by always keeping the half that disagrees more.

    Entries are in row-major order, so rows are halved first, then the columns of one row.
    """
    entries = np.flatnonzero(V)
    while len(entries) > 1:
        halves = np.array_split(entries, 2)
        entries = max(halves, key=lambda half: _disagreement(part, V, half, h))
    return int(entries[0])


def _disagreement(part: Part, V: Matrix, entries: NDArray[np.intp], h: float) -> float:
    """Return ``|a - n|`` along ``V``, restricted to some entries."""
    some = np.zeros(V.shape)
    some.flat[entries] = V.flat[entries]
    record = judge(part, _unit(some), h, "", None)
    difference = abs(record.analytic - record.numerical) * float(np.linalg.norm(some))
    return math.inf if math.isnan(difference) else difference


def _judge_entry(part: Part, flat: int, h: float) -> GradientRecord:
    index = tuple(int(i) for i in np.unravel_index(flat, part.W.shape))
    V = np.zeros(part.W.shape)
    V[index] = 1.0
    kind = "row" if len(index) > 1 else "entry"
    block = "bias" if index[0] == part.bias_row else f"{kind} {index[0]}"
    return judge(part, V, h, block, index)
