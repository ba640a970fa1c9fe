"""What a question of the lecture is: what is asked, the answer, and the list of all questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from experiments import Images, cifar10, mnist
from numpy.typing import ArrayLike, NDArray

import fastloss
from fastloss.tables import Table

Numbers = NDArray[np.floating[Any]]


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
