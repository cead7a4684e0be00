"""Inspects a file to recognise its format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.particle_formats import delimited
from catalogs.particle_formats.star import UTF16, read_text

# Enough lines of a text to see how its columns are used.
_ROWS = 2000


class SniffedFile:
    """A file or folder, with the views that formats need to recognise it; each is computed once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.suffix = path.suffix.lower()
        self.is_folder = path.is_dir()

    @cached_property
    def head(self) -> bytes:
        """The first 1024 bytes."""
        if self.is_folder:
            return b""
        with self.path.open("rb") as file:
            return file.read(1024)

    @cached_property
    def text(self) -> str:
        """The whole text; empty if the file is not text."""
        if self.is_folder or (b"\x00" in self.head and not self.head.startswith(UTF16)):
            return ""
        try:
            return read_text(self.path)
        except InputError:
            return ""

    @cached_property
    def star(self) -> dict[str, list[str]]:
        """Block of a STAR file -> its labels; empty if it is not one."""
        blocks: dict[str, list[str]] = {}
        labels: list[str] = []
        for line in self.text.splitlines():
            word = line.strip().partition(" ")[0].partition("\t")[0]
            if line[:5].lower() == "data_":
                labels = blocks.setdefault(word[len("data_") :], [])
            elif line.lstrip().startswith("_") and blocks:
                labels.append(word[1:])
        return blocks

    def star_with(self, *labels: str) -> str | None:
        """Name of the block of a STAR file that has all of these labels."""
        return next((name for name, known in self.star.items() if set(labels) <= set(known)), None)

    @cached_property
    def header(self) -> list[str]:
        """Names of the columns of a CSV file or another table."""
        return delimited.header(self.text)

    @cached_property
    def rows(self) -> list[list[str]]:
        """Words of the first lines that are not comments."""
        return [words for _, words in _lines(self.text.splitlines()[:_ROWS])]

    @cached_property
    def numbers(self) -> list[list[float]] | None:
        """Its first lines as numbers, all of the same count; None if they are not."""
        try:
            values = [[float(word) for word in row] for row in self.rows]
        except ValueError:
            return None
        return values if values and len({len(row) for row in values}) == 1 else None

    @cached_property
    def json(self) -> Any:
        """Content of a JSON file; None if it is not one."""
        if not self.text.lstrip().startswith(("{", "[")):
            return None
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return None


def read_numbers(path: Path, counts: Sequence[int], what: str) -> NDArray[np.float64]:
    """Read all lines of a text as numbers.

    Parameters
    ----------
    path
        Path of the text; empty lines and those that begin with ``#`` or ``;`` are skipped.
    counts
        How many numbers a line may have; all have the same.
    what
        What the text should be, for errors.

    Returns
    -------
    ndarray
        (n, k); (0, k) with the first of the counts if there are no lines.

    Raises
    ------
    InputError
        If a line is something else; it says which.
    """
    rows: list[list[float]] = []
    for number, words in _lines(read_text(path).splitlines()):
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            raise InputError(f"line {number} of {path} is not {what}: its words must be numbers") from None
        if len(words) not in counts or len(words) != len(rows[0]):
            raise InputError(f"line {number} of {path} is not {what}: it has {len(words)} numbers")
    return np.array(rows, np.float64) if rows else np.zeros((0, counts[0]))


def _lines(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield number and words of every line that is neither empty nor a comment."""
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith(("#", ";")):
            yield number, line.split()
