"""Our own engine: Parakeet's physics at the resolution of the tomogram, far sooner.

Parakeet works on 1 Å pixels and slices of 3 to 5 Å, because it keeps the atoms' cores. A tomogram of 8 Å
voxels holds nothing beyond 1/16 Å⁻¹, where an atom is a point with a weight. So atoms are splatted, each with
the integral of its potential, on a grid of about 2 Å and into slabs as thick as the voxels'
resolution allows; the wave goes through the slabs by multislice (Cowley & Moodie 1957; Kirkland 2010,
chapter 6); lens and detector are Parakeet's. Ice is Parakeet's mean and random field, cut to a third where
atoms are; which volume they take is found once a structure (:mod:`tlgen.simulate.cover`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from math import ceil, pi
from typing import ClassVar

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from catalogs.seeds import generator
from tlgen.molecule import Library
from tlgen.scene import Scene
from tlgen.simulate import binning, contamination, cover, doors, optics, potentials, solids, splat
from tlgen.simulate.ice import layer
from tlgen.simulate.specimen import check_elements, ice_overhang, tilt_rotation
from tlgen.tilts import Tilt

#: Å; pixels are at most this, or a sixth of a voxel. What is scattered beyond the grid's frequencies is not
#: lost to the others: with a quarter of 16 Å, the image's largest features had a tenth too little power.
FINEST_GRID, PIXELS_PER_VOXEL = 2.0, 6
THINNEST_SLAB, THICKEST_SLAB = 20.0, 100.0  # Å


@dataclass(frozen=True)
class Multislice:
    """The engine for large corpora."""

    name: ClassVar[str] = "multislice"
    one_call_per_process: ClassVar[bool] = False

    def version(self) -> str:
        """Return names and versions of what computes the images."""
        return f"template-learning {version('template-learning')} multislice"

    def check(self, acq: Acquisition) -> None:
        """Refuse what Parakeet alone has, and voxels that are no whole number of pixels (InputError)."""
        doors.check_acquisition(acq)
        doors.refuse_gpu(acq, self.name)
        if acq.parakeet_faults != "corrected":
            raise InputError(
                "parakeet_faults: engine multislice has none of Parakeet's; leave it away, or use parakeet"
            )
        optics.binning(acq, acq.pixel_size)

    def check_scene(self, scene: Scene, library: Library, acq: Acquisition) -> None:
        """Refuse a scene that cannot be simulated; see :meth:`tlgen.simulate.base.Engine.check_scene`."""
        optics.check_voxel_size(scene, acq)
        check_elements(scene, library)
        doors.check_inside(scene, library)

    def memory(self, scene: Scene, library: Library, acq: Acquisition) -> int:
        """Estimate the bytes that one call needs on top of the interpreter and the library."""
        grid = _grid(scene, acq)
        x, _, z = scene.box
        slabs = 2 * ceil((x + z + 2 * acq.padding) / slab(scene.voxel_size))  # potential and cover, steep
        structures = [library[scene.digests[k]].points for k in np.unique(scene.which)]
        cells = cover.memory(structures, acq.slice_thickness) if acq.ice_density else 0
        more = solids.MEMORY if scene.decorations else 0
        return grid.nx * grid.ny * (4 * slabs + 80) + cells + more

    def simulate(
        self, scene: Scene, library: Library, acq: Acquisition, tilt: Tilt, seed: int, *, noise: bool = True
    ) -> NDArray[np.float32]:
        """Simulate one image; see :meth:`tlgen.simulate.base.Engine.simulate`.

        Raises
        ------
        InputError
            If ``voxel_size`` is not a whole multiple of ``pixel_size``, or an element unknown.
        """
        self.check(acq)
        scene = contamination.added(scene, acq, seed)
        grid = _grid(scene, acq)
        check_elements(scene, library)
        specimen = _specimen(scene, library, acq, tilt, grid)
        wave = _transmit(specimen, acq, tilt, seed, grid)
        image = _intensity(wave)
        if noise:
            image = optics.detect(image, grid.step / acq.pixel_size, acq, tilt)
        image = optics.energy_filtered(_to_voxels(image, scene, acq, grid), scene, acq, tilt)
        return optics.counts(image, tilt.dose * scene.voxel_size**2, seed, tilt, acq) if noise else image


def slab(voxel_size: float) -> float:
    """Thickness of a slab in Å, at most, that changes nothing at so large a voxel (Å).

    Half a slab is by how much an atom is out of focus at most; the phase that this makes at the voxels'
    Nyquist frequency is 0.008 radians at 300 kV.
    """
    return min(max(voxel_size**2, THINNEST_SLAB), THICKEST_SLAB)


@dataclass(frozen=True)
class _Grid:
    """``nx`` by ``ny`` pixels of ``step`` Å; the image starts at pixel (x0, y0)."""

    step: float
    nx: int
    ny: int
    x0: int
    y0: int
    oversampling: int


def _grid(scene: Scene, acq: Acquisition) -> _Grid:
    optics.check_voxel_size(scene, acq)
    oversampling = ceil(scene.voxel_size / max(FINEST_GRID, scene.voxel_size / PIXELS_PER_VOXEL))
    step = scene.voxel_size / oversampling
    margin = ceil(acq.padding / step)
    inner = [n * oversampling for n in (scene.shape[2], scene.shape[1])]
    nx, ny = (scipy.fft.next_fast_len(n + 2 * margin) for n in inner)
    return _Grid(step, nx, ny, (nx - inner[0]) // 2, (ny - inner[1]) // 2, oversampling)


@dataclass(frozen=True)
class _Specimen:
    """What the wave meets.

    Attributes
    ----------
    potential
        (slabs, ny, nx) V Å³ of the atoms' potential, each spread over the four nearest pixels.
    covered
        (slabs, ny, nx) Å³ of each pixel's volume that atoms cover; nothing (0 slabs) without ice.
    ice
        (slabs, nx) share of the slab that the block of ice fills; it is the same along y.
    thickness
        Of a slab, Å.
    squared_radius
        Mean of the atoms' projected potentials, Å².
    squared_radius_covered
        The same of what was put to one point of the covered volume.
    """

    potential: NDArray[np.float32]
    covered: NDArray[np.float32]
    ice: NDArray[np.float32]
    thickness: float
    squared_radius: float
    squared_radius_covered: float

    @property
    def depths(self) -> NDArray[np.float64]:
        """Centre of each slab along the beam, Å from the centre of the box."""
        n = len(self.potential)
        return np.asarray((np.arange(n) + 0.5 - n / 2) * self.thickness, np.float64)


def _specimen(scene: Scene, library: Library, acq: Acquisition, tilt: Tilt, grid: _Grid) -> _Specimen:
    turn = tilt_rotation(tilt.angle)
    any_molecules = bool(len(scene.which))
    rotations = (turn * Rotation.from_quat(scene.quaternions)).as_matrix() if any_molecules else ()
    positions = turn.apply(scene.positions) if any_molecules else ()
    molecules = {k: library[scene.digests[k]].points for k in np.unique(scene.which).tolist()}
    standing = [(molecules[k], r, p) for k, r, p in zip(scene.which, rotations, positions, strict=True)]

    half = 0.0
    for molecule, rotation, position in standing:
        low, high = splat.depth(molecule.positions, rotation[2].astype(np.float32))
        half = max(half, -(low + position[2]), high + position[2])
    if acq.ice_density or scene.decorations:
        overhang = ice_overhang(scene, tilt.angle, grid.x0 * grid.step) if acq.ice_density else 0.0
        half = max(half, layer(scene, acq).reach(scene.box[0] / 2 + overhang, tilt.angle))
    slabs = max(1, ceil(2 * half / slab(scene.voxel_size)))
    # from the centre of the box to pixels, whose centres have whole numbers
    first = (scene.box[0] / 2 / grid.step + grid.x0 - 0.5, scene.box[1] / 2 / grid.step + grid.y0 - 0.5)
    frame = splat.Frame(grid.step, first, half, max(2 * half, 1.0) / slabs)

    scattering = potentials.scattering(acq.contrast)
    shape = (slabs, grid.ny, grid.nx)
    potential = np.zeros(shape, np.float32)
    covered = np.zeros(shape if acq.ice_density else (0, *shape[1:]), np.float32)
    one = np.ones(1, np.float32)
    for molecule, rotation, position in standing:
        matrix, shift = frame.transform(rotation, position)
        occupancy = one if molecule.is_atomic else np.ascontiguousarray(molecule.occupancy)
        splat.place_atoms(
            potential, molecule.positions, molecule.elements, occupancy, scattering.integral, matrix, shift
        )
        if acq.ice_density:
            cells = cover.cover(molecule, acq.slice_thickness)
            splat.place(covered, cells.positions, cells.volumes, matrix, shift)
    for decoration in scene.decorations:
        solids.decorate(decoration, scene, tilt, potential, covered, frame, scattering)

    copies = np.bincount(scene.which, minlength=len(scene.digests)) if any_molecules else np.zeros(0)
    radii = np.zeros((2, 2))  # sums of weights and of weights times squared radii: of atoms, of cells
    for k, molecule in molecules.items():
        counts = np.bincount(molecule.elements, molecule.occupancy, minlength=len(scattering.integral))
        weight = copies[k] * counts * scattering.integral
        radii[0] += weight.sum(), (weight * scattering.squared_radius).sum()
        if acq.ice_density:
            cells = cover.cover(molecule, acq.slice_thickness)
            volume = copies[k] * float(cells.volumes.sum(dtype=np.float64))
            radii[1] += volume, volume * cells.squared_radius
    of_atoms, of_cover = (float(moment / total) if total else 0.0 for total, moment in radii)
    ice = _ice_profile(scene, acq, tilt, grid, slabs, frame.thickness)
    return _Specimen(potential, covered, ice, frame.thickness, of_atoms, of_cover)


def _ice_profile(
    scene: Scene, acq: Acquisition, tilt: Tilt, grid: _Grid, slabs: int, thickness: float
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


def _transmit(
    specimen: _Specimen, acq: Acquisition, tilt: Tilt, seed: int, grid: _Grid
) -> NDArray[np.complex64]:
    """Send a plane wave through the specimen and the lens: (ny, nx) wave at the detector."""
    shape = (grid.ny, grid.nx)
    area = grid.step**2
    qy, qx = scipy.fft.fftfreq(grid.ny, grid.step), scipy.fft.rfftfreq(grid.nx, grid.step)
    b = optics.b_factor(acq, tilt) / 4
    # bilinear splatting is the square of a pixel's own transfer
    pixel = [np.sinc(q * grid.step) ** -2 for q in (qy, qx)]
    of_atoms = _gaussian(qy, qx, b + pi**2 * specimen.squared_radius, pixel) / np.float32(area)

    scattering = potentials.scattering(acq.contrast)
    water = potentials.WATER * acq.ice_density  # molecules a cubic angstrom
    density = scattering.ice_mean * water
    if acq.ice_density:
        of_cover = _gaussian(qy, qx, b + pi**2 * specimen.squared_radius_covered, pixel)
        of_cover *= np.float32(potentials.DISPLACED * density / area)
        variance = scattering.ice_variance * water * specimen.thickness
        of_field = _ice_shape(shape, grid.step, acq) * _gaussian(qy, qx, b)
        of_field *= np.float32(np.sqrt(variance) / grid.step)
        along_x = np.exp(-b * qx**2) * density * specimen.thickness * grid.ny
        rng = generator(seed, "ice", tilt.index)
        white = np.empty(shape, np.float32)

    lam = optics.wavelength(acq.voltage)
    sigma = np.float32(optics.interaction(acq.voltage))
    step = _propagator(grid, lam * specimen.thickness)
    wave = np.ones(shape, np.complex64)
    last = len(specimen.potential) - 1
    for k in range(last + 1):
        projected = scipy.fft.rfft2(specimen.potential[k])
        if acq.ice_density:
            rng.standard_normal(dtype=np.float32, out=white)
            _damp(white, specimen.covered[k], specimen.ice[k], np.float32(area * specimen.thickness))
            displaced = scipy.fft.rfft2(specimen.covered[k])
            field = scipy.fft.rfft2(white, overwrite_x=True)
            _combine(projected, of_atoms, displaced, of_cover, field, of_field)
            projected[0] += (scipy.fft.rfft(specimen.ice[k]) * along_x).astype(np.complex64)
        else:
            projected *= of_atoms
        phase = scipy.fft.irfft2(projected, shape, overwrite_x=True)
        _refract(wave, phase, sigma)
        wave = scipy.fft.fft2(wave, overwrite_x=True)
        if k < last:
            wave *= step
            wave = scipy.fft.ifft2(wave, overwrite_x=True)
    # from the last slab back to the middle of the box, where the lens is focused, then through the lens
    wave *= _propagator(grid, -lam * specimen.depths[-1])
    wave *= _lens(shape, grid.step, acq)
    return np.asarray(scipy.fft.ifft2(wave, overwrite_x=True))


def _gaussian(
    qy: NDArray[np.float64],
    qx: NDArray[np.float64],
    fall: float,
    times: list[NDArray[np.float64]] | None = None,
) -> NDArray[np.float32]:
    """exp(-fall q²) on a grid of frequencies, times a function of each of them."""
    y, x = np.exp(-fall * qy**2), np.exp(-fall * qx**2)
    if times:
        y, x = y * times[0], x * times[1]
    return np.asarray(y.astype(np.float32)[:, None] * x.astype(np.float32))


def _propagator(grid: _Grid, distance: float) -> NDArray[np.complex64]:
    """Fresnel propagator (ny, nx) over ``distance`` wavelengths times Å."""
    y, x = (
        np.exp(-1j * pi * distance * scipy.fft.fftfreq(n, grid.step) ** 2).astype(np.complex64)
        for n in (grid.ny, grid.nx)
    )
    return np.asarray(y[:, None] * x)


@lru_cache(maxsize=4)
def _lens(shape: tuple[int, int], step: float, acq: Acquisition) -> NDArray[np.complex64]:
    """Transfer of the wave by the lens, the same for all tilts of a series."""
    lens = optics.transfer(shape, step, acq)
    return lens * optics.phase_plate(shape, step, acq) if acq.phase_plate else lens


@lru_cache(maxsize=4)
def _ice_shape(shape: tuple[int, int], step: float, acq: Acquisition) -> NDArray[np.float32]:
    """Amplitude over the half plane of white noise that becomes ice of variance 1 at 1 Å a pixel.

    Parakeet's field has its variance over all frequencies of its own 1 Å pixels; the grid holds some.
    """
    own = optics.frequencies((512, 512), 1.0)
    q2 = optics.frequencies(shape, step)[:, : shape[1] // 2 + 1]
    return np.sqrt(optics.ice_power(q2, acq) / optics.ice_power(own, acq).mean()).astype(np.float32)


def _to_voxels(
    image: NDArray[np.float32], scene: Scene, acq: Acquisition, grid: _Grid
) -> NDArray[np.float32]:
    """Bin to voxels as Parakeet's pixels are, and keep the values at the voxels' centres."""
    n = grid.oversampling
    shift = (n - 1) / 2 * grid.step  # from the first pixel of a voxel to its centre
    spectrum = scipy.fft.rfft2(image)
    for axis, q in enumerate((scipy.fft.fftfreq(grid.ny, grid.step), scipy.fft.rfftfreq(grid.nx, grid.step))):
        voxel = binning.transfer(q, scene.voxel_size, acq.pixel_size, acq.binning)
        factor = (voxel * np.exp(2j * pi * q * shift)).astype(np.complex64)
        spectrum *= factor if axis else factor[:, None]
    image = scipy.fft.irfft2(spectrum, image.shape, overwrite_x=True)
    ny, nx = scene.shape[1:]
    return np.ascontiguousarray(image[grid.y0 : grid.y0 + ny * n : n, grid.x0 : grid.x0 + nx * n : n])


@numba.njit(cache=True, nogil=True)
def _intensity(wave: NDArray[np.complex64]) -> NDArray[np.float32]:
    image = np.empty(wave.shape, np.float32)
    for y in range(wave.shape[0]):
        for x in range(wave.shape[1]):
            image[y, x] = wave[y, x].real * wave[y, x].real + wave[y, x].imag * wave[y, x].imag
    return image


@numba.njit(cache=True, nogil=True)
def _refract(wave: NDArray[np.complex64], phase: NDArray[np.float32], sigma: np.float32) -> None:
    """Multiply the wave by exp(i sigma phase), in place."""
    for y in range(wave.shape[0]):
        for x in range(wave.shape[1]):
            angle = sigma * phase[y, x]
            wave[y, x] *= complex(np.cos(angle), np.sin(angle))


@numba.njit(cache=True, nogil=True)
def _damp(
    white: NDArray[np.float32], covered: NDArray[np.float32], ice: NDArray[np.float32], volume: np.float32
) -> None:
    """Give white noise the strength of the ice in each column of a slab, in place.

    Variances of a column's parts add up; where an atom is, the field is a third.
    """
    third = np.float32((1 - potentials.DISPLACED) ** 2)
    for y in range(white.shape[0]):
        for x in range(white.shape[1]):
            variance = ice[x] - (np.float32(1) - third) * covered[y, x] / volume
            white[y, x] *= np.sqrt(max(variance, third * ice[x]))


@numba.njit(cache=True, nogil=True)
def _combine(
    a: NDArray[np.complex64],
    of_a: NDArray[np.float32],
    b: NDArray[np.complex64],
    of_b: NDArray[np.float32],
    c: NDArray[np.complex64],
    of_c: NDArray[np.float32],
) -> None:
    """Atoms, less the ice that they displace, plus the ice's field, in place of the atoms."""
    for y in range(a.shape[0]):
        for x in range(a.shape[1]):
            a[y, x] = a[y, x] * of_a[y, x] - b[y, x] * of_b[y, x] + c[y, x] * of_c[y, x]


__all__ = ["FINEST_GRID", "PIXELS_PER_VOXEL", "THICKEST_SLAB", "THINNEST_SLAB", "Multislice", "slab"]
