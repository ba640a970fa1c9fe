"""Dask clusters on this machine, for the tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster


@contextmanager
def local_client(
    n_workers: int, *, processes: bool = True, threads_per_worker: int = 1
) -> Iterator[Client]:
    """Yield a client of a cluster whose workers are processes, or threads of this process."""
    # On a busy machine, dask's 30 seconds may be too short to start processes.
    patience = dict.fromkeys(("connect", "tcp"), "120s")
    with (
        dask.config.set({"distributed.comm.timeouts": patience}),
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=threads_per_worker,
            processes=processes,
            dashboard_address=None,
            # Without a dashboard, the scheduler would still take port 8787 for its page of metrics.
            scheduler_kwargs={"dashboard_address": ":0"},
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def keys_in_memory(client: Client) -> list[str]:
    """Return the keys of all results that the cluster keeps."""

    def listed(dask_scheduler):
        return [str(key) for key, task in dask_scheduler.tasks.items() if task.state == "memory"]

    return client.run_on_scheduler(listed)


def assert_soon(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Assert a condition that messages between processes make true."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition did not become true"
        time.sleep(0.02)
