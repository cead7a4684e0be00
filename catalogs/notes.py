"""What a user should know of a file that is read, though it can be read: warnings in one sentence.

They go to the logger ``template-learning``, each once a process; the command-line programs print them on
stderr as ``tlgen: warning: ...``. In Python, ``logging`` decides what becomes of them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

#: Name of the logger.
LOGGER = "template-learning"
_logger = logging.getLogger(LOGGER)
_told: set[str] = set()
_listening: list[list[str]] = []


def warn(text: str) -> None:
    """Tell the user something that may not be as they think; the same sentence once only."""
    for heard in _listening:
        heard.append(text)
    if text not in _told:
        _told.add(text)
        _logger.warning(text)


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """List what is told meanwhile, also what was told before, so that it can be kept and told again."""
    texts: list[str] = []
    _listening.append(texts)
    try:
        yield texts
    finally:
        _listening.remove(texts)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Warn of nothing: somebody else has read the same files and told it."""
    before, _logger.disabled = _logger.disabled, True
    try:
        yield
    finally:
        _logger.disabled = before
