"""Dynamo's tables: columns of numbers, one line per particle.

Positions are pixels counted from 1, as MATLAB does; programs that write tables from volumes often count from
0 (``first_voxel``). Shifts are added. Orientations are ``tdrot``, ``tilt``, ``narot``, the rotation tomogram
-> particle: ArtiaX reads and writes them as its inverse. Column 36 is the pixel size, if it is not 0.

A tomogram is a number; a ``.doc`` of the same name beside the table says which, and is written with it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.particle_formats import names
from catalogs.particle_formats.base import ORIENTATION, POSITION, Context, Format, as_columns
from catalogs.particle_formats.eulers import eulers, from_eulers, quaternions
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.particle_table import make

_COLUMNS = 42
# Numbers of columns, from 1, that have a column in the particle table or are made again.
_TAG, _ALIGNED, _AVERAGED, _SHIFT, _ANGLES, _CC = 1, 2, 3, (4, 5, 6), (7, 8, 9), 10
_TOMOGRAM, _CLASS, _XYZ, _PIXEL = 20, 22, (24, 25, 26), 36
_OURS = {_TAG, _ALIGNED, _AVERAGED, *_SHIFT, *_ANGLES, _CC, _TOMOGRAM, _CLASS, *_XYZ, _PIXEL}


def _detect(sniffed: SniffedFile) -> str | None:
    if sniffed.suffix != ".tbl" or not sniffed.rows or len(sniffed.rows[0]) < max(_XYZ):
        return None
    return f"{len(sniffed.rows[0])} columns of numbers: a Dynamo table, pixels counted from 1"


def _table(path: Path) -> pd.DataFrame:
    """Read a table as text, because Dynamo writes complex numbers into some unused columns."""
    try:
        text = pd.read_csv(path, header=None, sep=r"\s+", dtype=str, comment="#", keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a Dynamo table ({' '.join(str(error).split())})") from error
    if text.shape[1] < max(_XYZ):
        raise InputError(
            f"{path} is not a Dynamo table: it has {text.shape[1]} columns, 26 or more are needed"
        )
    return text


def _numbers(path: Path, text: pd.DataFrame, number: int) -> NDArray[np.float64]:
    try:
        return text[number - 1].to_numpy(np.float64)
    except ValueError as error:
        raise InputError(f"column {number} of {path} must hold numbers ({error})") from error


def _learn(path: Path, context: Context) -> Context:
    listed, text = path.with_suffix(".doc"), _table(path)
    if not context.tomograms and listed.is_file():
        context = replace(context, tomograms=names.read_tomogram_list(str(listed)))
    if text.shape[1] >= _PIXEL:
        tomograms = _tomograms(path, text, context)
        sizes: dict[str, float] = {}
        for name, size in zip(tomograms, _numbers(path, text, _PIXEL), strict=True):
            if size != 0 and abs(sizes.setdefault(name, float(size)) - size) > 0.01 * abs(size):
                raise InputError(
                    f"column {_PIXEL} of {path} says that a pixel of the tomogram {name!r} is "
                    f"{sizes[name]:g} and {size:g} Å; one must be right"
                )
        context = context.stating(path, sizes, f"column {_PIXEL} says")
    return context


def _tomograms(path: Path, text: pd.DataFrame, context: Context) -> list[str]:
    numbered = names.whole(_numbers(path, text, _TOMOGRAM), f"the tomogram (column {_TOMOGRAM})")
    return names.name_tomograms(numbered, context)


def _read(path: Path, context: Context) -> pd.DataFrame:
    text = _table(path)
    column = partial(_numbers, path, text)
    tomograms = _tomograms(path, text, context)
    index = np.stack([column(at) + column(shift) for at, shift in zip(_XYZ, _SHIFT, strict=True)], axis=1)
    angles = np.stack([column(number) for number in _ANGLES], axis=1)
    columns: dict[str, Any] = {"tomogram": tomograms, "score": column(_CC)}
    columns |= as_columns(["x", "y", "z"], context.to_angstrom(index, tomograms, context.first_voxel))
    columns |= quaternions(from_eulers(angles, "dynamo"))
    columns |= names.classes_of_labels(names.whole(column(_CLASS), f"the class (column {_CLASS})"), context)
    for number in range(1, text.shape[1] + 1):
        # other columns of Dynamo are kept if they have any value
        if number not in _OURS and (text[number - 1].str.strip() != "0").any():
            values = text[number - 1]
            converted = pd.to_numeric(values, errors="coerce")
            columns[f"dynamo{number}"] = values if converted.isna().any() else converted
    return make(**columns)


def _encode(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    numbered = names.number_tomograms(table["tomogram"], context)
    n = len(table)
    columns: dict[int, Any] = {number: np.zeros(n, np.int64) for number in range(1, _COLUMNS + 1)}
    columns[_TAG] = np.arange(1, n + 1)
    columns[_ALIGNED] = np.ones(n, np.int64)
    columns |= dict(zip(_ANGLES, eulers(table, "dynamo").T, strict=True))
    columns[_CC] = table["score"]
    columns[_TOMOGRAM] = [numbered[name] for name in table["tomogram"]]
    columns[_CLASS] = table["label"]
    columns |= dict(zip(_XYZ, context.to_pixels(table, context.first_voxel).T, strict=True))
    columns[_PIXEL] = [context.pixel(name) for name in table["tomogram"]]
    for number in range(1, _COLUMNS + 1):
        if number not in _OURS and f"dynamo{number}" in table:
            columns[number] = table[f"dynamo{number}"]
    frame = pd.DataFrame({number: np.asarray(values) for number, values in columns.items()})
    text = frame.to_csv(
        sep=" ", header=False, index=False, float_format="%.9g", na_rep="NaN", lineterminator="\n"
    )
    files = {path: text.encode()}
    if numbered and any(str(number) != name for name, number in numbered.items()):
        listed = "".join(
            f"{number} {name}\n" for name, number in sorted(numbered.items(), key=lambda item: item[1])
        )
        files[path.with_suffix(".doc")] = listed.encode()
    return files


DYNAMO = Format(
    name="dynamo",
    title="Dynamo table",
    suffixes=(".tbl",),
    holds=POSITION | ORIENTATION | {"tomogram", "label", "score"},
    detect=_detect,
    read=_read,
    learn=_learn,
    encode=_encode,
    default_for=(".tbl",),
)
