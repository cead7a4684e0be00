"""Reads arrays of samples in the fastest available way.

All ways give the same values. Zarr reads from any store. TensorStore, if it is installed (the extra
``fast``), decodes outside of Python and requests neighbouring chunks at once, which makes random patches
several times as fast. It reads from disks, and from S3 with credentials that all AWS programs find
(environment, profile, role), but not with those given only to fsspec. For continuous streaming, as in
training, disks are read by :mod:`catalogs.storage.shards`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from catalogs.storage.chunk_heads import ChunkHeads, need_heads
from catalogs.storage.shards import local_shards

_CACHE = 8 << 20  # bytes, for the indexes of some thousand shards
#: Options of fsspec's S3 that TensorStore can do without.
_FOR_BOTH = {"endpoint_url", "client_kwargs", "max_concurrency", "config_kwargs", "default_block_size"}

_LOOK_EVERY = 0.5  # seconds between two checks whether a read is still wanted

_of_thread = threading.local()


class Abandoned(Exception):
    """The data that are being read are no longer wanted."""


@contextmanager
def unless(closed: threading.Event) -> Iterator[None]:
    """Let a thread's reads raise :class:`Abandoned` when an event is set, even if the storage hangs.

    TensorStore retries a bucket that does not answer for many minutes, during which Python cannot exit.
    """
    _of_thread.closed = closed
    try:
        yield
    finally:
        del _of_thread.closed


def _result(future: Any) -> Any:
    closed = getattr(_of_thread, "closed", None)
    if closed is None:
        return future.result()
    while True:
        try:
            return future.result(timeout=_LOOK_EVERY)
        except TimeoutError:
            if future.done():  # it is the storage's own
                raise
            if closed.is_set():
                future.cancel()
                raise Abandoned from None


class StoredArray:
    """An array on a disk or in a bucket; slices are read when they are requested.

    Attributes
    ----------
    shape, dtype, chunks, shards
        As in Zarr.
    """

    def __init__(self, array: zarr.Array[Any], url: str) -> None:
        self.shape: tuple[int, ...] = array.shape
        self.dtype = np.dtype(array.dtype)
        self.chunks: tuple[int, ...] = array.chunks
        self.shards: tuple[int, ...] | None = array.shards
        self._array = array
        self._fast, self._heads = _open_fast(array, url)
        self._local = local_shards(array, url)

    def __getitem__(self, where: Any) -> NDArray[Any]:
        """Read a part; ``where`` is an index as in NumPy."""
        box = _box(where, self.shape) if self._fast is not None else None
        if box is None:
            return np.asarray(self._array[where])
        if self._heads is not None:
            self._heads.check(box, _result)
        return np.asarray(_result(self._fast[box].read()))

    def pieces(
        self, start: Sequence[int], stop: Sequence[int]
    ) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
        """Read a box piece by piece in this thread, for continuous streaming.

        Parameters
        ----------
        start, stop
            Corners of the box in voxels.

        Yields
        ------
        origin, voxels
            First voxel of a piece, and the piece, which may reach beyond the box and the array. The next one
            may overwrite it.
        """
        if self._local is not None:
            yield from self._local.chunks(start, stop)
        else:
            yield tuple(start), self[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the whole array."""
        return self[...] if dtype is None else self[...].astype(dtype)


def _box(where: Any, shape: tuple[int, ...]) -> tuple[int | slice, ...] | None:
    """Make a box explicit, since TensorStore neither counts from the end nor clips; None if not a box."""
    words = list(where) if isinstance(where, tuple) else [where]
    if not all(isinstance(word, int | np.integer | slice) or word is Ellipsis for word in words):
        return None
    if Ellipsis not in words:
        words.append(Ellipsis)
    at = words.index(Ellipsis)
    words[at : at + 1] = [slice(None)] * (len(shape) - len(words) + 1)
    if len(words) != len(shape):
        return None
    box: list[int | slice] = []
    for word, size in zip(words, shape, strict=True):
        if isinstance(word, slice):
            start, stop, step = word.indices(size)
            if step != 1:
                return None
            box.append(slice(start, max(start, stop)))
        elif -size <= word < size:
            box.append(int(word) % size)
        else:
            return None
    return tuple(box)


def _open_fast(array: zarr.Array[Any], url: str) -> tuple[Any, ChunkHeads | None]:
    """Open an array with TensorStore, without a request; None if it cannot read from there.

    Beside it is what looks at its chunks before they are read, where that is needed.
    """
    described: dict[str, Any] = array.metadata.to_dict()
    place = _place(url)
    heads = None if place is None or described.get("zarr_format") != 3 else need_heads(described)
    if place is None or heads is None:
        return None, None
    import tensorstore

    wanted = ("zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding",
              "fill_value", "codecs", "dimension_names")  # fmt: skip
    spec = {
        "driver": "zarr3",
        "kvstore": place,
        "metadata": {name: described[name] for name in wanted if name in described},
        "open": True,
        "assume_metadata": True,
        "recheck_cached_data": False,  # a sample never changes
        "fill_missing_data_reads": False,  # a lost chunk is an error, not zeros
    }
    context = _context()
    looked_at = ChunkHeads(place, described, np.dtype(array.dtype).itemsize, context) if heads else None
    return tensorstore.open(spec, context=context, read=True).result(), looked_at


def _place(url: str) -> dict[str, Any] | None:
    """Describe the location of an array for TensorStore; None if it cannot read from there."""
    try:
        import tensorstore  # noqa: F401
    except ImportError:
        return None
    kind, _, path = url.partition("://")
    if not path:
        return {"driver": "file", "path": f"{url}/"}
    if kind != "s3":
        return None
    from fsspec.config import conf

    theirs = conf.get("s3", {})
    client = theirs.get("client_kwargs", {})
    if theirs.keys() - _FOR_BOTH or client.keys() - {"endpoint_url", "region_name"}:
        return None
    endpoint = theirs.get("endpoint_url") or client.get("endpoint_url") or os.environ.get("AWS_ENDPOINT_URL")
    region = client.get("region_name") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    bucket, _, key = path.partition("/")
    place: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": f"{key}/"}
    if endpoint:
        place |= {"endpoint": endpoint, "aws_region": region or "us-east-1"}
    elif region:
        place["aws_region"] = region
    if "AWS_ACCESS_KEY_ID" in os.environ:
        place["aws_credentials"] = {"type": "environment"}
    return place


@lru_cache(1)
def _context() -> Any:
    """Share one cache among all arrays of the process."""
    import tensorstore

    return tensorstore.Context({"cache_pool": {"total_bytes_limit": _CACHE}})
