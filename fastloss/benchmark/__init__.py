"""The harness: verify contenders, time them fairly, and say how far the machine can be trusted."""

from fastloss.benchmark.candidates import compare
from fastloss.benchmark.results import Results
from fastloss.benchmark.run import Settings, VerificationError

__all__ = ["Results", "Settings", "VerificationError", "compare"]
