"""Explain which backend would run a call, and why."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike

from fastloss import arrays
from fastloss.backends import auto, get_backend, unavailable_backends
from fastloss.backends.base import Workload
from fastloss.losses import get_loss
from fastloss.losses.base import Loss
from fastloss.settings import AUTO, environment, requested_backend, requested_threads
from fastloss.threads import available_threads


@dataclass(frozen=True)
class Explanation:
    """A backend, a number of threads, and the reason for the choice.

    ``predicted`` holds the seconds of a call by backend and number of threads, fastest first; it is
    empty unless the backend is "auto". ``unavailable`` holds the reasons of backends that cannot
    run.
    """

    backend: str
    reason: str
    n_threads: int
    unavailable: dict[str, str]
    predicted: dict[tuple[str, int], float] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.backend}, up to {_threads(self.n_threads)}: {self.reason}"]
        lines += [
            f"  {backend}, {_threads(n)}: {1e3 * seconds:.3g} ms predicted"
            for (backend, n), seconds in self.predicted.items()
        ]
        lines += [f"  {name} cannot run: {why}" for name, why in self.unavailable.items()]
        return "\n".join(lines)


def _threads(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"


def explain(
    N: int,
    D: int,
    C: int,
    *,
    dtype: DTypeLike = np.float32,
    loss: str | Loss = "softmax",
    backend: str = AUTO,
    n_threads: int | None = None,
    rows_contiguous: bool = True,
) -> Explanation:
    """Explain which backend `loss_and_grad` would use for N rows, D features and C classes.

    ``dtype`` is the dtype of ``X``; for float16 and uint8, ``W`` is assumed to be float32, and the
    predicted times are those of a float32 ``X``. ``rows_contiguous`` is False for an ``X`` in
    Fortran order. Settings of `use` and of the environment apply. The answer assumes compiled
    kernels; until they are compiled, "auto" uses a backend that is ready.

    Examples
    --------
    >>> import fastloss
    >>> told = fastloss.explain(60_000, 785, 10, backend="numpy", n_threads=1)
    >>> print(told)
    numpy, up to 1 thread: asked for by the argument backend=
    """
    N, D, C = (arrays.as_integer(name, n, 1) for name, n in zip("NDC", (N, D, C), strict=True))
    X_type = np.dtype(dtype)
    if X_type not in arrays.ROW_TYPES:
        raise TypeError(f"dtype must be {arrays.ROW_TYPE_NAMES}, got {X_type}")
    rows_contiguous = arrays.as_bool("rows_contiguous", rows_contiguous)
    loss = get_loss(loss)
    unavailable = unavailable_backends(loss)
    variables = environment()
    requested, by = requested_backend(backend, variables)
    threads = requested_threads(n_threads, variables)
    if requested != AUTO:
        get_backend(requested, loss)
        reason = f"asked for by {by}"
        return Explanation(requested, reason, threads or available_threads(), unavailable)
    W_type = arrays.weight_types(X_type)[0]
    shape, most = (N, D, C), threads or available_threads()
    workload = Workload(loss, shape, X_type, W_type, rows_contiguous, most)
    choice = auto.choose(workload, prepare=False)
    reason = choice.reason
    if X_type != W_type:
        reason += f"; {X_type} counts as {W_type}"
    return Explanation(choice.backend, reason, choice.n_threads, unavailable, choice.predicted)
