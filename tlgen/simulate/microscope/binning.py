"""Bin pixels to voxels, by averaging squares of pixels or by cropping the Fourier transform.

Averaging moves the first sample from the first pixel's centre to the centre of the first square, which is
(n - 1) / 2 pixels further. Cropping alone leaves it in place, so cropped images are shifted by the same
amount. Voxel centres are then the same for both methods, and the box's centre is at (n - 1) / 2 voxels.
"""

from __future__ import annotations

from math import pi
from typing import Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Binning = Literal["average", "fourier"]

_MARGIN = 8  # voxels; width of the mirrored padding, which keeps opposite edges from affecting each other


def transfer(
    q: NDArray[np.float64], voxel_size: float, pixel_size: float, binning: Binning
) -> NDArray[np.float64]:
    """Factor along one axis of the Fourier transform that gives each sample the value of a voxel around it.

    Parameters
    ----------
    q
        Frequencies in 1/Å.
    voxel_size, pixel_size
        Å; size of the voxels, and of the pixels that are binned.
    binning
        ``average`` is the mean of the pixels, which have no signal beyond their own Nyquist frequency.
        ``fourier`` keeps the frequencies below the Nyquist frequency of the voxels.
    """
    if binning == "fourier":
        return (np.abs(q) * voxel_size < 0.5 - 1e-9).astype(np.float64)
    held = np.abs(q) * pixel_size < 0.5 + 1e-9
    return np.where(held, np.sinc(q * voxel_size) / np.sinc(np.where(held, q, 0) * pixel_size), 0)


def binned(image: NDArray[np.floating], factor: int, binning: Binning = "average") -> NDArray[np.float32]:
    """Bin an image (y, x); the last pixels are left out if ``factor`` does not divide the image's size.

    Returns
    -------
    ndarray, float32
        (y // factor, x // factor); the mean of the pixels in each square, or the image after low-pass
        filtering, sampled at the centres of the squares.
    """
    ny, nx = image.shape[0] // factor, image.shape[1] // factor
    image = image[: ny * factor, : nx * factor]
    if binning == "average" or factor == 1:
        return np.asarray(image.reshape(ny, factor, nx, factor).mean(axis=(1, 3)), np.float32)
    pads = [(min(_MARGIN, n) * factor,) * 2 for n in (ny, nx)]
    padded = np.pad(np.asarray(image, np.float32), pads, mode="symmetric")
    spectrum = scipy.fft.rfft2(padded)
    frequencies = (scipy.fft.fftfreq(padded.shape[0]), scipy.fft.rfftfreq(padded.shape[1]))
    kept = [transfer(q, factor, 1, "fourier") * np.exp(1j * pi * q * (factor - 1)) for q in frequencies]
    spectrum *= kept[0].astype(np.complex64)[:, None]
    spectrum *= kept[1].astype(np.complex64)
    whole = scipy.fft.irfft2(spectrum, padded.shape, overwrite_x=True)
    (top, _), (left, _) = pads
    return np.ascontiguousarray(whole[top : top + ny * factor : factor, left : left + nx * factor : factor])


__all__ = ["Binning", "binned", "transfer"]
