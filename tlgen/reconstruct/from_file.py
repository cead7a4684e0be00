"""A user's aligned tilt series -> tomogram: ``tlgen reconstruct``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from catalogs import user_warnings
from catalogs.errors import InputError
from catalogs.progress import Progress, Silent
from catalogs.usual_values import USUAL, doubt, refuse_unusual
from catalogs.volumes import Binning, Volume, open_stack, write_mrc, write_ome_zarr
from tlgen.reconstruct import ctf, wbp
from tlgen.reconstruct.settings import Reconstruction
from tlgen.reconstruct.upright import lies, turned, upright
from tlgen.simulate import checks, devices
from tlgen.simulate.microscope import binning
from tlgen.tilts.acquired import AcquiredSeries, number, order_of
from tlgen.tilts.alignment import Alignment, read_alignment, read_text
from tlgen.tilts.series_files import read_one

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
    align
        A file that :func:`tlgen.tilts.alignment.read_alignment` reads: the images are moved as it says.
    order
        Where no file tells it, when each image was taken: ``stack``, as they stand; from 0° outwards with
        the negative or the positive side first, ``dose_symmetric:negative`` or ``dose_symmetric:positive``;
        or a text file with a number for each image, from 0 or 1.
    dose_per_tilt
        e/Å² of each image, where no file tells it.
    leave_out
        Numbers of images, from 0.
    negate_angles
        Tilts count the other way round.
    defocus, voltage, spherical_aberration, amplitude_contrast, phase_shift, handedness
        As :class:`tlgen.reconstruct.ctf.Optics` has them.
    settings
        Of the back-projection.
    yes
        Go on with values that are unusual, such as a pixel of 20 Å; otherwise they are refused.
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
    handedness: int | None = None
    align: str | None = None
    order: str | None = None
    dose_per_tilt: float | None = None
    settings: Reconstruction = field(default_factory=Reconstruction)
    threads: int = 1
    device: str = "cpu"
    yes: bool = False


def reconstruct_file(
    stack: str, angles: str, to: str, request: Request, *, progress: Progress = Silent
) -> tuple[tuple[int, int, int], float]:
    """Reconstruct a tomogram from a stack of images and write it.

    A few rows of the images are back-projected at a time; arrays larger than a GiB are kept in the folder for
    temporary files (``TMPDIR``).

    Parameters
    ----------
    stack
        MRC, aligned so that the tilt axis is ``request.tilt_axis`` from y and goes
        through the middle of the images.
    angles
        A file that :func:`tlgen.tilts.series_files.read_series` reads: an angle for each image, in the same
        order.
    to
        ``.mrc``, ``.rec`` or ``.zarr`` (OME-Zarr).
    request
        All other settings.
    progress
        Shows the progress.

    Returns
    -------
    shape, voxel_size
        Voxels along z, y, x, and Å.

    Raises
    ------
    InputError
        If angles and images do not match, there is no pixel size, an image is not finite or has no contrast,
        an option is not valid or is unusual, or a GPU is asked for and there is none.
    """
    _check(to, request)
    device = devices.of_jax(request.device)
    images, series = open_stack(stack, voxel_size=request.pixel_size), read_one(angles)
    series = _settled(series, angles, request)
    count = images.shape[0]
    if len(series.angles) != count:
        raise InputError(
            f"{stack} has {count} images and {angles} has {len(series.angles)} angles; "
            "give the angles of this very stack, in its order"
        )
    moves = _moves(stack, count, request)
    if angles.lower().endswith((".tomostar", ".xml")):
        user_warnings.warn(
            f"{angles}: Warp counts tilts the other way round from IMOD by default, and the file does "
            "not say which way; if the tomogram has the wrong hand, add `negate_angles`"
        )
    pixel_size = request.pixel_size or images.voxel_size or series.pixel_size
    if pixel_size is None:
        raise InputError(f"neither {stack} nor {angles} states the size of a pixel; give `pixel_size`")
    kept = [k for k in range(count) if k not in request.leave_out]
    if wrong := [k for k in request.leave_out if not 0 <= k < count]:
        raise InputError(f"`leave_out={wrong[0]}`: {stack} has images 0 to {count - 1}")
    if len(kept) < 2:
        raise InputError(f"`leave_out` leaves {len(kept)} images of {stack}; a tomogram needs more")
    if np.ptp([series.angles[k] for k in kept]) == 0:
        raise InputError(f"{angles}: all images have the same angle; a tomogram needs more than one")
    times = request.bin or max(1, round((request.voxel_size or pixel_size) / pixel_size))
    if (smallest := min(images.shape[1:])) < 2 * times:  # the impossible is refused before the unusual
        raise InputError(f"{stack}: images of {smallest} pixels cannot be binned {times} times")
    voxel_size = pixel_size * times
    known = _known(series, angles, kept, voxel_size, request)
    refuse_unusual(_doubts(series, stack, angles, pixel_size, voxel_size, known, request), request.yes)

    contrast, offset = _contrast(images, stack, kept, times, known, moves, request, progress)
    known = replace(known, axis=offset[0])
    shape = (max(1, round(request.thickness / voxel_size)), contrast.shape[1], contrast.shape[2])
    tomogram = ctf.scratch(shape)
    with progress("back-projecting", shape[1], "rows") as line:
        for rows, block in wbp.reconstruct_rows(
            contrast, known, shape, request.settings, threads=request.threads, device=device
        ):
            tomogram[:, rows] = block
            line.update(rows.stop)
    # Voxel 0 from the first pixel of the whole images, whose middle is that of the tomogram. The mean
    # of a box lies in its middle, and what is cropped is shifted to there.
    wide = images.shape[1:] if lies(moves) else images.shape[:0:-1]
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


def _moves(stack: str, count: int, request: Request) -> Alignment | None:
    """Return how images are aligned before back-projection; None if they are aligned already."""
    if request.align is None:
        return turned(request.tilt_axis, count) if request.tilt_axis else None
    if request.tilt_axis:
        raise InputError("`align` and `tilt_axis` both turn the images; give one of them")
    moves = read_alignment(request.align)
    if len(moves) != count:
        raise InputError(
            f"{stack} has {count} images and {request.align} moves {len(moves)}; give the file of "
            f"this very stack"
        )
    return moves


def _settled(series: AcquiredSeries, angles: str, request: Request) -> AcquiredSeries:
    """Add the order and the doses from the options."""
    if request.dose_per_tilt is not None:
        series = replace(series, doses=(request.dose_per_tilt,) * len(series.angles))
    if request.order is None:
        return series
    n = len(series.angles)
    if request.order == "stack":
        return replace(series, taken=tuple(range(n)), ordered=True)
    word, _, side = request.order.partition(":")
    if word == "dose_symmetric" and side in ("negative", "positive"):
        sign = 1 if side == "negative" else -1
        outwards = sorted(range(n), key=lambda k: (round(abs(series.angles[k])), sign * series.angles[k]))
        return replace(series, taken=tuple(outwards), ordered=True)
    if not Path(request.order).is_file():
        raise InputError(
            f"`order={request.order}`: give stack, dose_symmetric:negative, dose_symmetric:positive, "
            f"or a file with a "
            "number for each image"
        )
    words = read_text(Path(request.order)).split()
    if len(words) != n:
        raise InputError(f"`order={request.order}` has {len(words)} numbers and {angles} has {n} angles")
    taken = order_of([number(Path(request.order), "an image's number", each) for each in words])
    if taken is None:
        raise InputError(f"`order={request.order}` has a number twice; each image was taken at its own time")
    return replace(series, taken=tuple(taken), ordered=True)


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
        raise InputError("`bin` and `voxel_size` both say how large voxels are; give one of them")
    if not np.isfinite(request.tilt_axis) or abs(request.tilt_axis) > 180:
        raise InputError(
            f"`tilt_axis={request.tilt_axis:g}`: give degrees from the images' y, from -180 to 180"
        )
    sizes = {
        "`pixel_size`": request.pixel_size,
        "`voxel_size`": request.voxel_size,
        "`bin`": request.bin,
        "`thickness`": request.thickness,
        "`dose_per_tilt`": request.dose_per_tilt,
        "`threads`": request.threads,
    }
    for option, value in sizes.items():
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InputError(f"{option} must be positive, not {value:g}")
    low, high = checks.VOLTAGES
    lens = {
        "`defocus`": (request.defocus, -checks.LARGEST_DEFOCUS, checks.LARGEST_DEFOCUS, "µm"),
        "`voltage`": (request.voltage, low, high, "kV"),
        "`spherical_aberration`": (request.spherical_aberration, 0.0, 100.0, "mm"),
        "`amplitude_contrast`": (request.amplitude_contrast, 0.0, 1.0, ""),
        "`phase_shift`": (request.phase_shift, -180.0, 180.0, "degrees"),
    }
    for option, (value, least, most, unit) in lens.items():
        if value is not None and not least <= value <= most:
            raise InputError(
                f"{option} must be from {least:g} to {most:g} {unit}".rstrip() + f", not {value:g}"
            )


def _doubts(
    series: AcquiredSeries,
    stack: str,
    angles: str,
    pixel_size: float,
    voxel_size: float,
    known: wbp.ProjectionParameters,
    request: Request,
) -> list[str | None]:
    """List doubts about values that are probably in another unit."""

    def called(option: str, value: object, what: str, where: str) -> str:
        return f"`{option}`" if value is not None else f"the {what} in {where}"

    found = [doubt("thickness", request.thickness, called="`thickness`")]
    if pixel_size < USUAL["pixel_size"].low:
        name = called("pixel_size", request.pixel_size, "pixel size", stack)
        found.append(doubt("pixel_size", pixel_size, called=name))
    else:  # a binned stack has pixels as large as voxels
        found.append(doubt("voxel_size", voxel_size, called="the tomogram's voxel size"))
    optics = known.optics
    if optics is not None and (request.defocus is not None or request.settings.ctf != "none"):
        name = called("defocus", request.defocus, "defocus", angles)
        found.append(doubt("defocus", optics.defocus, called=name))
        name = called("voltage", request.voltage, "voltage", angles)
        found.append(doubt("voltage", optics.voltage, called=name))
        name = called("spherical_aberration", request.spherical_aberration, "spherical aberration", angles)
        found.append(doubt("spherical_aberration", optics.spherical_aberration, called=name))
        found.append(doubt("amplitude_contrast", optics.amplitude_contrast, called="`amplitude_contrast`"))
    if series.doses and (request.settings.dose_weighting or request.dose_per_tilt is not None):
        total = sum(series.doses)
        name = called("dose_per_tilt", request.dose_per_tilt, "dose", angles)
        words = doubt("dose", total, called=f"{name}, over all {len(series.doses)} images,")
        found.append(words)
    return found


def _known(
    series: AcquiredSeries, angles: str, kept: list[int], voxel_size: float, request: Request
) -> wbp.ProjectionParameters:
    """Return what the reconstruction needs to know about the images that are kept."""
    settings = request.settings
    sign = -1 if request.negate_angles else 1
    doses = None
    if settings.dose_weighting:
        if not series.doses:
            raise InputError(
                f"`dose_weighting`: the angles' file of {series.name} does not tell the doses; give "
                f"its .mdoc, or "
                "`dose_per_tilt`"
            )
        if not series.ordered:
            raise InputError(
                f"`dose_weighting`: {angles} {series.doubt}, so the order of the images is not known; add "
                "`order=stack` if they are in the order in which they were taken, "
                "`order=dose_symmetric:negative` (or :positive) if they were taken from 0° outwards, or "
                "`order=FILE`"
            )
        doses = np.array([series.doses_before[k] + series.doses[k] / 2 for k in kept])
    defocus = request.defocus if request.defocus is not None else series.defocus
    if settings.ctf != "none" and defocus is None:
        raise InputError("`ctf` needs the defocus; give `defocus` in µm under focus")
    voltage = _first(request.voltage, series.voltage, 300.0)
    if not checks.VOLTAGES[0] <= voltage <= checks.VOLTAGES[1]:
        raise InputError(
            f"the angles' file of {series.name} tells a voltage of {voltage:g} kV, which no microscope has;"
            " give `voltage`"
        )
    optics = ctf.Optics(
        pixel_size=voxel_size,
        defocus=defocus or 0.0,
        voltage=voltage,
        spherical_aberration=_first(request.spherical_aberration, series.spherical_aberration, 2.7),
        amplitude_contrast=request.amplitude_contrast,
        phase_shift=request.phase_shift,
        handedness=request.handedness or series.handedness or 1,
    )
    return wbp.ProjectionParameters(
        sign * np.array([series.angles[k] for k in kept], np.float64), doses, optics
    )


def _first(*values: float | None) -> float:
    """Take the first one that is known, be it 0."""
    return next(value for value in values if value is not None)


def _contrast(
    images: Volume,
    stack: str,
    kept: list[int],
    times: int,
    known: wbp.ProjectionParameters,
    moves: Alignment | None,
    request: Request,
    progress: Progress,
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Bin and align the images and convert them to contrast: (t, y, x); also returns where their middle is.

    Counts are divided by their mean. Images with negative grey values are scaled to mean 0 and standard
    deviation 1.

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
        cut.append(slice(rest // 2, n - (rest - rest // 2)))
        offset.append((rest % 2) / 2 / times)
    size = [(part.stop - part.start) // times for part in cut]
    nx, ny = size[::-1] if lies(moves) else size
    contrast = ctf.scratch((len(kept), ny, nx))
    counts = True
    with progress("reading", len(kept), "images") as line:
        for at, k in enumerate(kept):
            image = np.asarray(images.data[k : k + 1], np.float32)[0]
            if not np.isfinite(image).all():
                raise InputError(f"{stack}: image {k} has pixels that are not numbers; `leave_out={k}`")
            if image.min() == image.max():
                raise InputError(f"{stack}: image {k} is the same everywhere; `leave_out={k}`")
            counts = counts and float(image.min()) >= 0
            image = binning.binned(image[cut[1], cut[0]], times, request.binning)
            if moves is not None:
                image = upright(image, moves, k, times, (ny, nx), (offset[0], offset[1]))
            contrast[at] = image
            line.update(at + 1)
    for at in range(len(kept)):
        if counts:
            contrast[at] = wbp.over_mean(contrast[at], kept[at])
        else:
            contrast[at] -= contrast[at].mean(dtype=np.float64)
            contrast[at] /= contrast[at].std(dtype=np.float64)
        contrast[at] = wbp.dose_weighted(contrast[at], at, known, request.settings)
    # the alignment has moved the middle to its place
    return contrast, (offset[0], offset[1]) if moves is None else (0.0, 0.0)
