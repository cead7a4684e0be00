"""Our engine against Parakeet, on the same scenes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Library, centred
from tlgen.scene.scene import Scene
from tlgen.simulate.microscope import optics, potentials
from tlgen.simulate.multislice.multislice import Multislice
from tlgen.simulate.parakeet import Parakeet
from tlgen.tilts.scheme import Tilt


def blobs(
    shape: tuple[int, int, int] = (22, 26, 25), n: int = 9, voxel_size: float = 8.0, radius: float = 22.0
) -> tuple[Scene, Library]:
    """Balls of atoms in about protein's proportions and density, anywhere in the box."""
    rng = np.random.default_rng(8)
    inside = rng.uniform(-radius, radius, (8000, 3))
    inside = inside[(inside**2).sum(axis=1) < radius**2][:3000]
    elements = rng.choice([6, 7, 8, 12, 15, 16], len(inside), p=[0.6, 0.17, 0.2, 0.01, 0.01, 0.01])
    molecule = centred("blob", elements, inside, np.zeros(len(inside), bool))
    quaternions = rng.standard_normal((n, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    room = np.array(shape[::-1]) * voxel_size - 2 * radius
    return Scene(
        shape, voxel_size, (molecule.digest,), ("blob",), (-1,), (1,), ("blob",),
        np.zeros(n, np.int64), rng.uniform(-0.5, 0.5, (n, 3)) * room, quaternions,
    ), {molecule.digest: molecule}  # fmt: skip


def both(
    scene: Scene, library: Library, acq: Acquisition, tilt: Tilt, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free images: ours, Parakeet's."""
    ours, theirs = (
        e.simulate(scene, library, acq, tilt, seed, noise=False) for e in (Multislice(), Parakeet())
    )
    return ours, theirs


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def offset(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shift (x, y) in pixels of b against a, from the phases of low frequencies."""
    cross = np.fft.fft2(b - b.mean()) * np.fft.fft2(a - a.mean()).conj()
    qy, qx = np.meshgrid(np.fft.fftfreq(a.shape[0]), np.fft.fftfreq(a.shape[1]), indexing="ij")
    low = np.hypot(qx, qy) < 0.2
    weight = np.sqrt(np.abs(cross[low]))
    design = np.stack([qx[low], qy[low]], 1) * weight[:, None]
    return -np.linalg.lstsq(design, np.angle(cross[low]) * weight)[0] / (2 * np.pi)


@pytest.mark.parametrize("angle", [0.0, 60.0, -33.0])
@pytest.mark.parametrize(
    ("voxel_size", "shape", "limit"), [(8.0, (22, 26, 25), 0.999), (4.0, (44, 51, 50), 0.998)]
)
@pytest.mark.parametrize("lens", [{"defocus": 2.5}, {"defocus": 0.5, "phase_plate": True}])
def test_agrees_with_parakeet_without_ice(
    angle: float, voxel_size: float, shape: tuple[int, int, int], limit: float, lens: dict[str, float]
) -> None:
    scene, library = blobs(shape, voxel_size=voxel_size)
    acq = Acquisition.model_validate({"voxel_size": voxel_size, "ice_density": 0.0, "padding": 40} | lens)
    ours, theirs = both(scene, library, acq, Tilt(3, angle, 2.0, 6.0))
    assert correlation(ours, theirs) > limit
    assert ours.std() / theirs.std() == pytest.approx(1, abs=0.02)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=1e-3)
    assert np.abs(offset(ours, theirs)).max() * voxel_size < 0.05  # Å


@pytest.mark.parametrize("angle", [0.0, 45.0])
def test_agrees_with_parakeet_in_ice(angle: float) -> None:
    """Means over ice seeds agree up to what the remaining ice noise allows, and so do the noise's figures."""
    scene, library = blobs()
    acq = Acquisition(ice_density=0.94, padding=40)
    tilt = Tilt(3, angle, 2.0, 6.0)
    ours, theirs = (
        np.stack([engine.simulate(scene, library, acq, tilt, k, noise=False) for k in range(4)])
        for engine in (Multislice(), Parakeet())
    )
    reliability = [
        np.mean([correlation(s[i], s[j]) for i in range(4) for j in range(i)]) for s in (ours, theirs)
    ]
    of_means = [4 * r / (1 + 3 * r) for r in reliability]  # Spearman-Brown
    signal = correlation(ours.mean(axis=0), theirs.mean(axis=0)) / np.sqrt(np.prod(of_means))
    assert signal > 0.98
    assert ours.mean() == pytest.approx(theirs.mean(), abs=1e-3)
    noise = [s.std(axis=0, ddof=1).mean() for s in (ours, theirs)]
    assert noise[0] / noise[1] == pytest.approx(1, abs=0.1)
    assert ours.mean(axis=0).std() / theirs.mean(axis=0).std() == pytest.approx(1, abs=0.05)


def test_noisy_images_have_parakeets_mean_and_variance() -> None:
    scene, library = blobs((10, 40, 40), n=10)
    acq = Acquisition(ice_density=0.94, padding=30)
    tilt = Tilt(0, 10.0, 2.0, 0.0)
    ours, theirs = (e.simulate(scene, library, acq, tilt, 2) for e in (Multislice(), Parakeet()))
    assert ours.mean() == pytest.approx(theirs.mean(), rel=0.005)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.06)


@pytest.mark.parametrize("acq", [Acquisition(), Acquisition(voltage=200, defocus=4, chromatic_aberration=5)])
def test_lens_is_multems(acq: Acquisition) -> None:
    import multem

    from tlgen.simulate.parakeet import _input, _system

    settings = _input("HRTEM", 96, 80, acq)
    settings.spec_lz = 96.0
    theirs = np.array(multem.compute_ctf(_system(), settings)).T
    ours = optics.transfer((80, 96), 1.0, acq)
    inside = optics.frequencies((80, 96), 1.0) < 0.49**2  # MULTEM has nothing beyond the inscribed circle
    assert np.abs(ours - theirs)[inside].max() < 2e-5


@pytest.mark.parametrize("element", [1, 6, 7, 8, 12, 15, 16, 20, 26, 30, 34, 53, 79, 103])
def test_table_of_potentials_is_multems_at_one_angstrom(element: int) -> None:
    """144 atoms, each at another place inside of its pixel."""
    import multem

    from tlgen.simulate.parakeet import _input, _system

    spacing, count = 20, 12
    places = np.arange(count) * (spacing + 1 / count) + spacing / 2
    settings = _input("EWRS", 264, 264, Acquisition())
    settings.spec_lz = 10.0
    settings.spec_atoms = multem.AtomList(
        [(element, x, y, 5.0, 0.0, 1.0, 0, 0) for x in places.tolist() for y in places.tolist()]
    )
    settings.iw_x = settings.iw_y = [132.0]
    slices: list[np.ndarray] = []
    multem.compute_projected_potential(_system(), settings, lambda _a, _b, v: slices.append(np.array(v)))
    potential = np.sum(slices, axis=0)
    assert potential.sum() / count**2 == pytest.approx(
        potentials.scattering("parakeet").integral[element], rel=0.02
    )
    area = (potential > 0).sum() / count**2
    assert area == pytest.approx(np.pi * potentials.COVER_RADIUS[element] ** 2, rel=0.02)


@pytest.mark.parametrize("shape", [(9, 12, 15), (10, 13, 11)])
@pytest.mark.parametrize("voxel_size", [4.0, 8.0, 10.0, 16.0])
def test_image_has_the_shape_and_centre_of_the_tomogram(
    shape: tuple[int, int, int], voxel_size: float
) -> None:
    scene, library = blobs(shape, n=1, voxel_size=voxel_size, radius=14)
    scene.positions[:] = 0
    acq = Acquisition(voxel_size=voxel_size, phase_plate=True, defocus=0.0, ice_density=0)
    image = 1 - Multislice().simulate(scene, library, acq, Tilt(0, 20.0, 2.0, 0.0), 1, noise=False)
    assert image.shape == shape[1:]
    image[image < 0.3 * image.max()] = 0
    y, x = np.indices(image.shape)
    assert (image * x).sum() / image.sum() == pytest.approx((shape[2] - 1) / 2, abs=0.1)
    assert (image * y).sum() / image.sum() == pytest.approx((shape[1] - 1) / 2, abs=0.1)


def test_same_seed_same_bits_in_threads_too() -> None:
    scene, library = blobs(n=3)
    acq = Acquisition()
    tilts = [Tilt(k, 10.0 * k, 2.0, 2.0 * k) for k in range(4)]
    alone = [Multislice().simulate(scene, library, acq, tilt, 5) for tilt in tilts]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda tilt: Multislice().simulate(scene, library, acq, tilt, 5), tilts))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert not np.array_equal(alone[0], Multislice().simulate(scene, library, acq, tilts[0], 6))


def test_empty_scene_is_vacuum() -> None:
    scene, library = blobs(n=0)
    acq = Acquisition(ice_density=0.0)
    image = Multislice().simulate(scene, library, acq, Tilt(0, 30.0, 2.0, 0.0), 1, noise=False)
    assert np.allclose(image, 1, atol=1e-5)


def test_memory_grows_with_pixels_slabs_and_structures_but_not_with_copies() -> None:
    scene, library = blobs()
    more, _ = blobs(n=90)
    larger, larger_library = blobs(radius=40.0)
    wider, _ = blobs((22, 60, 60))
    deeper, _ = blobs((90, 26, 25))
    memory = Multislice().memory
    base = memory(scene, library, Acquisition())
    assert memory(more, library, Acquisition()) == base
    assert memory(larger, larger_library, Acquisition()) > base
    assert memory(deeper, library, Acquisition()) > base
    assert memory(wider, library, Acquisition()) > 2 * base


def test_large_pixels_hold_nothing_beyond_their_own_nyquist() -> None:
    """What they cannot hold must not come back as coarse noise when they are binned."""
    scene, library = blobs()
    tilt = Tilt(1, 20.0, 2.0, 2.0)

    def stack(**more: object) -> np.ndarray:
        acq = Acquisition.model_validate({"padding": 40, **more})
        return np.stack([Multislice().simulate(scene, library, acq, tilt, k, noise=False) for k in range(4)])

    whole, cropped = stack(pixel_size=8.0), stack(binning="fourier")
    # pixels of a voxel are those of the cropped transform, but for the Nyquist frequency itself
    assert np.sqrt(((whole - cropped) ** 2).mean()) < 0.15 * cropped.std()
    fine, half = stack(), stack(pixel_size=4.0)
    ice = [each.std(axis=0, ddof=1).mean() for each in (fine, half)]
    assert ice[1] / ice[0] == pytest.approx(1, abs=0.1)
    assert half.mean(axis=0).std() / fine.mean(axis=0).std() == pytest.approx(1, abs=0.05)
