"""Particle tables as CSV: every column as it is, coordinates in Å; numbers come back to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from catalogs.errors import InputError
from catalogs.particles import COLUMNS, make


def format_csv(table: pd.DataFrame) -> str:
    """Write a particle table as the text of a CSV file.

    Raises
    ------
    InputError
        If a name holds a line break or another control character.
    """
    for name in table.select_dtypes(object):
        for value in table[name]:
            if not str(value).isprintable():
                raise InputError(f"a particle list cannot hold the name {value!r}; rename it")
    return table.to_csv(index=False, na_rep="nan", lineterminator="\n")


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
        text = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        raise InputError(
            f"{path} is not a CSV file ({error}); its first line must name the columns"
        ) from error
    columns: dict[str, Any] = {}
    for name, values in text.items():
        columns[str(name)] = values if name in COLUMNS else _numbers_if_all(values)
    if "score" in columns:
        columns["score"] = columns["score"].replace("", "nan")  # as other programs leave it
    try:
        return make(**columns)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _numbers_if_all(values: pd.Series[Any]) -> pd.Series[Any]:
    """Turn a column of text into numbers if that is what all of it is."""
    try:
        return pd.to_numeric(values)
    except ValueError:
        return values
