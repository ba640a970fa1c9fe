"""Checkpoints: a file with the state and records of a run, and a fingerprint of its problem.

The file is an ``.npz`` archive of the state's arrays, and of a JSON text with everything else. An
older checkpoint is replaced as a whole or not at all.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastloss.arrays import Floats
from fastloss.base_objective import BaseObjective
from fastloss.files import (
    DataFormatError,
    check_archive,
    check_outputs,
    named,
    read_archive,
    written_whole,
)
from fastloss.objective import Objective
from fastloss.optim.base import Method, State
from fastloss.optim.orders import reads_blocks
from fastloss.optim.result import Best, Record
from fastloss.rows_on_disk import mapped_file

_FORMAT = "fastloss checkpoint 3"
# Name of the array of bytes that distinguishes a checkpoint from other archives.
_TEXT = "text"
# Facts that are hashes, which a message does not show.
_HASHED = ("sample of X", "labels", "row weights")

Fingerprint = Mapping[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to continue."""

    fingerprint: Fingerprint
    state: State
    rows_evaluated: int
    seconds: float
    records: tuple[Record, ...]
    best: Best | None = None

    def save(self, path: Path) -> None:
        """Write the file in one step."""
        state = self.state
        arrays: dict[str, Any] = {"W": state.W}
        if state.gradient is not None:
            arrays["gradient"] = state.gradient
        arrays |= {f"memory{i}": array for i, array in enumerate(state.memory)}
        if self.best is not None:
            arrays["best_W"] = self.best.W
        text = {
            "format": _FORMAT,
            "fingerprint": dict(self.fingerprint),
            "step": state.step,
            "loss": state.loss,
            "learning_rate": state.learning_rate,
            "n_memory": len(state.memory),
            "rows_evaluated": self.rows_evaluated,
            "seconds": self.seconds,
            "records": [asdict(record) for record in self.records],
            "best": None if self.best is None else asdict(self.best.record),
        }
        arrays[_TEXT] = np.frombuffer(json.dumps(text).encode(), np.uint8)
        with written_whole(path) as stream:
            np.savez(stream, **arrays)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a file written by `save`.

        Raises
        ------
        FileNotFoundError : there is no such file.
        DataFormatError : the file is damaged, or is no checkpoint.
        """
        if not path.exists():
            raise FileNotFoundError(f"there is no checkpoint {path} to resume from")
        try:
            arrays = read_archive(path)
            text = json.loads(arrays[_TEXT].tobytes())
            if text["format"] != _FORMAT:
                raise ValueError(f"its format is {text['format']!r}, not {_FORMAT!r}")
            state = State(
                step=text["step"],
                W=arrays["W"],
                loss=text["loss"],
                gradient=arrays.get("gradient"),
                memory=tuple(arrays[f"memory{i}"] for i in range(text["n_memory"])),
                learning_rate=text["learning_rate"],
            )
            return cls(
                fingerprint=text["fingerprint"],
                state=state,
                rows_evaluated=text["rows_evaluated"],
                seconds=text["seconds"],
                records=tuple(Record(**record) for record in text["records"]),
                best=text["best"] and Best(Record(**text["best"]), arrays["best_W"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = error.problem if isinstance(error, DataFormatError) else named(error)
            raise DataFormatError(
                path, f"not a checkpoint of this version of fastloss, or damaged: {reason}"
            ) from error

    def check(self, path: Path, fingerprint: Fingerprint) -> None:
        """Raise ValueError unless the checkpoint belongs to this problem and method."""
        differences = [
            f"other {name}"
            if name in _HASHED
            else f"{name} {self.fingerprint.get(name, 'unknown')} there, {value} here"
            for name, value in fingerprint.items()
            if self.fingerprint.get(name) != value
        ]
        if differences:
            raise ValueError(
                f"{path} is a checkpoint of another run: {'; '.join(differences)}; "
                "repeat the settings of that run, also epochs and class weights, or delete the file"
            )


def check_place(path: Path, f: object = None, *, is_resumed: bool = False) -> None:
    """Raise OSError or ValueError unless a checkpoint of a run on ``f`` can be kept at ``path``.

    An archive is never overwritten, except a checkpoint that the run resumes from.
    """
    X = mapped_file(f.X) if isinstance(f, Objective) else None
    file = getattr(X, "filename", None)
    check_outputs([("checkpoint", path)], [("X", file)] if file else [])
    if not is_resumed and check_archive(path, _TEXT):
        problem = "a checkpoint is there; pass resume=True (--resume), or delete it"
        raise FileExistsError(errno.EEXIST, problem, str(path))


def fingerprint(f: object, W: Floats, method: Method, seed: int) -> Fingerprint:
    """Return by name the facts that must be unchanged when a run is resumed."""
    facts = f.facts() if isinstance(f, BaseObjective) else {"f": "a callable"}
    if isinstance(f, Objective) and reads_blocks(f.X):
        facts["X"] += " in blocks"  # they have another order, and another order of sums
    return facts | {"method": repr(method), "seed": repr(seed), "W": f"{W.shape} {W.dtype}"}
