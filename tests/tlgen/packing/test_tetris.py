"""Tetris: whole molecules, never nearer than the gap, as close as possible; judged by their atoms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from scipy.stats import chisquare, kstest

from catalogs.errors import InputError
from tlgen.molecules.molecule import Molecule, centred
from tlgen.packing import obstacles, raster
from tlgen.packing.tetris import Packing, Request, nearest_atoms, pack


def body(name: str, a: float, b: float, c: float, hollow: float = 0.0, spacing: float = 3.0) -> Molecule:
    """Nitrogen atoms, roughly on a lattice, in an ellipsoid with these half axes, hollow up to a share."""
    extent = np.array([a, b, c])
    axes = [np.arange(-k, k + 1) * spacing for k in np.ceil(extent / spacing)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points + np.random.default_rng(0).uniform(-0.5, 0.5, points.shape)
    far = np.linalg.norm(points / extent, axis=1)
    points = points[(far <= 1) & (far >= hollow)]
    return centred(name, np.full(len(points), 7), points, np.ones(len(points), bool))


BIG = body("big", 50, 50, 50)
LONG = body("long", 15, 20, 60)
MIDDLE = body("middle", 25, 30, 35)
SMALL = body("small", 14, 14, 14)
SHELL = body("shell", 60, 60, 60, hollow=0.6)
LIBRARY = {m.digest: m for m in (BIG, LONG, MIDDLE, SMALL, SHELL)}


def atoms_of(packing: Packing) -> list[NDArray[np.float64]]:
    """Place the atoms of all molecules: x, y, z in Å from the centre of the box."""
    return [
        Rotation.from_quat(q).apply(LIBRARY[packing.requests[i].digest].positions) + p
        for i, q, p in zip(packing.which, packing.quaternions, packing.positions, strict=True)
    ]


def distances_between(atoms: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(n, n) distance between the nearest atoms of each two molecules, the plain way; inf above 50 Å."""
    trees = [cKDTree(xyz) for xyz in atoms]
    distances = np.full((len(atoms), len(atoms)), np.inf)
    for a in range(len(atoms)):
        for b in range(a):
            distances[a, b] = distances[b, a] = trees[a].query(atoms[b], distance_upper_bound=50)[0].min()
    return distances


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(st.integers(12, 20), st.integers(15, 30), st.integers(15, 30)),
    voxel_size=st.sampled_from([7.84, 10.0, 13.48]),
    gap=st.floats(0, 25),
    counts=st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 6), st.integers(0, 10)),
    bin_size=st.sampled_from([6.5, 8.0, 11.0]),
    orientations=st.integers(1, 3),
    seed=st.integers(0, 2**62),
)
def test_no_overlap_all_inside_and_never_more_than_asked(
    shape: tuple[int, int, int],
    voxel_size: float,
    gap: float,
    counts: tuple[int, int, int, int],
    bin_size: float,
    orientations: int,
    seed: int,
) -> None:
    molecules = (BIG, LONG, MIDDLE, SMALL)
    requests = [Request(m.digest, n) for m, n in zip(molecules, counts, strict=True)]
    packing = pack(
        shape, voxel_size, requests, LIBRARY, gap=gap, seed=seed, bin_size=bin_size, orientations=orientations
    )
    atoms = atoms_of(packing)
    half = np.array(shape[::-1]) * voxel_size / 2
    assert all((np.abs(xyz) <= half).all() for xyz in atoms)
    assert distances_between(atoms).min(initial=np.inf) >= gap
    assert packing.asked == counts
    assert all(got <= asked for got, asked in zip(packing.achieved, counts, strict=True))
    assert sum(packing.achieved) == len(packing.which) == len(packing.positions) == len(packing.quaternions)
    assert np.allclose(np.linalg.norm(packing.quaternions, axis=1), 1)


def test_the_same_seed_gives_the_same_packing_and_another_does_not() -> None:
    requests = [Request(MIDDLE.digest, 8), Request(SMALL.digest, 20)]
    first, again, other = (pack((20, 25, 25), 10.0, requests, LIBRARY, gap=3, seed=s) for s in (5, 5, 6))
    assert np.array_equal(first.which, again.which)
    assert np.array_equal(first.positions, again.positions)
    assert np.array_equal(first.quaternions, again.quaternions)
    assert not np.array_equal(first.positions[:5], other.positions[:5])


def test_molecules_are_as_close_as_the_gap_lets_them() -> None:
    requests = [Request(MIDDLE.digest, 30)]
    packing = pack((40, 40, 40), 10.0, requests, LIBRARY, gap=5.0, seed=1, seeding="cluster")
    nearest = distances_between(atoms_of(packing)).min(axis=1)
    assert packing.achieved == (30,)
    assert np.median(nearest) < 5 + 8  # the gap and a bin
    spread = np.linalg.norm(packing.positions - packing.positions.mean(axis=0), axis=1).max()
    everywhere = 30 * MIDDLE.volume / packing.occupancy  # the box
    assert 4 / 3 * np.pi * spread**3 < 0.5 * everywhere  # a cluster, not a gas


def test_small_ones_go_on_where_a_big_one_does_not_fit() -> None:
    huge = replace(BIG, name="huge", positions=BIG.positions * 5)
    library = {**LIBRARY, huge.digest: huge}
    requests = [Request(huge.digest, 3), Request(BIG.digest, 50), Request(SMALL.digest, 40)]
    packing = pack((20, 25, 25), 10.0, requests, library, gap=3, seed=2)
    assert packing.achieved[0] == 0
    assert 2 <= packing.achieved[1] < 50
    assert packing.achieved[2] == 40


def test_a_full_box_is_as_full_as_a_cytoplasm() -> None:
    requests = [Request(m.digest, 500) for m in (BIG, MIDDLE, SMALL)]
    packing = pack((32, 50, 50), 8.0, requests, LIBRARY, gap=3, seed=3)
    # what the bodies' own volumes fill, whatever they weigh
    filled = sum(LIBRARY[packing.requests[i].digest].n_atoms * 27.0 for i in packing.which)
    assert filled / (32 * 50 * 50 * 8.0**3) > 0.35
    mass = sum(LIBRARY[packing.requests[i].digest].mass for i in packing.which)
    assert packing.concentration == pytest.approx(mass * 1660.54 / (32 * 50 * 50 * 8.0**3), rel=1e-4)
    assert packing.occupancy == pytest.approx(packing.concentration / 1350, rel=1e-4)


def test_occupancy_stops_where_it_is_told_to() -> None:
    requests = [Request(MIDDLE.digest, 500), Request(SMALL.digest, 500)]
    packing = pack((32, 50, 50), 8.0, requests, LIBRARY, gap=3, seed=3, max_occupancy=0.08)
    assert 0.079 < packing.occupancy <= 0.08


def test_big_ones_go_first_and_priority_changes_that() -> None:
    requests = [Request(SMALL.digest, 10), Request(BIG.digest, 2)]
    strictly = pack((30, 40, 40), 10.0, requests, LIBRARY, gap=3, seed=4, mixing=0)
    assert strictly.which.tolist() == [1] * 2 + [0] * 10
    wanted = [Request(SMALL.digest, 10, priority=10), Request(BIG.digest, 2)]
    assert (
        pack((30, 40, 40), 10.0, wanted, LIBRARY, gap=3, seed=4, mixing=0).which.tolist()
        == [0] * 10 + [1] * 2
    )


def test_targets_touch_distractors() -> None:
    """Bodies of like sizes, one the target: most targets have a distractor for a neighbour."""
    twin = replace(MIDDLE, name="twin")
    library = {**LIBRARY, twin.digest: twin}
    requests = [Request(MIDDLE.digest, 15), Request(twin.digest, 15), Request(LONG.digest, 15)]
    packing = pack((30, 40, 40), 10.0, requests, library, gap=4, seed=5, seeding="cluster")
    atoms = [
        Rotation.from_quat(q).apply(library[packing.requests[i].digest].positions) + p
        for i, q, p in zip(packing.which, packing.quaternions, packing.positions, strict=True)
    ]
    distances = distances_between(atoms)
    targets = packing.which == 0
    assert (distances[np.ix_(targets, ~targets)].min(axis=1) < 15).mean() > 0.8


def test_nothing_gets_into_a_closed_shell() -> None:
    requests = [Request(SHELL.digest, 3), Request(SMALL.digest, 200)]
    packing = pack((30, 40, 40), 10.0, requests, LIBRARY, gap=3, seed=6)
    shells = packing.positions[packing.which == 0]
    small = packing.positions[packing.which == 1]
    assert len(shells) == 3
    assert len(small) > 50
    assert cKDTree(shells).query(small)[0].min() > 60
    # nor does a shell go around what stands already
    reverse = [Request(SHELL.digest, 3), Request(SMALL.digest, 30, priority=20)]
    packing = pack((30, 40, 40), 10.0, reverse, LIBRARY, gap=3, seed=6, mixing=0)
    shells, small = (packing.positions[packing.which == i] for i in (0, 1))
    assert len(shells) > 0
    assert cKDTree(shells).query(small)[0].min() > 60


def test_orientations_are_uniform_and_positions_are_not_on_a_lattice() -> None:
    packing = pack((48, 64, 64), 10.0, [Request(LONG.digest, 250)], LIBRARY, gap=3, seed=7)
    assert packing.achieved == (250,)
    axes = Rotation.from_quat(packing.quaternions).apply([0, 0, 1])
    for axis in range(3):  # a uniform direction has uniform coordinates (Archimedes)
        counts = np.histogram(axes[:, axis], bins=8, range=(-1, 1))[0]
        assert chisquare(counts).pvalue > 0.001
    angle = Rotation.from_quat(packing.quaternions).magnitude()
    assert kstest(angle, lambda a: (a - np.sin(a)) / np.pi).pvalue > 0.001
    for axis in range(3):
        assert kstest(packing.positions[:, axis] / 8 % 1, "uniform").pvalue > 0.001


def test_the_first_molecule_stands_anywhere() -> None:
    firsts = [pack((20, 30, 40), 10.0, [Request(SMALL.digest, 1)], LIBRARY, gap=3, seed=s) for s in range(60)]
    x, y, z = np.concatenate([p.positions for p in firsts]).T
    for values, half in ((x, 200), (y, 150), (z, 100)):
        room = half - 14.5
        assert np.abs(values).max() <= room + 1
        assert kstest(values, "uniform", args=(-room, 2 * room)).pvalue > 0.001


def test_a_slab_one_molecule_thick_and_boxes_deeper_than_a_word() -> None:
    thin = pack((11, 40, 40), 10.0, [Request(BIG.digest, 20)], LIBRARY, gap=3, seed=8)
    assert thin.achieved[0] >= 6
    deep = pack((150, 16, 16), 10.0, [Request(MIDDLE.digest, 200)], LIBRARY, gap=3, seed=8)
    atoms = atoms_of(deep)
    assert distances_between(atoms).min() >= 3
    assert np.ptp(deep.positions[:, 2]) > 1200  # along all of the three words


@pytest.mark.parametrize("depth", [40, 64, 150])
def test_the_bits_find_what_plain_counting_finds(depth: int) -> None:
    """Forbidden corners and the best contact, against correlations of the same bins."""
    rng = np.random.default_rng(depth)
    shape = (24, 26, depth)
    occupied = (rng.random(shape) < 0.01).astype(np.uint8)
    ball = np.linalg.norm(np.indices((9, 9, 9)) - 4, axis=0)
    reach = ((ball <= 3.4) & (rng.random((9, 9, 9)) < 0.95)).astype(np.uint8)
    shell = raster.grown(reach) - reach
    words = -(-depth // 64)
    columns = np.zeros((*shape[:2], words + 1), np.uint64)
    copies = np.zeros((obstacles.SPANS + obstacles.CUBES, words + 2, 24, 26 + obstacles.BLOCK), np.uint64)
    obstacles.stamp(columns, copies, occupied, np.zeros(3, np.int64))
    lo, hi = np.array([1, 1, 1]), np.array(shape) - 10
    allowed = obstacles.bits(lo[2], hi[2], words)
    forbidden = obstacles.forbidden(
        copies,
        obstacles.cubes_within(reach, 8),
        obstacles.spans(obstacles.runs(reach)),
        obstacles.cubes_around(reach.shape),
        allowed,
        lo,
        hi,
    )

    def counted(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
        windows = np.lib.stride_tricks.sliding_window_view(occupied, mask.shape)
        return np.einsum("xyzijk,ijk->xyz", windows, mask, dtype=np.int64)

    blocked = counted(reach) > 0
    bits = np.unpackbits(forbidden.transpose(1, 2, 0).copy().view(np.uint8), axis=-1, bitorder="little")
    inside = tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))
    found = bits[1 : hi[0] - lo[0] + 1, 1 : hi[1] - lo[1] + 1, lo[2] : hi[2]].astype(bool)
    assert np.array_equal(found, blocked[inside])
    assert blocked[inside].any()
    assert not blocked[inside].all()

    beside = [np.roll(blocked, 1, axis) | np.roll(blocked, -1, axis) for axis in range(3)]
    for wedged, near in ((True, np.logical_and.reduce(beside)), (False, np.logical_or.reduce(beside))):
        contact = np.where(near & ~blocked, counted(shell), 0)[inside]
        corners = obstacles.candidates(forbidden, allowed, lo, hi, 20000, np.uint64(3), wedged)
        assert {tuple(c) for c in corners - lo} == set(
            zip(*np.nonzero((near & ~blocked)[inside]), strict=True)
        )
        runs = obstacles.runs(shell)
        most, best = obstacles.most_contact(columns, corners, runs, len(corners), np.uint64(3))
        assert most == contact.max() > 0
        assert contact[tuple(corners[best] - lo)] == most
        some = obstacles.candidates(forbidden, allowed, lo, hi, 20, np.uint64(3), wedged)
        assert len(some) <= 40
        assert {tuple(c) for c in some} <= {tuple(c) for c in corners}


def test_nearest_atoms_is_what_the_plain_way_finds() -> None:
    requests = [Request(MIDDLE.digest, 10), Request(SMALL.digest, 20)]
    packing = pack((25, 30, 30), 10.0, requests, LIBRARY, gap=4, seed=9)
    assert np.allclose(nearest_atoms(packing, LIBRARY), distances_between(atoms_of(packing)).min(axis=1))
    alone = pack((25, 30, 30), 10.0, [Request(SMALL.digest, 1)], LIBRARY, gap=4, seed=9)
    assert nearest_atoms(alone, LIBRARY).tolist() == [np.inf]


def test_nothing_asked_gives_an_empty_packing() -> None:
    packing = pack((20, 20, 20), 10.0, [Request(SMALL.digest, 0)], LIBRARY, gap=3, seed=1)
    assert packing.achieved == (0,)
    assert packing.positions.shape == (0, 3)
    assert packing.quaternions.shape == (0, 4)
    assert packing.occupancy == packing.concentration == 0


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"gap": -1.0}, "gap"),
        ({"gap": float("nan")}, "gap"),
        ({"bin_size": 0.0}, "bin_size"),
        ({"orientations": 0}, "orientations"),
        ({"patience": 0}, "patience"),
        ({"mixing": -1.0}, "mixing"),
        ({"max_occupancy": -0.1}, "max_occupancy"),
        ({"requests": [Request(SMALL.digest, -2)]}, "count"),
        ({"shape": (0, 5, 5)}, "shape"),
        ({"voxel_size": float("inf")}, "voxel_size"),
    ],
)
def test_bad_numbers_are_refused(more: dict[str, object], word: str) -> None:
    good: dict[str, object] = {
        "shape": (20, 20, 20),
        "voxel_size": 10.0,
        "requests": [],
        "gap": 3.0,
        "seed": 1,
    }
    with pytest.raises(InputError, match=word):
        pack(library=LIBRARY, **(good | more))  # type: ignore[arg-type]
