"""Atoms -> density -> envelope: the region that a molecule fills at a given resolution, in its own frame.

The density is computed once per molecule, on a fine grid around the molecule's centre. Other voxel sizes,
rotations and positions are obtained by sampling that grid, so that the voxel grid cannot introduce a shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from catalogs.errors import InputError
from tlgen.molecules import array_cache
from tlgen.molecules.molecule import Molecule

#: Å; the resolution of a molecule's envelope.
RESOLUTION = 15.0

#: Share of the molecule's mass that lies inside its envelope.
ENCLOSED = 0.9

#: Standard deviation of the Gaussian atom divided by the resolution: 1/(pi sqrt 2). Its Fourier transform
#: falls to 1/e at the resolution (the convention of EMAN's pdb2mrc and ChimeraX's molmap).
SIGMA_OF_RESOLUTION = 1 / (np.pi * np.sqrt(2))


@dataclass(frozen=True, eq=False)
class Envelope:
    """Density of a molecule in its own frame, and the contour that bounds it.

    Attributes
    ----------
    density
        (nz, ny, nx) Da/Å³, float32; every length is odd. The middle voxel is at the molecule's centre.
    spacing
        Å between voxels.
    threshold
        Da/Å³; the envelope is the region where the density is at least this.
    """

    density: NDArray[np.float32]
    spacing: float
    threshold: float

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(nz, ny, nx), True inside the envelope."""
        return self.density >= np.float32(self.threshold)

    @property
    def volume(self) -> float:
        """Volume of the envelope in Å³."""
        return float(np.count_nonzero(self.inside)) * self.spacing**3

    @property
    def radius(self) -> float:
        """Radius in Å of a sphere around the molecule's centre that holds the whole envelope."""
        farthest = np.sqrt((self._coordinates(self.inside) ** 2).sum(axis=1).max())
        return float(
            farthest + np.sqrt(3) * self.spacing
        )  # the contour may pass just outside a voxel's centre

    def _coordinates(self, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        middle = (np.array(mask.shape) - 1) / 2
        return np.ascontiguousarray(((np.argwhere(mask) - middle) * self.spacing)[:, ::-1])


def envelope(molecule: Molecule, *, resolution: float = RESOLUTION, enclosed: float = ENCLOSED) -> Envelope:
    """Compute the envelope of a molecule: Gaussian atoms weighted by mass, and a contour that encloses mass.

    Parameters
    ----------
    molecule
        The molecule.
    resolution
        Å; the atoms are Gaussians with a standard deviation of ``resolution / (pi sqrt 2)``.
    enclosed
        Share of the mass inside the contour.

    Returns
    -------
    Envelope
        With voxels of a fifth of the resolution.

    Raises
    ------
    InputError
        If the molecule has no atoms, the resolution is not positive, or the share is not in (0, 1).
    """
    if molecule.n_atoms == 0:
        raise InputError(f"molecule {molecule.name!r} has no atoms; give a structure that has some")
    if not resolution > 0:
        raise InputError(f"the envelope's resolution must be positive, in Å, not {resolution}")
    if not 0 < enclosed < 1:
        raise InputError(f"the mass enclosed by the envelope must be between 0 and 1, not {enclosed}")

    def made() -> dict[str, NDArray[Any]]:
        density, threshold = _drawn(molecule.points, resolution, enclosed)
        return {"density": density, "threshold": np.array(threshold)}

    decided_by = (__name__, "tlgen.molecules.molecule")
    found = array_cache.cached("envelopes", [molecule.digest, resolution, enclosed], decided_by, made)
    return Envelope(found["density"], resolution / 5, float(found["threshold"]))


def _drawn(molecule: Molecule, resolution: float, enclosed: float) -> tuple[NDArray[np.float32], float]:
    """Density of a molecule whose atoms are points, and its contour; see :func:`envelope`."""
    spacing = resolution / 5
    sigma = resolution * SIGMA_OF_RESOLUTION
    # Each atom is distributed over 8 voxels, and reading the grid interpolates between 8. Both act as
    # triangular filters of variance spacing²/6; the Gaussian supplies the rest of the variance.
    rest = np.sqrt(sigma**2 - spacing**2 / 3) / spacing
    reach = np.abs(molecule.positions).max(axis=0)[::-1]  # z, y, x
    half = np.ceil((reach + 4 * sigma) / spacing).astype(np.int64) + 1
    grid = np.zeros(2 * half + 1, np.float32)
    share(grid, molecule.positions[:, ::-1].astype(np.float64) / spacing + half, atom_masses(molecule))
    density = ndimage.gaussian_filter(grid, rest, mode="constant", truncate=4.0) / np.float32(spacing**3)
    return density, _contour(density, enclosed)


def atom_masses(molecule: Molecule) -> NDArray[np.float64]:
    """Distribute the mass of a molecule over its atoms: (n,), in dalton.

    Masses are proportional to the atomic number, which is within 1 % from C to S. Their sum is the
    molecule's mass.
    """
    masses = np.asarray(molecule.elements * molecule.occupancy, np.float64)
    return masses * (molecule.mass / masses.sum())


def _contour(density: NDArray[np.float32], enclosed: float) -> float:
    """Find the density above which a share ``enclosed`` of the mass lies."""
    values = np.sort(density[density > 0])[::-1]
    mass = np.cumsum(values, dtype=np.float64)
    return float(values[np.searchsorted(mass, enclosed * mass[-1])])


@njit(cache=True)
def share(grid: NDArray[np.float32], positions: NDArray[np.float64], masses: NDArray[np.float64]) -> None:
    """Add each mass to the 8 voxels around its position (z, y, x in voxels), keeping the centre of mass."""
    for a in range(len(positions)):
        z, y, x = positions[a]
        k, j, i = int(z), int(y), int(x)
        w, v, u = z - k, y - j, x - i
        for dk in range(2):
            for dj in range(2):
                for di in range(2):
                    share = (w if dk else 1 - w) * (v if dj else 1 - v) * (u if di else 1 - u)
                    grid[k + dk, j + dj, i + di] += masses[a] * share
