"""The mean of the picks, beside the means of random positions and of true particles of the corpus.

The particles are not aligned, so their mean is round. If the picks are particles, their mean resembles that
of the corpus; if they are noise, that of random positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.intensity import measure, normalise
from catalogs.model_file import read_card
from catalogs.pages import charts
from catalogs.pages.charts import Chart, Line
from catalogs.pages.pictures import png
from catalogs.particle_mean import ParticleMean, layout, radial
from catalogs.seeds import generator
from catalogs.volumes import Volume
from catalogs.volumes.once import open_once
from tlpick.output.around import read_inside
from tlpick.output.gallery import in_order
from tlpick.output.page import Page
from tlpick.output.previews import places

Real = NDArray[np.float32]

#: Number of picks and of random positions to average, and of tomograms to show.
MOST, TOMOGRAMS = 200, 4
_PIXELS = 96


@dataclass(frozen=True)
class Row:
    """Pictures of one mean: its name, number of positions, and PNGs along z, y and x in base64."""

    title: str
    n: int
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class Means:
    """Rows of pictures and profiles of one class."""

    name: str
    rows: list[Row]
    profiles: Chart


def means(page: Page) -> list[Means]:
    """Average the picks of each class, in each of the first tomograms."""
    paths, sizes = places(page)
    shown = []
    for name, radius in page.radii.items():
        rows, lines = [], []
        known = _of_corpus(page, name)
        if known is not None:
            cube = known.cube("unaligned")
            rows.append(Row("particles of the corpus", known.n, _pictures(cube, _span(cube))))
            lines.append(_line("c1", "corpus", cube, known.spacing))
        for tomogram in page.tomograms[:TOMOGRAMS]:
            ours = page.picks[(page.picks["tomogram"] == tomogram.name) & (page.picks["class_name"] == name)]
            if len(ours) < 2 or tomogram.name not in paths or tomogram.name not in sizes:
                continue
            try:
                volume = open_once(paths[tomogram.name], voxel_size=sizes[tomogram.name])
            except InputError:
                continue
            found, chance, spacing = _averages(volume, ours, radius, sizes[tomogram.name], page.run)
            span = _span(found)
            n = min(len(ours), MOST)
            rows.append(Row(f"{tomogram.title}: picks", n, _pictures(found, span)))
            rows.append(Row(f"{tomogram.title}: random places", n, _pictures(chance, span)))
            colour = (0, 2, 3, 4)[len(rows) // 2 % 4]
            lines.append(_line(f"c{colour}", f"{tomogram.title}: picks", found, spacing))
            lines.append(_line("wrong", f"{tomogram.title}: random places", chance, spacing))
        if len(lines) > 1:
            title = f"Mean grey value around {name} over the distance from the middle"
            shown.append(
                Means(name, rows, charts.lines(title, "distance from the middle, Å", _raised(lines)))
            )
    return shown


def _of_corpus(page: Page, name: str) -> ParticleMean | None:
    path = page.run.get("model", {}).get("path")
    if not path:
        return None
    try:
        return read_card(str(path)).means.get(name)
    except InputError:  # the model no longer exists
        return None


def _averages(
    volume: Volume, picks: pd.DataFrame, radius: float, voxel_size: float, run: Any
) -> tuple[Real, Real, float]:
    """Average cubes around picks and around as many random positions at the same heights."""
    binning, edge = layout(radius, voxel_size)
    best = in_order(picks)
    best = best.iloc[np.unique(np.linspace(0, len(best) - 1, min(len(best), MOST)).round().astype(int))]
    xyz = best[["x", "y", "z"]].to_numpy(np.float64)
    rng = generator("mean of random places", len(picks))
    ends = (np.array(volume.shape[:0:-1]) - 1) * voxel_size
    elsewhere = np.column_stack([rng.uniform(0, ends, (len(xyz), 2)), rng.permutation(xyz[:, 2])])
    found, chance = (
        np.array([_cube(volume, place / voxel_size, binning, edge) for place in each])
        for each in (xyz, elsewhere)
    )
    # on the scale of the corpus, with centre 0 and spread 1
    intensity = measure(chance)
    sign = -1 if (run.get("settings", {}).get("preprocessing") or {}).get("invert") else 1
    averaged = [sign * normalise(each, intensity).mean(axis=0, dtype=np.float64) for each in (found, chance)]
    return averaged[0].astype(np.float32), averaged[1].astype(np.float32), binning * voxel_size


def _cube(volume: Volume, centre: NDArray[np.float64], binning: int, edge: int) -> Real:
    """Read a cube around a position in voxels x, y, z; beyond the faces the last planes are repeated."""
    first = np.rint(centre[::-1]).astype(int) - edge // 2 * binning - (binning - 1) // 2
    block, low = read_inside(volume, first, first + edge * binning)
    index = [
        np.clip(np.arange(a, a + edge * binning) - start, 0, n - 1)
        for a, start, n in zip(first, low, block.shape, strict=True)
    ]
    cube = block[np.ix_(*index)]
    shape = (edge, binning) * 3
    return np.asarray(cube.reshape(shape).mean(axis=(1, 3, 5)), np.float32)


def _span(cube: Real) -> tuple[float, float]:
    seen = np.array([cube.mean(axis=axis) for axis in range(3)])
    low, high = np.percentile(seen, (0.5, 99.5))
    return float(low), float(high)


def _pictures(cube: Real, span: tuple[float, float]) -> tuple[str, ...]:
    """Project a cube along z, y and x, with a common grey scale."""
    from PIL import Image

    low, high = span
    drawn = []
    for axis in range(3):
        plane = (cube.mean(axis=axis) - low) / max(high - low, 1e-9)
        image = Image.fromarray(np.clip(plane * 255, 0, 255).astype(np.uint8))
        factor = max(1, -(-_PIXELS // len(cube)))
        drawn.append(
            png(image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC))
        )
    return tuple(drawn)


def _line(kind: str, words: str, cube: Real, spacing: float) -> Line:
    x, y = radial(cube, spacing)
    return Line(kind, words, np.array(x), np.array(y))


def _raised(lines: list[Line]) -> list[Line]:
    """Shift profiles so that the lowest value is 0, where the chart begins."""
    low = min(float(line.y.min()) for line in lines)
    return [Line(line.kind, line.words, line.x, line.y - low) for line in lines]
