"""One fan-out over Dask for many independent items, each made by a few steps of remote calls.

An item is a generator that yields lists of calls and is sent their results, so that it reads like a
sequential program while its calls run on the cluster beside those of other items::

    def sample(spec):
        [scene] = yield [Call(pack, spec)]
        images = yield [Call(simulate, scene, tilt) for tilt in tilts]
        [record] = yield [Call(finish, scene, images)]
        return record

Only a bounded window of calls is ever with the scheduler, and items that have begun come before new
ones, so results arrive whole from the first minutes on however many items there are.
"""

from __future__ import annotations

import heapq
import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client


class Call:
    """A function with its arguments, to be run on a worker; all of it must pickle, and be small."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs


Steps = Generator[list[Call], list[Any], Any]


@dataclass(frozen=True)
class Job:
    """One item: its name, which keys its tasks, and the function that makes its steps."""

    name: str
    steps: Callable[[], Steps]


@dataclass(frozen=True)
class Failure:
    """An item that was given up: its name, the error in one line, and where it happened."""

    name: str
    error: str
    details: str


@dataclass
class Summary:
    """What became of the items: their results by name, and the failures."""

    results: dict[str, Any] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


@dataclass
class _Running:
    job: Job
    order: int
    steps: Steps
    step: int = 0
    waiting: int = 0
    results: list[Any] = field(default_factory=list)
    dead: bool = False


@dataclass(frozen=True)
class Progress:
    """Told to ``on_progress`` after every call: items and calls finished so far."""

    items_done: int
    items_failed: int
    calls_done: int


def fan_out(
    jobs: Iterable[Job],
    client: Client,
    *,
    retries: int = 2,
    window: int | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_result: Callable[[str, Any], None] = lambda _name, _result: None,
) -> Summary:
    """Run the jobs and come back when each is done or given up.

    Parameters
    ----------
    jobs
        The items; the iterable is drawn from as places fall free.
    client
        Of a cluster whose workers have one thread each.
    retries
        How often a call that raises is tried again before its item is given up. A call that kills its
        worker is tried as often as the scheduler's ``allowed-failures`` says.
    window
        Calls with the scheduler at any time; twice the workers unless given.
    on_progress, on_result
        Called in this process after every call, and with each finished item's name and result.

    Returns
    -------
    Summary
        Results and failures by item. One item's failure stops no other.
    """
    from distributed import as_completed

    from tlrun.clusters import n_workers

    window = window or 2 * max(1, n_workers(client))
    summary = Summary()
    source = enumerate(jobs)
    ready: list[tuple[int, int, _Running, Call]] = []  # a heap: jobs that began earlier go first
    with_dask: dict[Any, tuple[_Running, int]] = {}
    stream: Any = as_completed([], with_results=False, loop=client.loop)
    calls_done = 0

    def give_up(running: _Running, error: BaseException) -> None:
        running.dead = True
        running.steps.close()
        details = "".join(traceback.format_exception(error))
        summary.failures.append(Failure(running.job.name, f"{type(error).__name__}: {error}", details))

    def advance(running: _Running) -> None:
        """Send the step's results into the job and queue what it wants next."""
        try:
            calls = running.steps.send(running.results) if running.step else next(running.steps)
        except StopIteration as end:
            summary.results[running.job.name] = end.value
            on_result(running.job.name, end.value)
            return
        except Exception as error:
            give_up(running, error)
            return
        running.step += 1
        running.waiting = len(calls)
        running.results = [None] * len(calls)
        for i, call in enumerate(calls):
            heapq.heappush(ready, (running.order, i, running, call))
        if not calls:
            advance(running)

    def top_up() -> None:
        while len(with_dask) < window:
            while not ready:
                entry = next(source, None)
                if entry is None:
                    return
                order, job = entry
                advance(_Running(job, order, job.steps()))
            _, i, running, call = heapq.heappop(ready)
            if running.dead:
                continue
            future = client.submit(
                call.function,
                *call.args,
                **call.kwargs,
                key=f"{call.function.__name__}-{running.job.name}-{running.step}-{i}",
                retries=retries,
                priority=-running.order,
            )
            with_dask[future] = (running, i)
            stream.add(future)

    top_up()
    while with_dask:
        future = next(stream)
        running, i = with_dask.pop(future)
        calls_done += 1
        if not running.dead:
            error = future.exception() if future.status == "error" else None
            if error is not None:
                give_up(running, error)
            elif future.status != "finished":
                give_up(running, RuntimeError(f"the scheduler says {future.status}"))
            else:
                running.results[i] = future.result()
                running.waiting -= 1
        future.release()
        if not running.dead and running.waiting == 0:
            advance(running)
        top_up()
        on_progress(Progress(len(summary.results), len(summary.failures), calls_done))
    return summary
