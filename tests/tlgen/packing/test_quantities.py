"""What a packing is asked for and what it reports; obstacles; faces; where sparse scenes stand."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from scipy.stats import chisquare, kstest

from catalogs.errors import InputError
from tlgen.molecules.molecule import Library, Molecule, centred
from tlgen.packing import quantities
from tlgen.packing.tetris import (
    Concentration,
    Counts,
    Fill,
    HasDistance,
    Packing,
    Ratio,
    Request,
    Saturation,
    nearest_atoms,
    pack,
)


def cloud(seed: int, atoms: int, axes: tuple[float, float, float]) -> Molecule:
    """Atoms at random in an ellipsoid, with a lump at one end, so that no axis is like another."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(atoms, 3))
    points *= (rng.random((atoms, 1)) ** (1 / 3)) / np.linalg.norm(points, axis=1, keepdims=True)
    points[: atoms // 4] = points[: atoms // 4] * 0.4 + [1, 0.3, 0]
    return centred(f"cloud{seed}", np.full(atoms, 7), points * axes, np.ones(atoms, bool))


BIG, MIDDLE, SMALL = cloud(1, 1500, (45, 30, 25)), cloud(2, 600, (30, 20, 15)), cloud(3, 200, (15, 12, 12))
LIBRARY = {m.digest: m for m in (BIG, MIDDLE, SMALL)}
MIXED = [
    Request(BIG.digest, 3, group="target"),
    Request(MIDDLE.digest, 6, share=2, group="distractor"),
    Request(SMALL.digest, 9, share=6, group="distractor"),
]


@dataclass(frozen=True)
class Ball:
    """A gold bead."""

    centre: tuple[float, float, float]
    radius: float

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linalg.norm(points - self.centre, axis=1) - self.radius


@dataclass(frozen=True)
class Sheet:
    """A membrane, tilted about y."""

    tilt: float
    half: float

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        normal = np.array([np.sin(self.tilt), 0, np.cos(self.tilt)])
        return np.abs(points @ normal) - self.half


def placed_atoms(packing: Packing, library: Library) -> list[NDArray[np.float64]]:
    return [
        Rotation.from_quat(q).apply(library[packing.requests[i].digest].positions) + p
        for i, q, p in zip(packing.which, packing.quaternions, packing.positions, strict=True)
    ]


def closest(atoms: list[NDArray[np.float64]]) -> float:
    """Å between the nearest two atoms of different molecules, by brute force over trees."""
    trees = [cKDTree(xyz) for xyz in atoms]
    pairs = ((a, b) for a in range(len(atoms)) for b in range(a))
    return min((float(trees[a].query(atoms[b])[0].min()) for a, b in pairs), default=np.inf)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(st.integers(9, 16), st.integers(12, 24), st.integers(12, 24)),
    gap=st.floats(0, 20),
    atoms=st.integers(5, 400),
    axes=st.tuples(*[st.floats(4, 40)] * 3),
    faces=st.sampled_from(["whole", "cut"]),
    seeding=st.sampled_from(["spread", "cluster"]),
    fill=st.sampled_from([Counts(), Concentration(60.0), Saturation(), Ratio({"a": 1, "b": 2}, 12)]),
    ball=st.tuples(*[st.floats(-80, 80)] * 3, st.floats(5, 60)),
    tilt=st.floats(0, np.pi),
    bin_size=st.sampled_from([7.0, 8.0, 10.5]),
    seed=st.integers(0, 2**62),
)
def test_no_atom_comes_nearer_than_the_gap_to_anything(
    shape: tuple[int, int, int],
    gap: float,
    atoms: int,
    axes: tuple[float, float, float],
    faces: str,
    seeding: str,
    fill: Fill,
    ball: tuple[float, float, float, float],
    tilt: float,
    bin_size: float,
    seed: int,
) -> None:
    odd, even = cloud(seed % 97, atoms, axes), cloud(5, 150, (20, 15, 10))
    library = {m.digest: m for m in (odd, even)}
    requests = [Request(odd.digest, 3, group="a"), Request(even.digest, 8, group="b")]
    obstacles: list[HasDistance] = [Ball(ball[:3], ball[3]), Sheet(tilt, 20.0)]
    packing = pack(
        shape,
        10.0,
        requests,
        library,
        gap=gap,
        seed=seed,
        fill=fill,
        faces=faces,  # type: ignore[arg-type]
        seeding=seeding,  # type: ignore[arg-type]
        obstacles=obstacles,
        bin_size=bin_size,
        max_occupancy=0.2,
    )
    found = placed_atoms(packing, library)
    assert closest(found) >= gap
    half = np.array(shape[::-1]) * 5.0
    for xyz, centre in zip(found, packing.positions, strict=True):
        assert all((obstacle.distance(xyz) >= gap).all() for obstacle in obstacles)
        if faces == "whole":
            assert (np.abs(xyz) <= half).all()
        assert (np.abs(xyz[:, 2]) <= half[2]).all()
        assert (np.abs(centre) <= half).all()


def test_a_ratio_is_kept_to_the_molecule() -> None:
    ratio = Ratio({"target": 1, "distractor": 3}, 24)
    packing = pack((30, 40, 40), 10.0, MIXED, LIBRARY, gap=3, seed=1, fill=ratio)
    target, distractor = packing.groups
    assert (target.group, target.asked, target.placed) == ("target", 6, 6)
    assert (distractor.group, distractor.asked, distractor.placed) == ("distractor", 18, 18)
    assert sum(n or 0 for n in packing.asked) == 24
    assert 3 <= packing.achieved[1] <= 6  # a quarter of 18 by its share
    assert sum(g.mg_per_ml for g in packing.groups) == pytest.approx(packing.concentration)


@pytest.mark.parametrize("faces", ["whole", "cut"])
def test_a_concentration_is_met(faces: str) -> None:
    found = [
        pack((30, 50, 50), 10.0, MIXED, LIBRARY, gap=3, seed=s, fill=Concentration(40), faces=faces)  # type: ignore[arg-type]
        for s in range(6)
    ]
    one = BIG.mass * quantities.MG_PER_ML / (30 * 50 * 50 * 1000)
    # what sticks out of cut faces is foreseen on average over the box
    within = one if faces == "whole" else 1.5
    assert np.mean([p.concentration for p in found]) == pytest.approx(40, abs=within)
    for p in found:
        assert sum(g.asked_mg_per_ml or 0 for g in p.groups) == pytest.approx(40, abs=2 * one)
        assert sum(p.achieved) == sum(n or 0 for n in p.asked)


def test_saturation_ends_when_nothing_fits_any_more() -> None:
    packing = pack((20, 25, 25), 10.0, MIXED, LIBRARY, gap=3, seed=3, fill=Saturation())
    assert packing.asked == (None, None, None)
    assert packing.saturated == (True, True, True)
    assert all(group.asked is None and group.asked_mg_per_ml is None for group in packing.groups)
    assert all(n > 0 for n in packing.achieved)
    # all atoms of what stands there, as one obstacle: the smallest does not fit beside it
    tree = cKDTree(np.concatenate(placed_atoms(packing, LIBRARY)))
    full = Packed(tree)
    again = [
        pack((20, 25, 25), 10.0, [Request(BIG.digest, 1)], LIBRARY, gap=3, seed=s, obstacles=[full])
        for s in range(3)
    ]
    assert sum(len(p.which) for p in again) == 0
    less = pack((20, 25, 25), 10.0, MIXED, LIBRARY, gap=3, seed=3)
    assert less.concentration < packing.concentration
    assert less.saturated == (False, False, False)


@dataclass(frozen=True)
class Packed:
    """Atoms as an obstacle."""

    tree: cKDTree

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self.tree.query(points)[0], np.float64)


def test_parts_hold_in_a_saturated_box_as_long_as_molecules_are_alike() -> None:
    twin = centred("twin", MIDDLE.elements, MIDDLE.positions, MIDDLE.backbone)
    library = {**LIBRARY, twin.digest: twin}
    requests = [Request(MIDDLE.digest, group="a"), Request(twin.digest, group="b")]
    fill = Saturation(parts={"a": 1, "b": 3}, at_least=0.1)
    packing = pack((30, 40, 40), 10.0, requests, library, gap=3, seed=1, fill=fill)
    assert packing.achieved[1] / packing.achieved[0] == pytest.approx(3, rel=0.2)


def test_molecules_pack_against_an_obstacle_and_never_into_it() -> None:
    ball = Ball((0, 0, 0), 90)
    requests = [Request(SMALL.digest, 25)]
    options = {"gap": 4.0, "seed": 1, "obstacles": [ball], "seeding": "cluster"}
    packing = pack((30, 30, 30), 10.0, requests, LIBRARY, **options)  # type: ignore[arg-type]
    far = [ball.distance(xyz).min() for xyz in placed_atoms(packing, LIBRARY)]
    assert packing.achieved == (25,)
    assert min(far) >= 4
    assert np.median(far) < 4 + 8 + 5  # a bin, and a part of one, from it


def test_cut_faces_are_like_a_field_of_view() -> None:
    whole, cut = (
        pack((12, 30, 30), 10.0, MIXED, LIBRARY, gap=3, seed=2, fill=Saturation(), faces=faces)
        for faces in ("whole", "cut")
    )
    out = [xyz for xyz in placed_atoms(cut, LIBRARY) if (np.abs(xyz[:, :2]) > 150).any()]
    assert len(out) > 5
    assert len(cut.which) > len(whole.which)
    elements = {m.digest: m.elements for m in LIBRARY.values()}
    atoms = placed_atoms(cut, LIBRARY)
    share = [float((np.abs(xyz[:, :2]) <= 150).all(axis=1).mean()) for xyz in atoms]
    mass = sum(
        s * LIBRARY[cut.requests[i].digest].mass for s, i in zip(share, cut.which, strict=True)
    )  # all atoms are nitrogen
    assert {int(e) for each in elements.values() for e in each} == {7}
    assert cut.concentration == pytest.approx(mass / (12 * 30 * 30 * 1000) * quantities.MG_PER_ML)


def test_a_sparse_scene_spreads_over_the_box_or_is_one_cluster() -> None:
    requests = [Request(SMALL.digest, 30)]
    spread = np.concatenate(
        [pack((30, 60, 60), 10.0, requests, LIBRARY, gap=3, seed=s).positions for s in range(8)]
    )
    room = np.array([285, 285, 135])
    counts = np.histogramdd(spread, bins=(3, 3, 2), range=[(-r, r) for r in room])[0]
    # neighbours stand together, so that the numbers scatter more than independent ones would
    assert chisquare(counts.ravel() / 3).pvalue > 0.001
    for axis in range(2):
        assert kstest(spread[::5, axis], "uniform", args=(-room[axis], 2 * room[axis])).pvalue > 0.001
    one = pack((30, 60, 60), 10.0, requests, LIBRARY, gap=3, seed=1, seeding="cluster").positions
    assert np.linalg.norm(one - one.mean(axis=0), axis=1).max() < 120


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**62))
def test_orientations_are_uniform_for_any_seed(seed: int) -> None:
    """Chi-square on where two axes of the molecules point, of 8 octants; fails once in 30 000 examples."""
    packing = pack((40, 60, 60), 10.0, [Request(SMALL.digest, 300)], LIBRARY, gap=3, seed=seed)
    assert packing.achieved == (300,)
    turns = Rotation.from_quat(packing.quaternions)
    for axis in ([1, 0, 0], [0, 0, 1]):
        octant = (turns.apply(axis) > 0) @ [1, 2, 4]
        assert chisquare(np.bincount(octant, minlength=8)).pvalue > 1e-5


ELSEWHERE = """
import hashlib, sys
sys.path[:0] = sys.argv[1:]
from test_quantities import fingerprint
print(fingerprint())
"""


def fingerprint() -> str:
    """Hash of a packing's bits."""
    obstacles = [Ball((20, 10, 0), 40)]
    packing = pack((20, 30, 30), 10.0, MIXED, LIBRARY, gap=3, seed=11, fill=Saturation(), obstacles=obstacles)
    content = (packing.which, packing.positions, packing.quaternions)
    return hashlib.sha256(b"".join(array.tobytes() for array in content)).hexdigest()


def test_another_process_packs_the_same_to_the_bit() -> None:
    from pathlib import Path

    here = Path(__file__).resolve()
    command = [sys.executable, "-c", ELSEWHERE, str(here.parent), str(here.parents[3])]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == fingerprint()


@settings(deadline=None)
@given(st.lists(st.floats(0, 50), min_size=1, max_size=30), st.integers(0, 2**32))
def test_numbers_are_rounded_up_or_down_and_sum_to_what_they_should(numbers: list[float], seed: int) -> None:
    exact = np.array(numbers)
    found = quantities.rounded(exact, np.random.default_rng(seed))
    assert (np.abs(found - exact) < 1 + 1e-9).all()
    assert abs(found.sum() - exact.sum()) < 1 + 1e-9


def test_rounding_is_right_on_average() -> None:
    rng = np.random.default_rng(0)
    mean = np.mean([quantities.rounded(np.full(20, 0.15), rng) for _ in range(2000)], axis=0)
    assert np.allclose(mean, 0.15, atol=0.04)


def test_nothing_wanted_gives_an_empty_packing_whatever_the_fill() -> None:
    for fill in (Counts(), Concentration(50), Saturation(), Concentration(0)):
        packing = pack((20, 20, 20), 10.0, [], LIBRARY, gap=3, seed=1, fill=fill)
        assert len(packing.which) == 0
        assert packing.groups == ()
    none = pack((20, 20, 20), 10.0, [Request(SMALL.digest)], LIBRARY, gap=3, seed=1)
    assert none.achieved == (0,)
    assert nearest_atoms(none, LIBRARY).shape == (0,)


@pytest.mark.parametrize(
    ("fill", "requests", "word"),
    [
        (Concentration(-1.0), MIXED, "concentration"),
        (Concentration(float("nan")), MIXED, "concentration"),
        (Ratio({"target": 1, "distractor": 1}, -1), MIXED, "number of molecules"),
        (Ratio({"target": 1}, 5), MIXED, "has no part for 'distractor'"),
        (Ratio({"target": 1, "distractor": 1, "gold": 2}, 5), MIXED, "no molecule is of that group"),
        (Ratio({"target": -1, "distractor": 1}, 5), MIXED, "zero or more"),
        (Ratio({"target": 0, "distractor": 0}, 5), MIXED, "all parts"),
        (Saturation(at_least=0.0), MIXED, "at_least"),
        (Saturation(), [Request(SMALL.digest, share=-1)], "share"),
        (Counts(), [Request(SMALL.digest, 1, priority=float("inf"))], "priority"),
    ],
)
def test_what_makes_no_sense_is_refused(fill: Fill, requests: list[Request], word: str) -> None:
    with pytest.raises(InputError, match=word):
        pack((20, 20, 20), 10.0, requests, LIBRARY, gap=3, seed=1, fill=fill)


@pytest.mark.parametrize("key", ["faces", "seeding"])
def test_unknown_words_are_refused(key: str) -> None:
    with pytest.raises(InputError, match=f"{key} must be"):
        pack((20, 20, 20), 10.0, MIXED, LIBRARY, gap=3, seed=1, **{key: "round"})  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [np.zeros(3), np.full((5, 1), np.nan), np.nan])
def test_an_obstacle_that_gives_no_distances_is_refused(answer: NDArray[np.float64]) -> None:
    class Odd:
        def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
            return answer if np.ndim(answer) else np.full(len(points), answer)

    with pytest.raises(InputError, match="Odd's returned shape"):
        pack((20, 20, 20), 10.0, MIXED, LIBRARY, gap=3, seed=1, obstacles=[Odd()])


def test_the_gap_holds_between_the_points_that_pseudo_atoms_stand_for() -> None:
    spread = centred(
        "map", np.full(12, 6), np.random.default_rng(0).normal(size=(12, 3)) * 20, np.ones(12, bool),
        occupancy=np.full(12, 60), sigma=np.full(12, 6),
    )  # fmt: skip
    library = {spread.digest: spread}
    packing = pack((20, 25, 25), 10.0, [Request(spread.digest)], library, gap=4, seed=1, fill=Saturation())
    assert len(packing.which) > 5
    points = placed_atoms(packing, {spread.digest: spread.points})
    assert len(points[0]) > 12
    assert closest(points) >= 4
    assert nearest_atoms(packing, library).min() == pytest.approx(closest(points))
    assert all((np.abs(xyz) <= [125, 125, 100]).all() for xyz in points)
