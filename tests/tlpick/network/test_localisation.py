"""Localising: the same centres as scikit-learn's mean shift, and particles with sizes and scores."""

from __future__ import annotations

import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from catalogs.schema import ClassInfo
from catalogs.seeds import generator
from tlpick.network.localisation.localise import Options, Picks, localise, size_agreement, without_duplicates
from tlpick.network.localisation.meanshift import mean_shift
from tlpick.network.localisation.members import gather


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

    a, b = localise(labels, score, classes, 10.0)

    assert (a.label, b.label) == (1, 2)
    order = np.argsort(a.centres[:, 0])
    np.testing.assert_allclose(a.centres[order], [[100, 80, 90], [190, 80, 90]], atol=5.0)
    assert sorted(a.voxels) == pytest.approx([first, first], abs=15)
    np.testing.assert_allclose(a.probability[order], [0.9, 0.7], atol=0.02)
    np.testing.assert_allclose(a.size, a.voxels / (4 / 3 * np.pi * 4**3))
    np.testing.assert_allclose(b.centres, [[300, 200, 100]], atol=1.0)
    assert list(b.voxels) == [other]
    np.testing.assert_allclose(b.probability, [0.6], atol=0.002)
    np.testing.assert_allclose(b.scores, b.probability * size_agreement(b.size))


def test_a_body_larger_than_the_kernel_is_picked_at_its_middle() -> None:
    grid = np.indices((34, 40, 44))
    middle = np.array([15.3, 20.8, 22.4])
    labels = (((grid - middle[:, None, None, None]) ** 2).sum(axis=0) <= 13**2).astype(np.uint8)
    [found] = localise(labels, labels, [ClassInfo(name="a", label=1, radius=100.0)], 10.0)
    assert len(found.centres) == 1
    np.testing.assert_allclose(found.centres[0], 10 * middle[::-1], atol=1.0)


def test_a_class_that_is_not_there_has_no_particles() -> None:
    empty = np.zeros((4, 5, 6), np.uint8)
    [none] = localise(empty, empty, [ClassInfo(name="a", label=1, radius=40.0)], 10.0)
    assert none.centres.shape == (0, 3)
    assert len(none.voxels) == len(none.scores) == 0


CLASSES = [ClassInfo(name="a", label=1, radius=40.0), ClassInfo(name="b", label=2, radius=55.0)]


def two_classes(seed: int, shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Blobs of two classes, in reach of each other and of the faces, and a probability of each voxel."""
    first, second = blobs(seed, shape, 7, 4.0, 0.95), blobs(seed + 1, shape, 4, 5.5, 0.9)
    labels = np.where(first, 1, np.where(second, 2, 0)).astype(np.uint8)
    score = generator("probability", seed).integers(128, 256, shape).astype(np.uint8)
    return labels, score


def assert_equal_to_the_bit(ours: list[Picks], theirs: list[Picks]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        for name in ("centres", "voxels", "scores", "probability", "size", "border"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(10, 30), st.integers(20, 50), st.integers(20, 90)),
    block=st.integers(6, 40),
    method=st.sampled_from(["meanshift", "components", "peaks"]),
)
def test_blocks_give_what_the_whole_volume_gives(
    seed: int, shape: tuple[int, int, int], block: int, method: str
) -> None:
    labels, score = two_classes(seed, shape)
    options = Options(method=method, min_size=0.0, min_separation=0.0)  # type: ignore[arg-type]
    whole = localise(labels, score, CLASSES, 10.0, options, block=10**6)
    assert sum(len(each) for each in whole) > 0
    assert_equal_to_the_bit(localise(labels, score, CLASSES, 10.0, options, block=block), whole)


def test_a_large_body_is_handed_from_block_to_block() -> None:
    labels = np.ones((6, 14, 90), np.uint8)  # seeds wander far in a body much larger than the kernel
    labels[:, :, ::3] = 0
    options = Options(min_size=0.0, min_separation=0.0)
    whole = localise(labels, labels, CLASSES[:1], 10.0, options, block=10**6)
    assert_equal_to_the_bit(localise(labels, labels, CLASSES[:1], 10.0, options, block=9), whole)


def test_zarr_and_threads_change_nothing(tmp_path: Path) -> None:
    import zarr

    labels, score = two_classes(3, (40, 60, 70))
    on_disk = []
    for name, volume in (("labels", labels), ("score", score)):
        array = zarr.create_array(tmp_path / name, shape=volume.shape, chunks=(16, 16, 16), dtype="uint8")
        array[:] = volume
        on_disk.append(array)
    with ThreadPoolExecutor(2) as pool:
        there = localise(on_disk[0], on_disk[1], CLASSES, 10.0, block=24, run=pool.map)
    assert_equal_to_the_bit(there, localise(labels, score, CLASSES, 10.0))


def solid(
    shape: tuple[int, int, int], centre: tuple[float, ...], axes: tuple[float, ...]
) -> NDArray[np.bool_]:
    grid = np.indices(shape)
    far = sum(((grid[i] - centre[i]) / axes[i]) ** 2 for i in range(3))
    return np.asarray(far <= 1)


def test_components_part_touching_particles_and_keep_a_rod_whole() -> None:
    shape = (24, 40, 90)
    labels = np.zeros(shape, np.uint8)
    for x in (12.0, 19.5, 27.0):  # three balls in a row that touch
        labels[solid(shape, (12, 12, x), (4, 4, 4))] = 1
    labels[solid(shape, (12, 28, 60), (3, 3, 14))] = 2  # a rod
    rod = 14 / np.sqrt(5) * np.sqrt(1 + 2 * (3 / 14) ** 2)  # its radius of gyration
    classes = [CLASSES[0], ClassInfo(name="rod", label=2, radius=10 * rod * np.sqrt(5 / 3))]
    balls, rods = localise(labels, labels, classes, 10.0, Options(method="components"))
    np.testing.assert_allclose(np.sort(balls.centres[:, 0]), [120, 195, 270], atol=3.0)
    np.testing.assert_allclose(rods.centres, [[600, 280, 120]], atol=1.0)
    assert rods.voxels[0] == (labels == 2).sum()


@pytest.mark.parametrize("method", ["meanshift", "components", "peaks"])
def test_touching_balls_are_told_apart(method: str) -> None:
    shape = (30, 40, 60)
    labels, truth = np.zeros(shape, np.uint8), [(12, 14, 16), (12, 14, 24.4), (16, 21, 20), (14, 28, 45)]
    for centre in truth:
        labels[solid(shape, centre, (4, 4, 4))] = 1
    score = np.where(labels, 200, 30).astype(np.uint8)
    [found] = localise(labels, score, CLASSES[:1], 10.0, Options(method=method))  # type: ignore[arg-type]
    assert len(found) == 4
    for centre in truth:
        assert np.linalg.norm(found.centres - 10 * np.array(centre[::-1]), axis=1).min() < 6.0


def test_sizes_are_filtered_by_class() -> None:
    shape = (30, 40, 60)
    labels = np.zeros(shape, np.uint8)
    labels[solid(shape, (14, 14, 14), (4, 4, 4))] = 1
    labels[solid(shape, (14, 14, 40), (2, 2, 2))] = 1
    labels[solid(shape, (14, 30, 40), (3, 3, 3))] = 2

    def found(options: Options, volumes: dict[str, float] | None = None) -> list[int]:
        return [len(each) for each in localise(labels, labels, CLASSES, 10.0, options, volumes=volumes)]

    assert found(Options(min_size=0.05)) == [2, 1]
    assert found(Options(min_size=0.5)) == [1, 0]
    assert found(Options(min_size=0.5, sizes={"b": (0.1, 9.0)})) == [1, 1]
    assert found(Options(min_size=0.05, max_size=0.5)) == [1, 1]
    assert found(Options(min_size=0.5), {"b": 113e3}) == [1, 1]  # b is known to look smaller than its sphere


def test_picks_at_the_faces_are_flagged_or_dropped() -> None:
    shape = (30, 40, 60)
    labels = np.zeros(shape, np.uint8)
    for centre in ((14, 14, 14), (14, 30, 57), (2, 14, 40)):
        labels[solid(shape, centre, (4, 4, 4))] = 1
    [flagged] = localise(labels, labels, CLASSES[:1], 10.0)
    assert sorted(flagged.flags) == ["", "border", "border"]
    [inside] = localise(labels, labels, CLASSES[:1], 10.0, Options(border="drop"))
    assert inside.flags == [""]
    np.testing.assert_allclose(inside.centres, [[140, 140, 140]], atol=1.0)


def picks(label: int, x: list[float], scores: list[float]) -> Picks:
    n = len(x)
    ones = np.ones(n)
    centres = np.column_stack([x, np.zeros(n), np.zeros(n)])
    return Picks(label, centres, ones.astype(np.int64), np.array(scores), ones, ones, np.zeros(n, bool))


def test_of_two_picks_of_one_place_the_better_stays_whatever_their_classes() -> None:
    a, b = picks(1, [0.0, 30.0, 200.0], [0.9, 0.8, 0.3]), picks(2, [60.0, 240.0, 400.0], [0.7, 0.6, 0.5])
    radii = {1: 40.0, 2: 55.0}
    ours, theirs = without_duplicates([a, b], radii, 0.5)
    # 30 is a duplicate of 0 and so does not take 60 away with it; 200 loses to 240 of the other class
    assert ours.centres[:, 0].tolist() == [0.0]
    assert theirs.centres[:, 0].tolist() == [60.0, 240.0, 400.0]
    assert [len(each) for each in without_duplicates([a, b], radii, 0.0)] == [3, 3]


def test_classes_that_are_no_particles_are_not_picked() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[solid((20, 20, 20), (10, 10, 10), (4, 4, 4))] = 1
    labels[:3] = 2
    sheet = ClassInfo(name="membrane", label=2, radius=40.0, is_particle=False)
    a, membrane = localise(labels, labels, [CLASSES[0], sheet], 10.0)
    assert (len(a), len(membrane)) == (1, 0)


def test_the_agreement_of_sizes_is_the_ratio_of_radii() -> None:
    np.testing.assert_allclose(size_agreement(np.array([1.0, 0.125, 8.0, 0.0])), [1.0, 0.5, 0.5, 0.0])


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("edge", [16, 64])
def test_voxels_far_from_every_centre_go_to_the_nearest(connected: bool, edge: int) -> None:
    # as a network that has learnt nothing labels: one class everywhere, and modes in a corner of it
    labels = np.ones((24, 40, 40), np.uint8)
    labels[:, 20] = 0
    score = np.random.default_rng(1).integers(0, 256, labels.shape).astype(np.uint8)
    centres = np.random.default_rng(0).uniform(0, 6, (30, 3))
    found = gather(labels, score, {1: centres}, {1: 2.0}, edge=edge, connected=connected)[1]

    voxels = np.argwhere(labels)
    nearest = np.linalg.norm(voxels[:, None] - centres[None], axis=2).argmin(axis=1)
    size = np.bincount(found.centre, found.size, minlength=30)
    assert (size == np.bincount(nearest, minlength=30)).all()
    sums = np.bincount(found.centre, found.sums[:, 2], minlength=30)
    assert (sums == np.bincount(nearest, voxels[:, 2], minlength=30)).all()
    assert found.score.sum() == score[labels > 0].sum(dtype=np.int64)
    assert len(set(found.component.tolist())) == (2 if connected else 1)


def test_components_of_noise_stay_within_bounds() -> None:
    """Noise has a piece of a body every hundred voxels; pairs of near ones are more than memory holds."""
    labels = np.zeros((32, 32, 32), np.uint8)
    labels[8:20, 8:20, 8:20] = 1
    classes, options = [ClassInfo(name="a", label=1, radius=130.0)], Options(method="components")
    localise(labels, labels * 200, classes, 10.0, options)  # compiles
    labels = (generator("noise").random((120, 120, 120), np.float32) < 0.5).astype(np.uint8)
    score = np.full(labels.shape, 200, np.uint8)
    tracemalloc.start()
    try:
        (whole,) = localise(labels, score, classes, 10.0, options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 28 * labels.size  # bytes; 38 where all pairs were listed, and more in larger volumes
    (cut,) = localise(labels, score, classes, 10.0, options, block=50)
    np.testing.assert_array_equal(cut.centres, whole.centres)
    np.testing.assert_array_equal(cut.voxels, whole.voxels)
