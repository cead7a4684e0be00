"""Memory of a stream: a block for each thread that reads, and the patches that wait for their batch.

It is used again and again. New arrays would make the system find and clear pages for every block and every
patch, which takes longer than to fill them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.intensity import CLIP
from catalogs.schema import Intensity
from tltrain.kernels import place_grey, place_labels
from tltrain.sampling import Plan

Ints = NDArray[np.int64]


class Block:
    """A thread's memory for a part of a tomogram and of its class volume.

    Attributes
    ----------
    origin
        (3,) its first voxel in the volume, z, y, x; negative where patches reach beyond the volume.
    grey, classes
        (z, y, x) normalised grey values, float32, and values of the class volume, uint8; 0 beyond the volume.
    """

    origin: Ints
    grey: NDArray[np.float32]
    classes: NDArray[np.uint8]

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8), np.empty(0, np.uint8)

    def lay_out(self, plan: Plan, edge: int) -> None:
        """Be as large as to hold the block of a plan and all of its patches, ``edge`` voxels wide."""
        self.origin = np.minimum(plan.start, plan.corners.min(axis=0))
        shape = np.maximum(plan.stop, plan.corners.max(axis=0) + edge) - self.origin
        n = int(shape.prod())
        if len(self._memory[1]) < n:
            self._memory = np.empty(4 * n, np.uint8), np.empty(n, np.uint8)
        self.grey = self._memory[0][: 4 * n].view(np.float32).reshape(shape)
        self.classes = self._memory[1][:n].reshape(shape)
        if (shape > plan.stop - plan.start).any():
            self.grey.fill(0)
            self.classes.fill(0)

    def read_grey(self, volume: Any, plan: Plan, intensity: Intensity) -> None:
        """Read and normalise grey values.

        Raises
        ------
        ValueError
            If some are not finite.
        """
        normal = np.float32(intensity.centre), np.float32(intensity.spread), np.float32(CLIP)
        for first, piece in _pieces(volume, plan, np.dtype(np.float32)):
            if not place_grey(piece, first - self.origin, self.grey, plan.stop - self.origin, *normal):
                raise ValueError("the tomogram holds values that are not finite numbers")

    def read_classes(self, volume: Any, plan: Plan) -> None:
        """Read values of the class volume."""
        for first, piece in _pieces(volume, plan, np.dtype(np.uint8)):
            place_labels(piece, first - self.origin, self.classes, plan.stop - self.origin)


def _pieces(volume: Any, plan: Plan, dtype: np.dtype[Any]) -> Iterator[tuple[Ints, NDArray[Any]]]:
    """Read the block of a plan, piece by piece where the volume can do that."""
    start, stop = plan.start.tolist(), plan.stop.tolist()
    if hasattr(volume, "pieces"):
        pieces = volume.pieces(start, stop)
    else:
        pieces = [(start, volume[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))])]
    for first, piece in pieces:
        yield np.array(first, np.int64), np.require(piece, dtype, ["C_CONTIGUOUS", "WRITEABLE"])


_mine = threading.local()


def block_of_this_thread() -> Block:
    """Return the one block that this thread has."""
    if not hasattr(_mine, "block"):
        _mine.block = Block()
    found: Block = _mine.block
    return found


class Waiting:
    """Memory for patches that wait for their batch.

    Parameters
    ----------
    n
        Patches, at most.
    edge
        Of a patch in voxels.

    Attributes
    ----------
    memory
        (n, z, y, x) grey values, float32, and labels, uint8.
    """

    def __init__(self, n: int, edge: int) -> None:
        self.memory = np.empty((n, *(edge,) * 3), np.float32), np.empty((n, *(edge,) * 3), np.uint8)
        self._free = list(range(n))

    def take(self, n: int) -> Ints:
        """Set aside places for ``n`` patches."""
        return np.array([self._free.pop() for _ in range(n)], np.int64)

    def deliver(self, slots: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Copy patches into a batch: (n, z, y, x, 1) and (n, z, y, x); their places are free again."""
        grey, classes = (_taken(volume, slots) for volume in self.memory)
        self._free += slots
        return grey[..., None], classes


def _taken(volume: NDArray[Any], slots: Sequence[int]) -> NDArray[Any]:
    out = np.empty((len(slots), *volume.shape[1:]), volume.dtype)
    return volume.take(slots, axis=0, out=out, mode="clip")  # for "raise" it would copy twice
