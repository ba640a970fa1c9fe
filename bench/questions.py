"""The questions of CS231n's lecture on loss functions, answered by computing.

python bench/questions.py                       # all of them
python bench/questions.py svm-q3 overfit        # these; --list names them

Each answer asserts what it says and shows the numbers. Source: Stanford CS231n, lecture 3, "Loss
functions and optimization". On CIFAR-10 and MNIST with ``--data-folder``, else on synthetic data.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from experiments import Images, cifar10, clear_errors, data_folder, mnist, sparsity
from numpy.testing import assert_allclose, assert_array_equal, assert_array_less
from numpy.typing import ArrayLike, NDArray

import fastloss
from fastloss import Hinge, optim, slices
from fastloss.plots import percent
from fastloss.tables import Table

Numbers = NDArray[np.floating[Any]]

# The lecture's three images: scores for cat, car and frog, each image one of them.
CAT, CAR, FROG = [3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]
LESSON, LABELS = np.array([CAT, CAR, FROG]), np.array([0, 1, 2])


@dataclass(frozen=True)
class Problems:
    """Where the data are; ``n_rows`` of MNIST are enough for an answer."""

    folder: Path | None = None
    n_rows: int | None = 5000

    @cached_property
    def cifar10(self) -> Images:
        return cifar10(self.folder)

    @cached_property
    def mnist(self) -> Images:
        return mnist(self.folder, self.n_rows)


@dataclass(frozen=True)
class Answer:
    """What is said, and the numbers behind it."""

    said: str
    table: Table


@dataclass(frozen=True)
class Question:
    """``answer`` computes the answer, and raises `AssertionError` where it is not so."""

    name: str
    asked: str
    answer: Callable[[Problems], Answer]


QUESTIONS: dict[str, Question] = {}


def question(name: str, asked: str) -> Callable[[Callable[[Problems], Answer]], Any]:
    """Registers the function that answers."""

    def register(answer: Callable[[Problems], Answer]) -> Callable[[Problems], Answer]:
        QUESTIONS[name] = Question(name, asked, answer)
        return answer

    return register


def losses_of(scores: ArrayLike, labels: ArrayLike, loss: str | fastloss.Loss = "hinge") -> Numbers:
    """The loss of each row of scores."""
    return fastloss.score_gradient(np.asarray(scores, float), labels, loss=loss)[0]


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], n_labels: int = 1) -> Table:
    """Numbers to four digits."""

    def shown(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)

    return Table("", tuple(columns), [tuple(map(shown, row)) for row in rows], n_labels=n_labels)


# The SVM loss


@question("svm-q1", "What happens to the loss if the car's scores change a bit?")
def svm_q1(problems: Problems) -> Answer:
    slack = CAR[1] - max(CAR[0], CAR[2]) - 1  # what the true class has beyond the margin
    rng = np.random.default_rng(0)
    sizes = np.array([0.1, 0.5, slack / 2, 1.2, 2.0])
    worst = []
    for size in sizes:
        changes = size * np.vstack([rng.uniform(-1, 1, (1000, 3)), [[1, -1, 1]]])
        worst.append(losses_of(CAR + changes, [1] * 1001).max())
    assert_allclose(worst[:3], 0, atol=1e-15)
    assert_array_less(0, worst[3:])
    return Answer(
        f"Nothing: its true score is {slack:.1f} beyond the margin, so no score that moves by less "
        f"than {slack / 2:.2f} can cost anything.",
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
        "0, as soon as the true score is ahead by the margin; no largest: it grows as the true "
        "score falls behind, in proportion.",
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
        f"{formula} = {expected(C):.4g}, for {C} classes: the first thing to check when a training "
        f"starts. ({images.told}.)",
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
        "Every loss is larger by the margin, 1; the gradient, and so the best W, is the same.",
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
        # The gradient is smaller by C - 1: so must the step be larger.
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
        "Nothing that matters: the loss and its gradient are smaller by C - 1, so steps larger by "
        "C - 1 lead to the same W.",
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
        f"Another loss, with another best W: large violations weigh more. The frog is "
        f"{ratios[0]:.1f} times as bad as the cat by the hinge, {ratios[1]:.1f} times squared.",
        _of_the_lesson(["hinge", "squared"], losses),
    )


@question("svm-q7", "Suppose a W has a loss of 0. Is it the only one?")
def svm_q7(problems: Problems) -> Answer:
    images = problems.cifar10
    W = _overfitted(images, "hinge").W
    plain, penalised = (images.objective("hinge", 20, l2=l2) for l2 in (0.0, 1.0))
    factors = [1.0, 2.0, 10.0]
    losses = [plain.loss(factor * W) for factor in factors]
    assert_array_equal(losses, 0)
    with_penalty = [penalised.loss(factor * W) for factor in factors]
    assert_allclose(with_penalty[1] / with_penalty[0], 4, rtol=1e-5)
    return Answer(
        "No: 2W has it too, and so has every larger multiple. A penalty prefers the smallest.",
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
        "0 is a limit that no finite scores reach; there is no largest. The SVM's loss is 0 from a "
        "lead of 1 on, this one always asks for more.",
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
    assert_allclose(hinge[:, 1], [1, 0, 0])  # the second row is at the margin, not beyond it
    assert_array_less(softmax[1:], softmax[:-1])
    assert softmax[1, 1] > 100 * softmax[1, 0] > 100 * 100 * softmax[1, 2]
    return Answer(
        "The SVM's loss is 0 for all three: how far a true score is beyond the margin does not "
        "matter to it, and only the second, which is just at the margin, feels a move. Softmax "
        "tells the three apart, and gains from every move of the true score, for ever.",
        table(
            [
                "scores, the first is true",
                *(f"{loss}, {move}" for loss in ("hinge", "softmax") for move in shown),
            ],
            zip(("10, -2, 3", "10, 9, 9", "10, -100, -100"), *hinge, *softmax, strict=True),
        ),
    )


# What a practitioner checks


@question("initial-loss", "Is the first loss what it should be?")
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
        "If it is not, the loss, the scale of the start or the data are wrong, before anything was "
        "trained.",
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
        "It must, at the same W: the data loss stays, the penalty grows in proportion.",
        table(
            ["l2", "data loss", "penalty", "loss"],
            [[l2, *both, sum(both)] for l2, both in zip(strengths, terms, strict=True)],
            0,
        ),
    )


@question("overfit", "Can it learn 20 rows by heart?")
def overfit(problems: Problems) -> Answer:
    images = problems.cifar10
    rows = images.train.rows(slice(20))
    results = {loss: _overfitted(images, loss) for loss in ("hinge", "softmax")}
    for result in results.values():
        predictions = (rows.X @ result.W[:-1] + result.W[-1]).argmax(axis=1)
        assert_array_equal(predictions, rows.y)
    assert results["hinge"].loss == 0.0
    assert 0.0 < results["softmax"].loss < 0.01
    return Answer(
        "Yes, all 20: the SVM's loss reaches 0 exactly, softmax's comes close. A model that cannot "
        "do that has a bug.",
        table(
            ["loss", "at the start", "at the end", "steps of gradient descent"],
            [
                [loss, result.history.column("loss")[0], result.loss, result.n_steps]
                for loss, result in results.items()
            ],
        ),
    )


def _overfitted(images: Images, loss: str) -> optim.Result:
    """Gradient descent on 20 rows, until the loss is as good as 0."""
    return optim.minimize(
        images.objective(loss, 20),
        np.zeros_like(images.weights(0.0)),
        optim.GradientDescent(lr=1e-6, line_search=True),
        max_steps=1000,
        callback=lambda record: record.loss < 1e-3,
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
        "Both weights give x = [1, 1, 1, 1] the same score. L2 prefers the weights that are spread "
        "out; L1 does not mind, so the data decide, and weights that do not pay become 0.",
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
        "L1 leaves few, L2 nearly all. A subgradient step passes 0 by, so it leaves weights that "
        "are tiny but not 0; a proximal step makes them 0. Pixels that are the same in every image "
        f"do not count. ({images.told}; softmax, l1 = 3e-4 or l2 = 1e-3, 150 steps.)",
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
    # Each wrong class of a row bends its line once, as a rule between two points of the grid.
    assert 1 <= counts["hinge", 1] <= 2 * (images.train.n_classes - 1)
    assert counts["softmax", 1] > 10 * counts["hinge", 1]
    return Answer(
        "A bowl: it is convex. For one row the SVM's is made of straight pieces, that bend where a "
        "class reaches the margin; the mean of many rows looks smooth, and softmax is.",
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
        "A bowl again, with one lowest point. The scores of W, W1 and W2 give it all, so X is read "
        f"once for the {losses.size} points.",
        table(
            ["", "a", "b", "loss"],
            [
                ["W", 0.0, 0.0, losses[10, 10]],
                ["lowest", *steps[list(lowest)], losses[lowest]],
                ["highest", *steps[list(highest)], losses[highest]],
            ],
        ),
    )


def main() -> None:
    """Ask the questions named, or all."""
    from rich.console import Console

    parser = argparse.ArgumentParser(description="Answer the lecture's questions by computing.")
    parser.add_argument("names", nargs="*", metavar="name", help="of a question; all unless given")
    parser.add_argument("--list", action="store_true", help="only name the questions")
    parser.add_argument("--data-folder", type=Path, help="holds cifar-10-batches-bin and mnist")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in QUESTIONS]:
        parser.error(f"no question is called {unknown[0]!r}; there are {', '.join(QUESTIONS)}")
    console = Console(highlight=False)
    with clear_errors(parser):
        problems = Problems(data_folder(arguments.data_folder))
        for name in arguments.names or QUESTIONS:
            asked = QUESTIONS[name]
            console.print(f"[bold]{name}: {asked.asked}[/bold]")
            if not arguments.list:
                answer = asked.answer(problems)
                console.print(answer.said, answer.table.rich(), sep="\n")


if __name__ == "__main__":
    main()
