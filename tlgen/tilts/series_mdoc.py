"""SerialEM's and Tomography 5's .mdoc."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median

from catalogs.errors import InputError
from tlgen.tilts.acquired import AcquiredSeries, doses_from_before, number, order_of, positive

# English month names of SerialEM and Tomography 5, independent of the machine's language.
_MONTHS = {"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6}
_MONTHS |= {"jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12}


def read_mdoc(file: Path, content: str) -> AcquiredSeries:
    """Read an .mdoc: order by PriorRecordDose, else by DateTime.

    Raises
    ------
    InputError
        If it describes no images, an image twice, an image without its tilt, or a value is not a number.
    """
    heads, images = _sections(content)
    if not images:
        raise InputError(f"{file} has no [ZValue = ...] sections, so it is not the .mdoc of a tilt series")
    numbers = [image.get("ZValue", "") for image in images]
    if len(set(numbers)) < len(numbers):
        twice = next(each for each in numbers if numbers.count(each) > 1)
        raise InputError(f"{file} describes the image [ZValue = {twice}] twice; take one of the sections out")
    if all(re.fullmatch(r"\d+", each) for each in numbers):
        images.sort(key=lambda image: int(image["ZValue"]))
    angles = _each(file, images, "TiltAngle")
    if angles is None:
        missing = next(image["ZValue"] for image in images if "TiltAngle" not in image)
        raise InputError(f"{file}: the image [ZValue = {missing}] has no TiltAngle")
    prior = _each(file, images, "PriorRecordDose")
    doses = _each(file, images, "ExposureDose")
    taken, doubt = _order(images, prior)
    if doses is None or min(doses) <= 0:
        doses = doses_from_before([prior[k] for k in taken], taken) if prior and taken else None

    def first(key: str) -> float | None:
        value = heads.get(key) or next((image[key] for image in images if image.get(key)), None)
        return number(file, key, value) if value else None

    target, measured = _each(file, images, "TargetDefocus"), _each(file, images, "Defocus")
    defocus = next((-median(v) for v in (target, measured) if v and abs(median(v)) > 0.05), None)
    title = re.search(r"Tilt\s*axis\s*angle\s*=\s*(-?[\d.]+)", content, re.IGNORECASE)
    return AcquiredSeries(
        name=re.sub(r"\.(mrc|st|mrcs|tif|tiff|eer)$", "", file.stem),
        angles=tuple(angles),
        doses=tuple(doses) if doses else (),
        taken=tuple(taken) if taken else (),
        ordered=taken is not None,
        doubt=doubt,
        pixel_size=_pixel_size(file, first("PixelSpacing"), _each(file, images, "PixelSpacing")),
        voltage=positive(first("Voltage")),
        defocus=defocus,
        tilt_axis=float(title[1]) if title else first("RotationAngle"),
    )


def _pixel_size(file: Path, stated: float | None, of_images: Sequence[float] | None) -> float | None:
    """Return the pixel size in Å; InputError if the images have others than the whole series."""
    size = positive(stated)
    for k, other in enumerate(of_images or ()):
        if size is not None and other > 0 and abs(other - size) > 0.01 * size:
            raise InputError(
                f"{file} states pixels of {size:g} Å and, for the image {k}, of {other:g} Å (PixelSpacing); "
                "correct the wrong one"
            )
    return size


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
    return [number(file, f"{key} of [ZValue = {image['ZValue']}]", image[key]) for image in images]


def _order(
    images: Sequence[Mapping[str, str]], prior: Sequence[float] | None
) -> tuple[list[int] | None, str]:
    """Find the order of acquisition, or the reason why it is not known."""
    by_dose = order_of(prior) if prior is not None else None
    times, doubt = _times(images)
    by_time = None if times is None else order_of([(each - times[0]).total_seconds() for each in times])
    if times is not None and by_time is None:
        doubt = "gives several images the same DateTime"
    if by_dose is not None and by_time is not None and by_dose != by_time:
        return None, "tells one order of acquisition by PriorRecordDose and another by DateTime"
    return by_dose or by_time, doubt


def _times(images: Sequence[Mapping[str, str]]) -> tuple[list[datetime] | None, str]:
    """Return when each image was taken, or None and the reason why it is not known."""
    times = []
    for image in images:
        words = image.get("DateTime", "")
        which = f"of [ZValue = {image['ZValue']}]"
        if not words:
            return None, f"has no DateTime {which}"
        found = date_and_time(words)
        if found is None:
            return (
                None,
                f"has the DateTime {words[:40]!r} {which}, which is no date and time that can be read",
            )
        times.append(found)
    return times, ""


def date_and_time(words: str) -> datetime | None:
    """Read what SerialEM and Tomography 5 write: ``15-May-24  16:53:54``, ``2024-May-15 16:53:54``.

    None for anything else: a month in another language, numbers whose order may be either, or a time alone,
    which midnight sets back.
    """
    text = " ".join(re.sub(r"(?<=\d)T(?=\d)", " ", words).split())
    clock = r"(\d{1,2}):(\d{2}):(\d{2})(\.\d+)?"
    found = re.fullmatch(rf"(\d{{1,2}})-([A-Za-z]{{3}})-(\d{{4}}|\d{{2}}) {clock}", text)
    if found:
        day, word, year = found[1], found[2], found[3] if len(found[3]) == 4 else f"20{found[3]}"
    elif found := re.fullmatch(rf"(\d{{4}})-([A-Za-z]{{3}}|\d{{1,2}})-(\d{{1,2}}) {clock}", text):
        year, word, day = found[1], found[2], found[3]
    else:
        return None
    month = int(word) if word.isdigit() else _MONTHS.get(word.lower(), 0)
    part = round(float(found[7] or 0) * 1e6) % 10**6
    try:
        return datetime(int(year), month, int(day), int(found[4]), int(found[5]), int(found[6]), part)
    except ValueError:
        return None
