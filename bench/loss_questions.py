"""The lecture's questions about the SVM loss and softmax."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from asking import Answer, Numbers, Problems, losses_of, near, question, require, table
from experiments import Images, overfitted

import fastloss
from fastloss import Hinge, optim
from fastloss.tables import Table

# The lecture's three images: scores for cat, car and frog, each image one of them.
CAT, CAR, FROG = [3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]
LESSON, LABELS = np.array([CAT, CAR, FROG]), np.array([0, 1, 2])
OF_THE_LESSON = (
    "The lecture's three images, with scores for cat, car and frog: the cat "
    f"{CAT}, the car {CAR}, the frog {FROG}."
)
OF_THREE_CLASSES = "One row of three classes, whose two wrong scores are equal."


# The SVM loss


@question("svm-q1", "What happens to the loss if the car's scores change a bit?")
def svm_q1(problems: Problems) -> Answer:
    lead = CAR[1] - max(CAR[0], CAR[2])
    bound = (lead - 1) / 2  # the true score falls by it, and the best wrong score rises by it
    rng = np.random.default_rng(0)
    sizes = np.array([0.1, 0.5, bound, 1.2, 2.0])
    worst = []
    for size in sizes:
        changes = size * np.vstack([rng.uniform(-1, 1, (1000, 3)), [[1, -1, 1]]])
        worst.append(losses_of(CAR + changes, [1] * 1001).max())
    require(
        near(worst[:3], 0, atol=1e-15) and min(worst[3:]) > 0,
        f"the car's loss should be 0 until scores change by more than {bound:.2f}; its largest "
        f"values are {_listed(worst)} for changes of {_listed(sizes)}",
    )
    return Answer(
        f"Nothing. The car's score leads the next by {lead:.1f}, and the margin asks for 1 only. "
        f"The loss stays 0 while no score changes by more than ({lead:.1f} - 1) / 2 = {bound:.2f}.",
        table(["no score changes by more than", "largest loss"], zip(sizes, worst, strict=True), 0),
        f"The lecture's image of a car, with scores {CAR} for cat, car and frog; for each row of "
        "the table 1,000 random changes, and the worst one.",
    )


def _listed(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)


@question("svm-q2", "What are the smallest and the largest possible loss?")
def svm_q2(problems: Problems) -> Answer:
    leads = np.array([10.0, 1.0, 0.0, -10.0, -1e3, -1e6])  # true score less the two others
    losses = losses_of(np.outer(leads, [1, 0, 0]), [0] * len(leads))
    require(
        near(losses[:2], 0)
        and bool((np.diff(losses[1:]) > 0).all())
        and near(losses[-1] / losses[-2], 1e3, rtol=0.01),
        f"the loss should be 0 from a lead of 1 on, and grow linearly below; it is "
        f"{_listed(losses)} for leads of {_listed(leads)}",
    )
    return Answer(
        "The smallest is 0, reached when the true score leads by the margin, 1. There is no "
        "largest: the loss grows linearly as the true score falls behind.",
        table(["true score less the others", "loss"], zip(leads, losses, strict=True), 0),
        OF_THREE_CLASSES,
    )


@question("svm-q3", "At the start W is small, so all scores are about 0. What is the loss?")
def svm_q3(problems: Problems) -> Answer:
    return _at_the_start(
        problems.cifar10,
        "hinge",
        lambda C: C - 1.0,
        "C - 1",
        "each of the C - 1 wrong classes misses the margin by 1",
    )


def _at_the_start(
    images: Images, loss: str, expected: Callable[[int], float], formula: str, reason: str
) -> Answer:
    C = images.train.n_classes
    scales = [1e-4, 1e-5, 1e-6, 1e-8]
    losses = [images.objective(loss).loss(images.weights(scale)) for scale in scales]
    require(
        near(losses[-1], expected(C), rtol=1e-3),
        f"the loss at the smallest W should be {formula} = {expected(C):.4g}; it is "
        f"{losses[-1]:.4g}",
    )
    return Answer(
        f"{formula} = {expected(C):.4g} for C = {C} classes: {reason}. Check this first when a "
        "training starts. A larger W has other scores, and another loss.",
        table(["standard deviation of W", "loss"], zip(scales, losses, strict=True), 0),
        f"{images.told()}; the loss is their mean, and W is random.",
    )


@question("svm-q4", "What if the sum was over all classes, the true one included?")
def svm_q4(problems: Problems) -> Answer:
    without, included = Hinge(), Hinge(include_true_class=True)
    losses = [losses_of(LESSON, LABELS, loss) for loss in (without, included)]
    require(
        near(losses[0], [2.9, 0, 12.9], atol=1e-12) and near(losses[1], losses[0] + 1),
        f"the losses should be 2.9, 0 and 12.9, and each 1 larger with the true class; they are "
        f"{_listed(losses[0])}, and with the true class {_listed(losses[1])}",
    )
    gradients = [
        fastloss.score_gradient(LESSON, LABELS, loss=loss)[1] for loss in (without, included)
    ]
    require(
        np.array_equal(gradients[0], gradients[1]),
        "the gradient should not depend on the true class's term",
    )
    return Answer(
        "Every loss is larger by the margin, 1. The gradient is the same, and so is the best W.",
        _of_the_lesson("classes in the sum", ["without the true one", "with it"], losses),
        OF_THE_LESSON,
    )


def _of_the_lesson(heading: str, names: list[str], losses: list[Numbers]) -> Table:
    rows = [[name, *each, each.mean()] for name, each in zip(names, losses, strict=True)]
    columns = ["loss of the cat", "of the car", "of the frog", "mean"]
    return table([heading, *columns], rows)


@question("svm-q5", "What if the mean over the classes was used instead of the sum?")
def svm_q5(problems: Problems) -> Answer:
    images = problems.cifar10
    X, y, C = images.train.X, images.train.y, images.train.n_classes
    kinds = {"sum": Hinge(), "mean": Hinge(class_reduction="mean")}
    # The gradient is C - 1 times as small, so the learning rate is C - 1 times as large.
    rates = {"sum": 1e-7, "mean": 1e-7 * (C - 1)}
    ends = {
        name: optim.minimize(
            fastloss.Objective(X, y, loss=loss),
            np.zeros((X.shape[1], C), np.float32),
            optim.GradientDescent(lr=rates[name]),
            max_steps=20,
        )
        for name, loss in kinds.items()
    }
    ratio = ends["sum"].loss / ends["mean"].loss
    difference = np.abs(ends["mean"].W - ends["sum"].W).max() / np.abs(ends["sum"].W).max()
    require(
        near(ratio, C - 1, rtol=1e-4) and difference < 1e-3,
        f"the sum's loss should be {C - 1} times the mean's, and both W equal; it is {ratio:.4g} "
        f"times the mean's, and W differs by {difference:.2g} of its largest entry",
    )
    return Answer(
        "Nothing important: the loss and its gradient are divided by C - 1, so a learning rate "
        "C - 1 times as large leads to the same W, except for rounding.",
        table(
            ["over classes", "learning rate", "loss after 20 steps", "the sum's loss / this loss"],
            [
                [name, rates[name], end.loss, ends["sum"].loss / end.loss]
                for name, end in ends.items()
            ],
        ),
        f"{images.told()}; gradient descent on all of them, from W = 0.",
    )


@question("svm-q6", "What if the hinge was squared?")
def svm_q6(problems: Problems) -> Answer:
    losses = [losses_of(LESSON, LABELS, Hinge(power=power)) for power in (1, 2)]
    ratios = [each[2] / each[0] for each in losses]
    require(
        near(losses[1], [8.41, 0, 83.25], atol=0.005) and ratios[1] > 2 * ratios[0],
        f"the squared losses should be 8.41, 0 and 83.25; they are {_listed(losses[1])}",
    )
    return Answer(
        "It is a different loss with a different best W: large violations count more. The frog's "
        f"loss is {ratios[0]:.1f} times the cat's with the hinge, and {ratios[1]:.1f} times with "
        "the squared hinge.",
        _of_the_lesson("loss", ["hinge", "squared hinge"], losses),
        OF_THE_LESSON,
    )


@question("svm-q7", "Suppose a W has a loss of 0. Is it the only one?")
def svm_q7(problems: Problems) -> Answer:
    images = problems.cifar10
    W = overfitted(images, "hinge").W
    plain, penalised = (images.objective("hinge", 20, l2=l2) for l2 in (0.0, 1.0))
    factors = [1.0, 2.0, 10.0]
    losses = [plain.loss(factor * W) for factor in factors]
    with_penalty = [penalised.loss(factor * W) for factor in factors]
    require(
        near(losses, 0) and near(with_penalty[1] / with_penalty[0], 4, rtol=1e-5),
        "W, 2W and 10W should have a loss of 0, and 2W four times the penalty of W; the losses are "
        f"{_listed(losses)}, and {_listed(with_penalty)} with the penalty",
    )
    return Answer(
        "No: 2W also has a loss of 0, and so has every larger multiple. A penalty prefers the "
        "smallest of them.",
        table(
            ["weights", "loss", "loss + sum(W**2)"],
            [
                [f"{factor:g} W", *values]
                for factor, *values in zip(factors, losses, with_penalty, strict=True)
            ],
        ),
        f"{images.told(20)}; W is fitted to them by gradient descent.",
    )


# Softmax


@question("softmax-q1", "What are the smallest and the largest possible loss?")
def softmax_q1(problems: Problems) -> Answer:
    leads = np.array([700.0, 50.0, 10.0, 1.0, 0.0, -10.0, -1e3])
    losses = losses_of(np.outer(leads, [1, 0, 0]), [0] * len(leads), "softmax")
    require(
        losses[0] > 0
        and bool((np.diff(losses) > 0).all())
        and near(losses[4], np.log(3))
        and near(losses[-1], 1e3, rtol=1e-3),
        "the loss should be above 0, log 3 for equal scores, and grow as the lead falls; it is "
        f"{_listed(losses)} for leads of {_listed(leads)}",
    )
    return Answer(
        "The loss approaches 0, but no finite scores reach it. There is no largest loss. The SVM "
        "loss is 0 from a lead of 1 on, while softmax always gains from a larger lead.",
        table(["true score less the others", "softmax loss"], zip(leads, losses, strict=True), 0),
        OF_THREE_CLASSES,
    )


@question("softmax-q2", "At the start all scores are about 0. What is the loss?")
def softmax_q2(problems: Problems) -> Answer:
    return _at_the_start(
        problems.cifar10,
        "softmax",
        lambda C: float(np.log(C)),
        "log C",
        "every class has the probability 1 / C",
    )


@question("svm-against-softmax", "Jiggle the scores of a row a little: what do both losses do?")
def svm_against_softmax(problems: Problems) -> Answer:
    rows = np.array([[10.0, -2, 3], [10, 9, 9], [10, -100, -100]])
    moves = (-0.5, 0.0, 0.5)  # of the true score
    losses = {
        loss: np.array([losses_of(rows + np.array([move, 0, 0]), [0] * 3, loss) for move in moves])
        for loss in ("hinge", "softmax")
    }
    hinge, softmax = losses.values()
    require(
        near(hinge[:, [0, 2]], 0) and near(hinge[:, 1], [1, 0, 0]),
        "the SVM loss should change for the second row only, and be 1, 0, 0 there; it is "
        f"{_listed(hinge[:, 1])} there, and up to {hinge[:, [0, 2]].max():.4g} elsewhere",
    )
    require(
        bool((np.diff(softmax, axis=0) < 0).all())
        and softmax[1, 1] > 100 * softmax[1, 0] > 100 * 100 * softmax[1, 2],
        "softmax should fall with every rise of the true score, and tell the rows apart; it is "
        f"{_listed(softmax[1])} for the three rows as they are",
    )
    return Answer(
        "The SVM loss of all three rows is 0: it does not depend on how far the true score exceeds "
        "the margin. Only the second row, which is exactly at the margin, reacts to a change. "
        "Softmax distinguishes the three rows, and falls with every rise of the true score.",
        table(
            ["loss", "scores, the true one first", "true score - 0.5", "as is", "+ 0.5"],
            [
                [loss, f"{row[0]:g}, {row[1]:g}, {row[2]:g}", *found[:, i]]
                for loss, found in losses.items()
                for i, row in enumerate(rows)
            ],
            2,
        ),
        "The lecture's three rows of scores.",
    )
