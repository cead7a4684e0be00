"""Parakeet in this process: its simulation library, python-multem, with Parakeet's configuration.

Parakeet (Parkhurst et al., Open Biology 11, 210160, 2021) is a chain of programs around MULTEM (Lobato & Van
Dyck, Ultramicroscopy 156, 9, 2015) that exchange files. Here each tilt is one call on arrays in memory:
multislice through atoms and random ice, lens, detector. Three faults are corrected unless the acquisition
says ``parakeet_faults: as_published``:

- Parakeet shifts its block of ice along the beam by the padding of x and y, so that at every tilt the first
  molecules are in vacuum. Here the ice is where the molecules are.
- Parakeet's ice ends at the box, which is the edge of an untilted image. Here it continues through the
  padding, as in a real specimen (along x only at small tilts, where the end of the block is upright).
- Parakeet crops the wave to the image before the lens, which treats it as periodic: signal that the lens
  spreads over the left edge appears at the right. Here the lens acts on the padded wave, and the image is
  cropped afterwards.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from math import ceil, cos, radians
from typing import Any, ClassVar

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.private_folders import scratch_folder
from catalogs.schema import Acquisition
from catalogs.seeds import seed as seed_of
from tlgen.molecules.molecule import Library
from tlgen.scene import decoration_density
from tlgen.scene.scene import Scene
from tlgen.simulate import checks
from tlgen.simulate import devices as gpu
from tlgen.simulate.atom_list import Body, atom_list
from tlgen.simulate.microscope import contamination, ice, optics
from tlgen.simulate.microscope.binning import binned
from tlgen.simulate.protocol import Images
from tlgen.simulate.specimen import (
    check_count,
    check_elements,
    count_atoms,
    ice_overhang,
    placed,
    placed_decorations,
    tilt_rotation,
)
from tlgen.tilts.scheme import Tilt

#: MULTEM flattens the core of each atom within one pixel, so the contrast of its images depends on the pixel
#: size. Parakeet's ice is calibrated at 1 Å, which Template Learning used; at 2 Å the contrast is a fifth.
PIXEL_SIZE = 1.0

# Peak resident memory of calls with 0.3 and 3 million atoms in 1080² pixels, measured and rounded up.
_BYTES_PER_PIXEL = 120
_BYTES_PER_ATOM = 400

# Padded widths in pixels at which MULTEM is fast: no larger width costs less. From measured times of FFTW's
# estimated plans, together with MULTEM's other work per pixel.
# fmt: off
_FAST_SIZES = (
    64, 70, 72, 80, 84, 90, 96, 98, 100, 108, 112, 120, 128, 144, 150, 160, 168, 180, 192, 196, 200,
    216, 240, 252, 280, 288, 300, 320, 324, 336, 360, 400, 420, 432, 448, 450, 500, 504, 540, 588, 640,
    648, 672, 686, 700, 720, 756, 784, 800, 840, 864, 882, 900, 972, 980, 1008, 1080, 1152, 1176, 1200,
    1280, 1296, 1372, 1400, 1440, 1512, 1620, 1680, 1764, 1800, 1944, 2016, 2058, 2100, 2268, 2352,
    2400, 2430,
)
# fmt: on

_ALONE = threading.Lock()


@dataclass(frozen=True)
class Parakeet:
    """The reference engine."""

    name: ClassVar[str] = "parakeet"
    cost: ClassVar[float] = 50.0
    one_call_per_process: ClassVar[bool] = True

    def version(self) -> str:
        """Return names and versions of the software that computes the images."""
        return f"python-multem {version('python-multem')} as python-parakeet {version('python-parakeet')}"

    def check(self, acq: Acquisition) -> None:
        """Refuse unsupported settings, such as pixels other than 1 Å, fractional binning, or an ice wedge.

        Raises
        ------
        InputError
            Names the setting, and says what to do.
        """
        if find_spec("multem") is None:
            raise InputError(
                "engine: Parakeet's engine is not installed; "
                "pip install 'template-learning[parakeet]' compiles it, or use engine: multislice"
            )
        checks.check_acquisition(acq)
        if acq.pixel_size != PIXEL_SIZE:
            raise InputError(
                f"pixel_size: Parakeet's contrast is only calibrated at 1 Å, not at {acq.pixel_size:g} Å; "
                "set pixel_size: 1.0 or use engine: multislice"
            )
        if acq.contrast != "parakeet":
            raise InputError(
                f"contrast: Parakeet's images have Parakeet's own contrast, not {acq.contrast}; "
                "set contrast: parakeet or use engine: multislice"
            )
        optics.binning(acq, PIXEL_SIZE)
        if acq.ice_wedge:
            raise InputError(
                "ice_wedge: MULTEM's ice has parallel faces; leave ice_wedge out or use engine: multislice"
            )
        faulty = acq.parakeet_faults == "as_published"
        if faulty and acq.ice_tilt:
            raise InputError(
                "ice_tilt: Parakeet as published does not tilt the ice; leave out parakeet_faults or ice_tilt"
            )

    def check_scene(self, scene: Scene, library: Library, acq: Acquisition) -> None:
        """Refuse a scene that cannot be simulated; see :meth:`tlgen.simulate.protocol.Engine.check_scene`."""
        optics.check_voxel_size(scene, acq)
        check_elements(scene, library)
        check_count(scene)
        contamination.check_count(scene, acq)
        checks.check_inside(scene, library)

    def memory(self, scene: Scene, library: Library, acq: Acquisition) -> int:
        """Estimate the bytes that one call needs on top of the interpreter and the library."""
        grid = _grid(scene, acq)
        atoms = count_atoms(scene, library) + decoration_density.count_atoms(scene.decorations, scene.box)
        atoms += round(1.5 * contamination.expected_atoms(scene, acq))  # their number is random
        return grid.nx * grid.ny * _BYTES_PER_PIXEL + atoms * _BYTES_PER_ATOM

    def simulate(
        self, scene: Scene, library: Library, acq: Acquisition, tilt: Tilt, seed: int, *, noise: bool = True
    ) -> NDArray[np.float32]:
        """Simulate one image; see :meth:`tlgen.simulate.protocol.Engine.simulate`.

        Each tilt has its own random ice, as in Parakeet.

        Raises
        ------
        InputError
            If ``pixel_size`` is not 1 Å, ``voxel_size`` is not a whole multiple of it, an element is
            unknown, or decorations have too many atoms to hold in memory.
        """
        self.check(acq)
        system = _system(acq.device, self.memory(scene, library, acq))
        return self._image(scene, library, acq, tilt, seed, system, noise=noise)

    def _image(
        self,
        scene: Scene,
        library: Library,
        acq: Acquisition,
        tilt: Tilt,
        seed: int,
        system: Any,
        *,
        noise: bool,
    ) -> NDArray[np.float32]:
        grid = _grid(scene, acq)
        check_elements(scene, library)
        check_count(scene)
        contamination.check_count(scene, acq)
        scene = contamination.added(scene, acq, seed)
        wave = self._exit_wave(scene, library, acq, tilt, seed, grid, system)
        faulty = acq.parakeet_faults == "as_published"
        image = _lens(grid.crop(wave), acq) if faulty else grid.crop(_lens(wave, acq))
        if noise:
            image = optics.detect(image, 1, acq, tilt)
        image = optics.energy_filtered(binned(image, grid.factor, acq.binning), scene, acq, tilt)
        return optics.counts(image, tilt.dose * scene.voxel_size**2, seed, tilt, acq) if noise else image

    def tilts_a_call(self, acq: Acquisition, shape: tuple[int, int, int]) -> int:
        """MULTEM simulates one tilt per call."""
        return 1

    def check_device(self, acq: Acquisition) -> None:
        """Refuse a process without the GPU that the acquisition requires (InputError)."""
        _system(acq.device)

    def simulate_together(
        self,
        views: Sequence[tuple[Scene, Tilt]],
        library: Library,
        acq: Acquisition,
        seed: int,
        *,
        noise: bool = True,
    ) -> Images:
        """Simulate images one by one; see :meth:`tlgen.simulate.protocol.Engine.simulate_together`."""
        self.check(acq)
        images, devices = [], set()
        for scene, tilt in views:
            system = _system(acq.device, self.memory(scene, library, acq))
            images.append(self._image(scene, library, acq, tilt, seed, system, noise=noise))
            devices.add("GPU" if system.device == "device" else "CPU")
        return Images(images, ", ".join(sorted(devices)))

    def _exit_wave(
        self,
        scene: Scene,
        library: Library,
        acq: Acquisition,
        tilt: Tilt,
        seed: int,
        grid: _Grid,
        system: Any,
    ) -> NDArray[np.complex64]:
        """Propagate a plane wave through the specimen: padded (ny, nx), focused on the middle of the box."""
        import multem

        lz = scene.box[2]
        atoms = _atoms(scene, library, tilt.angle, grid)
        if not len(atoms) and not acq.ice_density:
            return np.ones((grid.ny, grid.nx), np.complex64)
        settings = _input("EWRS", grid.nx, grid.ny, acq)
        settings.spec_lz = lz
        settings.cond_lens_zero_defocus_type = settings.obj_lens_zero_defocus_type = "User_Define"
        settings.cond_lens_zero_defocus_plane = settings.obj_lens_zero_defocus_plane = lz / 2
        settings.static_B_factor = optics.b_factor(acq, tilt)
        settings.iw_x, settings.iw_y = [settings.spec_lx / 2], [settings.spec_ly / 2]
        settings.spec_atoms = atoms
        more = [self._ice(scene, acq, tilt, grid)] if acq.ice_density else []
        with _alone(seed_of(seed, "ice", tilt.index)):
            output = multem.simulate(system, settings, *more)
        # the first index of MULTEM's arrays is x
        return np.ascontiguousarray(np.array(output.data[0].psi_coh).T, np.complex64)

    def _ice(self, scene: Scene, acq: Acquisition, tilt: Tilt, grid: _Grid) -> Any:
        """Block of ice, rotated with the specimen. Its mask, unlike the atoms, refers to pixel centres."""
        import multem

        mask = multem.Masker(grid.nx, grid.ny, PIXEL_SIZE)
        first, second = optics.ICE_SPECTRA[acq.ice_spectrum]
        parameters = multem.IceParameters()
        parameters.a1, parameters.m1, parameters.s1 = first
        parameters.a2, parameters.m2, parameters.s2 = second
        parameters.density = acq.ice_density
        mask.set_ice_parameters(parameters)
        x, y, lz = scene.box
        x0, y0 = grid.x0 * PIXEL_SIZE, grid.y0 * PIXEL_SIZE
        centre = np.array([x0 + x / 2, y0 + y / 2, lz / 2])
        turn = tilt_rotation(tilt.angle)
        if acq.parakeet_faults == "as_published":
            centre[2] += x0
            lengths = np.array([x, y, lz])
        else:
            more = ice_overhang(scene, tilt.angle, x0)
            slope = radians(acq.ice_tilt)
            # a face that rises along x is rotated from +z away from +x
            turn = turn * tilt_rotation(-acq.ice_tilt)
            upright = 2 * ice.layer(scene, acq).top[0]
            # along y the block extends beyond the grid
            lengths = np.array(
                [(x + 2 * more) / cos(slope), (grid.ny + 2) * PIXEL_SIZE, upright * cos(slope)]
            )
        mask.set_cuboid(tuple(centre - lengths / 2), tuple(lengths))
        mask.set_rotation(tuple(centre), tuple(turn.as_rotvec()))
        return mask


@dataclass(frozen=True)
class _Grid:
    """Pixels of the image (width, height) within the padded grid (nx, ny), starting at x0 and y0."""

    width: int
    height: int
    nx: int
    ny: int
    factor: int

    @property
    def x0(self) -> int:
        return (self.nx - self.width) // 2

    @property
    def y0(self) -> int:
        return (self.ny - self.height) // 2

    def crop(self, image: NDArray[Any]) -> NDArray[Any]:
        return image[self.y0 : self.y0 + self.height, self.x0 : self.x0 + self.width]


def _grid(scene: Scene, acq: Acquisition) -> _Grid:
    optics.check_voxel_size(scene, acq)
    factor = optics.binning(acq, PIXEL_SIZE)
    height, width = scene.shape[1] * factor, scene.shape[2] * factor
    margin = ceil(acq.padding / PIXEL_SIZE)
    return _Grid(width, height, fast_size(width + 2 * margin), fast_size(height + 2 * margin), factor)


def fast_size(least: int) -> int:
    """Find the cheapest padded width of at least ``least`` pixels."""
    for size in _FAST_SIZES:
        if size >= least:
            return size
    return scipy.fft.next_fast_len(least + least % 2, real=True)


def _atoms(scene: Scene, library: Library, angle: float, grid: _Grid) -> Any:
    """List the atoms for MULTEM in its coordinates, without those outside the grid, as Parakeet does.

    MULTEM samples at whole pixels from the corner of the grid, so the centre of the box is half a pixel
    before the middle of the image.
    """
    middle = (grid.x0 + (grid.width - 1) / 2, grid.y0 + (grid.height - 1) / 2)
    shift = np.array([*(PIXEL_SIZE * m for m in middle), scene.box[2] / 2], np.float32)
    ends = (grid.nx * PIXEL_SIZE, grid.ny * PIXEL_SIZE)

    def bodies() -> Iterator[Body]:
        for molecule, xyz in placed(scene, library, angle):
            yield molecule.elements, xyz + shift, molecule.occupancy
        for elements, xyz in placed_decorations(scene, angle):
            yield elements, xyz + shift, np.broadcast_to(np.float32(1), len(elements))

    def within() -> Iterator[Body]:
        for elements, xyz, occupancy in bodies():
            sides = [(xyz[:, axis], end) for axis, end in enumerate(ends)]
            if all(place.min(initial=0) >= 0 and place.max(initial=0) <= end for place, end in sides):
                yield elements, xyz, occupancy
                continue
            inside = np.logical_and.reduce([(place >= 0) & (place <= end) for place, end in sides])
            yield elements[inside], xyz[inside], occupancy[inside]

    return atom_list(within())


def _system(device: str = "cpu", needed: int = 0) -> Any:
    """Configure MULTEM's device for a call of ``needed`` bytes; see :func:`tlgen.simulate.devices.choose`."""
    import multem

    system = multem.SystemConfiguration()
    system.precision = "float"
    system.device = "host"
    if gpu.choose(device, multem.number_of_gpu_available(), needed):
        # CUDA numbers the visible GPUs, and a worker's own GPU is the first of them
        system.device, system.gpu_device = "device", 0
    return system


def _input(kind: str, nx: int, ny: int, acq: Acquisition) -> Any:
    """Parakeet's settings for MULTEM, for the exit wave (``EWRS``) or the lens (``HRTEM``)."""
    import multem

    settings = multem.Input()
    settings.simulation_type = kind
    settings.interaction_model = "Multislice"
    settings.potential_type = "Lobato_0_12"
    settings.potential_slicing = "dz_Proj"
    settings.pn_model = "Still_Atom"
    settings.thick_type = "Whole_Spec"
    settings.spec_dz = acq.slice_thickness
    settings.nx, settings.ny, settings.bwl = nx, ny, False
    settings.spec_lx, settings.spec_ly = nx * PIXEL_SIZE, ny * PIXEL_SIZE
    settings.E_0 = acq.voltage
    settings.illumination_model = "Partial_Coherent_Higher_Order"
    settings.temporal_spatial_incoh = "Temporal_Spatial"
    settings.cond_lens_si_sigma = multem.mrad_to_sigma(acq.voltage, acq.illumination_semiangle)
    settings.obj_lens_ti_sigma = multem.iehwgd_to_sigma(optics.defocus_spread(acq))
    settings.obj_lens_c_10 = -acq.defocus * optics.MICROMETRE  # in MULTEM, underfocus is negative
    settings.obj_lens_c_30 = acq.spherical_aberration
    settings.obj_lens_inner_aper_ang = settings.obj_lens_outer_aper_ang = 0.0  # no aperture
    return settings


def _lens(wave: NDArray[np.complex64], acq: Acquisition) -> NDArray[np.float32]:
    """Exit wave -> intensity of the image, where vacuum is 1."""
    import multem

    ny, nx = wave.shape
    settings = _input("HRTEM", nx, ny, acq)
    settings.spec_lz = settings.spec_lx
    settings.cond_lens_zero_defocus_type = settings.obj_lens_zero_defocus_type = "Last"
    # always on the CPU: it is only one image, and the result is the same everywhere
    transfer = np.array(multem.compute_ctf(_system(), settings)).T.astype(np.complex64)
    if (more := optics.aberrations((ny, nx), PIXEL_SIZE, acq)) is not None:
        transfer *= more
    if acq.phase_plate:
        transfer *= optics.phase_plate((ny, nx), PIXEL_SIZE, acq)
    wave = scipy.fft.ifft2(scipy.fft.fft2(wave) * transfer, overwrite_x=True)
    return np.asarray(wave.real**2 + wave.imag**2, np.float32)


@contextmanager
def _alone(ice: int) -> Iterator[None]:
    """Lock and prepare all process-wide state that MULTEM uses, and restore it afterwards.

    MULTEM crashes if it is called from several threads. Our build of it reads the seed of its ice from the
    environment. It writes FFTW's wisdom into the working directory. FFTW chooses its plans by timing, so the
    last bits of an image would depend on the load of the machine; with a time limit of zero it always chooses
    the same plans.
    """
    fftw = _fftw()
    with _ALONE, scratch_folder("multem-") as folder:
        here = os.open(".", os.O_RDONLY)
        before = os.environ.get("MULTEM_SEED")
        os.environ["MULTEM_SEED"] = str(ice % (2**31 - 2) + 1)  # for a generator modulo 2³¹ - 1, not 0
        fftw.fftwf_set_timelimit(0.0)
        os.chdir(folder)
        try:
            yield
        finally:
            os.fchdir(here)
            os.close(here)
            fftw.fftwf_set_timelimit(-1.0)
            if before is None:
                del os.environ["MULTEM_SEED"]
            else:
                os.environ["MULTEM_SEED"] = before


def _fftw() -> ctypes.CDLL:
    """Return the FFTW library that MULTEM has already loaded."""
    import multem  # noqa: F401

    try:
        library = ctypes.CDLL("libfftw3f.so.3", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError as error:
        raise RuntimeError("python-multem was not built against libfftw3f.so.3; run `make setup`") from error
    library.fftwf_set_timelimit.argtypes = [ctypes.c_double]
    library.fftwf_set_timelimit.restype = None
    return library


__all__ = ["PIXEL_SIZE", "Parakeet", "fast_size"]
