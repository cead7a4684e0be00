"""Find unusual values in a recipe, which are most often in a wrong unit, before a run that takes hours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from catalogs.errors import InputError
from catalogs.schema import parse_tilt_series
from catalogs.usual_values import USUAL, doubt
from tlgen.recipes.drawn import Range
from tlgen.recipes.recipe import Recipe
from tlgen.scene.place_decorations import Decorations


def doubts(recipe: Recipe) -> dict[str, list[str]]:
    """List what is unusual about a recipe, except for the quantities that its key ``unusual`` allows.

    Returns
    -------
    dict
        Quantity -> sentences of :func:`catalogs.usual_values.doubt`, one for each place in the recipe.
    """
    found: dict[str, list[str]] = {}
    for quantity, words in _found(recipe):
        if quantity not in recipe.unusual:
            found.setdefault(quantity, []).append(words)
    if "voxel_size" in found:  # the size of the box depends on it
        found = {
            quantity: words for quantity, words in found.items() if quantity not in ("thickness", "edge")
        }
    return found


def refuse_unusual(found: Mapping[str, Sequence[str]], yes: bool, *, told: bool = True) -> None:
    """Refuse a recipe with unusual values, unless the user means them.

    Parameters
    ----------
    found
        Of :func:`doubts`.
    yes
        The user means them all.
    told
        The user has seen them already; otherwise the error names them.

    Raises
    ------
    InputError
        It says how to go on.
    """
    if found and not yes:
        values = "this value is" if sum(map(len, found.values())) == 1 else "these values are"
        words = "" if told else " -- ".join(each for some in found.values() for each in some) + "; "
        raise InputError(
            f"{words}{values} unusual, and often a wrong unit; correct the recipe; if intended, add "
            f"`yes`, or unusual: [{', '.join(found)}] to the recipe"
        )


def _found(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield each doubt with its quantity; a doubt about a value that several groups share is yielded once."""
    told = set()
    for quantity, value, called in _values(recipe):
        words = doubt(quantity, value, called=called)
        if words is not None and (quantity, value) not in told:
            told.add((quantity, value))
            yield quantity, words


def _values(recipe: Recipe) -> Iterator[tuple[str, float, str]]:
    """Yield all values that have limits: quantity, value, and key of the recipe."""
    for name, group in recipe.samples.items():
        words = {**recipe.acquisition, **group.acquisition, **group.grid}
        plate = True in _ends(words.get("phase_plate", False))
        for key, value in words.items():
            place = "acquisition" if key not in {*group.acquisition, *group.grid} else f"samples.{name}"
            for each in _ends(value):
                if key == "tilt_series" and isinstance(each, str) and each.strip():
                    yield "tilts", len(parse_tilt_series(each)[0]), f"{place}.{key}: the number of images"
                if key not in USUAL or isinstance(each, str | bool):
                    continue
                if key == "defocus" and plate and 0 <= each < USUAL[key].low:
                    continue  # a phase plate gives contrast in focus
                yield key, float(each), f"{place}.{key}"
        for voxel_size in _ends(words.get("voxel_size", 8.0)):
            z, y, x = (n * float(voxel_size) for n in group.shape or recipe.shape)
            where = f"samples.{name}.shape" if group.shape else "shape"
            yield "thickness", z, f"{where}: the box along z"
            yield "edge", min(y, x), f"{where}: the box along {'y' if y < x else 'x'}"
            yield "edge", max(y, x), f"{where}: the box along {'y' if y > x else 'x'}"
        yield "tilts", _most_tilts(words), f"samples.{name}: the number of tilts"
    total = sum(group.number * group.combinations for group in recipe.samples.values())
    yield "samples", total, "samples: the number of all of them"
    for name, target in recipe.targets.items():
        place = f"targets.{name}"
        yield "variants", target.variants.number, f"{place}.variants.number"
        if target.variants.number:
            yield from (("rmsd", each, f"{place}.variants.rmsd") for each in target.variants.rmsd)
        for structure in target.structures:
            for quantity in ("mass", "resolution"):
                if (given := getattr(structure, quantity)) is not None:
                    yield quantity, given, f"{place}.structures: {quantity}"
    for key, packing in recipe.packings():
        yield "gap", packing.gap, f"{key}.gap"
        if packing.concentration is not None:
            yield "concentration", packing.concentration, f"{key}.concentration"
    yield from _of_decorations(recipe.decorations)


def _of_decorations(spec: Decorations) -> Iterator[tuple[str, float, str]]:
    for some, key, quantity, place in (
        (spec.beads, "radius", "bead_radius", "decorations.beads.radius"),
        (spec.vesicles, "radius", "vesicle_radius", "decorations.vesicles.radius"),
        (spec.vesicles, "thickness", "membrane_thickness", "decorations.vesicles.thickness"),
        (spec.sheets, "thickness", "membrane_thickness", "decorations.sheets.thickness"),
        (spec.carbon, "thickness", "film_thickness", "decorations.carbon.thickness"),
    ):
        yield from ((quantity, end, place) for end in (getattr(some, key) if some else ()))


def _most_tilts(words: dict[str, Any]) -> int:
    """Count the tilts of the longest possible series of a group."""
    half = _ends(words.get("tilt_range", 60.0))
    low, high = _ends(words.get("tilt_min", -60.0)), _ends(words.get("tilt_max", 60.0))
    if "tilt_range" in words:
        low, high = [-float(each) for each in half], half
    step = min(float(each) for each in _ends(words.get("tilt_step", 2.0)))
    return math.floor((max(map(float, high)) - min(map(float, low))) / step + 1e-6) + 1


def _ends(value: Any) -> list[Any]:
    """All values that a parameter may take, or the ends of its range."""
    if isinstance(value, Range):
        return [value.min, value.max]
    return list(value) if isinstance(value, list) else [value]
