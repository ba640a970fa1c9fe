"""Write BENCHMARKS.md, the table in README.md and docs/benchmarks from the stored results.

python bench/write_benchmarks.py                                   # or: make benchmarks
python bench/write_benchmarks.py --measure '*' --data-folder path  # or: make benchmarks MEASURE='*'

The second command first measures the sections whose names match the pattern. ``path`` holds
``cifar-10-batches-bin`` and ``mnist``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import promises
import promises_report
from benchmark_pages import (
    NOT_BY_HAND,
    PLOTS,
    gradient_page,
    index_page,
    section_page,
    suite_page,
)
from sections import ROOT, SECTIONS, SUITE, load, measure

from fastloss import files
from fastloss.benchmark import Results
from fastloss.benchmark.findings import control_line, losses_table, plain_machine, verdict
from fastloss.benchmark.measure import MIN_BATCH_SECONDS, MIN_ROUNDS, WARM_SECONDS, Ratio
from fastloss.benchmark.plots import plot_gradient_study, plot_named_peers
from fastloss.benchmark.report import limit_share, point_seconds, ratio, time_of
from fastloss.benchmark.results import Cell, GradientStudy
from fastloss.plots import embed
from fastloss.tables import Table, seconds

DOCS = ROOT / "docs" / "benchmarks"
#: The problems of the short table: what a reader calls them, and where they were measured.
HEADLINE = {
    "CIFAR-10 pixels": ("cifar10", "4000 x 3073 x 10"),
    "MNIST pixels": ("mnist", "60000 x 785 x 10"),
    "CIFAR-10 as uint8": ("uint8", "4000 x 3073 x 10"),
    "features of a network": ("features", "20000 x 768 x 100"),
    "features as float16": ("float16", "20000 x 768 x 100"),
    "a thousand classes": ("classes", "8192 x 2048 x 1000"),
    "a minibatch": ("minibatch", "256 x 3073 x 10"),
    "tabular rows": ("tabular", "2000000 x 10 x 2"),
}
#: Rows of the short table of losses; docs/benchmarks has all.
MOST_LOSSES = 12
_README_TABLE = re.compile(r"(<!-- the table: [^>]*-->\n).*?(\n<!-- end of the table -->)", re.S)

METHOD = f"""\
- Each contender runs in a process of its own, with the same arrays and the same number of threads.
- Its loss and gradient are compared with float64 before it is timed; a wrong one is not timed.
- Contenders take turns in random order, each called for {1e3 * WARM_SECONDS:.0f} ms before a batch of at
  least {1e3 * MIN_BATCH_SECONDS:.0f} ms is timed.
- Times are medians. A ratio is the median of the rounds' ratios, with its exact 95 % interval; fewer
  than {MIN_ROUNDS} rounds get none. `~`: timed on some of the rows and scaled up.
- The limit is the longer of one read of `X` and the arithmetic, both measured in the same run, the
  arithmetic with BLAS and in registers."""


def main() -> None:
    """Measure what is asked for, then write the pages and their pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--measure", metavar="PATTERN", help="first measure these sections again")
    parser.add_argument("--data-folder", type=Path, help="has cifar-10-batches-bin and mnist")
    parser.add_argument(
        "--allow-dirty", action="store_true", help="store results of files that are in no commit"
    )
    options = parser.parse_args()
    if options.measure is not None:
        folder = "" if options.data_folder is None else f"{options.data_folder.resolve()}/"
        measure(options.measure, folder, options.allow_dirty)
    stored = load()
    pages = {stem: SECTIONS[stem].heading for stem in stored}
    for stem, results in stored.items():
        _write(DOCS / f"{stem}.md", section_page(stem, results))
        if results.gradient is not None:
            plot_gradient_study(results.gradient, PLOTS / "gradient")
            _write(DOCS / "gradient.md", gradient_page(results, results.gradient))
            pages["gradient"] = "Numerical against analytic gradients"
    for stem, lines in promises_report.pages(promises.RESULTS).items():
        pages[stem] = promises_report.HEADINGS[stem]
        _write(DOCS / f"{stem}.md", lines)
    if SUITE.exists():
        pages["suite"] = "The pytest-benchmark suite"
        _write(DOCS / "suite.md", suite_page(SUITE))
    _write(DOCS / "README.md", index_page(pages))
    plot_named_peers(list(headline(stored)), PLOTS / "headline")
    _write(ROOT / "BENCHMARKS.md", summary_page(stored))
    write_readme_table(ROOT / "README.md", readme_table(stored))


def _write(path: Path, lines: Iterator[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, "\n".join(lines) + "\n")


# --- the short table ------------------------------------------------------------------------------


def headline(stored: dict[str, Results]) -> Iterator[tuple[str, Cell]]:
    """Yield the problems of the short table that were measured: softmax, and every contender."""
    for name, (stem, size) in HEADLINE.items():
        cells = stored[stem].cells if stem in stored else []
        yield from ((name, cell) for cell in cells if (cell.loss, cell.size) == ("softmax", size))


def readme_table(stored: dict[str, Results]) -> Table:
    """Return the times of all backends and of the best peer, a problem a row."""
    rows = []
    for name, cell in headline(stored):
        fused, peer = cell.timing("fused"), cell.fastest("peer")
        assert fused is not None
        speedup, best = "-", "-"
        if peer is not None:
            speedup = ratio(Ratio.of(peer.full_seconds, fused.full_seconds))
            best = f"{time_of(peer)} ({peer.contender})"
        times = (time_of(cell.timing(backend)) for backend in ("naive", "numpy", "numba", "fused"))
        rows.append((f"{name}, {cell.size}", *times, best, speedup))
    columns = ("softmax: N x D x C", "naive", "NumPy", "numba", "fused", "best peer", "speed-up")
    return Table("", columns, rows)


def full_table(stored: dict[str, Results]) -> Table:
    """Return the short table with the machine's limit."""
    short = readme_table(stored)
    limits = []
    for _, cell in headline(stored):
        fused = cell.timing("fused")
        assert fused is not None
        limits.append(
            (f"{seconds(cell.limit_seconds)} ({cell.limit_of})", limit_share(cell, fused))
        )
    rows = [(*row, *limit) for row, limit in zip(short.rows, limits, strict=True)]
    return Table("", (*short.columns, "limit", "fused, of limit"), rows)


def write_readme_table(path: Path, table: Table) -> None:
    """Replace the table between the marks in README.md."""
    text = path.read_text(encoding="utf-8")
    written, n = _README_TABLE.subn(lambda m: f"{m[1]}{table.markdown()}{m[2]}", text)
    if n != 1:
        raise ValueError(f"{path}: expected one pair of marks around the table, found {n}")
    files.write(path, written)


# --- BENCHMARKS.md --------------------------------------------------------------------------------


def summary_page(stored: dict[str, Results]) -> Iterator[str]:
    """Write the lines of BENCHMARKS.md."""
    first = next(iter(stored.values()))
    yield f"# Benchmarks\n\n{NOT_BY_HAND}\n"
    yield f"Loss and gradient of softmax, all on one machine. {plain_machine(first)}\n"
    yield embed("bench/plots/benchmarks/headline", "Speed-up of fastloss over the best peer")
    yield f"\n{full_table(stored).markdown()}\n"
    yield "Speed-up: the best peer's time over that of `fused`, with a 95 % interval.\n"
    yield from peers_summary(stored)
    yield "\n## Numerical against analytic gradients\n"
    for results in stored.values():
        if results.gradient is not None:
            yield from gradient_lines(results.gradient)
    yield "\n## Where it loses\n"
    yield from losing_lines(stored)
    yield "\n## Method\n"
    yield METHOD
    yield "\n## All tables\n"
    yield (
        "[docs/benchmarks](docs/benchmarks/README.md) has every table: each loss, shape and "
        "peer, errors, first calls, the choices of `auto`. This command measures all of it again, "
        "in about half an hour, on a checkout without changes:\n"
    )
    yield "```\nmake benchmarks MEASURE='*' DATA=folder-of-cifar10-and-mnist\n```"


def peers_summary(stored: dict[str, Results]) -> Iterator[str]:
    """Write wins and losses against the best peer, and the range of both."""
    found = []
    for cell in (cell for results in stored.values() for cell in results.cells):
        ours, theirs = cell.timing("fused"), cell.fastest("peer")
        if ours is not None and theirs is not None:
            speedup = Ratio.of(theirs.full_seconds, ours.full_seconds)
            where = f"{cell.loss}, {cell.size}, {cell.dtype} ({theirs.contender})"
            found.append((speedup.value, verdict(ours, theirs), f"{ratio(speedup)} on {where}"))
    if not found:
        return
    words = [word for _, word, _ in found]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(sorted(words)))
    yield (
        f"In {len(found)} problems `fused` is, against the best of PyTorch, JAX and scikit-learn: "
        f"{counts}. From {min(found)[2]} to {max(found)[2]} times as fast."
    )


def gradient_lines(study: GradientStudy) -> Iterator[str]:
    """Write the plot, and what three methods cost at one parameter count."""
    yield embed("bench/plots/benchmarks/gradient", "Time of one full gradient by parameter count")
    count = study.main_count
    chosen = ("per element, NumPy loss", "analytic, NumPy", "analytic, fused")
    rows = [
        (
            point.method,
            "one pass" if point.loss_evaluations == 1 else f"{point.loss_evaluations:,}",
            point_seconds(point),
            "-" if point.error is None else f"{point.error:.0e}",
        )
        for method in chosen
        for point in study.of(method)
        if point.n_parameters == count
    ]
    columns = (f"gradient of {count:,} parameters", "loss evaluations", "time", "error")
    yield f"\n{Table('', columns, rows).markdown()}"


def losing_lines(stored: dict[str, Results]) -> Iterator[str]:
    """Write the worst of the comparisons that fastloss loses."""
    table = losses_table(stored.values())
    yield " ".join(table.notes)
    if table.rows:
        shown = Table("", table.columns, table.rows[:MOST_LOSSES])
        yield f"\n{shown.markdown()}"
        if len(table.rows) > MOST_LOSSES:
            yield f"\nThe other {len(table.rows) - MOST_LOSSES} are in the pages of docs/benchmarks."
    worst = max(stored, key=lambda stem: _uncertainty(stored[stem]))
    yield f"\nThe noisiest section is {SECTIONS[worst].heading!r}. {control_line(stored[worst])}"


def _uncertainty(results: Results) -> float:
    control = results.control_ratio
    return 0.0 if control is None else control.uncertainty


if __name__ == "__main__":
    main()
