"""Small pictures of picks: what is there where a particle was picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from catalogs.errors import InputError
from catalogs.pages.pictures import png
from catalogs.volumes import Volume, open_volume
from tlpick.output.orthoview import SLAB, stretch

#: Pictures of the best and of the worst picks of a class.
SHOWN = 20
#: Edge of a picture in radii of the class; a particle fills two thirds of it.
WIDE = 3.0


@dataclass(frozen=True)
class Crop:
    """A picture of a pick: PNG in base64, its score, what is said of it; ``right``, ``wrong`` or nothing."""

    image: str
    score: float
    words: str
    state: str


@dataclass(frozen=True)
class Strip:
    """A row of small pictures with a title."""

    title: str
    crops: Sequence[Crop]


def gallery(
    picks: pd.DataFrame, radius: float, paths: Mapping[str, str], sizes: Mapping[str, float]
) -> list[Strip]:
    """Show the picks of one class with the highest and with the lowest scores.

    Parameters
    ----------
    picks
        Particle table of one class with the columns ``title`` (of the tomogram) and, where the truth is
        known, ``partner``.
    radius
        Of the class, Å.
    paths, sizes
        Tomogram -> where it lies, and its voxel size in Å.

    Returns
    -------
    list of Strip
        Empty if no pick has a score, or no tomogram can be read.
    """
    ranked = picks[picks["score"].notna()].sort_values("score", ascending=False, kind="stable")
    if len(ranked) <= 2 * SHOWN:
        parts = [("All, by score", ranked)]
    else:
        parts = [
            (f"Best {SHOWN}", ranked[:SHOWN]),
            (f"Worst {SHOWN}", ranked[: len(ranked) - SHOWN - 1 : -1]),
        ]
    opened: dict[str, Volume | None] = {}
    strips = []
    for title, table in parts:
        found = (_crop_of(row, radius, paths, sizes, opened) for row in table.to_dict("records"))
        if crops := [crop for crop in found if crop is not None]:
            strips.append(Strip(title, crops))
    return strips


def _crop_of(
    pick: Mapping[Any, Any],
    radius: float,
    paths: Mapping[str, str],
    sizes: Mapping[str, float],
    opened: dict[str, Volume | None],
) -> Crop | None:
    name = str(pick["tomogram"])
    if name not in opened:
        try:
            opened[name] = open_volume(paths[name], voxel_size=sizes.get(name)) if name in paths else None
        except InputError:
            opened[name] = None
    volume = opened[name]
    if volume is None or name not in sizes:
        return None
    xyz = [float(pick[axis]) for axis in "xyz"]
    image = _crop(volume, xyz, radius, sizes[name])
    place = ", ".join(f"{value:.0f}" for value in xyz)
    partner = pick.get("partner")
    state, words = "", ""
    if partner is not None:
        state, words = ("right", ", a particle") if int(partner) >= 0 else ("wrong", ", no particle")
    flags = f", {pick['flags']}" if pick.get("flags") else ""
    score = float(pick["score"])
    said = f"{pick.get('title', name)} at ({place}) Å, score {score:.3f}{words}{flags}"
    return Crop(image, score, said, state)


def _crop(volume: Volume, xyz: Sequence[float], radius: float, voxel_size: float) -> str:
    """Cut out a square in x and y, the mean of the slices within a quarter of the radius; black outside."""
    half = max(int(np.ceil(WIDE / 2 * radius / voxel_size)), 2)
    thick = int(SLAB * radius / voxel_size)
    x, y, z = (round(value / voxel_size) for value in xyz)
    nz, ny, nx = volume.shape
    z = min(max(z, 0), nz - 1)
    box = (
        slice(max(z - thick, 0), min(z + thick + 1, nz)),
        slice(max(y - half, 0), max(min(y + half + 1, ny), 1)),
        slice(max(x - half, 0), max(min(x + half + 1, nx), 1)),
    )
    seen = stretch(volume.read(box).mean(axis=0))
    whole = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    top, left = box[1].start - (y - half), box[2].start - (x - half)
    whole[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
    return png(whole)
