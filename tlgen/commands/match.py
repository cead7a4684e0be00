"""``tlgen match --tomogram``: a recipe whose simulated tomograms have the power spectrum of a user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.atomic_write import replacing
from catalogs.corpus.catalog import Catalog
from catalogs.errors import IncompleteError, InputError
from catalogs.intensity import normalise
from catalogs.pages import charts, render
from catalogs.private_folders import scratch_folder
from catalogs.progress import Progress
from catalogs.tomogram_look import SHELLS, TomogramLook, look_at
from tlgen.recipes.from_series import Matched, match
from tlgen.recipes.from_tomogram import (
    DILUTE,
    VESICLES,
    Corner,
    Measured,
    Ranges,
    first_ranges,
    measure_tomogram,
)
from tlgen.recipes.recipe import Group, Keep, Packing, Recipe, Variants
from tlgen.recipes.recipe_file import read_recipe
from tlgen.recipes.spectrum_fit import Fitted, envelope, fit_ranges, outside, spectrum_in_words
from tlgen.tilts.series_files import read_one

#: Least edges along z, y, x of the simulated boxes, voxels and Å.
BOX, BOX_LENGTH = (64, 96, 96), (480.0, 720.0, 720.0)


def match_tomogram(
    acquisition: str,
    tomogram: str,
    to: str,
    template: str | None = None,
    *,
    box: tuple[int, int, int] | None = None,
    rounds: int = 3,
    cluster: str = "local",
    progress: bool | Progress = False,
) -> Matched:
    """Write a recipe with the tilts of a series and ranges that enclose the spectrum of its tomogram.

    Beside the recipe, ``NAME.match.html`` shows both spectra.

    Parameters
    ----------
    acquisition
        A file that :func:`tlgen.tilts.series_files.read_series` reads.
    tomogram
        The tomogram of this series.
    to
        The recipe; if it exists, its tilt series and ranges are replaced.
    template
        The recipe that a new one extends; None: ``demo``.
    box
        Voxels along z, y, x of the boxes that are simulated to compare with; None: :data:`BOX`, or as many as
        :data:`BOX_LENGTH` has.
    rounds
        How often ranges are changed at most.
    cluster
        Where to simulate.
    progress
        Shows the progress.

    Returns
    -------
    Matched
        The recipe, and what was set and why.

    Raises
    ------
    InputError
        If a file cannot be read, or the recipe cannot be written.
    """
    if Path(to).suffix not in (".yaml", ".yml"):
        raise InputError(f"{to} must end in .yaml; give another name")
    if template is not None and Path(to).exists():
        raise InputError(
            f"{to} exists already; leave `template` out to change its tilt series, or give another name"
        )
    read_one(acquisition)  # mistakes in small files are found before the tomogram is read
    read_recipe(to if Path(to).exists() else template or "demo")
    measured = measure_tomogram(tomogram)
    size = measured.look.voxel_size
    z, y, x = (max(n, round(a / size)) for n, a in zip(BOX, BOX_LENGTH, strict=True))
    edges = box or (z, y, x)
    told: list[str] = []

    def adapt(content: dict[str, Any], below: Recipe) -> dict[str, Any]:
        known = {key: value for key, value in content["acquisition"].items() if value is not None}
        depth = below.shape[0] * below.voxel_size
        ranges = first_ranges(measured, below, known, depth)
        shape = [
            round(ranges.depth / size),
            *(max(8, round(n * below.voxel_size / size)) for n in below.shape[1:]),
        ]
        content["shape"] = shape
        content["acquisition"] |= {"voxel_size": size, "pixel_size": _pixel(size, known.get("pixel_size"))}
        draft = drafted(below, content)
        with scratch_folder("match-") as folder:
            boxes = _Boxes(draft, folder, edges, cluster, progress)
            fitted = fit_ranges(measured.look, ranges, boxes.make, rounds)
        _write_page(Path(to), Path(tomogram).name, measured, fitted)
        told.extend(_lines(to, measured, fitted, shape[0] / edges[0]))
        return _with_keys(content, fitted.ranges)

    made = match(acquisition, to, template, size, adapt)
    return replace(made, found=tuple(told))


def _pixel(voxel: float, stated: float | None) -> float:
    """Find a pixel of which the voxel is a whole number: that of the series, or about 1 Å."""
    about = stated or 1.0
    return round(voxel / max(1, round(voxel / about)), 6)


def drafted(below: Recipe, content: dict[str, Any]) -> Recipe:
    """Change a recipe as the content of a file that extends it would; null removes a key."""
    acquisition = {**below.acquisition}
    for key, value in content["acquisition"].items():
        acquisition.pop(key, None)
        if value is not None:
            acquisition[key] = value
    again = below.model_dump(mode="json", exclude={"acquisition", "samples"}, exclude_defaults=True)
    return Recipe.model_validate(
        again | {"shape": content["shape"], "acquisition": acquisition, "samples": {"train": {}}}
    )


def _with_keys(content: dict[str, Any], ranges: Ranges) -> dict[str, Any]:
    keys = ranges.content()
    content["acquisition"] |= keys.pop("acquisition")
    content["samples"] |= keys.pop("samples", {})
    return {**content, **keys}


class _Boxes:
    """Simulates small boxes with the molecules of a recipe, and measures them."""

    def __init__(
        self,
        draft: Recipe,
        folder: Path,
        box: tuple[int, int, int],
        cluster: str,
        progress: bool | Progress,
    ) -> None:
        self._draft, self._folder, self._box = draft, folder, box
        self._cluster, self._progress = cluster, progress
        self._number = self._made = 0

    def make(self, corners: Sequence[Corner], ranges: Ranges) -> list[TomogramLook | None]:
        """Simulate a box for each corner; returns their properties, None for a box that failed."""
        from tlgen.runs.run import run

        self._number += 1
        recipe = self._recipe(corners, ranges)
        url = str(self._folder / f"round{self._number}")
        run(recipe, url, self._cluster, 1, progress=self._progress)
        catalog, looks = Catalog.open(url), {}
        for record in catalog.records():
            grey = np.asarray(catalog.arrays(record.sample_id)["tomogram"][:], np.float32)
            look = look_at(normalise(grey, record.intensity), record.acquisition.voxel_size)
            assert look is not None, "boxes are large enough to measure"
            looks[record.name] = look
        self._made += len(looks)
        if not self._made:
            raise IncompleteError(
                "no box could be simulated to compare with the tomogram, as said above; without --tomogram, "
                "tlgen match writes the tilt series alone"
            )
        return [looks.get(f"box{k}-000") for k in range(len(corners))]

    def _recipe(self, corners: Sequence[Corner], ranges: Ranges) -> Recipe:
        draft = self._draft
        keys = ranges.content()
        content = draft.model_dump(
            mode="json", exclude={"samples", "targets", "name", "shape", "keep"}, exclude_defaults=True
        )
        if "packing" in keys:
            content["packing"] = {key: v for key, v in keys["packing"].items() if v is not None}
        content["decorations"] = self._membranes(ranges)
        if "reconstruction" in keys:
            content["reconstruction"] = content.get("reconstruction", {}) | keys["reconstruction"]
        factor = float(np.prod(self._box) / np.prod(draft.shape))
        targets = {
            name: target.model_copy(update={"variants": Variants(number=0)})
            for name, target in draft.targets.items()
        }
        groups = {
            f"box{k}": Group(
                number=1,
                scale_counts=factor,
                packing=Packing.model_validate(DILUTE) if each.dilute else None,
                acquisition={
                    "contrast": each.contrast,
                    "dose": round(each.dose, 2),
                    "defocus": round(each.defocus, 3),
                    "shift_error": round(each.shift, 2),
                    "vacuum": 0,
                },
            )
            for k, each in enumerate(corners)
        }
        return Recipe.model_validate(
            content
            | {
                "name": f"match-{self._number}",
                "shape": self._box,
                "targets": {name: each.model_dump(mode="json") for name, each in targets.items()},
                "samples": {name: group.model_dump(mode="json") for name, group in groups.items()},
                "keep": Keep(tilt_images=False).model_dump(),
            }
        )

    def _membranes(self, ranges: Ranges) -> dict[str, Any]:
        """Return decorations of the boxes; gold was left out of the tomogram's measurement, too."""
        if "membranes" not in ranges.why:
            sheets = self._draft.decorations.sheets
            return {} if sheets is None else {"sheets": sheets.model_dump(mode="json")}
        some: dict[str, Any] = {"sheets": {"number": 1}}
        edge = min(self._box) * self._draft.voxel_size
        if edge >= 2.5 * VESICLES[0]:
            some["vesicles"] = {"number": 1, "radius": [VESICLES[0], min(VESICLES[1], 0.35 * edge)]}
        return some


def page_of(recipe: str) -> Path:
    """Name the page that belongs to a recipe."""
    return Path(recipe).with_suffix(".match.html")


def _lines(to: str, measured: Measured, fitted: Fitted, times: float) -> list[str]:
    lines = [
        f"{len(fitted.boxes)} boxes simulated at the ends of the ranges. What the tomogram sets, and why:",
        *(f"  {key:18} {value:22} {why}" for key, value, why in fitted.ranges.rows()),
        spectrum_in_words(measured.look, [box.look for box in fitted.boxes]),
    ]
    if measured.beads:
        lines.append(f"gold: {measured.beads} beads were left out of the measurement")
    if fitted.left:
        lines.append("not reached: " + "; ".join(fitted.left))
    if times > 1.2:
        lines.append(f"each box of the recipe is {times:.1f} times as thick as the simulated ones")
    return [*lines, f"{page_of(to)} shows both spectra"]


def _write_page(to: Path, tomogram: str, measured: Measured, fitted: Fitted) -> None:
    looks = [box.look for box in fitted.boxes]
    low, high = envelope(looks)
    size = measured.look.voxel_size
    frequency = (np.arange(SHELLS) + 0.5) / SHELLS / (2 * size) * 10  # 1/nm
    ours = np.array(measured.look.shells)
    lines = [
        *(
            charts.Line("rate", "one simulated box" if k == 0 else "", frequency, 100 * np.array(look.shells))
            for k, look in enumerate(looks)
        ),
        charts.Line("c0", "least and most of the simulated boxes", frequency, 100 * low),
        charts.Line("c0", "", frequency, 100 * high),
        charts.Line("c1", tomogram, frequency, 100 * ours, dots=True),
    ]
    factors = outside(measured.look, looks)
    rows = [
        (
            f"{10 / f:,.1f}",
            f"{100 * o:.2f}",
            f"{100 * a:.2f}",
            f"{100 * b:.2f}",
            "yes" if x == 1 else f"{x:.2f} times the {'most' if x > 1 else 'least'}",
        )
        for f, o, a, b, x in zip(frequency, ours, low, high, factors, strict=True)
    ]
    boxes = [(box.corner.words(), *(f"{100 * v:.1f}" for v in box.look.shells[:6])) for box in fitted.boxes]
    html = render.page(
        "match.html",
        title=f"{to.name} and {tomogram}",
        lead=spectrum_in_words(measured.look, looks),
        chart=charts.lines(
            "Power by frequency", "frequency, 1/nm", lines, low=0, top=_top(100 * ours, 100 * high)
        ),
        settings=fitted.ranges.rows(),
        words=("length, Å", "tomogram, %", "least simulated, %", "most simulated, %", "between"),
        rows=rows,
        box_words=("box", *(f"shell {k + 1}, %" for k in range(6))),
        boxes=boxes,
    )
    page = page_of(str(to))
    page.parent.mkdir(parents=True, exist_ok=True)
    with replacing(page, ending=".html") as aside:
        aside.write_text(html, encoding="utf-8")


def _top(ours: Any, high: Any) -> float:
    """Height of the chart: the first shell may be far above the others, and is cut there."""
    others = float(max(ours[1:].max(), high[1:].max()))
    return max(1.3 * others, min(float(max(ours[0], high[0])), 3 * others))
