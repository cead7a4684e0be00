from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from tlgen.molecules.molecule import centred
from tlgen.reconstruct import Optics, ProjectionParameters, Reconstruction, ctf, filters, on_gpu, reconstruct
from tlgen.reconstruct.wbp import ROWS
from tlgen.scene.scene import Scene
from tlgen.simulate.engine import engine
from tlgen.tilts.scheme import Tilt

ANGLES = np.arange(-60.0, 61.0, 3.0)
Draw = Callable[..., np.ndarray]
Peak = Callable[[np.ndarray], np.ndarray]


@pytest.mark.parametrize("shape", [(24, 20, 30), (25, 21, 31), (23, 20, 33)])
@pytest.mark.parametrize("place", [(0.0, 0.0, 0.0), (5.3, -2.0, 4.6), (-6.1, 3.0, -3.2)])
def test_a_spot_comes_back_where_it_was(
    projections: Draw, peak: Peak, shape: tuple[int, int, int], place: tuple[float, ...]
) -> None:
    point = (np.array(shape[::-1]) - 1) / 2 + place
    volume = reconstruct(projections(point[None], shape, ANGLES), ANGLES, shape)
    assert volume.dtype == np.float32
    assert volume.shape == shape
    assert np.abs(peak(volume) - point).max() < 0.1


def test_protein_is_dark_and_background_is_near_zero(projections: Draw) -> None:
    shape = (24, 24, 24)
    volume = reconstruct(projections(np.array([[11.5, 11.5, 11.5]]), shape, ANGLES), ANGLES, shape)
    assert volume[11:13, 11:13, 11:13].max() < -0.01
    assert abs(np.median(volume)) < 0.02 * abs(volume.min())


def test_order_of_the_tilts_does_not_matter(projections: Draw) -> None:
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


def test_images_of_one_angle_share_the_range_of_one_image() -> None:
    rng = np.random.default_rng(2)
    images = 100 + rng.standard_normal((1, 6, 20)).repeat(3, axis=0)
    one, three = (reconstruct(images[:n], np.full(n, 10.0), (8, 6, 20)) for n in (1, 3))
    assert one.std() > 0
    assert np.allclose(one, three, atol=1e-5 * one.std())


def test_brightness_of_an_image_does_not_matter(projections: Draw) -> None:
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


def test_nothing_wraps_around(projections: Draw) -> None:
    """A spot at the left edge leaves no trace at the right one beyond the tail of the ramp."""
    shape = (1, 40, 64)
    images = projections(np.array([[2.0, 4.0, 0.0]]), shape, np.zeros(1))
    images += 100 - projections(np.array([[2.0, 30.0, 0.0]]), shape, np.zeros(1))  # so that the mean is 100
    row = reconstruct(images, np.zeros(1), shape)[0, 4]
    assert row[2] < 0
    # the kernel is negative away from its centre: a dark spot leaves a bright tail
    assert np.abs(row[-3:]).max() < 2e-3 * abs(row[2])


def test_images_may_be_wider_than_the_tomogram(projections: Draw) -> None:
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


# ------------------------------------------------------------------------------------------- settings


def every_setting() -> list[Reconstruction]:
    words: list[dict[str, object]] = [
        {}, {"filter": "exact"}, {"filter": "sirt", "iterations": 15}, {"rolloff": "gaussian"},
        {"rolloff": "none"}, {"dose_weighting": True}, {"ctf": "phase_flip"}, {"ctf": "wiener"},
        {"filter": "exact", "rolloff": "gaussian", "ctf": "phase_flip", "ctf_slab": 60},
    ]  # fmt: skip
    return [Reconstruction.model_validate(each) for each in words]


def known(pixel_size: float = 8.0, **more: float) -> ProjectionParameters:
    return ProjectionParameters(ANGLES, np.abs(ANGLES), Optics(pixel_size, 3.0, **more))


@pytest.mark.parametrize("settings", every_setting(), ids=str)
def test_every_setting_is_linear_and_keeps_places_and_signs(
    projections: Draw, peak: Peak, settings: Reconstruction
) -> None:
    shape = (25, 21, 30)
    point = (np.array(shape[::-1]) - 1) / 2 + (5.3, -2.0, 4.6)
    images = projections(point[None], shape, ANGLES)
    volume = reconstruct(images, known(), shape, settings)
    if settings.ctf == "none":  # a corrected image is no spot: these were not made by a lens
        assert np.abs(peak(volume) - point).max() < 0.15
        assert volume.min() == volume[tuple(np.round(point[::-1]).astype(int))]
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, len(ANGLES), 21, 30))
    a, b = (i - i.mean(axis=(1, 2), keepdims=True) for i in (a, b))
    one = reconstruct(100 + a, known(), shape, settings) + 2 * reconstruct(100 + b, known(), shape, settings)
    assert np.allclose(one, reconstruct(100 + a + 2 * b, known(), shape, settings), atol=1e-5)


@pytest.mark.parametrize("settings", every_setting(), ids=str)
def test_a_device_of_jax_shows_the_same(settings: Reconstruction) -> None:
    """JAX's CPU stands for a GPU here. Images are wider than the tomogram, and more rows than one block."""
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    shape = (25, ROWS + 5, 31)
    images = 100 + np.random.default_rng(0).standard_normal((len(ANGLES), shape[1], 37))
    ours = reconstruct(images, known(), shape, settings)
    there = reconstruct(images, known(), shape, settings, device=jax.devices("cpu")[0])
    assert there.dtype == np.float32
    assert np.abs(there - ours).max() < 1e-5 * ours.std()


@pytest.mark.parametrize("held", [0, 1, 20])
def test_a_device_with_little_memory_takes_fewer_rows(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    shape = (5, 37, 12)
    images = 100 + np.random.default_rng(0).standard_normal((len(ANGLES), 37, 12))
    program = on_gpu._program()

    def small(images: np.ndarray, *more: object, **named: object) -> object:
        if images.shape[2] > held:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")
        return program(images, *more, **named)

    monkeypatch.setattr(on_gpu, "_program", lambda: small)
    cpu = jax.devices("cpu")[0]
    if held:
        there = reconstruct(images, ANGLES, shape, device=cpu)
        assert np.allclose(there, reconstruct(images, ANGLES, shape), atol=1e-6)
    else:
        with pytest.raises(InputError, match="does not hold one row of the images; use device: cpu"):
            reconstruct(images, ANGLES, shape, device=cpu)


@pytest.mark.parametrize("nx", [20, 21])
def test_a_device_of_jax_sees_the_last_pixel_and_nothing_beyond(nx: int) -> None:
    """Untilted, each voxel stands on a pixel of its own; a wider tomogram gets nothing at its ends."""
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    images = 100 + np.random.default_rng(0).standard_normal((1, 4, nx))
    for width in (nx, nx + 6):
        ours = reconstruct(images, np.zeros(1), (3, 4, width))
        there = reconstruct(images, np.zeros(1), (3, 4, width), device=jax.devices("cpu")[0])
        assert np.abs(ours[:, :, width // 2 - nx // 2]).min() > 0
        assert np.allclose(there, ours, atol=1e-6)
        assert width == nx or not there[:, :, 0].any()


@pytest.mark.parametrize("settings", every_setting(), ids=str)
def test_blocks_of_rows_and_threads_change_nothing(settings: Reconstruction) -> None:
    rng = np.random.default_rng(3)
    height = 2 * ROWS + 9
    shape = (6, height, 20)
    images = rng.uniform(50, 150, (len(ANGLES), height, 20))
    images *= 100 / images.mean(axis=(1, 2), keepdims=True)
    whole = reconstruct(images, known(), shape, settings)
    assert np.array_equal(whole, reconstruct(images, known(), shape, settings, threads=3))
    if settings.ctf == "none":  # which is done to whole images
        # a tomogram of other blocks: the same images upside down
        turned = reconstruct(images[:, ::-1], known(), shape, settings)
        assert np.allclose(whole, turned[:, ::-1], atol=1e-4 * whole.std())


def test_the_exact_filter_is_the_ramp_for_even_steps_and_parts_with_it_where_slabs_do() -> None:
    frequency = np.fft.rfftfreq(256)
    angles = np.radians(np.arange(-60.0, 60.1, 2))
    weights = filters.exact(frequency, angles, depth=40)
    step = np.radians(2)
    low = (frequency > 0.06) & (frequency < 0.4)
    assert weights[30, low] == pytest.approx(frequency[low] * step, rel=0.08)
    # twice as densely in one half: its images count half as much there
    uneven = np.radians(np.concatenate([np.arange(-60.0, 0, 1), np.arange(0, 60.1, 2)]))
    weights = filters.exact(frequency, uneven, depth=40)
    assert weights[30, low] == pytest.approx(weights[75, low] / 2, rel=0.08)
    alone = filters.exact(frequency, np.zeros(1), depth=40)
    assert alone == pytest.approx(1 / 40)


def test_the_gaussian_begins_at_the_cutoff() -> None:
    settings = Reconstruction(rolloff="gaussian", cutoff=0.3, falloff=0.05)
    n = 1000
    gaussian = filters.row_filters(settings, ANGLES, n, 20)[0]
    plain = filters.row_filters(Reconstruction(rolloff="none"), ANGLES, n, 20)[0]
    assert np.array_equal(gaussian[:301], plain[:301])
    assert gaussian[350] == pytest.approx(plain[300] * np.exp(-0.5), rel=1e-6)


def test_the_sirt_like_filter_is_sirt() -> None:
    """Against Landweber's iterations of the projection and back-projection themselves."""
    n, depth, iterations = 48, 24, 12
    rng = np.random.default_rng(4)
    angles = np.arange(-60.0, 61, 5.0)
    truth = ndimage.gaussian_filter(rng.standard_normal((depth, n)), 1.2)
    truth *= np.hanning(depth)[:, None] * np.hanning(n)[None]
    matrix = projector(angles, depth, n)
    data = matrix @ truth.ravel()
    rays = np.maximum(matrix.sum(axis=1), 1e-6)
    hits = np.maximum(matrix.sum(axis=0), 1e-6)
    x = np.zeros(depth * n)
    for _ in range(iterations):
        x += (matrix.T @ ((data - matrix @ x) / rays)) / hits
    images = 1 + 1e-3 * data.reshape(len(angles), 1, n)
    images += 1 - images.mean(axis=2, keepdims=True)

    def agreement(**words: object) -> float:
        settings = Reconstruction.model_validate({"rolloff": "none", **words})
        ours = reconstruct(images, angles, (depth, 1, n), settings)[:, 0, 8:-8]
        return float(np.corrcoef(ours.ravel(), x.reshape(depth, n)[:, 8:-8].ravel())[0, 1])

    def disagreement(**words: object) -> float:
        return 1 - agreement(**words)

    like = disagreement(filter="sirt", iterations=iterations)
    assert like < 0.006
    assert disagreement(filter="ramp") > 2 * like
    assert disagreement(filter="sirt", iterations=iterations // 4) > 2 * like
    assert disagreement(filter="sirt", iterations=iterations * 8) > 1.5 * like


def projector(angles: np.ndarray, depth: int, n: int) -> np.ndarray:
    """(t * n, depth * n) matrix of the interpolation that back-projection uses, of one row."""
    z, x = (axis.ravel() for axis in np.mgrid[:depth, :n])
    matrix = np.zeros((len(angles) * n, depth * n))
    for k, angle in enumerate(np.radians(angles)):
        place = (n - 1) / 2 + (x - (n - 1) / 2) * np.cos(angle) + (z - (depth - 1) / 2) * np.sin(angle)
        left = np.floor(place).astype(int)
        for column, share in ((left, 1 - (place - left)), (left + 1, place - left)):
            inside = (column >= 0) & (column < n)
            np.add.at(matrix, (k * n + column[inside], np.flatnonzero(inside)), share[inside])
    return matrix


def test_dose_weights_are_the_published_ones() -> None:
    weights = filters.dose_weights((64, 64), 2.0, 20.0, 300.0)
    q = np.fft.rfftfreq(64, 2.0)[10]
    critical = 0.24499 * q**-1.6649 + 2.8141
    assert weights[0, 10] == pytest.approx(np.exp(-20 / (2 * critical)), rel=1e-5)
    assert weights[10, 0] == pytest.approx(weights[0, 10])
    assert weights[0, 0] == 1
    at_200 = filters.dose_weights((64, 64), 2.0, 16.0, 200.0)
    assert np.allclose(at_200, weights, atol=1e-6)


def test_what_is_deeper_is_further_under_focus() -> None:
    optics = Optics(8.0, 2.0)
    q2 = np.linspace(0, 1 / 16, 50) ** 2
    assert np.allclose(optics.contrast(q2, 500), Optics(8.0, 2.05).contrast(q2, 0))
    assert np.allclose(Optics(8.0, 2.0, handedness=-1).contrast(q2, 500), Optics(8.0, 1.95).contrast(q2, 0))
    assert optics.contrast(q2[1:2], 0) > 0
    middles = ctf.depths(Reconstruction(ctf_slab=100), (60, 10, 80), 8.0)
    assert np.allclose(np.diff(middles), 100 / 8)
    assert middles[-1] + 100 / 16 >= 50


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Reconstruction(dose_weighting=True), "doses of the images"),
        (Reconstruction(ctf="wiener"), "defocus of"),
    ],
)
def test_a_setting_that_needs_more_is_refused(settings: Reconstruction, words: str) -> None:
    with pytest.raises(InputError, match=words):
        reconstruct(np.ones((1, 4, 5)), np.zeros(1), (4, 4, 5), settings)


@pytest.mark.parametrize(("place", "angle"), [((0.0, 0.0, 700.0), 0.0), ((900.0, 0.0, 0.0), -60.0)])
def test_engines_and_correction_agree_what_is_deeper(place: tuple[float, ...], angle: float) -> None:
    """The transform of one atom's image is the transfer at its depth, not that at the middle."""
    voxel, shape = 4.0, (420, 72, 72) if place[2] else (20, 72, 500)
    atom = centred("atom", np.array([79]), np.zeros((1, 3)), np.zeros(1, bool))
    scene = Scene(
        shape, voxel, (atom.digest,), ("atom",), (-1,), (1,), ("atom",), np.zeros(1, np.int64),
        np.array([place]), np.array([(0.0, 0.0, 0.0, 1.0)]),
    )  # fmt: skip
    acq = Acquisition(
        voxel_size=voxel, defocus=1.5, ice_density=0, damage=0, padding=40
    )  # fmt: skip
    image = engine("multislice").simulate(
        scene, {atom.digest: atom}, acq, Tilt(0, angle, 1.0, 0.0), 1, noise=False
    )
    x, _, z = place
    along = z * np.cos(np.radians(angle)) - x * np.sin(np.radians(angle))
    across = x * np.cos(np.radians(angle)) + z * np.sin(np.radians(angle))
    middle = round((shape[2] - 1) / 2 + across / voxel)
    spot = image[:, middle - 36 : middle + 36] - 1
    found = np.fft.fft2(spot)
    q = np.hypot(*np.meshgrid(*[np.fft.fftfreq(72, voxel)] * 2))
    ring = (q > 0.02) & (q < 0.075)  # beyond, averaging folds in what is finer

    def fit(depth: float) -> float:
        """Best correlation over Gaussian envelopes, of the atom and of binning."""
        expected = np.abs(Optics(voxel, 1.5).contrast(q[ring] ** 2, depth))
        return max(
            float(np.corrcoef(np.abs(found[ring]), expected * np.exp(-b * q[ring] ** 2))[0, 1])
            for b in range(0, 400, 10)
        )

    assert fit(along) > 0.93
    assert fit(along) > fit(0) + 0.03
    assert fit(along) > fit(-along) + 0.1
