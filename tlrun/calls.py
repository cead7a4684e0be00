"""What is run where: a call, the task it becomes, its outcome, and what can run tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

#: The pools of a run: workers that simulate, and workers for all the rest; they may be the same.
SIMULATE, REST = "simulate", "rest"


class Call:
    """A function with its arguments, to be run on a worker; all of it must pickle, and be small.

    Attributes
    ----------
    pool
        Which workers run it.
    time_limit
        Seconds after which it is stopped; None: as long as the fan-out says.
    memory
        Bytes that it needs on its host; it waits until they are free. 0: it does not say.
    like
        What calls of its kind have in common that take about as long; empty: all of them do.
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
        """Return the same call with what it needs."""
        call = copy(self)
        call.pool, call.time_limit, call.memory, call.like = pool, time_limit, memory, like
        return call

    @property
    def kind(self) -> str:
        """Name of the function."""
        return str(getattr(self.function, "__name__", "call"))

    @property
    def group(self) -> str:
        """What the call is counted under: the name of the function, and what it is like."""
        return f"{self.kind} {self.like}".rstrip()


@dataclass(frozen=True)
class Task:
    """One attempt at a call.

    Attributes
    ----------
    key
        Its name, unique in a run.
    call
        What is run.
    pool
        One of the executor's.
    priority
        The higher comes first.
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
    """What became of a task.

    Attributes
    ----------
    key
        Of the task.
    value
        What the function returned.
    error
        What it raised, or what happened to its process.
    details
        Where, as text.
    log
        The end of what its process printed.
    host
        Where it ran.
    seconds
        Wall time in the function.
    occupied
        Wall time for which the worker was taken: with sending to its child, waiting for memory, and back.
    lost
        Whether its worker went away, which may not be its doing.
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
    """The scheduler does not answer any more."""


class Executor(ABC):
    """Runs tasks: a Dask cluster or two, or the imagined one of a simulation."""

    @abstractmethod
    def pools(self) -> Mapping[str, int]:
        """Pool -> tasks that it can run at the same time, now."""

    @abstractmethod
    def pool_of(self, name: str) -> str:
        """Which of the pools a call that names ``name`` runs in."""

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Take a task."""

    @abstractmethod
    def wait(self, seconds: float) -> list[CallResult]:
        """Return what has finished since the last call; waits for something, but not longer than that.

        Raises
        ------
        ClusterLost
            Nothing will ever finish.
        """

    @abstractmethod
    def cancel(self, keys: Iterable[str]) -> None:
        """Forget tasks: those that run may run on, but their outcomes are not told."""

    @abstractmethod
    def now(self) -> float:
        """Seconds since whenever, steadily."""

    def close(self) -> None:  # noqa: B027 - nothing to do for most
        """Forget all tasks."""
