"""``tlgen view CORPUS``: draw a simulated tomogram without and with its labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from catalogs.atomic_write import write_text
from catalogs.console import nearest
from catalogs.corpus.catalog import Catalog, sample_record_of
from catalogs.corpus.sample_names import names_for_people
from catalogs.errors import InputError
from catalogs.pages import render as pages
from catalogs.pages.pictures import bar_length, png
from catalogs.particles import DISTRACTOR
from catalogs.schema import SampleRecord
from tlgen.scene.view import Colour, class_colours

if TYPE_CHECKING:
    from PIL import Image

_SPREADS = 3.0  # grey values are shown up to this many spreads from their centre
_WIDTH, _MARGIN, _GAP, _LINE = 1480, 36, 14, 26
_INK, _QUIET, _PAPER = (28, 30, 33), (110, 115, 122), (255, 255, 255)


def view_sample(url: str, sample: str | None, path: str | os.PathLike[str]) -> tuple[str, list[str]]:
    """Draw sections through the middle of a sample's tomogram, without and with the outlines of its labels.

    Parameters
    ----------
    url
        A corpus, or a sample of one.
    sample
        Name or id of the sample; None: the first one by name, or the one that ``url`` is.
    path
        ``.png`` or ``.html``.

    Returns
    -------
    tuple
        Name of the sample, and its description in a few lines.

    Raises
    ------
    InputError
        If there is no such corpus or sample, or the ending is another one.
    """
    file = Path(path)
    if file.suffix.lower() not in (".png", ".html"):
        raise InputError(f"{file}: a tomogram is drawn as .png or .html")
    catalog, record, name = _chosen(url, sample)
    lines = describe(record)
    file.parent.mkdir(parents=True, exist_ok=True)
    sections, legend = _sections(catalog, record), _legend(catalog, record)
    if file.suffix.lower() == ".png":
        _sheet(sections, legend, name, lines).save(file)
    else:
        said = [_for_a_page(line) for line in lines]
        page = pages.page("sample.html", title=name, lines=said, sections=png(sections), legend=legend)
        write_text(file, page)
    return name, lines


def _for_a_page(line: str) -> str:
    """Write units as they are where the font has all letters."""
    line = line.replace("e per square angstrom", "e/Å²").replace("angstrom", "Å")
    return line.replace("um under focus", "µm underfocus").replace(" degrees", "°")


def is_sample(url: str) -> bool:
    """Tell whether this is a corpus or a sample of one."""
    return Catalog.exists(url) or ("/samples/" in url and sample_record_of(url) is not None)


def _chosen(url: str, sample: str | None) -> tuple[Catalog, SampleRecord, str]:
    if not Catalog.exists(url):
        own = sample_record_of(url)
        if own is None:
            raise InputError(f"{url} is neither a corpus nor a sample of one")
        catalog = Catalog.open(url.rpartition("/samples/")[0])
        return catalog, own, names_for_people(catalog.records())[own.sample_id]
    catalog = Catalog.open(url)
    records = {record.sample_id: record for record in catalog.records()}
    if not records:
        raise InputError(f"the corpus {url} has no samples yet; tlgen run makes them")
    names = names_for_people(records.values())
    wanted = min(names.values()) if sample is None else sample
    ids = [each for each, name in names.items() if wanted in (each, name)]
    if not ids:
        raise InputError(f"the corpus {url} has no sample {wanted}{nearest(wanted, names.values())}")
    return catalog, records[ids[0]], names[ids[0]]


def describe(record: SampleRecord) -> list[str]:
    """Describe a sample, using only letters that the font of pictures has."""
    z, y, x = record.shape
    acq = record.acquisition
    return [
        f"{x} x {y} x {z} voxels of {acq.voxel_size:g} angstrom; split {record.split}; engine {acq.engine}",
        f"{record.n_tilts} tilts from {acq.tilt_min:g} to {acq.tilt_max:g} degrees, {acq.dose:.0f} e per "
        f"square angstrom, {acq.defocus:.2f} um under focus",
        f"{record.n_particles} particles of the targets, {record.n_distractors} distractors, "
        f"{100 * record.occupancy:.0f} % of the box full",
    ]


def _colours(catalog: Catalog) -> dict[str, Colour]:
    return class_colours([info.name for info in sorted(catalog.classes, key=lambda info: info.label)])


def _legend(catalog: Catalog, record: SampleRecord) -> list[tuple[str, int, Colour]]:
    """List the classes with the number of their particles and their colours."""
    colours = _colours(catalog)
    return [
        *((each, record.class_counts.get(each, 0), colours[each]) for each in record.class_counts),
        (DISTRACTOR, record.n_distractors, colours[DISTRACTOR]),
    ]


def _sections(catalog: Catalog, record: SampleRecord) -> Image.Image:
    """Draw three sections, without and with the outlines of the labels."""
    from PIL import Image, ImageDraw

    colours = _colours(catalog)
    numbers = {info.label: colours[info.name] for info in catalog.classes} | {0: colours[DISTRACTOR]}
    arrays = catalog.arrays(record.sample_id)
    z, y, x = record.shape
    width = (_WIDTH - 2 * _MARGIN - 2 * _GAP) // 2
    scale = (width - _GAP) / (x + z)
    image = Image.new("RGB", (_WIDTH - 2 * _MARGIN, round((y + z) * scale) + _GAP), _PAPER)
    for axis, left, top in ((0, 0.0, 0.0), (2, x * scale + _GAP, 0.0), (1, 0.0, y * scale + _GAP)):
        for k, picture in enumerate(_pictures(arrays, record, axis, scale, numbers)):
            place = (round(left) + k * (width + 2 * _GAP), round(top))
            image.paste(Image.fromarray(picture), place)
    _draw_bar(ImageDraw.Draw(image), round(y * scale), scale / record.acquisition.voxel_size)
    return image


def _sheet(
    sections: Image.Image, legend: Sequence[tuple[str, int, Colour]], name: str, lines: Sequence[str]
) -> Image.Image:
    """Put the sections below the name and the description of the sample, and the legend below them."""
    from PIL import Image, ImageDraw

    head = 72 + _LINE * len(lines) + _LINE
    below = head + sections.height + 2 * _GAP
    image = Image.new("RGB", (_WIDTH, below + _LINE * len(legend) + _MARGIN), _PAPER)
    image.paste(sections, (_MARGIN, head))
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, 24), name, font=_font(30), fill=_INK)
    for k, line in enumerate(lines):
        draw.text((_MARGIN, 72 + _LINE * k), line, font=_font(17), fill=_QUIET)
    for k, (each, count, colour) in enumerate(legend):
        top = below + _LINE * k
        draw.rectangle((_MARGIN, top + 2, _MARGIN + 16, top + 18), outline=colour, width=3)
        draw.text((_MARGIN + 28, top), f"{count} {each}", font=_font(17), fill=_INK)
    return image


def _draw_bar(draw: Any, low: int, per_angstrom: float) -> None:
    length = bar_length(200 / per_angstrom)
    right = 14 + round(length * per_angstrom)
    draw.rectangle((8, low - 46, max(right, 80) + 8, low - 6), fill=_PAPER)
    draw.rectangle((14, low - 16, right, low - 12), fill=_INK)
    draw.text((14, low - 42), f"{length / 10:g} nm", font=_font(16), fill=_INK)


def _pictures(
    arrays: Any, record: SampleRecord, axis: int, scale: float, colours: dict[int, Colour]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw the plane through the middle at right angles to an axis (0: z), bare and with outlines."""
    where = tuple(record.shape[k] // 2 if k == axis else slice(None) for k in range(3))
    grey, classes, instances = (
        np.asarray(arrays[each][where]) for each in ("tomogram", "classes", "instances")
    )
    if axis == 2:  # beside the first panel: y goes down, z to the right
        grey, classes, instances = grey.T, classes.T, instances.T
    centre, reach = record.intensity.centre, _SPREADS * record.intensity.spread
    shades = np.clip((grey - centre + reach) / (2 * reach), 0, 1) * 255
    rows, columns = (
        np.minimum((np.arange(max(1, round(n * scale))) / scale).astype(int), n - 1) for n in grey.shape
    )
    fine, which, label = (volume[np.ix_(rows, columns)] for volume in (shades, instances, classes))
    bare = np.repeat(np.rint(fine).astype(np.uint8)[..., None], 3, axis=2)
    border = (which > 0) & (ndimage.minimum_filter(which, 5) != ndimage.maximum_filter(which, 5))
    outlined = bare.copy()
    for number, colour in colours.items():
        outlined[border & (label == number)] = colour
    return bare, outlined


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
