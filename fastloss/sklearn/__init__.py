"""Linear classifiers with scikit-learn's interface, fitted by fastloss's kernels.

=======================  ===========================================================================
`LinearClassifier`       any loss, penalty and method of fastloss
`LogisticRegression`     softmax; the parameters of scikit-learn's class of this name
`LinearSVC`              hinge losses; the parameters of scikit-learn's class of this name
=======================  ===========================================================================

They work in pipelines, searches, `clone` and pickles as scikit-learn's own do. Rows may be float64,
float32, float16 or uint8, also memory-mapped; they are never copied as a whole. Others become
float64. Missing values and sparse matrices are errors. This package needs scikit-learn:
``pip install '.[sklearn]'``.

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
