"""A user's own acquisition, as its files tell it: .mdoc, .tlt and .rawtlt, RELION 5's tomograms.star."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from catalogs.errors import InputError
from catalogs.particle_formats import star

SUFFIXES = (".mdoc", ".tlt", ".rawtlt", ".star")

_KINDS = "a SerialEM .mdoc, a .tlt or .rawtlt, or a STAR file of RELION 5"
_NOMINAL, _REFINED = "rlnTomoNominalStageTiltAngle", "rlnTomoYTilt"
_SERIES, _NAME, _BEFORE = "rlnTomoTiltSeriesStarFile", "rlnTomoName", "rlnMicrographPreExposure"


@dataclass(frozen=True)
class Series:
    """What is known of a tilt series.

    Attributes
    ----------
    name
        Of the series: the file's stem, or RELION's name of the tomogram.
    angles
        Degrees, in the order in which the images stand in their stack.
    doses
        e/Å² of each image, in the same order; empty if it is not known.
    taken
        Indices of the images in the order in which they were taken; that of the stack if nothing tells it.
    ordered
        Whether something did.
    pixel_size
        Å, of the images.
    voltage
        kV.
    defocus
        µm under focus that was aimed at, else the median of what was measured.
    spherical_aberration
        mm.
    tilt_axis
        Degrees from the image's y, anticlockwise, where images were not turned yet.
    """

    name: str
    angles: tuple[float, ...]
    doses: tuple[float, ...] = ()
    taken: tuple[int, ...] = ()
    ordered: bool = False
    pixel_size: float | None = None
    voltage: float | None = None
    defocus: float | None = None
    spherical_aberration: float | None = None
    tilt_axis: float | None = None

    def __post_init__(self) -> None:
        if not self.taken:
            object.__setattr__(self, "taken", tuple(range(len(self.angles))))

    @property
    def dose(self) -> float | None:
        """e/Å² over the whole series."""
        return float(sum(self.doses)) if self.doses else None

    @property
    def doses_before(self) -> tuple[float, ...]:
        """What the specimen had received before each image, e/Å², in the order of the stack."""
        before, total = [0.0] * len(self.angles), 0.0
        for k in self.taken if self.doses else ():
            before[k] = total
            total += self.doses[k]
        return tuple(before) if self.doses else ()

    def in_words(self) -> str:
        """Write it as :attr:`catalogs.schema.Acquisition.tilt_series`: angle:dose as they were taken."""
        angles = [f"{round(self.angles[k], 2) + 0.0:g}" for k in self.taken]
        if not self.doses:
            return " ".join(angles)
        doses = [f"{round(self.doses[k], 3):g}" for k in self.taken]
        return " ".join(f"{angle}:{dose}" for angle, dose in zip(angles, doses, strict=True))


def read_series(path: str | Path) -> list[Series]:
    """Read a file that tells how tilt series were taken.

    Parameters
    ----------
    path
        A SerialEM (or Tomography 5) ``.mdoc``; a ``.tlt`` or ``.rawtlt`` with an angle a line; a
        ``tomograms.star`` of RELION 5, or the STAR file of one tilt series of it. ``FILE#NAME`` takes the
        series of that name out of a ``tomograms.star``.

    Returns
    -------
    list of Series
        One, or of a ``tomograms.star`` as many as it has.

    Raises
    ------
    InputError
        If there is no such file, or it does not hold what its kind must.
    """
    text, _, wanted = str(path).partition("#")
    file = Path(text)
    if not file.is_file():
        raise InputError(f"there is no file {file} of a tilt series; give {_KINDS}")
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{file} tells no tilt series; give {_KINDS}")
    if suffix == ".star":
        found = _read_star(file)
    else:
        try:
            content = file.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(f"{file} cannot be read ({error.strerror})") from error
        found = [_read_mdoc(file, content) if suffix == ".mdoc" else _read_tlt(file, content)]
    if wanted:
        names = [series.name for series in found]
        if wanted not in names:
            raise InputError(f"{file} has no tilt series {wanted}; it has {', '.join(names[:10])}")
        found = [found[names.index(wanted)]]
    for series in found:
        _check(file, series)
    return found


def read_one(path: str | Path) -> Series:
    """Read the only tilt series of a file; InputError if it holds several. See :func:`read_series`."""
    found = read_series(path)
    if len(found) > 1:
        raise InputError(
            f"{path} holds {len(found)} tilt series; say which as {path}#{found[0].name}, for instance"
        )
    return found[0]


def _check(file: Path, series: Series) -> None:
    if not series.angles:
        raise InputError(f"{file} lists no tilts")
    for angle in series.angles:
        if not abs(angle) < 90:
            raise InputError(f"{file}: a tilt of {angle:g}° is impossible; tilts are degrees below 90")


# ------------------------------------------------------------------------------------------------------ tlt


def _read_tlt(file: Path, content: str) -> Series:
    angles = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            angles.append(float(line))
        except ValueError:
            raise InputError(
                f"{file}, line {number}: {line.strip()[:40]!r} is not an angle; give one number a line"
            ) from None
    return Series(file.stem, tuple(angles))


# ----------------------------------------------------------------------------------------------------- mdoc


def _read_mdoc(file: Path, content: str) -> Series:
    heads, images = _sections(content)
    if not images:
        raise InputError(f"{file} has no [ZValue = ...] sections, so it is not the .mdoc of a tilt series")
    numbers = [image.get("ZValue", "") for image in images]
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise InputError(f"{file} describes the image [ZValue = {twice}] twice; take one of the sections out")
    if all(re.fullmatch(r"\d+", number) for number in numbers):
        images.sort(key=lambda image: int(image["ZValue"]))
    angles = _each(file, images, "TiltAngle")
    if angles is None:
        missing = next(image["ZValue"] for image in images if "TiltAngle" not in image)
        raise InputError(f"{file}: the image [ZValue = {missing}] has no TiltAngle")
    prior = _each(file, images, "PriorRecordDose")
    doses = _each(file, images, "ExposureDose")
    times = _times(images)
    taken = None
    if prior is not None and len(set(prior)) == len(prior):
        taken = sorted(range(len(images)), key=lambda k: prior[k])
    elif times is not None:
        taken = sorted(range(len(images)), key=lambda k: times[k])
    if doses is None or min(doses) <= 0:
        doses = _from_before([prior[k] for k in taken], taken) if prior and taken else None

    def first(key: str) -> float | None:
        value = heads.get(key) or next((image[key] for image in images if image.get(key)), None)
        return _number(file, key, value) if value else None

    target, measured = _each(file, images, "TargetDefocus"), _each(file, images, "Defocus")
    defocus = next((-median(v) for v in (target, measured) if v and abs(median(v)) > 0.05), None)
    title = re.search(r"Tilt\s*axis\s*angle\s*=\s*(-?[\d.]+)", content, re.IGNORECASE)
    return Series(
        name=re.sub(r"\.(mrc|st|mrcs|tif|tiff|eer)$", "", file.stem),
        angles=tuple(angles),
        doses=tuple(doses) if doses else (),
        taken=tuple(taken) if taken else (),
        ordered=taken is not None,
        pixel_size=_positive(first("PixelSpacing")),
        voltage=_positive(first("Voltage")),
        defocus=defocus,
        tilt_axis=float(title[1]) if title else first("RotationAngle"),
    )


def _sections(content: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Keys before the first image, and of each image."""
    heads: dict[str, str] = {}
    images: list[dict[str, str]] = []
    current: dict[str, str] = heads
    for line in content.splitlines():
        section = re.match(r"\s*\[\s*(\w+)\s*=\s*(.*?)\s*\]\s*$", line)
        if section and section[1] == "ZValue":
            current = {"ZValue": section[2]}
            images.append(current)
        elif section and section[1] != "T":  # a title stands between heads and images
            current = {}
        elif not section and "=" in line:
            key, _, value = line.partition("=")
            current.setdefault(key.strip(), value.strip())
    return heads, images


def _each(file: Path, images: Sequence[Mapping[str, str]], key: str) -> list[float] | None:
    """Value of a key for every image, or None if not every one has it."""
    if not all(image.get(key) for image in images):
        return None
    return [_number(file, f"{key} of [ZValue = {image['ZValue']}]", image[key]) for image in images]


def _number(file: Path, key: str, value: str) -> float:
    try:
        number = float(value.split()[0])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{file}: {key} is {value[:40]!r}, not a number")
    return number


def _positive(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None


def _times(images: Sequence[Mapping[str, str]]) -> list[datetime] | None:
    """When each image was taken, or None if that is not known of all, or they share a second."""
    times = []
    for image in images:
        words = " ".join(image.get("DateTime", "").split())
        for form in ("%d-%b-%y %H:%M:%S", "%d-%b-%Y %H:%M:%S", "%Y-%b-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S"):
            try:
                times.append(datetime.strptime(words, form))
                break
            except ValueError:
                continue
        else:
            return None
    return times if len(set(times)) == len(times) else None


def _from_before(before: Sequence[float], taken: Sequence[int]) -> list[float] | None:
    """Dose of each image from what had accumulated before, both as taken; the last one gets the median."""
    steps = np.diff(before)
    if not len(steps) or steps.min() <= 0:
        return None
    doses = [0.0] * len(taken)
    for k, dose in zip(taken, [*steps, float(np.median(steps))], strict=True):
        doses[k] = float(dose)
    return doses


# --------------------------------------------------------------------------------------------------- RELION


def _read_star(file: Path) -> list[Series]:
    blocks = star.read_blocks(file, (_NAME, _SERIES))
    frames = {
        name: pd.DataFrame([block]) if isinstance(block, dict) else block for name, block in blocks.items()
    }
    for frame in frames.values():
        if {_NAME, _SERIES} <= set(frame.columns):
            return [_of_tomogram(file, row) for _, row in frame.iterrows()]
    for name, frame in frames.items():
        if {_NOMINAL, _REFINED} & set(frame.columns):
            return [_of_tilts(file, name or file.stem, frame, {})]
    raise InputError(f"{file} is neither a tomograms.star with {_SERIES} nor the STAR file of a tilt series")


def _of_tomogram(file: Path, row: pd.Series) -> Series:
    named = Path(str(row[_SERIES]))
    # RELION writes paths from the project's folder, in which the file lies at some depth
    places = [named, *(folder / named for folder in file.resolve().parents), file.parent / named.name]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError(
            f"{file}: the STAR file {named} of {row[_NAME]} is not there; run from RELION's project folder"
        )
    for name, frame in star.read_blocks(found).items():
        if not isinstance(frame, dict) and {_NOMINAL, _REFINED} & set(frame.columns):
            return _of_tilts(found, str(row[_NAME] or name), frame, row)
    raise InputError(f"{found} is not the STAR file of a tilt series: it has no {_NOMINAL}")


def _of_tilts(file: Path, name: str, frame: pd.DataFrame, row: Mapping[str, object] | pd.Series) -> Series:
    def column(key: str) -> list[float] | None:
        if key not in frame:
            return None
        return [float(value) for value in star.numbers(file, frame, [key])[:, 0]]

    def fact(key: str, *, maybe_zero: bool = False) -> float | None:
        value = row.get(key)
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None
        return 0.0 if maybe_zero and number == 0 else _positive(number)

    angles = column(_REFINED) or column(_NOMINAL) or []
    before = column(_BEFORE)
    taken = None
    if before is not None and len(set(before)) == len(before):
        taken = sorted(range(len(before)), key=lambda k: before[k])
    doses = _from_before([before[k] for k in taken], taken) if before and taken else None
    defocus = column("rlnDefocusU") or column("rlnTomoNominalDefocus")
    axis = column("rlnTomoZRot") or column("rlnTomoNominalTiltAxisAngle")
    microns = None
    if defocus:
        microns = abs(median(defocus)) * (1e-4 if "rlnDefocusU" in frame else 1.0)
    return Series(
        name=name,
        angles=tuple(angles),
        doses=tuple(doses) if doses else (),
        taken=tuple(taken) if taken else (),
        ordered=taken is not None,
        pixel_size=fact("rlnTomoTiltSeriesPixelSize"),
        voltage=fact("rlnVoltage"),
        defocus=microns or None,
        spherical_aberration=fact("rlnSphericalAberration", maybe_zero=True),
        tilt_axis=median(axis) if axis else None,
    )
