"""Explain why fewer molecules were placed than asked for, and refuse boxes without room for any target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from catalogs.errors import InputError
from catalogs.particles import DISTRACTOR
from tlgen.molecules.molecule import Library, Molecule
from tlgen.recipes.recipe import Packing, Recipe
from tlgen.scene.scene import Scene

# A molecule's width is measured along its axes of inertia; along others it may be somewhat narrower.
_NARROWER = 0.8
# Å; larger boxes are not checked before packing, because reading structures takes seconds.
_AMPLE = 400.0
_TRIED = "in 200 tries for each"


def widths(molecule: Molecule) -> tuple[float, float, float]:
    """Measure how long a molecule is along its axes of inertia, in Å, the narrowest first."""
    points = np.asarray(molecule.points.positions, np.float64)
    _, axes = np.linalg.eigh(np.cov(points.T))
    a, b, c = sorted(np.ptp(points @ axes, axis=0).tolist())
    return a, b, c


def refuse_nothing_placed(scene: Scene, library: Library) -> None:
    """Refuse a scene without a single target, though some were asked for.

    Raises
    ------
    InputError
        It says how large the smallest target and the box are.
    """
    of_targets = [k for k, label in enumerate(scene.labels) if label]
    if not of_targets or any(scene.labels[k] for k in scene.which.tolist()):
        return
    smallest = min(of_targets, key=lambda k: library[scene.digests[k]].mass)
    raise InputError(_nothing(scene.names[smallest], library[scene.digests[smallest]], scene.box, "the box"))


def refuse_small_boxes(recipe: Recipe, targets: Iterable[Molecule]) -> None:
    """Refuse a recipe with a box that is too small for all its targets, according to their widths.

    Parameters
    ----------
    recipe
        Validated.
    targets
        Its structures; they are only read if a box is small.

    Raises
    ------
    InputError
        It names the box and a target.
    """
    size = recipe.voxel_size
    narrow: list[tuple[float, Molecule]] = []  # those that were read: the least width, and the molecule
    given = iter(targets)
    for name, (z, y, x), _ in recipe.boxes():
        box = (x * size, y * size, z * size)
        # parts outside of the box in x and y are cut
        least = box[2] if recipe.packing.faces == "cut" else min(box)
        fits = least >= _AMPLE or any(width * _NARROWER <= least for width, _ in narrow)
        while not fits:
            try:
                molecule = next(given)
            except StopIteration:
                break
            narrow.append((widths(molecule)[0], molecule))
            fits = narrow[-1][0] * _NARROWER <= least
        if not fits and narrow:
            _, molecule = min(narrow, key=lambda found: found[0])
            raise InputError(_nothing(molecule.name, molecule, box, f"the box of {name}"))


def _nothing(name: str, molecule: Molecule, box: tuple[float, float, float], called: str) -> str:
    width = " x ".join(f"{length:.0f}" for length in widths(molecule)[::-1])
    size = " x ".join(f"{length:.0f}" for length in box)
    return (
        f"no target has room in {called}: {name} is {width} Å large, the box {size} Å (x, y, z); "
        "give a larger shape, or fewer other molecules"
    )


def shortfall(scene: Scene, occupancy: float, packing: Packing) -> list[str]:
    """Say of which molecules fewer were placed than asked for, and why; empty if there are none.

    Parameters
    ----------
    scene
        Packed.
    occupancy
        Share of the box that molecules fill.
    packing
        How it was packed.

    Returns
    -------
    list of str
        Such as ``9 of 14 ribosome placed: no room is left for more, with 6 Å between molecules (they fill
        31 % of the box)``.
    """
    names = (DISTRACTOR, *scene.class_names)
    placed = Counter(names[scene.labels[k]] for k in scene.which.tolist())
    placed.update(decoration.class_name for decoration in scene.decorations)
    bodies = {decoration.class_name for decoration in scene.decorations} | (
        set(scene.class_names) - {scene.class_names[label - 1] for label in scene.labels if label}
    )
    lines = []
    for name, asked in scene.asked.items():
        if placed[name] >= asked:
            continue
        said = f"{placed[name]} of {asked} {name} placed"
        if name in bodies:
            lines.append(f"{said}: no place was found for more, {_TRIED}")
        else:
            beside = " beside the decorations" if scene.decorations else ""
            lines.append(
                f"{said}: no room is left for more{beside}, with {packing.gap:g} Å between molecules "
                f"(they fill {100 * occupancy:.0f} % of the box)"
            )
    return lines
