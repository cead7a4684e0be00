"""What a run writes into the corpus beside the samples: why some failed, and an up-to-date index."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from catalogs.corpus import failures
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from tlrun.fan_out import Failure

#: A new index is written after this many samples, or after this many seconds if there are new samples ...
SAMPLES, SECONDS = 500, 60.0
#: ... but it takes at most this share of the time, since the index grows with the corpus.
SHARE = 0.05


class Bookkeeping:
    """The bookkeeping of one run; a context manager.

    The index is written in a thread during the run; several runs may do so at once. The index is optional, so
    an error in writing it is kept in :attr:`complaint` and does not stop the run.

    Attributes
    ----------
    complaint
        Why the last index could not be written; empty if it could.
    """

    def __init__(self, url: str) -> None:
        self.complaint = ""
        self._url = url
        self._noted = failures.names(url)
        self._made_since: set[str] = set()  # of those
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._writing: Future[float] | None = None
        self._new = 0
        self._due = time.monotonic() + SECONDS

    def __enter__(self) -> Bookkeeping:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        self._forget()
        if error is None:
            _compact(self._url, self)

    def made(self, name: str) -> None:
        """Record that an item is in the corpus now."""
        self._new += 1
        if name in self._noted:
            self._noted.discard(name)
            self._made_since.add(name)
            self._forget()
        if self._writing is not None and self._writing.done():
            self._due = max(self._due, time.monotonic() + self._writing.result() / SHARE)
            self._writing = None
        if self._writing is None and (self._new >= SAMPLES or time.monotonic() >= self._due):
            self._new, self._due = 0, time.monotonic() + SECONDS
            self._writing = self._thread.submit(_compact, self._url, self)

    def failed(self, failure: Failure, name: str) -> None:
        """Record why an item was given up; ``name`` is for people."""
        content = {
            "id": failure.name,
            "name": name,
            "error": failure.error,
            "step": failure.kind,
            "attempts": failure.attempts,
            "causes": list(failure.causes),
            "host": failure.host,
            "log": failure.log,
            "details": failure.details,
        }
        try:
            failures.note(self._url, failure.name, content)
            self._noted.add(failure.name)
        except Exception:  # perhaps the storage itself fails; the user is told anyway
            return

    def _forget(self) -> None:
        """Remove the failure records of items that exist now; what the storage refuses is tried later."""
        if not self._made_since:
            return
        with contextlib.suppress(Exception):  # every storage has its own, and nothing depends on it
            failures.forget(self._url, self._made_since)
            self._made_since.clear()


def _compact(url: str, book: Bookkeeping) -> float:
    """Write the index; returns the seconds that it took."""
    started = time.monotonic()
    try:
        Catalog.open(url).compact()
        book.complaint = ""
    except (OSError, InputError) as error:
        book.complaint = f"the index could not be written ({error}); it is not needed, and repair mends it"
    except Exception as error:  # every storage has its own
        book.complaint = f"the index could not be written ({type(error).__name__}: {error})"
    return time.monotonic() - started
