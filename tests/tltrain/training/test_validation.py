import math

import numpy as np
import pytest

from catalogs import particles
from catalogs.schema import ClassInfo
from tltrain.data.splits import split_samples
from tltrain.training.validation import Held, Validation, open_validation

BALL = ClassInfo(name="a", label=3, radius=50)
OTHER = ClassInfo(name="b", label=7, radius=50)


class Oracle:
    """Gives each voxel of class k + 1 a stated probability of its own, and of being background the rest."""

    def __init__(self, probability):
        self.probability = probability

    def __call__(self, volume):
        yield (slice(None),) * 3, self.probability(np.asarray(volume, np.float32))


def two_classes(p1, p2):
    return np.stack([1 - p1 - p2, p1, p2], axis=-1)


def validation(grey, truth, classes=(BALL,), table=None, cut=(0, 0, 0)):
    table = particles.empty() if table is None else table
    held = Held("t", np.asarray(grey, np.float16), np.asarray(truth, np.uint8), table, cut)
    return Validation(tuple(classes), 10.0, [held])


def test_f1_is_that_of_the_counts_and_ignores_what_nobody_knows():
    # grey value 0.5 is called class 1; 10 voxels are class 1, 6 of them called so, and 4 others
    grey = np.zeros((4, 4, 4), np.float16)
    truth = np.zeros((4, 4, 4), np.uint8)
    truth.ravel()[:10] = 1
    grey.ravel()[4:14] = 0.5
    truth.ravel()[40:] = 255
    grey.ravel()[50:] = 0.5
    network = Oracle(lambda g: two_classes(np.where(g > 0, 0.8, 0.1), np.zeros_like(g)))
    scores = validation(grey, truth, (BALL, OTHER)).score(network)
    assert scores.f1["a"] == pytest.approx(2 * 6 / (10 + 10))
    assert math.isnan(scores.f1["b"])  # it does not occur
    assert scores.mean == scores.f1["a"]
    assert scores.thresholds["b"] == 0.5


def test_the_threshold_separates_right_from_wrong():
    grey = np.linspace(0, 1, 1000, dtype=np.float16).reshape(10, 10, 10)
    truth = (grey >= 0.3).astype(np.uint8)
    network = Oracle(lambda g: np.stack([1 - g, g], axis=-1).astype(np.float32))
    scores = validation(grey, truth).score(network)
    assert scores.thresholds["a"] == pytest.approx(0.3, abs=0.02)
    assert scores.f1["a"] == pytest.approx(2 * 500 / (500 + 700), abs=0.01)  # of the most probable class


def balls(shape=(40, 60, 60), centres=((20, 15, 15), (20, 45, 15), (20, 15, 45), (20, 45, 45)), radius=5):
    grid = np.indices(shape)
    inside = [sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2 for centre in centres]
    return np.any(inside, axis=0)


def table_of(centres, name="a"):
    z, y, x = np.array(centres, float).T * 10
    return particles.make(tomogram="t", class_name=name, label=1, x=x, y=y, z=z)


def test_picks_are_counted_one_to_one():
    found = [(20, 15, 15), (20, 45, 15), (20, 30, 30)]  # two of three are there, and one of three is missed
    there = [(20, 15, 15), (20, 45, 15), (20, 45, 45)]
    grey, truth = balls(centres=found), balls(centres=there)
    network = Oracle(lambda g: np.stack([1 - g, g], axis=-1).astype(np.float32))
    scores = validation(grey, truth, table=table_of(there)).score(network)
    score = scores.picks["a"]
    assert (score.precision, score.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    outcome = scores.outcome()
    assert outcome.score == (scores.average_precision[0], scores.mean)
    assert outcome.score[0] <= 2 / 3 + 1e-9  # all right ones first
    assert outcome.facts["picks"]["a"]["f1"] == score.f1
    assert "picks 0.667" in outcome.words


def test_what_is_no_particle_does_not_count():
    membrane = ClassInfo(name="membrane", label=1, radius=10, is_particle=False)
    there = [(20, 15, 15), (20, 45, 45)]
    truth = 2 * balls(centres=there).astype(np.uint8)  # output 2 is the ball; the membrane is never found
    truth[:4] = 1
    network = Oracle(lambda g: two_classes(np.zeros_like(g), g.astype(np.float32)))
    scores = validation(truth == 2, truth, (membrane, BALL), table_of(there)).score(network)
    assert scores.f1["membrane"] == 0
    assert list(scores.picks) == ["a"]
    assert scores.outcome().score == (1, 1)
    only = validation(truth == 1, truth == 1, (membrane,)).score(
        Oracle(lambda g: np.stack([1 - g, g], axis=-1).astype(np.float32))
    )
    assert only.picks == {}
    assert only.outcome().score == (1,)
    assert "picks" not in only.outcome().words


def test_average_precision_tells_orders_apart_where_f1_does_not():
    from tltrain.training.validation import PickScore, Scores

    there = [(20, 15, 15), (20, 45, 45)]
    network = Oracle(lambda g: np.stack([1 - g, g], axis=-1).astype(np.float32))
    found = [(20, 15, 15), (20, 45, 45), (20, 15, 45)]
    scores = validation(balls(centres=found), balls(centres=there), table=table_of(there)).score(network)
    [value] = scores.picks["a"].average_precision
    assert value in (1.0, pytest.approx((1 + 2 / 3) / 2), pytest.approx((1 / 2 + 2 / 3) / 2))
    two = Scores({}, {}, {"a": PickScore(1, 1, 1, (0.8, 1.0)), "b": PickScore(1, 1, 1, (0.5, 0.5))})
    assert two.average_precision == (pytest.approx(0.7), pytest.approx(0.05))
    assert two.outcome().error == pytest.approx(0.05)
    assert "average precision 0.700 ± 0.050" in two.outcome().words


def test_a_network_that_marks_everything_has_found_nothing():
    there = [(20, 15, 15), (20, 45, 45)]
    network = Oracle(lambda g: np.stack([np.full_like(g, 0.4), np.full_like(g, 0.6)], axis=-1))
    scores = validation(balls(centres=there), balls(centres=there), table=table_of(there)).score(network)
    assert scores.picks["a"].f1 == 0
    assert scores.mean_picks == 0


def test_what_was_cut_is_neither_right_nor_wrong():
    there = [(20, 15, 15), (20, 45, 45), (20, 2, 30)]  # the last is cut by the box
    found = [(20, 15, 15), (20, 45, 45), (20, 30, 57)]
    network = Oracle(lambda g: np.stack([1 - g, g], axis=-1).astype(np.float32))
    whole, cut = (
        validation(balls(centres=found), balls(centres=there), table=table_of(there), cut=c).score(network)
        for c in ((0, 0, 0), (0, 5, 5))
    )
    assert whole.picks["a"].f1 == pytest.approx(2 / 3)
    assert cut.picks["a"].f1 == 1


def test_tomograms_are_those_of_the_corpus(corpus):
    _, val = split_samples(corpus, "split == 'train'")
    opened = open_validation(corpus, val)
    assert len(opened.held) == 1
    held = opened.held[0]
    np.testing.assert_array_equal(held.truth, corpus.arrays(val[0].sample_id)["classes"][:])
    assert held.grey.shape == (40, 72, 70)
    assert held.cut == (0, 0, 0)
    assert len(held.particles) == val[0].n_particles


def test_their_voxels_are_bounded(corpus):
    records = corpus.records()
    one, two = (open_validation(corpus, records, most=450_000) for _ in range(2))
    assert len(one.held) == 2  # of 201,600 voxels each
    assert [held.name for held in one.held] == [held.name for held in two.held]
    middle = open_validation(corpus, records, most=100_000).held[0]
    assert 80_000 < middle.grey.size <= 100_000
    assert middle.grey.shape[0] == 40
    assert middle.cut == (0, 5, 5)
    record = next(record for record in records if record.name == middle.name)
    low = [(n - edge) // 2 for n, edge in zip(record.shape, middle.grey.shape, strict=True)]
    whole = corpus.arrays(record.sample_id)["classes"][:]
    part = tuple(slice(a, a + edge) for a, edge in zip(low, middle.truth.shape, strict=True))
    np.testing.assert_array_equal(middle.truth, whole[part])
    for _, particle in middle.particles.iterrows():
        z, y, x = (round(particle[name] / 10) for name in "zyx")
        assert middle.truth[z, y, x] == 1


def test_a_perfect_network_scores_one(corpus):
    _, val = split_samples(corpus, "split == 'train'")
    opened = open_validation(corpus, val)
    truth = opened.held[0].truth.astype(np.float32)
    scores = opened.score(Oracle(lambda g: np.stack([1 - truth, truth], axis=-1)))
    assert scores.f1 == {"ball": 1.0}
    assert scores.picks["ball"].f1 > 0.9
    assert scores.preview.truth.shape == (72, 70)
    np.testing.assert_array_equal(scores.preview.truth, scores.preview.found)
