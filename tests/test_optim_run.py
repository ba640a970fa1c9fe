"""Tests of runs in fastloss.optim: bits, stopping, divergence, interrupts and checkpoints."""

from __future__ import annotations

import dataclasses
import itertools
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import fastloss
from fastloss import optim
from fastloss.backends import get_backend
from fastloss.backends.background import compilations
from fastloss.optim import run as optim_run

#: Every method, in each variant with another kind of state.
METHODS = {
    "random_search": optim.RandomSearch(0.1),
    "random_local_search": optim.RandomLocalSearch(0.05),
    "gradient_descent": optim.GradientDescent(0.1),
    "gradient_descent_momentum": optim.GradientDescent(0.1, momentum=0.9, nesterov=True),
    "line_search": optim.GradientDescent(3.0, line_search=True),
    "sgd": optim.SGD(0.1, batch_size=32),
    "sgd_in_order": optim.SGD(0.1, batch_size=32, shuffle=False),
    "sgd_momentum": optim.SGD(0.1, 32, momentum=0.9, schedule=optim.Cosine(2)),
    "sgd_nesterov": optim.SGD(0.1, 32, momentum=0.9, nesterov=True),
    "adam": optim.Adam(0.01, batch_size=32),
    "adam_all_rows": optim.Adam(0.01, batch_size=None),
    "lbfgs": optim.LBFGS(memory=4),
}
each_method = pytest.mark.parametrize("name", METHODS)
N_ROWS = 200  # 7 batches an epoch, the last one of 8 rows
N_STEPS = 24


def objective(dtype=np.float32, n_classes: int = 4, **options) -> fastloss.Objective:
    problem = fastloss.data.synthetic(N_ROWS, 12, n_classes, seed=3)
    options = {"l1": 1e-4, "l2": 1e-3, "intercept": True, **options}
    return fastloss.Objective(problem.X.astype(dtype), problem.y, **options)


def start(dtype=np.float32, n_classes: int = 4) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((13, n_classes)).astype(dtype) * dtype(0.1)


def run(name: str, f=None, **options) -> optim.Result:
    options = {"max_steps": N_STEPS, "record_every": 5, "seed": 9, **options}
    return optim.minimize(f or objective(), start(), METHODS[name], **options)


def timeless(history: optim.History) -> list[optim.Record]:
    return [dataclasses.replace(record, seconds=0.0) for record in history]


def assert_same(result: optim.Result, expected: optim.Result) -> None:
    """Assert that two results have the same bits, apart from times."""
    np.testing.assert_array_equal(result.W, expected.W)
    assert timeless(result.history) == timeless(expected.history)
    assert (result.loss, result.n_steps) == (expected.loss, expected.n_steps)
    assert result.n_evaluations == expected.n_evaluations
    assert result.why == expected.why


@contextmanager
def failing_at(number: int, error: type[BaseException] = KeyboardInterrupt) -> Iterator[None]:
    """Raise ``error`` in the evaluation of this number, of all rows or of a batch."""
    backend = type(get_backend("fused"))
    countdown = [number]

    def counted(evaluate):
        def evaluate_or_fail(*arguments):
            countdown[0] -= 1
            if countdown[0] == 0:
                raise error
            return evaluate(*arguments)

        return evaluate_or_fail

    with pytest.MonkeyPatch.context() as patch:
        for name in ("prepare", "prepare_batches"):
            prepare = getattr(backend, name)
            patch.setattr(backend, name, lambda *a, prepare=prepare: counted(prepare(*a)))
        yield


# --- bits -----------------------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("backend", ["auto", "numpy", "fused"])
def test_same_bits_on_any_number_of_threads(name, backend):
    results = [
        run(name, objective(backend=backend, n_threads=n), validation=objective())
        for n in (1, 2, 3)
    ]
    for result in results[1:]:
        assert_same(result, results[0])


@pytest.mark.parametrize("shape", [(3000, 300, 10), (400, 300, 100)], ids=["narrow", "wide"])
def test_same_bits_on_any_number_of_threads_for_many_rows(shape):
    n, d, c = shape
    problem = fastloss.data.synthetic(n, d, c, seed=0)
    f = fastloss.Objective(problem.X, problem.y, l2=1e-3)
    W = np.zeros((d, c), np.float32)
    results = []
    for n_threads in (1, 2, 5):
        with fastloss.use(n_threads=n_threads):
            results.append(optim.minimize(f, W, optim.SGD(batch_size=700), max_epochs=3))
    for result in results[1:]:
        assert_same(result, results[0])


@dataclasses.dataclass(frozen=True)
class Watching(fastloss.Loss):
    """A loss without kernels that notes how many threads BLAS may use."""

    name: ClassVar[str] = "watching"
    seen: ClassVar[set[int]] = set()

    def naive(self, scores, label):
        raise NotImplementedError

    def vectorized(self, scores, labels):
        blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        self.seen.update(pool["num_threads"] for pool in blas)
        return fastloss.Softmax().vectorized(scores, labels)


@pytest.mark.parametrize("name", ["sgd", "gradient_descent", "random_search", "lbfgs"])
def test_blas_runs_on_one_thread(name):
    """With more threads, the bits of BLAS differ on some machines and shapes."""
    Watching.seen.clear()
    run(name, objective(loss=Watching(), n_threads=2))
    assert Watching.seen == {1}


def test_auto_keeps_its_backend_throughout_a_run(monkeypatch, ran):
    """A run waits for kernels that another thread compiles, then uses them throughout."""
    is_compiled = threading.Event()
    waited = []
    for name in ("numba", "fused"):
        monkeypatch.setattr(type(get_backend(name)), "ready", lambda *_: is_compiled.is_set())
    monkeypatch.setattr(compilations, "start", lambda *_: False)
    monkeypatch.setattr(compilations, "wait", lambda: (waited.append(1), is_compiled.set()))
    run("sgd")
    assert waited
    assert set(ran) == {"fused"}


def test_run_that_need_not_be_reproducible_does_not_wait_for_kernels(monkeypatch, ran):
    for name in ("numba", "fused"):
        monkeypatch.setattr(type(get_backend(name)), "ready", lambda *_: False)
    monkeypatch.setattr(compilations, "start", lambda *_: False)
    run("sgd", objective(n_classes=4), reproducible=False)
    assert set(ran) == {"numpy"}


@each_method
def test_same_seed_gives_the_same_run(name):
    assert_same(run(name), run(name))
    if name in ("gradient_descent", "gradient_descent_momentum", "line_search"):
        return
    same = np.array_equal(run(name, seed=1).W, run(name, seed=2).W)
    assert same == (name in ("lbfgs", "sgd_in_order", "adam_all_rows"))


# --- stopping -------------------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize(
    ("why", "limit"),
    [("max_steps", 5), ("max_epochs", 1), ("max_evaluations", 2.5), ("max_seconds", 1e-9)],
)
def test_run_stops_at_its_limit(name, why, limit):
    options = {"max_steps": None, "tolerance": 0.0, why: limit}
    result = run(name, **options)
    assert result.why == why
    assert result.message.startswith(f"{why} = {limit:g} reached in step {result.n_steps}")
    if why == "max_steps":
        assert result.n_steps == 5
    if why == "max_epochs":
        assert result.history[-1].epoch == 1
    if why == "max_evaluations":
        assert result.n_evaluations >= 2.5
        assert all(record.evaluations < 2.5 for record in result.history[:-1])
    if why == "max_seconds":
        assert result.n_steps == 0


def test_run_without_a_limit_has_a_default():
    assert run("sgd", max_steps=None).why == "max_epochs"
    assert run("random_search", max_steps=None).n_steps == 1000


@pytest.mark.parametrize("name", ["gradient_descent", "line_search", "adam_all_rows", "lbfgs"])
def test_run_converges_at_the_tolerance(name):
    result = run(name, max_steps=5000, tolerance=1e-2)
    assert result.why == "converged"
    assert np.abs(objective()(result.W)[1]).max() <= 1e-2


def test_callback_sees_each_record_and_stops_the_run():
    seen = []

    def callback(record):
        seen.append(record)
        return record.step >= 10

    result = run("sgd", callback=callback)
    assert (result.why, result.n_steps) == ("callback", 10)
    assert tuple(seen) == tuple(result.history)


# --- divergence -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        optim.GradientDescent(lr=1e30),
        optim.GradientDescent(lr=3.0),
        optim.SGD(lr=1e30, batch_size=32),
        optim.SGD(lr=1e10, batch_size=32, momentum=0.9),
        optim.Adam(lr=1e30, batch_size=32),
    ],
    ids=str,
)
@pytest.mark.parametrize("loss", ["softmax", "squared_hinge"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_divergence_names_the_step_and_the_learning_rate(method, loss, dtype, tmp_path):
    f = objective(dtype, loss=loss, l2=1.0)
    path = tmp_path / "run.npz"
    with pytest.raises(optim.DivergedError, match="lower lr") as caught:
        optim.minimize(f, start(dtype), method, max_steps=500, checkpoint=path)
    error = caught.value
    assert f"diverged in step {error.step}: the loss went from {error.loss_before:.6g}" in str(
        error
    )
    assert f"the learning rate was {method.lr:g}" in str(error)
    assert not error.loss < 100
    assert error.loss_before < error.loss or math.isnan(error.loss)
    assert "\n" not in str(error)
    assert error.history[0].step == 0


def test_divergence_in_the_last_step_is_noticed(tmp_path):
    path = tmp_path / "run.npz"
    with pytest.raises(optim.DivergedError, match="diverged in step 1:"):
        optim.minimize(objective(), start(), optim.SGD(lr=1e30), max_steps=1, checkpoint=path)
    assert not path.exists()


def test_noisy_rise_does_not_stop_a_run():
    result = optim.minimize(objective(), start(), optim.SGD(lr=30.0), max_epochs=3)
    assert result.history.column("loss").max() > 2 * result.history[0].loss


@each_method
def test_nonfinite_start_is_an_error(name):
    W = start()
    W[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"the loss at the start is nan: W\[3, 1\] is nan"):
        optim.minimize(objective(), W, METHODS[name], max_steps=3)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"max_steps": 0}, ValueError, "max_steps must be >= 1, got 0"),
        ({"max_steps": 2.5}, TypeError, "max_steps must be an integer, got 2.5"),
        ({"max_epochs": -1}, ValueError, "max_epochs must be > 0, got -1"),
        ({"max_seconds": math.nan}, ValueError, "max_seconds must be > 0, got nan"),
        ({"record_every": 0}, ValueError, "record_every must be >= 1, got 0"),
        ({"seed": -1}, ValueError, "seed must be >= 0, got -1"),
        ({"seed": "x"}, TypeError, "seed must be an integer, got 'x'"),
        ({"tolerance": -1.0}, ValueError, "tolerance must be finite and >= 0"),
        ({"validation": 3}, TypeError, r"a fastloss.Objective, \(X, y\) or callable, got int"),
        ({"restore_best": True}, ValueError, "need validation rows: set validation"),
        ({"patience": 3}, ValueError, "need validation rows: set validation"),
        ({"patience": 0, "validation": float}, ValueError, "patience must be >= 1, got 0"),
        ({"restore_best": 1, "validation": float}, TypeError, "restore_best must be True or Fal"),
        (
            {"f": lambda W: (1.0, W), "method": "lbfgs", "validation": ([[1.0]], [0])},
            TypeError,
            r"validation=\(X, y\) needs an f that is a fastloss.Objective",
        ),
        ({"resume": True}, ValueError, "need a file: pass checkpoint="),
        ({"checkpoint_every": 3}, ValueError, "need a file: pass checkpoint="),
        ({"checkpoint": "no/such/run.npz"}, FileNotFoundError, "no folder no/such for the check"),
        ({"W": np.zeros((13, 4), int)}, TypeError, "W must be float32 or float64, got int"),
        ({"W": np.zeros((12, 4), np.float32)}, ValueError, "W must have 13 rows"),
        ({"W": np.zeros((13, 3), np.float32)}, ValueError, r"is not in \[0, 3\)"),
        ({"W": np.zeros((13, 4))}, TypeError, "the same float type"),
        ({"f": 3}, TypeError, "f must be a fastloss.Objective or callable, got int"),
        ({"f": lambda W: 1.0, "method": "lbfgs"}, TypeError, r"f must return \(loss, gradient\)"),
        ({"f": lambda W: (1.0, W[:2]), "method": "lbfgs"}, ValueError, "must have the shape of W"),
    ],
)
def test_bad_arguments_are_refused(options, error, match):
    with pytest.raises(error, match=match) as caught:
        optim.minimize(**{"f": objective(), "W": start(), "max_steps": 3, **options})
    assert "\n" not in str(caught.value)


# --- the best W on validation rows ----------------------------------------------------------------


def jumpy(W):
    """An accuracy that depends on W alone, and rises and falls from record to record."""
    return round(abs(math.sin(300 * float(np.square(W - start()).sum()))), 1)


def scripted(*accuracies: float):
    """Return an accuracy that has these values, one a record."""
    values = iter(accuracies)
    return lambda W: next(values)


@each_method
def test_best_record_is_restored(name):
    last, best = (run(name, validation=jumpy, restore_best=restored) for restored in (False, True))
    assert timeless(best.history) == timeless(last.history)
    shares = best.history.column("validation_accuracy")
    assert best.record == best.history[int(shares.argmax())]
    assert jumpy(best.W) == shares.max()
    np.testing.assert_allclose(best.loss, objective().loss(best.W), rtol=1e-6)
    assert best.n_steps == last.n_steps == last.record.step == N_STEPS


def test_rows_and_labels_validate_as_their_objective_does():
    f = objective()
    rows = run("sgd", f, validation=(f.X[:50], f.labels[:50]), restore_best=True)
    held_out = fastloss.Objective(f.X[:50], f.labels[:50], intercept=True)
    assert_same(rows, run("sgd", f, validation=held_out, restore_best=True))
    assert optim.accuracy(held_out, rows.W) == rows.record.validation_accuracy


@pytest.mark.parametrize(
    ("shares", "patience", "best", "end"),
    [
        ((0.1, 0.5, 0.4, 0.5, 0.5), 3, 5, 20),  # a tie keeps the earlier W, and is no rise
        ((0.5, 0.4, 0.6, 0.3, 0.7), 2, 20, 24),
        ((0.5, 0.4), 1, 0, 5),
        ((math.nan, 0.0, math.nan, math.nan), 2, 5, 15),  # NaN is worse than any number
        ((math.nan, math.nan), 1, 0, 5),
        ((0.1, 0.2, 0.3, 0.4, 0.5), None, 24, 24),  # the record of the end counts
    ],
)
def test_run_stops_when_patience_is_over(shares, patience, best, end):
    at_end = (0.6,) if end == N_STEPS and patience is None else (0.0,)
    validation = scripted(*shares, *at_end)
    result = run("sgd", validation=validation, patience=patience, restore_best=True)
    assert (result.record.step, result.n_steps) == (best, end)
    assert result.why == ("max_steps" if end == N_STEPS else "patience")
    np.testing.assert_array_equal(result.W, run("sgd", max_steps=best).W if best else start())
    if result.why == "patience":
        assert result.message == (
            f"no higher validation accuracy in {patience} records since step {best}"
        )


@pytest.mark.parametrize("name", ["sgd_momentum", "gradient_descent", "random_local_search"])
def test_best_and_patience_survive_interrupts(name, tmp_path):
    options = {"validation": jumpy, "restore_best": True, "patience": 4, "record_every": 2}
    path = tmp_path / "run.npz"
    expected = run(name, **options)
    assert 0 < expected.record.step < expected.n_steps
    for at in (3, 6, 9):
        with failing_at(at):
            stopped = run(name, checkpoint=path, **options)
        assert stopped.why == "interrupted"
        assert jumpy(stopped.W) == max(stopped.history.column("validation_accuracy"))
        assert_same(run(name, checkpoint=path, resume=True, **options), expected)
        path.unlink()
    for n_steps in (1, 5, 6, 11):
        run(name, checkpoint=path, resume=path.exists(), max_steps=n_steps, **options)
    for _ in range(2):  # the second run has nothing left to do
        assert_same(run(name, checkpoint=path, resume=True, **options), expected)


# --- interrupts and checkpoints -------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("at", [2, 3, 7, 8, 11, 16, 25])
def test_interrupted_run_resumes_with_the_same_bits(name, at, tmp_path):
    """The interrupts come in a step, a record, a line search and at an epoch's end."""
    path = tmp_path / "run.npz"
    with failing_at(at):
        stopped = run(name, checkpoint=path)
    assert stopped.why == "interrupted"
    assert stopped.loss == stopped.history[-1].loss
    assert_same(run(name, checkpoint=path, resume=True), run(name))
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.npz"]


@each_method
def test_run_in_many_parts_has_the_same_bits(name, tmp_path):
    path = tmp_path / "run.npz"
    run(name, checkpoint=path, max_steps=3)
    for n_steps in (4, 7, 8, 20):
        part = run(name, checkpoint=path, resume=True, max_steps=n_steps)
        assert part.n_steps == n_steps
    assert_same(run(name, checkpoint=path, resume=True), run(name))


@pytest.mark.parametrize("at", [29, 30])
def test_interrupt_at_the_end_resumes_with_the_same_bits(at, tmp_path):
    """The interrupts come in the last step, and between the last step and its record."""
    path = tmp_path / "run.npz"
    # 30 evaluations: 24 batches and 6 records.
    with failing_at(at):
        stopped = run("sgd", checkpoint=path)
    assert (stopped.why, stopped.n_steps) == ("interrupted", N_STEPS - (at == 29))
    assert_same(run("sgd", checkpoint=path, resume=True), run("sgd"))


@pytest.mark.parametrize("where", ["callback", "validation"])
@pytest.mark.parametrize("name", ["sgd_momentum", "gradient_descent"])
def test_interrupt_in_a_callback_resumes_with_the_same_bits(where, name, tmp_path):
    calls = []

    def raises_at_the_third(_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 0.0

    path = tmp_path / "run.npz"
    stopped = run(name, checkpoint=path, **{where: raises_at_the_third})
    assert (stopped.why, stopped.n_steps) == ("interrupted", 10)
    resumed = run(name, checkpoint=path, resume=True, **{where: lambda _: 0.0})
    assert_same(resumed, run(name, **{where: lambda _: 0.0}))


def test_interrupt_without_a_checkpoint_returns_the_last_step():
    with failing_at(9):
        stopped = run("sgd")
    assert stopped.why == "interrupted"
    assert stopped.message == f"interrupted after step {stopped.n_steps}"
    np.testing.assert_array_equal(stopped.W, run("sgd", max_steps=stopped.n_steps).W)


@pytest.mark.parametrize("name", ["gradient_descent", "sgd"])
def test_interrupt_before_the_first_record_is_raised(name):
    with pytest.raises(KeyboardInterrupt), failing_at(1):
        run(name)


@each_method
def test_failed_run_resumes_with_the_same_bits(name, tmp_path):
    path = tmp_path / "run.npz"
    with pytest.raises(ZeroDivisionError), failing_at(9, ZeroDivisionError):
        run(name, checkpoint=path)
    assert_same(run(name, checkpoint=path, resume=True), run(name))


def test_ctrl_c_at_any_moment_resumes_with_the_same_bits(run_python, tmp_path):
    """A timer interrupts the main thread at an unplanned moment."""
    code = f"""
        import _thread, os, threading
        import numpy as np
        import fastloss
        from fastloss import optim

        os.chdir({str(tmp_path)!r})
        problem = fastloss.data.synthetic(2000, 12, 4, seed=3)
        f = fastloss.Objective(problem.X, problem.y)
        W = np.zeros((12, 4), np.float32)
        method = optim.SGD(0.1, batch_size=16, momentum=0.9)
        optim.minimize(f, W, method, max_steps=3)
        threading.Timer(0.3, _thread.interrupt_main).start()
        part = optim.minimize(f, W, method, max_steps=10**9, checkpoint="run.npz")
        n_steps = part.n_steps + 100
        rest = optim.minimize(f, W, method, max_steps=n_steps, checkpoint="run.npz", resume=True)
        whole = optim.minimize(f, W, method, max_steps=n_steps)
        print(part.why, part.n_steps > 10, np.array_equal(rest.W, whole.W))
    """
    assert run_python(code).split() == ["interrupted", "True", "True"]


def test_checkpoints_are_written_at_their_interval(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    steps = []
    save = optim_run.Checkpoint.save

    def spy(checkpoint, path):
        steps.append(checkpoint.state.step)
        save(checkpoint, path)

    monkeypatch.setattr(optim_run.Checkpoint, "save", spy)
    run("sgd", checkpoint=path, checkpoint_every=7)
    assert steps == [7, 14, 21, 24]
    steps.clear()
    path.unlink()
    run("sgd", checkpoint=path)
    assert steps == [24]
    steps.clear()
    path.unlink()
    seconds = itertools.count(step=31.0)  # every reading of the clock is 31 s later
    monkeypatch.setattr(time, "perf_counter", lambda: next(seconds))
    run("sgd", checkpoint=path)
    assert steps == [*range(1, N_STEPS), 24]


def test_failed_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    run("sgd", checkpoint=path, max_steps=5)
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", full_disk)
        with pytest.warns(RuntimeWarning, match="checkpoint is not kept: No space left"):
            finished = run("sgd", checkpoint=path, resume=True)
    assert_same(finished, run("sgd"))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.npz"]
    assert_same(run("sgd", checkpoint=path, resume=True), run("sgd"))


def test_checkpoint_is_replaced_only_by_a_resumed_run(tmp_path):
    path = tmp_path / "run.npz"
    run("sgd", checkpoint=path, max_steps=5)
    before = path.read_bytes()
    told = r"a checkpoint is there; pass resume=True \(--resume\), or delete it"
    with pytest.raises(FileExistsError, match=told):
        run("sgd", checkpoint=path, max_steps=2)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["random_search", "random_local_search"])
def test_search_that_accepts_nothing_says_so(name):
    huge = fastloss.Objective(1e6 * objective().X, objective().labels)
    result = optim.minimize(
        huge, np.zeros((12, 4), np.float32), optim.get_method(name), max_steps=5
    )
    assert result.message.startswith("max_steps = 5 reached in step 5; no step lowered the loss")
    assert "no step" not in run(name).message


def test_checkpoint_does_not_replace_another_archive(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, X=np.ones(3))
    with pytest.raises(FileExistsError, match="another archive is there, of X"):
        run("sgd", checkpoint=path)
    X = np.lib.format.open_memmap(tmp_path / "X.npy", mode="w+", dtype=np.float32, shape=(6, 2))
    f = fastloss.Objective(X[:4], [0, 1, 1, 0])
    with pytest.raises(ValueError, match="are the same file"):
        optim.minimize(f, np.zeros((2, 2), np.float32), checkpoint=tmp_path / "X.npy")
    with pytest.raises(IsADirectoryError):
        run("sgd", checkpoint=tmp_path)


def test_interrupt_while_a_checkpoint_is_written_keeps_the_result(tmp_path, monkeypatch):
    savez = np.savez

    def interrupted(stream, **arrays):
        monkeypatch.setattr(np, "savez", savez)
        signal.raise_signal(signal.SIGINT)
        savez(stream, **arrays)

    monkeypatch.setattr(np, "savez", interrupted)
    stopped = run("sgd", checkpoint=tmp_path / "run.npz", checkpoint_every=7)
    assert (stopped.why, stopped.n_steps) == ("interrupted", 7)
    assert_same(run("sgd", checkpoint=tmp_path / "run.npz", resume=True), run("sgd"))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_entry_of_X_is_named(bad):
    X = np.ones((5, 3))
    X[1, 2] = np.nan  # ignored
    X[3, 1] = bad
    f = fastloss.Objective(X, [0, -1, 1, 0, 1], ignore_index=-1)
    expected = rf"the loss at the start is nan: X\[3, 1\] is {bad}, expected a finite number"
    with pytest.raises(ValueError, match=expected):
        optim.minimize(f, np.zeros((3, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_validation_row_is_named(bad):
    X = np.ones((5, 3))
    X[1, 2] = np.nan  # ignored
    X[3, 1] = bad
    held_out = fastloss.Objective(X, [0, -1, 1, 0, 1], ignore_index=-1)
    f = fastloss.Objective(np.eye(3), [0, 1, 1])
    with pytest.raises(ValueError, match=rf"X\[3, 1\] is {bad}, expected a finite number"):
        optim.minimize(f, np.ones((3, 2)), validation=held_out)


def test_finished_run_is_not_repeated(tmp_path):
    path = tmp_path / "run.npz"
    expected = run("sgd", checkpoint=path)
    with failing_at(2, ZeroDivisionError):
        again = run("sgd", checkpoint=path, resume=True)
    assert_same(again, expected)


OTHERS = {
    "loss": ({"loss": "hinge"}, {}, r"loss Softmax\(.*\) there, Hinge\(.*\) here"),
    "penalty": ({"l2": 0.5}, {}, r"penalty Penalty\(.*l2=0.001\) there, .*l2=0.5\) here"),
    "intercept": ({"intercept": False}, {"W": start()[:12]}, r"W \(13, 4\) float32 there, \(12, 4"),
    "reduction": ({"reduction": "sum"}, {}, "reduction 'mean' there, 'sum' here"),
    "weights": ({"sample_weight": np.arange(N_ROWS)}, {}, "other row weights; repeat the settings"),
    "type": ({"dtype": np.float64}, {"W": start(np.float64)}, r"W \(13, 4\) float32 there"),
    "seed": ({}, {"seed": 10}, "seed 9 there, 10 here"),
    "method": ({}, {"method": optim.SGD(0.2, 32)}, r"SGD\(lr=0.1, .*\) there, SGD\(lr=0.2"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_checkpoint_of_another_run_is_refused(kind, tmp_path):
    path = tmp_path / "run.npz"
    run("sgd", checkpoint=path)
    of_objective, of_run, match = OTHERS[kind]
    options = {"W": start(), "method": METHODS["sgd"], "seed": 9, **of_run}
    with pytest.raises(ValueError, match=rf"is a checkpoint of another run: .*{match}") as caught:
        optim.minimize(objective(**of_objective), **options, checkpoint=path, resume=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["X", "labels", "callable"])
def test_checkpoint_of_other_data_is_refused(what, tmp_path):
    path = tmp_path / "run.npz"
    run("gradient_descent", checkpoint=path)
    f = objective()
    X, y = f.X.copy(), f.labels.copy()
    if what == "X":
        X[0, 0] += 1
    y[7] = (y[7] + (what == "labels")) % 4
    other = fastloss.Objective(X, y, l1=1e-4, l2=1e-3, intercept=True)
    if what == "callable":
        other = other.__call__
    match = {
        "X": "other sample",
        "labels": "other labels",
        "callable": "f an Objective there, a call",
    }
    with pytest.raises(ValueError, match=f"is a checkpoint of another run: {match[what]}"):
        run("gradient_descent", other, checkpoint=path, resume=True)


@pytest.mark.parametrize("content", ["cut", "flipped", "empty", "text", "model", "missing"])
def test_file_that_is_no_checkpoint_is_refused(content, tmp_path):
    path = tmp_path / "run.npz"
    run("sgd", checkpoint=path)
    whole = path.read_bytes()
    if content == "model":
        np.savez(path, W=np.zeros((13, 4)))
    elif content == "missing":
        path.unlink()
    else:
        middle = whole.index(b"NUMPY") + 200
        flipped = bytes([whole[middle] ^ 255])
        path.write_bytes(
            {
                "cut": whole[: len(whole) // 2],
                "flipped": whole[:middle] + flipped + whole[middle + 1 :],
                "empty": b"",
                "text": b"not a checkpoint\n",
            }[content]
        )
    error = FileNotFoundError if content == "missing" else ValueError
    with pytest.raises(error, match=r"run\.npz") as caught:
        run("sgd", checkpoint=path, resume=True)
    assert "\n" not in str(caught.value)


def test_truncated_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    run("sgd_momentum", checkpoint=path, max_steps=2)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 29):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="not a checkpoint of this version"):
            optim_run.Checkpoint.load(path)


# Loops that must end


def norm(W):
    """A norm whose gradient at 0 is 0 / 0, a common mistake."""
    length = float(np.sqrt(np.square(W).sum()))
    with np.errstate(invalid="ignore"):
        return 1.0 + length, W / length if length else np.full_like(W, np.nan)


FULL = [
    optim.GradientDescent(),
    optim.GradientDescent(line_search=True),
    optim.Adam(batch_size=None),
    optim.LBFGS(),
]


@pytest.mark.parametrize("method", FULL, ids=lambda method: method.name)
def test_nonfinite_gradient_ends_the_run(method):
    with pytest.raises(ValueError, match="the gradient after step 0 has an entry that is not"):
        optim.minimize(norm, np.zeros((2, 2)), method, max_steps=5)
    evaluations = []

    def later(W):
        evaluations.append(1)
        loss = float(np.square(W).sum())
        return loss, 2 * W if len(evaluations) < 3 else np.full_like(W, np.inf)

    with np.errstate(invalid="ignore"):
        result = optim.minimize(later, np.ones((2, 2)), method, max_steps=50)
    assert result.why == "stalled"
    assert "not finite" in result.message
    assert len(evaluations) < 10


@pytest.mark.parametrize("method", [FULL[1], FULL[3]], ids=lambda method: method.name)
def test_max_seconds_ends_a_run_within_a_step(method):
    evaluations = []

    def slow_and_wrong(W):  # the wrong sign, so that a line search never ends
        evaluations.append(1)
        time.sleep(0.02)
        return float(np.square(W).sum()), -2 * W

    result = optim.minimize(slow_and_wrong, np.ones((2, 2)), method, max_seconds=0.1)
    assert result.why == "max_seconds"
    assert result.n_steps == 0
    assert len(evaluations) < 15


def test_schedule_of_numpy_scalars_keeps_the_type_of_the_learning_rate():
    method = optim.SGD(lr=0.1, schedule=lambda epoch: np.float32(1.0))
    objective = fastloss.Objective(np.eye(3), [0, 1, 2])
    result = optim.minimize(objective, np.zeros((3, 3)), method, max_steps=1)
    assert result.history[-1].learning_rate == 0.1
