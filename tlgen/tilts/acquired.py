"""A tilt series as it was acquired, read from any kind of file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalogs.errors import InputError


@dataclass(frozen=True)
class AcquiredSeries:
    """A tilt series as it was acquired.

    Attributes
    ----------
    name
        Of the series: the file's stem, or RELION's name of the tomogram.
    angles
        Degrees, in the order of the images in their stack.
    doses
        e/Å² of each image, in the same order; empty if it is not known.
    taken
        Indices of the images in the order in which they were taken; that of the stack if it is not known.
    ordered
        Whether the order is known.
    doubt
        Why the order is not known, as the end of a sentence about the file.
    pixel_size
        Å, of the images.
    voltage
        kV.
    defocus
        Target defocus in µm under focus, or else the median of the measured ones.
    spherical_aberration
        mm.
    tilt_axis
        Degrees from the image's y, anticlockwise, if the images are not rotated yet.
    handedness
        1 if higher parts of the tomogram are further under focus, -1 if they are less (RELION's rlnTomoHand).
    """

    name: str
    angles: tuple[float, ...]
    doses: tuple[float, ...] = ()
    taken: tuple[int, ...] = ()
    ordered: bool = False
    doubt: str = "tells no order of acquisition"
    pixel_size: float | None = None
    voltage: float | None = None
    defocus: float | None = None
    spherical_aberration: float | None = None
    tilt_axis: float | None = None
    handedness: int | None = None

    def __post_init__(self) -> None:
        if not self.taken:
            object.__setattr__(self, "taken", tuple(range(len(self.angles))))

    @property
    def dose(self) -> float | None:
        """e/Å² over the whole series."""
        return float(sum(self.doses)) if self.doses else None

    @property
    def doses_before(self) -> tuple[float, ...]:
        """Accumulated dose before each image, e/Å², in the order of the stack.

        Empty if doses or the order of acquisition are not known.
        """
        if not self.doses or not self.ordered:
            return ()
        before, total = [0.0] * len(self.angles), 0.0
        for k in self.taken:
            before[k] = total
            total += self.doses[k]
        return tuple(before)

    def in_words(self) -> str:
        """Write it as :attr:`catalogs.schema.Acquisition.tilt_series`: angle:dose as they were taken."""
        angles = [f"{round(self.angles[k], 2) + 0.0:g}" for k in self.taken]
        if not self.doses:
            return " ".join(angles)
        doses = [f"{round(self.doses[k], 3):g}" for k in self.taken]
        return " ".join(f"{angle}:{dose}" for angle, dose in zip(angles, doses, strict=True))


def order_of(before: Sequence[float]) -> list[int] | None:
    """Sort images by the accumulated dose or time; returns their indices, or None if two are equal."""
    if len(set(before)) < len(before):
        return None
    return sorted(range(len(before)), key=lambda k: before[k])


def doses_from_before(before: Sequence[float], taken: Sequence[int]) -> list[float] | None:
    """Compute the dose of each image from the accumulated dose; the last one gets the median.

    Parameters
    ----------
    before
        e/Å², in the order of acquisition.
    taken
        Index of each of these images in the stack.
    """
    steps = np.diff(before)
    if not len(steps) or steps.min() <= 0:
        return None
    doses = [0.0] * len(taken)
    for k, dose in zip(taken, [*steps, float(np.median(steps))], strict=True):
        doses[k] = float(dose)
    return doses


def number(file: Path, key: str, value: str) -> float:
    """Read a number, the first word of a value; InputError if it is not a number."""
    try:
        found = float(value.split()[0])
    except (ValueError, IndexError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{file}: {key} is {value[:40]!r}, not a number")
    return found


def positive(value: float | None) -> float | None:
    """Return a value if it is positive, else None: programs write 0 for unknown values."""
    return value if value is not None and value > 0 else None
