"""The packing of the paper's own program, for comparison, or to reproduce what was published.

The rule of Harastani et al. on their grid: maps at 32 Å resolution on voxels of 16 Å are smoothed and
thresholded. The core of a molecule, two voxels inside its surface, must be free; the molecule is placed where
the layer around the core has the largest overlap with other molecules. A margin of half a map's width stays
empty along all faces, and packing ends with the first molecule that does not fit. Molecules may touch and
overlap a little; :func:`tlgen.packing.tetris.pack` keeps a gap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from catalogs.seeds import generator
from tlgen.molecules.molecule import Library, Molecule
from tlgen.packing import obstacles
from tlgen.packing.obstacles import Bytes, Integers
from tlgen.packing.quantities import Request
from tlgen.packing.tetris import Packing, summed_up

#: Å; edge of a voxel.
VOXEL_SIZE = 16.0
#: Voxels along each axis of a molecule's map.
MAP_SIZE = 22
#: Å; resolution of the maps. Each atom is Z exp(-(pi r / resolution)²), as EMAN's pdb2mrc has it.
RESOLUTION = 32.0
#: Voxels; standard deviation of the Gaussian that smooths a map, and the scene.
SMOOTHING = 1.65
#: Grey level at which a molecule ends.
LEVEL = 100.0
#: Voxels from the surface to the core.
DEPTH = 2

#: Å; spacing of the grid on which a smoothed map is kept, to be turned.
_SPACING = 8.0


def pack_as_published(
    shape: tuple[int, int, int], requests: Sequence[Request], library: Library, *, seed: int, rounds: int = 5
) -> Packing:
    """Pack molecules by the paper's rule on the paper's grid.

    Parameters
    ----------
    shape
        Voxels of 16 Å of the box along z, y, x.
    requests
        In the order in which they are placed; ``count`` is that of a round.
    library
        The molecules, by digest.
    seed
        The same seed gives the same packing, anywhere.
    rounds
        How many times the requests are repeated, unless the box is full before.

    Returns
    -------
    Packing
        Up to the first molecule that did not fit, which is the one that is saturated.

    Raises
    ------
    InputError
        If the box is not wider than a map, or a molecule is too big for one.
    """
    if min(shape) <= MAP_SIZE + 2:
        raise InputError(f"the box must be more than {MAP_SIZE + 2} voxels wide, not {shape}")
    rng = generator(seed, "published")
    molecules = [library[request.digest].points for request in requests]
    maps = {
        digest: _smoothed(library[digest].points) for digest in {request.digest: None for request in requests}
    }
    scene = _Scene(shape)
    which, corners, quaternions = [], [], []
    full = -1
    for i in (i for _ in range(rounds) for i, r in enumerate(requests) for _ in range(r.count)):
        quaternion = rng.normal(size=4)
        quaternion /= np.linalg.norm(quaternion)
        grey = _turned(*maps[requests[i].digest], Rotation.from_quat(quaternion).as_matrix())
        corner = scene.place(grey, int(rng.integers(2**63)))
        if corner is None:
            full = i
            break
        which.append(i)
        corners.append(corner)
        quaternions.append(quaternion)
    box = np.array(shape[::-1], np.float64) * VOXEL_SIZE
    positions = (np.array(corners, np.float64).reshape(-1, 3) + MAP_SIZE // 2) * VOXEL_SIZE - box / 2
    placed = np.array(which, np.int64)
    return summed_up(
        requests,
        np.array([rounds * request.count for request in requests], np.int64),
        placed,
        positions,
        np.array(quaternions, np.float64).reshape(-1, 4),
        {full} - {-1},
        np.array([m.mass for m in molecules], np.float64),
        np.array([molecules[i].mass for i in placed], np.float64),
        float(box.prod()),
    )


class _Scene:
    """The smoothed grey scene, and its bits."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        nx, ny, nz = shape[::-1]
        words = -(-nz // obstacles.BITS)
        self.grey = np.zeros((nx, ny, nz), np.float32)
        self.columns = np.zeros((nx, ny, words + 1), np.uint64)
        self.copies = np.zeros((obstacles.SPANS, words + 2, nx, ny + obstacles.BLOCK), np.uint64)
        # The original leaves one voxel more than half a map empty at each face.
        self.lo = np.ones(3, np.int64)
        self.hi = np.array([nx, ny, nz]) - MAP_SIZE - 1
        # Nothing stands beyond the first and the last corner of a map.
        self.first = np.array([nx, ny, nz])
        self.last = np.zeros(3, np.int64)
        self.empty = True

    def place(self, grey: NDArray[np.float32], salt: int) -> Integers | None:
        """Find the place for a map, and put it there; returns the corner, or None if there is none."""
        if self.empty:
            corner = np.array(self.grey.shape) // 2 - MAP_SIZE // 2
            self.empty = False
        else:
            found = self._search(grey, np.uint64(salt))
            if found is None:
                return None
            corner = found
        self.first, self.last = np.minimum(self.first, corner), np.maximum(self.last, corner)
        x, y, z = corner
        part = self.grey[x : x + MAP_SIZE, y : y + MAP_SIZE, z : z + MAP_SIZE]
        part += grey
        first, mask = _cropped(part > LEVEL, 0)
        obstacles.stamp(self.columns, self.copies, mask, corner + first)
        return corner

    def _search(self, grey: NDArray[np.float32], salt: np.uint64) -> Integers | None:
        first, solid = _cropped(grey > LEVEL, DEPTH)
        core, shell = _core_and_shell(solid)
        lo = np.maximum(self.lo, self.first - MAP_SIZE) + first
        hi = np.minimum(self.hi, self.last + MAP_SIZE + 1) + first
        allowed = obstacles.bits(int(lo[2]), int(hi[2]), self.copies.shape[1] - 2)
        forbidden = obstacles.forbidden(
            self.copies,
            _NONE,  # a core has so few bins that cubes would gain nothing
            obstacles.spans(obstacles.runs(core)),
            _NONE,
            allowed,
            lo,
            hi,
        )
        runs = obstacles.runs(shell)
        for wedged in (True, False):
            corners = obstacles.candidates(forbidden, allowed, lo, hi, 1 << 16, salt, wedged)
            contact, best = obstacles.most_contact(self.columns, corners, runs, 40, salt)
            if contact > 0:
                return np.asarray(corners[best] - first)
        return None


_NONE = np.empty((0, 4), np.int64)


def _smoothed(molecule: Molecule) -> tuple[NDArray[np.float32], float]:
    """Compute a molecule's map, already smoothed, with its centre in the middle of voxel n // 2.

    Returns the map, and the voxels of the scene from its centre beyond which there is next to nothing.
    """
    half = int(np.ceil(MAP_SIZE / 2 * VOXEL_SIZE / _SPACING)) + 1
    if np.abs(molecule.positions).max() > MAP_SIZE // 2 * VOXEL_SIZE:
        raise InputError(f"molecule {molecule.name} is too big for a map of {MAP_SIZE} voxels of 16 Å")
    n = 2 * half + 1
    cells = np.ravel_multi_index(
        tuple(np.rint(molecule.positions / _SPACING).astype(np.int64).T + half), (n,) * 3
    )
    electrons = np.bincount(cells, weights=molecule.elements * molecule.occupancy, minlength=n**3).reshape(
        n, n, n
    )
    width = RESOLUTION / np.pi  # of exp(-r²/width²), whose integral is (width √π)³
    sigma = np.sqrt(width**2 / 2 + (SMOOTHING * VOXEL_SIZE) ** 2)
    density = (
        ndimage.gaussian_filter(electrons.astype(np.float32), sigma / _SPACING, mode="constant", truncate=3.0)
        / _SPACING**3
    )
    radius = np.linalg.norm(molecule.positions, axis=1).max() + 2.5 * sigma
    return np.ascontiguousarray(density * (width * np.sqrt(np.pi)) ** 3, np.float32), radius / VOXEL_SIZE


@njit(cache=True)
def _turned(grid: NDArray[np.float32], radius: float, rotation: NDArray[np.float64]) -> NDArray[np.float32]:
    """Sample a rotated map on the voxels [x, y, z] of the scene, by trilinear interpolation."""
    out = np.zeros((MAP_SIZE, MAP_SIZE, MAP_SIZE), np.float32)
    half, n = grid.shape[0] // 2, grid.shape[0]
    scale, middle = VOXEL_SIZE / _SPACING, MAP_SIZE // 2
    for x in range(MAP_SIZE):
        for y in range(MAP_SIZE):
            for z in range(MAP_SIZE):
                if (x - middle) ** 2 + (y - middle) ** 2 + (z - middle) ** 2 > radius * radius:
                    continue
                a, b, c = (x - middle) * scale, (y - middle) * scale, (z - middle) * scale
                u = rotation[0, 0] * a + rotation[1, 0] * b + rotation[2, 0] * c + half
                v = rotation[0, 1] * a + rotation[1, 1] * b + rotation[2, 1] * c + half
                w = rotation[0, 2] * a + rotation[1, 2] * b + rotation[2, 2] * c + half
                if not (0 <= u < n - 1 and 0 <= v < n - 1 and 0 <= w < n - 1):
                    continue
                i, j, k = int(u), int(v), int(w)
                u -= i
                v -= j
                w -= k
                low = (1 - v) * ((1 - w) * grid[i, j, k] + w * grid[i, j, k + 1])
                low += v * ((1 - w) * grid[i, j + 1, k] + w * grid[i, j + 1, k + 1])
                high = (1 - v) * ((1 - w) * grid[i + 1, j, k] + w * grid[i + 1, j, k + 1])
                high += v * ((1 - w) * grid[i + 1, j + 1, k] + w * grid[i + 1, j + 1, k + 1])
                out[x, y, z] = (1 - u) * low + u * high
    return out


@njit(cache=True)
def _cropped(mask: NDArray[np.bool_], margin: int) -> tuple[Integers, Bytes]:
    """Cut a mask to what is set, with a margin: the first voxel and the mask; an empty one to its middle."""
    first, last = np.full(3, MAP_SIZE), np.full(3, -1)
    for x in range(MAP_SIZE):
        for y in range(MAP_SIZE):
            for z in range(MAP_SIZE):
                if mask[x, y, z]:
                    first[0], last[0] = min(first[0], x), max(last[0], x)
                    first[1], last[1] = min(first[1], y), max(last[1], y)
                    first[2], last[2] = min(first[2], z), max(last[2], z)
    if last[0] < 0:
        first[:] = last[:] = MAP_SIZE // 2
    first, last = np.maximum(first - margin, 0), np.minimum(last + margin, MAP_SIZE - 1)
    part = mask[first[0] : last[0] + 1, first[1] : last[1] + 1, first[2] : last[2] + 1]
    return first, part.astype(np.uint8)


@njit(cache=True)
def _core_and_shell(solid: Bytes) -> tuple[Bytes, Bytes]:
    """Divide a binarised map into what may touch nothing and the layer around."""
    closed = 1 - _dilated(1 - _dilated(solid, 1), 1)
    core = 1 - _dilated(1 - closed, DEPTH)
    # The original's core is empty for a small molecule, which then goes right into another one.
    if not core.any():
        core[core.shape[0] // 2, core.shape[1] // 2, core.shape[2] // 2] = 1
    return core, closed * (1 - core)


@njit(cache=True)
def _dilated(mask: Bytes, radius: int) -> Bytes:
    """Dilate a mask by a ball."""
    nx, ny, nz = mask.shape
    out = mask.copy()
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if mask[x, y, z] == 0 or _buried(mask, x, y, z):
                    continue
                for i in range(max(0, x - radius), min(nx, x + radius + 1)):
                    for j in range(max(0, y - radius), min(ny, y + radius + 1)):
                        for k in range(max(0, z - radius), min(nz, z + radius + 1)):
                            if (i - x) ** 2 + (j - y) ** 2 + (k - z) ** 2 <= radius * radius:
                                out[i, j, k] = 1
    return out


@njit(cache=True)
def _buried(mask: Bytes, x: int, y: int, z: int) -> bool:
    """Tell whether all six neighbours, as far as there are any, are in the mask."""
    nx, ny, nz = mask.shape
    return bool(
        (x == 0 or mask[x - 1, y, z])
        and (x == nx - 1 or mask[x + 1, y, z])
        and (y == 0 or mask[x, y - 1, z])
        and (y == ny - 1 or mask[x, y + 1, z])
        and (z == 0 or mask[x, y, z - 1])
        and (z == nz - 1 or mask[x, y, z + 1])
    )
