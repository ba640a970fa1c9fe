"""Run a problem on fused kernels: explicit vectors, one pass over blocks of rows in cache.

With few classes, reading X takes longest; `kernels.narrow` reads it once. Where there are few rows
of many features, threads share the features (`kernels.few_rows`). With many classes, arithmetic
takes longest; `kernels.wide` multiplies in tiles of registers, or in a matrix unit
(`kernels.wide_amx`, float32 only). None forms an N x C matrix.

Compiling a kernel imports Numba; loading one from the cache does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar

import numpy as np

from fastloss.arrays import ROW_TYPE_NAMES, ROW_TYPES, Floats, weight_types
from fastloss.backends import cost_model
from fastloss.backends.base import Backend, Workload
from fastloss.kernel_cache import is_ready, numba_unavailable
from fastloss.kernels.few_rows import few_rows_kernel, few_rows_name
from fastloss.kernels.few_rows_problem import FewRows
from fastloss.kernels.limits import LIMITS, Limits
from fastloss.kernels.loss_entry import loss_kernel, loss_name
from fastloss.kernels.narrow import narrow_kernel, narrow_name
from fastloss.kernels.narrow_problem import Narrow
from fastloss.kernels.strips import run_strips, strips_kernel, strips_name
from fastloss.kernels.wide import wide_name
from fastloss.kernels.wide_problem import Wide, has_matrix_unit, units_without_numba, wide_kernels
from fastloss.losses.base import Labels, Loss
from fastloss.problem import BatchEvaluator, Evaluator, Problem


class FusedBackend(Backend):
    """``backend="fused"``; with other ``limits``, register it under another name."""

    name: ClassVar[str] = "fused"
    order: ClassVar[int] = 3
    same_bits: ClassVar[bool] = True

    def __init__(self, limits: Limits = LIMITS) -> None:
        self._limits = limits

    def unavailable(self, loss: Loss | None = None) -> str | None:
        if (why_not := numba_unavailable()) is not None:
            return why_not
        if loss is not None and loss.block is None:
            return f"the loss {loss.name!r} has no block form"
        return None

    def predict(self, workload: Workload) -> dict[int, float]:
        kind = "wide"
        if workload.shape[1] > 0:
            kind = way(*workload.shape, workload.W_type.itemsize, self._limits)
        if kind != "wide" and not workload.rows_contiguous:
            return {}  # the model does not cover packing of rows that are not contiguous
        return cost_model.predict(kind, workload)

    def ready(self, workload: Workload) -> bool:
        return all(map(is_ready, kernels_of(workload)[1]))

    def make_ready(self, workload: Workload) -> None:
        kernels_of(workload)[2]()

    def evaluate(
        self, problem: Problem, W: Floats, dW: Floats | None, n_threads: int | None
    ) -> float:
        return self.prepare(problem, W.shape[1], W.dtype)(W, dW, n_threads)

    def prepare(self, problem: Problem, n_classes: int, dtype: np.dtype[Any]) -> Evaluator:
        return self._lay_out(problem, n_classes, dtype)

    def prepare_batches(
        self, problem: Problem, n_rows: int, n_classes: int, dtype: np.dtype[Any]
    ) -> BatchEvaluator:
        return self._lay_out(problem, n_classes, dtype, n_rows).of_rows

    def _lay_out(
        self, problem: Problem, n_classes: int, dtype: np.dtype[Any], n_rows: int | None = None
    ) -> Narrow | FewRows | Wide:
        n_all, n_features = problem.X.shape
        kind = way(n_rows or n_all, n_features, n_classes, dtype.itemsize, self._limits)
        if kind == "wide":
            return Wide(problem, n_classes, dtype, n_rows, self._limits)
        if kind == "few_rows":
            return FewRows(problem, n_classes, dtype, n_rows)
        return Narrow(problem, n_classes, dtype, n_rows)

    def score_gradient(
        self, loss: Loss, scores: Floats, labels: Labels, n_threads: int | None
    ) -> tuple[Floats, Floats]:
        gradient = np.array(scores, order="C")
        losses = run_strips(loss, gradient, labels, n_threads)
        return losses.astype(scores.dtype, copy=False), gradient


def way(
    n_rows: int, n_features: int, n_classes: int, itemsize: int, limits: Limits = LIMITS
) -> str:
    """Return the kernel for a problem: "narrow", "few_rows" or "wide"."""
    if n_classes > limits.narrow_classes:
        return "wide"
    if n_rows <= limits.few_rows and n_features >= limits.many_features:
        return "few_rows"
    n_bytes = n_features * n_classes * itemsize
    fits = n_bytes <= limits.narrow_bytes or n_classes <= limits.fewest_classes
    if not fits and (n_bytes <= limits.vectors_bytes or n_classes <= limits.vectors_classes):
        fits = itemsize == 8 or not has_matrix_unit()
    return "narrow" if fits else "wide"


# --- compiling -----------------------------------------------------------------------------------


# A shape for each kernel.
_SHAPES = (100, 10, 10), (100, 5000, 10), (100, 10, 1000), (100, 0, 10)

KernelSet = tuple[str, tuple[str, ...], Callable[[], object]]


def all_kernels(losses: Iterable[Loss], X_types: Iterable[np.dtype[Any]]) -> list[KernelSet]:
    """Return the kernel sets of all workloads with these losses and dtypes of X."""
    sets: dict[str, KernelSet] = {}
    for X in X_types:
        if X not in ROW_TYPES:
            raise ValueError(f"dtype must be {ROW_TYPE_NAMES}, got {X}")
        for W in weight_types(X):
            for loss in losses:
                for shape in _SHAPES:
                    if loss.block is not None:
                        one = kernels_of(Workload(loss, shape, X, W))
                        sets[one[0]] = one
    return list(sets.values())


def kernels_of(workload: Workload) -> KernelSet:
    """Return a title for a call's kernels, their names, and a function that compiles them.

    This does not import Numba. A shape without features means a call with given scores.
    """
    loss, shape, X_type, W_type = workload.loss, workload.shape, workload.X_type, workload.W_type
    block = loss.block
    assert block is not None
    kind = way(*shape, W_type.itemsize) if shape[1] > 0 else "strips"
    kernel: Callable[[], object]
    if kind == "strips":
        names, kernel = [strips_name(W_type)], partial(strips_kernel, W_type)
    elif kind == "few_rows":
        names, kernel = [few_rows_name(X_type, W_type)], partial(few_rows_kernel, X_type, W_type)
    elif kind == "narrow":
        names, kernel = [narrow_name(X_type, W_type)], partial(narrow_kernel, X_type, W_type)
    else:
        names = [wide_name(X_type, W_type, unit) for unit in units_without_numba(W_type)]
        kernel = partial(wide_kernels, X_type, W_type)

    def make() -> None:
        loss_kernel(loss, W_type)
        kernel()

    n_parameters = len(loss.parameters)
    names.append(loss_name(block, n_parameters, W_type))
    kind = kind if kind == "strips" else f"{kind}-{X_type}"
    title = f"{kind}-{W_type}-{block.__module__}.{block.__name__}-{n_parameters}"
    return title, tuple(names), make


BACKEND = FusedBackend()
