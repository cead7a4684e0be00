"""Tilt series in STAR files: RELION 4's and 5's tomograms.star, one series of RELION 5, Warp's .tomostar."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from catalogs.errors import InputError
from catalogs.particle_formats import star
from tlgen.tilts.acquired import AcquiredSeries, doses_from_before, order_of, positive

_NOMINAL, _REFINED = "rlnTomoNominalStageTiltAngle", "rlnTomoYTilt"
_SERIES, _NAME, _BEFORE = "rlnTomoTiltSeriesStarFile", "rlnTomoName", "rlnMicrographPreExposure"
_AXES = ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ")
_WARP_ANGLE, _WARP_DOSE = "wrpAngleTilt", "wrpDose"


def read_star(file: Path) -> list[AcquiredSeries]:
    """Read all tilt series of a STAR file.

    Raises
    ------
    InputError
        If it tells no tilt series, a STAR file that it names is missing, or a value is no number.
    """
    frames = _frames(file)
    for frame in frames.values():
        if {_NAME, _SERIES} <= set(frame.columns):
            return [_of_tomogram(file, row) for _, row in frame.iterrows()]
    for frame in frames.values():
        if _NAME in frame and any(set(_AXES) <= set(each.columns) for each in frames.values()):
            return [_of_relion4(file, row, frames) for _, row in frame.iterrows()]
    for name, frame in frames.items():
        if {_NOMINAL, _REFINED, *_AXES} & set(frame.columns):
            return [_of_tilts(file, name or file.stem, frame, {})]
        if _WARP_ANGLE in frame:
            return [_of_warp(file, frame)]
    raise InputError(
        f"{file} is neither a tomograms.star with {_SERIES} or {_AXES[0]}, nor the STAR file of a "
        f"tilt series, "
        f"nor a .tomostar with {_WARP_ANGLE}"
    )


def _frames(file: Path) -> dict[str, pd.DataFrame]:
    return star.read_blocks(file, (_NAME, _SERIES))


# --------------------------------------------------------------------------------------------------- RELION


def _of_tomogram(file: Path, row: pd.Series) -> AcquiredSeries:
    named = Path(str(row[_SERIES]))
    # RELION writes paths from the project's folder, in which the file lies at some depth
    places = [named, *(folder / named for folder in file.resolve().parents), file.parent / named.name]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError(
            f"{file}: the STAR file {named} of {row[_NAME]} is not there; run from RELION's project folder"
        )
    for name, frame in _frames(found).items():
        if {_NOMINAL, _REFINED, *_AXES} & set(frame.columns):
            return _of_tilts(found, str(row[_NAME] or name), frame, row)
    raise InputError(f"{found} is not the STAR file of a tilt series: it has no {_NOMINAL}")


def _of_relion4(file: Path, row: pd.Series, frames: Mapping[str, pd.DataFrame]) -> AcquiredSeries:
    name = str(row[_NAME])
    if name not in frames:
        raise InputError(f"{file} lists the tomogram {name} and has no block data_{name} with its tilts")
    return _of_tilts(file, name, frames[name], row)


def _of_tilts(
    file: Path, name: str, frame: pd.DataFrame, row: Mapping[str, object] | pd.Series
) -> AcquiredSeries:
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
        return 0.0 if maybe_zero and number == 0 else positive(number)

    angles, axis = column(_REFINED) or column(_NOMINAL), column("rlnTomoZRot")
    if angles is None:
        angles, axis = _of_projections(file, frame)
    before = column(_BEFORE)
    taken = order_of(before) if before is not None else None
    doses = doses_from_before([before[k] for k in taken], taken) if before and taken else None
    defocus = column("rlnDefocusU") or column("rlnTomoNominalDefocus")
    axis = axis or column("rlnTomoNominalTiltAxisAngle")
    microns = None
    if defocus:
        microns = abs(median(defocus)) * (1e-4 if "rlnDefocusU" in frame else 1.0)
    return AcquiredSeries(
        name=name,
        angles=tuple(angles),
        doses=tuple(doses) if doses else (),
        taken=tuple(taken) if taken else (),
        ordered=taken is not None,
        doubt=f"has no {_BEFORE}" if before is None else f"gives several images the same {_BEFORE}",
        pixel_size=fact("rlnTomoTiltSeriesPixelSize"),
        voltage=fact("rlnVoltage"),
        defocus=microns or None,
        spherical_aberration=fact("rlnSphericalAberration", maybe_zero=True),
        tilt_axis=median(axis) if axis else None,
        handedness=_handedness(file, name, row.get("rlnTomoHand")),
    )


def _handedness(file: Path, name: str, value: Any) -> int | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if number not in (1.0, -1.0):
        raise InputError(f"{file}: the rlnTomoHand of {name} is {value}; it must be 1 or -1")
    return int(number)


def _of_projections(file: Path, frame: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Tilts and directions of the tilt axis from the projection matrices of RELION 4.

    A matrix is Rz(axis) Ry(tilt) Rx(tilt about x), times a scale, as RELION 5 composes them; its third
    row, the direction of view, is (-sin tilt, ...).
    """
    rows = []
    for column in _AXES:
        words = [re.findall(r"[-+.\deE]+", str(text)) for text in frame.get(column, [])]
        if not words or any(len(each) != 4 for each in words):
            raise InputError(f"{file}: a value of {column} is not a row of four numbers such as [1,0,0,-512]")
        rows.append(np.array(words, np.float64)[:, :3])
    matrices = np.stack(rows, axis=1)  # (n, 3, 3)
    scales = np.linalg.norm(matrices, axis=2, keepdims=True)
    if not np.isfinite(matrices).all() or scales.min() == 0:
        raise InputError(f"{file} has a projection matrix that turns nothing; import the tilt series again")
    turns = matrices / scales
    tilts = np.degrees(np.arctan2(-turns[:, 2, 0], np.hypot(turns[:, 2, 1], turns[:, 2, 2])))
    axes = np.degrees(np.arctan2(turns[:, 1, 0], turns[:, 0, 0]))
    return [round(float(t), 6) + 0.0 for t in tilts], [float(a) for a in axes]


# ------------------------------------------------------------------------------------------------------ Warp


def _of_warp(file: Path, frame: pd.DataFrame) -> AcquiredSeries:
    def column(key: str) -> list[float] | None:
        return [float(v) for v in star.numbers(file, frame, [key])[:, 0]] if key in frame else None

    before = column(_WARP_DOSE)
    taken = order_of(before) if before is not None else None
    doses = doses_from_before([before[k] for k in taken], taken) if before and taken else None
    axis = column("wrpAxisAngle")
    return AcquiredSeries(
        name=file.stem,
        angles=tuple(column(_WARP_ANGLE) or ()),
        doses=tuple(doses) if doses else (),
        taken=tuple(taken) if taken else (),
        ordered=taken is not None,
        doubt=f"has no {_WARP_DOSE}" if before is None else f"gives several images the same {_WARP_DOSE}",
        tilt_axis=median(axis) if axis else None,
    )
