"""Draws docs/images/augmentation.png: what each augmentation makes of one patch.

    python docs/augmentation_pictures.py CORPUS

The patch is cut around a particle of the corpus' first tomogram, and its middle plane is shown. Effects that
show in other places are drawn stronger than they are by default.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from catalogs.catalog import Catalog
from catalogs.intensity import normalise
from catalogs.pictures import PALETTE
from tltrain.augment import NO_AUGMENTATION, Effect, augment

EDGE, ZOOM, GAP, HEAD, COLUMNS = 40, 4, 14, 24, 6
STRONG = {
    "half_turns": 1.0, "mirror": 1.0, "rotation": 180.0, "scale": 1.6, "offset": 1.5, "gamma": 5.0,
    "noise": 1.5, "spectrum": 0.8, "low_pass": 0.12, "wedge": 40.0, "cutout": 0.6,
}  # fmt: skip


def patch(url: str) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Cut a patch around the particle that stands most in the middle of its tomogram."""
    catalog = Catalog.open(url)
    record = catalog.records()[0]
    arrays, table = catalog.arrays(record.sample_id), catalog.particles(record.sample_id)
    table = table[table["label"] > 0]
    places = table[["z", "y", "x"]].to_numpy() / record.acquisition.voxel_size
    middle = np.array(record.shape) / 2
    place = places[np.abs((places - middle) / middle).max(axis=1).argmin()]
    corner = np.clip(np.rint(place - EDGE / 2).astype(int), 0, np.array(record.shape) - EDGE)
    where = tuple(slice(c, c + EDGE) for c in corner)
    grey = normalise(np.asarray(arrays["tomogram"][where]), record.intensity)
    acquisition = record.acquisition
    return grey, np.asarray(arrays["classes"][where]), (acquisition.tilt_min, acquisition.tilt_max)


def drawn(grey: np.ndarray, classes: np.ndarray) -> Image.Image:
    """Draw the middle plane with the outline of its labels; what is ignored is tinted red."""
    plane, labels = grey[EDGE // 2], classes[EDGE // 2].copy()
    values = np.clip((plane + 3) / 6, 0, 1)[..., None] * np.full(3, 255.0)
    ignored = labels == 255
    values[ignored] = 0.6 * values[ignored] + 0.4 * np.array([200, 60, 40])
    labels[ignored] = 0
    big = np.kron(values, np.ones((ZOOM, ZOOM, 1))).astype(np.uint8)
    body = np.kron(labels > 0, np.ones((ZOOM, ZOOM))).astype(bool)
    inner = body.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            inner &= np.roll(body, step, axis)
    big[body & ~inner] = PALETTE[5]
    return Image.fromarray(big)


def main() -> None:
    """Draw the picture."""
    grey, classes, tilts = patch(sys.argv[1])
    panels = [("as it is", drawn(grey, classes))]
    for name, strength in STRONG.items():
        how = type(NO_AUGMENTATION)(**{**vars(NO_AUGMENTATION), name: Effect(1.0, strength)})
        for seed in range(100):  # the first draw that shows the effect
            changed, labels = augment(grey, classes, np.random.default_rng(seed), how, tilts)
            cut = (labels[EDGE // 2] == 255).sum() > EDGE**2 / 8
            if cut if name == "cutout" else np.abs(changed - grey)[EDGE // 2].mean() > 0.2:
                break
        panels.append((name.replace("_", " "), drawn(changed, labels)))
    side = EDGE * ZOOM
    rows = -(-len(panels) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * (side + GAP) - GAP, rows * (side + HEAD + GAP) - GAP), (255, 255, 255))
    write, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for k, (title, picture) in enumerate(panels):
        x, y = (k % COLUMNS) * (side + GAP), (k // COLUMNS) * (side + HEAD + GAP)
        write.text((x, y + 2), title, (30, 30, 30), font=font)
        page.paste(picture, (x, y + HEAD))
    page.save(Path(__file__).parent / "images" / "augmentation.png", optimize=True)


if __name__ == "__main__":
    main()
