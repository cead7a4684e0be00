"""The list of this program: CSV with all columns, coordinates in Å, and numbers stored exactly.

Tables of other programs with columns of x, y and z are read, too. No standard says what these count in, so
the names of the columns (``x_angst``, ``y (px)``, ``Position Z [nm]``), the tomogram's size or the user must.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.particle_formats import delimited, names, star
from catalogs.particle_formats.base import (
    EVERYTHING,
    NOTES,
    SEVERAL,
    Context,
    Format,
    all_shares,
    as_columns,
    stem,
)
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.particle_table import COLUMNS, OPTIONAL, make

# Columns that no other program calls so: whoever writes them follows this program's docs.
_OURS = frozenset(["tomogram", "class_name", "x", "y", "z"])
# How other programs call columns, without blanks and underscores; the likeliest first.
_TOMOGRAMS = (
    "tomogram", "tomogramname", "rlntomoname", "tomoname", "tomo", "tomogramid", "tomoid", "tiltseries",
    "tiltseriesname", "tsname", "ts", "runname", "run", "experiment", "rlnmicrographname", "micrographname",
    "micrograph",
)  # fmt: skip
_CLASSES = (
    "classname", "class", "particletype", "particleclass", "pickableobjectname", "objectname", "label",
    "labelname", "species",
)  # fmt: skip
_WHOLE = re.compile(r"\d{1,9}(\.0*)?")
_WORDS = {"angstrom": "Å", "nanometres": "nm", "voxels": "voxels counted from 0"}
_BY_NAME = "or call the columns x_angst, y_angst, z_angst, or x_px, y_px, z_px"


def format_csv(table: pd.DataFrame, separator: str = ",") -> str:
    """Write a particle table as the text of a CSV file.

    Raises
    ------
    InputError
        If a name holds a line break or another control character.
    """
    refuse_control_characters(table)
    return table.to_csv(index=False, na_rep="nan", lineterminator="\n", sep=separator)


def refuse_control_characters(table: pd.DataFrame) -> None:
    """Refuse names with line breaks and control characters."""
    for name in table.select_dtypes(object):
        for value in table[name]:
            if not str(value).isprintable():
                raise InputError(f"a particle list cannot hold the name {value!r}; rename it")


def read(path: Path) -> pd.DataFrame:
    """Read a particle table from a CSV file.

    Only ``x``, ``y`` and ``z`` (Å) must be there. Columns that this program does not know are kept: as
    numbers where all their values are numbers, else as text.

    Raises
    ------
    InputError
        If it is not a CSV file or has no coordinates.
    """
    try:
        return make(**typed(read_text(path)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_text(path: Path) -> pd.DataFrame:
    """Read a CSV file with every value as text.

    Raises
    ------
    InputError
        If it is not a CSV file.
    """
    return delimited.read(path)


def typed(text: pd.DataFrame) -> dict[str, Any]:
    """Turn columns of text into what :func:`catalogs.particles.make` takes."""
    columns: dict[str, Any] = {}
    for name, values in text.items():
        known = {**COLUMNS, **OPTIONAL}.get(str(name))
        if known is float:
            values = values.replace("", "nan")  # as other programs leave it
        columns[str(name)] = (
            values if known is not None or star.holds_names(str(name)) else star.as_numbers(values)
        )
    return columns


def _detect(sniffed: SniffedFile) -> str | None:
    names = sniffed.header
    found = delimited.positions(names)
    if found is None or {"experiment", "particle_type"} <= set(names):
        return None
    columns = f"its columns are {', '.join(found.columns)}"
    if set(names) >= _OURS:
        return f"{columns}: Å from the first voxel"
    return f"{columns}: {_WORDS.get(found.unit, 'Å or voxels')}"


def _read(path: Path, context: Context) -> pd.DataFrame:
    text = read_text(path)
    found = delimited.positions([str(name) for name in text])
    if own := set(text) >= _OURS:
        found = delimited.Positions(("x", "y", "z"), "")
    if found is None:
        raise InputError(f"{path} has no columns of x, y and z; its first line must name them")
    # other columns of positions, such as x_px beside x_angst, are kept under their names
    others = [axis for axis in "xyz" if axis not in found.columns and axis in text]
    text = text.rename(columns=dict(zip(found.columns, "xyz", strict=True)) | {a: f"{a}_1" for a in others})
    for name in "xyz":
        text[name] = text[name].str.strip()
    try:
        table = make(**typed(_with_our_names(text)) | _classes(text, context))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if context.tomogram is not None and not table["tomogram"].any():
        table["tomogram"] = context.tomogram
    index = table[["x", "y", "z"]].to_numpy(np.float64)
    note, in_pixels = "", context.in_pixels and not found.unit
    if context.unit is not None or context.list_pixel is not None or (in_pixels and not own):
        xyz = context.to_angstrom(index, list(table["tomogram"]))
    elif found.unit == "voxels":
        xyz = replace(context, unit="voxels").to_angstrom(index, list(table["tomogram"]))
    elif found.unit:
        xyz = index * (10.0 if found.unit == "nanometres" else 1.0)
    else:
        _refuse_shares(path, index)
        xyz, note = (index, "") if own else _by_size(path, index, list(table["tomogram"]), context)
    table = table.assign(**as_columns(["x", "y", "z"], xyz))
    if note:
        table.attrs[NOTES] = [note]
    return table


def _with_our_names(text: pd.DataFrame) -> pd.DataFrame:
    """Find the tomograms of particles under the names that other programs give to that column."""
    called = _column(text, "tomogram", _TOMOGRAMS)
    if called is None:
        return text
    return text.rename(columns={called: "tomogram"}).assign(
        tomogram=[stem(str(name).strip()) for name in text[called]]
    )


def _classes(text: pd.DataFrame, context: Context) -> dict[str, Any]:
    """Make class and label from a column of classes under another name: of words, or of whole numbers."""
    called = _column(text, "class_name", _CLASSES)
    if called is None or "label" in text:
        return {}
    words = [str(word).strip() for word in text[called]]
    if all(_WHOLE.fullmatch(word) for word in words):
        return names.classes_of_labels([int(float(word)) for word in words], context)
    return names.classes_of_names(words, context)


def _column(text: pd.DataFrame, ours: str, others: Collection[str]) -> str | None:
    """Find a column under the names of others, unless it has ours."""
    if ours in text:
        return None
    plain = {re.sub(r"[ _.-]", "", str(name).lower()): str(name) for name in reversed(text.columns)}
    return next((plain[name] for name in others if name in plain), None)


def _refuse_shares(path: Path, index: NDArray[np.float64]) -> None:
    if len(index) >= SEVERAL and all_shares(index):
        raise InputError(
            f"the coordinates of {path} all lie between 0 and 1: they may be shares of the tomogram's edges, "
            "or Å; say which (`unit=shares` with `voxel_size` and `shape`, or `unit=angstrom`)"
        )


def _by_size(
    path: Path, index: NDArray[np.float64], tomograms: list[str], context: Context
) -> tuple[NDArray[np.float64], str]:
    """Find what the positions of another program count in from the sizes of the tomograms.

    Returns the positions in Å, and a sentence that says how it is known.
    """
    if not len(index):
        return index, ""
    as_angstrom = as_voxels = True
    for name in dict.fromkeys(tomograms):
        rows = index[[other == name for other in tomograms]]
        try:
            voxel, size = context.voxel(name), context.size(name)
        except InputError:
            break
        as_angstrom &= bool((rows >= -voxel).all() and (rows <= size * voxel).all())
        as_voxels &= bool((rows >= -1).all() and (rows <= size).all())
    else:
        where = "the tomogram" if len(set(tomograms)) == 1 else "the tomograms"
        if not (as_angstrom or as_voxels):
            raise InputError(
                f"the columns x, y, z of {path} reach out of {where} both as Å and as voxels: are they of "
                f"others, or counted from the centre? Say `unit=angstrom` or `unit=voxels`, {_BY_NAME}"
            )
        if not as_voxels:
            return index, f"x, y, z are taken as Å: as voxels they would reach out of {where}"
        if not as_angstrom:
            xyz = replace(context, unit="voxels").to_angstrom(index, tomograms)
            return xyz, f"x, y, z are taken as voxels: as Å they would reach out of {where}"
    raise InputError(
        f"the columns x, y, z of {path} may be Å, or voxels counted from 0; say which (`unit=angstrom`, or "
        f"`unit=voxels` with `voxel_size`), {_BY_NAME}"
    )


def _encode(table: pd.DataFrame, path: Path, _context: Context) -> dict[Path, bytes]:
    return {path: format_csv(table, "\t" if path.suffix.lower() == ".tsv" else ",").encode()}


CSV = Format(
    name="csv",
    title="CSV of this program, and tables of others",
    suffixes=(".csv", ".tsv"),
    holds=frozenset([EVERYTHING]),
    detect=_detect,
    read=_read,
    encode=_encode,
    default_for=(".csv", ".tsv"),
)
