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
from fastloss.lessons.tools import keep_picture, take_turns
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
N, D, C = 8192, 3072, 10
data = fastloss.data.synthetic(N, D, C)
X, y = data.X, data.y
W = (np.random.default_rng(0).standard_normal((D, C)) / math.sqrt(D)).astype(np.float32)
n_cores = available_threads()
thread_counts = sorted({1, n_cores})

workers = {threads: Worker(threads) for threads in thread_counts}
bandwidth = dict.fromkeys(thread_counts, 0.0)
arithmetic = dict.fromkeys(thread_counts, 0.0)


def raise_ceilings() -> None:
    """Measure both ceilings; keep the highest. All threads can do at least as much as one."""
    for ceiling, task in (
        (bandwidth, BandwidthTask(X.nbytes, seconds=0.4)),
        (arithmetic, ArithmeticTask("float32", seconds=0.4)),
    ):
        for threads, worker in workers.items():
            ceiling[threads] = max(worker.run(task), ceiling[threads], ceiling[1])


raise_ceilings()
for threads in thread_counts:
    print(
        f"{threads} thread{'s' * (threads > 1)}: reads {bandwidth[threads] / 1e9:.1f} GB/s, "
        f"computes {arithmetic[threads] / 1e9:.0f} Gflop/s"
    )

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
# **Predict.** With float32 and one pass over `X`, the intensity is `4 N D C / (4 N D) = C`. NumPy
# reads `X` twice, once for `X @ W` and once for `X.T @ slopes`. On which side of the ridge does
# each of them lie?

# %%
operations = 4.0 * N * D * C


def intensity(passes: int) -> float:
    """Return the operations for each byte of ``X`` that is read."""
    return operations / (passes * X.nbytes)


def roof(operations_a_byte: float, threads: int) -> float:
    """Return the most operations per second."""
    return min(operations_a_byte * bandwidth[threads], arithmetic[threads])


ridge = {threads: arithmetic[threads] / bandwidth[threads] for threads in thread_counts}
print(
    f"X is {size_of(X.nbytes)}; one pass {intensity(1):.0f} operations a byte, "
    f"two passes {intensity(2):.0f}"
)
for threads in thread_counts:
    print(
        f"ridge with {threads}: {ridge[threads]:.1f}; at best "
        f"{seconds(operations / roof(intensity(1), threads))} in one pass, "
        f"{seconds(operations / roof(intensity(2), threads))} in two"
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
#   that stay in registers. `fastloss/kernels/narrow.py` is worth reading.
#
# This is all of `numba` except the loops over a few rows, which are in `fastloss/losses/rows.py`:

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

expected_loss, expected_dW = versions["numpy, 1 thread"][0](W)
for name, (call, _, _) in versions.items():
    if name != "naive":
        loss, dW = call(W)
        np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
        np.testing.assert_allclose(dW, expected_dW, atol=1e-4 * np.abs(expected_dW).max())

# %% [markdown]
# **Predict** the order of the versions and the factors between neighbours. Which ones can gain from
# a second core?

# %%
calls = {name: (lambda call=call: call(W)) for name, (call, _, _) in versions.items()}
times = take_turns(calls, seconds=6.0)
times["naive"] = [t * N / FEW for t in times["naive"]]
# Measure again: other processes may have slowed the first measurement.
raise_ceilings()
for worker in workers.values():
    worker.close()

speed = {name: operations / float(np.median(spent)) for name, spent in times.items()}
best_possible = {
    name: roof(intensity(passes), threads) for name, (_, threads, passes) in versions.items()
}
for name in versions:
    print(
        f"{name:17} {seconds(operations / speed[name]):>8}  {speed[name] / 1e9:8.3f} Gflop/s  "
        f"{speed[name] / best_possible[name]:6.1%} of its roof"
    )

for name in versions:  # a version above its roof would show a wrong measurement or count
    assert speed[name] < 1.5 * best_possible[name], name
assert speed["naive"] < best_possible["naive"] / 50
assert Ratio.of(times["naive"], times["numba, 1 thread"]).value > 10
assert Ratio.of(times["numba, 1 thread"], times["fused, 1 thread"]).value > 1.2

# %% [markdown]
# `naive` is far below its roof: the interpreter limits it, not memory or arithmetic. `numba` is
# nearer. Four rows share each load of a weight, but it loads each number of `X` again for every
# class. `numpy` has a lower roof, because it reads `X` twice, and does not reach it: BLAS is made
# for matrices that are large in every direction, and `W` has ten columns. `fused` does the same
# arithmetic as `numba` with fewer loads: a number of `X` or `W` in a register serves several
# classes or rows.

# %%
one_pass = Ratio.of(times["numpy, 1 thread"], times["fused, 1 thread"])
print(f"one pass against two, one thread each: {one_pass.value:.2f} times as fast")
assert one_pass.high > 1.2

# %% [markdown]
# ## A second core
#
# **Predict.** Two cores share the memory. Are they twice as fast as one?
#
# Other processes may be using the second core now. So a control takes turns with the loss: sines of
# a few numbers in the cache, a task whose threads share nothing.

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
    print(f"memory is read {bandwidth[n_cores] / bandwidth[1]:.2f} times as fast")
    if control.low > 1.5:
        assert gain.high > 1.1
    else:
        print("The other cores are busy: this measurement says nothing about threads.")

    # The number of threads changes no bit of the result.
    one, all_cores = objective("fused", 1)(W), objective("fused", n_cores)(W)
    assert one[0] == all_cores[0]
    np.testing.assert_array_equal(one[1], all_cores[1])


# %%
def draw(figure: Any) -> None:
    from fastloss import plots

    ax = figure.subplots()
    colours = colours_of(("naive", "numpy", "numba", "fused"))
    x, ends = np.geomspace(2, 50, 200), []
    for threads in thread_counts:
        style = "-" if threads == n_cores else "--"
        ax.plot(x, [roof(value, threads) / 1e9 for value in x], style, color=plots.GREY)
        who = f"{threads} thread{'s' * (threads > 1)}"
        limits = f"{bandwidth[threads] / 1e9:.0f} GB/s,\n{arithmetic[threads] / 1e9:.0f} Gflop/s"
        ends.append((arithmetic[threads] / 1e9, f"{who}: {limits}", plots.GREY))
    for name, (_, threads, passes) in versions.items():
        place = (intensity(passes), speed[name] / 1e9)
        colour = colours[name[:5]]
        face = colour if threads == n_cores or n_cores == 1 else plots.PAPER
        ax.plot(*place, "o", color=colour, markerfacecolor=face, markersize=8)
        # Points of one backend are close: the label of the faster one moves up.
        family = [speed[other] for other in versions if other[:5] == name[:5]]
        up = 0 if len(family) == 1 else 7 if speed[name] == max(family) else -7
        plots.label(ax, name, place, colour, (9, up))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(x[0], x[-1])
    ax.set_xticks([2, 5, 10, 20, 50], ["2", "5", "10", "20", "50"])
    ax.tick_params(axis="x", which="minor", labelbottom=False)
    ax.set_xlabel("intensity (operations for each byte of X that is read)")
    ax.set_ylabel("speed (Gflop/s)")
    plots.label_ends(ax, ends, gap=0.09)
    note = f"N = {N}, D = {D}, C = {C}, float32; the lines are what this machine can do at best"
    plots.title(ax, "One pass over X moves a version to the right, under a higher roof", note)


keep_picture(draw, "4-roofline", width=8.4, height=5.6)

# %% [markdown]
# ## Exercises
#
# Write the body of a function and run its cell. `exercises.check` says whether it is right, where
# it is wrong, or that it takes too much time or memory. Solutions have the same names in
# `fastloss.lessons.solutions`.

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
# the factor between two passes and one does it gain?

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
