"""Call, verify and diagnose candidates: a user's own functions of loss and gradient."""

from fastloss.candidates.candidate import Candidate, LossAndGrad, resolve_candidate
from fastloss.candidates.check import check_candidate, examine
from fastloss.candidates.convention import USUAL, Convention
from fastloss.candidates.naming import Functions, as_candidates
from fastloss.candidates.report import CandidateReport

__all__ = [
    "USUAL",
    "Candidate",
    "CandidateReport",
    "Convention",
    "Functions",
    "LossAndGrad",
    "as_candidates",
    "check_candidate",
    "examine",
    "resolve_candidate",
]
