"""A run in a file: its state, its records, and what it is a run of.

An ``.npz`` file of the state's arrays and of a text (JSON) with everything else. It is written to a
draft beside it and renamed, so an older one is replaced whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.api import Objective
from fastloss.arrays import Floats
from fastloss.optim.base import Method, State
from fastloss.optim.result import Record

_FORMAT = "fastloss checkpoint 1"
# So many rows, evenly spread, stand for all of X.
_HASHED_ROWS = 256

Fingerprint = Mapping[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on."""

    fingerprint: Fingerprint
    state: State
    rows_evaluated: int
    seconds: float
    records: tuple[Record, ...]

    def save(self, path: Path) -> None:
        """Write the file in one step."""
        state = self.state
        arrays: dict[str, Any] = {"W": state.W}
        if state.gradient is not None:
            arrays["gradient"] = state.gradient
        arrays |= {f"memory{i}": array for i, array in enumerate(state.memory)}
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
        }
        arrays["text"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
        draft = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with open(draft, "wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read what `save` wrote; ValueError if it is something else, or damaged."""
        if not path.exists():
            raise FileNotFoundError(f"there is no checkpoint {path} to resume from")
        if not zipfile.is_zipfile(path):
            raise _unreadable(path, "it is no whole .npz file")
        try:
            # Opened here: NumPy leaves a file open that turns out to be damaged.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as entries:
                arrays = {name: entries[name] for name in entries.files}
            text = json.loads(arrays["text"].tobytes())
            if text["format"] != _FORMAT:
                raise ValueError(f"its format is {text['format']!r}")
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
            )
        except (
            *(OSError, EOFError, zipfile.BadZipFile, NotImplementedError),
            *(ValueError, KeyError, TypeError, AttributeError),
        ) as error:
            lines = str(error).strip().splitlines() or [""]
            raise _unreadable(path, f"{type(error).__name__}: {lines[0]}") from None

    def check(self, path: Path, fingerprint: Fingerprint) -> None:
        """Raise unless it is a checkpoint of this very problem and method."""
        differences = [
            f"{name} {self.fingerprint.get(name, 'unknown')} there, {value} here"
            for name, value in fingerprint.items()
            if self.fingerprint.get(name) != value
        ]
        if differences:
            raise ValueError(f"{path} is a checkpoint of another run: {'; '.join(differences)}")


def _unreadable(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} is not a checkpoint of fastloss, or is damaged: {reason}")


def fingerprint(f: object, W: Floats, method: Method, seed: int) -> Fingerprint:
    """What must be the same for a run to go on, by name."""
    facts = {
        "f": "an Objective" if isinstance(f, Objective) else "a callable",
        "method": repr(method),
        "seed": repr(seed),
        "W": f"{W.shape} {W.dtype}",
    }
    if isinstance(f, Objective):
        facts |= {
            "X": f"{f.X.shape} {f.X.dtype}",
            "loss": repr(f.loss_function),
            "penalty": repr(f.penalty),
            "intercept": repr(f.intercept),
            "reduction": repr(f.reduction),
            "sample of X": _hash(f.X[:: max(1, len(f.X) // _HASHED_ROWS)]),
            "labels": _hash(f.labels),
            "row weights": _hash(f.row_weights),
        }
    return facts


def _hash(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]
