"""Segmenting: columns equal the whole volume, and labels follow the probabilities."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.model_file import read_card, write_model
from catalogs.schema import ClassInfo
from catalogs.seeds import generator
from tlpick.network.geometry import Graph, read_graph
from tlpick.network.orientations import SYMMETRIES
from tlpick.network.segment import compiled, load_network, predict, segment
from tlpick.network.sweep import sweep
from tlpick.network.tiles import Tiling, plan
from tlpick.network.tomograms.scratch import Scratch
from tlpick.network.voxel_classes import add_probabilities

A = ClassInfo(name="a", label=3, radius=10.0)
B = ClassInfo(name="b", label=7, radius=10.0)


def assembled(volume: NDArray[np.float32], network: Graph, tiling: Tiling) -> NDArray[np.float32]:
    out = np.full((*volume.shape, network.n_classes), np.nan, np.float32)
    for _, _, target, answer in predict(volume, network, tiling):
        assert np.isnan(out[target]).all()
        out[target] = 0
        add_probabilities(answer, network.softmax, out[target])
    return out


def by_keras(model: Any, volume: NDArray[np.float32], pooling: tuple[int, ...]) -> NDArray[np.float32]:
    """What Keras itself gives for the whole volume, padded with zeros to multiples of the pooling."""
    beyond = [(0, -n % p) for n, p in zip(volume.shape, pooling, strict=True)]
    whole = model.predict_on_batch(np.pad(volume, beyond)[np.newaxis, ..., np.newaxis])[0]
    z, y, x = volume.shape
    return np.asarray(whole)[:z, :y, :x]


def deepfinder(_k: Any, _x: Any) -> Any:
    from tltrain.networks.architectures import architecture

    return architecture("deepfinder").build(3, 1)


def small(_k: Any, _x: Any) -> Any:
    from tltrain.networks.architectures import architecture

    return architecture("small").build(3, 1)


def residual_unet(_k: Any, _x: Any) -> Any:
    from tltrain.networks.architectures import architecture

    return architecture("residual-unet").build(3, 1)


def no_pooling(k: Any, x: Any) -> Any:
    x = k.Conv3D(4, 5, padding="same", activation="relu")(x)
    return k.Conv3D(3, 3, dilation_rate=2, padding="same", activation="softmax")(x)


def even_kernels(k: Any, x: Any) -> Any:
    fine = k.Conv3D(4, 2, padding="same", activation="relu")(x)
    x = k.AveragePooling3D(2)(k.Conv3D(4, 4, padding="same", activation="relu")(fine))
    x = k.UpSampling3D(2)(k.Conv3D(4, 2, padding="same", activation="relu")(x))
    return k.Conv3D(3, 1, activation="softmax")(k.Concatenate()([x, fine]))


def strided_both_ways(k: Any, x: Any) -> Any:
    half = k.Conv3D(6, 3, strides=2, padding="same", use_bias=False)(x)
    half = k.LeakyReLU()(k.BatchNormalization()(half))
    low = k.MaxPooling3D(3, strides=2, padding="same")(half)
    low = k.PReLU(shared_axes=[1, 2, 3])(k.Conv3D(6, 3, padding="same")(low))
    half = k.Add()([half, k.Conv3DTranspose(6, 3, strides=2, padding="same")(low)])
    x = k.Conv3DTranspose(4, 5, strides=2, padding="same", activation="relu")(half)
    return k.Softmax()(k.Dense(3)(k.Dropout(0.5)(x)))


def anisotropic(k: Any, x: Any) -> Any:
    fine = k.Conv3D(4, (3, 5, 3), padding="same", activation="relu")(x)
    x = k.MaxPooling3D((1, 2, 4))(fine)
    x = k.Conv3D(4, (5, 3, 3), padding="same", activation="relu")(x)
    x = k.UpSampling3D((1, 2, 4))(x)
    return k.Conv3D(3, 3, padding="same", activation="softmax")(x * 0.5 + fine)


def spread_by_any_kernel(k: Any, x: Any) -> Any:
    x = k.Conv3D(4, 3, strides=(2, 3, 2), padding="same", activation="relu")(x)
    return k.Conv3DTranspose(3, (2, 5, 1), strides=(2, 3, 2), padding="same", activation="softmax")(x)


def three_levels(k: Any, x: Any) -> Any:
    levels = []
    for width in (4, 4, 6):
        x = k.Conv3D(width, 3, padding="same", activation="relu")(x)
        levels.append(x)
        x = k.MaxPooling3D(2)(x)
    x = k.Conv3D(8, 3, padding="same", activation="relu")(x)
    for level in reversed(levels):
        x = k.Concatenate()([k.UpSampling3D(2)(x), level])
        x = k.Conv3D(level.shape[-1], 3, padding="same", activation="relu")(x)
    return k.Conv3D(3, 1, activation="softmax")(x)


NETWORKS = [
    deepfinder,
    small,
    residual_unet,
    no_pooling,
    even_kernels,
    strided_both_ways,
    anisotropic,
    spread_by_any_kernel,
    three_levels,
]


def build(head: Callable[[Any, Any], Any]) -> Any:
    """Make a network whose weights, and batch statistics, are random."""
    import keras

    entry = keras.Input((None, None, None, 1))
    out = head(keras.layers, entry)
    model = out if isinstance(out, keras.Model) else keras.Model(entry, out)
    rng = generator("weights", head.__name__)
    for weight in model.weights:
        fan = int(np.prod(weight.shape[:-1])) if len(weight.shape) > 1 else 100
        values = rng.normal(0, (1.7 / fan) ** 0.5, weight.shape)
        weight.assign(np.abs(values) + 1 if "variance" in weight.name else values)
    return model


@pytest.mark.parametrize("head", NETWORKS)
def test_columns_equal_the_whole_to_the_bit(head: Callable[[Any, Any], Any]) -> None:
    model = build(head)
    network = compiled(read_graph(model))
    shape = (17, 30, 103)
    volume = generator("columns", head.__name__).normal(size=shape).astype(np.float32)
    one = plan(shape, network, 1e12)
    assert (len(one), one.planes) == (1, one.tile[one.axis])  # the whole volume in one step
    whole = assembled(volume, network, one)
    assert whole.std(axis=(0, 1, 2)).min() > 1e-4  # the network does say different things
    # Keras may join layers, and rounds its softmax, in another way
    np.testing.assert_allclose(whole, by_keras(model, volume, network.pooling), rtol=0, atol=1e-6)

    for axis, cut in ((0, 2), (1, 2), (2, None)) if head is not deepfinder else ((0, 2),):
        margins, unit = one.before[2] + one.after[2], network.pooling[2]
        width = margins + unit if head is deepfinder else margins + 3 * unit
        tile, counts = list(one.padded), [1, 1, 1]
        if cut == 2:
            assert width < one.padded[2]
            tile[2], counts[2] = width, -(-(one.padded[2] - margins) // (width - margins))
        planes = network.pooling[axis] * (1 if network.pooling[axis] > 2 else 3)
        z, y, x = tile
        other = replace(one, tile=(z, y, x), counts=(1, 1, counts[2]), axis=axis, planes=planes)
        assert (len(other) > 1) == (cut == 2)
        np.testing.assert_array_equal(assembled(volume, network, other), whole)


@pytest.mark.slow
def test_columns_equal_the_whole_on_a_processor_with_avx2_only() -> None:
    """The same test with oneDNN's kernels for AVX2, which are chosen when a process starts."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "test_columns_equal_the_whole_to_the_bit", __file__],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{len(NETWORKS)} passed" in done.stdout


@pytest.mark.parametrize(("less", "step"), [(8, 0), (0, 1)], ids=["less margin", "out of step"])
def test_other_columns_would_not_do(random_model: Path, less: int, step: int) -> None:
    network = load_network(random_model)
    shape = (32, 32, 128)
    volume = generator("columns", *shape).normal(size=shape).astype(np.float32)
    right = plan(shape, network, 1e12)
    whole = assembled(volume, network, right)
    margin = right.before[2] - less + step
    columns = -(-(128 - 2 * margin) // (64 - 2 * margin))
    wrong = replace(
        right, tile=(32, 32, 64), counts=(1, 1, columns), before=(0, 0, margin), after=(0, 0, margin), axis=1
    )
    assert not np.array_equal(assembled(volume, network, wrong), whole)


def test_a_network_that_cannot_be_cut_is_refused() -> None:
    import keras
    from keras import layers

    entry = keras.Input((None, None, None, 1))

    def refuse(out: Any, words: str) -> None:
        with pytest.raises(InputError, match=words):
            read_graph(keras.Model(entry, out))

    conv = layers.Conv3D(2, 3, padding="same")(entry)
    refuse(layers.GroupNormalization(1)(conv), "GroupNormalization.* more than a window")
    refuse(layers.Multiply()([conv, layers.GlobalAveragePooling3D(keepdims=True)(conv)]), "GlobalAverage")
    refuse(layers.Conv3D(2, 3)(entry), "padding 'valid'; only 'same'")
    refuse(layers.AveragePooling3D(3, strides=1, padding="same")(entry), "more than a window")
    refuse(layers.MaxPooling3D(2)(entry), "another voxel size")
    refuse(layers.Softmax(axis=1)(conv), "Softmax.* more than a window")


def receptive_field(network: Any, pooling: int) -> int:
    """Measure how far a voxel's result depends on its surroundings, by perturbing one voxel."""
    import keras

    probe = keras.Model.from_config(network.get_config())  # a copy without the weights
    for layer in probe.layers:
        if isinstance(layer, keras.layers.Conv3D | keras.layers.Conv3DTranspose):
            values = [np.zeros(v.shape, np.float32) for v in layer.get_weights()]
            # between the faint corner (the product of the weights) and the centre (27 times as much a layer),
            # this keeps both inside float32 for some fifty layers
            channels = layer.input.shape[-1]
            values[0] += 1 / (math.sqrt(27) * channels)
            layer.set_weights(values)
    probe.layers[-1].activation = keras.activations.linear

    edge = 16 * pooling
    while (reach := max(_reach(probe, axis, edge, pooling) for axis in range(3))) >= edge // 2 - pooling:
        edge *= 2  # it may reach beyond the box
    return reach


def _reach(probe: Any, axis: int, edge: int, pooling: int) -> int:
    """Light a voxel in the middle of a thin box, at each phase, and see how far along ``axis`` it shows."""
    import keras

    shape = [pooling] * 3
    shape[axis] = edge
    boxes = np.zeros((pooling, *shape, 1), np.float32)
    places = edge // 2 + np.arange(pooling)
    for box, place in zip(np.moveaxis(boxes, axis + 1, 1), places, strict=True):
        box[place, 0, 0] = 1
    out = np.asarray(keras.ops.convert_to_numpy(probe(boxes, training=False)))
    lit = np.moveaxis(out, axis + 1, 1).reshape(pooling, edge, -1) != 0
    phase, reached, _ = np.nonzero(lit)
    return int(np.abs(reached - places[phase]).max())


def test_margins_are_how_far_a_voxel_shows(random_model: Path) -> None:
    from tltrain.networks.architectures import architecture

    for name in ("deepfinder", "small", "residual-unet"):
        model = architecture(name).build(2, 1)
        network = read_graph(model)
        assert network.pooling == (4, 4, 4)
        before, after = network.margins(2)
        # margins are counted from multiples of the pooling, the reach from each voxel
        assert 0 <= receptive_field(model, 4) - max(before, after) < 4
    assert load_network(random_model).margins(0) == load_network(random_model).margins(2)


def test_the_sweep_reads_every_plane_once(random_model: Path) -> None:
    network, asked = load_network(random_model), []

    def read(begin: int, end: int) -> NDArray[np.float32]:
        asked.append((begin, end))
        return np.zeros((16, end - begin, 16), np.float32)

    given = [(begin, end) for begin, end, _ in sweep(network, 1, (16, 52, 16), read, 8)]
    for spans in (asked, given):
        assert spans[0][0] == 0
        assert spans[-1][1] == 52
        assert all(first[1] == second[0] for first, second in itertools.pairwise(spans))


@pytest.fixture(scope="module")
def told() -> Graph:
    """A network of one layer whose logits are the channels of a table, looked up by the grey value."""
    import keras
    from keras import layers

    said = np.array([[0.9, 0.06, 0.04], [0.3, 0.6, 0.1], [0.4, 0.25, 0.35], [0.45, 0.0, 0.55]])
    entry = keras.Input((None, None, None, 1))
    # 0, 1, 2, 3 -> one of four: hats around each value
    hat = layers.Conv3D(8, 1, activation="relu")
    out = layers.Conv3D(3, 1, activation="linear")
    model = keras.Model(entry, out(hat(entry)))
    hat.set_weights([np.ones((1, 1, 1, 1, 8), np.float32), np.array([1, 0, -1, -2, -3, 0, 0, 0], np.float32)])
    second = np.zeros((8, 3), np.float32)
    for k in range(4):  # a hat is a ramp up, twice a ramp down, a ramp up
        second[k] += said[k]
        second[k + 1] -= 2 * said[k]
        if k < 3:
            second[k + 2] += said[k]
    out.set_weights([second.reshape(1, 1, 1, 8, 3), np.zeros(3, np.float32)])
    return read_graph(model)


def test_labels_are_the_likeliest_class_or_the_class_above_its_threshold(told: Graph) -> None:
    volume = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    tiling = plan((1, 1, 4), told, 1e9)
    plain = segment(volume, told, tiling, [B, A], {})
    assert plain.labels.ravel().tolist() == [0, 3, 0, 7]
    assert plain.score.ravel().tolist() == [round(255 * p) for p in (0.06, 0.6, 0.35, 0.55)]
    chosen = segment(volume, told, tiling, [B, A], {"a": 0.7, "b": 0.3})
    assert chosen.labels.ravel().tolist() == [0, 0, 7, 7]


def test_a_network_with_other_classes_than_the_card_is_refused(told: Graph) -> None:
    with pytest.raises(InputError, match="tells 2 classes apart, its card names 1"):
        segment(np.zeros((4, 4, 4), np.float32), told, plan((4, 4, 4), told, 1e9), [A], {})


@pytest.mark.parametrize("tta", [1, 4])
def test_a_mask_saves_work_and_changes_nothing_inside(random_model: Path, tta: int, tmp_path: Path) -> None:
    network, card = load_network(random_model), read_card(random_model)
    shape = (38, 66, 131)
    volume = generator("masked").normal(size=shape).astype(np.float32)
    mask = np.zeros(shape, bool)
    mask[5:30, 20:33, 10:37] = True
    tiling = plan(shape, network, 1e12, tile=52)
    assert len(tiling) > 1
    whole = segment(volume, network, tiling, card.classes, card.thresholds, tta=tta)
    poisoned = volume.copy()
    poisoned[:, 60:] = np.nan  # beyond what the inside depends on
    poisoned[:, :, 100:] = np.nan
    with Scratch(tmp_path, 0) as scratch:  # in files
        part = segment(
            poisoned, network, tiling, card.classes, card.thresholds, mask=mask, tta=tta, scratch=scratch
        )
        np.testing.assert_array_equal(part.labels, np.where(mask, whole.labels, 0))
        np.testing.assert_array_equal(part.score, np.where(mask, whole.score, 0))
        assert list(tmp_path.iterdir()) == []
    assert (whole.score[~mask] > 0).any()


@pytest.mark.parametrize("tta", [4, 8])
def test_augmented_results_turn_with_the_tomogram(random_model: Path, tta: int) -> None:
    network, card = load_network(random_model), read_card(random_model)
    shape = (22, 31, 27)
    volume = generator("turned").normal(size=shape).astype(np.float32)
    tiling = plan(shape, network, 1e12)

    def score(values: NDArray[np.float32], tta: int) -> NDArray[np.int16]:
        made = segment(np.ascontiguousarray(values), network, tiling, card.classes, {}, tta=tta)
        return made.score.astype(np.int16)

    plain, mean = score(volume, 1), score(volume, tta)
    assert np.abs(plain - mean).max() > 3
    assert len(set(SYMMETRIES[tta])) == tta
    for axes in SYMMETRIES[tta]:
        turned = score(np.flip(volume, axes), tta)
        assert np.abs(np.flip(turned, axes) - mean).max() <= 1  # sums in another order
    assert np.abs(np.flip(score(np.flip(volume, 0), 1), 0) - plain).max() > 3


def test_the_symmetries_are_those_of_the_missing_wedge() -> None:
    """Of all 48 ways to map the grid onto itself, eight leave a wedge with tilt axis y as it is."""
    angles = np.deg2rad(np.arange(-60, 61, 2))
    freqs = np.fft.fftfreq(16)
    kz, _, kx = np.meshgrid(freqs, freqs, freqs, indexing="ij")
    measured = np.abs(np.arctan2(np.abs(kz), np.abs(kx))) <= angles.max()
    measured = np.fft.fftshift(measured)[1:, 1:, 1:]  # without the frequency that has no mirror image
    kept = set()
    for order in itertools.permutations(range(3)):
        for axes in itertools.chain.from_iterable(itertools.combinations(range(3), n) for n in range(4)):
            if np.array_equal(np.flip(measured.transpose(order), axes), measured):
                kept.add((order, axes))
    assert kept == {((0, 1, 2), axes) for axes in SYMMETRIES[8]}
    for axes in SYMMETRIES[4]:
        assert len(axes) % 2 == 0  # a rotation: molecules keep their hand


def test_a_network_is_loaded_once(ball_model: Path) -> None:
    assert load_network(ball_model) is load_network(ball_model)


def test_a_model_without_a_proper_network_is_refused(
    ball_model: Path, no_network: bytes, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.tlm"
    write_model(broken, read_card(ball_model), no_network)
    with pytest.raises(InputError, match=r"cannot load the network in .*broken\.tlm"):
        load_network(broken)
