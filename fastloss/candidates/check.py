"""Verify a candidate: its loss and gradient on small problems, in the types that it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.candidates.calling import Outcome, attempt
from fastloss.candidates.candidate import Candidate, LossAndGrad, name_of
from fastloss.candidates.cases import Case, make_cases, smooth_case
from fastloss.candidates.convention import Convention
from fastloss.candidates.diagnosis import diagnose, diagnose_extreme
from fastloss.candidates.evidence import Evidence
from fastloss.candidates.report import CandidateReport, Finding
from fastloss.gradcheck import check_gradient
from fastloss.losses import get_loss
from fastloss.losses.base import Loss

_NOT_CONTIGUOUS = "arrays that are not contiguous"


def check_candidate(
    function: str | LossAndGrad,
    loss: str | Loss = "softmax",
    *,
    l2: float = 0.0,
    intercept: bool = False,
    layout: str = "dc",
    order: str = "W,X,y",
    name: str | None = None,
    seed: int = 0,
) -> CandidateReport:
    """Check that a function computes a named loss and its gradient; say why if it does not.

    The function is compared with the NumPy backend in float64, on problems with ordinary scores,
    one row, two classes, ties, and extreme scores, in float64 and float32. At a kink, any
    subgradient is right. Its gradient is also compared with finite differences of its own loss.
    A function that takes or computes float32 only is judged by float32's tolerances.

    Parameters
    ----------
    function : ``f(W, X, y) -> (loss, dW)``, or its place ``"module:function"``. ``W`` and ``dW``
        are (D, C), ``X`` is (N, D), ``y`` holds labels (N,); the loss is the mean over the rows.
    loss : the name of a loss, or a `Loss`.
    l2, intercept, layout, order : terms of the loss, and how the function is called; see
        `fastloss.candidates.Convention`.
    name : a name for the report; by default the function's.
    seed : seed of the problems.

    Raises
    ------
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
    convention = Convention(order, layout, l2, intercept)
    return examine(Candidate(name or name_of(function), function, convention), loss, seed)


def examine(
    candidate: Candidate, loss: str | Loss, seed: int = 0, more: Sequence[Case] = ()
) -> CandidateReport:
    """Check a candidate, also on ``more`` cases; see `check_candidate`."""
    loss_function = get_loss(loss)
    ordinary, *others = make_cases(candidate.convention, seed)
    first = {
        dtype: Evidence.gather(candidate, loss_function, ordinary, dtype, dtype)
        for dtype in ("float64", "float32")
    }
    gathered, notes = _of_taken_types(first)
    lead = gathered[0]
    report = CandidateReport(
        name=candidate.name,
        loss=(loss if isinstance(loss, str) else repr(loss)) + candidate.convention.terms,
        signature=candidate.convention.signature,
        precision=lead.precision,
        findings=tuple(map(_finding, gathered)),
        frames=lead.outcome.frames,
        notes=notes,
    )
    if lead.outcome.is_usable and math.isfinite(lead.outcome.loss or 0.0):
        report = _with_differences(report, lead, seed)
    if report.failures:
        wrong = (e for e in gathered if _finding(e).wrong and not e.outcome.changed)
        advice = next((sentences for e in wrong if (sentences := diagnose(e))), ())
        return replace(report, advice=advice)
    return _on_other_cases(report, gathered, [*others, *more])


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
    case = smooth_case(lead.candidate.convention, lead.loss, seed)
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
