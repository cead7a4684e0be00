"""Read blocks piece by piece, and collect batches until all their patches are complete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tltrain.data.augment import Patch
from tltrain.data.sampling import PatchBlock

Ints = NDArray[np.int64]


def pieces_of(volume: Any, block: PatchBlock, dtype: np.dtype[Any]) -> Iterator[tuple[Ints, NDArray[Any]]]:
    """Read a block, piece by piece if the volume supports it."""
    start, stop = block.start.tolist(), block.stop.tolist()
    if hasattr(volume, "pieces"):
        pieces = volume.pieces(start, stop)
    else:
        pieces = [(start, volume[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))])]
    for first, piece in pieces:
        yield np.array(first, np.int64), np.require(piece, dtype, ["C_CONTIGUOUS", "WRITEABLE"])


class Waiting:
    """Batches that are filled patch by patch.

    Parameters
    ----------
    batch, edge
        Patches of a batch, and voxels along an edge of a patch.
    """

    def __init__(self, batch: int, edge: int) -> None:
        self._shape = (batch, edge, edge, edge)
        self._batches: dict[int, Patch] = {}

    def patch(self, number: int, place: int) -> Patch:
        """Return a patch of a batch, to be filled: grey values and labels (z, y, x)."""
        if number not in self._batches:
            self._batches[number] = np.empty(self._shape, np.float32), np.empty(self._shape, np.uint8)
        grey, labels = self._batches[number]
        return grey[place], labels[place]

    def deliver(self, number: int) -> Patch:
        """Remove and return a batch: (n, z, y, x, 1) and (n, z, y, x)."""
        grey, labels = self._batches.pop(number)
        return grey[..., None], labels
