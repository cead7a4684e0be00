"""Dask with a clock that does not jump."""

from __future__ import annotations

import time

_AHEAD = time.time() - time.monotonic()


def now() -> float:
    """Seconds since 1970 by the clock as it was when this was loaded, however it is set since then."""
    return _AHEAD + time.monotonic()


def use_monotonic_clock() -> None:
    """Let Dask and Tornado measure waiting times of this process by :func:`now`; more than once is once.

    Both add a wait to the time of day and compare with it later. A clock that is set back within the
    milliseconds between two messages stops a connection for as long as it was set back by: a worker that has
    finished seems busy, for hours and without a word.
    """
    from distributed import batched
    from tornado.ioloop import IOLoop

    names = vars(batched)
    if names["time"] is not now:
        names["time"] = now
        IOLoop.time = lambda self: now()  # type: ignore[method-assign]
