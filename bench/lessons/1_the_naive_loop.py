# %% [markdown]
# # Lesson 1: Where does a loop spend its time?
#
# A softmax classifier in plain Python runs under two profilers: cProfile, which times calls, and
# line_profiler, which times lines. Which part takes the time: the arithmetic, the exponentials, or
# the bookkeeping around them?
#
# A profiler answers one question: *which part must I make faster?* Write down your guess each time
# before you measure; it is often wrong.

# %%
import cProfile
import inspect
import math
import pstats
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastloss
from fastloss.benchmark.measure import Ratio
from fastloss.lessons.tools import agree, claim, keep_picture, take_turns
from fastloss.threads import blas_threads

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

# %% [markdown]
# ## The loop
#
# `X (N, D)` holds a row of features for each example, `W (D, C)` a column of weights for each
# class, and `y (N,)` the labels. A row has scores `s = x W`, the loss `log(sum exp s) - s_y` and
# slopes `p - onehot(y)`. The outer product of `x` and the slopes is the row's part of the gradient.
# This function computes one number at a time:

# %%


def naive(W: Floats, X: Floats, y: Labels) -> tuple[float, Floats]:
    n_rows, n_features = X.shape
    n_classes = W.shape[1]
    dW = np.zeros_like(W)
    loss = 0.0
    for i in range(n_rows):
        scores = [0.0] * n_classes
        for c in range(n_classes):
            for d in range(n_features):
                scores[c] += X[i, d] * W[d, c]
        top = max(scores)
        powers = [math.exp(s - top) for s in scores]
        total = sum(powers)
        loss += math.log(total) - (scores[y[i]] - top)
        for c in range(n_classes):
            slope = (powers[c] / total - (c == y[i])) / n_rows
            for d in range(n_features):
                dW[d, c] += X[i, d] * slope
    return loss / n_rows, dW


# %% [markdown]
# A fast version needs a correct one to compare with, so compare this one with fastloss first.

# %%
N, D, C = 40, 200, 10
data = fastloss.data.synthetic(N, D, C, dtype=np.float64)
X, y = data.X, data.y
W = np.random.default_rng(0).standard_normal((D, C)) / math.sqrt(D)

expected = fastloss.loss_and_grad(W, X, y, loss="softmax", backend="numpy")
agree("naive", naive(W, X, y), expected, 1e-12)
print(f"N = {N} rows, D = {D} features, C = {C} classes: loss {expected[0]:.4f}, as in fastloss")

# %% [markdown]
# **Predict.** Each row takes C exponentials, a logarithm, and 2 D C multiplications, each with an
# addition. An exponential costs about as much as ten additions. What share of the time do the lines
# with `exp` and `log` take? And can cProfile tell?

# %%
profile = cProfile.Profile()
profile.runcall(naive, W, X, y)
pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(5)


def own_share(profile: cProfile.Profile, *names: str) -> float:
    """Return the share of the time spent in functions of these names, without their callees."""
    entries = profile.getstats()
    own = [e.inlinetime for e in entries if getattr(e.code, "co_name", "") in names]
    return sum(own) / sum(e.inlinetime for e in entries)


naive_share = own_share(profile, "naive")

# %% jupyter={"source_hidden": true}
claim(
    naive_share > 0.7,
    f"{naive_share:.1%} of the time is in `naive` itself, outside of `exp`, `log`, `max` and "
    "`sum`.",
    f"only {naive_share:.0%} of the time is in `naive` itself. The functions that it calls may "
    "weigh more in this Python than in most.",
)

# %% [markdown]
# cProfile sees calls, and `X[i, d]` is not a call to it. It gives `exp`, `max` and `sum` a time
# each, but it cannot divide the rest of `naive`. To learn more, give the pieces names, or use a
# profiler that sees lines.
#
# ## Pieces with names
#
# **Predict.** The same loop is cut into functions. Which function takes the most time?

# %%


def dot(W: Floats, x: Floats, c: int) -> float:
    total = 0.0
    for d in range(len(x)):
        total += x[d] * W[d, c]
    return total


def softmax(scores: list[float], label: int) -> tuple[float, list[float]]:
    top = max(scores)
    powers = [math.exp(s - top) for s in scores]
    total = sum(powers)
    slopes = [power / total for power in powers]
    slopes[label] -= 1.0
    return math.log(total) - (scores[label] - top), slopes


def add_multiple(dW: Floats, x: Floats, c: int, slope: float) -> None:
    for d in range(len(x)):
        dW[d, c] += x[d] * slope


def in_pieces(W: Floats, X: Floats, y: Labels) -> tuple[float, Floats]:
    dW = np.zeros_like(W)
    loss = 0.0
    for x, label in zip(X, y, strict=True):
        row_loss, slopes = softmax([dot(W, x, c) for c in range(W.shape[1])], int(label))
        loss += row_loss
        for c, slope in enumerate(slopes):
            add_multiple(dW, x, c, slope / len(X))
    return loss / len(X), dW


agree("in_pieces", in_pieces(W, X, y), expected, 1e-12)
profile = cProfile.Profile()
profile.runcall(in_pieces, W, X, y)
pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(6)
products_share = own_share(profile, "dot", "add_multiple")

# %% jupyter={"source_hidden": true}
claim(
    products_share > 0.8,
    f"the two products, `dot` and `add_multiple`, take {products_share:.0%} of the time.",
    f"the two products, `dot` and `add_multiple`, take only {products_share:.0%} of the time. "
    "Another process may have interrupted the short run.",
)

# %% [markdown]
# ## What a profiler costs
#
# Does measuring change what is measured? Time two functions with a clock, alone and under cProfile.
#
# **Predict.** `dot_by_calls` calls `multiply_add` for each inner step. By what factor does
# profiling slow it down? And by what factor `dot`, which makes no calls in its loop?

# %%


def multiply_add(total: float, a: float, b: float) -> float:
    return total + a * b


def dot_by_calls(W: Floats, x: Floats, c: int) -> float:
    total = 0.0
    for d in range(len(x)):
        total = multiply_add(total, x[d], W[d, c])
    return total


def profiled(function: Any) -> Any:
    return lambda *arguments: cProfile.Profile().runcall(function, *arguments)


x, column = X.ravel(), np.resize(W, (X.size, 1))  # long: the outer call's time is negligible
times = take_turns(
    {
        "dot": lambda: dot(column, x, 0),
        "dot, profiled": lambda: profiled(dot)(column, x, 0),
        "calls": lambda: dot_by_calls(column, x, 0),
        "calls, profiled": lambda: profiled(dot_by_calls)(column, x, 0),
    },
)
slowdown = {name: Ratio.of(times[f"{name}, profiled"], times[name]) for name in ("dot", "calls")}
for name, ratio in slowdown.items():
    print(f"{name:6} {ratio.value:.2f} times as long under cProfile")

# %% jupyter={"source_hidden": true}
small_calls, loop = slowdown["calls"].value, slowdown["dot"].value
claim(
    small_calls > 1.15 * loop,
    f"cProfile slows down a loop of small calls more ({small_calls:.2f} times as long) than a loop "
    f"without calls ({loop:.2f} times).",
    f"cProfile slows down both loops alike, {small_calls:.2f} and {loop:.2f} times. Either this "
    "Python profiles cheaply, or other processes disturbed the times.",
)

# %% [markdown]
# cProfile adds its own time to every call, so a small function can look slower than it is. Read a
# profile for the *order* of the parts, and a clock for the time of the whole.
#
# ## Line by line
#
# line_profiler counts and times each line of the functions you choose. (It adds time to every line,
# so short lines look a little longer than they are.)

# %%
from line_profiler import LineProfiler

profiler = LineProfiler(naive)
profiler.runcall(naive, W, X, y)
((_, hits_and_ticks),) = profiler.get_stats().timings.items()

source, first_line = inspect.getsourcelines(naive)
ticks = {line - first_line: spent for line, _, spent in hits_and_ticks}
hits = {line - first_line: count for line, count, _ in hits_and_ticks}
total_ticks = sum(ticks.values())
shares = [ticks.get(k, 0) / total_ticks for k in range(len(source))]

print(f"{'runs':>8} {'share':>6}")
for k, text in enumerate(source):
    columns = f"{hits[k]:8} {shares[k]:6.1%}" if k in hits else " " * 15
    print(f"{columns}  {text.rstrip()}")

# %%


def share_of(*fragments: str) -> float:
    """Return the share of the time in lines that contain any of the fragments."""
    chosen = [any(f in text for f in fragments) for text in source]
    return sum(share for share, take in zip(shares, chosen, strict=True) if take)


inner = share_of("for d in", "scores[c] +=", "dW[d, c] +=")
transcendental = share_of("math.exp", "math.log")
print(f"the two inner loops: {inner:.1%};  exp and log: {transcendental:.1%}")

# %% jupyter={"source_hidden": true}
claim(
    inner > 0.9 and transcendental < 0.05,
    "the two inner loops take nearly all the time, and the lines with `exp` and `log` nearly none.",
    f"the two inner loops take {inner:.0%} of the time, and `exp` and `log` {transcendental:.1%}, "
    "where other machines show more than 90% and less than 5%. Another process may have "
    "interrupted one of the lines.",
)

# %% [markdown]
# ## What the profile is worth
#
# Amdahl's law: if a part with share `p` of the time becomes `k` times as fast, the whole becomes `1
# / (1 - p + p / k)` times as fast.
#
# **Predict.** How much faster would the loop be if `exp` and `log` took no time? And if the two
# inner loops took none?

# %%


def amdahl(share: float, factor: float) -> float:
    return 1 / (1 - share + share / factor)


print(f"without exp and log: {amdahl(transcendental, math.inf):.2f} times as fast")
print(f"without the inner loops: {amdahl(inner, math.inf):.0f} times as fast")

# %% [markdown]
# Near a share of 1 the law is sensitive: with 98 % instead of 96 %, the second factor doubles. So
# read only its order of magnitude.
#
# How much faster can the inner loops become? Compare the time of a multiply-add in the loop with
# its time in a matrix product, which does the same arithmetic on one core.
#
# **Predict** the ratio: a hundred, a thousand, or ten thousand?

# %%
with blas_threads(1):
    times = take_turns(
        {"naive": lambda: naive(W, X, y), "X @ W": lambda: X @ W}, seconds=1.0, max_rounds=6
    )
# The shortest time of each: other processes only make calls longer.
naive_step = min(times["naive"]) / (2 * N * D * C)
product_step = min(times["X @ W"]) / (N * D * C)
print(f"a multiply-add of the loop {naive_step * 1e9:.0f} ns, of X @ W {product_step * 1e9:.2f} ns")

# %% jupyter={"source_hidden": true}
claim(
    naive_step > 30 * product_step,
    f"the loop takes {naive_step / product_step:,.0f} times as long as the same arithmetic in "
    "BLAS.",
    f"the loop takes only {naive_step / product_step:,.0f} times as long as the same arithmetic "
    "in BLAS. Either NumPy has a slow BLAS here (`fastloss doctor` names it), or others use this "
    "core.",
)

# %% [markdown]
# For every number, Python checks that `X` is an array and that `i` and `d` are integers in its
# range, and makes an object of the result. The lines in the two inner loops are two matrix products
# written out: `X @ W` and `X.T @ slopes`. Lesson 2 uses matrix products.


# %% jupyter={"source_hidden": true}
def draw(figure: Any) -> None:
    from fastloss import plots

    code, bars = figure.subplots(1, 2, sharey=True, width_ratios=[1.35, 1])
    shown = [k for k in range(len(source)) if k in ticks]
    for row, k in enumerate(shown):
        share = 100 * shares[k]
        is_suspect = "math." in source[k]
        colour = plots.VERMILION if share >= 2 else plots.BLUE if is_suspect else plots.INK
        text = source[k].rstrip()[4:]
        code.text(0, row, text, family="monospace", fontsize=9, va="center", color=colour)
        bars.barh(row, share, color=colour)
        if share >= 2 or is_suspect:
            plots.label(bars, f"{share:.2g} %", (share, row), colour, (5, 0))
    code.set_axis_off()
    bars.set_ylim(len(shown) - 0.5, -0.5)
    bars.set_xlim(0, 125 * max(shares))
    bars.tick_params(left=False, labelleft=False)
    bars.grid(axis="y", visible=False)
    bars.set_xlabel("share of the time (%)")
    plots.heading(
        figure,
        f"The naive loop: {plots.percent(inner, 0)} of the time in the two inner loops, "
        f"{plots.percent(transcendental)} in exp and log",
    )


keep_picture(draw, "1-naive-loop", width=8.4, height=5.2)

# %% [markdown]
# ## Exercises
#
# Write the body of a function and run its cell. `exercises.check` says whether it is right, where
# it is wrong, or that it takes too much time or memory. (In a terminal, take the lesson as a
# notebook first: `fastloss lesson 1 --notebook lesson.ipynb`.) Solutions have the same names
# in `fastloss.lessons.solutions`.

# %%
from fastloss.lessons import exercises

# %% [markdown]
# ### Exercise 1: Count before you time
#
# How often does the line `scores[c] += ...` run for N rows, D features and C classes, and how often
# `math.exp`? Compare your counts with the hits of line_profiler at two shapes. The line of
# `math.exp` is hit once per row and calls it C times. Which of N, D and C changes the share of
# `exp`?

# %%


def line_hits(n_rows: int, n_features: int, n_classes: int) -> tuple[int, int]:
    """Return how often `scores[c] += ...` runs, and how often `math.exp`."""
    raise NotImplementedError


exercises.check(line_hits)

exp_share: str | None = None  # "N", "D" or "C"
exercises.check(exp_share, "exp_share")

# %% [markdown]
# ### Exercise 2: Lists instead of arrays
#
# Indexing a NumPy array makes a new object for every number; a list already holds objects. Turn the
# rows of `X` and the columns of `W` into lists before the inner loops, and keep the gradient in
# lists until the end. How much faster is it than `naive`?

# %%


def naive_on_lists(W: Floats, X: Floats, y: Labels) -> tuple[float, Floats]:
    """Return the softmax loss and its gradient, as `naive` does."""
    raise NotImplementedError


exercises.check(naive_on_lists)

# %% [markdown]
# ### Exercise 3: Amdahl backwards
#
# The whole became `whole` times as fast when a part became `part` times as fast. What share of the
# time did the part take? Check your formula with `amdahl`.

# %%


def share_from_speedup(whole: float, part: float) -> float:
    """Return the share of the time, from 0 to 1, that the part took before."""
    raise NotImplementedError


exercises.check(share_from_speedup)
