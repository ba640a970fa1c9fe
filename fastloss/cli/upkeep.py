"""The commands ``fastloss doctor`` and ``fastloss warmup``."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.table import Table

import fastloss
from fastloss.arrays import ROW_TYPES
from fastloss.cli.common import LossOption, app, console, progress_bar
from fastloss.files import check_writable
from fastloss.machine import on_load, surroundings


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
    from fastloss.benchmark.warmup import Plan
    from fastloss.kernel_cache import cached_kernels, can_import_numba, folder

    start = time.perf_counter()
    can_import_numba()  # if it cannot be imported, the next line says why
    get_backend("fused")
    if calibrate:
        check_writable(cost_model.path())  # first, because measuring takes minutes
    plan = Plan.of(loss or fastloss.available_losses(), dtype or [*map(str, ROW_TYPES)], calibrate)
    typer.echo(plan)
    load = surroundings()["load"] if calibrate else None  # now, because compiling raises it
    if load is not None and (advice := on_load(load)):
        typer.echo(f"fastloss: load average {load:.2f}: {advice}", err=True)
    with progress_bar(sum(plan.compile_seconds), in_lines=True) as progress:
        failures = plan.compile(progress)
    compiled = time.perf_counter()
    typer.echo(
        f"{plan.n_missing} kernels compiled in {compiled - start:.1f} s; "
        f"{len(cached_kernels())} files in {folder()}"
    )
    if calibrate:
        with progress_bar(sum(plan.timing_seconds), in_lines=True) as progress:
            plan.time(progress)
        now = time.perf_counter()
        typer.echo(
            f"calls timed in {now - compiled:.0f} s, {now - start:.0f} s in all; "
            f"costs kept in {cost_model.path()}"
        )
    if failures:
        reasons = "; ".join(f"{title}: {reason}" for title, reason in failures.items())
        raise RuntimeError(f"kernels that cannot be compiled: {reasons}")
