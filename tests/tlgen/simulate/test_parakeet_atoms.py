"""From a structure file to MULTEM's list: every atom of the molecule, once, where it belongs."""

from pathlib import Path

import gemmi
import numpy as np
import pytest

from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Library
from tlgen.molecules.structures import load_structure
from tlgen.scene.scene import Scene
from tlgen.simulate.parakeet import Parakeet, _atoms, _grid

#: What the file holds: residue, number with insertion code, atom, alternative location, and whether a
#: molecule has it. An assembly of two copies is stated.
SITES = [
    ("ALA", "10", "N", "", True),
    ("ALA", "10", "CA", "", True),
    ("ALA", "10", "C", "", True),
    ("ALA", "10", "HA", "", False),  # hydrogen
    ("SER", "10A", "N", "", True),  # an inserted residue of the same number
    ("SER", "10A", "CA", "", True),
    ("SER", "10A", "OG", "A", True),
    ("SER", "10A", "OG", "B", False),  # second place of the same atom
    ("SER", "10B", "N", "", True),
    ("SER", "10B", "CA", "", True),
    ("PRO", "11", "CA", "A", True),
    ("GLY", "11", "CA", "B", False),  # second kind of the same residue
    ("MG", "90", "MG", "", True),
    ("HOH", "91", "O", "", False),  # water
]
TURN = np.diag([-1.0, -1.0, 1.0])  # of the second copy
SHIFT = np.array([60.0, 0.0, 5.0])


def place_of(k: int) -> np.ndarray:
    return np.array([2.0 * k, 0.7 * (k % 5), -1.3 * k])


def structure() -> gemmi.Structure:
    """An ensemble of two models that lie on each other, with alternatives, insertions and an assembly."""
    made = gemmi.Structure()
    made.name = "rich"
    for number in (1, 2):
        model, chain = gemmi.Model(number), gemmi.Chain("A")
        for k, (name, seqid, atom_name, altloc, _) in enumerate(SITES):
            if not len(chain) or (chain[-1].name, str(chain[-1].seqid)) != (name, seqid):
                residue = gemmi.Residue()
                residue.name, residue.seqid = name, gemmi.SeqId(seqid)
                residue.het_flag = "H" if name in ("MG", "HOH") else "A"
                chain.add_residue(residue)
            atom = gemmi.Atom()
            atom.name, atom.altloc = atom_name, altloc or "\0"
            atom.element = gemmi.Element("Mg" if name == "MG" else atom_name[0])
            atom.occ = 0.4 if altloc else 1.0
            atom.pos = gemmi.Position(*(place_of(k) + 0.3 * (number - 1)))
            chain[-1].add_atom(atom)
        model.add_chain(chain)
        made.add_model(model)
    made.setup_entities()
    assembly, generator = gemmi.Assembly("1"), gemmi.Assembly.Gen()
    generator.chains = ["A"]
    for matrix, shift in ((np.eye(3), np.zeros(3)), (TURN, SHIFT)):
        operator = gemmi.Assembly.Operator()
        operator.transform = gemmi.Transform(gemmi.Mat33(matrix.tolist()), gemmi.Vec3(*shift))
        generator.operators.append(operator)
    assembly.generators.append(generator)
    made.assemblies.append(assembly)
    return made


def file_of(kind: str, folder: Path) -> Path:
    path = folder / f"rich.{kind}"
    if kind == "pdb":
        structure().write_pdb(str(path))
    else:
        structure().make_mmcif_document().write_file(str(path))
    return path


@pytest.mark.parametrize("kind", ["pdb", "cif"])
def test_every_atom_reaches_multem_once(kind: str, tmp_path: Path) -> None:
    """Alternatives, insertion codes, several models and an assembly: none is lost, none comes twice."""
    path = file_of(kind, tmp_path)
    read = gemmi.read_structure(str(path))
    assert (len(read), read[0].count_atom_sites()) == (2, len(SITES))
    molecule = load_structure(path)
    library: Library = {molecule.digest: molecule}
    centres = np.array([[-40.0, 10.0, -12.0], [35.0, -20.0, 8.0]])
    quaternions = np.array([[0, 0, 0, 1.0], [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]])  # as it is; x by 90°
    scene = Scene(
        (25, 30, 30), 8.0, (molecule.digest,), ("rich",), (-1,), (1,), ("rich",),
        np.zeros(2, np.int64), centres, quaternions,
    )  # fmt: skip
    acq = Acquisition.model_validate({"engine": "parakeet", "padding": 16})
    angle = 20.0
    found = np.array(list(_atoms(scene, library, angle, _grid(scene, acq))))

    kept = [k for k, site in enumerate(SITES) if site[-1]]
    once = np.round([place_of(k) for k in kept], 3)
    both = np.concatenate([once, once @ TURN.T + SHIFT])
    around = both - both.mean(axis=0)
    turned = np.stack([around[:, 0], -around[:, 2], around[:, 1]], axis=1)
    expected = np.concatenate([around + centres[0], turned + centres[1]])
    elements = [gemmi.Element("Mg" if SITES[k][0] == "MG" else SITES[k][2][0]).atomic_number for k in kept]
    assert len(found) == 4 * len(kept) == 40
    assert found[:, 0].tolist() == elements * 4

    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    tilted = np.stack(
        [c * expected[:, 0] + s * expected[:, 2], expected[:, 1], c * expected[:, 2] - s * expected[:, 0]], 1
    )
    grid = _grid(scene, acq)
    middle = [grid.x0 + (grid.width - 1) / 2, grid.y0 + (grid.height - 1) / 2, scene.box[2] / 2]
    assert found[:, 1:4] == pytest.approx(tilted + middle, abs=2e-3)
    assert (found[:, 4] == 0).all()
    assert (found[:, 5] == 1).all()  # a particle has its whole molecule, whatever the file's occupancy


def test_only_what_is_outside_of_the_padded_image_is_left_out(tmp_path: Path) -> None:
    """As Parakeet does; the box holds every molecule's centre, the padding most of what sticks out of it."""
    molecule = load_structure(file_of("pdb", tmp_path))
    acq = Acquisition.model_validate({"engine": "parakeet", "padding": 16})
    counts = []
    for x in (0.0, -120.0, -136.0):
        scene = Scene(
            (25, 30, 30), 8.0, (molecule.digest,), ("rich",), (-1,), (1,), ("rich",),
            np.zeros(1, np.int64), np.array([[x, 0.0, 0.0]]), np.array([[0, 0, 0, 1.0]]),
        )  # fmt: skip
        grid = _grid(scene, acq)
        atoms = np.array(list(_atoms(scene, {molecule.digest: molecule}, 0.0, grid)))
        # the grid begins half a pixel and x0 pixels before the box
        inside = molecule.positions[:, 0] + x >= -120 - grid.x0 + 0.5
        assert len(atoms) == inside.sum()
        counts.append(len(atoms))
    assert counts[0] == molecule.n_atoms
    assert 0 < counts[-1] < molecule.n_atoms


def test_memory_is_estimated_for_the_atoms_that_come(tmp_path: Path) -> None:
    molecule = load_structure(file_of("pdb", tmp_path))
    acq = Acquisition.model_validate({"engine": "parakeet"})
    scene = Scene(
        (25, 30, 30), 8.0, (molecule.digest,), ("rich",), (-1,), (1,), ("rich",),
        np.zeros(3, np.int64), np.zeros((3, 3)), np.tile([0, 0, 0, 1.0], (3, 1)),
    )  # fmt: skip
    empty = Scene(
        (25, 30, 30), 8.0, (molecule.digest,), ("rich",), (-1,), (1,), ("rich",),
        np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 4)),
    )  # fmt: skip
    library: Library = {molecule.digest: molecule}
    more = Parakeet().memory(scene, library, acq) - Parakeet().memory(empty, library, acq)
    assert more == 60 * 400
