"""Hypotheses on a call that fails or returns something else, with sentences that say what to do.

A hypothesis is a function of the `Evidence`. It returns a sentence if the evidence fits, else None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations, product
from numbers import Number

import numpy as np

from fastloss.candidates.calling import attempt
from fastloss.candidates.candidate import missing_arguments
from fastloss.candidates.cases import USUAL_SIZE, make_cases, size_text
from fastloss.candidates.convention import Convention, options
from fastloss.candidates.evidence import Evidence

Hypothesis = Callable[[Evidence], str | None]

# Sizes that a function may be written for: those of well-known data sets, and of minibatches.
_CLASSES = (2, 3, 4, 6, 7, 8, 9, 10, 20, 26, 100, 1000)
_FEATURES = (2, 4, 64, 65, 100, 784, 785, 3072, 3073)
_ROWS = (32, 64, 100, 128, 256, 500, 1000)

# Results


def _shapes(evidence: Evidence) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the items of the result: () of a number, (-1,) of another object."""
    returned = evidence.outcome.returned
    items = returned if isinstance(returned, (tuple, list)) else (returned,)
    return tuple(
        () if isinstance(item, Number) else tuple(getattr(item, "shape", (-1,))) for item in items
    )


def _own_shape(evidence: Evidence) -> tuple[int, ...]:
    convention = evidence.candidate.convention
    return convention.gradient(evidence.case.W).shape


def returns(shapes: Callable[[Evidence], tuple[tuple[int, ...], ...]], sentence: str) -> Hypothesis:
    """Return the hypothesis that a result has these shapes, () for a number."""
    return lambda e: sentence if _shapes(e) == shapes(e) else None


def nothing(evidence: Evidence) -> str | None:
    """Test for a result of None."""
    if evidence.outcome.returned is not None:
        return None
    return "it returns None: end it with `return loss, dW`"


def returned_dict(evidence: Evidence) -> str | None:
    """Test for a result in a dict."""
    if not isinstance(evidence.outcome.returned, dict):
        return None
    return "it returns a dict: return the pair loss, dW"


def in_a_graph(evidence: Evidence) -> str | None:
    """Test for a PyTorch tensor that NumPy refuses to read."""
    if "requires grad" not in evidence.outcome.problem:
        return None
    return "it returns a tensor that is part of a graph: return `dW.detach().numpy()`"


def another_row_of_w(evidence: Evidence) -> str | None:
    """Test for a gradient with, or without, a bias row that ``W`` does not have, or has."""
    intercept = evidence.candidate.convention.intercept
    shape = list(_own_shape(evidence))
    shape[0 if evidence.candidate.convention.layout == "dc" else 1] += -1 if intercept else 1
    if _shapes(evidence) != ((), tuple(shape)):
        return None
    return (
        "dW lacks the bias row" if intercept else f"is a bias in it? Pass {options(intercept=True)}"
    )


def another_size(evidence: Evidence) -> str | None:
    """Test whether the result is right for a number of rows, features or classes in use."""
    if evidence.size != USUAL_SIZE:
        return None
    n_rows, n_features, n_classes = evidence.size
    convention = evidence.candidate.convention
    sizes = {
        **{f"{c} classes": (n_rows, n_features, c) for c in _CLASSES},
        **{f"{d} features": (n_rows, d, n_classes) for d in _FEATURES},
        **{f"{n} rows": (n, n_features, n_classes) for n in _ROWS},
        **{f"{d} features and 10 classes": (n_rows, d, 10) for d in _FEATURES},
    }
    for words, size in sizes.items():
        if evidence.on(make_cases(convention, 0, size)[0]).is_right:
            return (
                f"it seems to want {words}: check it with --size {size_text(size)} (in Python: "
                f"size={size}), or with --data"
            )
    return None


#: Hypotheses on a result that is no pair of a loss and a gradient of the shape of W.
RESULTS: tuple[Hypothesis, ...] = (
    nothing,
    in_a_graph,
    returned_dict,
    returns(lambda e: ((1,), _own_shape(e)), "its loss has the shape (1,): return float(loss[0])"),
    returns(
        lambda e: ((), _own_shape(e), (e.n_classes,)),
        "it returns a third item, as the gradient of a bias: return (loss, dW), with the bias as "
        f"the last row of W and dW ({options(intercept=True)}), or without a bias",
    ),
    returns(lambda e: (_own_shape(e), ()), "it returns (gradient, loss): return loss, dW"),
    returns(lambda e: ((),), "it returns the loss alone: return loss, dW"),
    returns(lambda e: (_own_shape(e),), "it returns the gradient alone: return loss, dW"),
    returns(
        lambda e: ((), _own_shape(e)[::-1]),
        "its dW is transposed: return dW.T, of the shape of W",
    ),
    returns(lambda e: ((), (e.case.W.size,)), "its dW is flat: return dW.reshape(W.shape)"),
    returns(
        lambda e: ((), e.scores.shape),
        "its gradient is that of the scores (N, C): return X.T @ dscores",
    ),
    returns(
        lambda e: ((e.n_rows,), _own_shape(e)),
        "it returns a loss for each row: return their mean",
    ),
    another_row_of_w,
    another_size,
)


# Exceptions


def more_arguments(evidence: Evidence) -> str | None:
    """Test whether the function has required arguments beyond three, or fewer than three."""
    convention = evidence.candidate.convention
    missing = missing_arguments(evidence.candidate.function)
    if missing is None:
        return None
    names, n_positional = missing
    if names:
        order = convention.order.replace(",", ", ")
        given = ", ".join(f"{name}=..." for name in names)
        return (
            f"it is called as {convention.signature}, but also needs {', '.join(names)}: check a "
            f"function of three arguments, such as `lambda {order}: "
            f"{evidence.candidate.short_name}({order}, {given})`"
        )
    if n_positional < 3:
        return f"it is called as {convention.signature}, but takes {n_positional} arguments"
    return None


def wants_tensors(evidence: Evidence) -> str | None:
    """Test for an exception that speaks of tensors."""
    if "tensor" not in evidence.outcome.problem.lower():
        return None
    order = evidence.candidate.convention.order.replace(",", ", ")
    return (
        "it seems to want tensors: check a function of arrays, such as `lambda "
        f"{order}: {evidence.candidate.short_name}(*map(torch.from_numpy, ({order})))`"
    )


def labels_plus_one(evidence: Evidence) -> str | None:
    """Test whether the function uses the label y + 1, which the last class does not have."""
    labels = evidence.case.y % (evidence.n_classes - 1)
    fewer = evidence.on(replace(evidence.case, y=labels))
    if not fewer.outcome.is_usable or fewer.is_right:
        return None
    if fewer.matches(fewer.of_labels(labels + 1)) != set(fewer.misfits):
        return None
    return "it uses the label y + 1, and raises at the last class: do not add 1 to y"


def another_call(evidence: Evidence) -> str | None:
    """Test whether another order, layout or bias makes the call work; a right one comes first."""
    usable = [other for other in _other_calls(evidence) if other.outcome.is_usable]
    if not usable:
        return None
    # Sorting is stable: fewer changes come first.
    best = min(usable, key=lambda other: not other.is_right)
    return _wish(evidence.candidate.convention, best.candidate.convention)


def _other_calls(evidence: Evidence) -> Iterator[Evidence]:
    given = evidence.candidate.convention
    others = [
        replace(given, order=",".join(order), layout=layout, intercept=intercept)
        for order, layout, intercept in product(
            permutations(given.order.split(",")), ("dc", "cd"), (False, True)
        )
    ]
    others.sort(key=lambda other: len(_changes(given, other)))
    for convention in others[1:]:
        yield evidence.called(convention, make_cases(convention, 0, evidence.size)[0])


def other_data(evidence: Evidence) -> str | None:
    """Test whether the call works with ``X`` transposed, or with one-hot labels."""
    W, X, y = evidence.case.arguments(evidence.dtype)
    one_hot = np.eye(evidence.n_classes, dtype=X.dtype)[y]
    order = evidence.candidate.convention.order.replace(",", ", ")
    trials = {
        "`X` as (D, N): pass it `X.T`": (np.ascontiguousarray(X.T), y),
        "one-hot labels (N, C): pass it `np.eye(C)[y]`": (X, one_hot),
        "`X` as (D, N) and one-hot labels (N, C): pass it `X.T` and `np.eye(C)[y]`": (
            np.ascontiguousarray(X.T),
            one_hot,
        ),
    }
    for wish, (data, labels) in trials.items():
        for layout in ("dc", "cd"):
            convention = replace(evidence.candidate.convention, layout=layout)
            candidate = replace(evidence.candidate, convention=convention)
            if attempt(candidate, W, data, labels).is_usable:
                changes = _changes(evidence.candidate.convention, convention)
                also = f"; {_wish(evidence.candidate.convention, convention)}" if changes else ""
                return f"it seems to want {wish} in a function of {order}{also}"
    return None


def _changes(given: Convention, wanted: Convention) -> list[str]:
    names = ("order", "layout", "intercept")
    return [name for name in names if getattr(given, name) != getattr(wanted, name)]


def _wish(given: Convention, wanted: Convention) -> str:
    """Say what the function seems to want, and which options say so."""
    changes = _changes(given, wanted)
    shapes = {"dc": "(D, C)", "cd": "(C, D)"}
    sentences = {
        "order": f"it is called as {given.signature}; it seems to want {wanted.signature}",
        "layout": f"`W` is {shapes[given.layout]}; it seems to want {shapes[wanted.layout]}",
        "intercept": "it seems to want a bias row in `W`"
        if wanted.intercept
        else "it seems to want a `W` without a bias row",
    }
    wishes = "; ".join(sentences[name] for name in changes)
    return f"{wishes}: pass {options(**{name: getattr(wanted, name) for name in changes})}"


#: Hypotheses on a call that raises an exception.
EXCEPTIONS: tuple[Hypothesis, ...] = (
    more_arguments,
    labels_plus_one,
    another_size,
    wants_tensors,
    another_call,
    other_data,
)
