"""The protocol through which all parts of the project report progress.

Only command lines print. A function that takes long has a parameter ``progress``. It begins each piece of
work by calling ``progress(title, total, unit)``, and reports to the result, a context manager, what is done.
All other messages go to :mod:`logging`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from rich.console import Group

from catalogs.amounts import duration

#: Seconds between two lines where the output is not a terminal.
LOG_EVERY = 15.0


class Line(Protocol):
    """One piece of work in progress; a context manager."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the piece of work, whether it is finished or has failed."""

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        """Report that ``done`` units are finished, with a short note; the total may change."""


class Progress(Protocol):
    """Begins a piece of work; any callable with this signature can be given as ``progress``."""

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
    """Turn ``progress`` into the protocol: False is silent, True shows a bar, objects are used as given."""
    if isinstance(progress, bool):
        return ProgressLine if progress else Silent
    return progress


class ProgressLine:
    """Shows progress: a bar in a terminal or notebook, a line now and then in a log.

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
        self._done, self._note = 0, ""
        self._started = self._last = time.monotonic()
        self._first: tuple[float, int] | None = None  # when the first units were done, and how many

    def __enter__(self) -> ProgressLine:
        from rich.console import Console

        self._console = console = Console(highlight=False)
        if sys.stdout.isatty() or console.is_jupyter:
            from rich.live import Live

            self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=4)
            self._live.start()
        return self

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        """Show that ``done`` units are finished, with a short note; the total may change."""
        self._total = self._total if total is None else total
        self._done, self._note, now = done, note, time.monotonic()
        if self._first is None and done > 0:
            self._first = now, done
        if self._live is None and now - self._last >= LOG_EVERY:
            self._last, left = now, self._left(now)
            spent = duration(now - self._started) + (f", about {left} left" if left else "")
            words = [f"  {self._title} {done}/{self._total} {self._unit}", spent, note]
            sys.stdout.write("; ".join(filter(None, words)) + "\n")
            sys.stdout.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def _picture(self) -> Group:
        now = time.monotonic()
        left = self._left(now)
        spent = f"{duration(now - self._started)} spent"
        return two_rows(
            self._title,
            self._done / self._total if self._total else 0.0,
            [f"{self._done}/{self._total} {self._unit}", f"{left} left" if left else ""],
            [self._note, spent],
            self._console.width,
        )

    def _left(self, now: float) -> str:
        """Estimate the time left from the pace since the first unit, since the start-up happens once."""
        if self._first is None or self._done <= self._first[1]:
            return ""
        began, before = self._first
        return duration((now - began) / (self._done - before) * (self._total - self._done))


def two_rows(title: str, share: float, words: Sequence[str], notes: Sequence[str], width: int) -> Group:
    """Draw the progress in two rows that fit a window of any width.

    Parameters
    ----------
    title
        Title of the work.
    share
        Share that is done, 0 to 1; shown as a bar if there is room.
    words
        Words of the first row after the bar, the most important first.
    notes
        What the second row says; where there is little room, those before the last are dropped.
    width
        Width of the window in characters.
    """
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = [f"  {title}", *filter(None, words)]
    while len(head) > 2 and sum(map(len, head)) + len(head) - 1 > width:
        head.pop()
    room = width - sum(map(len, head)) - len(head)
    first = Table.grid(padding=(0, 1))
    bar = [ProgressBar(total=1.0, completed=min(1.0, share), width=min(30, room))] if room >= 8 else []
    cells = [Text(word, no_wrap=True, overflow="ellipsis") for word in head]
    first.add_row(cells[0], *bar, *cells[1:])
    told = list(filter(None, notes))
    while len(told) > 2 and sum(map(len, told)) + 3 * len(told) - 1 > width:
        told.pop(-2)
    second = Text("  ") + Text(" · ").join(map(Text, told))
    second.highlight_regex(r"\b[1-9]\d* failed", "red")
    second.truncate(width, overflow="ellipsis")
    second.no_wrap = True
    return Group(first, second)
