"""The loops over voxels of patches, compiled; threads run them side by side."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@numba.njit(cache=True, nogil=True)
def place_grey(
    piece: Floats,
    first: Ints,
    block: Floats,
    end: Ints,
    centre: np.float32,
    spread: np.float32,
    clip: np.float32,
) -> bool:
    """Put a piece of a volume into a block, normalised.

    Parameters
    ----------
    piece
        (z, y, x) grey values.
    first
        (3,) the piece's first voxel in the block.
    block, end
        (z, y, x) gets what ``catalogs.intensity.normalise`` makes of the values, to the bit, and (3,) where
        to end. What lies elsewhere is left away.
    centre, spread, clip
        How to normalise.

    Returns
    -------
    bool
        Whether all values were finite numbers.
    """
    finite = np.int32(0)
    here, there = piece.reshape(-1), block.reshape(-1)
    low, high = _inside(first, piece.shape, end)
    n = np.uint64(max(high[2] - low[2], 0))
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            a = _flat(z - first[0], y - first[1], low[2] - first[2], piece.shape)
            b = _flat(z, y, low[2], block.shape)
            for k in range(n):
                value = here[a + k]
                finite += np.int32(abs(value) < np.float32(np.inf))
                value = (value - centre) / spread
                value = -clip if value < -clip else value
                there[b + k] = clip if value > clip else value
    return finite == (high[0] - low[0]) * (high[1] - low[1]) * (high[2] - low[2])


@numba.njit(cache=True, nogil=True)
def place_labels(piece: NDArray[np.uint8], first: Ints, block: NDArray[np.uint8], end: Ints) -> None:
    """Put a piece of a class volume into a block, as :func:`place_grey`."""
    here, there = piece.reshape(-1), block.reshape(-1)
    low, high = _inside(first, piece.shape, end)
    n = np.uint64(max(high[2] - low[2], 0))
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            a = _flat(z - first[0], y - first[1], low[2] - first[2], piece.shape)
            b = _flat(z, y, low[2], block.shape)
            for k in range(n):
                there[b + k] = here[a + k]


@numba.njit(cache=True, nogil=True)
def cut_grey(
    block: Floats, corners: Ints, turned: NDArray[np.bool_], factors: Floats, offsets: Floats, sigmas: Floats,
    noise: Floats, at: Ints, memory: Floats, slots: Ints,
) -> None:  # fmt: skip
    """Cut patches: each becomes ``factor * v + offset + sigma * noise`` of what the block has there.

    Parameters
    ----------
    block
        (z, y, x) values v.
    corners
        (n, 3) first voxel of each patch in the block, which holds all of it.
    turned
        (n, 3) which axes of a patch are reversed.
    factors, offsets, sigmas
        (n,) for each patch.
    noise, at
        A volume of noise, and (n, 3) where a patch's piece of it begins.
    memory, slots
        Patches (..., z, y, x), and (n,) which of them to write.
    """
    edge = memory.shape[1]
    n = np.uint64(edge)
    here, there, more = block.reshape(-1), memory.reshape(-1), noise.reshape(-1)
    for p in range(len(slots)):
        factor, offset, sigma = factors[p], offsets[p], sigmas[p]
        for i in range(edge):
            z = corners[p, 0] + (edge - 1 - i if turned[p, 0] else i)
            for j in range(edge):
                y = corners[p, 1] + (edge - 1 - j if turned[p, 1] else j)
                a = _flat(z, y, corners[p, 2], block.shape)
                b = _flat(slots[p] * edge + i, j, 0, memory.shape[1:])
                if turned[p, 2]:
                    a += n - np.uint64(1)
                    for k in range(n):
                        there[b + k] = factor * here[a - k] + offset
                else:
                    for k in range(n):
                        there[b + k] = factor * here[a + k] + offset
                if sigma != 0:
                    c = _flat(at[p, 0] + i, at[p, 1] + j, at[p, 2], noise.shape)
                    for k in range(n):
                        there[b + k] += sigma * more[c + k]


@numba.njit(cache=True, nogil=True)
def cut_labels(
    block: NDArray[np.uint8], corners: Ints, turned: NDArray[np.bool_], memory: NDArray[np.uint8], slots: Ints
) -> None:
    """Cut the labels of patches, as :func:`cut_grey`."""
    edge = memory.shape[1]
    n = np.uint64(edge)
    here, there = block.reshape(-1), memory.reshape(-1)
    for p in range(len(slots)):
        for i in range(edge):
            z = corners[p, 0] + (edge - 1 - i if turned[p, 0] else i)
            for j in range(edge):
                y = corners[p, 1] + (edge - 1 - j if turned[p, 1] else j)
                a = _flat(z, y, corners[p, 2], block.shape)
                b = _flat(slots[p] * edge + i, j, 0, memory.shape[1:])
                if turned[p, 2]:
                    a += n - np.uint64(1)
                    for k in range(n):
                        there[b + k] = here[a - k]
                else:
                    for k in range(n):
                        there[b + k] = here[a + k]


@numba.njit(inline="always")
def _inside(
    first: Ints, shape: tuple[int, int, int], end: Ints
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Find the corners of what a box has between 0 and an end."""
    return (
        (max(first[0], 0), max(first[1], 0), max(first[2], 0)),
        (
            min(first[0] + shape[0], end[0]),
            min(first[1] + shape[1], end[1]),
            min(first[2] + shape[2], end[2]),
        ),
    )


@numba.njit(inline="always")
def _flat(z: int, y: int, x: int, shape: tuple[int, int, int]) -> np.uint64:
    """Count voxels; unsigned, or each would be asked whether it counts from the end."""
    return np.uint64((z * shape[1] + y) * shape[2] + x)


@numba.njit(cache=True, nogil=True)
def finish(
    content: Floats, factor: np.float32, offset: np.float32, sigma: np.float32, noise: Floats, at: Ints,
    out: Floats,
) -> None:  # fmt: skip
    """Compute ``factor * content + offset + sigma * noise`` of a patch; see :func:`cut_grey`."""
    for z in range(out.shape[0]):
        for y in range(out.shape[1]):
            row, source = out[z, y], content[z, y]
            for x in range(len(row)):
                row[x] = factor * source[x] + offset
            if sigma != 0:
                more = noise[at[0] + z, at[1] + y, at[2] : at[2] + len(row)]
                for x in range(len(row)):
                    row[x] += sigma * more[x]


@numba.njit(cache=True, nogil=True)
def turned_about_z(
    grey: Floats, classes: NDArray[np.uint8], cos: float, sin: float, outside: int
) -> tuple[Floats, NDArray[np.uint8]]:
    """Interpolate by cubic convolution (Keys, IEEE Trans. ASSP 29, 1153, 1981), labels by the nearest."""
    n_z, n_y, n_x = grey.shape
    new, labels = np.zeros_like(grey), np.full_like(classes, outside)
    wy, wx = np.empty(4, np.float32), np.empty(4, np.float32)
    for i in range(n_y):
        for j in range(n_x):
            dy, dx = i - (n_y - 1) / 2, j - (n_x - 1) / 2
            y, x = cos * dy - sin * dx + (n_y - 1) / 2, sin * dy + cos * dx + (n_x - 1) / 2
            ny, nx = int(np.rint(y)), int(np.rint(x))
            if ny < 0 or nx < 0 or ny >= n_y or nx >= n_x:
                continue
            y0, x0 = int(np.floor(y)), int(np.floor(x))
            _keys(y - y0, wy)
            _keys(x - x0, wx)
            for a in range(4):
                row = min(max(y0 - 1 + a, 0), n_y - 1)
                for b in range(4):
                    column = min(max(x0 - 1 + b, 0), n_x - 1)
                    weight = wy[a] * wx[b]
                    for z in range(n_z):
                        new[z, i, j] += weight * grey[z, row, column]
            for z in range(n_z):
                labels[z, i, j] = classes[z, ny, nx]
    return new, labels


@numba.njit(inline="always")
def _keys(t: float, w: Floats) -> None:
    w[0] = ((-0.5 * t + 1.0) * t - 0.5) * t
    w[1] = (1.5 * t - 2.5) * t * t + 1.0
    w[2] = ((-1.5 * t + 2.0) * t + 0.5) * t
    w[3] = (0.5 * t - 0.5) * t * t
