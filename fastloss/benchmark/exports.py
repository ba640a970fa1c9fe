"""A run's timings in the formats of other tools: pytest-benchmark's JSON and asv's result files.

All seconds are those of one call on the whole problem, a number a round. Extrapolated timings keep
their mark: their contender is called ``~name``, so neither tool compares them with timings of a
whole problem.

Both tools compare rounds as if they were independent, and know of no A/A control. For a verdict on
a change, use `comparison`.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from fastloss.benchmark.comparison import Key, timings
from fastloss.benchmark.report import EXTRAPOLATED
from fastloss.benchmark.results import Results, Timing
from fastloss.version import __version__

#: Of asv's three kinds of files: another number would be refused by asv.
_ASV_RESULTS, _ASV_BENCHMARKS, _ASV_MACHINE = 2, 2, 1
#: asv compares results of a benchmark only if its version is the same: change this one when a
#: timing means something else.
_ASV_BENCHMARK_VERSION = "fastloss-1"
_ASV_COLUMNS = (
    *("result", "params", "version", "started_at", "duration"),
    *("stats_ci_99_a", "stats_ci_99_b", "stats_q_25", "stats_q_75"),
    *("stats_number", "stats_repeat", "samples"),
)


def _contender(key: Key, timing: Timing) -> str:
    return f"{EXTRAPOLATED if timing.extrapolated else ''}{key.contender}"


def _problem_name(key: Key) -> str:
    """Return a name of the problem without spaces: ``softmax.4000x3073x10.float32``."""
    size = re.sub(r"\W+", "_", key.size.replace(" x ", "x"))
    parts = ["gradient"] if key.kind == "gradient" else []
    again = [str(key.place + 1)] if key.place else []
    return ".".join([*parts, key.loss, size, key.dtype, *again])


def _measured_at(results: Results) -> datetime:
    try:
        return datetime.strptime(results.environment["time"], "%Y-%m-%d %H:%M:%S %z")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("the results do not say when they were measured") from error


def _commit(results: Results) -> tuple[str, bool]:
    """Return the commit, "" if unknown, and whether the checkout had changes beside it."""
    state = str(results.environment.get("git") or "")
    return state.removesuffix("-dirty"), state.endswith("-dirty")


def _system(results: Results) -> tuple[str, str, str]:
    """Return the operating system, its release and the architecture; "" if unknown."""
    words = str(results.environment.get("system", "")).split()
    if len(words) < 2:
        return (*words, "", "", "")[0], "", ""
    return words[0], " ".join(words[1:-1]), words[-1]


def _python(results: Results) -> tuple[str, str]:
    """Return the implementation and the version of Python; "" if unknown."""
    name, _, version = str(results.environment.get("python", "")).partition(" ")
    return name, version


def pytest_benchmark(results: Results) -> dict[str, Any]:
    """Return the content of a JSON file of pytest-benchmark.

    Raises
    ------
    ValueError : the results do not say when they were measured.
    """
    commit, dirty = _commit(results)
    system, release, machine = _system(results)
    implementation, python = _python(results)
    cpu = str(results.environment.get("cpu", ""))
    return {
        "machine_info": {
            "node": "",
            "processor": cpu,
            "machine": machine,
            "python_implementation": implementation,
            "python_implementation_version": python,
            "python_version": python,
            "release": release,
            "system": system,
            "cpu": {"brand_raw": cpu, "count": results.environment.get("cpus")},
        },
        "commit_info": {
            "id": commit or "unversioned",
            "time": None,
            "author_time": None,
            "dirty": dirty,
            "project": "fastloss",
            "branch": "(unknown)",
        },
        "benchmarks": [_benchmark(key, timing) for key, timing in timings(results).items()],
        "datetime": _measured_at(results).isoformat(),
        "version": f"fastloss {__version__}",
    }


def _benchmark(key: Key, timing: Timing) -> dict[str, Any]:
    problem, contender = _problem_name(key), _contender(key, timing)
    name = f"{problem}[{contender}]"
    params = {"loss": key.loss, "size": key.size, "dtype": key.dtype, "contender": contender}
    return {
        "group": problem,
        "name": name,
        "fullname": f"fastloss::{name}",
        "params": params,
        "param": contender,
        "extra_info": {"fraction": timing.fraction, "extrapolated": timing.extrapolated},
        "options": {},
        "stats": {**_statistics(timing.full_seconds), "data": timing.full_seconds, "iterations": 1},
    }


def _statistics(seconds: Sequence[float]) -> dict[str, Any]:
    """Return what pytest-benchmark computes of the rounds, by its own definitions."""
    ordered = sorted(seconds)
    n, mean = len(ordered), statistics.mean(ordered)
    q1, q3 = _quartiles(ordered)
    spread = statistics.stdev(ordered) if n > 1 else 0.0
    fence = 1.5 * (q3 - q1)
    far = sum(abs(value - mean) > spread for value in ordered)
    outside = sum(not q1 - fence <= value <= q3 + fence for value in ordered)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": spread,
        "rounds": n,
        "median": statistics.median(ordered),
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": outside,
        "stddev_outliers": far,
        "outliers": f"{far};{outside}",
        "ld15iqr": ordered[bisect_left(ordered, q1 - fence)],
        "hd15iqr": ordered[bisect_right(ordered, q3 + fence) - 1],
        "ops": n / sum(ordered),
        "total": sum(ordered),
    }


def _quartiles(ordered: Sequence[float]) -> tuple[float, float]:
    """Return the quartiles of sorted values by "method 3", which for even numbers is "method 2"."""
    n = len(ordered)
    if n == 1:
        return ordered[0], ordered[0]
    if n % 2 == 0:
        return statistics.median(ordered[: n // 2]), statistics.median(ordered[n // 2 :])
    # Places of the quartiles, counted from 0.
    places = [(n - 2) / 4, (3 * n - 2) / 4]
    low, high = np.interp(places, np.arange(n), ordered)
    return float(low), float(high)


def asv_results(
    results: Results, *, commit: str | None = None, machine: str | None = None
) -> dict[str, Any]:
    """Return the content of a result file of asv; a benchmark is a problem, with all contenders.

    ``commit`` replaces the commit that the results name, ``machine`` the name made of the CPU's.

    Raises
    ------
    ValueError : no commit is known, or the results do not say when they were measured.
    """
    found = commit or _commit(results)[0]
    if not found:
        raise ValueError("the results name no commit, which asv needs; give one with --commit")
    at = int(_measured_at(results).timestamp() * 1000)
    benchmarks = {
        name: [
            [statistics.median(timing.full_seconds) for timing in contenders.values()],
            [[repr(contender) for contender in contenders]],
            _ASV_BENCHMARK_VERSION,
            at,
            None,
            *_asv_statistics(list(contenders.values())),
            [timing.full_seconds for timing in contenders.values()],
        ]
        for name, contenders in _by_problem(results).items()
    }
    python = ".".join(_python(results)[1].split(".")[:2])
    return {
        "commit_hash": found,
        "env_name": f"fastloss-py{python}",
        # asv wants the date of the commit here, which results do not have.
        "date": at,
        "params": {**asv_machine(results, machine), "python": python},
        "python": python,
        "requirements": dict(results.environment.get("packages", {})),
        "env_vars": {},
        "result_columns": list(_ASV_COLUMNS),
        "results": benchmarks,
        "durations": {},
        "version": _ASV_RESULTS,
    }


def _by_problem(results: Results) -> dict[str, dict[str, Timing]]:
    found: dict[str, dict[str, Timing]] = {}
    for key, timing in timings(results).items():
        found.setdefault(_problem_name(key), {})[_contender(key, timing)] = timing
    return found


def _asv_statistics(contenders: Sequence[Timing]) -> list[list[float]]:
    """Return a list for each of the columns: ends of a 99 % interval, quartiles, counts."""
    rows = []
    for timing in contenders:
        ordered = sorted(timing.full_seconds)
        q_25, q_75 = np.percentile(ordered, [25, 75]).tolist()
        rows.append([*_ends_99(ordered), q_25, q_75, 1, len(ordered)])
    return [list(column) for column in zip(*rows, strict=True)]


def _ends_99(ordered: Sequence[float]) -> tuple[float, float]:
    """Return order statistics around the median that cover it in 99 %; infinite below 8 rounds."""
    n = len(ordered)
    below, found = 0.0, -1
    for k in range(n):
        below += math.comb(n, k) / 2**n
        if below > 0.005:
            break
        found = k
    return (-math.inf, math.inf) if found < 0 else (ordered[found], ordered[n - 1 - found])


def asv_machine(results: Results, machine: str | None = None) -> dict[str, str]:
    """Return asv's description of the machine."""
    environment = results.environment
    system, release, architecture = _system(results)
    cpu = str(environment.get("cpu", "unknown"))
    cpus = str(environment.get("cpus", ""))
    return {
        "machine": machine or re.sub(r"\W+", "-", f"{cpu} {cpus} cpus").strip("-").lower(),
        "os": f"{system} {release}",
        "num_cpu": cpus,
        "arch": architecture,
        "cpu": cpu,
        "ram": "",
    }


def asv_benchmarks(results: Results, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the content of asv's ``benchmarks.json``: those of ``known``, and those of the run."""
    benchmarks = {**(known or {}), "version": _ASV_BENCHMARKS}
    for name, contenders in _by_problem(results).items():
        before = benchmarks.get(name, {}).get("params", [[]])[0]
        names = [repr(contender) for contender in contenders]
        benchmarks[name] = {
            "code": "",
            "name": name,
            "param_names": ["contender"],
            "params": [list(dict.fromkeys([*before, *names]))],
            "timeout": 60.0,
            "type": "time",
            "unit": "seconds",
            "version": _ASV_BENCHMARK_VERSION,
        }
    return benchmarks


def asv_tree(
    results: Results, folder: Path, *, commit: str | None = None, machine: str | None = None
) -> dict[Path, str]:
    """Return the files of asv's results folder and their content, for ``asv show`` and others.

    Benchmarks that the folder knows already stay known.

    Raises
    ------
    ValueError : as `asv_results`, or the folder's ``benchmarks.json`` is not one of asv's.
    OSError : the folder cannot be read.
    """
    content = asv_results(results, commit=commit, machine=machine)
    place = asv_machine(results, machine)
    name = f"{content['commit_hash'][:8]}-{content['env_name']}.json"
    listing = folder / "benchmarks.json"
    return {
        listing: to_json(asv_benchmarks(results, _known(listing))),
        folder / place["machine"] / "machine.json": to_json({**place, "version": _ASV_MACHINE}),
        folder / place["machine"] / name: to_json(content),
    }


def _known(listing: Path) -> dict[str, Any]:
    if not listing.exists():
        return {}
    try:
        known = json.loads(listing.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{listing} is damaged: {error}") from error
    if not isinstance(known, dict) or known.get("version") != _ASV_BENCHMARKS:
        raise ValueError(f"{listing} is not asv's list of benchmarks, version {_ASV_BENCHMARKS}")
    return known


def to_json(content: Mapping[str, Any]) -> str:
    """Return JSON text. Infinite ends of intervals are written as asv itself writes them."""
    return json.dumps(content, indent=1) + "\n"
