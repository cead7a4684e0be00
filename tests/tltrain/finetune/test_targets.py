import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from catalogs import particles
from catalogs.corpus.catalog import Sample
from catalogs.errors import InputError
from catalogs.schema import Acquisition, ClassInfo
from catalogs.seeds import digest, generator
from tltrain.finetune.targets import IGNORED, UNLABELLED, measure_shape, paint, sphere

VOXEL = 10.0
SHAPE = (40, 80, 80)
ROD = ClassInfo(name="rod", label=3, radius=60.0)
HALF_LENGTH, HALF_WIDTH = 90.0, 30.0  # Å


def rod(offsets, rotation):
    """Which places, (3, ...) z, y, x in Å from its centre, are in a rod that lies along its own x."""
    x, y, z = np.tensordot(rotation.T, offsets[::-1], axes=1)
    return (np.abs(x) <= HALF_LENGTH) & (y**2 + z**2 <= HALF_WIDTH**2)


def write_rods(catalog, name, n=4, label=3, radial=rod):
    """Write a sample with rods that are turned at random; tells nobody's truth but its labels."""
    rng = generator("rods", name)
    places = np.stack(np.indices(SHAPE)) * VOXEL
    classes, instances = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint16)
    centres = np.array([[20, 20 + 40 * (k // 2), 20 + 40 * (k % 2)] for k in range(n)]) * VOXEL
    centres = centres + rng.uniform(-15, 15, centres.shape)
    turns = Rotation.random(n, random_state=rng)
    for k, (centre, turn) in enumerate(zip(centres, turns.as_matrix(), strict=True)):
        inside = radial(places - centre[:, None, None, None], turn)
        classes[inside], instances[inside] = label, k + 1
    table = particles.make(
        tomogram=name, class_name="rod", label=label, instance=np.arange(1, n + 1),
        **dict(zip("zyx", centres.T, strict=True)),
        **dict(zip(("qx", "qy", "qz", "qw"), turns.as_quat().T, strict=True)),
    )  # fmt: skip
    facts = {
        "sample_id": digest(["rods", name]), "name": name, "split": "train", "seed": 1, "shape": SHAPE,
        "acquisition": Acquisition(voxel_size=VOXEL), "n_tilts": 2, "n_particles": n, "n_distractors": 0,
        "class_counts": {"rod": n}, "structures": {"rod": "0" * 16}, "occupancy": 0.1,
        "seconds": {}, "software": {},
    }  # fmt: skip
    tilts = np.zeros(2, np.float32)
    grey = rng.standard_normal(SHAPE).astype(np.float32)
    return catalog.write(Sample(grey, classes, instances, table, None, tilts, tilts, facts))


@pytest.fixture(scope="module")
def rods(make_catalog, tmp_path_factory):
    catalog = make_catalog(tmp_path_factory.mktemp("rods") / "corpus", [ROD])
    for k in range(4):
        write_rods(catalog, f"rods-{k}")
    return catalog


def test_the_profile_is_the_share_of_a_sphere_that_is_in_the_particle(rods):
    shape = measure_shape(rods, rods.records(), ROD)
    assert shape.n_particles == 16
    # on a sphere of radius r around the centre a long cylinder of radius w covers 1 - sqrt(1 - (w/r)²)
    for r in (40.0, 50.0, 60.0, 70.0, 80.0):
        covered = 1 - np.sqrt(1 - (HALF_WIDTH / r) ** 2)
        assert shape.profile[round(r / VOXEL)] == pytest.approx(covered, abs=0.04)
    assert shape.profile[:3].min() > 0.95
    assert 80 <= shape.reach <= 100


def test_an_oriented_shape_is_the_particle_itself(rods):
    shape = measure_shape(rods, rods.records(), ROD, oriented=True)
    turn = Rotation.from_euler("zyx", [40, 25, 70], degrees=True).as_matrix()
    places = (np.stack(np.indices((31, 31, 31))) - 15) * VOXEL
    truth, share = rod(places, turn), shape.at(places.astype(float), turn)
    assert (truth & (share >= 0.5)).sum() / (truth | (share >= 0.5)).sum() > 0.75
    assert share[truth].mean() > 0.75
    wrong = shape.at(places.astype(float), turn.T)
    assert wrong[truth].mean() < share[truth].mean() - 0.2


def annotations(*xyz, name="rod", quaternion=(0, 0, 0, 1)):
    x, y, z = np.array(xyz, float).T
    turned = dict(zip(("qx", "qy", "qz", "qw"), ([q] * len(x) for q in quaternion), strict=True))
    return particles.make(class_name=[name] * len(x), label=3, x=x, y=y, z=z, **turned)


def painted(table, shape, **options):
    return paint(
        table, {"rod": shape}, {"rod": 1}, shape=SHAPE, voxel_size=VOXEL, radii={"rod": ROD.radius}, **options
    )


def test_only_what_holds_for_every_orientation_is_said(rods):
    shape = measure_shape(rods, rods.records(), ROD)
    target = painted(annotations((400, 400, 200)), shape)
    places = np.stack(np.indices(SHAPE)) * VOXEL - np.array([200, 400, 400])[:, None, None, None]
    for seed in range(20):
        inside = rod(places, Rotation.random(random_state=seed).as_matrix())
        # the ends of the rod are neither denied nor taken for granted
        assert (target[inside] == 0).mean() < 0.06
        assert inside[target == 1].mean() > 0.75
    assert (target == IGNORED).any()
    assert target[0, 0, 0] == UNLABELLED


def test_orientations_are_used_when_asked_for(rods):
    shape = measure_shape(rods, rods.records(), ROD, oriented=True)
    turn = Rotation.from_euler("zyx", [40, 25, 70], degrees=True)
    table = annotations((400, 400, 200), quaternion=turn.as_quat())
    target = painted(table, shape, oriented=True)
    places = np.stack(np.indices(SHAPE)) * VOXEL - np.array([200, 400, 400])[:, None, None, None]
    inside = rod(places, turn.as_matrix())
    assert (inside & (target == 1)).sum() / (inside | (target == 1)).sum() > 0.7
    assert (painted(table, shape) != target).any()


def test_a_sphere_has_a_skin_and_a_shell():
    target = painted(annotations((400, 400, 200)), sphere(ROD), background_shell=0.5)
    z, y, x = np.indices(SHAPE)
    distance = VOXEL * np.sqrt((z - 20.0) ** 2 + (y - 40.0) ** 2 + (x - 40.0) ** 2)
    assert (target[distance <= 60] == 1).all()
    assert (target[(distance > 61) & (distance < 74)] == IGNORED).all()
    assert (target[(distance > 77) & (distance < 96)] == 0).all()
    assert (target[distance > 117] == UNLABELLED).all()
    assert set(np.unique(painted(annotations((400, 400, 200)), sphere(ROD), background_shell=0))) == {
        *(1, IGNORED, UNLABELLED)
    }


def test_a_particle_goes_before_the_shell_of_another_in_any_order():
    table = annotations((400, 400, 200), (525, 400, 200), (400, 520, 200))
    forth, back = (painted(each, sphere(ROD)) for each in (table, table[::-1].reset_index(drop=True)))
    np.testing.assert_array_equal(forth, back)
    z, y, x = np.indices(SHAPE)
    for cx, cy in ((40, 40), (52.5, 40), (40, 52)):
        assert (forth[(z - 20) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= 35.9] == 1).all()


def test_a_particle_at_the_edge_is_cut_and_an_offset_moves_it():
    target = painted(annotations((0, 0, 0)), sphere(ROD))
    assert target[0, 0, 0] == 1
    assert target[-1, -1, -1] == UNLABELLED
    moved = painted(annotations((100, 100, 100)), sphere(ROD), offset=(100.0, 100.0, 100.0))
    np.testing.assert_array_equal(moved, target)


def test_a_corpus_without_the_class_and_a_class_without_a_core_are_refused(rods, make_catalog, tmp_path):
    absent = ClassInfo(name="absent", label=9, radius=50)
    with pytest.raises(InputError, match=r"no whole particle of the class 'absent'.*use `targets=sphere`"):
        measure_shape(rods, rods.records(), absent)

    def shifted(offsets, rotation):  # a ball on an arm: nothing is near the centre
        x, y, z = np.tensordot(rotation.T, offsets[::-1], axes=1)
        return (x - 80) ** 2 + y**2 + z**2 <= 30**2

    catalog = make_catalog(tmp_path / "arms", [ROD])
    write_rods(catalog, "arms", radial=shifted)
    with pytest.raises(InputError, match=r"have no voxel in common: at most .* use `targets=sphere`"):
        measure_shape(catalog, catalog.records(), ROD)
    assert measure_shape(catalog, catalog.records(), ROD, oriented=True).volume.max() > 0.5
