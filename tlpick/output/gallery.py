"""Small pictures of picks.

A single plane of a tomogram shows mostly noise. So a picture is a projection through the whole particle,
smoothed by a Gaussian that removes much finer details. The raw voxels of the middle plane are shown as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.pages.pictures import png
from catalogs.volumes import Volume
from catalogs.volumes.once import open_once
from tlpick.output.around import read_inside
from tlpick.output.orthoview import SMOOTH, stretch

#: Pictures of the best and of the worst picks of a class, and of those on either side of the cut.
SHOWN = 20
#: Edge of a picture in radii of the class; a particle fills two thirds of it.
WIDE = 3.0
#: Least number of pixels along an edge of a picture.
_PIXELS = 96


@dataclass(frozen=True)
class Crop:
    """A picture of a pick.

    Attributes
    ----------
    image, raw
        PNG in base64: the projection, and the raw plane.
    score
        Score of the pick.
    words
        Description of the pick.
    state
        ``right``, ``wrong`` or nothing.
    """

    image: str
    raw: str
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
    """Show the best and the worst picks of one class, and those around the cut.

    Parameters
    ----------
    picks
        Particle table of one class with the columns ``title`` (of the tomogram), ``kept`` and, where they
        are known, ``partner`` and ``wrong``. The best have the smallest expected share of wrong ones, or the
        highest score.
    radius
        Radius of the class, Å.
    paths, sizes
        Tomogram -> its path, and its voxel size in Å.

    Returns
    -------
    list of Strip
        Empty if no pick has a score, or no tomogram can be read.
    """
    ranked = in_order(picks[picks["score"].notna()])
    kept, left = ranked[ranked["kept"]], ranked[~ranked["kept"]]
    if len(ranked) <= 2 * SHOWN:
        parts = [("All, by score", ranked)]
    else:
        last = "Worst" if left.empty else "Worst of all"
        parts = [(f"Best {SHOWN}", ranked[:SHOWN])]
        if len(left) and len(kept):
            half = SHOWN // 2
            parts += [("Last that are kept", kept[-half:]), ("First that are not kept", left[:half])]
        parts.append((f"{last} {SHOWN}", ranked[: len(ranked) - SHOWN - 1 : -1]))
    opened: dict[str, Volume | None] = {}
    strips = []
    for title, table in parts:
        found = (_crop_of(row, radius, paths, sizes, opened) for row in table.to_dict("records"))
        if crops := [crop for crop in found if crop is not None]:
            strips.append(Strip(title, crops))
    return strips


def in_order(picks: pd.DataFrame) -> pd.DataFrame:
    """Sort picks, the best first."""
    if "wrong" in picks and picks["wrong"].notna().all():
        return picks.sort_values(["wrong", "score"], ascending=[True, False], kind="stable")
    return picks.sort_values("score", ascending=False, kind="stable")


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
            opened[name] = open_once(paths[name], voxel_size=sizes.get(name)) if name in paths else None
        except InputError:
            opened[name] = None
    volume = opened[name]
    if volume is None or name not in sizes:
        return None
    xyz = [float(pick[axis]) for axis in "xyz"]
    image, raw = _crop(volume, xyz, radius, sizes[name])
    place = ", ".join(f"{value:.0f}" for value in xyz)
    partner = pick.get("partner")
    state, words = "", ""
    if partner is not None:
        state, words = ("right", ", a particle") if int(partner) >= 0 else ("wrong", ", no particle")
    flags = f", {pick['flags']}" if pick.get("flags") else ""
    score = float(pick["score"])
    said = f"{pick.get('title', name)} at ({place}) Å, score {score:.3f}{words}{flags}"
    seen = f"; projection of {2 * radius:.0f} Å, Gaussian of {SMOOTH * radius:.0f} Å"
    return Crop(image, raw, score, said + seen, state)


def _crop(volume: Volume, xyz: Sequence[float], radius: float, voxel_size: float) -> tuple[str, str]:
    """Cut out a square in x and y: the projection, and the raw plane in the middle; black outside."""
    from scipy.ndimage import gaussian_filter

    half = max(int(np.ceil(WIDE / 2 * radius / voxel_size)), 2)
    thick = max(int(radius / voxel_size), 0)
    sigma = SMOOTH * radius / voxel_size
    rim = int(np.ceil(3 * sigma))
    x, y, z = (round(value / voxel_size) for value in xyz)
    z, wide = min(max(z, 0), volume.shape[0] - 1), half + rim
    block, (first, top, left) = read_inside(
        volume, (z - thick, y - wide, x - wide), (z + thick + 1, y + wide + 1, x + wide + 1)
    )
    corner = (y - half - top, x - half - left)
    seen = gaussian_filter(block.mean(axis=0), sigma, mode="nearest")
    return tuple(_square(each, corner, 2 * half + 1) for each in (seen, block[z - first]))  # type: ignore[return-value]


def _square(plane: NDArray[np.float32], corner: tuple[int, int], edge: int) -> str:
    """Cut a square out of a plane, and enlarge it smoothly; black where the plane ends."""
    from PIL import Image

    low = [max(at, 0) for at in corner]
    high = [min(at + edge, n) for at, n in zip(corner, plane.shape, strict=True)]
    whole = np.zeros((edge, edge), np.uint8)
    part = plane[low[0] : high[0], low[1] : high[1]]
    if part.size:
        top, left = low[0] - corner[0], low[1] - corner[1]
        whole[top : top + part.shape[0], left : left + part.shape[1]] = stretch(part)
    factor = max(1, -(-_PIXELS // edge))
    image = Image.fromarray(whole)
    return png(image.resize((edge * factor, edge * factor), Image.Resampling.BICUBIC))
