"""Compute an image in voxels from filled slabs; the same code is used for every device.

A plane wave is propagated through the slabs by multislice (Cowley & Moodie 1957; Kirkland 2010, chapter 6),
then through the lens. Its intensity is recorded by the detector and binned to voxels. All steps use the few
operations of :class:`Operations`, which :mod:`tlgen.simulate.multislice.on_cpu` and
:mod:`tlgen.simulate.multislice.on_gpu` provide. The factors on Fourier transforms are computed here, on the
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

#: An array on the device: from NumPy or from JAX.
Array = Any
#: Factors along y and x; they stand for their outer product over the grid.
Axes = tuple[Array, Array]


@dataclass(frozen=True)
class Operations:
    """Operations on single-precision arrays (ny, nx); each may overwrite its first argument.

    Attributes
    ----------
    ones
        A plane wave of a given shape.
    rfft2, irfft2
        Transform a real image to its half plane, and back to an image of a given shape.
    fft2, ifft2
        Transform a wave, and back.
    times
        Product of two arrays.
    mix
        ``a of_a - b of_b + c of_c`` of six arrays.
    add_to_row
        Add a row to the first row of a spectrum.
    damp
        Scale white noise to the strength of the ice in each column of a slab.
    refract
        A wave times ``exp(i sigma phase)``.
    with_ice
        Losses of atoms and ice: ``lost + max(share of_ice - covered of_cover, 0)``, with the arguments
        ``(lost, covered, share, of_cover, of_ice)``.
    fade
        A wave times ``exp(-lost / area)``.
    intensity
        Squared modulus of a wave.
    repeat
        ``state = body(k, state)`` for k from 0, a given number of times.
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
    """Factors that are the same for all tilts of a series.

    Attributes
    ----------
    sigma
        Interaction constant, radians per V Å of projected potential.
    area
        Area of a pixel, Å².
    lens
        (ny, nx) factor on the transform of the wave.
    ice
        (ny, nx // 2 + 1) factor on the transform of white noise that makes ice of variance 1; None without
        ice.
    voxel
        Binning, and the shift from a voxel's first pixel to its centre.
    """

    sigma: Array
    area: Array
    lens: Array
    ice: Array | None
    voxel: Axes


class InIce(NamedTuple):
    """Factors for the ice of one tilt.

    Attributes
    ----------
    displaced, displaced_scale
        Factors that turn the transform of the covered volume into that of the displaced ice's potential.
    field, field_scale
        Factors on the transform of the noise, in addition to :attr:`Common.ice`.
    share
        (slabs, nx) share of each column of a slab that is ice.
    mean
        (slabs, nx // 2 + 1) transform along x of the mean potential of the ice.
    volume
        Volume of a column of a slab, Å³.
    lost
        Loss of a column of ice, Å², and the reduction of this loss per Å³ of covered volume.
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
    """Factors for one tilt.

    Attributes
    ----------
    atoms
        Factor on the transform of the atoms' integrals.
    ice
        Factors for the ice; None without ice.
    step, back
        Propagators: over one slab, and from the last slab to the middle of the box.
    detector
        (ny, nx // 2 + 1) response of the detector before electrons are drawn; None for a perfect detector.
    """

    atoms: Axes
    ice: InIce | None
    step: Axes
    back: Axes
    detector: Array | None


class Filled(NamedTuple):
    """The contents of the slabs.

    Attributes
    ----------
    number
        Number of slabs that the wave passes.
    potential, covered, lost, white
        Slab number -> (ny, nx): potential of the atoms in V Å³, volume that atoms cover in Å³, loss of the
        atoms beyond the grid in Å², and white noise from which the ice is made. Slabs are requested in
        order, and the noise of each only once. ``covered`` is None without ice, and ``lost`` is None for a
        contrast without losses.
    """

    number: Any
    potential: Callable[[Any], Array]
    covered: Callable[[Any], Array] | None
    lost: Callable[[Any], Array] | None
    white: Callable[[Any], Array]


@dataclass(frozen=True)
class Sizes:
    """Shape of the grid (ny, nx), and the image's voxels in it: first pixel, spacing in pixels, number."""

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
            # atoms, minus the ice that they displace, plus the fluctuations of the ice
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
    # propagate from the last slab back to the middle of the box, which is in focus, then through the lens
    spectrum = ops.times(ops.times(through(last, wave), _outer(view.back)), common.lens)
    seen = ops.intensity(ops.ifft2(spectrum))
    if view.detector is not None:
        seen = ops.irfft2(ops.times(ops.rfft2(seen), view.detector), shape)
    y, x = common.voxel
    seen = ops.irfft2(ops.times(ops.times(ops.rfft2(seen), y[:, None]), x), shape)
    (y0, x0), n, (ny, nx) = sizes.first, sizes.every, sizes.voxels
    return seen[y0 : y0 + ny * n : n, x0 : x0 + nx * n : n]


def sizes_of(layout: Layout, grid: Grid) -> Sizes:
    """Return the position of the image in the grid."""
    return Sizes(grid.shape, (grid.y0, grid.x0), grid.oversampling, layout.scene.shape[1:])


def common(layout: Layout, acq: Acquisition, grid: Grid) -> Common:
    """Prepare the factors that are the same for all tilts of a series."""
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
    """Prepare the factors for one tilt.

    Parameters
    ----------
    layout, acq, grid
        The specimen in slabs, the acquisition and the grid.
    number
        Number of slabs that the wave passes: those of the layout, followed by empty ones.
    detected
        Whether to include the detector.
    """
    lam = optics.wavelength(acq.voltage)
    qy, qx = _frequencies(grid)
    b = optics.b_factor(acq, layout.tilt) / 4
    # compensates for bilinear splatting, whose transfer is the square of a pixel's own
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
    water = potentials.WATER * acq.ice_density  # molecules per cubic angstrom
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
    """Frequencies of the half plane of a real image along y and x, 1/Å."""
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
    """exp(-fall q²) along the axes of a grid of frequencies, times a function along each axis."""
    y, x = np.exp(-fall * qy**2), np.exp(-fall * qx**2)
    if times:
        y, x = y * times[0], x * times[1]
    return y.astype(np.float32), x.astype(np.float32)


def _propagator(grid: Grid, distance: float) -> Axes:
    """Fresnel propagator along y and x; ``distance`` is the distance times the wavelength, Å²."""
    y, x = (
        np.exp(-1j * pi * distance * scipy.fft.fftfreq(n, grid.step) ** 2).astype(np.complex64)
        for n in grid.shape
    )
    return y, x


@lru_cache(maxsize=4)
def _lens(shape: tuple[int, int], step: float, acq: Acquisition) -> NDArray[np.complex64]:
    """Transfer function of the lens, which is the same for all tilts of a series."""
    lens = optics.transfer(shape, step, acq)
    return lens * optics.phase_plate(shape, step, acq) if acq.phase_plate else lens


@lru_cache(maxsize=4)
def _ice_shape(shape: tuple[int, int], step: float, acq: Acquisition) -> NDArray[np.float32]:
    """Factor on the half plane of white noise that makes ice of variance 1 at 1 Å per pixel.

    The variance of Parakeet's ice is that over all frequencies of its 1 Å pixels; the grid has only some.
    """
    own = optics.frequencies((512, 512), 1.0)
    q2 = optics.frequencies(shape, step)[:, : shape[1] // 2 + 1]
    return np.sqrt(optics.ice_power(q2, acq) / optics.ice_power(own, acq).mean()).astype(np.float32)
