"""Compiled loops over the voxels of patches; threads run them in parallel."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Triple = tuple[int, int, int]


def _to_pointer(_typing: Any, address: Any) -> Any:
    def lower(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), lower


_pointer: Any = intrinsic(_to_pointer)


@numba.njit(cache=True, nogil=True)
def put_grey(
    piece: Floats, first: Ints, start: Ints, stop: Ints, normal: tuple[np.float32, np.float32, np.float32],
    corners: Ints, turned: NDArray[np.bool_], factors: Floats, offsets: Floats, sigmas: Floats,
    noise: Floats, at: Ints, patches: Ints, edge: int,
) -> bool:  # fmt: skip
    """Copy a piece of a tomogram into all patches that overlap it.

    A patch becomes ``factor * v + offset + sigma * noise``, v being what
    ``catalogs.intensity.normalise`` makes of the grey values, to the bit.

    Parameters
    ----------
    piece, first
        (z, y, x) grey values, and (3,) the position of the first one in the tomogram.
    start, stop
        (3,) corners of the block; parts of the piece outside of it are ignored.
    normal
        Centre and scale of the grey values, and where they are clipped.
    corners
        (n, 3) first voxel of each patch in the tomogram.
    turned
        (n, 3) which axes of a patch are reversed.
    factors, offsets, sigmas
        (n,) for each patch.
    noise, at
        A volume of noise, and (n, 3) where a patch's piece of it begins.
    patches, edge
        (n,) where in memory each patch (edge, edge, edge) begins, as ``.ctypes.data`` tells.

    Returns
    -------
    bool
        Whether all values were finite numbers.
    """
    here, more = piece.reshape(-1), noise.reshape(-1)
    centre, scale, clip = normal
    low, high = _both(first, piece.shape, start, stop)
    finite, width = np.int64(0), np.uint64(max(high[2] - low[2], 0))
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            a, count = _flat(z - first[0], y - first[1], low[2] - first[2], piece.shape), np.int32(0)
            for k in range(width):
                count += np.int32(abs(here[a + k]) < np.float32(np.inf))
            finite += count
    for p in range(len(patches)):
        factor, offset, sigma = factors[p], offsets[p], sigmas[p]
        there = carray(_pointer(patches[p]), edge**3, np.float32)
        corner, turn = corners[p], turned[p]
        begin, end = _both(corner, (edge, edge, edge), low, high)
        n = np.uint64(max(end[2] - begin[2], 0))
        for z in range(begin[0], end[0]):
            for y in range(begin[1], end[1]):
                i, j, x = _in_patch(z, y, begin, end, corner, turn, edge)
                b = _flat(i, j, x, (edge, edge, edge))
                if turn[2]:
                    a = _flat(z - first[0], y - first[1], end[2] - 1 - first[2], piece.shape)
                    for k in range(n):
                        there[b + k] = factor * _normal(here[a - k], centre, scale, clip) + offset
                else:
                    a = _flat(z - first[0], y - first[1], begin[2] - first[2], piece.shape)
                    for k in range(n):
                        there[b + k] = factor * _normal(here[a + k], centre, scale, clip) + offset
                if sigma != 0:
                    c = _flat(at[p, 0] + i, at[p, 1] + j, at[p, 2] + x, noise.shape)
                    for k in range(n):
                        there[b + k] += sigma * more[c + k]
    return finite == max(high[0] - low[0], 0) * max(high[1] - low[1], 0) * np.int64(width)


@numba.njit(cache=True, nogil=True)
def put_labels(
    piece: NDArray[np.uint8], first: Ints, start: Ints, stop: Ints,
    corners: Ints, turned: NDArray[np.bool_], patches: Ints, edge: int,
) -> None:  # fmt: skip
    """Copy a piece of a label volume into all patches that overlap it, as :func:`put_grey`."""
    here = piece.reshape(-1)
    low, high = _both(first, piece.shape, start, stop)
    for p in range(len(patches)):
        there = carray(_pointer(patches[p]), edge**3, np.uint8)
        corner, turn = corners[p], turned[p]
        begin, end = _both(corner, (edge, edge, edge), low, high)
        n = np.uint64(max(end[2] - begin[2], 0))
        for z in range(begin[0], end[0]):
            for y in range(begin[1], end[1]):
                i, j, x = _in_patch(z, y, begin, end, corner, turn, edge)
                b = _flat(i, j, x, (edge, edge, edge))
                if turn[2]:
                    a = _flat(z - first[0], y - first[1], end[2] - 1 - first[2], piece.shape)
                    for k in range(n):
                        there[b + k] = here[a - k]
                else:
                    a = _flat(z - first[0], y - first[1], begin[2] - first[2], piece.shape)
                    for k in range(n):
                        there[b + k] = here[a + k]


@numba.njit(inline="always")
def _in_patch(
    z: int, y: int, begin: Triple, end: Triple, corner: Ints, turn: NDArray[np.bool_], edge: int
) -> Triple:
    """Find the place of a tomogram's row (z, y), from begin[2] to end[2], in a patch, perhaps reversed."""
    return (
        edge - 1 - z + corner[0] if turn[0] else z - corner[0],
        edge - 1 - y + corner[1] if turn[1] else y - corner[1],
        edge - end[2] + corner[2] if turn[2] else begin[2] - corner[2],
    )


@numba.njit(inline="always")
def _normal(value: np.float32, centre: np.float32, scale: np.float32, clip: np.float32) -> np.float32:
    value = (value - centre) * scale
    value = -clip if value < -clip else value
    return clip if value > clip else value


@numba.njit(inline="always")
def _both(first: Any, shape: Triple, start: Any, stop: Any) -> tuple[Triple, Triple]:
    """Find the corners of what two boxes share."""
    return (
        (max(first[0], start[0]), max(first[1], start[1]), max(first[2], start[2])),
        (
            min(first[0] + shape[0], stop[0]),
            min(first[1] + shape[1], stop[1]),
            min(first[2] + shape[2], stop[2]),
        ),
    )


@numba.njit(inline="always")
def _flat(z: int, y: int, x: int, shape: tuple[int, int, int]) -> np.uint64:
    """Count voxels as an unsigned number, so that numba need not check for negative indices."""
    return np.uint64((z * shape[1] + y) * shape[2] + x)


@numba.njit(cache=True, nogil=True)
def finish(
    content: Floats, factor: np.float32, offset: np.float32, sigma: np.float32, noise: Floats, at: Ints,
    out: Floats,
) -> None:  # fmt: skip
    """Compute ``factor * content + offset + sigma * noise`` of a patch; see :func:`put_grey`."""
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
