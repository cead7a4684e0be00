"""Input of writers: an array that can be read in parts, or a stream of planes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from catalogs.volumes.lazy import Box
from catalogs.volumes.volume import BLOCK_BYTES, Volume


@dataclass(frozen=True, eq=False)
class Voxels:
    """Voxels to write, of a known shape and type.

    Attributes
    ----------
    array
        Array that takes slices; None for a stream.
    stream
        Slabs (planes, y, x) or planes (y, x) in order; None for an array.
    shape, dtype
        Shape (z, y, x) and type of the whole volume.
    """

    array: Any
    stream: Iterator[Any] | None
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    def blocks(self, n_bytes: int = BLOCK_BYTES) -> Iterator[tuple[Box, NDArray[Any]]]:
        """Read blocks that span x, from the first plane to the last, in the type to write.

        Raises
        ------
        ValueError
            If a stream does not yield the announced planes.
        """
        if self.stream is None:
            for box, block in Volume(self.array, None, (0.0, 0.0, 0.0), "").blocks(n_bytes):
                yield box, np.asarray(block, self.dtype)
            return
        done = 0
        for given in self.stream:
            slab = np.asarray(given, self.dtype)
            slab = slab[None] if slab.ndim == 2 else slab
            first, done = done, done + len(slab)
            if slab.shape[1:] != self.shape[1:] or done > self.shape[0]:
                raise ValueError(f"a slab of {slab.shape} does not fit a volume of {self.shape}")
            yield (slice(first, done), slice(0, self.shape[1]), slice(0, self.shape[2])), slab
        if done != self.shape[0]:
            raise ValueError(f"{done} planes were given for a volume of {self.shape}")


def voxels(data: Any, shape: tuple[int, int, int] | None, dtype: DTypeLike | None) -> Voxels:
    """Check and wrap the data to write.

    Parameters
    ----------
    data
        A :class:`~catalogs.volumes.volume.Volume`, an array (NumPy, Zarr, Dask, ...), or an iterable of
        slabs (planes, y, x) or planes (y, x).
    shape
        (z, y, x); needed for an iterable.
    dtype
        Type to write; for an array, its own by default.

    Raises
    ------
    ValueError
        If it does not have three axes, or an iterable lacks a shape or type.
    """
    if isinstance(data, Volume):
        data = data.data
    if hasattr(data, "shape") and hasattr(data, "dtype"):
        if len(data.shape) != 3 or math.prod(data.shape) == 0:
            raise ValueError(f"a volume has axes z, y and x and at least one voxel, not {data.shape}")
        z, y, x = (int(n) for n in data.shape)
        if shape is not None and tuple(shape) != (z, y, x):
            raise ValueError(f"the array is {data.shape}, not {shape}")
        return Voxels(data, None, (z, y, x), np.dtype(data.dtype if dtype is None else dtype))
    if not isinstance(data, Iterable) or shape is None or dtype is None:
        raise ValueError("slabs need the shape and the dtype of the volume that they make up")
    return Voxels(None, iter(data), shape, np.dtype(dtype))
