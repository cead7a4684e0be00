"""Tables as text, as spreadsheets and other programs write them.

Values are separated by commas, tabs, semicolons (then with decimal commas, perhaps) or blanks. Lines that
begin with ``#`` may come first; the last of them may name the columns.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from catalogs.errors import InputError
from catalogs.particle_formats.star import read_text

_SEPARATORS = ("\t", ";", ",")
_BLANKS = " "
_MOST_COLUMNS = 2000
_DECIMAL_COMMA = re.compile(r"[-+]?\d+(,\d+([eE][-+]?\d+)?)?")
_PLACE = r"(?:coord(?:inate)?s?|pos(?:ition)?|cent(?:er|re)|loc(?:ation)?)"
_AXIS = re.compile(
    rf"(?:{_PLACE}[ _.-]*)?(?P<axis>[xyz])(?:[ _.-]*{_PLACE})?(?:[ _.-]*[(\[]?(?P<unit>[^\W\d_]+)[)\]]?)?",
    re.IGNORECASE,
)
_UNITS = {
    "angstrom": ("ang", "angs", "angst", "angstrom", "angstroms", "angström", "ångström", "ångstrom"),
    "nanometres": ("nm", "nanometer", "nanometers", "nanometre", "nanometres"),
    "voxels": ("px", "pix", "pixel", "pixels", "vx", "vox", "voxel", "voxels"),
}


@dataclass(frozen=True)
class Positions:
    """The columns of a table that hold positions.

    Attributes
    ----------
    columns
        Names of the columns of x, y and z.
    unit
        ``angstrom``, ``nanometres`` or ``voxels`` as these names say; empty if they do not.
    """

    columns: tuple[str, str, str]
    unit: str


def header(text: str) -> list[str]:
    """Return the names of the columns; empty if it is no table."""
    lines = _table(text)
    try:
        return [name.strip() for name in next(_rows(lines), [])] if lines and _separator(lines[0]) else []
    except csv.Error:  # for example a lone carriage return
        return []


def read(path: Path) -> pd.DataFrame:
    """Read a table with every value as text.

    Raises
    ------
    InputError
        If it is not a table, or a line has more values than there are columns.
    """
    rows = _rows(_table(read_text(path)))
    try:
        names = [name.strip() for name in next(rows, [])]
        if len(names) > _MOST_COLUMNS or not any(names):
            raise InputError(f"{path} is not a CSV file: its first line must name the columns")
        content = []
        for row in rows:
            if any(row[len(names) :]):
                raise InputError(
                    f"{path} is not a CSV file that can be read: the line {_shown(row)} has {len(row)} "
                    f"values, and there are {len(names)} columns"
                )
            content.append([*row[: len(names)], *[""] * (len(names) - len(row))])
    except csv.Error as error:
        raise InputError(
            f"{path} is not a CSV file ({error}); its first line must name the columns"
        ) from error
    for name in names:
        if _AXIS.fullmatch(name) and names.count(name) > 1:
            raise InputError(f"{path} has {names.count(name)} columns {name!r}; name them differently")
    return pd.DataFrame(content, columns=_told_apart(names), dtype=object)


def _told_apart(names: Sequence[str]) -> list[str]:
    """Tell columns of the same name apart as pandas does: ``NA``, ``NA.1``, ``NA.2``."""
    seen = dict[str, int]()
    out = []
    for name in names:
        count = seen[name] = seen.get(name, -1) + 1
        out.append(f"{name}.{count}" if count else name)
    return out


def positions(names: Sequence[str]) -> Positions | None:
    """Find the columns of positions; those whose names state a unit before others, and Å first."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        match = _AXIS.fullmatch(name.strip())
        unit = "" if match is None or match["unit"] is None else _unit(match["unit"])
        if match is not None and unit is not None:
            found.setdefault(unit, {}).setdefault(match["axis"].lower(), name)
    for unit in (*_UNITS, ""):
        axes = found.get(unit, {})
        if len(axes) == 3:
            return Positions((axes["x"], axes["y"], axes["z"]), unit)
    return None


def _unit(word: str) -> str | None:
    word = unicodedata.normalize("NFC", word)
    if word in ("A", "Å", "å"):
        return "angstrom"
    return next((unit for unit, words in _UNITS.items() if word.lower() in words), None)


def _table(text: str) -> list[str]:
    """Return the lines of the table, the names of its columns first."""
    lines = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip()]
    n_comments = next((k for k, line in enumerate(lines) if not line.lstrip().startswith("#")), len(lines))
    rest = lines[n_comments:]
    if n_comments and rest:
        names = lines[n_comments - 1].lstrip(" #")
        separator = _separator(names)
        if separator and _separator(rest[0]) == separator and _all_numbers(rest[0], names, separator):
            return [names, *rest]
    return rest


def _all_numbers(line: str, names: str, separator: str) -> bool:
    """Whether a line has as many values as there are names, and begins with a number."""
    first, above = _split(line, separator), _split(names, separator)
    return len(first) == len(above) and re.fullmatch(r"[-+.\deE]+", first[0].strip()) is not None


def _split(line: str, separator: str) -> list[str]:
    return line.split() if separator == _BLANKS else next(csv.reader([line], delimiter=separator), [])


def _separator(line: str) -> str:
    """Return what separates the names of columns in a line; empty if there is one name."""
    counts = {separator: line.count(separator) for separator in _SEPARATORS}
    best = max(_SEPARATORS, key=counts.__getitem__)
    return best if counts[best] else _BLANKS if len(line.split()) > 1 else ""


def _rows(lines: Sequence[str]) -> Iterator[list[str]]:
    separator = _separator(lines[0]) if lines else ""
    if separator == _BLANKS:
        yield from (line.split() for line in lines)
        return
    rows = csv.reader((f"{line}\n" for line in lines), delimiter=separator or ",")
    if separator != ";":
        yield from rows
        return
    for row in rows:
        yield [word.replace(",", ".") if _DECIMAL_COMMA.fullmatch(word.strip()) else word for word in row]


def _shown(row: Sequence[str]) -> str:
    return repr(",".join(row)[:40])
