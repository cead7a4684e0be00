"""What is kept of a structure file: residues without water, atoms without hydrogens; and what is said of it.

The rules stand in :mod:`tlgen.molecules.structures`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs import notes
from catalogs.console import counted
from catalogs.errors import InputError
from tlgen.molecules import copies, elements, structure_file
from tlgen.molecules.structure_file import Contents, kind_of

#: H, C, N, O, P, S and Se.
_NUMBERS_OF_POLYMERS = frozenset({1, 6, 7, 8, 15, 16, 34})
_BACKBONE = {"N", "CA", "C", "O", "OXT"}


@dataclass(frozen=True, eq=False)
class Residue:
    """A residue that is kept.

    Attributes
    ----------
    model
        Its number, from 0.
    chain
        Name of its chain.
    residue
        Of gemmi.
    amino, nucleic
        Whether it is an amino acid, or a nucleotide.
    atoms
        Those of its atoms that are kept, with their atomic numbers.
    """

    model: int
    chain: str
    residue: Any
    amino: bool
    nucleic: bool
    atoms: list[tuple[Any, int]]


@dataclass(frozen=True, eq=False)
class SelectedResidues:
    """What is kept of a file.

    Attributes
    ----------
    contents
        The file.
    residues
        Of the first model, or of all.
    copies
        Whether its models are the copies of an assembly.
    """

    contents: Contents
    residues: list[Residue]
    copies: bool


def read(path: Path, assembly: str) -> SelectedResidues:
    """Read a file and choose what is kept of it; say what a user may not expect (:mod:`catalogs.notes`).

    Parameters
    ----------
    path
        The file.
    assembly
        As :func:`tlgen.molecules.structures.load_structure` has it; decides about several models.

    Raises
    ------
    InputError
        If it cannot be read, holds no atoms that are kept, or its models may be either of two things.
    """
    contents = structure_file.read(path)
    structure = contents.structure
    told = _Told()
    models = [_residues(structure, 0, told)]
    together = assembly == "models" and len(structure) > 1
    if len(structure) > 1 and assembly in ("first", "models"):
        silent = _Told()
        models += [_residues(structure, k, silent) for k in range(1, len(structure))]
        if assembly == "first":
            names = [[atom.name for each in model for atom, _ in each.atoms] for model in models]
            there = [k for k, atoms in enumerate(names) if atoms]
            together = copies.are_copies(
                [_positions(models[k]) for k in there], [names[k] == names[there[0]] for k in there], path
            )
    if not together:
        models = models[:1]
    residues = [each for model in models for each in model]
    for text in told.notes(residues):
        notes.warn(f"{path} {text}")
    if not any(each.atoms for each in residues):
        what = " and what has no element" if told.dummies else ""
        raise InputError(
            f"{path} holds no atoms but hydrogens and waters{what}; give a structure of a "
            "molecule with all atoms"
        )
    return SelectedResidues(contents, residues, together)


def _positions(model: Sequence[Residue]) -> NDArray[np.float64]:
    return np.array([atom.pos.tolist() for each in model for atom, _ in each.atoms], np.float64).reshape(
        -1, 3
    )


class _Told:
    """What is left out or read otherwise than the file says."""

    def __init__(self) -> None:
        self.dummies: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()
        self.bath = 0

    def notes(self, residues: Sequence[Residue]) -> Iterator[str]:
        """Say it, a sentence each without the file's name at the beginning."""
        if self.dummies:
            names = ", ".join(name for name, _ in self.dummies.most_common(4))
            n = self.dummies.total()
            yield (
                f"has {counted(n, 'atom')} left out because the element cannot be told (named {names}); "
                "unless they are dummies, mend their elements, and of a coarse-grained model give all atoms"
            )
        if self.mended:
            names = ", ".join(name for name, _ in self.mended.most_common(4))
            yield (
                f"states elements that amino acids and nucleotides do not hold ({names}); they are taken as "
                "the names of the atoms say"
            )
        if self.bath:
            salt = counted(self.bath, "ion")
            yield f"is the box of a simulation: {salt} of its salt left out, as is its water"
        amino = [each for each in residues if each.amino]
        nucleic = [each for each in residues if each.nucleic]
        bare = sum(len(each.atoms) == 1 for each in (*amino, *nucleic))
        spine = sum(
            {atom.name for atom, _ in each.atoms} <= {"N", "CA", "C", "O", "OXT"}
            and each.residue.name != "GLY"
            for each in amino
        )
        whole = len(amino) + len(nucleic)
        if whole and bare > whole / 2:
            yield (
                "holds only the CA or P atoms of its residues: the molecule will have about a tenth of its "
                "mass and contrast; give a model with all atoms"
            )
        elif amino and spine > len(amino) / 2:
            yield (
                "holds only the backbone of its residues: the molecule will have about half of its mass and "
                "contrast; give a model with all atoms"
            )


def _residues(structure: Any, model: int, told: _Told) -> list[Residue]:
    """List the residues of a model without waters, each with its atoms without hydrogens and dummies.

    Of the kinds of residue at one position, and of the alternative locations of an atom, the first is taken.
    """
    found, simulated = [], False
    for chain in structure[model]:
        last: tuple[str, str] | None = None
        for residue in chain:
            if residue.is_water():
                simulated |= residue.name in ("WAT", "H2O")
                continue
            amino, nucleic = kind_of(residue.name, (atom.name for atom in residue))
            if not amino and not nucleic and _is_water(chain.name, residue):
                simulated = True
                continue
            here = (str(residue.seqid), residue.subchain)
            if here == last and all(atom.has_altloc() for atom in residue):
                continue
            last = here
            atoms = _one_atom_each(residue, amino or nucleic, told)
            found.append(Residue(model, chain.name, residue, amino, nucleic, atoms))
    if simulated:
        salt = [each for each in found if _is_salt(each)]
        told.bath += len(salt)
        found = [each for each in found if not _is_salt(each)]
    return found


def _is_water(chain: str, residue: Any) -> bool:
    """Tell water under any name; PDB files of simulations put a fourth letter before the chain's."""
    atoms = [(atom.name, atom.element.name) for atom in residue]
    names = (residue.name, residue.name + chain[:1]) if len(chain) == 2 else (residue.name,)
    return any(elements.is_water(name, atoms) for name in names)


def _is_salt(each: Residue) -> bool:
    return len(each.residue) == 1 and each.residue[0].element.name in elements.BATH


def _one_atom_each(residue: Any, polymer: bool, told: _Told) -> list[tuple[Any, int]]:
    """List a residue's atoms without hydrogens and dummies, of alternative locations the first."""
    seen: set[str] = set()
    found = []
    for atom in residue:
        number = atom.element.atomic_number
        if polymer and number not in _NUMBERS_OF_POLYMERS:
            number = _number_in_polymer(atom, residue, number, told)
        if number == 0:
            told.dummies[atom.name] += 1
        if number > 1 and not (atom.has_altloc() and atom.name in seen):
            seen.add(atom.name)
            found.append((atom, number))
    return found


def _number_in_polymer(atom: Any, residue: Any, number: int, told: _Told) -> int:
    """Atomic number of an atom of a common amino acid or nucleotide whose stated element they do not hold."""
    import gemmi

    if not gemmi.find_tabulated_residue(residue.name).is_standard():
        return number
    symbol = elements.element_by_name(atom.name, residue.name, polymer=True)
    if symbol not in elements.OF_POLYMERS:
        return number
    if number:
        told.mended[atom.element.name] += 1
    return int(gemmi.Element(symbol).atomic_number)
