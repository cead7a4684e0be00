"""``tlgen variants``: files of several models that other programs read."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from catalogs.errors import InputError
from tlgen import api
from tlgen.molecules import variant_files
from tlgen.molecules.structures import sites
from tlgen.recipes.recipe_file import read_recipe
from tlgen.runs import prepare_structures

RECIPE = """
name: small
seed: 3
shape: [32, 32, 32]
targets:
  enolase:
    structures: [3enl, {file: 7pbl, assembly: asymmetric}]
    count: 2
    variants: {number: 2, rmsd: [1, 2], modes: 5, scheme: uniform}
  ubiquitin:
    structures: [1ubi]
    count: 1
    variants: {number: 0}
samples:
  all: {number: 1}
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    (folder / "small.yaml").write_text(RECIPE)
    command = [sys.executable, "-c", "from tlgen.cli import main; main()"]
    done = subprocess.run(
        [*command, "variants", "small.yaml", "--to", "out"], cwd=folder, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 3
    return folder


def test_each_structure_becomes_a_file_and_all_a_table(written: Path) -> None:
    names = sorted(path.name for path in (written / "out").iterdir())
    assert names == ["enolase-3enl.cif", "enolase-7pbl.cif", "variants.csv"]


def test_the_models_are_the_molecules_that_are_packed(written: Path) -> None:
    import gemmi

    preparations = [
        p for p in prepare_structures.preparations(read_recipe(str(written / "small.yaml"))) if p.variants
    ]
    for preparation in preparations:
        structure = gemmi.read_structure(str(written / "out" / f"enolase-{preparation.name}.cif"))
        molecules = prepare_structures.molecules(preparation)
        assert [model.num for model in structure] == [1, 2, 3]
        for model, molecule in zip(structure, molecules, strict=True):
            atoms = [cra.atom for cra in model.all()]
            assert [a.element.atomic_number for a in atoms] == molecule.elements.tolist()
            assert np.array([a.pos.tolist() for a in atoms]) == pytest.approx(molecule.positions, abs=6e-4)


def test_atoms_keep_their_names(written: Path) -> None:
    import gemmi

    from tlgen.molecules.structures import shipped

    original = gemmi.read_structure(str(shipped()["7pbl"]))
    ours = gemmi.read_structure(str(written / "out" / "enolase-7pbl.cif"))
    for structure in (original, ours):
        structure.remove_hydrogens()
        structure.remove_waters()

    def names(structure: gemmi.Structure) -> set[tuple[str, ...]]:
        return {
            (cra.chain.name, str(cra.residue.seqid), cra.residue.name, cra.atom.name)
            for cra in structure[0].all()
        }

    assert names(ours) == names(original)


def test_the_table_says_what_was_reached(written: Path) -> None:
    with (written / "out" / "variants.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["file"], r["model"], r["variant"]) for r in rows] == [
        (f"enolase-{name}.cif", str(k + 2), str(k)) for name in ("3enl", "7pbl") for k in (0, 1)
    ]
    for row in rows:
        amplitudes = [float(row[f"amplitude_{k}"]) for k in range(1, 6)]
        assert 1 <= float(row["rmsd"]) <= 2
        assert np.linalg.norm(amplitudes) == pytest.approx(float(row["rmsd"]), abs=2e-3)
        assert float(row["neighbours_kept"]) >= 0.99
        assert float(row["largest_stretch"]) <= 1 / 3
        assert row["new_clashes"] == "0"


def test_copies_of_a_chain_have_names_of_their_own() -> None:
    unit, dimer = sites("3enl", assembly="asymmetric"), sites("3enl")
    copies = len(dimer) // len(unit)
    assert (copies, len(dimer)) == (2, copies * len(unit))
    assert dimer[: len(unit)] == unit
    assert {s.chain for s in dimer} == {
        c if k == 1 else f"{c}-{k}" for c in {s.chain for s in unit} for k in range(1, copies + 1)
    }


def test_pseudo_atoms_carry_weight_and_width(tmp_path: Path) -> None:
    import gemmi

    from tlgen.molecules.molecule import centred

    xyz = np.random.default_rng(0).uniform(-30, 30, (40, 3))
    more = {"occupancy": np.linspace(1, 20, 40), "sigma": np.full(40, 3.0)}
    blob = centred("blob", [16] * 40, xyz, [True] * 40, **more)
    path = tmp_path / "blob.cif"
    variant_files.write_models(path, [blob], variant_files.pseudo_sites(blob))
    atoms = [cra.atom for cra in gemmi.read_structure(str(path))[0].all()]
    assert np.array([a.pos.tolist() for a in atoms]) == pytest.approx(blob.positions, abs=6e-4)
    assert [a.occ for a in atoms] == pytest.approx(blob.occupancy, abs=0.006)
    assert {round(a.b_iso, 1) for a in atoms} == {round(8 * np.pi**2 * 9, 1)}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["blob.cif"]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rigid.yaml").write_text(RECIPE.replace("number: 2,", "number: 0,"))
    with pytest.raises(InputError, match="recipe small has no flexible variants; set variants"):
        api.write_variants(read_recipe(str(tmp_path / "rigid.yaml")), tmp_path / "out")
    (tmp_path / "small.yaml").write_text(RECIPE)
    with pytest.raises(InputError, match=r"small.yaml cannot be written: .*; give another folder"):
        variant_files.write_variants(read_recipe(str(tmp_path / "small.yaml")), tmp_path / "small.yaml")
