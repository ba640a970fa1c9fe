"""Write GALLERY.md and its pictures, light and dark, from computed numbers.

python bench/gallery.py --data-folder path      # or: make gallery DATA=path

``path`` holds ``cifar-10-batches-bin`` and ``mnist``. Without it, synthetic data stand in, and the
page says so. It takes about four minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from asking import Answer, Problems, clear_errors, losses_of
from experiments import (
    LECTURE,
    RUNGS,
    Images,
    Penalised,
    climb,
    data_folder,
    kinks,
    ladder,
    sparsity,
)
from questions import QUESTIONS
from studio import PICTURES, ROOT, SOFTMAX_L2, SVM_L2, Studio

from fastloss import files, optim, plots, slices
from fastloss.arrays import Floats
from fastloss.plots import SERIES, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Entry:
    """A picture on the page: its file stem, title and explanation."""

    name: str
    title: str
    see: str


def draw_ladder(studio: Studio) -> Entry:
    """Draw the accuracy of the lecture's ladder of methods."""
    n_evaluations, n_seeds = studio.effort.n_evaluations, studio.effort.n_seeds
    rungs = ladder(studio.cifar10, n_evaluations)
    plots.plot_ladder(
        {name: result.history for name, result in rungs.items()},
        studio.stem("ladder"),
        text="A gradient is worth more than a thousand guesses",
        remarks={name: f" (lecture {percent(share)})" for name, share in LECTURE.items()},
    )
    method = RUNGS["random search"]
    ends = [
        climb(studio.cifar10, method, n_evaluations, seed).history[-1].validation_accuracy or 0.0
        for seed in range(n_seeds)
    ]
    early = min(10, n_evaluations)
    soon, at_the_end = (
        " and ".join(
            f"{name} {percent(_accuracy_after(n, rungs[name]))}"
            for name in ("SGD", "gradient descent")
        )
        for n in (early, n_evaluations)
    )
    return Entry(
        "ladder",
        "From random search to SGD",
        "Accuracy on the held-out rows of four methods that minimise the SVM loss from the same "
        f"start. Each evaluates the loss of all training rows {n_evaluations:,} times; a batch of "
        f"SGD counts as the share of the rows that it has. Accuracy after {early} evaluations: "
        f"{soon}; after {n_evaluations:,}: {at_the_end}. "
        f"Random search ends at {percent(float(np.mean(ends)))} on average over {n_seeds} seeds "
        f"({percent(min(ends))} to {percent(max(ends))}); the picture shows the first. The "
        f"lecture reports {percent(LECTURE['random search'])} for random search on all of "
        "CIFAR-10. The learning rates were chosen on the held-out rows. " + _told(studio.cifar10),
    )


def _accuracy_after(n_evaluations: int, run: optim.Result) -> float:
    """Return the accuracy on the held-out rows at the last record until ``n_evaluations``."""
    reached = run.history.column("evaluations") <= n_evaluations
    return float(run.history.column("validation_accuracy")[reached][-1])


def draw_loss_curves(studio: Studio) -> Entry:
    """Draw loss and accuracy of three methods on MNIST."""
    runs = studio.softmax_on_mnist
    plots.plot_loss_curves(
        {name: run.history for name, run in runs.items()},
        studio.stem("loss-curves"),
        against="epoch",
        text="Softmax on handwritten digits" if studio.problems.folder else "Softmax",
    )
    best, _ = _best_of(runs)
    return Entry(
        "loss-curves",
        "Loss and accuracy while training",
        f"Softmax with l2 = {SOFTMAX_L2:g}, {studio.effort.n_epochs} epochs, batches of 256 rows. "
        "Learning rates fall along half a cosine. The loss is that of all training rows, the "
        f"accuracy that of the held-out rows. Lowest final loss: {best}, {runs[best].loss:.4f}. "
        + _told(studio.mnist),
    )


def draw_cifar10_templates(studio: Studio) -> Entry:
    """Draw the weights of the SVM as images."""
    images, W = studio.cifar10, studio.svm_on_cifar10.W
    shape, names = images.train.image_shape or (), images.train.class_names
    plots.plot_templates(W, shape, names, studio.stem("templates-cifar10"))
    data_loss, penalty = images.objective("hinge", l2=SVM_L2).terms(W)
    return Entry(
        "templates-cifar10",
        "What a linear classifier looks for in CIFAR-10",
        "The weights of each class as an image, which must represent all poses of the class. The "
        f"SVM was trained with l2 = {SVM_L2:,.0f}, so strong that the templates become smooth: the "
        f"penalty ends at {penalty:.2f}, beside a data loss of {data_loss:.2f}. l2 is large "
        f"because the pixels are (standard deviation {images.train.X.std():.0f}), and the weights "
        f"therefore small ({W[:-1].std():.1g}). For pixels divided by 255 the same penalty is l2 = "
        f"{SVM_L2 / 255**2:.2g}. Accuracy on the held-out rows: {percent(images.accuracy(W))}. "
        + _told(images),
    )


def draw_mnist_templates(studio: Studio) -> Entry:
    """Draw the weights of softmax as images."""
    images, (method, W) = studio.mnist, _best_of(studio.softmax_on_mnist)
    shape, names = images.train.image_shape or (), images.train.class_names
    plots.plot_templates(W, shape, names, studio.stem("templates-mnist"))
    return Entry(
        "templates-mnist",
        "What a linear classifier looks for in digits",
        "The weights of each class as an image. Ink in places of one colour is evidence for the "
        f"class, in places of the other colour against it. Softmax, trained as above by {method}; "
        f"accuracy on the held-out rows {percent(images.accuracy(W))}. {_told(images)}",
    )


def draw_confusion(studio: Studio) -> Entry:
    """Draw the confusion matrix of softmax on digits."""
    images, (method, W) = studio.mnist, _best_of(studio.softmax_on_mnist)
    counts = images.confusion(W)
    names = images.train.class_names
    plots.plot_confusion(counts, names, studio.stem("confusion"))
    wrong = counts - np.diag(np.diag(counts))
    i, j = np.unravel_index(wrong.argmax(), wrong.shape)
    return Entry(
        "confusion",
        "Which digits are confused",
        f"Counts of held-out rows, of which {wrong.sum()} of {counts.sum():,} are predicted wrong. "
        f"The most frequent error, made {wrong[i, j]} times, is to take {names[i]} for {names[j]}. "
        f"Softmax, trained as above by {method}. {_told(images)}",
    )


def draw_margins(studio: Studio) -> Entry:
    """Draw hinge and softmax against the lead of the true score."""
    lead = np.linspace(-3, 5, 161)
    rows = np.outer(lead, [1, 0, 0])
    labels = [0] * len(lead)
    plots.plot_slice(
        lead,
        {
            name.replace("_", " "): losses_of(rows, labels, name)
            for name in ("hinge", "softmax", "squared_hinge")
        },
        studio.stem("svm-against-softmax"),
        text="From a lead of 1 on the SVM is content, softmax never",
        xlabel="lead of the true score over the two others",
        highest=10.0,
    )
    at_2 = losses_of([[2.0, 0, 0]], [0], "softmax")[0]
    return Entry(
        "svm-against-softmax",
        "SVM against softmax",
        "The loss of one row of three classes, whose two wrong scores are equal. At a lead of 2 "
        f"the hinge loss is 0, and softmax is still {at_2:.2f}. At a large negative lead both grow "
        "linearly; the squared hinge grows faster.",
    )


def draw_line(studio: Studio) -> Entry:
    """Draw losses along a random line."""
    images = studio.cifar10
    W = images.weights(1e-4)
    W1 = slices.random_direction(W, seed=1)
    a = np.linspace(-20, 20, 401)
    curves = {
        f"{loss}, {name}": slices.line(images.objective(loss, n_rows), W, W1, a)
        for loss, name, n_rows in (
            ("hinge", "one row", 1),
            ("hinge", "100 rows", 100),
            ("softmax", "100 rows", 100),
        )
    }
    plots.plot_slice(
        a,
        curves,
        studio.stem("slice-line"),
        text="One row bends where a class reaches the margin; many look smooth",
        xlabel="a, in L(W + a W1); W1 random, as long as W",
    )
    n_kinks = kinks(images.objective("hinge", 1), W, W1, a)
    return Entry(
        "slice-line",
        "The loss along a line",
        f"The hinge loss of one row is piecewise linear, with {n_kinks} kinks: one for each class "
        "that reaches the margin between the ends. Every curve is convex. W is random with a "
        "standard deviation of "
        f"1e-4. *{images.told(100)}.*",
    )


def draw_plane(studio: Studio) -> Entry:
    """Draw losses on the plane through the start, the end and a random direction."""
    images, end = studio.cifar10, studio.svm_on_cifar10.W
    way = end - images.weights(1e-6)
    a, b = np.linspace(-2, 1, 61), np.linspace(-1.5, 1.5, 61)
    losses = slices.plane(
        images.objective("hinge", l2=SVM_L2), end, way, slices.random_direction(way, seed=1), a, b
    )
    plots.plot_surface(
        a,
        b,
        losses,
        studio.stem("slice-plane"),
        text="The loss around trained weights: a bowl",
        xlabel="a: -1 the start, 0 the end",
        ylabel="b, along a random W2",
    )
    i, j = np.unravel_index(losses.argmin(), losses.shape)
    return Entry(
        "slice-plane",
        "The loss on a plane",
        f"L(W + a W1 + b W2), where L is the SVM loss with l2 = {SVM_L2:,.0f}, W the weights that "
        "were trained for the templates of CIFAR-10, W1 the step from the start of that training "
        "to W, and W2 random and as long as W1. The lowest of the "
        f"{losses.size:,} points, {losses[i, j]:.3f}, is at a = {a[i]:.2f}, b = {b[j]:.2f}; "
        f"the loss at W is {losses[40, 30]:.3f}. *{images.told()}.*",
    )


def draw_sparsity(studio: Studio) -> Iterator[Entry]:
    """Draw the shares of small weights for each penalty, and the templates of L1 and L2."""
    l1, l2, n_steps = 3e-4, 1e-3, studio.effort.n_steps
    images = studio.mnist
    found = sparsity(images, l1, l2, n_steps)
    proximal = found["L1, proximal"]

    def draw(figure: Figure) -> None:
        _draw_shares(figure, found)

    plots.picture(draw, studio.stem("sparsity"))
    yield Entry(
        "sparsity",
        "L1 against L2: how many weights are left",
        "The share of the weights that are no larger than each size. "
        f"L1 with a proximal step sets {percent(proximal.share_zero)} of the weights to 0. With a "
        f"subgradient it sets {percent(found['L1, subgradient'].share_zero)} to 0, but makes "
        f"{percent(found['L1, subgradient'].share_small)} smaller than a thousandth of the "
        f"largest. L2 leaves {percent(1 - found['L2'].share_small)} above that size. Accuracies on "
        "the held-out rows: "
        + "; ".join(f"{name} {percent(each.accuracy)}" for name, each in found.items())
        + f". Softmax, l1 = {l1:g} or l2 = {l2:g}, {n_steps} steps on all rows, from W = 0. Pixels "
        f"that are the same in every image are left out of the shares. {_told(images)}",
    )
    names = images.train.class_names[:5]
    both = [found["L2"].W[:, :5], proximal.W[:, :5]]
    plots.plot_templates(
        np.concatenate([W / np.abs(W).max() for W in both], axis=1),
        images.train.image_shape or (),
        [f"{name}, {kind}" for kind in ("L2", "L1") for name in names],
        studio.stem("templates-l1-l2"),
        text="L2 spreads the weights out, L1 chooses pixels",
    )
    yield Entry(
        "templates-l1-l2",
        "L1 against L2: which weights are left",
        "The weights of five classes, from the training above: L2 in the first row, L1 with "
        "proximal steps in the second. Colours show weights relative to the largest weight of each "
        f"penalty. {_told(images)}",
    )


def _draw_shares(figure: Figure, found: dict[str, Penalised]) -> None:
    """Draw the share of weights below each size."""
    ax = figure.subplots()
    low = 1e-7
    ends = []
    for colour, (name, each) in zip(SERIES, found.items(), strict=False):
        sizes = np.sort(np.maximum(each.sizes, low))
        shares = np.arange(1, len(sizes) + 1) / len(sizes)
        every = max(len(sizes) // 500, 1)
        ax.plot(sizes[::every], shares[::every], color=colour)
        ends.append((float(np.interp(1e-3, sizes, shares)), name, colour))
    ax.set_xscale("log")
    ax.set_xlim(low, 1e-3)
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(lambda share, _: percent(share, 0))
    ax.set_xlabel("size of a weight, |w| (at the left edge: 0)")
    ax.set_ylabel("weights that are no larger")
    plots.label_ends(ax, ends)
    plots.heading(figure, "Only a proximal step makes weights exactly 0")


def _best_of(runs: dict[str, optim.Result]) -> tuple[str, Floats]:
    """Return the method that ended at the lowest loss, and its weights."""
    name = min(runs, key=lambda name: runs[name].loss)
    return name, runs[name].W


def _told(images: Images) -> str:
    return f"*{images.told_with_held_out}.*"


#: Drawing functions, in the order of the page.
DRAWN: tuple[Callable[[Studio], Entry | Iterator[Entry]], ...] = (
    draw_ladder,
    draw_loss_curves,
    draw_cifar10_templates,
    draw_mnist_templates,
    draw_confusion,
    draw_margins,
    draw_line,
    draw_plane,
    draw_sparsity,
)


def draw_all(studio: Studio) -> Iterator[Entry]:
    """Draw every picture, and yield its entry."""
    for draw in DRAWN:
        drawn = draw(studio)
        yield from [drawn] if isinstance(drawn, Entry) else drawn


def answers(problems: Problems) -> dict[str, Answer]:
    """Answer all questions of the lecture; raise `Refuted` if an answer does not hold."""
    return {name: question.answer(problems) for name, question in QUESTIONS.items()}


def page(entries: list[Entry], answered: dict[str, Answer], studio: Studio) -> Iterator[str]:
    """Yield the lines of GALLERY.md."""
    sources = {images.train.source for images in (studio.cifar10, studio.mnist)}
    yield "# Gallery"
    yield "\n<!-- Written by bench/gallery.py; do not edit. -->\n"
    yield "Pictures of the losses, after Stanford CS231n's lectures on loss functions and"
    yield "optimization. One command computes and draws them all:\n"
    yield "```\nmake gallery DATA=path/to/data\n```\n"
    yield "The folder holds `cifar-10-batches-bin` and `mnist`; without `DATA`, synthetic problems"
    yield f"stand in. {studio.problems.told} Sources: {'; '.join(sorted(sources))}."
    yield "Captions of data end with their rows."
    for entry in entries:
        yield f"\n## {entry.title}\n"
        yield plots.embed((PICTURES / entry.name).as_posix(), entry.title)
        yield f"\n{entry.see}"
    yield "\n## The lecture's demo\n"
    yield plots.embed("bench/plots/demo", "A linear classifier in the plane")
    yield "\n`fastloss demo` after 12 updates of softmax. Every number follows a point that is"
    yield "dragged. The surface is the loss over two of the nine parameters, with the path taken."
    yield "The browser tests take this picture; see CONTRIBUTING.md."
    yield "\n## The lecture's questions\n"
    yield "`python bench/questions.py --data-folder path/to/data` computes the answers again, and"
    yield "says so if one does not hold; it accepts names of questions."
    for name, answer in answered.items():
        yield f"\n### {QUESTIONS[name].asked}\n\n`{name}` {answer.said}\n\n*{answer.data}*\n"
        yield answer.table.markdown()


def main() -> None:
    """Draw everything, then write the page."""
    parser = argparse.ArgumentParser(description="Write GALLERY.md and its pictures.")
    parser.add_argument("--data-folder", type=Path, help="holds cifar-10-batches-bin and mnist")
    parser.add_argument("--out", type=Path, default=ROOT, help="where GALLERY.md goes")
    arguments = parser.parse_args()
    with clear_errors(parser):
        studio = Studio(Problems(data_folder(arguments.data_folder)), arguments.out)
        answered = answers(studio.problems)  # in seconds; the pictures take minutes
        entries = []
        for entry in draw_all(studio):
            print(f"{PICTURES / entry.name}: {entry.title}", flush=True)
            entries.append(entry)
        files.write(arguments.out / "GALLERY.md", "\n".join(page(entries, answered, studio)) + "\n")


if __name__ == "__main__":
    main()
