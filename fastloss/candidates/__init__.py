"""Call, verify and diagnose candidates: a user's own functions of loss and gradient."""

from fastloss.candidates.candidate import Candidate, LossAndGrad, resolve_candidate
from fastloss.candidates.convention import USUAL, Convention

__all__ = ["USUAL", "Candidate", "Convention", "LossAndGrad", "resolve_candidate"]
