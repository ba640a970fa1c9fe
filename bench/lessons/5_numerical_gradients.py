# %% [markdown]
# # Lesson 5: Cost and error of numerical gradients
#
# A gradient without mathematics: move one parameter, see how the loss changes, and repeat for each.
# How does the cost grow from a hundred parameters to a hundred thousand? How exact is the result,
# and which step size is best? Can a trick for linear classifiers compete with the formula?

# %%
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastloss
from fastloss.benchmark.measure import PowerLaw
from fastloss.benchmark.plots import colours_of
from fastloss.benchmark.results import GradientPoint, GradientStudy, Timing
from fastloss.lessons.tools import claim, keep_picture, take_turns
from fastloss.tables import seconds

Floats = NDArray[np.float64]

# %% [markdown]
# ## The definition, executed
#
# The derivative of each entry is `(f(W + h e) - f(W - h e)) / (2 h)`, where `e` is 1 in that entry
# and 0 elsewhere.

# %%


def per_element(f: Callable[[Floats], float], W: Floats, h: float = 1e-5) -> Floats:
    W = W.copy()
    gradient = np.empty_like(W)
    for place in np.ndindex(W.shape):
        w = W[place]
        W[place] = w + h
        above = f(W)
        W[place] = w - h
        below = f(W)
        W[place] = w
        gradient[place] = (above - below) / (2 * h)
    return gradient


def problem(
    n_rows: int, n_features: int, n_classes: int, loss: str = "softmax"
) -> tuple[fastloss.Objective, Floats]:
    data = fastloss.data.synthetic(n_rows, n_features, n_classes, dtype=np.float64)
    W = np.random.default_rng(0).standard_normal((n_features, n_classes)) / math.sqrt(n_features)
    return fastloss.Objective(data.X, data.y, loss=loss, backend="numpy"), W


objective, W = problem(50, 20, 10)
gradient = objective(W)[1]
error = np.abs(per_element(objective.loss, W) - gradient).max() / np.abs(gradient).max()
print(f"{W.size} parameters, largest error {error:.0e}")

# %% jupyter={"source_hidden": true}
claim(
    error < 1e-7,
    "the definition gives the gradient of the formula, to more than seven digits.",
    f"the definition is off by {error:.0e} of the largest entry, where 1e-9 is usual. The loss "
    "that it subtracts was probably not computed in float64.",
)

# %% [markdown]
# ## The cost
#
# The numerical gradient evaluates the loss again for each of the P parameters. The *incremental*
# method uses that `W[d, c]` changes only column c of the scores: it keeps the scores, and updates
# one column for each parameter. The formula takes one pass.
#
# **Predict.** Count the multiplications of each method. If time grows like P to the power k, its
# line in a log-log plot has the slope k. What are the slopes of the three methods? And which is
# faster: the numerical gradient with the fastest backend (`fused`), or the formula with the slowest
# (`naive`, loops in plain Python)? Does that depend on P? (The loss is the cheap hinge, so that the
# method takes most of the time.)

# %%
N, C = 100, 10
COUNTS = (10, 30, 100, 300, 1000, 3000, 10_000)  # features; P is C times as many
FEW_ENTRIES, FEW_ROWS = 5, 20  # for the slow methods; their times are scaled up

NUMERICAL, INCREMENTAL = "numerical, fused", "incremental"
FORMULA, LOOPS = "formula, numpy", "formula, naive"


def contenders(n_features: int) -> dict[str, tuple[Callable[[], Any], float, int]]:
    """Return by name: a call, its fraction of the whole gradient, and the loss evaluations."""
    objective, W = problem(N, n_features, C, "hinge")
    X, y = objective.X, objective.labels

    def on(backend: str, X: Floats) -> fastloss.Objective:
        return fastloss.Objective(X, y[: len(X)], loss="hinge", backend=backend, n_threads=1)

    fused, vectorised, loops = on("fused", X), on("numpy", X), on("naive", X[:FEW_ROWS])
    by_columns = on("numpy", np.asfortranarray(X))  # the incremental method reads single columns
    places = [(d, 0) for d in range(FEW_ENTRIES)]
    column = [(d, 0) for d in range(min(n_features, 1000))]

    def numerical(f: fastloss.Objective, method: Any, where: Any) -> Callable[[], Any]:
        return lambda: fastloss.numerical_gradient(f, W, method=method, coordinates=where)

    return {
        NUMERICAL: (
            numerical(fused, "per_element", places),
            FEW_ENTRIES / W.size,
            2 * W.size,
        ),
        INCREMENTAL: (
            numerical(by_columns, "incremental", column),
            len(column) / W.size,
            2 * W.size,
        ),
        FORMULA: (lambda: vectorised(W), 1.0, 1),
        LOOPS: (lambda: loops(W), FEW_ROWS / N, 1),
    }


study = GradientStudy("hinge", N, C, fit_from=3000)
print(
    f"{'parameters':>12}"
    + "".join(f"{name:>19}" for name in (NUMERICAL, INCREMENTAL, FORMULA, LOOPS))
)
for n_features in COUNTS:
    entries = contenders(n_features)
    times = take_turns({name: call for name, (call, _, _) in entries.items()}, seconds=1.2)
    for name, (_, fraction, evaluations) in entries.items():
        timing = Timing(name, times[name], fraction=fraction)
        study.points.append(GradientPoint(name, n_features * C, timing, evaluations, None))
    row = [seconds(point.timing.summary.median) for point in study.points[-len(entries) :]]
    print(f"{n_features * C:12,}" + "".join(f"{cell:>19}" for cell in row), flush=True)

# %% [markdown]
# The slopes are fitted from 3,000 parameters on, because the fixed cost of a call weighs more in
# smaller problems.

# %%
slopes: dict[str, PowerLaw] = {}
for name in study.methods:
    law = study.slope(name)
    if law is not None:  # None would need fewer than three sizes
        slopes[name] = law
        print(f"{name:18} P to the power {law.slope:.2f} ({law.low:.2f} to {law.high:.2f})")
for below, above, count in study.crossovers():
    print(f"up to {count:,.0f} parameters {below!r} is faster, from there on {above!r}")


def growth(name: str) -> float:
    """Return the exponent of the time relative to the Python loops, in the same turns."""
    points = zip(study.of(name), study.of(LOOPS), strict=True)
    ratios = {
        p.n_parameters: p.timing.summary.median / loops.timing.summary.median
        for p, loops in points
        if p.n_parameters >= study.fit_from
    }
    return PowerLaw.fit(list(ratios), list(ratios.values())).slope


# %% jupyter={"source_hidden": true}
# Use ratios, because the load of the machine changes and slows all methods alike.
growths = {name: growth(name) for name in (NUMERICAL, INCREMENTAL, FORMULA)}
more_than = {name: growths[NUMERICAL] - growths[name] for name in (FORMULA, INCREMENTAL)}
powers = " and ".join(f"{more:.2f} more than {name!r}" for name, more in more_than.items())
claim(
    all(0.6 < more < 1.4 for more in more_than.values()),
    "the numerical gradient grows by about one power of P more than the other two methods: its "
    f"exponent is {powers}.",
    f"the exponent of the numerical gradient is {powers}, where 1 is expected. Other processes may "
    "have disturbed some sizes, or the largest X no longer fits a cache.",
)
largest = {name: study.of(name)[-1].timing.summary.median for name in study.methods}
P_LARGEST = COUNTS[-1] * C
over_formula = largest[NUMERICAL] / largest[FORMULA]
claim(
    over_formula > 1000,
    f"at {P_LARGEST:,} parameters the numerical gradient takes {seconds(largest[NUMERICAL])}, "
    f"{over_formula:,.0f} times as long as the formula.",
    f"at {P_LARGEST:,} parameters the numerical gradient takes {seconds(largest[NUMERICAL])}, only "
    f"{over_formula:,.0f} times as long as the formula. BLAS may be slow here, or was disturbed.",
)
over_loops = largest[NUMERICAL] / largest[LOOPS]
sizes = zip(study.of(NUMERICAL), study.of(LOOPS), strict=True)
wins = [
    f"{fused.n_parameters:,}"
    for fused, loops in sizes
    if fused.timing.summary.median < loops.timing.summary.median
]
where = f"Only at {', '.join(wins)} parameters is it faster." if wins else "It is never faster."
claim(
    over_loops > 5,
    f"there the numerical gradient with the fastest backend takes {over_loops:.0f} times as long "
    f"as the formula in plain Python. {where}",
    f"there the numerical gradient with the fastest backend takes {over_loops:.1f} times as long "
    f"as the formula in plain Python, where more than 5 times is usual. {where} Either this CPU "
    "favours vectors much more than Python, or other processes disturbed the times.",
)
over_incremental = largest[NUMERICAL] / largest[INCREMENTAL]
incremental_over_formula = largest[INCREMENTAL] / largest[FORMULA]
claim(
    over_incremental > 3 and incremental_over_formula > 5,
    f"the incremental method is {over_incremental:.0f} times as fast as that, and still takes "
    f"{incremental_over_formula:,.0f} times as long as the formula.",
    f"the incremental method is {over_incremental:.1f} times as fast as that, and takes "
    f"{incremental_over_formula:.1f} times as long as the formula; more than 3 and 5 times are "
    "usual. Other processes probably disturbed the times of the largest size.",
)

# %% [markdown]
# However large the constant factor between two languages, it loses to a power of P once P is large.
# So gradients are derived by hand, or by a program (automatic differentiation). Numerical gradients
# only check them, on a few parameters.
#
# ## The error
#
# Two errors depend on h in opposite ways. *Truncation*: a difference is not a derivative. The error
# is `h/2 |f''|` for the forward difference `(f(W + h e) - f(W)) / h`, and `h^2/6 |f'''|` for the
# central one. *Rounding*: the two losses agree in most digits, so few digits of their difference
# are correct. The error is about `eps |f| / h`, with eps = 2.2e-16 in float64.
#
# **Predict** the shape of the error against h in a log-log plot. For the forward and the central
# difference: what are the slopes on both sides, and where is the lowest point?

# %%
objective, W = problem(100, 20, 5)
gradient = objective(W)[1]
scale = np.abs(gradient).max()
STEPS = np.logspace(-13, 0, 53)


def error_at(h: float, **how: Any) -> float:
    """Return the root-mean-square error, relative to the largest entry of the gradient."""
    numerical = fastloss.numerical_gradient(objective, W, h=h, **how)
    return float(np.sqrt(np.mean((numerical - gradient) ** 2)) / scale)


FORWARD, CENTRAL = "forward", "central"
curves = {
    FORWARD: np.array([error_at(h, scheme="forward") for h in STEPS]),
    CENTRAL: np.array([error_at(h, scheme="central") for h in STEPS]),
}


def slope(errors: Floats, low: float, high: float) -> float:
    """Return the slope of a curve in a log-log plot, between two steps."""
    inside = (low <= STEPS) & (high >= STEPS)
    return float(np.polyfit(np.log(STEPS[inside]), np.log(errors[inside]), 1)[0])


eps = np.finfo(np.float64).eps
best = {name: float(STEPS[errors.argmin()]) for name, errors in curves.items()}
for name, errors in curves.items():
    print(f"{name:12} best at h = {best[name]:.0e}, with an error of {errors.min():.0e}")
print(f"square root of eps {eps**0.5:.0e}, cube root {eps ** (1 / 3):.0e}")

left = {name: slope(curves[name], 1e-12, 1e-9) for name in curves}
right = {name: slope(curves[name], 1e-3, 1e-1) for name in curves}
for name in curves:
    print(f"{name:12} slope {left[name]:+.2f} on the left, {right[name]:+.2f} on the right")

# %% jupyter={"source_hidden": true}
as_expected = all(
    abs(found - power) < most
    for found, power, most in (
        (left[FORWARD], -1, 0.3),
        (left[CENTRAL], -1, 0.3),
        (right[FORWARD], 1, 0.2),
        (right[CENTRAL], 2, 0.2),
    )
)
claim(
    as_expected,
    "on the left both errors fall like 1/h. On the right the forward error grows like h, the "
    "central one like h^2.",
    "the slopes above are not the expected -1 on the left, and +1 and +2 on the right. The sums "
    "of this BLAS may round in another way than usual.",
)
at_roots = all(
    root / 30 < best[name] < root * 30
    for name, root in {FORWARD: eps**0.5, CENTRAL: eps ** (1 / 3)}.items()
)
exactness = curves[FORWARD].min() / curves[CENTRAL].min()
claim(
    at_roots and exactness > 30,
    f"the best steps are near these roots, and the central difference is {exactness:,.0f} times as "
    "exact as the forward one.",
    f"the best steps are {best[FORWARD]:.0e} and {best[CENTRAL]:.0e}, and the central difference "
    f"is {exactness:.0f} times as exact. This BLAS may round in another way than usual.",
)

# %% [markdown]
# The best h is where the two errors are equal: near the square root of eps for the forward
# difference, near the cube root for the central one. The central difference takes twice as many
# evaluations, but its truncation error is smaller. So the course recommends central differences in
# float64 with `h = 1e-5`.
#
# **Predict.** The incremental method computes the same quotient from the same numbers. Does it have
# the same error?

# %%
curves[INCREMENTAL] = np.array([error_at(h, method="incremental") for h in STEPS])
best[INCREMENTAL] = float(STEPS[curves[INCREMENTAL].argmin()])
at_1e9 = {CENTRAL: error_at(1e-9), INCREMENTAL: error_at(1e-9, method="incremental")}
for name in at_1e9:
    print(f"{name:12} error {at_1e9[name]:.0e} at h = 1e-9, {curves[name].min():.0e} at best")
incremental_gain = at_1e9[CENTRAL] / at_1e9[INCREMENTAL]

# %% jupyter={"source_hidden": true}
claim(
    incremental_gain > 2,
    f"at h = 1e-9, the incremental difference has an error {incremental_gain:.0f} times smaller.",
    f"at h = 1e-9, the incremental difference has an error {incremental_gain:.1f} times smaller, "
    "where more than 2 times is usual. NumPy may add losses in another order here.",
)

# %% [markdown]
# The incremental method subtracts row by row and then adds the differences. Losses that do not
# change cancel exactly. The other differences are rounded in proportion to the loss of one row, not
# to the sum of all rows. The order of the arithmetic is part of the algorithm.


# %% jupyter={"source_hidden": true}
def draw(figure: Any) -> None:
    from fastloss import plots

    cost, accuracy = figure.subplots(1, 2, width_ratios=[1.15, 1])
    of_backends = colours_of(("naive", "numpy", "fused"))
    colours = {
        NUMERICAL: of_backends["fused"],
        INCREMENTAL: plots.PURPLE,
        FORMULA: of_backends["numpy"],
        LOOPS: of_backends["naive"],
        FORWARD: plots.SKY,
        CENTRAL: plots.GREEN,
    }
    ends = []
    for name in study.methods:
        points = study.of(name)
        x = [point.n_parameters for point in points]
        y = [point.timing.summary.median for point in points]
        cost.plot(x, y, "o-", color=colours[name], markersize=4)
        ends.append((y[-1], f"{name}:\nP to the {slopes[name].slope:.1f}", colours[name]))
    cost.set_xlabel("parameters P")
    cost.set_ylabel("time of one full gradient (s)")
    plots.title(cost, "Cost: a power of the parameters P")
    for name, errors in curves.items():
        accuracy.plot(STEPS, errors, color=colours[name])
        accuracy.plot(best[name], errors.min(), "o", color=colours[name])
    for name, offset in {FORWARD: (9, -5), CENTRAL: (9, -3), INCREMENTAL: (-14, -2)}.items():
        text = "central,\nincremental" if name == INCREMENTAL else name
        plots.label(accuracy, text, (best[name], curves[name].min()), colours[name], offset)
    accuracy.set_xlabel("step h")
    accuracy.set_ylabel("error (of the largest entry)")
    plots.title(accuracy, "Error: no step makes it exact")
    for ax in (cost, accuracy):
        ax.set_xscale("log")
        ax.set_yscale("log")
    plots.label_ends(cost, ends, gap=0.11)


keep_picture(draw, "5-numerical-gradients", width=9.6, height=4.8)

# %% [markdown]
# ## Exercises
#
# Write the body of a function and run its cell. `exercises.check` says whether it is right, where
# it is wrong, or that it takes too much time or memory. (In a terminal, take the lesson as a
# notebook first: `fastloss lesson 5 --notebook lesson.ipynb`.) Solutions have the same names
# in `fastloss.lessons.solutions`.

# %%
from fastloss.lessons import exercises

# %% [markdown]
# ### Exercise 1: Without rounding
#
# For a function of complex numbers, `Im f(W + i h e) / h` is the derivative, with truncation `h^2/6
# |f'''|` and *no difference*. Nothing cancels, so h may be 1e-20. Write the softmax loss for a
# complex `W` (mind the maximum), and compute the gradient to the last digit.

# %%


def softmax_of_complex(W: NDArray[Any], X: Floats, y: NDArray[np.int64]) -> complex:
    """Return the mean softmax loss of a real or complex `W`, as a complex number."""
    raise NotImplementedError


exercises.check(softmax_of_complex)


def complex_step_gradient(
    f: Callable[[NDArray[Any]], complex], W: Floats, h: float = 1e-20
) -> Floats:
    """Return `Im f(W + i h e) / h` for every entry; leave `W` as it is."""
    raise NotImplementedError


exercises.check(complex_step_gradient)

# %% [markdown]
# ### Exercise 2: Fourth order
#
# `(8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / (12 h)` has an error of order h^4. Predict its best h and
# its slopes, then add it to the picture.

# %%


def fourth_order_gradient(f: Callable[[Floats], float], W: Floats, h: float = 1e-3) -> Floats:
    """Return the formula's value for every entry; leave `W` as it is."""
    raise NotImplementedError


exercises.check(fourth_order_gradient)

# %% [markdown]
# ### Exercise 3: Count
#
# How many evaluations of the loss does `fastloss.numerical_gradient` make for P parameters, with
# forward and with central differences? Count with a function that counts its own calls. How long
# would the 30,730 parameters of CIFAR-10 take with the default scheme, at 50 ms per evaluation?

# %%


def count_evaluations(n_parameters: int, scheme: Any) -> int:
    """Return the evaluations of a whole gradient; `scheme` is "forward" or "central"."""
    raise NotImplementedError


exercises.check(count_evaluations)

cifar10_seconds: float | None = None
exercises.check(cifar10_seconds, "cifar10_seconds")
