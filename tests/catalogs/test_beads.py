"""Gold is found by its grey values and by what a network calls so; protein never is."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from catalogs.beads import count, find_beads, labelled_as_dense
from catalogs.schema import ClassInfo
from catalogs.seeds import generator

VOXEL = 10.0


def tomogram(gold: list[tuple[int, int, int]]) -> np.ndarray:
    """Noise with dark balls that are protein, and gold at places (z, y, x) in voxels."""
    values = generator("beads").standard_normal((50, 80, 90), np.float32)
    z, y, x = (np.arange(n, dtype=np.float32) for n in values.shape)
    for k in range(12):
        far = (
            (z[:, None, None] - 25) ** 2
            + (y[:, None] - 10 - 20 * (k // 4)) ** 2
            + (x - 12 - 20 * (k % 4)) ** 2
        )
        values[far <= 5**2] -= 1.5
    for cz, cy, cx in gold:
        far = (z[:, None, None] - cz) ** 2 + (y[:, None] - cy) ** 2 + (x - cx) ** 2
        values[far <= 5**2] -= 25
    return 100 + 3 * values


def test_beads_are_found_and_protein_is_not() -> None:
    assert count(find_beads(tomogram([]), VOXEL)) == 0
    gold = [(12, 65, 20), (40, 65, 70)]
    values = tomogram(gold)
    for sign in (1, -1):
        found = find_beads(sign * values, VOXEL, offset=(100.0, 200.0, 300.0))
        assert count(found) == 2
        at = np.array([[100 + 10 * x, 200 + 10 * y, 300 + 10 * z] for z, y, x in gold], float)
        assert found.near(at, 10.0).all()
        assert found.near(at + np.array([150.0, 0, 0]), 120.0).all()
        assert not found.near(at + np.array([250.0, 0, 0]), 120.0).any()
    places = [np.arange(n) * VOXEL for n in values.shape]
    inside = np.ones(values.shape, bool)
    find_beads(values, VOXEL).take_out(inside, places)
    assert not inside[12, 65, 20]
    assert not inside[12, 65, 20 + 11]
    assert inside[12, 65, 20 + 18]
    assert inside[25, 10:52].all()


def test_noise_and_smooth_volumes_have_none() -> None:
    noise = generator("no beads").standard_normal((40, 60, 60), np.float32)
    for values in (noise, gaussian_filter(noise, 2), np.zeros((40, 60, 60), np.float32)):
        assert count(find_beads(values, VOXEL)) == 0


def test_what_a_network_calls_gold_is_taken_where_it_is_a_body() -> None:
    classes = [
        ClassInfo(name="ribosome", label=1, radius=100),
        ClassInfo(name="membrane", label=2, radius=20, is_particle=False),
        ClassInfo(name="gold", label=3, radius=50, is_particle=False),
    ]
    labels = np.zeros((20, 31, 30), np.uint8)
    labels[4:9, 10:15, 20:25] = 3
    labels[15, 5, 5] = 3  # one voxel is no bead
    labels[12:16, 20:25, :] = 2
    labels[10:15, 2:7, 2:7] = 1
    found = labelled_as_dense(labels, classes, VOXEL)
    assert count(found) == 1
    assert found.near(np.array([[220.0, 120.0, 60.0]]), 20.0).all()
    assert not found.near(np.array([[50.0, 50.0, 150.0], [100.0, 220.0, 140.0]]), 30.0).any()
    assert count(labelled_as_dense(labels, classes[:2], VOXEL)) == 0
