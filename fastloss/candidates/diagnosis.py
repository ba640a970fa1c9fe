"""Compare wrong results with the hypotheses, and say what to do."""

from __future__ import annotations

import math

import numpy as np

from fastloss.candidates.evidence import Evidence
from fastloss.candidates.wrong_calls import EXCEPTIONS, RESULTS, Hypothesis
from fastloss.candidates.wrong_values import VALUES


@np.errstate(all="ignore")
def diagnose(evidence: Evidence) -> tuple[str, ...]:
    """Return sentences that say why a call failed and what to do; empty if no hypothesis fits."""
    if evidence.outcome.raised:
        return _first(EXCEPTIONS, evidence)
    if not evidence.outcome.is_usable:
        return _first(RESULTS, evidence)
    sentences, unexplained = [], set(evidence.misfits)
    for test in VALUES:
        if not unexplained:
            break
        explanation = test(evidence)
        if explanation is not None and explanation.parts <= unexplained:
            sentences.append(explanation.sentence)
            unexplained -= explanation.parts
    return tuple(sentences)


def diagnose_extreme(evidence: Evidence) -> tuple[str, ...]:
    """Return a sentence for a call that is right at ordinary scores only."""
    outcome = evidence.outcome
    if outcome.loss is None or outcome.gradient is None:
        return ()
    if math.isfinite(outcome.loss) and np.isfinite(outcome.gradient).all():
        return ("are scores or probabilities clipped, or is a small number added inside a log?",)
    return ("an exp overflows or underflows: subtract each row's largest score before exp",)


def _first(hypotheses: tuple[Hypothesis, ...], evidence: Evidence) -> tuple[str, ...]:
    return next(((sentence,) for test in hypotheses if (sentence := test(evidence))), ())
