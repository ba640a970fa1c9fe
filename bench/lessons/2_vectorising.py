# %% [markdown]
# # Lesson 2: Time and memory of vectorised code
#
# Three versions of the loss without a Python loop over numbers: row by row, with matrix products,
# and with broadcasting. How much time does each save, and how much memory does each need?
# tracemalloc measures the memory of a call. Can a version save both time and memory?

# %%
import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import fastloss
from fastloss.benchmark.measure import Ratio
from fastloss.lessons.tools import (
    agree,
    claim,
    keep_picture,
    peak_bytes,
    take_turns,
    times_as_fast,
)
from fastloss.tables import seconds, size_of

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
LossAndGrad = Callable[[Floats, Floats, Labels], tuple[float, Floats]]

# %% [markdown]
# ## From loops to products
#
# The loss is softmax: scores `S = X W`, loss `log(sum exp s) - s_y`, slopes `G = p - onehot(y)`,
# gradient `X.T G / N`. `by_rows` loops over rows and handles each with arrays. The other versions
# have no loop.

# %%


def by_rows(W: Floats, X: Floats, y: Labels) -> tuple[float, Floats]:
    """Loop over the rows; use arrays for each row."""
    dW = np.zeros_like(W)
    loss = 0.0
    for x, label in zip(X, y, strict=True):
        scores = x @ W
        scores -= scores.max()
        slopes = np.exp(scores)
        total = slopes.sum()
        loss += math.log(total) - float(scores[label])
        slopes /= total
        slopes[label] -= 1
        dW += np.outer(x, slopes)
    return loss / len(X), dW / np.float32(len(X))


def textbook(W: Floats, X: Floats, y: Labels) -> tuple[float, Floats]:
    """Use matrix products, and a name for every quantity of the formula."""
    rows = np.arange(len(X))
    scores = X @ W
    shifted = scores - scores.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    totals = powers.sum(axis=1)
    losses = np.log(totals) - shifted[rows, y]
    probabilities = powers / totals[:, None]
    onehot = np.zeros_like(scores)
    onehot[rows, y] = 1
    slopes = (probabilities - onehot) / np.float32(len(X))
    return float(losses.mean()), X.T @ slopes


def broadcast(W: Floats, X: Floats, y: Labels) -> tuple[float, Floats]:
    """Use no matrix product: compute all N x D x C terms at once, then their sums."""
    scores = (X[:, :, None] * W).sum(axis=1)
    slopes = scores - scores.max(axis=1, keepdims=True)
    loss = softmax_in_place(slopes, y)
    slopes /= np.float32(len(X))
    return loss / len(X), (X[:, :, None] * slopes[:, None, :]).sum(axis=0)


def softmax_in_place(scores: Floats, y: Labels) -> float:
    """Return the sum of the losses, and turn the scores into slopes."""
    rows = np.arange(len(scores))
    scores -= scores.max(axis=1, keepdims=True)
    correct = scores[rows, y]
    np.exp(scores, out=scores)
    totals = scores.sum(axis=1)
    scores /= totals[:, None]
    scores[rows, y] -= 1
    return float((np.log(totals) - correct).sum(dtype=np.float64))


# %%
one_thread = threadpool_limits(1)  # BLAS would use all cores, the rest of NumPy one
N, D, C = 20_000, 50, 20
data = fastloss.data.synthetic(N, D, C)
X, y = data.X, data.y
W = (np.random.default_rng(0).standard_normal((D, C)) / math.sqrt(D)).astype(np.float32)

expected = fastloss.loss_and_grad(W, X, y, loss="softmax", backend="numpy")
for function in (by_rows, textbook, broadcast):
    agree(function.__name__, function(W, X, y), expected, 1e-5)
print(f"N = {N} rows, D = {D} features, C = {C} classes: three versions, one result")

# %% [markdown]
# **Predict.** `naive` is fastloss's loop in plain Python. By what factor is each other version
# faster? And is `broadcast`, which has no loop either, as fast as `textbook`?

# %%
few = 50  # rows for the slow version; its time is scaled up
naive = fastloss.Objective(X[:few], y[:few], loss="softmax", backend="naive")
times = take_turns(
    {
        "naive": lambda: naive(W),
        "by_rows": lambda: by_rows(W, X, y),
        "broadcast": lambda: broadcast(W, X, y),
        "textbook": lambda: textbook(W, X, y),
    },
    seconds=3.0,
    max_rounds=9,
)
times["naive"] = [t * N / few for t in times["naive"]]
for name, spent in times.items():
    gain = Ratio.of(times["naive"], spent).value
    print(f"{name:10} {seconds(float(np.median(spent))):>8}  {gain:6.0f} times as fast as naive")

# %% jupyter={"source_hidden": true}
over_rows = Ratio.of(times["by_rows"], times["textbook"])
over_broadcast = Ratio.of(times["broadcast"], times["textbook"])
row_gain, whole_gain = (
    Ratio.of(times["naive"], times[name]).value for name in ("by_rows", "textbook")
)
claim(
    row_gain > 3 and over_rows.value > 2 and whole_gain > 30,
    f"arrays for each row make the loop {row_gain:.0f} times as fast, and matrix products are "
    f"another {times_as_fast(over_rows)}: {whole_gain:.0f} times in all.",
    f"arrays for each row make the loop {row_gain:.1f} times as fast, and matrix products are "
    f"{times_as_fast(over_rows)} as `by_rows`, {whole_gain:.0f} times in all; most machines show "
    "more than 3, 2 and 30 times. Either BLAS is slow here, or other processes disturbed the "
    "times.",
)
claim(
    over_broadcast.value > 3,
    f"it is not enough to remove the loops: `textbook` is {times_as_fast(over_broadcast)} as "
    "`broadcast`.",
    f"`textbook` is only {times_as_fast(over_broadcast)} as `broadcast`, where most machines show "
    "more than 3 times. Either BLAS is slow here, or other processes disturbed the times.",
)

# %% [markdown]
# `X @ W` calls BLAS, which keeps numbers in registers and caches while it needs them. `broadcast`
# writes every product to memory and reads it again for the sum.
#
# ## How much memory each version needs
#
# NumPy reports its allocations to tracemalloc. The unit here is one matrix of scores: N x C
# numbers.
#
# **Predict** the peak of each version in this unit. For `textbook`, count the N x C arrays that are
# alive at once: a name keeps its array alive until the function returns.

# %%
unit = N * C * X.itemsize
versions: dict[str, LossAndGrad] = {
    "by_rows": by_rows,
    "broadcast": broadcast,
    "textbook": textbook,
}


def scores_worth(function: LossAndGrad) -> float:
    """Return the peak memory of a call, in matrices of scores."""
    return peak_bytes(lambda: function(W, X, y)) / unit


print(f"one matrix of scores: {size_of(unit)}")
peaks = {name: scores_worth(function) for name, function in versions.items()}
for name, peak in peaks.items():
    print(f"{name:10} {peak:7.2f} matrices of scores")

# %% jupyter={"source_hidden": true}
claim(
    peaks["by_rows"] < 0.3 and 5.5 < peaks["textbook"] < 8 and D < peaks["broadcast"] < 1.3 * D,
    f"a row needs next to nothing, a name for each step {peaks['textbook']:.0f} matrices, and "
    f"broadcasting one matrix for each of the D = {D} features.",
    f"the peaks are not the expected 0, 6 and {D} matrices, but {peaks['by_rows']:.2f}, "
    f"{peaks['textbook']:.2f} and {peaks['broadcast']:.2f}. This version of NumPy may need "
    "other temporary arrays.",
)

# %% [markdown]
# Line by line, each step of `textbook` adds to the memory in use:

# %%
steps: dict[str, Callable[[], NDArray[Any]]] = {
    "scores = X @ W": lambda: X @ W,
    "shifted = scores - max": lambda: kept[0] - kept[0].max(axis=1, keepdims=True),
    "powers = exp(shifted)": lambda: np.exp(kept[1]),
    "totals = powers.sum(axis=1)": lambda: kept[2].sum(axis=1),
    "probabilities = powers / totals": lambda: kept[2] / kept[3][:, None],
    "onehot = zeros_like(scores)": lambda: np.zeros_like(kept[0]),
    "slopes = (probabilities - onehot) / N": lambda: (kept[4] - kept[5]) / np.float32(N),
}
kept: list[NDArray[Any]] = []
tracemalloc.start()
for text, step in steps.items():
    before, _ = tracemalloc.get_traced_memory()
    kept.append(step())
    after, _ = tracemalloc.get_traced_memory()
    print(f"{text:37} +{(after - before) / unit:4.2f}   in use {after / unit:4.2f}")
tracemalloc.stop()
kept.clear()

# %% [markdown]
# Six names keep six matrices; the rest are columns such as `rows` and `losses`. The last line
# computes two matrices, but adds one: no name keeps `probabilities - onehot`, so NumPy overwrites
# it with the quotient. Operators on large arrays do so, but functions such as `np.exp` do not.
#
# ## The same with one matrix, and with blocks
#
# `softmax_in_place` needs no second matrix of scores: `out=` and operators such as `-=` overwrite
# an array. A version in blocks of rows keeps only the scores of one block.
#
# **Predict** the peaks of both versions. Do blocks cost time, because each needs calls of its own?

# %%


def in_place(W: Floats, X: Floats, y: Labels) -> tuple[float, Floats]:
    """Use one matrix of scores for all steps."""
    slopes = X @ W
    loss = softmax_in_place(slopes, y)
    slopes /= np.float32(len(X))
    return loss / len(X), X.T @ slopes


def in_blocks(W: Floats, X: Floats, y: Labels, block_rows: int = 500) -> tuple[float, Floats]:
    """Compute the loss and the gradient a block of rows at a time."""
    dW = np.zeros_like(W)
    loss = 0.0
    for start in range(0, len(X), block_rows):
        block = X[start : start + block_rows]
        slopes = block @ W
        loss += softmax_in_place(slopes, y[start : start + block_rows])
        dW += block.T @ slopes
    return loss / len(X), dW / np.float32(len(X))


for name, function in {"in_place": in_place, "in_blocks": in_blocks}.items():
    agree(name, function(W, X, y), expected, 1e-5)
    peaks[name] = scores_worth(function)
    print(f"{name:10} {peaks[name]:5.2f} matrices of scores")

# %%
again = take_turns(
    {
        "textbook": lambda: textbook(W, X, y),
        "in_place": lambda: in_place(W, X, y),
        "in_blocks": lambda: in_blocks(W, X, y),
    },
)
for name in ("in_place", "in_blocks"):
    print(f"{name:10} {times_as_fast(Ratio.of(again['textbook'], again[name]))} as textbook")

# %% jupyter={"source_hidden": true}
saves_memory = 1.0 < peaks["in_place"] < 2.2 and peaks["in_blocks"] < 0.5
claim(
    saves_memory,
    f"in place, one matrix and a few columns are enough; in blocks, {peaks['in_blocks']:.2f} of "
    "one.",
    f"in place, the peak is {peaks['in_place']:.2f} matrices, and in blocks "
    f"{peaks['in_blocks']:.2f}. This version of NumPy may need other temporary arrays.",
)
# Compare best times: other processes only make times longer.
gains = {name: min(again["textbook"]) / min(again[name]) for name in ("in_place", "in_blocks")}
costs_no_time = min(gains.values()) > 0.8
claim(
    costs_no_time,
    "saving memory costs no time.",
    f"saving memory costs time: at best `in_place` is {gains['in_place']:.2f} times as fast as "
    f"`textbook`, and `in_blocks` {gains['in_blocks']:.2f} times. Blocks pay for more calls, which "
    "may be slow here; or other processes disturbed all of the runs.",
)

# %% [markdown]
# The system must find and clear new memory before it is written, so using less is often faster. `X`
# is still read twice, once for each product: lesson 4 returns to that.
#
# ## Pixels
#
# Pixels come as bytes from 0 to 255. A model wants floats from 0 to 1.
#
# **Predict.** How many bytes does `X / 255` allocate for each byte of `X`?

# %%
pixels = fastloss.data.synthetic(N, D, C, dtype=np.uint8).X
for text, convert in {
    "pixels / 255": lambda: pixels / 255,
    "pixels / np.float32(255)": lambda: pixels / np.float32(255),
    "pixels.astype(np.float32)": lambda: pixels.astype(np.float32),
}.items():
    print(f"{text:26} {peak_bytes(convert) / pixels.nbytes:4.1f} bytes for each of X")

# %% jupyter={"source_hidden": true}
as_float64 = peak_bytes(lambda: pixels / 255) / pixels.nbytes
as_float32 = peak_bytes(lambda: pixels / np.float32(255)) / pixels.nbytes
claim(
    as_float64 > 7.5 and 3.5 < as_float32 < 6,
    "an integer divisor makes a float64 of each byte, a float32 divisor a float32.",
    f"the two divisions allocate {as_float64:.1f} and {as_float32:.1f} bytes for each byte, not 8 "
    "and 4. This version of NumPy may convert types by other rules.",
)

# %% [markdown]
# A data set that fits into memory as bytes may not fit as floats. Scale `W` instead, since `(X /
# 255) W` is `X (W / 255)`, and convert one block at a time.


# %% jupyter={"source_hidden": true}
def draw(figure: Any) -> None:
    from fastloss import plots

    ax = figure.subplots()
    colours = {
        "by_rows": plots.ORANGE,
        "broadcast": plots.VERMILION,
        "textbook": plots.PURPLE,
        "in_place": plots.BLUE,
        "in_blocks": plots.GREEN,
    }
    # Relative to the same turns: the load of the machine may have changed between the two races.
    relative = {
        name: Ratio.of(spent, race["textbook"]).value
        for race in (times, again)
        for name, spent in race.items()
    }
    for name, colour in colours.items():
        place = (peaks[name] * unit / 2**20, relative[name])
        ax.plot(*place, "o", color=colour, markersize=9)
        plots.label(ax, name, place, colour)
    slowest = relative["naive"]
    ax.axhline(slowest, color=plots.GREY, linestyle="--")
    plots.label(ax, "naive", (peaks["in_place"] * unit / 2**20, slowest), plots.GREY)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.margins(0.25)
    ax.set_xlabel("memory that one call asks for (MiB)")
    ax.set_ylabel("time of one call, textbook = 1")
    expected_outcome = over_rows.value > 2 and saves_memory and costs_no_time
    message = (
        "Products save the time, blocks save the memory"
        if expected_outcome
        else "Time and memory of each version"
    )
    plots.title(ax, message, f"N = {N}, D = {D}, C = {C}, float32")


keep_picture(draw, "2-vectorising", width=8.0, height=4.8)

# %% [markdown]
# ## Exercises
#
# Write the body of a function and run its cell. `exercises.check` says whether it is right, where
# it is wrong, or that it takes too much time or memory. (In a terminal, take the lesson as a
# notebook first: `fastloss lesson 2 --notebook lesson.ipynb`.) Solutions have the same names
# in `fastloss.lessons.solutions`.

# %%
from fastloss.lessons import exercises

# %% [markdown]
# ### Exercise 1: The hinge in one matrix
#
# The multiclass SVM loss of a row is the sum over the wrong classes j of `max(0, s_j - s_y + 1)`.
# Write its mean and its gradient so that the peak stays under two matrices of scores.

# %%


def hinge_in_place(W: Floats, X: Floats, y: Labels) -> tuple[float, Floats]:
    """Return the mean hinge loss and its gradient, of the shape of `W`."""
    raise NotImplementedError


exercises.check(hinge_in_place)

# %% [markdown]
# ### Exercise 2: Bytes to gradients
#
# `pixels` is `uint8`, but the model needs `pixels / 255`. Write the softmax loss and gradient with
# a peak under one byte for each byte of `pixels`, for any N.

# %%


def softmax_of_bytes(W: Floats, pixels: NDArray[np.uint8], y: Labels) -> tuple[float, Floats]:
    """Return the mean softmax loss on `pixels / 255`, and its gradient."""
    raise NotImplementedError


exercises.check(softmax_of_bytes)

# %% [markdown]
# ### Exercise 3: Which temporaries live?
#
# `np.exp(S - S.max()) / np.exp(S - S.max()).sum()` computes several matrices without names. Predict
# its peak in matrices of scores, then measure it. When does an array without a name die?

# %%


def peak_of_one_expression(scores: Floats) -> float:
    """Return the peak of the expression, in matrices like `scores`: use `peak_bytes`."""
    raise NotImplementedError


exercises.check(peak_of_one_expression)
