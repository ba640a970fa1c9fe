"""The plan of a benchmark run: its data, losses, backends, sizes and steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastloss import data as datasets
from fastloss.arrays import ROW_TYPE_NAMES, ROW_TYPES, check_finite
from fastloss.backends import available_backends
from fastloss.benchmark.backend_study import measure_cell, measure_control
from fastloss.benchmark.candidates import verified
from fastloss.benchmark.gradient_study import measure_gradient_study
from fastloss.benchmark.peers import PEERS, Peer
from fastloss.benchmark.results import Results
from fastloss.benchmark.run import Settings, start
from fastloss.candidates import USUAL, Candidate, Convention, as_candidates
from fastloss.data import Dataset
from fastloss.losses import available_losses, get_loss
from fastloss.settings import AUTO, check_backend

#: CIFAR-10's shape: 3 x 32 x 32 pixels and a bias, ten classes.
DEFAULT_SHAPE = (4000, 3073, 10)
#: From 10^2 parameters to 3 x 10^5 with ten classes; 3073 is CIFAR-10's. The last factor of ten has
#: four counts, because slopes are fitted there.
FEATURE_COUNTS = (10, 100, 1000, 3073, 6000, 12_000, 30_000)
_QUICK_FEATURE_COUNTS = (10, 100, 1000, 3073)
_GRADIENT_ROWS = 300

Size = tuple[int, int | None, int | None]


def parse_size(text: str) -> Size:
    """Parse ``"N"`` or ``"NxDxC"``."""
    parts = text.strip().lower().split("x")
    if len(parts) not in (1, 3) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"a size must be N or NxDxC with positive numbers, got {text!r}")
    n_rows, n_features, n_classes = [int(part) for part in parts] + [None] * (3 - len(parts))
    assert n_rows is not None
    return n_rows, n_features, n_classes


def _default_losses(peers: bool) -> list[str]:
    computed = {loss for peer in PEERS for loss in peer.losses}
    return [loss for loss in available_losses() if loss in computed or not peers]


def _default_backends(peers: bool) -> tuple[str, ...]:
    """Return all backends; with peers, drop ``naive`` (too slow there) and add "auto"."""
    names = available_backends()
    if not peers:
        return names
    return (*(name for name in names if name != "naive"), AUTO)


@dataclass
class Plan:
    """A checked run: all its names are known, and its data are loaded.

    ``refused`` has the candidates found wrong, with the reasons.
    """

    title: str
    dataset: Dataset | None
    losses: list[str]
    backends: tuple[str, ...]
    sizes: list[Size]
    candidates: list[Candidate]
    dtype: np.dtype[np.generic]
    feature_counts: tuple[int, ...]
    settings: Settings
    peers: tuple[Peer, ...] = ()
    convention: Convention = USUAL
    refused: dict[str, str] = field(default_factory=dict)
    _results: Results | None = field(default=None, init=False)

    @classmethod
    def make(
        cls,
        *,
        data: Path | None = None,
        losses: list[str] | None = None,
        backends: list[str] | None = None,
        sizes: list[Size] | None = None,
        candidates: list[str] | None = None,
        convention: Convention = USUAL,
        dtype: str = "float32",
        quick: bool = False,
        gradient_study: bool = True,
        peers: bool = False,
        settings: Settings | None = None,
    ) -> Plan:
        """Fill in the defaults, and raise for a wrong argument before measuring starts.

        With peers, the defaults are the losses that a peer computes, all backends except
        ``naive``, and "auto". There is no gradient study. With an intercept, ``X`` has no column of
        ones. All contenders compute the terms of ``convention``, which peers do not have.
        """
        if dtype not in map(str, ROW_TYPES):
            raise ValueError(f"dtype must be {ROW_TYPE_NAMES}, got {dtype!r}")
        settings = settings or Settings()
        if quick:
            settings = replace(settings, max_rounds=7, cell_seconds=settings.cell_seconds / 2)
        if losses is None:
            losses = ["softmax"] if candidates or quick else _default_losses(peers)
        for name in losses:
            get_loss(name)
        for name in backends or ():
            check_backend(name)
        if peers and (convention.l2 or convention.intercept):
            raise ValueError("peers compute the loss alone: leave out --peers, or l2 and intercept")
        if candidates and len(losses) > 1:
            raise ValueError("a candidate computes one loss: give one --loss")
        dataset = None if data is None else datasets.load(data)
        if dataset is not None and not convention.intercept:
            dataset = _with_bias(dataset)
        if dataset is not None:
            check_finite("X", dataset.X)
        default_rows = DEFAULT_SHAPE[0] if dataset is None else len(dataset)
        counts = _QUICK_FEATURE_COUNTS if quick else FEATURE_COUNTS
        plan = cls(
            title="fastloss bench",
            dataset=dataset,
            losses=losses,
            backends=tuple(backends or _default_backends(peers)),
            sizes=sizes or [(default_rows, None, None)],
            candidates=[],
            convention=convention,
            dtype=np.dtype(dtype),
            feature_counts=counts if gradient_study and not (candidates or peers) else (),
            settings=settings,
            peers=PEERS if peers else (),
        )
        for size in plan.sizes:
            plan.check_size(size)
        plan.candidates, plan.refused = verified(
            as_candidates(candidates or (), convention),
            losses[0],
            settings.seed,
            [plan.full_size(size) for size in plan.sizes],
        )
        return plan

    @property
    def n_steps(self) -> int:
        """The number of cells, of gradient study sizes, and 1 for the control."""
        return len(self.losses) * len(self.sizes) + len(self.feature_counts) + 1

    def check_size(self, size: Size) -> None:
        """Raise if the data set cannot supply this size."""
        if self.dataset is None:
            return
        available = (*self.dataset.X.shape, self.dataset.n_classes)
        if size[0] > available[0] or any(
            wanted not in (None, there)
            for wanted, there in zip(size[1:], available[1:], strict=True)
        ):
            has = " x ".join(map(str, available))
            bias = "" if self.convention.intercept else " (with the bias column)"
            raise ValueError(
                f"{self.dataset.name} has {has}{bias}, so it cannot be measured at "
                f"{'x'.join(map(str, filter(None, size)))}"
            )

    def full_size(self, size: Size) -> tuple[int, int, int]:
        """Return rows, features and classes of a size, with the defaults filled in."""
        if self.dataset is not None:
            return size[0], self.dataset.X.shape[1], self.dataset.n_classes
        n_features = size[1] or DEFAULT_SHAPE[1] - self.convention.intercept
        return size[0], n_features, size[2] or DEFAULT_SHAPE[2]

    def problem(self, size: Size) -> tuple[NDArray[np.generic], NDArray[np.int64], int]:
        """Return ``X``, ``y`` and the number of classes at a size."""
        if self.dataset is None:
            full = self.full_size(size)
            made = datasets.synthetic(*full, seed=self.settings.seed, dtype=self.dtype)
            return made.X, made.y, full[2]
        X = self.dataset.X[: size[0]]
        if X.dtype != self.dtype:
            with np.errstate(over="ignore"):
                X = X.astype(self.dtype)
            if self.dataset.X.dtype == np.uint8:
                X /= 255
            check_finite("X", X)  # a number may be too large for the dtype
        return X, self.dataset.y[: size[0]], self.dataset.n_classes

    def run(self, progress: Callable[[str, int], None] = lambda message, done: None) -> Results:
        """Measure everything; ``progress`` gets the current step and the number of steps done."""
        done = 0
        data = (
            "synthetic" if self.dataset is None else f"{self.dataset.name} ({self.dataset.source})"
        )
        data += self.convention.as_note
        with start(self.title, data, self.settings, lambda message: progress(message, done)) as run:
            self._results = run.results
            largest = max(self.sizes, key=lambda size: size[0] * (size[1] or 1))
            measure_control(run, *self.problem(largest))
            for size in self.sizes:
                X, y, n_classes = self.problem(size)
                for loss in self.losses:
                    done += 1
                    measure_cell(
                        run,
                        loss,
                        X,
                        y,
                        n_classes,
                        self.backends,
                        self.candidates,
                        self.peers,
                        self.convention,
                        self.refused,
                    )
            if self.feature_counts:
                n_rows, *shape = self.sizes[0]
                X, y, n_classes = self.problem((min(_GRADIENT_ROWS, n_rows), shape[0], shape[1]))
                loss = "softmax" if "softmax" in self.losses else self.losses[0]
                named = tuple(name for name in self.backends if name != AUTO)
                for _ in measure_gradient_study(
                    run, loss, X, y, n_classes, self.feature_counts, named
                ):
                    done += 1
            run.results.complete = True
        return run.results

    def interrupted(self) -> Results:
        """Return the results that an interrupted `run` had collected."""
        if self._results is None:
            raise KeyboardInterrupt
        return self._results


def _with_bias(dataset: Dataset) -> Dataset:
    """Append a column of ones to the features: the bias is then one more row of W."""
    ones = np.ones((len(dataset), 1), dataset.X.dtype)
    return replace(dataset, X=np.hstack([dataset.X, ones]), image_shape=None)
