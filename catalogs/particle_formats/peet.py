"""PEET's motive lists: ``NAME_MOTL.csv`` of angles and offsets, beside ``NAME.mod``, the IMOD model.

A row belongs to the point ``pIndex`` of the model, counted from 1, and its offset in voxels is added. The
angles phi, psi, theta are those of TOM.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catalogs.errors import InputError
from catalogs.particle_formats import imod, names, star
from catalogs.particle_formats.base import ORIENTATION, POSITION, Context, Format, as_columns, one_of
from catalogs.particle_formats.eulers import eulers, from_eulers, quaternions
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.particle_formats.table import read_text
from catalogs.particle_table import make

_HEADER = (
    "CCC,reserved,reserved,pIndex,wedgeWT,NA,NA,NA,NA,NA,xOffset,yOffset,zOffset,NA,NA,reserved,phi,psi,theta,"
    "reserved"
)
# Columns, from 0.
_CCC, _POINT, _OFFSET, _ANGLES, _CLASS = 0, 3, [10, 11, 12], [16, 18, 17], 19


def _detect(sniffed: SniffedFile) -> str | None:
    header = [name.strip() for name in sniffed.header]
    if len(header) != 20 or header[0] != "CCC" or "pIndex" not in header:
        return None
    return "its columns begin with CCC and have pIndex: a motive list of PEET, of the points of a model"


def _name(path: Path) -> str:
    return path.stem.partition("_MOTL")[0]


def _model(path: Path) -> Path:
    """Find the model of a list: by its name, or the only one beside it."""
    beside = path.with_name(f"{_name(path)}.mod")
    if beside.is_file():
        return beside
    models = sorted(path.parent.glob("*.mod"))
    if len(models) == 1:
        return models[0]
    raise InputError(
        f"{path} holds no positions: they are the points of an IMOD model; lay it beside as {beside.name}"
    )


def _learn(path: Path, context: Context) -> Context:
    named = replace(context, tomogram=context.tomogram or _name(path))
    return replace(imod.MOD.learn(_model(path), named), tomogram=context.tomogram)


def _read(path: Path, context: Context) -> pd.DataFrame:
    text = read_text(path)
    if text.shape[1] != 20:
        raise InputError(f"{path} is not a motive list of PEET: it has {text.shape[1]} columns, not 20")
    columns = [star.floats(text.iloc[:, number]) for number in range(20)]
    model = _model(path)
    points = imod.read_model(model).index() - np.array(imod.FIRST)
    numbers = np.array(names.whole(columns[_POINT], "pIndex"), np.int64).reshape(-1)
    if len(numbers) and not (numbers.min() >= 1 and numbers.max() <= len(points)):
        raise InputError(f"{path} is of points up to {numbers.max()}, and {model} has {len(points)}")
    offsets = np.stack([columns[number] for number in _OFFSET], axis=1)
    angles = np.stack([columns[number] for number in _ANGLES], axis=1)
    tomogram = context.tomogram or _name(path)
    index = points[numbers - 1] + offsets
    made: dict[str, Any] = as_columns(["x", "y", "z"], context.to_angstrom(index, [tomogram] * len(index)))
    made |= quaternions(from_eulers(angles, "tom"))
    made |= names.classes_of_labels(names.whole(columns[_CLASS], "the class (column 20)"), context)
    return make(tomogram=tomogram, score=columns[_CCC], **made)


def _encode(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    one_of(table, "tomogram", "tomogram", path)
    rows = np.zeros((len(table), 20))
    rows[:, _CCC] = table["score"].fillna(0.0)
    rows[:, _POINT] = np.arange(1, len(table) + 1)
    rows[:, _ANGLES] = eulers(table, "tom")
    rows[:, _CLASS] = table["label"]
    frame = pd.DataFrame(rows + 0.0)
    body = frame.to_csv(header=False, index=False, float_format="%.9g", lineterminator="\n")
    # PEET numbers the points of all objects together; one object keeps the order of the list
    together = table.assign(class_name="particle", label=1)
    model = imod.MOD.encode(together, path.with_name(f"{_name(path)}.mod"), context)
    return {path: f"{_HEADER}\n{body}".encode()} | model


PEET = Format(
    name="peet",
    title="PEET motive list (_MOTL.csv with its .mod)",
    suffixes=(".csv",),
    holds=POSITION | ORIENTATION | {"tomogram", "label"},
    detect=_detect,
    read=_read,
    encode=_encode,
    learn=_learn,
    one_tomogram=True,
)
