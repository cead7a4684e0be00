"""From filled slabs to an image in voxels: one code for every device.

A plane wave goes through the slabs by multislice (Cowley & Moodie 1957; Kirkland 2010, chapter 6), then
through the lens; its intensity is what the detector sees, and is binned to voxels. Everything is done by the
few operations of :class:`Operations`, which :mod:`tlgen.simulate.multislice.on_cpu` and
:mod:`tlgen.simulate.multislice.on_gpu` supply; what multiplies a Fourier transform is prepared here, on the
host and in double precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import pi
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from catalogs.schema import Acquisition
from tlgen.simulate.microscope import binning, inelastic, optics, potentials
from tlgen.simulate.multislice.slabs import Grid, Layout

#: An array of the device: NumPy's, or JAX's.
Array = Any
#: Factors along y and x whose product over the grid is meant.
Axes = tuple[Array, Array]


@dataclass(frozen=True)
class Operations:
    """What is done to arrays (ny, nx) of single precision; each may overwrite its first argument.

    Attributes
    ----------
    ones
        A plane wave of a shape.
    rfft2, irfft2
        Real image to its half plane, and back to an image of a shape.
    fft2, ifft2
        Of a wave.
    times
        Product of two arrays.
    mix
        ``a of_a - b of_b + c of_c`` of six arrays.
    add_to_row
        A spectrum with something added to its first row.
    damp
        White noise made as strong as the ice in each column of a slab.
    refract
        A wave times ``exp(i sigma phase)``.
    with_ice
        What atoms lose, with what the ice loses: ``lost + max(share of_ice - covered of_cover, 0)`` of
        ``(lost, covered, share, of_cover, of_ice)``.
    fade
        A wave times ``exp(-lost / area)``.
    intensity
        Squared modulus of a wave.
    repeat
        ``state = body(k, state)`` for k from 0, so many times.
    """

    ones: Callable[[tuple[int, int]], Array]
    rfft2: Callable[[Array], Array]
    irfft2: Callable[[Array, tuple[int, int]], Array]
    fft2: Callable[[Array], Array]
    ifft2: Callable[[Array], Array]
    times: Callable[[Array, Array], Array]
    mix: Callable[[Array, Array, Array, Array, Array, Array], Array]
    add_to_row: Callable[[Array, Array], Array]
    damp: Callable[[Array, Array, Array, Array], Array]
    refract: Callable[[Array, Array, Array], Array]
    with_ice: Callable[[Array, Array, Array, Array, Array], Array]
    fade: Callable[[Array, Array, Array], Array]
    intensity: Callable[[Array], Array]
    repeat: Callable[[Any, Callable[[Any, Array], Array], Array], Array]


class Common(NamedTuple):
    """What all tilts of a series share.

    Attributes
    ----------
    sigma
        Radians per V Å of projected potential.
    area
        Å² of a pixel.
    lens
        (ny, nx) what multiplies the wave's transform.
    ice
        (ny, nx // 2 + 1) what multiplies white noise's, to be ice of variance 1; nothing without ice.
    voxel
        Binning, and the way from a voxel's first pixel to its centre.
    """

    sigma: Array
    area: Array
    lens: Array
    ice: Array | None
    voxel: Axes


class InIce(NamedTuple):
    """What the ice of one tilt needs.

    Attributes
    ----------
    displaced, displaced_scale
        What the transform of covered volume is multiplied by to be potential.
    field, field_scale
        What that of noise is multiplied by, on top of :attr:`Common.ice`.
    share
        (slabs, nx) share of each column of a slab that is ice.
    mean
        (slabs, nx // 2 + 1) transform along x of the ice's own potential.
    volume
        Å³ of a column of a slab.
    lost
        Å² that a column of ice loses, and that a covered Å³ of it loses less.
    """

    displaced: Axes
    displaced_scale: Array
    field: Axes
    field_scale: Array
    share: Array
    mean: Array
    volume: Array
    lost: tuple[Array, Array]


class View(NamedTuple):
    """What belongs to one tilt.

    Attributes
    ----------
    atoms
        What the transform of the atoms' integrals is multiplied by.
    ice
        None without ice.
    step, back
        Propagators: over one slab, and from the last slab to the middle of the box.
    detector
        (ny, nx // 2 + 1) what the detector does before electrons are drawn; None if nothing.
    """

    atoms: Axes
    ice: InIce | None
    step: Axes
    back: Axes
    detector: Array | None


class Filled(NamedTuple):
    """Slabs with what is in them.

    Attributes
    ----------
    number
        Of slabs that the wave goes through.
    potential, covered, lost, white
        Slab number -> (ny, nx): V Å³ of the atoms' potential, Å³ of each pixel's volume that atoms cover,
        Å² that they lose beyond the grid, and white noise, of which the ice becomes.
        They are asked for in their order, noise once. Nothing is covered without ice,
        and nothing lost at a contrast without losses.
    """

    number: Any
    potential: Callable[[Any], Array]
    covered: Callable[[Any], Array] | None
    lost: Callable[[Any], Array] | None
    white: Callable[[Any], Array]


@dataclass(frozen=True)
class Sizes:
    """Of the grid (ny, nx), and where (first pixel) and how often (pixels) the image's voxels lie in it."""

    shape: tuple[int, int]
    first: tuple[int, int]
    every: int
    voxels: tuple[int, int]


def image(ops: Operations, sizes: Sizes, common: Common, view: View, filled: Filled) -> Array:
    """Compute the intensity in voxels, where vacuum is 1; see :class:`Operations`.

    Returns
    -------
    array, float32, (ny, nx) of ``sizes.voxels``
    """
    shape = sizes.shape
    of_atoms = _outer(view.atoms) / common.area
    if view.ice is not None:
        of_displaced = _outer(view.ice.displaced) * view.ice.displaced_scale
        of_field = common.ice * _outer(view.ice.field) * view.ice.field_scale
    step = _outer(view.step)

    def phase(k: Any) -> Array:
        projected = ops.rfft2(filled.potential(k))
        if view.ice is None or filled.covered is None:
            projected = ops.times(projected, of_atoms)
        else:
            covered = filled.covered(k)
            white = ops.damp(filled.white(k), covered, view.ice.share[k], view.ice.volume)
            # atoms, less the ice that they displace, plus the ice's field
            projected = ops.mix(
                projected, of_atoms, ops.rfft2(covered), of_displaced, ops.rfft2(white), of_field
            )
            projected = ops.add_to_row(projected, view.ice.mean[k])
        return ops.irfft2(projected, shape)

    def through(k: Any, wave: Array) -> Array:
        wave = ops.refract(wave, phase(k), common.sigma)
        if filled.lost is not None:
            lost = filled.lost(k)
            if view.ice is not None and filled.covered is not None:
                of_ice, of_displaced = view.ice.lost
                lost = ops.with_ice(lost, filled.covered(k), view.ice.share[k], of_displaced, of_ice)
            wave = ops.fade(wave, lost, common.area)
        return ops.fft2(wave)

    last = filled.number - 1
    wave = ops.repeat(last, lambda k, wave: ops.ifft2(ops.times(through(k, wave), step)), ops.ones(shape))
    # from the last slab back to the middle of the box, where the lens is focused, then through the lens
    spectrum = ops.times(ops.times(through(last, wave), _outer(view.back)), common.lens)
    seen = ops.intensity(ops.ifft2(spectrum))
    if view.detector is not None:
        seen = ops.irfft2(ops.times(ops.rfft2(seen), view.detector), shape)
    y, x = common.voxel
    seen = ops.irfft2(ops.times(ops.times(ops.rfft2(seen), y[:, None]), x), shape)
    (y0, x0), n, (ny, nx) = sizes.first, sizes.every, sizes.voxels
    return seen[y0 : y0 + ny * n : n, x0 : x0 + nx * n : n]


def sizes_of(layout: Layout, grid: Grid) -> Sizes:
    """Say where the image lies in the grid."""
    return Sizes(grid.shape, (grid.y0, grid.x0), grid.oversampling, layout.scene.shape[1:])


def common(layout: Layout, acq: Acquisition, grid: Grid) -> Common:
    """Prepare what the tilts of a series share."""
    n = grid.oversampling
    shift = (n - 1) / 2 * grid.step  # from the first pixel of a voxel to its centre
    y, x = (
        (
            binning.transfer(q, layout.scene.voxel_size, acq.pixel_size, acq.binning)
            * np.exp(2j * pi * q * shift)
        ).astype(np.complex64)
        for q in _frequencies(grid)
    )
    return Common(
        sigma=np.float32(optics.interaction(acq.voltage)),
        area=np.float32(grid.step**2),
        lens=_lens(grid.shape, grid.step, acq),
        ice=_ice_shape(grid.shape, grid.step, acq) if acq.ice_density else None,
        voxel=(y, x),
    )


def view(layout: Layout, acq: Acquisition, grid: Grid, number: int, *, detected: bool) -> View:
    """Prepare what belongs to one tilt.

    Parameters
    ----------
    layout, acq, grid
        What was laid out, and how.
    number
        Of slabs that the wave goes through: those of the layout, and empty ones after them.
    detected
        Whether the detector is in the picture.
    """
    lam = optics.wavelength(acq.voltage)
    qy, qx = _frequencies(grid)
    b = optics.b_factor(acq, layout.tilt) / 4
    # bilinear splatting is the square of a pixel's own transfer
    pixel = [np.sinc(q * grid.step) ** -2 for q in (qy, qx)]
    ice = _in_ice(layout, acq, grid, b, pixel) if acq.ice_density else None
    detector = None
    if detected:
        detector = optics.detection(grid.shape, grid.step / acq.pixel_size, acq, layout.tilt)
    return View(
        atoms=_gaussian(qy, qx, b + pi**2 * layout.squared_radius, pixel),
        ice=ice,
        step=_propagator(grid, lam * layout.frame.thickness),
        back=_propagator(grid, -lam * layout.depth(number - 1)),
        detector=detector,
    )


def _in_ice(
    layout: Layout, acq: Acquisition, grid: Grid, b: float, pixel: list[NDArray[np.float64]]
) -> InIce:
    qy, qx = _frequencies(grid)
    thickness = layout.frame.thickness
    scattering = potentials.scattering(acq.contrast)
    water = potentials.WATER * acq.ice_density  # molecules a cubic angstrom
    density = scattering.ice_mean * water
    variance = scattering.ice_variance * water * thickness
    lost = inelastic.of_water(acq, grid.step)
    along_x = np.exp(-b * qx**2) * density * thickness * grid.ny
    return InIce(
        displaced=_gaussian(qy, qx, b + pi**2 * layout.squared_radius_covered, pixel),
        displaced_scale=np.float32(potentials.DISPLACED * density / grid.step**2),
        field=_gaussian(qy, qx, b),
        field_scale=np.float32(np.sqrt(variance) / grid.step),
        share=layout.ice,
        mean=np.stack([(scipy.fft.rfft(share) * along_x).astype(np.complex64) for share in layout.ice]),
        volume=np.float32(grid.step**2 * thickness),
        lost=(
            np.float32(water * lost * grid.step**2 * thickness),
            np.float32(water * lost * potentials.DISPLACED),
        ),
    )


def _frequencies(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of the half plane that a real image has, 1/Å, along y and x."""
    return scipy.fft.fftfreq(grid.ny, grid.step), scipy.fft.rfftfreq(grid.nx, grid.step)


def _outer(axes: Axes) -> Array:
    y, x = axes
    return y[:, None] * x


def _gaussian(
    qy: NDArray[np.float64],
    qx: NDArray[np.float64],
    fall: float,
    times: list[NDArray[np.float64]] | None = None,
) -> Axes:
    """exp(-fall q²) along the axes of a grid of frequencies, times a function of each of them."""
    y, x = np.exp(-fall * qy**2), np.exp(-fall * qx**2)
    if times:
        y, x = y * times[0], x * times[1]
    return y.astype(np.float32), x.astype(np.float32)


def _propagator(grid: Grid, distance: float) -> Axes:
    """Fresnel propagator along y and x over ``distance`` wavelengths times Å."""
    y, x = (
        np.exp(-1j * pi * distance * scipy.fft.fftfreq(n, grid.step) ** 2).astype(np.complex64)
        for n in grid.shape
    )
    return y, x


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
