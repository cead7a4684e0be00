"""Right picks look like the particle, wrong ones as often like its mirror image; counting both comes true."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from catalogs.particle_mean import ParticleMean, layout, radial
from catalogs.seeds import generator
from tlpick.evaluation.mirror_contest import contest
from tlpick.evaluation.mirror_likeness import compare, turns

RADIUS, VOXEL = 80.0, 10.0
#: Balls of an L in space with a foot: no mirror image of itself. Å.
BALLS = np.array([[0, 0, -50], [0, 0, 0], [0, 0, 50], [50, 0, -50], [50, 40, -30], [0, -35, 35]], float)


def density(shape: tuple[int, int, int], places: np.ndarray) -> np.ndarray:
    """Balls of 20 Å at places x, y, z in Å, dark."""
    volume = np.zeros(shape, np.float32)
    at = np.rint(places / VOXEL).astype(int)
    np.add.at(volume, tuple(at[:, ::-1].T), 1.0)
    return -gaussian_filter(volume, 1.5) * 30


@pytest.fixture(scope="module")
def mean() -> ParticleMean:
    binning, edge = layout(RADIUS, VOXEL)
    assert (binning, edge) == (1, 25)
    middle = edge // 2 * VOXEL
    cube = density((edge,) * 3, BALLS + middle)
    return ParticleMean.of(cube, cube, VOXEL, 12)


def tomogram(n: int, mirrored: bool, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Turned copies, or their mirror images, in a row of boxes; the volume and the centres in Å."""
    rng = generator("hands", n)
    centres = np.array([[130.0 + 260 * k, 130.0, 130.0] for k in range(n)])
    body = BALLS * (-1 if mirrored else 1)
    rotations = Rotation.random(n, random_state=5)
    places = np.concatenate([c + r.apply(body) for c, r in zip(centres, rotations, strict=True)])
    volume = density((27, 27, 26 * n), places)
    return volume + noise * rng.standard_normal(volume.shape, np.float32), centres


def test_each_hand_is_told_from_the_other(mean: ParticleMean) -> None:
    for mirrored in (False, True):
        volume, centres = tomogram(12, mirrored, 0.2)
        moved = centres + generator("moved").uniform(-12, 12, centres.shape)
        hands = compare(volume, VOXEL, moved, mean, RADIUS)
        won = hands.margin > 0
        assert won.mean() <= 0.1 if mirrored else won.mean() >= 0.9
        assert np.maximum(hands.straight, hands.mirrored).min() > 0.4


def test_noise_has_no_hand(mean: ParticleMean) -> None:
    noise = gaussian_filter(generator("no hand").standard_normal((40, 80, 80)), 1.5).astype(np.float32)
    places = generator("places").uniform(100, 650, (60, 3)) * [1, 1, 0.4]
    hands = compare(noise, VOXEL, places, mean, RADIUS)
    assert 0.3 < (hands.margin > 0).mean() < 0.7
    assert len(compare(noise, VOXEL, np.empty((0, 3)), mean, RADIUS).margin) == 0


def test_rotations_are_spread_evenly() -> None:
    spread = Rotation.from_quat(turns(600))
    some = Rotation.random(200, random_state=1)
    nearest = [np.degrees((spread * one.inv()).magnitude().min()) for one in some]
    assert max(nearest) < 32
    assert np.mean(nearest) < 20


def test_wins_less_losses_count_right_picks() -> None:
    errors = []
    for seed in range(20):
        rng = generator("contest", seed)
        right = np.arange(600) < 250
        scores = np.where(right, rng.normal(0.7, 0.1, 600), rng.normal(0.5, 0.1, 600))
        margin = np.where(right, rng.normal(0.03, 0.02, 600), rng.normal(0, 0.02, 600))
        told = contest(scores, margin)
        assert told is not None
        assert not told.turned
        assert (told.least <= told.most + 1e-9).all()
        order = np.argsort(-scores)
        assert (np.diff(told.least[order]) >= -1e-9).all()
        kept = told.least <= 0.3
        errors.append((~right[kept]).mean() - 0.3)
        assert abs(told.least.max() - (~right).mean()) < 0.15
        other = contest(scores, -margin)
        assert other is not None
        assert other.turned
    assert abs(np.median(errors)) < 0.05
    assert max(np.abs(errors)) < 0.2


def test_without_a_hand_nothing_is_counted() -> None:
    rng = generator("no contest")
    assert contest(rng.random(500), rng.normal(0, 1, 500)) is None
    assert contest(rng.random(30), np.ones(30)) is None


def test_a_mean_is_read_as_it_was_written_or_refused(mean: ParticleMean) -> None:
    again = ParticleMean.model_validate_json(mean.model_dump_json())
    assert np.array_equal(again.cube("aligned"), mean.cube("aligned"))
    radii, values = radial(again.cube("aligned"), VOXEL)
    assert radii[:3] == [0, 10, 20]
    assert values[0] < values[-1]
    stored = mean.model_dump()
    for change in ({"edge": 23}, {"aligned": "AAAA"}, {"aligned": "!"}, {"edge": 100_000}):
        with pytest.raises(ValidationError):
            ParticleMean.model_validate({**stored, **change})
