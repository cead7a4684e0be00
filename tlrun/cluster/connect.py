"""Opens Dask clusters from one word or one file; no other module knows how Dask is deployed."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogs.errors import InputError
from tlrun.calls import ClusterLost
from tlrun.cluster.cluster_file import (
    POOLS,
    Address,
    Gpu,
    Kubernetes,
    Local,
    Pool,
    Queue,
    Threads,
    read_cluster,
)

if TYPE_CHECKING:
    from distributed import Client

_log = logging.getLogger(__name__)

#: Seconds between two messages about waiting for the first worker.
REMIND_EVERY = 60.0

# Largest number of workers of a cluster, where it may grow.
_most: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def check_cluster(cluster: str) -> None:
    """Refuse a word or file that cannot start a cluster here, before any work begins.

    Raises
    ------
    InputError
        As :func:`tlrun.cluster.cluster_file.read_cluster`, or as :func:`tlrun.cluster.launch.check`.
    """
    from tlrun.cluster import launch

    for pool in read_cluster(cluster).values():
        launch.check(pool)


@contextmanager
def open_cluster(
    cluster: str, *, one_call_per_process: bool = False, constants: Sequence[str] = ()
) -> Iterator[Client]:
    """Start or join one cluster. A cluster that was started ends with the context.

    A worker is one process with one thread (with ``threads``, a thread of this process). MULTEM crashes when
    two threads call it, and a process that dies leaves the others alone.

    Parameters
    ----------
    cluster
        One word or a file; see :data:`tlrun.cluster.cluster_file.FORMS`.
    one_call_per_process
        Two threads must not call what will be run; ``threads`` then has one worker.
    constants
        As :func:`tlrun.cluster.agreement.versions` takes them.

    Yields
    ------
    distributed.Client

    Raises
    ------
    InputError
        The word is unknown, the file is wrong or has two pools, a package or a GPU is missing, no
        scheduler answers, or the workers run other versions than this process.
    """
    pools = read_cluster(cluster)
    if pools["simulate"] is not pools["rest"]:
        raise InputError(
            f"{cluster} has two pools, and this needs one; give a file or a word for one cluster."
        )
    with _open(pools["rest"], one_call_per_process, constants) as client:
        yield client


@contextmanager
def open_pools(
    cluster: str, *, one_call_per_process: bool = False, constants: Sequence[str] = ()
) -> Iterator[Mapping[str, Client]]:
    """Start or join the clusters of a run: one for all, or one that simulates and one for the rest.

    Parameters and errors are those of :func:`open_cluster`.

    Yields
    ------
    mapping
        Clients by pool (``simulate``, ``rest``); the same object twice if there is one cluster.
    """
    pools = read_cluster(cluster)
    with ExitStack() as stack:
        if pools["simulate"] is pools["rest"]:
            client = stack.enter_context(_open(pools["rest"], one_call_per_process, constants))
            yield dict.fromkeys(POOLS, client)
        else:
            yield {
                name: stack.enter_context(_open(pool, one_call_per_process, constants))
                for name, pool in pools.items()
            }


def n_workers(client: Client) -> int:
    """Count the cluster's workers, that is, the tasks that can run at the same time.

    Raises
    ------
    ClusterLost
        The scheduler does not answer.
    """
    known = client.scheduler_info(n_workers=-1)
    if "workers" not in known:  # this is how Dask reports it
        raise ClusterLost("the Dask scheduler is gone")
    return len(known["workers"])


def slots(clients: Mapping[str, Client]) -> int:
    """Count the workers of all clusters of a run."""
    return sum(map(n_workers, {id(client): client for client in clients.values()}.values()))


def most_workers(client: Client) -> int:
    """Count the workers that a cluster has, or may grow to."""
    return max(n_workers(client), _most.get(client, 1))


def describe(clients: Mapping[str, Client]) -> list[str]:
    """Describe each cluster: its number of workers and the address of its dashboard."""
    several = len({id(client) for client in clients.values()}) > 1
    lines: list[str] = []
    for name, client in clients.items():
        now, most = n_workers(client), most_workers(client)
        count = f"{now} worker{'s' * (now != 1)}" + (f" (up to {most})" if most > now else "")
        where = f", dashboard at {link}" if (link := _dashboard(client)) else ""
        line = (f"{name}: " if several else "") + count + where
        if line not in lines:
            lines.append(line)
    return lines


def _dashboard(client: Client) -> str:
    """Say where Dask's dashboard is; empty where it would only answer that it needs bokeh."""
    ours = client.cluster is not None  # a scheduler of somebody else has its own packages
    if ours and find_spec("bokeh") is None:
        return ""
    link: str = client.dashboard_link or ""
    address: str = getattr(client.scheduler, "address", "")
    if address.startswith("inproc://"):  # Dask shows this host's name but listens at the loopback interface
        link = re.sub(r"(?<=//)[^/:]+(?=:)", "127.0.0.1", link)
    return link


@contextmanager
def _open(pool: Pool, one_call_per_process: bool, constants: Sequence[str]) -> Iterator[Client]:
    import dask
    from distributed import Client

    from tlrun.cluster import agreement, launch

    with dask.config.set(launch.SETTINGS), ExitStack() as stack:
        if isinstance(pool, Address):
            client = stack.enter_context(_joined(pool.address))
        else:
            client = stack.enter_context(
                Client(stack.enter_context(_started(pool, one_call_per_process)), set_as_default=False)
            )
        if isinstance(pool, Queue | Kubernetes):
            _most[client] = pool.workers.max
        _wait_for_workers(client, pool)
        agreement.check(client, constants)
        if isinstance(pool, Queue | Kubernetes | Address):
            stack.enter_context(_refusing_others(client, constants))
        yield client


def _started(pool: Pool, one_call_per_process: bool) -> AbstractContextManager[Any]:
    from tlrun.cluster import launch

    if isinstance(pool, Threads):
        return launch.threads(pool, one_call_per_process=one_call_per_process)
    if isinstance(pool, Local):
        return launch.local(pool)
    if isinstance(pool, Gpu):
        return launch.gpu(pool)
    if isinstance(pool, Queue):
        return launch.queue(pool)
    assert isinstance(pool, Kubernetes)
    return launch.kubernetes(pool)


async def _greet(address: str) -> None:
    from distributed import Security
    from distributed.comm.core import connect

    comm = await connect(address, timeout=10, **Security().get_connection_args("client"))
    comm.abort()


@contextmanager
def _joined(address: str) -> Iterator[Client]:
    from distributed import Client

    try:
        # In a thread: a notebook's has a loop that runs. A client that meets anything else than a scheduler
        # takes half a minute to end.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _greet(address)).result()
        client = Client(address, timeout="10s", set_as_default=False)
    except Exception as error:  # what other programs answer is read as anything
        raise InputError(f"no Dask scheduler answers at {address} ({error}).") from error
    with client:
        yield client


def _wait_for_workers(client: Client, pool: Pool) -> None:
    """Wait for the first worker, for hours if the queue is long, with a message now and then."""
    from distributed import TimeoutError as NotYet

    started = time.monotonic()
    patience = 2.0
    while not n_workers(client):
        try:
            client.wait_for_workers(1, timeout=patience)
        except NotYet:
            minutes = (time.monotonic() - started) / 60
            _log.warning(
                f"  waiting for the first worker{f' for {minutes:.0f} min' if minutes > 1 else ''}"
                f"{_what_jobs_say(client, pool)}"
            )
        patience = REMIND_EVERY


def _what_jobs_say(client: Client, pool: Pool) -> str:
    """Name the jobs and the last line of their output, where a job that cannot start says why."""
    if not isinstance(pool, Queue):
        return ""
    cluster: Any = client.cluster
    jobs = [getattr(worker, "job_id", None) for worker in cluster.workers.values()]
    text = f": jobs {', '.join(str(job) for job in jobs if job)}" if any(jobs) else ""
    found = [file for file in Path(pool.logs).glob("*") if file.is_file()] if any(jobs) else []
    logs = sorted(found, key=lambda file: file.stat().st_mtime)
    lines = logs[-1].read_text(errors="replace").strip().splitlines() if logs else []
    return text + (f"; {logs[-1]} ends: {lines[-1].strip()}" if lines else "")


@contextmanager
def _refusing_others(client: Client, constants: Sequence[str]) -> Iterator[None]:
    """Close workers that connect later with other versions, and report each reason once."""
    from tlrun.cluster import agreement

    said: set[str] = set()

    def tell(event: tuple[float, str]) -> None:
        reason = event[1].partition("was refused: ")[2]
        if reason not in said:
            said.add(reason)
            _log.warning(f"  {event[1]}")

    plugin = agreement.RefuseOthers(constants)
    name = f"tlrun-{client.id}"
    client.subscribe_topic(agreement.REFUSALS, tell)
    client.register_plugin(plugin, name=name)
    try:
        yield
    finally:
        if client.status == "running":  # otherwise the scheduler and its plugins are gone
            client.unregister_worker_plugin(name)
            client.unsubscribe_topic(agreement.REFUSALS)
