import numpy as np
import pytest

from tltrain.losses import dice_cross_entropy, tversky

SHAPE = (2, 4, 4, 4)


def one_hot(truth, n=3):
    return np.eye(n, dtype=np.float32)[truth]


@pytest.fixture
def truth():
    return np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)


def test_tversky_is_that_of_its_definition(truth):
    p = np.random.default_rng(1).dirichlet(np.ones(3), SHAPE).astype(np.float32)
    g = one_hot(truth)
    index = []
    for c in range(3):
        hit = (p[..., c] * g[..., c]).sum()
        false = (p[..., c] * (1 - g[..., c])).sum()
        missed = ((1 - p[..., c]) * g[..., c]).sum()
        index.append(hit / (hit + 0.3 * false + 0.7 * missed))
    value = float(tversky(truth, p, alpha=0.3, beta=0.7))
    assert value == pytest.approx(1 - np.mean(index), abs=0.01)


def test_perfect_and_worst(truth):
    assert float(tversky(truth, one_hot(truth))) == pytest.approx(0, abs=1e-6)
    assert float(tversky(truth, one_hot((truth + 1) % 3))) > 0.97
    assert float(dice_cross_entropy(truth, one_hot(truth))) == pytest.approx(0, abs=1e-5)


def test_a_class_that_is_rightly_absent_costs_nothing():
    truth = np.zeros(SHAPE, np.uint8)
    assert float(tversky(truth, one_hot(truth))) == pytest.approx(0, abs=1e-6)


def test_dice_cross_entropy_is_the_sum(truth):
    p = np.random.default_rng(1).dirichlet(np.ones(3), SHAPE).astype(np.float32)
    entropy = -np.log(np.take_along_axis(p, truth[..., None].astype(int), -1)).mean()
    assert float(dice_cross_entropy(truth, p)) == pytest.approx(float(tversky(truth, p)) + entropy, rel=1e-4)
