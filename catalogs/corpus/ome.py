"""Volumes in OME-Zarr 0.5 groups (ngff.openmicroscopy.org): metadata and layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

#: Edge of a chunk, and of the largest shard, in voxels.
CHUNK, LARGEST_SHARD = 64, 512

# Okabe and Ito's colours, which colour-blind people can distinguish, without black.
_COLOURS = ["e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7"]


def colour(label: int) -> tuple[int, int, int, int]:
    """Return the colour (red, green, blue, alpha; 0 to 255) in which viewers show a class."""
    red, green, blue = bytes.fromhex(_COLOURS[(label - 1) % len(_COLOURS)])
    return red, green, blue, 255


def describe(
    name: str,
    voxel_size: float | None,
    *,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    levels: int = 1,
    averaged: bool = True,
) -> dict[str, Any]:
    """Describe a volume: the group's attribute ``ome``, where the arrays are named ``0``, ``1``, ...

    Parameters
    ----------
    name
        Name for people.
    voxel_size
        Å; None if it is unknown.
    origin
        Position of the centre of voxel 0, (x, y, z) in Å.
    levels
        Arrays, each with voxels twice as large as those of the one before.
    averaged
        Whether a voxel is the mean of the voxels that it replaces, and lies in their middle, or the first
        one.
    """
    size = 1.0 if voxel_size is None else voxel_size
    unit = {} if voxel_size is None else {"unit": "angstrom"}
    datasets = []
    for level in range(levels):
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": [size * 2**level] * 3}]
        shift = [place + size * (2**level - 1) / 2 * averaged for place in origin[::-1]]
        if any(shift):
            steps.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    image: dict[str, Any] = {
        "name": name,
        "axes": [{"name": axis, "type": "space", **unit} for axis in "zyx"],
        "datasets": datasets,
    }
    if levels > 1:
        image["type"] = "mean" if averaged else "subsampling"
    return {"version": "0.5", "multiscales": [image]}


def write_volume(
    root: zarr.Group, path: str, data: NDArray[Any], codec: BloscCodec | ZstdCodec, **attributes: Any
) -> None:
    """Write a volume (z, y, x) as one array, with small chunks in few objects."""
    create_volume(root.store_path, path, data.shape, data.dtype, codec, **attributes)[...] = data


def create_volume(
    store: Any,
    path: str | None,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    codec: BloscCodec | ZstdCodec,
    largest_shard: int = LARGEST_SHARD,
    **attributes: Any,
) -> zarr.Array[Any]:
    """Create the array of a volume (z, y, x) without voxels; later, whole shards are written at a time."""
    return zarr.create_array(
        store,
        name=path,
        shape=shape,
        dtype=dtype,
        zarr_format=3,
        chunks=(CHUNK,) * 3,
        shards=tuple(min(CHUNK * -(-n // CHUNK), largest_shard) for n in shape),
        compressors=(codec, Crc32cCodec()),  # so that a reader notices if a chunk has changed
        fill_value=0,
        dimension_names=("z", "y", "x"),
        attributes=attributes,
        # missing chunks read as zeros, so an empty volume would look like a lost one
        config={"write_empty_chunks": True},
    )
