"""Divides a label volume into blocks with halos, for computations with a limited range."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Volume8(Protocol):
    """A (z, y, x) volume of bytes in memory, or one that is read in parts (NumPy, Zarr)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along z, y, x."""

    def __getitem__(self, box: Any, /) -> Any:
        """Read a part."""


@dataclass(frozen=True)
class Block:
    """A part of a volume.

    Attributes
    ----------
    core
        The block's own part; the cores of all blocks form the volume.
    box
        The core with its halo, within the volume.
    shape
        Shape of the whole volume.
    """

    core: Box
    box: Box
    shape: tuple[int, int, int]

    @property
    def low(self) -> Ints:
        """(3,) index of the first voxel of the box."""
        return np.array([part.start for part in self.box], np.int64)

    @property
    def core_in_box(self) -> Box:
        """Position of the core in the box."""
        z, y, x = (
            slice(c.start - b.start, c.stop - b.start) for c, b in zip(self.core, self.box, strict=True)
        )
        return z, y, x

    def read(self, volume: Volume8) -> NDArray[np.uint8]:
        """Read the box of the block."""
        return np.ascontiguousarray(volume[self.box], np.uint8)

    def owns(self, places: Floats) -> NDArray[np.bool_]:
        """Return which positions belong to the core; those outside the volume belong to the nearest block."""
        own = np.ones(len(places), bool)
        for axis, (core, n) in enumerate(zip(self.core, self.shape, strict=True)):
            if core.start > 0:
                own &= places[:, axis] >= core.start
            if core.stop < n:
                own &= places[:, axis] < core.stop
        return own

    def reach(self) -> tuple[Floats, Floats]:
        """Return the range of positions in which the block has all voxels."""
        least, most = np.full(3, -np.inf), np.full(3, np.inf)
        for axis, (box, n) in enumerate(zip(self.box, self.shape, strict=True)):
            if box.start > 0:
                least[axis] = box.start
            if box.stop < n:
                most[axis] = box.stop - 1
        return least, most


def cut(shape: Sequence[int], edge: int, halo: int) -> list[Block]:
    """Divide a volume into blocks of nearly equal size.

    Parameters
    ----------
    shape
        Voxels (z, y, x).
    edge
        Longest edge of a core, voxels.
    halo
        Width of the halo on each side, voxels.
    """
    z, y, x = shape
    along = []
    for n in shape:
        count = max(-(-n // edge), 1)
        ends = [n * k // count for k in range(count + 1)]
        along.append(
            [(slice(a, b), slice(max(a - halo, 0), min(b + halo, n))) for a, b in itertools.pairwise(ends)]
        )
    blocks = []
    for parts in itertools.product(*along):
        core, box = zip(*parts, strict=True)
        blocks.append(Block(core, box, (z, y, x)))
    return blocks


def owners(places: Floats, blocks: Sequence[Block]) -> Ints:
    """Return the number of the block that owns each of (n, 3) positions."""
    owner = np.full(len(places), -1, np.int64)
    for k, block in enumerate(blocks):
        owner[block.owns(places)] = k
    return owner
