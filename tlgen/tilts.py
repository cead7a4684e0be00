"""Tilt schemes: at which angles, in which order and with which dose a series is taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catalogs.schema import Acquisition


@dataclass(frozen=True)
class Tilt:
    """One image of a tilt series.

    Attributes
    ----------
    index
        Position in the order of acquisition, from 0.
    angle
        Degrees about y; positive turns +z towards +x.
    dose
        Of this image, e/Å².
    dose_before
        What the specimen had received before this image, e/Å².
    """

    index: int
    angle: float
    dose: float
    dose_before: float

    @property
    def dose_after(self) -> float:
        """Accumulated dose at the end of this image, e/Å²; Parakeet's damage follows it."""
        return self.dose_before + self.dose


def tilt_series(acq: Acquisition) -> list[Tilt]:
    """List the tilts of a series in the order in which they are taken.

    Parameters
    ----------
    acq
        Its tilt range, step, scheme and dose count. The angles run from ``tilt_min`` in whole steps
        as far as ``tilt_max``; the dose is shared equally among them.

    Returns
    -------
    list of Tilt
        ``dose_symmetric``: by growing absolute angle, the negative one of a pair first
        (0, -s, +s, -2s, ...; Hagen et al., J. Struct. Biol. 197, 191, 2017, in the order that
        Parakeet takes). ``continuous``: from ``tilt_min`` upwards.
    """
    # A little slack, so that (60 - -60) / 0.1 counts 1201 tilts in spite of binary fractions; rounding
    # makes -2 and +2 equal in absolute value, so that the stable sort keeps the negative one first.
    count = int(np.floor((acq.tilt_max - acq.tilt_min) / acq.tilt_step + 1e-6)) + 1
    angles = [round(acq.tilt_min + k * acq.tilt_step, 6) + 0.0 for k in range(count)]
    if acq.tilt_scheme == "dose_symmetric":
        angles.sort(key=abs)
    dose = acq.dose / count
    return [Tilt(index, angle, dose, index * dose) for index, angle in enumerate(angles)]
