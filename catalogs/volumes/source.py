"""Reads ranges of files on a disk or behind an fsspec URL, and raw voxels in them."""

from __future__ import annotations

import atexit
import bz2
import contextlib
import gzip
import os
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.private_folders import scratch_folder
from catalogs.storage.store import filesystem, in_parallel
from catalogs.volumes.lazy import Box, LazyArray

_BATCH = 64 * 2**20  # bytes of a file that are requested from a server at a time
_PIECE = 4 * 2**20  # bytes of whole rows that are read at a time where only a part of each is wanted


@dataclass(frozen=True)
class Source:
    """A file that is read in ranges.

    Attributes
    ----------
    url
        Path or fsspec URL.
    """

    url: str

    @property
    def local(self) -> Path | None:
        """Path of the file if it is on a disk."""
        return None if "://" in self.url else Path(self.url)

    def size(self) -> int:
        """Size in bytes (InputError if there is no such file)."""
        with explained(self.url):
            if self.local is not None:
                return self.local.stat().st_size
            fs, path = filesystem(self.url)
            return int(fs.info(path)["size"])

    def read(self, start: int, n: int) -> bytes:
        """Read ``n`` bytes from ``start`` on, fewer at the end (InputError if it cannot be read)."""
        with explained(self.url):
            if self.local is not None:
                with open(self.local, "rb") as raw:
                    raw.seek(start)
                    return raw.read(n)
            fs, path = filesystem(self.url)
            data: bytes = fs.cat_file(path, start=start, end=start + n)
            return data

    @contextlib.contextmanager
    def not_shorter_than(self, size: int) -> Iterator[None]:
        """Read a file on a disk within this context, which refuses one with fewer bytes than before.

        Some libraries put zeros where bytes are missing.

        Parameters
        ----------
        size
            Bytes when it was opened.

        Raises
        ------
        InputError
            If it has fewer before or after what was read, or when reading fails.
        """
        self._must_have(size)
        try:
            yield
        except Exception:
            self._must_have(size)
            raise
        self._must_have(size)

    def _must_have(self, size: int) -> None:
        if self.local is not None and self.size() < size:
            raise became_shorter(self.url)

    def open(self) -> IO[bytes]:
        """Open it for reading from the beginning, a few MB at a time."""
        with explained(self.url):
            if self.local is not None:
                return open(self.local, "rb")
            fs, path = filesystem(self.url)
            opened: IO[bytes] = fs.open(path, "rb")
            return opened


def became_shorter(url: object) -> InputError:
    """Return the error for a file that another program cuts off while it is read."""
    return InputError(
        f"{url} became shorter while it was read: another program writes to it or copies over it; wait until "
        "that has finished and give the same command again"
    )


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """Describe in one sentence why a volume cannot be read, for the errors of any storage."""
    try:
        yield
    except InputError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"there is no volume {url}") from error
    except Exception as error:
        if "://" in url or isinstance(error, OSError):
            raise InputError(f"{url} cannot be read ({error})") from error
        raise


class RawArray(LazyArray):
    """Contiguous voxels in a file, as in MRC.

    On a disk, only the requested rows are read, with no more memory than the result and a few MB. The file is
    not mapped, because a mapped file that becomes shorter ends the process. From a server, rows of a plane
    are read by one range each, 16 at a time.

    Parameters
    ----------
    source
        The file.
    offset
        Bytes before voxel 0.
    shape
        (z, y, x).
    dtype
        Type with byte order.
    """

    def __init__(
        self, source: Source | Unpacked, offset: int, shape: tuple[int, int, int], dtype: np.dtype[Any]
    ) -> None:
        self._source, self._offset = source, offset
        self.shape, self.dtype = shape, dtype

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box in the byte order of the file."""
        source = self._source.unpack() if isinstance(self._source, Unpacked) else self._source
        out = np.empty([part.stop - part.start for part in box], self.dtype)
        if out.size == 0:
            return out
        if source.local is not None:
            with explained(source.url), open(source.local, "rb", buffering=0) as file:
                self._read_rows(file.fileno(), source, box, out)
            return out
        z, y, x = box
        n_rows, row = y.stop - y.start, self.shape[2] * self.dtype.itemsize
        step = max(1, _BATCH // (n_rows * row))
        for first in range(z.start, z.stop, step):
            last = min(first + step, z.stop)
            self._fetch(source, slice(first, last), y, x, out[first - z.start : last - z.start])
        return out

    def _read_rows(self, file: int, source: Source, box: Box, out: NDArray[Any]) -> None:
        """Read a box from a file on a disk: straight into the result where whole rows are wanted."""
        (z, y, x), (_, ny, nx) = box, self.shape
        row = nx * self.dtype.itemsize
        whole = x.stop - x.start == nx
        if whole and y.stop - y.start == ny:
            _fill(file, out, self._offset + z.start * ny * row, source)
            return
        step = y.stop - y.start if whole else max(1, _PIECE // row)
        rows = np.empty((0 if whole else min(step, y.stop - y.start), nx), self.dtype)
        for k, plane in enumerate(out, z.start):
            for first in range(y.start, y.stop, step):
                target = plane[first - y.start : first - y.start + step]
                part = target if whole else rows[: len(target)]
                _fill(file, part, self._offset + (k * ny + first) * row, source)
                if not whole:
                    target[...] = part[:, x]

    def _fetch(self, source: Source, z: slice, y: slice, x: slice, out: NDArray[Any]) -> None:
        _, ny, nx = self.shape
        size = self.dtype.itemsize
        if y.stop - y.start == ny:  # contiguous planes
            ranges, planes = [(z.start * ny, (z.stop - z.start) * ny)], [slice(0, z.stop - z.start)]
        else:
            ranges = [(k * ny + y.start, y.stop - y.start) for k in range(z.start, z.stop)]
            planes = [slice(k, k + 1) for k in range(z.stop - z.start)]

        def fetch(rows: tuple[int, int]) -> NDArray[Any]:
            start, n = self._offset + rows[0] * nx * size, rows[1] * nx * size
            data = source.read(start, n)
            if len(data) != n:
                raise InputError(f"{source.url} is cut off; copy it again")
            return np.frombuffer(data, self.dtype).reshape(-1, y.stop - y.start, nx)

        for plane, rows in zip(planes, in_parallel(fetch, ranges), strict=True):
            out[plane] = rows[:, :, x]


def _fill(file: int, out: NDArray[Any], offset: int, source: Source) -> None:
    """Fill a contiguous array with the bytes of a file from an offset on (InputError if it has fewer)."""
    into: Any = memoryview(out.reshape(-1).view(np.uint8).data)
    while into:
        got = os.preadv(file, [into], offset)
        if not got:
            raise became_shorter(source.url)
        into, offset = into[got:], offset + got


# ------------------------------------------------------- gzip and bzip2

#: First bytes of compressed files.
PACKED = (b"\x1f\x8b\x08", b"BZh")

_unpacked: dict[str, Path] = {}
_folder: list[Path] = []
_lock = threading.Lock()


@dataclass(frozen=True)
class Unpacked:
    """A gzip or bzip2 file, which is unpacked once per process when voxels are first read.

    Content of more than ``most`` bytes is refused before more is written. Both formats can only be read from
    the beginning. The copy is in the folder for temporary files (``TMPDIR``) and is removed when the process
    ends; only a few MB are in memory.
    """

    source: Source
    most: int | None = None

    def _is_bzip2(self) -> bool:
        return self.source.read(0, 3) == b"BZh"

    def head(self, n: int) -> bytes:
        """Read the first bytes of the content."""
        with self._content() as content:
            return content.read(n)

    def promised_size(self) -> int:
        """Size of the content modulo 2**32 from the end of a gzip file, which is wrong for joined parts.

        It is -1 for bzip2, which does not store it.
        """
        if self._is_bzip2():
            return -1
        return int.from_bytes(self.source.read(self.source.size() - 4, 4), "little")

    def unpack(self) -> Source:
        """Return the content as a file on the disk."""
        with _lock:
            if self.source.url not in _unpacked:
                _unpacked[self.source.url] = self._write()
            return Source(str(_unpacked[self.source.url]))

    def _write(self) -> Path:
        if not _folder:
            kept = contextlib.ExitStack()
            _folder.append(kept.enter_context(scratch_folder("volumes-")))
            atexit.register(kept.close)
        file = _folder[0] / f"{len(_unpacked)}.raw"
        try:
            with self._content() as content, open(file, "wb") as out:
                while block := content.read(4 * 2**20):
                    if self.most is not None and out.tell() + len(block) > self.most:
                        raise InputError(
                            f"{self.source.url} unpacks to more than {self.most} bytes, and its header "
                            "states less: it is damaged, or made to fill the disk; copy it again"
                        )
                    out.write(block)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        return file

    @contextlib.contextmanager
    def _content(self) -> Iterator[IO[bytes]]:
        try:
            with self.source.open() as raw:
                opened: Any = bz2.BZ2File(raw) if self._is_bzip2() else gzip.GzipFile(fileobj=raw)
                with opened as content:
                    yield content
        except (EOFError, zlib.error, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # for example a full disk
                raise
            raise InputError(f"{self.source.url} is cut off or damaged ({error}); copy it again") from error
