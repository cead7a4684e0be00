"""Reads the chunks of sharded arrays on a local disk one by one into reused memory.

Zarr libraries assemble chunks into new arrays. The system must find and clear every page of them, and each
voxel is copied several times through memory outside of the caches. For continuous streaming, as in training,
this takes as long as the decompression. Here a chunk is read, checked, decompressed by the same codecs as in
Zarr (``numcodecs``), and used while it is in the processor's cache.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import blosc, zstd
from numpy.typing import NDArray

_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_BYTES = ({"name": "bytes"}, _LITTLE)  # bytes have no order
_CRC = {"name": "crc32c"}
_KEYS = {"name": "default", "configuration": {"separator": "/"}}

_CRC_BYTES, _ENTRY_BYTES = 4, 16
_ABSENT = 2**64 - 1


@dataclass(frozen=True, eq=False)
class LocalShards:
    """The shards of an array; see :func:`local_shards`.

    Attributes
    ----------
    folder
        Folder of the array.
    shape, chunk, shard
        Voxels along each axis.
    dtype
        Type of the voxels.
    decode
        Decompresses a chunk.
    checked
        Whether chunks have checksums.
    """

    folder: Path
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    dtype: np.dtype[Any]
    decode: Callable[[Any, Any], Any]
    checked: bool
    _indexes: dict[tuple[int, ...], NDArray[np.uint64]] = field(default_factory=dict)

    def chunks(
        self, start: Sequence[int], stop: Sequence[int]
    ) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
        """Read the chunks that a box touches.

        Parameters
        ----------
        start, stop
            Corners of the box in voxels.

        Yields
        ------
        origin, voxels
            First voxel of a chunk, and all of the chunk, beyond the end of the array too. The next one
            overwrites it.

        Raises
        ------
        OSError
            If a shard is lost or cannot be read.
        ValueError
            If a chunk is lost or has changed.
        """
        for shard in _cells(start, stop, self.shard):
            first = tuple(k * edge for k, edge in zip(shard, self.shard, strict=True))
            low = tuple(map(max, first, start))
            high = tuple(min(f + edge, s) for f, edge, s in zip(first, self.shard, stop, strict=True))
            with open(self.folder.joinpath("c", *map(str, shard)), "rb", buffering=0) as opened:
                file = opened.fileno()
                index = self._index(shard, file)
                for chunk in _cells(low, high, self.chunk):
                    origin = tuple(k * edge for k, edge in zip(chunk, self.chunk, strict=True))
                    place = tuple((o - f) // c for o, f, c in zip(origin, first, self.chunk, strict=True))
                    yield origin, self._decoded(file, *map(int, index[place]))

    def _decoded(self, file: int, offset: int, size: int) -> NDArray[Any]:
        if offset == _ABSENT:
            raise ValueError("a chunk is lost")
        raw = _read(file, offset, size)
        if self.checked:
            raw = _without_crc(raw, "a chunk")
        voxels = _buffer("voxels", math.prod(self.chunk) * self.dtype.itemsize)
        self.decode(raw, voxels)
        return voxels.view(self.dtype).reshape(self.chunk)

    def _index(self, shard: tuple[int, ...], file: int) -> NDArray[np.uint64]:
        """Return where each chunk of a shard begins and how many bytes it has: (..., 2)."""
        found = self._indexes.get(shard)
        if found is None:
            counts = [edge // c for edge, c in zip(self.shard, self.chunk, strict=True)]
            size = math.prod(counts) * _ENTRY_BYTES + _CRC_BYTES
            raw = _read(file, os.fstat(file).st_size - size, size)
            found = _without_crc(raw, "the index of a shard").copy().view("<u8").reshape(*counts, 2)
            self._indexes[shard] = found
        return found


def local_shards(array: zarr.Array[Any], folder: str) -> LocalShards | None:
    """Prepare to read a sharded array from a local folder.

    Parameters
    ----------
    array
        The array, opened.
    folder
        Its folder.

    Returns
    -------
    LocalShards or None
        None if its layout or compression differs from that of the volumes of a corpus.
    """
    described: Any = array.metadata.to_dict()
    codecs = described.get("codecs", ())
    if "://" in folder or len(codecs) != 1 or codecs[0]["name"] != "sharding_indexed":
        return None
    sharding = codecs[0]["configuration"]
    inner = list(sharding["codecs"])
    checked = inner[-1] == _CRC
    names = [codec["name"] for codec in inner[1 : len(inner) - checked]]
    if (
        described["chunk_key_encoding"] != _KEYS
        or sharding["index_location"] != "end"
        or list(sharding["index_codecs"]) != [_LITTLE, _CRC]
        or inner[0] not in _BYTES
        or len(names) != 1
        or names[0] not in _DECODERS
    ):
        return None
    return LocalShards(
        folder=Path(folder),
        shape=array.shape,
        chunk=tuple(sharding["chunk_shape"]),
        shard=tuple(described["chunk_grid"]["configuration"]["chunk_shape"]),
        dtype=np.dtype(array.dtype),
        decode=_DECODERS[names[0]],
        checked=checked,
    )


def _decode_blosc(raw: NDArray[np.uint8], voxels: NDArray[np.uint8]) -> None:
    from catalogs.storage.bitshuffle import (  # compiles code, so it is imported only if needed
        forget_shuffle,
        is_shuffled,
        put_in_order,
    )

    if len(raw) < 16 or int.from_bytes(raw[12:16].tobytes(), "little") > len(
        raw
    ):  # which Blosc would read beyond
        raise ValueError("a chunk is cut off")
    if not is_shuffled(raw):
        blosc.decompress(raw, voxels)
        return
    block, shuffled = forget_shuffle(raw), _buffer("shuffled", voxels.size)
    blosc.decompress(raw, shuffled)
    put_in_order(shuffled, block, voxels)


_DECODERS: dict[str, Callable[[Any, Any], Any]] = {"blosc": _decode_blosc, "zstd": zstd.decompress}


def _cells(start: Sequence[int], stop: Sequence[int], edges: Sequence[int]) -> Any:
    """List the cells of a grid that a box touches."""
    return itertools.product(
        *(range(a // edge, -(-b // edge)) for a, b, edge in zip(start, stop, edges, strict=True))
    )


def _read(file: int, offset: int, size: int) -> NDArray[np.uint8]:
    """Read bytes; the result is valid until this thread's next read."""
    if size > os.fstat(file).st_size:  # before memory is allocated
        raise ValueError("a shard is cut off")
    raw = _buffer("raw", size)
    done = 0
    while offset >= 0 and done < size:
        got = os.preadv(file, [raw[done:].data], offset + done)
        if not got:
            break
        done += got
    if done < size:
        raise ValueError("a shard is cut off")
    return raw


def _without_crc(raw: NDArray[np.uint8], what: str) -> NDArray[np.uint8]:
    content = raw[:-_CRC_BYTES]
    if google_crc32c.value(content) != int.from_bytes(raw[-_CRC_BYTES:].tobytes(), "little"):
        raise ValueError(f"the checksum of {what} is wrong")
    return content


_mine = threading.local()


def _buffer(name: str, size: int) -> NDArray[np.uint8]:
    """Return a buffer of this thread, the same each time."""
    buffer: NDArray[np.uint8] | None = getattr(_mine, name, None)
    if buffer is None or buffer.size < size:
        buffer = np.empty(size, np.uint8)
        setattr(_mine, name, buffer)
    return buffer[:size]
