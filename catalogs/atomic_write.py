"""Write files atomically: under a temporary name, which is then renamed in one step."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False, ending: str = "") -> Iterator[Path]:
    """Provide a temporary path; if there is no error, the file written there replaces the target.

    Until then, readers see the old file, or none. The folder is created if needed. A device or a pipe, such
    as ``/dev/null``, is not replaced: what was written goes into it.

    Parameters
    ----------
    path
        The target file.
    durable
        Whether to flush the file to disk before it replaces the target, so that it survives a power failure.
    ending
        Suffix of the temporary name, for libraries that depend on it.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    file = Path(path)
    if file.is_char_device() or file.is_fifo():
        with tempfile.TemporaryDirectory() as folder:
            unfinished = Path(folder) / f"{file.name}{ending}"
            yield unfinished
            with unfinished.open("rb") as written, file.open("wb") as stream:
                shutil.copyfileobj(written, stream)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}{ending}")
    try:
        yield unfinished
        if durable:
            handle = os.open(unfinished, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def reserve(file: int, size: int) -> None:
    """Make an open file ``size`` bytes long and take that space on its disk.

    A file that is written through a map needs this first: if its disk is full, the process is killed (SIGBUS)
    where it writes to the map, and here it gets an error.

    Parameters
    ----------
    file
        File descriptor, opened for writing.
    size
        Bytes.

    Raises
    ------
    OSError
        If the disk has less space.
    """
    os.ftruncate(file, size)
    if size and hasattr(os, "posix_fallocate"):  # which macOS lacks
        os.posix_fallocate(file, 0, size)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8 atomically."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview, *, durable: bool = False) -> None:
    """Write a file atomically."""
    with replacing(path, durable=durable) as unfinished:
        unfinished.write_bytes(data)
