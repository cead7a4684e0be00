"""Points with weights, placed by rotation and shared out to the pixels of slabs.

Each point goes into the slab that it lies in and there to the four pixels around it, in proportion to how
near it is (bilinear, the square of a pixel's own transfer, which :mod:`tlgen.simulate.multislice.multislice`
takes out again). Sums are in the order of the points, so they are the same to the bit every time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Frame:
    """Where pixels and slabs lie.

    Attributes
    ----------
    step
        Å; edge of a pixel.
    first
        Pixel (x, y) of the centre of the box; pixels' centres have whole numbers.
    half
        Å; half the thickness of all slabs, which lie around the centre of the box.
    thickness
        Å; of a slab.
    """

    step: float
    first: tuple[float, float]
    half: float
    thickness: float

    def transform(
        self, rotation: NDArray[np.float64], position: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Matrix and shift from Å in a structure's frame to pixels and slabs.

        Parameters
        ----------
        rotation, position
            (3, 3) and (3,) Å; of the structure, relative to the centre of the box.
        """
        units = np.array([self.step, self.step, self.thickness])
        shift = position / units + (*self.first, self.half / self.thickness)
        return (rotation / units[:, None]).astype(np.float32), shift.astype(np.float32)


@numba.njit(cache=True, nogil=True)
def depth(positions: NDArray[np.float32], row: NDArray[np.float32]) -> tuple[float, float]:
    """Least and greatest of the points' coordinate along a direction ``row``."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for i in range(len(positions)):
        z = row[0] * positions[i, 0] + row[1] * positions[i, 1] + row[2] * positions[i, 2]
        low, high = min(low, z), max(high, z)
    return float(low), float(high)


@numba.njit(cache=True, nogil=True)
def share(slabs: NDArray[np.float32], x: np.float32, y: np.float32, z: np.float32, w: np.float32) -> None:
    """Share a weight at pixel (x, y) and slab z out to the four pixels around it, in place."""
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
        What they are added to.
    positions
        (m, 3) Å in the structure's frame.
    weights
        (m,) of the points.
    matrix, shift
        Of :meth:`Frame.transform`.
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
    """Add atoms of ``integral[element]`` each to slabs, in place; see :func:`place`.

    ``occupancy`` is (m,), or (1,) where it is the same for all.
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
