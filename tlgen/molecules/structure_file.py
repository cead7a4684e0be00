"""Read structure files (PDB, mmCIF and BinaryCIF), and complete what the writing program left out.

This fills in the elements that a PDB file does not state, the columns that an mmCIF file lacks, and the
products of the operators in its assemblies. Errors name what cannot be filled in.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.storage.unpacking import read_gunzipped
from tlgen.molecules import elements

#: Endings of structure files; each may be gzipped.
SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif", ".bcif")
#: Endings of density maps; each may be compressed.
MAP_SUFFIXES = (".mrc", ".map", ".ccp4", ".rec", ".em", ".zarr")

#: A rotation and a shift in Å: x -> matrix @ x + shift.
Operator = tuple[NDArray[np.float64], NDArray[np.float64]]
_SITE = "_atom_site."
_LETTER = np.array([chr(code).isalpha() and code < 128 for code in range(256)])


@dataclass(frozen=True, eq=False)
class Part:
    """Chains of a biological assembly with an operator for each copy of them.

    Attributes
    ----------
    chains, subchains
        Names of the chains in PDB files, and of the subchains (label_asym_id) in mmCIF files.
    operators
        One for each copy.
    """

    chains: tuple[str, ...]
    subchains: tuple[str, ...]
    operators: tuple[Operator, ...]


@dataclass(frozen=True, eq=False)
class Contents:
    """The contents of a structure file.

    Attributes
    ----------
    structure
        The gemmi structure; every atom whose element could be found has it.
    assemblies
        Names of the biological assemblies, in the order of the file.
    """

    structure: Any
    assemblies: tuple[str, ...]
    _parts: Any

    def parts(self, assembly: str) -> list[Part]:
        """List the parts of an assembly; InputError if its operators are missing."""
        found: list[Part] = self._parts(assembly)
        return found


def is_structure(path: Path) -> bool:
    """Tell by its name whether a file is a structure file."""
    name = path.name.lower().removesuffix(".gz")
    return name.endswith(SUFFIXES) or re.search(r"\.pdb\d+$", name) is not None


def is_map(path: str | Path) -> bool:
    """Tell by its name whether a file is a density map and not a structure."""
    return str(path).lower().removesuffix(".gz").removesuffix(".bz2").endswith(MAP_SUFFIXES)


def read(path: Path) -> Contents:
    """Read a structure file.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column that is needed to identify atoms, or has no atoms.
    """
    import gemmi

    name = path.name.lower().removesuffix(".gz")
    try:
        if name.endswith((".cif", ".mmcif")):
            found = _of_mmcif(_block(gemmi.cif.read_string(read_gunzipped(path))), path)
        elif name.endswith(".bcif"):
            from tlgen.molecules import bcif

            found = _of_mmcif(bcif.read(path), path)
        else:
            found = _of_pdb(read_gunzipped(path))
    except InputError:  # an InputError is also a ValueError
        raise
    except IndexError:  # a CIF file without a data block
        found = _nothing(gemmi.Structure())
    except (RuntimeError, ValueError, OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a structure: {' '.join(str(error).split())}") from error
    structure = found.structure
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise InputError(f"{path} holds no atoms; check that it is a PDB or mmCIF file of coordinates")
    return found


def _nothing(structure: Any) -> Contents:
    return Contents(structure, (), lambda assembly: [])


# ---------------------------------------------------------------------------------------------------- PDB


def _of_pdb(content: bytes) -> Contents:
    import gemmi

    _refuse_unreadable_places(content)
    structure = gemmi.read_pdb_string(with_elements(content))
    structure.merge_chain_parts()
    stated = {each.name: each for each in structure.assemblies}

    def parts(assembly: str) -> list[Part]:
        return [
            Part(
                tuple(generator.chains),
                tuple(generator.subchains),
                tuple(
                    (np.array(each.transform.mat.tolist()), np.array(each.transform.vec.tolist()))
                    for each in generator.operators
                ),
            )
            for generator in stated[assembly].generators
        ]

    return Contents(structure, tuple(stated), parts)


def _refuse_unreadable_places(content: bytes) -> None:
    """Refuse coordinates that are no numbers, such as ``********``, which gemmi reads as 0 (ValueError)."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line[:6].upper() in (b"ATOM  ", b"HETATM"):
            try:
                float(line[30:38]), float(line[38:46]), float(line[46:54])
            except ValueError:
                raise ValueError(
                    f"the atom in line {number} has no three numbers in columns 31 to 54"
                ) from None


def with_elements(content: bytes) -> bytes:
    """Write the elements of a PDB file into columns 77 and 78 where it does not state them."""
    if _all_state_elements(content):
        return content
    lines = content.split(b"\n")
    atoms = [k for k, line in enumerate(lines) if line[:6] in (b"ATOM  ", b"HETATM")]
    text = {k: lines[k].decode("latin-1").rstrip("\r") for k in atoms}
    residues = [list(run) for _, run in itertools.groupby(atoms, key=lambda k: text[k][17:27])]
    padded = _begins_in_its_column(text, residues)
    for residue in residues:
        name = text[residue[0]][17:21].strip()
        names = [text[k][12:16].strip() for k in residue]
        polymer = any(kind_of(name, names))
        for k, atom in zip(residue, names, strict=True):
            if _states_element(lines[k]):
                continue
            column = text[k][12:16] if padded else None
            symbol = elements.element_by_name(
                atom, name, alone=len(residue) == 1, polymer=polymer, column=column
            )
            lines[k] = f"{text[k][:76]:76}{symbol or 'X':>2}{text[k][78:80]}".encode("latin-1")
    return b"\n".join(lines)


def _all_state_elements(content: bytes) -> bool:
    """Tell whether all atoms of a PDB file state their elements in plain letters (the usual case)."""
    text = np.frombuffer(content, np.uint8)
    ends = np.append(np.flatnonzero(text == ord("\n")), len(text))
    begins = np.append(0, ends[:-1] + 1)
    begins, ends = (places[ends - begins >= 6] for places in (begins, ends))
    atoms = np.zeros(len(begins), bool)
    for record in (b"ATOM  ", b"HETATM"):
        like = np.ones(len(begins), bool)
        for k, letter in enumerate(record):
            like &= text[begins + k] == letter
        atoms |= like
    begins, ends = begins[atoms], ends[atoms]
    if (ends - begins < 78).any():
        return False
    one, two = text[begins + 76], text[begins + 77]
    return bool(((_LETTER[one] & (_LETTER[two] | (two == 32))) | ((one == 32) & _LETTER[two])).all())


def _states_element(line: bytes) -> bool:
    if line[76:78].strip().isalpha():  # the usual case, and the faster test
        return True
    return any(chr(sign).isalpha() for sign in line[76:78])


def _begins_in_its_column(text: dict[int, str], residues: Sequence[Sequence[int]]) -> bool:
    """Tell whether names of one-letter elements begin in column 14, judging by atoms of known elements."""
    right = wrong = 0
    for residue in residues:
        name = text[residue[0]][17:21].strip()
        if not any(kind_of(name, [text[k][12:16].strip() for k in residue])):
            continue
        for k in residue:
            column = text[k][12:16]
            if len(column.strip()) < 4 and column.strip()[:2] != "SE":
                right, wrong = right + (column[:1] in " 0123456789"), wrong + column[:1].isalpha()
    if right + wrong == 0:  # no polymer: look for names such as C1 that begin in column 13
        columns = [text[k][12:16] for residue in residues for k in residue]
        return not any(re.match(r"[CNOPSH]\d", column) for column in columns)
    return right > wrong


# ------------------------------------------------------------------------------------------------- mmCIF


def _block(document: Any) -> Any:
    """Find the data block that holds atoms."""
    return next((block for block in document if block.find_mmcif_category(_SITE).tags), document[0])


def _of_mmcif(block: Any, path: Path) -> Contents:
    import gemmi

    _complete(block, path)
    structure = gemmi.make_structure_from_block(block)
    structure.merge_chain_parts()  # the ligands of a chain follow all polymers in the file
    names, generators = _generators(block)
    operators = _operators(block)

    def parts(assembly: str) -> list[Part]:
        found = []
        for expression, chains in generators[assembly]:
            try:
                sequences = expand_expression(expression, set(operators))
            except ValueError as error:
                raise InputError(
                    f"{path}: assembly {assembly} has the operator expression {expression!r}, {error}; use "
                    "assembly: asymmetric"
                ) from error
            copies = tuple(_composed([operators[name] for name in sequence]) for sequence in sequences)
            found.append(Part((), chains, copies))
        return found

    return Contents(structure, names, parts)


def _complete(block: Any, path: Path) -> None:
    """Add missing columns of ``_atom_site`` from equivalent ones; InputError if there is none."""
    tags = [tag.removeprefix(_SITE) for tag in block.find_mmcif_category(_SITE).tags]
    if not tags:
        return
    needed = ["id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id"]
    needed += ["label_seq_id", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv", "auth_seq_id"]
    missing = [tag for tag in needed if tag not in tags]
    untold = "type_symbol" in tags and any(
        _is_null(word) for word in block.find_values(f"{_SITE}type_symbol")
    )
    if not missing and not untold:
        return
    table = block.get_mmcif_category(_SITE, raw=True)
    n = len(next(iter(table.values())))
    brothers = {"label_atom_id": "auth_atom_id", "label_comp_id": "auth_comp_id"}
    brothers |= {"label_asym_id": "auth_asym_id", "auth_seq_id": "label_seq_id"}
    for tag in missing:
        if (brother := brothers.get(tag)) in table:
            table[tag] = list(table[brother])
    if "label_asym_id" not in table:
        table["label_asym_id"] = ["A"] * n
    table.setdefault("id", [str(k + 1) for k in range(n)])
    for tag, value in {
        "label_alt_id": ".", "label_seq_id": ".", "occupancy": "1", "B_iso_or_equiv": "0",
    }.items():  # fmt: skip
        table.setdefault(tag, [value] * n)
    if gone := [tag for tag in needed if tag not in table and tag != "type_symbol"]:
        raise InputError(
            f"{path}: its atoms have no column {_SITE}{gone[0]}; write the file again with all columns, e.g. "
            "with ChimeraX"
        )
    if untold or "type_symbol" in missing:
        stated = table.get("type_symbol", ["?"] * n)
        told = zip(stated, _symbols(table), strict=True)
        table["type_symbol"] = [by_name if _is_null(word) else word for word, by_name in told]
    block.set_mmcif_category(_SITE, table, raw=True)


def _is_null(word: str) -> bool:
    return word in ("?", ".")


def _symbols(table: dict[str, list[str]]) -> list[str]:
    """Infer the elements of an atom table from the names of atoms and residues."""
    import gemmi

    plain = [gemmi.cif.as_string(word) for word in table["label_atom_id"]]
    keys = [table[tag] for tag in ("label_comp_id", "label_asym_id", "auth_seq_id")]
    keys += [
        table[tag] for tag in ("auth_asym_id", "pdbx_PDB_ins_code", "pdbx_PDB_model_num") if tag in table
    ]
    rows = list(zip(*keys, strict=True))
    found: list[str] = []
    for row, run in itertools.groupby(range(len(plain)), key=rows.__getitem__):
        names = [plain[k] for k in run]
        name = gemmi.cif.as_string(row[0])
        polymer, alone = any(kind_of(name, names)), len(names) == 1
        found += [elements.element_by_name(atom, name, alone=alone, polymer=polymer) or "X" for atom in names]
    return found


def _generators(block: Any) -> tuple[tuple[str, ...], dict[str, list[tuple[str, tuple[str, ...]]]]]:
    """Read the chains of each assembly, and the expression of the operators that are applied to them."""
    columns = ["assembly_id", "oper_expression", "asym_id_list"]
    found: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for row in block.find("_pdbx_struct_assembly_gen.", columns):
        chains = tuple(word for word in re.split(r"[\s,]+", row.str(2)) if word)
        found.setdefault(row.str(0), []).append((row.str(1), chains))
    order = [row.str(0) for row in block.find("_pdbx_struct_assembly.", ["id"])]
    names = [name for name in order if name in found]
    return tuple(names + [name for name in found if name not in names]), found


def _operators(block: Any) -> dict[str, Operator]:
    axes = (1, 2, 3)
    columns = ["id", *(f"matrix[{i}][{j}]" for i in axes for j in axes), *(f"vector[{i}]" for i in axes)]
    found = {}
    for row in block.find("_pdbx_struct_oper_list.", columns):
        numbers = np.array([float(re.sub(r"\(\d+\)$", "", row[k])) for k in range(1, 13)])
        found[row.str(0)] = (numbers[:9].reshape(3, 3), numbers[9:])
    return found


def expand_expression(expression: str, known: set[str]) -> list[tuple[str, ...]]:
    """Expand an operator expression of an assembly: ``(1)(2,5-6)`` -> (1, 2), (1, 5), (1, 6).

    Groups in brackets are multiplied; the rightmost operator is applied first (mmCIF dictionary,
    ``_pdbx_struct_assembly_gen.oper_expression``).

    Parameters
    ----------
    expression
        Lists, ranges and products of the names of operators.
    known
        The names of the operators in the file.

    Raises
    ------
    ValueError
        If the expression cannot be read, or names an unknown operator.
    """
    text = re.sub(r"\s+", "", expression)
    groups = re.findall(r"\(([^()]*)\)|([^()]+)", text)
    if not groups or re.sub(r"\([^()]*\)|[^()]+", "", text):
        raise ValueError("which cannot be read")
    lists = [list(_names(bracketed or plain, known)) for bracketed, plain in groups]
    return list(itertools.product(*lists))


def _names(text: str, known: set[str]) -> Iterator[str]:
    for word in text.strip(",").split(","):
        span = re.fullmatch(r"(\d+)-(\d+)", word)
        if word in known:
            yield word
        elif span and int(span[1]) <= int(span[2]) < int(span[1]) + 100_000:
            for number in range(int(span[1]), int(span[2]) + 1):
                if str(number) not in known:
                    raise ValueError(f"whose operator {number} the file does not give")
                yield str(number)
        else:
            raise ValueError(
                f"whose operator {word} the file does not give" if word else "which cannot be read"
            )


def _composed(operators: Sequence[Operator]) -> Operator:
    """Combine operators into one; the last one is applied first."""
    matrix, shift = np.eye(3), np.zeros(3)
    for m, v in reversed(operators):
        matrix, shift = m @ matrix, m @ shift + v
    return matrix, shift


# ----------------------------------------------------------------------------------------------- residues


def kind_of(residue: str, atoms: Iterable[str]) -> tuple[bool, bool]:
    """Tell whether a residue is an amino acid, and whether it is a nucleotide.

    Gemmi's table has the common residues; modified ones are recognised by their atoms. Calcium ions, whose
    name is CA too, and the phosphates of lipids and buffers are neither.
    """
    known = _tabulated(residue)
    if any(known):
        return known
    names = set(atoms)
    return {"N", "CA", "C"} <= names, {"P", "C1'"} <= names or {"P", "C1*"} <= names


@cache
def _tabulated(residue: str) -> tuple[bool, bool]:
    import gemmi

    kind = gemmi.find_tabulated_residue(residue)
    return bool(kind.is_amino_acid()), bool(kind.is_nucleic_acid())
