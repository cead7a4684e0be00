"""What a user should know of a file that is read, though it can be read: warnings in one sentence.

They go to the logger ``template-learning``, each once a process; the command-line programs print them on
stderr as ``tlgen: warning: ...``. In Python, ``logging`` decides what becomes of them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import click

_logger = logging.getLogger("template-learning")
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


class _Line(logging.Handler):
    def __init__(self, program: str) -> None:
        super().__init__(logging.WARNING)
        self._program = program

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"{self._program}: warning: {record.getMessage()}", err=True)


@contextlib.contextmanager
def printed(program: str) -> Iterator[None]:
    """Print warnings as lines of a program on stderr, as long as it runs."""
    line = _Line(program)
    before, _logger.propagate = _logger.propagate, False
    _logger.addHandler(line)
    try:
        yield
    finally:
        _logger.removeHandler(line)
        _logger.propagate = before


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Warn of nothing: somebody else has read the same files and told it."""
    before, _logger.disabled = _logger.disabled, True
    try:
        yield
    finally:
        _logger.disabled = before
