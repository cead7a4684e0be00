"""Divide the scene into slabs across the beam: the pixel grid, the position of the slabs, and their contents.

None of this depends on the device. :mod:`tlgen.simulate.multislice.on_cpu` and
:mod:`tlgen.simulate.multislice.on_gpu` fill the slabs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Library, Molecule
from tlgen.scene.scene import Scene
from tlgen.simulate.microscope import optics, potentials
from tlgen.simulate.microscope.ice import layer
from tlgen.simulate.multislice import displaced_ice, splat
from tlgen.simulate.specimen import ice_overhang, tilt_rotation
from tlgen.tilts.scheme import Tilt

#: Pixels are at most 2 Å or a sixth of a voxel, whichever is larger. Scattering beyond the grid's
#: frequencies also affects lower ones: with pixels of a quarter of a 16 Å voxel, the largest features of an
#: image had a tenth too little power.
FINEST_GRID, PIXELS_PER_VOXEL = 2.0, 6
THINNEST_SLAB, THICKEST_SLAB = 20.0, 200.0  # Å


def slab(voxel_size: float) -> float:
    """Largest thickness of a slab in Å that does not affect images with voxels of ``voxel_size`` Å.

    An atom is out of focus by at most half a slab. At 300 kV, the resulting phase error at the voxels'
    Nyquist frequency is 0.016 radians.
    """
    return min(max(2 * voxel_size**2, THINNEST_SLAB), THICKEST_SLAB)


@dataclass(frozen=True)
class Grid:
    """Grid of ``nx`` by ``ny`` pixels of ``step`` Å; the image starts at pixel (x0, y0)."""

    step: float
    nx: int
    ny: int
    x0: int
    y0: int
    oversampling: int

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of an array over the grid, (ny, nx)."""
        return self.ny, self.nx


def grid_of(scene: Scene, acq: Acquisition) -> Grid:
    """Choose the grid for the image and its padding; InputError if voxel sizes differ."""
    optics.check_voxel_size(scene, acq)
    return grid_for(scene.shape, acq)


def grid_for(shape: tuple[int, int, int], acq: Acquisition) -> Grid:
    """Choose the grid for the image of a scene of ``shape`` (z, y, x) voxels, with its padding."""
    oversampling = ceil(acq.voxel_size / max(FINEST_GRID, acq.voxel_size / PIXELS_PER_VOXEL))
    step = acq.voxel_size / oversampling
    margin = ceil(acq.padding / step)
    inner = [n * oversampling for n in (shape[2], shape[1])]
    nx, ny = (scipy.fft.next_fast_len(n + 2 * margin) for n in inner)
    return Grid(step, nx, ny, (nx - inner[0]) // 2, (ny - inner[1]) // 2, oversampling)


class Standing(NamedTuple):
    """A molecule of points and its position, as ``Frame.transform`` gives it (:mod:`.splat`)."""

    molecule: Molecule
    matrix: NDArray[np.float32]
    shift: NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """The specimen at one tilt, divided into slabs.

    Attributes
    ----------
    scene, tilt
        The scene, and the tilt.
    frame
        Position of pixels and slabs.
    slabs
        Number of slabs.
    standing
        All copies of all molecules.
    ice
        (slabs, nx) share of each slab's column that the block of ice fills; it is constant along y.
    squared_radius
        Mean squared radius of the atoms' projected potentials, Å².
    squared_radius_covered
        Mean squared radius of the covered volume that each point represents, Å².
    """

    scene: Scene
    tilt: Tilt
    frame: splat.Frame
    slabs: int
    standing: tuple[Standing, ...]
    ice: NDArray[np.float32]
    squared_radius: float
    squared_radius_covered: float

    def depth(self, k: int) -> float:
        """Position of a slab's centre along the beam, Å from the centre of the box."""
        return (k + 0.5 - self.slabs / 2) * self.frame.thickness


def lay_out(scene: Scene, library: Library, acq: Acquisition, tilt: Tilt, grid: Grid) -> Layout:
    """Rotate a scene to a tilt, and divide all of it into slabs across the beam."""
    turn = tilt_rotation(tilt.angle)
    any_molecules = bool(len(scene.which))
    rotations = (turn * Rotation.from_quat(scene.quaternions)).as_matrix() if any_molecules else ()
    positions = turn.apply(scene.positions) if any_molecules else ()
    molecules = {k: library[scene.digests[k]].points for k in np.unique(scene.which).tolist()}
    placed = [(molecules[k], r, p) for k, r, p in zip(scene.which, rotations, positions, strict=True)]

    half = 0.0
    for molecule, rotation, position in placed:
        low, high = splat.depth(molecule.positions, rotation[2].astype(np.float32))
        half = max(half, -(low + position[2]), high + position[2])
    if acq.ice_density or scene.decorations:
        overhang = ice_overhang(scene, tilt.angle, grid.x0 * grid.step) if acq.ice_density else 0.0
        half = max(half, layer(scene, acq).reach(scene.box[0] / 2 + overhang, tilt.angle))
    slabs = max(1, ceil(2 * half / slab(scene.voxel_size)))
    # pixel coordinates of the centre of the box; pixel centres are at whole numbers
    first = (scene.box[0] / 2 / grid.step + grid.x0 - 0.5, scene.box[1] / 2 / grid.step + grid.y0 - 0.5)
    frame = splat.Frame(grid.step, first, half, max(2 * half, 1.0) / slabs)

    of_atoms, of_cover = _squared_radii(scene, molecules, acq)
    ice = _ice_profile(scene, acq, tilt, grid, slabs, frame.thickness)
    standing = tuple(Standing(m, *frame.transform(rotation, position)) for m, rotation, position in placed)
    return Layout(scene, tilt, frame, slabs, standing, ice, of_atoms, of_cover)


def _squared_radii(scene: Scene, molecules: dict[int, Molecule], acq: Acquisition) -> tuple[float, float]:
    """Mean squared radii in projection, Å²: of atoms weighted by potential, of covered cells by volume."""
    scattering = potentials.scattering(acq.contrast)
    copies = np.bincount(scene.which, minlength=len(scene.digests)) if molecules else np.zeros(0)
    radii = np.zeros((2, 2))  # for atoms and for cells: sums of weights, and of weights times squared radii
    for k, molecule in molecules.items():
        counts = np.bincount(molecule.elements, molecule.occupancy, minlength=len(scattering.integral))
        weight = copies[k] * counts * scattering.integral
        radii[0] += weight.sum(), (weight * scattering.squared_radius).sum()
        if acq.ice_density:
            cells = displaced_ice.volume_of(molecule, acq.slice_thickness)
            volume = copies[k] * float(cells.volumes.sum(dtype=np.float64))
            radii[1] += volume, volume * cells.squared_radius
    of_atoms, of_cover = (float(moment / total) if total else 0.0 for total, moment in radii)
    return of_atoms, of_cover


def _ice_profile(
    scene: Scene, acq: Acquisition, tilt: Tilt, grid: Grid, slabs: int, thickness: float
) -> NDArray[np.float32]:
    """Share of each column of a slab that lies in the tilted block of ice."""
    angle = np.radians(tilt.angle)
    parts = max(8, ceil(thickness / 2.5))
    x = (np.arange(grid.nx) - grid.x0 + 0.5) * grid.step - scene.box[0] / 2
    z = (np.arange(slabs * parts) + 0.5 - slabs * parts / 2) * thickness / parts
    # rotated back to the frame of the untilted block
    x_block = x * np.cos(angle) - z[:, None] * np.sin(angle)
    z_block = x * np.sin(angle) + z[:, None] * np.cos(angle)
    # at least one pixel beyond the margin, so that an untilted block fills the grid to its last pixel
    end = scene.box[0] / 2 + ice_overhang(scene, tilt.angle, (grid.x0 + 1) * grid.step)
    inside = (np.abs(x_block) <= end) & layer(scene, acq).inside(x_block, z_block)
    return np.asarray(inside.reshape(slabs, parts, grid.nx).mean(axis=1), np.float32)
