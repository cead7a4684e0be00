"""A progress line: live in a terminal, one line every few seconds in a log file."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: Seconds between two lines where the output is not a terminal.
LOG_EVERY = 15.0


class ProgressLine:
    """Shows how far a piece of work is; a context manager.

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
        self._live: Progress | None = None
        self._started = self._last = time.monotonic()
        self._first: tuple[float, int] | None = (
            None  # when something was done for the first time, and how much
        )

    def __enter__(self) -> ProgressLine:
        if sys.stdout.isatty():
            self._live = Progress(
                TextColumn("  {task.description}"),
                BarColumn(bar_width=28),
                TextColumn("{task.completed:.0f}/{task.total:.0f} " + self._unit),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(highlight=False),
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
            print(
                "; ".join(filter(None, [f"  {self._title} {done}/{self._total} {self._unit}", spent, note])),
                flush=True,
            )

    def _left(self, now: float, done: int) -> str:
        """Estimate the rest by the pace since the first piece: what came before it happens once."""
        if self._first is None or done <= self._first[1]:
            return ""
        began, before = self._first
        return f", about {(now - began) / (done - before) * (self._total - done):.0f} s left"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
