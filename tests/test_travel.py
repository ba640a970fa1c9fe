"""Tests that every public object can be copied, pickled and sent to another process."""

from __future__ import annotations

import copy
import importlib
import inspect
import multiprocessing
import pickle
import pkgutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest

import fastloss
from fastloss import optim, plots
from fastloss.backends import auto, get_backend, parallel
from fastloss.backends.base import Workload
from fastloss.benchmark.results import Cell, GradientPoint, GradientStudy, Results, Timing
from fastloss.benchmark.run import Settings as BenchSettings
from fastloss.benchmark.run import VerificationError
from fastloss.benchmark.shown import ShownResults
from fastloss.benchmark.worker import WorkerError
from fastloss.candidates import Candidate
from fastloss.dask import DaskObjective
from fastloss.dask.cluster import BlocksMoved
from fastloss.dask.objective import DaskMinibatch
from fastloss.demo.jobs import Cancelled
from fastloss.demo.messages import MessageError
from fastloss.files import DataFormatError
from fastloss.kernels import simd
from fastloss.kernels.native import KernelError
from fastloss.lessons.tools import WrongResult
from fastloss.lessons.verdicts import Fault
from fastloss.losses import get_loss, softmax
from fastloss.optim.checkpoint import Checkpoint, fingerprint
from fastloss.optim.function import Batches, RowsFunction
from fastloss.sklearn import LinearClassifier, LinearSVC, LogisticRegression
from fastloss.training import Job, Outcome, Prepared, Settings, Splits, Trial, fill_in

pytest.importorskip("numba")

#: Modules whose public classes are tested too, although no ``__all__`` lists them.
MODULES = ("backends.auto", "benchmark.results", "losses.jit", "model", "objective", "problem")
BACKENDS = fastloss.available_backends()
rng = np.random.default_rng(0)
X, y, W = rng.standard_normal((200, 5)), rng.integers(0, 3, 200), rng.standard_normal((6, 3))


def called_objective(backend: str) -> fastloss.Objective:
    objective = fastloss.Objective(X, y, loss="hinge", l2=0.1, intercept=True, backend=backend)
    objective(W)
    return objective


def examples() -> list[Any]:
    """Return objects that are, or contain, an instance of every public class."""
    objective = called_objective(BACKENDS[-1])
    minibatch = objective.minibatch(4)
    minibatch(np.arange(4), W)
    rows = RowsFunction(objective, W, reproducible=False)
    setting = optim.Setting(rows, 0, 0.0, Batches(rows, 4, True, 0))
    result = optim.minimize(objective, W, "sgd", max_steps=2)
    sgd = optim.SGD(lr=0.1)
    state = sgd.take_step(setting, sgd.start(setting, W))
    saved = Checkpoint(fingerprint(objective, W, sgd, 0), state, 1, 2.0, ())
    timing = Timing("fused", [1.0, 2.0])
    point = GradientPoint("analytic", 15, timing, 1, None)
    cell = Cell("hinge", 9, 5, 3, "float64", [timing], skipped={"torch": "not installed"})
    assert timing.summary.median == 1.5
    return [
        *(objective, minibatch, setting, result, saved, *trained()),
        *(kind().fit(X, y) for kind in (LinearClassifier, LinearSVC, LogisticRegression)),
        BlocksMoved("block 3"),
        KernelError("a kernel failed"),
        *map(get_loss, fastloss.available_losses()),
        *map(get_backend, BACKENDS),
        *map(optim.get_method, optim.available_methods()),
        *(optim.Constant(), optim.StepDecay(), optim.ExponentialDecay(), optim.InverseTime()),
        *(optim.Cosine(3), optim.Warmup(2, optim.Cosine(3))),
        optim.DivergedError(3, 1.0, 1e9, 0.5, result.history),
        optim.DivergedError(3, 1.0, np.inf, None, result.history),
        optim.Stop("converged", "the gradient is 0"),
        Fault("too slow", "slow"),
        *(DataFormatError("a.npz", "truncated", 7), VerificationError("wrong"), WorkerError("1")),
        *(WrongResult("the losses differ"), MessageError("no point 9"), Cancelled()),
        fastloss.check_gradient(objective, W),
        fastloss.check_candidate(lambda W, X, y: None),
        Candidate("mine", "my_module:my_function"),
        fastloss.explain(1000, 100, 10),
        auto.choose(Workload(get_loss("hinge"), (9, 5, 3), X.dtype, W.dtype)),
        Results("title", "data", {}, {"read": 1.0}, timing, None, [cell]),
        ShownResults("title", "data", {}, cells=[cell]),
        GradientStudy("hinge", 9, 3, [point]),
        BenchSettings(),
        *(simd.target(), *plots.THEMES),
        softmax.softmax_parallel,
        parallel.score_rows.binding(loss_row=softmax.softmax_row),
    ]


def trained() -> list[Any]:
    data = fastloss.data.synthetic(60, 5, 3, seed=0)
    prepared = Prepared.of(Splits(data, data, None))
    scale = prepared.scale
    settings = fill_in(Settings(optimizer="lbfgs", steps=2), scale)
    model = prepared.model(np.zeros((6, 3), np.float32), settings, {"data": "made up"})
    trial = Trial(0, settings, None, "diverged")
    job = Job(settings, n_threads=1)
    confusions = {"train": np.eye(3, dtype=int)}
    outcome = Outcome(job, prepared.splits, model, [trial], {"train": 1.0}, confusions, {})
    return [prepared, scale, outcome]


def public_classes() -> set[type]:
    """Return the concrete classes in each ``__all__`` and in `MODULES`, and all exceptions."""
    found: set[type] = set()
    for info in pkgutil.walk_packages(fastloss.__path__, "fastloss."):
        if "__main__" in info.name or info.name.startswith("fastloss.lessons.scripts"):
            continue
        module = importlib.import_module(info.name)
        names = {*getattr(module, "__all__", ())}
        for name, value in list(vars(module).items()):
            is_own = inspect.isclass(value) and value.__module__ == info.name and name[0] != "_"
            is_listed = info.name.removeprefix("fastloss.") in MODULES
            if is_own and (is_listed or issubclass(value, BaseException)):
                names.add(name)
        found |= {getattr(module, name) for name in names if inspect.isclass(vars(module)[name])}
    found |= {kind for name in fastloss.__all__ if inspect.isclass(kind := getattr(fastloss, name))}
    return {
        kind
        for kind in found
        if not (inspect.isabstract(kind) or getattr(kind, "_is_protocol", False))
    }


def types_in(value: Any) -> Iterator[type]:
    """Yield the types of an object and of its parts."""
    yield type(value)
    parts: list[Any] = []
    if type(value).__module__.startswith("fastloss"):
        parts = list(getattr(value, "__dict__", {}).values())
    elif isinstance(value, (list, tuple)):
        parts = list(value)
    elif isinstance(value, dict):
        parts = list(value.values())
    for part in parts:
        yield from types_in(part)


def content(value: Any) -> Any:
    """Return, as lists and texts, everything that copying and pickling must preserve."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.tolist()
    if isinstance(value, (list, tuple)):
        return [content(part) for part in value]
    if isinstance(value, dict):
        return {str(key): content(part) for key, part in value.items()}
    if type(value).__module__.startswith("fastloss"):
        state = value.__reduce_ex__(4)
        text = str(value) if isinstance(value, Exception) else ""
        return (
            str(type(value)),
            text,
            state if isinstance(state, str) else content([*filter(bool, state[1:])]),
        )
    return repr(value)


EXAMPLES = examples()


def test_every_public_class_has_an_example():
    assert len(public_classes()) > 30
    # The rows of a DaskObjective are on a cluster, so it refuses to travel: see test_dask.
    missing = public_classes() - set(types_in(EXAMPLES)) - {DaskObjective, DaskMinibatch}
    assert not {kind.__name__ for kind in missing}


JOURNEYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle protocol {n}": lambda value, n=n: pickle.loads(pickle.dumps(value, n))
        for n in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_public_object_survives_copying_and_pickling(value):
    for name, travel in JOURNEYS.items():
        assert content(travel(value)) == content(value), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_called_objective_computes_the_same_after_pickling(backend):
    objective = called_objective(backend)
    minibatch, rows = objective.minibatch(4), np.arange(4)
    batch = objective.batch(slice(50))
    right = [objective(W), batch(W), minibatch(rows, W)]
    for name, travel in JOURNEYS.items():
        one, part, few = travel(objective), travel(batch), travel(minibatch)
        for (loss, dW), (expected, gradient) in zip(
            [one(W), part(W), few(rows, W)], right, strict=True
        ):
            assert loss == expected, name
            np.testing.assert_array_equal(dW, gradient)


def test_pickled_loss_keeps_its_kernel():
    bound = parallel.score_rows.binding(loss_row=softmax.softmax_row)
    arrived = pickle.loads(pickle.dumps(bound))
    assert arrived.name("x") == bound.name("x")
    assert pickle.loads(pickle.dumps(softmax.softmax_row)) is softmax.softmax_row
    assert pickle.loads(pickle.dumps(fastloss.Softmax())).row is softmax.softmax_row


def test_spawned_worker_calls_an_objective_and_returns_its_error():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        for backend in BACKENDS:
            objective = called_objective(backend)
            loss, dW = pool.submit(objective, W).result(timeout=120)
            expected, gradient = objective(W)
            assert loss == pytest.approx(expected, rel=1e-13)
            np.testing.assert_allclose(dW, gradient, rtol=1e-12, atol=1e-14)
        diverging = pool.submit(optim.minimize, called_objective("numpy"), W, optim.SGD(lr=1e300))
        with pytest.raises(optim.DivergedError, match="the learning rate was 1e"):
            diverging.result(timeout=120)


NOTEBOOK = """
import math
from dataclasses import dataclass
import numpy as np
import fastloss
from fastloss.losses.jit import njit, prange

@njit
def row(scores, label, parameters):
    for c in range(len(scores)):
        scores[c] = 0.0
    return 0.5

@njit(parallel=True)
def rows(X, W_T, labels, weights, parameters, chunks, losses, partials):
    for k in prange(len(chunks)):
        losses[k] = 0.5

@dataclass(frozen=True)
class Half(fastloss.Loss):
    name = "half"
    row = row
    parallel = rows
    def naive(self, scores, label):
        return 0.5, [0.0] * len(scores)
    def vectorized(self, scores, labels):
        return np.full(len(scores), 0.5), np.zeros_like(scores)

objective = fastloss.Objective(np.ones((6, 2)), [0, 1, 2, 0, 1, 2], loss=Half(), backend="numpy")
assert objective(np.zeros((2, 3)))[0] == 0.5
"""


def test_cloudpickle_takes_an_objective_with_a_notebooks_loss(tmp_path, run_python):
    pytest.importorskip("cloudpickle")
    file = tmp_path / "objective.pickle"
    dump = f"open({str(file)!r}, 'wb').write(cloudpickle.dumps([objective, row]))"
    run_python(f"{NOTEBOOK}\nimport cloudpickle\n{dump}")
    code = f"""
    import pickle
    objective, row = pickle.load(open({str(file)!r}, "rb"))
    assert row([1.0], 0, ()) == 0.5
    assert objective([[0.0] * 3] * 2)[0] == 0.5
    """
    run_python(code)
