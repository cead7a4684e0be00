"""STAR files: reading the blocks, and writing text that every reader takes the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import starfile
from numpy.typing import NDArray

from catalogs.errors import InputError

_MOST_COLUMNS = 2000  # labels of all blocks; RELION has some dozens
_LONGEST_LINE = 1 << 20
# Words that readers take for a missing number, whatever column they stand in.
_MISSING = ("nan", "NaN", "<NA>")


def read_blocks(path: Path, text: Sequence[str] = ()) -> dict[str, Any]:
    """Read the blocks of a STAR file: frames of loops, dictionaries of single values.

    Parameters
    ----------
    path
        Of the file.
    text
        Columns whose values are names even where they look like numbers.

    Raises
    ------
    InputError
        If it is not a STAR file.
    """
    _refuse_width(path)
    try:
        blocks: dict[str, Any] = starfile.read(path, always_dict=True, parse_as_string=list(text))
    except Exception as error:  # starfile lets anything through that its parts raise
        raise InputError(f"{path} is not a STAR file that can be read ({error})") from error
    return blocks


def _refuse_width(path: Path) -> None:
    """Refuse what no program of the field writes before a parser spends minutes on it."""
    columns = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                columns += line.startswith("_")
                if columns > _MOST_COLUMNS or len(line) > _LONGEST_LINE:
                    raise InputError(
                        f"{path} is no STAR file that can be read: it has more than {_MOST_COLUMNS} columns "
                        f"or a line of more than {_LONGEST_LINE} characters"
                    )
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error


def read_loop(
    path: Path, columns: Sequence[str], text: Sequence[str] = ()
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the loop of a STAR file that has all of some columns, and with it all blocks.

    Raises
    ------
    InputError
        If there is none.
    """
    blocks = read_blocks(path, text)
    for block in blocks.values():
        frame = pd.DataFrame([block]) if isinstance(block, dict) else block
        if set(columns) <= set(frame.columns):
            return frame.reset_index(drop=True), blocks
    raise InputError(f"{path} holds no such particles: a block with {', '.join(columns)} is needed")


def numbers(path: Path, frame: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    """(n, k) values of some columns.

    Raises
    ------
    InputError
        If one is not a number.
    """
    try:
        return frame[list(names)].to_numpy(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path} has a value of {names[0]} or its like that is not a number ({error})"
        ) from error


def sizes(path: Path, frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """(n,) values of a column of sizes.

    Raises
    ------
    InputError
        If one is not a number above 0.
    """
    values = numbers(path, frame, [name])[:, 0]
    if len(wrong := values[~((values > 0) & (values < np.inf))]):
        raise InputError(f"{path} has a {name} of {wrong[0]:g}, which is no size; correct it")
    return values


def to_text(blocks: Mapping[str, pd.DataFrame], comment: str) -> str:
    """Write blocks as the text of a STAR file, the same for the same blocks.

    Raises
    ------
    InputError
        If a name has characters that a STAR file cannot hold.
    """
    for block in blocks.values():
        _refuse_what_star_cannot_hold(block)
    text = starfile.to_string(dict(blocks), float_format="%.12g", na_rep="nan")
    # starfile's first line holds the time of day: the same particles would never give the same file.
    return comment + "".join(text.splitlines(keepends=True)[1:])


def _refuse_what_star_cannot_hold(block: pd.DataFrame) -> None:
    for column in block.columns:
        if (
            not isinstance(column, str)
            or not column.isprintable()
            or set(column) & set(" #\"'")
            or not column
        ):
            raise InputError(f"a STAR file cannot hold the column name {column!r}; rename it or write .csv")
        if block[column].dtype != object:
            continue
        for value in block[column]:
            refuse_name(str(value))


def refuse_name(text: str) -> None:
    """Refuse a name that a STAR file cannot hold (InputError)."""
    if not text.isprintable() or set(text) & set("#\"'") or text in _MISSING:
        raise InputError(f"a STAR file cannot hold the name {text!r}; rename it or write .csv")
