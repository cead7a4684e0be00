"""A page for accepting and rejecting picks: a single file that works without a server.

Each pick is shown in three directions. The browser stores the decisions, so they survive a reload. They are
downloaded as a particle list with the column ``verdict``, which ``tltrain finetune`` and ``tlpick convert``
read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.atomic_write import write_text
from catalogs.errors import InputError
from catalogs.pages import render as pages
from catalogs.pages.pictures import jpeg
from catalogs.seeds import digest
from catalogs.volumes import Volume
from catalogs.volumes.once import open_once
from tlpick.batch.files import CURATE
from tlpick.batch.run_folder import Picks
from tlpick.output.around import read_inside
from tlpick.output.orthoview import stretch
from tlpick.output.page import Tomogram, page_of

#: Largest number of picks on the page; those with the highest scores are shown.
MOST = 5000
#: Edge of a picture in pixels, and edge of the region that it shows in radii of the class.
EDGE, WIDE = 40, 3.0
#: Number of picks in a row and in a column of a sheet of pictures.
COLUMNS, ROWS = 10, 50
#: Standard deviation of the Gaussian filter for display, in radii; finer details are mostly noise.
_SMOOTH = 0.2
#: Half of the projected thickness, in radii.
_SLAB = 0.5


@dataclass(frozen=True)
class Pick:
    """A pick on the page.

    Attributes
    ----------
    tomogram, class_name, label
        As in the list of picks.
    x, y, z
        Position, Å.
    score
        None if the pick has none.
    kept
        Whether the run's cut keeps the pick.
    near
        Rank by distance from the cut; 0 is the nearest.
    """

    tomogram: str
    class_name: str
    label: int
    x: float
    y: float
    z: float
    score: float | None
    kept: bool
    near: int


def write_curation(picks: Picks) -> Path | None:
    """Write the page into the folder of a run; returns its path, or None if no pick can be shown."""
    place = picks.folder
    page = page_of(picks, picks.tomograms)
    every = page.every[page.every["class_name"].isin(list(page.radii))]
    shown = every.sort_values("score", ascending=False, kind="stable", na_position="last")[:MOST]
    rows, pictures = _pictures(shown, page.radii, page.tomograms)
    if not len(rows):
        (place / CURATE).unlink(missing_ok=True)
        return None
    title = f"Accept and reject: {', '.join(page.radii)}"
    write_text(place / CURATE, curation_page(title, choice(rows), pictures, len(every) - len(rows)))
    return place / CURATE


def curation_page(
    title: str, chosen: Sequence[Pick], pictures: Sequence[NDArray[np.uint8]], left_out: int = 0
) -> str:
    """Make the page of some picks.

    Parameters
    ----------
    title
        Of the page.
    chosen
        The picks.
    pictures
        Of each pick, (EDGE, 3 EDGE), in the same order.
    left_out
        Number of picks that are not shown.
    """
    return pages.page(
        "curate.html",
        title=title,
        picks=[
            [p.tomogram, p.class_name, p.label, p.x, p.y, p.z, p.score, int(p.kept), p.near] for p in chosen
        ],
        sheets=sheets(pictures),
        columns=COLUMNS,
        rows=ROWS,
        edge=EDGE,
        left_out=left_out,
        # decisions belong to these picks, wherever the folder lies
        key=digest([[p.tomogram, p.class_name, p.x, p.y, p.z] for p in chosen]),
    )


def choice(table: pd.DataFrame) -> list[Pick]:
    """List the picks with their rank by distance from the cut, in the order of the table.

    The table must have a column ``kept``.
    """
    is_kept = table["kept"].to_numpy(bool)
    score = table["score"].to_numpy(np.float64)
    near = np.full(len(table), np.inf)
    for name in set(table["class_name"]):
        ours = (table["class_name"] == name).to_numpy()
        inside, outside = score[ours & is_kept], score[ours & ~is_kept]
        ends = [np.nanmin(inside)] if inside.size and not np.isnan(inside).all() else []
        ends += [np.nanmax(outside)] if outside.size and not np.isnan(outside).all() else []
        if ends:
            near[ours] = np.abs(score[ours] - np.mean(ends))
    rank = np.empty(len(table), np.int64)
    rank[np.argsort(np.nan_to_num(near, nan=np.inf), kind="stable")] = np.arange(len(table))
    return [
        Pick(
            str(row["tomogram"]),
            str(row["class_name"]),
            int(row["label"]),
            round(float(row["x"]), 2),
            round(float(row["y"]), 2),
            round(float(row["z"]), 2),
            score=None if math.isnan(row["score"]) else round(float(row["score"]), 4),
            kept=bool(is_kept[k]),
            near=int(rank[k]),
        )
        for k, row in enumerate(table.to_dict("records"))
    ]


def sheets(pictures: Sequence[NDArray[np.uint8]]) -> list[str]:
    """Arrange the pictures of picks, each (EDGE, 3 EDGE), on sheets; returns JPEGs in base64."""
    made = []
    for first in range(0, len(pictures), COLUMNS * ROWS):
        part = pictures[first : first + COLUMNS * ROWS]
        sheet = np.zeros((EDGE * math.ceil(len(part) / COLUMNS), 3 * EDGE * COLUMNS), np.uint8)
        for k, picture in enumerate(part):
            row, column = divmod(k, COLUMNS)
            sheet[EDGE * row : EDGE * (row + 1), 3 * EDGE * column : 3 * EDGE * (column + 1)] = picture
        made.append(jpeg(sheet))
    return made


def _pictures(
    table: pd.DataFrame, radii: Mapping[str, float], tomograms: Sequence[Tomogram]
) -> tuple[pd.DataFrame, list[NDArray[np.uint8]]]:
    """Draw the picks whose tomograms can be read; returns them and their pictures in the same order."""
    found: dict[int, NDArray[np.uint8]] = {}
    for tomogram in tomograms:
        ours = np.flatnonzero((table["tomogram"] == tomogram.name).to_numpy())
        volume = _opened(tomogram) if len(ours) else None
        if volume is None or tomogram.voxel_size is None:
            continue
        # sorted by z, which is the order of planes in the file
        for k in sorted(ours, key=lambda k: float(table["z"].iloc[k])):
            row = table.iloc[k]
            found[int(k)] = projections(
                volume, row[["x", "y", "z"]], radii[row["class_name"]], tomogram.voxel_size
            )
    order = sorted(found)
    return table.iloc[order].reset_index(drop=True), [found[k] for k in order]


def _opened(tomogram: Tomogram) -> Volume | None:
    try:
        return open_once(tomogram.path, voxel_size=tomogram.voxel_size) if tomogram.path else None
    except InputError:
        return None


def projections(volume: Volume, xyz: Any, radius: float, voxel_size: float) -> NDArray[np.uint8]:
    """Project a particle along z, y and x, side by side.

    Parameters
    ----------
    volume
        The tomogram.
    xyz
        (3,) position, Å.
    radius
        Radius of the particle, Å.
    voxel_size
        Å.

    Returns
    -------
    ndarray of uint8
        (EDGE, 3 EDGE): x right and y down; x right and z down; z right and y down. Places outside the
        tomogram are grey.
    """
    from PIL import Image
    from scipy.ndimage import gaussian_filter

    half = max(math.ceil(WIDE / 2 * radius / voxel_size), 2)
    middle = [round(float(xyz[axis]) / voxel_size) for axis in "zyx"]
    values, first = read_inside(volume, [m - half for m in middle], [m + half + 1 for m in middle])
    values = np.asarray(values, np.float32)
    cube = np.full((2 * half + 1,) * 3, values.mean(), np.float32)
    at = [min(max(f - (m - half), 0), 2 * half) for f, m in zip(first, middle, strict=True)]
    room = tuple(slice(a, min(a + n, 2 * half + 1)) for a, n in zip(at, values.shape, strict=True))
    cube[room] = values[tuple(slice(0, part.stop - part.start) for part in room)]
    cube = gaussian_filter(cube, _SMOOTH * radius / voxel_size)
    thick = max(round(_SLAB * radius / voxel_size), 1)
    core = slice(half - thick, half + thick + 1)
    views = (cube[core].mean(axis=0), cube[:, core].mean(axis=1), cube[:, :, core].mean(axis=2).T)
    return np.hstack(
        [
            np.asarray(Image.fromarray(stretch(view)).resize((EDGE, EDGE), Image.Resampling.BILINEAR))
            for view in views
        ]
    )
