"""Errors of alignment: in the images as drawn, gone from the tomogram when undone, labels where they were."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Library, centred
from tlgen.reconstruct import reconstruct
from tlgen.scene.decoration_shapes import Bead, CarbonEdge, Sheet, Vesicle
from tlgen.scene.scene import Scene
from tlgen.simulate.engine import engine
from tlgen.tilts import misalignment
from tlgen.tilts.scheme import Tilt, TiltError, tilt_series

VOXEL = 8.0
ERRORS = {"shift_error": 12.0, "rotation_error": 1.0, "tilt_angle_error": 1.5}


def balls() -> tuple[Scene, Library]:
    """Heavy balls around the centre of a box that holds them at every tilt and error."""
    lattice = np.stack(np.meshgrid(*[np.arange(-12, 13, 3.0)] * 3), -1).reshape(-1, 3)
    ball = lattice[(lattice**2).sum(axis=1) <= 12**2]
    molecule = centred("ball", np.full(len(ball), 79), ball, np.zeros(len(ball), bool))
    places = np.array([(50.0, -40, 20), (-55, 30, -30), (10, 55, 35), (-20, -50, -10)])
    quaternions = np.tile([0.0, 0, 0, 1], (4, 1))
    return Scene(
        (24, 30, 32), VOXEL, (molecule.digest,), ("ball",), (-1,), (1,), ("ball",), np.zeros(4, np.int64),
        places, quaternions,
    ), {molecule.digest: molecule}  # fmt: skip


def acquisition(**more: object) -> Acquisition:
    words = {"voxel_size": VOXEL, "defocus": 0.2, "phase_plate": True, "ice_density": 0.0, "tilt_step": 6.0}
    return Acquisition.model_validate({**words, "padding": 40, "damage": 0.0, **more})


def series(scene: Scene, library: Library, acq: Acquisition, tilts: list[Tilt]) -> np.ndarray:
    images = []
    for tilt in tilts:
        moved, true = misalignment.seen(scene, tilt)
        images.append(engine("multislice").simulate(moved, library, acq, true, 1, noise=False))
    return np.stack(images)


def test_without_errors_nothing_changes() -> None:
    tilts = tilt_series(Acquisition())
    assert misalignment.misaligned(tilts, Acquisition(), 5) == tilts
    scene, _ = balls()
    assert misalignment.seen(scene, tilts[3]) == (scene, tilts[3])
    assert misalignment.table(tilts) is None


def test_errors_have_their_size_and_come_back_from_their_seed() -> None:
    acq = acquisition(**ERRORS, tilt_axis_error=0.7, tilt_angle_offset=2.0, tilt_step=0.2)
    tilts = tilt_series(acq)
    drawn = misalignment.misaligned(tilts, acq, 11)
    assert drawn == misalignment.misaligned(tilts, acq, 11)
    assert drawn != misalignment.misaligned(tilts, acq, 12)
    table = misalignment.table(drawn)
    assert table is not None
    assert table["shift_error"].std(axis=0) == pytest.approx(12, rel=0.1)
    assert table["rotation_error"].std() == pytest.approx(1, rel=0.1)
    assert table["angle_error"].std() == pytest.approx(1.5, rel=0.1)
    assert table["angle_error"].mean() == pytest.approx(2, abs=1e-4)
    assert (table["axis_error"] == np.float32(0.7)).all()
    # one more kind leaves the others as they were
    alone = misalignment.table(
        misalignment.misaligned(tilts, acquisition(shift_error=12.0, tilt_step=0.2), 11)
    )
    assert alone is not None
    assert np.array_equal(alone["shift_error"], table["shift_error"])
    assert [t.angle for t in drawn] == [t.angle for t in tilts]


def test_no_displacement_of_the_whole_specimen_is_among_the_errors() -> None:
    acq = acquisition(**ERRORS)
    tilts = misalignment.misaligned(tilt_series(acq), acq, 3)
    angles = np.radians([t.angle for t in tilts])
    x, y = np.array([t.error.shift for t in tilts]).T
    for shift, seen in ((x, np.cos(angles)), (x, np.sin(angles)), (y, np.ones(len(y)))):
        assert abs(shift @ seen) < 1e-9 * len(y) * 12
    assert abs(sum(t.error.rotation for t in tilts)) < 1e-9


@pytest.mark.parametrize("angle", [-42.0, 0.0, 30.0])
def test_an_image_is_shifted_and_turned_as_its_error_says(angle: float) -> None:
    scene, library = balls()
    acq = acquisition()
    tilt = Tilt(0, angle, 1.0, 0.0)
    clean = series(scene, library, acq, [tilt])[0]
    shifted = series(scene, library, acq, [replace(tilt, error=TiltError(shift=(16.0, -24.0)))])[0]
    assert np.allclose(shifted[:-3, 2:], clean[3:, :-2], atol=2e-3)
    turned = series(scene, library, acq, [replace(tilt, error=TiltError(rotation=6.0))])[0]
    # from x towards y; scipy counts from rows to columns
    expected = ndimage.rotate(clean, -6.0, reshape=False, order=5, mode="nearest")
    assert np.corrcoef(turned.ravel(), expected.ravel())[0, 1] > 0.98
    wrong = ndimage.rotate(clean, 6.0, reshape=False, order=5, mode="nearest")
    assert np.corrcoef(turned.ravel(), wrong.ravel())[0, 1] < 0.9
    steeper = series(scene, library, acq, [replace(tilt, error=TiltError(angle=5.0))])[0]
    assert np.array_equal(steeper, series(scene, library, acq, [replace(tilt, angle=angle + 5)])[0])


def test_known_errors_undone_give_the_clean_tomogram() -> None:
    scene, library = balls()
    acq = acquisition(**ERRORS)
    tilts = tilt_series(acq)
    drawn = misalignment.misaligned(tilts, acq, 8)
    angles = np.array([t.angle for t in tilts])
    images = series(scene, library, acq, drawn)
    wrong = reconstruct(images, angles, scene.shape)
    truly = [replace(t, angle=t.angle + t.error.angle, error=TiltError()) for t in drawn]
    clean = reconstruct(series(scene, library, acq, truly), np.array([t.angle for t in truly]), scene.shape)
    aligned = np.stack([undone(image, tilt) for image, tilt in zip(images, drawn, strict=True)])
    true = reconstruct(aligned, angles + [t.error.angle for t in drawn], scene.shape)

    def correlation(volume: np.ndarray) -> float:
        return float(np.corrcoef(volume.ravel(), clean.ravel())[0, 1])

    assert correlation(true) > 0.99
    assert correlation(wrong) < 0.9
    # what the errors leave is blurred but not moved: each ball is where its label is
    for volume, most in ((true, 0.25), (wrong, 0.5)):
        assert np.abs(offsets(volume, scene)).mean() < most
        assert np.abs(offsets(volume, scene).mean(axis=0)).max() < most


def test_a_wrong_axis_undone_gives_the_clean_tomogram() -> None:
    scene, library = balls()
    tilts = [replace(t, error=TiltError(axis=5.0)) for t in tilt_series(acquisition())]
    angles = np.array([t.angle for t in tilts])
    images = series(scene, library, acquisition(), tilts)
    wrong = reconstruct(images, angles, scene.shape)
    # the axis at y: images turned back, and the tomogram is that of the specimen turned with them
    aligned = np.stack([undone(image, t) for image, t in zip(images, tilts, strict=True)])
    true = reconstruct(aligned, angles, scene.shape)
    back = Rotation.from_euler("z", -5.0, degrees=True)
    turned = replace(scene, positions=back.apply(scene.positions))
    assert np.linalg.norm(offsets(true, turned), axis=1).mean() < 0.25
    assert np.linalg.norm(offsets(wrong, scene), axis=1).mean() < 0.8


def undone(image: np.ndarray, tilt: Tilt) -> np.ndarray:
    """Shift and turn an image back by its known error."""
    x, y = np.array(tilt.error.shift) / VOXEL
    centred_image = ndimage.shift(image, (-y, -x), order=5, mode="nearest")
    degrees = tilt.error.axis + tilt.error.rotation
    return np.asarray(ndimage.rotate(centred_image, degrees, reshape=False, order=5, mode="nearest"))


def offsets(volume: np.ndarray, scene: Scene) -> np.ndarray:
    """(n, 3) x, y, z in voxels from each ball to the centre of mass of what is dark around it."""
    found = []
    for place in scene.positions / VOXEL + (np.array(scene.shape[::-1]) - 1) / 2:
        corner = np.round(place).astype(int)[::-1] - 3
        window = np.clip(-volume[tuple(slice(c, c + 7) for c in corner)], 0, None)
        window[window < 0.4 * window.max()] = 0
        found.append((np.array(ndimage.center_of_mass(window)) + corner)[::-1] - place)
    return np.array(found)


def test_decorations_move_with_the_molecules() -> None:
    scene, _ = balls()
    bodies = (
        Bead((20.0, 30, -40), 25), Vesicle((-30.0, 10, 20), 40), Sheet((0.0, 0, 30), (0.0, 0, 1), 1e-3),
        CarbonEdge((300.0, 0), 250, 0, 40),
    )  # fmt: skip
    scene = replace(scene, decorations=bodies, class_names=("ball", "gold", "membrane", "carbon"))
    error = TiltError(rotation=2.0, axis=-1.0, shift=(30.0, -20.0))
    moved, _ = misalignment.seen(scene, Tilt(0, 0.0, 1.0, 0.0, error))
    turn, shift = Rotation.from_euler("z", 2.0, degrees=True), np.array([30.0, -20, 0])
    assert np.allclose(moved.positions, turn.apply(scene.positions) + shift)
    points = np.array(list(product((-50.0, 0, 60), repeat=3)))
    for before, after in zip(scene.decorations, moved.decorations, strict=True):
        assert np.allclose(after.distance(turn.apply(points) + shift), before.distance(points), atol=1e-6)
