"""Experiments for the lecture's questions and the gallery: data, the ladder, and penalties.

The data sets are read from a folder that holds ``cifar-10-batches-bin`` and ``mnist`` (CIFAR-10: A.
Krizhevsky, 2009; MNIST: Y. LeCun, C. Cortes and C. Burges). Without it, similar synthetic problems
stand in.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastloss
from fastloss import data, optim
from fastloss.arrays import Floats

#: Environment variable for the folder of the data, used if no argument names it.
DATA_VARIABLE = "FASTLOSS_DATA"
_N_TRAIN, _N_HELD_OUT = 3500, 500


@dataclass(frozen=True)
class Images:
    """Training rows and held-out rows, float32, less the mean of the training rows."""

    train: data.Dataset
    held_out: data.Dataset

    def objective(self, loss: str, n_rows: int | None = None, **options: Any) -> fastloss.Objective:
        """Return the objective of the first ``n_rows`` training rows, with a bias."""
        rows = self.train.rows(slice(n_rows))
        return fastloss.Objective(rows.X, rows.y, loss=loss, intercept=True, **options)

    def weights(self, scale: float, seed: int = 0) -> Floats:
        """Return random weights for a start, including the bias."""
        shape = self.train.X.shape[1] + 1, self.train.n_classes
        rng = np.random.default_rng(seed)
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    def predictions(self, W: Floats) -> NDArray[np.intp]:
        """Predict the classes of the held-out rows."""
        return (self.held_out.X @ W[:-1] + W[-1]).argmax(axis=1)

    def accuracy(self, W: Floats) -> float:
        """Return the accuracy on the held-out rows."""
        return float((self.predictions(W) == self.held_out.y).mean())

    def noise(self, accuracy: float) -> float:
        """Return the half width of an accuracy's 95 % interval on the held-out rows."""
        return 1.96 * math.sqrt(accuracy * (1 - accuracy) / len(self.held_out))

    def confusion(self, W: Floats) -> NDArray[np.int64]:
        """Count the held-out rows by true class and predicted class."""
        counts = np.zeros((self.train.n_classes,) * 2, np.int64)
        np.add.at(counts, (self.held_out.y, self.predictions(W)), 1)
        return counts

    def told(self, n_rows: int | None = None) -> str:
        """Name, rows (or the first ``n_rows``) and features of the training data, for a caption."""
        n_features = f"{self.train.X.shape[1]:,} features"
        if n_rows is not None:
            return f"The first {n_rows} rows of {self.train.name}, {n_features}"
        return f"{self.train.name}, {len(self.train):,} rows of {n_features}"

    @property
    def told_with_held_out(self) -> str:
        """Name and number of the rows, for a caption about accuracy."""
        part = "" if self.held_out.name == self.train.name else f"of {self.held_out.name} "
        return f"{self.told()} to train on, {len(self.held_out):,} rows {part}held out"


def _images(train: data.Dataset, held_out: data.Dataset, scale: float) -> Images:
    mean = train.X.mean(axis=0, dtype=np.float64)

    def centred(part: data.Dataset) -> data.Dataset:
        return replace(part, X=((part.X - mean) * scale).astype(np.float32))

    return Images(centred(train), centred(held_out))


def _stand_in(of: str, n_rows: int, image_shape: tuple[int, ...], scale: float) -> Images:
    """Make a synthetic problem in place of a data set.

    Half of its pixels are noise, like the corners of photographs.
    """
    n_pixels = math.prod(image_shape)
    rows = data.synthetic(n_rows + _N_HELD_OUT, n_pixels // 2, 10, seed=0)
    noise = np.random.default_rng(0).standard_normal((len(rows), n_pixels // 2), np.float32)
    X = np.concatenate([rows.X, noise], axis=1)
    name = f"synthetic stand-in for {of}"
    rows = replace(rows, X=X, name=name, image_shape=image_shape)
    return _images(rows.rows(slice(n_rows)), rows.rows(slice(n_rows, None)), scale)


def data_folder(given: Path | None) -> Path | None:
    """Return the given folder, or that in the environment, or None; raise if it is missing."""
    named = given or (Path(os.environ[DATA_VARIABLE]) if DATA_VARIABLE in os.environ else None)
    if named is not None and not named.is_dir():
        raise FileNotFoundError(f"the data folder does not exist: {named}")
    return named


def cifar10(folder: Path | None) -> Images:
    """Load the lecture's problem: 3,500 training images, 500 held out, pixels of 0 to 255."""
    if folder is None:
        # Pixels of CIFAR-10 have a standard deviation of about 64.
        return _stand_in("CIFAR-10", _N_TRAIN, (3, 8, 8), 64.0)
    rows = data.load(folder / "cifar-10-batches-bin")
    end = min(len(rows), _N_TRAIN + _N_HELD_OUT)
    n_train = end - _N_HELD_OUT
    return _images(rows.rows(slice(n_train)), rows.rows(slice(n_train, end)), 1.0)


def mnist(folder: Path | None, n_rows: int | None = None) -> Images:
    """Load the first ``n_rows`` training images and the test set; pixels of 0 to 1."""
    if folder is None:
        return _stand_in("MNIST", n_rows or _N_TRAIN, (10, 10), 0.25)
    rows = data.load(folder / "mnist").rows(slice(n_rows))
    return _images(rows, data.load(folder / "mnist", "test"), 1 / 255)


# The ladder

#: Accuracies in the lecture after 1000 tries, on all of CIFAR-10.
LECTURE = {"random search": 0.155, "random local search": 0.214}


def ladder(images: Images, n_evaluations: int = 1000, seed: int = 0) -> dict[str, optim.Result]:
    """Run the lecture's four methods from one start, with the same number of evaluations.

    An evaluation covers all rows: SGD's batches of 256 count in part. The loss is the SVM loss
    without a penalty, pixels are 0 to 255 less their mean, and the start is 1e-4 randn. The
    learning rates gave the best accuracy on the held-out rows.
    """
    return {name: climb(images, method, n_evaluations, seed) for name, method in RUNGS.items()}


RUNGS: Mapping[str, optim.Method] = {
    "random search": optim.RandomSearch(scale=1e-4),
    "random local search": optim.RandomLocalSearch(step=1e-4),
    "gradient descent": optim.GradientDescent(lr=3e-8),
    "SGD": optim.SGD(lr=1e-7, schedule=optim.ExponentialDecay(0.1)),
}


def climb(images: Images, method: optim.Method, n_evaluations: int, seed: int) -> optim.Result:
    """Run one method of the ladder."""
    return optim.minimize(
        images.objective("hinge"),
        images.weights(1e-4, seed),
        method,
        max_evaluations=n_evaluations,
        tolerance=0.0,
        seed=seed,
        validation=images.accuracy,
    )


def kinks(objective: fastloss.Objective, W: Floats, W1: Floats, a: NDArray[Any]) -> int:
    """Count the kinks of ``L(W + a W1)`` between the first and the last ``a``, bias included.

    Second differences cannot: a kink between two points shows at both.
    """
    scores, change = (objective.X @ weights[:-1] + weights[-1] for weights in (W, W1))
    loss = objective.loss_function
    pieces = [loss.pieces(scores + step * change, objective.labels) for step in a]
    if pieces[0] is None:  # a smooth loss
        return 0
    return sum(int(np.count_nonzero(one != other)) for one, other in pairwise(pieces))


# L1 against L2


@dataclass(frozen=True)
class Penalised:
    """Weights trained with a penalty. Shares ignore pixels that are the same in every image."""

    W: Floats
    sizes: NDArray[np.floating[Any]]  # |w| without the bias and without those pixels
    accuracy: float

    @property
    def share_zero(self) -> float:
        """Share of the weights that are 0."""
        return float((self.sizes == 0).mean())

    @property
    def share_small(self) -> float:
        """Share of the weights below a thousandth of the largest."""
        return float((self.sizes < 1e-3 * self.sizes.max()).mean())


def sparsity(images: Images, l1: float, l2: float, n_steps: int) -> dict[str, Penalised]:
    """Train softmax without a penalty, with L2, and with L1 by subgradient and by proximal steps.

    All four take the same number of steps with momentum at the same learning rate.
    """
    lr = _safe_rate(images)
    start = np.zeros_like(images.weights(0.0))

    def descend(**penalty: Any) -> Floats:
        method = optim.GradientDescent(lr=lr, momentum=0.9)
        objective = images.objective("softmax", **penalty)
        return optim.minimize(objective, start, method, max_steps=n_steps, tolerance=0.0).W

    every = {
        "no penalty": descend(),
        "L2": descend(l2=l2),
        "L1, subgradient": descend(l1=l1),
        "L1, proximal": proximal_descent(images.objective("softmax"), start, l1, lr, n_steps),
    }
    varies = images.train.X.any(axis=0)
    return {
        name: Penalised(W, np.abs(W[:-1][varies]).ravel(), images.accuracy(W))
        for name, W in every.items()
    }


def proximal_descent(
    objective: fastloss.Objective, W: Floats, l1: float, lr: float, n_steps: int
) -> Floats:
    """Minimise ``objective + l1 sum|W|``, the bias left out, by accelerated proximal steps::

        W <- shrink(V - lr grad(V)),   shrink(w) = sign(w) max(|w| - lr l1, 0)

    A step with a subgradient of ``|w|`` jumps over 0; shrinking stops at 0, so zeros are exact.
    Source: Beck and Teboulle, *A fast iterative shrinkage-thresholding algorithm*, 2009.
    """
    rate, threshold = W.dtype.type(lr), W.dtype.type(lr * l1)
    V = W
    for k in range(n_steps):
        following = V - rate * objective(V)[1]
        weights = following[:-1]
        weights[...] = np.sign(weights) * np.maximum(np.abs(weights) - threshold, 0)
        V = following + W.dtype.type(k / (k + 3)) * (following - W)
        W = following
    return W


def _safe_rate(images: Images) -> float:
    """Return 1 / L for softmax's largest curvature L, half the top eigenvalue of X.T @ X / N."""
    X = images.train.X.astype(np.float64)
    return 2.0 / (float(np.linalg.eigvalsh(X.T @ X / len(X))[-1]) + 1.0)  # 1: the bias


def overfitted(images: Images, loss: str) -> optim.Result:
    """Run gradient descent on 20 rows until the loss is below 1e-3."""
    return optim.minimize(
        images.objective(loss, 20),
        np.zeros_like(images.weights(0.0)),
        optim.GradientDescent(lr=1e-6, line_search=True),
        max_steps=1000,
        callback=lambda record: record.loss < 1e-3,
    )
