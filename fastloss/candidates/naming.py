"""Name the candidates that a caller gives in any form."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import count
from typing import TypeAlias

from fastloss.candidates.candidate import Candidate, LossAndGrad, name_of
from fastloss.candidates.convention import USUAL, Convention

Function: TypeAlias = str | LossAndGrad
#: A function or its place ``"module:function"``, several of them, or a mapping from names to them.
Functions: TypeAlias = Function | Iterable[Function] | Mapping[str, Function]


def as_candidates(
    functions: Functions, convention: Convention = USUAL, taken: Collection[str] = ()
) -> list[Candidate]:
    """Return candidates with different names, none of them ``taken``.

    Without a mapping, a function's own name is used. If that is taken, a number follows it.

    Raises
    ------
    TypeError : one of them is no function and no place, or a name is no text.
    ValueError : a name of the mapping is taken.
    """
    if isinstance(functions, Mapping):
        for name in functions:
            if not isinstance(name, str):
                raise TypeError(f"the name of a candidate must be a str, got {name!r}")
            if name in taken:
                raise ValueError(f"{name!r} is the name of a backend: name the candidate otherwise")
        named = dict(functions)
    else:
        named = {}
        for function in _several(functions):
            name = name_of(function)
            names = (name if k == 1 else f"{name} {k}" for k in count(1))
            named[next(n for n in names if n not in taken and n not in named)] = function
    for name, function in named.items():
        if not (callable(function) or isinstance(function, str)):
            raise TypeError(
                f"candidate {name!r} must be a function or 'my_module:my_function', "
                f"got {function!r}"
            )
    return [Candidate(name, function, convention) for name, function in named.items()]


def _several(functions: Function | Iterable[Function]) -> Iterable[Function]:
    if callable(functions) or isinstance(functions, str):
        return [functions]
    if isinstance(functions, Iterable):
        return functions
    raise TypeError(f"candidates must be functions or 'my_module:my_function', got {functions!r}")
