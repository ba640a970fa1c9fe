"""Write the notes of the report: likely causes of a failure, and parts too small to judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fastloss.gradcheck.parts import EvaluationCounter, Part
from fastloss.gradcheck.records import GradientRecord


def notes_on(
    records: Sequence[GradientRecord], parts: Sequence[Part], counter: EvaluationCounter
) -> tuple[str, ...]:
    notes = []
    for part in parts:
        own = [record for record in records if record.part == part.name]
        notes += [f"{part.name}: {note}" for note in _notes_on_part(part, own)]
    in_float64 = all(part.W.dtype == np.float64 for part in parts)
    if in_float64 and counter.all_float32 and any(record.failed for record in records):
        notes.append("every loss is a float32 number: compute it in float64")
    return tuple(notes)


def _notes_on_part(part: Part, records: Sequence[GradientRecord]) -> Iterator[str]:
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
    part: Part, records: Sequence[GradientRecord], failed: Sequence[GradientRecord]
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


def _cause_of_ratio(ratio: float, part: Part) -> str:
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
