"""The pages of the benchmarks: what is measured, and what is made of the results."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import promises_report
import pytest
import sections
import write_benchmarks
from benchmark_pages import gradient_page, section_page
from sections import SECTIONS

import fastloss
from fastloss.benchmark import Results
from fastloss.benchmark.results import Cell, GradientPoint, GradientStudy, Timing
from fastloss.machine import environment

ROOT = Path(fastloss.__file__).parents[1]
BACKENDS = {"naive": 9.0, "numpy": 3.0, "numba": 2.5, "fused": 1.0}


def timings(seconds: dict[str, float], kind: str = "backend") -> list[Timing]:
    rng = np.random.default_rng(0)
    rounds = np.linspace(0.98, 1.02, 9)
    return [
        Timing(name, (value * rng.permutation(rounds)).tolist(), kind=kind)
        for name, value in seconds.items()
    ]


def cell(size: str, peer: float, loss: str = "softmax") -> Cell:
    shape = map(int, size.split(" x "))
    every = [*timings(BACKENDS), *timings({"JAX": peer, "PyTorch": 2 * peer}, "peer")]
    return Cell(loss, *shape, "float32", every, limit_seconds=0.5, limit_of="reading X")


@pytest.fixture(scope="module")
def stored() -> dict[str, Results]:
    """Results of every section: a peer wins the problems of a thousand classes."""
    made = {}
    for stem in SECTIONS:
        sizes = [size for where, size in write_benchmarks.HEADLINE.values() if where == stem]
        peer = 0.8 if stem == "classes" else 2.0
        cells = [cell(size, peer) for size in sizes or ["10 x 20 x 3"]]
        made[stem] = Results("", "pixels", environment(2, 0), cells=cells)
    points = [
        GradientPoint(method, count, timings({method: seconds * count})[0], n, 1e-9)
        for method, seconds, n in (
            ("per element, NumPy loss", 1e-3, 61_460),
            ("analytic, NumPy", 1e-6, 1),
            ("analytic, fused", 5e-7, 1),
        )
        for count in (1000, 10_000, 30_730)
    ]
    made["losses"].gradient = GradientStudy("softmax", 300, 10, points)
    return made


def test_every_section_is_a_command(monkeypatch):
    called: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **options: called.append(command))
    sections.measure("t*", "/data/", allow_dirty=False)
    sections.measure("cifar10", "/some data/", allow_dirty=True)
    tabular, cifar10 = (command[3:] for command in called)
    assert tabular[0] == "bench"
    assert tabular[tabular.index("--json") + 1] == "bench/results/tabular.json"
    assert "--allow-dirty" not in tabular
    assert cifar10[cifar10.index("--data") + 1] == "/some data/cifar-10-batches-bin"
    assert cifar10[-1] == "--allow-dirty"
    with pytest.raises(SystemExit, match="no section is called 'nope'"):
        sections.measure("nope", "", allow_dirty=False)


def test_short_table_has_every_backend_and_the_best_peer(stored):
    table = write_benchmarks.readme_table(stored)
    assert len(table.rows) == len(write_benchmarks.HEADLINE)
    row = table.rows[0]
    assert row[0] == "CIFAR-10 pixels, 4000 x 3073 x 10"
    assert row[1:6] == ("9 s", "3 s", "2.5 s", "1 s", "2 s (JAX)")
    assert row[6].startswith("2.0")
    full = write_benchmarks.full_table(stored)
    assert full.rows[0][-2:] == ("500 ms (reading X)", "50 %")


def test_table_of_the_readme_is_replaced_between_its_marks(stored, tmp_path):
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- the table: x -->\nold\n<!-- end of the table -->\nb\n")
    table = write_benchmarks.readme_table(stored)
    for _ in range(2):
        write_benchmarks.write_readme_table(path, table)
    text = path.read_text()
    assert text == f"a\n<!-- the table: x -->\n{table.markdown()}\n<!-- end of the table -->\nb\n"
    path.write_text("no marks")
    with pytest.raises(ValueError, match="expected one pair of marks"):
        write_benchmarks.write_readme_table(path, table)


def test_summary_says_losses_as_plainly_as_wins(stored):
    page = "\n".join(write_benchmarks.summary_page(stored))
    assert "11 problems" in page
    assert "10 faster, 1 slower" in page
    assert "| softmax, 8192 x 2048 x 1000, float32 | JAX | 800 ms | fused 1 s | 1.2" in page
    assert "| per element, NumPy loss | 61,460 | 30.7 s | 1e-09 |" in page
    assert len(page.splitlines()) < 100


def test_section_page_has_all_tables(stored, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark_pages.PLOTS", tmp_path)
    results = stored["classes"]
    results.cells[0].skipped["PyTorch chunked"] = "no compiler found"
    page = "\n".join(section_page("classes", results))
    assert "## 8192 x 2048 x 1000, float32" in page
    assert "| PyTorch chunked | softmax | no compiler found |" in page
    for heading in ("Where fastloss loses", "Errors", "Machine"):
        assert f"## {heading}" in page
    assert (tmp_path / "classes.png").exists()
    study = stored["losses"].gradient
    assert "slope" in "\n".join(gradient_page(stored["losses"], study))
    assert (tmp_path / "gradient-error-dark.png").exists()


def test_studies_that_are_stored_have_pages(tmp_path):
    document = {"environment": environment(2, 0), "ratios": {"2 x 3 x 4": [1.5, 1.4, 1.6]}}
    (tmp_path / "neighbour.json").write_text(json.dumps(document))
    pages = promises_report.pages(tmp_path)
    assert list(pages) == ["neighbour"]
    assert "| 2 x 3 x 4 | 1.50 [1.40, 1.60] |" in "\n".join(pages["neighbour"])


# --- what is kept ---------------------------------------------------------------------------------

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
_LINK = re.compile(r'(?:\]\(|src="|srcset=")([^)"#]+)')


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_pages_lead_somewhere(page):
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        assert urlparse(link).scheme or (page.parent / link).exists(), link


def test_only_pictures_that_a_page_shows_are_kept():
    shown = {
        (page.parent / link).resolve()
        for page in PAGES
        for link in _LINK.findall(page.read_text(encoding="utf-8"))
        if link.endswith(".png")
    }
    kept = {path.resolve() for path in (ROOT / "bench" / "plots").rglob("*.png")}
    assert {path.relative_to(ROOT) for path in kept - shown} == set()
