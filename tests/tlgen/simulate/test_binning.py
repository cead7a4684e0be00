"""Binning: both ways leave things where they are, and each has the spectrum that it must have."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from catalogs.schema import Acquisition
from tlgen.molecules.molecule import centred
from tlgen.scene.scene import Scene
from tlgen.simulate.engine import ENGINES, engine
from tlgen.simulate.microscope.binning import Binning, binned
from tlgen.tilts.scheme import Tilt


def centre(image: np.ndarray, least: float = 0.02) -> np.ndarray:
    """Centre of mass (x, y) of what is above a share of the maximum."""
    weight = np.abs(image - np.median(image))
    weight[weight < least * weight.max()] = 0
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def shift(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How far (x, y) one image is from another, from the phases of what is coarse in both."""
    window = np.hanning(one.shape[0])[:, None] * np.hanning(one.shape[1])
    a, b = (np.fft.fft2((image - np.median(image)) * window) for image in (one, other))
    qx, qy = np.meshgrid(*(np.fft.fftfreq(n) for n in one.shape[::-1]))
    some = (np.hypot(qx, qy) < 0.25) & (np.hypot(qx, qy) > 0)
    cross = (a * b.conj())[some]
    weight = np.sqrt(np.abs(cross))
    design = -2 * np.pi * np.stack([qx[some], qy[some]], 1)
    return np.linalg.lstsq(design * weight[:, None], np.angle(cross) * weight, rcond=None)[0]


@settings(max_examples=30, deadline=None)
@given(
    factor=st.integers(2, 7),
    x=st.floats(-10, 10),
    y=st.floats(-10, 10),
    kind=st.sampled_from(["average", "fourier"]),
    odd=st.booleans(),
)
def test_a_spot_stays_where_it_was(factor: int, x: float, y: float, kind: Binning, odd: bool) -> None:
    n = 24 + odd
    rows, columns = np.mgrid[: n * factor, : (n + 3) * factor]
    px, py = (n + 3) * factor / 2 + x, n * factor / 2 + y
    image = np.exp(-((columns - px) ** 2 + (rows - py) ** 2) / (2 * (1.5 * factor) ** 2))
    found = centre(binned(image, factor, kind))
    # a voxel's centre is (factor - 1) / 2 pixels after its first pixel's
    expected = (np.array([px, py]) - (factor - 1) / 2) / factor
    assert np.abs(found - expected).max() < 0.02


def test_the_mean_is_the_mean_and_the_crop_is_the_inner_part() -> None:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((40, 48))
    assert np.allclose(binned(image, 4), image.reshape(10, 4, 12, 4).mean(axis=(1, 3)), atol=1e-6)
    ny, nx = 120, 96
    white = rng.standard_normal((ny * 4, nx * 4)).astype(np.float32)
    power = {
        kind: np.abs(np.fft.fft2(binned(white, 4, kind))) ** 2 * 16 / (ny * nx)
        for kind in ("average", "fourier")
    }
    q = np.hypot(*np.meshgrid(np.fft.fftfreq(nx), np.fft.fftfreq(ny)))
    for kind in ("average", "fourier"):  # noise stays white, of the same strength
        assert power[kind][(q > 0.05) & (q < 0.45)].mean() == pytest.approx(1, abs=0.05)
    # a wave beyond Nyquist: averaging folds it in, cropping does not
    wave = np.cos(2 * np.pi * 0.17 * np.arange(400))[None].repeat(40, 0)
    assert binned(wave, 4, "average")[:, 20:80].std() > 0.1
    assert binned(wave, 4, "fourier")[:, 20:80].std() < 0.02


def test_what_does_not_fill_a_voxel_is_left_out() -> None:
    image = np.arange(11 * 14, dtype=float).reshape(11, 14)
    for kind in ("average", "fourier"):
        assert binned(image, 4, kind).shape == (2, 3)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("odd", [False, True])
def test_engines_bin_either_way_without_moving_anything(name: str, odd: bool) -> None:
    molecule = centred(
        "ball", np.full(30, 79), np.random.default_rng(0).uniform(-9, 9, (30, 3)), np.zeros(30, bool)
    )
    place = np.array([(13.0, -21.0, 4.0)])
    scene = Scene(
        (6, 18 + odd, 20 + odd), 8.0, (molecule.digest,), ("ball",), (-1,), (1,), ("ball",),
        np.zeros(1, np.int64), place, np.array([(0.0, 0, 0, 1)]),
    )  # fmt: skip
    found, images = {}, {}
    for kind in ("average", "fourier"):
        acq = Acquisition(
            engine=name,
            voxel_size=8.0,
            binning=kind,
            defocus=0.3,
            phase_plate=True,
            ice_density=0,
            padding=32,
        )
        image = engine(name).simulate(
            scene, {molecule.digest: molecule}, acq, Tilt(0, 0.0, 1, 0), 1, noise=False
        )
        images[kind], found[kind] = image, centre(ndimage.gaussian_filter(image, 1.0), 0.3)
    expected = place[0, :2] / 8 + (np.array([20, 18]) + odd - 1) / 2
    assert np.abs(found["average"] - expected).max() < 0.15
    assert np.abs(shift(images["fourier"], images["average"])).max() < 0.06  # wrongly, 0.44
    assert not np.allclose(images["average"], images["fourier"], atol=1e-4)
