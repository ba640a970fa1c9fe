"""The command ``fastloss check``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

import fastloss
from fastloss import data as datasets
from fastloss.backends import available_backends, get_backend
from fastloss.cli.common import (
    BackendOption,
    DataOption,
    LossOption,
    SeedOption,
    app,
    console,
)
from fastloss.gradcheck import check_gradient
from fastloss.losses import get_loss


@app.command()
def check(
    data: DataOption = None,
    loss: LossOption = None,
    backend: BackendOption = None,
    candidate: Annotated[
        list[str] | None, typer.Option(help="Check your own my_module:my_function instead.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Number of rows to check on.")] = 50,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print every full report.")] = False,
    seed: SeedOption = 0,
) -> None:
    """Check gradients against finite differences; exit with code 1 if one fails."""
    X, y, n_classes = _small_problem(data, rows, seed)
    checks = {name: run(X, y, n_classes, seed) for name, run in _checks(loss, backend, candidate)}
    table = Table(title=f"Gradient check on {len(X)} rows x {X.shape[1]} features")
    for column in ("function", "verdict", "max relative error", "kinks crossed", "evaluations"):
        table.add_column(column)
    for name, result in checks.items():
        verdict = "passed" if result.passed else "FAILED"
        table.add_row(
            name,
            verdict,
            f"{result.max_relative_error:.1e}",
            str(result.n_kinks),
            str(result.n_evaluations),
        )
    terminal = console()
    terminal.print(table)
    for name, result in checks.items():
        if verbose or not result.passed:
            terminal.print(f"{name}:\n{result}", markup=False)
    if not all(result.passed for result in checks.values()):
        raise typer.Exit(1)


Check = Callable[[NDArray[np.float64], NDArray[np.int64], int, int], fastloss.GradientCheck]


def _checks(
    losses: list[str] | None, backends: list[str] | None, candidates: list[str] | None
) -> Iterator[tuple[str, Check]]:
    """Yield named checks: of the user's functions, or of every loss on every backend."""
    from fastloss.benchmark.run import small_weights
    from fastloss.candidates import LossAndGrad, resolve_candidate

    def of_backend(loss: str, backend: str) -> Check:
        def run(
            X: NDArray[np.float64], y: NDArray[np.int64], n_classes: int, seed: int
        ) -> fastloss.GradientCheck:
            objective = fastloss.Objective(
                X, y, loss=loss, l1=1e-3, l2=1e-2, intercept=True, backend=backend
            )
            W = small_weights(X, n_classes, X.dtype, seed)
            return check_gradient(objective, np.vstack([W, np.full_like(W[:1], 0.1)]), seed=seed)

        return run

    def of_candidate(function: LossAndGrad) -> Check:
        def run(
            X: NDArray[np.float64], y: NDArray[np.int64], n_classes: int, seed: int
        ) -> fastloss.GradientCheck:
            W = small_weights(X, n_classes, X.dtype, seed)
            return check_gradient(lambda W: function(W, X, y), W, seed=seed)

        return run

    if candidates:
        for name in candidates:
            yield name, of_candidate(resolve_candidate(name))
        return
    for loss in losses or fastloss.available_losses():
        for backend in backends or available_backends(get_loss(loss)):
            get_backend(backend, get_loss(loss))
            yield f"{loss}, {backend}", of_backend(loss, backend)


def _small_problem(
    path: Path | None, rows: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Return ``X`` (a few rows, float64, pixels scaled to [0, 1]), ``y`` and the class count."""
    if path is None:
        dataset = datasets.synthetic(rows, 20, 5, seed=seed, dtype=np.float64)
    else:
        whole = datasets.load(path)
        chosen = np.random.default_rng(seed).permutation(len(whole))[:rows]
        dataset = whole.rows(np.sort(chosen))
    scale = 255.0 if dataset.X.dtype == np.uint8 else 1.0
    return dataset.X / scale, dataset.y, dataset.n_classes
