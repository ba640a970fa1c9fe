"""The command line, a module a group of commands."""

from fastloss.cli import bench, check, compare, export, lesson, train, upkeep  # noqa: F401  (each registers its own)
from fastloss.cli.common import app

__all__ = ["app"]
