"""Compare picks with the particle and with its mirror image, to recognise picks of other molecules.

In its best orientation, a correct pick resembles the particle more than the particle's mirror image. Wrong
picks (other molecules, membranes, noise) resemble both equally, because both have the same size, density and
power spectrum. Among wrong picks, each hand therefore wins equally often, and the wins of the mirror image
show how many wins of the particle are due to chance. This is target-decoy competition, as in mass
spectrometry (Elias & Gygi, Nat. Methods 4 (2007) 207), but the decoy is a molecule instead of noise.

The similarity is the correlation coefficient of a pick's surroundings with the mean particle of the training
data, over some thousand orientations and small shifts, at a resolution of about a third of the particle's
radius, outside the missing wedge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.frequencies import frequencies
from catalogs.particle_mean import ParticleMean

Real = NDArray[np.float32]
Floats = NDArray[np.float64]
Spectrum = NDArray[np.complex64]

#: Orientations of the coarse and the fine search: about 29 and 19 degrees apart.
ROUGH, FINE = 600, 2000
#: Resolution of the coarse and the fine search, in radii of the particle.
LOW, HIGH = 0.65, 0.3
#: Shifts in radii: range, step, and finer step around the best shifts.
_REACH, _STEP, _FINER = 0.3, 0.15, 0.07
#: Number of the best shifts of the coarse search that are refined.
_AGAIN = 2
#: Picks that are compared at a time: one product of large matrices is quicker than many of small ones.
_TOGETHER = 16
#: A frequency is in the missing wedge if its power is less than this share of its shell's median.
_EMPTY = 0.02
#: Oversampling of the Fourier transform of the mean.
_PAD = 3
#: Number of picks whose mean power shows which frequencies were measured.
_SOME = 300


@dataclass(frozen=True, eq=False)
class Hands:
    """Best correlation coefficients of picks with both hands of the particle.

    Attributes
    ----------
    straight, mirrored
        (n,) correlation with the particle, and with its mirror image.
    """

    straight: Floats
    mirrored: Floats

    @property
    def margin(self) -> Floats:
        """(n,) difference of the two; negative if the mirror image fits better."""
        return self.straight - self.mirrored


def compare(values: Real, voxel_size: float, xyz: Floats, mean: ParticleMean, radius: float) -> Hands:
    """Compare the surroundings of picks with a particle and with its mirror image.

    Parameters
    ----------
    values
        (z, y, x) normalised grey values.
    voxel_size
        Å.
    xyz
        (n, 3) positions x, y, z relative to the centre of voxel 0, Å.
    mean
        Mean of the particle.
    radius
        Radius of the particle, Å.

    Returns
    -------
    Hands
    """
    from scipy import fft

    if not len(xyz):
        return Hands(np.empty(0), np.empty(0))
    binning = max(1, round(mean.spacing / voxel_size))
    n = fft.next_fast_len(mean.edge + 1, real=True)
    n += n % 2
    mask = _mask(n, 1.5 * radius / (binning * voxel_size))

    def spectrum(place: Floats) -> Spectrum:
        block = _cut(values, place[::-1] / voxel_size, n, binning) * mask
        return np.asarray(fft.rfftn(fft.ifftshift(block)), np.complex64)

    some = xyz[np.unique(np.linspace(0, len(xyz) - 1, min(len(xyz), _SOME)).round().astype(int))]
    power = np.mean([np.abs(spectrum(place)) ** 2 for place in some], axis=0)
    return _compared((spectrum(place) for place in xyz), power, mean, binning * voxel_size, radius, mask)


def _compared(
    spectra: Iterable[Spectrum],
    power: Real,
    mean: ParticleMean,
    spacing: float,
    radius: float,
    mask: Real,
) -> Hands:
    frequency = _frequencies(len(power)) / spacing
    length = np.sqrt((frequency**2).sum(axis=-1))
    seen = _seen(power)
    rough = seen & (length > 0) & (length <= 1 / max(LOW * radius, 2.5 * spacing))
    fine = seen & (length > 0) & (length <= 1 / max(HIGH * radius, 2.5 * spacing))
    if rough.sum() < 8:  # the hand of a particle of only a few voxels cannot be seen
        zero = np.array([0.0 for _ in spectra])
        return Hands(zero, zero)
    transform = _transform(mean, spacing, len(power), mask)
    banks = [
        _bank(transform, turns(count), frequency[where], mean.spacing)
        for count, where in ((ROUGH, rough), (FINE, fine))
    ]
    steps = np.arange(-_REACH, _REACH + 1e-6, _STEP) * radius
    shifts = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    near = np.vstack([np.zeros(3), np.eye(3), -np.eye(3)]) * _FINER * radius
    at_rough, at_fine = (_waves(frequency[where], shifts) for where in (rough, fine))
    at_near = _waves(frequency[fine], near)
    best = []
    for group in _groups(spectra):
        both = [each for spectrum in group for each in (spectrum, _mirrored(spectrum))]
        first = _best(banks[0], _units(both, rough)[:, :, None] * at_rough[:, None])
        top = np.argsort(-first, axis=1)[:, :_AGAIN]
        closer = at_fine[:, top][..., None] * at_near[:, None, None]
        second = _best(banks[1], _units(both, fine)[:, :, None] * closer.reshape(*closer.shape[:2], -1))
        best.append(second.max(axis=1).reshape(-1, 2))
    straight, mirrored = np.concatenate(best).T.astype(np.float64)
    return Hands(straight, mirrored)


def _groups(spectra: Iterable[Spectrum]) -> Iterator[list[Spectrum]]:
    """Take some spectra at a time."""
    rest = iter(spectra)
    while group := list(islice(rest, _TOGETHER)):
        yield group


def _waves(frequency: Floats, shifts: Floats) -> Spectrum:
    """Return (frequencies, shifts) phases that move a pick by each shift."""
    return np.exp(2j * np.pi * (frequency @ shifts.T)).astype(np.complex64)


def _units(spectra: list[Spectrum], where: NDArray[np.bool_]) -> Spectrum:
    """Return (frequencies, spectra) of unit length each."""
    return np.stack([_unit(spectrum[where]) for spectrum in spectra], axis=1)


def _best(bank: Real, spectra: Spectrum) -> Real:
    """Correlate (frequencies, picks, shifts) with all orientations; returns the best, (picks, shifts)."""
    _, picks, shifts = spectra.shape
    columns = _halves(spectra.reshape(len(spectra), picks * shifts))
    return np.asarray((bank @ columns).max(axis=0).reshape(picks, shifts))


def turns(n: int) -> Floats:
    """Spread rotations evenly by super-Fibonacci spirals (Alexa, CVPR 2022): (n, 4) quaternions xyzw."""
    s = np.arange(n) + 0.5
    a, b = 2 * np.pi * s / np.sqrt(2), 2 * np.pi * s / 1.533751168755204288118041
    inner, outer = np.sqrt(s / n), np.sqrt(1 - s / n)
    return np.column_stack([inner * np.sin(a), inner * np.cos(a), outer * np.sin(b), outer * np.cos(b)])


def _mask(n: int, radius: float) -> Real:
    """Ball with a soft edge around the voxel n / 2 of a cube."""
    at = np.arange(n) - n // 2
    far = np.sqrt(at[:, None, None] ** 2 + at[:, None] ** 2 + at**2)
    return np.asarray(np.clip((min(radius, n / 2 - 0.5) - far) / 2, 0, 1), np.float32)


def _cut(values: Real, centre: Floats, n: int, binning: int) -> Real:
    """Cut out and bin a cube around a position in voxels (z, y, x); outermost planes are repeated outside."""
    first = np.rint(centre).astype(np.int64) - n // 2 * binning - (binning - 1) // 2
    index = [
        np.clip(np.arange(a, a + n * binning), 0, m - 1) for a, m in zip(first, values.shape, strict=True)
    ]
    block = values[np.ix_(*index)]
    if binning > 1:
        block = block.reshape(n, binning, n, binning, n, binning).mean(axis=(1, 3, 5))
    return np.asarray(block, np.float32)


def _frequencies(n: int) -> Floats:
    """Return (n, n, n / 2 + 1, 3) frequencies along z, y, x in cycles per voxel."""
    return np.stack(np.broadcast_arrays(*frequencies((n, n, n), half=True)), axis=-1)


def _seen(power: Real) -> NDArray[np.bool_]:
    """Find the frequencies that were measured, from the mean power; they are the same for both hands."""
    n = len(power)
    shell = np.rint(np.sqrt((_frequencies(n) ** 2).sum(axis=-1)) * n).astype(np.int64)
    median = np.array([np.median(power[shell == k]) for k in range(int(shell.max()) + 1)])
    seen = power >= _EMPTY * median[shell]
    return np.asarray(seen & _mirrored(seen))


def _mirrored(half: NDArray[Any]) -> NDArray[Any]:
    """Mirror a volume at its central z plane (voxel n / 2), given the half of its Fourier transform."""
    return half[np.r_[0, len(half) - 1 : 0 : -1]]


def _transform(mean: ParticleMean, spacing: float, n: int, mask: Real) -> NDArray[np.complex64]:
    """Fourier transform of the mean around its centre, finely sampled, with frequency 0 in the middle."""
    from scipy import fft

    cube = mean.cube("aligned")
    half = len(cube) // 2
    at = np.arange(len(cube)) - half
    far = np.sqrt(at[:, None, None] ** 2 + at[:, None] ** 2 + at**2) * mean.spacing / spacing
    reach = float(np.flatnonzero(mask[n // 2, n // 2] > 0).max() - n // 2 + 1)
    cube = cube * np.clip((reach - far) / 2, 0, 1).astype(np.float32)
    size = _PAD * (len(cube) + 1)
    padded = np.zeros((size,) * 3, np.float32)
    corner = size // 2 - half
    padded[(slice(corner, corner + len(cube)),) * 3] = cube
    return np.asarray(fft.fftshift(fft.fftn(fft.ifftshift(padded))), np.complex64)


def _bank(transform: NDArray[np.complex64], rotations: Floats, frequency: Floats, spacing: float) -> Real:
    """Rotate the mean: (rotations, 2 x frequencies), each row of unit length, real parts first."""
    from scipy.ndimage import map_coordinates
    from scipy.spatial.transform import Rotation

    size = len(transform)
    bank = np.empty((len(rotations), 2 * len(frequency)), np.float32)
    xyz = frequency[:, ::-1] * spacing * size
    for k, rotation in enumerate(Rotation.from_quat(rotations)):
        at = rotation.inv().apply(xyz)[:, ::-1].T + size // 2
        parts = [map_coordinates(part, at, order=1) for part in (transform.real, transform.imag)]
        bank[k] = np.concatenate(parts)
    return bank / np.maximum(np.linalg.norm(bank, axis=1, keepdims=True), 1e-20)


def _unit(spectrum: NDArray[np.complex64]) -> NDArray[np.complex64]:
    return spectrum / max(float(np.linalg.norm(spectrum)), 1e-20)


def _halves(spectrum: NDArray[np.complex64]) -> Real:
    return np.concatenate([spectrum.real, spectrum.imag])
