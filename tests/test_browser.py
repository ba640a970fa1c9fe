"""Test what runs in a browser: Pyodide has no Numba, and starts neither threads nor processes."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import fastloss

ROOT = Path(fastloss.__file__).parents[1]

# As Pyodide 314 (Python 3.14, Emscripten) behaves: its standard library has fcntl and subprocess,
# but not resource; os has no affinity; threads and processes raise these errors.
PYODIDE = """
import os, subprocess, sys, sysconfig, threading
from importlib.machinery import PathFinder

import numpy  # before the platform changes: it is the one of this machine

sysconfig.get_config_vars()
sys.platform = "emscripten"
MISSING = {"llvmlite", "line_profiler", "numba", "resource"}
find_spec = PathFinder.find_spec

def find(name, path=None, target=None):
    return None if name.split(".")[0] in MISSING else find_spec(name, path, target)

def no_thread(self):
    raise RuntimeError("can't start new thread")

def no_process(self, *arguments, **options):
    raise OSError(138, "emscripten does not support processes.")

PathFinder.find_spec = find
threading.Thread.start = no_thread
subprocess.Popen.__init__ = no_process
for name in ("sched_getaffinity", "sched_setaffinity"):
    if hasattr(os, name):
        delattr(os, name)
"""

TRIAL = """
import numpy as np

import fastloss
from fastloss import optim
from fastloss.lessons import exercises, find_lesson, solutions, tools

assert fastloss.available_backends() == ("naive", "numpy")
data = fastloss.data.synthetic(60, 8, 4, dtype=np.float64)
W = np.ones((8, 4))
arguments = W, data.X, data.y
expected = fastloss.loss_and_grad(*arguments, backend="naive")[0]
for backend in ("numpy", "auto"):
    loss = fastloss.loss_and_grad(*arguments, backend=backend)[0]
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
for backend in ("numba", "fused"):
    try:
        fastloss.loss_and_grad(*arguments, backend=backend)
    except RuntimeError as error:
        print(error)
print(fastloss.explain(60, 8, 4).backend)

objective = fastloss.Objective(data.X, data.y, loss="hinge", l2=1e-3)
assert fastloss.check_gradient(objective, W).passed
numerical = fastloss.numerical_gradient(objective, W + 0.01 * data.X[:4].T)
assert numerical.shape == (8, 4)
for method in ("random_search", "gradient_descent", "sgd", "adam"):
    assert optim.minimize(objective, W, method, max_steps=5).loss <= objective(W)[0]

assert tools.peak_bytes(lambda: np.ones(1000)) >= 8000
assert len(tools.take_turns({"ones": lambda: np.ones(1000)}, max_rounds=1)["ones"]) == 1
for lesson in map(find_lesson, (1, 2, 3, 6)):
    namespace = {}
    exec(lesson.cells[1].source, namespace)  # the imports
for name in ("line_hits", "hinge_in_place", "complex_step_gradient", "bug_in_hiding", "hinge_loop"):
    print(name, exercises.examine(getattr(solutions, name)), sep=": ")
"""


def test_naive_and_numpy_run_without_numba_threads_and_processes(run_python):
    output = run_python(textwrap.dedent(PYODIDE) + textwrap.dedent(TRIAL))
    assert output.splitlines() == [
        "backend 'numba' cannot run: browsers have no Numba; use numpy",
        "backend 'fused' cannot run: browsers have no Numba; use numpy",
        "numpy",
        "line_hits: right",
        "hinge_in_place: right: its peak is 1.2 matrices of scores",
        "complex_step_gradient: right",
        "bug_in_hiding: right",
        "hinge_loop: right: but not compiled: browsers have no Numba; use numpy",
    ]


def test_numba_is_required_everywhere_but_in_browsers():
    text = (ROOT / "pyproject.toml").read_text()
    (marker,) = re.findall(r'"numba>=[\d.]+; (.+)"', text)
    assert marker == "sys_platform != 'emscripten'"
