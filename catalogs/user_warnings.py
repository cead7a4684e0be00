"""Warnings about input that can be used but may not be what the user thinks, one sentence each.

They go to the logger ``template-learning``, each once per process. The command-line programs print them on
stderr as ``tlgen: warning: ...``. In Python they are handled by ``logging``.
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
    """Warn the user; the same sentence appears only once."""
    for heard in _listening:
        heard.append(text)
    if text not in _told:
        _told.add(text)
        _logger.warning(text)


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """Collect the warnings of the context, also repeated ones, so that they can be stored and shown again."""
    texts: list[str] = []
    _listening.append(texts)
    try:
        yield texts
    finally:
        _listening.remove(texts)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Suppress warnings: the same files have been read, and warned about, before."""
    before, _logger.disabled = _logger.disabled, True
    try:
        yield
    finally:
        _logger.disabled = before
