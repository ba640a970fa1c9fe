"""The command line, a module a group of commands."""

from fastloss.cli import bench, check, train, upkeep  # noqa: F401  (each registers its commands)
from fastloss.cli.common import app

__all__ = ["app"]
