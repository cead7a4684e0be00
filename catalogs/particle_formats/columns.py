"""Text files with four columns, and EMAN2's ``.box``: centres of particles in voxels from 0.

DeepETPicker's ``.coords`` have a class before x y z. Others have a value after them, mostly a confidence.
A ``.box`` of a tomogram has x y z; one of a micrograph, with corner and edges, is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.particle_formats import names
from catalogs.particle_formats.base import POSITION, Context, Format, as_columns, one_of
from catalogs.particle_formats.sniff import SniffedFile, read_numbers
from catalogs.particle_table import make


def _four(sniffed: SniffedFile) -> NDArray[np.float64] | None:
    rows = sniffed.numbers
    return np.array(rows) if rows is not None and len(rows[0]) == 4 and sniffed.suffix == ".coords" else None


def _shares(values: NDArray[np.float64]) -> bool:
    """Return whether the last of four columns is a confidence: between 0 and 1, and not only 0 and 1."""
    last = values[:, 3]
    return bool((last >= 0).all() and (last <= 1).all() and (last % 1 != 0).any())


def _labels(values: NDArray[np.float64]) -> bool:
    """Return whether the first of four columns can be a class."""
    first = values[:, 0]
    return bool((first % 1 == 0).all() and (first >= 0).all())


def _detect_class(sniffed: SniffedFile) -> str | None:
    values = _four(sniffed)
    if values is None or not _labels(values) or _shares(values):
        return None
    return "four columns, the first whole: class x y z of DeepETPicker, voxels counted from 0"


def _detect_value(sniffed: SniffedFile) -> str | None:
    values = _four(sniffed)
    # a few repeated whole numbers in the first column are classes
    if values is None or (_labels(values) and not _shares(values) and _few(values)):
        return None
    return "four columns: x y z and a score, voxels counted from 0"


def _few(values: NDArray[np.float64]) -> bool:
    first = values[:, 0]
    return len(first) >= 3 and first.max() <= 20 and len(np.unique(first)) <= len(first) / 2


def _read_class(path: Path, context: Context) -> pd.DataFrame:
    values = read_numbers(path, [4], "a list of class x y z")
    tomogram = context.name_of(path)
    columns: dict[str, Any] = as_columns(
        ["x", "y", "z"], context.to_angstrom(values[:, 1:], [tomogram] * len(values))
    )
    columns |= names.classes_of_labels(names.whole(values[:, 0], "the class"), context)
    return make(tomogram=tomogram, **columns)


def _read_value(path: Path, context: Context) -> pd.DataFrame:
    values = read_numbers(path, [4], "a list of x y z and a score")
    tomogram = context.name_of(path)
    columns = as_columns(["x", "y", "z"], context.to_angstrom(values[:, :3], [tomogram] * len(values)))
    return make(tomogram=tomogram, score=values[:, 3], **columns)


def _encode_class(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    one_of(table, "tomogram", "tomogram", path)
    rows = zip(table["label"], context.to_pixels(table), strict=True)
    return {path: "".join(f"{label}\t{x:.6f}\t{y:.6f}\t{z:.6f}\n" for label, (x, y, z) in rows).encode()}


def _encode_value(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    one_of(table, "tomogram", "tomogram", path)
    rows = zip(context.to_pixels(table), table["score"], strict=True)
    return {path: "".join(f"{x:.6f} {y:.6f} {z:.6f} {score:.9g}\n" for (x, y, z), score in rows).encode()}


def _detect_box(sniffed: SniffedFile) -> str | None:
    rows = sniffed.numbers
    if rows is None or sniffed.suffix != ".box" or len(rows[0]) not in (3, 4, 5):
        return None
    if len(rows[0]) > 3:
        return f"a .box of {len(rows[0])} columns: boxes of a micrograph"
    return "a .box of three columns x y z: middles of EMAN2's boxes, voxels counted from 0"


def _read_box(path: Path, context: Context) -> pd.DataFrame:
    rows = SniffedFile(path).numbers
    if rows is not None and len(rows[0]) in (4, 5):
        raise InputError(f"{path} has boxes of a micrograph (x y width height), not of a tomogram (x y z)")
    values = read_numbers(path, [3], "a list of boxes x y z")
    tomogram = context.name_of(path)
    columns = as_columns(["x", "y", "z"], context.to_angstrom(values, [tomogram] * len(values)))
    return make(tomogram=tomogram, **columns)


def _encode_box(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    one_of(table, "tomogram", "tomogram", path)
    one_of(table, "class_name", "class", path)
    return {path: "".join(f"{x:.6f}\t{y:.6f}\t{z:.6f}\n" for x, y, z in context.to_pixels(table)).encode()}


DEEPETPICKER = Format(
    name="deepetpicker",
    title="DeepETPicker coordinates (class x y z)",
    suffixes=(".coords",),
    holds=POSITION | {"tomogram", "label"},
    detect=_detect_class,
    read=_read_class,
    encode=_encode_class,
    one_tomogram=True,
)
SCORED = Format(
    name="coords-score",
    title="coordinates with a score (x y z score)",
    suffixes=(".coords",),
    holds=POSITION | {"tomogram", "score"},
    detect=_detect_value,
    read=_read_value,
    encode=_encode_value,
    one_tomogram=True,
)
BOX = Format(
    name="box",
    title="EMAN2 boxes of a tomogram (x y z)",
    suffixes=(".box",),
    holds=POSITION | {"tomogram"},
    detect=_detect_box,
    read=_read_box,
    encode=_encode_box,
    default_for=(".box",),
    one_tomogram=True,
    one_class=True,
)
