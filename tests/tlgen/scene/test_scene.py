"""The scene: its particle table, its voxels of any size, and the density of all that is in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from tlgen.molecules.molecule import Molecule, centred
from tlgen.scene import decoration_density
from tlgen.scene.decoration_shapes import CLASS_NAMES, Bead, CarbonEdge, Sheet, Vesicle
from tlgen.scene.density import density
from tlgen.scene.labels import label
from tlgen.scene.materials import CARBON, GRAMS_PER_CM3
from tlgen.scene.scene import Grid, Scene

SPACING = 2.55


def ball(radius: float, name: str = "ball", **more: object) -> Molecule:
    steps = np.arange(-np.ceil(radius / SPACING), np.ceil(radius / SPACING) + 1) * SPACING
    points = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    points = points[np.linalg.norm(points, axis=1) <= radius]
    return centred(name, np.full(len(points), 6), points, np.ones(len(points), bool), **more)


BIG, SMALL = ball(40), ball(25, "small")
LIBRARY = {m.digest: m for m in (BIG, SMALL)}
IDENTITY = np.array([0.0, 0, 0, 1])


def scene_of(positions: list[list[float]], which: list[int] | None = None, **more: object) -> Scene:
    n = len(positions)
    base = Scene(
        shape=(20, 24, 28),
        voxel_size=8.0,
        digests=(BIG.digest, SMALL.digest),
        names=("ball", "small"),
        variants=(-1, 2),
        labels=(1, 0),
        class_names=("ball", *CLASS_NAMES),
        which=np.array(which if which is not None else [0] * n, np.int64),
        positions=np.array(positions, np.float64).reshape(n, 3),
        quaternions=np.tile(IDENTITY, (n, 1)),
    )
    return replace(base, **more)


def test_particles_say_how_a_variant_moved() -> None:
    scene = scene_of([[0, 0, 0], [60, 0, 0]], [1, 0], amplitudes=((), (1.5, -2.0, 0.5)), rmsds=(0.0, 2.55))
    table = scene.particles("t", LIBRARY)
    assert table["rmsd"].tolist() == [2.55, 0]
    assert table[["mode_1", "mode_2", "mode_3"]].to_numpy().tolist() == [[1.5, -2.0, 0.5], [0, 0, 0]]
    assert table["variant"].tolist() == [2, -1]
    bare = scene_of([[0, 0, 0]]).particles("t", LIBRARY)
    assert bare["rmsd"].tolist() == [0]
    assert not [name for name in bare if name.startswith("mode_")]


def test_particles_are_those_with_their_centre_in_the_box() -> None:
    """Box of 224 x 192 x 160 Å: one ball whole, one cut in half by its face, one with its centre outside."""
    scene = scene_of([[130, -40, 60], [0, 0, 0], [112, 30, -30], [-112, 96, 0]])
    table = scene.particles("t", LIBRARY)
    assert table["instance"].tolist() == [2, 3, 4]
    assert table["cut"].tolist() == [0, 1, 1]
    assert table["inside"].to_numpy() == pytest.approx([1, 0.5, 0.25], abs=0.04)
    _, instances = label(scene, LIBRARY)
    volume = np.bincount(instances.ravel(), minlength=5)[1:]
    assert volume[0] > 50  # outside of the table, yet labelled
    assert volume[2] / volume[1] == pytest.approx(0.5, abs=0.06)


def test_pseudo_atoms_count_by_their_occupancy_in_the_share_inside() -> None:
    heavy = centred(
        "heavy", np.array([6, 6]), np.array([[-30.0, 0, 0], [30, 0, 0]]), np.zeros(2, bool),
        occupancy=np.array([300, 100], np.float32),
    )  # fmt: skip
    scene = Scene(
        (20, 20, 20), 8.0, (heavy.digest,), ("heavy",), (-1,), (1,), ("heavy",),
        np.zeros(1, np.int64), np.array([[60.0, 0, 0]]), IDENTITY[None],
    )  # fmt: skip
    assert scene.inside({heavy.digest: heavy}) == pytest.approx([0.75])


def test_a_scene_does_not_take_what_does_not_fit_together() -> None:
    with pytest.raises(ValueError, match="2 molecules has 1 rmsds"):
        scene_of([], rmsds=(1.0,))
    with pytest.raises(ValueError, match="class 'gold'"):
        scene_of([], class_names=("ball",), decorations=(Bead((0, 0, 0), 10),))


@pytest.mark.parametrize("voxel_size", [4.0, 5.3, 8.0, 16.0])
def test_voxels_of_another_size_cover_the_box_around_the_same_centre(voxel_size: float) -> None:
    scene = scene_of([])
    grid = scene.grid_of(voxel_size)
    middle = np.array(grid.origin) + (np.array(grid.shape[::-1]) - 1) / 2 * voxel_size
    assert middle == pytest.approx(scene.centre)
    spare = np.array(grid.shape[::-1]) * voxel_size - scene.box
    assert (spare > -1e-6).all()
    assert (spare < voxel_size).all()
    assert scene.grid_of(scene.voxel_size) == scene.grid


@pytest.mark.parametrize("voxel_size", [4.0, 7.3, 12.0])
def test_labels_lie_in_the_same_place_on_any_grid(voxel_size: float) -> None:
    rng = np.random.default_rng(4)
    scene = scene_of([[3.1, -20.7, 11.3]], decorations=(Bead((60.2, 50.1, -30.4), 22.5),))
    errors = []
    for _ in range(6):
        grid = Grid((44, 50, 60), voxel_size, tuple(rng.uniform(-40, -10, 3)))
        classes, instances = label(scene, LIBRARY, grid=grid)
        for instance, where in ((1, scene.positions[0]), (2, np.array([60.2, 50.1, -30.4]))):
            found = np.argwhere(instances == instance).mean(axis=0)[::-1] * voxel_size + grid.origin
            errors.append((found - where - scene.centre) / voxel_size)
        assert set(np.unique(classes[instances == 2])) == {3}
    assert np.linalg.norm(errors, axis=1).mean() < 0.12
    assert np.abs(np.mean(errors, axis=0)).max() < 0.07


BODIES = (
    Bead((60, 50, -20), 24),
    Vesicle((-50, 20, 0), 42, 38),
    Sheet((0, -80, 0), (0, 1, 0), 1 / 2000),
    CarbonEdge((-1000, 0), 1095, 60, 30),
)


@pytest.mark.parametrize("body", BODIES, ids=lambda b: b.kind)
@pytest.mark.parametrize("voxel_size", [4.0, 8.0, 10.0])
def test_a_decoration_s_label_has_its_volume_and_its_class(body: object, voxel_size: float) -> None:
    scene = scene_of([], decorations=(body,))
    truth = decoration_density.total(body, scene.box, lambda _: 1.0, 2.0)
    volumes = []
    for k in range(10):  # origins all over a voxel
        fraction = (0.5 + k * np.array([0.618, 0.755, 0.57])) % 1
        shape = tuple(int(n) + 2 for n in scene.grid_of(voxel_size).shape)
        origin = scene.centre - np.array(scene.box) / 2 - fraction * voxel_size
        classes, instances = label(scene, LIBRARY, grid=Grid(shape, voxel_size, tuple(origin)))
        assert ((instances == 1) == (classes == scene.label_of(body))).all()
        assert set(np.unique(instances)) == {0, 1}
        volumes.append(np.count_nonzero(instances) * voxel_size**3)
    assert np.mean(volumes) == pytest.approx(truth, rel=0.05)


def test_decorations_go_before_molecules_and_their_instances_after_them() -> None:
    scene = scene_of([[0, 0, 0], [70, 0, 0]], [0, 1], decorations=(Bead((0, 0, 30), 25), BODIES[2]))
    classes, instances = label(scene, LIBRARY)
    assert set(np.unique(instances)) == {0, 1, 2, 3, 4}
    middle = tuple(np.rint((scene.centre + np.array([0, 0, 30]))[::-1] / 8).astype(int))
    assert instances[middle] == 3
    assert classes[middle] == scene.class_names.index("gold") + 1
    assert scene.particles("t", LIBRARY)["instance"].tolist() == [1, 2]


def test_a_grid_that_misses_everything_is_empty() -> None:
    scene = scene_of([[0, 0, 0]], decorations=BODIES)
    for origin in ((5000.0, 0.0, 0.0), (0.0, -5000.0, 0.0), (0.0, 0.0, 5000.0)):
        classes, instances = label(scene, LIBRARY, grid=Grid((5, 6, 7), 8.0, origin))
        assert classes.shape == (5, 6, 7)
        assert not classes.any()
        assert not instances.any()
        assert not density(scene, LIBRARY, grid=Grid((5, 6, 7), 8.0, origin)).any()


# ---------------------------------------------------------------- density


@pytest.mark.parametrize("voxel_size", [4.0, 8.0, 16.0])
def test_density_holds_all_the_mass_where_it_is(voxel_size: float) -> None:
    rotation = Rotation.random(1, random_state=1).as_quat()
    bead = Bead((60, 50, -20), 24)
    scene = scene_of([[-30.0, 20, 5]], decorations=(bead,), quaternions=rotation)
    grid = Grid(tuple(int(400 / voxel_size) for _ in range(3)), voxel_size, (-90.0, -101.0, -120.0))
    volume = density(scene, LIBRARY, grid=grid)
    gold = decoration_density.total(bead, scene.box, lambda m: m.density, 2.0)
    assert volume.sum() * voxel_size**3 == pytest.approx(BIG.mass * GRAMS_PER_CM3 + gold, rel=5e-3)
    alone = density(replace(scene, decorations=()), LIBRARY, grid=grid)
    axes = [np.array(grid.origin)[a] + np.arange(grid.shape[2 - a]) * voxel_size for a in range(3)]
    found = [
        (alone.sum(axis=tuple(b for b in range(3) if b != 2 - a)) @ axes[a]) / alone.sum() for a in range(3)
    ]
    assert found == pytest.approx(scene.positions[0] + scene.centre, abs=0.02)


def test_density_inside_of_a_body_is_the_material_s() -> None:
    film = CarbonEdge((-5000, 0), 4000, 0, 90)
    volume = density(scene_of([], decorations=(film,)), LIBRARY)
    z, y, x = (slice(n // 2 - 2, n // 2 + 2) for n in volume.shape)
    assert volume[z, y, x] == pytest.approx(CARBON.density, rel=0.01)
    assert volume[0].max() < 0.01
    assert volume.dtype == np.float32


def test_density_of_pseudo_atoms_counts_their_occupancy_and_width() -> None:
    molecule = centred(
        "map", np.full(2, 6), np.array([[-40.0, 0, 0], [40, 0, 0]]), np.zeros(2, bool),
        occupancy=np.array([400, 200], np.float32), sigma=np.array([6, 6], np.float32),
    )  # fmt: skip
    scene = Scene(
        (24, 24, 40), 8.0, (molecule.digest,), ("map",), (-1,), (1,), ("map",),
        np.zeros(1, np.int64), np.zeros((1, 3)), IDENTITY[None],
    )  # fmt: skip
    volume = density(scene, {molecule.digest: molecule})
    assert volume.sum() * 8**3 == pytest.approx(600 * 12.011 * GRAMS_PER_CM3, rel=1e-3)
    profile = volume.sum(axis=(0, 1))
    x = np.arange(40) * 8.0 - scene.centre[0]
    left = x < molecule.positions[:, 0].mean()
    assert profile[left].sum() / profile[~left].sum() == pytest.approx(2, rel=0.02)
    width = np.sqrt((profile * (x - molecule.positions[0, 0]) ** 2)[left].sum() / profile[left].sum())
    assert width == pytest.approx(np.hypot(6, 16 / (np.pi * np.sqrt(2))), rel=0.05)
    _, instances = label(scene, {molecule.digest: molecule})
    assert instances.any()


def test_mass_beyond_the_grid_is_left_out() -> None:
    scene = scene_of([[112, 0, 0], [5000, 0, 0]])
    assert density(scene, LIBRARY).sum() * 8**3 == pytest.approx(BIG.mass * GRAMS_PER_CM3 / 2, rel=0.05)


def test_a_resolution_finer_than_the_voxels_is_refused() -> None:
    with pytest.raises(InputError, match="12 Å resolution cannot be shown in voxels of 8 Å; ask for 16 Å"):
        density(scene_of([]), LIBRARY, resolution=12)
