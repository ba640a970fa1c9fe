"""Keep named records in a table that plug-ins can extend; errors list the known names."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Records by name, sorted by their ``order`` if they have one, else as they were added.

    The entry points of ``group`` are loaded at the first listing or unknown name. Loading resolves
    the object and passes it to ``register``. An entry point that fails is skipped with a warning.
    """

    def __init__(self, kind: str, group: str, register: Callable[[str, object], None]) -> None:
        self._kind = kind
        self._group = group
        self._register = register
        self._records: dict[str, T] = {}
        self.version = 0  # changes with the records
        self._plugins_loaded = False

    def add(self, name: str, record: T) -> None:
        """Add a record; raise ValueError if the name is taken or not a lower-case identifier."""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"{self._kind} name must match [a-z][a-z0-9_]*, got {name!r}")
        if name in self._records:
            raise ValueError(
                f"{self._kind} {name!r} is already registered: {self._records[name]!r}"
            )
        self._records[name] = record
        self.version += 1

    def remove(self, name: str) -> None:
        """Remove a record; raise ValueError if the name is unknown."""
        self[name]
        del self._records[name]
        self.version += 1

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        # Imported here because it is slow and most calls need no plug-in.
        from importlib.metadata import entry_points

        for point in entry_points(group=self._group):
            try:
                self._register(point.name, point.load())
            except (Exception, SystemExit) as error:
                warnings.warn(
                    f"the entry point {point.name} = {point.value} of {self._group} is left out: "
                    f"{type(error).__name__}: {error}",
                    RuntimeWarning,
                    stacklevel=3,
                )

    def __getitem__(self, name: str) -> T:
        if name not in self._records:
            self._load_plugins()
        try:
            return self._records[name]
        except KeyError:
            # Imported here, because only a wrong name needs it.
            from difflib import get_close_matches

            names = list(self)
            close = "".join(f"; did you mean {n!r}?" for n in get_close_matches(name, names, 1))
            known = ", ".join(map(repr, names))
            raise ValueError(f"unknown {self._kind} {name!r}; known: {known}{close}") from None

    def __iter__(self) -> Iterator[str]:
        self._load_plugins()
        return iter(sorted(self._records, key=self._place))

    def _place(self, name: str) -> tuple[int, str]:
        order = getattr(self._records[name], "order", None)
        return (0, "") if order is None else (order, name)
