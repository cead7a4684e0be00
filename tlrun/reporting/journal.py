"""A run as JSON lines, for other programs: one object a line, written as it happens.

Every line has ``time`` (ISO 8601, UTC) and ``event``:

``begin``
    ``title``, ``items``, ``calls`` (by group)
``progress``
    every ten seconds, and at the end: ``seconds``, ``items_done``, ``items_failed``, ``items_begun``,
    ``calls_done`` and ``call_seconds`` (by group), ``retried``, ``running``, ``workers``, ``busy`` (share of
    worker time that was used), ``bytes_written``, ``seconds_left`` (null while unknown)
``done``
    an item: ``item``, and what its maker says of it
``failed``
    an item: ``item``, ``error``, ``step``, ``attempts``, ``causes``, ``host``, ``details``, ``log``
``end``
    the account that stays in the corpus, see :mod:`tlgen.runs`; also of a run that had nothing to do
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from catalogs.errors import InputError
from tlrun.account import Failure

_log = logging.getLogger(__name__)


class Journal:
    """Appends events to a file, or nowhere if there is no path; a context manager.

    That the file cannot be written any more, as on a full disk, is told once and stops nothing.

    Raises
    ------
    InputError
        If the file cannot be written.
    """

    def __init__(self, path: str | None) -> None:
        try:
            # unbuffered: a line is on its way to the disk when it is written, and closing writes no more
            self._file = open(path, "ab", buffering=0) if path else None  # noqa: SIM115 - closed at exit
        except OSError as error:
            raise InputError(f"`log_json={path}` cannot be written ({error.strerror}).") from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()

    def failed(self, failure: Failure, item: str) -> None:
        """Append that an item was given up; ``item`` is its name for people."""
        facts = asdict(failure)
        self.write("failed", item=item, step=facts.pop("kind"), **facts)

    def write(self, event: str, **facts: Any) -> None:
        """Append one line."""
        if not self._file:
            return
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        try:
            self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        except OSError as error:
            _log.warning(f"  `log_json={self._file.name}` ends here: it cannot be written ({error.strerror})")
            self._file.close()
            self._file = None
