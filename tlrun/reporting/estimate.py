"""When a fan-out will be done: what its calls have cost so far, group by group, against what is to come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tlrun.account import Progress

#: Share of what is left that calls must be like which have finished, or no time is told.
_KNOWN = 0.5


@dataclass(frozen=True)
class Work:
    """Calls that are alike.

    Attributes
    ----------
    group
        As :attr:`tlrun.calls.Call.group` names them: a function, and what the calls are like.
    calls
        How many there are in all.
    guess
        What one of them probably costs, in any unit that is the same for all groups.
    pieces
        How many of what people count a run's pace in, such as tilts, all of them make together.
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

    A group with finished calls costs the mean of all but the longest, which is mostly the first one, with
    what a process loads and compiles. A group without costs its guess, corrected by how wrong the guesses
    were for the same function, or, if none of that has finished either, for all; and no more than the one
    call that has finished took.
    """
    usual, every = _Known(work, progress, progress.longest_call), _Known(work, progress, {})
    found = {each.group: (usual if usual.any else every).cost(each) for each in work}
    for group, seconds in progress.longest_call.items():
        if progress.calls_done.get(group, 0) == 1 and group in found:
            found[group] = min(found[group], seconds)
    return found


def share_done(work: Sequence[Work], progress: Progress) -> float:
    """Estimate the share of the work that is done, 0 to 1, each call weighed by what it costs."""
    cost = costs(work, progress)
    total = sum(each.calls * cost[each.group] for each in work)
    done = sum(min(each.calls, progress.calls_done.get(each.group, 0)) * cost[each.group] for each in work)
    return done / total if total > 0 else 0.0


class _Known:
    """What finished calls took, each group without one call of the given time."""

    def __init__(self, work: Sequence[Work], progress: Progress, without: Mapping[str, float]) -> None:
        self._calls: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._of: defaultdict[str, float] = defaultdict(float)  # seconds of a function, "" of all
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
    """Estimate the wall seconds until all is done.

    Parameters
    ----------
    work
        All calls of the fan-out.
    items
        How many it has.
    progress
        How far it is.

    Returns
    -------
    float or None
        None while of the greater part of the rest nothing like it has finished, or nothing could, or when the
        rest is not to be done.
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
    left *= open_items / (open_items + progress.items_failed)  # what failed is not tried to its end
    # what runs now is half done, on average
    running = 0.5 * progress.running * spent / max(1, sum(progress.calls_done.values()))
    running = min(running, left)
    efficiency = min(1.0, (spent + running) / progress.worker_seconds)
    # at the very end one item after the other falls silent: its last call has no others beside it
    last = max((cost[each.group] for each in work), default=0.0)
    tail = last * (1 - 1 / progress.workers) / 2
    return (left - running) / (progress.workers * efficiency) + min(tail, left)
