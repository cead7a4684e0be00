"""``tlgen view``: draw a scene as a picture or a page, with three sections, the gaps and the counts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from colorsys import hls_to_rgb
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from catalogs.atomic_write import write_text
from catalogs.errors import InputError
from catalogs.pages import charts
from catalogs.pages import render as pages
from catalogs.pages.charts import Chart, Group
from catalogs.pages.pictures import PALETTE, bar_length, png
from catalogs.particles import DISTRACTOR
from tlgen.molecules.molecule import DALTON_PER_CUBIC_ANGSTROM, Library
from tlgen.packing.distances import nearest_of
from tlgen.scene.labels import label
from tlgen.scene.scene import Grid, Scene

if TYPE_CHECKING:
    from PIL import Image

Colour = tuple[int, int, int]

#: Å; gaps beyond it are not measured.
FARTHEST = 50.0
_BIN = 2.0  # Å; of the histogram
_WIDTH = 1480  # pixels of the picture
_MARGIN = 36
_SECTIONS = 960  # of them for the sections
_FINER = 2  # sections are drawn this many times finer and averaged
_ROWS = 14
_INK, _QUIET, _PAPER = (28, 30, 33), (110, 115, 122), (255, 255, 255)
_OWN: dict[str, Colour] = {
    DISTRACTOR: (150, 154, 160), "membrane": (139, 101, 72), "gold": (205, 160, 20), "carbon": (58, 58, 60),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A class, or a distractor: its colour, how many were asked for, and how many were placed.

    ``asked`` is None for as many as fit, and -1 for a single distractor, because only the sum is asked for.
    """

    name: str
    colour: Colour
    asked: int | None
    placed: int

    @property
    def is_part(self) -> bool:
        """Whether it is one of the distractors."""
        return self.asked == -1


@dataclass(frozen=True, eq=False)
class Facts:
    """The numbers in the picture.

    Attributes
    ----------
    rows
        Of the table of classes.
    cut
        Molecules that a face of the box cuts.
    concentration
        mg/ml of molecules in the box.
    occupancy
        Share of the box that they fill, at 1.35 g/cm³.
    nearest_distances
        (n,) Å from each molecule to the nearest other; infinite beyond :data:`FARTHEST`.
    """

    rows: tuple[Row, ...]
    cut: int
    concentration: float
    occupancy: float
    nearest_distances: NDArray[np.float64]


def view(scene: Scene, library: Library, path: str | os.PathLike[str], *, title: str = "scene") -> Facts:
    """Draw a scene into a file.

    Parameters
    ----------
    scene, library
        The scene, and its molecules by digest.
    path
        ``.png`` or ``.html``.
    title
        Above it.

    Returns
    -------
    Facts
        The numbers in the picture.

    Raises
    ------
    InputError
        If the file has another ending.
    """
    file = Path(path)
    if file.suffix.lower() not in (".png", ".html"):
        raise InputError(f"{file}: a scene is drawn as .png or .html")
    facts = measure(scene, library)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix.lower() == ".png":
        _sheet(scene, library, facts, title).save(file)
    else:
        write_text(file, _page(scene, library, facts, title))
    return facts


def picture(scene: Scene, library: Library, *, title: str = "scene") -> Image.Image:
    """Draw a scene as :func:`view` does, into an image of Pillow."""
    return _sheet(scene, library, measure(scene, library), title)


def measure(scene: Scene, library: Library) -> Facts:
    """Count what stands in a scene and measure the gaps between molecules."""
    n = len(scene.which)
    names = (DISTRACTOR, *scene.class_names)
    placed = Counter(names[scene.labels[k]] for k in scene.which)
    placed.update(decoration.class_name for decoration in scene.decorations)
    colours = colours_of(scene)
    order = [*scene.class_names, DISTRACTOR]
    rows = [
        Row(c, colours[c], scene.asked.get(c), placed[c]) for c in order if placed[c] or scene.asked.get(c)
    ]
    others = Counter(scene.names[k] for k in scene.which if not scene.labels[k])
    rows += [Row(name, colours[_own(name)], -1, count) for name, count in others.most_common()]
    inside = scene.inside(library)
    mass = sum(library[scene.digests[k]].mass * share for k, share in zip(scene.which, inside, strict=True))
    density = mass / float(np.prod(scene.box))
    return Facts(
        rows=tuple(rows),
        cut=int((inside < 1).sum()),
        concentration=density * 1660.53907,
        occupancy=density / DALTON_PER_CUBIC_ANGSTROM,
        nearest_distances=nearest_of([scene.atoms(i, library) for i in range(n)], within=FARTHEST),
    )


def describe(scene: Scene, facts: Facts) -> list[str]:
    """Write the facts in a few lines, using only letters that the font of pictures has."""
    x, y, z = (length / 10 for length in scene.box)
    cut = f", {facts.cut} of them cut by its faces" if facts.cut else ""
    lines = [
        f"box of {x:.4g} x {y:.4g} x {z:.4g} nm, voxels of {scene.voxel_size / 10:g} nm",
        f"{len(scene.which)} molecules{cut}: {facts.concentration:.0f} mg/ml, "
        f"{100 * facts.occupancy:.1f} % of the box",
    ]
    near = facts.nearest_distances[np.isfinite(facts.nearest_distances)]
    if len(near):
        lines.append(
            f"gap to the nearest molecule: {near.min():.1f} at least, median {np.median(near):.1f} angstrom"
        )
    return lines


def colours_of(scene: Scene) -> dict[str, Colour]:
    """Choose a colour for each class, for all distractors, and a dull one for each of them."""
    others = dict.fromkeys(name for name, label in zip(scene.names, scene.labels, strict=True) if not label)
    dull = {_own(name): _dull(k) for k, name in enumerate(others)}
    return class_colours(scene.class_names) | dull


def class_colours(names: Sequence[str]) -> dict[str, Colour]:
    """Choose a colour for each class of a corpus, and for distractors."""
    targets = [name for name in names if name not in _OWN]
    return _OWN | {name: PALETTE[k % len(PALETTE)] for k, name in enumerate(targets)}


def _own(structure: str) -> str:
    """Key of a distractor's own colour; no class has a name with a blank."""
    return f"{DISTRACTOR} {structure}"


def _dull(k: int) -> Colour:
    """Choose hues that are far apart for neighbours, all of them duller than the colours of classes."""
    red, green, blue = hls_to_rgb((0.08 + 0.618034 * k) % 1, 0.56, 0.3)
    return (round(255 * red), round(255 * green), round(255 * blue))


def _keys(scene: Scene) -> list[str]:
    """Key of the colour of each instance, in their order from 1 on."""
    molecules = [
        scene.class_names[scene.labels[k] - 1] if scene.labels[k] else _own(scene.names[k])
        for k in scene.which.tolist()
    ]
    return [*molecules, *(decoration.class_name for decoration in scene.decorations)]


# ---------------------------------------------------------------- sections


def section(scene: Scene, library: Library, axis: int, pixel: float) -> NDArray[np.uint8]:
    """Colour the plane through the middle of the box at right angles to an axis.

    Parameters
    ----------
    scene, library
        What stands where, and the molecules by digest.
    axis
        0 for x, 1 for y, 2 for z.
    pixel
        Å; the plane is drawn from labels of this size, not from the tomogram's.

    Returns
    -------
    ndarray, uint8
        (down, right, 3): for axis 2 (y, x), for axis 0 (y, z), for axis 1 (z, x).
    """
    box = np.array(scene.box)
    counts = np.maximum(np.rint(box / pixel).astype(int), 1)
    counts[axis] = 1
    origin = scene.centre - (counts - 1) / 2 * pixel
    x, y, z = counts.tolist()
    grid = Grid((z, y, x), pixel, (float(origin[0]), float(origin[1]), float(origin[2])))
    _, instances = label(scene, library, grid=grid)
    which = np.take(instances, 0, axis=2 - axis)
    if axis == 0:
        which = which.T

    colours, keys = colours_of(scene), _keys(scene)
    edge = np.array([(255, 255, 255), *(colours[key] for key in keys)], np.float64)
    pale = np.array([1.0, *(0.65 if key.startswith(DISTRACTOR) else 0.45 for key in keys)])
    body = edge + (255 - edge) * pale[:, None]
    picture = body[which]
    size = 2 * _FINER - 1
    border = (which > 0) & (ndimage.minimum_filter(which, size) != ndimage.maximum_filter(which, size))
    picture[border] = edge[which[border]] * 0.8
    return np.asarray(np.rint(picture), np.uint8)


def _sections(scene: Scene, library: Library, width: int) -> Any:
    """Draw the three planes beside and below each other."""
    from PIL import Image, ImageDraw

    box = np.array(scene.box)
    between, above = 16, 26
    scale = (width - between) / (box[0] + box[2])
    x, y, z = (max(1, round(length * scale)) for length in box)
    image = Image.new("RGB", (width, y + z + 2 * above + between), _PAPER)
    draw = ImageDraw.Draw(image)
    panels = (
        (2, 0, above, x, y, "x right, y down"),
        (0, x + between, above, z, y, "z right, y down"),
        (1, 0, y + 2 * above + between, x, z, "x right, z down"),
    )
    for axis, left, top, wide, high, words in panels:
        fine = section(scene, library, axis, 1 / scale / _FINER)
        picture = Image.fromarray(fine).resize((wide, high), Image.Resampling.BOX)
        image.paste(picture, (left, top))
        draw.rectangle((left, top, left + wide - 1, top + high - 1), outline=_INK)
        draw.text((left, top - 22), words, font=_font(15), fill=_QUIET)
        _ticks(draw, left, top, wide, high)
    length = bar_length(0.25 * box[0])
    left, low = 14, above + y - 18
    draw.rectangle((left - 6, low - 26, left + max(length * scale, 60) + 8, low + 10), fill=_PAPER)
    draw.rectangle((left, low, left + length * scale, low + 4), fill=_INK)
    draw.text((left, low - 22), f"{length / 10:g} nm", font=_font(16), fill=_INK)
    return image


def _ticks(draw: Any, left: int, top: int, wide: int, high: int) -> None:
    """Mark at a panel's edges where the other two planes cut it, which is in the middle."""
    x, y = left + wide / 2, top + high / 2
    for start, end in (
        ((x, top), (x, top + 9)), ((x, top + high - 10), (x, top + high - 1)),
        ((left, y), (left + 9, y)), ((left + wide - 10, y), (left + wide - 1, y)),
    ):  # fmt: skip
        draw.line((start, end), fill=_INK, width=2)


# ---------------------------------------------------------------- gaps and counts


def _gaps(gaps: NDArray[np.float64]) -> tuple[str, Chart]:
    """Draw how many molecules are how near to their nearest neighbour, and say it in a line."""
    near = gaps[np.isfinite(gaps)]
    beyond = len(gaps) - len(near)
    words = f"none within {FARTHEST:g} angstrom"
    if len(near):
        words = f"least {near.min():.1f}, median {np.median(near):.1f} angstrom"
        words += f"; {beyond} beyond {FARTHEST:g}" if beyond else ""
    chart = charts.histogram(
        "Histogram of the gaps between neighbouring molecules",
        "angstrom, atom to atom",
        [Group("c0", "molecules", near)],
        low=0,
        high=FARTHEST,
        bins=round(FARTHEST / _BIN),
    )
    return words, chart


def _drawn_gaps(gaps: NDArray[np.float64], width: int) -> Any:
    """Put the chart of the gaps below its title."""
    from PIL import Image, ImageDraw

    words, chart = _gaps(gaps)
    colours = {"c0": PALETTE[0], "grid": (225, 227, 230), "text": _QUIET}
    drawn = chart.picture(width, colours) if chart.shapes else Image.new("RGB", (width, 1), _PAPER)
    image = Image.new("RGB", (width, drawn.height + 56), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((0, 0), "Gap to the nearest molecule", font=_font(20), fill=_INK)
    draw.text((0, 30), words, font=_font(16), fill=_QUIET)
    image.paste(drawn, (0, 56))
    return image


def _table(rows: Sequence[Row], width: int) -> Any:
    """Draw the classes with their colours and counts."""
    from PIL import Image, ImageDraw

    shown = rows[:_ROWS]
    more = len(rows) - len(shown)
    image = Image.new("RGB", (width, 64 + 28 * (len(shown) + bool(more))), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((0, 0), "Classes", font=_font(20), fill=_INK)
    columns = (width - 110, width - 8)
    for x, word in zip(columns, ("asked", "placed"), strict=True):
        draw.text((x, 32), word, font=_font(15), fill=_QUIET, anchor="ra")
    for k, row in enumerate(shown):
        y, left = 58 + 28 * k, 22 if row.is_part else 0
        draw.rectangle((left, y + 2, left + 16, y + 18), fill=_paler(row), outline=row.colour, width=2)
        draw.text((left + 28, y), _short(row.name), font=_font(17), fill=_INK)
        for x, word in zip(columns, (_asked(row), str(row.placed)), strict=True):
            draw.text((x, y), word, font=_font(17), fill=_INK, anchor="ra")
    if more:
        draw.text((28, 58 + 28 * len(shown)), f"and {more} more", font=_font(17), fill=_QUIET)
    return image


def _paler(row: Row) -> Colour:
    red, green, blue = (
        round(value + (255 - value) * (0.65 if row.is_part or row.name == DISTRACTOR else 0.45))
        for value in row.colour
    )
    return (red, green, blue)


def _asked(row: Row) -> str:
    return "fill" if row.asked is None else "" if row.is_part else str(row.asked)


def _short(name: str, longest: int = 26) -> str:
    return name if len(name) <= longest else name[: longest - 3] + "..."


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


# ---------------------------------------------------------------- the file


def _sheet(scene: Scene, library: Library, facts: Facts, title: str) -> Image.Image:
    """Put everything onto one picture."""
    from PIL import Image, ImageDraw

    column = _WIDTH - 3 * _MARGIN - _SECTIONS
    lines = describe(scene, facts)
    head = 84 + 24 * len(lines)
    parts = [_table(facts.rows, column), _drawn_gaps(facts.nearest_distances, column)]
    sections = _sections(scene, library, _SECTIONS)
    height = head + max(sections.height, sum(part.height for part in parts) + 30) + _MARGIN
    image = Image.new("RGB", (_WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, 26), title, font=_font(30), fill=_INK)
    for k, line in enumerate(lines):
        draw.text((_MARGIN, 68 + 24 * k), line, font=_font(17), fill=_QUIET)
    image.paste(sections, (_MARGIN, head))
    y = head
    for part in parts:
        image.paste(part, (2 * _MARGIN + _SECTIONS, y))
        y += part.height + 30
    return image


def _page(scene: Scene, library: Library, facts: Facts, title: str) -> str:
    """Put everything onto a self-contained page."""
    rows = [
        {
            "name": f"{DISTRACTOR} {row.name}" if row.is_part else row.name,
            "colour": row.colour,
            "paler": _paler(row),
            "asked": "as many as fit" if row.asked is None else _asked(row),
            "placed": row.placed,
        }
        for row in facts.rows
    ]
    words, chart = _gaps(facts.nearest_distances)
    return pages.page(
        "scene.html",
        title=title,
        lines=[line.replace("angstrom", "Å") for line in describe(scene, facts)],
        sections=png(_sections(scene, library, _SECTIONS)),
        rows=rows,
        said_of_gaps=words.replace("angstrom", "Å"),
        gaps=chart,
    )
