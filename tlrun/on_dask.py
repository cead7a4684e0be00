"""Runs tasks on the workers of one or two Dask clusters: the driver's side and the workers'."""

from __future__ import annotations

import logging
import os
import pickle
import queue
import signal
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlrun import memory
from tlrun.calls import REST, CallResult, ClusterLost, Executor, Task
from tlrun.child import Child, child_of_this_thread
from tlrun.monotonic import use_monotonic_clock

if TYPE_CHECKING:
    from distributed import Client, Future

_QUIET = {"distributed.admin.large-graph-warning-threshold": "1 GB"}  # a sample's images may be 40 MB


@dataclass(frozen=True)
class Parcel:
    """Answer of a worker; result and error stay pickled until they reach the driver."""

    ok: bool
    blob: bytes
    details: str
    log: str
    host: str
    seconds: float
    occupied: float


def execute(payload: bytes, time_limit: float | None, needed: int) -> Parcel:
    """Run a pickled call in this thread's child process (on a worker)."""
    use_monotonic_clock()
    host = os.uname().nodename
    child: Child | None = None
    taken = started = time.perf_counter()
    try:
        with memory.reserved(needed):
            started = time.perf_counter()  # the call is not to blame for waiting
            child = child_of_this_thread()
            answer = child.call(payload, time_limit)
    except Exception as error:
        log = child.log() if child else ""
        details = "".join(traceback.format_exception_only(error))
        now = time.perf_counter()
        return Parcel(False, pickle.dumps(error), details, log, host, now - started, now - taken)
    log = "" if answer.ok else child.log()
    now = time.perf_counter()
    return Parcel(answer.ok, answer.blob, answer.details, log, host, answer.seconds, now - taken)


class DaskExecutor(Executor):
    """Tasks on Dask clusters.

    Parameters
    ----------
    clients
        One client, or one for each pool; pools may share a client.
    """

    def __init__(self, clients: Client | Mapping[str, Client]) -> None:
        named = clients if isinstance(clients, Mapping) else {REST: clients}
        self._clients: dict[str, Client] = {}
        self._names: dict[str, str] = {}
        for name, client in named.items():
            same = next((other for other, known in self._clients.items() if known is client), None)
            self._names[name] = same or name
            if same is None:
                self._clients[name] = client
        self._futures: dict[str, tuple[Future[Any], Client]] = {}
        self._finished: queue.SimpleQueue[CallResult] = queue.SimpleQueue()
        _hush()
        use_monotonic_clock()
        for client in self._clients.values():
            _shield(client)

    def pools(self) -> Mapping[str, int]:
        """Pool -> number of workers now."""
        from tlrun.cluster.connect import n_workers

        self._look_alive()
        try:
            return {name: n_workers(client) for name, client in self._clients.items()}
        except Exception as error:
            raise self._lost(next(iter(self._clients.values()))) from error

    def pool_of(self, name: str) -> str:
        """Return the pool that serves ``name``."""
        return self._names.get(name, next(iter(self._clients)))

    def submit(self, task: Task) -> None:
        """Send a task to its scheduler."""
        import cloudpickle  # type: ignore[import-untyped]
        import dask

        call, client = task.call, self._clients[task.pool]
        payload = cloudpickle.dumps((call.function, call.args, call.kwargs))
        try:
            with dask.config.set(_QUIET):
                future: Any = client.submit(
                    execute,
                    payload,
                    task.time_limit,
                    call.memory,
                    key=task.key,
                    priority=task.priority,
                    retries=0,
                    pure=False,
                )
        except Exception as error:
            self._look_alive()
            raise self._lost(client) from error
        self._futures[task.key] = (future, client)
        loop: Any = client.loop
        loop.add_callback(self._follow, task.key, future, client)

    async def _follow(self, key: str, future: Future[Any], client: Client) -> None:
        """Fetch the result when it is ready; Dask fetches all ready results together."""
        from distributed.scheduler import KilledWorker

        try:
            [parcel] = await client.gather([future], asynchronous=True)  # type: ignore[misc,unused-ignore]
            outcome = _outcome(key, parcel)
        except KilledWorker as error:
            text = f"the workers that it ran on were lost, {error.allowed_failures + 1} one after the other"
            outcome = CallResult(key, error=WorkerLost(text), lost=True)
        except CancelledError:
            outcome = CallResult(key, error=WorkerLost("the scheduler has dropped it"), lost=True)
        except Exception as error:
            outcome = CallResult(key, error=error)
        self._finished.put(outcome)

    def wait(self, seconds: float) -> list[CallResult]:
        """Return the tasks that have finished since the last call."""
        found: list[CallResult] = []
        try:
            found.append(self._finished.get(timeout=seconds))
            while True:
                found.append(self._finished.get_nowait())
        except queue.Empty:
            pass
        if not found or any(outcome.lost for outcome in found):
            self._look_alive()
        kept = []
        for outcome in found:
            if (entry := self._futures.pop(outcome.key, None)) is not None:
                entry[0].release()  # results that have arrived must survive the death of their worker
                kept.append(outcome)
        return kept

    def cancel(self, keys: Iterable[str]) -> None:
        """Forget tasks."""
        gone = [self._futures.pop(key) for key in keys if key in self._futures]
        for client in self._clients.values():
            if futures := [future for future, its in gone if its is client]:
                client.cancel(futures)

    def now(self) -> float:
        """Seconds, steadily."""
        return time.monotonic()

    def close(self) -> None:
        """Forget all tasks."""
        if all(client.status == "running" for client in self._clients.values()):
            self.cancel(list(self._futures))

    def _look_alive(self) -> None:
        for client in self._clients.values():
            if client.status != "running":
                raise self._lost(client)

    def _lost(self, client: Client) -> ClusterLost:
        where = getattr(client.scheduler, "address", None) or "of this run"
        return ClusterLost(f"the Dask scheduler {where} is gone")


@contextmanager
def lost_in_words() -> Iterator[None]:
    """Turn the errors that Dask raises when its scheduler is gone into ClusterLost.

    Raises
    ------
    ClusterLost
        The scheduler no longer answers.
    """
    from distributed.comm.core import CommClosedError

    _hush()
    try:
        yield
    except CommClosedError as error:
        raise ClusterLost("the Dask scheduler has gone") from error
    except OSError as error:
        if "trying to connect to" not in str(error):  # Dask raises no type of its own
            raise
        raise ClusterLost("the Dask scheduler has gone") from error


class WorkerLost(Exception):
    """The worker of a call was lost before the call was done."""


def _outcome(key: str, parcel: Parcel) -> CallResult:
    value = pickle.loads(parcel.blob)
    if parcel.ok:
        return CallResult(key, value, host=parcel.host, seconds=parcel.seconds, occupied=parcel.occupied)
    return CallResult(
        key,
        error=value,
        details=parcel.details,
        log=parcel.log,
        host=parcel.host,
        seconds=parcel.seconds,
        occupied=parcel.occupied,
    )


def _hush() -> None:
    """Keep Dask from logging that the scheduler is gone; ClusterLost reports it once."""
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)


def _shield(client: Client) -> None:
    """Shield the workers of this host from Ctrl-C, which a terminal sends to all its processes."""
    from distributed import WorkerPlugin
    from distributed.deploy.spec import SpecCluster

    if not isinstance(client.cluster, SpecCluster):
        return

    class IgnoreInterrupts(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            if threading.current_thread() is threading.main_thread():  # a process of its own
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    client.register_plugin(IgnoreInterrupts(), name="tlrun-ignore-interrupts")
