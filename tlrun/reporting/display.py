"""Shows a fan-out: live in a terminal, as lines in a log, and as a table at the end."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live

from catalogs.amounts import data_size, duration
from catalogs.progress import Progress as Shown
from catalogs.progress import Silent, two_rows
from tlrun.fan_out_report import Failure, Progress
from tlrun.reporting.estimate import Work, seconds_left, share_done
from tlrun.reporting.journal import Journal

#: Seconds between two lines where the output is not a terminal, and the least interval as a share of the time
#: spent so far, so that a run of days writes no more lines than one of minutes.
LOG_EVERY, LOG_SHARE = 15.0, 0.05
#: Number of items that get a line of their own; later, one line appears every so many seconds.
FIRST_ITEMS, ITEM_EVERY = 20, 10.0
_JOURNAL_EVERY = 10.0


class Display:
    """Shows a fan-out; a context manager whose methods are what ``fan_out`` calls.

    Parameters
    ----------
    title
        What the run does, e.g. ``simulating``.
    work
        All calls that will be made.
    items
        How many items there are.
    unit
        Name of the pieces that are counted, e.g. ``tilts``.
    journal
        Journal for other programs.
    console
        For tests; standard output otherwise.
    progress
        True shows it; False shows nothing; or a :class:`catalogs.progress.Progress`, which is told the calls.
    """

    def __init__(
        self,
        title: str,
        work: Sequence[Work],
        items: int,
        *,
        unit: str,
        journal: Journal | None = None,
        console: Console | None = None,
        progress: bool | Shown = True,
    ) -> None:
        self._title, self._work, self._items = title, list(work), items
        self._unit = unit
        self._pieces = {each.group: each.pieces / max(1, each.calls) for each in self._work}
        self._journal = journal or Journal(None)
        self._console = console or Console(
            file=sys.stdout, highlight=False, soft_wrap=True, quiet=progress is not True
        )
        calls = sum(each.calls for each in self._work)
        self._line = (Silent if isinstance(progress, bool) else progress)(title, calls, "calls")
        self._live: Live | None = None
        self._last: Progress | None = None
        self._next_line = LOG_EVERY
        self._next_entry = 0.0
        self._told = self._silent = 0
        self._next_item = 0.0

    def __enter__(self) -> Display:
        self._journal.write(
            "begin",
            title=self._title,
            items=self._items,
            calls={each.group: each.calls for each in self._work},
        )
        self._line.__enter__()
        if (self._console.is_terminal or self._console.is_jupyter) and not self._console.quiet:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._last is not None:
            self._enter(self._last)
        self._line.__exit__(kind, error, trace)

    def update(self, progress: Progress) -> None:
        """Show the progress; pass this as ``on_progress``."""
        self._last = progress
        self._line.update(sum(progress.calls_done.values()), self._count(progress))
        if progress.seconds >= self._next_entry:
            self._next_entry = progress.seconds + _JOURNAL_EVERY
            self._enter(progress)
        if self._live is not None:
            self._live.update(self._picture(progress))
        elif progress.seconds >= self._next_line:
            self._next_line = progress.seconds + max(LOG_EVERY, LOG_SHARE * progress.seconds)
            words = [self._count(progress), *self._words(progress), self._left(progress)]
            self._console.print(f"  {self._title}: {'; '.join(filter(None, words))}")

    def done(self, item: str, line: str, **facts: Any) -> None:
        """Report that an item is finished, unless there are too many."""
        self._journal.write("done", item=item, **facts)
        now = self._last.seconds if self._last else 0.0
        if self._told >= FIRST_ITEMS and now < self._next_item:
            self._silent += 1
            return
        self._told, self._next_item = self._told + 1, now + ITEM_EVERY
        more = f"  (and {self._silent} more)" if self._silent else ""
        self._silent = 0
        self._console.print(self._fitted(f"  {line}{more}"), markup=False)

    def failed(self, failure: Failure, name: str) -> None:
        """Report at once that an item failed; the first ones with their reasons, one line each."""
        self._journal.failed(failure, name)
        failures = len(self._last.failures) if self._last else 0
        if failures < FIRST_ITEMS:
            text = self._fitted(f"  {name} failed: {failure.error}")
            self._console.print(text, style="red", markup=False)

    def _fitted(self, line: str) -> str:
        """Break a line between words if it is wider than the window; in a file it stays one line."""
        if self._live is None or not self._console.is_terminal:
            return line
        parts = line.splitlines()
        wrapper = textwrap.TextWrapper(
            self._console.width, subsequent_indent=" " * 6, break_long_words=False, break_on_hyphens=False
        )
        return "\n".join(row for part in parts for row in wrapper.wrap(part))

    def _enter(self, progress: Progress) -> None:
        left = seconds_left(self._work, self._items, progress)
        self._journal.write(
            "progress",
            seconds=round(progress.seconds, 1),
            items_done=progress.items_done,
            items_failed=progress.items_failed,
            items_begun=progress.items_begun,
            calls_done=dict(progress.calls_done),
            call_seconds={group: round(s, 2) for group, s in progress.call_seconds.items()},
            retried=progress.retried,
            running=progress.running,
            workers=progress.workers,
            busy=busy(progress),
            bytes_written=progress.bytes_written,
            seconds_left=None if left is None else round(left, 1),
        )

    # ------------------------------------------------------------------ words

    def _picture(self, progress: Progress) -> Group:
        done = share_done(self._work, progress)
        said = [f"{100 * done:.0f} %", self._count(progress), self._left(progress)]
        return two_rows(self._title, done, said, self._words(progress), self._console.width)

    def _count(self, progress: Progress) -> str:
        return f"{progress.items_done} of {self._items} samples"

    def _left(self, progress: Progress) -> str:
        left = seconds_left(self._work, self._items, progress)
        return "" if left is None else f"{duration(left)} left"

    def _words(self, progress: Progress) -> list[str]:
        counted = sum(n * self._pieces.get(group, 0.0) for group, n in progress.calls_done.items())
        rate = counted / progress.seconds if progress.seconds else 0.0
        words = []  # the more important come first: a narrow window drops the others
        if progress.items_failed or progress.retried:
            words.append(f"{progress.items_failed} failed")
        if progress.retried:
            words.append(f"{progress.retried} tried again")
        if progress.stopping:
            words.append("finishing what has begun")
        words += [_rate(rate, self._unit)] if counted else []
        share = f"{100 * progress.running / progress.workers:.0f} % of " if progress.workers else ""
        words.append(f"{share}{progress.workers} worker{'s' * (progress.workers != 1)} busy")
        words.append(f"{data_size(progress.bytes_written)} written")
        words.append(f"{duration(progress.seconds)} spent")
        return words


def busy(progress: Progress) -> float:
    """Return the share of the workers' time that was spent in calls that have ended."""
    spent = progress.occupied_seconds
    return round(min(1.0, spent / progress.worker_seconds), 4) if progress.worker_seconds else 0.0


def account(progress: Progress, items: int) -> list[str]:
    """Write the table at the end of a run: the calls, their number and their times."""
    wide = max([len("step"), *map(len, progress.calls_done)])
    lines = [f"  {'step':{wide}} {'calls':>7} {'each':>8} {'in all':>8}"]
    for group, n in sorted(progress.calls_done.items()):
        seconds = progress.call_seconds.get(group, 0.0)
        each = f"{seconds / max(1, n):.3g} s"
        lines.append(f"  {group:{wide}} {n:7d} {each:>8} {duration(seconds):>8}")
    lines.append(
        f"  {progress.items_done} of {items} made, {progress.items_failed} failed, {progress.retried} tried "
        f"again; {data_size(progress.bytes_written)} written in {duration(progress.seconds)}, "
        f"workers {100 * busy(progress):.0f} % busy"
    )
    return lines


def _rate(rate: float, unit: str) -> str:
    return f"{rate:.3g} {unit}/s" if rate >= 1 else f"{60 * rate:.3g} {unit}/min"
