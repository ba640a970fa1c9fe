"""The command line: one module for each group of commands."""

from fastloss.cli import (  # noqa: F401  (they register commands)
    bench,
    check,
    compare,
    demo,
    export,
    lesson,
    predict,
    train,
    upkeep,
)
from fastloss.cli.common import app

__all__ = ["app"]
