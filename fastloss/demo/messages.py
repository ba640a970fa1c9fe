"""Read the fields of a message from the page; each is checked as it is read."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

# Characters. An address is the longest field.
MOST_CHARACTERS = 1 << 15


class MessageError(ValueError):
    """A message asks for something that does not exist, or for too much."""


class Message:
    """The fields of one message; methods raise `MessageError` for a missing or wrong field."""

    def __init__(self, fields: object) -> None:
        if not isinstance(fields, dict):
            raise MessageError(f"a message must be an object, got {_shown(fields)}")
        self._fields: dict[str, Any] = fields

    @classmethod
    def parse(cls, text: str) -> Message:
        """Read a message from JSON text."""
        if len(text) > MOST_CHARACTERS:
            raise MessageError(f"a message may have {MOST_CHARACTERS} characters, got {len(text)}")
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise MessageError(f"a message must be JSON: {error}") from None
        return cls(fields)

    @property
    def id(self) -> int | None:
        """Return the number that the answer repeats; None if there is none."""
        value = self._fields.get("id")
        return value if type(value) is int and abs(value) < 2**53 else None

    @property
    def names(self) -> list[str]:
        """Return the names of the fields beside ``id`` and ``do``."""
        return [name for name in self._fields if name not in ("id", "do")]

    def has(self, name: str) -> bool:
        """Return whether the message has this field."""
        return name in self._fields

    def number(self, name: str, least: float, most: float) -> float:
        """Return a field in [least, most]."""
        value = self._field(name)
        # bool is a subclass of int. NaN fails every comparison.
        if type(value) not in (int, float) or not least <= value <= most:
            raise MessageError(
                f"{name} must be a number from {least:g} to {most:g}, got {_shown(value)}"
            )
        return float(value)

    def integer(self, name: str, least: int, most: int) -> int:
        """Return a field that is an integer in [least, most]."""
        return _integer(name, self._field(name), least, most)

    def place(self, name: str, shape: tuple[int, int]) -> tuple[int, int]:
        """Return a field that is a pair of indices into an array of this shape."""
        value = self._field(name)
        if not isinstance(value, list) or len(value) != 2:
            raise MessageError(f"{name} must be [class, column], got {_shown(value)}")
        return _integer(f"{name}[0]", value[0], 0, shape[0] - 1), _integer(
            f"{name}[1]", value[1], 0, shape[1] - 1
        )

    def choice(self, name: str, choices: Collection[str]) -> str:
        """Return a field that is one of the choices."""
        value = self._field(name)
        if not isinstance(value, str) or value not in choices:
            raise MessageError(f"{name} must be one of {', '.join(choices)}, got {_shown(value)}")
        return value

    def text(self, name: str) -> str:
        """Return a field that is a text."""
        value = self._field(name)
        if not isinstance(value, str):
            raise MessageError(f"{name} must be a text, got {_shown(value)}")
        return value

    def _field(self, name: str) -> Any:
        if name not in self._fields:
            raise MessageError(f"the message has no field {name!r}")
        return self._fields[name]


def _integer(name: str, value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise MessageError(f"{name} must be an integer from {least} to {most}, got {_shown(value)}")
    return value


def _shown(value: object) -> str:
    """Return the beginning of a value: a message may hold thousands of characters."""
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
