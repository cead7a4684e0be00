"""What is told of a fan-out: how far it is, what failed, what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Failure:
    """An item that was given up.

    Attributes
    ----------
    name
        Of the item.
    error
        The last error, in one line.
    details
        Where it happened: the traceback.
    kind
        Name of the function that was called.
    attempts
        How often that call was tried.
    causes
        The error of each attempt, in one line.
    host
        Of the last attempt.
    log
        The end of what its process printed.
    """

    name: str
    error: str
    details: str
    kind: str = ""
    attempts: int = 1
    causes: tuple[str, ...] = ()
    host: str = ""
    log: str = ""


@dataclass
class Summary:
    """What became of the items.

    Attributes
    ----------
    results
        By name, where they are kept.
    failures
        Items that were given up.
    done
        Number of items that are finished.
    stopped
        Why the rest was not tried; empty if all was.
    progress
        The last that was told.
    """

    results: dict[str, Any] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    done: int = 0
    stopped: str = ""
    progress: Progress | None = None


@dataclass(frozen=True)
class Progress:
    """Told to ``on_progress`` whenever calls have finished, and about once a second.

    Attributes
    ----------
    seconds
        Since the fan-out began.
    items_done, items_failed, items_begun
        Items finished; given up; begun and neither.
    calls_done
        Calls that succeeded, by group (name of the function, and what a call is like).
    call_seconds
        Wall seconds that workers spent in calls that have ended, failed attempts too, by group.
    occupied_seconds
        Wall seconds for which workers were taken by calls that have ended: what ``worker_seconds`` is to be
        compared with.
    retried
        Attempts that failed and are, or were, tried again.
    running
        Calls that run now; those that wait behind them are not counted.
    workers
        Calls that could run now.
    worker_seconds
        Sum over time of ``workers``.
    bytes_written
        As ``measure`` says of the results.
    failures
        All items given up so far.
    stopping
        Whether no new items are begun.
    longest_call
        Wall seconds of the longest call of each group: often the first, which loads and compiles.
    """

    seconds: float
    items_done: int
    items_failed: int
    items_begun: int
    calls_done: Mapping[str, int]
    call_seconds: Mapping[str, float]
    occupied_seconds: float
    retried: int
    running: int
    workers: int
    worker_seconds: float
    bytes_written: int
    failures: tuple[Failure, ...]
    stopping: bool
    longest_call: Mapping[str, float] = field(default_factory=dict)

    @property
    def busy(self) -> float:
        """Share of the workers that run a call now."""
        return self.running / self.workers if self.workers else 0.0
