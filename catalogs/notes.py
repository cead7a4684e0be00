"""What a user should know of a file that is read, though it can be read: warnings in one sentence.

They go to the logger ``template-learning``, each once a process; the command-line programs print them on
stderr as ``tlgen: warning: ...``. In Python, ``logging`` decides what becomes of them.
"""

from __future__ import annotations

import logging

#: Name of the logger.
LOGGER = "template-learning"
_logger = logging.getLogger(LOGGER)
_told: set[str] = set()


def warn(text: str) -> None:
    """Tell the user something that may not be as they think; the same sentence once only."""
    if text not in _told:
        _told.add(text)
        _logger.warning(text)
