"""Questions of the lecture: their data, answers, claims and registry."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from experiments import Images, cifar10, mnist
from numpy.typing import ArrayLike, NDArray

import fastloss
from fastloss import data
from fastloss.tables import Table

Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Problems:
    """Data for the questions, loaded on first use; ``n_rows`` limits the rows of MNIST."""

    folder: Path | None = None
    n_rows: int | None = 5000

    @cached_property
    def cifar10(self) -> Images:
        return cifar10(self.folder)

    @cached_property
    def mnist(self) -> Images:
        return mnist(self.folder, self.n_rows)

    @property
    def told(self) -> str:
        """The data sets in a sentence, with the scale of their pixels."""
        if self.folder is None:
            return (
                "Data: synthetic stand-ins for CIFAR-10 and MNIST. They have fewer features, so "
                "penalties and accuracies differ from those of the real data."
            )
        return (
            "Data: CIFAR-10 with pixels of 0 to 255 and MNIST with pixels of 0 to 1, both less the "
            "mean of the training rows."
        )


@dataclass(frozen=True)
class Answer:
    """An answer in words, a table of its numbers, and the data that they are computed from."""

    said: str
    table: Table
    data: str


class Refuted(Exception):
    """The computed numbers contradict an answer; the message names the claim and the numbers."""


def require(holds: bool | np.bool_, otherwise: str) -> None:
    """Raise `Refuted` with the message ``otherwise``, unless the claim holds."""
    if not holds:
        raise Refuted(otherwise)


def near(found: ArrayLike, expected: ArrayLike, rtol: float = 1e-7, atol: float = 0.0) -> bool:
    """Return whether all numbers are as expected, within ``atol`` plus ``rtol`` of each."""
    return np.allclose(found, expected, rtol, atol)


@dataclass(frozen=True)
class Question:
    """A question. ``answer`` computes the answer, and raises `Refuted` if it does not hold."""

    name: str
    asked: str
    answer: Callable[[Problems], Answer]


QUESTIONS: dict[str, Question] = {}


def question(name: str, asked: str) -> Callable[[Callable[[Problems], Answer]], Any]:
    """Register the decorated function as the answer to a question."""

    def register(answer: Callable[[Problems], Answer]) -> Callable[[Problems], Answer]:
        QUESTIONS[name] = Question(name, asked, answer)
        return answer

    return register


@contextmanager
def clear_errors(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End the script in one line if data are missing or damaged, or an answer does not hold."""
    try:
        yield
    except (FileNotFoundError, data.DataFormatError, Refuted) as error:
        parser.error(str(error))


def losses_of(scores: ArrayLike, labels: ArrayLike, loss: str | fastloss.Loss = "hinge") -> Numbers:
    """Return the loss of each row of scores."""
    return fastloss.score_gradient(np.asarray(scores, float), labels, loss=loss)[0]


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], n_labels: int = 1) -> Table:
    """Make a table; format numbers to four digits."""

    def shown(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)

    return Table("", tuple(columns), [tuple(map(shown, row)) for row in rows], n_labels=n_labels)
