"""`LinearClassifier`: any loss of fastloss as an estimator."""

from __future__ import annotations

from sklearn.utils import check_random_state

from fastloss import optim
from fastloss.losses.base import Loss
from fastloss.sklearn.base import BaseLinearClassifier, Plan
from fastloss.sklearn.training_set import ClassWeight, TrainingSet


class LinearClassifier(BaseLinearClassifier):
    """Linear classifier with any loss, L1 and L2 penalty, and any method of `fastloss.optim`."""

    def __init__(
        self,
        loss: str | Loss = "softmax",
        *,
        l1: float = 0.0,
        l2: float = 1e-4,
        method: str | optim.Method = "lbfgs",
        tol: float = 1e-4,
        max_iter: int = 100,
        fit_intercept: bool = True,
        class_weight: ClassWeight | None = None,
        warm_start: bool = False,
        random_state: object = None,
    ) -> None:
        self.loss = loss
        self.l1 = l1
        self.l2 = l2
        self.method = method
        self.tol = tol
        self.max_iter = max_iter
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.random_state = random_state

    def _plan(self, rows: TrainingSet) -> Plan:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        return Plan(self.loss, l2=self.l2, l1=self.l1, method=self.method, seed=seed)
