"""The command line: one module for each group of commands."""

from fastloss.cli import bench, check, lesson, train, upkeep  # noqa: F401  (they register commands)
from fastloss.cli.common import app

__all__ = ["app"]
