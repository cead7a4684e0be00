"""Tetris: pack molecules densely, each as close as possible to those already placed.

The rule is that of the template-learning paper (Harastani et al.): the next molecule, at a uniformly
random orientation, goes where it touches what is there the most, a minimum distance kept.

How it is found. The box is divided into bins. A bin is occupied if an atom lies in it. A molecule may
not stand where one of its *reach* bins, those with any point within the gap of one of its atoms, is
occupied: no atom can then be nearer than the gap, whatever the size of the bins. Among the positions
that remain, the best has the most occupied bins in the molecule's *shell*, the layer of bins around its
reach. Bins along z are the bits of 64-bit words, so that one shift and one OR test 64 positions at once,
and positions are scored only beside forbidden ones, where the contacts are.

Molecules are not bound to the bins' lattice: each is shifted by a random fraction of a bin before it is
binned, so positions are continuous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from catalogs.seeds import generator
from tlgen import obstacles
from tlgen.envelope import envelope
from tlgen.molecule import Library, Molecule
from tlgen.obstacles import Bits, Bytes, Integers

#: Å; edge of a bin.
BIN_SIZE = 8.0

#: mg/ml in one dalton per cubic angstrom.
MG_PER_ML = 1660.53907

#: Å; rounding in the positions must not eat into the gap, nor push an atom through a face.
_SLACK = 1e-5


@dataclass(frozen=True)
class Request:
    """How many of a molecule are wanted.

    Attributes
    ----------
    digest
        Of the molecule, in the library.
    count
        How many to place, if they fit.
    priority
        Molecules are placed roughly from the biggest to the smallest; 1 more priority lets a molecule
        go with those of *e* times its volume.
    """

    digest: str
    count: int
    priority: float = 0.0


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the molecules came to stand; ``which``, ``positions`` and ``quaternions`` are a scene's.

    Attributes
    ----------
    requests
        What was asked for.
    which
        (n,) index of each placed molecule into ``requests``, in the order of placement.
    positions
        (n, 3) x, y, z in Å of each molecule's centre from the centre of the box.
    quaternions
        (n, 4) x, y, z, w of each molecule's rotation, particle -> tomogram.
    occupancy
        Share of the box that the molecules fill, at 1.35 g/cm³.
    concentration
        mg/ml of molecules in the box.
    """

    requests: tuple[Request, ...]
    which: NDArray[np.int64]
    positions: NDArray[np.float64]
    quaternions: NDArray[np.float64]
    occupancy: float
    concentration: float

    @property
    def asked(self) -> tuple[int, ...]:
        """Count that each request asked for."""
        return tuple(request.count for request in self.requests)

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
    max_occupancy: float = 1.0,
    orientations: int = 1,
    patience: int = 8,
    mixing: float = 1.0,
    bin_size: float = BIN_SIZE,
) -> Packing:
    """Pack molecules into a box; whole, and nowhere nearer to each other than the gap.

    The first molecule stands anywhere in the box. One that does not fit is left out and the next is
    tried; so the box fills with big ones first and with small ones in what remains.

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
        Å; no two atoms of two molecules come nearer than this.
    seed
        The same seed gives the same packing, anywhere.
    max_occupancy
        Share of the box (at 1.35 g/cm³) that is not to be exceeded.
    orientations
        Tried for each molecule; the one that touches the most is taken. With 1, as in the paper,
        orientations are uniform; more pack tighter.
    patience
        Orientations in which a molecule is tried before it is found not to fit. The box only gets
        fuller, so no more of this molecule are tried after that.
    mixing
        0: strictly from big to small. Else the order is by volume times ``exp(mixing * N(0, 1))``,
        so that sizes, and with them targets and distractors, come to stand beside each other.
    bin_size
        Å; smaller bins pack tighter, at a cost that grows with about the fifth power.

    Returns
    -------
    Packing
        What was placed, where.

    Raises
    ------
    InputError
        If a number makes no sense, such as a negative gap or count.
    """
    _check(shape, voxel_size, requests, gap, max_occupancy, orientations, patience, mixing, bin_size)
    rng = generator(seed, "tetris")
    molecules = [library[request.digest].points for request in requests]
    box = np.array(shape[::-1], np.float64) * voxel_size
    bins = _Bins(box, bin_size, gap)
    solids = {i: _solid(molecules[i]) for i, request in enumerate(requests) if request.count}
    room = max_occupancy * float(box.prod())
    given_up: set[int] = set()
    placed: list[tuple[int, _Pose]] = []
    for i in _order(requests, molecules, mixing, rng):
        if i in given_up or molecules[i].volume > room:
            continue
        pose = _best_pose(bins, solids[i], len(molecules[i].positions), orientations, patience, rng)
        if pose is None:
            given_up.add(i)
            continue
        bins.occupy(pose)
        placed.append((i, pose))
        room -= molecules[i].volume
    which = np.array([i for i, _ in placed], np.int64)
    mass = sum(molecules[i].mass for i in which)
    volume = sum(molecules[i].volume for i in which)
    return Packing(
        requests=tuple(requests),
        which=which,
        positions=np.array([pose.position for _, pose in placed], np.float64).reshape(-1, 3),
        quaternions=np.array([pose.quaternion for _, pose in placed], np.float64).reshape(-1, 4),
        occupancy=float(volume / box.prod()),
        concentration=float(mass / box.prod() * MG_PER_ML),
    )


def nearest_atoms(packing: Packing, library: Library, *, within: float = 50.0) -> NDArray[np.float64]:
    """Measure how near each molecule comes to another, from the atoms themselves.

    Parameters
    ----------
    packing
        What stands where.
    library
        The molecules, by digest.
    within
        Å; farther neighbours are not looked for.

    Returns
    -------
    ndarray
        (n,) Å from each molecule's atoms to the nearest atom of any other; infinite beyond ``within``.
    """
    atoms = [
        Rotation.from_quat(q).apply(library[packing.requests[i].digest].points.positions) + p
        for i, q, p in zip(packing.which, packing.quaternions, packing.positions, strict=True)
    ]
    trees = [cKDTree(xyz) for xyz in atoms]
    low = np.array([xyz.min(axis=0) for xyz in atoms]).reshape(-1, 3)
    high = np.array([xyz.max(axis=0) for xyz in atoms]).reshape(-1, 3)
    nearest = np.full(len(atoms), np.inf)
    for a in range(len(atoms)):
        apart = np.linalg.norm(
            np.maximum(0, np.maximum(low - high[a], low[a] - high)), axis=1
        )  # of the bounds
        for b in a + 1 + np.argsort(apart[a + 1 :], kind="stable"):
            limit = min(within, max(nearest[a], nearest[b]))
            if apart[b] >= limit:
                continue
            few, many = (a, b) if len(atoms[a]) < len(atoms[b]) else (b, a)
            near = ((atoms[few] > low[many] - limit) & (atoms[few] < high[many] + limit)).all(axis=1)
            some = trees[many].query(atoms[few][near][::30], distance_upper_bound=limit)[
                0
            ]  # bounds the search
            limit = min(limit, np.nextafter(some.min(initial=np.inf), np.inf))
            distance = trees[many].query(atoms[few][near], distance_upper_bound=limit)[0].min(initial=np.inf)
            nearest[[a, b]] = np.minimum(nearest[[a, b]], distance)
    return nearest


# ---------------------------------------------------------------- the rule


@dataclass(frozen=True, eq=False)
class _Pose:
    """A molecule at an orientation, binned, and the place found for it."""

    quaternion: NDArray[np.float64]
    position: NDArray[np.float64]  # Å from the centre of the box
    occupied: Bytes  # (nx, ny, nz) 1 in the molecule's bins
    corner: Integers  # bin of the box where `occupied` begins
    contact: int  # occupied bins in the shell


def _check(
    shape: tuple[int, int, int],
    voxel_size: float,
    requests: Sequence[Request],
    gap: float,
    max_occupancy: float,
    orientations: int,
    patience: int,
    mixing: float,
    bin_size: float,
) -> None:
    """Refuse numbers that make no sense."""
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
    for request in requests:
        if request.count < 0:
            raise InputError(
                f"the count of molecule {request.digest} must be zero or more, not {request.count}"
            )


def _order(
    requests: Sequence[Request], molecules: Sequence[Molecule], mixing: float, rng: np.random.Generator
) -> Integers:
    """Put all copies in the order in which they are tried: big ones first, but mixed."""
    copies = np.repeat(np.arange(len(requests)), [request.count for request in requests])
    size = np.array([np.log(m.volume) + r.priority for m, r in zip(molecules, requests, strict=True)])
    key = size[copies] + mixing * rng.normal(size=len(copies))
    return copies[np.argsort(-key, kind="stable")]


def _solid(molecule: Molecule) -> NDArray[np.float64]:
    """Points that a molecule keeps others from: its atoms first, then the voids that it encloses.

    Nothing could have diffused into a closed shell, and a shell not around anything.
    """
    return np.concatenate([molecule.positions.astype(np.float64), envelope(molecule).cavities()])


def _best_pose(
    bins: _Bins,
    solid: NDArray[np.float64],
    n_atoms: int,
    orientations: int,
    patience: int,
    rng: np.random.Generator,
) -> _Pose | None:
    """Try orientations; of the first few the one with most contact, else the first that fits at all."""
    best: _Pose | None = None
    for attempt in range(max(orientations, patience)):
        if attempt >= orientations and best is not None:
            break
        pose = bins.place(solid, n_atoms, rng)
        if pose is not None and (best is None or pose.contact > best.contact):
            best = pose
    return best


class _Bins:
    """The box in bins: what is occupied, and where something fits.

    Bins are indexed x, y, z from a margin below the box's lowest corner, so that the reach and the shell of
    a molecule at a face lie on the grid, too.
    """

    def __init__(self, box: NDArray[np.float64], size: float, gap: float) -> None:
        self.box, self.size, self.gap = box, size, gap + _SLACK
        # bins around a molecule's own for its reach and its shell, and one more to look beside a position
        self.around = int(np.ceil(self.gap / size)) + 1
        self.margin = self.around + 1
        nx, ny, nz = np.floor(box / size).astype(np.int64) + 1 + 2 * self.margin
        self.words = int(-(-nz // obstacles.BITS))
        #: [x, y, word]: columns along z, for counting contacts; the last word is always empty.
        self.columns: Bits = np.zeros((nx, ny, self.words + 1), np.uint64)
        #: [p, word, x, y]: bit z says that one of the bins z ... z + 2**p - 1 is occupied.
        self.smeared: Bits = np.zeros((obstacles.COPIES, self.words, nx, ny), np.uint64)
        self.centres: list[NDArray[np.int64]] = []

    def place(self, solid: NDArray[np.float64], n_atoms: int, rng: np.random.Generator) -> _Pose | None:
        """Turn a molecule at random and find the place where it touches the most; None if it fits nowhere."""
        quaternion = rng.normal(size=4)
        quaternion /= np.linalg.norm(quaternion)
        shift = rng.uniform(0, self.size, size=3)
        salt = int(rng.integers(2**63))
        points = solid @ Rotation.from_quat(quaternion).as_matrix().T + shift
        atoms = points[:n_atoms]
        lowest = np.ceil((_SLACK - atoms.min(axis=0)) / self.size).astype(np.int64)
        highest = np.floor((self.box - _SLACK - atoms.max(axis=0)) / self.size).astype(np.int64)
        if (lowest > highest).any():
            return None
        first = np.floor(points.min(axis=0) / self.size).astype(np.int64) - self.around
        last = np.floor(points.max(axis=0) / self.size).astype(np.int64) + self.around
        occupied, reach = obstacles.rasterise(
            points / self.size - first, last - first + 1, self.gap / self.size
        )
        lo, hi = lowest + first + self.margin, highest + first + self.margin + 1
        if not self.centres:
            corner, contact = rng.integers(lo, hi), 0
        else:
            corner, contact = self._search(reach, lo, hi, salt, -first)
            if contact < 0:
                return None
        position = shift + (corner - first - self.margin) * self.size - self.box / 2
        return _Pose(quaternion, position, occupied, corner, contact)

    def occupy(self, pose: _Pose) -> None:
        """Put a molecule at the place that was found for it."""
        obstacles.stamp(self.columns, self.smeared, pose.occupied, pose.corner)
        self.centres.append(pose.corner + np.array(pose.occupied.shape) // 2)

    def _search(
        self, reach: Bytes, lo: Integers, hi: Integers, salt: int, middle: Integers
    ) -> tuple[Integers, int]:
        """Find the corner in lo <= corner < hi with the most contact; contact -1 if there is none free."""
        forbidden = obstacles.forbidden(self.smeared, obstacles.runs(reach), lo, hi)
        allowed = obstacles.bits(lo[2], hi[2], self.words)
        shell = obstacles.runs(obstacles.grown(reach) - reach)
        for wedged in (True, False):
            best = obstacles.most_contact(
                forbidden, self.columns, allowed, shell, lo, hi, np.uint64(salt), wedged
            )
            if best[0] > 0:
                break
        else:  # no free place beside anything: the nearest to what is there
            target = np.mean(self.centres, axis=0) - middle
            best = obstacles.nearest_free(forbidden, allowed, lo, hi, target)
        return np.array(best[1:], np.int64), int(best[0])
