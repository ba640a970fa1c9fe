"""Verify backends, candidates and peers, then time them in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import FLOAT_TYPES, Floats, weight_types
from fastloss.backends import get_backend
from fastloss.backends.base import Backend
from fastloss.benchmark import measure
from fastloss.benchmark.peers import Peer, PeerTask
from fastloss.benchmark.results import Cell, Timing
from fastloss.benchmark.run import (
    Run,
    VerificationError,
    affordable,
    first_line,
    limit,
    small_weights,
    verify,
)
from fastloss.benchmark.tasks import AutoTask, BackendTask, CandidateTask, Inputs
from fastloss.benchmark.worker import Session, Worker, WorkerError
from fastloss.candidates import USUAL, Candidate, Convention
from fastloss.losses import get_loss, shown_name
from fastloss.losses.base import Loss
from fastloss.objective import Objective
from fastloss.settings import AUTO

Contender = BackendTask | AutoTask | CandidateTask | PeerTask

# First calls are timed on little work, so imports, compilation and loading take most of their time.
# It is still enough work for the kernel of several threads, which the whole problem will use.
_PROBE_ROWS = 64
_PROBE_MULTIPLY_ADDS = 4_000_000
# Candidates are verified with X in the dtype of W before, which does not show this.
_ON_X_TYPE = {
    np.dtype(np.uint8): "where sums wrap at 256",
    np.dtype(np.float16): "with 11 significant bits",
}


def measure_cell(
    run: Run,
    loss: str | Loss,
    X: NDArray[Any],
    y: NDArray[np.int64],
    n_classes: int,
    backends: tuple[str, ...],
    candidates: Sequence[Candidate],
    peers: tuple[Peer, ...] = (),
    convention: Convention = USUAL,
    refused: Mapping[str, str] | None = None,
) -> None:
    """Verify and time the contenders at one loss and problem; append the cell.

    A peer that is unavailable or wrong is skipped, a wrong candidate refused: the cell records the
    reasons, together with ``refused``, those of candidates found wrong before. A wrong backend is
    an error. ``convention`` has the terms of the loss that all contenders compute.
    """
    loss_name, loss = shown_name(loss), get_loss(loss)
    dtype = weight_types(X.dtype)[0]
    W = small_weights(X, n_classes, dtype, run.settings.seed, convention.intercept)
    inputs = Inputs.save(run.scratch / "inputs" / f"{X.shape[0]}x{X.shape[1]}-{X.dtype}", X, y, W)
    size = f"{loss_name} {X.shape[0]} x {X.shape[1]} x {n_classes}"
    skipped = {peer.name: why for peer in peers if (why := peer.unavailable(loss_name))}
    refused = dict(refused or {})
    tasks: dict[str, Contender] = {
        **_backend_tasks(inputs, loss, backends, convention),
        **{candidate.name: CandidateTask(inputs, candidate) for candidate in candidates},
        **{
            peer.name: PeerTask(inputs, loss_name, peer, run.settings.n_threads)
            for peer in peers
            if peer.name not in skipped
        },
    }
    reference = convention.objective(X, y, loss, "numpy")
    with ExitStack() as stack:
        sessions: dict[str, Session] = {}
        timings: dict[str, Timing] = {}
        for name, task in tasks.items():
            run.progress(f"{size}: verifying {name}")
            session = stack.enter_context(run.session(task))
            try:
                timings[name] = _prepare(run, session, name, task, reference, W)
                sessions[name] = session
            except Exception as error:
                # A candidate in this process raises errors of its own.
                if task.kind == "candidate":
                    is_wrong = isinstance(error, VerificationError)
                    refused[name] = f"{error}{_on_X_type(X.dtype) if is_wrong else ''}"
                elif task.kind == "peer" and isinstance(error, (VerificationError, WorkerError)):
                    skipped[name] = first_line(error)
                else:
                    raise
                session.close()
        run.progress(f"{size}: timing")
        seconds = measure.race(
            sessions,
            max_rounds=run.settings.max_rounds,
            max_seconds=run.settings.cell_seconds,
            rng=run.rng,
        )
    limit_seconds, limit_of = limit(run, X, n_classes, dtype)
    run.results.cells.append(
        Cell(
            loss=loss_name,
            n_rows=X.shape[0],
            n_features=X.shape[1],
            n_classes=n_classes,
            dtype=str(X.dtype),
            timings=[replace(timing, seconds=seconds[name]) for name, timing in timings.items()],
            limit_seconds=limit_seconds,
            limit_of=limit_of,
            skipped=skipped,
            refused=refused,
        )
    )


def _on_X_type(dtype: np.dtype[Any]) -> str:
    """Return a guess why a candidate is wrong for this dtype of X, though right for floats."""
    if dtype not in _ON_X_TYPE:
        return ""
    return f"; X is {dtype} here, {_ON_X_TYPE[dtype]}: is something computed in the type of X?"


def _backend_tasks(
    inputs: Inputs, loss: Loss, backends: tuple[str, ...], convention: Convention
) -> dict[str, BackendTask | AutoTask]:
    """Return the tasks of the backends that can run the loss, "auto" included."""
    return {
        name: AutoTask(inputs, loss, convention)
        if name == AUTO
        else BackendTask(inputs, loss, name, get_backend(name), convention=convention)
        for name in backends
        if name == AUTO or get_backend(name).unavailable(loss) is None
    }


def _prepare(
    run: Run,
    session: Session,
    name: str,
    task: Contender,
    reference: Objective,
    W: Floats,
) -> Timing:
    """Measure first calls and memory, and verify; leave the session ready for timing."""
    n_rows = len(reference.X)
    cold = first = None
    n_timed = n_rows
    if isinstance(task, BackendTask):
        affordable_rows = max(1, _PROBE_MULTIPLY_ADDS // (2 * W.size))
        probe = replace(task, n_rows=min(n_rows, _PROBE_ROWS, affordable_rows))
        # A backend without `make_ready` compiles nothing.
        if run.settings.first_calls and type(task.backend).make_ready is not Backend.make_ready:
            kernel = (name, task.loss.name, task.loss.block, reference.X.dtype)
            if kernel not in run.compiled:
                run.compiled.add(kernel)
                with run.session(task) as fresh:
                    cold = fresh.prepare(probe)[0]
            first = session.prepare(probe)[0]
        task = affordable(session, probe, n_rows, run.settings.call_seconds)
        n_timed = task.n_rows or n_rows
    seconds, result = session.prepare(task)
    if task.kind == "peer":
        # Time it on the whole problem: some peers compile for one shape only.
        cold = seconds
    precision = task.candidate.precision if isinstance(task, CandidateTask) else "float64"
    loss_error, gradient_error = verify(name, result, reference.batch(slice(n_timed)), W, precision)
    return Timing(
        name,
        [],
        fraction=n_timed / n_rows,
        first_call_cold=cold,
        first_call=first,
        peak_extra_bytes=session.peak_extra_bytes() if n_timed == n_rows else None,
        loss_error=loss_error,
        gradient_error=gradient_error,
        note=_note(session, task, reference.X.dtype),
        kind=task.kind,
        where="own process" if isinstance(session, Worker) else "this process",
    )


def _note(session: Session, task: Contender, dtype: np.dtype[Any]) -> str:
    if not isinstance(session, Worker):
        return (
            "timed in this process, so its memory and thread pools are those of this program, and "
            f"its time compares less well. It cannot be sent to another: {session.why_here}"
        )
    if task.kind == "peer" and dtype not in FLOAT_TYPES:
        return "handed a float32 copy of X, made beforehand"
    if not isinstance(task, CandidateTask):
        return ""
    taken, labels = task.candidate.dtype, task.candidate.labels
    copies = [f"{taken} copies of W and X"] if taken not in (None, str(dtype)) else []
    copies += [] if labels is None else [f"{labels} labels"]
    return f"handed {' and '.join(copies)}, made beforehand" if copies else ""


def measure_control(run: Run, X: NDArray[Any], y: NDArray[np.int64], n_classes: int) -> None:
    """Time the A/A control: the NumPy backend against itself, in two processes."""
    run.progress("A/A control: the same contender twice")
    dtype = weight_types(X.dtype)[0]
    W = small_weights(X, n_classes, dtype, run.settings.seed)
    inputs = Inputs.save(run.scratch / "control", X, y, W)
    task = BackendTask(inputs, get_loss("softmax"), "numpy", get_backend("numpy"))
    with run.worker() as one, run.worker() as other:
        one.prepare(task)
        other.prepare(task)
        seconds = measure.race(
            {"one": one, "other": other},
            max_rounds=run.settings.max_rounds,
            max_seconds=run.settings.cell_seconds,
            rng=run.rng,
        )
    run.results.control = Timing("numpy", seconds["one"])
    run.results.control_again = Timing("numpy", seconds["other"])
