"""`LogisticRegression`: softmax regression with the parameters of scikit-learn's."""

from __future__ import annotations

import numpy as np

from fastloss import optim
from fastloss.arrays import Floats, as_bool, as_integer, as_real
from fastloss.losses.softmax import Softmax
from fastloss.sklearn.base import Probabilities
from fastloss.sklearn.fitting import Plan
from fastloss.sklearn.training_set import ClassWeight, TrainingSet


class LogisticRegression(Probabilities):
    """Logistic regression, with the objective of scikit-learn's::

        C sum_i r_i log(1 / p_i)  +  1/2 sum(coef_**2)

    ``p_i`` is the probability that the softmax of the scores gives the label of row i (for two
    classes the logistic function), and ``r_i`` is its sample weight times the weight of its class.
    The bias is not penalised. Divided by ``C sum_i r_i``, this is the objective of
    `LinearClassifier` with ``l2 = 1 / (2 C sum_i r_i)``, or twice that for two classes.

    L-BFGS works on features from which their means are subtracted. The minimum is the same, but
    takes fewer iterations than in scikit-learn if the means are not 0.

    There is no ``solver`` and no ``l1_ratio``: `LinearClassifier` has other methods and an L1
    penalty. There is no ``penalty`` and no ``n_jobs``, which scikit-learn will remove.

    Parameters
    ----------
    C : inverse of the penalty's strength, > 0; `numpy.inf` means no penalty.
    tol : stop when no entry of the gradient is larger. The objective is divided by
        ``C sum_i r_i``, as in scikit-learn. Unlike there, the features have mean 0, and the bias is
        measured in units of their size if that is above 1.
    max_iter : most iterations of L-BFGS.
    fit_intercept, class_weight, warm_start : as in `LinearClassifier`.
    random_state : has no effect, because L-BFGS draws no random numbers.

    Attributes
    ----------
    classes_, coef_, intercept_, n_features_in_, feature_names_in_ : as in `LinearClassifier`.
    n_iter_ : (1,) number of iterations.

    Examples
    --------
    >>> from fastloss.sklearn import LogisticRegression
    >>> model = LogisticRegression().fit([[0.0], [1.0], [3.0], [4.0]], ["no", "no", "yes", "yes"])
    >>> model.predict_proba([[2.0]])
    array([[0.5, 0.5]])
    """

    def __init__(
        self,
        *,
        C: float = 1.0,
        tol: float = 1e-4,
        max_iter: int = 100,
        fit_intercept: bool = True,
        class_weight: ClassWeight | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.random_state = random_state

    def _plan(self, rows: TrainingSet) -> Plan:
        # sum(coef_**2) is twice the sum of squares of two opposite columns.
        halves = 1.0 if len(rows.classes) == 2 else 0.5
        return Plan(
            loss=Softmax(),
            l1=0.0,
            l2=rows.l2_of(self.C, halves),
            intercept=as_bool("fit_intercept", self.fit_intercept),
            method=optim.LBFGS(),
            tol=as_real("tol", self.tol),
            max_iter=as_integer("max_iter", self.max_iter, 1),
        )

    def _set(self, rows: TrainingSet, W: Floats, n_iter: int) -> None:
        super()._set(rows, W, n_iter)
        self.n_iter_ = np.array([n_iter], np.int32)
