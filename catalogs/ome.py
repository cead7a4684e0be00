"""Volumes in OME-Zarr 0.5 groups (ngff.openmicroscopy.org): how they are described and laid out."""

from __future__ import annotations

from typing import Any

import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec

#: Edge of a chunk, and of the largest shard, in voxels.
CHUNK, LARGEST_SHARD = 64, 512


def describe(name: str, voxel_size: float) -> dict[str, Any]:
    """Describe a volume: the group's attribute ``ome``, where the array is named ``0``.

    Parameters
    ----------
    name
        For people.
    voxel_size
        Å.
    """
    scale = {"type": "scale", "scale": [voxel_size] * 3}
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": name,
                "axes": [{"name": axis, "type": "space", "unit": "angstrom"} for axis in "zyx"],
                "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
            }
        ],
    }


def write_volume(
    root: zarr.Group, path: str, data: NDArray[Any], codec: BloscCodec | ZstdCodec, **attributes: Any
) -> None:
    """Write a volume (z, y, x) as one array: small chunks to read any part, few objects to hold them."""
    array = root.create_array(
        path,
        shape=data.shape,
        dtype=data.dtype,
        chunks=(CHUNK,) * 3,
        shards=tuple(min(CHUNK * -(-n // CHUNK), LARGEST_SHARD) for n in data.shape),
        compressors=codec,
        fill_value=0,
        dimension_names=("z", "y", "x"),
        attributes=attributes,
        # An absent chunk reads as zeros: nobody could tell an empty volume from a lost one.
        config={"write_empty_chunks": True},
    )
    array[...] = data
