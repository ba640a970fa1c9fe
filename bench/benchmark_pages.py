"""Long tables: the pages of docs/benchmarks, from the stored results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import suite_report
from sections import ROOT, SECTIONS

from fastloss.benchmark import Results
from fastloss.benchmark.findings import control_line, losses_table, plain_machine
from fastloss.benchmark.plots import plot_backends, plot_error_against_cost, plot_peers
from fastloss.benchmark.report import (
    accuracy_table,
    backends_table,
    crossover_lines,
    environment_table,
    first_calls_table,
    gradient_cost_table,
    gradient_table,
    peers_table,
    skipped_table,
)
from fastloss.benchmark.results import GradientStudy
from fastloss.plots import embed
from fastloss.tables import Table

PLOTS = ROOT / "bench" / "plots" / "benchmarks"
# As a page in docs/benchmarks sees it.
_PLOTS_FROM_PAGE = Path("..") / ".." / PLOTS.relative_to(ROOT)
NOT_BY_HAND = "<!-- Written by bench/write_benchmarks.py from bench/results; do not edit. -->"

PEERS_NOTE = """\
Each library runs as its own documentation writes it, in the layout it is fastest with: PyTorch
and JAX hold `W` as (C, D). The timed call converts nothing. PyTorch's hinge is `multi_margin_loss`
times C. `chunked` is `linear_cross_entropy` with its own choice of chunks. JAX's hinge is written
in `jax.numpy`. scikit-learn is `LinearModelLoss`, the private class that its `LogisticRegression`
minimises. Where `X` is `uint8` or float16, fastloss reads it as it is, and each peer gets a float32
copy made beforehand."""


def titled(table: Table) -> str:
    """Return the table in Markdown under its title."""
    return f"**{table.title}**\n\n{table.markdown()}"


def section_page(stem: str, results: Results) -> Iterator[str]:
    """Write the lines of a section's page, and its pictures."""
    section = SECTIONS[stem]
    yield f"# {section.heading}"
    yield f"\n{NOT_BY_HAND}\n"
    yield f"Data: {results.data}. {plain_machine(results)} {control_line(results)}\n"
    yield f"```\nfastloss {section.command(stem)}\n```\n"
    if results.has_peers:
        plot_peers(results.cells, PLOTS / stem)
        yield embed(_PLOTS_FROM_PAGE / stem, f"Speed-up over the best peer, {section.heading}")
        yield f"\n{titled(peers_table(results))}\n"
        yield PEERS_NOTE
    else:
        plot_backends(results, PLOTS / stem)
        yield embed(_PLOTS_FROM_PAGE / stem, f"Loss and gradient by backend, {section.heading}")
    for size, dtype in dict.fromkeys((cell.size, cell.dtype) for cell in results.cells):
        cells = [cell for cell in results.cells if (cell.size, cell.dtype) == (size, dtype)]
        yield f"\n## {size}, {dtype}\n"
        yield backends_table(replace(results, cells=cells)).markdown()
    yield f"\n## Where fastloss loses\n\n{losses_table([results]).markdown()}"
    if any(cell.skipped for cell in results.cells):
        yield f"\n## Skipped\n\n{skipped_table(results).markdown()}"
    if (first_calls := first_calls_table(results)).rows:
        yield f"\n## First calls\n\n{titled(first_calls)}"
    yield f"\n## Errors\n\n{titled(accuracy_table(results))}"
    yield f"\n## Machine\n\n{environment_table(results).markdown()}"


def gradient_page(results: Results, study: GradientStudy) -> Iterator[str]:
    """Write the lines of the page on numerical and analytic gradients, and its picture."""
    yield "# Numerical against analytic gradients"
    yield f"\n{NOT_BY_HAND}\n"
    yield f"Data: {results.data}. {plain_machine(results)}\n"
    yield (
        "Time of one full gradient in float64; numerical ones are centred differences with "
        "h = 1e-5. Where a full gradient would take too long, random coordinates are timed and "
        "scaled up (`~`). The columns of `X` are chosen at random, and repeated above 30,730 "
        "parameters.\n"
    )
    yield embed(_PLOTS_FROM_PAGE / "gradient", "Time of one full gradient by parameter count")
    yield f"\n{titled(gradient_table(study))}\n"
    yield f"{titled(gradient_cost_table(study, study.main_count))}\n"
    if lines := crossover_lines(study):
        yield "Where methods change places:\n"
        yield from (f"- {line}" for line in lines)
    if plot_error_against_cost(study, PLOTS / "gradient-error"):
        yield "\n" + embed(_PLOTS_FROM_PAGE / "gradient-error", "Error of a gradient by its time")


def suite_page(path: Path) -> Iterator[str]:
    """Write the lines of the page on the pytest-benchmark suite."""
    yield f"# The pytest-benchmark suite\n\n{NOT_BY_HAND}\n"
    yield "Measured with this command; `bench/conftest.py` lists the options.\n"
    yield "```\npytest bench --benchmark-json suite.json"
    yield "python bench/suite_report.py suite.json\n```\n"
    yield suite_report.table(path).markdown()


def index_page(pages: dict[str, str]) -> Iterator[str]:
    """Write the lines of the index: each page's file stem and heading."""
    yield "# All benchmark tables"
    yield f"\n{NOT_BY_HAND}\n"
    yield "[BENCHMARKS.md](../../BENCHMARKS.md) has the summary and the method.\n"
    yield from (f"- [{heading}]({stem}.md)" for stem, heading in pages.items())
