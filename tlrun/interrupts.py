"""Ctrl-C once finishes what has begun; twice, or before anything has begun, it stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def terminated_in_order() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that started jobs end too, such as those that wait in a queue."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only that one gets signals
        yield
        return
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def finish_first(tell: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Treat the first Ctrl-C (SIGINT) or SIGTERM as a request to stop.

    Parameters
    ----------
    tell
        Called at the first signal; the second raises KeyboardInterrupt wherever the program is.

    Yields
    ------
    callable
        Returns whether there has been a signal.
    """
    asked = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        tell()

    if threading.current_thread() is not threading.main_thread():  # only that one gets signals
        yield lambda: False
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
