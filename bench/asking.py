"""Questions of the lecture: their data, answers and registry."""

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
    """Data for the questions, loaded on first use; ``n_rows`` limits the rows of MNIST."""

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
    """An answer in words, and a table of its numbers."""

    said: str
    table: Table


@dataclass(frozen=True)
class Question:
    """A question. ``answer`` computes the answer, and raises AssertionError if it is wrong."""

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


def losses_of(scores: ArrayLike, labels: ArrayLike, loss: str | fastloss.Loss = "hinge") -> Numbers:
    """Return the loss of each row of scores."""
    return fastloss.score_gradient(np.asarray(scores, float), labels, loss=loss)[0]


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], n_labels: int = 1) -> Table:
    """Make a table; format numbers to four digits."""

    def shown(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)

    return Table("", tuple(columns), [tuple(map(shown, row)) for row in rows], n_labels=n_labels)
