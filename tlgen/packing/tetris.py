"""Tetris: pack molecules densely, each as close as possible to those already placed.

The rule is that of the template-learning paper (Harastani et al.): the next molecule, at a uniformly random
orientation, is placed where it has most contact with the others, at a minimum distance; around a random
place, or in the whole box.

The algorithm: the box is divided into bins. A bin is occupied if it contains an atom. A molecule is not
placed where one of its *reach* bins, those with any point within the gap of one of its atoms, is occupied:
then no atom can be nearer than the gap, whatever the size of the bins. Among the remaining positions, the
best one has the most occupied bins in the molecule's *shell*, the layer of bins around its reach. Bins along
z are the bits of 64-bit words, so that one shift and one OR test 64 positions at once, and positions are
scored only beside forbidden ones, where the contacts are.

Positions do not lie on the lattice of bins: each molecule is shifted by a random fraction of a bin before it
is binned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from catalogs.seeds import generator
from tlgen.molecules.molecule import DALTON_PER_CUBIC_ANGSTROM, Library, Molecule
from tlgen.packing import quantities, raster
from tlgen.packing.bins import Bins, Pose
from tlgen.packing.distances import nearest_atoms
from tlgen.packing.quantities import (
    MG_PER_ML,
    Achieved,
    Concentration,
    Counts,
    Fill,
    Ratio,
    Request,
    Saturation,
)

_AS_REQUESTED = Counts()

#: Volume of molecules, over that of the box, in each draw of a saturating fill but the first.
_REFILL = 0.02

__all__ = [
    "BIN_SIZE", "Achieved", "Concentration", "Counts", "Faces", "Fill", "HasDistance", "Packing", "Ratio",
    "Request", "Saturation", "Seeding", "nearest_atoms", "pack",
]  # fmt: skip

#: Å; edge of a bin.
BIN_SIZE = 8.0

#: Whether molecules are completely in the box, or may be cut by its faces in x and y, as in a field of view.
Faces = Literal["whole", "cut"]

#: Whether molecules grow one cluster, or clusters all over the box.
Seeding = Literal["spread", "cluster"]


class HasDistance(Protocol):
    """An object that is in the box before the molecules: a membrane, a gold bead, an edge of carbon."""

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance in Å from points to the surface, negative inside.

        Parameters
        ----------
        points
            (n, 3) x, y, z in Å from the centre of the box.

        Returns
        -------
        ndarray
            (n,) Å; outside it may be less than the distance, never more.
        """


@dataclass(frozen=True, eq=False)
class Packing:
    """The packed molecules; ``which``, ``positions`` and ``quaternions`` are as in a scene.

    Attributes
    ----------
    requests
        The requests.
    asked
        Count that was asked for of each request; None where as many as fit.
    which
        (n,) index of each placed molecule into ``requests``, in the order of placement.
    positions
        (n, 3) x, y, z in Å of each molecule's centre from the centre of the box.
    quaternions
        (n, 4) x, y, z, w of each molecule's rotation, particle -> tomogram.
    saturated
        True for each request whose molecule no longer fits.
    occupancy
        Share of the box that the molecules fill, at 1.35 g/cm³.
    concentration
        mg/ml of molecules in the box; parts outside of it do not count.
    groups
        What was asked for and what was achieved, by group.
    """

    requests: tuple[Request, ...]
    asked: tuple[int | None, ...]
    which: NDArray[np.int64]
    positions: NDArray[np.float64]
    quaternions: NDArray[np.float64]
    saturated: tuple[bool, ...]
    occupancy: float
    concentration: float
    groups: tuple[Achieved, ...]

    @property
    def achieved(self) -> tuple[int, ...]:
        """Count that was placed of each request."""
        return tuple(int(n) for n in np.bincount(self.which, minlength=len(self.requests)))


def pack(
    shape: tuple[int, int, int],
    voxel_size: float,
    requests: Sequence[Request],
    library: Library,
    *,
    gap: float,
    seed: int,
    fill: Fill = _AS_REQUESTED,
    faces: Faces = "whole",
    obstacles: Sequence[HasDistance] = (),
    seeding: Seeding = "spread",
    max_occupancy: float = 1.0,
    orientations: int = 1,
    patience: int = 8,
    mixing: float = 1.0,
    bin_size: float = BIN_SIZE,
) -> Packing:
    """Pack molecules into a box, at least the gap apart.

    A molecule that does not fit is left out, and the next one is tried; so large molecules are placed first,
    and small ones fill the remaining space.

    Parameters
    ----------
    shape
        Voxels of the box along z, y, x.
    voxel_size
        Å.
    requests
        What to place.
    library
        The molecules, by digest.
    gap
        Å; no two atoms of two molecules come nearer than this, nor an atom to an obstacle.
    seed
        The same seed gives the same packing, anywhere.
    fill
        How many: ``Counts()`` as the requests say, ``Ratio``, ``Concentration`` or ``Saturation``.
    faces
        ``whole``: every atom is in the box. ``cut``: centres are in the box, but atoms may be outside along x
        and y, as at the edge of a field of view. Along z every atom is in the box.
    obstacles
        Objects that are in the box already.
    seeding
        ``spread``: each molecule is placed where it has most contact within 100 Å of a random place; if it
        does not fit there, within 300 Å, or in the whole box. A box that is not full has small clusters all
        over it. ``cluster``: each molecule is placed where it has most contact in the whole box, as in the
        paper. A box that is not full has one large cluster.
    max_occupancy
        Largest share of the box that molecules may fill, at 1.35 g/cm³.
    orientations
        Orientations that are tried for each molecule; the one with most contact is used. With 1, as in the
        paper, orientations are uniform; more give a tighter packing.
    patience
        Orientations in which a molecule is tried before it is found not to fit. The box only gets
        fuller, so no more of this molecule are tried after that.
    mixing
        0: strictly from large to small. Otherwise the order is by volume times ``exp(mixing * N(0, 1))``, so
        that sizes, and with them targets and distractors, are mixed.
    bin_size
        Å; smaller bins give a tighter packing, at a cost that grows with about the fifth power.

    Returns
    -------
    Packing
        What was asked for, what was placed, and where.

    Raises
    ------
    InputError
        If a number is not valid, such as a negative gap or count.
    """
    _check(shape, voxel_size, gap, faces, seeding, max_occupancy, orientations, patience, mixing, bin_size)
    quantities.check(fill, requests)
    rng = generator(seed, "tetris")
    molecules = [library[request.digest].points for request in requests]
    box = np.array(shape[::-1], np.float64) * voxel_size
    within = np.array([_share_within(m, box) if faces == "cut" else 1.0 for m in molecules])
    masses = np.array([m.mass for m in molecules]) * within
    counts = quantities.counts(fill, requests, masses, float(box.prod()), rng)

    wanted = np.flatnonzero(quantities.weights(fill, requests) > 0)
    solids = {int(i): _solid(molecules[i]) for i in wanted}
    extent = max((_extent(solid) for solid in solids.values()), default=0.0)
    bins = Bins(box, bin_size, gap, extent, faces == "cut")
    for obstacle in obstacles:
        bins.block(obstacle)

    room = max_occupancy * float(box.prod())
    given_up: set[int] = set()  # no longer fit
    left_out: set[int] = set()  # or would exceed the occupancy
    placed: list[tuple[int, Pose]] = []
    for i in _sequence(fill, requests, molecules, counts, float(box.prod()), mixing, left_out, rng):
        if i in left_out:
            continue
        if molecules[i].volume > room:
            left_out.add(i)
            continue
        pose = _best_pose(bins, solids[i], molecules[i].n_atoms, seeding, orientations, patience, rng)
        if pose is None:
            given_up.add(i)
            left_out.add(i)
            continue
        bins.occupy(pose)
        placed.append((i, pose))
        room -= molecules[i].volume * within[i]
    which = np.array([i for i, _ in placed], np.int64)
    positions = np.array([pose.position for _, pose in placed], np.float64).reshape(-1, 3)
    quaternions = np.array([pose.quaternion for _, pose in placed], np.float64).reshape(-1, 4)
    inside = np.array([_mass_within(molecules[i], pose, box) for i, pose in placed], np.float64)
    return summed_up(
        requests, counts, which, positions, quaternions, given_up, masses, inside, float(box.prod())
    )


# ---------------------------------------------------------------- the rule


def _check(
    shape: tuple[int, int, int],
    voxel_size: float,
    gap: float,
    faces: str,
    seeding: str,
    max_occupancy: float,
    orientations: int,
    patience: int,
    mixing: float,
    bin_size: float,
) -> None:
    """Refuse numbers and words that make no sense."""
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape must be three positive numbers of voxels (z, y, x), not {shape}")
    for name, value in (("voxel_size", voxel_size), ("bin_size", bin_size)):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} must be a positive length in Å, not {value}")
    for name, value in (("gap", gap), ("mixing", mixing), ("max_occupancy", max_occupancy)):
        if not (np.isfinite(value) and value >= 0):
            raise InputError(f"{name} must be zero or more, not {value}")
    for name, value in (("orientations", orientations), ("patience", patience)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")
    for name, word, known in (("faces", faces, get_args(Faces)), ("seeding", seeding, get_args(Seeding))):
        if word not in known:
            raise InputError(f"{name} must be {' or '.join(known)}, not {word!r}")


def _sequence(
    fill: Fill,
    requests: Sequence[Request],
    molecules: Sequence[Molecule],
    counts: NDArray[np.int64] | None,
    box: float,
    mixing: float,
    left_out: set[int],
    rng: np.random.Generator,
) -> Iterator[int]:
    """Yield the molecules in the order in which they are tried: big ones first, but mixed.

    Without counts, draw after draw, as long as there are molecules that are not left out.
    """
    if counts is not None:
        yield from _order(requests, molecules, counts, mixing, rng)
        return
    assert isinstance(fill, Saturation)
    share = quantities.weights(fill, requests)
    volumes = np.array([m.volume for m in molecules], np.float64)
    draw = fill.at_least * box
    while True:
        share[list(left_out)] = 0.0
        if not share.any():
            return
        number = draw / (share @ volumes)  # of molecules, for shares that sum to 1
        drawn = quantities.rounded(number * share, rng)
        if not drawn.any():
            drawn[rng.choice(len(share), p=share / share.sum())] = 1
        yield from _order(requests, molecules, drawn, mixing, rng)
        draw = _REFILL * box


def _order(
    requests: Sequence[Request],
    molecules: Sequence[Molecule],
    counts: NDArray[np.int64],
    mixing: float,
    rng: np.random.Generator,
) -> list[int]:
    copies = np.repeat(np.arange(len(requests)), counts)
    size = np.array([np.log(m.volume) + r.priority for m, r in zip(molecules, requests, strict=True)])
    key = size[copies] + mixing * rng.normal(size=len(copies))
    return [int(i) for i in copies[np.argsort(-key, kind="stable")]]


def _solid(molecule: Molecule) -> NDArray[np.float64]:
    """Points that must stay free of other molecules: the molecule's atoms, then the voids that it encloses.

    No molecule can diffuse into a closed shell, and no shell can close around a molecule.
    """
    atoms = molecule.positions.astype(np.float64)
    return np.concatenate([atoms, raster.voids(atoms)])


def _extent(points: NDArray[np.floating[Any]]) -> float:
    """Å from the centre to the farthest point."""
    return float(np.linalg.norm(points, axis=1).max())


def _best_pose(
    bins: Bins,
    solid: NDArray[np.float64],
    n_atoms: int,
    seeding: Seeding,
    orientations: int,
    patience: int,
    rng: np.random.Generator,
) -> Pose | None:
    """Try orientations; returns the best of the first few, or else the first one that fits."""
    best: Pose | None = None
    for attempt in range(max(orientations, patience)):
        if attempt >= orientations and best is not None:
            break
        pose = bins.place(solid, n_atoms, rng, spread=seeding == "spread")
        if pose is not None and (best is None or pose.contact > best.contact):
            best = pose
    return best


# ---------------------------------------------------------------- what came of it


def _share_within(molecule: Molecule, box: NDArray[np.float64]) -> float:
    """Share of a molecule that is in the box, on average, if its centre is anywhere in it.

    An atom at a distance r from the centre is r/2 from it along an axis, on average over orientations.
    """
    r = np.linalg.norm(molecule.positions, axis=1).mean()
    return float(np.prod(np.maximum(0.0, 1 - r / 2 / box[:2])))


def _mass_within(molecule: Molecule, pose: Pose, box: NDArray[np.float64]) -> float:
    """Mass in Da of the atoms that are in the box."""
    half = box[:2] / 2
    if (np.abs(pose.position[:2]) + _extent(molecule.positions) <= half).all():
        return molecule.mass
    xy = (Rotation.from_quat(pose.quaternion).apply(molecule.positions) + pose.position)[:, :2]
    weights = molecule.elements * molecule.occupancy.astype(np.float64)
    return float(molecule.mass * weights[(np.abs(xy) <= half).all(axis=1)].sum() / weights.sum())


def summed_up(
    requests: Sequence[Request],
    counts: NDArray[np.int64] | None,
    which: NDArray[np.int64],
    positions: NDArray[np.float64],
    quaternions: NDArray[np.float64],
    given_up: set[int],
    masses: NDArray[np.float64],
    inside: NDArray[np.float64],
    box: float,
) -> Packing:
    """Make a packing's report.

    Parameters
    ----------
    requests, which, positions, quaternions
        As in the packing.
    counts
        Asked for of each request; None if as many as fit.
    given_up
        Requests that no longer fitted.
    masses
        (requests,) Da that a molecule of each adds to the box, on average.
    inside
        (placed,) Da that each added.
    box
        Å³.
    """
    concentration = float(inside.sum() / box * MG_PER_ML)
    return Packing(
        requests=tuple(requests),
        asked=(None,) * len(requests) if counts is None else tuple(int(n) for n in counts),
        which=which,
        positions=positions,
        quaternions=quaternions,
        saturated=tuple(i in given_up for i in range(len(requests))),
        occupancy=concentration / MG_PER_ML / DALTON_PER_CUBIC_ANGSTROM,
        concentration=concentration,
        groups=_by_group(requests, counts, which, masses, inside, box),
    )


def _by_group(
    requests: Sequence[Request],
    counts: NDArray[np.int64] | None,
    which: NDArray[np.int64],
    masses: NDArray[np.float64],
    inside: NDArray[np.float64],
    box: float,
) -> tuple[Achieved, ...]:
    """Sum up requested and placed molecules by group, in the order in which groups are first named."""
    found = []
    for group in dict.fromkeys(request.group for request in requests):
        own = np.array([request.group == group for request in requests])
        mine = own[which]
        found.append(
            Achieved(
                group=group,
                asked=None if counts is None else int(counts[own].sum()),
                placed=int(mine.sum()),
                asked_mg_per_ml=None
                if counts is None
                else float(counts[own] @ masses[own] / box * MG_PER_ML),
                mg_per_ml=float(inside[mine].sum() / box * MG_PER_ML),
            )
        )
    return tuple(found)
