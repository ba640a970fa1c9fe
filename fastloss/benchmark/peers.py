"""The peers: PyTorch, JAX and scikit-learn, each called in its own idiomatic way.

A `Peer` names its modules, its losses and the function that binds it to a problem. Binding converts
the arrays once, untimed, into the library's fastest layout (``W`` and its gradient as (C, D)). Only
``bind`` imports the libraries, in the contender's own process: they are heavy, and their thread
pools disturb one another.
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
    """A problem as the peers get it: ``X`` (N, D), ``W`` (C, D), contiguous, of one float type."""

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
    name : its name in the table.
    modules : the modules it needs; they are looked for without importing them.
    losses : names of the losses it computes, with their default parameters.
    bind : a module-level function. It takes a problem and returns a call, which returns ``(loss,
        gradient (C, D))``: both computed, and in the peer's own arrays that `numpy.asarray` reads.
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
        """Return the reason why it cannot compute this loss here, or None."""
        if loss not in self.losses:
            return f"does not compute {loss}"
        missing = [module for module in self.modules if find_spec(module) is None]
        if missing:
            return f"{' and '.join(missing)} not installed (the extra 'peers' has it)"
        return None


@dataclass(frozen=True)
class PeerTask:
    """A peer on a problem. ``X`` is cast to the type of ``W`` before the call."""

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
        """Convert the result to the types of `fastloss.loss_and_grad`, for other processes."""
        loss, gradient = result
        return float(loss), np.asarray(gradient).T


def _torch_loss(problem: PeerProblem) -> Callable[[Any, Any, Any], Any]:
    import torch.nn.functional as F

    if problem.loss == "softmax":
        return lambda W, X, y: F.cross_entropy(F.linear(X, W), y)
    power, n_classes = _HINGE_POWERS[problem.loss], len(problem.W)
    # multi_margin_loss divides by the number of classes.
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
    """Bind ``cross_entropy`` or ``multi_margin_loss`` of ``linear(X, W)``, with autograd."""
    return _torch_call(problem, _torch_loss(problem))


def bind_torch_compiled(problem: PeerProblem) -> Callable[[], tuple[Any, Any]]:
    """Bind the same loss compiled by ``torch.compile``, for this shape only."""
    import torch

    return _torch_call(problem, torch.compile(_torch_loss(problem), dynamic=False))


def bind_torch_chunked(problem: PeerProblem) -> Callable[[], tuple[Any, Any]]:
    """Bind ``linear_cross_entropy``: its default chunk size, and never all scores at once."""
    from torch.nn import LinearCrossEntropyOptions
    from torch.nn.functional import linear_cross_entropy

    options = LinearCrossEntropyOptions()
    return _torch_call(problem, lambda W, X, y: linear_cross_entropy(X, W, y, options=options))


def bind_jax(problem: PeerProblem) -> Callable[[], tuple[Any, Any]]:
    """Bind ``jit(value_and_grad(...))`` of optax's cross-entropy, or of a hinge in ``jnp``."""
    # XLA starts a thread for each usable CPU, and has no setting for fewer.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: problem.n_threads])
    import jax
    import jax.numpy as jnp

    # Before the first array: otherwise JAX converts float64 to float32.
    jax.config.update("jax_enable_x64", problem.W.dtype == np.float64)
    of_scores = _jax_loss(problem.loss)
    step = jax.jit(jax.value_and_grad(lambda W, X, y: of_scores(X @ W.T, y).mean()))
    W, X, y = (jnp.asarray(array) for array in (problem.W, problem.X, problem.y))
    return lambda: jax.block_until_ready(step(W, X, y))


def _jax_loss(loss: str) -> Callable[[Any, Any], Any]:
    """Return the function that computes losses (N,) from scores (N, C) and labels."""
    import jax.numpy as jnp
    import optax

    if loss == "softmax":
        return optax.softmax_cross_entropy_with_integer_labels
    power = _HINGE_POWERS[loss]

    def hinge(scores: Any, y: Any) -> Any:
        correct = jnp.take_along_axis(scores, y[:, None], axis=1)
        margins = jnp.maximum(scores - correct + 1, 0)
        # The true class adds 1 to the loss, and nothing to the gradient.
        return (margins**power).sum(axis=1) - 1

    return hinge


def bind_sklearn(problem: PeerProblem) -> Callable[[], tuple[Any, Any]]:
    """Bind the loss that ``LogisticRegression`` minimises, with its memory order of ``W``."""
    from sklearn._loss.loss import HalfMultinomialLoss
    from sklearn.linear_model._linear_loss import LinearModelLoss

    base = HalfMultinomialLoss(n_classes=len(problem.W))
    model = LinearModelLoss(base, fit_intercept=False)
    W, y = np.asfortranarray(problem.W), problem.y.astype(problem.W.dtype)
    return lambda: model.loss_gradient(W, problem.X, y, n_threads=problem.n_threads)


#: In the order of the table. NumPy is missing: it is already a backend.
PEERS = (
    Peer("PyTorch", ("torch",), ("softmax", "hinge", "squared_hinge"), bind_torch),
    Peer(
        "PyTorch compiled", ("torch",), ("softmax", "hinge", "squared_hinge"), bind_torch_compiled
    ),
    Peer("PyTorch chunked", ("torch",), ("softmax",), bind_torch_chunked),
    Peer("JAX + optax", ("jax", "optax"), ("softmax", "hinge", "squared_hinge"), bind_jax),
    Peer("scikit-learn", ("sklearn",), ("softmax",), bind_sklearn),
)
