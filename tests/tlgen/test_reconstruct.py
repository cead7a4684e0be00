import numpy as np
import pytest
from scipy import ndimage

from catalogs.errors import InputError
from tlgen.reconstruct import reconstruct, weight

ANGLES = np.arange(-60.0, 61.0, 3.0)


def projections(points: np.ndarray, shape: tuple[int, int, int], angles: np.ndarray, sigma: float = 1.5):
    """Images of dark Gaussian spots, drawn analytically: (t, y, x)."""
    centre = (np.array(shape[::-1]) - 1) / 2
    y, x = np.mgrid[: shape[1], : shape[2]]
    images = np.full((len(angles), *shape[1:]), 100.0)
    for k, angle in enumerate(np.radians(angles)):
        for point in points - centre:
            px = point[0] * np.cos(angle) + point[2] * np.sin(angle) + centre[0]
            images[k] -= 10 * np.exp(-((x - px) ** 2 + (y - point[1] - centre[1]) ** 2) / (2 * sigma**2))
    return images


def peak(volume: np.ndarray) -> np.ndarray:
    """Centre (x, y, z) of mass of the darkest spot."""
    dark = np.clip(-volume, 0, None)
    dark[dark < 0.4 * dark.max()] = 0
    labels, _ = ndimage.label(dark)
    at = labels[np.unravel_index(dark.argmax(), dark.shape)]
    return np.array(ndimage.center_of_mass(dark, labels, at))[::-1]


@pytest.mark.parametrize("shape", [(24, 20, 30), (25, 21, 31), (23, 20, 33)])
@pytest.mark.parametrize("place", [(0.0, 0.0, 0.0), (5.3, -2.0, 4.6), (-6.1, 3.0, -3.2)])
def test_a_spot_comes_back_where_it_was(shape: tuple[int, int, int], place: tuple[float, ...]) -> None:
    point = (np.array(shape[::-1]) - 1) / 2 + place
    volume = reconstruct(projections(point[None], shape, ANGLES), ANGLES, shape)
    assert volume.dtype == np.float32
    assert volume.shape == shape
    assert np.abs(peak(volume) - point).max() < 0.1


def test_protein_is_dark_and_background_is_near_zero() -> None:
    shape = (24, 24, 24)
    volume = reconstruct(projections(np.array([[11.5, 11.5, 11.5]]), shape, ANGLES), ANGLES, shape)
    assert volume[11:13, 11:13, 11:13].max() < -0.01
    assert abs(np.median(volume)) < 0.02 * abs(volume.min())


def test_order_of_the_tilts_does_not_matter() -> None:
    shape = (16, 6, 20)
    images = projections(np.array([[12.0, 3.0, 9.0]]), shape, ANGLES)
    order = np.argsort(np.abs(ANGLES), kind="stable")
    assert np.allclose(
        reconstruct(images, ANGLES, shape), reconstruct(images[order], ANGLES[order], shape), atol=1e-6
    )


def test_linear_in_images_of_one_mean() -> None:
    rng = np.random.default_rng(0)
    shape = (10, 5, 16)
    a, b = rng.standard_normal((2, len(ANGLES), 5, 16))
    a, b = (i - i.mean(axis=(1, 2), keepdims=True) for i in (a, b))
    one = reconstruct(100 + a, ANGLES, shape) + 2 * reconstruct(100 + b, ANGLES, shape)
    assert np.allclose(one, reconstruct(100 + a + 2 * b, ANGLES, shape), atol=1e-5)


def test_brightness_of_an_image_does_not_matter() -> None:
    shape = (10, 5, 16)
    images = projections(np.array([[8.0, 2.0, 4.0]]), shape, ANGLES)
    gain = np.linspace(0.5, 2, len(ANGLES))[:, None, None]
    assert np.allclose(
        reconstruct(images, ANGLES, shape), reconstruct(images * gain, ANGLES, shape), atol=1e-6
    )


def test_missing_wedge_is_where_it_must_be() -> None:
    """Tilts about y to +-60° leave a wedge of 60° around kz empty, the same for every ky."""
    rng = np.random.default_rng(1)
    n = 48
    images = 100 + rng.standard_normal((121, n, n))
    volume = reconstruct(images, np.linspace(-60, 60, 121), (n, n, n))
    window = np.hanning(n)
    volume = volume * window[:, None, None] * window[None, :, None] * window[None, None, :]
    power = np.abs(np.fft.fftn(volume)) ** 2
    kz, ky, kx = np.meshgrid(*[np.fft.fftfreq(n)] * 3, indexing="ij")
    radius = np.hypot(kx, kz)
    # an image at tilt a is a plane whose kz / kx = tan a
    slope = np.degrees(np.arctan2(np.abs(kz), np.abs(kx)))
    shell = (radius > 0.15) & (radius < 0.3)
    inside, wedge = power[shell & (slope < 50)].mean(), power[shell & (slope > 70)].mean()
    assert wedge < 0.02 * inside
    high_ky = shell & (np.abs(ky) > 0.2)
    assert power[high_ky & (slope > 70)].mean() < 0.02 * power[high_ky & (slope < 50)].mean()


def test_nothing_wraps_around() -> None:
    """A spot at the left edge leaves no trace at the right one beyond the tail of the ramp."""
    shape = (8, 9, 64)
    image = projections(np.array([[2.0, 4.0, 3.5]]), shape, np.zeros(1))
    row = weight(image[0] / 100 - 1)[4]
    tail = -row[-3:] * 1  # the kernel is negative away from its centre: a dark spot leaves a bright tail
    assert row[2] < 0
    assert np.abs(tail).max() < 2e-3 * abs(row[2])


def test_images_may_be_wider_than_the_tomogram() -> None:
    point = np.array([[20.0, 3.0, 9.0]])
    wide = projections(point, (16, 6, 41), ANGLES)
    narrow = reconstruct(wide, ANGLES, (16, 6, 21))
    whole = reconstruct(wide, ANGLES, (16, 6, 41))
    assert np.allclose(narrow, whole[:, :, 10:31], atol=1e-6)


@pytest.mark.parametrize(
    ("images", "angles", "shape", "words"),
    [
        (np.ones((3, 4, 5)), np.zeros(2), (4, 4, 5), "one angle for each image"),
        (np.ones((4, 5)), np.zeros(4), (4, 4, 5), "one angle for each image"),
        (np.ones((2, 4, 5)), np.zeros(2), (4, 6, 5), "tilt axis is y"),
        (np.zeros((2, 4, 5)), np.zeros(2), (4, 4, 5), "leave such images out"),
        (np.full((2, 4, 5), np.nan), np.zeros(2), (4, 4, 5), "leave such images out"),
    ],
)
def test_bad_input_is_one_sentence(
    images: np.ndarray, angles: np.ndarray, shape: tuple[int, int, int], words: str
) -> None:
    with pytest.raises(InputError, match=words) as error:
        reconstruct(images, angles, shape)
    assert "\n" not in str(error.value)
