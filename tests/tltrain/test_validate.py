import math

import numpy as np
import pytest

from catalogs.schema import ClassInfo
from tltrain.fit import choose
from tltrain.validate import MOST_TILES, Validation, open_validation


class Oracle:
    """Gives each voxel of class k + 1 a stated probability of its own, and of being background the rest."""

    def __init__(self, probability):
        self.probability = probability

    def predict_on_batch(self, batch):
        return np.stack([self.probability(grey[..., 0]) for grey in batch])


def two_classes(p1, p2):
    return np.stack([1 - p1 - p2, p1, p2], axis=-1)


def test_f1_is_that_of_the_counts_and_ignores_what_is_beyond_the_volume():
    # grey value 0.5 is called class 1; 10 voxels are class 1, 6 of them called so, and 4 others
    grey = np.zeros((4, 4, 4), np.float16)
    truth = np.zeros((4, 4, 4), np.uint8)
    truth.ravel()[:10] = 1
    grey.ravel()[4:14] = 0.5
    truth.ravel()[40:] = 255
    grey.ravel()[50:] = 0.5
    network = Oracle(lambda g: two_classes(np.where(g > 0, 0.8, 0.1), np.zeros_like(g)))
    scores = Validation(("a", "b"), [(grey, truth)]).score(network)
    assert scores.f1["a"] == pytest.approx(2 * 6 / (10 + 10))
    assert math.isnan(scores.f1["b"])  # it does not occur
    assert scores.mean == scores.f1["a"]
    assert scores.thresholds["b"] == 0.5


def test_the_threshold_separates_right_from_wrong():
    grey = np.linspace(0, 1, 1000, dtype=np.float16).reshape(10, 10, 10)
    truth = (grey >= 0.3).astype(np.uint8)
    network = Oracle(lambda g: np.stack([1 - g, g], axis=-1).astype(np.float32))
    scores = Validation(("a",), [(grey, truth)]).score(network)
    assert scores.thresholds["a"] == pytest.approx(0.3, abs=0.02)
    assert scores.f1["a"] == pytest.approx(2 * 500 / (500 + 700), abs=0.01)  # of the most probable class


def test_tiles_cover_the_validation_samples(corpus):
    _, val = choose(corpus, "split == 'train'")
    validation = open_validation(corpus, val, pooling=8)
    assert len(val) == 1
    assert len(validation.tiles) == 1
    grey, truth = validation.tiles[0]
    assert grey.shape == (40, 72, 72)  # of 40 x 72 x 70 voxels: up to a multiple of the pooling
    inside = truth < 255
    assert inside.sum() == 40 * 72 * 70
    np.testing.assert_array_equal(
        truth[inside].reshape(40, 72, 70), corpus.arrays(val[0].sample_id)["classes"][:]
    )
    assert (grey[~inside] == 0).all()


def test_their_number_is_bounded(corpus, monkeypatch):
    from tltrain import validate

    monkeypatch.setattr(validate, "TILE", 16)
    _, val = choose(corpus, "split == 'train'")
    one, two = (open_validation(corpus, val, pooling=8) for _ in range(2))
    assert len(one.tiles) == MOST_TILES
    for (grey, _), (again, _) in zip(one.tiles, two.tiles, strict=True):
        np.testing.assert_array_equal(grey, again)


def test_a_perfect_network_scores_one(corpus):
    _, val = choose(corpus, "split == 'train'")
    validation = open_validation(corpus, val, pooling=8)
    truth = np.where(validation.tiles[0][1] == 1, 1.0, 0.0)
    scores = validation.score(Oracle(lambda g: np.stack([1 - truth, truth], axis=-1)))
    assert scores.f1 == {"ball": 1.0}
    assert ClassInfo(name="ball", label=1, radius=50) in corpus.classes
