"""Select residues without water and atoms without hydrogens from a structure file, and report surprises.

The rules are described in :mod:`tlgen.molecules.structures`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs import user_warnings
from catalogs.console import counted
from catalogs.errors import InputError
from tlgen.molecules import copies, elements, structure_file
from tlgen.molecules.structure_file import Contents, kind_of

#: H, C, N, O, P, S and Se.
_NUMBERS_OF_POLYMERS = frozenset({1, 6, 7, 8, 15, 16, 34})
_IN_POLYMERS = np.isin(np.arange(256), list(_NUMBERS_OF_POLYMERS))
_BACKBONE = [b"N", b"CA", b"C", b"O", b"OXT"]
_LAST_ELEMENT = 118


@dataclass(frozen=True, eq=False)
class Residue:
    """A selected residue.

    Attributes
    ----------
    model
        Number of its model, from 0.
    chain
        Name of its chain.
    residue
        The gemmi residue.
    amino, nucleic
        Whether it is an amino acid, or a nucleotide.
    """

    model: int
    chain: str
    residue: Any
    amino: bool
    nucleic: bool


@dataclass(frozen=True, eq=False)
class Atoms:
    """Atoms as arrays: a file may have millions, and Python takes a microsecond to access one.

    Attributes
    ----------
    numbers
        (n,) atomic numbers.
    names
        (n,) names in the file, as bytes.
    positions
        (n, 3) x, y, z in Å.
    residue
        (n,) index of each atom's residue in a list of residues.
    """

    numbers: NDArray[np.uint8]
    names: NDArray[np.bytes_]
    positions: NDArray[np.float64]
    residue: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SelectedResidues:
    """The selected residues and atoms of a file.

    Attributes
    ----------
    contents
        The file.
    residues
        Residues of the first model, or of all models.
    atoms
        The selected atoms, residue by residue.
    copies
        Whether the models of the file are the copies of an assembly.
    """

    contents: Contents
    residues: list[Residue]
    atoms: Atoms
    copies: bool


def read(path: Path, assembly: str) -> SelectedResidues:
    """Read a file and select its residues and atoms; warn of surprises (:mod:`catalogs.user_warnings`).

    Parameters
    ----------
    path
        The file.
    assembly
        As in :func:`tlgen.molecules.structures.load_structure`; decides which models are read.

    Raises
    ------
    InputError
        If the file cannot be read, has no atoms to select, or has models that could be either an ensemble or
        copies.
    """
    contents = structure_file.read(path)
    structure = contents.structure
    listed = _listed(structure)
    told = _Told()
    models = [_residues(structure, 0, listed, told)]
    together = assembly == "models" and len(structure) > 1
    if len(structure) > 1 and assembly in ("first", "models"):
        silent = _Told()
        models += [_residues(structure, k, listed, silent) for k in range(1, len(structure))]
        if assembly == "first":
            there = [atoms for _, atoms in models if len(atoms.names)]
            together = copies.are_copies(
                [atoms.positions for atoms in there],
                [np.array_equal(atoms.names, there[0].names) for atoms in there],
                path,
            )
    if not together:
        models = models[:1]
    residues = [each for found, _ in models for each in found]
    atoms = _joined(models)
    for text in told.notes(residues, atoms):
        user_warnings.warn(f"{path} {text}")
    if not len(atoms.names):
        what = " and what has no element" if told.dummies else ""
        raise InputError(
            f"{path} contains only hydrogens and waters{what}; give a structure of a molecule with all atoms"
        )
    return SelectedResidues(contents, residues, atoms, together)


@dataclass(frozen=True, eq=False)
class _Listed:
    """All atoms of a structure, model by model; ``alternative`` is the letter of the location, or 0."""

    numbers: NDArray[np.uint8]
    names: NDArray[np.bytes_]
    positions: NDArray[np.float64]
    alternative: NDArray[Any]


def _listed(structure: Any) -> _Listed:
    import gemmi

    try:
        flat = gemmi.FlatStructure(structure)
    except RuntimeError:  # an atom name of eight letters or more
        atoms = [
            atom for model in structure for chain in model for residue in chain for atom in residue
        ]  # fmt: skip
        return _Listed(
            np.array([atom.element.atomic_number for atom in atoms], np.uint8),
            np.array([atom.name.encode() for atom in atoms]),
            np.array([atom.pos.tolist() for atom in atoms], np.float64).reshape(-1, 3),
            np.array([ord(atom.altloc) for atom in atoms]),
        )
    numbers = np.array(flat.elements, np.uint8)
    numbers[numbers > _LAST_ELEMENT] = 1  # deuterium
    names = np.ascontiguousarray(flat.atom_names).view("S8")[:, 0]
    return _Listed(numbers, names, np.array(flat.pos), np.array(flat.altlocs))


def _joined(models: Sequence[tuple[list[Residue], Atoms]]) -> Atoms:
    """Concatenate the atoms of several models."""
    first = np.cumsum([0, *(len(found) for found, _ in models)]).tolist()
    parts = [atoms for _, atoms in models]
    return Atoms(
        np.concatenate([atoms.numbers for atoms in parts]),
        np.concatenate([atoms.names for atoms in parts]),
        np.concatenate([atoms.positions for atoms in parts]),
        np.concatenate([atoms.residue + n for n, atoms in zip(first, parts, strict=False)]),
    )


class _Told:
    """Counts of atoms that are left out, or read differently from what the file states."""

    def __init__(self) -> None:
        self.dummies: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()
        self.bath = 0

    def notes(self, residues: Sequence[Residue], atoms: Atoms) -> Iterator[str]:
        """Describe what was found: one sentence each, without the file's name at the beginning."""
        if self.dummies:
            names = ", ".join(name for name, _ in self.dummies.most_common(4))
            n = self.dummies.total()
            yield (
                f"has {counted(n, 'atom')} left out because the element cannot be told (named {names}); "
                "unless they are dummies, correct their elements, and of a "
                "coarse-grained model give all atoms"
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
        amino = np.array([each.amino for each in residues], bool)
        nucleic = np.array([each.nucleic for each in residues], bool)
        sizes = np.bincount(atoms.residue, minlength=len(residues))
        aside = np.bincount(
            atoms.residue[~np.isin(atoms.names, _BACKBONE)], minlength=len(residues)
        )  # fmt: skip
        bare = int((sizes[amino] == 1).sum() + (sizes[nucleic] == 1).sum())
        spine = sum(residues[k].residue.name != "GLY" for k in np.flatnonzero(amino & (aside == 0)).tolist())
        n_amino = int(amino.sum())
        whole = n_amino + int(nucleic.sum())
        if whole and bare > whole / 2:
            yield (
                "holds only the CA or P atoms of its residues: the molecule will have about a tenth of its "
                "mass and contrast; give a model with all atoms"
            )
        elif n_amino and spine > n_amino / 2:
            yield (
                "holds only the backbone of its residues: the molecule will have about half of its mass and "
                "contrast; give a model with all atoms"
            )


def _residues(structure: Any, model: int, listed: _Listed, told: _Told) -> tuple[list[Residue], Atoms]:
    """List the residues of a model without waters, and their atoms without hydrogens and dummies.

    If a position has several kinds of residue, or an atom several alternative locations, the first is taken.
    """
    found: list[Residue] = []
    rows, simulated = [], False
    end = sum(structure[k].count_atom_sites() for k in range(model))
    for chain in structure[model]:
        name, last = chain.name, None
        for residue in chain:
            begin, end = end, end + len(residue)
            if residue.is_water():
                simulated |= residue.name in ("WAT", "H2O")
                continue
            amino, nucleic = kind_of(residue.name, (atom.name for atom in residue))
            if not amino and not nucleic and _is_water(name, residue):
                simulated = True
                continue
            seqid = residue.seqid
            here = (seqid.num, seqid.icode, residue.subchain)
            if here == last and all(atom.has_altloc() for atom in residue):
                continue
            last = here
            found.append(Residue(model, name, residue, amino, nucleic))
            rows.append((begin, end))
    atoms = _one_atom_each(found, rows, listed, told)
    if simulated:
        salt = np.array([_is_salt(each) for each in found], bool)
        told.bath += int(salt.sum())
        found = [each for each, left in zip(found, salt, strict=True) if not left]
        stays = ~salt[atoms.residue]
        atoms = Atoms(
            atoms.numbers[stays],
            atoms.names[stays],
            atoms.positions[stays],
            (np.cumsum(~salt) - 1)[atoms.residue[stays]],
        )
    return found, atoms


def _is_water(chain: str, residue: Any) -> bool:
    """Tell whether a residue is water; the fourth letter of its name may be in the chain's column."""
    atoms = [(atom.name, atom.element.name) for atom in residue]
    names = (residue.name, residue.name + chain[:1]) if len(chain) == 2 else (residue.name,)
    return any(elements.is_water(name, atoms) for name in names)


def _is_salt(each: Residue) -> bool:
    return len(each.residue) == 1 and each.residue[0].element.name in elements.BATH


def _one_atom_each(
    found: Sequence[Residue], rows: Sequence[tuple[int, int]], listed: _Listed, told: _Told
) -> Atoms:
    """Take the atoms of residues without hydrogens and dummies, with the first alternative location only."""
    begin, end = np.array(rows, np.int64).reshape(-1, 2).T
    sizes = end - begin
    first = np.cumsum(sizes) - sizes
    of = np.repeat(np.arange(len(found)), sizes)
    at = np.arange(len(of)) + (begin - first)[of]
    numbers = listed.numbers[at]
    kept = numbers > 1
    polymer = np.array([each.amino or each.nucleic for each in found], bool)[of]
    # atoms are examined one by one only in residues where something is unclear
    unclear = (numbers == 0) | (listed.alternative[at] != 0) | (polymer & ~_IN_POLYMERS[numbers])
    for k in np.unique(of[unclear]).tolist():
        part = slice(int(first[k]), int(first[k] + sizes[k]))
        numbers[part], kept[part] = _decided(found[k], told)
    at = at[kept]
    return Atoms(numbers[kept], listed.names[at], listed.positions[at], of[kept])


def _decided(each: Residue, told: _Told) -> tuple[list[int], list[bool]]:
    """Return the atomic numbers of a residue's atoms, and which of them are kept."""
    seen: set[str] = set()
    numbers, kept = [], []
    for atom in each.residue:
        number = atom.element.atomic_number
        if (each.amino or each.nucleic) and number not in _NUMBERS_OF_POLYMERS:
            number = _number_in_polymer(atom, each.residue, number, told)
        if number == 0:
            told.dummies[atom.name] += 1
        stays = number > 1 and not (atom.has_altloc() and atom.name in seen)
        if stays:
            seen.add(atom.name)
        numbers.append(number)
        kept.append(stays)
    return numbers, kept


def _number_in_polymer(atom: Any, residue: Any, number: int, told: _Told) -> int:
    """Correct the atomic number of an atom whose stated element does not occur in common polymers."""
    import gemmi

    if not gemmi.find_tabulated_residue(residue.name).is_standard():
        return number
    symbol = elements.element_by_name(atom.name, residue.name, polymer=True)
    if symbol not in elements.OF_POLYMERS:
        return number
    if number:
        told.mended[atom.element.name] += 1
    return int(gemmi.Element(symbol).atomic_number)


def refuse_odd_places(kept: SelectedResidues, path: Path) -> None:
    """Refuse atoms without coordinates, and a file that holds its atoms twice (InputError)."""
    names, xyz, of = kept.atoms.names, kept.atoms.positions, kept.atoms.residue
    if not np.isfinite(xyz).all():
        raise InputError(f"{path} has atoms without coordinates; correct the file, or remove these atoms")
    labels = [f"{r.chain} {r.residue.seqid} {r.residue.name}" for r in kept.residues]
    copies.refuse_atoms_twice(path, np.array(labels)[of], names, xyz)
