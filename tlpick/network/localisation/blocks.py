"""A label volume cut into blocks with halos, for work that looks only so far around every voxel."""

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
    """A (z, y, x) volume of bytes that is in memory or is read piece by piece: NumPy's, Zarr's."""

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
        What is this block's own; the cores of all blocks are the volume.
    box
        What the block sees: its core and a halo, within the volume.
    shape
        Of the whole volume.
    """

    core: Box
    box: Box
    shape: tuple[int, int, int]

    @property
    def low(self) -> Ints:
        """(3,) index of the first voxel that it sees."""
        return np.array([part.start for part in self.box], np.int64)

    @property
    def core_in_box(self) -> Box:
        """Where its own voxels lie in what it sees."""
        z, y, x = (
            slice(c.start - b.start, c.stop - b.start) for c, b in zip(self.core, self.box, strict=True)
        )
        return z, y, x

    def read(self, volume: Volume8) -> NDArray[np.uint8]:
        """Read what the block sees."""
        return np.ascontiguousarray(volume[self.box], np.uint8)

    def owns(self, places: Floats) -> NDArray[np.bool_]:
        """Tell which places are its own; what lies outside the volume is the nearest block's."""
        own = np.ones(len(places), bool)
        for axis, (core, n) in enumerate(zip(self.core, self.shape, strict=True)):
            if core.start > 0:
                own &= places[:, axis] >= core.start
            if core.stop < n:
                own &= places[:, axis] < core.stop
        return own

    def reach(self) -> tuple[Floats, Floats]:
        """Tell between which places it knows every voxel; outside the volume there are none to know."""
        least, most = np.full(3, -np.inf), np.full(3, np.inf)
        for axis, (box, n) in enumerate(zip(self.box, self.shape, strict=True)):
            if box.start > 0:
                least[axis] = box.start
            if box.stop < n:
                most[axis] = box.stop - 1
        return least, most


def cut(shape: Sequence[int], edge: int, halo: int) -> list[Block]:
    """Cut a volume into blocks of equal size, as nearly as that goes.

    Parameters
    ----------
    shape
        Voxels (z, y, x).
    edge
        Longest edge of a core, voxels.
    halo
        How much more a block sees on each side, voxels.
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
    """Tell for each of (n, 3) places the number of the block that owns it."""
    owner = np.full(len(places), -1, np.int64)
    for k, block in enumerate(blocks):
        owner[block.owns(places)] = k
    return owner
