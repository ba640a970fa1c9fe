"""What a user could pick instead: PyTorch, JAX and scikit-learn, each as its own users write it.

A `Peer` says what it needs, which losses it computes, and how it is bound to a problem. Binding
converts the arrays once, into the layout the library is fastest with (``W`` and its gradient as
(C, D)), outside of what is timed. The libraries are imported in ``bind`` only, which runs in the
contender's own process: they are heavy, and their thread pools disturb one another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.benchmark.results import Kind
from fastloss.benchmark.tasks import Inputs
from fastloss.losses import get_loss

_HINGE_POWERS = {"hinge": 1, "squared_hinge": 2}


@dataclass(frozen=True)
class PeerProblem:
    """A problem as peers take it: ``X`` (N, D) and ``W`` (C, D), contiguous, of one float type."""

    loss: str
    X: Floats
    y: NDArray[np.int64]
    W: Floats
    n_threads: int


@dataclass(frozen=True)
class Peer:
    """Another library's loss and gradient.

    Parameters
    ----------
    name : as it stands in the table.
    modules : what must be installed; looked for without importing it.
    losses : names of the losses it computes, with their default parameters.
    bind : from a problem to a call that returns ``(loss, gradient (C, D))``, both finished and in
        arrays of the peer's own that `numpy.asarray` reads. A module-level function.
    """

    name: str
    modules: tuple[str, ...]
    losses: tuple[str, ...]
    bind: Callable[[PeerProblem], Callable[[], tuple[Any, Any]]]

    def __post_init__(self) -> None:
        if not self.name or not self.modules or not self.losses:
            raise ValueError(f"a peer needs a name, modules and losses, got {self!r}")
        if not callable(self.bind):
            raise TypeError(f"bind of peer {self.name!r} must be a function, got {self.bind!r}")
        for loss in self.losses:
            get_loss(loss)

    def unavailable(self, loss: str) -> str | None:
        """Why it cannot compute this loss here; None if it may try."""
        if loss not in self.losses:
            return f"does not compute {loss}"
        missing = [module for module in self.modules if find_spec(module) is None]
        if missing:
            return f"{' and '.join(missing)} not installed (the extra 'peers' has it)"
        return None


@dataclass(frozen=True)
class PeerTask:
    """A peer on a problem. An ``X`` of integers is cast to the type of ``W`` before the call."""

    kind: ClassVar[Kind] = "peer"

    inputs: Inputs
    loss: str
    peer: Peer
    n_threads: int

    def bind(self) -> Callable[[], Any]:
        X, y, W = self.inputs.load()
        rows = np.ascontiguousarray(X, W.dtype)
        return self.peer.bind(
            PeerProblem(self.loss, rows, y, np.ascontiguousarray(W.T), self.n_threads)
        )

    def portable(self, result: tuple[Any, Any]) -> tuple[float, Floats]:
        """The result as `fastloss.loss_and_grad` returns it, for processes without the library."""
        loss, gradient = result
        return float(loss), np.asarray(gradient).T


def _torch_loss(problem: PeerProblem) -> Callable[[Any, Any, Any], Any]:
    import torch.nn.functional as F

    if problem.loss == "softmax":
        return lambda W, X, y: F.cross_entropy(F.linear(X, W), y)
    power, n_classes = _HINGE_POWERS[problem.loss], len(problem.W)
    # It divides by the number of classes.
    return lambda W, X, y: n_classes * F.multi_margin_loss(F.linear(X, W), y, p=power)


def _torch_call(
    problem: PeerProblem, loss: Callable[[Any, Any, Any], Any]
) -> Callable[[], tuple[Any, Any]]:
    import torch

    torch.set_num_threads(problem.n_threads)
    X, y = torch.from_numpy(problem.X), torch.from_numpy(problem.y)
    W = torch.from_numpy(problem.W).requires_grad_()

    def call() -> tuple[Any, Any]:
        value = loss(W, X, y)
        (gradient,) = torch.autograd.grad(value, W)
        return value.detach(), gradient

    return call


def bind_torch(problem: PeerProblem) -> Callable[[], tuple[Any, Any]]:
    """``cross_entropy`` or ``multi_margin_loss`` of ``linear(X, W)``, and autograd."""
    return _torch_call(problem, _torch_loss(problem))


def bind_torch_compiled(problem: PeerProblem) -> Callable[[], tuple[Any, Any]]:
    """The same through ``torch.compile``, for this shape alone."""
    import torch

    return _torch_call(problem, torch.compile(_torch_loss(problem), dynamic=False))


def bind_torch_chunked(problem: PeerProblem) -> Callable[[], tuple[Any, Any]]:
    """``linear_cross_entropy``, which never forms all the scores, with its own chunk size."""
    from torch.nn import LinearCrossEntropyOptions
    from torch.nn.functional import linear_cross_entropy

    options = LinearCrossEntropyOptions()
    return _torch_call(problem, lambda W, X, y: linear_cross_entropy(X, W, y, options=options))


def bind_jax(problem: PeerProblem) -> Callable[[], tuple[Any, Any]]:
    """``jit(value_and_grad(...))`` of optax's cross-entropy, or of the hinge in ``jnp``."""
    # XLA starts a thread for each CPU it may use, and has no setting of its own for fewer.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: problem.n_threads])
    import jax
    import jax.numpy as jnp

    # Before the first array: without it JAX makes float32 of float64.
    jax.config.update("jax_enable_x64", problem.W.dtype == np.float64)
    of_scores = _jax_loss(problem.loss)
    step = jax.jit(jax.value_and_grad(lambda W, X, y: of_scores(X @ W.T, y).mean()))
    W, X, y = (jnp.asarray(array) for array in (problem.W, problem.X, problem.y))
    return lambda: jax.block_until_ready(step(W, X, y))


def _jax_loss(loss: str) -> Callable[[Any, Any], Any]:
    """Losses (N,) of scores (N, C) and labels."""
    import jax.numpy as jnp
    import optax

    if loss == "softmax":
        return optax.softmax_cross_entropy_with_integer_labels
    power = _HINGE_POWERS[loss]

    def hinge(scores: Any, y: Any) -> Any:
        correct = jnp.take_along_axis(scores, y[:, None], axis=1)
        margins = jnp.maximum(scores - correct + 1, 0)
        # The true class adds the constant 1, and nothing to the gradient.
        return (margins**power).sum(axis=1) - 1

    return hinge


def bind_sklearn(problem: PeerProblem) -> Callable[[], tuple[Any, Any]]:
    """What ``LogisticRegression`` minimises, with the coefficients in the order it keeps them."""
    from sklearn._loss.loss import HalfMultinomialLoss
    from sklearn.linear_model._linear_loss import LinearModelLoss

    base = HalfMultinomialLoss(n_classes=len(problem.W))
    model = LinearModelLoss(base, fit_intercept=False)
    W, y = np.asfortranarray(problem.W), problem.y.astype(problem.W.dtype)
    return lambda: model.loss_gradient(W, problem.X, y, n_threads=problem.n_threads)


#: In the order of the table. NumPy is a backend already.
PEERS = (
    Peer("PyTorch", ("torch",), ("softmax", "hinge", "squared_hinge"), bind_torch),
    Peer(
        "PyTorch compiled", ("torch",), ("softmax", "hinge", "squared_hinge"), bind_torch_compiled
    ),
    Peer("PyTorch chunked", ("torch",), ("softmax",), bind_torch_chunked),
    Peer("JAX + optax", ("jax", "optax"), ("softmax", "hinge", "squared_hinge"), bind_jax),
    Peer("scikit-learn", ("sklearn",), ("softmax",), bind_sklearn),
)
