"""Makes many independent items, each by a few steps of remote calls.

An item is a generator that yields lists of calls and receives their results. It reads like a sequential
program, while its calls run on the cluster at the same time as those of other items::

    def sample(spec):
        [scene] = yield [Call(pack, spec)]
        images = yield [Call(simulate, scene, tilt) for tilt in tilts]
        [record] = yield [Call(finish, scene, images)]
        return record

The scheduler holds only a bounded window of calls, and items that have begun come before new ones. So whole
items are finished from the first minutes on, however many there are. A call that fails, hangs or kills its
worker affects only its own item.
"""

from __future__ import annotations

import heapq
import itertools
import traceback
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tlrun.calls import REST, Call, CallResult, ClusterLost, Executor, Task
from tlrun.fan_out_report import Failure, Progress, Summary

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Call", "Failure", "Job", "Progress", "Steps", "Summary", "fan_out"]

Steps = Generator[list[Call], list[Any], Any]

#: Seconds before a failed call is tried again, and the factor by which they grow: busy storage needs time.
FIRST_DELAY, GROWTH = 0.5, 4.0
_TICK = 1.0  # longest time in seconds between two checks of the workers and of the wish to stop
_LOOK_AT_WORKERS = 5.0  # seconds


@dataclass(frozen=True)
class Job:
    """One item: its name, part of the keys of its tasks, and the function that makes its steps."""

    name: str
    steps: Callable[[], Steps]


@dataclass
class _Item:
    job: Job
    order: int
    steps: Steps
    step: int = 0
    waiting: int = 0
    results: list[Any] = field(default_factory=list)
    in_flight: set[str] = field(default_factory=set)
    over: bool = False

    @property
    def has_work(self) -> bool:
        """Whether the item is beyond its first step, so that stopping it would lose work."""
        return self.step > 2 or (
            self.step == 2 and (bool(self.in_flight) or self.waiting < len(self.results))
        )


@dataclass
class _Try:
    """A call of an item, and how often it has failed."""

    item: _Item
    index: int
    call: Call
    pool: str
    causes: list[str] = field(default_factory=list)
    losses: int = 0


def fan_out(
    jobs: Iterable[Job],
    where: Client | Mapping[str, Client] | Executor,
    *,
    retries: int = 2,
    time_limit: float | None = None,
    window: int | None = None,
    keep_results: bool = True,
    measure: Callable[[Any], int] = lambda _: 0,
    stop: Callable[[], bool] = lambda: False,
    hopeless: Callable[[BaseException], bool] = lambda _: False,
    fatal: Callable[[BaseException], bool] = lambda _: False,
    most_in_a_row: int | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_result: Callable[[str, Any], None] = lambda _name, _result: None,
    on_failure: Callable[[Failure], None] = lambda _: None,
) -> Summary:
    """Run the jobs and return when each is done or has failed for good.

    Parameters
    ----------
    jobs
        The items; the next is taken from the iterable when there is room for it.
    where
        A Dask client of a cluster whose workers have one thread each, clients by pool, or an executor.
    retries
        How often a call that raises, crashes or hangs is tried again before its item counts as failed. The
        same number holds for calls whose workers are lost.
    time_limit
        Seconds after which a call is stopped, unless the call has a limit of its own.
    window
        Calls of each pool that its scheduler holds at any time; twice the number of workers unless given.
    keep_results
        Whether the summary contains the results; there may be 100,000.
    measure
        Function from an item's result to the bytes that it has written.
    stop
        Asked about once a second. Once it returns True, no new item is begun, and items that are still in
        their first step are dropped.
    hopeless
        Whether an error would be the same on every attempt, so that its call is not tried again.
    fatal
        Whether an error makes all further work pointless.
    most_in_a_row
        Stop after so many failed items with no finished one in between; None: never.
    on_progress, on_result, on_failure
        Called in this process: regularly; with the name and result of each finished item; with each item
        that failed.

    Returns
    -------
    Summary
        Results and failures by item. One item's failure stops no other.
    """
    if isinstance(where, Executor):
        executor = where
    else:
        from tlrun.on_dask import DaskExecutor

        executor = DaskExecutor(where)
    engine = _Engine(jobs, executor, retries, time_limit, window, keep_results, measure, hopeless, fatal)
    engine.most_in_a_row = most_in_a_row
    engine.on_result, engine.on_failure = on_result, on_failure
    try:
        while engine.top_up(stop()):
            engine.take(executor.wait(engine.patience()))
            on_progress(engine.progress())
    except ClusterLost as lost:
        engine.summary.stopped = str(lost)
    finally:
        executor.close()
    if not engine.something_is_left():  # the wish to stop came when there was nothing left to begin
        engine.summary.stopped = ""
    engine.summary.progress = engine.progress()
    return engine.summary


class _Engine:
    def __init__(
        self,
        jobs: Iterable[Job],
        executor: Executor,
        retries: int,
        time_limit: float | None,
        window: int | None,
        keep_results: bool,
        measure: Callable[[Any], int],
        hopeless: Callable[[BaseException], bool],
        fatal: Callable[[BaseException], bool],
    ) -> None:
        self.summary = Summary()
        self.on_result: Callable[[str, Any], None]
        self.on_failure: Callable[[Failure], None]
        self.most_in_a_row: int | None = None
        self._in_a_row = 0
        self._source = enumerate(jobs)
        self._executor = executor
        self._retries, self._time_limit, self._window = retries, time_limit, window
        self._keep_results, self._measure = keep_results, measure
        self._hopeless, self._fatal = hopeless, fatal
        self._run = uuid4().hex[:6]  # two runs on one scheduler must not share tasks
        self._numbers = itertools.count()
        # waiting calls: one heap per pool, in which calls of items that began earlier come first
        self._ready: dict[str, list[tuple[int, int, _Try]]] = {}
        self._delayed: list[tuple[float, int, _Try]] = []
        self._suspects: deque[_Try] = deque()  # calls whose workers were lost; they are tried a few at a time
        self._flying: dict[str, tuple[_Try, bool]] = {}  # by key; whether the call may have killed its worker
        self._in_pool: Counter[str] = Counter()
        self._begun: dict[int, _Item] = {}
        self._entry = executor.pool_of(REST)  # the pool in which new items begin
        self._stopping = self._left = False
        self._pools: Mapping[str, int] = {}
        self._calls_done: Counter[str] = Counter()
        self._call_seconds: defaultdict[str, float] = defaultdict(float)
        self._longest_call: defaultdict[str, float] = defaultdict(float)
        self._retried = self._bytes = 0
        self._started = self._looked = executor.now()
        self._worker_seconds = self._occupied = 0.0

    # ------------------------------------------------------------------ what comes next

    def top_up(self, stop: bool) -> bool:
        """Fill the windows; return False if there is nothing left to wait for."""
        self._look_at_workers()
        if stop and not self._stopping:
            self._leave_what_has_not_begun("interrupted")
        now = self._executor.now()
        while self._delayed and self._delayed[0][0] <= now:
            self._queue(heapq.heappop(self._delayed)[2])
        self._try_suspects()
        for pool in self._pools:
            while self._room(pool) and (entry := self._next(pool)):
                self._submit(entry)
        while not self._stopping and self._room(self._entry) and len(self._begun) < self._most_begun():
            entry_job = next(self._source, None)
            if entry_job is None:
                break
            order, job = entry_job
            item = self._begun[order] = _Item(job, order, job.steps())
            self._advance(item)
            for pool in self._pools:
                while self._room(pool) and (entry := self._next(pool)):
                    self._submit(entry)
        return bool(self._flying or self._delayed or self._suspects or self._begun)

    def patience(self) -> float:
        """Return the seconds to wait for results before something else is due."""
        if not self._delayed:
            return _TICK
        return min(_TICK, max(0.0, self._delayed[0][0] - self._executor.now()))

    def _look_at_workers(self) -> None:
        now = self._executor.now()
        if self._pools and now - self._looked < _LOOK_AT_WORKERS:
            return
        self._worker_seconds += (now - self._looked) * sum(self._pools.values())
        self._looked = now
        self._pools = self._executor.pools()
        for pool in self._pools:
            self._ready.setdefault(pool, [])

    def _size(self, pool: str) -> int:
        return self._window or 2 * max(1, self._pools[pool])

    def _room(self, pool: str) -> bool:
        return self._in_pool[pool] < self._size(pool)

    def _most_begun(self) -> int:
        """Return how many items may be begun at a time: enough to fill the windows, and no more."""
        return sum(self._size(pool) for pool in self._pools)

    def _next(self, pool: str) -> _Try | None:
        heap = self._ready[pool]
        while heap:
            attempt = heapq.heappop(heap)[2]
            if not attempt.item.over:
                return attempt
        return None

    def _queue(self, attempt: _Try) -> None:
        entry = (attempt.item.order, next(self._numbers), attempt)
        heapq.heappush(self._ready.setdefault(attempt.pool, []), entry)

    def _submit(self, attempt: _Try, suspect: bool = False) -> None:
        item, call = attempt.item, attempt.call
        key = f"{call.kind}-{item.job.name}-{item.step}-{attempt.index}-{self._run}{next(self._numbers)}"
        limit = call.time_limit if call.time_limit is not None else self._time_limit
        self._flying[key] = (attempt, suspect)
        self._in_pool[attempt.pool] += 1
        item.in_flight.add(key)
        self._executor.submit(Task(key, call, attempt.pool, -item.order, limit))

    def _try_suspects(self) -> None:
        """Try lost calls again, a few at a time, so that a call that kills its worker is soon alone."""
        flying = sum(suspect for _, suspect in self._flying.values()) if self._suspects else 0
        while self._suspects and flying < max(1, sum(self._pools.values()) // 8):
            attempt = self._suspects.popleft()
            if not attempt.item.over:
                self._submit(attempt, suspect=True)
                flying += 1

    # ------------------------------------------------------------------ what has come back

    def take(self, outcomes: Iterable[CallResult]) -> None:
        """Send results to their items, and handle failures."""
        for outcome in outcomes:
            if outcome.key not in self._flying:
                continue
            attempt, _ = self._flying.pop(outcome.key)
            self._in_pool[attempt.pool] -= 1
            item = attempt.item
            item.in_flight.discard(outcome.key)
            self._call_seconds[attempt.call.group] += outcome.seconds
            self._occupied += outcome.occupied
            if item.over:
                continue
            if outcome.error is not None:
                self._failed(attempt, outcome)
                continue
            group = attempt.call.group
            self._calls_done[group] += 1
            self._longest_call[group] = max(self._longest_call[group], outcome.seconds)
            item.results[attempt.index] = outcome.value
            item.waiting -= 1
            if not item.waiting:
                self._advance(item)

    def _advance(self, item: _Item) -> None:
        """Send the step's results to the item and queue its next calls."""
        calls: list[Call] = []
        while not calls:
            try:
                calls = item.steps.send(item.results) if item.step else next(item.steps)
            except StopIteration as end:
                self._done(item, end.value)
                return
            except Exception as error:
                text = "".join(traceback.format_exception(error))
                self._give_up(item, Failure(item.job.name, _in_a_line(error), text))
                return
            item.step += 1
            item.results = [None] * len(calls)
        if self._stopping and item.step == 2:  # only its first step is lost
            self._leave(item)
            return
        item.waiting = len(calls)
        for i, call in enumerate(calls):
            pool = self._executor.pool_of(call.pool)
            if item.step == 1:
                self._entry = pool
            self._queue(_Try(item, i, call, pool))

    def _done(self, item: _Item, result: Any) -> None:
        self._end(item)
        self._in_a_row = 0
        self.summary.done += 1
        if self._keep_results:
            self.summary.results[item.job.name] = result
        self._bytes += self._measure(result)
        self.on_result(item.job.name, result)

    def _failed(self, attempt: _Try, outcome: CallResult) -> None:
        error = outcome.error
        assert error is not None
        where = f" (on {outcome.host})" if outcome.host else ""
        attempt.causes.append(_in_a_line(error) + where)
        attempt.losses += outcome.lost
        fatal = self._fatal(error)
        tries = attempt.losses if outcome.lost else len(attempt.causes) - attempt.losses
        if tries <= self._retries and not fatal and not self._hopeless(error):
            self._retried += 1
            if outcome.lost:
                self._suspects.append(attempt)
            else:
                due = self._executor.now() + FIRST_DELAY * GROWTH ** (tries - 1)
                heapq.heappush(self._delayed, (due, next(self._numbers), attempt))
            return
        failure = Failure(
            attempt.item.job.name,
            _in_a_line(error),
            outcome.details or "".join(traceback.format_exception(error)),
            attempt.call.kind,
            len(attempt.causes),
            tuple(attempt.causes),
            outcome.host,
            outcome.log,
        )
        self._give_up(attempt.item, failure)
        if fatal and not self._stopping:
            self._leave_what_has_not_begun(_in_a_line(error))

    def _give_up(self, item: _Item, failure: Failure) -> None:
        self._end(item)
        self.summary.failures.append(failure)
        self.on_failure(failure)
        self._in_a_row += 1
        if self._in_a_row == self.most_in_a_row and not self._stopping:
            self._leave_what_has_not_begun(f"{self._in_a_row} in a row failed, the last by {failure.error}")

    def _leave_what_has_not_begun(self, reason: str) -> None:
        """Begin nothing more, and forget items that only wait for their first step or the next."""
        self._stopping = True
        self.summary.stopped = reason
        for item in list(self._begun.values()):
            if not item.has_work and not item.in_flight:
                self._leave(item)

    def _leave(self, item: _Item) -> None:
        self._left = True
        self._end(item)

    def something_is_left(self) -> bool:
        """Return whether any item is neither done nor failed; takes one that has not begun."""
        return self._left or bool(self._begun) or next(self._source, None) is not None

    def _end(self, item: _Item) -> None:
        item.over = True
        item.steps.close()
        self._begun.pop(item.order, None)
        if item.in_flight:
            self._executor.cancel(item.in_flight)
            for key in item.in_flight:
                attempt, _ = self._flying.pop(key)
                self._in_pool[attempt.pool] -= 1
            item.in_flight.clear()

    # ------------------------------------------------------------------

    def progress(self) -> Progress:
        """Report the progress."""
        now = self._executor.now()
        workers = sum(self._pools.values())
        return Progress(
            seconds=now - self._started,
            items_done=self.summary.done,
            items_failed=len(self.summary.failures),
            items_begun=len(self._begun),
            calls_done=dict(self._calls_done),
            call_seconds=dict(self._call_seconds),
            occupied_seconds=self._occupied,
            retried=self._retried,
            running=sum(min(self._in_pool[pool], n) for pool, n in self._pools.items()),
            workers=workers,
            worker_seconds=self._worker_seconds + (now - self._looked) * workers,
            bytes_written=self._bytes,
            failures=tuple(self.summary.failures),
            stopping=self._stopping,
            longest_call=dict(self._longest_call),
        )


def _in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
