"""Writes OME-Zarr 0.5 images shard by shard, completely or not at all, optionally with coarser levels."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from catalogs.errors import InputError
from catalogs.storage.store import open_store, zarr_store
from catalogs.volumes.lazy import Box
from catalogs.volumes.slabs import Voxels, voxels
from catalogs.volumes.source import RawArray, Source
from catalogs.volumes.volume import Binning, Contrast

if TYPE_CHECKING:
    import zarr

_SHARD = 256  # largest edge of a shard in voxels; a few of them are in memory
_STREAMED = 256 * 2**20  # bytes of a stream that may be buffered; larger ones go to a file first


def write_ome_zarr(
    path: str | os.PathLike[str],
    data: Any,
    voxel_size: float | None,
    *,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    levels: int = 1,
    labels: bool = False,
    contrast: Contrast | None = None,
    binning: Binning | None = None,
    shape: tuple[int, int, int] | None = None,
    dtype: DTypeLike | None = None,
    overwrite: bool = False,
) -> None:
    """Write an OME-Zarr 0.5 image completely or not at all, with a bounded part of the volume in memory.

    On a disk it appears by one rename. In an object store, which has no rename, the image's metadata are
    written last, so that readers do not find it before.

    Parameters
    ----------
    path
        Path or fsspec URL of the image's folder.
    data
        (z, y, x): a volume, an array that takes slices (NumPy, Zarr, Dask, ...), or an iterable of slabs
        (planes, y, x) or planes (y, x).
    voxel_size
        Å; None if unknown, which is written as 1 without a unit.
    origin
        Position of the centre of voxel 0, (x, y, z) in Å.
    levels
        Number of resolutions; each level has voxels twice as large as the one before.
    labels
        Whether the voxels are labels; coarser levels then take every second voxel instead of the mean.
    contrast, binning
        Known facts, as in :class:`~catalogs.volumes.volume.Volume`.
    shape, dtype
        Needed for an iterable; ``dtype`` converts an array.
    overwrite
        Replace an existing image: on a disk when the new one is complete, in an object store before writing.

    Raises
    ------
    InputError
        If something exists and ``overwrite`` is not set, or the path cannot be written.
    ValueError
        If the data do not fit the shape.
    """
    import zarr

    from catalogs.corpus import ome
    from catalogs.volumes.zarrs import OURS

    given = voxels(data, shape, dtype)
    if levels < 1:
        raise ValueError("an image has at least one level")
    text = os.fspath(path).removeprefix("file://").rstrip("/")
    name = text.rsplit("/", 1)[-1].removesuffix(".zarr").removesuffix(".ome")
    attributes: dict[str, Any] = {
        "ome": ome.describe(name, voxel_size, origin=origin, levels=levels, averaged=not labels)
    }
    facts: dict[str, Any] = {"contrast": contrast} if contrast else {}
    if binning:
        facts["binning"] = {"factor": binning.factor, "kind": binning.kind}
    if facts:
        attributes[OURS] = facts
    with _finished(text, overwrite) as place:
        _write_finest(place, given, text)
        for level in range(1, levels):
            _write_coarser(place, level, labels)
        zarr.create_group(zarr_store(place, read_only=False), zarr_format=3, attributes=attributes)


def _write_finest(place: str, given: Voxels, text: str) -> None:
    with contextlib.ExitStack() as stack:
        array = _create(place, 0, given.shape, given.dtype)
        source = given.array
        if given.stream is not None:
            assert array.shards is not None
            plane = given.shape[1] * given.shape[2] * given.dtype.itemsize
            if min(array.shards[0], given.shape[0]) * plane <= _STREAMED:
                _write_stream(array, given)
                return
            source = stack.enter_context(_spooled(given, None if "://" in text else Path(text).parent))
        for box in _shards(array):
            array[box] = np.asarray(source[box], given.dtype)


def _write_stream(array: zarr.Array[Any], given: Voxels) -> None:
    """Write planes in order, one layer of shards at a time."""
    assert array.shards is not None
    depth, held, first = array.shards[0], [], 0
    for _, slab in given.blocks():
        held.append(slab)
        n = sum(map(len, held))
        while n >= depth or (n and first + n == given.shape[0]):
            together = np.concatenate(held)
            layer, rest = together[:depth], together[depth:]
            for _, y, x in _shards(array, layer=True):
                array[first : first + len(layer), y, x] = layer[:, y, x]
            first += len(layer)
            held, n = [rest], len(rest)


def _write_coarser(place: str, level: int, labels: bool) -> None:
    import zarr

    fine: Any = zarr.open_array(zarr_store(f"{place}/{level - 1}", read_only=False), mode="r", zarr_format=3)
    z, y, x = (-(-n // 2) for n in fine.shape)
    array = _create(place, level, (z, y, x), fine.dtype)
    for box in _shards(array):
        below = fine[tuple(slice(2 * part.start, 2 * part.stop) for part in box)]
        array[box] = below[::2, ::2, ::2] if labels else _halve(below)


def _halve(block: NDArray[Any]) -> NDArray[Any]:
    """Average boxes of 2 x 2 x 2 voxels; at an odd end, the last voxels are repeated."""
    odd = [(0, n % 2) for n in block.shape]
    padded = np.pad(block, odd, mode="edge") if any(n for _, n in odd) else block
    z, y, x = (n // 2 for n in padded.shape)
    kind = np.float64 if block.dtype.kind in "iub" or block.dtype == np.float64 else np.float32
    mean = padded.reshape(z, 2, y, 2, x, 2).mean(axis=(1, 3, 5), dtype=kind)
    whole = np.rint(mean) if block.dtype.kind in "iub" else mean
    return np.asarray(whole, block.dtype)


def _create(place: str, level: int, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> zarr.Array[Any]:
    """Create the array of a level in its own store, so that Zarr does not write the image's metadata yet."""
    from zarr.codecs import BloscCodec, ZstdCodec

    from catalogs.corpus import ome

    floats = dtype.kind == "f"
    codec = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle") if floats else ZstdCodec(level=3)
    return ome.create_volume(
        zarr_store(f"{place}/{level}", read_only=False), None, shape, dtype.newbyteorder("="), codec, _SHARD
    )


def _shards(array: zarr.Array[Any], *, layer: bool = False) -> Iterator[Box]:
    """Boxes of whole shards, x fastest; of the first layer only if asked for."""
    assert array.shards is not None
    steps = [range(0, n, edge) for n, edge in zip(array.shape, array.shards, strict=True)]
    for corner in itertools.product(range(1) if layer else steps[0], *steps[1:]):
        z, y, x = (
            slice(c, min(c + edge, n)) for c, edge, n in zip(corner, array.shards, array.shape, strict=True)
        )
        yield z, y, x


@contextlib.contextmanager
def _spooled(given: Voxels, folder: Path | None) -> Iterator[RawArray]:
    """Store a stream of planes in a file, to read any box of it."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".planes-") as raw:
        for _, slab in given.blocks():
            np.ascontiguousarray(slab).tofile(raw)
        raw.flush()
        assert os.path.getsize(raw.name) == math.prod(given.shape) * given.dtype.itemsize
        yield RawArray(Source(raw.name), 0, given.shape, given.dtype)


@contextlib.contextmanager
def _finished(text: str, overwrite: bool) -> Iterator[str]:
    """Provide a place to write; the image gets its name after writing without an error."""
    if "://" not in text:
        target = Path(text)
        if target.exists() and not overwrite:
            raise InputError(f"{target} already exists; remove it or give another place")
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            yield str(unfinished)
            if target.exists():
                os.rename(target, old)
            os.rename(unfinished, target)
        finally:
            for folder in (unfinished, old):
                shutil.rmtree(folder, ignore_errors=True)
        return
    store = open_store(text)
    try:
        if store.sizes(""):
            if store.exists("zarr.json") and not overwrite:
                raise InputError(f"{text} already exists; remove it or give another place")
            store.remove("zarr.json")  # first, so that nobody opens the rest
            store.remove("")
    except InputError:
        raise
    except Exception as error:  # each storage has its own errors for "no such bucket" or "no permission"
        raise InputError(f"{text} cannot be written ({error})") from error
    try:
        yield text
    except BaseException:
        store.remove("")
        raise
