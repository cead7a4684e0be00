"""Reports of a fan-out: its progress, its failures and its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Failure:
    """An item that failed.

    Attributes
    ----------
    name
        Name of the item.
    error
        The last error, in one line.
    details
        The traceback.
    kind
        Name of the function that was called.
    attempts
        How often the call was tried.
    causes
        The error of each attempt, in one line.
    host
        Host of the last attempt.
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
    """Results and failures of all items.

    Attributes
    ----------
    results
        Results by item name, if they are kept.
    failures
        Items that failed.
    done
        Number of items that are finished.
    stopped
        Why the remaining items were not tried; empty if all were.
    progress
        The last progress report.
    """

    results: dict[str, Any] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    done: int = 0
    stopped: str = ""
    progress: Progress | None = None


@dataclass(frozen=True)
class Progress:
    """Progress report, passed to ``on_progress`` when calls have finished and about once a second.

    Attributes
    ----------
    seconds
        Seconds since the fan-out began.
    items_done, items_failed, items_begun
        Numbers of items that are finished, that failed, and that have begun but not ended.
    calls_done
        Calls that succeeded, by group (name of the function and kind of call).
    call_seconds
        Wall seconds that workers spent in calls that have ended, by group; includes failed attempts.
    occupied_seconds
        Wall seconds for which workers were occupied by calls that have ended; compare with
        ``worker_seconds``.
    retried
        Attempts that failed and were tried again.
    running
        Calls that run now, without those that wait.
    workers
        Calls that could run at the same time now.
    worker_seconds
        Integral of ``workers`` over time.
    bytes_written
        Bytes of the results, as ``measure`` counts them.
    failures
        All items that have failed so far.
    stopping
        Whether the fan-out begins no new items.
    longest_call
        Wall seconds of the longest call of each group; often the first, which loads and compiles code.
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
        """Share of the workers that are running a call now."""
        return self.running / self.workers if self.workers else 0.0
