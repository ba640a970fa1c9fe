"""Minimise a loss by random search, gradient descent, SGD, Adam or L-BFGS.

`minimize` runs a method on an `Objective` (or any ``W -> (loss, gradient)``). Its `Result` holds
the final ``W``, the reason for stopping, and the history of the loss.

======================  =====================  ==================================================
name                    class                  a step
======================  =====================  ==================================================
``random_search``       `RandomSearch`         draws another ``W``; keeps the best
``random_local_search`` `RandomLocalSearch`    draws a step; takes it if the loss falls
``gradient_descent``    `GradientDescent`      goes along the gradient of all rows; line search
``sgd``                 `SGD`                  goes along the gradient of a batch; momentum
``adam``                `Adam`                 scales the gradient of a batch by running moments
``lbfgs``               `LBFGS`                is a quasi-Newton step on all rows; line search
======================  =====================  ==================================================

>>> import numpy as np, fastloss
>>> from fastloss import optim
>>> problem = fastloss.data.synthetic(500, 20, 4, seed=0)
>>> train = fastloss.Objective(problem.X[:400], problem.y[:400], l2=1e-3, intercept=True)
>>> held_out = fastloss.Objective(problem.X[400:], problem.y[400:], intercept=True)
>>> method = optim.SGD(lr=0.5, batch_size=32, momentum=0.9, schedule=optim.Cosine(epochs=5))
>>> result = optim.minimize(
...     train, np.zeros((21, 4), np.float32), method, max_epochs=5, validation=held_out, seed=1
... )
>>> result.why, result.n_steps, len(result.history)
('max_epochs', 65, 6)
>>> losses = result.history.column("loss")
>>> bool(losses[-1] < 0.5 * losses[0])
True

With ``validation=``, ``restore_best=True`` returns the best ``W`` instead of the last one, and
``patience=`` stops a run that no longer improves:

>>> optim.minimize(
...     train,
...     np.zeros((21, 4), np.float32),
...     method,
...     max_epochs=50,
...     validation=held_out,
...     restore_best=True,
...     patience=3,
... ).why
'patience'

Runs with the same seed give the same bits on any number of threads. With ``checkpoint=`` a run can
be interrupted and resumed with the same bits. Without ``lr``, methods compute a
learning rate from the rows, so raw pixels need no search for one. If the loss explodes,
`DivergedError` names the learning rate:

>>> optim.minimize(train, np.zeros((21, 4), np.float32), optim.SGD(lr=1e9))  # doctest: +ELLIPSIS
Traceback (most recent call last):
    ...
fastloss.optim.result.DivergedError: ...; the learning rate was 1e+09: lower lr...

To add a method, write a frozen dataclass: see `Method` and `register_method`.
"""

from fastloss.optim.accuracy import accuracy
from fastloss.optim.base import Method, Setting, State, Stop
from fastloss.optim.descent import SGD, Adam, GradientDescent
from fastloss.optim.lbfgs import LBFGS
from fastloss.optim.methods import (
    available_methods,
    get_method,
    register_method,
    unregister_method,
)
from fastloss.optim.result import DivergedError, History, Record, Result
from fastloss.optim.run import minimize
from fastloss.optim.schedules import (
    Constant,
    Cosine,
    ExponentialDecay,
    InverseTime,
    Schedule,
    StepDecay,
    Warmup,
)
from fastloss.optim.searches import RandomLocalSearch, RandomSearch

__all__ = [
    "LBFGS",
    "SGD",
    "Adam",
    "Constant",
    "Cosine",
    "DivergedError",
    "ExponentialDecay",
    "GradientDescent",
    "History",
    "InverseTime",
    "Method",
    "RandomLocalSearch",
    "RandomSearch",
    "Record",
    "Result",
    "Schedule",
    "Setting",
    "State",
    "StepDecay",
    "Stop",
    "Warmup",
    "accuracy",
    "available_methods",
    "get_method",
    "minimize",
    "register_method",
    "unregister_method",
]
