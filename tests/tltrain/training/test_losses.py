import numpy as np
import pytest

from catalogs.errors import InputError
from tltrain.training.losses import IGNORE, cross_entropy, dice_cross_entropy, loss_of, tversky

SHAPE = (2, 4, 4, 4)


def one_hot(truth, n=3):
    return np.eye(n, dtype=np.float32)[truth]


@pytest.fixture
def truth():
    return np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)


@pytest.fixture
def p():
    return np.random.default_rng(1).dirichlet(np.ones(3), SHAPE).astype(np.float32)


def test_tversky_is_that_of_its_definition(truth, p):
    g = one_hot(truth)
    index = []
    for c in range(3):
        hit = (p[..., c] * g[..., c]).sum()
        false = (p[..., c] * (1 - g[..., c])).sum()
        missed = ((1 - p[..., c]) * g[..., c]).sum()
        index.append(hit / (hit + 0.3 * false + 0.7 * missed))
    value = float(tversky(truth, p, alpha=0.3, beta=0.7))
    assert value == pytest.approx(3 - np.sum(index), rel=1e-5)


def test_tversky_gives_the_numbers_of_deepfinder(truth, p):
    """Its loss, as its authors wrote it, also where a class is absent from the batch."""
    tf = pytest.importorskip("tensorflow")

    def theirs(g, p):
        over = (0, 1, 2, 3)
        num = tf.reduce_sum(p * g, over)
        den = num + 0.5 * tf.reduce_sum(p * (1 - g), over) + 0.5 * tf.reduce_sum((1 - p) * g, over)
        return g.shape[-1] - tf.reduce_sum(num / den)

    for labels in (truth, np.minimum(truth, 1)):
        expected = float(theirs(one_hot(labels), p))
        assert float(tversky(labels, p)) == pytest.approx(expected, rel=1e-6)


def test_perfect_and_worst(truth):
    assert float(tversky(truth, one_hot(truth))) == pytest.approx(0, abs=1e-6)
    assert float(tversky(truth, one_hot((truth + 1) % 3))) == pytest.approx(3)
    assert float(dice_cross_entropy(truth, one_hot(truth))) == pytest.approx(0, abs=1e-5)


def test_a_class_that_is_rightly_absent_costs_nothing_in_dice():
    truth = np.zeros(SHAPE, np.uint8)
    assert float(tversky(truth, one_hot(truth), smooth=0.5)) == pytest.approx(0, abs=1e-6)
    assert float(dice_cross_entropy(truth, one_hot(truth))) == pytest.approx(0, abs=1e-5)


def test_dice_cross_entropy_is_the_sum(truth, p):
    entropy = -np.log(np.take_along_axis(p, truth[..., None].astype(int), -1)).mean()
    dice = float(tversky(truth, p, smooth=0.5)) / 3
    assert float(cross_entropy(truth, p)) == pytest.approx(entropy, rel=1e-5)
    assert float(dice_cross_entropy(truth, p)) == pytest.approx(dice + entropy, rel=1e-5)


@pytest.mark.parametrize("name", ["tversky", "dice-cross-entropy"])
def test_what_is_unknown_changes_nothing_and_has_no_gradient(name, truth, p):
    tf = pytest.importorskip("tensorflow")
    loss = loss_of(name, 3, {})
    half = truth.copy()
    half[:, 2:] = IGNORE
    other = p.copy()
    other[:, 2:] = p[:, 2:, ..., ::-1]
    assert float(loss(half, other)) == float(loss(half, p))
    assert float(loss(half, p)) == pytest.approx(float(loss(truth[:, :2], p[:, :2])), rel=1e-6)
    with tf.GradientTape() as tape:
        x = tf.constant(p)
        tape.watch(x)
        value = loss(half, x)
    gradient = tape.gradient(value, x).numpy()
    assert (gradient[:, 2:] == 0).all()
    assert (gradient[:, :2] != 0).any()
    unknown = np.full(SHAPE, IGNORE, np.uint8)
    assert np.isfinite(float(loss(unknown, p)))


@pytest.mark.parametrize("name", ["tversky", "dice-cross-entropy"])
def test_classes_count_by_their_weights(name, truth, p):
    plain = float(loss_of(name, 3, {})(truth, p))
    assert float(loss_of(name, 3, {0: 2.0, 1: 2.0, 2: 2.0})(truth, p)) == pytest.approx(plain, rel=1e-5)
    # only class 2 counts: what is said of the others among themselves does not matter
    only = loss_of(name, 3, {0: 0.0, 1: 0.0})
    swapped = p[..., [1, 0, 2]]
    assert float(only(truth, swapped)) == pytest.approx(float(only(truth, p)), rel=1e-5)
    assert float(loss_of(name, 3, {})(truth, swapped)) != pytest.approx(plain, rel=1e-3)


def test_an_unknown_loss_is_refused():
    with pytest.raises(InputError, match=r"no loss 'tverski'.*did you mean 'tversky'"):
        loss_of("tverski", 2, {})
