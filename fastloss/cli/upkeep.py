"""The commands ``fastloss doctor`` and ``fastloss warmup``."""

from __future__ import annotations

import time
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

import fastloss
from fastloss.cli.common import LossOption, app, console, progress_bar
from fastloss.files import check_writable
from fastloss.losses import get_loss

_TYPES = ("float32", "float64", "uint8")


@app.command()
def doctor() -> None:
    """Examine the CPU, threads, BLAS and the kernel cache, and give advice."""
    from fastloss.doctor import examine

    table = Table(title="fastloss doctor", show_lines=False)
    table.add_column("topic")
    table.add_column("found", overflow="fold")
    table.add_column("advice", overflow="fold")
    for finding in examine():
        style = "yellow" if finding.advice else ""
        table.add_row(finding.topic, finding.found, finding.advice or "none", style=style)
    console().print(table)


@app.command()
def warmup(
    loss: LossOption = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="Use only this type of X; may be repeated.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Also time calls on this machine, for the choices of 'auto'.")
    ] = True,
) -> None:
    """Compile the kernels before they are needed, and time calls on this machine."""
    from fastloss.backends import cost_model, get_backend
    from fastloss.backends.background import compilations
    from fastloss.backends.fused import all_kernels
    from fastloss.benchmark import calibration
    from fastloss.kernel_cache import cached_kernels, can_import_numba, folder

    can_import_numba()  # if it cannot be imported, the next line says why
    get_backend("fused")
    if calibrate:
        check_writable(cost_model.path())  # first, because measuring takes minutes
    losses = [get_loss(name) for name in loss or fastloss.available_losses()]
    jobs = all_kernels(losses, [np.dtype(name) for name in dtype or _TYPES])
    start = time.perf_counter()
    with progress_bar(len(jobs)) as progress:
        for done, (name, _, make) in enumerate(jobs):
            progress(name, done)
            compilations.run(name, make)
    typer.echo(
        f"{len(jobs)} kernels ready in {time.perf_counter() - start:.1f} s; "
        f"{len(cached_kernels())} files in {folder()}"
    )
    if calibrate:
        with progress_bar(calibration.n_steps()) as progress:
            cost_model.store(calibration.calibrate(progress))
        typer.echo(f"costs measured and kept in {cost_model.path()}")
