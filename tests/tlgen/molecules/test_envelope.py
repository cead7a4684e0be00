"""Envelopes: in Å, around the molecule's centre, enclosing the stated mass."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from catalogs.errors import InputError
from tlgen.molecules.envelope import envelope
from tlgen.molecules.molecule import DALTON_PER_CUBIC_ANGSTROM, Molecule, centred

SPACING = 2.55  # Å between carbon atoms on a cubic lattice, about as dense as protein


def body(extent: NDArray[np.float64] | list[float]) -> Molecule:
    """An ellipsoid of carbon with these half axes (x, y, z in Å)."""
    n = np.ceil(np.array(extent) / SPACING)
    axes = [np.arange(-k, k + 1) * SPACING for k in n]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    far = np.linalg.norm(points / extent, axis=1)
    points = points[far <= 1]
    return centred("body", np.full(len(points), 6), points, np.ones(len(points), bool))


@pytest.mark.parametrize("radius", [25.0, 40.0, 70.0])
def test_a_ball_s_envelope_is_the_ball(radius: float) -> None:
    ball = body([radius] * 3)
    result = envelope(ball)
    volume = ball.n_atoms * SPACING**3
    # 90 % of the mass: the contour stays within an ångström or two of the surface
    surface = (3 * result.volume / (4 * np.pi)) ** (1 / 3)
    assert abs(surface - (3 * volume / (4 * np.pi)) ** (1 / 3)) < 2.0
    assert surface <= result.radius < surface + 8


def test_the_density_holds_the_mass_and_the_contour_its_share() -> None:
    molecule = body([30.0, 45.0, 60.0])
    result = envelope(molecule, enclosed=0.8)
    assert result.density.sum() * result.spacing**3 == pytest.approx(molecule.mass, rel=1e-3)
    inside = result.density[result.inside].sum() / result.density.sum()
    assert inside == pytest.approx(0.8, abs=0.005)
    z, y, x = (slice(n // 2 - 4, n // 2 + 5) for n in result.density.shape)
    assert result.density[z, y, x].mean() == pytest.approx(12.011 / SPACING**3, rel=0.02)


def test_axes_are_z_y_x_and_the_middle_is_the_centre() -> None:
    result = envelope(body([20.0, 40.0, 60.0]))
    z, y, x = np.nonzero(result.inside)
    half = (np.array([np.ptp(x), np.ptp(y), np.ptp(z)]) + 1) / 2 * result.spacing
    assert np.allclose(half, [20, 40, 60], atol=4)
    middle = (np.array(result.density.shape) - 1) / 2
    assert np.allclose(np.argwhere(result.inside).mean(axis=0), middle, atol=1e-6)
    assert all(n % 2 == 1 for n in result.density.shape)


def test_a_coarser_resolution_gives_nearly_the_same_volume() -> None:
    molecule = body([60.0, 60.0, 60.0])
    assert envelope(molecule, resolution=20).volume == pytest.approx(envelope(molecule).volume, rel=0.06)


def test_off_centre_atoms_keep_their_centre_of_mass() -> None:
    """One atom anywhere between the voxels: its density lies where it is."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        offset = rng.uniform(-10, 10, 3)
        two = Molecule(
            "two", np.array([6, 6], np.uint8), np.array([offset, offset], np.float32), np.ones(2, bool)
        )
        result = envelope(two)
        axes = [(np.arange(n) - (n - 1) / 2) * result.spacing for n in result.density.shape]
        weight = result.density / result.density.sum()
        found = [(weight * np.expand_dims(axes[a], [b for b in range(3) if b != a])).sum() for a in (2, 1, 0)]
        assert np.allclose(found, offset, atol=0.01)


def test_real_protein_fills_about_a_third_more_than_its_dry_volume() -> None:
    from tlgen.molecules.structures import load_structure

    molecule = load_structure("3enl")
    ratio = envelope(molecule).volume / (molecule.mass / DALTON_PER_CUBIC_ANGSTROM)
    assert 1.2 < ratio < 1.6  # hydration and grooves


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"resolution": 0.0}, "resolution"),
        ({"enclosed": 1.0}, "enclosed"),
        ({"enclosed": float("nan")}, "enclosed"),
    ],
)
def test_bad_numbers_are_refused(more: dict[str, float], word: str) -> None:
    with pytest.raises(InputError, match=word):
        envelope(body([20.0, 20.0, 20.0]), **more)


def test_a_molecule_without_atoms_is_refused() -> None:
    nothing = Molecule("nothing", np.zeros(0, np.uint8), np.zeros((0, 3), np.float32), np.zeros(0, bool))
    with pytest.raises(InputError, match="'nothing' has no atoms"):
        envelope(nothing)
