"""The harness: verify contenders, time them fairly, and report the noise of the machine."""

from fastloss.benchmark.candidates import compare
from fastloss.benchmark.results import Results
from fastloss.benchmark.run import Settings, VerificationError

__all__ = ["Results", "Settings", "VerificationError", "compare"]
