"""Gives Dask a monotonic clock."""

from __future__ import annotations

import time

_AHEAD = time.time() - time.monotonic()


def now() -> float:
    """Return seconds since 1970 that do not jump when the system clock is set."""
    return _AHEAD + time.monotonic()


def use_monotonic_clock() -> None:
    """Let Dask and Tornado measure waiting times in this process by :func:`now`; may be called repeatedly.

    Both compute deadlines from the time of day. If the clock is set back by an hour in the milliseconds
    between two messages, a connection stops for an hour: a worker that has finished seems busy, without any
    message.
    """
    from distributed import batched
    from tornado.ioloop import IOLoop

    names = vars(batched)
    if names["time"] is not now:
        names["time"] = now
        IOLoop.time = lambda self: now()  # type: ignore[method-assign]
