"""Files that are there whole or not at all: written beside their place, then moved there in one step."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False, ending: str = "") -> Iterator[Path]:
    """Give a path to write to; what was written takes the place of a file if nothing goes wrong.

    Until then a reader sees the file as it was, or none. The folder is made if there is none.

    Parameters
    ----------
    path
        Where the file goes.
    durable
        Whether it must be on the disk before it takes its place, so that it outlasts a loss of power.
    ending
        Of the name that is written to, for who looks at it.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    file = Path(path)
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


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview, *, durable: bool = False) -> None:
    """Write a file, whole or not at all."""
    with replacing(path, durable=durable) as unfinished:
        unfinished.write_bytes(data)
