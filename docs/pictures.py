"""The pictures of the home page, from a corpus and the picks of a run, and those of the gallery.

    python docs/pictures.py demo

reads ``demo/corpus`` and ``demo/picks``, as `make demo` leaves them, and writes ``docs/images/way-*.png`` and
``docs/images/demo.png``, the five in a row.

    tlgen run docs/gallery/cell.yaml --to gallery/cell
    python docs/pictures.py gallery

draws a plane of each sample of the corpora in ``gallery``, and the same with its labels, as
``gallery/gallery-*.jpg``. `make docs` does this for all recipes in ``docs/gallery``, through
``docs/make_gallery.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from catalogs import particles
from catalogs.corpus.catalog import Catalog
from catalogs.pages.pictures import PALETTE, bar_length

IMAGES = Path(__file__).parent / "images"
#: Width and height of each picture in pixels.
SIDE = 480
#: Edge of the pictures of the gallery.
_HALF = 432
ORANGE = np.array(PALETTE[1], float)
BLUE = np.array(PALETTE[4], float)


def grey(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Stretch an image between its 1st and 99th percentile."""
    low, high = np.percentile(image, (1, 99))
    return (255 * np.clip((image - low) / (high - low), 0, 1)).astype(np.uint8)


def square(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """Cut the middle square out of an image (y, x) or (y, x, 3)."""
    n = min(image.shape[:2])
    y, x = ((size - n) // 2 for size in image.shape[:2])
    return image[y : y + n, x : x + n]


def save(name: str, pixels: NDArray[np.uint8], pixel_size: float | None = None) -> Image.Image:
    """Write a picture, enlarged to :data:`SIDE`, with a scale bar if the size of its pixels (Å) is known."""
    wide = pixels.shape[1]
    picture = Image.fromarray(pixels).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    if pixel_size:
        length = bar_length(wide * pixel_size / 3)
        draw = ImageDraw.Draw(picture)
        right, across = SIDE - 16, length / pixel_size * SIDE / wide
        draw.rectangle((right - across, SIDE - 22, right, SIDE - 16), fill="white", outline="black")
        draw.text(
            (right - across, SIDE - 38),
            f"{length / 10:g} nm",
            fill="white",
            stroke_width=1,
            stroke_fill="black",
        )
    picture.save(IMAGES / f"way-{name}.png", optimize=True)
    return picture


def variants(corpus: Catalog, table: object) -> None:
    """Draw some variants of the target over each other, as projections of their atoms."""
    target = table[table["label"] > 0].iloc[0]  # type: ignore[index]
    bent = []
    for path in sorted(Path(corpus.url, "structures").glob("*.npz")):
        with np.load(path) as arrays:
            if "digests" in arrays or "positions" not in arrays:
                continue
            if str(arrays["name"]) == target["structure"]:
                xyz = arrays["positions"]
                bent.append(xyz[np.abs(xyz[:, 2]) < 15.0])  # a thin section, in which bending shows
    half = max(np.abs(xyz).max() for xyz in bent) * 1.05
    canvas = np.full((240, 240, 3), 255.0)
    for xyz, colour in zip(bent[:3], (PALETTE[0], PALETTE[1], PALETTE[2]), strict=False):
        counts, *_ = np.histogram2d(xyz[:, 1], xyz[:, 0], bins=240, range=[[-half, half]] * 2)
        thick = np.clip(counts / np.percentile(counts[counts > 0], 80), 0, 1)[..., None] * 0.55
        canvas = canvas * (1 - thick) + np.array(colour, float) * thick
    save("structures", canvas.astype(np.uint8), 2 * half / 240)


def main(folder: Path) -> None:
    """Write all pictures."""
    IMAGES.mkdir(exist_ok=True)
    corpus = Catalog.open(folder / "corpus")
    name = corpus.query("split == 'test'").index[0]
    sample, table, tilts = corpus.open_sample(name), corpus.particles(name), corpus.tilts(name)
    voxel = corpus.voxel_size
    variants(corpus, table)

    middle = sample.sizes["z"] // 2
    slab = slice(middle - 4, middle + 5)
    instances = sample["instances"][slab].max("z").to_numpy()
    shade = np.random.default_rng(0).uniform(0.55, 1.0, int(instances.max()) + 1)[instances][..., None]
    is_target = (sample["classes"][slab].max("z").to_numpy() > 0)[..., None]
    scene = np.where(is_target, ORANGE, BLUE) * shade
    scene = np.where((instances > 0)[..., None], scene, 250.0)
    save("scene", square(scene.astype(np.uint8)), voxel)

    angles = tilts["angle"].to_numpy()
    save("tilt", square(grey(tilts["images"][int(np.abs(angles).argmin())].to_numpy())), voxel)

    plane = grey(sample["tomogram"][middle - 1 : middle + 2].mean("z").to_numpy())[..., None].repeat(3, 2)
    mask = (sample["classes"][middle].to_numpy() > 0)[..., None]
    save("tomogram", square(np.where(mask, 0.6 * plane + 0.4 * ORANGE, plane).astype(np.uint8)), voxel)

    picks = particles.read(folder / "picks" / "particles.star")
    near = picks[np.abs(picks["z"] / voxel - middle) < 8]
    side = min(plane.shape[:2])
    picture = save("picks", square(plane), voxel)
    draw = ImageDraw.Draw(picture)
    for x, y in zip(near["x"], near["y"], strict=True):
        column, row = (
            (at / voxel - (size - side) / 2 + 0.5) * SIDE / side
            for at, size in ((x, plane.shape[1]), (y, plane.shape[0]))
        )
        r = corpus.classes[0].radius / voxel * SIDE / side
        draw.ellipse((column - r, row - r, column + r, row + r), outline=PALETTE[5], width=3)
    picture.save(IMAGES / "way-picks.png", optimize=True)

    steps = ("structures", "scene", "tilt", "tomogram", "picks")
    row = Image.new("RGB", (len(steps) * 300 + 4 * 8, 300), "white")
    for k, name in enumerate(steps):
        row.paste(Image.open(IMAGES / f"way-{name}.png").resize((300, 300)), (k * 308, 0))
    row.save(IMAGES / "demo.png", optimize=True)


def picture_of(sample_name: str) -> str:
    """Return the file name of a sample's picture: the group of ``near-focus-000`` names it."""
    return f"gallery-{sample_name.rpartition('-')[0]}.jpg"


def gallery(corpus: Catalog, sample_ids: Iterable[str], to: Path) -> None:
    """Write a picture of each of some samples: bare, and with the classes in colour."""
    for sample_id, row in corpus.samples.loc[list(sample_ids)].iterrows():
        sample = corpus.open_sample(str(sample_id))
        middle, spread = row["shape_z"] // 2, 3 * row["spread"]
        plane = sample["tomogram"][middle].to_numpy()
        shades = np.clip((plane - row["centre"] + spread) / (2 * spread), 0, 1)[..., None] * 255
        classes, instances = (sample[each][middle].to_numpy() for each in ("classes", "instances"))
        colours = np.array([(150, 154, 160), *PALETTE], float)[classes]
        labelled = np.where((instances > 0)[..., None], 0.35 * shades + 0.65 * colours, shades)
        wide = Image.new("RGB", (2 * _HALF + 8, _HALF), "white")
        for k, pixels in enumerate((shades.repeat(3, 2), labelled)):
            picture = Image.fromarray(pixels.astype(np.uint8))
            wide.paste(picture.resize((_HALF, _HALF), Image.Resampling.NEAREST), (k * (_HALF + 8), 0))
        length = bar_length(row["shape_x"] * row["voxel_size"] / 3)
        across = length / (row["shape_x"] * row["voxel_size"]) * _HALF
        draw = ImageDraw.Draw(wide)
        draw.rectangle((12, _HALF - 18, 12 + across, _HALF - 12), fill="white", outline="black")
        draw.text((12, _HALF - 34), f"{length / 10:g} nm", fill="white", stroke_width=1, stroke_fill="black")
        wide.save(to / picture_of(str(row["name"])), quality=80)


if __name__ == "__main__":
    given = Path(sys.argv[1])
    if (given / "picks").is_dir():
        main(given)
    else:
        for opened in (Catalog.open(url) for url in sorted(given.iterdir()) if Catalog.exists(url)):
            gallery(opened, opened.sample_ids(), given)
