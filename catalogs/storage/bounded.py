"""Zarr chunks that unpack to what a chunk can be, and to no more: checked before they are unpacked.

A few kB of a compressed chunk may say that they are gigabytes. Zarr believes that, unpacks them and only
then sees that they are no chunk of the array.
"""

from __future__ import annotations

import bz2
import io
import lzma
import math
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import zarr
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.registry import register_pipeline

from catalogs.errors import InputError

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

#: Bytes by which a chunk may grow before it is compressed: filters, checksums.
_ROOM = 1 << 16
_STEP = 1 << 20
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class BoundedPipeline(BatchedCodecPipeline):
    """Zarr's own way to decode chunks, which refuses those that are larger than their array's chunks."""

    async def decode_batch(
        self, chunk_bytes_and_specs: Iterable[tuple[Buffer | None, ArraySpec]]
    ) -> Iterable[NDBuffer | None]:
        """Decode chunks; InputError if one would be larger than it can be."""
        pairs = list(chunk_bytes_and_specs)
        if any(_name(codec) in _SIZES for codec in self._packers()):
            for packed, spec in pairs:
                if packed is not None:
                    await self._refuse_too_large(packed, spec)
        return await super().decode_batch(pairs)

    async def _refuse_too_large(self, packed: Any, spec: ArraySpec) -> None:
        """Refuse a chunk that a codec would make too large; each codec unpacks what the next one reads."""
        codecs = self._packers()
        for k, codec in reversed(list(enumerate(codecs))):
            if (name := _name(codec)) in _SIZES:
                refuse(name, packed, math.prod(spec.shape) * _itemsize(spec))
            if not any(_name(inner) in _SIZES for inner in codecs[:k]):
                return
            [packed] = await codec.decode([(packed, spec)])

    def _packers(self) -> list[Any]:
        """All codecs of bytes, in the order of writing."""
        inner = getattr(self.array_bytes_codec, "compressor", None)
        return [*([inner] if inner is not None else []), *self.bytes_bytes_codecs]


def bound() -> None:
    """Let all arrays that are opened from now on be read so, unless somebody has set another way."""
    path = "codec_pipeline.path"
    if str(zarr.config.get(path)).endswith(".BatchedCodecPipeline"):
        register_pipeline(BoundedPipeline)
        zarr.config.set({path: f"{BoundedPipeline.__module__}.{BoundedPipeline.__qualname__}"})


def refuse(packer: str, packed: Any, chunk: int) -> None:
    """Refuse a compressed chunk that would be larger than its chunk (InputError).

    Parameters
    ----------
    packer
        How it is compressed: ``blosc``, ``zstd``, ``gzip``, ``zlib``, ``bz2``, ``lzma`` or ``lz4``.
    packed
        Zarr's buffer with it.
    chunk
        Bytes of the chunk.
    """
    most = chunk + chunk // 8 + _ROOM
    if not _SIZES[packer](packed, most):
        raise InputError(
            f"a chunk would unpack to more than the {chunk} bytes that it can have: it is damaged, or made "
            "to fill the memory; get the data anew"
        )


def _name(codec: Any) -> str:
    """Name of a codec of version 2 or 3."""
    name = getattr(codec, "codec_id", None) or str(codec.to_dict().get("name", ""))
    return name.removeprefix("numcodecs.")


def _itemsize(spec: ArraySpec) -> int:
    return int(spec.dtype.to_native_dtype().itemsize)


def _head(packed: Any, n: int) -> bytes:
    return bytes(packed[:n].to_bytes())


def _blosc(packed: Any, most: int) -> bool:
    return int.from_bytes(_head(packed, 16)[4:8], "little") <= most


def _lz4(packed: Any, most: int) -> bool:
    return int.from_bytes(_head(packed, 4), "little") <= most


def _zstd(packed: Any, most: int) -> bool:
    size = zstd_size(_head(packed, 18))
    if size is not None:
        return size <= most
    import pyarrow as pa  # a frame that does not say its size

    with pa.CompressedInputStream(pa.BufferReader(packed.to_bytes()), "zstd") as stream:
        return _ends(stream.read, most)


def zstd_size(head: bytes) -> int | None:
    """Read what a frame of Zstandard says of its size (RFC 8878, 3.1.1.1); None if it does not say it."""
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
