"""DeepFinder's object lists as Excel files: one object a row, its values in the columns A to J.

They are those of its XML: number of the tomogram and of the object, label, voxels x, y, z from 0, TOM's psi,
phi, theta, and size of the cluster. Further attributes of the XML cannot be stored.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catalogs.errors import InputError
from catalogs.particle_formats import names, star
from catalogs.particle_formats.base import (
    ORIENTATION,
    POSITION,
    Context,
    Format,
    as_columns,
    has_orientations,
)
from catalogs.particle_formats.eulers import eulers, from_eulers, quaternions
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.particle_table import make

_TITLES = ["Tomo IDX", "Object ID", "Class label", "x", "y", "z", "psi", "phi", "theta", "Cluster size"]
_MOST = 1 << 29  # bytes that a list may unpack to


def _detect(sniffed: SniffedFile) -> str | None:
    if sniffed.head[:4] != b"PK\x03\x04" or sniffed.suffix not in (".xlsx", ""):
        return None
    return "an Excel file: DeepFinder's object list, voxels counted from 0 in the columns D, E, F"


def _read(path: Path, context: Context) -> pd.DataFrame:
    from openpyxl import load_workbook

    content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as packed:
            if sum(item.file_size for item in packed.infolist()) > _MOST:
                raise InputError(f"{path} unpacks to more than any list of particles; it is not read")
        book = load_workbook(content, read_only=True, data_only=True)
        rows = list(book.worksheets[0].iter_rows(values_only=True, max_col=len(_TITLES)))
    except InputError:
        raise
    except Exception as error:  # broken files may raise any exception
        raise InputError(f"{path} is not an Excel file that can be read ({error})") from error
    if not rows or [str(title).strip().lower() for title in rows[0][3:6]] != ["x", "y", "z"]:
        raise InputError(f"{path} is not an object list of DeepFinder: its columns D, E, F are not x, y, z")
    frame = pd.DataFrame(
        [row for row in rows[1:] if any(value is not None for value in row)], columns=_TITLES
    )
    values = {title: star.floats(frame[title]) for title in _TITLES}

    def columns_of(*titles: str) -> Any:
        return np.stack([values[title] for title in titles], axis=1)

    if np.isfinite(values["Tomo IDX"]).all() and len(frame):
        tomograms = names.name_tomograms(names.whole(values["Tomo IDX"], "Tomo IDX"), context)
    else:
        tomograms = [context.name_of(path)] * len(frame)
    columns: dict[str, Any] = as_columns(
        ["x", "y", "z"], context.to_angstrom(columns_of("x", "y", "z"), tomograms)
    )
    columns |= quaternions(from_eulers(columns_of("phi", "theta", "psi"), "tom"))
    columns |= names.classes_of_labels(names.whole(values["Class label"], "Class label"), context)
    columns["instance"] = np.nan_to_num(values["Object ID"])
    if np.isfinite(values["Cluster size"]).any():
        columns["size"] = values["Cluster size"]
    return make(tomogram=tomograms, **columns)


def _encode(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    from openpyxl import Workbook

    numbered = names.number_tomograms(table["tomogram"], context)
    index, angles, turned = context.to_pixels(table), eulers(table, "tom"), has_orientations(table)
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Object list"
    sheet.append(_TITLES)
    for k, row in enumerate(table.to_dict("records")):
        phi, theta, psi = (float(angle) for angle in angles[k])
        size = row.get("size", np.nan)
        sheet.append(
            [
                *(numbered[row["tomogram"]], row["instance"] or None, row["label"]),
                *(float(value) for value in index[k]),
                *((psi, phi, theta) if turned else (None, None, None)),
                round(size) if np.isfinite(size) else None,
            ]
        )
    out = io.BytesIO()
    book.save(out)
    return {path: _without_times(out)}


def _without_times(written: io.BytesIO) -> bytes:
    """Remove the time from an Excel file, so that the same particles give the same file."""
    out = io.BytesIO()
    with zipfile.ZipFile(written) as before, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as after:
        for item in before.infolist():
            content = before.read(item)
            if item.filename == "docProps/core.xml":
                content = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"2000-01-01T00:00:00Z", content)
            named = zipfile.ZipInfo(item.filename, (2000, 1, 1, 0, 0, 0))
            after.writestr(named, content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


EXCEL = Format(
    name="deepfinder-excel",
    title="DeepFinder object list (Excel)",
    suffixes=(".xlsx",),
    holds=POSITION | ORIENTATION | {"tomogram", "label", "instance", "size"},
    detect=_detect,
    read=_read,
    encode=_encode,
    default_for=(".xlsx",),
    numbers_tomograms=True,
)
