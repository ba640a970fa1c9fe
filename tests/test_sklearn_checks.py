"""Run all checks of scikit-learn on the estimators."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastloss
from fastloss.sklearn import LinearClassifier, LinearSVC, LogisticRegression

# L-BFGS amplifies rounding at kinks. Weights and repeats of rows, which a check compares, agree to
# 1e-7 after so many steps, which also take less time than the default number.
STEPS = 30
SMOOTH = ("softmax", "squared_hinge")


@parametrize_with_checks(
    [
        LogisticRegression(),
        LinearSVC(),
        LinearSVC(loss="hinge", max_iter=STEPS),
        LinearSVC(multi_class="crammer_singer", max_iter=STEPS),
        *(
            LinearClassifier(loss) if loss in SMOOTH else LinearClassifier(loss, max_iter=STEPS)
            for loss in fastloss.available_losses()
        ),
        LinearClassifier(method="sgd"),
    ]
)
@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)
