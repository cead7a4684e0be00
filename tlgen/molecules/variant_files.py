"""``tlgen variants``: write the flexible variants of a recipe's targets to files for inspection."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from catalogs.atomic_write import replacing
from catalogs.errors import InputError
from tlgen.molecules import modes
from tlgen.molecules.molecule import Molecule
from tlgen.molecules.structures import Site, sites
from tlgen.recipes.recipe import Recipe
from tlgen.runs import prepare_structures

_log = logging.getLogger(__name__)

_COLUMNS = (
    "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id",
    "label_entity_id", "label_seq_id", "auth_seq_id", "pdbx_PDB_ins_code", "auth_asym_id", "Cartn_x",
    "Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv", "pdbx_PDB_model_num",
)  # fmt: skip
# The PDB's component id for unknown atoms.
_UNKNOWN = "UNX"


def write_variants(recipe: Recipe, folder: Path) -> pd.DataFrame:
    """Write each target structure and its variants to one mmCIF file of several models, and ``variants.csv``.

    Model 1 is the original structure and model 2 + i is variant i. They are exactly the molecules that
    ``tlgen run`` packs. One line is logged per structure.

    Returns
    -------
    pandas.DataFrame
        The content of ``variants.csv``: RMSD (Å), checks and mode amplitudes, one row per variant.

    Raises
    ------
    InputError
        No target of the recipe has variants, a structure is missing or cannot be read, its variants cannot
        be made, or the folder cannot be written.
    """
    wanted = [p for p in prepare_structures.preparations(recipe) if p.variants]
    if not wanted:
        raise InputError(
            f"recipe {recipe.name} has no flexible variants; set variants: {{number: 4}} in a target"
        )
    classes = list(recipe.targets)
    rows: list[dict[str, object]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for preparation in wanted:
            molecules = prepare_structures.molecules(preparation)
            name = f"{classes[preparation.label - 1]}-{preparation.name}"
            if any(row["file"] == f"{name}.cif" for row in rows):  # files of the same name in two folders
                name += f"-{preparation.key[:6]}"
            structure = preparation.structure
            if molecules[0].is_atomic:
                called = sites(structure.source, assembly=structure.assembly)
            else:
                called = pseudo_sites(molecules[0])
            write_models(folder / f"{name}.cif", molecules, called)
            rows += list(_rows(f"{name}.cif", molecules))
            reached = [m.rmsd for m in molecules[1:]]
            span = f"{min(reached):.1f} to {max(reached):.1f} Å RMSD"
            _log.info(f"  {folder / name}.cif: {len(reached)} variants of {span}")
        _write_table(folder / "variants.csv", rows)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error.strerror or error}; give another folder"
        ) from error
    _log.info(f"  {folder / 'variants.csv'}: RMSD, checks and mode amplitudes")
    return pd.DataFrame(rows)


def write_models(path: Path, molecules: Sequence[Molecule], called: Sequence[Site]) -> None:
    """Write molecules of the same atoms as the models of one mmCIF file, atomically.

    Parameters
    ----------
    path
        The file to write.
    molecules
        Models 1, 2, ...; positions are relative to each molecule's own centre.
    called
        The names of each atom.
    """
    import gemmi

    before, after = [], []
    elements = [gemmi.Element(int(z)).name for z in range(119)]
    first = molecules[0]
    if len(called) != first.n_atoms:
        raise ValueError(f"{path}: {len(called)} names for {first.n_atoms} atoms")
    widths = np.broadcast_to(8 * np.pi**2 * first.sigma.astype(np.float64) ** 2, first.n_atoms)
    for site, z, occupancy, width in zip(called, first.elements, first.occupancy, widths, strict=True):
        atom, chain = gemmi.cif.quote(site.atom), gemmi.cif.quote(site.chain)
        residue = gemmi.cif.quote(site.residue)
        number = site.number if site.in_polymer else "."
        place = f"{number} {site.number} {site.insertion or '?'} {chain}"
        before.append(f"{elements[z]} {atom} . {residue} {chain} ? {place}")
        after.append(f"{occupancy:.2f} {width:.2f}")
    groups = ["ATOM" if site.in_polymer else "HETATM" for site in called]

    def write(file: TextIO) -> None:
        file.write(f"data_{path.stem}\n#\nloop_\n")
        file.writelines(f"_atom_site.{column}\n" for column in _COLUMNS)
        serial = 0
        for model, molecule in enumerate(molecules, start=1):
            lines = zip(groups, before, molecule.positions.tolist(), after, strict=True)
            for serial, (group, names, (x, y, z), rest) in enumerate(lines, start=serial + 1):  # noqa: B020
                file.write(f"{group} {serial} {names} {x:.3f} {y:.3f} {z:.3f} {rest} {model}\n")
        file.write("#\n")

    _whole(path, write)


def pseudo_sites(molecule: Molecule) -> list[Site]:
    """Name pseudo-atoms: numbered unknown atoms of chain A."""
    return [Site("UNK", _UNKNOWN, i, "", "A", False) for i in range(1, molecule.n_atoms + 1)]


def _rows(file: str, molecules: Sequence[Molecule]) -> Iterator[dict[str, object]]:
    for model, variant in enumerate(molecules[1:], start=2):
        check = modes.check(molecules[0], variant)
        yield {
            "file": file,
            "model": model,
            "structure": variant.name,
            "variant": variant.variant,
            "rmsd": round(variant.rmsd, 3),
            "neighbours_kept": round(check.kept, 5),
            "largest_stretch": round(check.stretch, 4),
            "new_clashes": check.clashes,
            **{f"amplitude_{k}": value for k, value in enumerate(variant.amplitudes, start=1)},
        }


def _write_table(path: Path, rows: Sequence[dict[str, object]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def write(file: TextIO) -> None:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)

    _whole(path, write)


def _whole(path: Path, write: Callable[[TextIO], None]) -> None:
    """Write a text file atomically: to a temporary file, which is then renamed."""
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        write(file)
