from dataclasses import replace

import numpy as np
import pytest

from catalogs.seeds import generator
from tltrain.augment import HALF_TURNS, NO_AUGMENTATION, Augmentation, Effect, augment


def wedge(n: int = 16, low: float = -60, high: float = 60) -> np.ndarray:
    kz, _, kx = np.meshgrid(*(np.fft.fftfreq(n + 1),) * 3, indexing="ij")
    angle = np.rad2deg(np.arctan2(kz, kx))
    angle = (angle + 90) % 180 - 90  # a direction and its opposite are the same
    return (angle >= low) & (angle <= high)


def test_half_turns_leave_the_missing_wedge_in_place():
    seen = wedge()
    image = np.fft.ifftn(np.fft.fftn(np.random.default_rng(0).standard_normal(seen.shape)) * seen).real
    for axes in HALF_TURNS:
        power = np.abs(np.fft.fftn(np.flip(image, axes)))
        assert power[~seen].max() < 1e-9 * power.max()
    quarter = np.abs(np.fft.fftn(np.rot90(image, axes=(0, 2))))
    assert quarter[~seen].max() > 0.1 * quarter.max()


def test_half_turns_are_rotations_not_mirrors():
    corner = np.indices((3, 3, 3)).reshape(3, -1).T - 1  # z, y, x around the centre
    for axes in HALF_TURNS:
        signs = np.array([-1 if axis in axes else 1 for axis in range(3)])
        assert np.prod(signs) == 1
        marks = np.arange(27).reshape(3, 3, 3)
        turned = np.flip(marks, axes)
        for (z, y, x), value in zip(corner, marks.ravel(), strict=True):
            tz, ty, tx = signs * (z, y, x) + 1
            assert turned[tz, ty, tx] == value


def test_labels_follow_the_tomogram_and_all_turns_occur():
    rng = np.random.default_rng(1)
    classes = (rng.random((6, 6, 6)) < 0.2).astype(np.uint8)
    tomogram = classes.astype(np.float32)
    still = replace(NO_AUGMENTATION, half_turns=Effect(1))
    seen = set()
    for k in range(40):
        grey, labels = augment(tomogram, classes, generator("turn", k), still, (-60, 60))
        np.testing.assert_array_equal(grey, labels)
        seen.add(labels.tobytes())
    assert len(seen) == 4


def test_grey_values_change_within_bounds_and_the_input_stays():
    tomogram = np.full((20, 20, 20), -2.0, np.float32)
    classes = np.zeros((20, 20, 20), np.uint8)
    plain = Augmentation(gamma=Effect(0), spectrum=Effect(0), low_pass=Effect(0), wedge=Effect(0))
    means, noises = [], []
    for k in range(200):
        grey, _ = augment(tomogram, classes, generator("grey", k), plain)
        assert grey.dtype == np.float32
        means.append(grey.mean())
        noises.append(grey.std())
    assert (tomogram == -2).all()
    assert -2 * 1.25 - 0.21 < min(means) < -2.2
    assert -1.9 < max(means) < -2 / 1.25 + 0.21
    assert max(noises) == pytest.approx(0.3, abs=0.02)
    assert min(noises) < 0.02


def test_the_same_generator_gives_the_same_patch():
    tomogram = np.random.default_rng(0).standard_normal((8, 8, 8)).astype(np.float32)
    classes = np.zeros((8, 8, 8), np.uint8)
    one, _ = augment(tomogram, classes, generator(5), Augmentation())
    two, _ = augment(tomogram, classes, generator(5), Augmentation())
    np.testing.assert_array_equal(one, two)
