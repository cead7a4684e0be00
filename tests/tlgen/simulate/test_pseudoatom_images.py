"""Weights and widths of atoms in the images of both engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from catalogs.schema import Acquisition
from tlgen.molecules.envelope import envelope
from tlgen.molecules.molecule import Molecule, centred
from tlgen.molecules.pseudoatoms import load_map
from tlgen.molecules.structures import load_structure
from tlgen.scene.scene import Scene
from tlgen.simulate.engine import engine
from tlgen.tilts.scheme import Tilt

ENGINES = ("multislice", "parakeet")
SHAPE, VOXEL_SIZE = (12, 16, 18), 8.0


def image(name: str, molecule: Molecule, *, angle: float = 30.0, ice: float = 0.0) -> Any:
    """Noise-free image of three copies of a molecule, less the empty box."""
    positions = np.array([[-25.0, 10, 5], [30, -20, -10], [5, 25, 20]])
    quaternions = np.array([[0, 0, 0, 1.0], [0.5, 0.5, 0.5, 0.5], [0, 0.6, 0, 0.8]])

    def scene(n: int) -> Scene:
        return Scene(
            SHAPE, VOXEL_SIZE, (molecule.digest,), ("m",), (-1,), (1,), ("m",),
            np.zeros(n, np.int64), positions[:n], quaternions[:n],
        )  # fmt: skip

    acq = Acquisition(engine=name, voxel_size=VOXEL_SIZE, ice_density=ice, padding=40, defocus=2.0)
    library = {molecule.digest: molecule}
    tilt = Tilt(0, angle, 2.0, 0.0)
    return engine(name).simulate(scene(3), library, acq, tilt, 1, noise=False) - (0 if ice else 1)


def cloud(n: int = 60, seed: int = 3, **more: Any) -> Molecule:
    rng = np.random.default_rng(seed)
    elements = rng.choice([6, 7, 8, 16], n)
    return centred("cloud", elements, rng.uniform(-15, 15, (n, 3)), np.ones(n, bool), **more)


@pytest.mark.parametrize("name", ENGINES)
def test_an_atom_that_counts_twice_is_two_atoms(name: str) -> None:
    once = cloud()
    which = np.arange(60) < 20
    heavy = replace(once, occupancy=np.where(which, 3, 1).astype(np.float32))
    rows = np.concatenate([np.arange(60), np.repeat(np.flatnonzero(which), 2)])
    repeated = replace(
        once,
        elements=once.elements[rows],
        positions=once.positions[rows],
        backbone=once.backbone[rows],
        occupancy=np.ones(1, np.float32),
        sigma=np.zeros(1, np.float32),
    )
    ours, expected, light = image(name, heavy), image(name, repeated), image(name, once)
    assert np.abs(ours - expected).max() < 0.01 * np.abs(expected).max()
    assert np.abs(light - expected).max() > 0.2 * np.abs(expected).max()


@pytest.mark.parametrize("name", ENGINES)
def test_a_wide_atom_is_a_gaussian(name: str) -> None:
    few = lattice(12.0, occupancy=50.0, sigma=6.0)
    rng = np.random.default_rng(5)
    n, m = 600, few.n_atoms
    dense = replace(
        few,
        elements=np.repeat(few.elements, n),
        positions=np.repeat(few.positions, n, axis=0) + rng.normal(0, 6, (m * n, 3)).astype(np.float32),
        backbone=np.zeros(m * n, bool),
        occupancy=np.full(m * n, 50 / n, np.float32),
        sigma=np.zeros(1, np.float32),
    )
    points = replace(few, sigma=np.zeros(m, np.float32))
    ours, expected, narrow = image(name, few), image(name, dense), image(name, points)
    assert np.corrcoef(ours.ravel(), expected.ravel())[0, 1] > 0.97
    assert ours.std() == pytest.approx(expected.std(), rel=0.05)
    assert np.corrcoef(narrow.ravel(), expected.ravel())[0, 1] < 0.9
    assert narrow.std() > 1.5 * expected.std()


def lattice(spacing: float, **more: Any) -> Molecule:
    """A ball of 40 Å radius."""
    axis = np.arange(-60, 61) * spacing
    axis = axis[np.abs(axis) <= 40]
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    points = points[np.linalg.norm(points, axis=1) <= 40]
    n = len(points)
    more = {key: np.full(n, value) for key, value in more.items()}
    return centred("ball", np.full(n, 16), points, np.ones(n, bool), **more)


@pytest.mark.parametrize("ice", [0.0, 0.94])
def test_pseudo_atoms_look_like_the_atoms_that_they_stand_for(tmp_path: Path, ice: float) -> None:
    """With ice too, which a pseudo-atom displaces as its atoms would."""
    atoms = load_structure("3o21")
    body = envelope(atoms, resolution=12.0)
    with mrcfile.new(tmp_path / "body.mrc") as mrc:
        mrc.set_data(body.density)
        mrc.voxel_size = body.spacing
    pseudo = load_map(tmp_path / "body.mrc", resolution=12.0, mass=atoms.mass).molecule
    images = [image("multislice", m, ice=ice) for m in (atoms, pseudo)]
    assert np.corrcoef(images[0].ravel(), images[1].ravel())[0, 1] > 0.94
    assert images[1].std() == pytest.approx(images[0].std(), rel=0.15)


@pytest.mark.parametrize("ice", [0.0, 0.94])
def test_the_engines_agree_on_pseudo_atoms(ice: float) -> None:
    pseudo = lattice(8.5, occupancy=20.0, sigma=4.0)
    ours, theirs = (image(name, pseudo, ice=ice) for name in ENGINES)
    correlation = np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]
    assert correlation > (0.8 if ice else 0.99)  # each has its own random ice
    if not ice:
        assert ours.std() == pytest.approx(theirs.std(), rel=0.03)


def test_an_envelope_of_pseudo_atoms_holds_their_mass_and_their_width() -> None:
    pseudo = lattice(8.5, occupancy=20.0, sigma=4.0)
    result = envelope(pseudo)
    assert result.density.sum() * result.spacing**3 == pytest.approx(pseudo.mass, rel=1e-3)
    narrow = envelope(replace(pseudo, sigma=np.zeros(pseudo.n_atoms, np.float32)))
    assert result.volume > narrow.volume
    half = (np.array(result.density.shape) - 1) / 2
    axis = (np.arange(result.density.shape[0]) - half[0]) * result.spacing
    variance = (result.density.sum(axis=(1, 2)) * axis**2).sum() / result.density.sum()
    narrow_axis = (np.arange(narrow.density.shape[0]) - (narrow.density.shape[0] - 1) / 2) * narrow.spacing
    narrow_variance = (narrow.density.sum(axis=(1, 2)) * narrow_axis**2).sum() / narrow.density.sum()
    assert variance - narrow_variance == pytest.approx(16, rel=0.05)
