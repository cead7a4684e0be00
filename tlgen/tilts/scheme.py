"""Tilt schemes: angles, order and doses of a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from catalogs.schema import Acquisition, parse_tilt_series


@dataclass(frozen=True)
class TiltError:
    """The true geometry of a tilt minus the nominal one.

    Attributes
    ----------
    angle
        Degrees, of the tilt.
    axis
        Degrees from y towards -x, of the tilt axis; the same for all tilts of a series.
    rotation
        Degrees from x towards y, by which the image is turned.
    shift
        x, y in Å, by which the image is shifted.
    """

    angle: float = 0.0
    axis: float = 0.0
    rotation: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Tilt:
    """One image of a tilt series.

    Attributes
    ----------
    index
        Position in the order of acquisition, from 0.
    angle
        Nominal angle in degrees about y; positive rotates +z towards +x.
    dose
        Of this image, e/Å².
    dose_before
        Accumulated dose before this image, e/Å².
    error
        Alignment error, unknown to the reconstruction; :mod:`tlgen.tilts.misalignment` draws and applies it.
    """

    index: int
    angle: float
    dose: float
    dose_before: float
    error: TiltError = TiltError()

    @property
    def dose_after(self) -> float:
        """Accumulated dose at the end of this image, e/Å²; Parakeet's damage follows it."""
        return self.dose_before + self.dose


def tilt_series(acq: Acquisition) -> list[Tilt]:
    """List the tilts of a series in the order in which they are taken.

    Parameters
    ----------
    acq
        Its tilt range, step, scheme and dose count, or its list of tilts. The angles of a scheme are
        :func:`angles_of` and share the dose equally; the doses of a list are scaled so that they add up to
        ``dose``.

    Returns
    -------
    list of Tilt
        In the order of :func:`order`, or of the list.
    """
    if acq.tilt_scheme == "listed":
        angles, given = parse_tilt_series(acq.tilt_series)
        doses = np.array(given or [1.0] * len(angles))
        doses *= acq.dose / doses.sum()
        before = np.concatenate([[0.0], np.cumsum(doses)])
        return [Tilt(k, a, float(doses[k]), float(before[k])) for k, a in enumerate(angles)]
    angles = angles_of(acq)
    count = len(angles)
    angles = order(angles, acq.tilt_scheme, acq.tilt_start, acq.tilt_first == "negative", acq.tilt_group)
    dose = acq.dose / count
    return [Tilt(index, angle, dose, index * dose) for index, angle in enumerate(angles)]


def angles_of(acq: Acquisition) -> list[float]:
    """List the angles of a scheme, upwards.

    Schemes that go outwards from ``tilt_start`` take multiples of the step from there, up to ``tilt_min`` and
    ``tilt_max``; a scheme from end to end counts them from ``tilt_min``.
    """
    start = acq.tilt_start if starts_inside(acq) else acq.tilt_min
    # A little slack, so that (60 - -60) / 0.1 counts 1201 tilts in spite of binary fractions.
    below = int(np.floor((start - acq.tilt_min) / acq.tilt_step + 1e-6))
    above = int(np.floor((acq.tilt_max - start) / acq.tilt_step + 1e-6))
    return [round(start + k * acq.tilt_step, 6) + 0.0 for k in range(-below, above + 1)]


def starts_inside(acq: Acquisition) -> bool:
    """Tell whether a series begins between its ends, at ``tilt_start``."""
    outwards = acq.tilt_scheme in ("dose_symmetric", "bidirectional")
    return outwards and acq.tilt_min <= acq.tilt_start <= acq.tilt_max


def steps_meet(acq: Acquisition) -> bool:
    """Tell whether the angles are the same counted from ``tilt_start`` and from ``tilt_min``."""
    if acq.tilt_scheme == "listed" or not starts_inside(acq):
        return True
    steps = (acq.tilt_start - acq.tilt_min) / acq.tilt_step
    return bool(abs(steps - round(steps)) <= 1e-6)


def order(
    angles: Sequence[float], scheme: str, start: float = 0.0, negative_first: bool = True, group: int = 1
) -> list[float]:
    """Sort angles into the order of a scheme.

    Parameters
    ----------
    angles
        Degrees, in any order.
    scheme
        ``dose_symmetric``: from ``start`` outwards on alternating sides (Hagen et al., J. Struct. Biol.
        197, 191, 2017), ``group`` tilts on a side at a time as SerialEM counts them, the first tilt
        standing alone: 0, -2, -4, +2, +4, -6, ... for 2. ``bidirectional``: from ``start`` to one end, then
        from beside the start to the other end. ``unidirectional``: from one end to the other.
    start
        Degrees; the nearest angle is the first of a dose-symmetric or bidirectional series.
    negative_first
        Begin with the negative side; a unidirectional series begins at its end.
    group
        At least 1.

    Returns
    -------
    list of float
        Every angle once.
    """
    upwards = sorted(angles)
    if scheme == "unidirectional":
        return upwards if negative_first else upwards[::-1]
    sign = 1 if negative_first else -1
    # rounded, so that -2 and +2 are equally far from the start and the first side decides
    outwards = sorted(upwards, key=lambda angle: (round(abs(angle - start), 6), sign * angle))
    if scheme == "dose_symmetric" and group == 1:
        return outwards
    first = outwards[0]
    below = [angle for angle in upwards[::-1] if angle < first]
    above = [angle for angle in upwards if angle > first]
    one, other = (below, above) if negative_first else (above, below)
    if scheme == "bidirectional":
        return [first, *one, *other]
    taken = [first]
    while one or other:
        taken += one[:group] + other[:group]
        one, other = one[group:], other[group:]
    return taken
