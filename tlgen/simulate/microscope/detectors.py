"""The detector: how much it blurs the image (MTF), and how much of the signal-to-noise ratio it keeps (DQE).

A detector is described by two curves over spatial frequency, in cycles per detector pixel (0.5 is Nyquist):
the modulation transfer function, which is 1 at zero frequency, and the detective quantum efficiency. The
corresponding noise power is ``MTF² DQE(0) / DQE`` (Meyer & Kirkland, Microsc. Res. Tech. 49, 269, 2000). An
image is made in three steps: the Fourier transform of the expected image is multiplied by
``sqrt(DQE DQE(0))``, electron counts are drawn, and the transform of the counts is multiplied by
``sqrt(MTF² DQE(0) / DQE)``. Signal, noise and their ratio are then those of the detector.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.schema import Acquisition

#: Built-in detectors. ``parakeet`` is not a curve: see :func:`tlgen.simulate.microscope.optics.detect`.
BUILT_IN = ("parakeet", "counting", "pixel")

# Parakeet's table of the detective quantum efficiency at 300 keV: a cubic polynomial of its frequency axis,
# at two rates in electrons per pixel and second (its exposures last one second).
_DQE_RATES = (1.5, 5.0)
_DQE_CUBIC = np.array([[0.95, -0.1333, -0.8661, 0.3711], [0.80, -0.30, -0.56, 0.32]])

_NYQUIST = 0.5
_COLUMNS = {
    "frequency": ("frequency", "rlnResolutionInversePixel"),
    "mtf": ("mtf", "rlnMtfValue"),
    "dqe": ("dqe", "rlnDqeValue"),
}


def parakeets_table(axis: NDArray[np.floating], rate: float) -> NDArray[np.float64]:
    """Evaluate Parakeet's table on its axis, which Parakeet's source calls a fraction of Nyquist.

    Parameters
    ----------
    axis
        Values from 0 to 1, of any shape.
    rate
        Electrons per detector pixel and second.
    """
    share = np.clip((rate - _DQE_RATES[0]) / (_DQE_RATES[1] - _DQE_RATES[0]), 0, 1)
    cubic = (1 - share) * _DQE_CUBIC[0] + share * _DQE_CUBIC[1]
    return np.asarray(np.polynomial.polynomial.polyval(axis, cubic), np.float64)


@dataclass(frozen=True)
class DetectorResponse:
    """A detector's curves.

    Attributes
    ----------
    frequency
        Cycles per pixel, increasing from 0.
    mtf, dqe
        Values at these frequencies.
    """

    frequency: NDArray[np.float64]
    mtf: NDArray[np.float64]
    dqe: NDArray[np.float64]

    @property
    def efficiency(self) -> float:
        """Share of the electrons that the detector counts, DQE(0)."""
        return float(self.dqe[0])

    def before(self, frequency: NDArray[np.floating]) -> NDArray[np.float32]:
        """Evaluate ``sqrt(DQE DQE(0))``, the factor on the expected image's transform."""
        return np.asarray(np.sqrt(np.interp(frequency, self.frequency, self.dqe * self.dqe[0])), np.float32)

    def after(self, frequency: NDArray[np.floating]) -> NDArray[np.float32]:
        """Evaluate ``sqrt(MTF² DQE(0) / DQE)``, the factor on the counts' transform."""
        mtf, dqe = (np.interp(frequency, self.frequency, each) for each in (self.mtf, self.dqe))
        return np.asarray(mtf * np.sqrt(self.dqe[0] / dqe), np.float32)

    @property
    def white(self) -> bool:
        """Whether the noise is white, so that the counts need no filter."""
        return bool(np.allclose(self.mtf**2 * self.dqe[0], self.dqe, rtol=1e-3))

    def as_text(self) -> str:
        """Format the curves for :attr:`catalogs.schema.Acquisition.detector_curve`."""
        rows = zip(self.frequency, self.mtf, self.dqe, strict=True)
        return ", ".join(f"{f:.6g}:{m:.5g}:{d:.5g}" for f, m, d in rows)


def curve(acq: Acquisition, rate: float) -> DetectorResponse | None:
    """Find the curves of an acquisition's detector; None for a perfect detector and for ``parakeet``.

    Parameters
    ----------
    acq
        The acquisition; ``dqe``, ``detector`` and ``detector_curve`` are used.
    rate
        Electrons per detector pixel and second; an exposure lasts one second.

    Raises
    ------
    InputError
        If the detector is unknown, or its curve is not valid.
    """
    if not acq.dqe or acq.detector == "parakeet":
        return None
    if acq.detector_curve:
        return from_text(acq.detector_curve, f"detector_curve of {acq.detector}")
    frequency = np.linspace(0, _NYQUIST, 65)
    if acq.detector == "counting":
        # Parakeet's table has no MTF; the noise of a counting detector is nearly white
        dqe = parakeets_table(frequency / _NYQUIST, rate)
        return DetectorResponse(frequency, np.sqrt(dqe / dqe[0]), dqe)
    if acq.detector == "pixel":
        # each electron is counted once, in the pixel that it hits (McMullan et al., Ultramicroscopy 109,
        # 1126, 2009)
        mtf = np.sinc(frequency)
        return DetectorResponse(frequency, mtf, mtf**2)
    meant = "" if Path(acq.detector).suffix else nearest(acq.detector, BUILT_IN)
    raise InputError(
        f"detector: {acq.detector!r} is neither one of {', '.join(BUILT_IN)} nor an existing STAR or CSV "
        f"file{meant}"
    )


def check(acq: Acquisition) -> None:
    """Refuse an unknown detector, and one that has no effect because ``dqe`` is off (InputError)."""
    if not acq.dqe and acq.detector != "parakeet":
        raise InputError(
            f"detector: {acq.detector} has no effect with dqe: false, a perfect "
            "detector; leave one of them out"
        )
    curve(acq, 1.0)


def read(path: Path) -> DetectorResponse:
    """Read a detector's curves from a file.

    Parameters
    ----------
    path
        STAR, with the columns ``rlnResolutionInversePixel`` (cycles per pixel) and ``rlnMtfValue``, as in
        RELION, and ``rlnDqeValue``; or CSV, with ``frequency`` and ``mtf``, ``dqe`` or both. If only the MTF
        is given, the DQE is its square. If only the DQE is given, the MTF is ``sqrt(DQE / DQE(0))``, for
        white noise.

    Raises
    ------
    InputError
        If the file cannot be read, lacks the columns, or its numbers are not valid curves.
    """
    try:
        columns = _star(path) if path.suffix.lower() == ".star" else _csv(path)
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read as a detector's curves: {error}") from error
    found: dict[str, list[float]] = {}
    for name, spellings in _COLUMNS.items():
        for spelling in set(spellings) & set(columns):
            found[name] = columns[spelling]
    if "frequency" not in found or not {"mtf", "dqe"} & set(found):
        raise InputError(
            f"{path} has no columns frequency and mtf or dqe (in STAR rlnResolutionInversePixel, rlnMtfValue,"
            " rlnDqeValue); use these names"
        )
    frequency = np.array(found["frequency"])
    mtf, dqe = (np.array(found[name]) if name in found else None for name in ("mtf", "dqe"))
    if mtf is None:
        assert dqe is not None
        mtf = np.sqrt(np.clip(dqe / dqe[0] if dqe[0] else dqe, 0, None))
    elif dqe is None:
        dqe = mtf**2
    return _checked(frequency, mtf, dqe, str(path))


def from_text(text: str, where: str) -> DetectorResponse:
    """Parse the output of :meth:`DetectorResponse.as_text`; ``where`` names it in error messages.

    Raises
    ------
    InputError
        If the text is not such a curve.
    """
    try:
        rows = np.array([[float(word) for word in row.split(":")] for row in text.split(",")])
        frequency, mtf, dqe = rows.T
    except ValueError as error:
        raise InputError(f"{where} must be FREQUENCY:MTF:DQE, ... and is not ({error})") from error
    return _checked(frequency, mtf, dqe, where)


def _checked(
    frequency: NDArray[np.float64], mtf: NDArray[np.float64], dqe: NDArray[np.float64], where: str
) -> DetectorResponse:
    if len(frequency) < 2 or not np.isfinite([frequency, mtf, dqe]).all():
        raise InputError(
            f"{where}: a detector's curve needs at least two frequencies, and all values must be numbers"
        )
    if abs(frequency[0]) > 1e-6 or (np.diff(frequency) <= 0).any():
        raise InputError(f"{where}: the frequencies must begin with 0 and increase, in cycles per pixel")
    if frequency[-1] > 1.0:
        raise InputError(
            f"{where}: a frequency of {frequency[-1]:g} is above Nyquist, which is 0.5 cycles per pixel; "
            "divide fractions of Nyquist by 2"
        )
    if not (mtf > 0).all() or not (dqe > 0).all() or mtf.max() > 1.05 or dqe.max() > 1.0:
        raise InputError(f"{where}: MTF and DQE must be more than 0 and no more than 1")
    return DetectorResponse(frequency, mtf, dqe)


def _star(path: Path) -> dict[str, list[float]]:
    from catalogs.particle_formats.star import read_blocks

    found: dict[str, list[float]] = {}
    for block in read_blocks(path).values():
        if hasattr(block, "columns"):
            found |= {str(name): _floats(block[name]) for name in block.columns}
    return found


def _csv(path: Path) -> dict[str, list[float]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        except csv.Error as error:
            raise InputError(f"{path} is not a table of comma-separated values: {error}") from error
    names = [name for name in (rows[0] if rows else {}) if name]
    return {name.strip().lower(): _floats(row[name] for row in rows) for name in names}


def _floats(values: Iterable[object]) -> list[float]:
    return [float(str(value)) for value in values]
