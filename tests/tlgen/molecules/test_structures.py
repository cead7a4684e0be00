"""Structures: what of a file becomes a molecule, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalogs.errors import InputError
from tlgen.molecules import structures
from tlgen.molecules.structures import files_in, load_structure, locate, name_of, shipped


def atom(
    serial: int,
    name: str,
    residue: str,
    number: int,
    element: str,
    *,
    chain: str = "A",
    altloc: str = " ",
    x: float | None = None,
    occupancy: float = 1.0,
    record: str = "ATOM",
) -> str:
    """One line of a PDB file; x is the serial number unless told, so that tests know atoms by it."""
    column = name if len(name) == 4 or len(element) == 2 else f" {name}"
    return (
        f"{record:6}{serial:5d} {column:<4}{altloc}{residue:>3} {chain}{number:4d}    "
        f"{serial if x is None else x:8.3f}{0.5 * serial:8.3f}{-serial:8.3f}{occupancy:6.2f}{20:6.2f}"
        f"          {element:>2}"
    )


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join((*lines, "END", "")))
    return path


def serials(molecule: Any) -> list[int]:
    """Recover which atoms were kept: z is minus the serial number, up to the centring."""
    z = -molecule.positions[:, 2]
    return [int(s) for s in np.round(z - z.min()).astype(int)]


# ----------------------------------------------------------------------------------------- shipped structures


def test_shipped_names_are_found_without_importing_the_packages() -> None:
    code = (
        "import sys; from tlgen.molecules.structures import shipped; print(*shipped());"
        "assert not {'parakeet', 'prody', 'gemmi'} & set(sys.modules)"
    )
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(names.split()) >= {"4v5d", "4v1w", "3jb9", "6qt9", "6z6u", "4v8r", "6zu5", "7cth", "7pbl"}
    for name, path in shipped().items():
        assert name_of(path) == name
        assert locate(name.upper()) == path


def test_the_ribosome() -> None:
    ribosome = load_structure("4v5d")
    assert (ribosome.name, ribosome.variant, ribosome.n_atoms) == ("4v5d", -1, 148_020)
    assert ribosome.mass == pytest.approx(2.09e6, rel=0.01)
    assert ribosome.radius == pytest.approx(108, abs=1)
    assert np.abs(ribosome.positions.mean(axis=0)).max() < 1e-3
    assert ribosome.source == hashlib.sha256(shipped()["4v5d"].read_bytes()).hexdigest()
    # 4662 nucleotides with a phosphate and 5929 amino acids, none of the 673 magnesium ions
    marked = ribosome.elements[ribosome.backbone]
    assert (np.sum(marked == 15), np.sum(marked == 6)) == (4662, 5929)
    assert np.sum(ribosome.elements == 12) == 673
    assert np.sum(ribosome.backbone) == 10_591


def test_the_chaperonin_is_one_of_the_two_in_the_crystal() -> None:
    one, both = load_structure("4v8r"), load_structure("4v8r", assembly="asymmetric")
    assert both.n_atoms == 2 * one.n_atoms == 128_780
    spread = np.ptp(one.positions, axis=0)
    assert spread.max() < 180  # a cylinder of 160 by 180 Å


def test_apoferritin_of_two_laboratories_agrees() -> None:
    horse, human = load_structure("4v1w"), load_structure("6z6u")
    assert human.mass == pytest.approx(horse.mass, rel=0.01)
    assert np.linalg.norm(human.positions, axis=1).max() == pytest.approx(68, abs=2)


def test_an_icosahedral_assembly_is_complete_and_round() -> None:
    unit, virus = load_structure("7cth", assembly="asymmetric"), load_structure("7cth")
    assert virus.n_atoms == 60 * unit.n_atoms
    assert virus.mass == pytest.approx(60 * unit.mass)
    # icosahedral symmetry leaves no direction in the second moments
    moments = np.linalg.eigvalsh(np.cov(virus.positions.T.astype(np.float64)))
    assert moments.max() / moments.min() == pytest.approx(1, abs=1e-4)
    assert np.array_equal(virus.elements[: unit.n_atoms], unit.elements)
    # copies are rigid: distances within the unit are kept
    k = [0, 5_000, 10_000, 15_000]
    for copy in (1, 37):
        there = virus.positions[np.array(k) + copy * unit.n_atoms].astype(np.float64)
        here = unit.positions[k].astype(np.float64)
        assert np.linalg.norm(np.diff(there, axis=0), axis=1) == pytest.approx(
            np.linalg.norm(np.diff(here, axis=0), axis=1), abs=1e-3
        )


def test_a_whole_virus_of_millions_of_atoms_is_refused_with_a_way_out() -> None:
    with pytest.raises(InputError, match=r"6qt9.cif: its assembly has 2,542,200 atoms.*asymmetric to take"):
        load_structure("6qt9")
    unit = load_structure("6qt9", assembly="asymmetric")
    assert unit.n_atoms == 42_370
    assert 1 not in unit.elements  # the file has 39642 hydrogens


# ------------------------------------------------------------------------------------------- the rules


def test_what_becomes_of_each_kind_of_atom(tmp_path: Path) -> None:
    path = written(
        tmp_path / "kinds.pdb",
        "MODEL        1",
        atom(1, "N", "ALA", 1, "N"),
        atom(2, "CA", "ALA", 1, "C"),
        atom(3, "C", "ALA", 1, "C"),
        atom(4, "HA", "ALA", 1, "H"),  # dropped
        atom(5, "DA", "ALA", 1, "D"),  # dropped
        atom(6, "CB", "ALA", 1, "C", occupancy=0.0),  # a particle has it
        atom(7, "N", "MSE", 2, "N", record="HETATM"),
        atom(8, "CA", "MSE", 2, "C", record="HETATM"),
        atom(9, "C", "MSE", 2, "C", record="HETATM"),
        atom(10, "SE", "MSE", 2, "SE", record="HETATM"),
        atom(11, "N", "UNL", 3, "N"),  # no residue that anybody knows, an amino acid by its atoms
        atom(12, "CA", "UNL", 3, "C"),
        atom(13, "C", "UNL", 3, "C"),
        atom(14, "P", "A", 1, "P", chain="B"),
        atom(15, "C1'", "A", 1, "C", chain="B"),
        atom(16, "CA", "CA", 1, "CA", chain="C", record="HETATM"),  # calcium: kept, no backbone
        atom(17, "P", "PO4", 2, "P", chain="C", record="HETATM"),  # phosphate: kept, no backbone
        atom(18, "O1", "PO4", 2, "O", chain="C", record="HETATM"),
        atom(19, "O", "HOH", 3, "O", chain="C", record="HETATM"),  # dropped
        atom(20, "Q1", "DUM", 4, "X", chain="C", record="HETATM"),  # dropped
        "ENDMDL",
        "MODEL        2",
        atom(1, "N", "ALA", 1, "N"),
        "ENDMDL",
    )
    molecule = load_structure(path)
    assert molecule.name == "kinds"
    assert serials(molecule) == [0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]
    assert molecule.elements.tolist() == [7, 6, 6, 6, 7, 6, 6, 34, 7, 6, 6, 15, 6, 20, 15, 8]
    assert np.flatnonzero(molecule.backbone).tolist() == [1, 5, 9, 11]


def test_the_first_of_alternatives_is_taken(tmp_path: Path) -> None:
    path = written(
        tmp_path / "alternatives.pdb",
        atom(1, "N", "SER", 1, "N"),
        atom(2, "CA", "SER", 1, "C", altloc="A"),
        atom(3, "CA", "SER", 1, "C", altloc="B"),  # dropped
        atom(4, "C", "SER", 1, "C"),
        # all of one alternative, then all of the other
        atom(5, "OG", "SER", 1, "O", altloc="A"),
        atom(6, "CB", "SER", 1, "C", altloc="A"),
        atom(7, "OG", "SER", 1, "O", altloc="B"),  # dropped
        atom(8, "CB", "SER", 1, "C", altloc="B"),  # dropped
        # one position, two kinds of residue
        atom(9, "N", "PRO", 2, "N", altloc="A"),
        atom(10, "CA", "PRO", 2, "C", altloc="A"),
        atom(11, "N", "SER", 2, "N", altloc="B"),  # dropped
        atom(12, "CA", "SER", 2, "C", altloc="B"),  # dropped
        atom(13, "N", "GLY", 3, "N"),
        atom(14, "CA", "GLY", 3, "C"),
    )
    molecule = load_structure(path)
    assert serials(molecule) == [0, 1, 3, 4, 5, 8, 9, 12, 13]
    assert np.flatnonzero(molecule.backbone).tolist() == [1, 6, 8]


def biomt(row: int, operator: int, values: tuple[float, ...], shift: float) -> str:
    x, y, z = values
    return f"REMARK 350   BIOMT{row} {operator:3d}{x:10.6f}{y:10.6f}{z:10.6f}     {shift:10.5f}"


def dimer(path: Path) -> Path:
    """Chain A twice (turned about z and shifted), chain B once as assembly 2."""
    identity, turned = ((1, 0, 0), (0, 1, 0), (0, 0, 1)), ((-1, 0, 0), (0, -1, 0), (0, 0, 1))
    return written(
        path,
        "REMARK 350 BIOMOLECULE: 1",
        "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A",
        *(biomt(i + 1, 1, identity[i], 0.0) for i in range(3)),
        *(biomt(i + 1, 2, turned[i], 10.0 * i) for i in range(3)),
        "REMARK 350 BIOMOLECULE: 2",
        "REMARK 350 APPLY THE FOLLOWING TO CHAINS: B",
        *(biomt(i + 1, 1, identity[i], 0.0) for i in range(3)),
        atom(1, "N", "ALA", 1, "N"),
        atom(2, "CA", "ALA", 1, "C"),
        atom(3, "C", "ALA", 1, "C"),
        atom(4, "N", "ALA", 1, "N", chain="B"),
        atom(5, "CA", "ALA", 1, "C", chain="B"),
    )


def test_assemblies(tmp_path: Path) -> None:
    path = dimer(tmp_path / "dimer.pdb")
    one = np.array([[s, 0.5 * s, -s] for s in (1, 2, 3)])
    both = np.concatenate([one, one * [-1, -1, 1] + [0, 10, 20]])
    first = load_structure(path)
    assert first.positions == pytest.approx(both - both.mean(axis=0), abs=1e-4)
    assert first.elements.tolist() == [7, 6, 6, 7, 6, 6]
    assert np.flatnonzero(first.backbone).tolist() == [1, 4]
    assert load_structure(path, assembly="1").digest == first.digest
    assert load_structure(path, assembly="2").elements.tolist() == [7, 6]
    assert load_structure(path, assembly="asymmetric").elements.tolist() == [7, 6, 6, 7, 6]
    with pytest.raises(
        InputError, match=r"dimer.pdb states the assemblies 1, 2, not '3'; use assembly: first"
    ):
        load_structure(path, assembly="3")


def test_pdb_mmcif_and_gzip_give_the_same_molecule(tmp_path: Path) -> None:
    import gemmi

    pdb = dimer(tmp_path / "same.pdb")
    structure = gemmi.read_structure(str(pdb))
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(tmp_path / "same.cif"))
    (tmp_path / "zipped").mkdir()
    zipped = tmp_path / "zipped" / "same.cif.gz"
    zipped.write_bytes(gzip.compress((tmp_path / "same.cif").read_bytes()))
    molecules = [load_structure(path) for path in (pdb, tmp_path / "same.cif", zipped)]
    assert len({molecule.digest for molecule in molecules}) == 1
    assert len({molecule.source for molecule in molecules}) == 3


def test_real_files_beside_the_checkout(shared: Path) -> None:
    folder = shared / "structures"
    assert load_structure(folder / "other" / "6zu5.cif.gz").n_atoms == load_structure("6zu5").n_atoms
    nucleosome = load_structure(folder / "other" / "1kx5.pdb")
    assert nucleosome.name == "1kx5"
    assert nucleosome.mass == pytest.approx(195e3, rel=0.06)
    for path in sorted((folder / "templates").glob("*.pdb.gz")):
        molecule = load_structure(path)
        assert molecule.mass == pytest.approx(190e3, rel=0.15)
        assert molecule.backbone.sum() > 800  # about 750 residues of histones and 290 nucleotides


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "v4v5d",
            None,
            "'v4v5d' is neither a structure file nor a PDB id such as 4v5d; did you mean '4v5d'?",
        ),
        ("my protein", None, "'my protein' is neither .*; give the path of a PDB or mmCIF file"),
        ("missing.pdb", None, "missing.pdb: there is no such structure file; check the path"),
        ("folder/4v5d", None, "folder/4v5d: there is no such structure file"),
        (".", None, r"\. is a folder, not a structure file; name a file in it"),
        ("map.mrc", b"\0" * 2000, "map.mrc is a density map, not a structure file; write {map: map.mrc}"),
        ("bad.cif", b"data_x\nloop_\n_atom_site.id\n'", "bad.cif cannot be read as a structure: "),
        ("bad.pdb.gz", b"not gzipped", "bad.pdb.gz holds no atoms"),
        ("binary.pdb", bytes(range(256)) * 20, "binary.pdb holds no atoms; check that it is a PDB or mmCIF"),
        ("empty.pdb", b"", "empty.pdb holds no atoms"),
        ("empty.cif", b"", "empty.cif holds no atoms"),
        ("text.cif", b"data_x\n_cell.length_a 1\n", "text.cif holds no atoms"),
        (
            "water.pdb",
            atom(1, "O", "HOH", 1, "O", record="HETATM").encode(),
            "water.pdb contains only hydrogens and waters",
        ),
        (
            "nowhere.pdb",
            atom(1, "N", "ALA", 1, "N", x=float("nan")).encode(),
            "nowhere.pdb has atoms without coordinates",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load_structure(name)
    assert "\n" not in str(caught.value)


def test_an_assembly_of_chains_that_are_not_there_is_refused(tmp_path: Path) -> None:
    path = written(
        tmp_path / "elsewhere.pdb",
        "REMARK 350 BIOMOLECULE: 1",
        "REMARK 350 APPLY THE FOLLOWING TO CHAINS: Z",
        *(biomt(i + 1, 1, tuple(float(i == j) for j in range(3)), 0.0) for i in range(3)),
        atom(1, "N", "ALA", 1, "N"),
    )
    with pytest.raises(InputError, match=r"elsewhere.pdb: its assembly names chains that the file lacks"):
        load_structure(path)
    with pytest.raises(InputError, match="states no assemblies, not 'x'"):
        load_structure("3jb9", assembly="x")


def test_a_folder_of_structures(tmp_path: Path) -> None:
    for name in ("b.pdb", "a.cif.gz", "notes.txt", "c.ent"):
        (tmp_path / name).write_text("")
    (tmp_path / "d.pdb").mkdir()
    assert [path.name for path in files_in(tmp_path)] == ["a.cif.gz", "b.pdb", "c.ent"]
    with pytest.raises(InputError, match="is not a folder; give a folder with PDB or mmCIF files"):
        files_in(tmp_path / "b.pdb")
    with pytest.raises(InputError, match=r"has no structure files; they end in .pdb, .ent"):
        files_in(tmp_path / "d.pdb")


def test_the_limit_counts_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dimer(tmp_path / "dimer.pdb")
    monkeypatch.setattr(structures, "MAX_ATOMS", 6)
    assert load_structure(path).n_atoms == 6
    monkeypatch.setattr(structures, "MAX_ATOMS", 5)
    with pytest.raises(InputError, match="6 atoms, more than the 5"):
        load_structure(path)
