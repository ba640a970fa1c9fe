"""Verify a candidate: its loss and gradient on small problems, in the types that it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.candidates.calling import Outcome, attempt, described
from fastloss.candidates.candidate import Candidate, LossAndGrad, name_of
from fastloss.candidates.cases import (
    USUAL_SIZE,
    Case,
    Size,
    as_size,
    make_cases,
    size_text,
    smooth_case,
)
from fastloss.candidates.convention import Convention
from fastloss.candidates.diagnosis import diagnose, diagnose_extreme
from fastloss.candidates.evidence import Evidence
from fastloss.candidates.report import CandidateReport, Finding
from fastloss.gradcheck import check_gradient
from fastloss.losses import get_loss, shown_name
from fastloss.losses.base import Loss

_NOT_CONTIGUOUS = "arrays that are not contiguous"
# The largest X that a function for one number of rows is verified on.
_MOST_NUMBERS = 2_000_000


def check_candidate(
    function: str | LossAndGrad,
    loss: str | Loss = "softmax",
    *,
    l2: float = 0.0,
    intercept: bool = False,
    layout: str = "dc",
    order: str = "W,X,y",
    size: Size | None = None,
    name: str | None = None,
    seed: int = 0,
) -> CandidateReport:
    """Check that a function computes a named loss and its gradient; say why if it does not.

    The function is compared with the NumPy backend in float64, on problems with ordinary scores,
    one row, two classes, ties, and extreme scores, in float64 and float32. At a kink, any
    subgradient is right. Its gradient is also compared with finite differences of its own loss.
    A function that takes or computes float32 only is judged by float32's tolerances. Labels are
    int64, or int32 if the function refuses those.

    Parameters
    ----------
    function : ``f(W, X, y) -> (loss, dW)``, or its place ``"module:function"``. ``W`` and ``dW``
        are (D, C), ``X`` is (N, D), ``y`` holds labels (N,); the loss is the mean over the rows.
    loss : the name of a loss, or a `Loss`.
    l2, intercept, layout, order : terms of the loss, and how the function is called; see
        `fastloss.candidates.Convention`.
    size : rows, features and classes of a problem, N, D and C, for a function that is right for
        this size only. Its features and classes are tried first with another number of rows.
    name : a name for the report; by default the function's.
    seed : seed of the problems.

    Raises
    ------
    TypeError : it is no function and no place, such as a list, or the result of a call.
    ValueError : the function cannot be found, the loss is unknown, or an option is not allowed.

    Examples
    --------
    >>> import fastloss, numpy as np
    >>> def summed(W, X, y):
    ...     return fastloss.loss_and_grad(W, X, y, reduction="sum", backend="numpy")
    >>> report = fastloss.check_candidate(summed)
    >>> report.passed, report.advice
    (False, ('loss and gradient are 37 times too large: divide by the number of rows',))
    """
    if not (callable(function) or isinstance(function, str)):
        raise TypeError(
            "check_candidate takes one function (W, X, y) -> (loss, dW), not its result and no "
            f"list of functions; got {described(function)}"
        )
    convention = Convention(order, layout, l2, intercept)
    candidate = Candidate(name or name_of(function), function, convention)
    return examine(candidate, loss, seed, sizes=() if size is None else [as_size(size)])


def examine(
    candidate: Candidate,
    loss: str | Loss,
    seed: int = 0,
    more: Sequence[Case] = (),
    sizes: Iterable[Size] = (),
) -> CandidateReport:
    """Check a candidate, also on ``more`` cases; see `check_candidate`.

    ``sizes`` are those of the data: a function that is right for one of them only is verified on
    problems of that size.
    """
    usual, best = _trials(candidate, get_loss(loss), seed, sizes)
    gathered, notes = _of_taken_types(best)
    lead = gathered[0]
    notes = (*_notes_on_trial(usual, lead), *notes)
    others = make_cases(candidate.convention, seed, lead.size)[1:]
    report = CandidateReport(
        name=candidate.name,
        loss=shown_name(loss) + candidate.convention.terms,
        signature=candidate.convention.signature,
        precision=lead.precision,
        findings=tuple(map(_finding, gathered)),
        frames=lead.outcome.frames,
        notes=notes,
        labels=lead.candidate.labels,
    )
    if lead.outcome.is_usable and math.isfinite(lead.outcome.loss or 0.0):
        report = _with_differences(report, lead, seed)
    if report.failures:
        wrong = (e for e in gathered if _finding(e).wrong and not e.outcome.changed)
        advice = next((sentences for e in wrong if (sentences := diagnose(e))), ())
        return replace(report, advice=advice, stopped=True)
    return _on_other_cases(report, gathered, [*others, *more])


Trial = dict[str, Evidence]


def _trials(
    candidate: Candidate, loss: Loss, seed: int, sizes: Iterable[Size]
) -> tuple[Trial, Trial]:
    """Call with int64 labels at the usual size, then otherwise until a result is right.

    Return the first trial, and the one to judge: the first that is right, else the first with a
    usable result, else the first. A trial has the evidence for float64 and float32.
    """
    tried: list[Trial] = []
    for size in (USUAL_SIZE, *_sizes_to_try(sizes)):
        case = make_cases(candidate.convention, seed, size)[0]
        for labels in (None, "int32"):
            own = replace(candidate, labels=labels)
            trial = {
                dtype: Evidence.gather(own, loss, case, dtype, dtype)
                for dtype in ("float64", "float32")
            }
            tried.append(trial)
            if any(evidence.is_right for evidence in trial.values()):
                return tried[0], trial
            if not all(evidence.outcome.raised for evidence in trial.values()):
                break
    return tried[0], max(tried, key=lambda trial: any(e.outcome.is_usable for e in trial.values()))


def _sizes_to_try(sizes: Iterable[Size]) -> Iterator[Size]:
    for n_rows, n_features, n_classes in dict.fromkeys(sizes):
        yield USUAL_SIZE[0], n_features, n_classes
        if n_rows * n_features <= _MOST_NUMBERS:
            yield n_rows, n_features, n_classes


def _notes_on_trial(usual: Trial, lead: Evidence) -> Iterator[str]:
    """Say why the function is judged at another size, or with other labels, than others are."""
    first = usual[lead.dtype]
    if lead.candidate.labels is not None:
        reason = first.outcome.problem.partition("\n")[0] or "is wrong"
        yield (
            f"it is verified with {lead.candidate.labels} labels, which it takes; for int64 labels "
            f"it {reason}"
        )
    if lead.size != USUAL_SIZE:
        wrong = first.outcome.problem or next(iter(first.misfits.values()), "is right")
        yield (
            f"it is verified at {size_text(lead.size)} (N x D x C) only; at "
            f"{size_text(USUAL_SIZE)}: {wrong.partition(chr(10))[0]}"
        )


def _of_taken_types(first: dict[str, Evidence]) -> tuple[list[Evidence], tuple[str, ...]]:
    """Return the evidence by types that the function takes, with its precision, and notes on it."""
    wide, narrow = first["float64"], first["float32"]
    notes: tuple[str, ...] = ()
    if wide.outcome.raised and not narrow.outcome.raised:
        return [narrow], (_one_type_only("float32", "float64", wide.outcome),)
    if narrow.outcome.raised and not wide.outcome.raised:
        gathered = [wide]
        notes = (_one_type_only("float64", "float32", narrow.outcome),)
    else:
        gathered = [wide, narrow]
    if wide.is_right or not _computes_in_float32(wide):
        return gathered, notes
    note = "it computes in float32, so it is judged by float32's tolerances for float64 arrays too"
    return [wide.judged("float32"), *gathered[1:]], (*notes, note)


def _one_type_only(taken: str, other: str, outcome: Outcome) -> str:
    reason = outcome.problem.partition("\n")[0]
    return f"it takes {taken} only, so it is verified in {taken}; for {other} it {reason}"


def _computes_in_float32(wide: Evidence) -> bool:
    """Return whether a result for float64 arrays has the type or the errors of float32."""
    outcome = wide.outcome
    if outcome.gradient_dtype in ("float16", "float32"):
        return True
    if not wide.judged("float32").is_right or outcome.loss is None:
        return False
    # A loss that is off alone, and no float32 number, is no matter of the type.
    return "gradient" in wide.misfits or float(np.float32(outcome.loss)) == outcome.loss


def _on_other_cases(
    report: CandidateReport, gathered: list[Evidence], cases: list[Case]
) -> CandidateReport:
    """Add the findings on the other problems to the report of a function that is right so far."""
    lead = gathered[0]
    more = [
        Evidence.gather(e.candidate, e.loss, case, e.dtype, e.precision)
        for e in gathered
        for case in cases
    ]
    findings = [*report.findings, *map(_finding, more)]
    strided, note = _not_contiguous(lead)
    findings += strided
    report = replace(report, findings=tuple(findings), notes=(*report.notes, *note))
    failing = [e for e in more if _finding(e).wrong]
    if not failing:
        limits = dict.fromkeys(limit for e in more if (limit := _limit(e)))
        return replace(report, notes=(*report.notes, *limits))
    advise = diagnose_extreme if report.fails_only_at_extremes else diagnose
    first = min(failing, key=lambda e: e.case.extreme)
    return replace(report, advice=advise(first), frames=first.outcome.frames)


def _finding(evidence: Evidence) -> Finding:
    outcome, case = evidence.outcome, evidence.case
    wrong = outcome.problem
    if outcome.changed:
        names = " and ".join(outcome.changed)
        wrong = f"changes its argument {names}: compute on a copy"
    elif outcome.is_usable and not _limit(evidence):
        wrong = "\n".join(evidence.misfits.values())
    return Finding(case.name, evidence.dtype, wrong, case.extreme)


def _limit(evidence: Evidence) -> str:
    """Return a note on a loss that is not finite beside a right gradient, if scores are far apart.

    The logarithm of a probability is -inf once the probability underflows. Training goes on, for
    it uses the gradient.
    """
    outcome = evidence.outcome
    if not evidence.case.far_apart or not outcome.is_usable or set(evidence.misfits) != {"loss"}:
        return ""
    if outcome.loss is None or math.isfinite(outcome.loss):
        return ""
    return (
        f"{evidence.case.name}: its loss is {outcome.loss}, its gradient right. For a finite loss, "
        "take log(sum(exp(s - max))) - (s_y - max) instead of the log of a probability"
    )


def _not_contiguous(lead: Evidence) -> tuple[list[Finding], list[str]]:
    """Call with ``X`` in Fortran order and ``W`` strided; a refusal is a note."""

    def layout(array: NDArray[Any]) -> NDArray[Any]:
        if array.ndim < 2:
            return array
        if array.shape == lead.case.X.shape:
            return np.asfortranarray(array)
        return np.repeat(array, 2, axis=1)[:, ::2]

    outcome = attempt(lead.candidate, *lead.case.arguments(lead.dtype), layout)
    if outcome.raised:
        reason = outcome.problem.partition("\n")[0]
        return [], [f"it does not take {_NOT_CONTIGUOUS}: it {reason}"]
    evidence = replace(lead, outcome=outcome)
    return [replace(_finding(evidence), case=_NOT_CONTIGUOUS)], []


def _with_differences(report: CandidateReport, lead: Evidence, seed: int) -> CandidateReport:
    """Add the comparison of the gradient with finite differences of the candidate's own loss."""
    case = smooth_case(lead.candidate.convention, lead.loss, seed, lead.size)
    W, X, y = case.arguments(lead.dtype)

    def call(W: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        outcome = attempt(lead.candidate, W.astype(lead.dtype), X, y)
        if outcome.loss is None or outcome.gradient is None:
            raise ValueError(outcome.problem)
        return outcome.loss, outcome.gradient

    call.__name__ = lead.candidate.name
    try:
        check = check_gradient(call, W, n_coordinates=30, dtype=lead.precision, seed=seed)
    except ValueError as error:  # the call failed, or its loss is not finite
        finding = Finding(case.name, lead.dtype, str(error))
        return replace(report, findings=(*report.findings, finding))
    return replace(report, gradient_check=check)
