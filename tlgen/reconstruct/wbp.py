"""Weighted back-projection, a few rows of the images at a time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from catalogs.errors import InputError
from tlgen.reconstruct import ctf, filters, on_gpu
from tlgen.reconstruct.settings import Reconstruction

#: Rows of the images that are back-projected together: the inner loop runs along them, so that it reads and
#: writes memory in order. 64 is fastest where 16, 32 and 128 were tried.
ROWS = 64


@dataclass(frozen=True)
class ProjectionParameters:
    """What a reconstruction must know about a tilt series besides its images.

    Attributes
    ----------
    angles
        (t,) degrees about y; a positive angle rotated +z towards +x.
    doses
        (t,) accumulated dose in e/Å² at the middle of each exposure; for dose weighting.
    optics
        Optics, for the correction of the contrast transfer and for dose weighting.
    axis
        Where the tilt axis is, pixels along x from the middle of the images.
    """

    angles: NDArray[np.float64]
    doses: NDArray[np.float64] | None = None
    optics: ctf.Optics | None = None
    axis: float = 0.0


def reconstruct(
    images: NDArray[np.floating],
    series: ProjectionParameters | NDArray[np.floating],
    shape: tuple[int, int, int],
    settings: Reconstruction | None = None,
    *,
    threads: int = 1,
    device: Any = None,
) -> NDArray[np.float32]:
    """Reconstruct a tomogram from an aligned tilt series.

    Each image is divided by its mean, filtered perpendicular to the tilt axis and projected back along its
    beam (Radermacher 1992, in *Electron Tomography*, ed. Frank). The box's centre is at index (n - 1) / 2 of
    each axis of the tomogram and of the images, whether n is odd or even. Matter that is dark in the images
    is dark (negative) in the tomogram.

    Parameters
    ----------
    images
        (t, y, x) in any order, all pixels of the tomogram's voxel size. Their width may differ from the
        tomogram's.
    series
        Of the images, or their angles alone.
    shape
        Of the tomogram: (z, y, x).
    settings
        Filters and corrections; by default a ramp with a Hann window.
    threads
        Number of threads; the result does not depend on it, bit for bit.
    device
        Of JAX, to filter and back-project on; the CPU, by numba, if it is None. The result is the same but
        for the rounding of 32-bit numbers.

    Returns
    -------
    ndarray, float32, (z, y, x)
        Contrast per voxel. It is linear in the images divided by their means. An image adds nothing to voxels
        that it does not show.

    Raises
    ------
    InputError
        If the angles do not match the images or the images do not match the tomogram, an image has no mean,
        or a setting needs information that the series lacks.
    """
    settings = settings or Reconstruction()
    if not isinstance(series, ProjectionParameters):
        series = ProjectionParameters(np.asarray(series, np.float64))
    images, angles = np.asarray(images), np.asarray(series.angles, np.float64)
    if images.ndim != 3 or angles.shape != images.shape[:1] or not len(angles):
        raise InputError(
            f"tilt series: images of shape {images.shape} do not go with {angles.size} angles; "
            "give one angle for each image"
        )
    if images.shape[1] != shape[1]:
        raise InputError(
            f"tilt series: the images are {images.shape[1]} pixels high and the tomogram {shape[1]} voxels; "
            "the tilt axis is y, so the two must be equal"
        )
    contrast = np.empty(images.shape, np.float32)
    for k, image in enumerate(images):
        contrast[k] = dose_weighted(over_mean(image, k), k, series, settings)
    tomogram = np.empty(shape, np.float32)
    for rows, block in reconstruct_rows(contrast, series, shape, settings, threads=threads, device=device):
        tomogram[:, rows] = block
    return tomogram


def over_mean(image: NDArray[np.floating], k: int) -> NDArray[np.float32]:
    """Convert image ``k`` of a series, (y, x), to contrast: divided by its mean, minus 1.

    Raises
    ------
    InputError
        If the image has no mean.
    """
    mean = float(image.mean(dtype=np.float64))
    if not (np.isfinite(mean) and mean > 0):
        raise InputError(f"tilt series: image {k} has a mean of {mean:g} electrons; leave such images out")
    return np.asarray(image / mean - 1, np.float32)


def dose_weighted(
    contrast: NDArray[np.float32], k: int, series: ProjectionParameters, settings: Reconstruction
) -> NDArray[np.float32]:
    """Weight an image's contrast by its dose, if this is asked for.

    Raises
    ------
    InputError
        If the doses are not known.
    """
    if not settings.dose_weighting:
        return contrast
    if series.doses is None or series.optics is None:
        raise InputError("dose_weighting: the doses of the images are not known; give them, or switch it off")
    shape = (contrast.shape[0], contrast.shape[1])
    weights = filters.dose_weights(
        shape, series.optics.pixel_size, float(series.doses[k]), series.optics.voltage
    )
    return np.asarray(scipy.fft.irfft2(scipy.fft.rfft2(contrast) * weights, shape), np.float32)


def reconstruct_rows(
    contrast: NDArray[np.float32],
    series: ProjectionParameters,
    shape: tuple[int, int, int],
    settings: Reconstruction,
    *,
    threads: int = 1,
    device: Any = None,
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Reconstruct from the contrast of images, a few rows at a time.

    Parameters
    ----------
    contrast
        (t, y, x); may be a map of a file, of which only the rows in work are read.
    series, shape, settings, threads, device
        As of :func:`reconstruct`.

    Yields
    ------
    rows : slice
        Along y.
    block : ndarray, float32
        (z, rows, x) of the tomogram.

    Raises
    ------
    InputError
        If the transfer is to be corrected and the optics are not known.
    """
    if settings.ctf != "none" and series.optics is None:
        raise InputError("ctf: the defocus of the images is not known; give it, or switch the correction off")
    work = _Work(contrast, series, shape, settings, device)
    places = [slice(y, min(y + ROWS, shape[1])) for y in range(0, shape[1], ROWS)]
    if threads == 1 or device is not None:
        for rows in places:
            yield rows, work.block(rows)
        return
    with ThreadPoolExecutor(threads) as pool:
        # no more at a time than there are threads, so that a slow reader of the blocks bounds their number
        for first in range(0, len(places), threads):
            some = places[first : first + threads]
            yield from zip(some, pool.map(work.block, some), strict=True)


class _Work:
    """Data that all rows share: the filters and the geometry."""

    def __init__(
        self,
        contrast: NDArray[np.float32],
        series: ProjectionParameters,
        shape: tuple[int, int, int],
        settings: Reconstruction,
        device: Any = None,
    ) -> None:
        self.shape = shape
        self.axis = (contrast.shape[2] - 1) / 2 + series.axis
        self.width = contrast.shape[2]
        # Rows are padded to twice their length, so that nothing wraps around.
        self.n = scipy.fft.next_fast_len(2 * self.width, real=True)
        angles = np.asarray(series.angles, np.float64)
        self.filters = filters.row_filters(settings, angles, self.n, shape[0]).astype(np.float32)
        self.cosines, self.sines = np.cos(np.radians(angles)), np.sin(np.radians(angles))
        self.depths = np.zeros(1)
        self.images = contrast[:, None]
        if settings.ctf != "none" and series.optics is not None:
            self.depths = ctf.depths(settings, shape, series.optics.pixel_size)
            self.images = ctf.corrected(contrast, settings, series.optics, self.depths)
        self.slab = float(self.depths[1] - self.depths[0]) if len(self.depths) > 1 else 1.0
        self.projector = None
        if device is not None:
            self.projector = on_gpu.Projector(
                self.filters, self.n, self.cosines, self.sines, self.axis, (shape[0], shape[2]),
                len(self.depths), self.slab, device,
            )  # fmt: skip

    def block(self, rows: slice) -> NDArray[np.float32]:
        """Reconstruct some rows: (z, rows, x)."""
        if self.projector is not None:
            return self.projector.block(np.stack([image[:, rows] for image in self.images]))
        nz, _, nx = self.shape
        count = rows.stop - rows.start
        weighted = np.empty((len(self.images), len(self.depths), self.width, count), np.float32)
        for image, weights, out in zip(self.images, self.filters, weighted, strict=True):
            spectrum = scipy.fft.rfft(np.asarray(image[:, rows]), self.n, axis=2)
            spectrum *= weights
            out[...] = scipy.fft.irfft(spectrum, self.n, axis=2)[..., : self.width].transpose(0, 2, 1)
        block = np.zeros((nz, nx, count), np.float32)
        _back_project(block, weighted, self.cosines, self.sines, self.axis, self.slab)
        return block.transpose(0, 2, 1)


@numba.njit(cache=True, nogil=True)
def _back_project(
    out: NDArray[np.float32],
    images: NDArray[np.float32],
    cosines: NDArray[np.float64],
    sines: NDArray[np.float64],
    axis: float,
    slab: float,
) -> None:
    """Add to each voxel of (z, x, y) what each image (t, depth, x, y) shows there, interpolated along x."""
    nz, nx, rows = out.shape
    nt, nd, width, _ = images.shape
    for z in range(nz):
        from_middle = z - (nz - 1) / 2
        for t in range(nt):
            cos, sin = cosines[t], sines[t]
            # the voxel (x, z) stands at x cos + z sin of the image, both from the tilt axis
            start = axis + from_middle * sin - (nx - 1) / 2 * cos
            for x in range(nx):
                place = start + x * cos
                left = int(np.floor(place))
                d = 0
                if nd > 1:
                    # and at z cos - x sin along the beam
                    depth = from_middle * cos - (x - (nx - 1) / 2) * sin
                    d = min(max(int(np.floor(depth / slab + nd / 2)), 0), nd - 1)
                if left >= 0 and left + 1 < width:
                    share = np.float32(place - left)
                    keep = np.float32(1) - share
                    for y in range(rows):
                        out[z, x, y] += images[t, d, left, y] * keep + images[t, d, left + 1, y] * share
                elif left == width - 1 and place == left:
                    for y in range(rows):
                        out[z, x, y] += images[t, d, left, y]
