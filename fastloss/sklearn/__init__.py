"""Linear classifiers with scikit-learn's interface, fitted by fastloss's kernels.

====================  ============================================  ============================
estimator             objective: rows i of weight r_i and loss L_i  scikit-learn's objective
====================  ============================================  ============================
`LinearClassifier`    sum r_i L_i / sum r_i + l1 |W| + l2 |W|^2,    SGDClassifier: alpha is 2 l2,
                      any loss, any method of `fastloss.optim`      one problem for each class
`LogisticRegression`  C sum r_i L_i + |W|^2 / 2, softmax            the same
`LinearSVC`           C sum r_i L_i + |W|^2 / 2, hinge losses       the bias is penalised, too
====================  ============================================  ============================

They work in pipelines, searches, `clone` and pickles as scikit-learn's own do. Labels may be
strings, bools or any integers. Rows may be float64, float32, float16 or uint8, also memory-mapped;
they are never copied as a whole, and coefficients are float64 for float64 rows, else float32. Rows
of other types become float64. Missing values and sparse matrices are errors. This package needs
scikit-learn: ``pip install '.[sklearn]'``.

>>> from sklearn.datasets import load_iris
>>> from fastloss.sklearn import LogisticRegression
>>> X, y = load_iris(return_X_y=True)
>>> model = LogisticRegression(max_iter=200).fit(X, y)
>>> model.predict(X[:2]), round(model.score(X, y), 2)
(array([0, 0]), 0.97)
"""

from fastloss.version import install_extra

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError:
    raise ImportError(
        f"fastloss.sklearn needs scikit-learn, which is not installed: {install_extra('sklearn')}"
    ) from None

from fastloss.sklearn.linear_classifier import LinearClassifier
from fastloss.sklearn.linear_svc import LinearSVC
from fastloss.sklearn.logistic_regression import LogisticRegression

__all__ = ["LinearClassifier", "LinearSVC", "LogisticRegression"]
