"""Reads data sets of foreign HDF5 files: only data inside the file, and chunks of bounded size.

HDF5's deflate unpacks chunks to any size, and its data sets may be stored in any file of the machine.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError

_SHUFFLE, _CHECKSUM = 2, 3  # H5Z_FILTER_SHUFFLE, H5Z_FILTER_FLETCHER32
_DEFLATE = 1
_CHECKSUM_BYTES = 4


def lies_elsewhere(file: Any, name: str) -> bool:
    """Return whether the voxels of a data set are in other files, through any link on its path."""
    import h5py

    parts = name.strip("/").split("/")
    for k in range(len(parts)):
        link = file.get("/".join(parts[: k + 1]), getlink=True)
        if isinstance(link, h5py.ExternalLink):
            return True
    data = file[name]
    return bool(data.external or data.is_virtual)


def n_filters(data: Any) -> int:
    """Count the filters (compression, checksums) of a data set."""
    return int(data.id.get_create_plist().get_nfilters())


def read_box(data: Any, box: Sequence[slice], where: object) -> NDArray[Any]:
    """Read a box of a data set.

    Chunks compressed with deflate, with or without shuffling and checksums, are unpacked here within the size
    of a chunk; other data sets are read by HDF5.

    Parameters
    ----------
    data
        The data set.
    box
        For each axis a start and a stop without a step.
    where
        Name for messages.

    Raises
    ------
    InputError
        If a chunk would unpack to too many bytes, or is damaged.
    """
    plist = data.id.get_create_plist()
    filters = [int(plist.get_filter(k)[0]) for k in range(plist.get_nfilters())]
    if _DEFLATE not in filters or data.chunks is None:
        return np.asarray(data[tuple(box)])
    if set(filters) - {_DEFLATE, _SHUFFLE, _CHECKSUM}:
        raise InputError(
            f"{where} is compressed by deflate and other filters together ({filters}); write it with one"
        )
    out = np.full([part.stop - part.start for part in box], data.fillvalue, data.dtype)
    grid = [
        range(part.start // n, -(-part.stop // n) if part.stop > part.start else part.start // n)
        for part, n in zip(box, data.chunks, strict=True)
    ]
    for cell in itertools.product(*grid):
        corner = tuple(k * n for k, n in zip(cell, data.chunks, strict=True))
        chunk = _chunk(data, corner, filters, where)
        if chunk is None:
            continue
        there, here = [], []
        for part, low, n in zip(box, corner, data.chunks, strict=True):
            first, last = max(part.start, low), min(part.stop, low + n)
            there.append(slice(first - part.start, last - part.start))
            here.append(slice(first - low, last - low))
        out[tuple(there)] = chunk[tuple(here)]
    return out


def _chunk(data: Any, corner: tuple[int, ...], filters: Sequence[int], where: object) -> NDArray[Any] | None:
    """Unpack the chunk at a corner; None if it was never written."""
    size = math.prod(data.chunks) * data.dtype.itemsize
    info = data.id.get_chunk_info_by_coord(corner)
    if info.byte_offset is None:
        return None
    most = size + size // 8 + (1 << 16)
    if info.size > most:
        raise InputError(f"{where} has a chunk of {info.size} bytes where {size} are its size; it is damaged")
    skipped, content = data.id.read_direct_chunk(corner)
    for k, kind in reversed(list(enumerate(filters))):
        if skipped >> k & 1:
            continue
        if kind == _CHECKSUM:
            content = content[:-_CHECKSUM_BYTES]  # deflate includes a checksum
        elif kind == _SHUFFLE:
            content = _unshuffled(content, data.dtype.itemsize)
        else:
            content = _inflated(content, size, most, where)
    if len(content) != size:
        raise InputError(f"a chunk of {where} has {len(content)} bytes and must have {size}; copy it again")
    return np.frombuffer(content, data.dtype).reshape(data.chunks)


def _inflated(content: bytes, size: int, most: int, where: object) -> bytes:
    unpack = zlib.decompressobj()
    try:
        found = unpack.decompress(content, most + 1)
    except zlib.error as error:
        raise InputError(f"a chunk of {where} is damaged ({error}); copy it again") from error
    if len(found) > most:
        raise InputError(
            f"a chunk of {where} would unpack to more than the {size} bytes that it can have: it is damaged, "
            "or made to fill the memory; get the data again"
        )
    return found


def _unshuffled(content: bytes, itemsize: int) -> bytes:
    """Undo HDF5's shuffle: the first bytes of all elements, all second ones, ...; a rest stays at the end."""
    whole = len(content) // itemsize * itemsize
    shuffled = np.frombuffer(content, np.uint8, whole).reshape(itemsize, -1)
    return shuffled.T.tobytes() + content[whole:]
