"""Skip damaged data, and wait for a storage that does not answer."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from catalogs.errors import InputError
from catalogs.storage.reader import Abandoned, unless
from tltrain.data.sampling import Source

T = TypeVar("T")

#: Seconds that a storage may be silent.
PATIENCE = 900.0
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds between two tries

#: Error messages of several libraries for a storage that is overloaded, restarting or unreachable.
_PASSING = re.compile(
    r"unavailable|slow ?down|reduce your request rate|timed out|timeout|throttl|connection|connect to"
    r"|disconnected|deadline|resource_exhausted|aborted|temporarily|busy|internal ?(server ?)?error"
    r"|payload is not completed|(http|status|code)[^0-9]{0,30}(429|500|502|503|504)\b|\b(502|503|504) [a-z]"
)
_LOST = re.compile(r"data_loss|not_found|digest|checksum|crc32c|corrupt")
_FORBIDDEN = re.compile(r"permission|access ?denied|forbidden|expiredtoken|invalidaccesskey")
#: Exceptions while reading damaged bytes.
_DAMAGE = (InputError, OSError, ValueError, RuntimeError, KeyError, EOFError)

#: Corners of a box in voxels, z, y, x.
Box = tuple[Sequence[int], Sequence[int]]


class BadData(Exception):
    """A part of a tomogram that cannot be used.

    Parameters
    ----------
    problem
        What is wrong with it.
    source
        Index of the tomogram.
    box
        Which part; None: all of it.
    """

    def __init__(self, problem: str, source: int, box: Box | None = None) -> None:
        super().__init__(problem)
        self.source = source
        self.box = box


class Closed(Exception):
    """The stream was closed."""


class Reading:
    """Reads from a storage that may be slow to answer.

    Parameters
    ----------
    patience
        Seconds without an answer after which to give up.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._closed = threading.Event()

    def close(self) -> None:
        """Stop all waiting."""
        self._closed.set()

    def __call__(self, read: Callable[[], T], name: str, source: int, box: Box | None = None) -> T:
        """Call a function that reads, and repeat it until the storage answers.

        Parameters
        ----------
        read
            The function.
        name
            Of the tomogram, for people.
        source, box
            What it reads, for :class:`BadData`.

        Raises
        ------
        BadData
            If the storage answers and the data is damaged or lost.
        InputError
            If the storage has been silent for too long, or does not let this user read.
        Closed
            If the stream was closed.
        """
        begun, wait = time.monotonic(), _FIRST_WAIT
        while True:
            if self._closed.is_set():
                raise Closed
            try:
                with unless(self._closed):
                    return read()
            except Abandoned as error:
                raise Closed from error
            except Exception as error:
                if _says(error, _FORBIDDEN) or isinstance(error, PermissionError):
                    raise InputError(f"{name} may not be read ({_words(error)}); renew the access") from error
                if not is_passing(error):
                    if isinstance(error, _DAMAGE):
                        raise BadData(_words(error), source, box) from error
                    raise
                if time.monotonic() - begun + wait > self._patience:
                    raise InputError(
                        f"{name} could not be read for {self._patience / 60:.0f} minutes ({_words(error)}); "
                        "start the same command again when the storage answers"
                    ) from error
            self._closed.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT)


def needed(read: Callable[[], T], sample: str, purpose: str) -> T:
    """Read data that cannot be replaced, waiting for a storage that is slow to answer.

    Parameters
    ----------
    read
        The function that reads.
    sample
        Name of the data, for people.
    purpose
        Purpose of the data, such as "to validate".

    Raises
    ------
    InputError
        If it is damaged or lost, or the storage has been silent for too long.
    """
    try:
        return Reading()(read, sample, 0)
    except BadData as bad:
        raise InputError(
            f"the tomogram {sample}, which is needed {purpose}, is damaged ({bad}); repair the corpus: tlgen "
            "verify lists all problems"
        ) from bad


def is_passing(error: BaseException) -> bool:
    """Tell whether an error comes from the storage and may be temporary."""
    if isinstance(error, InputError | FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return False
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return _says(error, _PASSING) and not _says(error, _LOST)


def _says(error: BaseException, words: re.Pattern[str]) -> bool:
    """Search for words in an error and in its causes."""
    seen: BaseException | None = error
    while seen is not None:
        said = f"{type(seen).__name__} {seen}".lower()
        if not isinstance(seen, InputError) and words.search(said):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _words(error: BaseException) -> str:
    """Describe an error in one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


class Damage:
    """The damage that was found so far, reported by any number of threads.

    Parameters
    ----------
    sources
        Of the stream.
    max_damaged
        Share of all chunks that may be damaged.
    tell
        Gets a sentence about each.

    Attributes
    ----------
    found
        One sentence a problem.
    """

    def __init__(
        self, sources: Sequence[Source], max_damaged: float, tell: Callable[[str], None] | None = None
    ) -> None:
        self.found: list[str] = []
        self._sources = sources
        self._max_damaged = max_damaged
        self._tell = tell
        self._lock = threading.Lock()
        self._chunks: set[tuple[int, int, int, int]] = set()
        self._total = sum(_n_chunks(source) for source in sources)

    @property
    def share(self) -> float:
        """Share of all chunks that is known to be damaged."""
        return len(self._chunks) / self._total

    def report(self, bad: BadData) -> None:
        """Record that a part of a tomogram cannot be used.

        Raises
        ------
        InputError
            With a list of all damage, if it is more than allowed.
        """
        source = self._sources[bad.source]
        start, stop = bad.box or ((0, 0, 0), source.shape)
        spans = [range(a // c, -(-b // c)) for a, b, c in zip(start, stop, source.chunk, strict=True)]
        chunks = {(bad.source, z, y, x) for z in spans[0] for y in spans[1] for x in spans[2]}
        with self._lock:
            if chunks <= self._chunks:
                return
            self._chunks |= chunks
            part = ", ".join(f"{axis} {a}:{b}" for axis, a, b in zip("zyx", start, stop, strict=True))
            problem = f"{source.name}{f', voxels {part}' if bad.box else ''}: {bad}"
            self.found.append(problem)
            share, found = self.share, list(self.found)
        if self._tell:
            self._tell(f"skipped: {problem}")
        if share > self._max_damaged:
            raise InputError(_too_much(share, self._max_damaged, found))


def _n_chunks(source: Source) -> int:
    z, y, x = (-(-n // c) for n, c in zip(source.shape, source.chunk, strict=True))
    return z * y * x


def _too_much(share: float, max_damaged: float, found: Sequence[str]) -> str:
    shown = "".join(f"\n  {problem}" for problem in found[:20])
    more = f"\n  and {len(found) - 20} more" if len(found) > 20 else ""
    return (
        f"{share:.1%} of the tomograms' volume cannot be used and {max_damaged:.1%} may be; "
        f"tlgen verify lists all that is wrong with a corpus:{shown}{more}"
    )
