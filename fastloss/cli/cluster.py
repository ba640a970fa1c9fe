"""Options of ``fastloss train`` for a dask cluster."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from fastloss.cli.common import progress_bar
from fastloss.training import Job, Outcome
from fastloss.version import install_extra

SchedulerOption = Annotated[
    str | None,
    typer.Option(help="Train on the workers of this dask scheduler, such as tcp://host:8786."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Train on so many worker processes of this machine, through dask."),
]


def run_on_workers(job: Job, scheduler: str | None, workers: int | None) -> Outcome:
    """Run a job on the workers of a scheduler, or on local ones that end with it.

    Raises
    ------
    ValueError : both are given.
    ImportError : dask is missing.
    OSError : the scheduler does not answer.
    """
    if scheduler is not None and workers is not None:
        raise ValueError("--scheduler has workers of its own: give either it or --workers")
    with _client(scheduler, workers or 1, job.n_threads) as client:
        from fastloss.training.cluster import train_on_cluster

        return train_on_cluster(job, client, progress_bar)


@contextmanager
def _client(scheduler: str | None, workers: int, n_threads: int) -> Iterator[Any]:
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise ImportError(
            f"--scheduler and --workers need dask and distributed: {install_extra('dask')}"
        ) from None
    if scheduler is not None:
        try:
            connected = Client(scheduler)
        except (OSError, ValueError, TypeError) as error:
            raise OSError(f"--scheduler {scheduler} does not answer: {error}") from None
        with connected as client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=max(1, n_threads // workers),
            dashboard_address=None,
            # Without a dashboard, the scheduler would still take port 8787 for its metrics.
            scheduler_kwargs={"dashboard_address": ":0"},
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(local_worker())
        yield client


def local_worker() -> Any:
    """Return a plugin of local workers, which leave Ctrl-C and errors to the command.

    A terminal sends Ctrl-C to all processes of a command, and the run needs its workers until it
    has kept the result. The command tells an error in one line, so workers log no traceback.
    """
    from distributed import WorkerPlugin

    class LocalWorker(WorkerPlugin):  # type: ignore[misc]
        def setup(self, worker: Any) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            logging.getLogger("distributed.worker").addFilter(
                lambda record: not record.getMessage().startswith("Compute Failed")
            )

    return LocalWorker()
