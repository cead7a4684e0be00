"""The multislice on a CPU core, with NumPy arrays, SciPy's FFT and loops compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from catalogs.schema import Acquisition
from catalogs.seeds import generator
from tlgen.simulate.microscope import inelastic, potentials
from tlgen.simulate.multislice import displaced_ice, solids, splat, wave
from tlgen.simulate.multislice.slabs import Grid, Layout


def simulate(
    layout: Layout, acq: Acquisition, grid: Grid, seed: int, *, detected: bool
) -> NDArray[np.float32]:
    """Compute the mean intensity of one tilt in voxels, (ny, nx), where vacuum is 1.

    ``detected`` includes the response of the detector before electrons are drawn.
    """
    seen = wave.image(
        OPERATIONS,
        wave.sizes_of(layout, grid),
        wave.common(layout, acq, grid),
        wave.view(layout, acq, grid, layout.slabs, detected=detected),
        _filled(layout, acq, grid, seed),
    )
    return np.ascontiguousarray(seen)


class Contents(NamedTuple):
    """Contents of the slabs; arrays that are not needed have no slabs.

    Attributes
    ----------
    potential
        (slabs, ny, nx) potential of the atoms, V Å³; each atom is distributed over four pixels.
    covered
        (slabs, ny, nx) volume that atoms cover, Å³; needed with ice.
    lost
        (slabs, ny, nx) losses from :func:`tlgen.simulate.microscope.inelastic.of_atoms`, Å².
    """

    potential: NDArray[np.float32]
    covered: NDArray[np.float32]
    lost: NDArray[np.float32]


def fill(layout: Layout, acq: Acquisition, grid: Grid) -> Contents:
    """Add the atoms, and the ice that they displace, to the slabs."""
    integral, lost = potentials.scattering(acq.contrast).integral, inelastic.of_atoms(acq, grid.step)
    made = Contents(
        *(
            np.zeros((layout.slabs if needed else 0, *grid.shape), np.float32)
            for needed in (True, bool(acq.ice_density), lost is not None)
        )
    )
    weighed = [(made.potential, integral)] + ([] if lost is None else [(made.lost, lost)])
    one = np.ones(1, np.float32)
    for molecule, matrix, shift in layout.standing:
        occupancy = one if molecule.is_atomic else np.ascontiguousarray(molecule.occupancy)
        for slabs, weights in weighed:
            splat.place_atoms(slabs, molecule.positions, molecule.elements, occupancy, weights, matrix, shift)
        if acq.ice_density:
            cells = displaced_ice.volume_of(molecule, acq.slice_thickness)
            splat.place(made.covered, cells.positions, cells.volumes, matrix, shift)
    if layout.scene.decorations:
        channels = [*weighed, *([(made.covered, None)] if acq.ice_density else [])]
        into, by_element = zip(*channels, strict=True)
        solids.decorate(layout.scene, layout.tilt, layout.frame, into, by_element)
    return made


def _filled(layout: Layout, acq: Acquisition, grid: Grid, seed: int) -> wave.Filled:
    potential, covered, lost = fill(layout, acq, grid)
    rng = generator(seed, "ice", layout.tilt.index)
    white = np.empty(grid.shape if acq.ice_density else (0, 0), np.float32)
    return wave.Filled(
        layout.slabs,
        lambda k: potential[k],
        (lambda k: covered[k]) if len(covered) else None,
        (lambda k: lost[k]) if len(lost) else None,
        lambda _: rng.standard_normal(dtype=np.float32, out=white),
    )


def _repeat(number: int, body: Callable[[int, Any], Any], state: Any) -> Any:
    for k in range(number):
        state = body(k, state)
    return state


def _times(a: Any, b: Any) -> Any:
    a *= b
    return a


def _add_to_row(spectrum: Any, row: Any) -> Any:
    spectrum[0] += row
    return spectrum


@numba.njit(cache=True, nogil=True)
def _intensity(wave: NDArray[np.complex64]) -> NDArray[np.float32]:
    image = np.empty(wave.shape, np.float32)
    for y in range(wave.shape[0]):
        for x in range(wave.shape[1]):
            image[y, x] = wave[y, x].real * wave[y, x].real + wave[y, x].imag * wave[y, x].imag
    return image


@numba.njit(cache=True, nogil=True)
def _refract(
    wave: NDArray[np.complex64], phase: NDArray[np.float32], sigma: np.float32
) -> NDArray[np.complex64]:
    for y in range(wave.shape[0]):
        for x in range(wave.shape[1]):
            angle = sigma * phase[y, x]
            wave[y, x] *= complex(np.cos(angle), np.sin(angle))
    return wave


@numba.njit(cache=True, nogil=True)
def _damp(
    white: NDArray[np.float32], covered: NDArray[np.float32], ice: NDArray[np.float32], volume: np.float32
) -> NDArray[np.float32]:
    """Scale noise to the ice in a column: variances add up, and the ice is a third where an atom is."""
    third = np.float32((1 - potentials.DISPLACED) ** 2)
    for y in range(white.shape[0]):
        for x in range(white.shape[1]):
            variance = ice[x] - (np.float32(1) - third) * covered[y, x] / volume
            white[y, x] *= np.sqrt(max(variance, third * ice[x]))
    return white


@numba.njit(cache=True, nogil=True)
def _with_ice(
    lost: NDArray[np.float32],
    covered: NDArray[np.float32],
    share: NDArray[np.float32],
    of_cover: np.float32,
    of_ice: np.float32,
) -> NDArray[np.float32]:
    for y in range(lost.shape[0]):
        for x in range(lost.shape[1]):
            lost[y, x] += max(share[x] * of_ice - covered[y, x] * of_cover, np.float32(0))
    return lost


@numba.njit(cache=True, nogil=True)
def _fade(wave: NDArray[np.complex64], lost: NDArray[np.float32], area: np.float32) -> NDArray[np.complex64]:
    for y in range(wave.shape[0]):
        for x in range(wave.shape[1]):
            wave[y, x] *= np.exp(-lost[y, x] / area)
    return wave


@numba.njit(cache=True, nogil=True)
def _mix(
    a: NDArray[np.complex64],
    of_a: NDArray[np.float32],
    b: NDArray[np.complex64],
    of_b: NDArray[np.float32],
    c: NDArray[np.complex64],
    of_c: NDArray[np.float32],
) -> NDArray[np.complex64]:
    for y in range(a.shape[0]):
        for x in range(a.shape[1]):
            a[y, x] = a[y, x] * of_a[y, x] - b[y, x] * of_b[y, x] + c[y, x] * of_c[y, x]
    return a


#: Operations on NumPy arrays.
OPERATIONS = wave.Operations(
    ones=lambda shape: np.ones(shape, np.complex64),
    rfft2=scipy.fft.rfft2,
    irfft2=lambda spectrum, shape: scipy.fft.irfft2(spectrum, shape, overwrite_x=True),
    fft2=lambda wave: scipy.fft.fft2(wave, overwrite_x=True),
    ifft2=lambda wave: scipy.fft.ifft2(wave, overwrite_x=True),
    times=_times,
    mix=_mix,
    add_to_row=_add_to_row,
    damp=_damp,
    refract=_refract,
    with_ice=_with_ice,
    fade=_fade,
    intensity=_intensity,
    repeat=_repeat,
)
