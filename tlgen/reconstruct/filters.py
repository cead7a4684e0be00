"""Filters of weighted back-projection, perpendicular to the tilt axis, and dose weights of images."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from catalogs.errors import InputError
from tlgen.reconstruct.settings import Reconstruction


def row_filters(
    settings: Reconstruction, angles: NDArray[np.float64], n: int, depth: int
) -> NDArray[np.float64]:
    """Weights of the rows of each image by frequency; they include the image's share of the angular range.

    Parameters
    ----------
    settings
        Kind of filter, and its roll-off.
    angles
        (t,) tilt angles in degrees.
    n
        Length of a padded row in pixels.
    depth
        Size of the tomogram along z in voxels.

    Returns
    -------
    ndarray
        (t, n // 2 + 1) factors on the transforms of the rows.
    """
    radians = np.radians(angles)
    # Each image represents its share of the angular range, which is one step on average.
    reach = float(np.ptp(radians))
    step = reach / (len(radians) - 1) if reach else np.pi / len(radians)
    frequency = scipy.fft.rfftfreq(n)
    if settings.filter == "exact":
        weights = exact(frequency, radians, depth)
    elif settings.filter == "sirt":
        spread = step * len(radians)
        rays = depth * float(np.mean(1 / np.cos(radians)))
        weights = np.broadcast_to(
            sirt(frequency, settings.iterations, spread, rays) * step, (len(radians), len(frequency))
        )
    else:
        weights = np.broadcast_to(ramp(n) * step, (len(radians), len(frequency)))
    return np.asarray(weights * rolloff(settings, frequency, weights))


def ramp(n: int) -> NDArray[np.float64]:
    """Transform of a ramp of ``n`` pixels, exact at zero frequency (Kak & Slaney 1988, eq. 3.61)."""
    distance = np.minimum(np.arange(n), n - np.arange(n))
    kernel = np.zeros(n)
    kernel[0] = 0.25
    odd = distance % 2 == 1
    kernel[odd] = -1 / (np.pi * distance[odd]) ** 2
    return np.asarray(scipy.fft.rfft(kernel).real)


def exact(frequency: NDArray[np.float64], radians: NDArray[np.float64], depth: int) -> NDArray[np.float64]:
    """Weights for any distribution of tilts (Harauz & van Heel, Optik 73, 146, 1986).

    If a specimen is ``depth`` voxels thick, each image is a slab of width 1 / depth in reciprocal space. At a
    given frequency, two slabs overlap if they are closer than this width, and the overlap decreases linearly
    with their distance.

    Returns
    -------
    ndarray
        (t, frequencies). For many evenly spaced tilts it is the ramp times the step, up to the frequency at
        which the slabs no longer overlap.
    """
    apart = np.abs(np.sin(radians[:, None] - radians[None, :]))
    overlap = np.clip(1 - depth * frequency[None, None, :] * apart[:, :, None], 0, None).sum(axis=1)
    return np.asarray(1 / (overlap * depth))


def sirt(frequency: NDArray[np.float64], iterations: int, spread: float, rays: float) -> NDArray[np.float64]:
    """Filter for which weighted back-projection gives the result of a number of SIRT iterations.

    SIRT, started from zero, is a geometric series in one minus the transfer function of projection and
    back-projection. This function is 1 / (spread x rays x frequency), but at most 1 (Zeng, Phys. Med. Biol.
    57, 3489, 2012).

    Parameters
    ----------
    frequency
        Cycles per pixel.
    iterations
        Number of SIRT iterations.
    spread
        Angular range in radians.
    rays
        Mean length of the rays through the tomogram in voxels.
    """
    first = 1 / (spread * rays)
    transfer = first / np.maximum(frequency, first)
    return np.asarray(np.maximum(frequency, first) * (1 - (1 - transfer) ** iterations))


def rolloff(
    settings: Reconstruction, frequency: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Factor on the weights: a Hann window up to Nyquist, or, as in IMOD, a Gaussian beyond the cutoff.

    Beyond the cutoff, the weight is the weight at the cutoff times a Gaussian of the distance from it.
    """
    if settings.rolloff == "none":
        return np.ones_like(frequency)
    if settings.rolloff == "hann":
        return np.asarray(0.5 * (1 + np.cos(2 * np.pi * frequency)))
    beyond = np.maximum(frequency - settings.cutoff, 0)
    at = np.minimum(np.searchsorted(frequency, settings.cutoff), len(frequency) - 1)
    held = np.where(beyond > 0, weights[:, at, None] / weights, 1)
    return np.asarray(held * np.exp(-(beyond**2) / (2 * settings.falloff**2)))


def dose_weights(
    shape: tuple[int, int], pixel_size: float, dose: float, voltage: float
) -> NDArray[np.float32]:
    """Share of the signal that remains after a dose, for the half plane of ``rfft2``.

    It is exp(-dose / (2 x critical dose)) with the critical dose of Grant & Grigorieff (eLife 4, e06980,
    2015): 0.24499 q**-1.6649 + 2.8141 e/Å² at 300 kV, and four fifths of it at 200 kV.

    Parameters
    ----------
    shape
        Shape of the image, (ny, nx).
    pixel_size
        Å.
    dose
        Dose that the specimen has received by the middle of the exposure, e/Å².
    voltage
        kV; the critical dose is interpolated between 200 and 300 kV.

    Raises
    ------
    InputError
        If the pixel size is not positive.
    """
    if not pixel_size > 0:
        raise InputError("dose weighting needs the size of the pixels; give `voxel_size`")
    qy, qx = scipy.fft.fftfreq(shape[0], pixel_size), scipy.fft.rfftfreq(shape[1], pixel_size)
    q = np.hypot(qy[:, None], qx[None, :])
    q[0, 0] = np.inf  # the mean is kept below
    critical = (0.24499 * q**-1.6649 + 2.8141) * float(np.interp(voltage, (200, 300), (0.8, 1.0)))
    weights = np.exp(-dose / (2 * critical))
    weights[0, 0] = 1
    return np.asarray(weights, np.float32)
