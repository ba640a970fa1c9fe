"""Write the pages of docs/benchmarks on the studies of bench/promises.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_pages import NOT_BY_HAND

from fastloss.tables import Table, seconds

#: Number of auto's worst choices shown.
N_WORST = 8
HEADINGS = {
    "auto": "How close `auto` gets to the best choice",
    "cold-start": "The first call of a process",
    "neighbour": "Alternating with NumPy matrix products",
}


def pages(folder: Path) -> dict[str, Iterator[str]]:
    """Return the lines of each stored study's page."""
    writers = {"auto": auto_lines, "cold-start": cold_start_lines, "neighbour": neighbour_lines}
    paths = {name: folder / f"{name}.json" for name in writers}
    return {
        name: _page(name, json.loads(path.read_text()), writers[name])
        for name, path in paths.items()
        if path.exists()
    }


def _page(
    name: str, document: dict[str, Any], lines: Callable[[dict[str, Any]], Iterator[str]]
) -> Iterator[str]:
    found = document["environment"]
    yield f"# {HEADINGS[name]}"
    yield f"\n{NOT_BY_HAND}\n"
    yield f"Measured on {found['cpu']} on {found['time'].split()[0]} at commit {found['git']}.\n"
    yield from lines(document)


def auto_lines(document: dict[str, Any]) -> Iterator[str]:
    """Compare auto's choices with the best ones."""
    regrets = {k: _regret(cell) for k, cell in enumerate(document["cells"])}
    values = np.array(list(regrets.values()))
    best_ways = [min(c["seconds"], key=c["seconds"].get) for c in document["cells"]]
    always = max(set(best_ways), key=best_ways.count)
    fixed = [c["seconds"][always] / min(c["seconds"].values()) for c in document["cells"]]
    yield (
        f"{len(values)} problems, drawn evenly in the logarithm: half from N up to 10^6, D up to 10^4 "
        "and C up to 10^5, a quarter with at most 500 rows and up to 10^5 features, a quarter with "
        "up to 2 million rows, 100 features and 5 classes; both float types and all losses. Each "
        "backend is timed on one thread and on all; the ratio is the time of auto's choice over that "
        "of the fastest "
        f"(costs {document['costs']}).\n"
    )
    yield (
        f"- auto: {np.median(values):.2f} in the median, {np.quantile(values, 0.95):.2f} at the 95th "
        f"percentile, {values.max():.2f} at worst; above 1.10 in {np.sum(values > 1.1)} problems "
        f"of {len(values)}."
    )
    yield (
        f"- always the choice that is best most often ({always} threads): {np.median(fixed):.2f} in the "
        f"median, {np.quantile(fixed, 0.95):.2f} at the 95th percentile, {max(fixed):.3g} at worst."
    )
    yield f"- a choice made before takes {seconds(document['choice_seconds'])} a call.\n"
    worst = sorted(regrets, key=lambda k: -regrets[k])[:N_WORST]
    yield "The worst choices:\n"
    rows = [_auto_row(document["cells"][k]) for k in worst]
    yield Table("", ("problem", "taken", "time", "fastest", "time", "ratio"), rows).markdown()


def _regret(cell: dict[str, Any]) -> float:
    return float(cell["seconds"][cell["taken"]] / min(cell["seconds"].values()))


def _auto_row(cell: dict[str, Any]) -> tuple[str, ...]:
    times = cell["seconds"]
    best = min(times, key=times.get)
    problem = f"{cell['loss']}, {' x '.join(map(str, cell['shape']))}, {cell['dtype']}"
    return (
        problem,
        f"{cell['taken']} threads",
        seconds(times[cell["taken"]]),
        f"{best} threads",
        seconds(times[best]),
        f"{_regret(cell):.2f}",
    )


def cold_start_lines(document: dict[str, Any]) -> Iterator[str]:
    """List the medians and extremes of first calls and of compilations."""
    yield "From the start of Python's `import fastloss` to the first answer, 2000 x 785 x 10:\n"
    rows = [(what, *_spread(values)) for what, values in document["first_calls"].items()]
    yield Table("", ("backend", "median", "fastest", "slowest"), rows).markdown()
    yield "\nCompiling one loss and type, Numba imported and nothing cached:\n"
    rows = [(what, *_spread(values)) for what, values in document["compiling"].items()]
    yield Table("", ("kernels", "median", "fastest", "slowest"), rows).markdown()
    yield ('\nWithout a cache "auto" answers at once, with NumPy, and compiles in the background.')


def _spread(values: list[float]) -> tuple[str, ...]:
    return seconds(float(np.median(values))), seconds(min(values)), seconds(max(values))


def neighbour_lines(document: dict[str, Any]) -> Iterator[str]:
    """List the cost of alternating with NumPy's products."""
    yield (
        "A training loop alternates a call with `X_val @ W` (2000 rows) in NumPy. The ratio is its "
        "time over the time of as many calls of each alone, with a 95 % interval.\n"
    )
    rows = [
        (shape, f"{value:.2f} [{low:.2f}, {high:.2f}]")
        for shape, (value, low, high) in document["ratios"].items()
    ]
    yield Table("", ("N x D x C", "alternating / apart"), rows).markdown()
    yield (
        "\nfastloss's threads sleep between calls. OpenBLAS's threads spin for about 0.1 s after a "
        "product, and take half of a core from the next call. `OPENBLAS_THREAD_TIMEOUT=4` in the "
        "environment makes them sleep at once."
    )
