"""The published benchmarks: the command of each section, and the stored results."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import promises

from fastloss import files
from fastloss.benchmark import Results
from fastloss.benchmark.results import check_published

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True)
class Section:
    """A page of its own: its heading, the arguments of ``fastloss bench``, and its data set."""

    heading: str
    arguments: str
    data: str = ""

    def command(self, stem: str, folder: str = "") -> str:
        """Return the arguments of ``fastloss`` that measure and store the section."""
        data = f" --data {shlex.quote(folder + self.data)}" if self.data else ""
        return f"bench{data} {self.arguments} --json bench/results/{stem}.json"


CIFAR10 = "cifar-10-batches-bin"
_CONTENDERS = (
    "--peers --backend naive --backend numpy --backend numba --backend fused --backend auto"
    " --seconds 6 --loss softmax"
)
_BOTH = f"{_CONTENDERS} --loss hinge"
_FEATURES = "--sizes 20000x768x100"
#: By file stem, in the order of the index.
SECTIONS = {
    "losses": Section("Every loss, and gradients", "--sizes 4000 --seconds 4", CIFAR10),
    "cifar10": Section("CIFAR-10 pixels", f"{_BOTH} --sizes 4000", CIFAR10),
    "mnist": Section("MNIST pixels", f"{_BOTH} --sizes 60000", "mnist"),
    "uint8": Section(
        "CIFAR-10 pixels as uint8", f"{_CONTENDERS} --dtype uint8 --sizes 4000", CIFAR10
    ),
    "features": Section("Features of a network", f"{_CONTENDERS} {_FEATURES}"),
    "float16": Section(
        "The same features as float16", f"{_CONTENDERS} --dtype float16 {_FEATURES}"
    ),
    "classes": Section("A thousand classes", f"{_CONTENDERS} --sizes 8192x2048x1000"),
    "minibatch": Section("Few rows", f"{_CONTENDERS} --sizes 256x3073x10,200x65x10"),
    "tabular": Section("Tabular rows", f"{_CONTENDERS} --sizes 2000000x10x2,1000000x30x5"),
    "large": Section("20,000 rows of CIFAR-10's shape", f"{_BOTH} --sizes 20000x3073x10"),
    "float64": Section(
        "float64", f"{_CONTENDERS} --dtype float64 --sizes 20000x3073x10,60000x785x10"
    ),
}


#: The results of the pytest-benchmark suite.
SUITE = RESULTS / "studies" / "suite.json"


def measure(pattern: str, folder: str, allow_dirty: bool) -> None:
    """Measure what matches ``pattern`` of the sections, the studies and the suite; store results.

    ``folder`` holds the data sets, and ends in a slash unless it is empty.
    """
    every = (*SECTIONS, *promises.STUDIES, SUITE.stem)
    stems = [stem for stem in every if fnmatch(stem, pattern)]
    if not stems:
        raise SystemExit(f"no section is called {pattern!r}; there are {', '.join(every)}")
    for stem in stems:
        if stem == SUITE.stem:
            measure_suite(allow_dirty)
            continue
        if stem in promises.STUDIES:
            promises.main([stem], allow_dirty)
            continue
        with tempfile.TemporaryDirectory() as out:
            arguments = shlex.split(SECTIONS[stem].command(stem, folder))
            arguments += ["--out", out, *["--allow-dirty"] * allow_dirty]
            subprocess.run([sys.executable, "-m", "fastloss", *arguments], cwd=ROOT, check=True)


def measure_suite(allow_dirty: bool) -> None:
    """Run the pytest-benchmark suite, and store its statistics without the single rounds."""
    if not allow_dirty:
        check_published([SUITE])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "suite.json"
        command = [sys.executable, "-m", "pytest", "bench", "-q", f"--benchmark-json={path}"]
        subprocess.run(command, cwd=ROOT, check=True)
        document = json.loads(path.read_text())
    for benchmark in document["benchmarks"]:
        benchmark["stats"].pop("data", None)
    kept = {name: document[name] for name in ("fastloss", "benchmarks", "datetime", "version")}
    files.write(SUITE, json.dumps(kept, indent=1) + "\n")


def load(stems: Iterable[str] = SECTIONS) -> dict[str, Results]:
    """Return the results that are stored, by file stem."""
    paths = {stem: RESULTS / f"{stem}.json" for stem in stems}
    return {stem: Results.load(path) for stem, path in paths.items() if path.exists()}
