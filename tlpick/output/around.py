"""Reads the surroundings of picks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from catalogs.volumes import Volume

Triple = tuple[int, int, int]


def read_inside(volume: Volume, first: Iterable[int], last: Iterable[int]) -> tuple[NDArray[Any], Triple]:
    """Read the part of a box that is inside of a volume, and at least one plane along each axis.

    Parameters
    ----------
    volume
        The tomogram.
    first, last
        (3,) first voxel of the box along z, y, x, and the one after its last; they may be outside.

    Returns
    -------
    ndarray
        The voxels that were read.
    tuple of int
        Index (z, y, x) of the first of them in the volume.
    """
    low = [min(max(int(at), 0), n - 1) for at, n in zip(first, volume.shape, strict=True)]
    high = [max(min(int(at), n), a + 1) for at, n, a in zip(last, volume.shape, low, strict=True)]
    z, y, x = (slice(a, b) for a, b in zip(low, high, strict=True))
    return volume.read((z, y, x)), (low[0], low[1], low[2])
