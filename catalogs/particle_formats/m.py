"""M's particles of a species: ``particles.star`` with columns that begin with ``wrp``.

Positions are Å from the centre of the first voxel, angles RELION's. A particle that moves during the exposure
has several positions, ``wrpCoordinateX1``, ``wrpCoordinateX2``, ...: the first is used, and the others are
kept as columns. Some versions leave out the 1 where there is one position only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from catalogs.particle_formats import star
from catalogs.particle_formats.base import EVERYTHING, NOTES, Context, Format, as_columns, positions, stem
from catalogs.particle_formats.eulers import eulers, from_eulers, quaternions
from catalogs.particle_formats.relion_columns import SAME
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.particle_table import COLUMNS, OPTIONAL, make

_XYZ = [f"wrpCoordinate{axis}1" for axis in "XYZ"]
_ANGLES = ["wrpAngleRot1", "wrpAngleTilt1", "wrpAnglePsi1"]
_XYZ_ALONE, _ANGLES_ALONE = ([name[:-1] for name in names] for names in (_XYZ, _ANGLES))
_SOURCE = "wrpSourceName"
_SCORE = "tlScore"


def _detect(sniffed: SniffedFile) -> str | None:
    found = [(block, xyz[0]) for xyz in (_XYZ, _XYZ_ALONE) if (block := sniffed.star_with(*xyz)) is not None]
    if not found:
        return None
    block, first = found[0]
    return f"data_{block} has {first}: M's particles, Å from the first voxel"


def _columns(path: Path) -> list[str]:
    """Names of the columns of the positions in a file."""
    return (
        _XYZ_ALONE
        if SniffedFile(path).star_with(*_XYZ) is None and SniffedFile(path).star_with(*_XYZ_ALONE)
        else _XYZ
    )


def _read(path: Path, context: Context) -> pd.DataFrame:
    text = [_SOURCE, *(theirs for ours, theirs in SAME.items() if ours != "label")]
    frame, _ = star.read_loop(path, _columns(path), text)
    frame = frame.rename(columns=dict(zip([*_XYZ_ALONE, *_ANGLES_ALONE], [*_XYZ, *_ANGLES], strict=True)))
    columns: dict[str, Any] = as_columns(["x", "y", "z"], star.numbers(path, frame, _XYZ))
    if set(_ANGLES) <= set(frame):
        columns |= quaternions(from_eulers(star.numbers(path, frame, _ANGLES), "relion"))
    named = [str(name) for name in frame[_SOURCE]] if _SOURCE in frame else []
    columns["tomogram"] = [stem(name) for name in named] or [context.name_of(path)] * len(frame)
    if _SCORE in frame:
        columns["score"] = star.floats(frame[_SCORE])
    for ours, theirs in SAME.items():
        if theirs in frame:
            known = OPTIONAL.get(ours) is float
            columns[ours] = star.floats(frame[theirs]) if known else frame[theirs]
    used = {*_XYZ, *_ANGLES, _SCORE, *SAME.values()}
    if all(f"{name}.tomostar" == given for name, given in zip(columns["tomogram"], named, strict=False)):
        used.add(_SOURCE)
    columns |= {str(name): frame[name] for name in frame if name not in used}
    table = make(**columns)
    moving = [name for name in frame if str(name).startswith("wrpCoordinateX") and name != _XYZ[0]]
    if moving:
        table.attrs[NOTES] = [
            f"{len(moving) + 1} positions a particle: the first is taken, the others are kept"
        ]
    return table


def _encode(table: pd.DataFrame, path: Path, _context: Context) -> dict[Path, bytes]:
    columns: dict[str, Any] = as_columns(_XYZ, positions(table))
    columns |= as_columns(_ANGLES, eulers(table, "relion"))
    if table["score"].notna().any():
        columns[_SCORE] = table["score"]
    columns |= {theirs: table[ours] for ours, theirs in SAME.items() if ours in table}
    kept = [str(name) for name in table[_SOURCE]] if _SOURCE in table else []
    same = kept and [stem(name) for name in kept] == list(table["tomogram"])
    columns[_SOURCE] = (
        kept if same else [f"{name.removesuffix('.tomostar')}.tomostar" for name in table["tomogram"]]
    )
    for name in table.columns:
        if name not in COLUMNS and name not in OPTIONAL and name not in columns:
            columns[name] = table[name]
    frame = pd.DataFrame(columns, index=table.index)
    comment = "# particles of a species of M, written by template-learning\n# coordinates: Å\n"
    return {path: star.to_text({"particles": frame}, comment).encode()}


M = Format(
    name="m",
    title="M particles",
    suffixes=(".star",),
    holds=frozenset([EVERYTHING]),
    detect=_detect,
    read=_read,
    encode=_encode,
)
