# %% [markdown]
# # Lesson 6: When can you trust a gradient check?
#
# Training with a wrong gradient does not crash; it only gives a worse model. So gradients are
# checked against numerical ones. But can you trust the check? When does it call a correct gradient
# wrong, when does it miss an error, and which of six planted bugs does it find?

# %%
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastloss
from fastloss.lessons.tools import claim, keep_picture

Floats = NDArray[np.float64]


def relative_error(a: float, n: float) -> float:
    """Return the course's measure |a - n| / max(|a|, |n|), or 0 if both are equal."""
    return 0.0 if a == n else abs(a - n) / max(abs(a), abs(n))


def verdict(report: fastloss.GradientCheck) -> str:
    return "passed" if report.passed else "FAILED"


# %% [markdown]
# ## A margin of exactly 0
#
# The hinge loss of a row is `sum over j != y of max(0, s_j - s_y + 1)`. Take one row, one feature
# and two classes: `x = 1`, `y = 0`, `W = [[1, 0]]`. The margin of class 1 is `0 - 1 + 1 = 0`,
# exactly. For a smaller `W[0, 1]` the loss is 0; for a larger one it has the slope 1.
#
# **Predict** the slope with respect to `W[0, 1]`. What does fastloss return, what is the central
# difference, and what is their relative error?

# %%
corner = fastloss.Objective([[1.0]], [0], loss="hinge")
W = np.array([[1.0, 0.0]])
analytic = float(corner(W)[1][0, 1])
central = float(fastloss.numerical_gradient(corner, W, coordinates=[(0, 1)])[0])
forward = float(fastloss.numerical_gradient(corner, W, coordinates=[(0, 1)], scheme="forward")[0])
print(
    f"analytic {analytic:g}, central {central:g}, forward {forward:g}; "
    f"relative error {relative_error(analytic, central):g}"
)

# %% jupyter={"source_hidden": true}
claim(
    analytic == 0.0
    and abs(central - 0.5) + abs(forward - 1.0) < 1e-6
    and relative_error(analytic, central) == 1.0,
    "three numbers for one slope, 0, 0.5 and 1. The relative error of the first two is 100%.",
    "the slopes should be 0, 0.5 and 1. Is W[0, 1] still exactly 0?",
)

# %% [markdown]
# All three are right. At a corner there is no derivative, but a range of *subgradients*, here from
# 0 to 1, and a method may return any of them. A check that compares two numbers reports an error of
# 100 %. A smaller h does not help, because the corner is at `W` itself. So the check must recognise
# kinks: fastloss's check asks the loss on which piece each probe lies. At a kink it does not
# *judge* the error: the gradient only has to lie between the slopes on both sides.

# %%
report = fastloss.check_gradient(corner, W, n_directions=0)  # a later section adds directions
print(verdict(report), {status: count for status, count in report.counts.items() if count})

# %% jupyter={"source_hidden": true}
claim(
    report.passed and report.counts["kink"] > 0,
    "the check meets the kink and does not call it an error.",
    "the check should pass and count a kink. Is W[0, 1] still exactly 0?",
)

# %% [markdown]
# A margin of exactly 0 is not rare. It occurs often if features and weights are integers, such as
# counts and rounded weights.
#
# **Predict.** Take 8 rows with features and weights from -1, 0, 1. How many of the 30 entries of a
# correct gradient does the plain comparison call wrong (error above 1e-2)?

# %%
rng = np.random.default_rng(0)
X_whole = rng.integers(-1, 2, (8, 6)).astype(np.float64)
y_whole = rng.integers(0, 5, 8)
W_whole = rng.integers(-1, 2, (6, 5)).astype(np.float64)
whole = fastloss.Objective(X_whole, y_whole, loss="hinge")
analytic_whole = whole(W_whole)[1].ravel().tolist()
central_whole = fastloss.numerical_gradient(whole, W_whole).ravel().tolist()
errors_whole = map(relative_error, analytic_whole, central_whole)
called_wrong = sum(error > 1e-2 for error in errors_whole)
report = fastloss.check_gradient(whole, W_whole, n_directions=0)
print(
    f"plain comparison: {called_wrong} of {W_whole.size} wrong; "
    f"fastloss: {verdict(report)}, {report.n_kinks} met a kink"
)
print(report)

# %% jupyter={"source_hidden": true}
claim(
    called_wrong > W_whole.size // 3 and report.passed and report.n_kinks > 0,
    f"of a correct gradient, the plain comparison calls {called_wrong} of {W_whole.size} entries "
    "wrong, and the check that knows kinks none.",
    f"the plain comparison should call a third of the entries wrong, not {called_wrong}, and the "
    "check should pass. This version of NumPy may draw other random numbers.",
)

# %% [markdown]
# ## float32
#
# A float32 has 7 digits. The loss is about 1, and a change of a parameter by 1e-5 changes the sixth
# digit of the loss or none. Like many functions, this softmax loss converts its inputs to its own
# type.
#
# **Predict.** For h = 1e-5, what is the error of the numerical gradient in each type? Is there an h
# at which float32 is good (below 1e-7)?

# %%
data = fastloss.data.synthetic(100, 10, 5, dtype=np.float64)
X, y = data.X, data.y
W = rng.standard_normal((10, 5)) / 3
objective = fastloss.Objective(X, y, loss="softmax")
gradient = objective(W)[1]
STEPS = np.logspace(-12, 0, 49)


def softmax(W: Floats, dtype: Any) -> tuple[float, Any]:
    """Compute loss and gradient in ``dtype``, whatever the type of ``W``."""
    inputs = X.astype(dtype)
    losses, slopes = fastloss.score_gradient(inputs @ W.astype(dtype), y, loss="softmax")
    return float(losses.mean()), inputs.T @ slopes / dtype(len(X))


def error_at(h: float, dtype: Any) -> float:
    """Return the largest error of the numerical gradient, relative to the largest entry."""
    numerical = fastloss.numerical_gradient(partial(softmax, dtype=dtype), W, h=h)
    return float(np.abs(numerical - gradient).max() / np.abs(gradient).max())


errors = {t.__name__: [error_at(h, t) for h in STEPS] for t in (np.float64, np.float32)}
usual = {t.__name__: error_at(1e-5, t) for t in (np.float64, np.float32)}
own = np.abs(softmax(W, np.float32)[1] - gradient).max() / np.abs(gradient).max()
for name, curve in errors.items():
    print(f"{name}: error {usual[name]:.0e} at h = 1e-5, {min(curve):.0e} at best")
print(f"the formula's gradient in float32: error {own:.0e}")

# %% jupyter={"source_hidden": true}
claim(
    usual["float64"] < 1e-7 and usual["float32"] > 1e-4 and min(errors["float32"]) > 1e-7,
    "in float32 no step makes the numerical gradient good.",
    f"in float32 the error should exceed 1e-4 at h = 1e-5, and 1e-7 everywhere; it is "
    f"{usual['float32']:.0e} and {min(errors['float32']):.0e}. This BLAS may add in a wider type.",
)
claim(
    own < 1e-5,
    f"the formula's gradient in float32 is correct to {-np.log10(own):.0f} digits.",
    f"the formula's gradient in float32 is off by {own:.0e}, where 1e-7 is usual. This BLAS may "
    "round more than others, for example to bfloat16.",
)

# %% [markdown]
# In float32, it is the *difference* of two losses that has few correct digits. So train in float32
# and check in float64. `check_gradient` casts an `Objective` to float64 itself. It cannot cast a
# function that always computes in float32, but its report says so:

# %%
inside = fastloss.check_gradient(partial(softmax, dtype=np.float32), W)
cast = fastloss.check_gradient(objective.astype(np.float32), W)
print(f"a function with float32 inside: {verdict(inside)}; {inside.notes[-1]}")
print(f"an Objective in float32, cast: {verdict(cast)}, error {cast.max_relative_error:.0e}")

# %% jupyter={"source_hidden": true}
claim(
    not inside.passed and "float32" in inside.notes[-1] and cast.passed,
    "the check refuses losses computed in float32, says why, and passes the same loss in float64.",
    "the check should fail for the function, name float32, and pass for the Objective. Were "
    "losses computed in another type than the cell says?",
)

# %% [markdown]
# ## Planted bugs
#
# The hinge with an L2 penalty in NumPy: correct, and with one common bug at a time.
#
# **Predict.** Which bugs show in the loss, after 100 steps of gradient descent? Which ones does the
# check find, and where?

# %%
L2 = 0.1
BUGS = {
    "none": "",
    "no 1/N": "the gradient is a sum, the loss a mean",
    "half the penalty": "l2 * W, but the loss has l2 * W**2",
    "sign": "descent goes uphill",
    "own class forgotten": "only the slopes of the wrong classes",
    "margin >= -1": "counts rows that are already right",
    "one entry": "an index off by one at the border",
}
BORDER = (9, 4)


def hinge(W: Floats, bug: str = "none") -> tuple[float, Floats]:
    rows = np.arange(len(X))
    scores = X @ W
    margins = scores - scores[rows, y, None] + 1
    margins[rows, y] = 0
    loss = float(np.maximum(margins, 0).sum() / len(X) + L2 * (W**2).sum())
    slopes = (margins > (-1 if bug == "margin >= -1" else 0)).astype(float)
    slopes[rows, y] = 0
    if bug != "own class forgotten":
        slopes[rows, y] = -slopes.sum(axis=1)
    dW = X.T @ slopes
    if bug != "no 1/N":
        dW /= len(X)
    dW += L2 * W if bug == "half the penalty" else 2 * L2 * W
    if bug == "sign":
        dW = -dW
    if bug == "one entry":
        dW[BORDER] = 0
    return loss, dW


# %%
def descend(bug: str) -> float:
    """Return the loss after 100 steps of gradient descent with this bug."""
    weights = W.copy()
    for _ in range(100):
        weights -= 0.1 * hinge(weights, bug)[1]
    return hinge(weights)[0]


reports = {bug: fastloss.check_gradient(partial(hinge, bug=bug), W) for bug in BUGS}
trained = {bug: descend(bug) for bug in BUGS}
print(f"loss at the start: {hinge(W)[0]:.2f}")
print(f"{'bug':20} {'loss then':>9}  {'check':17} error")
for bug, meaning in BUGS.items():
    report = reports[bug]
    where = "" if report.passed else f" at {report.worst.index}"
    error = f"{report.max_relative_error:.0e}"
    print(f"{bug:20} {trained[bug]:9.2f}  {verdict(report) + where:17} {error}  {meaning}")
    for note in report.notes:
        print(f"{'':30}  {note}")

# %% jupyter={"source_hidden": true}
falls = [bug for bug in list(BUGS)[1:] if trained[bug] < 0.5 * hinge(W)[0]]
claim(
    len(falls) == 4 and trained["none"] == min(trained.values()),
    f"with {len(falls)} of the bugs the loss still falls to less than half, though never as low as "
    "with the correct gradient. Without the correct one, who would notice?",
    f"with {len(falls)} of the bugs the loss falls to less than half, where 4 are expected. This "
    "version of NumPy may draw other random numbers.",
)
found = [bug for bug in BUGS if not reports[bug].passed]
claim(
    found == list(BUGS)[1:] and reports["one entry"].worst.index == BORDER,
    f"the check passes the correct gradient, finds all {len(found)} bugs, and names the one wrong "
    "entry.",
    f"the check fails for: {', '.join(found) or 'none'}. It should fail for all but 'none', and "
    f"name the entry {BORDER}.",
)

# %% [markdown]
# ## How many entries are enough?
#
# The bug "one entry" affects 1 entry of 50. For a `W` of CIFAR-10, a check compares some 60 of
# 30,730 entries. The slope along a random *direction* `V` costs as many evaluations as that of an
# entry, and involves every entry at once.
#
# **Predict.** One of 3,000 entries is wrong, and the check may compare 5 entries. Does it find the
# error without directions, and with 4 of them? Does it name the entry?

# %%
needle = (123, 7)
wide = fastloss.data.synthetic(60, 300, 10, dtype=np.float64)
smooth = fastloss.Objective(wide.X, wide.y, loss="softmax")
W_wide = rng.standard_normal((300, 10)) / 17


def with_needle(W: Floats) -> tuple[float, Any]:
    loss, dW = smooth(W)
    dW[needle] *= 2
    return loss, dW


blind = fastloss.check_gradient(with_needle, W_wide, n_coordinates=5, n_directions=0)
seeing = fastloss.check_gradient(with_needle, W_wide, n_coordinates=5, n_directions=4)
print(f"5 entries: {verdict(blind)}, {blind.n_evaluations} evaluations")
print(
    f"5 entries and 4 directions: {verdict(seeing)} at "
    f"{seeing.worst.index}, {seeing.n_evaluations} evaluations"
)

# %% jupyter={"source_hidden": true}
claim(
    blind.passed and not seeing.passed and seeing.worst.index == needle,
    f"5 entries miss the error; 4 directions find it, and bisection names the entry {needle}.",
    f"5 entries should miss the error, and directions should find {needle}. This version of NumPy "
    "may draw other random numbers.",
)

# %% [markdown]
# A check of 60 from 30,730 entries meets a single wrong one in 1 of 512 checks. A direction shows
# only that some entry is wrong; bisection then finds which. Each of its steps takes evaluations.


# %% jupyter={"source_hidden": true}
def draw(figure: Any) -> None:
    from fastloss import plots

    kink, precision, bugs = figure.subplots(1, 3)
    w, h = np.linspace(-1, 1, 201), 0.6
    kink.plot(w, [corner.loss(np.array([[1.0, value]])) for value in w], color=plots.BLUE)
    probes = [corner.loss(np.array([[1.0, value]])) for value in (-h, h)]
    kink.plot([-h, h], probes, "o--", color=plots.VERMILION)
    text = f"central difference:\nslope {central:.1f}"
    plots.label(kink, text, (0, sum(probes) / 2), plots.VERMILION, (-12, 8))
    plots.label(kink, f"gradient {analytic:.0f} at the kink", (-h, 0), plots.BLUE, -16)
    kink.set_ylim(-0.12, 1)
    kink.set_xticks([-1, -0.5, 0, 0.5, 1])
    kink.set_xlabel("weight W[0, 1]")
    kink.set_ylabel("hinge loss of the row")
    plots.title(kink, "At a kink two right answers differ")
    for name, colour in {"float64": plots.GREEN, "float32": plots.ORANGE}.items():
        precision.plot(STEPS, errors[name], color=colour)
        place = (STEPS[12], errors[name][12])
        plots.label(precision, name, place, colour, (8, 8) if name == "float64" else 6)
    precision.set_xscale("log")
    precision.set_yscale("log")
    precision.set_xlim(STEPS[0], STEPS[-1])
    precision.set_ylim(1e-11, 10)
    precision.grid(visible=False)
    for low, high in ((1e-7, 1e-4), (1e-2, 10)):
        precision.axhspan(low, high, color=plots.FAINT, alpha=0.5, linewidth=0)
    bands = {"wrong": 0.3, "uneasy": 1e-3, "fine": 3e-6, "good": 1e-9}
    plots.label_ends(precision, [(at, name, plots.GREY) for name, at in bands.items()])
    precision.set_xlabel("step h")
    precision.set_ylabel("error (of the largest entry)")
    plots.title(precision, "A numerical gradient needs float64")
    for row, each in enumerate(reports.values()):
        for record in each.judged:
            colour = plots.BLUE if record.index else plots.VERMILION
            error = max(record.relative_error, 1e-12)
            bugs.plot(error, row, "o", color=colour, alpha=0.5, markersize=5)
    bugs.axvline(1e-2, color=plots.GREY, linestyle="--")
    bugs.set_xscale("log")
    bugs.set_yticks(range(len(BUGS)), list(BUGS))
    bugs.set_ylim(len(BUGS) - 0.5, -0.5)
    bugs.set_xlim(1e-12, 10)
    plots.label(bugs, "entries", (1e-8, 0), plots.BLUE, (8, 0))
    plots.label(bugs, "directions", (0.3, len(BUGS) - 1), plots.VERMILION, (-30, 14))
    plots.label(bugs, "wrong", (1e-2, -0.2), plots.GREY, (6, 0))
    bugs.set_xlabel("relative error")
    plots.title(bugs, "Bugs in many entries, or in one")


keep_picture(draw, "6-gradient-checks", width=13.2, height=4.6)

# %% [markdown]
# ## Exercises
#
# Write the body of a function and run its cell. `exercises.check` says whether it is right, where
# it is wrong, or that it takes too much time or memory. (In a terminal, take the lesson as a
# notebook first: `fastloss lesson 6 --notebook lesson.ipynb`.) Solutions have the same names
# in `fastloss.lessons.solutions`.

# %%
from fastloss.lessons import exercises

# %% [markdown]
# ### Exercise 1: A hidden bug
#
# Plant a bug in the gradient of the softmax loss with an L1 or L2 penalty that no check can find at
# `W = 0`, and give a `W` at which a check finds it. So where should you check a gradient?

# %%


def bug_in_hiding(X: Floats, y: NDArray[np.int64], n_classes: int) -> tuple[Any, Floats, Floats]:
    """Return a function `W -> (loss, wrong dW)`, a zero `W`, and a `W` that shows the bug."""
    raise NotImplementedError


exercises.check(bug_in_hiding)

# %% [markdown]
# ### Exercise 2: The squared hinge
#
# At a margin of exactly 0, `max(0, m)^2` has a kink too, in its second derivative. Take two rows `x
# = 1` with the labels 0 and 1, and `W = [[1, 0]]`: one margin is 0, the other 2. Predict the
# verdict, the statuses and the number of kinks of `check_gradient` for both powers.

# %%


def statuses_at_corner(power: int) -> tuple[bool, set[str], int]:
    """Return `passed`, the statuses of the records and `n_kinks` for `Hinge(power=power)`."""
    raise NotImplementedError


exercises.check(statuses_at_corner)

# %% [markdown]
# ### Exercise 3: Data and penalty separately
#
# With `l2 = 1e6`, a data gradient that is wrong by a factor of 2 passes a check of the total. Show
# this, and write a check that finds the error. Both parts are functions `W -> (loss, dW)`.

# %%


def check_parts(data: Any, penalty: Any, W: Floats) -> dict[str, bool]:
    """Return whether each check passes, under the keys "total", "data" and "penalty"."""
    raise NotImplementedError


exercises.check(check_parts)
