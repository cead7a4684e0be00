"""``tlgen pack``: the scene of one sample of a recipe, without its images."""

from __future__ import annotations

import click

from catalogs.progress import ProgressLine
from tlgen import api
from tlgen.recipes.recipe import Recipe
from tlgen.runs.unplaced_molecules import shortfall
from tlgen.scene.scene_file import check_target
from tlgen.scene.view import describe


def pack(recipe: Recipe, folder: str, sample: str | None, voxel_size: float) -> None:
    """Pack one sample of a recipe, write its scene into a folder and print its content."""
    check_target(folder, voxel_size)
    packed = api.pack(recipe, sample, progress=ProgressLine)
    packed.save(folder, voxel_size)
    facts = packed.measure()
    click.echo(f"{recipe.name}, {packed.name}, packed in {packed.seconds:.0f} CPU-s: {folder}")
    for line in describe(packed.scene, facts):
        click.echo(f"  {line}")
    for row in facts.rows:
        asked = "as many as fit" if row.asked is None else "" if row.is_part else f"of {row.asked}"
        name = f"  {row.name}" if row.is_part else row.name
        click.echo(f"  {name:20} {row.placed:5} {asked}".rstrip())
    if packed.occupancy is not None and packed.packing is not None:
        for line in shortfall(packed.scene, packed.occupancy, packed.packing):
            click.echo(f"  {line}")
