"""A user's aligned tilt series -> tomogram: ``tlgen reconstruct``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import ndimage

from catalogs.errors import InputError
from catalogs.volumes import Binning, Volume, open_stack, write_mrc, write_ome_zarr
from tlgen.reconstruct import ctf, wbp
from tlgen.reconstruct.settings import Reconstruction
from tlgen.simulate import checks, devices
from tlgen.simulate.microscope import binning
from tlgen.tilts.series_files import Series, read_one
from tlrun.reporting.progress import ProgressLine

_MRC = (".mrc", ".rec", ".map", ".mrc.gz")


@dataclass(frozen=True)
class Request:
    """What is asked for; what is None is taken from the files.

    Attributes
    ----------
    pixel_size
        Å, of the images.
    bin, voxel_size
        Pixels of the images along a voxel's edge, or Å that this should be about.
    binning
        ``average`` or ``fourier``.
    thickness
        Å, of the tomogram.
    tilt_axis
        Degrees from the images' y, anticlockwise; 0 for aligned images.
    leave_out
        Numbers of images, from 0.
    negate_angles
        Tilts count the other way round.
    defocus, voltage, spherical_aberration, amplitude_contrast, phase_shift, handedness
        As :class:`tlgen.reconstruct.ctf.Optics` has them.
    settings
        Of the back-projection.
    threads
        To compute with.
    device
        ``cpu``, ``gpu`` or ``auto``, as :func:`tlgen.simulate.devices.of_jax` takes it.
    """

    pixel_size: float | None = None
    bin: int | None = None
    voxel_size: float | None = None
    binning: binning.Binning = "fourier"
    thickness: float = 3000.0
    tilt_axis: float = 0.0
    leave_out: tuple[int, ...] = ()
    negate_angles: bool = False
    defocus: float | None = None
    voltage: float | None = None
    spherical_aberration: float | None = None
    amplitude_contrast: float = 0.07
    phase_shift: float = 0.0
    handedness: int = 1
    settings: Reconstruction = field(default_factory=Reconstruction)
    threads: int = 1
    device: str = "cpu"


def reconstruct_file(
    stack: str, angles: str, to: str, request: Request
) -> tuple[tuple[int, int, int], float]:
    """Reconstruct a tomogram from a stack of images and write it.

    A few rows of the images are back-projected at a time; what does not fit into a GiB is kept in the folder
    for temporary files (``TMPDIR``) meanwhile.

    Parameters
    ----------
    stack
        MRC of modes 0, 1, 2, 6 or 12, aligned so that the tilt axis is ``request.tilt_axis`` from y and goes
        through the middle of the images.
    angles
        A file that :func:`tlgen.tilts.series_files.read_series` reads: an angle for each image, in the same
        order. to
        ``.mrc``, ``.rec`` or ``.zarr`` (OME-Zarr).
    request
        All else.

    Returns
    -------
    shape, voxel_size
        Voxels along z, y, x, and Å.

    Raises
    ------
    InputError
        If angles and images do not match, there is no pixel size, an image is not finite or has no
        contrast, an option makes no sense, or there is no GPU where one is asked for.
    """
    _check(to, request)
    device = devices.of_jax(request.device)
    images, series = open_stack(stack), read_one(angles)
    count = images.shape[0]
    if len(series.angles) != count:
        raise InputError(
            f"{stack} has {count} images and {angles} has {len(series.angles)} angles; "
            "give the angles of this very stack, in its order"
        )
    pixel_size = request.pixel_size or images.voxel_size or series.pixel_size
    if pixel_size is None:
        raise InputError(f"neither {stack} nor {angles} states the size of a pixel; give --pixel-size")
    kept = [k for k in range(count) if k not in request.leave_out]
    if wrong := [k for k in request.leave_out if not 0 <= k < count]:
        raise InputError(f"--leave-out {wrong[0]}: {stack} has images 0 to {count - 1}")
    if len(kept) < 2:
        raise InputError(f"--leave-out leaves {len(kept)} images of {stack}; a tomogram needs more")
    if np.ptp([series.angles[k] for k in kept]) == 0:
        raise InputError(f"{angles}: all images have the same angle; a tomogram needs more than one")
    times = request.bin or max(1, round((request.voxel_size or pixel_size) / pixel_size))
    voxel_size = pixel_size * times
    known = _known(series, kept, voxel_size, request)

    contrast, offset = _contrast(images, stack, kept, times, known, request)
    known = replace(known, axis=offset[0])
    shape = (max(1, round(request.thickness / voxel_size)), contrast.shape[1], contrast.shape[2])
    tomogram = ctf.scratch(shape)
    with ProgressLine("back-projecting", shape[1], "rows") as line:
        for rows, block in wbp.reconstruct_rows(
            contrast, known, shape, request.settings, threads=request.threads, device=device
        ):
            tomogram[:, rows] = block
            line.update(rows.stop)
    # Voxel 0 from the first pixel of the whole images, whose middle is that of the tomogram. The mean
    # of a box lies in its middle, and what is cropped is shifted to there.
    wide = images.shape[1:] if _lies(request) else images.shape[:0:-1]
    x, y = (
        ((n - 1) / 2 - moved * times - (m - 1) / 2 * times) * pixel_size
        for n, m, moved in zip(wide, (shape[2], shape[1]), (0.0, offset[1]), strict=True)
    )
    origin = (x, y, (times - 1) / 2 * pixel_size)
    how = Binning(times, "box") if times > 1 else None
    if to.lower().endswith(".zarr"):
        write_ome_zarr(to, tomogram, voxel_size, origin=origin, binning=how, overwrite=True)
    else:
        write_mrc(to, tomogram, voxel_size, origin=origin, binning=how)
    return shape, voxel_size


def _lies(request: Request) -> bool:
    """Whether the tilt axis is nearer to the images' x, so that width and height change places."""
    return bool(abs(np.sin(np.radians(request.tilt_axis))) > np.sqrt(0.5))


def settings_of(words: dict[str, Any]) -> Reconstruction:
    """Take settings from the options of a command; InputError if a value is out of its range."""
    try:
        return Reconstruction.model_validate(words)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise InputError(f"{option} {first['input']}: {first['msg']}") from error


def _check(to: str, request: Request) -> None:
    if not to.lower().endswith((*_MRC, ".zarr")):
        raise InputError(f"{to} must end in .mrc, .rec or .zarr")
    if request.bin is not None and request.voxel_size is not None:
        raise InputError("--bin and --voxel-size both say how large voxels are; give one of them")
    if not np.isfinite(request.tilt_axis) or abs(request.tilt_axis) > 180:
        raise InputError(
            f"--tilt-axis {request.tilt_axis:g}: give degrees from the images' y, from -180 to 180"
        )
    sizes = {
        "--pixel-size": request.pixel_size,
        "--voxel-size": request.voxel_size,
        "--bin": request.bin,
        "--thickness": request.thickness,
        "--threads": request.threads,
    }
    for option, value in sizes.items():
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InputError(f"{option} must be positive, not {value:g}")
    low, high = checks.VOLTAGES
    lens = {
        "--defocus": (request.defocus, -checks.LARGEST_DEFOCUS, checks.LARGEST_DEFOCUS, "µm"),
        "--voltage": (request.voltage, low, high, "kV"),
        "--cs": (request.spherical_aberration, 0.0, 100.0, "mm"),
        "--amplitude-contrast": (request.amplitude_contrast, 0.0, 1.0, ""),
        "--phase-shift": (request.phase_shift, -180.0, 180.0, "degrees"),
    }
    for option, (value, least, most, unit) in lens.items():
        if value is not None and not least <= value <= most:
            raise InputError(
                f"{option} must be from {least:g} to {most:g} {unit}".rstrip() + f", not {value:g}"
            )


def _known(series: Series, kept: list[int], voxel_size: float, request: Request) -> wbp.Series:
    """Say what the reconstruction needs of the series, of the images that are kept."""
    settings = request.settings
    sign = -1 if request.negate_angles else 1
    doses = None
    if settings.dose_weighting:
        if not series.doses:
            raise InputError(
                f"--dose-weighting: the angles' file of {series.name} does not tell the doses; give its .mdoc"
            )
        doses = np.array([series.doses_before[k] + series.doses[k] / 2 for k in kept])
    defocus = request.defocus if request.defocus is not None else series.defocus
    if settings.ctf != "none" and defocus is None:
        raise InputError("--ctf needs the defocus; give --defocus in µm under focus")
    voltage = _first(request.voltage, series.voltage, 300.0)
    if not checks.VOLTAGES[0] <= voltage <= checks.VOLTAGES[1]:
        raise InputError(
            f"the angles' file of {series.name} tells a voltage of {voltage:g} kV, which no microscope has;"
            " give --voltage"
        )
    optics = ctf.Optics(
        pixel_size=voxel_size,
        defocus=defocus or 0.0,
        voltage=voltage,
        spherical_aberration=_first(request.spherical_aberration, series.spherical_aberration, 2.7),
        amplitude_contrast=request.amplitude_contrast,
        phase_shift=request.phase_shift,
        handedness=request.handedness,
    )
    return wbp.Series(sign * np.array([series.angles[k] for k in kept], np.float64), doses, optics)


def _first(*values: float | None) -> float:
    """Take the first one that is known, be it 0."""
    return next(value for value in values if value is not None)


def _contrast(
    images: Volume, stack: str, kept: list[int], times: int, known: wbp.Series, request: Request
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Bin and turn the images and make contrast of them: (t, y, x); and where their middle is.

    Counts become contrast over their mean. Images whose grey values are on another scale (some are negative)
    are put on one of mean 0 and deviation 1.

    Returns
    -------
    contrast : ndarray
        In memory, or in a file without a name.
    offset : tuple of float
        x, y in voxels from the middle of the binned images to that of the whole ones, where binning left out
        a pixel at the end.
    """
    cut, offset = [], []
    for n in (images.shape[2], images.shape[1]):
        rest = n % times
        if n < 2 * times:
            raise InputError(f"{stack}: images of {n} pixels cannot be binned {times} times")
        cut.append(slice(rest // 2, n - (rest - rest // 2)))
        offset.append((rest % 2) / 2 / times)
    size = [(part.stop - part.start) // times for part in cut]
    nx, ny = size[::-1] if _lies(request) else size
    contrast = ctf.scratch((len(kept), ny, nx))
    counts = True
    with ProgressLine("reading", len(kept), "images") as line:
        for at, k in enumerate(kept):
            image = np.asarray(images.data[k : k + 1], np.float32)[0]
            if not np.isfinite(image).all():
                raise InputError(f"{stack}: image {k} has pixels that are not numbers; --leave-out {k}")
            if image.min() == image.max():
                raise InputError(f"{stack}: image {k} is the same everywhere; --leave-out {k}")
            counts = counts and float(image.min()) >= 0
            image = binning.binned(image[cut[1], cut[0]], times, request.binning)
            contrast[at] = _upright(image, request.tilt_axis, (ny, nx), (offset[0], offset[1]))
            line.update(at + 1)
    for at in range(len(kept)):
        if counts:
            contrast[at] = wbp.over_mean(contrast[at], kept[at])
        else:
            contrast[at] -= contrast[at].mean(dtype=np.float64)
            contrast[at] /= contrast[at].std(dtype=np.float64)
        contrast[at] = wbp.dose_weighted(contrast[at], at, known, request.settings)
    # turning has put the middle in its place
    return contrast, (offset[0], offset[1]) if not request.tilt_axis else (0.0, 0.0)


def _upright(
    image: NDArray[np.float32], tilt_axis: float, shape: tuple[int, int], offset: tuple[float, float]
) -> NDArray[np.float32]:
    """Turn an image about its middle so that the tilt axis is y; what comes from outside is its mean."""
    if not tilt_axis:
        return image
    angle = np.radians(tilt_axis)
    # a pixel of the upright image, from its middle, is seen in the given one turned by the axis's angle
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = (np.array(image.shape) - 1) / 2 + offset[::-1]
    start = middle - matrix @ ((np.array(shape) - 1) / 2)
    return np.asarray(
        ndimage.affine_transform(
            image, matrix, start, shape, order=3, mode="constant", cval=float(image.mean())
        ),
        np.float32,
    )
