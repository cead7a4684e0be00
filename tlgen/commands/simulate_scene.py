"""``tlgen simulate``: images of a scene in a folder, to look at before a corpus is made."""

from __future__ import annotations

from pathlib import Path

import click

from catalogs.errors import InputError
from catalogs.volumes import write_mrc
from tlgen import api
from tlgen.recipes.recipe import Recipe


def simulate_scene(
    folder: str,
    recipe: Recipe,
    target: str,
    *,
    sample: str | None = None,
    angles: tuple[float, ...] = (),
    noise: bool = True,
) -> None:
    """Simulate tilt images of a scene; write them as an MRC stack with the angles (``.rawtlt``) beside it."""
    path = Path(target)
    if path.suffix != ".mrc":
        raise InputError(f"{path} must end in .mrc; give another name")
    made = api.simulate_tilts(api.open_scene(folder), recipe, sample, angles=angles, noise=noise)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mrc(path, made.images, made.pixel_size)
    path.with_suffix(".rawtlt").write_text("".join(f"{angle:.2f}\n" for angle in made.angles))
    click.echo(f"{path}: {len(made.tilts)} images by {made.engine}, device {', '.join(made.devices)}")
