"""The lecture's questions about the SVM loss and softmax."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from asking import Answer, Numbers, Problems, losses_of, question, table
from experiments import Images, overfitted
from numpy.testing import assert_allclose, assert_array_equal, assert_array_less

import fastloss
from fastloss import Hinge, optim
from fastloss.tables import Table

# The lecture's three images: scores for cat, car and frog, each image one of them.
CAT, CAR, FROG = [3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]
LESSON, LABELS = np.array([CAT, CAR, FROG]), np.array([0, 1, 2])


# The SVM loss


@question("svm-q1", "What happens to the loss if the car's scores change a bit?")
def svm_q1(problems: Problems) -> Answer:
    slack = CAR[1] - max(CAR[0], CAR[2]) - 1  # lead of the true score beyond the margin
    rng = np.random.default_rng(0)
    sizes = np.array([0.1, 0.5, slack / 2, 1.2, 2.0])
    worst = []
    for size in sizes:
        changes = size * np.vstack([rng.uniform(-1, 1, (1000, 3)), [[1, -1, 1]]])
        worst.append(losses_of(CAR + changes, [1] * 1001).max())
    assert_allclose(worst[:3], 0, atol=1e-15)
    assert_array_less(0, worst[3:])
    return Answer(
        f"Nothing: the true score exceeds the margin by {slack:.1f}, so the loss stays 0 while "
        f"every score changes by less than {slack / 2:.2f}.",
        table(["largest change of a score", "largest loss"], zip(sizes, worst, strict=True), 0),
    )


@question("svm-q2", "What are the smallest and the largest possible loss?")
def svm_q2(problems: Problems) -> Answer:
    gaps = np.array([10.0, 1.0, 0.0, -10.0, -1e3, -1e6])  # true score less the two others
    losses = losses_of(np.outer(gaps, [1, 0, 0]), [0] * len(gaps))
    assert_array_equal(losses[:2], 0)
    assert_array_less(losses[:-1][1:], losses[1:][1:])
    assert_allclose(losses[-1] / losses[-2], 1e3, rtol=0.01)
    return Answer(
        "The smallest is 0, reached when the true score leads by the margin. There is no largest: "
        "the loss grows linearly as the true score falls behind.",
        table(["true score less the others", "loss"], zip(gaps, losses, strict=True), 0),
    )


@question("svm-q3", "At the start W is small, so all scores are about 0. What is the loss?")
def svm_q3(problems: Problems) -> Answer:
    return _at_the_start(problems.cifar10, "hinge", lambda C: C - 1.0, "C - 1")


def _at_the_start(
    images: Images, loss: str, expected: Callable[[int], float], formula: str
) -> Answer:
    C = images.train.n_classes
    scales = [1e-4, 1e-5, 1e-6, 1e-8]
    losses = [images.objective(loss).loss(images.weights(scale)) for scale in scales]
    assert_allclose(losses[-1], expected(C), rtol=1e-3)
    return Answer(
        f"{formula} = {expected(C):.4g}, for {C} classes. Check this first when a training starts. "
        f"({images.told}.)",
        table(["scale of W", "loss"], zip(scales, losses, strict=True), 0),
    )


@question("svm-q4", "What if the sum was over all classes, the true one included?")
def svm_q4(problems: Problems) -> Answer:
    without, included = Hinge(), Hinge(include_true_class=True)
    losses = [losses_of(LESSON, LABELS, loss) for loss in (without, included)]
    assert_allclose(losses[0], [2.9, 0, 12.9], atol=1e-12)
    assert_allclose(losses[1] - losses[0], 1)
    assert_allclose(losses[1].mean(), 6.27, atol=0.005)
    gradients = [
        fastloss.score_gradient(LESSON, LABELS, loss=loss)[1] for loss in (without, included)
    ]
    assert_array_equal(gradients[0], gradients[1])
    return Answer(
        "Every loss is larger by the margin, 1. The gradient is the same, and so is the best W.",
        _of_the_lesson(["without the true class", "with it"], losses),
    )


def _of_the_lesson(names: list[str], losses: list[Numbers]) -> Table:
    rows = [[name, *each, each.mean()] for name, each in zip(names, losses, strict=True)]
    return table(["sum", "cat", "car", "frog", "mean"], rows)


@question("svm-q5", "What if the mean over the classes was used instead of the sum?")
def svm_q5(problems: Problems) -> Answer:
    images = problems.cifar10
    X, y, C = images.train.X, images.train.y, images.train.n_classes
    kinds = {"sum": Hinge(), "mean": Hinge(class_reduction="mean")}
    objectives = {name: fastloss.Objective(X, y, loss=loss) for name, loss in kinds.items()}
    ends = {
        # The gradient is C - 1 times as small, so the step is C - 1 times as large.
        name: optim.minimize(
            objective,
            np.zeros((X.shape[1], C), np.float32),
            optim.GradientDescent(lr=1e-7 * (C - 1 if name == "mean" else 1)),
            max_steps=20,
        )
        for name, objective in objectives.items()
    }
    assert_allclose(ends["mean"].loss * (C - 1), ends["sum"].loss, rtol=1e-4)
    largest = np.abs(ends["sum"].W).max()
    assert_allclose(ends["mean"].W, ends["sum"].W, atol=1e-3 * largest)
    return Answer(
        "Nothing important: the loss and its gradient are divided by C - 1, so steps C - 1 times "
        "as large lead to the same W.",
        table(
            ["over classes", "loss after 20 steps", "times"],
            [
                ["sum", ends["sum"].loss, 1],
                ["mean", ends["mean"].loss, ends["sum"].loss / ends["mean"].loss],
            ],
        ),
    )


@question("svm-q6", "What if the hinge was squared?")
def svm_q6(problems: Problems) -> Answer:
    losses = [losses_of(LESSON, LABELS, Hinge(power=power)) for power in (1, 2)]
    assert_allclose(losses[1], [8.41, 0, 83.25], atol=0.005)
    ratios = [each[2] / each[0] for each in losses]
    assert ratios[1] > 2 * ratios[0]
    return Answer(
        "It is a different loss with a different best W: large violations count more. The frog's "
        f"loss is {ratios[0]:.1f} times the cat's with the hinge, and {ratios[1]:.1f} times with "
        "the squared hinge.",
        _of_the_lesson(["hinge", "squared"], losses),
    )


@question("svm-q7", "Suppose a W has a loss of 0. Is it the only one?")
def svm_q7(problems: Problems) -> Answer:
    images = problems.cifar10
    W = overfitted(images, "hinge").W
    plain, penalised = (images.objective("hinge", 20, l2=l2) for l2 in (0.0, 1.0))
    factors = [1.0, 2.0, 10.0]
    losses = [plain.loss(factor * W) for factor in factors]
    assert_array_equal(losses, 0)
    with_penalty = [penalised.loss(factor * W) for factor in factors]
    assert_allclose(with_penalty[1] / with_penalty[0], 4, rtol=1e-5)
    return Answer(
        "No: 2W also has a loss of 0, and so has every larger multiple. A penalty prefers the "
        "smallest W.",
        table(
            ["weights", "loss", "loss with an L2 penalty"],
            [
                [f"{factor:g} W", *values]
                for factor, *values in zip(factors, losses, with_penalty, strict=True)
            ],
        ),
    )


# Softmax


@question("softmax-q1", "What are the smallest and the largest possible loss?")
def softmax_q1(problems: Problems) -> Answer:
    gaps = np.array([700.0, 50.0, 10.0, 1.0, 0.0, -10.0, -1e3])
    losses = losses_of(np.outer(gaps, [1, 0, 0]), [0] * len(gaps), "softmax")
    assert_array_less(0, losses)
    assert_array_less(losses[:-1], losses[1:])
    assert_allclose(losses[4], np.log(3))
    assert_allclose(losses[-1], 1e3, rtol=1e-3)
    return Answer(
        "The loss approaches 0, but no finite scores reach it. There is no largest loss. The SVM "
        "loss is 0 from a lead of 1 on, while softmax always gains from a larger lead.",
        table(["true score less the others", "loss"], zip(gaps, losses, strict=True), 0),
    )


@question("softmax-q2", "At the start all scores are about 0. What is the loss?")
def softmax_q2(problems: Problems) -> Answer:
    return _at_the_start(problems.cifar10, "softmax", lambda C: float(np.log(C)), "log C")


@question("svm-against-softmax", "Jiggle the scores of a row a little: what do both losses do?")
def svm_against_softmax(problems: Problems) -> Answer:
    rows = np.array([[10.0, -2, 3], [10, 9, 9], [10, -100, -100]])
    moves, shown = (-0.5, 0.0, 0.5), ("-0.5", "as is", "+0.5")  # of the true score
    hinge, softmax = (
        np.array([losses_of(rows + np.array([move, 0, 0]), [0] * 3, loss) for move in moves])
        for loss in ("hinge", "softmax")
    )
    assert_array_equal(hinge[:, [0, 2]], 0)
    assert_allclose(hinge[:, 1], [1, 0, 0])  # the second row is exactly at the margin
    assert_array_less(softmax[1:], softmax[:-1])
    assert softmax[1, 1] > 100 * softmax[1, 0] > 100 * 100 * softmax[1, 2]
    return Answer(
        "The SVM loss is 0 for all three: it does not depend on how far a true score exceeds the "
        "margin. Only the second row, which is exactly at the margin, reacts to a change. Softmax "
        "distinguishes the three rows, and falls with every rise of the true score.",
        table(
            [
                "scores, the first is true",
                *(f"{loss}, {move}" for loss in ("hinge", "softmax") for move in shown),
            ],
            zip(("10, -2, 3", "10, 9, 9", "10, -100, -100"), *hinge, *softmax, strict=True),
        ),
    )
