"""Checks the unpacked size of compressed bytes before unpacking them.

Bytes are Zarr's buffers or :class:`Packed`, so that checking the first ones needs no copy.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from catalogs.errors import InputError

_STEP = 1 << 20
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_RATIO = 100  # texts and coordinates compress to a fifth, zeros to a thousandth
_LEAST = 64 << 20  # bytes to which even a very small file may unpack


def read_gunzipped(path: Path) -> bytes:
    """Read a file that may be gzipped.

    Raises
    ------
    InputError
        If it unpacks to more than texts and coordinates can, or is cut off.
    """
    content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content
    return gunzip(content, max(_LEAST, _RATIO * len(content)), path)


def gunzip(content: bytes, most: int, where: object) -> bytes:
    """Unpack gzip, one part or several.

    Parameters
    ----------
    content
        The packed bytes.
    most
        Largest unpacked size in bytes.
    where
        Name for messages.

    Raises
    ------
    InputError
        If it unpacks to more, or is cut off or damaged.
    """
    parts, left = list[bytes](), most
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            while part := stream.read(_STEP):
                left -= len(part)
                if left < 0:
                    raise InputError(
                        f"{where} unpacks to more than the {most} bytes that it can have: it is damaged, or "
                        "made to fill the memory; get it again"
                    )
                parts.append(part)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{where} is cut off or damaged ({error}); copy it again") from error
    return b"".join(parts)


def unpacks_within(packer: str, packed: Any, most: int) -> bool:
    """Return whether bytes unpack to at most a given size, without storing the result.

    Parameters
    ----------
    packer
        One of :data:`PACKERS`.
    packed
        Zarr's buffer with the bytes, or the bytes as :class:`Packed`.
    most
        Bytes.
    """
    return _SIZES[packer](packed, most)


class Packed:
    """Bytes with the interface of Zarr's buffers."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __getitem__(self, part: slice) -> Packed:
        return Packed(self._content[part])

    def __len__(self) -> int:
        return len(self._content)

    def to_bytes(self) -> bytes:
        """All bytes."""
        return self._content


def _head(packed: Any, n: int) -> bytes:
    return bytes(packed[:n].to_bytes())


def _blosc(packed: Any, most: int) -> bool:
    head = _head(packed, 16)
    if len(head) < 16 or int.from_bytes(head[12:16], "little") > len(packed):  # which Blosc would read beyond
        raise InputError("a chunk is cut off; copy the data again")
    return int.from_bytes(head[4:8], "little") <= most


def _lz4(packed: Any, most: int) -> bool:
    return int.from_bytes(_head(packed, 4), "little") <= most


def _zstd(packed: Any, most: int) -> bool:
    size = zstd_size(_head(packed, 18))
    if size is not None:
        return size <= most
    import pyarrow as pa  # a frame without its size

    with pa.CompressedInputStream(pa.BufferReader(packed.to_bytes()), "zstd") as stream:
        return _ends(stream.read, most)


def zstd_size(head: bytes) -> int | None:
    """Read the size stated in a Zstandard frame (RFC 8878, 3.1.1.1); None if it is not stated."""
    if head[:4] != _ZSTD_MAGIC or len(head) < 6:
        return None
    flag, single = head[4] >> 6, bool(head[4] & 0x20)
    n = (1 if single else 0, 2, 4, 8)[flag]
    if not n:
        return None
    start = 5 + (not single) + (0, 1, 2, 4)[head[4] & 3]
    return int.from_bytes(head[start : start + n], "little") + (256 if n == 2 else 0)


def _unzipped(packed: Any, most: int) -> bool:
    return _inflates(zlib.decompressobj(47), packed.to_bytes(), most)


def _inflates(unpack: Any, data: bytes, most: int) -> bool:
    total = 0
    while data and not unpack.eof:
        total += len(unpack.decompress(data, _STEP))
        if total > most:
            return False
        data = unpack.unconsumed_tail
    return True


def _bz2(packed: Any, most: int) -> bool:
    with bz2.BZ2File(io.BytesIO(packed.to_bytes())) as stream:
        return _ends(stream.read, most)


def _lzma(packed: Any, most: int) -> bool:
    with lzma.LZMAFile(io.BytesIO(packed.to_bytes())) as stream:
        return _ends(stream.read, most)


def _ends(read: Callable[[int], bytes], most: int) -> bool:
    total = 0
    while part := read(_STEP):
        total += len(part)
        if total > most:
            return False
    return True


_SIZES: dict[str, Callable[[Any, int], bool]] = {
    "blosc": _blosc,
    "lz4": _lz4,
    "zstd": _zstd,
    "gzip": _unzipped,
    "zlib": _unzipped,
    "bz2": _bz2,
    "lzma": _lzma,
}
#: Supported compressions, named as in Zarr and numcodecs.
PACKERS = frozenset(_SIZES)
