"""Correct the contrast transfer of tilted images, slab by slab along the beam.

Matter deeper along the beam is further under focus, and each image of a tilted specimen contains all depths.
So an image is corrected once for each slab of depths, and a voxel takes its value from the image that was
corrected for its depth (Jensen & Kornberg, Ultramicroscopy 84, 57, 2000; Turonova et al., J. Struct. Biol.
199, 187, 2017).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from math import asin, ceil, pi, prod, radians, sqrt

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from catalogs.atomic_write import reserve
from tlgen.reconstruct.settings import Reconstruction

_IN_MEMORY = 1 << 30  # bytes


@dataclass(frozen=True)
class Optics:
    """The optics of the images.

    Attributes
    ----------
    pixel_size
        Å, of the images as they are reconstructed.
    defocus
        µm under focus, at the middle of the tomogram.
    voltage
        kV.
    spherical_aberration
        mm.
    amplitude_contrast
        As a share.
    phase_shift
        Degrees, by a phase plate.
    handedness
        1 if +z of the tomogram is further under focus at zero tilt, as in simulated series, else -1.
    """

    pixel_size: float
    defocus: float
    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.0
    phase_shift: float = 0.0
    handedness: int = 1

    @property
    def wavelength(self) -> float:
        """Of the electrons, Å (de Graef 2003, eq. 2.9)."""
        return 12.3984244 / sqrt(self.voltage * (2 * 510.99906 + self.voltage))

    def contrast(self, q2: NDArray[np.float64], depth: float) -> NDArray[np.float64]:
        """Transfer of contrast at squared frequencies in 1/Å², positive where matter is dark.

        Parameters
        ----------
        q2
            Of any shape.
        depth
            Å along the beam from the middle of the tomogram.
        """
        lam = self.wavelength
        underfocus = self.defocus * 1e4 + self.handedness * depth
        phase = pi * lam * q2 * (underfocus - 0.5 * self.spherical_aberration * 1e7 * lam**2 * q2)
        return np.asarray(np.sin(phase + radians(self.phase_shift) + asin(self.amplitude_contrast)))

    def reach(self, depth: float) -> int:
        """Pixels over which the lens spreads a point at this distance from the middle (Å), and a margin."""
        underfocus = abs(self.defocus) * 1e4 + depth
        return 16 + ceil(self.wavelength * underfocus / self.pixel_size**2)


def depths(settings: Reconstruction, shape: tuple[int, int, int], width: float) -> NDArray[np.float64]:
    """Middle of each slab that any tilt needs, in voxels along the beam from the middle of the tomogram.

    Parameters
    ----------
    settings
        Thickness of a slab.
    shape
        Of the tomogram: (z, y, x).
    width
        Å of a voxel.
    """
    most = float(np.hypot(shape[0], shape[2])) / 2
    slab = settings.ctf_slab / width
    n = 2 * ceil(max(most - slab / 2, 0) / slab) + 1
    return np.asarray((np.arange(n) - (n - 1) / 2) * slab)


def corrected(
    contrast: NDArray[np.float32], settings: Reconstruction, optics: Optics, middles: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Correct each image (t, y, x) for each depth: (t, depth, y, x); in a file without a name if it is large.

    Parameters
    ----------
    contrast
        Of the images.
    settings, optics
        How images are corrected, and their optics.
    middles
        Depths of :func:`depths`, in pixels.
    """
    t, ny, nx = contrast.shape
    images = scratch((t, len(middles), ny, nx))
    # mirrored at the edges, so that they do not leak into the opposite side
    margin = optics.reach(float(middles[-1]) * optics.pixel_size)
    below = min(margin, ny - 1), min(margin, nx - 1)
    wide = tuple(scipy.fft.next_fast_len(n + 2 * m, real=True) for n, m in zip((ny, nx), below, strict=True))
    pads = [(m, w - n - m) for n, m, w in zip((ny, nx), below, wide, strict=True)]
    factors = [_factor(settings, optics, wide, depth * optics.pixel_size) for depth in middles]
    for k in range(t):
        spectrum = scipy.fft.rfft2(np.pad(np.asarray(contrast[k]), pads, mode="symmetric"))
        for d, factor in enumerate(factors):
            image = scipy.fft.irfft2(spectrum * factor, wide, overwrite_x=True)
            images[k, d] = image[below[0] : below[0] + ny, below[1] : below[1] + nx]
    return images


def scratch(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Allocate floats: in memory, or beyond 1 GiB in a file in the folder for temporary files.

    Raises
    ------
    OSError
        If that folder's disk is full.
    """
    if 4 * prod(shape) <= _IN_MEMORY:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(prefix="tilt-series-") as file:  # the map keeps it; it goes with the map
        reserve(file.fileno(), 4 * prod(shape))
        return np.memmap(file, np.float32, "r+", shape=shape)


def _factor(
    settings: Reconstruction, optics: Optics, shape: tuple[int, ...], depth: float
) -> NDArray[np.float32]:
    """Factors that correct an image for matter at a depth in Å, for the half plane of ``rfft2``.

    ``phase_flip`` turns the sign where the transfer is negative; ``wiener`` multiplies by
    c / (c² + 1 / snr) for a transfer c. Either way matter stays dark.
    """
    qy = scipy.fft.fftfreq(shape[0], optics.pixel_size)
    qx = scipy.fft.rfftfreq(shape[1], optics.pixel_size)
    transfer = optics.contrast(qy[:, None] ** 2 + qx[None, :] ** 2, depth)
    if settings.ctf == "phase_flip":
        return np.where(transfer < 0, np.float32(-1), np.float32(1))
    return np.asarray(transfer / (transfer**2 + 1 / settings.wiener_snr), np.float32)
