"""Calls, the tasks made of them, their results, and the protocol of what runs tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

#: The worker pools of a run: one simulates, one does the rest. They may be the same workers.
SIMULATE, REST = "simulate", "rest"


class Call:
    """A function with its arguments, to be run on a worker. It must be small and possible to pickle.

    Attributes
    ----------
    pool
        Pool of the workers that run it.
    time_limit
        Seconds after which the call is stopped; None: the limit of the fan-out.
    memory
        Bytes that the call needs on its host; it waits until they are free. 0: unknown.
    like
        Kind of call: calls of one kind take about the same time. Empty: all calls of the function do.
    """

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.pool = REST
        self.time_limit: float | None = None
        self.memory = 0
        self.like = ""

    def needs(
        self, *, pool: str = REST, time_limit: float | None = None, memory: int = 0, like: str = ""
    ) -> Call:
        """Return the same call with its needs filled in."""
        call = copy(self)
        call.pool, call.time_limit, call.memory, call.like = pool, time_limit, memory, like
        return call

    @property
    def kind(self) -> str:
        """Name of the function."""
        return str(getattr(self.function, "__name__", "call"))

    @property
    def group(self) -> str:
        """Group in which the call is counted: name of the function and kind of call."""
        return f"{self.kind} {self.like}".rstrip()


@dataclass(frozen=True)
class Task:
    """One attempt at a call.

    Attributes
    ----------
    key
        Name of the task, unique in a run.
    call
        The call to run.
    pool
        One of the executor's pools.
    priority
        Tasks of higher priority run first.
    time_limit
        Seconds, or None.
    """

    key: str
    call: Call
    pool: str
    priority: int
    time_limit: float | None


@dataclass(frozen=True)
class CallResult:
    """Result or error of a task.

    Attributes
    ----------
    key
        Key of the task.
    value
        Return value of the function.
    error
        Exception that it raised, or what happened to its process.
    details
        Traceback.
    log
        The end of what its process printed.
    host
        Host on which it ran.
    seconds
        Wall time spent in the function.
    occupied
        Wall time for which the worker was occupied, including transfer to its child and waiting for memory.
    lost
        Whether its worker was lost, which the call need not have caused.
    """

    key: str
    value: Any = None
    error: BaseException | None = None
    details: str = ""
    log: str = ""
    host: str = ""
    seconds: float = 0.0
    occupied: float = 0.0
    lost: bool = False


class ClusterLost(Exception):
    """The scheduler no longer answers."""


class Executor(ABC):
    """Runs tasks: one or two Dask clusters, or a simulated cluster in tests and benchmarks."""

    @abstractmethod
    def pools(self) -> Mapping[str, int]:
        """Pool -> number of tasks that it can run at the same time now."""

    @abstractmethod
    def pool_of(self, name: str) -> str:
        """Return the pool in which calls for ``name`` run."""

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Submit a task."""

    @abstractmethod
    def wait(self, seconds: float) -> list[CallResult]:
        """Return what has finished since the last call; wait up to so many seconds for a first result.

        Raises
        ------
        ClusterLost
            The scheduler is gone, so that nothing can finish any more.
        """

    @abstractmethod
    def cancel(self, keys: Iterable[str]) -> None:
        """Forget tasks. Those that are running may go on, but their results are dropped."""

    @abstractmethod
    def now(self) -> float:
        """Monotonic clock, in seconds."""

    def close(self) -> None:  # noqa: B027 - nothing to do for most
        """Forget all tasks."""
