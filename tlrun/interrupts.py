"""Ctrl-C once: finish what has begun. Twice, or before anything has begun: stop at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def terminated_in_order() -> Iterator[None]:
    """Take SIGTERM as Python takes Ctrl-C: what was started ends too, such as jobs that wait in a queue."""

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
    """Take the first Ctrl-C (SIGINT) or SIGTERM as a wish.

    Parameters
    ----------
    tell
        Called at the first; the second raises KeyboardInterrupt wherever the program is.

    Yields
    ------
    callable
        Whether there has been one.
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
