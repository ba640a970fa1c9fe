"""Writes BENCHMARKS.md and its plots from the stored results; nothing in them is typed.

python bench/write_benchmarks.py                       # or: make benchmarks
python bench/write_benchmarks.py --measure 'peers*'    # or: make benchmarks MEASURE='peers*'

The second measures the sections of that name again first.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import promises
import promises_report

from fastloss import files
from fastloss.benchmark import Results
from fastloss.benchmark.findings import control_line, verdict
from fastloss.benchmark.measure import Ratio
from fastloss.benchmark.plots import plot_peers, save_all
from fastloss.benchmark.report import (
    accuracy_table,
    backends_table,
    crossover_lines,
    environment_table,
    first_calls_table,
    gradient_cost_table,
    gradient_table,
    limit_share,
    peers_table,
    ratio,
    skipped_table,
)
from fastloss.benchmark.results import Cell, GradientPoint, GradientStudy, Timing
from fastloss.plots import embed
from fastloss.tables import Table, seconds, size_of

ROOT = Path(__file__).parents[1]
RESULTS, PLOTS = ROOT / "bench" / "results", ROOT / "bench" / "plots"

#: Stored results in the order of the page: file stem, heading, the command that made it.
SECTIONS = {
    "cifar10": ("CIFAR-10 pixels", "--data cifar-10-batches-bin --sizes 500,4000"),
    "mnist": ("MNIST pixels", "--data mnist --sizes 1000,60000"),
    "cifar10-uint8": (
        "CIFAR-10 pixels, read as uint8",
        "--data cifar-10-batches-bin --dtype uint8 --no-gradient-study",
    ),
    "synthetic": (
        "Synthetic, up to 20,000 rows of 3,073",
        "--loss softmax --loss hinge --sizes 200x65x10,256x3073x10,20000x3073x10,60000x785x10",
    ),
    "synthetic-float64": (
        "Synthetic, float64",
        "--loss softmax --loss hinge --dtype float64 --sizes 20000x3073x10 --no-gradient-study",
    ),
    "wide": (
        "A thousand classes",
        "--loss softmax --loss hinge --sizes 8192x2048x1000 --no-gradient-study",
    ),
}
#: The same against other libraries. Many contenders to a cell, and slow calls: longer budgets.
PEER_SECTIONS = {
    "peers": (
        "Ten classes",
        "--peers --loss softmax --loss hinge"
        " --sizes 200x65x10,256x3073x10,60000x785x10,20000x3073x10 --seconds 8",
    ),
    "peers-float64": (
        "Ten classes, float64",
        "--peers --loss softmax --loss hinge --dtype float64"
        " --sizes 60000x785x10,20000x3073x10 --seconds 8",
    ),
    "peers-uint8": (
        "Ten classes, X read as uint8",
        "--peers --loss softmax --dtype uint8 --sizes 20000x3073x10 --seconds 8",
    ),
    "peers-wide": (
        "Many classes",
        "--peers --loss softmax --loss hinge --sizes 8192x2048x1000,2048x512x32000 --seconds 25",
    ),
}

METHOD = """\
- Every contender runs in a process of its own, one at a time, with the same number of threads for
  BLAS and Numba, on the same arrays; `X` and `y` are validated once, as in a training loop.
- Before it is timed, its loss and gradient are compared with a float64 reference, and its kernel is
  compiled; what the first call costs is reported apart.
- Contenders take turns in random order. Each is called for {warm:.0f} ms before a batch of at least
  {batch:.0f} ms is timed with the garbage collector off; its turn ends when its threads have stopped
  spinning (those of OpenBLAS take 0.1 s). Times are medians over the rounds, IQR is the
  interquartile range as a share of the median, and ratios of medians have bootstrap 95 % intervals
  over the rounds.
- An A/A control runs the same contender in two processes. Machines that are shared are noisy: compare
  ratios, not absolute times.
- A Python loop that would take longer than its budget is timed on some of the rows and scaled up,
  which is said (`~`).
- The limit is the longer of one read of `X`, at the bandwidth measured for an array of that size,
  and the arithmetic of two matrix products, at the speed measured for a square product in BLAS, all
  in the same run. An `X` that fits into a cache can be read faster than its first read, and a matrix
  unit (AMX) multiplies faster than BLAS does float32: then the share is above 100 %.
- Gradient study: float64, centred differences with h = 1e-5, time of one full gradient. Where that
  would take too long, random coordinates are timed and scaled up. The columns of `X` are chosen at
  random, and repeated where more are wanted than there are. Errors are against the analytic gradient
  in extended precision."""

PEERS_METHOD = """\
Each library as its own users write it, and in the layout it is fastest with: PyTorch and JAX hold `W`
as (C, D). Nothing is converted inside the timed call; every result was compared with the float64
reference before it was timed, converted. PyTorch's hinge is `multi_margin_loss` times C; `chunked` is
`linear_cross_entropy` with its own choice of chunks; JAX's hinge is written in `jax.numpy`.
scikit-learn is the private `LinearModelLoss` that its `LogisticRegression` minimises. Where `X` is
`uint8`, fastloss reads it as it is, and peers are handed a float32 copy made beforehand. fastloss's
own contenders are its backends and "auto", the choice of a call without `backend=`. In the plot, a
cross left of the line is a problem where the peer is faster."""


def main() -> None:
    """Measure what is asked for; write the page and the plots."""
    parser = argparse.ArgumentParser(description="Write BENCHMARKS.md from the stored results.")
    parser.add_argument(
        "--measure", metavar="PATTERN", help="first measure the sections of this name again"
    )
    pattern = parser.parse_args().measure
    if pattern is not None:
        measure(pattern)
    stored, peers = load(SECTIONS), load(PEER_SECTIONS)
    for stem, results in stored.items():
        save_all(results, PLOTS / stem)
    if peers:
        plot_peers(_cells(peers), PLOTS / "peers" / "speedup")
    files.write(ROOT / "BENCHMARKS.md", "\n".join(page(stored, peers)) + "\n")


def measure(pattern: str) -> None:
    """Run the commands of the sections whose file stems match, one after the other."""
    every = {**SECTIONS, **PEER_SECTIONS, **promises.STUDIES}
    stems = [stem for stem in every if fnmatch(stem, pattern)]
    if not stems:
        raise SystemExit(f"no section is called {pattern!r}; there are {', '.join(every)}")
    promises_of = [stem for stem in stems if stem in promises.STUDIES]
    if promises_of:
        promises.main(promises_of)
    for stem in stems:
        if stem in promises_of:
            continue
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [sys.executable, "-m", "fastloss", *shlex.split(command(stem)), "--out", folder],
                cwd=ROOT,
                check=True,
            )


def command(stem: str) -> str:
    """The arguments of ``fastloss`` that make a stored result."""
    _, arguments = {**SECTIONS, **PEER_SECTIONS}[stem]
    budget = "" if "--seconds" in arguments else " --seconds 4"
    return f"bench {arguments}{budget} --json bench/results/{stem}.json"


def load(sections: dict[str, tuple[str, str]]) -> dict[str, Results]:
    """Those of the sections that are stored."""
    paths = {stem: RESULTS / f"{stem}.json" for stem in sections}
    return {stem: Results.load(path) for stem, path in paths.items() if path.exists()}


def _cells(stored: dict[str, Results]) -> list[Cell]:
    return [cell for results in stored.values() for cell in results.cells]


def page(stored: dict[str, Results], peers: dict[str, Results]) -> Iterator[str]:
    """The lines of BENCHMARKS.md."""
    from fastloss.benchmark.measure import MIN_BATCH_SECONDS, WARM_SECONDS

    first = next(iter(stored.values()))
    yield "# Benchmarks"
    yield "\n<!-- Written by bench/write_benchmarks.py from bench/results; do not edit. -->"
    yield "\n## In short\n"
    yield from summary(stored)
    yield from peers_summary(peers)
    yield "\n## The machine\n"
    yield "Measured on this machine unless a section names another.\n"
    yield environment_table(first).markdown()
    yield "\n## The method\n"
    yield METHOD.format(warm=1e3 * WARM_SECONDS, batch=1e3 * MIN_BATCH_SECONDS)
    yield "\n## Backends"
    for stem, results in stored.items():
        yield from backend_section(stem, results)
    if peers:
        yield "\n## Against PyTorch, JAX and scikit-learn\n"
        yield PEERS_METHOD
        yield "\n" + embed("bench/plots/peers/speedup", "Speed-up over the best peer")
    for stem, results in peers.items():
        yield from peers_section(stem, results)
    yield from promises_report.section(promises.RESULTS)
    yield "\n## First calls\n"
    yield _titled(first_calls_table(first))
    yield "\n## Numerical against analytic gradients"
    for stem, results in stored.items():
        if results.gradient is not None:
            yield from gradient_section(stem, results, results.gradient)
    yield "\n## What is fast, what is not, and why\n"
    yield from reasons(stored)
    yield "\n## Do it again\n"
    yield "Put the data sets' own files anywhere, and give their folders:\n\n```"
    yield from (f"fastloss {command(stem)}" for stem in (*SECTIONS, *PEER_SECTIONS))
    yield "python bench/promises.py"
    yield "python bench/write_benchmarks.py\n```"
    yield "\n`make benchmarks MEASURE='peers*'` runs those against other libraries, and writes the page."


def backend_section(stem: str, results: Results) -> Iterator[str]:
    """Table and plot of a result's backends."""
    heading, _ = SECTIONS[stem]
    yield f"\n### {heading}\n"
    yield f"{_source(results)}. {control_line(results)}\n"
    yield embed(f"bench/plots/{stem}/backends", f"Loss and gradient by backend, {heading}") + "\n"
    yield backends_table(results).markdown()
    yield "\n<details><summary>Errors against float64, verified before timing</summary>\n"
    yield accuracy_table(results).markdown()
    yield "\n</details>"


def _source(results: Results) -> str:
    """The data, and where and when they were used: results are not all of one machine."""
    found = results.environment
    return f"{results.data}, on {found['cpu']}, measured {found['time']} at {found['git']}"


def peers_section(stem: str, results: Results) -> Iterator[str]:
    """The verdicts, then each shape's contenders."""
    yield f"\n### {PEER_SECTIONS[stem][0]}\n"
    yield f"{_source(results)}. {control_line(results)}\n"
    yield peers_table(results).markdown()
    shapes = dict.fromkeys((cell.size, cell.dtype) for cell in results.cells)
    for size, dtype in shapes:
        cells = [cell for cell in results.cells if (cell.size, cell.dtype) == (size, dtype)]
        yield f"\n**{size}, {dtype}**\n"
        yield backends_table(replace(results, cells=cells)).markdown()
    if any(cell.skipped for cell in results.cells):
        yield "\n**Skipped**\n"
        yield skipped_table(results).markdown()
    yield "\n<details><summary>First calls, and errors against float64</summary>\n"
    yield first_calls_table(results).markdown()
    yield ""
    yield accuracy_table(results).markdown()
    yield "\n</details>"


def peers_summary(peers: dict[str, Results]) -> Iterator[str]:
    """Wins and losses against the best peer, and the range of both."""
    found = []
    for cell in _cells(peers):
        ours, theirs = cell.fastest("backend"), cell.fastest("peer")
        if ours is not None and theirs is not None:
            speedup = Ratio.of(theirs.full_seconds, ours.full_seconds)
            where = f"{cell.loss}, {cell.size}, {cell.dtype} ({theirs.contender})"
            found.append((speedup.value, verdict(ours, theirs), f"{ratio(speedup)} on {where}"))
    if not found:
        return
    words = [word for _, word, _ in found]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(sorted(words)))
    yield (
        f"- Against the best of PyTorch, JAX and scikit-learn, fastloss's fastest backend is, in "
        f"{len(found)} problems: {counts}. From {min(found)[2]} to {max(found)[2]} times as fast."
    )


def gradient_section(stem: str, results: Results, study: GradientStudy) -> Iterator[str]:
    """Tables and plots of a gradient study."""
    yield f"\n### {SECTIONS[stem][0]}\n"
    yield embed(f"bench/plots/{stem}/gradient", "Time against parameters") + "\n"
    yield _titled(gradient_table(study))
    yield ""
    yield _titled(gradient_cost_table(study, _main_count(study)))
    yield "\n" + embed(f"bench/plots/{stem}/gradient-error", "Error against time") + "\n"
    if lines := crossover_lines(study):
        yield "Where methods change places:\n"
        yield from (f"- {line}" for line in lines)


def summary(stored: dict[str, Results]) -> Iterator[str]:
    """The findings, with their figures."""
    for stem, results in stored.items():
        for cell in _largest_cells(results):
            fused = cell.timing("fused")
            over_numpy = None if fused is None else cell.speedup(fused, "numpy")
            if fused is not None and over_numpy is not None:
                yield (
                    f"- {SECTIONS[stem][0]}, {cell.loss}, {cell.size}, {cell.dtype}: fused takes "
                    f"{seconds(fused.summary.median)}, {ratio(over_numpy)} times as fast as NumPy"
                    f"{_limit_share(cell, fused)}."
                )
    for stem, results in stored.items():
        if results.gradient is not None:
            yield f"- {SECTIONS[stem][0]}: {gradient_sentence(results.gradient)}"


def _limit_share(cell: Cell, timing: Timing) -> str:
    if cell.limit_seconds is None or timing.extrapolated:
        return ""
    return f", at {limit_share(cell, timing)} of the machine's limit"


def gradient_sentence(study: GradientStudy) -> str:
    """What a numerical gradient costs beside an analytic one, and how both grow."""
    count = _main_count(study)
    slow, fast = (
        _point(study, method, count) for method in ("per element, NumPy loss", "analytic, NumPy")
    )
    slopes = [study.slope(point.method) for point in (slow, fast)]
    grown = " and ".join(
        f"{law.slope:.2f} [{law.low:.2f}, {law.high:.2f}]" for law in slopes if law is not None
    )
    factor = slow.timing.summary.median / fast.timing.summary.median
    return (
        f"a gradient of {count:,} parameters takes {seconds(slow.timing.summary.median)} "
        f"numerically and {seconds(fast.timing.summary.median)} analytically, both in NumPy: "
        f"{factor:,.0f} times as long, because the time grows with the power {grown} of the "
        "parameter count."
    )


def reasons(stored: dict[str, Results]) -> Iterator[str]:
    """Why, from the figures."""
    yield (
        "**Few classes: one pass wins.** Loss and gradient read `X` twice in NumPy (`X @ W`, then "
        "`X.T @ dS`) and do little arithmetic with it. `fused` reads a block of rows into "
        "cache, scores it and spends it on the gradient before the next one, so it reads `X` once:\n"
    )
    yield from _fastest_and_slowest(stored)
    yield (
        "\n**Many classes: arithmetic.** With a thousand classes the time is that of two matrix "
        "products. `fused` lays a block of rows out for its tiles, which run the products about as "
        "fast as BLAS does, and turns the block's scores into their gradient in place. "
        "What can be won is the time that NumPy spends on the loss, and the memory of an N x C matrix. "
        "On a CPU with a matrix unit (AMX) more can be won in float32: the unit multiplies bfloat16, "
        "of which three parts hold all bits of a number, and six products of parts the bits of one "
        "product. Sums are in float32; the errors in the tables are of the size of BLAS's."
    )
    yield (
        "\n**Small problems: the call is the cost.** At a few hundred rows the checks of a call, waking a "
        "thread and the making of a few arrays are most of the time; the share of the limit says how much."
    )
    yield (
        "\n**Memory.** NumPy forms N x C temporaries, and blocks of converted rows for `uint8`; the "
        "kernels of `fused` form blocks of rows and some partial gradients, whatever N is: "
        + _memory(stored)
    )
    yield (
        "\n**Numerical gradients.** Each of P entries takes two evaluations of a loss that itself "
        "costs O(P): the square of P. The incremental method evaluates one column of the scores "
        "instead, O(N) an entry, so it grows like the analytic gradient, with the factor of its two "
        "evaluations of N losses an entry. Neither gets below the loss's "
        "rounding error over h; the analytic gradient is right to the last digits."
    )


def _fastest_and_slowest(stored: dict[str, Results]) -> Iterator[str]:
    """The largest and the smallest speed-up of fused over NumPy, wherever they are."""
    found = [
        (speedup.value, f"{ratio(speedup)} on {cell.loss}, {cell.size}, {cell.dtype}")
        for results in stored.values()
        for cell in results.cells
        for timing in cell.timings
        if timing.contender == "fused" and (speedup := cell.speedup(timing, "numpy")) is not None
    ]
    yield f"- largest speed-up of fused over NumPy: {max(found)[1]};"
    yield f"- smallest: {min(found)[1]};"
    n_lost = sum(value < 1 for value, _ in found)
    yield f"- slower than NumPy in {n_lost} of {len(found)} problems, all in the tables above."


def _memory(stored: dict[str, Results]) -> str:
    cell = max(
        (
            cell
            for results in stored.values()
            for cell in results.cells
            if sum(timing.peak_extra_bytes is not None for timing in cell.timings) >= 2
        ),
        key=lambda cell: cell.n_rows * cell.n_classes,
    )
    parts = [
        f"{size_of(timing.peak_extra_bytes)} ({timing.contender})"
        for timing in cell.timings
        if timing.peak_extra_bytes is not None
    ]
    return f"on {cell.loss}, {cell.size}, {cell.dtype}, {' and '.join(parts)} beyond `X` and `W`."


def _largest_cells(results: Results) -> list[Cell]:
    """Softmax and hinge at the largest size."""
    largest = max(cell.n_rows * cell.n_features for cell in results.cells)
    return [
        cell
        for cell in results.cells
        if cell.loss in ("softmax", "hinge") and cell.n_rows * cell.n_features >= 0.7 * largest
    ]


def _main_count(study: GradientStudy) -> int:
    counts = {point.n_parameters for point in study.points}
    return 30_730 if 30_730 in counts else max(counts)


def _point(study: GradientStudy, method: str, n_parameters: int) -> GradientPoint:
    return next(point for point in study.of(method) if point.n_parameters == n_parameters)


def _titled(table: Table) -> str:
    return f"**{table.title}**\n\n{table.markdown()}"


if __name__ == "__main__":
    main()
