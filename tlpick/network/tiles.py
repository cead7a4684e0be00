"""Divides a volume into columns for the sweep, so that the result equals that of the whole volume.

The output of a network with poolings changes if its input is shifted by less than the product of the
poolings, and depends on a neighbourhood of each voxel. So every column begins at a multiple of the pooling,
and only voxels that are far enough from its cut faces are used. At the faces of the volume no margin is
needed, because the network pads the column in the same way as the whole volume. Along the sweep there are no
cuts (:mod:`tlpick.network.sweep`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogs.amounts import data_size
from catalogs.errors import InputError
from tlpick.network.geometry import Graph, Triple
from tlpick.network.sweep import peak_bytes

Box = tuple[slice, slice, slice]

#: Possible numbers of planes per step of the sweep; more planes mean fewer copies and more memory.
PLANES = (4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Tiling:
    """The columns of a volume; they have the same shape.

    Attributes
    ----------
    shape
        Voxels (z, y, x) of the volume.
    padded
        The same, rounded up to multiples of the pooling.
    tile
        Voxels (z, y, x) of every column, multiples of the pooling.
    counts
        Number of columns along z, y, x.
    before, after
        Margins that the network needs, voxels (z, y, x), rounded up to multiples of the pooling.
    axis
        Axis of the sweep: 0, 1 or 2 for z, y or x.
    planes
        Planes per step of the sweep.
    bytes
        Memory that the sweep needs.
    """

    shape: Triple
    padded: Triple
    tile: Triple
    counts: Triple
    before: Triple
    after: Triple
    axis: int
    planes: int
    bytes: int = 0

    def __len__(self) -> int:
        return math.prod(self.counts)

    @property
    def redundancy(self) -> float:
        """Computed voxels divided by the voxels of the volume."""
        return len(self) * math.prod(self.tile) / math.prod(self.shape)

    def __iter__(self) -> Iterator[tuple[Box, Box, Box]]:
        """Yield the box to read from the padded volume, its used part, and its place in the volume."""
        for parts in itertools.product(*(self._along(axis) for axis in range(3))):
            read, used, target = zip(*parts, strict=True)
            yield read, used, target

    def _along(self, axis: int) -> Iterator[tuple[slice, slice, slice]]:
        n, size, count = self.padded[axis], self.tile[axis], self.counts[axis]
        step = size - self.before[axis] - self.after[axis]
        done = 0
        for k in range(count):
            begin = min(k * step, n - size)
            last = k == count - 1
            end = min(n if last else begin + size - self.after[axis], self.shape[axis])
            yield slice(begin, begin + size), slice(done - begin, end - begin), slice(done, end)
            done = end


def plan(shape: Triple, graph: Graph, memory: float, tile: int | None = None) -> Tiling:
    """Choose the columns of a volume and their axis.

    Among all that fit into the memory, the fastest is chosen: it computes few voxels and copies few planes
    from step to step.

    Parameters
    ----------
    shape
        Voxels (z, y, x) of the volume.
    graph
        Graph of the network.
    memory
        Bytes that the sweep may use.
    tile
        Largest cross-section of a column, as the edge of a square with as many voxels.

    Returns
    -------
    Tiling

    Raises
    ------
    InputError
        If the memory or the tile is too small for a column with its margins.
    """
    pooling = graph.pooling
    padded = _triple(_round_up(n, p) for n, p in zip(shape, pooling, strict=True))
    sees = [graph.margins(axis) for axis in range(3)]
    before = _triple(_round_up(max(m[0], 0), p) for m, p in zip(sees, pooling, strict=True))
    after = _triple(_round_up(max(m[1], 0), p) for m, p in zip(sees, pooling, strict=True))
    ways = [_ways(padded[k], before[k] + after[k], pooling[k]) for k in range(3)]
    best: tuple[float, Tiling] | None = None
    least_memory, least_tile = math.inf, math.inf
    for axis in range(3):
        one, two = (k for k in range(3) if k != axis)
        cross = np.multiply.outer(ways[one][1], ways[two][1])
        count = np.multiply.outer(ways[one][0], ways[two][0])
        least_tile = min(least_tile, float(cross.min()))
        for planes in _steps(padded[axis], pooling[axis]):
            each = peak_bytes(graph, axis, planes, padded[axis])
            least_memory = min(least_memory, float(cross.min()) * each)
            fits = cross * each <= memory
            if tile is not None:
                fits &= cross <= tile**2
            if not fits.any():
                continue
            # the copies per step cost about as much as computing two planes
            work = np.where(fits, cross * count * (1 + 2 / planes), math.inf)
            i, j = np.unravel_index(int(np.argmin(work)), work.shape)
            cost = float(work[i, j]) * padded[axis]
            if best is None or cost < best[0]:
                size, number = list(padded), [1, 1, 1]
                for k, at in ((one, i), (two, j)):
                    number[k], size[k] = int(ways[k][0][at]), int(ways[k][1][at])
                columns = Tiling(
                    shape,
                    padded,
                    _triple(size),
                    _triple(number),
                    before,
                    after,
                    axis,
                    planes,
                    int(cross[i, j] * each),
                )
                best = cost, columns
    if best is not None:
        return best[1]
    if tile is not None and tile**2 < least_tile:
        raise InputError(
            f"`tile={tile}` is too small for a network that sees {max(before)} voxels far; "
            f"give at least {math.ceil(math.sqrt(least_tile))}"
        )
    raise InputError(
        f"the network needs {data_size(least_memory)} besides what is loaded already, "
        f"{data_size(max(memory, 0))} are left; give more `max_memory`"
    )


def _ways(n: int, margins: int, pooling: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the ways to cover an axis of ``n`` voxels: (numbers of columns, their widths)."""
    widths = np.arange(margins + pooling, n, pooling)
    counts = -(-(n - margins) // (widths - margins))
    keep = np.flatnonzero(np.diff(counts, prepend=-1))  # the narrowest for each number of them
    return np.append(counts[keep], 1), np.append(widths[keep], n)


def _steps(length: int, pooling: int) -> list[int]:
    """Numbers of planes that a step may take; the whole length at once copies nothing."""
    steps = {_round_up(planes, pooling) for planes in PLANES}
    return [*sorted(planes for planes in steps if planes < length), length]


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _triple(values: Iterator[int] | list[int]) -> Triple:
    z, y, x = values
    return z, y, x
