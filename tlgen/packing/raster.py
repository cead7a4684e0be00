"""Convert points to bins: the bins with a molecule's atoms, and those that must stay free of others."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from tlgen.packing.obstacles import Bytes, Integers


@njit(cache=True)
def turned(points: NDArray[np.float64], rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotate points: (n, 3) by a 3x3 matrix."""
    out = np.empty_like(points)
    for a in range(len(points)):
        x, y, z = points[a, 0], points[a, 1], points[a, 2]
        out[a, 0] = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z
        out[a, 1] = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z
        out[a, 2] = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z
    return out


@njit(cache=True)
def bounds(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest coordinates of points."""
    low, high = points[0].copy(), points[0].copy()
    for a in range(len(points)):
        for axis in range(3):
            low[axis] = min(low[axis], points[a, axis])
            high[axis] = max(high[axis], points[a, axis])
    return low, high


@njit(cache=True)
def rasterise(
    points: NDArray[np.float64], origin: NDArray[np.float64], size: float, shape: Integers, gap: float
) -> tuple[Bytes, Bytes]:
    """Mark the bins that hold a point, and those with any point of space nearer than ``gap`` to one.

    Points and gap in Å, from an origin such that ``shape`` leaves room for the reach.
    """
    occupied = np.zeros((shape[0], shape[1], shape[2]), np.uint8)
    x0, y0, z0 = origin
    per = 1 / size
    for a in range(len(points)):
        x, y, z = (points[a, 0] - x0) * per, (points[a, 1] - y0) * per, (points[a, 2] - z0) * per
        occupied[int(x), int(y), int(z)] = 1
    reach = occupied.copy()
    n = int(np.ceil(gap / size))
    inside = _eroded(occupied, n)
    near = np.empty((3, 2 * n + 1))
    for a in range(len(points)):
        x, y, z = (points[a, 0] - x0) * per, (points[a, 1] - y0) * per, (points[a, 2] - z0) * per
        i, j, k = int(x), int(y), int(z)
        if inside[i, j, k]:  # all bins around hold points, too
            continue
        for d in range(-n, n + 1):
            near[0, d + n] = (_distance(x - i, d) * size) ** 2
            near[1, d + n] = (_distance(y - j, d) * size) ** 2
            near[2, d + n] = (_distance(z - k, d) * size) ** 2
        for di in range(2 * n + 1):
            for dj in range(2 * n + 1):
                flat = near[0, di] + near[1, dj]
                if flat >= gap * gap:
                    continue
                for dk in range(2 * n + 1):
                    if flat + near[2, dk] < gap * gap:
                        reach[i + di - n, j + dj - n, k + dk - n] = 1
    return occupied, reach


@njit(cache=True)
def _eroded(mask: Bytes, n: int) -> Bytes:
    """Keep the bins whose neighbours, up to n bins along each axis, are all in a mask that leaves room."""
    inside = np.zeros_like(mask)
    for i in range(n, mask.shape[0] - n):
        for j in range(n, mask.shape[1] - n):
            for k in range(n, mask.shape[2] - n):
                inside[i, j, k] = mask[i, j, k] and _surrounded(mask, i, j, k, n)
    return inside


@njit(cache=True)
def _surrounded(mask: Bytes, i: int, j: int, k: int, n: int) -> bool:
    for di in range(i - n, i + n + 1):
        for dj in range(j - n, j + n + 1):
            for dk in range(k - n, k + n + 1):
                if mask[di, dj, dk] == 0:
                    return False
    return True


@njit(cache=True)
def _distance(within: float, step: int) -> float:
    """Distance along an axis from a point ``within`` its bin (0 to 1) to the bin ``step`` bins on."""
    if step > 0:
        return step - within
    if step < 0:
        return within - step - 1
    return 0.0


@njit(cache=True)
def grown(mask: Bytes) -> Bytes:
    """Add all 26 neighbours of each bin of a mask that leaves room for them."""
    grown = np.zeros_like(mask)
    for i in range(1, mask.shape[0] - 1):
        for j in range(1, mask.shape[1] - 1):
            for k in range(1, mask.shape[2] - 1):
                if mask[i, j, k]:
                    grown[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = 1
    return grown


def voids(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find voids that atoms enclose on all sides, such as the inside of a ferritin.

    A pore counts as closed if nothing 10 Å wide gets through.

    Parameters
    ----------
    points
        (n, 3) x, y, z of atoms in Å.

    Returns
    -------
    ndarray
        (m, 3) x, y, z in Å of points that fill the voids, 6 Å apart.
    """
    size, gap = 6.0, 5.0
    low, high = bounds(points)
    origin = low - 2 * size
    shape = np.ceil((high - low) / size).astype(np.int64) + 5
    _, solid = rasterise(points, origin, size, shape, gap)
    regions, n = ndimage.label(solid == 0)
    if n <= 1:  # only what is around it all
        return np.empty((0, 3))
    return np.asarray(
        (np.argwhere(regions > 0) + 0.5)[regions[regions > 0] != regions[0, 0, 0]] * size + origin
    )
