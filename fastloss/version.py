"""The version of fastloss; a module of its own, so that any other one can import it."""

__version__ = "0.2.0"
