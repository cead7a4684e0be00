"""Checks the unpacked size of Zarr chunks before unpacking them.

A compressed chunk of a few kB may claim to be gigabytes. Zarr would unpack it, and only then notice that it
is not a chunk of the array.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import zarr
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.registry import register_pipeline

from catalogs.errors import InputError
from catalogs.storage.unpacking import PACKERS, unpacks_within

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

#: Bytes by which a chunk may grow before it is compressed: filters, checksums.
_ROOM = 1 << 16


class BoundedPipeline(BatchedCodecPipeline):
    """Zarr's decoding of chunks, but refusing those that are larger than the array's chunks."""

    async def decode_batch(
        self, chunk_bytes_and_specs: Iterable[tuple[Buffer | None, ArraySpec]]
    ) -> Iterable[NDBuffer | None]:
        """Decode chunks (InputError if one would be too large).

        Each layer of compression is unpacked once: what is checked next is what was unpacked before.
        """
        pairs = list(chunk_bytes_and_specs)
        self._refuse_compressing_filters()
        packers = self._packers()
        outer = list(self.bytes_bytes_codecs)
        while any(_name(codec) in PACKERS for codec in packers):
            codec = packers.pop()
            if (name := _name(codec)) in PACKERS:
                for packed, spec in pairs:
                    if packed is not None:
                        refuse(name, packed, math.prod(spec.shape) * _itemsize(spec))
            if not any(_name(inner) in PACKERS for inner in packers):
                break
            # what is left is compressed, too: only what it unpacks from here tells how large that is
            outer.pop()
            unpacked = await codec.decode(pairs)
            pairs = [(packed, spec) for packed, (_, spec) in zip(unpacked, pairs, strict=True)]
        inner = replace(self, bytes_bytes_codecs=tuple(outer))
        return await BatchedCodecPipeline.decode_batch(inner, pairs)

    def _refuse_compressing_filters(self) -> None:
        """Refuse what Zarr 2 allows and nobody does: filters that compress, whose sizes nothing bounds."""
        filters = getattr(self.array_bytes_codec, "filters", None) or ()
        packer = next((name for each in filters if (name := _name(each)) in PACKERS), None)
        if packer is not None:
            raise InputError(
                f"an array has the compression {packer} among its filters; write it as compressor"
            )

    def _packers(self) -> list[Any]:
        """All codecs of bytes, in the order of writing."""
        inner = getattr(self.array_bytes_codec, "compressor", None)
        return [*([inner] if inner is not None else []), *self.bytes_bytes_codecs]


def bound() -> None:
    """Use this decoding for all arrays that are opened from now on, unless another one is configured."""
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
    if not unpacks_within(packer, packed, _most(chunk)):
        raise _too_large(chunk)


def refuse_blosc(head: bytes, chunk: int) -> None:
    """Refuse a chunk by the first 16 bytes that Blosc wrote of it (InputError); ``chunk`` is its size."""
    if int.from_bytes(head[4:8], "little") > _most(chunk):
        raise _too_large(chunk)


def _most(chunk: int) -> int:
    return chunk + chunk // 8 + _ROOM


def _too_large(chunk: int) -> InputError:
    return InputError(
        f"a chunk would unpack to more than the {chunk} bytes that it can have: it is damaged, or made "
        "to fill the memory; get the data again"
    )


def _name(codec: Any) -> str:
    """Return the name of a codec of version 2 or 3."""
    name = getattr(codec, "codec_id", None) or str(codec.to_dict().get("name", ""))
    return name.removeprefix("numcodecs.")


def _itemsize(spec: ArraySpec) -> int:
    return int(spec.dtype.to_native_dtype().itemsize)
