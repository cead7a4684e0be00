"""The threads of one process, for work that lets go of Python's lock: NumPy's and numba's loops, files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any


def allowed_threads() -> int:
    """Say how many threads this process may use.

    Returns
    -------
    int
        ``OMP_NUM_THREADS`` if that is set, as it is on workers; else the cores that the process may run on.
    """
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit() and int(stated) > 0:
        return int(stated)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def pool() -> Iterator[Threads]:
    """Give as many threads as the process may use; they end with the block, when their work is done."""
    with ThreadPoolExecutor(allowed_threads()) as threads:
        yield Threads(threads)


class Threads:
    """Threads that share pieces of work.

    Parameters
    ----------
    executor
        Runs them.
    """

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self._begun: list[Future[None]] = []

    def map(self, function: Callable[[Any], Any], items: Any) -> Iterator[Any]:
        """Apply a function to every item, and yield the results in the items' order."""
        return self._executor.map(function, items)

    def begin(self, n: int, work: Callable[[slice], None]) -> None:
        """Let ``work`` do parts of ``n`` pieces, once what was begun before is done.

        Parameters
        ----------
        n
            Number of pieces.
        work
            Called with slices that cover all of them; it returns when the part is done.
        """
        self.finish()
        parts = min(n, self._executor._max_workers)
        ends = [n * k // parts for k in range(parts + 1)] if parts else [0]
        self._begun = [self._executor.submit(work, slice(a, b)) for a, b in pairwise(ends)]

    def finish(self) -> None:
        """Wait for what was begun.

        Raises
        ------
        Exception
            What the work raised.
        """
        begun, self._begun = self._begun, []
        for each in begun:
            each.result()
