"""Lists of other programs that are plain tables: napari's points, SHREC's and CZII's truths.

napari: ``index,axis-0,axis-1,axis-2`` are the row and z, y, x in voxels from 0; every other column is a
feature, so nothing is lost. SHREC: the class' name, whole voxels x, y, z from 0, and ZXZ angles (nan if
unknown). CZII: ``experiment``, ``particle_type`` and Å, as in the Kaggle competition.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catalogs.errors import InputError
from catalogs.particle_formats import names, star, table
from catalogs.particle_formats.base import (
    EVERYTHING,
    ORIENTATION,
    POSITION,
    Context,
    Format,
    as_columns,
    one_of,
    positions,
)
from catalogs.particle_formats.eulers import eulers, from_eulers, quaternions
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.particle_table import make

_AXES = ["axis-0", "axis-1", "axis-2"]
_LOCATIONS = "particle_locations"


def _detect_napari(sniffed: SniffedFile) -> str | None:
    if not {"axis-0", "axis-1"} <= set(sniffed.header):
        return None
    return "its columns are axis-0, axis-1, axis-2: napari points, z y x in voxels counted from 0"


def _read_napari(path: Path, context: Context) -> pd.DataFrame:
    text = table.read_text(path)
    if not set(_AXES) <= set(text):
        raise InputError(
            f"{path} is not napari points of a volume: the columns {', '.join(_AXES)} are needed"
        )
    if "axis-3" in text:
        raise InputError(f"{path} has points in more than three dimensions; save those of one tomogram")
    tomograms = list(text["tomogram"]) if "tomogram" in text else [context.name_of(path)] * len(text)
    index = text[_AXES[::-1]].astype(np.float64).to_numpy()
    columns: dict[str, Any] = as_columns(["x", "y", "z"], context.to_angstrom(index, tomograms))
    columns["tomogram"] = tomograms
    features = text.drop(columns=[*_AXES, *(["index"] if "index" in text else [])])
    return make(**columns | {k: v for k, v in table.typed(features).items() if k not in columns})


def _encode_napari(particles: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    table.refuse_control_characters(particles)
    frame = pd.DataFrame({"index": np.arange(len(particles))})
    frame[_AXES] = context.to_pixels(particles)[:, ::-1]
    features = particles.drop(columns=["x", "y", "z"]).reset_index(drop=True)
    text = pd.concat([frame, features], axis=1).to_csv(index=False, na_rep="nan", lineterminator="\n")
    return {path: text.encode()}


def _detect_shrec(sniffed: SniffedFile) -> str | None:
    rows = sniffed.rows
    if sniffed.suffix not in (".txt", "") or not rows or not all(len(row) == 7 for row in rows):
        return None
    try:
        np.array([row[1:] for row in rows], np.float64)
    except ValueError:
        return None
    return "a name, x y z and three angles in each line: SHREC's particle locations, voxels counted from 0"


def _read_shrec(path: Path, context: Context) -> pd.DataFrame:
    # line by line, because a name may look like a number
    rows = [line.split() for line in star.read_text(path).splitlines() if line.strip()]
    bad = next((k for k, row in enumerate(rows, start=1) if len(row) not in (4, 7)), None)
    if bad is not None:
        raise InputError(f"line {bad} of {path} is not a name, x y z and three angles, as SHREC writes them")
    values = np.array([[*row[1:], *[0] * (7 - len(row))] for row in rows], np.float64).reshape(-1, 6)
    tomogram = context.name_of(path)
    if context.tomogram is None and tomogram == _LOCATIONS:
        tomogram = path.resolve().parent.name
    columns: dict[str, Any] = as_columns(
        ["x", "y", "z"], context.to_angstrom(values[:, :3], [tomogram] * len(rows))
    )
    columns |= quaternions(from_eulers(values[:, 3:], "shrec"))
    return make(tomogram=tomogram, **columns, **names.classes_of_names([row[0] for row in rows], context))


def _encode_shrec(particles: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    one_of(particles, "tomogram", "tomogram", path)
    lines = []
    rows = zip(particles["class_name"], context.to_pixels(particles), eulers(particles, "shrec"), strict=True)
    for name, (x, y, z), angles in rows:
        if not name or name.split() != [name]:
            raise InputError(f"SHREC's list cannot hold the class name {name!r}; no space may be in it")
        turned = " ".join(f"{angle:.4f}" for angle in angles)
        lines.append(f"{name} {round(x)} {round(y)} {round(z)} {turned}\n")
    return {path: "".join(lines).encode()}


def _detect_czii(sniffed: SniffedFile) -> str | None:
    if not {"experiment", "particle_type", "x", "y", "z"} <= set(sniffed.header):
        return None
    return "its columns are experiment, particle_type, x, y, z: CZII's list, Å from the first voxel"


def _read_czii(path: Path, context: Context) -> pd.DataFrame:
    text = table.read_text(path)
    needed = ["experiment", "particle_type", "x", "y", "z"]
    if not set(needed) <= set(text):
        raise InputError(f"{path} is not CZII's list: the columns {', '.join(needed)} are needed")
    more = table.typed(text.drop(columns=[*needed, *(["id"] if "id" in text else [])]))
    columns: dict[str, Any] = more | names.classes_of_names(list(text["particle_type"]), context)
    return make(**columns | {"tomogram": text["experiment"]} | {axis: text[axis] for axis in "xyz"})


def _encode_czii(particles: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "experiment", "particle_type", "x", "y", "z"])
    rows = zip(particles["tomogram"], particles["class_name"], positions(particles).tolist(), strict=True)
    writer.writerows([k, tomogram, name, *xyz] for k, (tomogram, name, xyz) in enumerate(rows))
    return {path: out.getvalue().encode()}


NAPARI = Format(
    name="napari",
    title="napari points",
    suffixes=(".csv",),
    holds=frozenset([EVERYTHING]),
    detect=_detect_napari,
    read=_read_napari,
    encode=_encode_napari,
)
SHREC = Format(
    name="shrec",
    title="SHREC particle locations",
    suffixes=(".txt",),
    holds=POSITION | ORIENTATION | {"tomogram", "class_name"},
    detect=_detect_shrec,
    read=_read_shrec,
    encode=_encode_shrec,
    one_tomogram=True,
    rounding=0.5,
)
CZII = Format(
    name="czii",
    title="CZII (Kaggle) particles",
    suffixes=(".csv",),
    holds=POSITION | {"tomogram", "class_name"},
    detect=_detect_czii,
    read=_read_czii,
    encode=_encode_czii,
)
