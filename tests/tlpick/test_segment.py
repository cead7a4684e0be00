"""Segmenting: tiles equal the whole volume, and labels follow the probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.model_file import read_card, write_model
from catalogs.schema import ClassInfo
from catalogs.seeds import generator
from tlpick.segment import Network, load_network, predict_tiles, segment
from tlpick.tiles import Tiling, plan


def assembled(volume: NDArray[np.float32], network: Network, tiling: Tiling) -> NDArray[np.float32]:
    out = np.full((*volume.shape, 3), np.nan, np.float32)
    for target, probabilities in predict_tiles(volume, network, tiling):
        out[target] = probabilities
    return out


@pytest.mark.parametrize("shape", [(41, 70, 85), (53, 61, 90)])
def test_tiles_equal_the_whole_to_the_bit(random_model: Path, shape: tuple[int, int, int]) -> None:
    card, network = read_card(random_model), load_network(random_model)
    volume = generator("tiles", *shape).normal(size=shape).astype(np.float32)
    one = plan(shape, 200, card.halo, card.pooling)
    whole = assembled(volume, network, one)
    assert len(one) == 1
    assert whole.std(axis=(0, 1, 2)).min() > 1e-3  # the network does say different things
    cut = {edge: plan(shape, edge, card.halo, card.pooling) for edge in (46, 52, 60)}
    assert min(len(tiling) for tiling in cut.values()) > 1
    assert len({tiling.tile for tiling in cut.values()}) == 3
    for tiling in cut.values():
        np.testing.assert_array_equal(assembled(volume, network, tiling), whole)


@pytest.mark.parametrize(
    ("halo", "step"), [(8, 48), (21, 22)], ids=["less halo", "out of step with the poolings"]
)
def test_other_tiles_would_not_do(random_model: Path, halo: int, step: int) -> None:
    shape = (32, 32, 64 + 2 * step)
    network = load_network(random_model)
    volume = generator("tiles", *shape).normal(size=shape).astype(np.float32)
    whole = assembled(volume, network, plan(shape, 200, 20, 4))
    wrong = Tiling(shape, padded=shape, tile=(32, 32, 64), counts=(1, 1, 3), halo=halo, pooling=2)
    assert not np.array_equal(assembled(volume, network, wrong), whole)


def fixed(probabilities: NDArray[np.float32]) -> Network:
    """A network that says the same wherever it looks, by the grey value 0, 1, 2, ... of a voxel."""
    return lambda values: probabilities[np.rint(values).astype(int)]


def test_labels_are_the_likeliest_class_or_the_class_above_its_threshold() -> None:
    said = np.array([[0.9, 0.06, 0.04], [0.3, 0.6, 0.1], [0.4, 0.25, 0.35], [0.45, 0.0, 0.55]], np.float32)
    classes = [ClassInfo(name="b", label=7, radius=10.0), ClassInfo(name="a", label=3, radius=10.0)]
    volume = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    tiling = plan((1, 1, 4), 8, 0, 1)

    plain = segment(volume, fixed(said), tiling, classes, {})
    assert plain.labels.ravel().tolist() == [0, 3, 0, 7]
    assert plain.score.ravel().tolist() == [round(255 * p) for p in (0.06, 0.6, 0.35, 0.55)]

    chosen = segment(volume, fixed(said), tiling, classes, {"a": 0.7, "b": 0.3})
    assert chosen.labels.ravel().tolist() == [0, 0, 7, 7]


def test_a_network_with_other_classes_than_the_card_is_refused() -> None:
    said = np.full((1, 4), 0.25, np.float32)
    classes = [ClassInfo(name="a", label=1, radius=10.0)]
    with pytest.raises(InputError, match="tells 3 classes apart, its card names 1"):
        segment(np.zeros((4, 4, 4), np.float32), fixed(said), plan((4, 4, 4), 8, 0, 1), classes, {})


def test_a_network_is_loaded_once(ball_model: Path) -> None:
    assert load_network(ball_model) is load_network(ball_model)


def test_a_model_without_a_proper_network_is_refused(ball_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tlm"
    write_model(broken, read_card(ball_model), b"no network")
    with pytest.raises(InputError, match=r"cannot load the network in .*broken\.tlm"):
        load_network(broken)
