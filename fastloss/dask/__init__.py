"""Rows on several machines: `DaskObjective`, a loss over blocks of rows on workers of a cluster.

It needs dask and distributed (the extra ``dask``), except with ``reduce=``, which takes the sum of
an array over processes from elsewhere, such as MPI.

>>> import numpy as np
>>> from fastloss.dask import DaskObjective
>>> X, y = np.eye(3, dtype=np.float32), np.array([0, 1, 1])
>>> objective = DaskObjective(X, y, n_classes=2, l2=0.1, reduce=lambda array: array)  # one process
>>> loss, dW = objective(np.zeros((3, 2), np.float32))
>>> round(loss, 4), dW.shape
(0.6931, (3, 2))
"""

from fastloss.dask.objective import DaskMinibatch, DaskObjective

__all__ = ["DaskMinibatch", "DaskObjective"]
