"""Labels meet the picture: a chiral scene of beads through simulation and reconstruction."""

import numpy as np
import pytest
from scipy import ndimage

from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Library, Molecule, centred
from tlgen.reconstruct import reconstruct
from tlgen.scene.scene import Scene
from tlgen.simulate.engine import engine
from tlgen.tilts.scheme import tilt_series

#: Of a box of half width 1; no reflection or rotation of the box maps the set onto itself.
BEADS = np.array(
    [
        (-0.62, -0.58, -0.41),
        (0.55, -0.63, -0.18),
        (0.13, -0.05, 0.57),
        (-0.51, 0.34, 0.21),
        (0.60, 0.61, 0.33),
        (0.08, 0.66, -0.60),
    ]
)
BOX = 190.0  # Å, about

SHAPES = {
    "even": lambda n: (n - n % 2,) * 3,
    "odd": lambda n: (n - n % 2 + 1,) * 3,
    "mixed": lambda n: (n - n % 2 - 3, n - n % 2, n - n % 2 + 1),
}


def bead() -> Molecule:
    """A ball of 12 Å radius, dense and heavy enough to stand out of ice and counts."""
    lattice = np.stack(np.meshgrid(*[np.arange(-12, 13, 2.0)] * 3), -1).reshape(-1, 3)
    ball = lattice[(lattice**2).sum(axis=1) <= 12**2]
    return centred("bead", np.full(len(ball), 79), ball, np.zeros(len(ball), bool))


def beads(shape: tuple[int, int, int], voxel_size: float) -> tuple[Scene, Library]:
    molecule = bead()
    half = np.array(shape[::-1]) * voxel_size / 2
    return Scene(
        shape, voxel_size, (molecule.digest,), ("bead",), (-1,), (1,), ("bead",),
        np.zeros(len(BEADS), np.int64), BEADS * half, np.tile([0.0, 0.0, 0.0, 1.0], (len(BEADS), 1)),
    ), {molecule.digest: molecule}  # fmt: skip


def acquisition(voxel_size: float, **more: object) -> Acquisition:
    settings = {
        "voxel_size": voxel_size, "phase_plate": True, "defocus": 0.3, "tilt_step": 10.0,
        "ice_density": 0.0, "padding": 30,
    }  # fmt: skip
    return Acquisition.model_validate(settings | more)


def tomogram(name: str, scene: Scene, library: Library, acq: Acquisition, noise: bool = False) -> np.ndarray:
    tilts = tilt_series(acq)
    images = np.stack([engine(name).simulate(scene, library, acq, t, 7, noise=noise) for t in tilts])
    return reconstruct(images, np.array([t.angle for t in tilts]), scene.shape)


def misses(volume: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Distance in voxels of the dark blob nearest to each place, (n, 3) x, y, z in voxels, from it.

    Blobs are the six darkest local minima at least 3 voxels apart; each place is of its centre of mass.
    """
    dark = -ndimage.gaussian_filter(volume, 0.7)
    peaks = np.argwhere((dark == ndimage.maximum_filter(dark, 7)) & (dark > 0))
    peaks = peaks[np.argsort(dark[tuple(peaks.T)])[::-1][: len(BEADS)]]
    found = []
    for peak in peaks:
        window = tuple(slice(max(c - 2, 0), min(c + 3, n)) for c, n in zip(peak, dark.shape, strict=True))
        weight = np.clip(dark[window] - 0.3 * dark[tuple(peak)], 0, None)
        grid = np.stack(np.mgrid[window], -1)
        found.append((grid * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum())
    return np.linalg.norm(np.array(found)[None] - places[:, None, ::-1], axis=2).min(axis=1)


def check(name: str, voxel_size: float, kind: str, **more: object) -> None:
    shape = SHAPES[kind](max(round(BOX / voxel_size), 18))  # of 16 Å, 12 voxels have no room for six beads
    scene, library = beads(shape, voxel_size)
    volume = tomogram(name, scene, library, acquisition(voxel_size, **more), noise=bool(more))
    places = scene.particles("beads", library)[["x", "y", "z"]].to_numpy() / voxel_size
    distances = misses(volume, places)
    assert distances.max() < 0.5, distances
    # The mirror images fail the same check.
    for axis in range(3):
        mirrored = places.copy()
        mirrored[:, axis] = shape[2 - axis] - 1 - mirrored[:, axis]
        assert misses(volume, mirrored).max() > 1


@pytest.mark.parametrize(("voxel_size", "kind"), [(8.0, "even"), (8.0, "odd"), (10.0, "even"), (10.0, "odd")])
def test_parakeet_puts_every_bead_in_its_place(voxel_size: float, kind: str) -> None:
    check("parakeet", voxel_size, kind)


@pytest.mark.parametrize("voxel_size", [8.0, 10.0])
@pytest.mark.parametrize("kind", SHAPES)
def test_multislice_puts_every_bead_in_its_place(voxel_size: float, kind: str) -> None:
    check("multislice", voxel_size, kind)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["parakeet", "multislice"])
@pytest.mark.parametrize("voxel_size", [8.0, 10.0, 16.0])
@pytest.mark.parametrize("kind", SHAPES)
def test_beads_in_ice_with_noise(name: str, voxel_size: float, kind: str) -> None:
    check(name, voxel_size, kind, ice_density=0.94, defocus=1.0, tilt_step=5.0)
