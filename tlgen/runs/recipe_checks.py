"""Checks of a recipe before any structure is fetched or read.

Reading the structures of a crowded recipe takes minutes. A bead that is thicker than the ice, or a misspelt
file, is found at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from catalogs.errors import InputError
from catalogs.schema import ClassInfo
from tlgen.molecules import modes
from tlgen.recipes.recipe import Recipe
from tlgen.recipes.samples import SampleSpec, expand
from tlgen.runs import make_sample, prepare_structures
from tlgen.runs.costs import like
from tlgen.scene import place_decorations
from tlgen.simulate.engine import engine


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe if some sample could not be made; reads and fetches no structure.

    Parameters
    ----------
    recipe
        A recipe with valid keys and values.

    Raises
    ------
    InputError
        An engine does not support the acquisition of a sample, decorations are larger than the thickness of
        the ice or have the name of a target, or a structure is neither an existing file nor the id of an
        entry.
    """
    classes = [ClassInfo(name=name, label=k, radius=1.0) for k, name in enumerate(recipe.targets, start=1)]
    place_decorations.class_infos(recipe.decorations, classes)
    heights = set()
    for spec in expand(recipe, {}):
        engine(spec.acquisition.engine).check(spec.acquisition)
        heights.add(spec.shape[0] * spec.acquisition.voxel_size)
    for height in sorted(heights):
        place_decorations.check_fit(recipe.decorations, height)
    if find_spec("prody") is None and any(target.variants.number for target in recipe.targets.values()):
        raise InputError(modes.NEEDS_PRODY)
    prepare_structures.check_sources(recipe, prepare_structures.all_structures(recipe))


def check_decorations(recipe: Recipe, specs: Iterable[SampleSpec]) -> None:
    """Refuse decorations that an engine cannot simulate, checking the first sample of each kind.

    Parameters
    ----------
    recipe
        Of the samples.
    specs
        Samples with their own ids, by which decorations are placed.

    Raises
    ------
    InputError
        Says which decorations are too much, and what to do.
    """
    class_names = (*recipe.targets, *recipe.decorations.class_names)
    seen: set[str] = set()
    for spec in specs:
        if (kind := like(spec)) not in seen:
            seen.add(kind)
            make_sample.empty_scene(spec, class_names)
