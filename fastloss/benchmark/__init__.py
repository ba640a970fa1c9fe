"""The harness: verify contenders, time them fairly, and report the noise of the machine."""

from fastloss.benchmark.candidates import compare
from fastloss.benchmark.results import Results
from fastloss.benchmark.run import Settings, VerificationError
from fastloss.benchmark.shown import ShownResults

__all__ = ["Results", "Settings", "ShownResults", "VerificationError", "compare"]
