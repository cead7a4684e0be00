"""Temporary arrays for one tomogram: in memory if they fit, else in unnamed files."""

from __future__ import annotations

import math
import mmap
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from catalogs.atomic_write import reserve

#: Planes that are copied before the memory of their pages is released.
_COPIED = 32


class Scratch:
    """Makes arrays; a context manager.

    Arrays that do not fit into memory are stored in unnamed files, which disappear however the program ends.

    Parameters
    ----------
    folder
        Existing folder for the files.
    memory
        Bytes for all arrays that are kept in memory.
    """

    def __init__(self, folder: Path, memory: float) -> None:
        self._folder, self._left = folder, memory
        self._files: list[IO[bytes]] = []
        self._maps: list[mmap.mmap] = []

    def __enter__(self) -> Scratch:
        return self

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Make an array of zeros (OSError if it needs a file and the disk is full)."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size <= self._left:
            self._left -= size
            return np.zeros(shape, dtype)
        file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        self._files.append(file)
        reserve(file.fileno(), size)
        self._maps.append(mmap.mmap(file.fileno(), size))
        return np.frombuffer(self._maps[-1], dtype).reshape(shape)

    def copied(self, array: NDArray[Any], source: Scratch) -> NDArray[Any]:
        """Copy an array of another scratch, and release the memory of copied planes that lie in files."""
        copy = self.array(array.shape, array.dtype)
        for k in range(0, len(array), _COPIED):
            copy[k : k + _COPIED] = array[k : k + _COPIED]
            self.release()
            source.release()
        return copy

    def will_hold(self, sizes: list[int]) -> int:
        """Return the bytes that arrays of these sizes, made in this order, will take in memory."""
        held = 0
        for size in sizes:
            held += size if size <= self._left - held else 0
        return held

    def release(self) -> None:
        """Release the memory used for reading and writing the files; their contents stay."""
        for pages in self._maps:
            pages.madvise(mmap.MADV_DONTNEED)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._maps.clear()  # an array in use keeps its map alive
        for file in self._files:
            file.close()
