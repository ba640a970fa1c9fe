"""The command ``fastloss check``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

import fastloss
from fastloss import data as datasets
from fastloss.arrays import check_finite
from fastloss.backends import available_backends, get_backend
from fastloss.benchmark.plan import parse_size
from fastloss.candidates import USUAL, CandidateReport, Convention, as_candidates, examine
from fastloss.candidates.cases import Case, Size, as_size
from fastloss.cli.common import (
    BackendOption,
    CandidateOption,
    DataOption,
    InterceptOption,
    L2Option,
    LayoutOption,
    LossOption,
    OrderOption,
    SeedOption,
    app,
    console,
    convention_of,
)
from fastloss.gradcheck import check_gradient
from fastloss.losses import get_loss
from fastloss.tables import Table


@app.command()
def check(
    data: DataOption = None,
    loss: LossOption = None,
    backend: BackendOption = None,
    candidate: CandidateOption = None,
    l2: L2Option = USUAL.l2,
    intercept: InterceptOption = USUAL.intercept,
    layout: LayoutOption = USUAL.layout,
    order: OrderOption = USUAL.order,
    size: Annotated[
        str | None,
        typer.Option(help="NxDxC of a candidate that is right for one size only: 37x13x10."),
    ] = None,
    rows: Annotated[
        int,
        typer.Option(min=1, help="Number of rows to check on; of a candidate, with --data only."),
    ] = 50,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print every full report.")] = False,
    seed: SeedOption = 0,
) -> None:
    """Check gradients against finite differences; exit with code 1 if one fails.

    A candidate's loss and gradient are also compared with one named loss (softmax by default), at
    ordinary and extreme scores, in float32 and float64. With --data, also on rows of the data.
    """
    convention = convention_of(candidate, l2, intercept, layout, order)
    if candidate:
        if backend:
            raise ValueError("--backend does not apply to a --candidate: leave one out")
        if loss is not None and len(loss) > 1:
            raise ValueError("a candidate computes one loss: give one --loss")
        name = loss[0] if loss else "softmax"
        more = [] if data is None else [_case_of_data(data, rows, seed, convention)]
        sizes = [(*case.X.shape, case.W.shape[1]) for case in more]
        if size is not None:
            sizes.append(_full_size(size))
        candidates = as_candidates(candidate, convention)
        reports = [examine(one, name, seed, more, sizes) for one in candidates]
        passed = _show_reports(reports, f"{name}{convention.terms}", verbose)
    elif size is not None:
        raise ValueError("--size describes a --candidate: give one")
    else:
        passed = _check_backends(loss, backend, *_small_problem(data, rows, seed), verbose, seed)
    if not passed:
        raise typer.Exit(1)


def _full_size(text: str) -> Size:
    n_rows, n_features, n_classes = parse_size(text)
    if n_features is None or n_classes is None:
        raise ValueError(f"--size must be NxDxC, such as 37x13x10, got {text!r}")
    return as_size((n_rows, n_features, n_classes))


def _show_reports(reports: list[CandidateReport], loss: str, verbose: bool) -> bool:
    """Print the verdicts on the user's functions; return whether all passed."""
    columns = ("candidate", "verdict", "types", "right cases", "finite differences")
    cells = [
        (
            report.name,
            _verdict(report.passed),
            ", ".join(report.dtypes),
            report.right_cases,
            "-" if report.gradient_check is None else _error(report.gradient_check),
        )
        for report in reports
    ]
    terminal = console()
    terminal.print(Table(f"Loss and gradient of {loss}", columns, cells, n_labels=3).rich())
    for report in reports:
        if verbose or not report.passed:
            terminal.print(str(report), soft_wrap=True)
        else:
            for note in report.notes:
                terminal.print(f"{report.name}: {note}")
    return all(report.passed for report in reports)


def _check_backends(
    losses: list[str] | None,
    backends: list[str] | None,
    X: NDArray[np.float64],
    y: NDArray[np.int64],
    n_classes: int,
    verbose: bool,
    seed: int,
) -> bool:
    """Print the gradient checks of every loss on every backend; return whether all passed."""
    checks = {name: run(X, y, n_classes, seed) for name, run in _checks(losses, backends)}
    columns = ("function", "verdict", "max relative error", "kinks crossed", "evaluations")
    cells = [
        (
            name,
            _verdict(result.passed),
            _error(result),
            str(result.n_kinks),
            str(result.n_evaluations),
        )
        for name, result in checks.items()
    ]
    terminal = console()
    title = f"Gradient check on {len(X)} rows x {X.shape[1]} features"
    terminal.print(Table(title, columns, cells, n_labels=2).rich())
    for name, result in checks.items():
        if verbose or not result.passed:
            terminal.print(f"{name}:\n{result}")
    return all(result.passed for result in checks.values())


def _verdict(passed: bool) -> str:
    return "passed" if passed else "FAILED"


def _error(check: fastloss.GradientCheck) -> str:
    return f"{check.max_relative_error:.1e}"


Check = Callable[[NDArray[np.float64], NDArray[np.int64], int, int], fastloss.GradientCheck]


def _checks(losses: list[str] | None, backends: list[str] | None) -> Iterator[tuple[str, Check]]:
    """Yield named checks of every loss on every backend."""
    from fastloss.benchmark.run import small_weights

    def of_backend(loss: str, backend: str) -> Check:
        def run(
            X: NDArray[np.float64], y: NDArray[np.int64], n_classes: int, seed: int
        ) -> fastloss.GradientCheck:
            objective = fastloss.Objective(
                X, y, loss=loss, l1=1e-3, l2=1e-2, intercept=True, backend=backend
            )
            W = small_weights(X, n_classes, X.dtype, seed, intercept=True)
            return check_gradient(objective, W, seed=seed)

        return run

    for loss in losses or fastloss.available_losses():
        for backend in backends or available_backends(get_loss(loss)):
            get_backend(backend, get_loss(loss))
            yield f"{loss}, {backend}", of_backend(loss, backend)


def _case_of_data(path: Path, rows: int, seed: int, convention: Convention) -> Case:
    """Return rows of the data as a case for candidates, in numbers that float32 holds."""
    from fastloss.benchmark.run import small_weights

    X, y, n_classes = _small_problem(path, rows, seed)
    check_finite("X", X)
    W = small_weights(X, n_classes, np.dtype(np.float32), seed, convention.intercept)
    X = X.astype(np.float32).astype(np.float64)
    return Case(f"rows of {path}", W.astype(np.float64), X, y)


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
    return np.divide(dataset.X, scale, dtype=np.float64), dataset.y, dataset.n_classes
