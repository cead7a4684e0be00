"""Labels: registered with the scene to well under a tenth of a voxel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from tlgen.molecules.envelope import envelope
from tlgen.molecules.molecule import Molecule, centred
from tlgen.scene.labels import label
from tlgen.scene.scene import Scene

SPACING = 2.55


def ellipsoid(name: str, a: float, b: float, c: float) -> Molecule:
    """Carbon atoms in an ellipsoid with these half axes along x, y, z in Å."""
    extent = np.array([a, b, c])
    axes = [np.arange(-k, k + 1) * SPACING for k in np.ceil(extent / SPACING)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points[np.linalg.norm(points / extent, axis=1) <= 1]
    return centred(name, np.full(len(points), 6), points, np.ones(len(points), bool))


BALL = ellipsoid("ball", 64, 64, 64)
EGG = ellipsoid("egg", 40, 60, 90)
LIBRARY = {m.digest: m for m in (BALL, EGG)}


def scene_of(
    molecule: Molecule,
    positions: NDArray[np.float64] | list[list[float]],
    *,
    shape: tuple[int, int, int] = (40, 40, 40),
    voxel_size: float = 8.0,
    labels: tuple[int, ...] = (1,),
    which: list[int] | None = None,
    rotations: Rotation | None = None,
) -> Scene:
    n = len(positions)
    return Scene(
        shape=shape,
        voxel_size=voxel_size,
        digests=(molecule.digest,) * len(labels),
        names=(molecule.name,) * len(labels),
        variants=(-1,) * len(labels),
        labels=labels,
        class_names=tuple(f"class{k}" for k in range(1, max(labels, default=0) + 1)),
        which=np.array([0] * n if which is None else which, np.int64),
        positions=np.array(positions, np.float64).reshape(n, 3),
        quaternions=(rotations or Rotation.identity(n)).as_quat() if n else np.zeros((0, 4)),
    )


def centre_of(instances: NDArray[np.uint16], instance: int) -> NDArray[np.float64]:
    """x, y, z in voxels of the mean of an instance's voxels."""
    return np.argwhere(instances == instance).mean(axis=0)[::-1]


@pytest.mark.parametrize("voxel_size", [8.0, 10.5])
@pytest.mark.parametrize("shape", [(40, 42, 44), (39, 41, 43), (38, 41, 40)])
def test_label_lies_on_the_particle_at_any_fraction_of_a_voxel(
    shape: tuple[int, int, int], voxel_size: float
) -> None:
    rng = np.random.default_rng(7)
    errors = []
    for _ in range(15):
        position = rng.uniform(-30, 30, 3)
        molecule = BALL if rng.random() < 0.5 else EGG
        scene = scene_of(
            molecule,
            [position],
            shape=shape,
            voxel_size=voxel_size,
            rotations=Rotation.random(1, random_state=rng),
        )
        _, instances = label(scene, LIBRARY)
        table = scene.particles("t", LIBRARY)
        written = table.loc[0, ["x", "y", "z"]].to_numpy(float) / voxel_size
        errors.append(centre_of(instances, 1) - written)
    worst = np.linalg.norm(errors, axis=1).max()
    assert worst < 0.1, f"{worst:.3f} voxels"
    assert np.abs(np.mean(errors, axis=0)).max() < 0.03  # and no axis is biased


@settings(max_examples=25, deadline=None)
@given(
    fraction=st.tuples(*[st.floats(-0.5, 0.5, allow_nan=False)] * 3),
    shape=st.tuples(*[st.integers(24, 29)] * 3),
    voxel_size=st.sampled_from([7.84, 13.48]),
)
def test_a_ball_s_label_is_centred_on_it(
    fraction: tuple[float, float, float], shape: tuple[int, int, int], voxel_size: float
) -> None:
    scene = scene_of(BALL, [np.array(fraction) * voxel_size], shape=shape, voxel_size=voxel_size)
    classes, instances = label(scene, LIBRARY)
    expected = (np.array(shape[::-1]) - 1) / 2 + fraction
    # where it stands just so, a whole disc of the ball's hundred voxels turns over at once: 0.105 at worst
    assert np.linalg.norm(centre_of(instances, 1) - expected) < 0.12
    assert np.array_equal(classes, instances)


def test_rotation_carries_the_molecule_s_axes_into_the_tomogram() -> None:
    """The egg's long axis (z) is turned onto x by +90° about y, as the tilt axis' convention says."""
    turned = scene_of(EGG, [[0, 0, 0]], rotations=Rotation.from_rotvec([[0, np.pi / 2, 0]]))
    spans = []
    for scene in (scene_of(EGG, [[0, 0, 0]]), turned):
        inside = np.argwhere(label(scene, LIBRARY)[1] == 1)
        spans.append(np.ptp(inside, axis=0) + 1)
    z, y, x = spans[0]
    assert z > y > x
    assert tuple(spans[1]) == (x, y, z)


def test_handedness_is_kept() -> None:
    """A chiral body (three arms of different length) labels where Scene.atoms puts its atoms."""
    arms = np.concatenate(
        [np.linspace([0, 0, 0], np.eye(3)[k] * far, 60) for k, far in enumerate((60, 90, 120))]
    )
    blob = (arms[:, None] + np.random.default_rng(0).normal(0, 5, (1, 30, 3))).reshape(-1, 3)
    molecule = centred("arms", np.full(len(blob), 6), blob, np.ones(len(blob), bool))
    rotation = Rotation.random(1, random_state=3)
    scene = scene_of(molecule, [[3.3, -7.1, 11.9]], rotations=rotation)
    library = {molecule.digest: molecule}
    _, instances = label(scene, library)
    nearest = np.rint((scene.atoms(0, library) + scene.centre) / scene.voxel_size).astype(int)
    assert instances[nearest[:, 2], nearest[:, 1], nearest[:, 0]].mean() > 0.8
    mirrored = scene.atoms(0, library) * [1, 1, -1] + scene.centre
    wrong = np.rint(mirrored / scene.voxel_size).astype(int)
    assert instances[wrong[:, 2], wrong[:, 1], wrong[:, 0]].mean() < 0.6


@pytest.mark.parametrize("voxel_size", [4.0, 8.0, 13.48, 16.0])
def test_label_volume_is_the_envelope_s_at_any_voxel_size(voxel_size: float) -> None:
    rng = np.random.default_rng(2)
    n = int(np.ceil(220 / voxel_size))
    volumes = []
    for _ in range(8):
        scene = scene_of(BALL, [rng.uniform(-8, 8, 3)], shape=(n, n, n), voxel_size=voxel_size)
        volumes.append(np.count_nonzero(label(scene, LIBRARY)[1]) * voxel_size**3)
    assert np.mean(volumes) == pytest.approx(envelope(BALL).volume, rel=0.05)


@pytest.mark.parametrize("voxel_size", [4.0, 8.0, 16.0])
def test_real_protein_s_label_has_its_place_and_volume(voxel_size: float) -> None:
    """Apoferritin (hollow) and enolase at any place and orientation."""
    from tlgen.molecules.structures import load_structure

    rng = np.random.default_rng(3)
    for name in ("4v1w", "3enl"):
        molecule = load_structure(name)
        library, body = {molecule.digest: molecule}, envelope(molecule)
        errors, volumes = [], []
        for _ in range(10):
            n = int(np.ceil((2 * body.radius + 30) / voxel_size))
            scene = scene_of(
                molecule,
                [rng.uniform(-0.5, 0.5, 3) * voxel_size],
                shape=(n, n + 1, n),
                voxel_size=voxel_size,
                rotations=Rotation.random(1, random_state=rng),
            )
            _, instances = label(scene, library)
            errors.append(centre_of(instances, 1) - (scene.positions[0] + scene.centre) / voxel_size)
            volumes.append(np.count_nonzero(instances) * voxel_size**3)
        assert np.linalg.norm(errors, axis=1).mean() < 0.15
        assert np.abs(np.mean(errors, axis=0)).max() < 0.1
        assert np.mean(volumes) == pytest.approx(body.volume, rel=0.05)


def test_distractors_have_instances_but_no_class() -> None:
    scene = scene_of(BALL, [[-70, 0, 0], [70, 0, 0]], shape=(20, 20, 40), labels=(0, 3), which=[0, 1])
    classes, instances = label(scene, LIBRARY)
    assert set(np.unique(instances)) == {0, 1, 2}
    assert (classes[instances == 1] == 0).all()
    assert (classes[instances == 2] == 3).all()
    assert (classes.dtype, instances.dtype) == (np.uint8, np.uint16)
    assert classes.shape == instances.shape == scene.shape


def test_overlap_is_shared_at_the_middle() -> None:
    """Two balls of 64 Å, 120 Å apart: the plane between them goes to neither or either, no further."""
    scene = scene_of(BALL, [[-60, 0, 0], [60, 0, 0]], shape=(21, 21, 41))
    _, instances = label(scene, LIBRARY)
    first, second = np.argwhere(instances == 1), np.argwhere(instances == 2)
    assert first[:, 2].max() <= 20 <= second[:, 2].min()
    assert abs(len(first) - len(second)) <= np.count_nonzero(instances[:, :, 20])
    assert instances[10, 10, 19] == 1
    assert instances[10, 10, 21] == 2


def test_what_sticks_out_of_the_box_is_cut() -> None:
    scene = scene_of(BALL, [[160, 0, 0], [-2000, 0, 0]], shape=(40, 40, 40))
    _, instances = label(scene, LIBRARY)
    share = np.count_nonzero(instances == 1) * 8.0**3 / envelope(BALL).volume
    assert share == pytest.approx(0.5, abs=0.05)
    assert not (instances == 2).any()


def test_an_empty_scene_has_empty_labels() -> None:
    classes, instances = label(scene_of(BALL, []), LIBRARY)
    assert not classes.any()
    assert not instances.any()


def test_more_molecules_than_uint16_counts_are_refused() -> None:
    with pytest.raises(InputError, match=r"65536 molecules .* 65535"):
        label(scene_of(BALL, np.zeros((65536, 3))), LIBRARY)


def test_a_class_beyond_uint8_is_refused() -> None:
    with pytest.raises(InputError, match="label 256"):
        label(scene_of(BALL, [[0, 0, 0]], labels=(256,)), LIBRARY)
