# %% [markdown]
# # Lesson 4: How close to the limit? The roofline
#
# How fast can the loss be? A computer can read only so many bytes and do only so many operations in
# a second. This lesson measures both ceilings, draws each version of the loss below them, and asks
# what limits it: the interpreter, memory, or arithmetic.

# %%
import inspect
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import fastloss
from fastloss.benchmark.ceilings import ArithmeticTask, BandwidthTask
from fastloss.benchmark.measure import Ratio
from fastloss.benchmark.plots import colours_of
from fastloss.benchmark.worker import Worker
from fastloss.lessons.tools import agree, claim, keep_picture, say, take_turns, times_as_fast
from fastloss.losses.softmax import softmax_parallel
from fastloss.tables import seconds, size_of
from fastloss.threads import available_threads

# %% [markdown]
# ## The ceilings
#
# Summing a large array repeatedly measures bytes per second. Multiplying two matrices in BLAS
# measures floating-point operations per second. Both run with one thread and with all, in separate
# processes. The best time counts, because a ceiling is the speed of an undisturbed machine.

# %%
N, D = 8192, 3072
X_BYTES = N * D * np.dtype(np.float32).itemsize
n_cores = available_threads()
thread_counts = sorted({1, n_cores})

workers = {threads: Worker(threads) for threads in thread_counts}
bandwidth = dict.fromkeys(thread_counts, 0.0)
arithmetic = dict.fromkeys(thread_counts, 0.0)


def raise_ceilings() -> None:
    """Measure both ceilings; keep the highest. All threads can do at least as much as one."""
    for ceiling, task in (
        (bandwidth, BandwidthTask(X_BYTES, seconds=0.4)),
        (arithmetic, ArithmeticTask("float32", seconds=0.4)),
    ):
        for threads, worker in workers.items():
            ceiling[threads] = max(worker.run(task), ceiling[threads], ceiling[1])


def print_ceilings() -> None:
    for threads in thread_counts:
        print(
            f"{threads} thread{'s' * (threads > 1)}: reads {bandwidth[threads] / 1e9:.1f} GB/s, "
            f"computes {arithmetic[threads] / 1e9:.0f} Gflop/s"
        )


raise_ceilings()
print_ceilings()

# %% [markdown]
# ## How much work is it?
#
# Loss and gradient are two matrix products with N D C multiply-adds each: `4 N D C` operations. `X`
# is by far the largest array, so memory traffic is the bytes of `X` times the number of passes over
# it. `W` and the scores stay in the caches and are not counted.
#
# The operations per byte are the *intensity*. A version can do at most `intensity x bandwidth`
# operations per second, and at most the machine's arithmetic ceiling. The smaller limit is the
# *roof*. Both limits meet at the *ridge*; above that intensity memory does not limit the speed.
#
# With float32 and one pass over `X`, the intensity is `4 N D C / (4 N D) = C`. NumPy reads `X`
# twice, once for `X @ W` and once for `X.T @ slopes`, so it has the intensity C / 2.
#
# **Predict** from the two ceilings above: where is the ridge? For which numbers of classes does the
# second pass lower the roof, and for which does it cost nothing?

# %%


def roof(operations_a_byte: float, threads: int) -> float:
    """Return the most operations per second."""
    return min(operations_a_byte * bandwidth[threads], arithmetic[threads])


def ridge(threads: int) -> float:
    """Return the operations a byte from which on arithmetic is the smaller limit."""
    return arithmetic[threads] / bandwidth[threads]


def print_ridges() -> None:
    ridges = [f"{ridge(n):.1f} with {n} thread{'s' * (n > 1)}" for n in thread_counts]
    print("ridge: " + ", ".join(ridges))


print_ridges()
print(f"{'classes':>7}  {'one pass':>8}  {'two passes':>10}   (shortest time with one thread)")
for n_classes in (2, 3, 5, 10, 20, 50):
    one, two = (4 * N * D * n_classes / roof(n_classes / passes, 1) for passes in (1, 2))
    print(f"{n_classes:7}  {seconds(one):>8}  {seconds(two):>10}")

# %% [markdown]
# With fewer classes than the ridge, memory limits both, and two passes take twice as long as one.
# From twice the ridge on, arithmetic limits both. The lesson continues with fewer classes than this
# ridge of one thread, but at least 2.

# %%
C = max(2, round(0.7 * ridge(1)))  # leaves room for a ridge that was measured too high
data = fastloss.data.synthetic(N, D, C)
X, y = data.X, data.y
W = (np.random.default_rng(0).standard_normal((D, C)) / math.sqrt(D)).astype(np.float32)
operations = 4.0 * N * D * C


def intensity(passes: int) -> float:
    """Return the operations for each byte of ``X`` that is read."""
    return operations / (passes * X.nbytes)


print(
    f"C = {C}, X is {size_of(X.nbytes)}; one pass {intensity(1):.1f} operations a byte, "
    f"two passes {intensity(2):.1f}"
)

# %% [markdown]
# ## The versions
#
# The versions are the four backends of fastloss:
#
# - **naive**: loops in Python (timed on a few rows, and scaled up);
# - **numpy**: two products in BLAS, so two passes over `X`;
# - **numba**: compiled loops. Four rows are scored and added to the gradient before the next four,
#   so one pass. Chunks of rows run in parallel (`prange`);
# - **fused**: like numba, but with blocks of rows that fit the cache, explicit vectors, and numbers
#   that stay in registers. The code is in `fastloss/kernels/narrow.py`.
#
# This is all of `numba` except the loops over a few rows, which are in `fastloss/losses/rows.py`. A
# chunk has blocks of rows. `SKIP` is the label of a row that does not count, `finish_row` applies
# the weight of a row, and `add_block` adds the sums of a block to the gradient of its chunk:

# %%
print(inspect.getsource(softmax_parallel.py_func))

# %%


def objective(backend: str, threads: int, rows: int = N) -> fastloss.Objective:
    return fastloss.Objective(
        X[:rows], y[:rows], loss="softmax", backend=backend, n_threads=threads
    )


FEW = 4  # rows for the naive loop; its time is scaled up
versions: dict[str, tuple[Any, int, int]] = {  # the call, its threads, its passes over X
    "naive": (objective("naive", 1, FEW), 1, 1),
}
for threads in thread_counts:
    for backend, passes in {"numpy": 2, "numba": 1, "fused": 1}.items():
        name = f"{backend}, {threads} thread{'s' * (threads > 1)}"
        versions[name] = (objective(backend, threads), threads, passes)

expected = versions["numpy, 1 thread"][0](W)
for name, (call, _, _) in versions.items():
    if name != "naive":
        agree(name, call(W), expected, 1e-4, loss_tolerance=1e-5)

# %% [markdown]
# **Predict** the order of the versions and the factors between neighbours. How close does each come
# to its roof?

# %%
calls = {name: (lambda call=call: call(W)) for name, (call, _, _) in versions.items()}
times = take_turns(calls, seconds=6.0)
times["naive"] = [t * N / FEW for t in times["naive"]]
# Measure again: other processes may have slowed the first measurement.
raise_ceilings()
for worker in workers.values():
    worker.close()
print("The ceilings after a second measurement; the higher of both counts from here on:")
print_ceilings()
print_ridges()
print()

speed = {name: operations / float(np.median(spent)) for name, spent in times.items()}
best_possible = {
    name: roof(intensity(passes), threads) for name, (_, threads, passes) in versions.items()
}
for name in versions:
    print(
        f"{name:17} {seconds(operations / speed[name]):>8}  {speed[name] / 1e9:8.3f} Gflop/s  "
        f"{speed[name] / best_possible[name]:6.1%} of its roof"
    )

# %% jupyter={"source_hidden": true}
one_pass, two_passes = (roof(intensity(passes), 1) / 1e9 for passes in (1, 2))
if intensity(1) > ridge(1):
    say(
        f"The ridge of one thread is now {ridge(1):.1f}, so C = {C} is above it: arithmetic limits "
        "one pass."
    )
if one_pass > 1.1 * two_passes:
    say(
        f"Reading X a second time lowers the roof of one thread from {one_pass:.0f} to "
        f"{two_passes:.0f} Gflop/s."
    )
else:
    say(
        f"Reading X a second time hardly lowers the roof of {one_pass:.0f} Gflop/s: arithmetic "
        "limits one thread in both cases."
    )
above = [name for name in versions if speed[name] > 1.5 * best_possible[name]]
claim(
    not above,
    "no version is faster than its roof.",
    f"faster than its roof: {', '.join(above)}. Other processes may have slowed the measurement "
    "of the ceilings, or the caches of this CPU hold much of X.",
)
below_roof = best_possible["naive"] / speed["naive"]
claim(
    below_roof > 50,
    f"`naive` could be {below_roof:,.0f} times as fast before memory or arithmetic limited it. The "
    "interpreter limits it.",
    f"`naive` is only {below_roof:,.0f} times below its roof, where more than 50 is usual. Other "
    "processes probably slowed the measurement of the ceilings.",
)
over_naive, over_numba, over_numpy = (
    Ratio.of(times[slow], times[fast])
    for slow, fast in (
        ("naive", "numba, 1 thread"),
        ("numba, 1 thread", "fused, 1 thread"),
        ("numpy, 1 thread", "fused, 1 thread"),
    )
)
claim(
    over_naive.value > 10,
    f"with one thread, `numba` is {times_as_fast(over_naive)} as `naive`.",
    f"with one thread, `numba` is only {times_as_fast(over_naive)} as `naive`, where more than 10 "
    "times is usual. Other processes probably disturbed the times.",
)
claim(
    over_numba.value > 1.2 and over_numba.low > 1,
    f"with one thread, `fused` is {times_as_fast(over_numba)} as `numba`.",
    f"with one thread, `fused` is {times_as_fast(over_numba)} as `numba`, where more than 1.2 "
    "times is expected. The nearer memory limits both, the less their arithmetic matters; or other "
    "processes disturbed the times.",
)
reached = {
    backend: speed[f"{backend}, 1 thread"] / best_possible[f"{backend}, 1 thread"]
    for backend in ("fused", "numpy")
}
claim(
    over_numpy.value > 1.2 and over_numpy.low > 1,
    f"with one thread, `fused` is {times_as_fast(over_numpy)} as `numpy`. The saved pass "
    f"explains a factor of {one_pass / two_passes:.2f}, and the distance from the roof one of "
    f"{reached['fused'] / reached['numpy']:.2f}: `fused` reaches {reached['fused']:.0%} of its "
    f"roof, `numpy` {reached['numpy']:.0%}.",
    f"with one thread, `fused` is {times_as_fast(over_numpy)} as `numpy`. Either "
    "BLAS is fast for few columns here, as with a matrix unit, or the cache keeps X for the second "
    "pass, or other processes disturbed the times.",
)

# %% [markdown]
# What keeps each version below its roof?
#
# - `naive`: the interpreter handles objects, not numbers.
# - `numba`: four rows share each load of a weight, but it loads each number of `X` again for every
#   class.
# - `numpy`: BLAS is made for matrices that are large in every direction, and `W` has few columns.
# - `fused` does the same arithmetic as `numba` with fewer loads: a number of `X` or `W` in a
#   register serves several classes or rows.
#
# The limit above a version tells what to try next. Below the slope, read fewer bytes: one pass, or
# smaller numbers. Below the flat part, do the arithmetic in more or wider vectors.

# %% [markdown]
# ## More cores
#
# Other processes may be using the other cores now. So a control takes turns with the loss: sines of
# a few numbers in the cache, a task whose threads share nothing.
#
# **Predict.** All cores share the memory. How many times as fast as one core are they, in the
# control, in reading memory, and in the loss?

# %%
numbers = np.linspace(0, 1, 20_000)


def sines(_: int) -> None:
    """Compute for a few milliseconds, inside the cache."""
    for _ in range(20):
        np.sin(numbers)


if n_cores > 1:
    with ThreadPoolExecutor(n_cores) as pool:
        pairs = take_turns(
            {
                "control, 1": lambda: list(map(sines, range(n_cores))),
                "control, all": lambda: list(pool.map(sines, range(n_cores))),
                "fused, 1": calls["fused, 1 thread"],
                "fused, all": calls[f"fused, {n_cores} threads"],
            },
            seconds=4.0,
        )
    control = Ratio.of(pairs["control, 1"], pairs["control, all"])
    gain = Ratio.of(pairs["fused, 1"], pairs["fused, all"])
    for name, ratio in {"control": control, "loss": gain}.items():
        print(
            f"{name:8} {ratio.value:.2f} times as fast with {n_cores} threads "
            f"({ratio.low:.2f} to {ratio.high:.2f})"
        )
    print(f"memory   {bandwidth[n_cores] / bandwidth[1]:.2f} times as fast")
    # The number of threads changes no bit of the result.
    agree("fused", objective("fused", n_cores)(W), objective("fused", 1)(W), 0.0)

# %% jupyter={"source_hidden": true}
if n_cores == 1:
    say("This process has one core, so there is nothing to compare.")
elif control.value < 0.75 * n_cores:
    say(
        f"The other cores are busy, or share their units: even the control is only "
        f"{control.value:.2f} times as fast on {n_cores}. So this run says nothing about the loss."
    )
else:
    claim(
        gain.low > 1,
        f"{n_cores} cores make the loss {times_as_fast(gain)}, and the control "
        f"{times_as_fast(control)}.",
        f"the loss is {times_as_fast(gain)} on {n_cores} cores, the control "
        f"{times_as_fast(control)}. Memory is read {bandwidth[n_cores] / bandwidth[1]:.2f} times "
        "as fast: if that is near 1, one core takes all of the bandwidth.",
    )


# %% jupyter={"source_hidden": true}
def draw(figure: Any) -> None:
    from fastloss import plots

    ax = figure.subplots()
    colours = colours_of(("naive", "numpy", "numba", "fused"))
    x = np.geomspace(intensity(2) / 2, 4 * max(C, *map(ridge, thread_counts)), 300)
    ends = []
    for threads in thread_counts:
        style = "-" if threads == n_cores else "--"
        ax.plot(x, [roof(value, threads) / 1e9 for value in x], style, color=plots.GREY)
        who = f"{threads} thread{'s' * (threads > 1)}"
        limits = f"{bandwidth[threads] / 1e9:.0f} GB/s,\n{arithmetic[threads] / 1e9:.0f} Gflop/s"
        ends.append((arithmetic[threads] / 1e9, f"{who}: {limits}", plots.GREY))
    labels = {}
    for backend, colour in colours.items():
        family = [name for name in versions if name.startswith(backend)]
        for name in family:
            _, threads, passes = versions[name]
            face = colour if threads == n_cores else plots.PAPER
            place = (intensity(passes), speed[name] / 1e9)
            ax.plot(*place, "o", color=colour, markerfacecolor=face, markersize=8)
        middle = math.exp(np.mean([math.log(speed[name] / 1e9) for name in family]))
        labels[backend] = (place[0], middle)
    below = 0.0
    for backend in sorted(labels, key=lambda name: labels[name][1]):
        at, middle = labels[backend]
        below = max(middle, 1.4 * below)  # the height of a label
        plots.label(ax, backend, (at, below), colours[backend], (9, 0))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(x[0], x[-1])
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100, 200) if x[0] <= tick <= x[-1]]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.tick_params(axis="x", which="minor", labelbottom=False)
    ax.set_xlabel("intensity (operations for each byte of X that is read)")
    ax.set_ylabel("speed (Gflop/s)")
    ax.set_ylim(top=4e-9 * max(arithmetic.values()))
    plots.label_ends(ax, ends, gap=0.09)
    if n_cores > 1:
        plots.footnote(figure, f"Open circles and dashes: one thread; filled: {n_cores} threads.")
    note = f"N = {N}, D = {D}, C = {C}, float32; the lines are what this machine can do at best"
    fused, numpy = (plots.percent(reached[name], 0) for name in ("fused", "numpy"))
    message = f"With one thread, fused reaches {fused} of its roof, NumPy {numpy}"
    plots.title(ax, message, note)


keep_picture(draw, "4-roofline", width=8.4, height=5.6)

# %% [markdown]
# ## Exercises
#
# Write the body of a function and run its cell. `exercises.check` says whether it is right, where
# it is wrong, or that it takes too much time or memory. (In a terminal, take the lesson as a
# notebook first: `fastloss lesson 4 --notebook lesson.ipynb`.) Solutions have the same names
# in `fastloss.lessons.solutions`.

# %%
from fastloss.lessons import exercises

# %% [markdown]
# ### Exercise 1: The ridge in classes
#
# In one pass over float32 the intensity is C. From how many classes on does arithmetic limit
# `fused`, and not memory? How does that depend on the bytes per number (`uint8` pixels have one)?
# Write a function, and compute the number for all threads of this machine.

# %%


def ridge_classes(arithmetic: float, bandwidth: float, itemsize: int) -> float:
    """Return the classes at the ridge, from operations and bytes per second, and bytes a number."""
    raise NotImplementedError


exercises.check(ridge_classes)

ridge_here: float | None = None  # for float32, with arithmetic[n_cores] and bandwidth[n_cores]
exercises.check(ridge_here, "ridge", arithmetic=arithmetic[n_cores], bandwidth=bandwidth[n_cores])

# %% [markdown]
# ### Exercise 2: One pass in NumPy
#
# A block of rows that fits the cache can serve both products before the next block is read. Write
# this with NumPy alone, or with `fastloss.score_gradient` for the slopes of a block. How much of
# the factor between `numpy` and `fused` does it gain?

# %%


def one_pass_numpy(W: Any, X: Any, y: Any) -> tuple[float, Any]:
    """Return the mean softmax loss and its gradient, one block of rows after the other."""
    raise NotImplementedError


exercises.check(one_pass_numpy)

# %% [markdown]
# ### Exercise 3: The best time
#
# What is the shortest time of a problem N x D x C, given the ceilings, the bytes per number and the
# passes? Compare it with your measurement of another shape.

# %%


def shortest_time(
    shape: tuple[int, int, int],
    itemsize: int,
    passes: int,
    *,
    bandwidth: float,
    arithmetic: float,
) -> float:
    """Return seconds for `shape = (N, D, C)`, from bytes and operations per second."""
    raise NotImplementedError


exercises.check(shortest_time)
