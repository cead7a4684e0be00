"""Read a user's own acquisition from files.

SerialEM's .mdoc, IMOD's .tlt, .rawtlt and .xf, AreTomo's .aln, RELION's tomograms.star, Warp's .tomostar and
XML.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from catalogs.errors import InputError
from tlgen.tilts.acquired import AcquiredSeries, doses_from_before, order_of
from tlgen.tilts.alignment import aln_rows, read_alignment, read_text
from tlgen.tilts.series_mdoc import read_mdoc
from tlgen.tilts.series_star import read_star
from tlgen.tilts.series_warp import read_warp

__all__ = ["SUFFIXES", "AcquiredSeries", "read_one", "read_series"]

_STARS = (".star", ".tomostar")
SUFFIXES = (".mdoc", ".tlt", ".rawtlt", *_STARS, ".xml", ".aln", ".xf")

_KINDS = (
    "a SerialEM .mdoc, a .tlt or .rawtlt, a STAR file of RELION, a .tomostar or .xml of Warp, an "
    "AreTomo .aln or "
    "an IMOD .xf"
)


def read_series(path: str | Path) -> list[AcquiredSeries]:
    """Read a file that describes tilt series.

    Parameters
    ----------
    path
        A SerialEM (or Tomography 5) ``.mdoc``; a ``.tlt`` or ``.rawtlt`` with an angle a line, and beside it
        the order or the dose; a ``tomograms.star`` of RELION 4 or 5, or the STAR file of one tilt series of
        RELION 5; a ``.tomostar`` or ``.xml`` of Warp, with Warp's angles; an AreTomo ``.aln``; an IMOD
        ``.xf``, whose angles are in the ``.tlt`` or ``.rawtlt`` beside it. ``FILE#NAME`` selects the series
        of that name in a ``tomograms.star``.

    Returns
    -------
    list of AcquiredSeries
        One, or of a ``tomograms.star`` as many as it has.

    Raises
    ------
    InputError
        If there is no such file, or its content is not valid.
    """
    text, _, wanted = str(path).partition("#")
    file = Path(text)
    if not file.is_file():
        raise InputError(f"there is no file {file} of a tilt series; give {_KINDS}")
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{file} tells no tilt series; give {_KINDS}")
    readers: dict[str, Callable[[Path, str], AcquiredSeries]] = {
        ".mdoc": read_mdoc, ".xml": read_warp, ".aln": _read_aln, ".xf": _read_xf,
    }  # fmt: skip
    reader = readers.get(suffix, _read_tlt)
    found = read_star(file) if suffix in _STARS else [reader(file, read_text(file))]
    if wanted:
        names = [series.name for series in found]
        if wanted not in names:
            raise InputError(f"{file} has no tilt series {wanted}; it has {', '.join(names[:10])}")
        found = [found[names.index(wanted)]]
    for series in found:
        _check(file, series)
    return found


def read_one(path: str | Path) -> AcquiredSeries:
    """Read the only tilt series of a file; InputError if it holds several. See :func:`read_series`."""
    found = read_series(path)
    if len(found) > 1:
        raise InputError(
            f"{path} holds {len(found)} tilt series; say which as {path}#{found[0].name}, for instance"
        )
    return found[0]


def _check(file: Path, series: AcquiredSeries) -> None:
    if not series.angles:
        raise InputError(f"{file} lists no tilts")
    for angle in series.angles:
        if not abs(angle) < 90:
            raise InputError(f"{file}: a tilt of {angle:g}° is impossible; tilts are degrees below 90")


# ------------------------------------------------------------------------------------------------------ IMOD


def _read_tlt(file: Path, content: str) -> AcquiredSeries:
    """Read angles, one per line; further columns may be the order, the dose, or both (AreTomo 3)."""
    rows: list[list[float]] = []
    for number, line in enumerate(content.splitlines(), start=1):
        words = re.split(r"[#;%]|//", line)[0].split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            raise InputError(
                f"{file}, line {number}: {line.strip()[:40]!r} is not an angle; give one number a line"
            ) from None
        if len(words) > 3 or len(words) != len(rows[0]):
            raise InputError(
                f"{file}, line {number}: {line.strip()[:40]!r} has {len(words)} numbers; give one number a "
                "line, or on every line the angle, the order of acquisition and the dose"
            )
    columns = [list(column) for column in zip(*rows, strict=True)]
    if len(columns) < 2:
        return AcquiredSeries(file.stem, tuple(columns[0] if columns else ()))
    return _with_columns(file, columns)


def _with_columns(file: Path, columns: list[list[float]]) -> AcquiredSeries:
    angles, second = columns[0], columns[1]
    n = len(angles)
    alike = len(set(second)) == 1 and second[0] > 0
    if sorted(second) in (list(range(n)), list(range(1, n + 1))):
        doses = columns[2] if len(columns) == 3 else []
        if doses and min(doses) <= 0:
            raise InputError(f"{file}: the third column, the dose of each image, must be positive")
        taken = sorted(range(n), key=lambda k: second[k])
        return AcquiredSeries(file.stem, tuple(angles), tuple(doses), tuple(taken), ordered=True)
    if len(columns) == 2 and alike:
        return AcquiredSeries(file.stem, tuple(angles), tuple(second))
    before = order_of(second)
    if len(columns) == 2 and before and min(second) == 0:
        given = doses_from_before([second[k] for k in before], before)
        return AcquiredSeries(file.stem, tuple(angles), tuple(given or ()), tuple(before), ordered=True)
    raise InputError(
        f"{file}: the second column is neither the order of acquisition (whole numbers from 0 or 1, "
        f"each once), "
        "nor one dose for all images, nor the dose before each image (from 0 on); leave it out or "
        "give an .mdoc"
    )


def _read_xf(file: Path, content: str) -> AcquiredSeries:
    beside = [file.with_suffix(suffix) for suffix in (".tlt", ".rawtlt")]
    angles = next((each for each in beside if each.is_file()), None)
    if angles is None:
        raise InputError(
            f"{file} moves images and holds no angles; put {beside[0].name} beside it, or give a .tlt instead"
        )
    found, alignment = _read_tlt(angles, read_text(angles)), read_alignment(file)
    if len(found.angles) != len(alignment):
        raise InputError(f"{file} has {len(alignment)} images and {angles} has {len(found.angles)} angles")
    return AcquiredSeries(
        found.name, found.angles, found.doses, found.taken, found.ordered, tilt_axis=alignment.tilt_axis
    )


# --------------------------------------------------------------------------------------------------- AreTomo


def _read_aln(file: Path, content: str) -> AcquiredSeries:
    rows = aln_rows(file, content)
    axis = float(np.median([row["ROT"] for row in rows]))
    return AcquiredSeries(file.stem, tuple(row["TILT"] for row in rows), tilt_axis=axis)
