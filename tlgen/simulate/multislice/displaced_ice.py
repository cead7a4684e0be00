"""The ice that a structure displaces, computed once and placed together with the structure.

Parakeet reduces its ice in every 1 Å pixel of a slice in which an atom's potential is not zero. This is the
union of the discs of all atoms whose centres lie in the slice. The union depends a little on how the slices
cut the structure. Here it is computed for beams along the six axes of an icosahedron; the mean over these
axes equals the mean over all directions up to fourth order. The result is stored as the covered volume in
small cells of the structure's own frame, each at the centroid of its volume. Placed like atoms, the cells
give the covered volume in any view.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tlgen.molecules import array_cache
from tlgen.molecules.molecule import Molecule
from tlgen.simulate.microscope import potentials

#: Å; edge of the cells.
CELL = 4.0
#: Number of structures whose cells are kept in memory.
KEPT = 512
# Å; Parakeet's pixel size, at which the union is computed.
_PIXEL = 1.0
# Modules that determine the cells, in addition to this one.
_DECIDED_BY = ("tlgen.molecules.molecule", "tlgen.simulate.microscope.potentials")
_GOLDEN = (1 + 5**0.5) / 2
_BEAMS = np.array(
    [(0, 1, _GOLDEN), (0, -1, _GOLDEN), (1, _GOLDEN, 0), (-1, _GOLDEN, 0), (_GOLDEN, 0, 1), (_GOLDEN, 0, -1)]
)


@dataclass(frozen=True, eq=False)
class DisplacedVolume:
    """Volume that a structure covers.

    Attributes
    ----------
    positions
        (n, 3) x, y, z of the cells in Å, in the structure's frame.
    volumes
        (n,) covered volume of each cell, Å³.
    squared_radius
        Mean squared distance of the volume from its cell's centroid, in projection, Å².
    """

    positions: NDArray[np.float32]
    volumes: NDArray[np.float32]
    squared_radius: float


@lru_cache(maxsize=KEPT)
def volume_of(molecule: Molecule, slice_thickness: float, cell: float = CELL) -> DisplacedVolume:
    """Find the volume of ice that a structure displaces, for slices of ``slice_thickness`` Å.

    All atoms of the molecule must be points (:attr:`tlgen.molecules.molecule.Molecule.points`).
    """

    def made() -> dict[str, NDArray[np.float32]]:
        positions, volumes, squared = _found(molecule, slice_thickness, cell)
        return {"positions": positions, "volumes": volumes, "squared_radius": np.array(squared)}

    found = array_cache.cached(
        "displaced-ice", [molecule.digest, slice_thickness, cell], (__name__, *_DECIDED_BY), made
    )
    return DisplacedVolume(found["positions"], found["volumes"], float(found["squared_radius"]))


def _found(
    molecule: Molecule, slice_thickness: float, cell: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    radii = potentials.COVER_RADIUS[molecule.elements]
    cells = _cells(molecule, slice_thickness, cell)
    sums = np.zeros((*cells, 5))  # volume, its first moments and its squared distance
    corner = -cells * cell / 2
    for number, beam in enumerate(_BEAMS):
        # rotate the structure so that the beam is along z; the slices have a different offset for each beam
        matrix = _towards_z(beam)
        xyz = (molecule.positions @ matrix.T).astype(np.float32)
        low = xyz.min(axis=0) - radii.max() - _PIXEL
        low[2] -= slice_thickness * (number + 0.5) / len(_BEAMS)
        slices = ((xyz[:, 2] - low[2]) / slice_thickness).astype(np.int64)
        order = np.argsort(slices, kind="stable")
        width, height = np.ceil((xyz[:, :2].max(axis=0) + radii.max() + 2 * _PIXEL - low[:2]) / _PIXEL)
        stamp = np.full((int(height), int(width)), -1, np.int64)
        _unite(
            sums, stamp, xyz[order], slices[order], radii[order], low, slice_thickness, matrix, corner, cell
        )
    filled = sums[sums[..., 0] > 0]
    volumes, positions = filled[:, 0], filled[:, 1:4] / filled[:, :1]
    spread = filled[:, 4] - volumes * (positions**2).sum(axis=1)
    # a projection has two of the three dimensions, and a covered point is one pixel wide in it
    return (
        positions.astype(np.float32),
        (volumes / len(_BEAMS)).astype(np.float32),
        float(2 / 3 * spread.sum() / volumes.sum() + _PIXEL**2 / 6) if len(volumes) else 0.0,
    )


def memory(molecules: Iterable[Molecule], slice_thickness: float) -> int:
    """Bytes for the cells of some structures, including the memory needed to compute them."""
    kept, working = 0, 0
    for molecule in molecules:
        kept += 10 * molecule.n_atoms  # a cell for every two or three atoms
        working = max(
            working, 40 * int(_cells(molecule, slice_thickness, CELL).prod()) + 60 * molecule.n_atoms
        )
    return kept + working


def _cells(molecule: Molecule, slice_thickness: float, cell: float) -> NDArray[np.int64]:
    """Count the cells along each axis, around the structure's centre."""
    reach = np.abs(molecule.positions).max(axis=0) + potentials.COVER_RADIUS.max() + slice_thickness
    return np.ceil(2 * reach / cell).astype(np.int64) + 2


def _towards_z(beam: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation that maps a direction to z."""
    rotation, _ = Rotation.align_vectors([[0, 0, 1]], [beam / np.linalg.norm(beam)])
    return np.asarray(rotation.as_matrix())


@numba.njit(cache=True, nogil=True)
def _unite(
    sums: NDArray[np.float64],
    stamp: NDArray[np.int64],
    xyz: NDArray[np.float32],
    slices: NDArray[np.int64],
    radii: NDArray[np.float32],
    low: NDArray[np.float32],
    thickness: float,
    matrix: NDArray[np.float64],
    corner: NDArray[np.float64],
    cell: float,
) -> None:
    """Add the union of the discs of atoms, sorted by slice, to the cells of the structure's frame."""
    volume = _PIXEL * _PIXEL * thickness
    ny, nx = stamp.shape
    for i in range(len(xyz)):
        r = radii[i] / _PIXEL
        x, y = (xyz[i, 0] - low[0]) / _PIXEL, (xyz[i, 1] - low[1]) / _PIXEL
        z = low[2] + (slices[i] + 0.5) * thickness
        for iy in range(max(int(np.ceil(y - r)), 0), min(int(np.floor(y + r)) + 1, ny)):
            w = np.sqrt(max(r * r - (iy - y) * (iy - y), 0.0))
            for ix in range(max(int(np.ceil(x - w)), 0), min(int(np.floor(x + w)) + 1, nx)):
                if stamp[iy, ix] == slices[i]:
                    continue
                stamp[iy, ix] = slices[i]
                px, py = low[0] + ix * _PIXEL, low[1] + iy * _PIXEL
                # the transpose is the inverse rotation
                a = matrix[0, 0] * px + matrix[1, 0] * py + matrix[2, 0] * z
                b = matrix[0, 1] * px + matrix[1, 1] * py + matrix[2, 1] * z
                c = matrix[0, 2] * px + matrix[1, 2] * py + matrix[2, 2] * z
                ka = int((a - corner[0]) / cell)
                kb = int((b - corner[1]) / cell)
                kc = int((c - corner[2]) / cell)
                s = sums[ka, kb, kc]
                s[0] += volume
                s[1] += volume * a
                s[2] += volume * b
                s[3] += volume * c
                s[4] += volume * (a * a + b * b + c * c)


__all__ = ["CELL", "DisplacedVolume", "memory", "volume_of"]
