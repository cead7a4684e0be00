"""Generate a corpus: structures, variants, packing, simulation, reconstruction, labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalogs.lazy import exports

if TYPE_CHECKING:
    from tlgen.api import (
        fetch_structures,
        make,
        match,
        open_scene,
        pack,
        plan,
        reconstruct_series,
        simulate_tilts,
        write_variants,
    )
    from tlgen.recipes.recipe import Recipe
    from tlgen.recipes.recipe_file import read_recipe as load_recipe
    from tlgen.scene.packed_scene import PackedScene

__all__ = [
    "PackedScene",
    "Recipe",
    "fetch_structures",
    "load_recipe",
    "make",
    "match",
    "open_scene",
    "pack",
    "plan",
    "reconstruct_series",
    "simulate_tilts",
    "write_variants",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "PackedScene": "tlgen.scene.packed_scene",
        "Recipe": "tlgen.recipes.recipe",
        "fetch_structures": "tlgen.api",
        "load_recipe": "tlgen.recipes.recipe_file:read_recipe",
        "make": "tlgen.api",
        "match": "tlgen.api",
        "open_scene": "tlgen.api",
        "pack": "tlgen.api",
        "plan": "tlgen.api",
        "reconstruct_series": "tlgen.api",
        "simulate_tilts": "tlgen.api",
        "write_variants": "tlgen.api",
    },
)
