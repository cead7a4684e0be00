from __future__ import annotations

import numpy as np
import pytest

from catalogs import intensity
from catalogs.errors import InputError
from catalogs.schema import Intensity


def test_normal_noise_and_gold() -> None:
    rng = np.random.default_rng(1)
    volume = rng.normal(100, 5, (40, 50, 60)).astype(np.float32)
    volume[:5, :5, :5] = -10_000  # gold
    measured = intensity.measure(volume)
    assert measured.centre == pytest.approx(100, abs=0.1)
    assert measured.spread == pytest.approx(5, rel=0.02)
    normal = intensity.normalise(volume, measured)
    assert normal.dtype == np.float32
    assert normal.min() == -intensity.CLIP
    assert normal[10:].std() == pytest.approx(1, rel=0.02)


def test_known_values() -> None:
    measured = intensity.measure(np.arange(101, dtype=np.int16))
    assert measured == Intensity(centre=50, spread=34)
    assert intensity.normalise([[16, 84]], measured).tolist() == [[-1, 1]]


def test_normalise_leaves_its_input_alone() -> None:
    volume = np.arange(8, dtype=np.float32)
    intensity.normalise(volume, Intensity(centre=1, spread=2))
    assert volume.tolist() == list(range(8))


def test_large_volumes_are_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    # columns of very different brightness: a step that met only some of them would be far off
    volume = (rng.normal(0, 1, (64, 64, 64)) + 20 * np.arange(64)).astype(np.float32)
    whole = intensity.measure(volume)
    monkeypatch.setattr(intensity, "_ENOUGH", 20_000)
    thinned = intensity.measure(volume)
    assert thinned == intensity.measure(volume)
    assert thinned.centre == pytest.approx(whole.centre, rel=0.02)
    assert thinned.spread == pytest.approx(whole.spread, rel=0.02)
    volume[63, 62, 61] = np.nan  # not among the thinned-out voxels, or if so, found all the same
    with pytest.raises(InputError, match="not finite"):
        intensity.measure(volume)


def masked(share: float) -> np.ndarray:
    volume = np.random.default_rng(0).normal(5, 1, 10_000).astype(np.float32)
    volume[: round(share * len(volume))] = 0
    return volume


@pytest.mark.parametrize(
    ("volume", "says"),
    [
        (np.full((4, 4, 4), 3.0), "constant"),
        (np.array([1.0, np.nan, 2.0]), "not finite"),
        (np.array([1.0, np.inf, 2.0]), "not finite"),
        (np.zeros((0, 4, 4)), "empty"),
        (masked(0.7), "70 % of the voxels have the value 0"),
        (masked(0.84), "84 % of the voxels have the value 0, as where a volume is masked"),
        (np.arange(1000, dtype=np.float32) * np.float32(1e-42), "beyond what single precision can scale"),
        (np.linspace(-2, 2, 1000) * 1e38, "beyond what single precision can scale"),
    ],
)
def test_refuses(volume: np.ndarray, says: str) -> None:
    with pytest.raises(InputError, match=says):
        intensity.measure(volume)
