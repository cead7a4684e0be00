"""Our own engine: Parakeet's physics at the resolution of the tomogram, far sooner.

Parakeet works on 1 Å pixels and 5 Å slices, because it keeps the atoms' cores. A tomogram of 8 Å voxels
holds nothing beyond 1/16 Å⁻¹, where an atom is a point with a weight. So atoms are splatted, each with the
integral of its potential, on a grid of at most 2 Å and into slabs of 20 Å; the wave goes through the slabs
by multislice (Cowley & Moodie 1957; Kirkland 2010, chapter 6); lens and detector are Parakeet's. Ice is
Parakeet's mean and random field, cut to a third where atoms are.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from math import ceil, pi
from typing import ClassVar

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from catalogs.seeds import generator
from tlgen.molecule import Library, Molecule
from tlgen.scene import Scene
from tlgen.simulate import binning, doors, optics, potentials, solids
from tlgen.simulate.ice import layer
from tlgen.simulate.specimen import check_elements, count_atoms, ice_overhang, placed
from tlgen.tilts import Tilt

SLAB = 20.0  # Å; thinner ones change nothing at 4 Å a voxel
COARSEST_GRID = 2.0  # Å; of 4 Å, the correlation with Parakeet at 8 Å is 0.998, of 2 Å 0.9998


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
        slabs = 2 * ceil((x + z + 2 * acq.padding) / SLAB)  # potential and displaced ice, steepest tilt
        fine = round(grid.step) ** 2 * 2  # which lattice points of a slice are covered
        more = solids.MEMORY if scene.decorations else 0
        return grid.nx * grid.ny * (4 * slabs + 80 + fine) + 70 * count_atoms(scene, library) + more

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
        grid = _grid(scene, acq)
        check_elements(scene, library)
        specimen = _specimen(scene, library, acq, tilt, grid)
        wave = _transmit(specimen, acq, tilt, seed, grid)
        image = np.asarray(wave.real**2 + wave.imag**2, np.float32)
        if noise:
            image = optics.detect(image, grid.step / acq.pixel_size, acq, tilt)
        image = optics.energy_filtered(_to_voxels(image, scene, acq, grid), scene, acq, tilt)
        return optics.counts(image, tilt.dose * scene.voxel_size**2, seed, tilt, acq) if noise else image


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
    oversampling = ceil(scene.voxel_size / COARSEST_GRID)
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
        (slabs, ny, nx) Å³ of each pixel's volume that atoms cover.
    ice
        (slabs, nx) share of the slab that the block of ice fills; it is the same along y.
    thickness
        Of a slab, Å.
    squared_radius
        Mean of the atoms' projected potentials, Å².
    """

    potential: NDArray[np.float32]
    covered: NDArray[np.float32]
    ice: NDArray[np.float32]
    thickness: float
    squared_radius: float

    @property
    def depths(self) -> NDArray[np.float64]:
        """Centre of each slab along the beam, Å from the centre of the box."""
        n = len(self.potential)
        return np.asarray((np.arange(n) + 0.5 - n / 2) * self.thickness, np.float64)


def _specimen(scene: Scene, library: Library, acq: Acquisition, tilt: Tilt, grid: _Grid) -> _Specimen:
    molecules = list(placed(scene, library, tilt.angle))
    half = max((float(np.abs(xyz[:, 2]).max()) for _, xyz in molecules), default=0.0)
    if acq.ice_density or scene.decorations:
        overhang = ice_overhang(scene, tilt.angle, grid.x0 * grid.step) if acq.ice_density else 0.0
        half = max(half, layer(scene, acq).reach(scene.box[0] / 2 + overhang, tilt.angle))
    slabs = max(1, ceil(2 * half / SLAB))
    thickness = max(2 * half, 1.0) / slabs

    shape = (slabs, grid.ny, grid.nx)
    potential, covered = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    # from the centre of the box to pixels, whose centres have whole numbers
    first = np.array([scene.box[0] / 2, scene.box[1] / 2], np.float32) / grid.step + (grid.x0, grid.y0) - 0.5
    for molecule, xyz in molecules:
        weights = potentials.INTEGRAL[molecule.elements] * molecule.occupancy
        _splat(potential, weights, xyz, first, grid.step, half, thickness)
    if acq.ice_density and molecules:
        elements = np.concatenate([molecule.elements for molecule, _ in molecules])
        xyz = np.concatenate([xyz for _, xyz in molecules])
        slices = ((xyz[:, 2] + half) / acq.slice_thickness).astype(np.int16)
        order = np.argsort(slices, kind="stable")
        fine = max(1, round(grid.step / acq.pixel_size))
        _cover(
            covered, elements[order], xyz[order], slices[order], potentials.COVER_RADIUS, first, grid.step,
            half, thickness, acq.slice_thickness, fine,
        )  # fmt: skip
    for decoration in scene.decorations:
        solids.decorate(decoration, scene, tilt, potential, covered, first, grid.step, half)
    return _Specimen(
        potential, covered, _ice_profile(scene, acq, tilt, grid, slabs, thickness), thickness,
        _squared_radius([molecule for molecule, _ in molecules]),
    )  # fmt: skip


def _squared_radius(molecules: list[Molecule]) -> float:
    """Mean of the atoms' squared radii, weighted by their potentials."""
    counts = (np.bincount(m.elements, m.occupancy, minlength=256) for m in molecules)
    count = sum(counts, np.zeros(256))[: len(potentials.INTEGRAL)]
    weight = count * potentials.INTEGRAL
    return float((weight * potentials.SQUARED_RADIUS).sum() / weight.sum()) if weight.any() else 0.0


def _ice_profile(
    scene: Scene, acq: Acquisition, tilt: Tilt, grid: _Grid, slabs: int, thickness: float
) -> NDArray[np.float32]:
    """Share of each slab and column that lies in the tilted block of ice."""
    angle = np.radians(tilt.angle)
    parts = 8
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
    q2 = optics.frequencies(shape, grid.step)
    half_q2 = q2[:, : grid.nx // 2 + 1]
    qy, qx = scipy.fft.fftfreq(grid.ny, grid.step), scipy.fft.rfftfreq(grid.nx, grid.step)
    box = np.sinc(qy * grid.step)[:, None] * np.sinc(qx * grid.step)[None, :]
    damage = np.exp(-optics.b_factor(acq, tilt) * half_q2 / 4)
    # bilinear splatting is the square of a pixel's own transfer
    of_atoms = damage * np.exp(-(pi**2) * specimen.squared_radius * half_q2) / box**2 / area
    of_atoms = of_atoms.astype(np.float32)

    water = potentials.WATER * acq.ice_density  # molecules a cubic angstrom
    ice_mean = potentials.ICE_MEAN * water * specimen.thickness
    of_cover = (potentials.DISPLACED * potentials.ICE_MEAN * water * damage / box / area).astype(np.float32)
    of_field = _ice_amplitude(half_q2, acq, water * specimen.thickness, grid.step)
    damage = damage.astype(np.float32)
    rng = generator(seed, "ice", tilt.index)

    lam = optics.wavelength(acq.voltage)
    sigma = np.float32(optics.interaction(acq.voltage))
    step = np.exp(-1j * pi * lam * specimen.thickness * q2).astype(np.complex64)
    wave = np.ones(shape, np.complex64)
    last = len(specimen.potential) - 1
    for k, (potential, covered, ice) in enumerate(
        zip(specimen.potential, specimen.covered, specimen.ice, strict=True)
    ):
        projected = scipy.fft.rfft2(potential) * of_atoms
        if acq.ice_density:
            field = scipy.fft.rfft2(rng.standard_normal(shape, np.float32)) * of_field
            field = scipy.fft.irfft2(field, shape, overwrite_x=True)
            field *= ice * (1 - covered * np.float32(potentials.DISPLACED / (area * specimen.thickness)))
            field += ice * np.float32(ice_mean)
            projected += scipy.fft.rfft2(field, overwrite_x=True) * damage
            projected -= scipy.fft.rfft2(covered) * of_cover
        phase = scipy.fft.irfft2(projected, shape, overwrite_x=True)
        _refract(wave, phase, sigma)
        wave = scipy.fft.fft2(wave, overwrite_x=True)
        if k < last:
            wave = scipy.fft.ifft2(wave * step, overwrite_x=True)
    # from the last slab back to the middle of the box, where the lens is focused, then through the lens
    back = np.exp(1j * pi * lam * specimen.depths[-1] * q2).astype(np.complex64)
    wave *= back * optics.transfer(shape, grid.step, acq)
    if acq.phase_plate:
        wave *= optics.phase_plate(shape, grid.step, acq)
    return np.asarray(scipy.fft.ifft2(wave, overwrite_x=True))


def _ice_amplitude(
    q2: NDArray[np.float64], acq: Acquisition, molecules: float, step: float
) -> NDArray[np.float32]:
    """Amplitude that turns white noise of variance 1 into the part of Parakeet's ice that the grid holds.

    Parakeet's field has its variance over all frequencies of its own 1 Å pixels.
    """
    own = optics.frequencies((512, 512), 1.0)
    power = optics.ice_power(q2, acq) / optics.ice_power(own, acq).mean()
    return np.asarray(np.sqrt(power * potentials.ICE_VARIANCE * molecules) / step, np.float32)


def _to_voxels(
    image: NDArray[np.float32], scene: Scene, acq: Acquisition, grid: _Grid
) -> NDArray[np.float32]:
    """Bin to voxels as Parakeet's pixels are, and keep the values at the voxels' centres."""
    n = grid.oversampling
    shift = (n - 1) / 2 * grid.step  # from the first pixel of a voxel to its centre
    factors = []
    for q in (scipy.fft.fftfreq(grid.ny, grid.step), scipy.fft.rfftfreq(grid.nx, grid.step)):
        voxel = binning.transfer(q, scene.voxel_size, acq.pixel_size, acq.binning)
        factors.append(voxel * np.exp(2j * pi * q * shift))
    factor = (factors[0][:, None] * factors[1][None, :]).astype(np.complex64)
    image = scipy.fft.irfft2(scipy.fft.rfft2(image) * factor, image.shape, overwrite_x=True)
    ny, nx = scene.shape[1:]
    return np.ascontiguousarray(image[grid.y0 : grid.y0 + ny * n : n, grid.x0 : grid.x0 + nx * n : n])


@numba.njit(cache=True, nogil=True)
def _refract(wave: NDArray[np.complex64], phase: NDArray[np.float32], sigma: np.float32) -> None:
    """Multiply the wave by exp(i sigma phase), in place."""
    for y in range(wave.shape[0]):
        for x in range(wave.shape[1]):
            angle = sigma * phase[y, x]
            wave[y, x] *= complex(np.cos(angle), np.sin(angle))


@numba.njit(cache=True, nogil=True)
def _splat(
    slabs: NDArray[np.float32],
    weights: NDArray[np.float32],
    xyz: NDArray[np.float32],
    first: NDArray[np.floating],
    step: float,
    half: float,
    thickness: float,
) -> None:
    """Share each atom's weight out to the four pixels around it, in place."""
    n, ny, nx = slabs.shape
    for i in range(len(weights)):
        x, y = xyz[i, 0] / step + first[0], xyz[i, 1] / step + first[1]
        ix, iy = int(np.floor(x)), int(np.floor(y))
        if ix < 0 or iy < 0 or ix + 1 >= nx or iy + 1 >= ny:
            continue
        k = min(max(int((xyz[i, 2] + half) / thickness), 0), n - 1)
        fx, fy = np.float32(x - ix), np.float32(y - iy)
        w = weights[i]
        slabs[k, iy, ix] += w * (1 - fy) * (1 - fx)
        slabs[k, iy, ix + 1] += w * (1 - fy) * fx
        slabs[k, iy + 1, ix] += w * fy * (1 - fx)
        slabs[k, iy + 1, ix + 1] += w * fy * fx


@numba.njit(cache=True, nogil=True)
def _cover(
    slabs: NDArray[np.float32],
    elements: NDArray[np.uint8],
    xyz: NDArray[np.float32],
    slices: NDArray[np.int16],
    radii: NDArray[np.float32],
    first: NDArray[np.floating],
    step: float,
    half: float,
    thickness: float,
    slice_thickness: float,
    fine: int,
) -> None:
    """Add the volume that atoms, sorted by slice, take from the ice: the union of their discs in each.

    The union is taken on a lattice of ``fine`` points a pixel, as Parakeet takes it in its pixels.
    """
    n, ny, nx = slabs.shape
    spacing = step / fine
    stamp = np.zeros((ny * fine, nx * fine), np.int16)
    volume = np.float32(spacing * spacing * slice_thickness)
    for i in range(len(elements)):
        number = slices[i] + 1
        k = min(max(int((xyz[i, 2] + half) / thickness), 0), n - 1)
        r = radii[elements[i]] / spacing
        # lattice point j of a pixel's centre p is at p * fine + (fine - 1) / 2
        x = (xyz[i, 0] / step + first[0]) * fine + (fine - 1) / 2
        y = (xyz[i, 1] / step + first[1]) * fine + (fine - 1) / 2
        for iy in range(max(int(np.ceil(y - r)), 0), min(int(np.floor(y + r)) + 1, ny * fine)):
            w = np.sqrt(r * r - (iy - y) * (iy - y))
            for ix in range(max(int(np.ceil(x - w)), 0), min(int(np.floor(x + w)) + 1, nx * fine)):
                if stamp[iy, ix] != number:
                    stamp[iy, ix] = number
                    slabs[k, iy // fine, ix // fine] += volume


__all__ = ["COARSEST_GRID", "SLAB", "Multislice"]
