"""The verdict on a candidate, for a terminal and for a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from traceback import FrameSummary, format_list

from fastloss.gradcheck import GradientCheck


@dataclass(frozen=True)
class Finding:
    """What was found on one problem; ``wrong`` is empty if the result is right."""

    case: str
    dtype: str
    wrong: str = ""
    extreme: bool = False


@dataclass(frozen=True, repr=False)
class CandidateReport:
    """The verdict of `check_candidate`; print it.

    Parameters
    ----------
    name : the candidate's name.
    loss : the loss that it was compared with, with the terms of its convention.
    signature : how it was called.
    precision : the tolerances of the verdict, "float64" or "float32".
    findings : the results on all problems.
    advice : what to do, if a hypothesis explains the failure.
    frames : if the candidate raised an exception, the frames of the user's code.
    notes : the types, labels and sizes that it was verified with, and its limits.
    gradient_check : gradient against finite differences of the function's own loss; None if the
        function gave no result to check.
    labels : the type of the labels, None for int64.
    stopped : whether other problems were left out, because the first result was wrong.
    """

    name: str
    loss: str
    signature: str
    precision: str
    findings: tuple[Finding, ...]
    advice: tuple[str, ...] = ()
    frames: tuple[FrameSummary, ...] = ()
    notes: tuple[str, ...] = ()
    gradient_check: GradientCheck | None = None
    labels: str | None = None
    stopped: bool = False

    @property
    def passed(self) -> bool:
        """Return whether loss and gradient are right on every problem."""
        check = self.gradient_check
        return check is not None and check.passed and not self.failures

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Return the types of ``W`` and ``X`` that the function takes."""
        return tuple(dict.fromkeys(finding.dtype for finding in self.findings))

    @property
    def failures(self) -> tuple[Finding, ...]:
        """Return the findings of a wrong result."""
        return tuple(finding for finding in self.findings if finding.wrong)

    @property
    def fails_only_at_extremes(self) -> bool:
        """Return whether the results are right wherever scores are ordinary."""
        check = self.gradient_check
        own = check is not None and check.passed
        return own and bool(self.failures) and all(f.extreme for f in self.failures)

    @property
    def reason(self) -> str:
        """Return why it failed, in one line; empty if it passed."""
        if self.passed:
            return ""
        if not self.failures:
            return "the gradient check fails"
        first = self.failures[0]
        wrong = first.wrong.partition("\n")[0]
        # A sentence that says what to do says more than two numbers.
        why = "; ".join(self.advice) or wrong
        if self.fails_only_at_extremes:
            return f"right at ordinary scores, wrong at extreme scores ({first.case}): {why}"
        return why if self.advice else f"{first.case}, {first.dtype}: {wrong}"

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return f"<{self.name}: {self._verdict} as {self.loss}; print it for the report>"

    def _repr_html_(self) -> str:
        title, *lines = self._lines()
        return f"<p><b>{html.escape(title)}</b></p><pre>{html.escape(chr(10).join(lines))}</pre>"

    @property
    def right_cases(self) -> str:
        """Return how many results are right, in words."""
        counts = f"{len(self.findings) - len(self.failures)} of {len(self.findings)}"
        return f"{counts}, then stopped" if self.stopped else counts

    @property
    def _verdict(self) -> str:
        return "passed" if self.passed else "FAILED"

    def _lines(self) -> Iterator[str]:
        yield f"{self.name}: {self._verdict} as {self.loss}, called as {self.signature}"
        if self.fails_only_at_extremes:
            yield "  right at ordinary scores, wrong at extreme scores"
        for case in dict.fromkeys(finding.case for finding in self.failures):
            failures = [finding for finding in self.failures if finding.case == case]
            dtypes = " and ".join(finding.dtype for finding in failures)
            yield f"  wrong in {dtypes}: {case}"
            yield from (f"    {line}" for line in failures[0].wrong.splitlines())
        for line in "".join(format_list(self.frames)).splitlines():
            yield f"    {line}"
        for sentence in self.advice:
            yield f"  likely: {sentence}"
        yield from self._of_right_cases()
        if self.gradient_check is not None:
            yield self._of_gradient_check(self.gradient_check)
        for note in self.notes:
            yield f"  note: {note}"
        if self.stopped:
            yield "  note: it stopped at the first wrong problem: the others were not tried"

    def _of_right_cases(self) -> Iterator[str]:
        """Yield the cases that are right, those of the same types together."""
        types: dict[str, list[str]] = {}
        for finding in self.findings:
            if not finding.wrong:
                types.setdefault(finding.case, []).append(finding.dtype)
        for dtypes in dict.fromkeys(map(tuple, types.values())):
            cases = (case for case, found in types.items() if tuple(found) == dtypes)
            yield f"  right in {' and '.join(dtypes)}: {', '.join(cases)}"

    def _of_gradient_check(self, check: GradientCheck) -> str:
        if not check.passed and self.failures:
            return "  finite differences: loss and gradient do not belong together"
        if not check.passed:
            return f"  finite differences: the gradient is not that of its own loss\n{check}"
        own = "" if not self.failures else "; the gradient belongs to its own loss"
        return f"  finite differences: largest relative error {check.max_relative_error:.1e}{own}"
