"""Localising: the same centres as scikit-learn's mean shift, and particles with sizes and scores."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from catalogs.schema import ClassInfo
from catalogs.seeds import generator
from tlpick.localise import localise, mean_shift


def blobs(seed: int, shape: tuple[int, int, int], n: int, radius: float, share: float) -> NDArray[np.bool_]:
    """Balls that may touch and overlap, with holes, and specks between them."""
    rng = generator("blobs", seed)
    grid = np.indices(shape)
    volume = rng.random(shape) < 0.002
    for centre in rng.uniform(0, shape, (n, 3)):
        volume |= ((grid - centre[:, None, None, None]) ** 2).sum(axis=0) <= radius**2
    return volume & (rng.random(shape) < share)


def by_scikit_learn(points: NDArray[np.int64], bandwidth: float) -> NDArray[np.float64]:
    from sklearn.cluster import MeanShift

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns when no two points share a bin
        centres: NDArray[np.float64] = (
            MeanShift(bandwidth=bandwidth, bin_seeding=True).fit(points).cluster_centers_
        )
    return centres


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(8, 16), st.integers(8, 20), st.integers(8, 20)),
    n=st.integers(1, 6),
    radius=st.floats(2.5, 5.0),
    share=st.floats(0.5, 1.0),
    widen=st.floats(0.8, 1.4),
)
def test_the_centres_are_scikit_learns(
    seed: int, shape: tuple[int, int, int], n: int, radius: float, share: float, widen: float
) -> None:
    points = np.argwhere(blobs(seed, shape, n, radius, share))
    if len(points) < 12:  # scikit-learn then measures distances by a formula that rounds
        return
    ours, theirs = mean_shift(points, radius * widen), by_scikit_learn(points, radius * widen)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_the_centres_do_not_depend_on_where_the_volume_begins() -> None:
    points = np.argwhere(blobs(1, (20, 24, 24), 6, 4.0, 0.9))
    np.testing.assert_allclose(by_scikit_learn(points + 1000, 4.0), mean_shift(points + 1000, 4.0), atol=1e-9)


def test_one_voxel_is_its_own_cluster() -> None:
    np.testing.assert_array_equal(mean_shift(np.array([[3, 4, 5]]), 2.0), [[3.0, 4.0, 5.0]])


def test_particles_have_place_size_and_score_in_their_class() -> None:
    labels = np.zeros((20, 30, 40), np.uint8)
    score = np.zeros_like(labels)
    grid = np.indices(labels.shape)

    def ball(label: int, zyx: tuple[int, int, int], radius: float, probability: float) -> int:
        inside = ((grid - np.array(zyx)[:, None, None, None]) ** 2).sum(axis=0) <= radius**2
        labels[inside] = label
        score[inside] = round(255 * probability)
        return int(inside.sum())

    first = ball(1, (9, 8, 10), 4, 0.9)
    ball(1, (9, 8, 19), 4, 0.7)  # touches the first
    ball(1, (3, 25, 35), 1, 1.0)  # a speck
    other = ball(2, (10, 20, 30), 6, 0.6)
    classes = [ClassInfo(name="a", label=1, radius=40.0), ClassInfo(name="b", label=2, radius=60.0)]

    a, b = localise(labels, score, classes, 10.0, 0.1)

    assert (a.label, b.label) == (1, 2)
    order = np.argsort(a.centres[:, 0])
    np.testing.assert_allclose(a.centres[order], [[100, 80, 90], [190, 80, 90]], atol=5.0)
    assert sorted(a.voxels) == pytest.approx([first, first], abs=15)
    np.testing.assert_allclose(a.scores[order], [0.9, 0.7], atol=0.02)
    np.testing.assert_allclose(b.centres, [[300, 200, 100]], atol=1.0)
    assert list(b.voxels) == [other]
    np.testing.assert_allclose(b.scores, [0.6], atol=0.002)


def test_a_body_larger_than_the_kernel_is_picked_at_its_middle() -> None:
    grid = np.indices((34, 40, 44))
    middle = np.array([15.3, 20.8, 22.4])
    labels = (((grid - middle[:, None, None, None]) ** 2).sum(axis=0) <= 13**2).astype(np.uint8)
    [found] = localise(labels, labels, [ClassInfo(name="a", label=1, radius=100.0)], 10.0, 0.1)
    assert len(found.centres) == 1
    np.testing.assert_allclose(found.centres[0], 10 * middle[::-1], atol=1.0)


def test_a_class_that_is_not_there_has_no_particles() -> None:
    empty = np.zeros((4, 5, 6), np.uint8)
    [none] = localise(empty, empty, [ClassInfo(name="a", label=1, radius=40.0)], 10.0, 0.1)
    assert none.centres.shape == (0, 3)
    assert len(none.voxels) == len(none.scores) == 0
