"""Generate a corpus: structures, variants, packing, simulation, reconstruction, labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalogs.lazy import exports

if TYPE_CHECKING:
    from tlgen.api import PackedScene, make, open_scene, pack, reconstruct_series, simulate_tilts
    from tlgen.recipes.recipe import Recipe
    from tlgen.recipes.recipe_file import read_recipe as load_recipe

__all__ = [
    "PackedScene",
    "Recipe",
    "load_recipe",
    "make",
    "open_scene",
    "pack",
    "reconstruct_series",
    "simulate_tilts",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "PackedScene": "tlgen.api",
        "Recipe": "tlgen.recipes.recipe",
        "load_recipe": "tlgen.recipes.recipe_file:read_recipe",
        "make": "tlgen.api",
        "open_scene": "tlgen.api",
        "pack": "tlgen.api",
        "reconstruct_series": "tlgen.api",
        "simulate_tilts": "tlgen.api",
    },
)
