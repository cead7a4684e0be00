"""Add weighted points to the pixels of slabs, after rotation and shift.

Each point is added to the slab in which it lies, where its weight is distributed over the four surrounding
pixels by bilinear interpolation. This multiplies the transform by the square of a pixel's own transfer
function, which :mod:`tlgen.simulate.multislice.wave` divides out again. Points are added in their order, so
the sums are the same to the last bit every time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Frame:
    """Position of pixels and slabs.

    Attributes
    ----------
    step
        Å; edge of a pixel.
    first
        Pixel coordinates (x, y) of the centre of the box; pixel centres are at whole numbers.
    half
        Å; half of the total thickness of all slabs, which are centred on the box.
    thickness
        Å; thickness of a slab.
    """

    step: float
    first: tuple[float, float]
    half: float
    thickness: float

    def transform(
        self, rotation: NDArray[np.float64], position: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Matrix and shift that convert Å in a structure's frame to pixels and slabs.

        Parameters
        ----------
        rotation, position
            (3, 3) and (3,) Å; rotation of the structure, and its position relative to the centre of the box.
        """
        units = np.array([self.step, self.step, self.thickness])
        shift = position / units + (*self.first, self.half / self.thickness)
        return (rotation / units[:, None]).astype(np.float32), shift.astype(np.float32)


@numba.njit(cache=True, nogil=True)
def depth(positions: NDArray[np.float32], row: NDArray[np.float32]) -> tuple[float, float]:
    """Smallest and largest coordinate of the points along a direction ``row``."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for i in range(len(positions)):
        z = row[0] * positions[i, 0] + row[1] * positions[i, 1] + row[2] * positions[i, 2]
        low, high = min(low, z), max(high, z)
    return float(low), float(high)


@numba.njit(cache=True, nogil=True)
def share(slabs: NDArray[np.float32], x: np.float32, y: np.float32, z: np.float32, w: np.float32) -> None:
    """Distribute a weight at pixel (x, y) and slab z over the four pixels around it, in place."""
    n, ny, nx = slabs.shape
    if not (x >= 0 and y >= 0 and x < nx - 1 and y < ny - 1):
        return
    ix, iy = int(x), int(y)
    k = min(max(int(z), 0), n - 1)
    fx, fy = x - np.float32(ix), y - np.float32(iy)
    one = np.float32(1)
    lower, upper = w * (one - fy), w * fy
    slabs[k, iy, ix] += lower * (one - fx)
    slabs[k, iy, ix + 1] += lower * fx
    slabs[k, iy + 1, ix] += upper * (one - fx)
    slabs[k, iy + 1, ix + 1] += upper * fx


@numba.njit(cache=True, nogil=True)
def place(
    slabs: NDArray[np.float32],
    positions: NDArray[np.float32],
    weights: NDArray[np.float32],
    matrix: NDArray[np.float32],
    shift: NDArray[np.float32],
) -> None:
    """Add points to slabs (n, ny, nx), in place.

    Parameters
    ----------
    slabs
        The slabs to add to.
    positions
        (m, 3) Å in the structure's frame.
    weights
        (m,) weights of the points.
    matrix, shift
        From :meth:`Frame.transform`.
    """
    m, s = matrix, shift
    for i in range(len(positions)):
        a, b, c = positions[i, 0], positions[i, 1], positions[i, 2]
        x = m[0, 0] * a + m[0, 1] * b + m[0, 2] * c + s[0]
        y = m[1, 0] * a + m[1, 1] * b + m[1, 2] * c + s[1]
        z = m[2, 0] * a + m[2, 1] * b + m[2, 2] * c + s[2]
        share(slabs, x, y, z, weights[i])


@numba.njit(cache=True, nogil=True)
def place_atoms(
    slabs: NDArray[np.float32],
    positions: NDArray[np.float32],
    elements: NDArray[np.uint8],
    occupancy: NDArray[np.float32],
    integral: NDArray[np.float32],
    matrix: NDArray[np.float32],
    shift: NDArray[np.float32],
) -> None:
    """Add atoms to slabs, each with the weight ``integral[element]``, in place; see :func:`place`.

    ``occupancy`` is (m,), or (1,) if it is the same for all atoms.
    """
    m, s = matrix, shift
    each = len(occupancy) > 1
    for i in range(len(positions)):
        a, b, c = positions[i, 0], positions[i, 1], positions[i, 2]
        x = m[0, 0] * a + m[0, 1] * b + m[0, 2] * c + s[0]
        y = m[1, 0] * a + m[1, 1] * b + m[1, 2] * c + s[1]
        z = m[2, 0] * a + m[2, 1] * b + m[2, 2] * c + s[2]
        share(slabs, x, y, z, integral[elements[i]] * occupancy[i if each else 0])


__all__ = ["Frame", "depth", "place", "place_atoms", "share"]
