"""A decoy has the power of its tomogram, place by place, and nothing else of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from catalogs.seeds import generator
from tlpick.network.tomograms.decoy import how_many, learn
from tlpick.network.tomograms.scratch import Scratch


def wedge(noise: np.ndarray) -> np.ndarray:
    """Take a wedge out of the Fourier transform, as tilts do."""
    spectrum = np.fft.rfftn(noise)
    kz, kx = np.fft.fftfreq(noise.shape[0])[:, None, None], np.fft.rfftfreq(noise.shape[2])
    out: np.ndarray = np.fft.irfftn(
        np.where(np.abs(kz) <= 1.7 * kx + 0.01, spectrum, 0), noise.shape, axes=(0, 1, 2)
    )
    return out


def shells(volume: np.ndarray) -> np.ndarray:
    """Power by shell of spatial frequency."""
    window = np.ones(1)
    for axis, n in enumerate(volume.shape):
        window = window * np.hanning(n).reshape([-1 if a == axis else 1 for a in range(3)])
    power = np.abs(np.fft.fftn(volume * window)) ** 2
    k = np.sqrt(sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in volume.shape), indexing="ij")))
    return np.bincount(np.minimum((k * 20).astype(int), 9).ravel(), power.ravel(), 10)


@pytest.fixture
def two_halves() -> Any:
    """A tomogram that is poor on the left and rich on the right, with a missing wedge."""
    fine = wedge(generator("decoy test").standard_normal((64, 128, 192)))
    coarse = gaussian_filter(wedge(generator("decoy test", 2).standard_normal(fine.shape)), 2.5)
    share = np.where(np.arange(192) > 96, 1.5, 0.1)
    return (fine / fine.std() + share * coarse / coarse.std()).astype(np.float32)


def test_power_wedge_and_place_are_those_of_the_tomogram(two_halves: Any, tmp_path: Path) -> None:
    model = learn(two_halves, 10.0)
    decoy = model.make(0, Scratch(tmp_path, 1e9), "a")
    assert decoy.shape == two_halves.shape
    for part in (np.s_[:, :, :64], np.s_[:, :, 128:]):
        ratio = shells(decoy[part])[2:8] / shells(two_halves[part])[2:8]
        assert (np.abs(ratio - 1) < 0.3).all(), ratio
    assert decoy[:, :, 128:].std() / decoy[:, :, :64].std() == pytest.approx(
        two_halves[:, :, 128:].std() / two_halves[:, :, :64].std(), rel=0.1
    )
    spectrum = np.abs(np.fft.rfftn(decoy)) ** 2
    kz, kx = np.abs(np.fft.fftfreq(64))[:, None, None], np.fft.rfftfreq(192)
    lost, there = (kz > 2.5 * kx + 0.1) & (kx > 0), kz < 1.4 * kx
    mean = [
        float((spectrum * region).sum() / (region * np.ones((64, 128, 97))).sum()) for region in (lost, there)
    ]
    assert mean[0] < 0.1 * mean[1]
    assert abs(np.corrcoef(decoy.ravel(), two_halves.ravel())[0, 1]) < 0.02


def test_numbers_and_seeds_make_other_decoys_and_memory_makes_none(two_halves: Any, tmp_path: Path) -> None:
    model = learn(two_halves, 10.0)
    make = lambda *words, **how: np.array(model.make(*words, **how))  # noqa: E731
    first = make(0, Scratch(tmp_path, 1e9), "a")
    with Scratch(tmp_path, 0) as in_files:
        np.testing.assert_array_equal(first, make(0, in_files, "a"))
    np.testing.assert_allclose(first, make(0, Scratch(tmp_path, 1e9), "a", memory=2e7), atol=1e-4)
    for other in (make(1, Scratch(tmp_path, 1e9), "a"), make(0, Scratch(tmp_path, 1e9), "b")):
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.02


def test_what_is_masked_leaves_no_power_behind(two_halves: Any, tmp_path: Path) -> None:
    spoilt, inside = two_halves.copy(), np.ones(two_halves.shape, bool)
    spoilt[20:40, 50:70, 20:40] -= 6.0
    inside[16:44, 46:74, 16:44] = False
    plain, masked = (
        model.make(0, Scratch(tmp_path, 1e9), "a")
        for model in (learn(two_halves, 10.0), learn(spoilt, 10.0, inside))
    )
    assert masked[:, :, :64].std() == pytest.approx(plain[:, :, :64].std(), rel=0.05)


def test_small_tomograms_get_several_and_any_shape_gets_one(tmp_path: Path) -> None:
    assert [how_many(n) for n in (98_000_000, 20_000_000, 11_000_000, 300_000)] == [1, 1, 2, 4]
    for shape in ((20, 33, 41), (7, 50, 9), (130, 20, 20)):
        values = generator("odd", *shape).standard_normal(shape, np.float32)
        decoy = learn(values, 10.0).make(0, Scratch(tmp_path, 1e9))
        assert decoy.shape == shape
        assert decoy.std() == pytest.approx(1.0, rel=0.15)
    nothing = np.zeros((20, 30, 30), bool)
    assert np.isfinite(
        learn(np.ones((20, 30, 30), np.float32), 10.0, nothing).make(0, Scratch(tmp_path, 1e9))
    ).all()
