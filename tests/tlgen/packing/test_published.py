"""The paper's own packing: its grid, its margin, its stop."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from tlgen.molecules.molecule import Molecule, centred
from tlgen.packing import published
from tlgen.packing.published import pack_as_published
from tlgen.packing.tetris import Request, nearest_atoms


def ball(name: str, axes: tuple[float, float, float]) -> Molecule:
    """An ellipsoid of carbon atoms, 0.05 an Å³, as protein has."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, size=(round(0.05 * 8 * np.prod(axes)), 3))
    points = points[np.linalg.norm(points, axis=1) < 1] * axes
    return centred(name, np.full(len(points), 6), points, np.ones(len(points), bool))


ROUND, LONG = ball("round", (45, 45, 45)), ball("long", (80, 30, 30))
LIBRARY = {m.digest: m for m in (ROUND, LONG)}
REQUESTS = [Request(ROUND.digest, 2, group="target"), Request(LONG.digest, 3, group="distractor")]


def test_molecules_stand_on_the_papers_grid_within_its_margin_and_side_by_side() -> None:
    packing = pack_as_published((34, 36, 38), REQUESTS, LIBRARY, seed=1, rounds=3)
    assert packing.asked == (6, 9)
    assert packing.which[:5].tolist() == [0, 0, 1, 1, 1]  # in the order of the requests
    voxels = packing.positions / 16 + np.array([38, 36, 34]) / 2
    assert np.array_equal(voxels, np.round(voxels))
    assert voxels[0].tolist() == [19, 18, 17]  # the first is in the middle
    assert (voxels >= 12).all()
    assert (voxels < np.array([38, 36, 34]) - 11).all()
    nearest = nearest_atoms(packing, LIBRARY)
    assert len(nearest) > 5
    assert nearest.max() < 40


def test_it_ends_with_the_first_molecule_that_does_not_fit() -> None:
    packing = pack_as_published((26, 26, 26), REQUESTS, LIBRARY, seed=1, rounds=50)
    assert 0 < len(packing.which) < 250
    assert sum(packing.saturated) == 1
    order = [0, 0, 1, 1, 1] * 50
    assert packing.which.tolist() == order[: len(packing.which)]
    assert packing.saturated[order[len(packing.which)]]


def test_the_same_seed_gives_the_same() -> None:
    first, again, other = (pack_as_published((34, 34, 34), REQUESTS, LIBRARY, seed=s) for s in (3, 3, 4))
    assert np.array_equal(first.positions, again.positions)
    assert np.array_equal(first.quaternions, again.quaternions)
    assert not np.array_equal(first.quaternions, other.quaternions)


def test_a_turned_map_is_the_map_of_the_turned_molecule() -> None:
    """Against the sum of Gaussians at every voxel, worked out plainly."""
    turn = Rotation.from_euler("ZYZ", [30, 50, 70], degrees=True)
    got = published._turned(*published._smoothed(LONG), turn.as_matrix())
    grid = (np.indices((22, 22, 22)).reshape(3, -1).T - 11) * 16.0
    width = 32 / np.pi
    sigma2 = width**2 / 2 + (1.65 * 16) ** 2
    xyz = turn.apply(LONG.positions.astype(np.float64))
    exact = np.zeros(len(grid))
    for part in np.array_split(xyz, 40):
        r2 = ((grid[:, None] - part) ** 2).sum(axis=2)
        exact += np.exp(-r2 / 2 / sigma2).sum(axis=1)
    exact *= 6 * (width * np.sqrt(np.pi)) ** 3 / (2 * np.pi * sigma2) ** 1.5
    assert np.abs(got.ravel() - exact).max() < 0.06 * exact.max()
    assert np.corrcoef(got.ravel(), exact)[0, 1] > 0.999


def test_core_and_shell_are_what_the_papers_morphology_gives() -> None:
    grey = published._turned(*published._smoothed(ROUND), np.eye(3))
    first, solid = published._cropped(grey > published.LEVEL, 2)
    core, shell = published._core_and_shell(solid)
    cross = ndimage.generate_binary_structure(3, 1)
    far = np.linalg.norm(np.indices((5, 5, 5)) - 2, axis=0) <= 2
    closed = ndimage.binary_closing(grey > published.LEVEL, cross)
    eroded = ndimage.binary_erosion(closed, far)
    part = tuple(slice(a, a + n) for a, n in zip(first, solid.shape, strict=True))
    assert np.array_equal(core.astype(bool), eroded[part])
    assert np.array_equal(shell.astype(bool), (closed & ~eroded)[part])
    assert core.any()
    assert closed.sum() == closed[part].sum()


def test_what_is_too_big_is_refused() -> None:
    with pytest.raises(InputError, match="more than 24 voxels"):
        pack_as_published((20, 40, 40), REQUESTS, LIBRARY, seed=1)
    huge = centred("huge", [6, 6], [[-200, 0, 0], [200, 0, 0]], [True, True])
    with pytest.raises(InputError, match="huge is too big"):
        pack_as_published((40, 40, 40), [Request(huge.digest, 1)], {huge.digest: huge}, seed=1)
