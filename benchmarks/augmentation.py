"""What each augmentation costs a patch, and a picture of what it does.

    python benchmarks/augmentation.py                        # costs
    python benchmarks/augmentation.py --pictures docs/images # and pictures, one for each effect

The patch is cut around a ribosome of one tomogram that `tlgen run` makes by multislice simulation for this.
A picture shows a slice across the beam and the amplitudes in the plane of kx (right) and kz (up), summed over
ky, before and after: the missing wedge is the dark sector above and below the centre. Edges of the target's
label are orange; what the loss ignores is blue. Prints a table, and as the last line one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogs.corpus.catalog import Catalog
from catalogs.intensity import normalise
from catalogs.seeds import generator
from tltrain.data.augment import NO_AUGMENTATION, Augmentation, Changes, Effect, augment, draws
from tltrain.data.patch_sources import IGNORE

PATCH, ZOOM = 56, 3
PER_BLOCK = 8  # patches that are changed together
RECIPE = """
name: pictures
seed: 3
shape: [64, 96, 96]
targets:
  ribosome: {structures: [4v5d], count: 16}
distractors:
  - {file: 4v8r, count: 10}
  - {file: 4v1w, count: 14}
acquisition: {voxel_size: 10, dose: 120, defocus: 3, tilt_range: 60, tilt_step: 3, engine: multislice}
samples:
  train: {number: 1}
"""
#: What is shown where the usual strength would hardly be seen.
SHOWN = {
    "rotation": 30.0,
    "noise": 1.0,
    "scale": 2.0,
    "offset": 1.0,
    "gamma": 3.0,
    "spectrum": 0.8,
    "wedge": 25.0,
}

Patch = tuple[NDArray[np.float32], NDArray[np.uint8]]


def simulated(folder: Path) -> tuple[Patch, tuple[float, float]]:
    """Simulate a tomogram; return the patch around the target nearest to its middle, and its tilt range."""
    (folder / "pictures.yaml").write_text(RECIPE)
    command = [sys.executable, "-c", "from tlgen.cli import main; main()", "run"]
    subprocess.run(
        [*command, str(folder / "pictures.yaml"), "--to", str(folder / "corpus")],
        check=True,
        stdout=sys.stderr,
    )
    catalog = Catalog.open(folder / "corpus")
    record = catalog.records()[0]
    table = catalog.particles(record.sample_id)
    sites = table[table["label"] == 1][["z", "y", "x"]].to_numpy() / record.acquisition.voxel_size
    shape = np.array(record.shape)
    middle = sites[np.abs(sites - shape / 2).max(axis=1).argmin()]
    corner = np.clip(np.rint(middle - PATCH / 2).astype(int), 0, shape - PATCH)
    box = tuple(slice(c, c + PATCH) for c in corner)
    arrays = catalog.arrays(record.sample_id)
    grey = normalise(arrays["tomogram"][box], record.intensity)
    acquisition = record.acquisition
    return (grey, np.ascontiguousarray(arrays["classes"][box])), (acquisition.tilt_min, acquisition.tilt_max)


def cost(patch: Patch, how: Augmentation, tilts: tuple[float, float], n: int) -> float:
    """Measure CPU milliseconds a patch."""
    dice = draws(generator("cost"), PER_BLOCK + n)
    corners = np.zeros((PER_BLOCK, 3), np.int64)
    patches = [(np.empty_like(patch[0]), np.empty_like(patch[1])) for _ in range(PER_BLOCK)]

    def cut(first: int) -> None:
        some = Changes(dice[first : first + PER_BLOCK], how, tilts, PATCH)
        some.cut(*patch, corners, patches)

    cut(0)  # compiles, and makes what is made once
    begun = time.process_time()
    for first in range(PER_BLOCK, n + 1, PER_BLOCK):
        cut(first)
    return (time.process_time() - begun) / (n // PER_BLOCK * PER_BLOCK) * 1e3


def only(name: str, strength: float | None = None) -> Augmentation:
    """Switch one effect on, always."""
    usual: Effect = getattr(Augmentation(), name)
    return replace(NO_AUGMENTATION, **{name: Effect(1.0, usual.strength if strength is None else strength)})


def panels(patch: Patch, middle: int) -> NDArray[np.uint8]:
    """Draw a slice with the edges of labels, and amplitudes, side by side."""
    grey, classes = patch
    plane = np.clip((grey[middle] + 3) / 6 * 255, 0, 255).astype(np.uint8)
    colours = np.repeat(plane[..., None], 3, axis=2).repeat(ZOOM, 0).repeat(ZOOM, 1)
    labels = classes[middle].repeat(ZOOM, 0).repeat(ZOOM, 1)
    edges = np.zeros(labels.shape, bool)
    edges[1:] |= labels[1:] != labels[:-1]
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    colours[labels == IGNORE] = colours[labels == IGNORE] // 2 + np.array([0, 40, 110], np.uint8)
    colours[edges] = (230, 120, 0)
    window = np.hanning(PATCH + 2)[1:-1]
    tapered = grey * window[:, None, None] * window[None, :, None] * window
    power = np.fft.fftshift((np.abs(np.fft.fftn(tapered)) ** 2).sum(axis=1))[::-1]
    level = np.log(power + 1e-3 * power.max())
    level = np.clip((level - level.min()) / (level.max() - level.min()) * 255, 0, 255).astype(np.uint8)
    amplitudes = np.repeat(level[..., None], 3, axis=2).repeat(ZOOM, 0).repeat(ZOOM, 1)
    return np.hstack([colours, np.full((colours.shape[0], 6, 3), 255, np.uint8), amplitudes])


def picture(name: str, patch: Patch, tilts: tuple[float, float]) -> NDArray[np.uint8]:
    """Show a patch before and after; of many draws one that shows the effect well."""
    how = only(name, SHOWN.get(name))
    if name == "shift":  # done where a patch is cut: moved by a sixth of the edge
        moved = tuple(np.roll(volume, (0, PATCH // 6, -PATCH // 6), (0, 1, 2)) for volume in patch)
        after = (moved[0], moved[1])
    else:
        several = [augment(*patch, generator("picture", name, k), how, tilts) for k in range(16)]
        middle = PATCH // 2
        far = [
            float(np.abs(grey - patch[0])[middle].mean() + 10 * (labels == IGNORE)[middle].mean())
            for grey, labels in several
        ]
        after = several[int(np.argsort(far)[14])]
    gap = np.full((PATCH * ZOOM, 18, 3), 255, np.uint8)
    return np.hstack([panels(patch, PATCH // 2), gap, panels(after, PATCH // 2)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write pictures there")
    parser.add_argument("--patches", type=int, default=300, help="to measure on")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        patch, tilts = simulated(Path(folder))
    names = [field.name for field in fields(Augmentation)]
    nothing = cost(patch, NO_AUGMENTATION, tilts, given.patches)
    costs = {"nothing": nothing}
    costs |= {
        name: cost(patch, only(name), tilts, given.patches) - nothing for name in names if name != "shift"
    }
    costs["all, as trained with"] = cost(patch, Augmentation(), tilts, given.patches)
    print(f"{'CPU ms a patch of ' + str(PATCH) + ' voxels, when it is done':48s}")
    for name, value in costs.items():
        print(f"{name:24s}{value:8.2f}")
    if given.pictures:
        from PIL import Image

        given.pictures.mkdir(parents=True, exist_ok=True)
        for name in names:
            image = Image.fromarray(picture(name, patch, tilts))
            image.quantize(96).save(given.pictures / f"augment-{name.replace('_', '-')}.png", optimize=True)
        print(f"wrote {len(names)} pictures to {given.pictures}")
    print()
    print(json.dumps({"patch": PATCH, "ms": {name: round(value, 3) for name, value in costs.items()}}))


if __name__ == "__main__":
    main()
