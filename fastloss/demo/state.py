"""The state of one tab: points, weights, settings, and what the optimizer keeps."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.backends import available_backends
from fastloss.demo.messages import Message, MessageError
from fastloss.objective import Objective

Matrix = NDArray[np.float64]

N_CLASSES = 3
#: The plane, as left, right, bottom and top.
BOX = (-1.0, 1.0, -1.0, 1.0)
# A pixel of a large plane is about 0.002, so coordinates with 4 decimals keep addresses short.
_DECIMALS = 4
MOST_POINTS = 100
#: Weights beyond this are no use to see. Sums of their squares are still far from overflow.
MOST_WEIGHT = 1e6
LEAST_LR, MOST_LR = 0.0005, 5.0
MOST_L2 = 100.0
MOST_ROWS = 1_000_000
MOST_FEATURES = 3072
#: Numbers in the rows of the cost panel: 256 MB in float64.
MOST_NUMBERS = 1 << 25
MOST_HISTORY = 256
#: Updates of each curve in a comparison of the losses.
MOST_COMPARED = 200

LOSSES = {
    "hinge": "Weston-Watkins hinge",
    "squared_hinge": "squared hinge",
    "crammer_singer": "Crammer-Singer (structured SVM)",
    "one_vs_all": "one-vs-all",
    "softmax": "softmax",
}
OPTIMIZERS = {
    "gradient_descent": "gradient descent",
    "sgd": "SGD over single points",
    "momentum": "momentum",
    "random_local_search": "random local search",
}
GRADIENTS = {
    "analytic": "analytic",
    "incremental": "incremental",
    "per_element": "numerical per element",
}
BACKENDS = {"naive": "naive", "numpy": "NumPy", "numba": "numba", "fused": "fused"}


@dataclass(frozen=True)
class Settings:
    """The choices of a tab. ``rows`` and ``features`` are the size that the cost panel measures."""

    loss: str = "hinge"
    l2: float = 0.1
    lr: float = 0.1
    optimizer: str = "gradient_descent"
    gradient: str = "analytic"
    backend: str = "numpy"
    rows: int = 900
    features: int = 20

    def changed(self, message: Message) -> Settings:
        """Return the settings with those that the message names; raise if one is not valid."""
        unknown = sorted(set(message.names) - set(SETTINGS))
        if unknown or not message.names:
            raise MessageError(f"set takes {', '.join(SETTINGS)}, got {ascii(unknown)[:80]}")
        changed = replace(self, **{name: _read(message, name) for name in message.names})
        if changed.rows * changed.features > MOST_NUMBERS:
            raise MessageError(
                f"{changed.rows:,} rows of {changed.features:,} features are more than "
                f"{MOST_NUMBERS:,} numbers: lower one of them first"
            )
        return changed


#: The names that ``set`` takes.
SETTINGS = tuple(each.name for each in fields(Settings))


def choices() -> dict[str, dict[str, str]]:
    """Return the names and titles that a setting can take, with the backends that can run here."""
    available = available_backends()
    return {
        "loss": LOSSES,
        "optimizer": OPTIMIZERS,
        "gradient": GRADIENTS,
        "backend": {name: title for name, title in BACKENDS.items() if name in available},
    }


def _read(message: Message, name: str) -> Any:
    if name in ("loss", "optimizer", "gradient", "backend"):
        return message.choice(name, choices()[name])
    if name == "rows":
        return message.integer(name, 1, MOST_ROWS)
    if name == "features":
        return message.integer(name, 2, MOST_FEATURES)
    least, most = (0.0, MOST_L2) if name == "l2" else (LEAST_LR, MOST_LR)
    return message.number(name, least, most)


def setup() -> dict[str, Any]:
    """Return what the page needs once: choices with their titles, limits, and the box."""
    return {
        "choices": choices(),
        "limits": {
            "lr": [LEAST_LR, MOST_LR],
            "l2": [0.0, MOST_L2],
            "rows": [1, MOST_ROWS],
            "features": [2, MOST_FEATURES],
            "numbers": MOST_NUMBERS,
            "updates": [1, MOST_COMPARED],
        },
        "box": BOX,
    }


def _start_points() -> Matrix:
    return np.array(
        [
            *((0.5, 0.4), (0.8, 0.3), (0.3, 0.8)),
            *((-0.4, 0.3), (-0.3, 0.7), (-0.7, 0.2)),
            *((0.7, -0.4), (0.5, -0.6), (-0.4, -0.5)),
        ]
    )


def _start_labels() -> NDArray[np.int64]:
    return np.repeat(np.arange(N_CLASSES), 3)


def _start_weights() -> Matrix:
    return np.array([[1.0, 2.0, 3.0], [2.0, -4.0, -1.0], [0.0, 0.5, -0.5]])


@dataclass
class State:
    """Points (N, 2) with labels (N,), weights and settings.

    ``W`` (3, 3) has the layout of an `Objective` with an intercept: a column for each class, and
    rows for the weight of x, the weight of y, and the bias. ``memory`` and ``order`` belong to the
    optimizer: its arrays, and the points that the present epoch has not visited. ``history`` holds
    (updates, total loss) and ``path`` the weights, both before each update. Arrays are replaced,
    never changed, so a `snapshot` shares them.
    """

    points: Matrix = field(default_factory=_start_points)
    labels: NDArray[np.int64] = field(default_factory=_start_labels)
    W: Matrix = field(default_factory=_start_weights)
    settings: Settings = field(default_factory=Settings)
    n_updates: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    memory: tuple[NDArray[Any], ...] = ()
    order: list[int] = field(default_factory=list)
    history: list[tuple[int, float]] = field(default_factory=list)
    path: list[Matrix] = field(default_factory=list)
    # Seeded, so that all students of a class see the same "random" steps.
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def objective(self, backend: str | None = None) -> Objective:
        """Return the objective of these points and settings, on one thread."""
        return Objective(
            self.points,
            self.labels,
            loss=self.settings.loss,
            l2=self.settings.l2,
            intercept=True,
            backend=self.settings.backend if backend is None else backend,
            n_threads=1,
        )

    def snapshot(self) -> State:
        """Return a copy that later changes do not reach."""
        return replace(self, order=[*self.order], history=[*self.history], path=[*self.path])

    def move(self, message: Message) -> None:
        """Move a point."""
        points = self.points.copy()
        points[self._point(message)] = _position(message)
        self.points = points

    def add(self, message: Message) -> None:
        """Add a point."""
        position, label = _position(message), _label(message)
        if len(self.points) == MOST_POINTS:
            raise MessageError(f"the plane takes at most {MOST_POINTS} points")
        self._set_points(np.vstack([self.points, position]), np.append(self.labels, label))

    def delete(self, message: Message) -> None:
        """Delete a point."""
        point = self._point(message)
        if len(self.points) == 1:
            raise MessageError("the last point cannot be deleted: a mean needs a point")
        self._set_points(np.delete(self.points, point, axis=0), np.delete(self.labels, point))

    def label(self, message: Message) -> None:
        """Change the class of a point."""
        labels = self.labels.copy()
        labels[self._point(message)] = _label(message)
        self.labels = labels

    def weight(self, message: Message) -> None:
        """Set a weight or a bias."""
        column, row = _label(message), message.integer("column", 0, 2)
        W = self.W.copy()
        W[row, column] = message.number("value", -MOST_WEIGHT, MOST_WEIGHT)
        self.W = W
        self.forget()

    def set(self, message: Message) -> None:
        """Change settings."""
        before, self.settings = self.settings, self.settings.changed(message)
        if self.settings.optimizer != before.optimizer:
            self.forget()

    def randomise(self) -> None:
        """Draw weights with one decimal, and begin a new history."""
        scale = np.array([[2.0], [2.0], [0.5]])
        self.W = np.round(scale * self.rng.standard_normal(self.W.shape), 1)
        self.restart()

    def record(self, total: float) -> None:
        """Note weights and total loss before an update."""
        self.history.append((self.n_updates, total))
        self.path.append(self.W)
        if len(self.history) >= MOST_HISTORY:
            # Keep every second one: the curve then still shows all of the run.
            del self.history[1::2]
            del self.path[1::2]

    def restart(self) -> None:
        """Begin a new history with the present weights."""
        self.n_updates = self.evaluations = 0
        self.seconds = 0.0
        self.history.clear()
        self.path.clear()
        self.forget()

    def forget(self) -> None:
        """Drop the memory of the optimizer, which belongs to other weights."""
        self.memory = ()
        self.order.clear()

    def _point(self, message: Message) -> int:
        return message.integer("point", 0, len(self.points) - 1)

    def _set_points(self, points: Matrix, labels: NDArray[np.int64]) -> None:
        self.points, self.labels = points, labels
        self.order.clear()


def _label(message: Message) -> int:
    return message.integer("class", 0, N_CLASSES - 1)


def _position(message: Message) -> tuple[float, float]:
    """Return x and y inside the box: a pointer leaves the plane now and then while it drags."""
    left, right, bottom, top = BOX
    x, y = message.number("x", -1e9, 1e9), message.number("y", -1e9, 1e9)
    return (
        round(min(max(x, left), right), _DECIMALS),
        round(min(max(y, bottom), top), _DECIMALS),
    )
