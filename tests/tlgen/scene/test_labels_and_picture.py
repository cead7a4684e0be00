"""Labels meet the picture: what is dark in a tomogram stands where its label is, through every engine.

The density of a molecule and the missing wedge have no centre in common: streaks along z overlap with
neighbours. So each label is registered on the tomogram as a whole: what is left of it without the frequencies
that no tilt holds is the picture to expect, and the shift is sought that brings it onto the tomogram. Shifts
are averaged over molecules in random orientations, by axis.
"""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Library, centred
from tlgen.reconstruct import Reconstruction, reconstruct
from tlgen.scene import labels
from tlgen.scene.scene import Scene
from tlgen.simulate.engine import engine
from tlgen.tilts.scheme import tilt_series


def lump(seed: int) -> tuple[str, np.ndarray]:
    """Atoms of a protein-like body without symmetry, about 110 Å long."""
    rng = np.random.default_rng(seed)
    middles, radii = rng.uniform(-35, 35, (5, 3)), rng.uniform(14, 24, 5)
    lattice = np.stack(np.meshgrid(*[np.arange(-60, 61, 2.7)] * 3), -1).reshape(-1, 3)
    inside = (np.linalg.norm(lattice[:, None] - middles, axis=2) < radii).any(axis=1)
    return f"lump{seed}", lattice[inside] + rng.normal(0, 0.4, (int(inside.sum()), 3))


def crowd(voxel_size: float, number: int = 12) -> tuple[Scene, Library]:
    """Molecules in random orientations on a jittered lattice, as near to each other as they fit."""
    kinds = [
        centred(name, np.full(len(xyz), 7), xyz, np.zeros(len(xyz), bool))
        for name, xyz in map(lump, range(3))
    ]
    rng = np.random.default_rng(5)
    step, columns = 125.0, (3, 2, 2)
    places = np.stack(np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * step for n in columns]), -1).reshape(-1, 3)
    places = places[:number] + rng.uniform(-7, 7, (number, 3))
    box = np.array(columns)[[1, 0, 2]] * step + 130  # x, y, z
    shape = tuple(int(n) for n in np.ceil(box / voxel_size)[::-1])
    quaternions = Rotation.random(number, random_state=2).as_quat()
    digests, names = tuple(k.digest for k in kinds), tuple(k.name for k in kinds)
    return Scene(
        (shape[0], shape[1], shape[2]), voxel_size, digests, names, (-1,) * 3, (1,) * 3, ("lump",),
        np.arange(number) % 3, places, quaternions,
    ), {k.digest: k for k in kinds}  # fmt: skip


def series(name: str, scene: Scene, library: Library, **more: object) -> tuple[np.ndarray, np.ndarray]:
    """Simulate a scene by an engine, noise-free in ice: images, and angles in degrees."""
    words = {
        "voxel_size": scene.voxel_size,
        "tilt_step": 6.0,
        "defocus": 2.0,
        "padding": 30,
        "slice_thickness": 10.0,
    }
    acq = Acquisition.model_validate({**words, **more})
    tilts = tilt_series(acq)
    images = np.stack([engine(name).simulate(scene, library, acq, t, 3, noise=False) for t in tilts])
    return images, np.array([t.angle for t in tilts])


def shifts(
    scene: Scene, library: Library, images: np.ndarray, angles: np.ndarray, filter_: str = "ramp"
) -> np.ndarray:
    """(n, 3) x, y, z in voxels from each label to the picture of it in the reconstruction."""
    settings = Reconstruction.model_validate({"filter": filter_})
    tomogram = fine(-reconstruct(images, angles, scene.shape, settings), scene.voxel_size)
    _, instances = labels.label(scene, library)
    found = []
    for k in range(len(scene.which)):
        mask = (instances == k + 1).astype(np.float64)
        expected = fine(through_wedge(mask, angles), scene.voxel_size)
        found.append(register(tomogram, expected, mask))
    return np.array(found)


def found_by(name: str, voxel_size: float, filter_: str = "ramp", **more: object) -> np.ndarray:
    scene, library = crowd(voxel_size)
    return shifts(scene, library, *series(name, scene, library, **more), filter_)


def through_wedge(volume: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Leave of a volume the frequencies that its tilts hold."""
    kz, _, kx = np.meshgrid(*(np.fft.fftfreq(n) for n in volume.shape), indexing="ij")
    slope = np.degrees(np.arctan2(np.abs(kz), np.abs(kx)))
    return np.asarray(np.fft.ifftn(np.fft.fftn(volume) * (slope <= np.abs(angles).max())).real)


def fine(volume: np.ndarray, voxel_size: float) -> np.ndarray:
    """Leave out what is coarser than a molecule: the ice and its faces."""
    return np.asarray(volume - ndimage.gaussian_filter(volume, 40 / voxel_size, mode="nearest"))


def register(picture: np.ndarray, expected: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Shift (x, y, z) of the picture from what is expected, inside a box around the label.

    The maximum of the cross-correlation of both, high-pass filtered by the mean in the box, by a parabola
    through it and its neighbours along each axis.
    """
    where = np.argwhere(mask)
    low, high = where.min(axis=0) - 3, where.max(axis=0) + 4
    box = tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(low, high, mask.shape, strict=True))
    window = np.zeros_like(mask)
    window[box] = 1
    a = (expected - expected[box].mean()) * window
    correlation = np.fft.ifftn(np.fft.fftn(picture * 1.0) * np.fft.fftn(a).conj()).real
    middle = np.array([(n // 2) for n in mask.shape])
    correlation = np.roll(correlation, middle, axis=(0, 1, 2))
    near = tuple(slice(m - 2, m + 3) for m in middle)
    peak = np.array(np.unravel_index(correlation[near].argmax(), (5, 5, 5))) + middle - 2
    found = []
    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        before, at, after = (correlation[tuple(peak + d * step)] for d in (-1, 0, 1))
        found.append(peak[axis] - middle[axis] + 0.5 * (before - after) / (before - 2 * at + after))
    return np.array(found)[::-1]


def check(found: np.ndarray) -> None:
    assert np.linalg.norm(found, axis=1).mean() < 0.25, found
    bias, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(len(found))
    # of three axes, one is expected beyond three standard errors in 30 runs even without a bias
    assert (np.abs(bias) < np.maximum(0.1, 3 * error)).all(), (bias, error)
    assert np.abs(bias).max() < 0.15, bias


@pytest.mark.parametrize(
    "voxel_size",
    [pytest.param(8.0, marks=pytest.mark.slow), 10.0, pytest.param(16.0, marks=pytest.mark.slow)],
)
def test_multislice(voxel_size: float) -> None:
    check(found_by("multislice", voxel_size))


@pytest.mark.slow
@pytest.mark.parametrize("binning", ["average", "fourier"])
@pytest.mark.parametrize("filter_", ["ramp", "exact", "sirt"])
def test_multislice_with_every_binning_and_filter(binning: str, filter_: str) -> None:
    check(found_by("multislice", 10.0, filter_, binning=binning))


@pytest.mark.slow
@pytest.mark.parametrize(
    "voxel_size",
    [10.0, pytest.param(8.0, marks=pytest.mark.long), pytest.param(16.0, marks=pytest.mark.long)],
)
def test_parakeet(voxel_size: float) -> None:
    check(found_by("parakeet", voxel_size, tilt_step=10.0))
