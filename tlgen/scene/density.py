"""Compute the density of a scene on any voxels: what a perfect tomogram would show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from catalogs.errors import InputError
from tlgen.molecules.envelope import SIGMA_OF_RESOLUTION, atom_masses, share
from tlgen.molecules.molecule import Library
from tlgen.scene import decoration_density
from tlgen.scene.materials import GRAMS_PER_CM3
from tlgen.scene.scene import Grid, Scene


def density(
    scene: Scene, library: Library, *, grid: Grid | None = None, resolution: float | None = None
) -> NDArray[np.float32]:
    """Compute the mass density of molecules and decorations, without the ice.

    Parameters
    ----------
    scene
        What stands where.
    library
        Its molecules, by digest.
    grid
        Voxels; those of the tomogram if left out. Mass beyond them is left out.
    resolution
        Å, as of :func:`tlgen.molecules.envelope.envelope`; twice the voxel size if left out, and not less.

    Returns
    -------
    ndarray
        (z, y, x) of the grid, g/cm³, float32. Hydrogens are not among the atoms.

    Raises
    ------
    InputError
        If the resolution is too fine for the voxels.
    """
    grid = grid or scene.grid
    voxel = grid.voxel_size
    resolution = 2 * voxel if resolution is None else resolution
    if not resolution >= 2 * voxel:
        raise InputError(
            f"a density of {resolution:g} Å resolution cannot be shown in voxels of {voxel:g} Å; "
            f"ask for {2 * voxel:g} Å or more, or for smaller voxels"
        )
    sigma = resolution * SIGMA_OF_RESOLUTION
    margin = int(np.ceil(4 * sigma / voxel)) + 1  # what lies just outside reaches in
    wide = np.zeros(np.array(grid.shape) + 2 * margin, np.float32)
    first = np.array(grid.origin) - margin * voxel - scene.centre  # of voxel 0 from the centre of the box

    def add(xyz: NDArray[np.floating], masses: NDArray[np.floating]) -> None:
        zyx = ((xyz - first) / voxel)[:, ::-1]
        inside = ((zyx >= 0) & (zyx < np.array(wide.shape) - 1)).all(axis=1)
        share(wide, np.ascontiguousarray(zyx[inside], np.float64), masses[inside].astype(np.float64))

    for i in range(len(scene.which)):
        add(scene.atoms(i, library), atom_masses(library[scene.digests[scene.which[i]]].points))
    spacing = min(voxel / 2, 4.0)
    for decoration in scene.decorations:
        mass = decoration_density.Density(lambda material: material.density / GRAMS_PER_CM3)
        for points, masses in decoration_density.integrate(decoration, scene.box, spacing, [mass]):
            add(points, masses[:, 0])
    # sharing out is a triangular filter of variance voxel²/6; the Gaussian does the rest
    rest = np.sqrt(sigma**2 - voxel**2 / 6) / voxel
    smooth = ndimage.gaussian_filter(wide, rest, mode="constant", truncate=4.0)
    inner = slice(margin, -margin)
    return np.asarray(smooth[inner, inner, inner] * np.float32(GRAMS_PER_CM3 / voxel**3), np.float32)
