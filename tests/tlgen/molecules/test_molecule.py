"""Molecules: their mass, their digest, and atoms that are spread out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlgen.molecules.molecule import Molecule, centred, from_arrays, to_arrays
from tlgen.molecules.structures import load_structure


def sulfur(n: int, seed: int, occupancy: float, sigma: float) -> Molecule:
    xyz = np.random.default_rng(seed).normal(0, 20, (n, 3))
    return centred("sulfur", [16] * n, xyz, [True] * n, occupancy=[occupancy] * n, sigma=[sigma] * n)


def cloud(n: int = 30, seed: int = 0, **more: object) -> Molecule:
    rng = np.random.default_rng(seed)
    return centred(
        "cloud", rng.choice([6, 7, 8], n), rng.normal(0, 20, (n, 3)), np.arange(n) % 2 == 0, **more
    )


def test_digests_of_structures_are_those_of_earlier_versions() -> None:
    assert load_structure("1ubi").digest == "d6a6710aba342571"
    assert load_structure("3enl").digest == "9a61e81b68a0321c"


def test_the_digest_tells_weights_and_widths() -> None:
    plain = cloud()
    same = replace(plain, occupancy=np.ones(30, np.float32), sigma=np.zeros(30, np.float32))
    assert same.digest == plain.digest
    assert same.is_atomic
    heavy = replace(plain, occupancy=np.full(30, 2, np.float32))
    wide = replace(plain, sigma=np.full(30, 2, np.float32))
    assert len({plain.digest, heavy.digest, wide.digest}) == 3
    assert not heavy.is_atomic
    assert not wide.is_atomic


def test_mass_volume_and_radius_count_by_occupancy() -> None:
    two = centred("two", [6, 6], [[0, 0, 0], [40, 0, 0]], [True, True], occupancy=[3, 1])
    assert two.mass == pytest.approx(4 * 12.011)
    assert two.positions[:, 0] == pytest.approx([-10, 30])  # around the centre of mass
    gyration = (3 * 100 + 900) / 4
    assert two.radius == pytest.approx(np.sqrt(5 / 3 * gyration))
    wide = replace(two, sigma=np.full(2, 5, np.float32))
    assert wide.radius == pytest.approx(np.sqrt(5 / 3 * (gyration + 3 * 25)))
    assert wide.mass == two.mass


def test_one_number_for_all_atoms_takes_no_memory() -> None:
    molecule = cloud(1000)
    assert molecule.occupancy.shape == molecule.sigma.shape == (1000,)
    assert molecule.occupancy.strides == (0,)
    with pytest.raises(ValueError, match="broadcast"):
        cloud(10, sigma=np.ones(9))


@pytest.mark.parametrize("more", [{}, {"occupancy": np.arange(1, 31), "sigma": np.full(30, 2.5)}])
def test_arrays_bring_a_molecule_back_to_the_bit(more: dict[str, object]) -> None:
    molecule = replace(cloud(**more), rmsd=1.25, amplitudes=(1.0, -0.75), variant=3)
    arrays = to_arrays(molecule)
    again = from_arrays(arrays)
    assert again.digest == molecule.digest
    assert (again.rmsd, again.amplitudes, again.variant) == (1.25, (1.0, -0.75), 3)
    assert np.array_equal(again.occupancy, molecule.occupancy)
    assert np.array_equal(again.sigma, molecule.sigma)
    assert ("sigma" in arrays) is bool(more)
    del arrays["rmsd"]  # as corpora of earlier versions have it
    assert from_arrays(arrays).rmsd == 0


def test_real_atoms_are_points_already() -> None:
    assert (molecule := cloud()).points is molecule
    assert (heavy := cloud(occupancy=np.full(30, 3))).points is heavy


@settings(max_examples=30, deadline=None)
@given(occupancy=st.floats(0.1, 200), sigma=st.floats(0.5, 15), seed=st.integers(0, 1000))
def test_points_have_the_gaussians_mass_mean_and_variance(occupancy: float, sigma: float, seed: int) -> None:
    molecule = sulfur(7, seed, occupancy, sigma)
    points = molecule.points
    assert not points.sigma.any()
    assert points.digest == molecule.digest
    assert points.points is points
    assert points.backbone.sum() == molecule.backbone.sum()
    assert points.mass == pytest.approx(molecule.mass, rel=1e-5)
    assert points.radius == pytest.approx(molecule.radius, rel=1e-3)
    count = points.n_atoms // 7
    assert points.n_atoms == 7 * count
    assert count == pytest.approx(np.clip(16 * occupancy * 2 / 13.2, 12, 128), abs=1)
    groups = points.positions.astype(np.float64).reshape(7, count, 3) - molecule.positions[:, None]
    assert groups.mean(axis=1) == pytest.approx(0, abs=1e-3 * sigma)
    covariance = np.einsum("aki,akj->aij", groups, groups) / count
    assert covariance == pytest.approx(np.broadcast_to(sigma**2 * np.eye(3), (7, 3, 3)), abs=2e-3 * sigma**2)


def test_only_wide_atoms_are_spread() -> None:
    sigma = np.where(np.arange(30) < 10, 3.0, 0.0)
    points = cloud(sigma=sigma).points
    assert points.n_atoms == 20 + 10 * 12
    assert points.mass == pytest.approx(cloud().mass, rel=1e-6)
    assert np.array_equal(points.positions[-20:], cloud().positions[-20:])
