"""The list of this program: CSV with all columns, coordinates in Å, and numbers stored exactly.

Other CSV lists with the columns ``x``, ``y`` and ``z`` can be read too, with the unit given.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd

from catalogs.errors import InputError
from catalogs.particle_formats import star
from catalogs.particle_formats.base import EVERYTHING, SEVERAL, Context, Format, all_shares, positions
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.particle_table import COLUMNS, OPTIONAL, make


def format_csv(table: pd.DataFrame) -> str:
    """Write a particle table as the text of a CSV file.

    Raises
    ------
    InputError
        If a name holds a line break or another control character.
    """
    refuse_control_characters(table)
    return table.to_csv(index=False, na_rep="nan", lineterminator="\n")


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
    try:
        text = star.read_text(path)
        frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        return frame.rename(columns=str.strip)
    except InputError:  # a ValueError, too
        raise
    except ValueError as error:  # pandas' parser errors are ValueErrors
        raise InputError(
            f"{path} is not a CSV file ({error}); its first line must name the columns"
        ) from error


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
    if not {"x", "y", "z"} <= set(sniffed.header) or {"experiment", "particle_type"} <= set(sniffed.header):
        return None
    return "its columns are x, y, z: Å from the first voxel"


def _read(path: Path, context: Context) -> pd.DataFrame:
    table = read(path)
    if context.tomogram is not None and not table["tomogram"].any():
        table["tomogram"] = context.tomogram
    unsaid = context.unit is None and context.list_pixel is None
    if unsaid and len(table) >= SEVERAL and all_shares(positions(table)):
        raise InputError(
            f"the coordinates of {path} all lie between 0 and 1: they may be shares of the tomogram's edges, "
            "or Å; say which (`unit=shares` with `voxel_size` and `shape`, or `unit=angstrom`)"
        )
    if context.unit in ("voxels", "shares") or context.list_pixel is not None:
        table[["x", "y", "z"]] = context.to_angstrom(
            table[["x", "y", "z"]].to_numpy(), list(table["tomogram"])
        )
    return table


def _encode(table: pd.DataFrame, path: Path, _context: Context) -> dict[Path, bytes]:
    return {path: format_csv(table).encode()}


CSV = Format(
    name="csv",
    title="this program's own CSV",
    suffixes=(".csv",),
    holds=frozenset([EVERYTHING]),
    detect=_detect,
    read=_read,
    encode=_encode,
    default_for=(".csv",),
)
