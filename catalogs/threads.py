"""Threads of a process, for work that releases Python's lock: loops of NumPy and numba, file access."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any


def allowed_threads() -> int:
    """Return how many threads this process may use.

    Returns
    -------
    int
        ``OMP_NUM_THREADS`` if set, as on workers; else the number of cores of the process.
    """
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit() and int(stated) > 0:
        return int(stated)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def pool(most: int | None = None) -> Iterator[Threads]:
    """Provide threads, which end with the context, when their work is done.

    Parameters
    ----------
    most
        How many at most; None: as many as the process may use.
    """
    allowed = allowed_threads()
    with ThreadPoolExecutor(allowed if most is None else min(most, allowed)) as threads:
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
        """Start ``work`` on parts of ``n`` pieces, after the previous work is done.

        Parameters
        ----------
        n
            Number of pieces.
        work
            Called with slices that cover all pieces; it returns when the part is done.
        """
        self.finish()
        parts = min(n, self._executor._max_workers)
        ends = [n * k // parts for k in range(parts + 1)] if parts else [0]
        self._begun = [self._executor.submit(work, slice(a, b)) for a, b in pairwise(ends)]

    def finish(self) -> None:
        """Wait for the work to finish.

        Raises
        ------
        Exception
            Whatever the work raised.
        """
        begun, self._begun = self._begun, []
        for each in begun:
            each.result()
