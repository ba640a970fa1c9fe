"""The lecture's questions about training, penalties, and slices through the loss."""

from __future__ import annotations

import numpy as np
from asking import Answer, Problems, near, question, require, table
from experiments import kinks, overfitted, sparsity

import fastloss
from fastloss import slices
from fastloss.plots import percent

# What a practitioner checks


@question("initial-loss", "Does the first loss have the expected value?")
def initial_loss(problems: Problems) -> Answer:
    images = problems.cifar10
    C = images.train.n_classes
    expected = {
        "hinge": ("C - 1", C - 1.0),
        "squared_hinge": ("C - 1", C - 1.0),
        "softmax": ("log C", float(np.log(C))),
        "crammer_singer": ("1", 1.0),
        "one_vs_all": ("C", float(C)),
    }
    found = {loss: images.objective(loss).loss(images.weights(1e-8)) for loss in expected}
    for loss, (formula, value) in expected.items():
        require(
            near(found[loss], value, rtol=1e-3),
            f"the first loss of {loss} should be {formula} = {value:.4g}; it is {found[loss]:.4g}",
        )
    return Answer(
        "Yes, to within 0.1 %. If yours does not, the loss, the scale of the start or the data are "
        "wrong. This shows before any training.",
        table(
            ["loss", "formula", "expected", "found"],
            [[loss, *both, found[loss]] for loss, both in expected.items()],
            2,
        ),
        f"{images.told()}; C = {C} classes, W random with a standard deviation of 1e-8.",
    )


@question("more-regularisation", "Does more regularisation mean more loss?")
def more_regularisation(problems: Problems) -> Answer:
    images = problems.cifar10
    W = images.weights(1e-4)
    strengths = [0.0, 10.0, 100.0, 1000.0]
    terms = [images.objective("hinge", l2=l2).terms(W) for l2 in strengths]
    data_losses, penalties = np.array(terms).T
    squares = np.square(W[:-1], dtype=np.float64).sum()
    require(
        near(data_losses, data_losses[0]) and near(penalties, np.array(strengths) * squares),
        f"the data loss should stay {data_losses[0]:.4g}, and the penalty be l2 times "
        f"{squares:.4g}; they are {data_losses} and {penalties}",
    )
    return Answer(
        "Yes, at the same W: the data loss is unchanged, and the penalty grows in proportion to "
        "its strength.",
        table(
            ["l2", "data loss", "penalty, l2 * sum(W**2)", "loss"],
            [[l2, *both, sum(both)] for l2, both in zip(strengths, terms, strict=True)],
            0,
        ),
        f"{images.told()}; SVM, W random with a standard deviation of 1e-4.",
    )


@question("overfit", "Can the classifier learn 20 rows by heart?")
def overfit(problems: Problems) -> Answer:
    images = problems.cifar10
    rows = images.train.rows(slice(20))
    results = {loss: overfitted(images, loss) for loss in ("hinge", "softmax")}
    for loss, result in results.items():
        predictions = (rows.X @ result.W[:-1] + result.W[-1]).argmax(axis=1)
        n_right = int((predictions == rows.y).sum())
        require(
            n_right == 20, f"all 20 rows should be predicted; {loss} predicts {n_right} of them"
        )
    svm, softmax = results["hinge"].loss, results["softmax"].loss
    require(
        svm == 0.0 and 0.0 < softmax < 0.01,
        f"the SVM loss should reach 0, and softmax fall below 0.01; they end at {svm:.4g} and "
        f"{softmax:.4g}",
    )
    return Answer(
        "Yes: with both losses all 20 are predicted. The SVM loss reaches 0 exactly. Softmax only "
        f"approaches 0; the descent stops at {softmax:.2g}. If a model cannot do this, the code "
        "has a bug.",
        table(
            ["loss", "at the start", "at the end", "steps of gradient descent"],
            [
                [loss, result.history.column("loss")[0], result.loss, result.n_steps]
                for loss, result in results.items()
            ],
        ),
        f"{images.told(20)}; gradient descent with a line search, from W = 0.",
    )


# Penalties


@question("l1-against-l2", "Which weights do L1 and L2 prefer?")
def l1_against_l2(problems: Problems) -> Answer:
    x = np.ones((1, 4))
    weights = {"one weight of 1": [1.0, 0, 0, 0], "four of 0.25": [0.25] * 4}
    found = {}
    for name, w in weights.items():
        W = np.column_stack([w, np.zeros(4)])
        l1, l2 = fastloss.Objective(x, [0], l1=1.0), fastloss.Objective(x, [0], l2=1.0)
        found[name] = [float((x @ W)[0, 0]), l1.terms(W)[1], l2.terms(W)[1]]
    require(
        near(np.array([*found.values()]), [[1.0, 1.0, 1.0], [1.0, 1.0, 0.25]]),
        "score, L1 and L2 should be 1, 1, 1 for one weight and 1, 1, 0.25 for four; they are "
        f"{found}",
    )
    return Answer(
        "Both choices give x = [1, 1, 1, 1] the same score. L2 prefers weights that are spread "
        "out. L1 is the same for both, so the data decide, and weights that gain too little become "
        "0.",
        table(
            ["weights w", "score, x · w", "L1, sum(|w|)", "L2, sum(w**2)"],
            [[name, *numbers] for name, numbers in found.items()],
        ),
        "The lecture's example of four features.",
    )


@question("sparsity", "How many weights does each penalty leave?")
def sparsity_answer(problems: Problems) -> Answer:
    images = problems.mnist
    l1, l2, n_steps = 3e-4, 1e-3, 150
    found = sparsity(images, l1, l2, n_steps)
    proximal, subgradient, squares = (
        found[name] for name in ("L1, proximal", "L1, subgradient", "L2")
    )
    require(
        squares.share_zero == 0
        and subgradient.share_zero < 0.01
        and proximal.share_zero > 0.25
        and subgradient.share_small > 2 * squares.share_small,
        "L1 with proximal steps should set over 25 % of the weights to 0, with a subgradient "
        "under 1 %, and L2 none; and a subgradient should make more than twice as many small as "
        "L2. "
        + "; ".join(
            f"{name}: {percent(each.share_zero)} are 0, {percent(each.share_small)} small"
            for name, each in found.items()
        ),
    )
    return Answer(
        f"L1 with proximal steps sets {percent(proximal.share_zero)} of the weights to exactly 0, "
        "and L2 sets none to 0. A subgradient step of L1 jumps over 0. It sets "
        f"{percent(subgradient.share_zero)} to 0, but makes {percent(subgradient.share_small)} "
        f"smaller than a thousandth of the largest weight; L2 makes {percent(squares.share_small)} "
        "so small.",
        table(
            ["penalty", "weights of 0", "below 1/1000 of the largest", "accuracy, held out"],
            [
                [name, *map(percent, (each.share_zero, each.share_small, each.accuracy))]
                for name, each in found.items()
            ],
        ),
        f"{images.told_with_held_out}; softmax, l1 = {l1:g} or l2 = {l2:g}, {n_steps} steps on all "
        "rows, from W = 0. Pixels that are the same in every image are left out of the shares. "
        f"On {len(images.held_out):,} rows an accuracy is uncertain by "
        f"{percent(images.noise(squares.accuracy))}; smaller differences may be noise.",
    )


# Slices


@question("slice-line", "What does the loss look like along a line, L(W + a W1)?")
def slice_line(problems: Problems) -> Answer:
    images = problems.cifar10
    W = images.weights(1e-4).astype(np.float64)
    W1 = slices.random_direction(W, seed=1)
    a = np.linspace(-20, 20, 601)
    rows, found = [], {}
    for loss in ("hinge", "softmax"):
        for n_rows in (1, 100):
            objective = images.objective(loss, n_rows).astype(np.float64)
            losses = slices.line(objective, W, W1, a)
            bends = np.diff(losses, 2)
            require(
                near(losses[::200], [objective.loss(W + step * W1) for step in a[::200]]),
                f"the slice of {loss} should have the losses of W + a W1",
            )
            require(
                bends.min() > -1e-9,
                f"{loss} of {n_rows} rows should be convex; its second difference is as low as "
                f"{bends.min():.2g}",
            )
            found[loss, n_rows] = kinks(objective, W, W1, a), int((bends > 1e-9).sum())
            rows.append([loss, n_rows, found[loss, n_rows][0], losses.min()])
    (few, n_bent), (many, _), (_, n_curved) = (
        found[key] for key in (("hinge", 1), ("hinge", 100), ("softmax", 1))
    )
    most = images.train.n_classes - 1
    require(
        1 <= few <= most and n_bent <= 2 * few < n_curved,
        f"the SVM loss of one row should have 1 to {most} kinks and be straight between them, and "
        f"softmax be curved; it has {few} kinks, and they are not straight at {n_bent} and "
        f"{n_curved} of {len(a)} points",
    )
    return Answer(
        "A bowl: it is convex. The SVM loss of one row consists of straight pieces. They meet at "
        f"{few} kinks, one for each class that reaches the margin between the ends of the line. "
        f"The mean of 100 rows has {many} kinks, each so small that it looks smooth. Softmax has "
        "none.",
        table(["loss", "rows", "kinks", "lowest loss"], rows, 2),
        f"{images.told(100)}, and the first alone. W is random with a standard "
        "deviation of 1e-4, W1 is random and as long as W, and a goes from -20 to 20.",
    )


@question("slice-plane", "And on a plane, L(W + a W1 + b W2)?")
def slice_plane(problems: Problems) -> Answer:
    images = problems.cifar10
    objective = images.objective("softmax", 200, l2=1.0).astype(np.float64)
    W = images.weights(1e-4).astype(np.float64)
    W1, W2 = (slices.random_direction(W, seed) for seed in (1, 2))
    steps = np.linspace(-2, 2, 21)
    losses = slices.plane(objective, W, W1, W2, steps, steps)
    for i, j in ((0, 0), (3, 17), (10, 10)):
        require(
            near(losses[i, j], objective.loss(W + steps[i] * W1 + steps[j] * W2)),
            f"the slice should have the loss of W + {steps[i]:.1f} W1 + {steps[j]:.1f} W2",
        )
    # Convex along both axes and both diagonals.
    lines = losses, losses.T, np.diagonal(losses), np.diagonal(losses[::-1])
    least = min(float(np.diff(line, 2, axis=0).min()) for line in lines)
    require(
        least > -1e-9,
        f"the plane should be convex; its second difference is as low as {least:.2g}",
    )
    lowest, highest = (
        np.unravel_index(place, losses.shape) for place in (losses.argmin(), losses.argmax())
    )
    return Answer(
        f"A bowl again. The scores of W, W1 and W2 determine all {losses.size} points, so X is "
        "read once.",
        table(
            ["point", "a", "b", "loss"],
            [
                ["W", 0.0, 0.0, losses[10, 10]],
                ["lowest", *steps[list(lowest)], losses[lowest]],
                ["highest", *steps[list(highest)], losses[highest]],
            ],
        ),
        f"{images.told(200)}; softmax, l2 = 1. W is random with a standard "
        "deviation of 1e-4, W1 and W2 are random and as long as W; a and b go from -2 to 2 in "
        "steps of 0.2.",
    )
