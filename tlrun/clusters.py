"""Opens a Dask cluster from one word. Nothing else in the project knows how Dask is deployed."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from catalogs.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

FORMS = "local, local:WORKERS or the address of a running scheduler, tcp://HOST:PORT"

# Tasks here take seconds to hours, hold the interpreter's lock for long, and may kill their worker
# (a simulator that crashes); the defaults are made for many short tasks.
_SETTINGS = {
    "distributed.scheduler.worker-ttl": "30 minutes",
    "distributed.scheduler.allowed-failures": 3,
    "distributed.comm.timeouts.connect": "60s",
    "distributed.comm.timeouts.tcp": "120s",
    "distributed.worker.memory.target": False,  # results are small: spilling them to disk helps nothing
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.admin.tick.limit": "10 minutes",  # no warnings about a busy event loop
    "distributed.worker.profile.enabled": False,  # it looks at each thread a hundred times a second
}
# One worker is one process with one thread, so the libraries in it must not start threads of their own.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def parse(cluster: str) -> tuple[str, int | str]:
    """Read the word that names a cluster.

    Returns
    -------
    tuple
        ``("local", number of workers)`` or ``("address", the scheduler's address)``.

    Raises
    ------
    InputError
        It is none of the known forms.
    """
    if cluster == "local":
        return "local", max(1, len(os.sched_getaffinity(0)))
    if cluster.startswith("local:"):
        number = cluster.removeprefix("local:")
        if number.isdigit() and int(number) > 0:
            return "local", int(number)
    elif cluster.startswith(("tcp://", "tls://")):
        return "address", cluster
    raise InputError(f"--cluster {cluster!r} is not a cluster; give {FORMS}.")


@contextmanager
def open_cluster(cluster: str) -> Iterator[Client]:
    """Start or join a cluster; a started one ends with the context.

    A worker is one process with one thread: MULTEM crashes when two threads call it, and a process
    that dies takes nothing else with it.

    Parameters
    ----------
    cluster
        ``local``, ``local:WORKERS`` or ``tcp://HOST:PORT``.

    Yields
    ------
    distributed.Client

    Raises
    ------
    InputError
        The word is unknown, or no scheduler answers at the address.
    """
    kind, value = parse(cluster)
    import dask
    from distributed import Client, LocalCluster

    with dask.config.set(_SETTINGS):
        if kind == "address":
            try:
                client = Client(value, timeout="10s", set_as_default=False)
            except OSError as error:
                raise InputError(f"no Dask scheduler answers at {value} ({error}).") from error
            with client:
                yield client
            return
        with tempfile.TemporaryDirectory(prefix="tlrun-") as scratch:
            local: Any = LocalCluster(
                n_workers=value,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                local_directory=scratch,
                silence_logs=logging.CRITICAL,
                env=dict.fromkeys(_ONE_THREAD, "1"),
            )
            with local, Client(local, set_as_default=False) as client:
                yield client


def n_workers(client: Client) -> int:
    """Count the cluster's workers: the number of tasks that run at the same time."""
    return len(client.scheduler_info(n_workers=-1)["workers"])
