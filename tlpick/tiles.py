"""How a volume is cut into overlapping tiles so that the tiles together equal the whole.

A network with poolings answers differently when its input is shifted by less than the product of the
poolings, and it sees ``halo`` voxels far on each side. So every tile begins at a multiple of the
pooling and only what lies a halo away from its cut faces is used. At the faces of the volume nothing
is cut off: there the tile ends where the whole volume would, and the network pads it in the same way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Tiling:
    """All tiles of a volume; they have the same shape.

    Attributes
    ----------
    shape
        Voxels (z, y, x) of the volume.
    padded
        The same, rounded up to multiples of the pooling.
    tile
        Voxels (z, y, x) of every tile, multiples of the pooling.
    counts
        Number of tiles along z, y, x.
    halo, pooling
        Of the network, voxels.
    """

    shape: tuple[int, int, int]
    padded: tuple[int, int, int]
    tile: tuple[int, int, int]
    counts: tuple[int, int, int]
    halo: int
    pooling: int

    def __len__(self) -> int:
        return math.prod(self.counts)

    @property
    def redundancy(self) -> float:
        """Computed voxels divided by the voxels of the volume."""
        return len(self) * math.prod(self.tile) / math.prod(self.shape)

    def __iter__(self) -> Iterator[tuple[Box, Box, Box]]:
        """Yield what to read of the padded volume, what of it to use, and where that lies in the volume."""
        for parts in itertools.product(*(self._along(axis) for axis in range(3))):
            read, used, target = zip(*parts, strict=True)
            yield read, used, target

    def _along(self, axis: int) -> Iterator[tuple[slice, slice, slice]]:
        n, size, count = self.padded[axis], self.tile[axis], self.counts[axis]
        step = size - 2 * self.halo
        done = 0
        for k in range(count):
            begin = min(k * step, n - size)
            last = k == count - 1
            end = min(n if last else begin + size - self.halo, self.shape[axis])
            yield slice(begin, begin + size), slice(done - begin, end - begin), slice(done, end)
            done = end


def plan(shape: tuple[int, int, int], edge: int, halo: int, pooling: int) -> Tiling:
    """Choose the tiles of a volume.

    Of all ways to cut it into equal tiles that hold at most ``edge``³ voxels, the one that computes
    the fewest voxels: tomograms are thin along z, so the tiles rarely are cubes.

    Parameters
    ----------
    shape
        Voxels (z, y, x) of the volume.
    edge
        Memory that a tile may use: that of a cube with this edge in voxels.
    halo
        The network sees so far on each side, voxels; a multiple of ``pooling``.
    pooling
        Product of the network's poolings, voxels.

    Returns
    -------
    Tiling

    Raises
    ------
    InputError
        If a tile is so small that nothing of it is left without its halo.
    """
    padded = tuple(_round_up(n, pooling) for n in shape)
    ways = [_ways(n, halo, pooling) for n in padded]
    sizes = np.multiply.outer(np.multiply.outer(ways[0][1], ways[1][1]), ways[2][1])
    counts = np.multiply.outer(np.multiply.outer(ways[0][0], ways[1][0]), ways[2][0])
    fits = sizes <= edge**3
    if not fits.any():
        least = math.ceil(round(int(sizes.min()) ** (1 / 3), 6))
        raise InputError(
            f"--tile {edge} is too small for a network that sees {halo} voxels far; give at least {least}"
        )
    cost = np.where(fits, sizes * counts, np.iinfo(np.int64).max)
    best = np.unravel_index(int(np.argmin(cost)), cost.shape)
    z, y, x = ((int(way[0][i]), int(way[1][i])) for way, i in zip(ways, best, strict=True))
    return Tiling(
        shape=shape,
        padded=(padded[0], padded[1], padded[2]),
        tile=(z[1], y[1], x[1]),
        counts=(z[0], y[0], x[0]),
        halo=halo,
        pooling=pooling,
    )


def _ways(n: int, halo: int, pooling: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the ways to cover an axis of ``n`` voxels: (numbers of tiles, their lengths)."""
    lengths = np.arange(2 * halo + pooling, n, pooling)
    counts = -(-(n - 2 * halo) // (lengths - 2 * halo))
    keep = np.flatnonzero(np.diff(counts, prepend=-1))  # the shortest tile for each number of them
    return np.append(counts[keep], 1), np.append(lengths[keep], n)


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
