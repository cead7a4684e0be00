"""``tlgen pack``: the scene of one sample of a recipe, without its images."""

from __future__ import annotations

from pathlib import Path

import click

from catalogs.console import nearest
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.private import scratch_folder
from tlgen.molecules.library import CorpusLibrary
from tlgen.recipes.recipe import Recipe
from tlgen.recipes.samples import SampleSpec, expand
from tlgen.runs import make_sample, prepare_structures, recipe_checks
from tlgen.runs.shortfall import refuse_nothing_placed, shortfall
from tlgen.scene.scene_file import COARSE, check_target, write_scene
from tlgen.scene.view import describe, measure
from tlrun.reporting.progress import ProgressLine


def pack(recipe: Recipe, folder: str | Path, sample: str | None = None, voxel_size: float = COARSE) -> None:
    """Pack one sample of a recipe and write its scene; it is the one that ``tlgen run`` would simulate.

    Parameters
    ----------
    recipe
        Validated.
    folder
        Where to, see :func:`tlgen.scene.scene_file.write_scene`.
    sample
        Name of the sample, such as ``train-000``; the first one of the recipe if left out.
    voxel_size
        Å; of the coarse density.

    Raises
    ------
    InputError
        If the recipe has no such sample or lacks a structure, no target has room in the box, or the folder
        holds something else.
    """
    check_target(folder, voxel_size)
    recipe_checks.check_recipe(recipe)
    wanted = prepare_structures.preparations(recipe)
    spec = choose(expand(recipe, {p.key: p.count for p in wanted}), sample, recipe.name)
    recipe_checks.check_decorations(recipe, [spec])
    prepare_structures.refuse_small_boxes(recipe)
    prepare_structures.refuse_targets_among_distractors(recipe)
    with scratch_folder("tlgen-pack-") as temporary:
        infos = prepare_structures.class_infos(recipe)
        corpus = temporary / "corpus"
        catalog = Catalog.create(
            str(corpus), classes=infos, recipe=recipe.model_dump(mode="json"), name=recipe.name
        )
        prepared = []
        with ProgressLine("structures and their variants", len(wanted), "structures") as progress:
            for preparation in wanted:
                prepared.append(prepare_structures.prepare(catalog.url, preparation))
                progress.update(len(prepared))
        packed = make_sample.pack_scene(catalog.url, spec, prepared, tuple(info.name for info in infos))
        library = CorpusLibrary(catalog.url)
        refuse_nothing_placed(packed.scene, library)
        write_scene(packed.scene, library, folder, name=spec.name, voxel_size=voxel_size)
        facts = measure(packed.scene, library)
    click.echo(f"{recipe.name}, {spec.name}, packed in {packed.seconds:.0f} CPU-s: {folder}")
    for line in describe(packed.scene, facts):
        click.echo(f"  {line}")
    for row in facts.rows:
        asked = "as many as fit" if row.asked is None else "" if row.is_part else f"of {row.asked}"
        name = f"  {row.name}" if row.is_part else row.name
        click.echo(f"  {name:20} {row.placed:5} {asked}".rstrip())
    for line in shortfall(packed.scene, packed.occupancy, spec.packing):
        click.echo(f"  {line}")


def choose(specs: list[SampleSpec], sample: str | None, recipe: str) -> SampleSpec:
    """Find a sample by its name."""
    names = [spec.name for spec in specs]
    if sample is None:
        return specs[0]
    if sample not in names:
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        raise InputError(f"recipe {recipe} has no sample {sample}{nearest(sample, names)}; it has {shown}")
    return specs[names.index(sample)]
