"""Write GALLERY.md and its pictures, light and dark, from computed numbers.

python bench/gallery.py --data-folder path      # or: make gallery DATA=path

``path`` holds ``cifar-10-batches-bin`` and ``mnist``. Without it, synthetic data stand in, and the
page says so. It takes about four minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from asking import Problems, losses_of
from experiments import (
    LECTURE,
    RUNGS,
    Images,
    Penalised,
    cifar10,
    clear_errors,
    climb,
    data_folder,
    ladder,
    mnist,
    sparsity,
)
from questions import QUESTIONS

from fastloss import files, optim, plots, slices
from fastloss.arrays import Floats
from fastloss.plots import SERIES, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
SVM_L2 = 3e4
PICTURES = Path("bench") / "plots" / "gallery"


@dataclass(frozen=True)
class Effort:
    """Amounts of computation."""

    n_evaluations: int = 1000  # of each rung of the ladder
    n_seeds: int = 10  # of random search
    n_epochs: int = 30
    n_rows: int | None = None  # of MNIST; None: all
    n_steps: int = 300  # of each penalty


@dataclass(frozen=True)
class Studio:
    """Data and trained weights for the pictures, computed once, and the folder for the pictures."""

    folder: Path | None
    out: Path = ROOT
    effort: Effort = Effort()

    def stem(self, name: str) -> Path:
        return self.out / PICTURES / name

    @cached_property
    def cifar10(self) -> Images:
        return cifar10(self.folder)

    @cached_property
    def mnist(self) -> Images:
        return mnist(self.folder, self.effort.n_rows)

    @cached_property
    def svm_on_cifar10(self) -> optim.Result:
        """SVM on CIFAR-10, with a penalty large enough for visible templates."""
        method = optim.SGD(lr=3e-7, schedule=optim.Cosine(self.effort.n_epochs))
        return self._train(self.cifar10, "hinge", SVM_L2, method, self.cifar10.weights(1e-6))

    @cached_property
    def softmax_on_mnist(self) -> dict[str, optim.Result]:
        """Softmax on MNIST, by method."""
        schedule = optim.Cosine(self.effort.n_epochs)
        methods: dict[str, optim.Method] = {
            "SGD": optim.SGD(lr=0.1, schedule=schedule),
            "with momentum": optim.SGD(lr=0.1, momentum=0.9, schedule=schedule),
            "Adam": optim.Adam(lr=1e-3, schedule=schedule),
        }
        start = self.mnist.weights(0.0)
        return {
            name: self._train(self.mnist, "softmax", 1e-5, method, start)
            for name, method in methods.items()
        }

    def _train(
        self, images: Images, loss: str, l2: float, method: optim.Method, start: Floats
    ) -> optim.Result:
        return optim.minimize(
            images.objective(loss, l2=l2),
            start,
            method,
            max_epochs=self.effort.n_epochs,
            validation=images.accuracy,
        )


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
    accuracies = {
        name: result.history.column("validation_accuracy") for name, result in rungs.items()
    }
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
    return Entry(
        "ladder",
        "From random search to SGD",
        f"Four methods from the same start, with {n_evaluations:,} evaluations of the SVM loss "
        f"each (SGD's batches count in part). {_told(studio.cifar10)} SGD reaches "
        f"{percent(accuracies['SGD'][min(10, n_evaluations)])} after 10 evaluations; gradient "
        f"descent ends at {percent(accuracies['gradient descent'][-1])}. Random search ends at "
        f"{percent(float(np.mean(ends)))} on average over {n_seeds} seeds ({percent(min(ends))} to "
        f"{percent(max(ends))}); the lecture reports {percent(LECTURE['random search'])} on all of "
        "CIFAR-10. The learning rates were chosen on the held-out rows.",
    )


def draw_loss_curves(studio: Studio) -> Entry:
    """Draw loss and accuracy of three methods on MNIST."""
    runs = studio.softmax_on_mnist
    plots.plot_loss_curves(
        {name: run.history for name, run in runs.items()},
        studio.stem("loss-curves"),
        against="epoch",
        text="Softmax on handwritten digits" if studio.folder else "Softmax",
    )
    best = min(runs, key=lambda name: runs[name].loss)
    return Entry(
        "loss-curves",
        "Loss and accuracy while training",
        "Batches of 256 rows, and learning rates that fall along half a cosine. Lowest final loss: "
        f"{best}, {runs[best].loss:.4f}. {_told(studio.mnist)}",
    )


def draw_cifar10_templates(studio: Studio) -> Entry:
    """Draw the weights of the SVM as images."""
    images, W = studio.cifar10, studio.svm_on_cifar10.W
    shape, names = images.train.image_shape or (), images.train.class_names
    plots.plot_templates(W, shape, names, studio.stem("templates-cifar10"))
    return Entry(
        "templates-cifar10",
        "What a linear classifier looks for in CIFAR-10",
        "The classifier has one image per class, which must represent all poses. SVM, "
        f"l2 = {SVM_L2:,.0f}, accuracy {percent(images.accuracy(W))}. {_told(images)}",
    )


def draw_mnist_templates(studio: Studio) -> Entry:
    """Draw the weights of softmax as images."""
    images, W = studio.mnist, _end_of(studio.softmax_on_mnist)
    shape, names = images.train.image_shape or (), images.train.class_names
    plots.plot_templates(W, shape, names, studio.stem("templates-mnist"))
    return Entry(
        "templates-mnist",
        "What a linear classifier looks for in digits",
        "Ink in places of one colour is evidence for the class, in places of the other colour "
        f"against it. {_told(images)}",
    )


def draw_confusion(studio: Studio) -> Entry:
    """Draw the confusion matrix of softmax on digits."""
    images, W = studio.mnist, _end_of(studio.softmax_on_mnist)
    counts = images.confusion(W)
    names = images.train.class_names
    plots.plot_confusion(counts, names, studio.stem("confusion"))
    wrong = counts - np.diag(np.diag(counts))
    i, j = np.unravel_index(wrong.argmax(), wrong.shape)
    return Entry(
        "confusion",
        "Which digits are confused",
        f"The most frequent error, made {wrong[i, j]} times, is to take {names[i]} for {names[j]}. "
        + _told(images),
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
        f"At a lead of 2 the hinge loss is 0, and softmax is still {at_2:.2f}. At a large negative "
        "lead both grow linearly; the squared hinge grows faster.",
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
    bends = int((np.diff(curves["hinge, one row"], 2) > 1e-6).sum())
    return Entry(
        "slice-line",
        "The loss along a line",
        f"The hinge loss of one row is piecewise linear: it bends at {bends} of {len(a)} points. "
        f"Every curve is convex. {_told(images)}",
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
        "L(W + a W1 + b W2), where W1 is the step from the start to the trained W. The lowest of "
        f"the {losses.size:,} points, {losses[i, j]:.3f}, is at a = {a[i]:.2f}, b = {b[j]:.2f}; "
        f"the loss at W is {losses[40, 30]:.3f}. {_told(images)}",
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
        f"L1 with a proximal step sets {percent(proximal.share_zero)} of the weights to 0. With a "
        f"subgradient it sets {percent(found['L1, subgradient'].share_zero)} to 0, but makes "
        f"{percent(found['L1, subgradient'].share_small)} smaller than a thousandth of the "
        f"largest. L2 leaves {percent(1 - found['L2'].share_small)} above that size. Accuracies: "
        + "; ".join(f"{name} {percent(each.accuracy)}" for name, each in found.items())
        + f". Softmax, l1 = {l1:g} or l2 = {l2:g}, {n_steps} steps. {_told(images)}",
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
        f"Colours show weights relative to the largest weight of each penalty. {_told(images)}",
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


def _end_of(runs: dict[str, optim.Result]) -> Floats:
    """Return the weights with the lowest loss."""
    return min(runs.values(), key=lambda run: run.loss).W


def _told(images: Images) -> str:
    return f"*{images.told}.*"


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


def page(entries: list[Entry], studio: Studio) -> Iterator[str]:
    """Yield the lines of GALLERY.md."""
    sources = {images.train.source for images in (studio.cifar10, studio.mnist)}
    yield "# Gallery"
    yield "\n<!-- Written by bench/gallery.py; do not edit. -->\n"
    yield "Pictures of the losses, after Stanford CS231n's lectures on loss functions and"
    yield "optimization. One command computes and draws them all:\n"
    yield "```\nmake gallery DATA=path/to/data\n```\n"
    yield "The folder holds `cifar-10-batches-bin` and `mnist`; without `DATA`, synthetic problems"
    yield f"stand in. The data here: {'; '.join(sorted(sources))}."
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
    yield "`python bench/questions.py` computes the answers and asserts them; it accepts names of"
    yield "questions."
    problems = Problems(studio.folder)
    for name, question in QUESTIONS.items():
        answer = question.answer(problems)
        yield f"\n### {question.asked}\n\n`{name}` {answer.said}\n"
        yield answer.table.markdown()


def main() -> None:
    """Draw everything, then write the page."""
    parser = argparse.ArgumentParser(description="Write GALLERY.md and its pictures.")
    parser.add_argument("--data-folder", type=Path, help="holds cifar-10-batches-bin and mnist")
    parser.add_argument("--out", type=Path, default=ROOT, help="where GALLERY.md goes")
    arguments = parser.parse_args()
    with clear_errors(parser):
        studio = Studio(data_folder(arguments.data_folder), arguments.out)
        entries = []
        for entry in draw_all(studio):
            print(f"{PICTURES / entry.name}: {entry.title}", flush=True)
            entries.append(entry)
        files.write(arguments.out / "GALLERY.md", "\n".join(page(entries, studio)) + "\n")


if __name__ == "__main__":
    main()
