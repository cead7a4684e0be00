"""Estimates when a fan-out will be done, from the cost of finished calls in each group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tlrun.fan_out_report import Progress

#: Share of the remaining work that must be of a kind that has finished before; else no time is shown.
_KNOWN = 0.5


@dataclass(frozen=True)
class Work:
    """Calls of one kind.

    Attributes
    ----------
    group
        Name as in :attr:`tlrun.calls.Call.group`: the function and the kind of call.
    calls
        How many there are in all.
    guess
        Estimated cost of one call, in any unit that is the same for all groups.
    pieces
        How many pieces, such as tilts, all the calls make together.
    """

    group: str
    calls: int
    guess: float = 1.0
    pieces: int = 0

    @property
    def function(self) -> str:
        """Name of the function."""
        return self.group.partition(" ")[0]


def costs(work: Sequence[Work], progress: Progress) -> dict[str, float]:
    """Estimate the seconds of one call of each group.

    A group with finished calls costs their mean without the longest call, which is usually the first one and
    includes loading and compiling. A group without finished calls costs its guess, corrected by how wrong the
    guesses were for the same function, or for all functions if no call of it has finished; but no more than
    the only call that has finished.
    """
    usual, every = _Known(work, progress, progress.longest_call), _Known(work, progress, {})
    found = {each.group: (usual if usual.any else every).cost(each) for each in work}
    for group, seconds in progress.longest_call.items():
        if progress.calls_done.get(group, 0) == 1 and group in found:
            found[group] = min(found[group], seconds)
    return found


def share_done(work: Sequence[Work], progress: Progress) -> float:
    """Estimate the share of the work that is done, 0 to 1, with each call weighted by its cost."""
    cost = costs(work, progress)
    total = sum(each.calls * cost[each.group] for each in work)
    done = sum(min(each.calls, progress.calls_done.get(each.group, 0)) * cost[each.group] for each in work)
    return done / total if total > 0 else 0.0


class _Known:
    """Sum the times of finished calls, leaving out one call of the given time in each group."""

    def __init__(self, work: Sequence[Work], progress: Progress, without: Mapping[str, float]) -> None:
        self._calls: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._of: defaultdict[str, float] = defaultdict(float)  # seconds by function; "" stands for all
        self._guessed: defaultdict[str, float] = defaultdict(float)
        for each in work:
            done = progress.calls_done.get(each.group, 0)
            calls = max(0, done - (each.group in without))
            seconds = progress.call_seconds.get(each.group, 0.0) - without.get(each.group, 0.0)
            self._calls[each.group], self._seconds[each.group] = calls, seconds
            for name in (each.function, "") if calls or not without else ():
                self._of[name] += seconds
                self._guessed[name] += each.guess * calls
        self.any = any(self._calls.values())

    def cost(self, each: Work) -> float:
        """Estimate one call."""
        if self._calls[each.group]:
            return self._seconds[each.group] / self._calls[each.group]
        name = each.function if self._guessed[each.function] else ""
        return each.guess * self._of[name] / self._guessed[name] if self._guessed[name] else each.guess


def seconds_left(work: Sequence[Work], items: int, progress: Progress) -> float | None:
    """Estimate the wall seconds until everything is done.

    Parameters
    ----------
    work
        All calls of the fan-out.
    items
        Number of items.
    progress
        The progress so far.

    Returns
    -------
    float or None
        None while no call like most of the remaining ones has finished, while nothing can run, or when the
        run is stopping.
    """
    open_items = items - progress.items_done - progress.items_failed
    if open_items <= 0:
        return 0.0
    spent = sum(progress.call_seconds.values())
    if progress.stopping or not progress.workers or not spent or not progress.worker_seconds:
        return None
    cost = costs(work, progress)
    left = sum(
        max(0, each.calls - progress.calls_done.get(each.group, 0)) * cost[each.group] for each in work
    )
    known = sum(
        max(0, each.calls - progress.calls_done.get(each.group, 0)) * cost[each.group]
        for each in work
        if progress.calls_done.get(each.group, 0)
    )
    if known < _KNOWN * left:  # a guess may be wrong by a factor of ten
        return None
    left *= open_items / (open_items + progress.items_failed)  # failed items are not finished
    # running calls are half done on average
    running = 0.5 * progress.running * spent / max(1, sum(progress.calls_done.values()))
    running = min(running, left)
    efficiency = min(1.0, (spent + running) / progress.worker_seconds)
    # at the very end workers fall idle, because the last calls of the items have none beside them
    last = max((cost[each.group] for each in work), default=0.0)
    tail = last * (1 - 1 / progress.workers) / 2
    return (left - running) / (progress.workers * efficiency) + min(tail, left)
