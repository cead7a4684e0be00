"""Distractors that are the target: real structures, and shapes of which nothing else is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from tlgen.molecules import similarity
from tlgen.molecules.molecule import Molecule
from tlgen.molecules.similarity import Candidate, of_molecule, of_structure, refuse_targets, same_assembly
from tlgen.molecules.structures import Polymer, load_structure, polymers

H = "ARTKQTARKSTGGKAPRKQLATKAARKSAPATGGVKKPHRYRPGTVALREIRRYQKSTELLIRKLPFQRLVREIAQDFKTDLRFQSSAVMALQEASEAYLV"
K = "MKVINLDEFGHSWQPTYRCMAVNLIDKEGFSTHWYPQRCMNAVLIDEKGFHSTWYQPRCMAVNLKIDEGFHTSWYPRQCNMAVLIKDEG"


def candidate(name: str, *chains: tuple[str, int]) -> Candidate:
    def load() -> Molecule:
        raise AssertionError("sequences are enough")

    return Candidate(name, tuple(Polymer("protein", sequence, n) for sequence, n in chains), load)


def test_what_a_structure_is_made_of() -> None:
    chains = polymers("4v5d")
    by_kind = {kind: [p for p in chains if p.kind == kind] for kind in ("protein", "RNA", "DNA")}
    # 5929 have a CA atom
    assert sum(p.copies * len(p.sequence) for p in by_kind["protein"]) == pytest.approx(5929, rel=0.01)
    assert max(len(p.sequence) for p in by_kind["RNA"]) > 2800  # 23S
    assert by_kind["DNA"] == []
    # 24 chains of one sequence
    assert [(p.kind, p.copies) for p in polymers("4v1w") if len(p.sequence) > 100] == [("protein", 24)]
    assert [p.kind for p in polymers("3mht") if p.kind == "DNA"] == ["DNA", "DNA"]
    assert polymers("1ubi")[0].sequence.startswith("MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQR")


def test_real_pairs(shared: Path) -> None:
    folder = shared / "structures"
    nucleosomes = [of_structure(path) for path in sorted((folder / "templates").glob("*.pdb.gz"))]
    nucleosomes.append(of_structure(folder / "other" / "1kx5.pdb"))
    assert len(nucleosomes) == 7
    for a in nucleosomes:
        for b in nucleosomes:
            assert same_assembly(a, b), (a.name, b.name)
    shipped = {name: of_structure(name) for name in ("6zu5", "4v5d", "4v8r", "4v1w", "6z6u", "3jb9")}
    same = {(a, b) for a in shipped for b in shipped if a != b and same_assembly(shipped[a], shipped[b])}
    # horse and human ferritin; not 80S and 70S
    assert same == {("4v1w", "6z6u"), ("6z6u", "4v1w")}
    assert same_assembly(nucleosomes[0], nucleosomes[1]) == "has 100 % of 2pyo's mass in like chains"
    files = sorted((folder / "distractors").glob("*.pdb.gz"))
    distractors = [of_structure(path) for path in files[::3]]
    assert len(distractors) == 27
    refuse_targets({"nucleosome": nucleosomes, "80S": [shipped["6zu5"]]}, distractors)  # none is refused
    with pytest.raises(
        InputError,
        match=r"background, and 1kx5 has 100 % of 2pyo's mass in like chains \(class nucleosome\): leave",
    ):
        refuse_targets({"nucleosome": nucleosomes[:6]}, [*distractors, nucleosomes[6]])


def test_copies_count() -> None:
    ring, subunit, double = candidate("ring", (H, 14)), candidate("one", (H, 1)), candidate("two", (H, 28))
    assert same_assembly(ring, subunit) is None
    assert same_assembly(ring, double)  # it holds the ring
    assert same_assembly(ring, candidate("ten", (H, 10)))
    assert same_assembly(ring, candidate("nine", (H, 9)))  # all of it is the ring's, and most of the ring
    assert same_assembly(ring, candidate("six", (H, 6))) is None


def test_a_larger_complex_that_holds_the_target_is_refused_and_not_a_part_of_it() -> None:
    core, whole = candidate("core", (H, 2)), candidate("whole", (H, 2), (K, 6))
    assert same_assembly(core, whole) == "has 100 % of core's mass in like chains"
    assert same_assembly(whole, core) is None


def test_homologues_are_alike_and_strangers_are_not() -> None:
    rng = np.random.default_rng(3)

    def mutated(share: float) -> Candidate:
        letters = np.array(list(H))
        where = rng.random(len(H)) < share
        letters[where] = rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), where.sum())
        return candidate("mutant", ("".join(letters), 2))

    target = candidate("target", (H, 2))
    assert all(same_assembly(target, mutated(0.4)) for _ in range(10))
    assert not any(same_assembly(target, mutated(1.0)) for _ in range(30))
    assert same_assembly(target, candidate("cut", (H[:60], 2)))  # its ends are not modelled
    assert not same_assembly(target, candidate("piece", (H[:40], 2)))


def test_shapes_tell_where_sequences_cannot() -> None:
    chaperonin = load_structure("4v8r")
    turned = replace(
        chaperonin,
        name="average",
        positions=Rotation.from_euler("zyx", [70, 130, 20], degrees=True)
        .apply(chaperonin.positions)
        .astype(np.float32),
    )
    target = of_structure("4v8r")
    assert same_assembly(target, of_molecule(turned)) == "has the shape of 4v8r (correlation 0.99)"
    assert same_assembly(of_molecule(turned), target)
    assert same_assembly(of_structure("4v1w"), of_molecule(turned)) is None
    assert same_assembly(of_structure("6zu5"), of_molecule(turned)) is None
    mirrored = replace(turned, positions=turned.positions * np.float32([1, 1, -1]))
    assert similarity.shape_correlation(chaperonin, mirrored) < 0.99


def test_maps_of_different_machines_are_different(shared: Path) -> None:
    from tlgen.molecules.pseudoatoms import load_map

    maps = {
        name: of_molecule(load_map(shared / "maps" / f"{name}.mrc").molecule)
        for name in ("polnet_20S_3j9i_5A", "chlamy_hsp60_STA_7.84A")
    }
    for a in maps:
        for b in maps:
            assert (same_assembly(maps[a], maps[b]) is not None) is (a == b)
    assert same_assembly(of_structure("4v8r"), maps["chlamy_hsp60_STA_7.84A"]) is None
