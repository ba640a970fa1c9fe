# %% [markdown]
# # Lesson 3: Compiling the loop
#
# Numba compiles the loop of lesson 1 to machine code. How long does compiling take, when is it
# repeated, and what does a cache on disk save? After how many calls does compiling pay?

# %%
import inspect
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import fastloss
from fastloss.benchmark.measure import Ratio
from fastloss.benchmark.plots import colours_of
from fastloss.lessons.tools import agree, claim, keep_picture, take_turns, times_as_fast
from fastloss.losses import rows
from fastloss.tables import seconds

# %% [markdown]
# ## The loop, once more
#
# Softmax loss and gradient, one number at a time. (The scores are an array instead of a list, which
# suits Numba; the rest is plain Python.)

# %%


def softmax_loop(W: Any, X: Any, y: Any) -> Any:
    n_rows, n_features = X.shape
    n_classes = W.shape[1]
    dW = np.zeros_like(W)
    scores = np.zeros(n_classes)
    loss = 0.0
    for i in range(n_rows):
        for c in range(n_classes):
            scores[c] = 0.0
            for d in range(n_features):
                scores[c] += X[i, d] * W[d, c]
        top = scores.max()
        total = np.exp(scores - top).sum()
        loss += math.log(total) - (scores[y[i]] - top)
        for c in range(n_classes):
            slope = (math.exp(scores[c] - top) / total - (c == y[i])) / n_rows
            for d in range(n_features):
                dW[d, c] += X[i, d] * slope
    return loss / n_rows, dW


# %%
N, D, C = 200, 100, 20
data = fastloss.data.synthetic(N, D, C, dtype=np.float64)
X, y = data.X, data.y
W = np.random.default_rng(0).standard_normal((D, C)) / math.sqrt(D)
vectorised = fastloss.Objective(X, y, loss="softmax", backend="numpy", n_threads=1)
expected = vectorised(W)

# %% [markdown]
# **Predict.** `njit` returns at once. How long does the first call take, and how long the next one?

# %%
import numba


def timed(function: Any, *arguments: Any) -> float:
    """Return the seconds of one call."""
    start = perf_counter()
    function(*arguments)
    return perf_counter() - start


def shortest(function: Any, *arguments: Any, n_calls: int = 5) -> float:
    """Return the seconds of the shortest call: other processes only make calls longer."""
    return min(timed(function, *arguments) for _ in range(n_calls))


# The first compilation of any function also loads LLVM and Numba's own tables.
waking_up = timed(numba.njit(lambda: None))
decorating = timed(numba.njit, softmax_loop)
compiled = numba.njit(softmax_loop)
first_call = timed(compiled, W, X, y)
later_call = shortest(compiled, W, X, y)
print(f"waking up {seconds(waking_up)}, decorating {seconds(decorating)}")
print(f"first call {seconds(first_call)}, a later one {seconds(later_call)}")

agree("softmax_loop under njit", compiled(W, X, y), expected, 1e-12)

# %% jupyter={"source_hidden": true}
claim(
    first_call > 10 * later_call,
    f"the first call takes {first_call / later_call:,.0f} times as long as a later one.",
    f"the first call takes only {first_call / later_call:.1f} times as long as a later one. Other "
    "processes probably slowed all of the later calls.",
)

# %% [markdown]
# ## What happens in the first call
#
# Numba compiles at the first call, because only then it knows the types. Its passes lead from
# Python's bytecode to a typed form, to LLVM's instructions, and to machine code. Numba records the
# time of each pass.

# %%
(signature,) = compiled.signatures
record = compiled.get_metadata(signature)["pipeline_times"]["nopython"]
passes = {name.partition("_")[2]: times.run for name, times in record.items()}
slowest = sorted(passes, key=lambda name: passes[name], reverse=True)[:3]
for name in slowest:
    print(
        f"{name:32} {seconds(passes[name]):>8}  {passes[name] / first_call:4.0%} of the first call"
    )

# %% jupyter={"source_hidden": true}
in_passes = sum(passes.values()) / first_call
claim(
    in_passes > 0.5,
    f"the {len(passes)} passes of the compiler take {in_passes:.0%} of the first call.",
    f"the {len(passes)} passes of the compiler take only {in_passes:.0%} of the first call. This "
    "version of Numba may do work outside of its passes, or another process interrupted the call.",
)

# %% [markdown]
# `nopython_type_inference` finds the type of every name. `native_lowering` includes LLVM, which
# also turns loops into vector instructions if the rules of arithmetic allow it.
#
# **Predict.** The loop is called with float32 arrays, then with an `X` stored by columns, and then
# with the first arrays again. Which of these calls are slow?

# %%
calls = {
    "float32": (W.astype(np.float32), X.astype(np.float32), y),
    "X by columns": (W, np.asfortranarray(X), y),
    "the first again": (W, X, y),
}
first_calls = {name: timed(compiled, *arguments) for name, arguments in calls.items()}
later_calls = {name: shortest(compiled, *arguments) for name, arguments in calls.items()}
for name in calls:
    print(f"{name:16} {seconds(first_calls[name]):>8}, later {seconds(later_calls[name])}")

# %% jupyter={"source_hidden": true}
compiles = [name for name in calls if first_calls[name] > 10 * later_calls[name]]
claim(
    len(compiled.signatures) == 3 and compiles == ["float32", "X by columns"],
    "float32 and the other layout are compiled anew. Together with the first one, that makes 3 "
    "signatures.",
    f"slow first calls: {', '.join(compiles) or 'none'}; {len(compiled.signatures)} signatures. "
    "Of 3 signatures, two should be new and slow. Other processes may have slowed one of the "
    "calls.",
)

# %% [markdown]
# A signature holds types, dimensions and layouts. So a library converts its arrays to few
# signatures before it calls a kernel. A benchmark that times the first call times the compiler.
#
# ## A cache on disk
#
# With `cache=True`, Numba stores the machine code in a file for each source file, function, type
# signature and CPU. Three processes, one after the other, run the loop as a script.
#
# **Predict** the time of the first call in each process.

# %%
SCRIPT = (
    "from __future__ import annotations\n"
    "import json, math, time\n"
    "import numba, numpy as np\n\n"
    "@numba.njit(cache=True)\n"
    + inspect.getsource(softmax_loop)
    + """
@numba.njit
def nothing():
    pass

start = time.perf_counter()
nothing()
waking_up = time.perf_counter() - start
X, y, W = np.ones((200, 100)), np.zeros(200, np.int64), np.zeros((100, 20))
start = time.perf_counter()
softmax_loop(W, X, y)
seconds = time.perf_counter() - start
stats = softmax_loop.stats
loaded, compiled = sum(stats.cache_hits.values()), sum(stats.cache_misses.values())
report = {"seconds": seconds, "waking_up": waking_up, "loaded": loaded, "compiled": compiled}
print(json.dumps(report))
"""
)

with tempfile.TemporaryDirectory() as folder:
    script = Path(folder) / "loop.py"
    script.write_text(SCRIPT)

    def run_process() -> dict[str, float]:
        """Run the script in a new process and return its report."""
        done = subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "NUMBA_CACHE_DIR": str(Path(folder) / "cache")},
            stdout=subprocess.PIPE,
            check=True,
        )
        return dict(json.loads(done.stdout))

    processes = [run_process() for _ in range(3)]
    files = sorted(path.name for path in Path(folder).rglob("*.nb[ic]"))

for number, report in enumerate(processes, 1):
    how = "compiled" if report["compiled"] else "loaded from the cache"
    print(f"process {number}: first call {seconds(report['seconds'])}, {how}")
print("in the cache: " + ", ".join(files))
cached_first_call = min(report["seconds"] for report in processes[1:])

# %% jupyter={"source_hidden": true}
cache_gain = processes[0]["seconds"] / cached_first_call
claim(
    [report["loaded"] for report in processes] == [0, 1, 1] and cache_gain > 3,
    f"the first process compiles, the others load. Their first call is {cache_gain:.0f} times as "
    "fast.",
    f"the first call of the later processes is {cache_gain:.1f} times as fast, where more than 3 "
    "is usual. If one of them compiled again, Numba could not use its cache in the temporary "
    "folder.",
)

# %% [markdown]
# The cache checks the time stamp of the script, so it notices a change of the loop. It does not
# check other files: after a change in an imported helper, it returns outdated code.
#
# ## The order of the additions
#
# A compiler keeps the order of the additions in a sum, because another order would round
# differently. So `scores[c] += ...` runs one addition after the other. Moreover, the numbers of `W`
# in that line lie C apart in memory.
#
# The backend `numba` of fastloss goes another way. It transposes `W` once per call, so that the
# weights of a class are adjacent, and `fastmath=True` lets LLVM add in any order, in vectors. This
# function scores one row (`score_rows` scores four, which share each load of a weight). Each class
# has D + 1 weights: the last one, `weights[len(x)]`, is its bias, or 0 without an intercept:

# %%
print(inspect.getsource(rows.score_row.py_func))

# %% [markdown]
# **Predict.** How much faster than the plain loop is the same arithmetic in vectors, on one thread?
# And is it faster than NumPy?

# %%
numba_backend = fastloss.Objective(X, y, loss="softmax", backend="numba", n_threads=1)
first_in_vectors = timed(numba_backend, W)  # compiles, or loads from fastloss's cache
agree("the backend numba", numba_backend(W), expected, 1e-12)
contenders = {
    "Python": lambda: softmax_loop(W, X, y),
    "njit": lambda: compiled(W, X, y),
    "numba": lambda: numba_backend(W),
    "numpy": lambda: vectorised(W),
}
times = take_turns(contenders, seconds=2.0)
medians = {name: float(np.median(spent)) for name, spent in times.items()}
for name, median in medians.items():
    gain = Ratio.of(times["Python"], times[name]).value
    print(f"{name:6} {seconds(median):>8} a call, {gain:6.0f} times as fast as Python")
# The shortest of many calls separates close contenders even on a busy machine.
best = {name: shortest(contenders[name], n_calls=300) for name in ("njit", "numba", "numpy")}
print("at best: " + ", ".join(f"{name} {seconds(spent)}" for name, spent in best.items()))

# %% jupyter={"source_hidden": true}
compiled_gain = Ratio.of(times["Python"], times["njit"])
vector_gain = best["njit"] / best["numba"]
claim(
    compiled_gain.value > 20,
    f"the compiled loop is {times_as_fast(compiled_gain)} as Python.",
    f"the compiled loop is only {times_as_fast(compiled_gain)} as Python, where more than 20 times "
    "is usual. Other processes may have slowed its short calls.",
)
claim(
    vector_gain > 1.2,
    f"at best, `numba` is {vector_gain:.1f} times as fast as `njit`, with the same arithmetic. "
    f"NumPy takes {best['numpy'] / best['numba']:.1f} times as long as `numba`.",
    f"`numba` is {vector_gain:.2f} times as fast as `njit`. Either the vectors of this CPU hold "
    "few float64 numbers, or other processes slowed all 300 calls.",
)

# %% [markdown]
# `njit` removed Python from the loop. It did not choose the layout of `W`, put rows into blocks or
# use all cores. Lesson 4 continues from here.
#
# ## When does compiling pay?
#
# After `n` calls Python has taken `n a` seconds and the compiled loop `f + n b`, where `f` is the
# time of the first call and of loading Numba. So compiling pays from `n = f / (a - b)` calls on.
#
# **Predict** this number of calls, without the cache and with it.

# %%


def break_even(first: float, slow: float, fast: float) -> float:
    """Return the calls after which ``first`` seconds of compiling pay; infinite if never."""
    return first / (slow - fast) if fast < slow else math.inf


waking = min(report["waking_up"] for report in processes)
fresh = break_even(waking + first_call, medians["Python"], medians["njit"])
from_cache = break_even(waking + cached_first_call, medians["Python"], medians["njit"])

# %% jupyter={"source_hidden": true}
claim(
    from_cache < fresh < math.inf,
    f"against Python, compiling pays from {math.ceil(fresh)} calls on, and loading from the cache "
    f"from {math.ceil(from_cache)}.",
    f"compiling pays from {fresh:.1f} calls on, and loading from the cache from {from_cache:.1f}, "
    "which should be fewer. Other processes probably slowed the loading, or all compiled calls.",
)


# %% jupyter={"source_hidden": true}
def draw(figure: Any) -> None:
    from fastloss import plots

    ax = figure.subplots()
    colours = colours_of(("naive", "numpy", "numba"))
    n_calls = np.geomspace(1, 100_000, 200)
    lines = {
        "Python": (0.0, medians["Python"], colours["naive"], "-"),
        "njit": (waking + first_call, medians["njit"], colours["numba"], "-"),
        "njit, cached": (waking + cached_first_call, medians["njit"], colours["numba"], "--"),
        "numba": (waking + first_in_vectors, medians["numba"], plots.PURPLE, "-"),
        "numpy": (0.0, medians["numpy"], colours["numpy"], "-"),
    }
    for first, each, colour, style in lines.values():
        ax.plot(n_calls, first + n_calls * each, style, color=colour)
    for calls in (fresh, from_cache):
        if math.isfinite(calls):
            place = (calls, calls * medians["Python"])
            ax.plot(*place, "o", color=plots.INK)
            plots.label(ax, f"pays from {math.ceil(calls)} calls on", place, plots.INK, (8, -9))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(1, n_calls[-1])
    ax.set_xlabel("calls")
    ax.set_ylabel("time until now (s)")
    ends = [(first + n_calls[-1] * each, name, c) for name, (first, each, c, _) in lines.items()]
    plots.label_ends(ax, ends)
    note = f"N = {N}, D = {D}, C = {C}, float64"
    plots.title(ax, "Compiling is paid once, the loop in Python every time", note)


keep_picture(draw, "3-compiling", width=8.0, height=4.8)

# %% [markdown]
# ## Exercises
#
# Write the body of a function and run its cell. `exercises.check` says whether it is right, where
# it is wrong, or that it takes too much time or memory. (In a terminal, take the lesson as a
# notebook first: `fastloss lesson 3 --notebook lesson.ipynb`.) Solutions have the same names
# in `fastloss.lessons.solutions`.

# %%
from fastloss.lessons import exercises

# %% [markdown]
# ### Exercise 1: The hinge, compiled
#
# The multiclass SVM loss of a row is the sum over the wrong classes j of `max(0, s_j - s_y + 1)`.
# Write its mean and its gradient as a loop; `check` compiles it with `njit`. Make the loop over
# classes the innermost: their sums are independent of each other, and their weights are adjacent in
# `W`.

# %%


def hinge_loop(W: Any, X: Any, y: Any) -> Any:
    """Return the mean hinge loss and its gradient, of the shape of `W`."""
    raise NotImplementedError


exercises.check(hinge_loop)

# %% [markdown]
# ### Exercise 2: How often is it compiled?
#
# A function of one array is called with float64, float32, float64 by columns, a slice `a[:, ::2]`
# and a read-only array, each twice. Predict the number of signatures, then count them.

# %%


def count_signatures() -> int:
    """Compile a function, call it with the five arrays twice, and return `len(signatures)`."""
    raise NotImplementedError


exercises.check(count_signatures)

# %% [markdown]
# ### Exercise 3: The whole price
#
# A training run makes 20 epochs of 235 calls, and a process starts every hour. How many seconds
# does a version cost per day, from the times of a first call and of later calls? Which of Python,
# `njit`, and `njit` with a cache would you choose here?

# %%


def seconds_a_day(first_call: float, each_call: float, starts: int = 24) -> float:
    """Return the seconds of all calls of a day: `starts` processes of 20 epochs each."""
    raise NotImplementedError


exercises.check(seconds_a_day)

cheapest: str | None = None  # "python", "njit" or "cached"
exercises.check(
    cheapest,
    "cheapest_a_day",
    python=(medians["Python"], medians["Python"]),
    njit=(waking + first_call, medians["njit"]),
    cached=(waking + cached_first_call, medians["njit"]),
)
