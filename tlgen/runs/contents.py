"""Describe what a recipe puts into a box."""

from __future__ import annotations

from collections.abc import Sequence

from catalogs.console import counted
from tlgen.recipes.recipe import Packing, Recipe
from tlgen.runs.prepare_structures import Preparation

_SHOWN = 6


def lines(recipe: Recipe, wanted: Sequence[Preparation]) -> list[str]:
    """List what will be in the boxes of a recipe: classes, distractors, decorations, for each box.

    Parameters
    ----------
    recipe
        Validated.
    wanted
        Its structures, from :func:`tlgen.runs.prepare_structures.preparations`.
    """
    said = []
    for label, (name, target) in enumerate(recipe.targets.items(), start=1):
        own = [p for p in wanted if p.label == label]
        variants = f", {target.variants.number} variants each" if target.variants.number else ", rigid"
        said.append(
            f"{name:<16} {_amount(recipe.packing, target.count)} of {_named(own, count=False)}{variants}"
        )
    others = [p for p in wanted if not p.label]
    total = sum(p.count for p in others)
    if others:
        said.append(f"{'distractors':<16} {_amount(recipe.packing, total)} of {_named(others, count=True)}")
    else:
        said.append(f"{'distractors':<16} none")
    for name, some in recipe.decorations:
        if name != "gap" and some is not None:
            low, high = some.number
            said.append(f"{name:<16} {low}" + (f" to {high}" if high != low else ""))
    boxes: dict[tuple[tuple[int, int, int], float], list[str]] = {}
    for (name, _), (_, shape, factor) in zip(recipe.samples.items(), recipe.boxes(), strict=True):
        boxes.setdefault((shape, factor), []).append(name)
    voxel_size = recipe.voxel_size
    for ((z, y, x), factor), names in boxes.items():
        size = " x ".join(f"{n * voxel_size / 10:.4g}" for n in (x, y, z))
        of = f", {factor:g} times these numbers" if factor != 1 else ""
        said.append(f"{'box':<16} {size} nm{of}: {', '.join(names)}")
    for name, group in recipe.samples.items():
        if group.packing is not None:
            keys = ", ".join(
                f"{key} {value}" for key, value in group.packing.model_dump(exclude_unset=True).items()
            )
            said.append(f"{'packing':<16} {keys}: {name}")
    return said


def _amount(packing: Packing, count: int) -> str:
    return f"{count}" if packing.asks_for_counts else f"{count} parts"


def _named(structures: Sequence[Preparation], *, count: bool) -> str:
    names = [f"{p.name}{f' ({p.count})' if count else ''}" for p in structures]
    if len(names) <= _SHOWN + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_SHOWN])} and {counted(len(names) - _SHOWN, 'other')}"
