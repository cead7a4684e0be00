"""Frequencies of discrete Fourier transforms of volumes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def frequencies(
    shape: tuple[int, ...], *, half: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the frequencies along z, y and x of a volume's Fourier transform, in cycles per voxel.

    Parameters
    ----------
    shape
        (z, y, x) of the volume.
    half
        True for ``rfftn``, False for ``fftn``.

    Returns
    -------
    tuple of ndarray
        Three arrays, (z, 1, 1), (1, y, 1) and (1, 1, x), which broadcast to the shape of the transform.
    """
    nz, ny, nx = shape
    kx = np.fft.rfftfreq(nx) if half else np.fft.fftfreq(nx)
    kz, ky, kx = np.meshgrid(np.fft.fftfreq(nz), np.fft.fftfreq(ny), kx, indexing="ij", sparse=True)
    return kz, ky, kx
