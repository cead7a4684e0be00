"""``tlgen simulate``: images of a scene in a folder, to look at before a corpus is made of such."""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np

from catalogs import seeds
from catalogs.errors import InputError
from catalogs.volumes import write_mrc
from tlgen.commands.pack import choose
from tlgen.recipes.recipe import Recipe
from tlgen.recipes.samples import expand
from tlgen.scene.scene_file import read_scene
from tlgen.simulate import checks
from tlgen.simulate.engine import engine, in_calls
from tlgen.tilts.misalignment import misaligned, seen
from tlgen.tilts.scheme import Tilt, tilt_series


def simulate_scene(
    folder: str | Path,
    recipe: Recipe,
    target: str | Path,
    *,
    sample: str | None = None,
    angles: tuple[float, ...] = (),
    noise: bool = True,
) -> None:
    """Simulate tilt images of a scene with the acquisition of one sample of a recipe.

    Writes the images as an MRC stack by rising angle and, beside it, the angles (``.rawtlt``) as an alignment
    would believe them: errors of it are in the images. Ice, counts and these errors are random, but the same
    every time.

    Parameters
    ----------
    folder
        That holds the scene, as ``tlgen pack`` writes it; ``scene.json`` may be changed by hand.
    recipe
        Validated.
    target
        The MRC file.
    sample
        Name of the sample; the first one of the recipe if left out.
    angles
        Of the series, in degrees: only these. All of them if there are none.
    noise
        False: mean intensities, where vacuum is 1, instead of counts.

    Raises
    ------
    InputError
        If the scene or the acquisition cannot be simulated, or the series has no such angle.
    """
    path = Path(target)
    if path.suffix != ".mrc":
        raise InputError(f"{path} must end in .mrc; give another name")
    scene, library = read_scene(folder)
    spec = choose(expand(recipe, {}), sample, recipe.name)
    acq = spec.acquisition
    simulator = engine(acq.engine)
    simulator.check(acq)
    simulator.check_device(acq)
    simulator.check_scene(scene, library, acq)
    checks.check_overlaps(scene, library)
    seed, of_alignment = (
        seeds.seed(recipe.seed, recipe.name, spec.name, stage) for stage in ("simulate", "alignment")
    )
    tilts = _choose(misaligned(tilt_series(acq), acq, of_alignment), angles)

    path.parent.mkdir(parents=True, exist_ok=True)
    images, devices = [], set()
    for part in in_calls(simulator, acq, scene.shape, tilts):
        started = time.process_time()
        views = [seen(scene, tilt) for tilt in part]
        made, device = simulator.simulate_together(views, library, acq, seed, noise=noise)
        each = (time.process_time() - started) / len(part)
        for tilt, image in zip(part, made, strict=True):
            click.echo(
                f"  {tilt.angle:6.1f}°  number {tilt.index + 1} in time, {tilt.dose_before:5.1f} e/Å² before"
                f" it, mean {image.mean():.4g}, standard deviation {image.std():.4g}, {each:.1f} CPU-s"
            )
        images += made
        devices.add(device)
    write_mrc(path, np.stack(images), scene.voxel_size)
    path.with_suffix(".rawtlt").write_text("".join(f"{tilt.angle:.2f}\n" for tilt in tilts))
    click.echo(f"{path}: {len(tilts)} images by {simulator.version()}, device {', '.join(sorted(devices))}")


def _choose(tilts: list[Tilt], angles: tuple[float, ...]) -> list[Tilt]:
    """Choose tilts by their angles, all of those that a series takes again and again; by rising angle."""
    known = {tilt.angle for tilt in tilts}
    for angle in angles:
        if angle not in known:
            near = min(known, key=lambda each: abs(each - angle))
            raise InputError(f"--angle {angle:g}: the series has no such tilt; the nearest is {near:g}°")
    chosen = [tilt for tilt in tilts if tilt.angle in angles or not angles]
    return sorted(chosen, key=lambda tilt: tilt.angle)
