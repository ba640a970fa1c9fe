"""Test `DaskObjective` where workers die, a run is interrupted, or the cluster goes away."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import dask
import dask.array as da
import numpy as np
import pytest
from clusters import assert_soon, keys_in_memory, local_client
from distributed import Client

from fastloss import optim
from fastloss.dask import DaskObjective

N, D, C = 9000, 40, 5
_RNG = np.random.default_rng(0)
X = _RNG.standard_normal((N, D)).astype(np.float32)
y = _RNG.integers(0, C, N)
START = np.zeros((D, C), np.float32)
ROWS = da.from_array(X, chunks=(3000, D))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_client(2) as client:
        yield client


def kill_a_worker(client: Client) -> None:
    """Kill the process of one worker, which the nanny starts anew."""
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)


def test_fit_survives_a_killed_worker_between_its_steps_with_the_same_bits(client, tmp_path):
    method = optim.GradientDescent(lr=0.5)
    run = {"method": method, "max_steps": 12, "checkpoint": tmp_path / "run.npz"}
    killed = []

    def kill_once(record):
        if record.step == 4:
            kill_a_worker(client)
            killed.append(record.step)

    with DaskObjective(ROWS, y, n_classes=C) as objective:
        whole = optim.minimize(objective, START, method, max_steps=12)
        result = optim.minimize(objective, START, callback=kill_once, **run)
        assert killed == [4]
        assert result.why == "max_steps"
        np.testing.assert_array_equal(result.W, whole.W)
        assert_soon(lambda: len(client.nthreads()) == 2)
        np.testing.assert_array_equal(objective(result.W)[1], objective(whole.W)[1])


def test_fit_survives_a_worker_killed_during_evaluations(client):
    killed = threading.Event()

    def kill() -> None:
        kill_a_worker(client)
        killed.set()

    steps_after = []

    def enough(record):
        steps_after.extend([record.step] if killed.is_set() else [])
        return len(steps_after) > 20

    with DaskObjective(ROWS, y, n_classes=C) as objective:
        sgd = optim.SGD(lr=0.1, batch_size=100)
        objective(START)
        threading.Timer(0.1, kill).start()
        result = optim.minimize(
            objective, START, sgd, max_steps=100_000, record_every=1, callback=enough
        )
        again = optim.minimize(objective, START, sgd, max_steps=result.n_steps)
        np.testing.assert_array_equal(result.W, again.W)
    assert_soon(lambda: len(client.nthreads()) == 2)


def test_rows_that_cannot_be_computed_again_end_in_one_error_and_keep_the_checkpoint(
    client, tmp_path
):
    workers = sorted(client.nthreads())
    held = [client.scatter(pair, workers=[workers[0]], hash=False) for pair in (_pair(), _pair())]
    path = tmp_path / "run.npz"

    def kill_once(record):
        if record.step == 3:
            for pid in client.run(os.getpid, workers=workers[:1]).values():
                os.kill(pid, signal.SIGKILL)

    with (
        DaskObjective(held, n_classes=C, timeout=10.0) as objective,
        pytest.raises(RuntimeError, match="lost with a worker and cannot be computed again"),
    ):
        optim.minimize(objective, START, "gradient_descent", callback=kill_once, checkpoint=path)
    assert optim.checkpoint.Checkpoint.load(path).state.step == 3
    assert_soon(lambda: len(client.nthreads()) == 2)


def _pair() -> list[object]:
    """Return rows in a list of one pair, which is scattered as one future."""
    return dask.delayed((X, y)).compute()


def test_cancelled_rows_are_one_error_and_keep_the_checkpoint(client, tmp_path):
    def cancel(record):
        if record.step == 2:
            client.cancel(objective._store._rows)

    path = tmp_path / "run.npz"
    with (
        DaskObjective(ROWS, y, n_classes=C) as objective,
        pytest.raises(RuntimeError, match="block 0 was cancelled"),
    ):
        optim.minimize(objective, START, "gradient_descent", callback=cancel, checkpoint=path)
    assert optim.checkpoint.Checkpoint.load(path).state.step == 2


def test_ctrl_c_while_rows_load_frees_the_cluster(client):
    loads = [dask.delayed(_slowly)(number) for number in range(4)]
    timer = threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT])
    before = set(client.run_on_scheduler(_all_tasks))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        DaskObjective(loads, n_classes=C)
    assert_soon(lambda: set(client.run_on_scheduler(_all_tasks)) <= before)


def _slowly(number):
    time.sleep(0.1 if number == 0 else 3.0)
    return X, y


def _all_tasks(dask_scheduler):
    return [str(key) for key in dask_scheduler.tasks]


def test_ctrl_c_in_a_fit_returns_the_result_and_with_frees_the_cluster(client):
    def interrupt(record):
        if record.step == 2:
            signal.raise_signal(signal.SIGINT)

    with DaskObjective(ROWS, y, n_classes=C) as objective:
        keys = {rows.key for rows in objective._store._rows}
        result = optim.minimize(objective, START, "gradient_descent", callback=interrupt)
        assert (result.why, result.n_steps) == ("interrupted", 2)
    assert_soon(lambda: keys.isdisjoint(keys_in_memory(client)))


def test_cluster_without_workers_is_one_error_after_the_timeout():
    with (
        local_client(0, processes=False) as empty,
        pytest.raises(RuntimeError, match=r"has had no worker for 0\.1 s"),
    ):
        DaskObjective(ROWS, y, n_classes=C, client=empty, timeout=0.1)


def test_all_workers_gone_is_one_error_and_a_closed_client_is_another(monkeypatch):
    with local_client(1, processes=False) as one:
        objective = DaskObjective(ROWS, y, n_classes=C, client=one, timeout=0.5)
        one.cluster.scale(0)
        assert_soon(lambda: not one.nthreads())
        with pytest.raises(RuntimeError, match=r"has had no worker for 0\.5 s"):
            objective(START)
        one.cluster.scale(1)
        assert_soon(lambda: len(one.nthreads()) == 1)
        threading.Timer(0.3, one.close).start()
        with pytest.raises(RuntimeError, match="the dask client of the objective is closed"):
            optim.minimize(objective, START, optim.SGD(lr=0.1), max_steps=100_000)
    with pytest.raises(RuntimeError, match="the dask client of the objective is closed"):
        objective(START)
    monkeypatch.setattr(one, "status", "connecting")  # as if the scheduler were gone
    with pytest.raises(RuntimeError, match="has lost its scheduler"):
        objective(START)
    objective.close()
