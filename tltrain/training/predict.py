"""A network over a volume while it is being trained: in overlapping tiles, so that no seam shows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]

#: Voxels of a tile at most, as far as the halo lets it be: a bound on memory.
TILE = 1 << 21


def predict(
    network: Any, volume: NDArray[Any], halo: int, pooling: int, most: int = TILE
) -> Iterator[tuple[Box, NDArray[np.float32]]]:
    """Yield the probabilities of all voxels, tile by tile.

    Parameters
    ----------
    network
        (b, z, y, x, 1) -> (b, z, y, x, c).
    volume
        (z, y, x) normalised grey values.
    halo
        Voxels that the network sees on each side, a multiple of the pooling.
    pooling
        Of the network.
    most
        Voxels of a tile.

    Yields
    ------
    tuple
        A box of the volume and the (z, y, x, c) probabilities there; the boxes cover it without overlap.
    """
    shape = tuple(-(-n // pooling) * pooling for n in volume.shape)
    tile = tile_shape(shape, halo, pooling, most)
    for places in itertools.product(*map(_spans, shape, tile, (halo,) * 3)):
        read = tuple(slice(start, start + edge) for (start, _, _), edge in zip(places, tile, strict=True))
        part = volume[read]
        beyond = [(0, edge - n) for edge, n in zip(tile, part.shape, strict=True)]
        grey = np.pad(part, beyond).astype(np.float32)
        answer = np.asarray(network.predict_on_batch(grey[None, ..., None]))[0]
        ends = [(low, min(high, n)) for (_, low, high), n in zip(places, volume.shape, strict=True)]
        z, y, x = (slice(low, high) for low, high in ends)
        inside = tuple(
            slice(low - start, high - start) for (start, _, _), (low, high) in zip(places, ends, strict=True)
        )
        yield (z, y, x), answer[inside]


def tile_shape(shape: tuple[int, ...], halo: int, pooling: int, most: int) -> tuple[int, ...]:
    """Shorten the longest axis of a volume until a tile holds few enough voxels or is mostly halo."""
    tile = list(shape)
    least = 2 * halo + 4 * pooling
    while math.prod(tile) > most:
        axis = max(range(3), key=lambda k: tile[k])
        if tile[axis] <= least:
            break
        # as many tiles as now and one more, all of the same length
        cores = math.ceil(max(shape[axis] - 2 * halo, 1) / max(tile[axis] - 2 * halo, 1)) + 1
        core = -(-(shape[axis] - 2 * halo) // cores // pooling) * pooling
        tile[axis] = max(min(core + 2 * halo, tile[axis] - pooling), least)
    return tuple(tile)


def _spans(length: int, tile: int, halo: int) -> list[tuple[int, int, int]]:
    """Where tiles along an axis start, and from where to where their results are used."""
    if tile >= length:
        return [(0, 0, length)]
    starts = [*range(0, length - tile, tile - 2 * halo), length - tile]
    ends = [start + tile - halo for start in starts[:-1]] + [length]
    return list(zip(starts, [0, *ends[:-1]], ends, strict=True))
