"""Hypotheses on a wrong loss or gradient, each with a sentence that says what to do.

A hypothesis is a function of the `Evidence`. It returns an `Explanation` if the evidence fits, else
None. The table at the end lists them, the more special ones first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fastloss.candidates.cases import Expected
from fastloss.candidates.convention import options
from fastloss.candidates.evidence import Evidence, Pair
from fastloss.candidates.judging import misfits, tolerances
from fastloss.losses import available_losses, get_loss

_BOTH = {"loss", "gradient"}


@dataclass(frozen=True)
class Explanation:
    """A sentence, and the wrong parts of the result ("loss", "gradient") that it explains."""

    sentence: str
    parts: frozenset[str]


Hypothesis = Callable[[Evidence], Explanation | None]


def predicted(sentence: str, predict: Callable[[Evidence], Pair]) -> Hypothesis:
    """Return the hypothesis that a prediction fits. ``{it}`` in the sentence names what does."""

    def hypothesis(evidence: Evidence) -> Explanation | None:
        parts = evidence.matches(predict(evidence))
        if not parts:
            return None
        it = "loss and gradient are" if parts == _BOTH else f"the {parts.copy().pop()} is"
        return Explanation(sentence.format(it=it, N=evidence.n_rows), frozenset(parts))

    return hypothesis


def times(factor: Callable[[Evidence], float], sentence: str) -> list[Hypothesis]:
    """Return the hypotheses that a factor multiplies the data's part, or the penalty as well."""
    return [
        predicted(sentence, lambda e: e.scaled(factor(e))),
        predicted(
            sentence, lambda e: (factor(e) * e.expected.loss, factor(e) * e.expected.gradient)
        ),
    ]


def another_loss(evidence: Evidence) -> Explanation | None:
    """Test whether another named loss fits."""
    for name in available_losses():
        loss = get_loss(name)
        parts = evidence.matches(evidence.of_loss(loss)) if loss != evidence.loss else set()
        if parts == _BOTH:
            sentence = f"it computes the loss {name}: pass {options(loss=name)}"
            return Explanation(sentence, frozenset(parts))
    return None


def differs_between_calls(evidence: Evidence) -> Explanation | None:
    """Test whether a second call with the same arguments gives another result."""
    again, first = evidence.on(evidence.case).outcome, evidence.outcome
    assert first.loss is not None
    assert first.gradient is not None
    if again.loss is None or again.gradient is None:
        return None
    if not (math.isfinite(first.loss) and np.isfinite(first.gradient).all()):
        return None
    one = Expected.exactly(first.loss, first.gradient, evidence.expected.largest_score)
    if not misfits(again.loss, again.gradient, one, tolerances(one, evidence.precision)):
        return None
    return Explanation(
        "two calls with the same arguments differ: compute on all rows, draw no random numbers, "
        "and keep nothing between calls",
        frozenset(evidence.misfits),
    )


def another_penalty(evidence: Evidence) -> Explanation | None:
    """Test whether the difference is a multiple of ``sum(W**2)`` and of its gradient ``2 W``."""
    if not evidence.case.W.any():
        return None
    l2 = evidence.candidate.convention.l2
    in_loss, in_gradient = _fitted_l2(evidence)
    close = 1e-3 * max(abs(in_gradient), 1e-3)
    parts = set(evidence.misfits)
    if abs(in_loss - in_gradient) <= close:
        if parts != evidence.matches(_with_penalty(evidence, in_gradient)) or in_gradient < -close:
            return None
        sentence = _penalty_over_rows(evidence, in_gradient) or _penalty_sentence(l2, in_gradient)
        return Explanation(sentence, frozenset(parts))
    # Any wrong loss is the right one plus some multiple of sum(W**2), so believe the usual ones,
    # and one that another W has too.
    explained = evidence.matches((_with_penalty(evidence, in_loss)[0], evidence.expected.gradient))
    usual = (0.0, l2 / 2, l2, 2 * l2)
    other = evidence.elsewhere(evidence.case.W / 4)
    again = _fitted_l2(other)[0] if other.outcome.is_usable else math.nan
    if not any(abs(in_loss - l2) <= close for l2 in usual) and not (
        abs(in_loss - again) <= 1e-3 * abs(in_loss)
    ):
        return None
    explained |= evidence.matches((evidence.expected.loss, _with_penalty(evidence, in_gradient)[1]))
    if parts != explained:
        return None
    return Explanation(_two_penalties(_rounded(in_loss), _rounded(in_gradient)), frozenset(parts))


def _two_penalties(in_loss: str, in_gradient: str) -> str:
    if in_loss == "0":
        return (
            f"the loss has no penalty, but the gradient has 2 * {in_gradient} * W: add "
            f"{in_gradient} * sum(W**2) to the loss, or leave the penalty out of both"
        )
    if in_gradient == "0":
        return (
            f"the loss has the penalty {in_loss} * sum(W**2), but the gradient has none: add "
            f"2 * {in_loss} * W to dW, or leave the penalty out of both"
        )
    return (
        f"the loss has the penalty {in_loss} * sum(W**2), but the gradient has "
        f"2 * {in_gradient} * W: the two do not belong together"
    )


def _penalty_over_rows(evidence: Evidence, found: float) -> str | None:
    """Return a sentence on a penalty that is divided by N: it halves if each row comes twice."""
    case = evidence.case
    twice = evidence.on(replace(case, X=np.vstack([case.X] * 2), y=np.tile(case.y, 2)))
    if found <= 1e-9 or not twice.outcome.is_usable:
        return None
    if not abs(2 * _fitted_l2(twice)[1] - found) <= 1e-3 * found:
        return None
    l2 = float(_rounded(found * evidence.n_rows))
    return (
        f"its penalty is {l2:g} / N * sum(W**2): do not divide it by the number of rows, and pass "
        f"{options(l2=l2)}"
    )


def lasso(evidence: Evidence) -> Explanation | None:
    """Test whether the difference is a multiple of ``sum(abs(W))`` and of its gradient."""
    outcome, signs = evidence.outcome, np.zeros(evidence.case.W.shape)
    assert outcome.gradient is not None
    signs[: len(evidence.penalised)] = np.sign(evidence.penalised)
    off = outcome.gradient - evidence.expected.gradient
    l1 = float(np.vdot(signs, off)) / max(float(np.vdot(signs, signs)), 1.0)
    value = evidence.expected.loss + l1 * float(np.abs(evidence.penalised).sum())
    if evidence.matches((value, evidence.expected.gradient + l1 * signs)) != _BOTH:
        return None
    sentence = (
        f"off by {_rounded(l1)} * sum(abs(W)): an L1 penalty has no option, so check the function "
        "without it"
    )
    return Explanation(sentence, frozenset(_BOTH))


def summed_with_penalty(evidence: Evidence) -> Explanation | None:
    """Test for the sum over the rows with a penalty of another strength."""
    outcome, (square, slope) = evidence.outcome, evidence.penalty_of(1.0)
    assert outcome.gradient is not None
    value, gradient = evidence.scaled(evidence.n_rows)
    l2 = float(np.vdot(slope, outcome.gradient - gradient))
    l2 /= max(float(np.vdot(slope, slope)), 1e-300)
    if evidence.matches((value + l2 * square, gradient + l2 * slope)) != _BOTH:
        return None
    found = float(_rounded(evidence.candidate.convention.l2 + l2))
    sentence = (
        f"without its penalty, it is {evidence.n_rows} times too large: divide that part by the "
        f"number of rows; the penalty is {found:g} * sum(W**2): pass {options(l2=found)}"
    )
    return Explanation(sentence, frozenset(_BOTH))


def bias_row_first(evidence: Evidence) -> Pair:
    """Predict the result for a bias in the first row of ``W``."""
    if not evidence.candidate.convention.intercept:
        return evidence.expected.loss, evidence.expected.gradient
    convention, case = evidence.candidate.convention, evidence.case
    objective = convention.objective(case.X, case.y, evidence.loss, "numpy")
    value, gradient = objective(np.roll(case.W, -1, axis=0))
    return value, np.roll(gradient, 1, axis=0)


def _fitted_l2(evidence: Evidence) -> tuple[float, float]:
    """Return the strengths ``l2`` that explain loss and gradient best."""
    outcome, (square, slope) = evidence.outcome, evidence.penalty_of(1.0)
    assert outcome.loss is not None
    assert outcome.gradient is not None
    l2 = evidence.candidate.convention.l2
    off = outcome.gradient - evidence.expected.gradient
    return (
        l2 + (outcome.loss - evidence.expected.loss) / square,
        l2 + float(np.vdot(slope, off) / np.vdot(slope, slope)),
    )


def _with_penalty(evidence: Evidence, l2: float) -> Pair:
    value, gradient = evidence.penalty_of(1.0)
    more = l2 - evidence.candidate.convention.l2
    return evidence.expected.loss + more * value, evidence.expected.gradient + more * gradient


def _rounded(l2: float) -> str:
    """Return a fitted number as text, with four digits if they are enough."""
    if abs(l2) <= 1e-9:
        return "0"
    short = f"{l2:.4g}"
    return short if abs(float(short) - l2) <= 1e-6 * abs(l2) else f"{l2:.10g}"


def _penalty_sentence(l2: float, found: float) -> str:
    number = _rounded(found)
    if number == "0":
        return f"it has no penalty: leave out {options(l2=l2)}"
    if not l2:
        return f"off by {number} * sum(W**2): is a penalty in it? Pass {options(l2=float(number))}"
    half = " (is it l2 / 2 * sum(W**2)?)" if abs(found - l2 / 2) <= 1e-3 * l2 else ""
    return f"its penalty is {number} * sum(W**2){half}: pass {options(l2=float(number))}"


def penalised_bias(evidence: Evidence) -> Pair:
    """Predict a penalty that includes the bias row."""
    l2 = evidence.candidate.convention.l2
    bias = np.zeros(evidence.case.W.shape)
    bias[len(evidence.penalised) :] = evidence.case.W[len(evidence.penalised) :]
    value, gradient = evidence.expected.loss, evidence.expected.gradient
    return value + l2 * float(np.square(bias).sum()), gradient + 2 * l2 * bias


def over_rows(evidence: Evidence) -> Pair:
    """Predict a softmax that divides by sums over the rows, not over the classes."""
    rows, scores = np.arange(evidence.n_rows), evidence.scores
    probabilities = np.exp(scores - scores.max(axis=0))
    probabilities /= probabilities.sum(axis=0)
    losses = -np.log(probabilities[rows, evidence.case.y])
    probabilities[rows, evidence.case.y] -= 1.0
    return evidence.of_scores(losses, probabilities)


def without_true_class(evidence: Evidence, unit: bool) -> Pair:
    """Predict a gradient that lacks the true class's share, or (``unit``) softmax's - 1."""
    rows, y = np.arange(evidence.n_rows), evidence.case.y
    losses, dscores = evidence.loss.vectorized(evidence.scores.copy(), y)
    dscores[rows, y] = dscores[rows, y] + 1.0 if unit else 0.0
    return evidence.of_scores(losses, dscores)


def constant(evidence: Evidence) -> Explanation | None:
    """Test whether the loss is off by the same number at another ``W``."""
    other = evidence.elsewhere(evidence.case.W / 4)
    if set(evidence.misfits) != {"loss"} or not other.outcome.is_usable:
        return None
    off, again = (e.outcome.loss - e.expected.loss for e in (evidence, other))  # type: ignore[operator]
    if not abs(off - again) <= 1e-4 * abs(off):
        return None
    return Explanation(
        f"the loss is off by the constant {off:.6g} at every W, and the gradient is right: does it "
        "count a term that W does not change, such as the true class's margin?",
        frozenset({"loss"}),
    )


def slight(evidence: Evidence) -> Explanation | None:
    """Test whether the loss is nearly right."""
    loss, right = evidence.outcome.loss, evidence.expected.loss
    assert loss is not None
    if set(evidence.misfits) != {"loss"} or not abs(loss - right) <= 1e-3 * abs(right):
        return None
    sentence = (
        "the loss is nearly right: is a small number (1e-8, 1e-12) added inside a log, or is it "
        "rounded?"
    )
    return Explanation(sentence, frozenset({"loss"}))


def any_factor(evidence: Evidence) -> Explanation | None:
    """Test whether one number multiplies the whole gradient."""
    gradient, right = evidence.outcome.gradient, evidence.expected.gradient
    assert gradient is not None
    ratio = float(np.vdot(right, gradient) / np.vdot(right, right))
    if not math.isfinite(ratio) or "gradient" not in evidence.matches((0.0, ratio * right)):
        return None
    sentence = f"every entry of the gradient is {ratio:.4g} times the right one"
    return Explanation(sentence, frozenset({"gradient"}))


def bias_row_only(evidence: Evidence) -> Explanation | None:
    """Test whether all rows but the bias row are right."""
    gradient = evidence.outcome.gradient
    if gradient is None or not evidence.candidate.convention.intercept:
        return None
    mended = np.vstack([evidence.expected.gradient[:-1], gradient[-1:]])
    if "gradient" not in evidence.matches((0.0, mended)):
        return None
    sentence = "only the last row of dW, the bias's, is wrong: it is the mean of dscores over rows"
    return Explanation(sentence, frozenset({"gradient"}))


#: Hypotheses on a result of the right form.
VALUES: tuple[Hypothesis, ...] = (
    differs_between_calls,
    another_loss,
    predicted("{it} 0 throughout", lambda e: e.scaled(0.0)),
    *times(lambda e: e.n_rows, "{it} {N} times too large: divide by the number of rows"),
    *times(lambda e: 1 / e.n_rows, "{it} divided by the number of rows, {N}, twice"),
    *times(lambda e: -1.0, "{it} of the wrong sign"),
    *times(
        lambda e: 1 / math.log(2), "{it} 1 / log(2) times too large: take the natural logarithm"
    ),
    *times(lambda e: 1 / e.n_classes, "{it} divided by the number of classes: multiply by C"),
    *times(
        lambda e: 1 / (e.n_classes - 1),
        "{it} divided by the number of wrong classes: multiply by C - 1",
    ),
    *times(lambda e: 2.0, "{it} twice the right one"),
    *times(lambda e: 0.5, "{it} half the right one"),
    predicted(
        "{it} right for the label y + 1: do not add 1 to y",
        lambda e: e.of_labels((e.case.y + 1) % e.n_classes),
    ),
    predicted(
        "{it} right for the label y - 1: labels start at 0",
        lambda e: e.of_labels((e.case.y - 1) % e.n_classes),
    ),
    predicted(
        "{it} normalised over the rows: sum the exponentials over the classes, axis=1", over_rows
    ),
    another_penalty,
    summed_with_penalty,
    lasso,
    predicted("{it} right with a penalty of the bias row: leave that row out", penalised_bias),
    predicted("{it} right for a bias in the first row of W: it is the last one", bias_row_first),
    predicted(
        "{it} right except for the true class: subtract 1 at [arange(N), y]",
        lambda e: without_true_class(e, unit=True),
    ),
    predicted(
        "{it} right except for the true class: its column lacks minus the sum of the others",
        lambda e: without_true_class(e, unit=False),
    ),
    bias_row_only,
    any_factor,
    constant,
    slight,
)
