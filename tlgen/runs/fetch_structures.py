"""Fetch the structures of a recipe, so that it can be run without a network."""

from __future__ import annotations

import logging
from pathlib import Path

from catalogs.errors import InputError
from catalogs.progress import Progress, Silent
from tlgen.molecules import pdb, structures
from tlgen.recipes.recipe import Recipe
from tlgen.runs import prepare_structures

_log = logging.getLogger(__name__)


def fetch_structures(
    recipe: Recipe, folder: Path | None = None, progress: Progress = Silent
) -> dict[str, Path]:
    """Fetch the PDB entries that no installed package has, and log a line for each.

    Arguments, result and errors are those of :func:`tlgen.fetch_structures`.
    """
    if folder is not None:  # also if installed packages have all structures
        folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Path] = {}
    errors: list[InputError] = []
    wanted = list(dict.fromkeys(s.source for s in prepare_structures.all_structures(recipe) if not s.map))
    with progress("fetching", len(wanted), "structures") as line:
        for number, name in enumerate(wanted):
            try:
                entry = pdb.pdb_id(name)
                if entry is None or name.lower() in structures.shipped():
                    found[name] = structures.locate(name)
                else:  # an entry that is on this machine is copied, not fetched again
                    found[name] = pdb.bring(entry, folder)
            except pdb.Unreachable as error:
                left = ", ".join(wanted[number:])
                raise InputError(f"{error}; not fetched: {left}") from error
            except InputError as error:
                errors.append(error)
            if name in found:
                _log.info(f"{name}: {found[name]}")
            line.update(number + 1)
    structures.refuse_together(errors)
    return found
