"""A table of what the benchmark suite measured: ``python bench/suite_report.py suite.json``.

The file is one of ``pytest bench --benchmark-json suite.json``, or a saved run in ``.benchmarks``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastloss.benchmark.measure import MIN_ROUNDS
from fastloss.tables import Table, seconds, size_of

COLUMNS = (
    *("loss", "problem", "backend", "median", "IQR", "rounds"),
    *("x NumPy", "of limit", "extra memory"),
)
_LABELS = ("loss", "problem", "contender")


def table(path: Path | str) -> Table:
    """Return the benchmarks of a file, group by group; "-" where it does not have a figure.

    Raises
    ------
    OSError : the file cannot be read.
    ValueError : it is not JSON, or has no benchmarks of this suite.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = [one for one in document["benchmarks"] if _is_ours(one)]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a file of pytest-benchmark: {error!r}") from error
    if not found:
        raise ValueError(f"{path} has no benchmarks of this suite")
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        groups.setdefault(one["group"], []).append(one)
    rows = [row for group in groups.values() for row in _rows(group)]
    return Table("Benchmark suite", COLUMNS, rows, tuple(_notes(document, found)), n_labels=3)


def _is_ours(benchmark: dict[str, Any]) -> bool:
    return all(name in benchmark["extra_info"] for name in _LABELS)


def _rows(group: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    # A limit that a contender beats was measured too low: it says nothing of the others either.
    is_beaten = _is_limit_beaten(group)
    medians = {one["extra_info"]["contender"]: one["stats"]["median"] for one in group}
    for one in group:
        info, stats = one["extra_info"], one["stats"]
        median = stats["median"]
        share = info.get("share_of_limit")
        yield (
            *(info[name] for name in _LABELS),
            seconds(median),
            f"{100 * stats['iqr'] / median:.0f} %" if stats["rounds"] >= MIN_ROUNDS else "-",
            str(stats["rounds"]),
            _speedup(median, medians.get("numpy")),
            "-" if share is None or is_beaten else f"{100 * share:.1f} %",
            size_of(info.get("extra_bytes")),
        )


def _is_limit_beaten(group: list[dict[str, Any]]) -> bool:
    return any(one["extra_info"].get("share_of_limit", 0.0) > 1.0 for one in group)


def _speedup(median: float, numpy: float | None) -> str:
    """Return how many times as fast as NumPy; "-" where NumPy was not measured in the group."""
    if numpy is None:
        return "-"
    ratio = numpy / median
    return f"1/{1 / ratio:,.0f}" if ratio <= 0.01 else f"{ratio:.3g}"


def _notes(document: dict[str, Any], found: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "Median and interquartile range of the rounds. x NumPy: the median of NumPy over this one. "
        "Contenders run in one process, one after the other; `fastloss bench` has them take turns "
        "in processes of their own."
    )
    if any("share_of_limit" in one["extra_info"] for one in found):
        yield (
            "Limit: the longer of one read of X and the arithmetic, at the machine's own ceilings."
        )
    if _is_limit_beaten(found):
        yield "No share of the limit where a contender beat it: it was measured too low."
    if any(one["extra_info"].get("extra_bytes_by") == "tracemalloc" for one in found):
        yield "Extra memory by tracemalloc, which does not see the arrays of compiled code."
    if machine := document.get("fastloss"):
        yield f"{machine['cpu']}, {machine['threads']} threads, measured {machine['time']}."


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description="Make a table of what the suite measured.")
    parser.add_argument("path", help="a file of pytest bench --benchmark-json, or a saved run")
    path = parser.parse_args().path
    try:
        print(table(path).markdown())
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
