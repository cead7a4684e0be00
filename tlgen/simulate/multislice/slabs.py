"""The scene in slabs across the beam: how fine the grid is, where the slabs lie and what stands in them.

None of this depends on what computes the images; :mod:`tlgen.simulate.multislice.on_cpu` and
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

#: Å; pixels are at most this, or a sixth of a voxel. What is scattered beyond the grid's frequencies is not
#: lost to the others: with a quarter of 16 Å, the image's largest features had a tenth too little power.
FINEST_GRID, PIXELS_PER_VOXEL = 2.0, 6
THINNEST_SLAB, THICKEST_SLAB = 20.0, 200.0  # Å


def slab(voxel_size: float) -> float:
    """Thickness of a slab in Å, at most, that changes nothing at so large a voxel (Å).

    Half a slab is by how much an atom is out of focus at most; the phase that this makes at the voxels'
    Nyquist frequency is 0.016 radians at 300 kV.
    """
    return min(max(2 * voxel_size**2, THINNEST_SLAB), THICKEST_SLAB)


@dataclass(frozen=True)
class Grid:
    """``nx`` by ``ny`` pixels of ``step`` Å; the image starts at pixel (x0, y0)."""

    step: float
    nx: int
    ny: int
    x0: int
    y0: int
    oversampling: int

    @property
    def shape(self) -> tuple[int, int]:
        """Of an array of the pixels."""
        return self.ny, self.nx


def grid_of(scene: Scene, acq: Acquisition) -> Grid:
    """Lay a grid over the image and the padding around it; InputError if voxel sizes differ."""
    optics.check_voxel_size(scene, acq)
    return grid_for(scene.shape, acq)


def grid_for(shape: tuple[int, int, int], acq: Acquisition) -> Grid:
    """Lay a grid over the image of ``shape`` (z, y, x) voxels and the padding around it."""
    oversampling = ceil(acq.voxel_size / max(FINEST_GRID, acq.voxel_size / PIXELS_PER_VOXEL))
    step = acq.voxel_size / oversampling
    margin = ceil(acq.padding / step)
    inner = [n * oversampling for n in (shape[2], shape[1])]
    nx, ny = (scipy.fft.next_fast_len(n + 2 * margin) for n in inner)
    return Grid(step, nx, ny, (nx - inner[0]) // 2, (ny - inner[1]) // 2, oversampling)


class Standing(NamedTuple):
    """A molecule of points and where it stands: its ``Frame.transform`` (:mod:`.splat`)."""

    molecule: Molecule
    matrix: NDArray[np.float32]
    shift: NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """What the wave meets at one tilt.

    Attributes
    ----------
    scene, tilt
        What was laid out.
    frame
        Where pixels and slabs lie.
    slabs
        Their number.
    standing
        Every copy of a molecule.
    ice
        (slabs, nx) share of the slab that the block of ice fills; it is the same along y.
    squared_radius
        Mean of the atoms' projected potentials, Å².
    squared_radius_covered
        The same of what is put to one point of the covered volume.
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
        """Centre of a slab along the beam, Å from the centre of the box."""
        return (k + 0.5 - self.slabs / 2) * self.frame.thickness


def lay_out(scene: Scene, library: Library, acq: Acquisition, tilt: Tilt, grid: Grid) -> Layout:
    """Turn a scene to a tilt and lay slabs across the beam, as many as hold all of it."""
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
    # from the centre of the box to pixels, whose centres have whole numbers
    first = (scene.box[0] / 2 / grid.step + grid.x0 - 0.5, scene.box[1] / 2 / grid.step + grid.y0 - 0.5)
    frame = splat.Frame(grid.step, first, half, max(2 * half, 1.0) / slabs)

    of_atoms, of_cover = _squared_radii(scene, molecules, acq)
    ice = _ice_profile(scene, acq, tilt, grid, slabs, frame.thickness)
    standing = tuple(Standing(m, *frame.transform(rotation, position)) for m, rotation, position in placed)
    return Layout(scene, tilt, frame, slabs, standing, ice, of_atoms, of_cover)


def _squared_radii(scene: Scene, molecules: dict[int, Molecule], acq: Acquisition) -> tuple[float, float]:
    """Mean squared radii, in projection, of the atoms by potential and of the cover by volume, Å²."""
    scattering = potentials.scattering(acq.contrast)
    copies = np.bincount(scene.which, minlength=len(scene.digests)) if molecules else np.zeros(0)
    radii = np.zeros((2, 2))  # sums of weights and of weights times squared radii: of atoms, of cells
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
    """Share of each slab and column that lies in the tilted block of ice."""
    angle = np.radians(tilt.angle)
    parts = max(8, ceil(thickness / 2.5))
    x = (np.arange(grid.nx) - grid.x0 + 0.5) * grid.step - scene.box[0] / 2
    z = (np.arange(slabs * parts) + 0.5 - slabs * parts / 2) * thickness / parts
    # turned back to the untilted block
    x_block = x * np.cos(angle) - z[:, None] * np.sin(angle)
    z_block = x * np.sin(angle) + z[:, None] * np.cos(angle)
    # at least a pixel more than the margin, so that an untilted block fills the grid to its last pixel
    end = scene.box[0] / 2 + ice_overhang(scene, tilt.angle, (grid.x0 + 1) * grid.step)
    inside = (np.abs(x_block) <= end) & layer(scene, acq).inside(x_block, z_block)
    return np.asarray(inside.reshape(slabs, parts, grid.nx).mean(axis=1), np.float32)
