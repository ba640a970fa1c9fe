"""The lecture's questions about training, penalties, and slices through the loss."""

from __future__ import annotations

import numpy as np
from asking import Answer, Problems, question, table
from experiments import overfitted, sparsity
from numpy.testing import assert_allclose, assert_array_equal, assert_array_less

import fastloss
from fastloss import slices
from fastloss.plots import percent

# What a practitioner checks


@question("initial-loss", "Does the first loss have the expected value?")
def initial_loss(problems: Problems) -> Answer:
    images = problems.cifar10
    C = images.train.n_classes
    expected = {
        "hinge": C - 1,
        "squared_hinge": C - 1,
        "softmax": np.log(C),
        "crammer_singer": 1,
        "one_vs_all": C,
    }
    found = {loss: images.objective(loss).loss(images.weights(1e-8)) for loss in expected}
    assert_allclose([*found.values()], [*expected.values()], rtol=1e-3)
    return Answer(
        "If not, the loss, the scale of the start or the data are wrong. This shows before "
        "any training.",
        table(
            ["loss", "expected", "found"],
            [[loss, float(expected[loss]), found[loss]] for loss in expected],
        ),
    )


@question("more-regularisation", "Does more regularisation mean more loss?")
def more_regularisation(problems: Problems) -> Answer:
    images = problems.cifar10
    W = images.weights(1e-4)
    strengths = [0.0, 10.0, 100.0, 1000.0]
    terms = [images.objective("hinge", l2=l2).terms(W) for l2 in strengths]
    penalties = np.array([penalty for _, penalty in terms])
    assert_allclose([data_loss for data_loss, _ in terms], terms[0][0])
    assert_allclose(penalties, np.array(strengths) * np.square(W[:-1], dtype=np.float64).sum())
    assert_array_less(penalties[:-1], penalties[1:])
    return Answer(
        "Yes, at the same W: the data loss is unchanged, and the penalty grows in proportion to "
        "its strength.",
        table(
            ["l2", "data loss", "penalty", "loss"],
            [[l2, *both, sum(both)] for l2, both in zip(strengths, terms, strict=True)],
            0,
        ),
    )


@question("overfit", "Can the classifier learn 20 rows by heart?")
def overfit(problems: Problems) -> Answer:
    images = problems.cifar10
    rows = images.train.rows(slice(20))
    results = {loss: overfitted(images, loss) for loss in ("hinge", "softmax")}
    for result in results.values():
        predictions = (rows.X @ result.W[:-1] + result.W[-1]).argmax(axis=1)
        assert_array_equal(predictions, rows.y)
    assert results["hinge"].loss == 0.0
    assert 0.0 < results["softmax"].loss < 0.01
    return Answer(
        "Yes, all 20: the SVM loss reaches 0 exactly, and softmax comes close. If a model cannot "
        "do this, the code has a bug.",
        table(
            ["loss", "at the start", "at the end", "steps of gradient descent"],
            [
                [loss, result.history.column("loss")[0], result.loss, result.n_steps]
                for loss, result in results.items()
            ],
        ),
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
    assert_allclose(np.array([*found.values()]), np.array([[1, 1, 1], [1, 1, 0.25]]))
    return Answer(
        "Both choices give x = [1, 1, 1, 1] the same score. L2 prefers weights that are spread "
        "out. L1 is the same for both, so the data decide, and weights that gain too little become "
        "0.",
        table(
            ["weights", "score", "L1", "L2"],
            [[name, *numbers] for name, numbers in found.items()],
        ),
    )


@question("sparsity", "How many weights does each penalty leave?")
def sparsity_answer(problems: Problems) -> Answer:
    images = problems.mnist
    found = sparsity(images, l1=3e-4, l2=1e-3, n_steps=150)
    assert found["L2"].share_zero == 0
    assert found["L1, subgradient"].share_zero < 0.01
    assert found["L1, proximal"].share_zero > 0.25
    assert found["L1, subgradient"].share_small > 2 * found["L2"].share_small
    return Answer(
        "L1 leaves few, and L2 nearly all. A subgradient step jumps over 0, so it leaves weights "
        "that are tiny but not 0; a proximal step makes them 0. Pixels that are the same in every "
        f"image do not count. ({images.told}; softmax, l1 = 3e-4 or l2 = 1e-3, 150 steps.)",
        table(
            ["penalty", "weights of 0", "below 1/1000 of the largest", "accuracy, held out"],
            [
                [name, *map(percent, (each.share_zero, each.share_small, each.accuracy))]
                for name, each in found.items()
            ],
        ),
    )


# Slices


@question("slice-line", "What does the loss look like along a line, L(W + a W1)?")
def slice_line(problems: Problems) -> Answer:
    images = problems.cifar10
    W = images.weights(1e-4).astype(np.float64)
    W1 = slices.random_direction(W, seed=1)
    a = np.linspace(-20, 20, 601)
    rows, counts = [], {}
    for loss in ("hinge", "softmax"):
        for n_rows in (1, 100):
            objective = images.objective(loss, n_rows).astype(np.float64)
            losses = slices.line(objective, W, W1, a)
            assert_allclose(losses[::200], [objective.loss(W + step * W1) for step in a[::200]])
            bends = np.diff(losses, 2)
            assert bends.min() > -1e-9  # convex
            counts[loss, n_rows] = int((bends > 1e-9).sum())
            rows.append([loss, n_rows, counts[loss, n_rows], losses.min()])
    # Each wrong class bends the line of a row once, usually between two points of the grid.
    assert 1 <= counts["hinge", 1] <= 2 * (images.train.n_classes - 1)
    assert counts["softmax", 1] > 10 * counts["hinge", 1]
    return Answer(
        "A bowl: it is convex. The SVM loss of one row is piecewise linear, and bends where a "
        "class reaches the margin. The mean of many rows looks smooth; softmax is smooth.",
        table(["loss", "rows", f"points of {len(a) - 2} where it bends", "lowest"], rows),
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
        assert_allclose(losses[i, j], objective.loss(W + steps[i] * W1 + steps[j] * W2))
    # Convex along both axes and both diagonals.
    for direction in (losses, losses.T, np.diagonal(losses), np.diagonal(losses[::-1])):
        assert np.diff(direction, 2, axis=0).min() > -1e-9
    lowest, highest = (
        np.unravel_index(place, losses.shape) for place in (losses.argmin(), losses.argmax())
    )
    return Answer(
        "A bowl again, with one lowest point. The scores of W, W1 and W2 determine all "
        f"{losses.size} points, so X is read once.",
        table(
            ["", "a", "b", "loss"],
            [
                ["W", 0.0, 0.0, losses[10, 10]],
                ["lowest", *steps[list(lowest)], losses[lowest]],
                ["highest", *steps[list(highest)], losses[highest]],
            ],
        ),
    )
