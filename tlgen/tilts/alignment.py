"""Read the alignment of a tilt series: IMOD's .xf and AreTomo's .aln."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from tlgen.tilts.acquired import number

SUFFIXES = (".xf", ".aln")


@dataclass(frozen=True, eq=False)
class Alignment:
    """The transformation of each of n images that makes y the tilt axis, through the middle.

    A pixel at p from the middle of an image, (x, y) in pixels, moves to ``matrix @ p + shift`` from the
    middle of the aligned image (IMOD's convention).

    Attributes
    ----------
    matrices
        (n, 2, 2).
    shifts
        (n, 2), pixels of the images.
    """

    matrices: NDArray[np.float64]
    shifts: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.matrices)

    @property
    def tilt_axis(self) -> float:
        """Degrees from the images' y, anticlockwise: the median over the images."""
        return float(np.median(np.degrees(np.arctan2(self.matrices[:, 0, 1], self.matrices[:, 0, 0]))))


def read_alignment(path: str | Path) -> Alignment:
    """Read an IMOD .xf (six numbers per line) or an AreTomo .aln.

    Raises
    ------
    InputError
        If there is no such file, or its content is not valid.
    """
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(f"{file} tells no alignment; give an IMOD .xf or an AreTomo .aln")
    content = read_text(file)
    if file.suffix.lower() == ".aln":
        rows = np.array([[row["ROT"], row["TX"], row["TY"]] for row in aln_rows(file, content)])
        angle = np.radians(rows[:, 0])
        matrices = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], axis=1)
        matrices = matrices.reshape(-1, 2, 2)
        # AreTomo's shifts are applied before the rotation, and are subtracted
        return Alignment(matrices, -np.einsum("nij,nj->ni", matrices, rows[:, 1:]))
    lines = [line.split() for line in content.splitlines() if line.strip()]
    for k, line in enumerate(lines, start=1):
        if len(line) != 6:
            raise InputError(f"{file}, line {k}: an .xf has six numbers a line (A11 A12 A21 A22 DX DY)")
    if not lines:
        raise InputError(f"{file} lists no images")
    values = np.array([[number(file, f"line {k}", w) for w in line] for k, line in enumerate(lines, start=1)])
    matrices = values[:, :4].reshape(-1, 2, 2)
    if np.abs(np.linalg.det(matrices)).min() < 1e-6:
        raise InputError(f"{file} has a transformation that flattens its image; align the series again")
    return Alignment(matrices, values[:, 4:])


def read_text(file: Path) -> str:
    """Read a text file whatever its encoding (InputError)."""
    try:
        content = file.read_bytes()
        marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        return content.decode("utf-16" if marked else "utf-8-sig", errors="replace")
    except FileNotFoundError:
        raise InputError(f"there is no file {file}") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror})") from error


def aln_rows(file: Path, content: str) -> list[dict[str, float]]:
    """Read the rows of the global alignment of an .aln by the names of its columns.

    Raises
    ------
    InputError
        If it has no such columns, no rows, or a row that does not fit.
    """
    names: list[str] = []
    rows: list[dict[str, float]] = []
    for line in content.splitlines():
        if line.lstrip().startswith("#"):
            words = line.lstrip("# ").split()
            if {"SEC", "ROT", "TILT"} <= set(words):
                names = words
            elif re.match(r"#\s*Local", line.lstrip(), re.IGNORECASE):
                break
            continue
        if not line.strip():
            continue
        words = line.split()
        if len(words) != len(names):
            raise InputError(f"{file}: {line.strip()[:40]!r} does not fit the columns of an AreTomo .aln")
        rows.append({name: number(file, name, word) for name, word in zip(names, words, strict=True)})
    if not rows:
        raise InputError(f"{file} is not an AreTomo .aln: it has no rows below # SEC ROT GMAG TX TY ... TILT")
    return rows
