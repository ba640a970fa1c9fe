"""Call, verify and diagnose candidates: a user's own functions of loss and gradient."""

from fastloss.candidates.candidate import Candidate, LossAndGrad, resolve_candidate
from fastloss.candidates.convention import USUAL, Convention
from fastloss.candidates.naming import Functions, as_candidates

__all__ = [
    "USUAL",
    "Candidate",
    "Convention",
    "Functions",
    "LossAndGrad",
    "as_candidates",
    "resolve_candidate",
]
