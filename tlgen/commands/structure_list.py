"""``tlgen structures`` and ``tlgen fetch``: list structures, and fetch those of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from catalogs.errors import InputError
from tlgen.molecules import pdb, structures
from tlgen.recipes.recipe import Recipe
from tlgen.runs import prepare_structures

_ROW = "{:<12} {:>9} {:>10}  {}"


def shipped_lines() -> Iterator[str]:
    """List the structures that come with installed packages, with a description; reads none."""
    yield _ROW.format("name", "mass", "diameter", "is")
    there = structures.shipped()
    for name, facts in structures.FACTS.items():
        if name in there:
            yield _ROW.format(name, f"{facts.mass:,} kDa", f"{facts.diameter} Å", facts.what)


def described_lines(names: Sequence[str]) -> Iterator[str]:
    """Read structures and describe them.

    Raises
    ------
    InputError
        One cannot be read.
    """
    yield _ROW.format("name", "mass", "diameter", "file")
    for name in names:
        path = structures.locate(name)
        molecule = structures.load_structure(path)
        mass = f"{molecule.mass / 1e3:,.3g} kDa" if molecule.mass < 1e6 else f"{molecule.mass / 1e3:,.0f} kDa"
        yield _ROW.format(molecule.name, mass, f"{2 * molecule.radius:.0f} Å", path)


def fetch_all(recipe: Recipe, folder: Path | None) -> Iterator[str]:
    """Fetch the PDB entries of a recipe that no installed package ships; yields a line for each.

    Parameters
    ----------
    recipe
        Validated.
    folder
        Folder to write to; None: the cache.

    Raises
    ------
    InputError
        At the end, naming all that do not exist or could not be fetched.
    """
    errors: list[InputError] = []
    wanted = dict.fromkeys(s.source for s in prepare_structures.all_structures(recipe) if not s.map)
    for name in wanted:
        try:
            entry = pdb.pdb_id(name)
            if entry is None or name.lower() in structures.shipped():
                yield f"{name}: {structures.locate(name)}"
                continue
            # an entry that is on this machine is copied, not fetched again
            yield f"{name}: {pdb.bring(entry, folder)}"
        except pdb.Unreachable as error:
            left = list(wanted)[list(wanted).index(name) :]
            raise InputError(f"{error}; not fetched: {', '.join(left)}") from error
        except InputError as error:
            errors.append(error)
    structures.refuse_together(errors)
