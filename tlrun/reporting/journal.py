"""Journal of a run for other programs: JSON lines, written as things happen.

Every line has ``time`` (ISO 8601, UTC) and ``event``:

``begin``
    ``title``, ``items``, ``calls`` (by group)
``progress``
    every ten seconds, and at the end: ``seconds``, ``items_done``, ``items_failed``, ``items_begun``,
    ``calls_done`` and ``call_seconds`` (by group), ``retried``, ``running``, ``workers``, ``busy`` (share of
    worker time that was used), ``bytes_written``, ``seconds_left`` (null while unknown)
``done``
    a finished item: ``item``, and further facts about it
``failed``
    a failed item: ``item``, ``error``, ``step``, ``attempts``, ``causes``, ``host``, ``details``, ``log``
``end``
    the summary that is stored in the corpus (:mod:`tlgen.runs`); written even if there was nothing to do
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from catalogs.errors import InputError
from tlrun.fan_out_report import Failure

_log = logging.getLogger(__name__)


class Journal:
    """Context manager that appends events to a file; without a path it does nothing.

    If the file cannot be written any more, for example on a full disk, this is reported once, and the run
    goes on.

    Raises
    ------
    InputError
        If the file cannot be written.
    """

    def __init__(self, path: str | None) -> None:
        try:
            # unbuffered: each line goes to the disk at once, and closing writes nothing more
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
        """Append that an item failed; ``item`` is its name for people."""
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
