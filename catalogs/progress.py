"""How far a piece of work is: the one protocol through which every part of the project reports it.

Nothing but a command line prints. A function that takes long has an argument ``progress``; it begins each
piece of work by calling ``progress(title, total, unit)``, and tells the result, a context manager, what is
done. What else there is to say goes to :mod:`logging`.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self

#: Seconds between two lines where the output is not a terminal.
LOG_EVERY = 15.0


class Line(Protocol):
    """One piece of work in progress; a context manager."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, whether the work is finished or has failed."""

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        """Tell that ``done`` units are finished, with a word on what matters now; the total may change."""


class Progress(Protocol):
    """Begins a piece of work; anything that can be called like this may be given as ``progress``."""

    def __call__(self, title: str, total: int, unit: str) -> Line:
        """Begin a piece of work.

        Parameters
        ----------
        title
            What is being done, e.g. ``simulating``.
        total
            Units of work in all.
        unit
            What is counted, e.g. ``tilts``.
        """


class Silent:
    """Shows nothing."""

    def __init__(self, title: str = "", total: int = 0, unit: str = "") -> None:
        pass

    def __enter__(self) -> Silent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        """Do nothing."""


def progress_of(progress: bool | Progress) -> Progress:
    """Turn what a user gave as ``progress`` into a protocol: False is silent, True a bar, else their own."""
    if isinstance(progress, bool):
        return ProgressLine if progress else Silent
    return progress


class ProgressLine:
    """Shows how far a piece of work is: a bar in a terminal or notebook, a line now and then in a log.

    Parameters
    ----------
    title
        What is being done, e.g. ``simulating``.
    total
        Units of work in all.
    unit
        What is counted, e.g. ``tilts``.
    """

    def __init__(self, title: str, total: int, unit: str) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._live: Any = None
        self._started = self._last = time.monotonic()
        self._first: tuple[float, int] | None = None  # when something was first done, and how much

    def __enter__(self) -> ProgressLine:
        from rich.console import Console

        console = Console(highlight=False)
        if sys.stdout.isatty() or console.is_jupyter:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            self._live = Progress(
                TextColumn("  {task.description}"),
                BarColumn(bar_width=28),
                TextColumn("{task.completed:.0f}/{task.total:.0f} " + self._unit),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self._task = self._live.add_task(self._title, total=self._total, note="")
            self._live.start()
        return self

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        """Show that ``done`` units are finished, with a word on what matters now; the total may change."""
        self._total = self._total if total is None else total
        if self._live is not None:
            self._live.update(self._task, completed=done, total=self._total, note=note)
            return
        now = time.monotonic()
        if self._first is None and done > 0:
            self._first = now, done
        if now - self._last >= LOG_EVERY:
            self._last = now
            spent = f"{now - self._started:.0f} s{self._left(now, done)}"
            words = [f"  {self._title} {done}/{self._total} {self._unit}", spent, note]
            sys.stdout.write("; ".join(filter(None, words)) + "\n")
            sys.stdout.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def _left(self, now: float, done: int) -> str:
        """Estimate the rest by the pace since the first piece: what came before it happens once."""
        if self._first is None or done <= self._first[1]:
            return ""
        began, before = self._first
        return f", about {(now - began) / (done - before) * (self._total - done):.0f} s left"
