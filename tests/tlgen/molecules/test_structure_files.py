"""Structure files as other programs write them: what they leave out, and what it must be taken for."""

from __future__ import annotations

import gzip
import logging
import re
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogs.errors import InputError
from tlgen.molecules.elements import element_by_name
from tlgen.molecules.structure_file import expand_expression
from tlgen.molecules.structures import load_structure, polymers, shipped, sites


def line(
    name: str,
    residue: str = "ALA",
    number: int = 1,
    xyz: tuple[float, float, float] = (0.0, 0.0, 0.0),
    *,
    element: str = "",
    chain: str = "A",
    record: str = "ATOM",
) -> str:
    """One line of a PDB file; ``name`` is the four columns as they stand, ``residue`` three or four."""
    x, y, z = xyz
    return (
        f"{record:6}{1:5d} {name:<4} {residue:<4}{chain}{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
        f"{1:6.2f}{0:6.2f}          {element:>2}".rstrip()
    )


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join((*lines, "END", "")))
    return path


def symbols(path: Path) -> list[str]:
    return [gemmi.Element(int(z)).name for z in load_structure(path).elements]


# --------------------------------------------------------------------------------- elements that are not told


def test_names_that_begin_in_the_first_column(shared: Path) -> None:
    molecule = load_structure(shared / "faults" / "left.pdb")
    assert (molecule.n_atoms, round(molecule.mass, 1)) == (7, 92.1)
    assert molecule.elements.tolist() == [7, 6, 6, 8, 6, 6, 7]
    assert np.flatnonzero(molecule.backbone).tolist() == [1]


@pytest.mark.parametrize("where", ["{:<4}", " {:<3}", "{:>4}", "{:^4}"])
def test_residues_tell_elements_wherever_names_stand(tmp_path: Path, where: str) -> None:
    names = ["N", "CA", "C", "O", "CB", "CD", "CE", "NE", "ND1", "NH1", "OG", "SG", "SD", "HA", "HG", "D"]
    lines = [line(where.format(name), "ARG", 1, (2.0 * k, 0, 0)) for k, name in enumerate(names)]
    lines += [line(where.format(name), "DA", 2, (0, 2.0 * k, 0)) for k, name in enumerate(["P", "C1'", "N9"])]
    assert symbols(written(tmp_path / "a.pdb", *lines)) == [*"NCCOCCCNNNOSS", *"PCN"]


def test_what_else_has_no_element(tmp_path: Path) -> None:
    left = [
        line("N", "MSE", 1),
        line("CA", "MSE", 1),
        line("C", "MSE", 1),
        line("SE", "MSE", 1),
        line("1HB", "MSE", 1),
        line("ZN", "ZN", 2),
        line("CA", "CA", 3),
        line("FE", "FE2", 4),
        line("CL", "CL", 5),
        line("SOD", "SOD", 6),
        line("CL1", "LIG", 7),
        line("CA1", "LIG", 7),
        line("BR", "LIG", 7),
        line("NA", "LIG", 7),
        line("H12", "LIG", 7),
        line("PA", "LIG", 7),
        line("AC1", "LIG", 7),
        line("FE", "HEM", 8),
        line("NA", "HEM", 8),
        line("CHA", "HEM", 8),
    ]
    path = written(tmp_path / "left.pdb", *left)
    expected = [
        "N",
        "C",
        "C",
        "Se",
        "Zn",
        "Ca",
        "Fe",
        "Cl",
        "Na",
        "Cl",
        "C",
        "Br",
        "N",
        "P",
        "C",
        "Fe",
        "N",
        "C",
    ]
    assert symbols(path) == expected
    right = written(
        tmp_path / "right.pdb",
        line(" N", "GLY", 1),
        line(" CA", "GLY", 1),
        line("CA", "LIG", 2),
        line(" CA", "LIG", 2),
        line("HG21", "LIG", 2),
        line("NA", "LIG", 2),
    )
    assert symbols(right) == ["N", "C", "Ca", "C", "Na"]


def test_elements_that_contradict_the_residue(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(
        tmp_path / "calcium.pdb",
        line(" N", element="N"),
        line("CA", element="CA"),
        line(" CB", element="XX"),
        line("CA", "CA", 2, element="CA"),
    )
    assert symbols(path) == ["N", "C", "C", "Ca"]
    assert "states elements that amino acids and nucleotides do not hold (Ca)" in caplog.text


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'*\"+- ", max_size=4), st.booleans(), st.booleans())
def test_any_name_gives_an_element_or_none(name: str, alone: bool, polymer: bool) -> None:
    symbol = element_by_name(name, "LIG", alone=alone, polymer=polymer)
    assert symbol == "" or gemmi.Element(symbol).name == symbol


# ------------------------------------------------------------------------------------------ water and salt


def test_water_of_simulations(shared: Path) -> None:
    molecule = load_structure(shared / "faults" / "wet.pdb")
    assert (molecule.n_atoms, round(molecule.mass)) == (1, 12)


@pytest.mark.parametrize(
    "residue", ["HOH", "WAT", "TIP3", "TP3", "TIP4", "T4P", "SOL", "SPC", "DOD", "OPC", "SPCE"]
)
@pytest.mark.parametrize("told", [True, False])
def test_water_under_any_name(tmp_path: Path, residue: str, told: bool) -> None:
    water = [("OW", "O"), ("HW1", "H"), ("HW2", "H"), ("MW", "")]
    lines = [line(" CA", element="C" if told else "")]
    for k in range(5):
        lines += [
            line(f" {name}", residue, 2 + k, (8.0 * k + 8, 0, 0), element=symbol if told else "", chain="W")
            for name, symbol in water
        ]
    assert symbols(written(tmp_path / "wet.pdb", *lines)) == ["C"]


def test_water_by_what_it_is_made_of(tmp_path: Path) -> None:
    lines = [
        line(" CA"),
        line(" OH2", "XYZ", 2),
        line(" O", "ABC", 3),
        line(" H1", "ABC", 3),
        line(" H2", "ABC", 3),
    ]
    assert symbols(written(tmp_path / "a.pdb", *lines)) == ["C"]
    # an oxide is no water, and names of waters are those of ligands in the PDB
    lines = [line(" CA"), line(" O", "O", 2), line(" C1", "SPC", 3), line(" O1", "SPC", 3)]
    assert symbols(written(tmp_path / "b.pdb", *lines)) == ["C", "O", "C", "O"]


def test_salt_goes_with_the_water_of_a_simulation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ions = [line("SOD", "SOD", 5), line("CLA", "CLA", 6), line("NA", "NA", 7), line("MG", "MG", 8)]
    assert symbols(written(tmp_path / "dry.pdb", line(" CA"), *ions)) == ["C", "Na", "Cl", "Na", "Mg"]
    assert "of its salt" not in caplog.text
    assert symbols(written(tmp_path / "wet.pdb", line(" CA"), line(" OW", "SOL", 2), *ions)) == ["C", "Mg"]
    assert "wet.pdb is the box of a simulation: 3 ions of its salt left out" in caplog.text


# ----------------------------------------------------------------------------------------------- dummies


def test_what_is_left_out_or_coarse_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    beads = [line(" BB", "ALA", k) for k in (1, 2)] + [line(" SC1", "LIP", 3), line(" Q", "DUM", 4)]
    path = written(tmp_path / "beads.pdb", *beads, line(" CA", "ALA", 5))
    assert load_structure(path).n_atoms == 2
    assert "beads.pdb has 3 atoms left out because the element cannot be told (named BB, Q)" in caplog.text
    with pytest.raises(
        InputError, match=r"only.pdb contains only hydrogens and waters and what has no element"
    ):
        load_structure(written(tmp_path / "only.pdb", *beads[:2]))
    trace = [line(" CA", "ALA", k, (3.8 * k, 0, 0), element="C") for k in range(9)]
    load_structure(written(tmp_path / "trace.pdb", *trace))
    assert "trace.pdb holds only the CA or P atoms of its residues" in caplog.text
    spine = [line(f" {name}", "ALA", k, element=name[0]) for k in range(9) for name in ("N", "CA", "C", "O")]
    load_structure(written(tmp_path / "spine.pdb", *spine))
    assert "spine.pdb holds only the backbone of its residues" in caplog.text


@pytest.mark.parametrize("name", ["1ubi", "3enl", "4v1w"])
def test_nothing_is_said_of_whole_structures(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    load_structure(name)
    assert caplog.text == ""


# ------------------------------------------------------------------------------------------------- models


def model(number: int, shift: float, wobble: float = 0.0, n: int = 12) -> list[str]:
    rng = np.random.default_rng(number)
    places = np.random.default_rng(0).normal(0, 6, (n, 3)) + [shift, 0, 0] + wobble * rng.normal(0, 1, (n, 3))
    atoms = [line(" CA", "ALA", k + 1, tuple(xyz), element="C") for k, xyz in enumerate(places)]  # type: ignore[arg-type]
    return [f"MODEL {number:8d}", *atoms, "ENDMDL"]


def test_copies_of_an_assembly_as_models(shared: Path) -> None:
    path = shared / "faults" / "models.pdb"
    molecule = load_structure(path)
    assert (molecule.n_atoms, np.ptp(molecule.positions[:, 0])) == (6, pytest.approx(124))
    assert [site.chain for site in sites(path)] == ["A", "A", "A-2", "A-2", "A-3", "A-3"]
    assert [(each.sequence, each.copies) for each in polymers(path)] == [("AA", 3)]
    assert load_structure(path, assembly="asymmetric").n_atoms == 2


def test_an_ensemble_lies_on_itself(tmp_path: Path) -> None:
    lines = [text for k in range(5) for text in model(k + 1, 0.0, 0.7)]
    path = written(tmp_path / "nmr.pdb", *lines)
    assert load_structure(path).n_atoms == 12
    assert load_structure(path, assembly="models").n_atoms == 60
    same = written(tmp_path / "same.pdb", *model(1, 0.0), *model(2, 0.0))
    assert load_structure(same).n_atoms == 12
    tail = written(
        tmp_path / "tail.pdb", *model(1, 0, 0.7), *model(2, 0, 0.7), *model(3, 0, 0.7), *model(4, 90, 2)
    )
    assert load_structure(tail).n_atoms == 12  # one of four has moved away


def test_models_that_may_be_either_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "either.pdb", *model(1, 0.0, 1.5), *model(2, 80.0, 1.5))
    with pytest.raises(
        InputError, match=r"either.pdb has 2 models, .*assembly: asymmetric .*assembly: models"
    ):
        load_structure(path)
    assert load_structure(path, assembly="asymmetric").n_atoms == 12
    assert load_structure(path, assembly="models").n_atoms == 24


def test_an_assembly_of_different_models(tmp_path: Path) -> None:
    path = written(tmp_path / "two.pdb1", *model(1, 0.0), *model(2, 80.0, n=7))
    assert load_structure(path).n_atoms == 19
    zipped = tmp_path / "two.pdb1.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert load_structure(zipped).n_atoms == 19


# ------------------------------------------------------------------------------------------------- mmCIF


def test_products_of_operators(shared: Path) -> None:
    molecule = load_structure(shared / "faults" / "assembly_product.cif")
    assert molecule.n_atoms == 40
    # (1)(2,3): shifts by 60 + 120 and by 60 + 180
    assert np.diff(molecule.positions[[0, 20], 0])[0] == pytest.approx(60)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1", "1"),
        ("1,2", "1 2"),
        ("(1,2)", "1 2"),
        ("1-3", "1 2 3"),
        ("(1-2,5)", "1 2 5"),
        ("P", "P"),
        ("(1)(2,3)", "1*2 1*3"),
        ("(1,2)(3-4)", "1*3 1*4 2*3 2*4"),
        ("(P)(1)(2)", "P*1*2"),
        ("(X0)(1-2)", "X0*1 X0*2"),
        ("P(1,2)", "P*1 P*2"),
        (" ( 1 , 2 ) ", "1 2"),
        ("1-2-x", "1-2-x"),
    ],
)
def test_operator_expressions(text: str, names: str) -> None:
    known = {"1", "2", "3", "4", "5", "P", "X0", "1-2-x"}
    assert ["*".join(each) for each in expand_expression(text, known)] == names.split()


@pytest.mark.parametrize(
    "text", ["", "9", "(1", "1)", "(1)(", "1-9", "3-1", "(1,,2)", "()", "a-b", "((1)(2))"]
)
def test_wrong_expressions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"whose operator|cannot be read"):
        expand_expression(text, {"1", "2", "3"})


def test_the_rightmost_operator_is_applied_first(shared: Path, tmp_path: Path) -> None:
    text = (shared / "faults" / "assembly_product.cif").read_text()
    # operator 2 turns about z by 90 degrees, operator 1 shifts by 60 along x
    text = text.replace("2 'point symmetry operation' 1 0 0 120 0 1 0 0", "2 'x' 0 -1 0 0 1 0 0 0")
    path = tmp_path / "turned.cif"
    path.write_text(text)
    unit = load_structure(path, assembly="asymmetric")
    both = load_structure(path)
    turned = both.positions[:20] - both.positions[:1]
    expected = unit.positions - unit.positions[:1]
    assert turned[:, 0] == pytest.approx(-expected[:, 1], abs=1e-3)
    between = both.positions[20] - both.positions[0]
    moved = [13.8 + 240 - (60 - 1.2), 1.2 - 13.8, 0.0]
    assert between == pytest.approx(moved, abs=1e-3)
    path.write_text(text.replace("(1)(2,3)", "(1)(2,9)"))
    with pytest.raises(
        InputError, match=r"turned.cif: assembly 1 has the operator expression '\(1\)\(2,9\)', whose"
    ):
        load_structure(path)


def without(source: Path, target: Path, *columns: str, null: str = "") -> Path:
    """Write an mmCIF file without some columns of its atoms, or with one that says nothing."""
    document = gemmi.cif.read(str(source))
    block = document.sole_block()
    table = block.get_mmcif_category("_atom_site.", raw=True)
    for column in columns:
        del table[column]
    if null:
        table[null] = ["?"] * len(table["id"])
    block.set_mmcif_category("_atom_site.", table, raw=True)
    document.write_file(str(target))
    return target


@pytest.mark.parametrize(
    "columns",
    [
        ("type_symbol",),
        ("label_alt_id",),
        ("label_asym_id",),
        ("auth_asym_id",),
        ("auth_seq_id",),
        ("id",),
        ("occupancy", "B_iso_or_equiv"),
        ("type_symbol", "label_alt_id", "label_asym_id"),
        ("label_seq_id",),
        ("group_PDB", "pdbx_PDB_ins_code", "pdbx_PDB_model_num"),
        ("label_asym_id", "auth_asym_id"),
    ],
)
def test_columns_that_an_mmcif_file_lacks(shared: Path, tmp_path: Path, columns: tuple[str, ...]) -> None:
    source = shared / "faults" / "assembly_product.cif"
    whole = load_structure(source, assembly="asymmetric")
    path = without(source, tmp_path / "less.cif", *columns)
    less = load_structure(path, assembly="asymmetric")
    assert less.elements.tolist() == whole.elements.tolist()
    assert less.backbone.tolist() == whole.backbone.tolist()
    assert less.positions.tolist() == whole.positions.tolist()
    assert load_structure(path).n_atoms == 40
    assert symbols(without(source, tmp_path / "null.cif", null="type_symbol")) == [*"NCCO"] * 10


@pytest.mark.parametrize("column", ["Cartn_x", "label_comp_id", "label_atom_id"])
def test_a_column_that_nothing_can_stand_for_is_named(shared: Path, tmp_path: Path, column: str) -> None:
    path = without(shared / "faults" / "assembly_product.cif", tmp_path / "less.cif", column)
    with pytest.raises(InputError, match=rf"less.cif: its atoms have no column _atom_site.{column}"):
        load_structure(path)


def test_a_large_mmcif_file_without_elements(tmp_path: Path) -> None:
    source = shipped()["3o21"]
    whole = load_structure(source)
    less = load_structure(without(source, tmp_path / "3o21.cif", "type_symbol"))
    assert np.array_equal(less.elements, whole.elements)


def test_names_of_chains_may_be_long(tmp_path: Path) -> None:
    structure = gemmi.read_structure(str(shipped()["3enl"]))
    structure.setup_entities()
    for residue in (residue for chain in structure[0] for residue in chain):
        residue.subchain = f"a_long_name_{residue.subchain}"
    (tmp_path / "3enl.cif").write_text(structure.make_mmcif_document().as_string())
    long, short = load_structure(tmp_path / "3enl.cif"), load_structure("3enl")
    assert np.array_equal(long.elements, short.elements)
    assert np.array_equal(long.backbone, short.backbone)
    assert np.abs(long.positions - short.positions).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "digest"),
    [("1ubi", "d6a6710aba342571"), ("3o21", "cfff7e72213b91eb"), ("7pbl", "e0a19be6c4fc4be6")],
)
def test_molecules_of_whole_files_stay_what_they_were(name: str, digest: str) -> None:
    """Corpora know molecules by their digests, which the order of atoms changes too."""
    assert load_structure(name).digest == digest


# ---------------------------------------------------------------------------------------------- BinaryCIF


@pytest.mark.parametrize("compressed", [True, False])
def test_binary_cif_is_mmcif(tmp_path: Path, compressed: bool) -> None:
    pdbx: Any = pytest.importorskip("biotite.structure.io.pdbx")
    for name in ("3o21",):
        source = shipped()[name]
        text = pdbx.CIFFile.read(str(source))
        wanted = ("atom_site", "pdbx_struct_assembly", "pdbx_struct_assembly_gen", "pdbx_struct_oper_list")
        categories = {}
        for category in wanted:
            if category in text.block:
                columns = {
                    key: pdbx.BinaryCIFColumn(
                        pdbx.BinaryCIFData(numbers(column.as_array(str))),
                        None if column.mask is None else pdbx.BinaryCIFData(column.mask.array),
                    )
                    for key, column in text.block[category].items()
                }
                categories[category] = pdbx.BinaryCIFCategory(columns)
        file = pdbx.BinaryCIFFile({"X": pdbx.BinaryCIFBlock(categories)})
        if compressed:
            file = pdbx.compress(file, rtol=1e-7, atol=1e-7)
        path = tmp_path / f"{name}.bcif"
        file.write(str(path))
        zipped = tmp_path / f"{name}.bcif.gz"
        zipped.write_bytes(gzip.compress(path.read_bytes()))
        whole = load_structure(source)
        for read in (path, zipped):
            molecule = load_structure(read)
            assert molecule.elements.tolist() == whole.elements.tolist()
            assert np.abs(molecule.positions - whole.positions).max() < 2e-3
            assert np.array_equal(molecule.backbone, whole.backbone)
        assert polymers(path) == polymers(source)


def numbers(words: Any) -> Any:
    for kind in (np.int32, np.float64):
        try:
            return words.astype(kind)
        except ValueError:
            continue
    return words


@pytest.mark.parametrize("name", ["a.pdb.gz", "a.cif.gz", "a.bcif.gz"])
def test_what_unpacks_without_end_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(bytes(80 << 20)))
    with pytest.raises(InputError, match=rf"{re.escape(name)} unpacks to more than"):
        load_structure(tmp_path / name)
    (tmp_path / name).write_bytes(gzip.compress(b"ATOM" * 100)[:-9])
    with pytest.raises(InputError, match=rf"{re.escape(name)} is cut off"):
        load_structure(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x81\xa1a\x01", b"\xc1" * 40, b"\x1f\x8b" + b"x" * 20])
def test_what_is_no_binary_cif_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.bcif"
    path.write_bytes(content)
    with pytest.raises(
        InputError,
        match=r"bad.bcif (is not a BinaryCIF file|cannot be read as a structure|is cut off or damaged)",
    ):
        load_structure(path)


def _atom(number: int, name: str, x: str) -> str:
    place = f"{x:>8}   0.000   0.000"
    return f"ATOM  {number:5d}  {name:<3} ALA A{number:4d}    {place}  1.00 10.00           {name[0]}"


@pytest.mark.parametrize("x", ["********", "     nan", " 1 2.500", "        "])
def test_coordinates_that_are_no_numbers(tmp_path: Path, x: str) -> None:
    """Programs write stars where a number has no room, and gemmi reads them as 0."""
    lines = [_atom(k, "CA", f"{4.0 * k:.3f}") for k in range(1, 5)] + [_atom(5, "CA", x)]
    (tmp_path / "a.pdb").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"a\.pdb .*(in line 5 has no three numbers|without coordinates)"):
        load_structure(tmp_path / "a.pdb")


def test_a_file_that_was_joined_with_itself(tmp_path: Path) -> None:
    lines = [_atom(k, "CA", f"{4.0 * k:.3f}") for k in range(1, 9)]
    (tmp_path / "a.pdb").write_text("\n".join(lines * 2) + "\n")
    with pytest.raises(InputError, match=r"has 8 of its 16 atoms twice"):
        load_structure(tmp_path / "a.pdb")
    (tmp_path / "b.pdb").write_text("\n".join(lines + lines[:2]) + "\n")
    assert len(load_structure(tmp_path / "b.pdb").elements) == 10
