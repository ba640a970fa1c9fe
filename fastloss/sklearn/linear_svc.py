"""`LinearSVC`: linear support vector machines with the parameters of scikit-learn's."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fastloss import optim
from fastloss.arrays import as_bool, as_choice, as_integer, as_real
from fastloss.losses.base import Loss
from fastloss.losses.crammer_singer import CrammerSinger
from fastloss.losses.hinge import Hinge
from fastloss.losses.one_vs_all import OneVsAll
from fastloss.sklearn.base import LinearEstimator
from fastloss.sklearn.fitting import Plan
from fastloss.sklearn.training_set import ClassWeight, TrainingSet


class LinearSVC(LinearEstimator):
    """Linear support vector classifier, in the primal form::

        C sum_i r_i L_i  +  1/2 sum(coef_**2)

    ``r_i`` is the sample weight of row i times the weight of its class, and ``L_i`` its loss:

    ==================  ================  ======================================================
    multi_class         loss              L_i, with t_ij = 1 for the label j of row i, else -1
    ==================  ================  ======================================================
    "ovr"               "squared_hinge"   ``sum_j max(0, 1 - t_ij s_ij)**2``
    "ovr"               "hinge"           ``sum_j max(0, 1 - t_ij s_ij)``
    "crammer_singer"    (no effect)       ``max(0, 1 + max_{j != y_i} s_ij - s_i,y_i)``
    ==================  ================  ======================================================

    Two classes with "ovr" have a single score; t_i is 1 for ``classes_[1]``. With "crammer_singer"
    they have two, of which ``coef_`` is the difference, so the penalty is ``1/4 sum(coef_**2)``.
    Where the class differs from scikit-learn's:

    - The bias is not penalised. scikit-learn's is, with the strength ``1 / intercept_scaling**2``,
      so results agree with ``fit_intercept=False``, or as its ``intercept_scaling`` grows.
    - A class weight multiplies all terms of a row's loss. With more than two classes,
      scikit-learn's multiplies only the term of the row's own class.
    - ``tol`` and ``max_iter`` are those of L-BFGS, as in `LogisticRegression`; scikit-learn's are
      those of its library liblinear.
    - "squared_hinge" is smooth and ends at the minimum. "hinge" and "crammer_singer" have kinks,
      and end near the minimum: see ``method`` in `LinearClassifier`.
    - There is no ``penalty``, ``dual`` or ``intercept_scaling``, but a ``warm_start``.

    The hinge of Weston and Watkins, which compares scores of a row with each other, is
    ``LinearClassifier("hinge")``.

    Parameters
    ----------
    loss : "squared_hinge" or "hinge".
    C : inverse of the penalty's strength, > 0.
    multi_class : "ovr" (a problem for each class, against all others) or "crammer_singer".
    tol, max_iter, fit_intercept, class_weight, warm_start : as in `LogisticRegression`.
    random_state : has no effect, because L-BFGS draws no random numbers.

    Attributes
    ----------
    classes_, coef_, intercept_, n_iter_, n_features_in_, feature_names_in_ : as in
        `LinearClassifier`.

    Examples
    --------
    >>> from fastloss.sklearn import LinearSVC
    >>> model = LinearSVC().fit([[0.0], [1.0], [3.0], [4.0]], ["no", "no", "yes", "yes"])
    >>> model.predict([[1.5], [2.5]])
    array(['no', 'yes'], dtype='<U3')
    """

    def __init__(
        self,
        *,
        loss: Literal["squared_hinge", "hinge"] = "squared_hinge",
        C: float = 1.0,
        multi_class: Literal["ovr", "crammer_singer"] = "ovr",
        tol: float = 1e-4,
        max_iter: int = 1000,
        fit_intercept: bool = True,
        class_weight: ClassWeight | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.loss = loss
        self.C = C
        self.multi_class = multi_class
        self.tol = tol
        self.max_iter = max_iter
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.random_state = random_state

    def _plan(self, rows: TrainingSet) -> Plan:
        loss, halves = self._loss(len(rows.classes))
        return Plan(
            loss=loss,
            l1=0.0,
            l2=rows.l2_of(self.C, halves),
            intercept=as_bool("fit_intercept", self.fit_intercept),
            method=optim.LBFGS(),
            tol=as_real("tol", self.tol),
            max_iter=as_integer("max_iter", self.max_iter, 1),
        )

    def _loss(self, n_classes: int) -> tuple[Loss, float]:
        """Return the loss, and how many halves of ``sum(W**2)`` the penalty is."""
        power = 2 if as_choice("loss", self.loss, ("squared_hinge", "hinge")) != "hinge" else 1
        choices = ("ovr", "crammer_singer")
        if as_choice("multi_class", self.multi_class, choices) == "crammer_singer":
            return CrammerSinger(), 0.5
        if n_classes > 2:
            return OneVsAll(power=power), 0.5
        # The difference of two scores is the single score of "ovr", and sum(coef_**2) is twice the
        # sum of squares of two opposite columns.
        return Hinge(power=power), 1.0
