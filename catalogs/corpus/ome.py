"""Volumes in OME-Zarr 0.5 groups (ngff.openmicroscopy.org): how they are described and laid out."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

#: Edge of a chunk, and of the largest shard, in voxels.
CHUNK, LARGEST_SHARD = 64, 512

# Okabe and Ito's colours, which the colour-blind can tell apart; without their black.
_COLOURS = ["e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7"]


def colour(label: int) -> tuple[int, int, int, int]:
    """Colour (red, green, blue, alpha; 0 to 255) that viewers show a class in."""
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
        For people.
    voxel_size
        Å; None if it is unknown.
    origin
        Of the centre of voxel 0, (x, y, z) in Å.
    levels
        Arrays, each with voxels twice as large as the one before.
    averaged
        Whether a voxel is the mean of those it stands for, whose middle it then lies in, or the first.
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
    """Write a volume (z, y, x) as one array: small chunks to read any part, few objects to hold them."""
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
    """Create the array of a volume (z, y, x) without its voxels; whole shards are to be written at a time."""
    return zarr.create_array(
        store,
        name=path,
        shape=shape,
        dtype=dtype,
        zarr_format=3,
        chunks=(CHUNK,) * 3,
        shards=tuple(min(CHUNK * -(-n // CHUNK), largest_shard) for n in shape),
        compressors=(codec, Crc32cCodec()),  # a reader of any chunk notices that it has changed
        fill_value=0,
        dimension_names=("z", "y", "x"),
        attributes=attributes,
        # An absent chunk reads as zeros: nobody could tell an empty volume from a lost one.
        config={"write_empty_chunks": True},
    )
