"""Parts of the report about the picks: scores, counts, distances, sizes, pictures."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from catalogs.errors import InputError
from catalogs.pages import charts
from catalogs.pages.charts import Chart, Group, Mark
from catalogs.pages.pictures import kind_of
from catalogs.volumes.once import open_once
from tlpick.output.gallery import Strip, gallery
from tlpick.output.page import Page

#: Charts with the name of each.
Figures = list[tuple[str, Chart]]

#: Largest number of tomograms with bars of their own in the chart of counts.
BARS = 40


def scores(page: Page) -> Figures:
    """Draw the scores of each class, with thresholds if there are any."""
    thresholds = page.run.get("thresholds", {})
    shown = []
    for k, name in enumerate(page.radii):
        ours = page.picks[page.picks["class_name"] == name]
        if ours["score"].notna().any():
            marks = [Mark(thresholds[name]["threshold"], "threshold")] if name in thresholds else []
            picture = charts.histogram(
                f"Scores of {name}", "score", _parts(page, ours, "score", k), marks, 0, 1
            )
            shown.append((name, picture))
    return shown


def _parts(page: Page, table: pd.DataFrame, column: str, k: int) -> list[Group]:
    """Split the values of a class into right and wrong if that is known."""
    if page.result is None:
        return [Group(kind_of(k), "picks", table[column].to_numpy(np.float64))]
    right = table["partner"] >= 0
    return [
        Group("right", "right", table.loc[right, column].to_numpy(np.float64)),
        Group("wrong", "wrong", table.loc[~right, column].to_numpy(np.float64)),
    ]


def per_tomogram(page: Page) -> Figures:
    """Draw the number of picks of each tomogram."""
    if len(page.tomograms) < 2:
        return []
    kinds = [(kind_of(k), name) for k, name in enumerate(page.radii)]
    counted = page.picks.groupby(["tomogram", "class_name"]).size().to_dict()
    rows = [
        (tomogram.title, [int(counted.get((tomogram.name, name), 0)) for name in page.radii])
        for tomogram in page.tomograms
    ]
    if len(rows) <= BARS:
        return [("", charts.bars("Picks of each tomogram", rows, kinds))]
    return [
        (
            name,
            charts.histogram(
                f"Picks of {name} in a tomogram",
                "picks in a tomogram",
                [Group(kind, "tomograms", np.array([counts[k] for _, counts in rows], np.float64))],
                low=0,
            ),
        )
        for k, (kind, name) in enumerate(kinds)
    ]


def distances(page: Page) -> Figures:
    """Draw the distances to the nearest pick of the same class."""
    shown = []
    for k, (name, radius) in enumerate(page.radii.items()):
        ours = page.picks[page.picks["class_name"] == name]
        far = [
            cKDTree(xyz).query(xyz, k=2)[0][:, 1]
            for _, table in ours.groupby("tomogram")
            if len(xyz := table[["x", "y", "z"]].to_numpy(np.float64)) > 1
        ]
        if far:
            values = np.concatenate(far)
            picture = charts.histogram(
                f"Distances of {name} to the nearest of its kind",
                "distance to the nearest, Å",
                [Group(kind_of(k), "picks", values)],
                [Mark(2 * radius, "two radii: touching")],
                0.0,
                float(max(np.percentile(values, 98), 2.5 * radius)),
            )
            shown.append((name, picture))
    return shown


def sizes(page: Page) -> Figures:
    """Draw the sizes of the picks relative to a particle."""
    if "size" not in page.picks or not page.run:
        return []
    model, settings = page.run["model"], page.run["settings"]
    shown = []
    for k, (name, radius) in enumerate(page.radii.items()):
        ours = page.picks[page.picks["class_name"] == name]
        if ours["size"].notna().sum() == 0:
            continue
        known = (model.get("calibration") or {}).get(name, {}).get("volume")
        particle = known or 4 / 3 * math.pi * radius**3
        share = ours.assign(share=ours["size"] * float(model["voxel_size"]) ** 3 / particle)
        how = settings.get("localising", {})
        least, most = how.get("sizes", {}).get(name, (how.get("min_size"), how.get("max_size")))
        marks = [Mark(float(v), w) for v, w in ((least, "least"), (most, "most")) if v is not None]
        of = "as held-out ones look" if known else "the sphere of its radius"
        picture = charts.histogram(
            f"Sizes of {name}",
            f"size over a particle's ({of})",
            _parts(page, share, "share", k),
            marks,
            0.0,
            float(max(np.percentile(share["share"], 99), 1.2)),
        )
        shown.append((name, picture))
    return shown


def best_and_worst(name: str, page: Page) -> list[Strip]:
    """Show pictures of the best and the worst picks of one class, and of those around the cut."""
    titles = {tomogram.name: tomogram.title for tomogram in page.tomograms}
    paths, sizes = places(page)
    ours = page.every[page.every["class_name"] == name]
    return gallery(ours.assign(title=ours["tomogram"].map(titles)), page.radii[name], paths, sizes)


def places(page: Page) -> tuple[dict[str, str], dict[str, float]]:
    """Return the paths of the tomograms and their voxel sizes in Å, without those that cannot be opened."""
    paths = {tomogram.name: tomogram.path for tomogram in page.tomograms if tomogram.path is not None}
    sizes = {}
    for tomogram in page.tomograms:
        if tomogram.voxel_size is not None:
            sizes[tomogram.name] = tomogram.voxel_size
    for each, path in paths.items():
        if each not in sizes:
            try:
                size = open_once(path).voxel_size
            except InputError:
                continue
            if size is not None:
                sizes[each] = size
    return paths, sizes
