"""Tilt images -> tomogram, by weighted back-projection."""

from __future__ import annotations

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from catalogs.errors import InputError


def reconstruct(
    images: NDArray[np.floating], angles: NDArray[np.floating], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Reconstruct a tomogram from an aligned tilt series.

    Each image is divided by its mean, filtered along x with a ramp that rolls off to nothing at Nyquist,
    and smeared back along its beam (Radermacher 1992, in *Electron Tomography*, ed. Frank). The box's
    centre is at index (n - 1) / 2 of each axis of the tomogram and of the images, whether n is odd or
    even. What is dark in the images is dark (negative) in the tomogram.

    Parameters
    ----------
    images
        (t, y, x) in any order, all pixels of the tomogram's voxel size. Their width may differ from the
        tomogram's.
    angles
        (t,) degrees about y; a positive one turned +z towards +x.
    shape
        Of the tomogram: (z, y, x).

    Returns
    -------
    ndarray, float32, (z, y, x)
        Contrast per voxel. Linear in the images over their means. A voxel that an image does not show gets
        nothing from it.

    Raises
    ------
    InputError
        If the angles do not match the images, the images the tomogram, or an image has no mean.
    """
    images, angles = np.asarray(images), np.asarray(angles, np.float64)
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
    means = images.mean(axis=(1, 2), dtype=np.float64)
    if not (np.isfinite(means) & (means > 0)).all():
        bad = int(np.flatnonzero(~(np.isfinite(means) & (means > 0)))[0])
        raise InputError(
            f"tilt series: image {bad} has a mean of {means[bad]:g} electrons; leave such images out"
        )
    radians = np.radians(angles)
    projections = np.empty(images.shape, np.float32)
    for k, (image, mean) in enumerate(zip(images, means, strict=True)):
        projections[k] = weight(image / mean - 1)
    # Each image stands for its share of the range of angles; on average that is one step.
    ordered = np.sort(radians)
    step = (ordered[-1] - ordered[0]) / (len(ordered) - 1) if len(ordered) > 1 else np.pi
    projections *= np.float32(step)
    tomogram = np.zeros(shape, np.float32)
    _back_project(tomogram, projections, np.cos(radians), np.sin(radians))
    return tomogram


def weight(image: NDArray[np.floating]) -> NDArray[np.float32]:
    """Filter an image (y, x) along x with the weights of back-projection.

    The ramp is the transform of its band-limited kernel (Kak & Slaney 1988, eq. 3.61), exact at zero
    frequency, times a Hann window that ends at Nyquist. Rows are padded to twice their length, so that
    nothing wraps around.
    """
    width = image.shape[1]
    n = scipy.fft.next_fast_len(2 * width, real=True)
    distance = np.minimum(np.arange(n), n - np.arange(n))
    kernel = np.zeros(n)
    kernel[0] = 0.25
    odd = distance % 2 == 1
    kernel[odd] = -1 / (np.pi * distance[odd]) ** 2
    ramp = scipy.fft.rfft(kernel).real
    window = 0.5 * (1 + np.cos(2 * np.pi * scipy.fft.rfftfreq(n)))
    spectrum = scipy.fft.rfft(np.asarray(image, np.float32), n, axis=1)
    spectrum *= (ramp * window).astype(np.float32)
    return np.asarray(scipy.fft.irfft(spectrum, n, axis=1)[:, :width], np.float32)


@numba.njit(cache=True, nogil=True)
def _back_project(
    tomogram: NDArray[np.float32],
    projections: NDArray[np.float32],
    cosines: NDArray[np.float64],
    sines: NDArray[np.float64],
) -> None:
    """Add to each voxel what each projection (t, y, x) shows at its place, interpolated linearly."""
    nz, ny, nx = tomogram.shape
    nt, _, width = projections.shape
    for y in range(ny):
        for t in range(nt):
            row = projections[t, y]
            cos, sin = cosines[t], sines[t]
            for z in range(nz):
                # the voxel (x, z) stands at x cos + z sin of the image, both from their centres
                start = (width - 1) / 2 + (z - (nz - 1) / 2) * sin - (nx - 1) / 2 * cos
                for x in range(nx):
                    place = start + x * cos
                    left = int(np.floor(place))
                    if left >= 0 and left + 1 < width:
                        share = np.float32(place - left)
                        tomogram[z, y, x] += row[left] * (1 - share) + row[left + 1] * share
                    elif left == width - 1 and place == left:
                        tomogram[z, y, x] += row[left]
