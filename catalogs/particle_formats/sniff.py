"""Inspects a file to recognise its format."""

from __future__ import annotations

import csv
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from catalogs.errors import InputError
from catalogs.particle_formats.star import read_text

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
        if self.is_folder or b"\x00" in self.head:
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
            if line.startswith("data_"):
                labels = blocks.setdefault(word[len("data_") :], [])
            elif line.lstrip().startswith("_") and blocks:
                labels.append(word[1:])
        return blocks

    def star_with(self, *labels: str) -> str | None:
        """Name of the block of a STAR file that has all of these labels."""
        return next((name for name, known in self.star.items() if set(labels) <= set(known)), None)

    @cached_property
    def header(self) -> list[str]:
        """Names of the columns of a CSV file."""
        line = self.text.lstrip().partition("\n")[0]
        try:
            return [] if "," not in line else next(csv.reader([line]), [])
        except csv.Error:  # not a table, for example a lone carriage return
            return []

    @cached_property
    def rows(self) -> list[list[str]]:
        """Words of the first lines that are not comments."""
        lines = self.text.splitlines()[:_ROWS]
        return [line.split() for line in lines if line.strip() and not line.lstrip().startswith(("#", ";"))]

    @cached_property
    def numbers(self) -> list[list[float]] | None:
        """The lines as equally many numbers; None if they are not."""
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
