"""Reads the headers of Blosc chunks before TensorStore unpacks the chunks.

TensorStore unpacks Zstandard and gzip piece by piece and stops when a chunk is full. But it unpacks Blosc
chunks at once, with the size in their headers. So the headers of the chunks of a box are read first, each
once.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

from catalogs.storage.bounded import refuse_blosc

_HEAD = 16  # bytes of Blosc's header
_CRC, _SHARDS, _BLOSC = "crc32c", "sharding_indexed", "blosc"
_KEYS = {"name": "default", "configuration": {"separator": "/"}}


class ChunkHeads:
    """Refuses boxes of an array with chunks that would unpack to too many bytes.

    Parameters
    ----------
    place
        Location of the array, for TensorStore.
    described
        Metadata of the array.
    itemsize
        Bytes of an element.
    context
        TensorStore's context, with its cache.
    """

    def __init__(self, place: dict[str, Any], described: dict[str, Any], itemsize: int, context: Any) -> None:
        codecs = described["codecs"]
        self._outer: tuple[int, ...] = tuple(described["chunk_grid"]["configuration"]["chunk_shape"])
        self._index = codecs[0]["configuration"] if codecs[0]["name"] == _SHARDS else None
        self._chunk = self._outer if self._index is None else tuple(self._index["chunk_shape"])
        self._bytes = math.prod(self._chunk) * itemsize
        self._place, self._context = place, context
        self._sound: set[tuple[int, ...]] = set()

    def check(self, box: Sequence[int | slice], wait: Callable[[Any], Any]) -> None:
        """Check the chunks of a box (InputError if one is too large); ``wait`` returns a future's result."""
        along = [
            range(part.start // edge, -(-part.stop // edge))
            if isinstance(part, slice)
            else range(part // edge, part // edge + 1)
            for part, edge in zip(box, self._chunk, strict=True)
        ]
        unseen = [chunk for chunk in itertools.product(*along) if chunk not in self._sound]
        if not unseen:
            return
        stores: dict[tuple[int, ...], Any] = {}
        asked = [(chunk, self._ask(chunk, stores)) for chunk in unseen]
        for chunk, answer in asked:
            found = wait(answer)
            if found.state == "value":  # the reader reports lost chunks
                refuse_blosc(bytes(found.value), self._bytes)
            self._sound.add(chunk)

    def _ask(self, chunk: tuple[int, ...], stores: dict[tuple[int, ...], Any]) -> Any:
        import tensorstore

        head = slice(0, _HEAD)
        if self._index is None:
            if not stores:
                stores[()] = tensorstore.KvStore.open(self._place, context=self._context).result()
            return stores[()].read("/".join(["c", *map(str, chunk)]), byte_range=head)
        per_shard = [outer // edge for outer, edge in zip(self._outer, self._chunk, strict=True)]
        shard = tuple(k // n for k, n in zip(chunk, per_shard, strict=True))
        if shard not in stores:
            key = "/".join(["c", *map(str, shard)])
            spec = {
                "driver": "zarr3_sharding_indexed",
                "base": self._place | {"path": self._place["path"] + key},
                "grid_shape": per_shard,
                "index_codecs": self._index["index_codecs"],
                "index_location": self._index.get("index_location", "end"),
            }
            stores[shard] = tensorstore.KvStore.open(spec, context=self._context).result()
        inside = [k % n for k, n in zip(chunk, per_shard, strict=True)]
        return stores[shard].read(struct.pack(f">{len(inside)}I", *inside), byte_range=head)


def need_heads(described: dict[str, Any]) -> bool | None:
    """Return whether the chunks of an array must be checked; None if their headers are not conclusive.

    Headers have the size if Blosc is the only compression and the last step except for a checksum.
    """
    codecs = described["codecs"]
    inner = codecs[0]["configuration"]["codecs"] if codecs[0]["name"] == _SHARDS else codecs
    names = [codec["name"] for codec in inner]
    if _SHARDS in names:  # shards in shards
        return None
    if _BLOSC not in names:
        return False
    packers = [name for name in names[names.index("bytes") + 1 :] if name != _CRC] if "bytes" in names else []
    return True if packers == [_BLOSC] and described.get("chunk_key_encoding") == _KEYS else None
