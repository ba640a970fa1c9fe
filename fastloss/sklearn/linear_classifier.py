"""`LinearClassifier`: any loss and any method of fastloss as an estimator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if

from fastloss import optim
from fastloss.arrays import as_bool, as_integer, as_real
from fastloss.losses import get_loss
from fastloss.losses.base import Loss
from fastloss.losses.softmax import Softmax
from fastloss.sklearn.base import LinearEstimator, Probabilities, unchanged_by_errors
from fastloss.sklearn.fitting import Plan, fitted
from fastloss.sklearn.training_set import ClassWeight, TrainingSet, training_set


def _has_softmax(estimator: Any) -> bool:
    try:
        return isinstance(get_loss(estimator.loss), Softmax)
    except (TypeError, ValueError):  # `fit` reports it
        return False


class LinearClassifier(LinearEstimator):
    """Linear classifier with any loss of fastloss, minimised by any method of `fastloss.optim`::

        sum_i r_i L(W^T x_i + b, y_i) / sum_i r_i  +  l1 sum|W|  +  l2 sum(W**2)

    ``r_i`` is the sample weight of row i times the weight of its class. The bias ``b`` is not
    penalised. The penalty has no factor 1/2, as in all of fastloss: ``alpha`` of scikit-learn's
    ``SGDClassifier(penalty="l2")`` is twice ``l2``.

    Two classes have two columns of ``W``, of which ``coef_`` is the difference. At the minimum the
    columns are opposite (most losses see differences of scores only; one_vs_all is symmetric), so
    the penalty is ``l2 / 2 * sum(coef_**2)``, and likewise ``l1 * sum|coef_|``.

    Parameters
    ----------
    loss : name of a loss (see `fastloss.available_losses`) or an instance, such as
        ``fastloss.Hinge(margin=2.0)``.
    l1, l2 : strengths >= 0 of the penalties. ``l1`` makes coefficients small, but few are exactly
        0: no method here treats the kink of ``|W|`` apart.
    method : name of a method (see `fastloss.optim`) or an instance, such as
        ``optim.SGD(lr=0.1, momentum=0.9)``. In trials on iris and digits, 1,000 steps of "lbfgs"
        reached a lower loss than 100 epochs of "sgd" and "adam" did, for all losses, also those
        with kinks (hinge, crammer_singer, one_vs_all) and with ``l1``. Smooth losses (softmax,
        squared_hinge) end at the minimum. Others end near it, where no step along the slope lowers
        the loss, or at ``max_iter``.
    tol : methods on all rows stop when no entry of the gradient is larger; L-BFGS works on features
        from which their means are subtracted, and on a bias in units of the features' size if that
        is above 1. It has no effect on methods on batches (SGD, Adam).
    max_iter : most steps on all rows, or the number of epochs on batches. A `ConvergenceWarning`
        says that ``tol`` was not reached.
    fit_intercept : whether to fit a bias.
    class_weight : weights by label, 1 for labels that are missing; or "balanced", in inverse
        proportion to the sums of the classes' sample weights.
    warm_start : start from the coefficients of the last fit, which must have the same classes.
    random_state : seed or `RandomState` of the order of rows on batches, and of random searches.

    Attributes
    ----------
    classes_ : (C,) sorted labels.
    coef_ : (C, D) weights of the features, or (1, D) for two classes; float64 if ``X`` was, else
        float32.
    intercept_ : (C,) or (1,) bias; 0 without ``fit_intercept``.
    n_iter_ : number of steps on all rows, or of epochs.
    n_features_in_, feature_names_in_ : number of features, and names if all were strings.

    Notes
    -----
    While kernels compile, NumPy answers: see `fastloss.loss_and_grad`. So the last bits of a
    coefficient may differ between runs; ``fastloss warmup`` compiles all kernels beforehand. Small
    problems always run on NumPy, unless `fastloss.use` names a backend. `fastloss.use` and
    ``FASTLOSS_NUM_THREADS`` set the number of threads.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastloss.sklearn import LinearClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LinearClassifier("squared_hinge", l2=1e-3).fit(X[:1000] / 16, y[:1000])
    >>> round(model.score(X[1000:] / 16, y[1000:]), 2)
    0.93
    """

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
        random_state: int | np.random.RandomState | None = None,
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
        return Plan(
            loss=get_loss(self.loss),
            l1=as_real("l1", self.l1),
            l2=as_real("l2", self.l2),
            intercept=as_bool("fit_intercept", self.fit_intercept),
            method=optim.get_method(self.method),
            tol=as_real("tol", self.tol),
            max_iter=as_integer("max_iter", self.max_iter, 1),
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> LinearClassifier:
        """Run an epoch of ``method`` on some rows, from the current coefficients.

        A method on all rows is replaced by `optim.SGD`. Momentum starts from 0 in each call, and a
        learning rate that is not given is computed from the rows of the call.

        Parameters
        ----------
        X, y, sample_weight : as in `fit`; ``y`` may lack classes.
        classes : all labels; needed in the first call only.

        Raises
        ------
        TypeError, ValueError : as in `fit`; ``class_weight="balanced"``, for which all rows would
            have to be known.
        """
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"partial_fit takes class weights by label, got {self.class_weight!r}: "
                "the rows to come are not known"
            )
        with unchanged_by_errors(self):
            last = self._last_fit()
            known = self._known_classes(classes, None if last is None else last[1])
            rows = training_set(
                self, X, y, sample_weight, self.class_weight, reset=last is None, classes=known
            )
            plan = replace(self._plan(rows), max_iter=1)
            if not plan.is_on_batches:
                plan = replace(plan, method=optim.SGD())
            W = None if last is None else self._checked_start(last, rows)
            W, _ = fitted(rows, plan, W)
            self._set(rows, W, getattr(self, "n_iter_", 0) + 1)
        return self

    def _known_classes(self, given: ArrayLike | None, last: Any) -> Any:
        """Return the sorted classes of a call of `partial_fit`."""
        if given is None and last is None:
            raise ValueError("classes must name all labels in the first call of partial_fit")
        if given is None:
            return last
        classes = np.unique(given)
        if len(classes) < 2:
            raise ValueError(f"classes must name two labels or more, got {given!r}")
        if last is not None and not np.array_equal(classes, last):
            raise ValueError(f"classes are {classes}, in earlier calls they were {last}")
        return classes

    predict_proba = available_if(_has_softmax)(Probabilities.predict_proba)
    predict_log_proba = available_if(_has_softmax)(Probabilities.predict_log_proba)
