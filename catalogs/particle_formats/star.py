"""STAR files: reads blocks as other programs write them, and writes text that all readers accept.

Values are read as words. A column becomes numbers only if all of its values are written like numbers. Names
such as ``00255``, ``10.10`` and ``1e5`` stay words: in columns of names, recognised by the end of their
label, and everywhere if a program would not write a number in this way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import starfile
from numpy.typing import NDArray

from catalogs import user_warnings
from catalogs.errors import InputError

#: Byte order marks of UTF-16, as spreadsheets and PowerShell write it.
UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MOST_COLUMNS = 2000  # labels of all blocks; RELION has some dozens
_LONGEST_LINE = 1 << 20
# Words that readers take as a missing number in any column.
_MISSING = ("nan", "NaN", "<NA>")
#: Written for missing values: it cannot be a name, and starfile and pandas read it as missing.
NOTHING = "<NA>"
_QUOTED = frozenset("#'")  # names with these stand in double quotes
# What STAR takes for a part of its grammar.
_RESERVED = re.compile(r"_|;|\$|\[|\]|(data|loop|save|stop|global)_", re.IGNORECASE)
#: RELION's value for an unknown figure of merit.
NO_SCORE = -999.0
#: Attribute of a block: whether it has single values instead of a loop.
VALUES = "values"
# A word in quotes ends at a quote that a space follows: an apostrophe within a name is a letter.
_WORD = re.compile(r"""'(?P<single>.*?)'(?=\s|$)|"(?P<double>.*?)"(?=\s|$)|(?P<comment>\#.*)|(?P<bare>\S+)""")
# Never used in numbers: leading zeros, an exponent without sign and point, an underscore.
_LIKE_A_NAME = re.compile(r"^[+-]?0\d|^[^.]*[eE]\d|_|\s")
_WHOLE = re.compile(r"[+-]?\d{1,18}")
# Columns of names, by the ways to call them.
_NAMES = re.compile(r"(?:[Nn]ame|[Ff]ile|[Mm]ovie|[Ll]abel|[Ii]mage|Id|^id|_id|[Dd]irectory)$")
_UNKNOWN = frozenset(["", "nan", "NaN", "NAN", "-nan", "<NA>", "None", "none", "null"])


def read_text(path: Path) -> str:
    """Read a text of another program: UTF-8, UTF-16 with its byte order mark, else Latin-1.

    Raises
    ------
    InputError
        If the file cannot be read or is not text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    if content.startswith(UTF16):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not a text that can be read ({error})") from error
    if b"\x00" in content:
        raise InputError(f"{path} is not a text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_blocks(path: Path, text: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """Read the blocks of a STAR file; a block of single values is a table of one row.

    Parameters
    ----------
    path
        Path of the file.
    text
        Columns whose values are names even if they look like numbers.

    Raises
    ------
    InputError
        If it is not a STAR file.
    """
    _refuse_width(path)
    blocks = {name: _typed(frame, frozenset(text)) for name, frame in read_words(path).items()}
    if not blocks:
        raise InputError(f"{path} is not a STAR file that can be read (it has no block data_)")
    return blocks


def read_words(path: Path) -> dict[str, pd.DataFrame]:
    """Read the blocks of a STAR file with every value as a word.

    Raises
    ------
    InputError
        If a line does not fit; it says which.
    """
    blocks: dict[str, pd.DataFrame] = {}
    name, labels, rows, loop, started = "", list[str](), list[list[str]](), False, False

    def close() -> None:
        nonlocal labels, rows, loop
        if labels:
            key = name if name not in blocks else f"{name}_{len(blocks)}"
            blocks[key] = pd.DataFrame(rows, columns=labels, dtype=object)
            blocks[key].attrs[VALUES] = not loop
        labels, rows, loop = [], [], False

    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = list(_words(line))
        if not words:
            continue
        first = words[0]
        if line[:5].lower() == "data_":  # STAR's own words may have any case
            close()
            name, started = first[len("data_") :], True
        elif not started:
            raise InputError(f"line {number} of {path} comes before any block data_: it is not a STAR file")
        elif first.lower() == "loop_" and line.lstrip()[:5].lower() == "loop_":
            close()
            loop = True
        elif first.startswith("_") and line.lstrip().startswith("_") and not (loop and rows):
            label = first[1:]
            if label in labels:
                raise InputError(f"line {number} of {path} names the column {label} a second time")
            if not loop and len(words) != 2:
                raise InputError(f"line {number} of {path} must hold {label} and one value")
            labels.append(label)
            if not loop:
                rows = [[*(rows[0] if rows else []), words[1]]]
        elif len(words) != len(labels) or not loop:
            raise InputError(
                f"line {number} of {path} has {len(words)} values, and the block data_{name} has "
                f"{len(labels)} columns"
            )
        else:
            rows.append(words)
    close()
    return blocks


def _words(line: str) -> Iterator[str]:
    for word in _WORD.finditer(line):
        if word.group("comment") is not None:
            return
        yield next(text for text in word.group("single", "double", "bare") if text is not None)


def _typed(frame: pd.DataFrame, text: frozenset[str]) -> pd.DataFrame:
    columns = {
        name: values if name in text or holds_names(str(name)) else as_numbers(values)
        for name, values in frame.items()
    }
    typed = pd.DataFrame(columns, index=frame.index)
    for name in typed.select_dtypes(object):
        typed[name] = typed[name].replace(NOTHING, "")
    typed.attrs |= frame.attrs
    return typed


def _refuse_width(path: Path) -> None:
    """Refuse absurd files before a parser spends minutes on them."""
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


def holds_names(label: str) -> bool:
    """Return whether a column contains names according to its label."""
    return _NAMES.search(label) is not None


def as_numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    """Turn a column of words into numbers if all values are written like numbers.

    Words for an unknown number become nan. Values with leading zeros, or like 1e5, may be names and are never
    written by programs as numbers, so they stay words.
    """
    words = [str(word) for word in column]
    known = [word for word in words if word not in _UNKNOWN]
    if not words:
        return column.astype(np.float64)
    if not known and not all("nan" in word.lower() for word in words):
        return column
    if any(_LIKE_A_NAME.search(word) for word in known):
        return column
    try:
        values = np.array([np.nan if word in _UNKNOWN else word for word in words]).astype(np.float64)
    except ValueError:
        return column
    if len(known) == len(words) and all(_WHOLE.fullmatch(word) for word in words):
        return pd.Series([int(word) for word in words], index=column.index, dtype=np.int64)
    return pd.Series(values, index=column.index)


def floats(column: pd.Series[Any]) -> NDArray[np.float64]:
    """Numbers of a column in which words may stand for unknown ones, as nan.

    Raises
    ------
    InputError
        If one is neither.
    """
    try:
        values = [np.nan if str(value) in _UNKNOWN else float(value) for value in column]
    except ValueError as error:
        raise InputError(f"{column.name} must hold numbers ({error})") from None
    return np.array(values, np.float64)


def read_loop(
    path: Path, columns: Sequence[str], text: Sequence[str] = ()
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Read the block of a STAR file that has all of some columns, and with it all blocks.

    Raises
    ------
    InputError
        If there is none.
    """
    blocks = read_blocks(path, text)
    found = [name for name, frame in blocks.items() if set(columns) <= set(frame.columns)]
    if len(found) > 1:
        raise InputError(
            f"{path} holds {len(found)} blocks of particles (data_{found[0]} and data_{found[1]}); keep one "
            "of them in a file"
        )
    if found:
        return blocks[found[0]].reset_index(drop=True), blocks
    raise InputError(f"{path} holds no such particles: a block with {', '.join(columns)} is needed")


def numbers(path: Path, frame: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    """(n, k) values of some columns.

    Raises
    ------
    InputError
        If one is not a number; it says which.
    """
    try:
        return frame[list(names)].to_numpy(np.float64)
    except (TypeError, ValueError) as error:
        for name in names:
            for row, value in enumerate(frame[name], start=1):
                try:
                    float(value)
                except (TypeError, ValueError):
                    raise InputError(f"{path}: {name} of row {row} is {value!r}, not a number") from error
        raise InputError(f"{path} has a value of {names[0]} that is not a number ({error})") from error


def sizes(path: Path, frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """(n,) values of a column of sizes.

    Raises
    ------
    InputError
        If one is not a number above 0.
    """
    values = numbers(path, frame, [name])[:, 0]
    if len(wrong := values[~((values > 0) & (values < np.inf))]):
        raise InputError(f"{path} has a {name} of {wrong[0]:g}, which is not a valid size; correct it")
    return values


def to_text(blocks: Mapping[str, pd.DataFrame], comment: str) -> str:
    """Write blocks as the text of a STAR file, the same for the same blocks.

    Nothing is empty or nan, and no zero has a sign: not every reader takes them. What is not known is the
    word :data:`NOTHING`.

    Raises
    ------
    InputError
        If a name has characters that a STAR file cannot hold.
    """
    written: dict[str, Any] = {name: _writable(block) for name, block in blocks.items()}
    words = (
        word for block in blocks.values() for name in block.select_dtypes(object) for word in block[name]
    )
    if (quoted := next((word for word in words if set(str(word)) & _QUOTED), None)) is not None:
        user_warnings.warn(
            f"names with an apostrophe or #, such as {quoted}, are in double quotes in STAR files, as STAR "
            "requires; programs that use the Python package starfile read other names; rename them for such "
            "programs"
        )
    for name, block in blocks.items():
        if block.attrs.get(VALUES) and len(block) == 1:
            written[name] = written[name].iloc[0].to_dict()
    text = starfile.to_string(written, float_format="%.12g", na_rep=NOTHING)
    # without starfile's first line, which has the time: the same particles give the same file
    return comment + "".join(text.splitlines(keepends=True)[1:])


def _writable(block: pd.DataFrame) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for column in block.columns:
        if (
            not isinstance(column, str)
            or not column.isprintable()
            or set(column) & set(" #\"'")
            or not column
        ):
            raise InputError(f"a STAR file cannot hold the column name {column!r}; rename it or write .csv")
        values = block[column]
        if values.dtype.kind == "f":
            columns[column] = values + 0.0  # -0.0 + 0.0 is 0.0
        elif values.dtype == object:
            columns[column] = [_writable_word(value) for value in values]
        else:
            columns[column] = values
    return pd.DataFrame(columns, index=block.index)


def _writable_word(value: Any) -> Any:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return NOTHING
    text = str(value)
    refuse_name(text)
    if not set(text) & _QUOTED and not _RESERVED.match(text):
        return value if text.strip() else NOTHING
    return text if " " in text else f'"{text}"'  # starfile itself quotes what has a blank


def refuse_name(text: str) -> None:
    """Refuse a name that a STAR file cannot hold (InputError)."""
    # Apostrophes and # stand in double quotes; what holds those would need quotes that nobody reads.
    if not text.isprintable() or '"' in text or text in _MISSING:
        raise InputError(f"a STAR file cannot hold the name {text!r}; rename it or write .csv")
