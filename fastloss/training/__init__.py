"""Train a `LinearModel` on a folder of images: the layer between commands and `optim`.

A run has `Settings` and a `Prepared` problem. A `Job` does all the work of ``fastloss train``, from
files to an `Outcome`. `fit_model` trains on arrays.
"""

from fastloss.training.fitting import fit_model
from fastloss.training.job import MOST_CONFUSED, Job, Outcome, reading, worst_pairs
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
    "fit_model",
    "load_rows",
    "load_splits",
    "make_method",
    "parse_sweep",
    "plan_trials",
    "reading",
    "run_sweep",
    "short",
    "worst_pairs",
]
