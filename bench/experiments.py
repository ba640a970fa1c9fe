"""What the lecture's questions and the gallery compute: data, the ladder, penalties, directions.

The data sets' own files are read from a folder that holds ``cifar-10-batches-bin`` and ``mnist``
(CIFAR-10: A. Krizhevsky, 2009; MNIST: Y. LeCun, C. Cortes and C. Burges). Without it, synthetic
problems of the same kind stand in.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastloss
from fastloss import data, optim
from fastloss.arrays import Floats

#: Names the folder of the data where no argument does.
DATA_VARIABLE = "FASTLOSS_DATA"
_N_TRAIN, _N_HELD_OUT = 3500, 500


@dataclass(frozen=True)
class Images:
    """Rows to train on and rows held out, float32, without the mean of the former."""

    train: data.Dataset
    held_out: data.Dataset

    def objective(self, loss: str, n_rows: int | None = None, **options: Any) -> fastloss.Objective:
        """Of the first ``n_rows`` to train on, with a bias."""
        rows = self.train.rows(slice(n_rows))
        return fastloss.Objective(rows.X, rows.y, loss=loss, intercept=True, **options)

    def weights(self, scale: float, seed: int = 0) -> Floats:
        """A random start, bias included."""
        shape = self.train.X.shape[1] + 1, self.train.n_classes
        rng = np.random.default_rng(seed)
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    def predictions(self, W: Floats) -> NDArray[np.intp]:
        """Of the rows held out."""
        return (self.held_out.X @ W[:-1] + W[-1]).argmax(axis=1)

    def accuracy(self, W: Floats) -> float:
        """On the rows held out."""
        return float((self.predictions(W) == self.held_out.y).mean())

    def confusion(self, W: Floats) -> NDArray[np.int64]:
        """Counts of the rows held out: true class by predicted class."""
        counts = np.zeros((self.train.n_classes,) * 2, np.int64)
        np.add.at(counts, (self.held_out.y, self.predictions(W)), 1)
        return counts

    @property
    def told(self) -> str:
        """What they are, for a caption."""
        sizes = f"{len(self.train):,} rows to train on, {len(self.held_out):,} held out"
        return f"{self.train.name}, {sizes}"


def _images(train: data.Dataset, held_out: data.Dataset, scale: float) -> Images:
    mean = train.X.mean(axis=0, dtype=np.float64)

    def centred(part: data.Dataset) -> data.Dataset:
        return replace(part, X=((part.X - mean) * scale).astype(np.float32))

    return Images(centred(train), centred(held_out))


def _stand_in(n_rows: int, image_shape: tuple[int, ...], scale: float) -> Images:
    """Half of the pixels say nothing of the class, as the corners of most photographs do."""
    n_pixels = math.prod(image_shape)
    rows = data.synthetic(n_rows + _N_HELD_OUT, n_pixels // 2, 10, seed=0)
    noise = np.random.default_rng(0).standard_normal((len(rows), n_pixels // 2), np.float32)
    X = np.concatenate([rows.X, noise], axis=1)
    rows = replace(rows, X=X, name="synthetic", image_shape=image_shape)
    return _images(rows.rows(slice(n_rows)), rows.rows(slice(n_rows, None)), scale)


def data_folder(given: Path | None) -> Path | None:
    """The folder given, else the environment's; one that is named must be there."""
    named = given or (Path(os.environ[DATA_VARIABLE]) if DATA_VARIABLE in os.environ else None)
    if named is not None and not named.is_dir():
        raise FileNotFoundError(f"the folder of the data is not there: {named}")
    return named


@contextmanager
def clear_errors(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Data that are missing or damaged end a script in one line."""
    try:
        yield
    except (FileNotFoundError, data.DataFormatError) as error:
        parser.error(str(error))


def cifar10(folder: Path | None) -> Images:
    """The lecture's problem: 3,500 images to train on, 500 held out; pixels of 0 to 255."""
    if folder is None:
        # Pixels of CIFAR-10 have a standard deviation of about 64.
        return _stand_in(_N_TRAIN, (3, 8, 8), 64.0)
    rows = data.load(folder / "cifar-10-batches-bin")
    end = min(len(rows), _N_TRAIN + _N_HELD_OUT)
    n_train = end - _N_HELD_OUT
    return _images(rows.rows(slice(n_train)), rows.rows(slice(n_train, end)), 1.0)


def mnist(folder: Path | None, n_rows: int | None = None) -> Images:
    """The first ``n_rows`` images to train on, all those of the test set; pixels of 0 to 1."""
    if folder is None:
        return _stand_in(n_rows or _N_TRAIN, (10, 10), 0.25)
    rows = data.load(folder / "mnist").rows(slice(n_rows))
    return _images(rows, data.load(folder / "mnist", "test"), 1 / 255)


# The ladder

#: What the lecture reports after 1000 tries, on all of CIFAR-10.
LECTURE = {"random search": 0.155, "random local search": 0.214}


def ladder(images: Images, n_evaluations: int = 1000, seed: int = 0) -> dict[str, optim.Result]:
    """The lecture's four ways down, from one start, each with as many evaluations of the loss.

    An evaluation is one of all rows: SGD's batches of 256 count in part. The loss is the SVM's
    without a penalty, the pixels are 0 to 255 less their mean, the start is 1e-4 randn. Learning
    rates are those with the best accuracy on the rows held out.
    """
    return {name: climb(images, method, n_evaluations, seed) for name, method in RUNGS.items()}


RUNGS: Mapping[str, optim.Method] = {
    "random search": optim.RandomSearch(scale=1e-4),
    "random local search": optim.RandomLocalSearch(step=1e-4),
    "gradient descent": optim.GradientDescent(lr=3e-8),
    "SGD": optim.SGD(lr=1e-7, schedule=optim.ExponentialDecay(0.1)),
}


def climb(images: Images, method: optim.Method, n_evaluations: int, seed: int) -> optim.Result:
    """One method of the ladder."""
    return optim.minimize(
        images.objective("hinge"),
        images.weights(1e-4, seed),
        method,
        max_evaluations=n_evaluations,
        tolerance=0.0,
        seed=seed,
        validation=images.accuracy,
    )


# L1 against L2


@dataclass(frozen=True)
class Penalised:
    """Weights that a penalty has left, of pixels that are not the same in every image."""

    W: Floats
    sizes: NDArray[np.floating[Any]]  # |w| of each, the bias left out
    accuracy: float

    @property
    def share_zero(self) -> float:
        """Of the weights."""
        return float((self.sizes == 0).mean())

    @property
    def share_small(self) -> float:
        """Of the weights: below a thousandth of the largest."""
        return float((self.sizes < 1e-3 * self.sizes.max()).mean())


def sparsity(images: Images, l1: float, l2: float, n_steps: int) -> dict[str, Penalised]:
    """Softmax without a penalty, with L2, with L1 by its subgradient, and with L1 by its proximal
    operator: as many steps of gradient descent with momentum, at the same learning rate."""
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

    A step with a subgradient of ``|w|`` passes 0 by; shrinking stops there, so zeros are exact.
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
    """1 / L, L being the largest curvature that softmax can have: half that of ``X.T @ X / N``."""
    X = images.train.X.astype(np.float64)
    return 2.0 / (float(np.linalg.eigvalsh(X.T @ X / len(X))[-1]) + 1.0)  # 1: the bias


def overfitted(images: Images, loss: str) -> optim.Result:
    """Gradient descent on 20 rows, until the loss is as good as 0."""
    return optim.minimize(
        images.objective(loss, 20),
        np.zeros_like(images.weights(0.0)),
        optim.GradientDescent(lr=1e-6, line_search=True),
        max_steps=1000,
        callback=lambda record: record.loss < 1e-3,
    )
