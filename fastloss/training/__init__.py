"""From a folder of images to a trained `LinearModel`: what lies between commands and `optim`.

A run is a `Settings` over a `Prepared` problem; a `Job` is all that ``fastloss train`` does, from
files to an `Outcome`.
"""

from fastloss.training.job import MOST_CONFUSED, Job, Outcome, worst_pairs
from fastloss.training.problem import Prepared, Splits, fit, load_rows, load_splits
from fastloss.training.settings import SCHEDULES, Scale, Settings, fill_in, make_method, short
from fastloss.training.sweep import Trial, parse_sweep, plan_trials, run_sweep

__all__ = [
    "MOST_CONFUSED",
    "SCHEDULES",
    "Job",
    "Outcome",
    "Prepared",
    "Scale",
    "Settings",
    "Splits",
    "Trial",
    "fill_in",
    "fit",
    "load_rows",
    "load_splits",
    "make_method",
    "parse_sweep",
    "plan_trials",
    "run_sweep",
    "short",
    "worst_pairs",
]
