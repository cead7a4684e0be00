import numpy as np
import pytest

from catalogs.errors import InputError
from tlpick.network.geometry import read_graph
from tltrain.networks.architectures import ARCHITECTURES, architecture, arithmetic


@pytest.mark.parametrize("n_classes", [2, 13])
def test_deepfinder_has_the_published_number_of_parameters(n_classes):
    network = architecture("deepfinder").build(n_classes, 0)
    assert network.count_params() == 902_928 + 33 * n_classes


def test_deepfinders_cost_is_that_of_its_layers():
    # multiply-adds a voxel at full, half and quarter resolution, counted by hand from the published layers
    full = 27 * (32 + 32 * 32) + 8 * 48 * 48 + 27 * (80 * 32 + 32 * 32) + 32 * 2
    half = 27 * (32 * 48 + 48 * 48) + 8 * 64 * 64 + 27 * (112 * 48 + 48 * 48)
    quarter = 27 * (48 * 64 + 3 * 64 * 64)
    expected = 2 * (full + half / 8 + quarter / 64) / 1e6
    assert arithmetic(architecture("deepfinder").build(2, 0)) == pytest.approx(expected)


def test_small_costs_at_most_a_tenth_of_deepfinder():
    small, deepfinder = (arithmetic(architecture(n).build(2, 0)) for n in ("small", "deepfinder"))
    assert small <= deepfinder / 10


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_output_is_a_probability_of_each_class_at_each_voxel(name):
    arch = architecture(name)
    network = arch.build(3, 0)
    grey = np.random.default_rng(0).standard_normal((2, arch.pooling, 2 * arch.pooling, 16, 1), np.float32)
    out = np.asarray(network(grey))
    assert out.shape == (*grey.shape[:4], 3)
    np.testing.assert_allclose(out.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_come_from_the_seed(name):
    one, two, other = (architecture(name).build(2, seed).get_weights() for seed in (4, 4, 5))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_deepfinder_sees_as_far_as_was_measured():
    network = architecture("deepfinder").build(2, 0)
    graph = read_graph(network)
    assert graph.reach == 34
    assert graph.halo == 36


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_beyond_the_halo_changes_a_voxel(name):
    # with random weights: what the probe calls out of reach must have no influence at all
    arch = architecture(name)
    network = arch.build(2, 0)
    margin = read_graph(network).halo
    assert margin % arch.pooling == 0
    edge = 2 * margin + 4 * arch.pooling
    grey = np.random.default_rng(0).standard_normal((1, 8, 8, edge, 1), np.float32)
    before = np.asarray(network(grey))
    middle = edge // 2 // arch.pooling * arch.pooling
    changed = grey.copy()
    changed[:, :, :, : middle - margin] += 3
    changed[:, :, :, middle + arch.pooling + margin :] += 3
    after = np.asarray(network(changed))
    core = slice(middle, middle + arch.pooling)
    np.testing.assert_array_equal(after[:, :, :, core], before[:, :, :, core])
    assert np.abs(after - before)[:, :, :, middle - margin : middle].max() > 0


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match=r"no network 'deepfindr'.*small, deepfinder.*did you mean 'deep"):
        architecture("deepfindr")
