"""Augmentations in Fourier space, and noise without amplitudes in the missing wedge."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from catalogs.frequencies import frequencies
from catalogs.seeds import generator

Floats = NDArray[np.float32]

#: Frequencies, in cycles per voxel, at which a random curve has its knots.
_KNOTS = np.linspace(0.0, 0.5, 5)
_SHELLS = 256  # of a curve's table, up to the corner of Fourier space
_CORNER = math.sqrt(3) / 2
_SOFT = 2.0  # degrees over which the edge of a wedge is soft

_POOL = 128  # voxels: edge of the volume of noise that patches are taken from
_BIN = 5.0  # degrees: tilt ranges are rounded to it, inwards


class Filter:
    """Factors for the amplitudes of a cube; if there are none, nothing is transformed.

    Parameters
    ----------
    shape
        Voxels along z, y, x.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._curve: NDArray[np.float64] | None = None
        self._tilts: tuple[float, float] | None = None

    def curve(self, strength: float, dice: NDArray[np.float64]) -> None:
        """Multiply shells by a smooth random curve.

        Parameters
        ----------
        strength
            Standard deviation of its logarithm.
        dice
            Five numbers from 0 to 1.
        """
        normal = math.sqrt(12) * (dice[: len(_KNOTS)] - 0.5)  # with standard deviation 1 and bounded
        self._times(np.exp(strength * np.interp(_frequencies(), _KNOTS, normal)))

    def low_pass(self, half: float) -> None:
        """Multiply by a Gaussian that is one half at a frequency in cycles per voxel."""
        self._times(np.exp(-math.log(2) * (_frequencies() / half) ** 2))

    def keep_tilts(self, first: float, last: float) -> None:
        """Remove the directions outside of a range of tilts, in degrees."""
        self._tilts = (first, last)

    def _times(self, factors: NDArray[np.float64]) -> None:
        self._curve = factors if self._curve is None else self._curve * factors

    def __call__(self, cube: Floats) -> Floats:
        """Return the changed cube; the mean stays."""
        if self._curve is None and self._tilts is None:
            return cube
        amplitudes = fft.rfftn(cube)
        mean = amplitudes[0, 0, 0]
        if self._curve is not None:
            amplitudes *= self._curve.astype(np.float32)[_shells(self._shape)]
        if self._tilts is not None:
            amplitudes *= wedge(self._shape, *self._tilts)[:, None, :]
        amplitudes[0, 0, 0] = mean
        changed: Floats = fft.irfftn(amplitudes, s=cube.shape, overwrite_x=True)
        return changed


def wedge(shape: tuple[int, ...], first: float, last: float) -> Floats:
    """Return which directions are measured by tilts about the axis y.

    By the projection-slice theorem a tilt by an angle measures the plane through the axis ky whose other
    direction has this angle from kx towards kz (Crowther, DeRosier and Klug, Proc. R. Soc. A 317, 319, 1970).

    Parameters
    ----------
    shape
        Voxels along z, y, x.
    first, last
        Tilts, degrees.

    Returns
    -------
    ndarray
        (z, x // 2 + 1) float32, of ``rfftn``: 1 where it is measured, 0 in the missing wedge.
    """
    angle, radius = _angles(shape)
    beyond = np.maximum(first - angle, angle - last)
    inside: Floats = np.clip(0.5 - beyond / _SOFT, 0, 1)
    # an angle below -90° is one above it
    for turn in (-180.0, 180.0):
        beyond = np.maximum(first - angle - turn, angle + turn - last)
        inside = np.maximum(inside, np.clip(0.5 - beyond / _SOFT, 0, 1))
    inside[radius < 1e-6] = 1
    return inside.astype(np.float32)


def noise_volume(edge: int, tilts: tuple[float, float]) -> Floats:
    """Return noise of standard deviation 1 at the frequencies that tilts measure, and only there.

    It is made once, because drawing and filtering noise for each patch would cost more than everything else.

    Parameters
    ----------
    edge
        Of a patch in voxels.
    tilts
        First and last, degrees.

    Returns
    -------
    ndarray
        (z, y, x), at least twice as wide as a patch; read-only.
    """
    first, last = math.ceil(tilts[0] / _BIN) * _BIN, math.floor(tilts[1] / _BIN) * _BIN
    return _pool(max(_POOL, 2 * edge), first, last)


@lru_cache(16)
def _pool(edge: int, first: float, last: float) -> Floats:
    """Make noise once for each tilt range."""
    rng = generator("noise", edge, int(first), int(last))
    amplitudes = fft.rfftn(rng.standard_normal((edge,) * 3, dtype=np.float32))
    # a tilt measures frequencies up to half a cycle a voxel, whatever its direction
    measured = wedge((edge,) * 3, first, last) * (_angles((edge,) * 3)[1] <= 0.5)
    amplitudes *= measured.astype(np.float32)[:, None, :]
    noise: Floats = fft.irfftn(amplitudes, s=(edge,) * 3)
    noise /= noise.std()
    noise.setflags(write=False)
    return noise


def _frequencies() -> NDArray[np.float64]:
    return np.linspace(0, _CORNER, _SHELLS)


@lru_cache(8)
def _shells(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return the index in a curve's table of each amplitude of ``rfftn``."""
    kz, ky, kx = frequencies(shape, half=True)
    radius = np.sqrt(kz**2 + ky**2 + kx**2)
    return np.rint(radius / _CORNER * (_SHELLS - 1)).astype(np.intp)


@lru_cache(8)
def _angles(shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Direction in the plane of kz and kx in degrees, and distance from the origin."""
    kz, _, kx = frequencies(shape, half=True)
    kz, kx = kz[:, 0], kx[0]
    return np.rad2deg(np.arctan2(kz, kx)), np.hypot(kz, kx)
